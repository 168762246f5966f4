"""Ops side by side: well-typed, each on inputs of its own, all words in turn."""

import random
from collections import Counter

from effcc.fuzz.apart import apart, needed, ways
from effcc.fuzz.case import Case
from effcc.fuzz.generate import GraphDrawer
from effcc.fuzz.laws import hold
from effcc.fuzz.pairs import Tried
from effcc.testing.search import Choices
from effcc.text import parse


def drawn(count, tried=None):
    return [apart(GraphDrawer(Choices(rest=random.Random(k)), tried), 8) for k in range(count)]


def test_results_are_of_inputs_not_of_one_another():
    deepest = Counter()
    for graph in drawn(20):
        depth = dict.fromkeys(graph.inputs, 0)
        for node in graph.nodes:
            below = max((depth[v] for v in node.operands), default=0)
            depth |= dict.fromkeys(node.results, below + (node.op.name != "const"))
        deepest[max(depth[r] for r in graph.results) <= 5] += 1
        assert len(graph.results) >= 4
    assert deepest[True] > 15


def test_words_that_were_seldom_drawn_go_first():
    tried = Tried()
    drawn(60, tried)
    names = GraphDrawer(Choices(rest=random.Random(0))).vocabulary.names
    assert {name for _, name in tried.sought} == set(names)
    counts = sorted(tried.sought.values())
    assert counts[-1] <= 2 * counts[0] + 2


def test_what_is_taken_differs_from_what_was_taken_before():
    def used(tried):
        return {way for graph in drawn(40, tried) for node in graph.walk() for way in ways([node])}

    assert len(used(Tried())) > 1.15 * len(used(None))


def test_what_no_result_is_made_of_is_left_out():
    graph = needed(parse("""graph @f(%x: f32[4], %y: f32[4]) -> f32[4] {
      %0: f32[4] = exp(%x)
      %1: f32[4] = neg(%x)
      %2: f32[4] = neg(%y)
      return %0
    }"""))
    assert [n.op.name for n in graph.nodes] == ["exp"] and [v.name for v in graph.inputs] == ["x"]


def test_they_hold_when_they_are_compiled():
    for k, graph in enumerate(drawn(3)):
        hold("compiled", Case.of(graph, k))
