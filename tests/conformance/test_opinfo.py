"""The OpInfo harness: what it counts, that nothing wrong gets through it, and a quick subset."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest
import torch

from effcc.errors import UnsupportedError
from effcc.frontends.torch import dynamo, emitter

pytest.importorskip("expecttest", reason="torch's OpInfo needs it")
QUICK = (
    "sin/float32 add/float16 sub/int64 mul/bool softmax/float32 sort/bool nonzero/float32 "
    "nn.functional.dropout/float32 empty/int32 arange/int64 matmul/float64 fft.fft/float32"
).split()


@pytest.fixture(scope="module")
def runner():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parent))
        module = importlib.import_module("opinfo")
        configuration = {"capture_scalar_outputs": True, "capture_dynamic_output_shape_ops": True}
        module.database()
        with torch._dynamo.config.patch(configuration):
            yield module


@pytest.fixture(scope="module")
def agreement(runner):
    return importlib.import_module("agreement")


def test_every_case_of_the_six_dtypes_is_there(runner):
    from torch.testing._internal.common_methods_invocations import op_db

    dtypes = [getattr(torch, d) for d in runner.DTYPES]
    assert len(runner.cases()) == sum(len(op.supported_dtypes("cpu").intersection(dtypes)) for op in op_db) > 3000
    assert len(runner.database()) == len(op_db)


@pytest.mark.parametrize("case", QUICK)
def test_quick_subset(runner, case):
    answer = runner.run_case(case, 2, 60)
    assert answer["outcome"] == "pass", answer
    assert answer["ends"] == {"pass": answer["samples"]}


def test_random_and_uninitialised_results_are_said_to_be(runner):
    assert runner.run_case("uniform/float32", 1, 60)["notes"] == ["random"]
    assert runner.run_case("empty/float32", 1, 60)["notes"] == ["uninitialised"]


def test_a_wrong_result_does_not_pass(runner, monkeypatch):
    monkeypatch.setitem(emitter.HANDLERS, "aten.sin", lambda e, x: e.b.cos(x))
    answer = runner.run_case("sin/float32", 2, 60)
    assert answer["outcome"] == "wrong" and "torch" in answer["reason"]


def test_what_is_refused_is_named(runner):
    answer = runner.run_case("svd/float32", 2, 60)
    assert answer["outcome"] == "refused" and "_linalg_svd" in answer["reason"]
    answer = runner.run_case("allclose/float32", 1, 60)
    assert answer["outcome"] == "refused" and answer["reason"].startswith("torch: Dynamo cannot trace it")


def test_an_exception_that_names_nothing_is_a_crash(runner, monkeypatch):
    def broken(e, x):
        raise KeyError("x")

    monkeypatch.setitem(emitter.HANDLERS, "aten.sin", broken)
    assert runner.run_case("sin/float32", 1, 60)["outcome"] == "crash"


def test_meanings_do_not_count(runner, monkeypatch):
    from effcc import interp

    monkeypatch.setattr(dynamo, "program_of", lambda graph, options: lambda *tensors: interp.run(graph, *tensors))
    answer = runner.run_case("sin/float32", 1, 60)
    assert answer["outcome"] != "pass" and "by its meaning" in answer["reason"]


def test_one_bad_sample_of_a_group_is_found(runner, monkeypatch):
    sine = emitter.HANDLERS["aten.sin"]

    def wrong_for_vectors(e, x):
        return e.b.cos(x) if len(x.shape) == 1 else sine(e, x)

    monkeypatch.setitem(emitter.HANDLERS, "aten.sin", wrong_for_vectors)
    group = [runner.Sample((torch.randn(shape),), {}) for shape in ((2, 2), (3,), (4, 1), (2, 2, 2))]
    outcomes = [o.kind for o in runner.judge(runner.Op("sin", torch.sin), group, 60)]
    assert outcomes == ["pass", "wrong", "pass", "pass"]

    def refused_for_vectors(e, x):
        if len(x.shape) == 1:
            raise UnsupportedError("sin of vectors is not supported")
        return sine(e, x)

    monkeypatch.setitem(emitter.HANDLERS, "aten.sin", refused_for_vectors)
    outcomes = [o.kind for o in runner.judge(runner.Op("sin", torch.sin), group, 60)]
    assert outcomes == ["pass", "refused", "pass", "pass"]


def test_random_calls_are_judged_in_company(runner, monkeypatch):
    op = runner.Op("rand_like", lambda x: torch.rand_like(x) * 2)
    group = [runner.Sample((torch.zeros(shape),), {}) for shape in ((40,), (5, 8), (2, 20))]
    built = []
    program_of = dynamo.program_of
    monkeypatch.setattr(dynamo, "program_of", lambda *given: built.append(1) or program_of(*given))
    assert [o.reason for o in runner.judge(op, group, 60)] == ["random"] * 3
    assert len(built) == 1
    product = emitter.HANDLERS["aten.mul"]
    monkeypatch.setitem(emitter.HANDLERS, "aten.mul", lambda e, x, y: product(e, x, 4 if len(x.shape) == 1 else y))
    outcomes = runner.judge(op, group, 60)
    assert [o.kind for o in outcomes] == ["wrong", "pass", "pass"] and "distributed otherwise" in outcomes[0].reason


@pytest.mark.parametrize("kind", ["crash", "wrong"])
def test_what_fails_in_company_only_does_not_pass(runner, monkeypatch, kind):
    program_of = dynamo.program_of

    def broken(graph, options):
        program = program_of(graph, options)
        if len(graph.results) == 1:
            return program
        if kind == "crash":
            raise KeyError("x")
        return Negated(program)

    class Negated:
        def __init__(self, program):
            self.program, self.launches, self.graph = program, program.launches, program.graph

        def __call__(self, *tensors):
            return [-x for x in self.program(*tensors)]

    monkeypatch.setattr(dynamo, "program_of", broken)
    group = [runner.Sample((torch.ones(shape),), {}) for shape in (2, 3)]
    outcomes = runner.judge(runner.Op("sin", torch.sin), group, 60)
    assert {o.kind for o in outcomes} == {kind} and "beside 1 other" in outcomes[0].reason


def test_agreement(agreement):
    one = torch.ones(3)
    none = lambda: None  # noqa: E731
    assert agreement.difference(one, one, none, none) is None
    assert agreement.difference(one + 1e-7, one, none, none) is None
    assert agreement.difference(one + 1e-5, one, none, none) is not None
    assert agreement.difference(one + 1e-5, one, none, lambda: torch.full((3,), 1e-4)) is None
    assert agreement.difference(one.double(), one, none, none) == "float64[3], not float32[3]"
    assert agreement.difference(one * torch.nan, one, none, lambda: torch.full((3,), 1e9)) is not None
    assert agreement.difference(one, one * torch.nan, none, none) is not None
    assert agreement.difference(one.long() + 1, one.long(), none, none) is not None
    off = torch.tensor([1.0, 1.0, 1.0 + 1e-3])  # torch is off itself
    assert agreement.difference(one - 5e-4, off, lambda: one.double(), none) is None
    assert agreement.difference([1], (1,), none, none) is not None


def test_distributions(agreement):
    torch.manual_seed(0)
    normal, other = torch.randn(24, 50), torch.randn(24, 50)
    assert agreement.distributions_differ(normal, other) is None
    assert agreement.distributions_differ(normal, other * 1.5) is not None
    blocks = [(torch.rand(24, 1) < 0.5).float().expand(24, 50) for _ in range(2)]  # whole runs dropped
    assert agreement.distributions_differ(*blocks) is None
    assert agreement.distributions_differ(blocks[0], blocks[1] * (1 + 1e-6)) is None


def test_unlisted_failures_are_a_regression(runner, tmp_path, monkeypatch):
    monkeypatch.setattr(runner, "UNSUPPORTED_LIST", tmp_path / "list.txt")
    outcomes = {f"op{k}/float32": {"outcome": "pass", "reason": "", "ends": {"pass": 1}} for k in range(9)}
    outcomes["bad/float32"] = {"outcome": "refused", "reason": "r", "ends": {"refused": 1}}
    runner.write_list(outcomes, runner.UNSUPPORTED_LIST)
    assert runner.verdict(outcomes, partial=False) == 0
    outcomes["op0/float32"]["outcome"] = "wrong"
    assert runner.verdict(outcomes, partial=True) == 1
    few = {n: {**a, "outcome": "refused"} for n, a in outcomes.items()}
    runner.write_list(few, runner.UNSUPPORTED_LIST)
    assert runner.verdict(few, partial=False) == 1
