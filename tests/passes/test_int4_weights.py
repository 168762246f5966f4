"""int4-weights: groups, two elements a byte. What it shares with int8-weights is tested there."""

from __future__ import annotations

import numpy as np
import pytest

from effcc.errors import InputError
from effcc.interp import run
from effcc.ir import Builder, Tensor
from effcc.ir.types import f32
from effcc.passes.error_compensation import round_compensated
from effcc.passes.int4_weights import Int4Weights
from effcc.passes.weight_rounding import Grid
from effcc.pipeline import Context, parse_pass
from effcc.search.data import Samples
from effcc.testing import check


def test_its_contract() -> None:
    assert check(Int4Weights(gathers=True), examples=30, must_fire=True).fired
    assert check(Int4Weights(group=64, asymmetric=True, scales="f32"), examples=15, must_fire=True).fired
    assert check(Int4Weights(search="mse"), examples=10, must_fire=True).fired


def test_what_it_makes() -> None:
    b = Builder()
    w = np.random.default_rng(0).standard_normal((100, 64)).astype("f4")
    graph = b.graph(b.matmul(b.input("x", Tensor(f32, (1, 100))), b.const(w)))
    texts = {}
    for options in ("", ":asymmetric=true:group=64"):
        after = parse_pass(f"int4-weights{options}").run(graph, Context())
        texts[options] = [(n.op.name, str(n.result.type)) for n in after.nodes]
        (y,), (exact,) = (run(g, np.ones((1, 100), "f4")) for g in (after, graph))
        assert (y - exact).norm() < 0.2 * exact.norm()
    assert texts[""] == [
        ("const", "i4[100,64]@nibbles"), ("const", "f16[4,64]"), ("dequantize_linear", "f32[100,64]"),
        ("matmul", "f32[1,64]"),
    ]  # fmt: skip
    assert [t for _, t in texts[":asymmetric=true:group=64"][:3]] == [
        "u4[100,64]@nibbles", "f16[2,64]", "u4[2,64]@nibbles"]


def test_scales_in_f16_hold_each_weight() -> None:
    """They are rounded up: the greatest weight is not cut."""
    b = Builder()
    w = np.random.default_rng(0).standard_normal((64, 64)).astype("f4")
    after = Int4Weights().run(b.graph(b.matmul(b.input("x", Tensor(f32, (64, 64))), b.const(w))), Context())
    q, scale = (n.op.blob.array for n in after.nodes[:2])  # type: ignore[attr-defined]
    assert (7 * scale.astype("f8") >= np.abs(w).reshape(2, 32, 64).max(1)).all() and np.abs(q).max() == 7


def correlated(n: int, k: int) -> np.ndarray:
    generator = np.random.default_rng(n)
    return (generator.standard_normal((n, 8)) @ generator.standard_normal((8, k))).astype("f4")


@pytest.mark.parametrize("options", ["", ":asymmetric=true:group=64", ":group=0:scales=f32", ":search=mse"])
@pytest.mark.parametrize("transposed", [False, True])
def test_compensation_lessens_the_error_of_the_product(options: str, transposed: bool) -> None:
    """On inputs that go together: where an error can be made up for by a neighbour."""
    x, w = correlated(400, 96), np.random.default_rng(0).standard_normal((96, 40)).astype("f4")
    b = Builder()
    weights = b.const(np.ascontiguousarray(w.T) if transposed else w)
    graph = b.graph(b.matmul(b.input("x", Tensor(f32, x.shape)), weights, transpose_b=transposed))
    samples = Samples.load({"x": x}, graph)

    def error(method: str) -> float:
        p = parse_pass(f"int4-weights{options}:method={method}")
        return float(np.linalg.norm(run(p.run(graph, Context(calibration=samples)), x)[0].numpy() - x @ w))

    assert error("gptq") < 0.6 * error("rtn")


def test_compensation_leaves_the_grid_and_takes_dead_inputs() -> None:
    w = np.random.default_rng(0).integers(-7, 8, (64, 32)).astype("f4")
    w[::32] = 7
    moments = np.diag(np.arange(64.0))  # the first input is always 0
    rounded = round_compensated(w, Grid(4, 32), moments)
    np.testing.assert_array_equal(rounded.restored(), w)


def test_compensation_needs_calibration() -> None:
    b = Builder()
    w = np.random.default_rng(0).standard_normal((64, 64)).astype("f4")
    graph = b.graph(b.matmul(b.input("x", Tensor(f32, (1, 64))), b.const(w)))
    with pytest.raises(InputError, match="int4-weights:method=gptq needs calibration data"):
        Int4Weights(method="gptq").run(graph, Context())
