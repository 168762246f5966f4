"""Value analysis: sound, and precise enough for what exporters write."""

from __future__ import annotations

import operator

import numpy as np
import pytest
import torch

from effcc.frontends.onnx.importer import GraphBuilder
from effcc.frontends.onnx.values import LIMIT, Contents, Ratio
from effcc.ir import Symbol, Tensor, bool_, dim_max, f32, i32, i64

B = Symbol("B", 1, 64)


@pytest.fixture
def b():
    return GraphBuilder("t", Contents())


def content(b, value):
    found = b.contents.get(value)
    return None if found is None else found.tolist()


def dim(b, d):
    return b.dim(value=d)


def test_dimensions_flow_through_structure(b):
    v = b.concat(b.reshape(dim(b, B), shape=(1,)), b.const(np.array([3, 4])), axis=0)
    assert content(b, v) == [B, 3, 4]
    assert content(b, b.gather(v, b.const(np.array([2, 0])), axis=0)) == [4, B]
    assert content(b, b.slice(v, starts=(2,), stops=(-1,), steps=(-1,))) == [4, 3, B]
    assert content(b, b.reshape(v, shape=(3, 1))) == [[B], [3], [4]]
    assert content(b, b.prod(v, axes=(0,))) == B * 12
    assert content(b, b.sum(v, axes=(0,), keepdims=True)) == [B + 7]
    assert content(b, b.broadcast_to(dim(b, B), shape=(2,))) == [B, B]
    assert content(b, b.transpose(b.reshape(v, shape=(1, 3)), perm=(1, 0))) == [[B], [3], [4]]


@pytest.mark.parametrize(
    ("op", "other", "expected"),
    [
        ("add", 2, B + 2), ("sub", 1, B - 1), ("mul", 3, B * 3), ("div", 2, B // 2), ("floordiv", 2, B // 2),
        ("mod", 2, B % 2), ("max", 0, B), ("min", 100, B), ("max", 8, dim_max(B, 8)),
        ("eq", 0, False), ("ne", 0, True), ("lt", 65, True), ("ge", 1, True), ("gt", 64, False),
        ("eq", 5, None), ("lt", 10, None),
    ],
)  # fmt: skip
def test_arithmetic_and_comparison(b, op, other, expected):
    value = b.contents.get(getattr(b, op)(dim(b, B), b.const(np.int64(other))))
    assert (None if value is None else value.item()) == expected


@pytest.mark.parametrize(
    ("scale", "rounding", "expected"),
    [(0.5, "floor", B // 2), (2.0, "floor", B * 2), (0.25, "ceil", -(-B // 4)), (1.5, "floor", B * 3 // 2)],
)
def test_through_floating_point_and_back(b, scale, rounding, expected):
    y = b.mul(b.cast(dim(b, B), to=f32), b.const(np.float32(scale)))
    assert content(b, b.cast(getattr(b, rounding)(y), to=i64)) == expected


def test_a_division_by_a_float_is_a_ratio(b):
    y = b.div(b.cast(dim(b, B), to=f32), b.const(np.float32(3)))
    assert isinstance(b.contents.get(y).item(), Ratio)
    assert content(b, b.cast(b.floor(y), to=i64)) == B // 3


def test_irrational_factors_are_not_guessed(b):
    y = b.mul(b.cast(dim(b, B), to=f32), b.const(np.float32(1.1)))
    assert content(b, b.cast(b.floor(y), to=i64)) is None


def test_partial_knowledge_survives(b):
    x = b.input("x", Tensor(i64, (1,)))
    v = b.concat(x, b.const(np.array([7])), axis=0)
    assert content(b, v) == [None, 7]
    zero = b.mul(v, b.const(np.array([0, 0])))
    assert content(b, zero) == [0, 0]
    keep = b.where(b.const(np.array([False, True])), v, b.const(np.array([1, 2])))
    assert content(b, keep) == [1, 7]
    unknown = b.where(b.gt(x, b.const(np.array([0]))), b.const(np.array([5])), b.const(np.array([5])))
    assert content(b, unknown) == [5]


def test_logic_shortcuts(b):
    p = b.input("p", Tensor(bool_, ()))
    assert content(b, b.and_(p, b.const(np.array(False)))) is False
    assert content(b, b.or_(p, b.const(np.array(True)))) is True
    assert content(b, b.and_(p, b.const(np.array(True)))) is None
    assert content(b, b.not_(b.const(np.array(True)))) is False


def test_integers_wrap_and_floats_round_to_their_dtype(b):
    top = b.const(np.array(2**31 - 1, np.int32))
    assert content(b, b.add(top, b.const(np.array(1, np.int32)))) == -(2**31)
    third = b.div(b.const(np.float32(1)), b.const(np.float32(3)))
    assert content(b, third) == float(np.float32(1) / np.float32(3))
    assert content(b, b.div(b.const(np.array(-7)), b.const(np.array(2)))) == -3
    assert content(b, b.cast(b.const(np.array(300)), to=i32)) == 300


def test_ops_without_a_rule_are_folded_by_their_meaning(b):
    v = b.cumsum(b.const(np.array([1, 2, 3])), axis=0)
    assert content(b, v) == [1, 3, 6]
    values, where = b.sort(b.const(np.array([3, 1, 2])), axis=0)
    assert content(b, values) == [1, 2, 3] and content(b, where) == [1, 2, 0]


def test_leaves_name_the_inputs_that_matter(b):
    x, y, z = (b.input(n, Tensor(i64, ())) for n in "xyz")
    v = b.add(b.mul(x, y), b.mul(z, b.const(np.int64(0))))
    assert content(b, v) is None and b.contents.leaves(v) == [x, y]


def test_captures_have_the_contents_of_what_they_capture(b):
    inner = GraphBuilder("inner", b.contents)
    captured = inner.input("c", Tensor(i64, ()))
    b.contents.alias(captured, dim(b, B))
    assert content(b, inner.add(captured, inner.const(np.int64(1)))) == B + 1


def test_stated_contents_of_any_size(b):
    x, y = b.input("x", Tensor(i64, (3,))), b.input("y", Tensor(i64, (LIMIT + 1,)))
    b.contents.fix(x, np.array([4, 5, 6]))
    b.contents.fix(y, np.arange(LIMIT + 1))
    assert content(b, b.neg(x)) == [-4, -5, -6] and content(b, y) is None
    assert b.contents.array(b.identity(y))[-1] == LIMIT and b.contents.array(b.neg(x)) is None


def test_large_tensors_are_not_tracked(b):
    assert content(b, b.const(np.zeros(LIMIT + 1, np.int64))) is None
    assert content(b, b.iota(shape=(LIMIT + 1,), axis=0, dtype=i64)) is None


def test_an_analysis_agrees_with_the_interpreter(b):
    """Random integer arithmetic on a dimension, for each of its values."""
    from effcc import interp
    from effcc.ir import evaluate

    rng = np.random.default_rng(0)
    x = b.input("x", Tensor(f32, (B,)))
    pool = [dim(b, B), b.const(np.int64(3)), b.const(np.int64(8))]
    for _ in range(60):
        op = rng.choice(["add", "sub", "mul", "floordiv", "mod", "max", "min"])
        a, c = rng.choice(len(pool)), rng.choice(len(pool))
        if op in ("floordiv", "mod"):
            c = rng.integers(1, 3)
        if op == "mul" and len(str(content(b, pool[a]))) + len(str(content(b, pool[c]))) > 60:
            continue
        pool.append(getattr(b, op)(pool[a], pool[c]))
    known = [(v, b.contents.get(v)) for v in pool[3:]]
    known = [(v, c.item()) for v, c in known if c is not None and c.item() is not None]
    assert len(known) > 30
    graph = b.graph(x, *(v for v, _ in known))
    for size in (1, 2, 7, 64):
        _, *results = interp.run(graph, torch.zeros(size))
        for r, (_, expected) in zip(results, known, strict=True):
            value = expected if isinstance(expected, int) else evaluate(expected, {B: size})
            assert operator.index(int(r)) == value
