"""Seeds: every rule and pass has an example that can be drawn, and graphs are found in texts."""

import random
from collections import Counter

from effcc.fuzz.generate import GraphDrawer
from effcc.fuzz.seeds import examples, graphs_in, is_plain, patterns, written
from effcc.ir import verify
from effcc.pipeline import find_pass, pass_table
from effcc.testing.draw import NothingDrawn
from effcc.testing.search import Choices


def test_examples_of_all_rules_and_passes_are_drawn():
    drawn = Counter()
    for k, source in enumerate(examples()):
        for attempt in range(4):
            try:
                verify(source(GraphDrawer(Choices(rest=random.Random(f"{k} {attempt}")))))
            except NothingDrawn:
                continue
            drawn[k] += 1
            break
    rules = sum(len(find_pass(name).rules) for name in pass_table())
    assert len(examples()) > rules > 0
    assert len(drawn) > 0.97 * len(examples())


def test_examples_can_be_of_some_passes_alone():
    assert 0 < len(examples(("simplify",))) < len(examples())
    assert not examples(("dce",))


def test_graphs_are_found_in_python_and_effir():
    text = '''rewrites("""graph @f(%x: f32[2]) -> f32[2] {
      %0: f32[2] = neg(%x)
      return %0
    }""", "simplify", "graph @g(%x: f32[2]) -> f32[2] { return %x }"); "graph @broken(%x: f32[2]) -> f32[3] {"'''
    assert [g.name for g in graphs_in(text)] == ["f", "g"]


def test_the_suite_has_texts_and_none_that_passes_made():
    assert len(written()) > 40
    assert all(is_plain(graph) for graph in written())


def test_patterns_are_grouped_by_class_and_name_their_passes():
    found = patterns(("simplify", "channels-last", "tome"))
    assert 0 < len(found) < sum(map(len, found)) and all(len({type(p) for p, _ in group}) == 1 for group in found)
    owners = {names for group in found for _, names in group}
    assert ("tome",) in owners and any("simplify" in names for names in owners)
    assert patterns(("dce",)) == ()
