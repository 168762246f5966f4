"""Campaigns find planted bugs, reduce and save them, and go on where they stopped."""

import random

import pytest

from effcc.fuzz.campaign import Job, replay
from effcc.fuzz.case import Case, Finding
from effcc.fuzz.generate import GraphDrawer
from effcc.fuzz.laws import LAWS
from effcc.fuzz.reduce import reduce_graph, reduce_list, weight
from effcc.fuzz.transform import NOTHINGS
from effcc.ir import Builder, Tensor, f32, verify
from effcc.passes.simplify import Simplify
from effcc.rewrite import Rule
from effcc.testing.search import Choices

CHEAP = ("text", "each-pass", "pass-orders", "embellished")


class AbsIsNothing(Rule):
    """abs(x) --> x: wrong"""

    shares = True

    def pattern(self, p, x):
        return p.abs(x)

    def rewrite(self, b, m):
        return m.x


def test_the_laws_hold(tmp_path):
    """A short campaign over everything that needs no compilation."""
    job = Job(tmp_path, seed=11, number=0, laws=CHEAP)
    for k in range(40):
        job.test(f"ci {k}")
    findings = [path.read_text() for path in tmp_path.glob("*.effir")]
    assert not findings, findings[0]
    assert job.tally.tests == 40 and job.tally.special > 10


def test_compiled_graphs_agree(tmp_path):
    job = Job(tmp_path, seed=12, number=0, laws=("compiled",))
    for k in range(6):
        job.tally.tests = 0
        job.test(f"compiled {k}")
    findings = [path.read_text() for path in tmp_path.glob("*.effir")]
    assert not findings, findings[0]


def test_a_planted_bug_is_found_reduced_and_replayed(tmp_path, monkeypatch):
    monkeypatch.setattr(Simplify, "rules", (*Simplify.rules, AbsIsNothing()))
    job = Job(tmp_path, seed=1, number=0, laws=("each-pass",), size=(4, 8))
    for k in range(400):
        job.test(f"wrong {k}")
        if job.tally.findings:
            break
    (found,) = tmp_path.glob("*.effir")
    text = found.read_text()
    assert "# passes: simplify\n" in text and text.count(" = ") <= 3
    with pytest.raises(Finding):
        replay(found)
    monkeypatch.undo()
    replay(found)


def test_a_campaign_goes_on_where_it_stopped(tmp_path):
    Job(tmp_path, 5, 0, ("text",)).run(0.2)
    again = Job(tmp_path, 5, 0, ("text",))
    assert again.tally.tests > 0 and again.tried


@pytest.mark.parametrize("nothing", NOTHINGS, ids=lambda f: f.__name__)
def test_embellishments_do_nothing(nothing):
    for seed in range(8):
        b, chance = Builder(), random.Random(seed)
        shape = tuple(chance.choice((0, 1, 2, 5)) for _ in range(chance.randint(0, 3)))
        x = b.input("x", Tensor(f32, shape))
        graph = b.graph(nothing(b, b.neg(x), chance))
        verify(graph)
        plain = Builder()
        y = plain.graph(plain.neg(plain.input("x", Tensor(f32, shape))))
        Case.of(y, seed).equal("embellished", y, graph)


def test_reduction_keeps_what_fails():
    graph = GraphDrawer(Choices(rest=random.Random(3))).graph(10, 12)
    name = next(n.op.name for v in graph.results if (n := graph.producer(v)) is not None)
    small = reduce_graph(graph, lambda g: any(n.op.name == name for n in g.walk()), seconds=20)
    assert any(n.op.name == name for n in small.walk())
    assert weight(small) < weight(graph) and sum(n.op.name != "const" for n in small.nodes) == 1


def test_lists_shrink_to_what_matters():
    assert reduce_list("abcdef", lambda kept: "b" in kept and "e" in kept) == ("b", "e")


def test_every_law_holds_for_a_simple_graph():
    b = Builder()
    x = b.input("x", Tensor(f32, (3, 5)))
    for law in LAWS.values():
        law(Case.of(b.graph(b.relu(b.add(x, x))), 0))
