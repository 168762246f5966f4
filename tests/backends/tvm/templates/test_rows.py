"""Reductions along rows with what stands before and after them: softmax, norms, and their soups."""

from __future__ import annotations

import pytest
import torch

import effcc
from effcc.backends.tvm.lower import lower
from effcc.interp import run
from effcc.ir import Builder, Graph, Symbol, Tensor, f16, f32
from effcc.machine import host

N, M = Symbol("n", 0, 5000), Symbol("m", 1, 5000)


def softmax(b, x):
    axes = (len(x.shape) - 1,)
    e = b.exp(b.sub(x, b.amax(x, axes=axes, keepdims=True)))
    return b.div(e, b.sum(e, axes=axes, keepdims=True))


def norm(b, x, scale):
    centered = b.sub(x, b.mean(x, axes=(1, 2), keepdims=True))
    variance = b.mean(b.mul(centered, centered), axes=(1, 2), keepdims=True)
    return b.mul(b.mul(centered, b.rsqrt(b.add(variance, b.full_like(variance, 1e-5)))), scale)


def graph_of(make, *shapes, dtype=f32) -> Graph:
    b = Builder("rows")
    return b.graph(make(b, *(b.input(f"x{k}", Tensor(dtype, shape)) for k, shape in enumerate(shapes))))


def fused(graph: Graph) -> Graph:
    from effcc.passes.fuse import Fuse
    from effcc.pipeline import Context

    return Fuse().run(graph, Context())


def agree(graph: Graph, *inputs: torch.Tensor, tolerance: float = 1e-5) -> None:
    (got,), (want,) = effcc.compile(graph)(*inputs), run(graph, *inputs)
    torch.testing.assert_close(got, want, rtol=tolerance, atol=tolerance, equal_nan=True)


@pytest.mark.parametrize("shape", [(1, 1), (3, 7), (2, 16), (5, 1000), (0, 4), (70, 33)])
def test_softmax_of_rows(shape):
    torch.manual_seed(0)
    x = torch.randn(shape) * 5
    agree(graph_of(softmax, shape), x)
    agree(graph_of(softmax, (N, M)), x)


def test_it_is_one_kernel_that_keeps_the_exponentials():
    """The exponential is needed by the sum and by the quotient: it waits in scratch, a row of f32."""
    (launch,) = lower(fused(graph_of(softmax, (N, 1000))), host()).launches()
    assert launch.kernel.template == "rows"
    assert launch.scratch == 4032  # 1000 floats, in whole cache lines


def test_what_is_cheap_is_computed_again():
    graph = graph_of(lambda b, x: b.sub(b.neg(x), b.amax(b.neg(x), axes=(1,), keepdims=True)), (N, 1000))
    (launch,) = lower(fused(graph), host()).launches()
    assert launch.kernel.template == "rows" and launch.scratch == 0


@pytest.mark.parametrize("scale", [(6, 9), (1, 9), (4, 1, 1), ()])
def test_norms_over_two_axes_with_a_scale_of_any_shape(scale):
    torch.manual_seed(0)
    agree(graph_of(norm, (4, 6, 9), scale), torch.randn(4, 6, 9), torch.randn(scale))
    agree(graph_of(norm, (N, 6, 9), scale), torch.randn(4, 6, 9), torch.randn(scale))


def test_halves_are_summed_in_f32():
    """4096 times 0.1 in f16 would stop growing at 256."""
    graph = graph_of(lambda b, x: b.sum(x, axes=(1,), keepdims=True), (3, 4096), dtype=f16)
    x = torch.full((3, 4096), 0.1, dtype=torch.float16)
    (got,) = effcc.compile(graph)(x)
    torch.testing.assert_close(got, x.double().sum(1, keepdim=True).half())


def test_nan_and_infinity_stay_in_their_rows():
    x = torch.zeros(4, 40)
    x[1, 3], x[2, 39] = float("nan"), -float("inf")
    agree(graph_of(softmax, (4, 40)), x)
