"""State that a graph updates: in its own memory where nothing reads the old contents later, and right where something
does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import effcc
from effcc.interp import run
from effcc.ir import Builder, Graph, Tensor, Value, f32
from effcc.ir.types import i64

SIZE = 1000


def stepped(results: Callable[[Builder, Value, Value, Value, Value], list[Value]]) -> Graph:
    """The graph of a step on state f32[SIZE, 3]; `results` gets (b, state, row f32[1, 3], position i64[], zero) and
    gives the new state last."""
    b = Builder()
    state, row = b.input("state", Tensor(f32, (SIZE, 3))), b.input("row", Tensor(f32, (1, 3)))
    position = b.input("position", Tensor(i64, ()))
    out = results(b, state, row, position, b.const(np.array(0)))
    return b.graph(*out, aliases=((len(out) - 1, 0),))


def read_before(b: Any, state: Value, row: Value, at: Value, zero: Value) -> list[Value]:
    return [b.sum(state, axes=(0, 1), keepdims=False), b.update_slice(state, row, at, zero)]


def read_after(b: Any, state: Value, row: Value, at: Value, zero: Value) -> list[Value]:
    new = b.update_slice(state, row, at, zero)
    return [b.sum(new, axes=(0, 1), keepdims=False), b.sum(state, axes=(0, 1), keepdims=False), new]


def view_kept(b: Any, state: Value, row: Value, at: Value, zero: Value) -> list[Value]:
    """A view of the old state is read when the new one has been written."""
    old = b.transpose(state, perm=(1, 0))
    new = b.update_slice(state, row, at, zero)
    return [b.add(b.sum(new, axes=(0,), keepdims=False), b.sum(old, axes=(1,), keepdims=False)), new]


def from_itself(b: Any, state: Value, row: Value, at: Value, zero: Value) -> list[Value]:
    """The rows move down by one: what is written lies in what is overwritten."""
    above = b.slice(state, starts=(0, 0), stops=(SIZE - 1, 3), steps=(1, 1))
    return [b.update_slice(state, above, b.const(np.array(1)), zero)]


@pytest.mark.parametrize("results,in_place", [
    (read_before, True), (read_after, False), (view_kept, False), (from_itself, False),
])  # fmt: skip
def test_an_updated_input(results: Any, in_place: bool) -> None:
    graph = stepped(results)
    program = effcc.compile(graph)
    state = np.random.default_rng(0).standard_normal((SIZE, 3)).astype("f4")
    inputs = (state.copy(), np.ones((1, 3), "f4"), np.array(7))
    wanted = run(graph, *map(torch.from_numpy, inputs))
    got = program(*inputs)
    for a, e in zip(got, wanted, strict=True):
        np.testing.assert_allclose(a, e, rtol=1e-5, atol=1e-4)
    np.testing.assert_array_equal(inputs[0], wanted[-1])
    temporaries = sum(b["bytes"] for b in program.code.memory({})["buffers"])
    assert (temporaries < state.nbytes) == in_place, temporaries
