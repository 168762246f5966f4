"""The generator: verified graphs of many ops, with empty tensors, symbols, branches, loops and donated inputs."""

import random
from collections import Counter

import pytest

from effcc.fuzz.generate import GraphDrawer, symbolic
from effcc.fuzz.pairs import Tried, pairs
from effcc.ir import Tensor, verify
from effcc.testing.draw import NothingDrawn
from effcc.testing.search import Choices
from effcc.text import parse


def drawn(count, low=4, high=12, **options):
    tried = Tried()
    for k in range(count):
        yield GraphDrawer(Choices(rest=random.Random(k)), tried, **options).graph(low, high)


def test_graphs_verify_and_hold_what_bugs_hide_in():
    graphs = list(drawn(150))
    for graph in graphs:
        verify(graph)
    count = len(graphs)
    empty = sum(any(0 in v.shape for v in g.values if isinstance(v.type, Tensor)) for g in graphs)
    names = Counter(n.op.name for g in graphs for n in g.walk())
    assert empty >= count // 10
    assert sum(bool(g.symbols) for g in graphs) >= count // 25
    assert any(g.aliases for g in graphs) and names["if"] and names["loop"]
    assert len(names) > 100


def test_rare_pairs_are_preferred():
    """600 graphs of 10 ops reach more pairs than the same number of unbiased draws would: most pairs only once."""
    found = Counter(p for g in drawn(200, 10, 10, near_misses=0) for p in pairs(g))
    assert len(found) > 0.75 * sum(found.values())


def test_a_size_becomes_a_symbol_once():
    """Graphs around rules may have symbols already."""
    d = GraphDrawer(Choices(rest=random.Random(0)))
    x = parse("graph @f<N>(%x: f32[N,3]) -> f32[N,3] { %0: f32[N,3] = neg(%x)  return %0 }")
    with pytest.raises(NothingDrawn):
        symbolic(d, x)


def test_the_same_choices_draw_the_same_graph():
    first, second = (GraphDrawer(Choices(rest=random.Random("again"))).graph() for _ in range(2))
    assert first == second
