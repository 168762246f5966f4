"""Which attentions go to the template, and that both ways give what the op means."""

from __future__ import annotations

import pytest
import torch

import effcc
from effcc.backends.tvm import attentions
from effcc.backends.tvm.lower import lower
from effcc.interp import run
from effcc.ir import Builder, Symbol, Tensor
from effcc.ir.types import DType
from effcc.machine import host

L, H = Symbol("length", 1, 500), Symbol("heads", 1, 16)


def attention(dtype: str, q: tuple, kv: tuple, mask: tuple | None = None, **attributes):
    b = Builder("attention")
    kind = DType.parse(dtype)
    operands = [b.input(name, Tensor(kind, shape)) for name, shape in zip("qkv", (q, kv, kv))]
    if mask is not None:
        operands.append(b.input("mask", Tensor(kind, mask)))
    return b.graph(b.attention(*operands, **attributes))


def templates(graph) -> set[str]:
    return {launch.kernel.template for launch in lower(graph, host()).launches()}


@pytest.mark.parametrize(
    ("dtype", "q", "kv", "takes"),
    [
        ("f32", (2, 4, L, 8), (2, 4, L, 8), True),
        ("f64", (4, 7, 8), (2, 9, 8), True),
        ("bf16", (2, 4, 7, 8), (2, 4, 7, 8), True),
        ("f16", (2, 4, 7, 8), (2, 4, 7, 8), True),
        ("f32", (2, H, 7, 8), (2, H, 7, 8), False),
    ],
)
def test_what_the_template_takes(dtype, q, kv, takes):
    graph = attention(dtype, q, kv)
    assert attentions.has_template(graph.nodes[0]) == takes
    assert (templates(graph) == {"attention"}) == takes


def test_what_it_does_not_take_is_decomposed():
    graph = attention("f32", (2, H, 7, 8), (2, H, 7, 8), causal=True)
    torch.manual_seed(0)
    inputs = [torch.randn(2, 3, 7, 8) for _ in "qkv"]
    torch.testing.assert_close(effcc.compile(graph)(*inputs)[0], run(graph, *inputs)[0])


@pytest.mark.parametrize("length", [1, 2, 63, 65, 200])
@pytest.mark.parametrize("causal", [False, True])
def test_one_kernel_for_every_length(length, causal):
    graph = attention("f32", (2, 4, L, 8), (2, 2, L, 8), (L, L), causal=causal)
    torch.manual_seed(length)
    shapes = (2, 4, length, 8), (2, 2, length, 8), (2, 2, length, 8), (length, length)
    inputs = [torch.randn(shape) for shape in shapes]
    inputs[3][:, 0] = -float("inf")
    torch.testing.assert_close(effcc.compile(graph)(*inputs)[0], run(graph, *inputs)[0], rtol=1e-4, atol=1e-5)


def test_heads_are_read_where_a_projection_left_them():
    """[B, L, H, D] turned to [B, H, L, D] and back: strides of one kernel, no copies."""
    b = Builder("projected")
    q, k, v = (b.input(name, Tensor(DType.parse("f32"), (2, L, 4, 8))) for name in "qkv")
    turned = [b.transpose(x, perm=(0, 2, 1, 3)) for x in (q, k, v)]
    graph = b.graph(b.transpose(b.attention(*turned), perm=(0, 2, 1, 3)))
    assert templates(graph) == {"attention"} and len(lower(graph, host()).launches()) == 1
    inputs = [torch.randn(2, 33, 4, 8) for _ in "qkv"]
    torch.testing.assert_close(effcc.compile(graph)(*inputs)[0], run(graph, *inputs)[0], rtol=1e-4, atol=1e-5)
