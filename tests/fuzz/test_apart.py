"""Ops side by side: well-typed, each on inputs of its own, all words in turn."""

import random
from collections import Counter

from effcc.fuzz.apart import apart
from effcc.fuzz.case import Case
from effcc.fuzz.generate import GraphDrawer
from effcc.fuzz.laws import hold
from effcc.fuzz.pairs import Tried
from effcc.testing.search import Choices


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
    assert len(tried.sought) > 0.8 * len(GraphDrawer(Choices(rest=random.Random(0))).vocabulary.names)
    assert max(tried.sought.values()) <= 10


def test_they_hold_when_they_are_compiled():
    for k, graph in enumerate(drawn(3)):
        hold("compiled", Case.of(graph, k))
