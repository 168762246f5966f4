"""Graphs with memory that lives on: they are well-typed, mean what they are compiled to, and show what they are for."""

import random

import pytest

from effcc.errors import EffccError
from effcc.fuzz import state
from effcc.fuzz.case import Case
from effcc.fuzz.generate import GraphDrawer
from effcc.fuzz.laws import hold
from effcc.ir import verify
from effcc.ir.types import type_symbols
from effcc.testing.draw import NothingDrawn
from effcc.testing.search import Choices
from effcc.text import parse


def changed(change, count):
    """What a change makes of small graphs."""
    for k in range(count):
        d = GraphDrawer(Choices(rest=random.Random(k)), near_misses=0)
        try:
            graph = change(d, d.chain(2))
        except (EffccError, NothingDrawn):
            continue
        verify(graph)
        yield graph


@pytest.mark.parametrize("change", [state.carried, state.updated, state.counted], ids=lambda c: c.__name__)
def test_they_are_drawn_and_hold(change):
    graphs = list(changed(change, 20))
    assert len(graphs) > 8
    for k, graph in enumerate(graphs):
        hold("each-pass", Case.of(graph, k, most=1))
    hold("compiled", Case.of(graphs[0], 0, most=1))


def test_loops_exchange_what_they_carry():
    bodies = [n.op.body for g in changed(state.carried, 30) for n in g.nodes if n.op.name == "loop"]
    places = [[b.inputs[2:].index(r) for r in b.results[1:] if r in b.inputs] for b in bodies]
    assert any(place == [1, 0] for place in places)


def test_updated_inputs_are_donated_and_read_on():
    graphs = list(changed(state.updated, 30))
    assert all(g.aliases and g.producer(g.results[g.aliases[0][0]]).op.name == "update_slice" for g in graphs)
    assert any(len(g.users(g.inputs[g.aliases[0][1]])) > 1 for g in graphs)


def test_sizes_are_results_where_nothing_else_is():
    d = GraphDrawer(Choices(rest=random.Random(0)))
    graph = parse("graph @f<N>(%x: f32[N], %y: f32[4]) -> f32[N] { %0: f32[N] = neg(%x)\n return %0 }")
    drawn = [state.counted(d, graph) for _ in range(20)]
    assert {len(g.results) for g in drawn} == {1, 2}
    sizes = {str(s) for g in drawn for n in g.nodes if n.op.name == "dim" for s in type_symbols(n.op)} or {
        str(n.op.value) for g in drawn for n in g.nodes if n.op.name == "dim"}
    assert sizes == {"N", "count"}
