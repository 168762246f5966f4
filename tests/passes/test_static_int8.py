"""Static quantization: bounds, refusals, options, notes, and the whole way to code on the digits ViT."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import effcc
from effcc.errors import EffccError, InputError
from effcc.interp import run
from effcc.ir import Builder, Symbol, Tensor, f32
from effcc.ir.location import Loc
from effcc.ir.types import DTYPES
from effcc.machine import parse as machine
from effcc.passes.static_int8 import StaticInt8, quantized_weights
from effcc.pipeline import Context, parse_pass
from effcc.search.data import Samples
from effcc.testing import Mismatch, check

DIGITS = Path(__file__).parent.parent.parent / "examples" / "digits"


def layer(columns=20, depth=24, seed=0):
    """relu(x @ w + bias)"""
    rows = Symbol("B", 1, 64)
    random = np.random.default_rng(seed)
    b = Builder("layer")
    x = b.input("x", Tensor(f32, (rows, depth)))
    w = b.const(random.standard_normal((depth, columns)).astype("f4"))
    return b.graph(b.relu(b.add(b.matmul(x, w), b.const(random.standard_normal(columns).astype("f4")))))


def normal(*shape, seed=1):
    return np.random.default_rng(seed).standard_normal(shape).astype("f4")


def quantize(graph, x, **options):
    ctx = Context(calibration=Samples.load({"x": x}, graph))
    return StaticInt8(**options).run(graph, ctx), ctx


def ops(graph, name):
    return [n for n in graph.nodes if n.op.name == name]


@pytest.mark.parametrize("options", [{}, {"activations": "s8", "method": "min-max"}, {"method": "percentile"}],
                         ids=str)  # fmt: skip
def test_the_contract(options):
    """Results stay within half a quantum of each quantized element (min-max: the drawn inputs are the calibration)."""
    assert check(StaticInt8(**options), examples=20, must_fire=True).fired


def test_the_contract_catches_wrong_scales(monkeypatch):
    def wrong(array, axis):
        q, scale = quantized_weights(array, axis)
        return q, scale * np.float32(1.5)

    monkeypatch.setattr("effcc.passes.static_int8.quantized_weights", wrong)
    with pytest.raises(Mismatch):
        check(StaticInt8(correct=False, report=0), examples=10)


def test_errors_stay_within_the_derived_bound():
    """|y - y_q| <= Σ_k |x| Δw + |w| Δx + Δx Δw, where Δ is half a quantum (f32 rounding comes on top)."""
    graph, x = layer(), normal(50, 24)
    quantized, _ = quantize(graph, x, method="min-max", correct=False, report=0)
    w = next(n.op.blob.array for n in graph.nodes if n.op.name == "const" and n.result.tensor.rank == 2)
    (q,) = ops(quantized, "quantize_linear")
    scale = float(next(n for n in quantized.nodes if n.results[0] is q.operands[1]).op.blob.array)
    dx, dw = scale / 2, quantized_weights(w, 1)[1] / 2
    bound = np.abs(x) @ np.broadcast_to(dw, w.shape) + dx * np.abs(w).sum(0) + len(w) * dx * dw
    exact, approximate = (run(g, x)[0].numpy() for g in (graph, quantized))
    assert (np.abs(exact - approximate) <= bound * (1 + 1e-5) + 1e-5).all()
    assert np.abs(exact - approximate).max() > 0


def test_it_is_exact_where_bytes_hold_all_values():
    """Activations 0..255 and weights with a largest magnitude of 127 in each column."""
    random = np.random.default_rng(2)
    w = random.integers(-127, 128, (16, 6)).astype("f4")
    w[0] = 127
    b = Builder("whole")
    x = b.input("x", Tensor(f32, (9, 16)))
    graph = b.graph(b.matmul(x, b.const(w)))
    values = random.integers(0, 256, (9, 16)).astype("f4")
    values[0, :2] = 0, 255
    quantized, _ = quantize(graph, values[None], method="min-max", report=0)
    np.testing.assert_array_equal(run(graph, values)[0], run(quantized, values)[0])
    program = effcc.compile(graph, quantize="static-int8:method=min-max:always", calibration={"x": values[None]})
    np.testing.assert_array_equal(program(values)[0], values @ w)


def test_an_activation_is_quantized_once_for_all_its_readers():
    b = Builder("shared")
    x = b.input("x", Tensor(f32, (4, 24)))
    ys = [b.matmul(x, b.const(normal(24, 8, seed=k))) for k in range(3)]
    quantized, _ = quantize(b.graph(*ys), normal(4, 24), report=0)
    assert len(ops(quantized, "quantize_linear")) == 1


def refusals(graph, x, **options):
    _, ctx = quantize(graph, x, **options)
    return " / ".join(r.reason for r in ctx.refusals)


def test_it_tells_what_it_leaves():
    b = Builder("several")
    x = b.input("x", Tensor(f32, (4, 24)))
    y = b.matmul(x, b.const(normal(24, 24)))
    z = b.matmul(y, b.transpose(y, perm=(1, 0)))
    graph = b.graph(b.matmul(b.matmul(z, y), b.const(normal(24, 9))))
    reasons = refusals(graph, normal(4, 24), report=0)
    assert "its weights are no constant" in reasons
    assert "it is the first layer" in refusals(graph, normal(4, 24), first=False, report=0)
    assert "it is the last layer" in refusals(graph, normal(4, 24), last=False, report=0)


def test_layers_are_skipped_by_their_location():
    b = Builder("named")
    x = b.input("x", Tensor(f32, (4, 24)))
    with b.at(Loc("m", "head")):
        y = b.matmul(x, b.const(normal(24, 24)))
    with b.at(Loc("m", "tail")):
        graph = b.graph(b.matmul(y, b.const(normal(24, 9))))
    quantized, ctx = quantize(graph, normal(4, 24), skip=("tail", "neck"), report=0)
    assert [r.reason for r in ctx.refusals] == ["skip=tail"]
    assert len(ops(quantized, "quantize_linear")) == 1


def test_values_that_are_not_finite_are_left():
    assert "not finite" in refusals(layer(), np.full((2, 24), np.inf, "f4"), report=0)


def test_it_wants_calibration_data():
    with pytest.raises(InputError, match="has to see activations"):
        StaticInt8().run(layer(), Context())


@pytest.mark.parametrize("options", ["method=most", "activations=u4", "percent=0"])
def test_options_are_checked(options):
    with pytest.raises(EffccError):
        parse_pass(f"static-int8:{options}")


def depthwise():
    b = Builder("depthwise")
    x = b.input("x", Tensor(f32, (1, 8, 6, 6)))
    w = b.const(normal(8, 1, 3, 3))
    return b.graph(b.conv(x, w, strides=(1, 1), pads=(1, 1, 1, 1), dilations=(1, 1), groups=8))


def test_the_cost_model_keeps_what_is_no_faster():
    fast, slow = machine("cpu{mcpu=icelake-server}"), machine("cpu{mcpu=haswell}")
    for graph, x, cpu, reason in (
        (layer(), normal(2, 24), slow, "multiplies bytes no faster"),
        (depthwise(), normal(1, 8, 6, 6), fast, "fp32 is no slower"),
    ):
        ctx = Context(machine=cpu, calibration=Samples.load({"x": x}, graph))
        assert StaticInt8().run(graph, ctx) is graph
        assert any(reason in r.reason for r in ctx.refusals)
        assert StaticInt8(always=True, report=0).run(graph, ctx) is not graph
    ctx = Context(machine=fast, calibration=Samples.load({"x": normal(2, 24)}, layer()))
    assert StaticInt8().run(layer(), ctx) is not layer()


def test_only_what_measures_faster_is_quantized():
    """A machine on which integers win only where the product is wide enough."""
    b = Builder("wide and narrow")
    x = b.input("x", Tensor(f32, (Symbol("B", 1, 64), 24)))
    graph = b.graph(b.matmul(b.matmul(x, b.const(normal(24, 24))), b.const(normal(24, 200))))

    def measure(g):
        products = [n for n in g.nodes if n.op.name == "matmul"]
        assert all(n.result.tensor.is_static for n in products)
        made_by = [g.producer(n.operands[0]) for n in products]
        quantized = [n for n, p in zip(products, made_by, strict=True) if p and p.op.name == "dequantize_linear"]
        return 1.0 + sum(-0.5 if n.result.shape[-1] > 100 else 1.0 for n in quantized)

    ctx = Context(calibration=Samples.load({"x": normal(3, 24)}, graph), measure=measure)
    quantized = StaticInt8(report=0).run(graph, ctx)
    assert [n.result.shape[-1] for n in ops(quantized, "quantize_linear")] == [24]
    assert [r.reason for r in ctx.refusals] == ["int8 measures 1500.000 ms, fp32 1000.000 ms"]
    (real, *_) = (n.result for n in ops(quantized, "dequantize_linear") if n.result.tensor.shape[-1] == 24)
    assert [n.result.shape[-1] for n in quantized.users(real)] == [200]
    slow = Context(calibration=ctx.calibration, measure=lambda g: float(len(g.nodes)))
    assert StaticInt8(report=0).run(graph, slow) is graph


@pytest.mark.parametrize("target", ["cpu", "cpu{mcpu=haswell}", "cpu{mcpu=x86-64}"])
def test_code_does_what_the_quantized_graph_says(target):
    """With VNNI (where this machine has it) and without."""
    graph, x = layer(columns=37, depth=45), normal(13, 45)
    program = effcc.compile(graph, target=target, quantize="static-int8:always:report=0", calibration={"x": x})
    quantized, _ = quantize(graph, x, report=0)
    np.testing.assert_allclose(program(x)[0], run(quantized, x)[0], rtol=1e-5, atol=1e-5)


# -- errors by layer ---------------------------------------------------------------------------------------------------
def test_notes_tell_each_layers_error():
    b = Builder("two")
    x = b.input("x", Tensor(f32, (4, 24)))
    y = b.relu(b.matmul(x, b.const(normal(24, 32))))
    graph = b.graph(b.matmul(y, b.const(normal(32, 20, seed=5))))
    _, ctx = quantize(graph, normal(4, 24), report=1)
    assert [set(n.figures) for n in ctx.notes] == [{"sqnr dB", "max error", "results dB"}] * 2
    for note in ctx.notes:
        assert 20 < note.figures["sqnr dB"] < 80 and note.figures["max error"] > 0
    assert ctx.notes[1].figures["sqnr dB"] == pytest.approx(ctx.notes[1].figures["results dB"])


def test_a_floor_keeps_the_worst_layers():
    """The second layer's inputs span six orders of magnitude: bytes hold the largest only."""
    b = Builder("two")
    x = b.input("x", Tensor(f32, (4, 24)))
    scales = (10.0 ** np.linspace(-3, 3, 32)).astype("f4")
    y = b.matmul(x, b.const(normal(24, 32) * scales))
    graph = b.graph(b.matmul(y, b.const(normal(32, 20, seed=5) / scales[:, None])))
    everything, ctx = quantize(graph, normal(4, 24), report=1)
    first, second = (n.figures["results dB"] for n in ctx.notes)
    assert second < first
    quantized, told = quantize(graph, normal(4, 24), floor=(first + second) / 2, report=0)
    assert (len(ops(everything, "quantize_linear")), len(ops(quantized, "quantize_linear"))) == (2, 1)
    assert any("alone it brings the results" in r.reason for r in told.refusals)
    assert quantize(graph, normal(4, 24), floor=200.0)[0] is graph


def test_bias_correction_takes_the_mean_error_away():
    graph, x = layer(), normal(64, 24)
    b = Builder("bare")
    v = b.input("x", Tensor(f32, (64, 24)))
    w = next(n.op.blob.array for n in graph.nodes if n.op.name == "const" and n.result.tensor.rank == 2)
    bare = b.graph(b.matmul(v, b.const(w)))
    exact = run(bare, x)[0]
    errors = {
        correct: (run(quantize(bare, x, correct=correct, report=0)[0], x)[0] - exact).mean(0).abs().max()
        for correct in (False, True)
    }
    assert errors[True] < 1e-5 < 1e-4 < errors[False]


# -- the whole way -----------------------------------------------------------------------------------------------------
def digits():
    with np.load(DIGITS / "digits_test.npz") as file:
        return file["images"], file["labels"]


def test_the_digits_vit_in_int8():
    images, labels = digits()
    exact = effcc.compile(DIGITS / "digits_vit.onnx")
    program = effcc.compile(DIGITS / "digits_vit.onnx", quantize="static-int8:report=1", tune="none",
                            calibration={"image": images[:32]})  # fmt: skip
    products = [n for n in program.graph.walk() if n.op.name == "matmul" and n.op.accumulate is not None]
    assert len(products) == 16
    right = [(p(images)[0].argmax(1) == labels).mean() for p in (exact, program)]
    assert right[1] >= right[0] - 0.01
    launches = [(launch.kernel.template, set(launch.label.split("+"))) for launch in program.launches]
    alone = [k for k, (_, ops) in enumerate(launches) if ops <= {"div", "mul", "round", "add", "max", "min", "cast"}]
    assert [launches[k - 1][0] for k in alone] == ["attention"] * 4, "quantized alone only where integers begin again"
    text = program.report()
    assert "notes of static-int8" in text and "sqnr dB" in text


def test_sums_of_another_dtype_stay():
    b = Builder("narrow")
    x, w = b.input("x", Tensor(f32, (4, 24))), b.const(normal(24, 20))
    graph = b.graph(b.matmul(x, w, accumulate=DTYPES["bf16"]))
    same, ctx = quantize(graph, normal(4, 24), always=True)
    assert same is graph and "it gives bf16" in next(iter(ctx.refusals)).reason


def test_sums_that_leave_the_range_are_refused():
    b = Builder("huge")
    x = b.input("x", Tensor(f32, (2, 96)))
    graph = b.graph(b.relu(b.matmul(x, b.const(np.full((96, 96), 3e38, "f4")))))
    quantized, ctx = quantize(graph, normal(4, 96), always=True)
    assert quantized is graph
    assert "its sums may leave the range of f32" in {r.reason for r in ctx.refusals}
