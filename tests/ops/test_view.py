"""Views and data movement against NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from effcc.errors import TypeRuleError
from effcc.ir import Symbol, Tensor, evaluate, f32, i64
from effcc.ir.evaluator import evaluate_nest
from effcc.ops.view import BroadcastTo, Concat, Pad, Repeat, Reshape, Slice, Transpose

X = np.arange(24, dtype="f4").reshape(2, 3, 4)
shapes = st.lists(st.integers(0, 4), max_size=4).map(tuple)


def numbers(shape: tuple[int, ...], dtype: str = "f4") -> np.ndarray:
    return np.arange(int(np.prod(shape))).reshape(shape).astype(dtype)


FACTORED = [
    ((2, 3, 4), (6, 4)),
    ((2, 3, 4), (2, 12)),
    ((2, 3, 4), (4, 3, 2)),
    ((24,), (2, 3, 4)),
    ((6, 4), (3, 8)),
    ((1, 6, 1), (2, 1, 3)),
    ((), (1, 1)),
    ((1,), ()),
    ((0, 3), (3, 0)),
    ((2, 0), (0,)),
    ((4, 6), (2, 2, 3, 2)),
    ((2, 2, 3, 2), (4, 6)),
    ((5, 1, 7), (5, 7)),
]


@pytest.mark.parametrize("before,after", FACTORED)
def test_reshape(agree, before, after):
    out = agree(Reshape(after), numbers(before), with_symbols=False)
    np.testing.assert_array_equal(out.numpy(), numbers(before).reshape(after))


def test_reshape_with_symbols():
    n, m = Symbol("n"), Symbol("m")
    for before, after in [
        ((n, m * 2), (n, 2, m)),
        ((n, 2, m), (n * 2, m)),
        ((n, m), (m, n)),
        ((n * m,), (n, m)),
        ((n, 4, 3), (n, 12)),
        ((2, n, 3), (n * 6,)),
        ((n * 6,), (2, n, 3)),
        ((n, m, 4), (n * m, 2, 2)),
    ]:
        for values in ({n: 2, m: 3}, {n: 1, m: 1}, {n: 5, m: 2}, {n: 0, m: 4}):
            x = numbers(tuple(evaluate(d, values) for d in before))
            got = evaluate_nest(Reshape(after).compute(Tensor(f32, before)), (x,), (Tensor(f32, after),), values)[0]
            np.testing.assert_array_equal(got, x.reshape([evaluate(d, values) for d in after]))


@settings(max_examples=30, deadline=None)
@given(shape=shapes, data=st.data())
def test_transpose(agree, shape, data):
    perm = tuple(data.draw(st.permutations(range(len(shape)))))
    np.testing.assert_array_equal(agree(Transpose(perm), numbers(shape)).numpy(), numbers(shape).transpose(perm))


@settings(max_examples=30, deadline=None)
@given(shape=shapes, data=st.data())
def test_broadcast_to(agree, shape, data):
    start = data.draw(st.integers(0, len(shape)))
    source = tuple(1 if data.draw(st.booleans()) else d for d in shape[start:])
    out = agree(BroadcastTo(shape), numbers(source), with_symbols=False)
    np.testing.assert_array_equal(out.numpy(), np.broadcast_to(numbers(source), shape))


@settings(max_examples=60, deadline=None)
@given(shape=shapes, data=st.data())
def test_slice(agree, shape, data):
    starts, stops, steps, index = [], [], [], []
    for d in shape:
        step = data.draw(st.sampled_from([1, 2, 3, -1, -2]))
        start = data.draw(st.integers(0, max(d - 1, 0) if step < 0 else d))
        stop = data.draw(st.integers(-1 if step < 0 else 0, d))
        if step < 0 and d == 0:
            step = 1
        stop = max(stop, 0) if step > 0 else stop
        starts.append(start), stops.append(stop), steps.append(step)
        index.append(slice(start, None if stop == -1 else stop, step))
    out = agree(Slice(tuple(starts), tuple(stops), tuple(steps)), numbers(shape), with_symbols=False)
    np.testing.assert_array_equal(out.numpy(), numbers(shape)[tuple(index)])


def test_slice_with_symbols():
    n = Symbol("n", 3)
    op = Slice((n - 3, n - 1), (n, -1), (1, -2))
    t = Tensor(f32, (n, n))
    (out,) = op.result_types((t,))
    for size in (3, 4, 7):
        x = numbers((size, size))
        np.testing.assert_array_equal(
            evaluate_nest(op.compute(t), (x,), (out,), {n: size})[0], x[size - 3 : size, size - 1 :: -2]
        )


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_concat(agree, axis):
    pieces = [np.moveaxis(numbers((k, 2, 3)), 0, axis) for k in (2, 0, 1, 3)]
    for count in (1, 2, 4):
        np.testing.assert_array_equal(
            agree(Concat(axis), *pieces[:count]).numpy(), np.concatenate(pieces[:count], axis)
        )
    agree(Concat(axis), *(p.astype("i4") for p in pieces))
    agree(Concat(axis), *(p > 2 for p in pieces[:2]))


PADS = [(1, 0, 2, 0, 3, 1), (0, 0, 0, 0, 0, 0), (-1, 1, 0, 0, -1, 2), (0, 2, 3, 1, 2, 3), (5, 4, 0, 3, 0, 9)]


@pytest.mark.parametrize("pads", PADS)
@pytest.mark.parametrize("mode", ["constant", "reflect", "edge", "wrap"])
def test_pad(agree, pads, mode):
    out = agree(Pad(pads, mode), X).numpy()
    grown = [(max(a, 0), max(z, 0)) for a, z in zip(pads[:3], pads[3:])]
    want = np.pad(X, grown, mode)
    want = want[tuple(slice(max(-a, 0), d - max(-z, 0)) for a, z, d in zip(pads[:3], pads[3:], want.shape))]
    np.testing.assert_array_equal(out, want)


def test_pad_values_and_empties(agree):
    out = agree(Pad((1, 0, 0, 2)), numbers((2, 2)), np.float32(7))
    np.testing.assert_array_equal(out.numpy(), np.pad(numbers((2, 2)), ((1, 0), (0, 2)), constant_values=7))
    agree(Pad((1, 1)), np.zeros(0, "f4"))
    agree(Pad(()), np.float32(2))
    agree(Pad((1, 1)), np.array([True]))
    agree(Pad((1, 1)), torch.ones(2, dtype=torch.float16), torch.tensor(2.0, dtype=torch.float16))
    agree(Pad((3, 2), "reflect"), np.array([5], "f4"))


@settings(max_examples=30, deadline=None)
@given(shape=st.lists(st.integers(0, 3), max_size=3).map(tuple), data=st.data())
def test_repeat(agree, shape, data):
    counts = tuple(data.draw(st.integers(0, 3)) for _ in shape)
    np.testing.assert_array_equal(agree(Repeat(counts), numbers(shape)).numpy(), np.tile(numbers(shape), counts))


@pytest.mark.parametrize("dtype", [torch.int8, torch.bool, torch.bfloat16, torch.float16, torch.int64])
def test_any_dtype(agree, dtype):
    x = torch.arange(6).reshape(2, 3).to(dtype)
    for op in (
        Transpose((1, 0)),
        Reshape((3, 2)),
        Slice((0, 2), (2, -1), (1, -1)),
        Repeat((1, 2)),
        Pad((0, 1, 0, 1), "edge"),
    ):
        agree(op, x)


def test_refusals():
    x, n = Tensor(f32, (2, 3)), Symbol("n")
    for op, types, message in [
        (Reshape((4,)), (x,), "6 elements do not fit"),
        (Transpose((0, 0)), (x,), "no permutation"),
        (BroadcastTo((2,)), (x,), "rank 2 is greater"),
        (BroadcastTo((2, 4)), (x,), "do not broadcast|does not broadcast"),
        (Slice((0,), (1,), (1,)), (x,), "for each of 2 axes"),
        (Slice((0, 0), (2, 5), (1, 1)), (x,), "stop 5 of axis 1"),
        (Slice((0, 0), (1, 1), (1, 0)), (x,), "a step is 0"),
        (Concat(0), (x, Tensor(f32, (2, 4))), "size on axis 1: 3 and 4"),
        (Concat(0), (x, Tensor(i64, (2, 3))), "differ in dtype"),
        (Pad((0, 0)), (x,), "needs 4 amounts"),
        (Pad((-3, 0, 0, 0)), (x,), "crop more"),
        (Pad((0,) * 4, "mirror"), (x,), "unknown mode"),
        (Repeat((1,)), (x,), "needs 2 counts"),
    ]:
        with pytest.raises(TypeRuleError, match=message):
            op.result_types(types)
    assert Concat(0).result_types((Tensor(f32, (n, 3)), x)) == (Tensor(f32, (n + 2, 3)),)


def test_nothing_is_repeated_less_than_never():
    with pytest.raises(TypeRuleError, match="repeat counts from 0"):
        Repeat(counts=(1, -1)).infer(Tensor(f32, (1, 2)))
