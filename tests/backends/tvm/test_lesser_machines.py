"""Code for lesser CPUs than this one: it runs here, gives what the interpreter gives, and calls nothing that only a
compiler's own library has."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch

import effcc
from effcc.interp import run
from effcc.ir import Builder, Graph, Tensor, f16, f32, f64, i64
from effcc.ir.types import DType
from effcc.machine import host, parse

TARGETS = ["cpu{mcpu=x86-64}", "cpu{mcpu=x86-64-v2}", "cpu{mcpu=x86-64-v3}"]
PROVIDED = {b"__truncsfhf2", b"__extendhfsf2"}
"""Conversions that the kernels bring along where the CPU has none."""
TOLERANCE = {torch.float16: 1e-2, torch.float32: 1e-4, torch.float64: 1e-9}

pytestmark = pytest.mark.skipif(host().architecture != "x86_64", reason="these are x86-64 machines")


def check(target: str, graph: Graph, *operands: torch.Tensor) -> None:
    if host().missing(parse(target).features):
        pytest.skip("this machine is lesser still")
    program, want = effcc.compile(graph, target=target), run(graph, *operands)
    for a, b in zip(program(*operands), want, strict=True):
        tolerance = TOLERANCE.get(b.dtype, 0)
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance, equal_nan=True)
    called = {
        name
        for x in program.code.built.objects
        for name in re.findall(rb"__(?:trunc|extend|fix|float|mul|udiv|umod)\w+", x)
    }
    assert called <= PROVIDED


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("source", ["f64", "f32", "f16", "bf16", "i64", "u32"])
def test_conversions(target, source):
    """Rounded twice where torch rounds twice: f64 -> f32 -> f16."""
    dtype = DType.parse(source)
    spread = torch.tensor([1 + 2**-11 + 2**-40, 1 - 2**-12, -3 - 2**-10, 0.1, 70000, 1e-7, 0, 448], dtype=torch.float64)
    data = (spread if dtype.is_float else spread.abs()).to(dtype.torch).repeat(5)
    b = Builder()
    x = b.input("x", Tensor(dtype, (40,)))
    kinds = [DType.parse(name) for name in ("f64", "f32", "f16", "bf16", "f8e4m3", "i64", "bool")]
    graph = b.graph(*(b.cast(x, to=to) for to in kinds if to != dtype))
    check(target, graph, data)


UNARY: list[tuple[str, dict[str, Any]]] = [
    ("round", {}),
    ("floor", {}),
    ("rsqrt", {}),
    ("gelu", {}),
    ("softmax", {"axis": 1}),
]


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("dtype", [f16, f32, f64])
@pytest.mark.parametrize("op,attributes", UNARY, ids=[name for name, _ in UNARY])
def test_functions(target, dtype, op, attributes):
    b = Builder()
    graph = b.graph(getattr(b, op)(b.input("x", Tensor(dtype, (3, 70))), **attributes))
    check(target, graph, (4 * torch.rand(3, 70) + 0.1).to(dtype.torch))


@pytest.mark.parametrize("target", TARGETS)
def test_contraction_and_window(target):
    b = Builder()
    x = b.input("x", Tensor(f32, (2, 3, 9, 8)))
    weights = torch.randn(5, 3, 3, 3)
    y = b.conv(x, b.const(weights.numpy()), strides=(1, 1), pads=(1, 1, 1, 1), dilations=(1, 1), groups=1)
    z = b.matmul(b.reshape(y, shape=(10, 72)), b.const(torch.randn(72, 33).numpy()))
    data = torch.randn(2, 3, 9, 8)
    check(target, b.graph(z), data)


@pytest.mark.parametrize("target", TARGETS)
def test_integers(target):
    b = Builder()
    x, y = (b.input(name, Tensor(DType.parse("u64"), (40,))) for name in "xy")
    low = [torch.randint(0, 1 << 62, (40,)).to(torch.uint64) for _ in "xy"]
    check(target, b.graph(b.mul(x, y), b.sub(x, y)), *low)
    b = Builder()
    x, y = (b.input(name, Tensor(i64, (40,))) for name in "xy")
    graph = b.graph(b.div(x, y), b.mod(x, y), b.mul(x, y))
    check(target, graph, torch.randint(-(1 << 40), 1 << 40, (40,)), torch.randint(1, 1 << 20, (40,)))
