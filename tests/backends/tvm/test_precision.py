"""precision="bf16" on CPUs: near the fp64 meaning, with and without an instruction that multiplies pairs."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch

import effcc
from effcc.analysis.precision import widen, widen_tensor
from effcc.errors import InputError
from effcc.interp import run
from effcc.ir import Builder, Tensor
from effcc.ir.types import bf16, f32

DIGITS = Path(__file__).parents[3] / "examples" / "digits"


@pytest.mark.parametrize("target", ["cpu", "cpu{mcpu=x86-64-v3}"])
@pytest.mark.parametrize("precision,unit", [("fp32", 2**-24), ("bf16", 2**-8)])
def test_digits_vit(precision: str, unit: float, target: str) -> None:
    """A trained transformer gives the same answers."""
    images = np.load(DIGITS / "digits_test.npz")["images"][:32]
    program = effcc.compile(DIGITS / "digits_vit.onnx", target=target, precision=precision)
    (exact,) = run(widen(program.source), widen_tensor(torch.from_numpy(images)))
    (logits,) = program(images)
    assert np.abs(logits - exact.numpy()).max() <= 18 * unit * float(exact.abs().max())  # a roundoff for each product
    assert (logits.argmax(1) == exact.numpy().argmax(1)).all()


def test_auto_keeps_the_budget_on_calibration_data() -> None:
    data = dict(np.load(DIGITS / "digits_test.npz"))
    images = data["images"][:64]
    program = effcc.compile(DIGITS / "digits_vit.onnx", precision="auto", calibration={"image": images},
                            budget="max_error<=0.05")  # fmt: skip
    exact = effcc.compile(DIGITS / "digits_vit.onnx")
    assert 0 < program.search.chosen <= 1
    assert 0 < np.abs(program(images)[0] - exact(images)[0]).max() <= 0.05
    with pytest.raises(InputError, match="calibration data"):
        effcc.compile(DIGITS / "digits_vit.onnx", precision="auto")


def pairs(target: str, kind: str) -> int:
    """How many vdpbf16ps (EVEX.F3.0F38.W0 52) the code of a product, convolution or attention has."""
    b = Builder()
    match kind:
        case "matmul":
            y = b.matmul(b.input("x", Tensor(bf16, (9, 32))), b.const(torch.ones(32, 40).numpy(), bf16), accumulate=f32)
        case "conv":
            x, w = b.input("x", Tensor(bf16, (1, 8, 9, 9))), b.const(torch.ones(16, 8, 3, 3).numpy(), bf16)
            y = b.conv(x, w, strides=(1, 1), pads=(1, 1, 1, 1), dilations=(1, 1), groups=1, accumulate=f32)
        case "attention":
            y = b.attention(*(b.input(name, Tensor(bf16, (1, 2, 20, 16))) for name in "qkv"))
    objects = effcc.compile(b.graph(y), target=target).code.built.objects
    return len(re.findall(rb"\x62[\s\S][\x06\x0e\x16\x1e&.6>FNV\\^fnv~][\s\S]\x52", b"".join(objects)))


@pytest.mark.parametrize("kind", ["matmul", "conv", "attention"])
def test_pairs_are_multiplied_where_there_is_an_instruction(kind: str) -> None:
    assert pairs("cpu{mcpu=x86-64-v4,with=avx512bf16}", kind) >= 4
    assert pairs("cpu{mcpu=x86-64-v4}", kind) == 0
