"""Branches and loops as steps of a launch program, against the interpreter."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import effcc
from effcc.errors import UnsupportedError
from effcc.interp import run
from effcc.ir import Builder, Graph, Symbol, Tensor, bool_, f32, i64

N, M, K = Symbol("n"), Symbol("m"), Symbol("k", 0, 10)
FLAG, COUNT = Tensor(bool_, ()), Tensor(i64, ())


def side(name: str, make, *types: Tensor) -> Graph:
    b = Builder(name)
    out = make(b, *(b.input(f"x{k}", t) for k, t in enumerate(types)))
    return b.graph(*(out if isinstance(out, tuple) else (out,)))


def agree(graph: Graph, *calls: tuple) -> None:
    program = effcc.compile(graph)
    for inputs in calls:
        for got, want in zip(program(*inputs), run(graph, *inputs), strict=True):
            torch.testing.assert_close(torch.as_tensor(got), want)


def test_a_branch_that_passes_an_input_through():
    t = Tensor(f32, (N,))
    b = Builder("branch")
    c, x, y = b.input("c", FLAG), b.input("x", t), b.input("y", t)
    then = side("then", lambda b, x, y: (y, x), t, t)
    orelse = side("orelse", lambda b, x, y: (b.exp(x), b.add(x, y)), t, t)
    graph = b.graph(*b.if_(c, x, y, then=then, orelse=orelse))
    x, y = torch.arange(5.0), torch.ones(5)
    agree(graph, (torch.tensor(True), x, y), (torch.tensor(False), x, y))


def test_branches_of_different_sizes():
    t = Tensor(f32, (N,))
    then = side("then", lambda b, x: b.concat(x, x, axis=0), t)
    orelse = side("orelse", lambda b, x: b.compress(x, b.gt(x, b.full_like(x, 0.0)), axis=0, size=K), t)
    b = Builder("sizes")
    c, x = b.input("c", FLAG), b.input("x", t)
    (y,) = b.if_(c, x, then=then, orelse=orelse, types=(Tensor(f32, (M,)),))
    graph = b.graph(b.add(y, b.full_like(y, 1.0)))
    agree(graph, *((torch.tensor(c), torch.arange(n) - 1.0) for c in (True, False) for n in (0, 1, 6)))


def fibonacci(scan: bool) -> Graph:
    """Loop carrying (a, b) -> (b, a + b); with `scan` it also stacks what a was."""
    t = Tensor(f32, (3,))
    outputs = (lambda b, i, c, x, y: (c, y, b.add(x, y), x)) if scan else (lambda b, i, c, x, y: (c, y, b.add(x, y)))
    body = side("body", outputs, COUNT, FLAG, t, t)
    b = Builder("fibonacci")
    trip, x, y = b.input("trip", COUNT), b.input("x", t), b.input("y", t)
    true = b.const(np.array(True))
    more = {"length": Symbol("rounds", 0, 40)} if scan else {}
    return b.graph(*b.loop(trip, true, x, y, body=body, num_carried=2, **more))


@pytest.mark.parametrize("scan", [False, True])
def test_carried_values_change_places(scan):
    x = torch.tensor([0.0, 1, 2]), torch.tensor([1.0, 1, 3])
    agree(fibonacci(scan), *((torch.tensor(n), *x) for n in (0, 1, 2, 9)))


def test_a_loop_stops_by_its_condition():
    t = Tensor(f32, ())
    body = side("body", lambda b, i, c, x: (b.lt(x, b.const(np.float32(100.0))), b.add(x, x)), COUNT, FLAG, t)
    b = Builder("doubling")
    x, go = b.input("x", t), b.input("go", FLAG)
    trip = b.const(np.array(1000))
    graph = b.graph(*b.loop(trip, go, x, body=body, num_carried=1))
    agree(graph, (torch.tensor(1.5), torch.tensor(True)), (torch.tensor(1.5), torch.tensor(False)))


def test_loops_in_branches():
    inner = side("inner", lambda b, i, c, x: (c, b.add(x, b.cast(i, to=f32))), COUNT, FLAG, Tensor(f32, (2,)))
    t = Tensor(f32, (2,))

    def looped(b, trip, x):
        return b.loop(trip, b.const(np.array(True)), x, body=inner, num_carried=1)[0]

    b = Builder("nested")
    c, trip, x = b.input("c", FLAG), b.input("trip", COUNT), b.input("x", t)
    then, orelse = side("then", looped, COUNT, t), side("orelse", lambda b, trip, x: b.neg(x), COUNT, t)
    graph = b.graph(*b.if_(c, trip, x, then=then, orelse=orelse))
    agree(graph, *((torch.tensor(c), torch.tensor(4), torch.ones(2)) for c in (True, False)))


def test_what_a_loop_cannot_carry_is_refused_by_name():
    t = Tensor(f32, (M,))
    body = side("body", lambda b, i, c, x: (c, b.concat(x, x, axis=0)), COUNT, FLAG, t)
    b = Builder("growing")
    trip, x = b.input("trip", COUNT), b.input("x", Tensor(f32, (2,)))
    graph = b.graph(*b.loop(trip, b.const(np.array(True)), x, body=body, num_carried=1))
    with pytest.raises(UnsupportedError, match="size"):
        effcc.compile(graph)
