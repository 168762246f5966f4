"""Streams, sublayers and tokens in graphs of many layouts, as exporters and torch.export write them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from effcc import frontends
from effcc.analysis.axes import Place
from effcc.analysis.transformer import Refused, is_constant, streams, sublayers, token_axis
from effcc.ir import Builder, Graph, Symbol, Tensor, f32
from effcc.passes import EXACT
from effcc.pipeline import PassManager, parse_pipeline

DIGITS = Path(__file__).parents[2] / "examples" / "digits" / "digits_vit.onnx"


def raised(graph):
    return PassManager().run(graph, parse_pipeline(EXACT))


def load(model, **options) -> Graph:
    frontend = frontends.find(model)
    return raised(frontend.load(model, inputs=options.get("inputs"), shapes=options.get("shapes"), fixed=None))


def tokens(graph):
    (stream,) = streams(graph)
    return token_axis(graph, stream)


def test_an_exported_vit():
    graph = load(str(DIGITS))
    (stream,) = streams(graph)
    assert [s.kind for s in stream.sublayers] == ["attention", "mlp"] * 4
    axis = token_axis(graph, stream)
    assert (axis.n, axis.special) == (17, 1)
    assert axis.batch == graph.inputs[0].shape[0]
    assert axis.place(stream.sublayers[0].source) == Place(1)
    assert [r.node.op.name for r in axis.course.readers] == ["slice"]
    for s in stream.sublayers:
        assert s.skip in s.add.operands and s.branch in s.add.operands and s.skip is s.source


class Encoder(torch.nn.Module):
    """torch's own encoder: packed q, k, v; heads in the batch axis; batch or tokens in front; pre- or post-norm."""

    def __init__(self, batch_first, norm_first):
        super().__init__()
        layer = torch.nn.TransformerEncoderLayer(16, 2, 24, batch_first=batch_first, norm_first=norm_first)
        self.encoder = torch.nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)

    def forward(self, x):
        return self.encoder(x)


@pytest.mark.parametrize("norm_first", [False, True])
@pytest.mark.parametrize("batch_first", [False, True])
def test_torch_s_encoder(batch_first, norm_first):
    shape = (2, 7, 16) if batch_first else (7, 2, 16)
    graph = load(Encoder(batch_first, norm_first).eval(), inputs=(torch.randn(shape),))
    axis = tokens(graph)
    (stream,) = streams(graph)
    assert [s.kind for s in stream.sublayers] == ["attention", "mlp"] * 2
    assert (axis.n, axis.batch, axis.special) == (7, 2, 0)
    assert axis.rows(stream.sublayers[0].source) == ("batch" if batch_first else "tokens")
    behind = stream.after(stream.sublayers[0])
    assert (behind is stream.sublayers[0].out) == norm_first


def block(b, x, n, parallel=False, masks=(), causal=False):
    draw = np.random.default_rng(0)

    def linear(v):
        return b.matmul(v, b.const(draw.standard_normal((8, 8)).astype("f4")))

    def heads(v):
        return b.transpose(b.reshape(linear(v), shape=(1, n, 2, 4)), perm=(0, 2, 1, 3))

    h = b.layer_norm(x, axis=2)
    y = b.attention(heads(h), heads(h), heads(h), *masks, causal=causal)
    y = b.add(x, linear(b.reshape(b.transpose(y, perm=(0, 2, 1, 3)), shape=(1, n, 8))))
    h = h if parallel else b.layer_norm(y, axis=2)
    return b.add(y, linear(b.gelu(linear(h), approximate="none")))


def test_parallel_attention_and_mlp():
    """What both add up to is the stream behind either."""
    b = Builder()
    x = b.input("x", Tensor(f32, (1, 6, 8)))
    y = block(b, x, 6, parallel=True)
    z = block(b, y, 6, parallel=True)
    graph = b.graph(z)
    (stream,) = streams(graph)
    assert [s.kind for s in stream.sublayers] == ["attention", "mlp"] * 2
    assert [s.source for s in stream.sublayers] == [x, x, y, y]
    assert stream.after(stream.sublayers[0]) is y


def test_registers_are_special():
    b = Builder()
    x = b.input("x", Tensor(f32, (1, 6, 8)))
    front = b.const(np.zeros((1, 5, 8), "f4"))
    x = b.add(b.concat(front, x, axis=1), b.const(np.random.default_rng(0).standard_normal((1, 11, 8)).astype("f4")))
    axis = tokens(b.graph(block(b, block(b, x, 11), 11)))
    assert (axis.n, axis.special) == (11, 5)


@pytest.mark.parametrize(("start", "stop", "special"), [(0, 1, 1), (0, 2, 2), (1, 6, 1), (5, 6, 0)])
def test_tokens_that_are_read_apart_are_special(start, stop, special):
    b = Builder()
    x = block(b, b.input("x", Tensor(f32, (1, 6, 8))), 6)
    out = b.slice(x, starts=(0, start, 0), stops=(1, stop, 8), steps=(1, 1, 1))
    assert tokens(b.graph(out)).special == special


def test_two_streams():
    b = Builder()
    outs = [block(b, b.input(f"x{n}", Tensor(f32, (1, n, 8))), n) for n in (6, 9)]
    graph = b.graph(*outs)
    assert [token_axis(graph, s).n for s in streams(graph)] == [6, 9]


def test_a_formula_of_its_own_input_is_no_sublayer():
    """gelu by tanh: x + 0.044 x³ has no matmul."""
    b = Builder()
    x = b.input("x", Tensor(f32, (2, 8)))
    y = b.add(x, b.mul(b.mul(x, x), x))
    assert sublayers(b.graph(y)) == ()


def test_a_convolution_is_no_sublayer():
    b = Builder()
    x, w = b.input("x", Tensor(f32, (1, 4, 5, 5))), b.input("w", Tensor(f32, (4, 4, 1, 1)))
    y = b.conv(x, w, strides=(1, 1), pads=(0, 0, 0, 0), dilations=(1, 1))
    assert sublayers(b.graph(b.add(x, y))) == ()


def test_constants():
    b = Builder()
    c, x = b.const(np.ones((2, 2), "f4")), b.input("x", Tensor(f32, (2, 2)))
    d, y = b.neg(c), b.add(x, c)
    graph = b.graph(d, y)
    assert is_constant(graph, d) and not is_constant(graph, y)


def reason(graph):
    (stream,) = streams(graph)
    with pytest.raises(Refused) as caught:
        token_axis(graph, stream)
    return caught.value.reason


def test_refusals():
    b = Builder()
    assert "attention is causal" in reason(b.graph(block(b, b.input("x", Tensor(f32, (1, 6, 8))), 6, causal=True)))
    b = Builder()
    n = Symbol("N", 2, 9)
    assert "N, is not fixed" in reason(b.graph(block(b, b.input("x", Tensor(f32, (1, n, 8))), n)))
    b = Builder()
    mask = b.input("mask", Tensor(f32, (1, 2, 1, 6)))
    found = reason(b.graph(block(b, b.input("x", Tensor(f32, (1, 6, 8))), 6, masks=[mask])))
    assert "differs from head to head" in found
    b = Builder()
    x, w = b.input("x", Tensor(f32, (1, 6, 8))), b.input("w", Tensor(f32, (8, 8)))
    assert reason(b.graph(b.add(x, b.matmul(x, w)))) == "no attention in this residual stream"


def test_windows_are_refused():
    """2-D windows: tokens of one window are not next to each other."""
    b = Builder()
    x, w = b.input("x", Tensor(f32, (1, 16, 8))), b.input("w", Tensor(f32, (8, 8)))
    grid = b.reshape(b.matmul(x, w), shape=(2, 2, 2, 2, 8))
    windows = b.reshape(b.transpose(grid, perm=(0, 2, 1, 3, 4)), shape=(4, 1, 4, 8))
    y = b.reshape(b.attention(windows, windows, windows), shape=(2, 2, 2, 2, 8))
    y = b.reshape(b.transpose(y, perm=(0, 2, 1, 3, 4)), shape=(1, 16, 8))
    assert "takes it apart (windows" in reason(b.graph(b.add(x, b.matmul(y, w))))
