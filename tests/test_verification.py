from types import SimpleNamespace

import numpy as np
import pytest
import torch

from effcc import verification
from effcc.analysis.precision import Bounded
from effcc.interp import run
from effcc.ir import Builder, Graph, Loc, Tensor, Value, f32, i64


@pytest.fixture
def graph():
    b = Builder("g")
    x = b.input("x", Tensor(f32, (4, 4)))
    for name, op in (("first", b.exp), ("second", b.sqrt), ("third", b.tanh)):
        with b.at(Loc("g", name)):
            x = op(x)
    return b.graph(x)


X = (np.linspace(0.1, 1, 16, dtype="f4").reshape(4, 4),)


def broken(op, when=lambda graph: True):
    """compile() of an engine that gets one op wrong, in graphs of which `when` holds."""

    def compile(graph):
        def wrong(node, operands, results):
            return tuple(r + 0.01 for r in results) if node.op.name == op and when(graph) else None

        def call(*inputs):
            return run(graph, *inputs, observe=wrong)

        call.graph, call.output_names = graph, tuple(f"y{k}" for k in range(len(graph.results)))
        return call

    return compile


def test_a_right_program_agrees(graph):
    right = broken("nothing")
    verdict = verification.verify(right(graph), graph, X, None, right)
    assert verdict.agrees and verdict.divergence is None and verdict.program[0].ulp <= 2
    assert verdict.reference[0].ulp <= 2


@pytest.mark.parametrize("op, name", [("exp", "first"), ("sqrt", "second"), ("tanh", "third")])
def test_the_first_diverging_op_is_named(graph, op, name):
    compile = broken(op)
    verdict = verification.verify(compile(graph), graph, X, None, compile)
    assert not verdict.agrees and verdict.passes_agree and verdict.fresh_agrees is False
    assert verdict.divergence.loc == f"g:{name}" and op in verdict.divergence.op
    assert verdict.divergence.error.largest == pytest.approx(0.01, rel=0.01)


def test_a_fault_that_hides_when_values_are_exposed_is_bisected(graph):
    compile = broken("sqrt", when=lambda g: len(g.results) == 1)
    verdict = verification.verify(compile(graph), graph, X, None, compile)
    assert verdict.divergence.loc == "g:second"


def test_a_fault_of_the_whole_alone_names_no_op(graph):
    whole = graph.results[0]
    state = {"calls": 0}

    def when(g):
        state["calls"] += 1
        return state["calls"] <= 2  # the program, and its fresh compilation

    compile = broken("tanh", when)
    verdict = verification.verify(compile(graph), graph, X, None, compile)
    assert not verdict.agrees and verdict.divergence is None and whole in graph.results


def test_wrong_passes_are_told_from_wrong_code(graph):
    def compile(g):
        b = Builder("other")
        x = b.input("x", Tensor(f32, (4, 4)))
        other = b.graph(*(b.add(x, x) for _ in g.results))
        call = lambda *inputs: run(other, *inputs)  # noqa: E731
        call.graph, call.output_names = other, tuple("y" for _ in g.results)
        return call

    verdict = verification.verify(compile(graph), graph, X, None, compile)
    assert verdict.passes_agree is False and verdict.divergence.loc == "g:first"


def test_an_artifact_that_is_stale(graph):
    verdict = verification.verify(broken("exp")(graph), graph, X, None, broken("nothing"))
    assert not verdict.agrees and verdict.fresh_agrees and verdict.divergence is None


def error(got, exact, bound=0.0, type_=f32):
    exact = torch.as_tensor(exact)
    bounded = Bounded(exact, torch.full(exact.shape, float(bound), dtype=torch.float64))
    value = Value(Tensor(type_, tuple(exact.shape)), "v")
    return verification.error("v", value, torch.as_tensor(got), bounded)


def test_errors_in_ulp_of_the_largest_element():
    found = error([1.0, 4.0 + 2**-20], [1.0, 4.0])
    assert found.largest == 2**-20 and found.ulp == pytest.approx(2.0) and found.at == (1,)
    assert not found.agrees
    assert error([1.0, 4.0 + 2**-20], [1.0, 4.0], bound=2**-20).agrees


def test_nan_infinity_and_shapes():
    nan, inf = float("nan"), float("inf")
    assert error([nan, inf, -inf], [nan, inf, -inf]).agrees
    for got, exact in ((nan, 1.0), (1.0, nan), (inf, 1.0), (inf, -inf), (1.0, inf)):
        assert not error([got], [exact], bound=1.0).agrees, (got, exact)
    assert not error([[1.0]], [1.0], bound=9).agrees
    assert error(torch.zeros(0, 3), torch.zeros(0, 3)).agrees


def test_integers_are_exact():
    assert error([1, 2], [1, 2], type_=i64).agrees
    found = error([1, 3], [1, 2], type_=i64)
    assert not found.agrees and found.ulp == 1


def test_a_prefix_keeps_the_inputs_and_drops_what_it_does_not_need(graph):
    middle = graph.nodes[1].result
    part = verification.prefix(graph, (middle,))
    assert (
        isinstance(part, Graph) and len(part.nodes) == 2 and part.inputs == graph.inputs and part.results == (middle,)
    )


def test_onnx_runtime_that_refuses_is_one_line(tmp_path):
    from effcc.errors import UnsupportedError

    (tmp_path / "m.onnx").write_bytes(b"nonsense")
    with pytest.raises(UnsupportedError, match="ONNX Runtime refuses it"):
        verification.onnxruntime(tmp_path / "m.onnx", ("x",))


def test_json(graph):
    compile = broken("exp")
    found = verification.as_json(verification.verify(compile(graph), graph, X, None, compile))
    assert found["agrees"] is False and found["divergence"]["at"] == "g:first"
    assert SimpleNamespace(**found["program"][0]).agrees is False
