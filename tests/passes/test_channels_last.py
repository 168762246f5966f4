"""Networks that run channels last as a whole: transposes are left at the edges alone."""

from __future__ import annotations

import numpy as np
import pytest

from effcc.ir import Builder, Tensor, f32
from effcc.passes.channels_last import ChannelsLast
from effcc.passes.raise_ import Raise
from effcc.pipeline import Context

WINDOW = {"strides": (1, 1), "dilations": (1, 1)}


@pytest.mark.parametrize("weight", [False, True])
def test_group_norms_of_one_group_are_crossed(weight: bool) -> None:
    """A block of PoolFormer as exporters write it, with an instance norm of what was made one row."""
    b = Builder("block")
    image = b.input("x", Tensor(f32, (1, 3, 8, 8)))
    w = b.const(np.ones((4, 3, 3, 3), np.float32))
    x = b.conv(image, w, **WINDOW, pads=(1, 1, 1, 1))
    one, zero = (b.const(np.array([value], np.float32)) for value in (1, 0))
    row = b.group_norm(b.reshape(x, shape=(1, 1, 256)), one, zero, groups=1, eps=1e-5)
    y = b.reshape(row, shape=(1, 4, 8, 8))
    if weight:
        scale, bias = (b.const(np.arange(4, dtype=np.float32).reshape(4, 1, 1) + k) for k in (1, 2))
        y = b.add(b.mul(y, scale), bias)
    y = b.add(x, b.sub(b.avg_pool(y, kernel=(3, 3), pads=(1, 1, 1, 1), **WINDOW), y))
    context = Context()
    graph = ChannelsLast().run(Raise().run(b.graph(y), context), context)
    names = [n.op.name for n in graph.nodes if n.op.name != "const"]
    assert names.count("transpose") == 2 and names.count("layer_norm") == 1 and "group_norm" not in names
    assert graph.producer(graph.results[0]).op.name == "transpose"
    assert "reshape" not in names or weight


def test_gates_of_channels_are_crossed() -> None:
    """Squeeze and excitation, then an upsampled sum, as in feature pyramids."""
    b = Builder("pyramid")
    image = b.input("x", Tensor(f32, (1, 3, 8, 8)))
    weights = [b.const(np.ones(shape, np.float32)) for shape in ((4, 3, 3, 3), (4, 4, 1, 1), (5, 4, 3, 3))]
    x = b.conv(image, weights[0], **WINDOW, pads=(1, 1, 1, 1))
    gate = b.hard_sigmoid(b.conv(b.mean(x, axes=(2, 3), keepdims=True), weights[1], **WINDOW, pads=(0, 0, 0, 0)))
    x = b.add(x, b.mul(x, gate))
    x = b.resize(x, sizes=(1, 4, 16, 16), mode="nearest", coordinate="asymmetric", nearest_mode="floor")
    graph = ChannelsLast().run(b.graph(b.conv(x, weights[2], **WINDOW, pads=(1, 1, 1, 1))), Context())
    names = [n.op.name for n in graph.nodes]
    assert names.count("transpose") == 2 and names[-1] == "transpose"
