"""Campaigns find planted bugs, reduce and save them, and go on where they stopped."""

import random
from collections import Counter

import pytest

from effcc.fuzz import campaign
from effcc.fuzz.campaign import ALONE, CI_TESTS, FAILURES, Job, alike, ci, replay
from effcc.fuzz.case import STRICT, Case, Finding
from effcc.fuzz.corpus import Entry
from effcc.fuzz.generate import GraphDrawer
from effcc.fuzz.laws import LAWS, hold, same_as_interpreted
from effcc.fuzz.recipe import Recipe, Subject
from effcc.fuzz.reduce import reduce_graph, reduce_list, weight
from effcc.fuzz.transform import NOTHINGS
from effcc.ir import Builder, Tensor, f32, verify
from effcc.passes.simplify import Simplify
from effcc.rewrite import Rule
from effcc.testing.search import Choices
from effcc.text import parse

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
    tally, findings = ci(tmp_path, CHEAP)
    assert not findings, findings[0].read_text()
    assert tally.tests == CI_TESTS and tally.special > 10 and tally.mutated > 10


ATTENTION = """graph @f(%q: f32[2,3,4], %k: f32[2,4,5], %v: f32[2,5,4], %m: bool[2,3,5]) -> f32[2,3,4] {
  %0: f32[2,3,5] = matmul(%q, %k)
  %1: f32[] = const 0.5
  %2: f32[2,3,5] = mul(%0, %1)
  %3: f32[] = const -inf
  %4: f32[2,3,5] = where(%m, %2, %3)
  %5: f32[2,3,5] = softmax(%4) {axis=2}
  %6: f32[2,3,4] = matmul(%5, %v)
  return %6
}"""


def test_mutations_go_where_fresh_draws_do_not(tmp_path, monkeypatch):
    """Of the rules that raise attention, as many tests reach more when they are mutations of one than when drawn."""
    reached = {}
    monkeypatch.setattr(campaign, "SEEDED", 0.0)
    monkeypatch.setattr(campaign, "WATCHED", 1)
    for mutated in (0.0, 1.0):
        monkeypatch.setattr(campaign, "MUTATED", mutated)
        job = Job(tmp_path / str(mutated), 2, 0, ("each-pass",), subject=Subject.of("cpu", "raise"),
                  without=("near-misses",))
        assert job.corpus is not None and job.corpus.add(Entry(parse(ATTENTION), Recipe()), {"branch a 0 1"})
        for k in range(60):
            job.test(f"branches {k}")
        assert (job.tally.mutated > 50) == bool(mutated) and not job.tally.findings
        reached[mutated] = {f for f in job.corpus.counts if f.startswith("branch passes/raise_attention.py")}
    assert len(reached[1.0]) > 2 * len(reached[0.0])


def test_after_failures_in_a_row_the_recipe_is_mutated(tmp_path, monkeypatch):
    monkeypatch.setattr(campaign, "MUTATED", 1.0)
    job = Job(tmp_path, seed=3, number=0, laws=())
    assert job.corpus is not None
    job.test("first")
    (parent,) = job.corpus.entries
    entry, origin = job.drawn("second", mutated=True)
    assert origin is parent and entry.graph != parent.graph and entry.recipe is parent.recipe
    parent.failures = FAILURES
    entry, origin = job.drawn("second", mutated=True)
    assert origin is parent and entry.graph is parent.graph and entry.recipe != parent.recipe
    assert parent.failures == 0


def test_without_coverage_every_test_is_drawn(tmp_path):
    job = Job(tmp_path, seed=1, number=0, laws=("text",), coverage=False)
    for k in range(20):
        job.test(f"plain {k}")
    job.save()
    assert job.tally.mutated == job.tally.branches == 0
    assert not list(tmp_path.glob("corpus*"))


def test_passes_and_target_are_chosen(tmp_path):
    job = Job(tmp_path, seed=1, number=0, laws=("each-pass", "pass-orders"), subject=Subject.of("cpu", "dce,cse"))
    ran = Counter()
    assert job.coverage is not None
    watched = job.coverage.run
    monkeypatched = lambda p, graph, ctx: ran.update([p.name]) or watched(p, graph, ctx)  # noqa: E731
    job.coverage.run = monkeypatched  # type: ignore[method-assign]
    for k in range(5):
        job.test(f"chosen {k}")
    assert set(ran) == {"dce", "cse"}


def test_cuda_code_agrees_in_tritons_interpreter(tmp_path):
    pytest.importorskip("triton")
    job = Job(tmp_path, seed=12, number=0, laws=("compiled", "schedules", "recipes"), subject=Subject.of("cuda"))
    for k in range(3):
        job.tally.tests = 0
        job.test(f"cuda {k}")
    findings = [path.read_text() for path in tmp_path.glob("*.effir")]
    assert not findings, findings[0]
    assert job.tally.laws["compiled"] == 3


def test_compiled_graphs_agree(tmp_path):
    job = Job(tmp_path, seed=12, number=0, laws=("compiled", "recipes"))
    for k in range(6):
        job.tally.tests = 0
        job.test(f"compiled {k}")
    findings = [path.read_text() for path in tmp_path.glob("*.effir")]
    assert not findings, findings[0]


def test_a_planted_bug_is_found_reduced_and_replayed(tmp_path, monkeypatch):
    monkeypatch.setattr(Simplify, "rules", (*Simplify.rules, AbsIsNothing()))
    job = Job(tmp_path, seed=1, number=0, laws=("each-pass",), size=(4, 8), without=("near-misses",))
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


def test_a_finding_of_a_recipe_is_replayed_with_its_passes(tmp_path, monkeypatch):
    """The passes are kept in the file: which ones were drawn for the seed does not matter."""
    monkeypatch.setattr(Simplify, "rules", (*Simplify.rules, AbsIsNothing()))
    b = Builder()
    graph = b.graph(b.neg(b.abs(b.input("x", Tensor(f32, (3,))))))
    job = Job(tmp_path, seed=1, number=0, laws=("pass-orders",))
    recipe = Recipe.parse("cse,fold,simplify,dce | tiles | 2")
    with pytest.raises(Finding) as found:
        LAWS["pass-orders"](Case.of(graph, "key", recipe=recipe))
    job.report(found.value, "key", "pass-orders", recipe)
    (path,) = tmp_path.glob("*.effir")
    assert "# recipe: simplify | tiles | 2\n" in path.read_text()
    with pytest.raises(Finding):
        replay(path)
    monkeypatch.undo()
    replay(path)


def test_a_campaign_goes_on_where_it_stopped(tmp_path):
    before = Job(tmp_path, 5, 0, ("text",))
    before.run(1.0)
    again = Job(tmp_path, 5, 0, ("text",))
    assert again.tally.tests > 0 and again.tried
    assert before.corpus is not None and again.corpus is not None
    assert [e.graph for e in again.corpus.entries] == [e.graph for e in before.corpus.entries]
    assert again.corpus.counts == before.corpus.counts and before.corpus.entries


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


def test_a_law_that_dies_is_a_finding(monkeypatch):
    def dying(case):
        raise KeyError("x")

    monkeypatch.setitem(LAWS, "text", dying)
    b = Builder()
    with pytest.raises(Finding, match="text: the law itself dies: KeyError"):
        hold("text", Case.of(b.graph(b.relu(b.input("x", Tensor(f32, (3,))))), 0))


def test_between_two_tests_rules_stand_alone(tmp_path):
    """All but one in so many are small, of one pass each, and the laws that are dear are not held against them."""
    job = Job(tmp_path, 5, 0, ("text", "definitions", "each-pass", "pass-orders"))
    for k in range(3 * (ALONE + 1)):
        job.test(f"alone {k}")
    assert job.tally.laws["each-pass"] <= 4 < job.tally.laws["pass-orders"] and not job.tally.findings
    entry = job.alone("one")
    assert entry is not None and len(entry.recipe.passes) == 1
    assert Job(tmp_path, 5, 1, ("each-pass",), subject=Subject.of("cpu", "dce")).alone("one") is None


def test_signs_of_zeros_are_asked_of_code(monkeypatch):
    """-0 is 0 in every comparison, but 1 / -0 is not 1 / 0: where bits can be asked, these are among them."""
    graph = parse("graph @f(%x: f32[8]) -> f32[8] { %0: f32[8] = neg(%x)\n return %0 }")
    case = Case.of(graph, 0)
    hold("compiled", case)
    (x,) = case.inputs[STRICT]
    with pytest.raises(Finding, match="differs in bits from what the interpreter"):
        same_as_interpreted("compiled", case, graph, STRICT, [0.0 - x])


def test_values_that_differ_are_alike_whatever_is_asked_of_them():
    graph = parse(ATTENTION)
    bits = Finding("each-pass", "result 0 differs in bits on strict inputs", graph)
    bounds = Finding("each-pass", "strict: result 3[0, 1] in f64: -2.0 after, 2.0 before (allowed: 3e-06)", graph)
    dies = Finding("each-pass", "pass fold: KeyError: 3", graph)
    assert alike(bits, bounds) and not alike(bits, dies) and alike(dies, dies)
    assert not alike(bits, Finding("compiled", bits.message, graph))


def test_most_of_what_is_compiled_are_ops_side_by_side(tmp_path, monkeypatch):
    job = Job(tmp_path, 6, 0, ("compiled",))
    monkeypatch.setitem(LAWS, "compiled", lambda case: sizes.append((len(case.inputs), len(case.graph.results))))
    sizes = []
    for k in range(12 * (ALONE + 1)):
        job.test(f"beside {k}")
    assert len(sizes) == 6 and sum(results >= 6 for _, results in sizes) >= 4
    assert max(profiles for profiles, _ in sizes) == 3
