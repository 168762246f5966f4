"""Pairs of ops: which a graph holds, and which go first."""

from collections import Counter

from effcc.fuzz.pairs import Tried, pairs
from effcc.text import parse


def test_pairs_of_nested_graphs_count_and_constants_do_not():
    graph = parse("""graph @f(%c: bool[], %x: f32[2]) -> f32[2] {
      %0: f32[] = const 2
      %1: f32[2] = mul(%x, %0)
      %2: f32[2] = if(%c, %1) {then=graph @a(%y: f32[2]) -> f32[2] {
          %0: f32[2] = exp(%y)
          %1: f32[2] = log(%0)
          return %1
        }, orelse=graph @b(%y: f32[2]) -> f32[2] {
          return %y
        }}
      return %2
    }""")
    assert Counter(pairs(graph)) == {("mul", "if"): 1, ("exp", "log"): 1}


def test_what_no_graph_held_goes_first_however_often_it_was_looked_for():
    tried = Tried(Counter({("exp", "log"): 1}), Counter({("exp", "nms"): 90}), Counter({("exp", "nms"): 5}))
    assert min([("exp", "log"), ("exp", "nms")], key=tried.rank) == ("exp", "nms")
    assert min([("exp", "log"), ("exp", "nms")], key=tried.weight) == ("exp", "log")


def test_it_is_kept_as_text():
    tried = Tried(Counter({("exp", "log"): 2}), Counter({("exp", "nms"): 1}))
    assert Tried.of(tried.facts()) == tried and Tried.of({}) == Tried()
