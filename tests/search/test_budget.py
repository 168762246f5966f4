"""The search within a budget: on a made-up compiler whose quality is known, and through the real one."""

import json

import numpy as np
import pytest

import effcc
from effcc.errors import InputError
from effcc.ir import Builder, Symbol, Tensor, f32
from effcc.pipeline import Pass, Range
from effcc.pipeline import passes as registry
from effcc.search import budget as module
from effcc.search.budget import search
from effcc.search.data import Samples

N = Symbol("N", 1)
X = np.linspace(-1, 1, 40, dtype="f4").reshape(10, 4)


class Shrink(Pass):
    """Every result times 1 - r/100."""

    name = "shrink"
    category = "prune"
    contract = "approximate; exact when r=0"
    searchable = {"r": Range(0, 50), "endless": Range(0, None)}
    r: int = 0
    endless: int = 0

    def run(self, graph, ctx):
        if not self.r and not self.endless:
            return graph
        b = Builder(graph.name)
        b.inputs, b.nodes = list(graph.inputs), list(graph.nodes)
        (y,) = graph.results
        return b.graph(b.mul(y, b.full_like(y, 1 - (self.r + min(self.endless, 20)) / 100)))


@pytest.fixture(autouse=True)
def shrink(monkeypatch):
    table = dict(registry.pass_table()) | {"shrink": f"{__name__}:Shrink"}
    monkeypatch.setattr(registry, "pass_table", lambda: table)


def graph():
    b = Builder("model")
    return b.graph(b.neg(b.input("x", Tensor(f32, (N, 4)))))


SAMPLES = Samples.load({"x": X}, graph())


class Fake:
    """A program: outputs that are off by `error` on all samples; its graph tells one value from another."""

    def __init__(self, error, key):
        self.error, self.graph, self.search = error, key, None

    def __call__(self, x):
        return (-x - np.float32(self.error),)


def compiler(error=lambda r: r / 100, saturates=10**9, log=None):
    """compiled(passes, extra, samples) -> Fake with r read from the text."""

    def compiled(passes, extra, samples):
        texts = [*extra.values(), passes or ""]
        r = next((float(t.split("=")[1].split(":")[0]) for t in texts if "shrink" in t), 0.0)
        if log is not None:
            log.append((r, None if samples is None else len(samples)))
        return Fake(error(min(r, saturates)), min(r, saturates))

    return compiled


def tried(program):
    return [t.value for t in program.search.trials]


def test_bisection_finds_the_strongest_value_within_the_budget():
    log = []
    program = search(compiler(log=log), "max_error<=0.1755", SAMPLES, None, {"prune": "shrink:r=?"}, print)
    outcome = program.search
    assert outcome.chosen == 17 and program.error == 0.17
    assert outcome.quality == pytest.approx(0.17, abs=1e-6) and outcome.unmodified == 0
    assert len(log) <= 8 and log[0] == (0, None), "the reference is compiled once"
    assert {seen for _, seen in log[1:]} == {5}, "passes see the half that is searched on"
    assert {t.value: t.kept for t in outcome.trials}[18] is False
    assert outcome.stopped == "bisected" and outcome.samples == (5, 5)


def test_the_strongest_value_of_all():
    program = search(compiler(), "max_error<=0.9", SAMPLES, None, {"prune": "shrink:r=?"}, print)
    assert program.search.chosen == 50 and tried(program) == [25, 38, 44, 47, 49, 50]


def test_without_a_strongest_value_it_doubles_until_nothing_changes():
    program = search(compiler(), "max_error<=0.1055", SAMPLES, None, {"prune": "shrink:endless=?"}, print)
    assert program.search.chosen == 10 and tried(program) == [1, 2, 4, 8, 10, 11, 12, 16]
    program = search(compiler(saturates=6), "max_error<=0.5", SAMPLES, None, {"prune": "shrink:endless=?"}, print)
    assert program.error == 0.06 and max(tried(program)) <= 16


def test_a_value_that_fails_on_the_other_half_is_not_taken(monkeypatch):
    order = np.sort(np.random.default_rng(0).permutation(10)[5:])

    class Uneven(Fake):
        def __call__(self, x):
            (y,) = super().__call__(x)
            if len(x) == 10:  # all samples at once: worse on those that accept
                y[order] -= np.float32(self.error)
            return (y,)

    def compiled(passes, extra, samples):
        return Uneven(compiler()(passes, extra, samples).error, 0)

    program = search(compiled, "max_error<=0.1005", SAMPLES, None, {"prune": "shrink:r=?"}, print)
    assert program.search.chosen == 5
    refused = [t for t in program.search.trials if t.value == 6][0]
    assert refused.search == pytest.approx(0.06, abs=1e-6) and refused.accept == pytest.approx(0.12, abs=1e-6)


def test_no_value_keeps_the_budget():
    program = search(compiler(), "max_error<=0.001", SAMPLES, None, {"prune": "shrink:r=?"}, print)
    assert program.search.chosen is None and program.error == 0 and not program.search.slower
    assert "the unmodified model: no value keeps the budget" in "\n".join(module.text(program.search.as_json()))


def test_a_search_that_is_interrupted_keeps_the_best_so_far():
    class Tired:
        count = 0

        def __call__(self, message):
            self.count += message.startswith("budget: trying")
            if self.count == 4:
                self.count += 1
                raise KeyboardInterrupt

    program = search(compiler(), "max_error<=0.3", SAMPLES, None, {"prune": "shrink:r=?"}, Tired())
    assert program.search.stopped == "interrupted" and program.search.chosen == 25 and len(tried(program)) == 3


def test_time_and_trials_are_limited(monkeypatch):
    program = search(compiler(), "max_error<=0.3", SAMPLES, None, {"prune": "shrink:r=?"}, print, minutes=0)
    assert program.search.stopped == "0 minutes were over" and not program.search.trials
    monkeypatch.setattr(module, "EVALUATIONS", 3)
    program = search(compiler(), "max_error<=0.3", SAMPLES, None, {"prune": "shrink:r=?"}, print)
    assert program.search.stopped == "3 values tried" and program.search.chosen == 25


def test_a_slower_program_is_called_slower(monkeypatch):
    monkeypatch.setattr(module, "timed", lambda programs, samples, rounds: [1.0, 2.0][: len(programs)])
    program = search(compiler(), "max_error<=0.3", SAMPLES, None, {"prune": "shrink:r=?"}, print)
    assert program.search.slower and "SLOWER" in "\n".join(module.text(program.search.as_json()))
    monkeypatch.setattr(module, "timed", lambda programs, samples, rounds: [2.0, 1.0][: len(programs)])
    program = search(compiler(), "max_error<=0.3", SAMPLES, None, {"prune": "shrink:r=?"}, print)
    assert not program.search.slower and "SLOWER" not in "\n".join(module.text(program.search.as_json()))


@pytest.mark.parametrize(
    ("budget", "samples", "extra", "words"),
    [
        ("top1>=0.9", SAMPLES, {"prune": "shrink:r=?"}, "top1 needs labels"),
        ("max_error<=-1", SAMPLES, {"prune": "shrink:r=?"}, "the unmodified model has max_error 0"),
        ("agree>=1", SAMPLES, {"prune": "shrink:r=3"}, "which option shall be searched"),
        ("agree>=1", None, {"prune": "shrink:r=?"}, "measured on calibration data"),
        (None, SAMPLES, {"prune": "shrink:r=?"}, "shrink:r=.: is to be searched within a budget"),
        ("agree>=1", SAMPLES, {"prune": "shrink:r=?", "sparsify": "shrink:r=?"}, "one option of one pass"),
        ("agree>=1", SAMPLES, {"prune": "shrink:size=?"}, "shrink does not offer 'size'.*it offers r, endless"),
        ("agree>=1", SAMPLES[:3], {"prune": "shrink:r=?"}, "3 samples are too few"),
    ],
)
def test_what_a_search_lacks_is_told_in_one_line(budget, samples, extra, words):
    with pytest.raises(InputError, match=words):
        search(compiler(), budget, samples, None, extra, print)


def test_through_the_compiler(tmp_path):
    data = {"x": X}
    program = effcc.compile(graph(), prune="shrink:r=?", budget="cosine>=0.9999", calibration=data, target="onnx")
    assert program.search.chosen == 50, "a factor turns no vector"
    told = []
    program = effcc.compile(
        graph(), passes="simplify,shrink:r=?", budget="max_error<=0.205", calibration=iter(X), progress=told.append
    )
    assert program.search.chosen == 20 and np.allclose(program(X)[0], -0.8 * X)
    assert any(message.startswith("budget: trying shrink:r=25") for message in told)
    report, facts = program.report(), json.loads(json.dumps(effcc.report.facts(program)["search"]))
    assert "budget max_error<=0.205, shrink:r searched on 5 samples" in report and facts["chosen"] == 20
    program.save(tmp_path / "found.effcc")
    assert "chosen: shrink:r=20" in effcc.load(tmp_path / "found.effcc").report()
    with pytest.raises(InputError, match="is to be searched within a budget"):
        effcc.compile(graph(), prune="shrink:r=?")
