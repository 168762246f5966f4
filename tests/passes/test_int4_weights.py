"""int4-weights: groups, two elements a byte. What it shares with int8-weights is tested there."""

from __future__ import annotations

import numpy as np

from effcc.interp import run
from effcc.ir import Builder, Tensor
from effcc.ir.types import f32
from effcc.passes.int4_weights import Int4Weights
from effcc.pipeline import Context, parse_pass
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
