"""Target cuda through the driver: precision, reports, whole models."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import effcc
from effcc.analysis.precision import widen, widen_tensor
from effcc.errors import UnsupportedError
from effcc.interp import run
from effcc.report import facts

pytest.importorskip("triton")

DIGITS = Path(__file__).parents[3] / "examples" / "digits"


@pytest.mark.parametrize("precision,unit", [("fp32", 2**-24), ("fp16", 2**-11), ("bf16", 2**-8)])
def test_digits_vit(precision, unit):
    """A trained transformer, kernel by kernel in the interpreter: near its fp64 meaning, and the same answers."""
    images = np.load(DIGITS / "digits_test.npz")["images"][:3]
    program = effcc.compile(DIGITS / "digits_vit.onnx", target="cuda{run=interpreter}", precision=precision)
    (exact,) = run(widen(program.source), widen_tensor(torch.from_numpy(images)))
    (logits,) = program(images)
    scale = float(exact.abs().max())
    assert np.abs(logits - exact.numpy()).max() <= 18 * unit * scale  # a roundoff for each product
    assert (logits.argmax(1) == exact.numpy().argmax(1)).all()
    assert {launch.template for launch in program.launches} >= {"contraction", "attention", "reduction"}


def test_facts_have_every_kernels_resources():
    program = effcc.compile(DIGITS / "digits_vit.onnx", target="cuda{run=interpreter}")
    found = facts(program)
    assert len(found["kernels"]) == len(program.launches) and all(k["on"] == {} for k in found["kernels"])
    assert found["templates"]["contraction"]["launches"] == 18 and found["memory"]["peak"] > 0
    assert found["bytes"] > 0 and found["flops"] > 0


def test_precision_and_quantize_exclude_each_other():
    with pytest.raises(UnsupportedError, match="precision='fp16' and quantize="):
        effcc.compile(DIGITS / "digits_vit.onnx", target="cuda{run=interpreter}", precision="fp16", quantize="half")
    with pytest.raises(UnsupportedError, match="precision='fp16' is not offered"):
        effcc.compile(DIGITS / "digits_vit.onnx", precision="fp16")


def test_torch_compile_forward_and_backward():
    torch.manual_seed(0)
    layers = (torch.nn.Linear(8, 16), torch.nn.GELU(), torch.nn.LayerNorm(16), torch.nn.Linear(16, 4))
    module = torch.nn.Sequential(*layers)
    compiled = torch.compile(module, backend="effcc", options={"target": "cuda{run=interpreter}"})
    x = torch.randn(3, 8)
    torch.testing.assert_close(compiled(x), module(x))
    compiled(x).sum().backward()
    found = [p.grad.clone() for p in module.parameters()]
    module.zero_grad()
    module(x).sum().backward()
    torch.testing.assert_close(found, [p.grad for p in module.parameters()])
