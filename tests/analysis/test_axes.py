"""Axes through graphs: where they lie, what ends them, what varies."""

from __future__ import annotations

import numpy as np
import pytest

from effcc.analysis.axes import Place, carried, follow, quotient, varies
from effcc.ir import Builder, Symbol, Tensor, bool_, f32, i64


def one(build, *types):
    b = Builder()
    inputs = [b.input(f"x{k}", t) for k, t in enumerate(types)]
    build(b, *inputs)
    return b.nodes[-1]


X = Tensor(f32, (2, 5, 6))


@pytest.mark.parametrize(
    ("build", "place", "wanted"),
    [
        (lambda b, x: b.neg(x), Place(1), Place(1)),
        (lambda b, x: b.transpose(x, perm=(1, 2, 0)), Place(1), Place(0)),
        (lambda b, x: b.reshape(x, shape=(10, 6)), Place(1), Place(0, 2, 1)),
        (lambda b, x: b.reshape(x, shape=(2, 30)), Place(1), Place(1, 1, 6)),
        (lambda b, x: b.reshape(x, shape=(2, 5, 2, 3)), Place(1), Place(1)),
        (lambda b, x: b.reshape(x, shape=(1, 2, 1, 5, 6)), Place(1), Place(3)),
        (lambda b, x: b.reshape(x, shape=(4, 15)), Place(1), None),
        (lambda b, x: b.slice(x, starts=(0, 0, 1), stops=(2, 5, 4), steps=(1, 1, 1)), Place(1), Place(1)),
        (lambda b, x: b.slice(x, starts=(0, 1, 0), stops=(2, 5, 6), steps=(1, 1, 1)), Place(1), None),
        (lambda b, x: b.slice(x, starts=(0, 4, 0), stops=(2, -1, 6), steps=(1, -1, 1)), Place(1), None),
        (lambda b, x: b.mean(x, axes=(0,)), Place(1), Place(0)),
        (lambda b, x: b.mean(x, axes=(0,), keepdims=True), Place(1), Place(1)),
        (lambda b, x: b.mean(x, axes=(1,)), Place(1), None),
        (lambda b, x: b.layer_norm(x, axis=2), Place(1), Place(1)),
        (lambda b, x: b.layer_norm(x, axis=1), Place(1), None),
        (lambda b, x: b.softmax(x, axis=1), Place(1), None),
        (lambda b, x: b.softmax(x, axis=2), Place(1), Place(1)),
        (lambda b, x: b.concat(x, x, axis=2), Place(1), Place(1)),
        (lambda b, x: b.concat(x, x, axis=1), Place(1), None),
        (lambda b, x: b.cumsum(x, axis=1), Place(1), None),
        (lambda b, x: b.roll(x, shifts=(0, 1, 0)), Place(1), None),
        (lambda b, x: b.broadcast_to(x, shape=(3, 2, 5, 6)), Place(1), Place(2)),
        (lambda b, x: b.gather(x, b.const(np.array([1, 3])), axis=2), Place(1), Place(1)),
        (lambda b, x: b.gather(x, b.const(np.array([1, 3])), axis=1), Place(1), None),
    ],
)
def test_carried(build, place, wanted):
    assert carried(one(build, X), 0, place, 5) == wanted


def test_a_matmul_carries_rows_of_one_operand_and_columns_of_the_other():
    node = one(lambda b, x, w: b.matmul(x, w), X, Tensor(f32, (6, 7)))
    assert carried(node, 0, Place(1), 5) == Place(1)
    assert carried(node, 0, Place(2), 6) is None
    assert carried(node, 1, Place(1), 7) == Place(2)


def test_symbolic_sizes():
    batch = Symbol("B", 1, 64)
    node = one(lambda b, x: b.reshape(x, shape=(batch * 5, 6)), Tensor(f32, (batch, 5, 6)))
    assert carried(node, 0, Place(1), 5) == Place(0, batch, 1)
    assert quotient(batch * 6, batch) == 6 and quotient(batch, 2) is None


def test_follow_ends_where_values_for_each_element_come_from_elsewhere():
    b = Builder()
    x, other, weight = (b.input(n, t) for n, t in (("x", X), ("o", X), ("w", Tensor(f32, (6, 6)))))
    y = b.matmul(b.add(x, b.const(np.ones((2, 1, 6), "f4"))), weight)
    z = b.add(y, other)
    end = b.sum(y, axes=(1,))
    course = follow(b.graph(z, end), x, Place(1), 5)
    assert course.places[y] == Place(1) and z not in course.places and end not in course.places
    assert [r.reason for r in course.readers] == [
        "add combines its elements with values of their own from elsewhere (positions, say)",
        "sum reads several elements at once",
    ]


def test_follow_ends_where_two_axes_meet():
    b = Builder()
    x = b.input("x", Tensor(f32, (5, 5)))
    b.add(x, b.transpose(x, perm=(1, 0)))
    course = follow(b.graph(), x, Place(0), 5)
    assert [r.reason for r in course.readers] == ["add meets it on two different axes"]


def test_varies():
    b = Builder()
    mask = b.input("mask", Tensor(i64, (2, 7)))
    keep = b.reshape(b.cast(mask, to=bool_), shape=(2, 1, 1, 7))
    ones = b.const(np.ones((1, 1, 4, 7), bool))
    both = b.and_(keep, ones)
    added = b.where(both, b.const(np.zeros((), "f4")), b.const(np.full((), -1e9, "f4")))
    causal = b.and_(both, b.const(np.tri(4, 7, dtype=bool)[None, None]))
    graph = b.graph(added, causal)
    assert [varies(graph, added, k) for k in range(4)] == [True, False, False, True]
    assert varies(graph, causal, 2)
    assert varies(graph, mask, 0)
    rows = b.iota(shape=(3, 4), axis=0, dtype=i64)
    flat = b.reshape(b.broadcast_to(b.reshape(rows, shape=(3, 1, 4)), shape=(3, 2, 4)), shape=(6, 4))
    graph = b.graph(flat)
    assert varies(graph, rows, 0) and not varies(graph, rows, 1)
    assert varies(graph, flat, 0) and not varies(graph, flat, 1)
