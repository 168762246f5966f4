"""Ordering and selection, by the references: they are the meaning that backends' routines are held against."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from effcc.errors import TypeRuleError
from effcc.interp import run
from effcc.ir import Builder, Op, Symbol, Tensor, f32, i64
from effcc.ir.types import DType
from effcc.ops.sort import Argsort, Nms, Sort, TopK, Unique

N = Symbol("n", 0)


def evaluate(op: Op, *operands: np.ndarray) -> tuple[torch.Tensor, ...]:
    tensors = tuple(torch.from_numpy(np.asarray(x)) for x in operands)
    b = Builder()
    inputs = tuple(b.input(f"x{k}", Tensor(DType.of(t.dtype), tuple(t.shape))) for k, t in enumerate(tensors))
    return run(b.graph(*b.emit(op, inputs)), *tensors)


arrays = st.tuples(
    st.lists(st.integers(0, 4), min_size=1, max_size=3), st.sampled_from(["f4", "i8", "u1"]), st.integers(0, 99)
).map(lambda t: np.random.default_rng(t[2]).integers(0, 4, t[0]).astype(t[1]))


@settings(max_examples=40, deadline=None)
@given(x=arrays, data=st.data(), descending=st.booleans())
def test_sort_is_stable(decomposes, x, data, descending):
    axis = data.draw(st.integers(0, x.ndim - 1))
    values, where = evaluate(Sort(axis, descending), x)
    key = -x.astype("f8") if descending else x
    expected = np.argsort(key, axis, kind="stable")
    np.testing.assert_array_equal(where.numpy(), expected)
    np.testing.assert_array_equal(values.numpy(), np.take_along_axis(x, expected, axis))
    decomposes(Argsort(axis, descending), x)


def test_nan_is_the_greatest():
    x = np.array([1, np.nan, np.inf, -np.inf], "f4")
    assert evaluate(Sort(0), x)[1].tolist() == [3, 0, 2, 1]
    assert evaluate(TopK(2, 0), x)[1].tolist() == [1, 2]


@settings(max_examples=40, deadline=None)
@given(x=arrays, data=st.data(), largest=st.booleans())
def test_topk_prefers_lower_indices(x, data, largest):
    axis = data.draw(st.integers(0, x.ndim - 1))
    k = data.draw(st.integers(0, x.shape[axis]))
    values, where = evaluate(TopK(k, axis, largest), x)
    expected = np.take(np.argsort(-x.astype("f8") if largest else x, axis, kind="stable"), range(k), axis)
    np.testing.assert_array_equal(where.numpy(), expected)
    np.testing.assert_array_equal(values.numpy(), np.take_along_axis(x, expected, axis))


@settings(max_examples=40, deadline=None)
@given(x=arrays, data=st.data())
def test_unique(x, data):
    axis = data.draw(st.none() | st.integers(0, x.ndim - 1))
    if x.size == 0 and axis is not None:
        return
    values, first, inverse, counts = evaluate(Unique(N, axis), x)
    want = np.unique(x, True, True, True, axis=axis)
    for got, expected in zip((values, first, inverse, counts), want):
        np.testing.assert_array_equal(got.numpy(), expected.reshape(got.shape))
    values, first, inverse, counts = evaluate(Unique(N, axis, sorted=False), x)
    assert (np.diff(first.numpy()) > 0).all()
    rows = x.reshape(-1) if axis is None else x
    np.testing.assert_array_equal(np.take(values.numpy(), inverse.numpy(), axis or 0), rows)
    np.testing.assert_array_equal(np.bincount(inverse.numpy(), minlength=len(counts)), counts.numpy())


def test_unique_of_slices_without_elements():
    values, first, inverse, counts = evaluate(Unique(N, 0), np.zeros((3, 0), "f4"))
    assert (values.shape, first.tolist(), inverse.tolist(), counts.tolist()) == ((1, 0), [0], [0, 0, 0], [3])


def test_unique_slices_with_nan_are_in_order_and_distinct():
    nan = np.nan
    x = np.array([[nan, 2], [1, nan], [3, 0], [nan, 1], [1, 5], [3, 0], [1, nan]], "f4")
    values, first, inverse, counts = evaluate(Unique(N, 0), x)
    assert first.tolist() == [4, 1, 6, 2, 0, 3] and counts.tolist() == [1, 1, 1, 2, 1, 1]
    assert inverse.tolist() == [4, 1, 3, 5, 0, 3, 2]
    np.testing.assert_array_equal(values.numpy(), x[first])


BOXES = np.array(
    [[0, 0, 1, 1], [0, 0.1, 1, 1.1], [0, -0.1, 1, 0.9], [0, 10, 1, 11], [0, 10.1, 1, 11.1], [0, 100, 1, 101]], "f4"
)
SCORES = np.array([0.9, 0.75, 0.6, 0.95, 0.5, 0.3], "f4")


def test_nms_cases_of_onnx():
    def boxes_of(out: tuple[torch.Tensor, ...]) -> list[list[int]]:
        return out[0].tolist()

    boxes, scores = BOXES[None], SCORES[None, None]
    assert boxes_of(evaluate(Nms(N, 3, 0.5, 0.0), boxes, scores)) == [[0, 0, 3], [0, 0, 0], [0, 0, 5]]
    assert boxes_of(evaluate(Nms(N, 2, 0.5, 0.0), boxes, scores)) == [[0, 0, 3], [0, 0, 0]]
    assert boxes_of(evaluate(Nms(N, 3, 0.5, 0.4), boxes, scores)) == [[0, 0, 3], [0, 0, 0]]
    flipped = boxes[..., [2, 1, 0, 3]]
    assert boxes_of(evaluate(Nms(N, 3, 0.5, 0.0), flipped, scores)) == [[0, 0, 3], [0, 0, 0], [0, 0, 5]]
    middle = np.concatenate([(BOXES[:, :2] + BOXES[:, 2:]) / 2, BOXES[:, 2:] - BOXES[:, :2]], -1)[None]
    assert boxes_of(evaluate(Nms(N, 3, 0.5, 0.0, True), middle, scores)) == [[0, 0, 3], [0, 0, 0], [0, 0, 5]]
    two = np.concatenate([scores, scores], 1)
    assert boxes_of(evaluate(Nms(N, 2, 0.5, 0.0), boxes, two)) == [[0, 0, 3], [0, 0, 0], [0, 1, 3], [0, 1, 0]]
    assert boxes_of(evaluate(Nms(N, 0, 0.5), boxes, scores)) == []
    same = np.repeat(BOXES[:1], 10, 0)[None]
    assert boxes_of(evaluate(Nms(N, 3, 0.5), same, np.full((1, 1, 10), 0.9, "f4"))) == [[0, 0, 0]]


def test_bounds_of_the_sizes_that_ops_define():
    batch, n = Symbol("B"), Symbol("m")
    assert Nms(N, 5).defines(Tensor(f32, (batch, 100, 4)), Tensor(f32, (batch, 3, 100))) == {N: batch * 15}
    assert Unique(N).defines(Tensor(f32, (n, 4))) == {N: n * 4}


def test_refusals():
    x = Tensor(f32, (2, 3))
    for op, types, message in [
        (Sort(2), (x,), "axis 2 is not an axis"),
        (TopK(4, 1), (x,), "k is 4, axis 1 has size 3"),
        (Unique(N, 2), (x,), "axis 2 is not an axis"),
        (Nms(N, 1), (Tensor(f32, (1, 5, 4)), Tensor(f32, (1, 2, 6))), "differ in size"),
        (Nms(N, 1), (Tensor(i64, (1, 5, 4)), Tensor(f32, (1, 2, 5))), "not f32"),
    ]:
        with pytest.raises(TypeRuleError, match=message):
            op.result_types(types)
    assert TopK(Symbol("k"), 1).result_types((x,))[1] == Tensor(i64, (2, Symbol("k")))
