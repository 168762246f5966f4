"""Random numbers: counter-based, from the node's seed, or where it has none, from its place in the graph."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np

from effcc.frontends.onnx.node import OnnxNode, onnx_op
from effcc.frontends.onnx.ops_elementwise import cast
from effcc.ir.dims import Dim
from effcc.ir.graph import Value
from effcc.ir.types import DType, f32, i32


def state(n: OnnxNode) -> tuple[Value, Value]:
    """(seed, offset)"""
    if "seed" in n:
        seed = n.attr("seed")
        number = int(seed) if float(seed).is_integer() else struct.unpack("<i", struct.pack("<f", seed))[0]
    else:
        number = len(n.b.nodes) + 1
    return n.b.const(np.int64(number)), n.b.const(np.int64(0))


def draw(n: OnnxNode, shape: tuple[Dim, ...], dtype: DType) -> Value:
    """What the op's name says: uniform in [low, high), or normal of a mean and scale."""
    work = dtype if dtype.is_float and dtype.bits >= 16 else f32
    if "Uniform" in n.op_type:
        low, high = n.attr("low", 0.0), n.attr("high", 1.0)
        y, scale, shift = n.b.random_uniform(*state(n), shape=shape, dtype=work), high - low, low
    else:
        y, scale, shift = (
            n.b.random_normal(*state(n), shape=shape, dtype=work),
            n.attr("scale", 1.0),
            n.attr("mean", 0.0),
        )
    y = y if scale == 1.0 else n.b.mul(y, n.b.full_like(y, scale))
    y = y if shift == 0.0 else n.b.add(y, n.b.full_like(y, shift))
    return cast(n, y, dtype)


@onnx_op("RandomUniform", "RandomNormal")
def random(n: OnnxNode) -> Value:
    dtype = n.dtype_attr("dtype", f32)
    assert dtype is not None
    return draw(n, tuple(n.attr("shape")), dtype)


@onnx_op("RandomUniformLike", "RandomNormalLike")
def random_like(n: OnnxNode, x: Value) -> Value:
    dtype = n.dtype_attr("dtype", x.dtype)
    assert dtype is not None
    return draw(n, x.shape, dtype)


@onnx_op("Bernoulli")
def bernoulli(n: OnnxNode, p: Value) -> Value:
    dtype = n.dtype_attr("dtype", p.dtype)
    return n.b.bernoulli(p, *state(n), dtype=dtype)


@onnx_op("Multinomial", ranks=(2,))
def multinomial(n: OnnxNode, x: Value) -> Any:
    """Class indices drawn from unnormalized log-probabilities [B, C], by the greatest of Gumbel-perturbed ones."""
    batch, classes = x.shape
    shape = (batch, n.attr("sample_size", 1), classes)
    u = n.b.random_uniform(*state(n), shape=shape, dtype=x.dtype)
    u = n.b.max(u, n.b.full_like(u, 2.0**-24))
    noise = n.b.neg(n.b.log(n.b.neg(n.b.log(u))))
    perturbed = n.b.add(n.b.reshape(x, shape=(batch, 1, classes)), noise)
    dtype = n.dtype_attr("dtype", i32)
    assert dtype is not None
    return cast(n, n.b.argmax(perturbed, axis=2, keepdims=False, select_last=False), dtype)
