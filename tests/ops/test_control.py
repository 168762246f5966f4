"""Branches and loops."""

from __future__ import annotations

import pytest
import torch

from effcc.errors import TypeRuleError
from effcc.interp import run
from effcc.ir import Builder, Graph, Symbol, Tensor, bool_, f32, i64, verify

N, M, K = Symbol("n"), Symbol("m"), Symbol("k", 0, 10)
SCALAR, FLAG = Tensor(i64, ()), Tensor(bool_, ())


def branch(name: str, build, *types: Tensor) -> Graph:
    b = Builder(name)
    inputs = [b.input(f"x{k}", t) for k, t in enumerate(types)]
    out = build(b, *inputs)
    return b.graph(*(out if isinstance(out, tuple) else (out,)))


def test_if():
    t = Tensor(f32, (N,))
    then, orelse = branch("then", lambda b, x: b.neg(x), t), branch("orelse", lambda b, x: x, t)
    b = Builder()
    cond, x = b.input("cond", FLAG), b.input("x", t)
    (y,) = b.if_(cond, x, then=then, orelse=orelse)
    graph = b.graph(y)
    verify(graph)
    assert run(graph, torch.tensor(True), torch.ones(2))[0].tolist() == [-1, -1]
    assert run(graph, torch.tensor(False), torch.ones(2))[0].tolist() == [1, 1]


def test_if_joins_sizes():
    t = Tensor(f32, (N,))
    then = branch("then", lambda b, x: b.concat(x, x, axis=0), t)
    orelse = branch("orelse", lambda b, x: b.compress(x, b.gt(x, b.full_like(x, 0.0)), axis=0, size=K), t)
    b = Builder()
    cond, x = b.input("cond", FLAG), b.input("x", t)
    with pytest.raises(TypeRuleError, match="declare the joined types"):
        b.if_(cond, x, then=then, orelse=orelse)
    (y,) = b.if_(cond, x, then=then, orelse=orelse, types=(Tensor(f32, (M,)),))
    graph = b.graph(y)
    assert run(graph, torch.tensor(True), torch.arange(3.0))[0].tolist() == [0, 1, 2, 0, 1, 2]
    assert run(graph, torch.tensor(False), torch.arange(3.0))[0].tolist() == [1, 2]
    assert graph.nodes[0].op.defines(FLAG, t) == {M: N * 2}


def test_if_refuses():
    t = Tensor(f32, (2,))
    one, other = branch("a", lambda b, x: x, t), branch("b", lambda b, x: b.cast(x, to=i64), t)
    b = Builder()
    cond, x, big = b.input("cond", FLAG), b.input("x", t), b.input("big", Tensor(f32, (3,)))
    for operands, graphs, message in [
        ((x, x), (one, one), "the condition is"),
        ((cond, big), (one, one), r"then takes \(f32\[2\]\)"),
        ((cond, x), (one, other), r"orelse \(i64\[2\]\)"),
        ((cond, x), (one, branch("c", lambda b, x: (x, x), t)), "then gives 1 results, orelse 2"),
    ]:
        with pytest.raises(TypeRuleError, match=message):
            b.if_(*operands, then=graphs[0], orelse=graphs[1])
    with pytest.raises(TypeRuleError, match="does not admit"):
        b.if_(cond, x, then=one, orelse=other, types=(Tensor(f32, (M,)),))


def counting(scan: bool = True):
    """while total < limit: total += step * (i + 1), giving each total."""
    def body(b, i, cond, total, step, limit):
        one = b.const(1, i64)
        new = b.add(total, b.mul(step, b.add(i, one)))
        go = b.lt(new, limit)
        return (go, new, new) if scan else (go, new)

    return branch("body", body, SCALAR, FLAG, SCALAR, SCALAR, SCALAR)


def loop_graph(body: Graph, num_carried: int, length, *types: Tensor) -> Graph:
    b = Builder()
    operands = [b.input(f"x{k}", t) for k, t in enumerate((SCALAR, FLAG, *types))]
    graph = b.graph(*b.loop(*operands, body=body, num_carried=num_carried, length=length))
    verify(graph)
    return graph


def numbers(*values: int) -> list[torch.Tensor]:
    return [torch.tensor(v) for v in values]


def test_loop_stops_by_either():
    graph = loop_graph(counting(), 1, K, SCALAR, SCALAR, SCALAR)
    total, totals = run(graph, *numbers(100, True, 0, 1, 6))
    assert (total.item(), totals.tolist()) == (6, [1, 3, 6])
    assert run(graph, *numbers(2, True, 0, 1, 6))[1].tolist() == [1, 3]
    for trip, cond in ((0, True), (5, False), (-1, True)):
        total, totals = run(graph, *numbers(trip, cond, 7, 1, 100))
        assert (total.item(), totals.shape, totals.dtype) == (7, (0,), torch.int64)
    assert graph.nodes[0].op.defines(*graph.nodes[0].types) == {K: 10}


def test_loop_carries_what_grows():
    t = Tensor(f32, (M, 2))
    body = branch("body", lambda b, i, cond, x: (cond, b.concat(x, x, axis=0)), SCALAR, FLAG, t)
    graph = loop_graph(body, 1, None, Tensor(f32, (3, 2)))
    assert graph.results[0].type == t
    assert run(graph, *numbers(2, True), torch.ones(3, 2))[0].shape == (12, 2)
    assert run(graph, *numbers(0, True), torch.ones(3, 2))[0].shape == (3, 2)


def test_scanned_rows_without_iterations_keep_their_shape():
    t = Tensor(f32, (N, 2))
    body = branch("body", lambda b, i, cond, x: (cond, b.neg(x)), SCALAR, FLAG, t)
    graph = loop_graph(body, 0, K, t)
    assert run(graph, *numbers(3, True), torch.ones(4, 2))[0].shape == (3, 4, 2)
    assert run(graph, *numbers(0, True), torch.ones(4, 2))[0].shape == (0, 4, 2)
    known = loop_graph(body, 0, 3, t)
    assert known.results[0].type == Tensor(f32, (3, N, 2))


def test_nested_control():
    t = Tensor(f32, (2,))
    double = branch("double", lambda b, x: b.add(x, x), t)
    same = branch("same", lambda b, x: x, t)

    def body(b, i, cond, x):
        even = b.eq(b.mod(i, b.const(2, i64)), b.const(0, i64))
        return cond, *b.if_(even, x, then=double, orelse=same)

    graph = loop_graph(branch("body", body, SCALAR, FLAG, t), 1, None, t)
    assert run(graph, *numbers(5, True), torch.ones(2))[0].tolist() == [8, 8]


def test_loop_refuses():
    t = Tensor(f32, (2,))
    grows = branch("body", lambda b, i, cond, x: (cond, b.concat(x, x, axis=0)), SCALAR, FLAG, t)
    with pytest.raises(TypeRuleError, match=r"carried value 0 is f32\[2\] in the body and becomes f32\[4\]"):
        loop_graph(grows, 1, None, t)
    with pytest.raises(TypeRuleError, match="but no length"):
        loop_graph(counting(), 1, None, SCALAR, SCALAR, SCALAR)
    with pytest.raises(TypeRuleError, match="the body takes"):
        loop_graph(counting(), 1, K, SCALAR, SCALAR)
    with pytest.raises(TypeRuleError, match="carried value 0 is .* starts as"):
        loop_graph(branch("body", lambda b, i, cond, x: (cond, x), SCALAR, FLAG, t), 1, None, Tensor(f32, (3,)))
    own = Tensor(f32, (M,))
    changing = branch("body", lambda b, i, cond, x: (cond, b.concat(x, x, axis=0), x), SCALAR, FLAG, own)
    with pytest.raises(TypeRuleError, match="changes its size"):
        loop_graph(changing, 1, K, t)
