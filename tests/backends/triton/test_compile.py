"""Kernels compiled ahead of time for each architecture, and what NVIDIA's tools say of them."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch

import effcc
from effcc.backends.triton import compile as compiler
from effcc.backends.triton.build import build
from effcc.backends.triton.launcher import HIDDEN
from effcc.backends.triton.lower import lower
from effcc.backends.triton.target import ARCHITECTURES
from effcc.errors import EffccError, UnsupportedError
from effcc.ir import Builder, Tensor
from effcc.ir.types import DType, f32
from effcc.passes.decompose import Decompose
from effcc.passes.fuse import Fuse
from effcc.pipeline import Context

pytest.importorskip("triton")

INSTRUCTION = {80: "HMMA", 90: "HGMMA", 100: "UTCHMMA"}
"""What tensor cores are asked with: mma.sync, wgmma, tcgen05.mma."""


def sources(make, kernel, *inputs):
    graph = Fuse().run(Decompose().run(make(kernel, *inputs), Context()), Context())
    return list(build(lower(graph)).sources.values())


def product(b, x, y):
    return b.gelu(b.matmul(x, y, accumulate=f32))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_short_products_use_tensor_cores(make, architecture, dtype):
    (source,) = sources(make, product, torch.zeros(512, 256, dtype=dtype), torch.zeros(256, 512, dtype=dtype))
    made = compiler.compile_kernels([source], [architecture])[source.name, architecture]
    assert made.cubin[:4] == b"\x7fELF" and made.parameters == len(source.signature) + HIDDEN
    assert made.tensor_core is not None and made.tensor_core[INSTRUCTION[architecture]] > 0
    assert 16 <= made.registers <= 255 and made.shared > 0 and made.scratch == 0 and made.spills == 0


@pytest.mark.parametrize("kernel,shapes", [
    (lambda b, x, y: b.matmul(x, y), [(40, 30), (30, 50)]),
    (lambda b, x: b.softmax(x, axis=1), [(40, 300)]),
    (lambda b, x: b.cumsum(x, axis=1), [(40, 30)]),
    (lambda b, x: b.sort(x, axis=1), [(4, 30)]),
    (lambda b, x: b.pow(b.tanh(x), b.erf(x)), [(40, 30)]),
    (lambda b, x: b.max_pool(x, kernel=(3, 2), strides=(1, 1), pads=(1, 0, 1, 0), dilations=(1, 1)), [(1, 2, 9, 9)]),
    (lambda b, x: b.attention(x, x, x, causal=True), [(2, 40, 32)]),
])  # fmt: skip
def test_each_template_compiles(make, kernel, shapes):
    made = compiler.compile_kernels(sources(make, kernel, *(torch.zeros(s) for s in shapes)), [80])
    assert made and all(m.cubin and m.tensor_core is None for m in made.values())  # f32 is multiplied as f32


@pytest.mark.slow
def test_every_kind_of_kernel_compiles():
    """What the interpreter does not ask for: types of loop variables, shapes of blocks, functions of libdevice."""
    path = Path(__file__).with_name("test_lower.py")
    spec = importlib.util.spec_from_file_location("kinds", path)
    assert spec is not None and spec.loader is not None
    kinds = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(kinds)
    wanted = {}
    for _, kernel, shapes, dtypes in kinds.KINDS:
        for dtype in {torch.float32, torch.int64, torch.bool} & set(dtypes):
            b = Builder("g")
            made = kernel(b, *(b.input(f"x{k}", Tensor(DType.of(dtype), s)) for k, s in enumerate(shapes)))
            graph = b.graph(*(made if isinstance(made, tuple) else (made,)))
            wanted |= effcc.compile(graph, target="cuda{run=interpreter}").code.built.sources
    made = compiler.compile_kernels(list(wanted.values()), [90])
    assert len(made) == len(wanted) > 40
    assert all(m.parameters == len(wanted[name].signature) + HIDDEN for (name, _), m in made.items())


def test_tf32_is_asked_for(make):
    graph = make(lambda b, x, y: b.matmul(x, y), torch.zeros(64, 64), torch.zeros(64, 64))
    (source,) = build(lower(graph, tf32=True)).sources.values()
    made = compiler.compile_kernels([source], [80])[source.name, 80]
    assert made.tensor_core and "ieee" not in source.text


def test_the_cache_answers_the_second_time(make, monkeypatch):
    found = sources(make, lambda b, x: b.neg(x), torch.zeros(77))
    first = compiler.compile_kernels(found, [80])
    monkeypatch.setattr(compiler, "compile_one", lambda *job: pytest.fail("compiled again"))
    assert compiler.compile_kernels(found, [80]) == first


def test_a_kernel_that_triton_refuses_is_named(make):
    (source,) = sources(make, lambda b, x: b.neg(x), torch.zeros(5))
    broken = type(source)(source.name, source.text.replace("tl.load", "tl.loads"), source.signature, 1, 1)
    with pytest.raises(UnsupportedError, match=f"cannot compile kernel {source.name} for sm_80") as error:
        compiler.compile_one(broken, 80)
    assert "\n" not in str(error.value)


def test_triton_is_asked_for_by_name(monkeypatch):
    monkeypatch.setattr(compiler, "version", lambda name: "2.1.0")
    with pytest.raises(EffccError, match="does not know Triton 2.1.0"):
        compiler.require_triton()
