"""Softmax and its kin, and normalizations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from effcc.frontends.onnx.node import OnnxNode, onnx_op
from effcc.frontends.onnx.ops_elementwise import cast
from effcc.ir.dims import Dim, product
from effcc.ir.graph import Value
from effcc.ir.types import DType, f32


def over_axis(n: OnnxNode, x: Value, f: Callable[[Value, int], Value]) -> Value:
    """f over the `axis` attribute; before opset 13 that and all later axes count as one."""
    if n.version >= 13:
        return f(x, n.axis(n.attr("axis", -1), len(x.shape)))
    axis = n.axis(n.attr("axis", 1), len(x.shape))
    if axis == len(x.shape) - 1:
        return f(x, axis)
    flat = n.b.reshape(x, shape=(product(x.shape[:axis]), product(x.shape[axis:])))
    return n.b.reshape(f(flat, 1), shape=x.shape)


@onnx_op("Softmax")
def softmax(n: OnnxNode, x: Value) -> Value:
    return over_axis(n, x, lambda y, axis: n.b.softmax(y, axis=axis))


@onnx_op("LogSoftmax")
def log_softmax(n: OnnxNode, x: Value) -> Value:
    return over_axis(n, x, lambda y, axis: n.b.log_softmax(y, axis=axis))


# --- normalizations ---
def stash(n: OnnxNode, default: DType = f32) -> DType:
    """The dtype in which a normalization computes."""
    dtype = n.dtype_attr("stash_type", default)
    assert dtype is not None
    return dtype


def widened(n: OnnxNode, x: Value, to: DType) -> Value:
    """Short floats in the wider dtype, others as they are."""
    return cast(n, x, to) if x.dtype.bits < to.bits else x


@onnx_op("BatchNormalization")
def batch_normalization(n: OnnxNode, x: Value, scale: Value, bias: Value, mean: Value, var: Value) -> tuple[Any, ...]:
    eps = n.attr("epsilon", 1e-5)
    training = (
        n.attr("training_mode", 0)
        if n.version >= 14
        else n.num_outputs > 1 and (n.version >= 7 or not n.attr("is_test", 0))
    )
    if n.version < 9 and not n.attr("spatial", 1):
        n.refuse("spatial=0", "export with opset 9 or newer")
    dtype = x.dtype
    if not training:
        x, scale, bias, mean, var = _same_dtype(n, x, scale, bias, mean, var)
        return (cast(n, n.b.batch_norm(x, scale, bias, mean, var, eps=eps), dtype),)
    wide = widened(n, x, f32)
    axes = tuple(i for i in range(len(x.shape)) if i != 1)
    here = n.b.mean(wide, axes=axes, keepdims=False)
    spread = n.b.var(wide, axes=axes, correction=0, keepdims=False)
    scale_, bias_ = (cast(n, v, wide.dtype) for v in (scale, bias))
    y = cast(n, n.b.batch_norm(wide, scale_, bias_, here, spread, eps=eps), dtype)
    momentum = n.attr("momentum", 0.9)

    def running(old: Value, new: Value) -> Value:
        new = cast(n, new, old.dtype)
        return n.b.add(n.b.mul(old, n.b.full_like(old, momentum)), n.b.mul(new, n.b.full_like(old, 1 - momentum)))

    return y, running(mean, here), running(var, spread)


def _same_dtype(n: OnnxNode, *values: Value) -> tuple[Value, ...]:
    widest = max((v.dtype for v in values), key=lambda d: d.bits)
    if any(v.dtype != values[0].dtype for v in values):
        widest = widest if widest.bits > 16 else f32
    return tuple(cast(n, v, widest) for v in values)


@onnx_op("InstanceNormalization", ranks=(3,))
def instance_normalization(n: OnnxNode, x: Value, scale: Value, bias: Value) -> Value:
    n.plain([x.shape[1]], "the number of channels")
    return n.b.group_norm(x, scale, bias, groups=x.shape[1], eps=n.attr("epsilon", 1e-5))


@onnx_op("GroupNormalization", ranks=(2,))
def group_normalization(n: OnnxNode, x: Value, scale: Value, bias: Value) -> Value:
    groups, channels = n.attr("num_groups"), x.shape[1]
    if n.version < 21:
        scale, bias = (
            n.b.reshape(
                n.b.broadcast_to(n.b.reshape(v, shape=(groups, 1)), shape=(groups, channels // groups)),
                shape=(channels,),
            )
            for v in (scale, bias)
        )
    wide = stash(n) if n.version >= 21 else f32
    y = n.b.group_norm(*(widened(n, v, wide) for v in (x, scale, bias)), groups=groups, eps=n.attr("epsilon", 1e-5))
    return cast(n, y, x.dtype)


def expanded(n: OnnxNode, x: Value, shape: tuple[Dim, ...]) -> Value:
    """x broadcast to a shape, itself where it has that shape already."""
    return x if x.shape == shape else n.b.broadcast_to(x, shape=shape)


@onnx_op("LayerNormalization")
def layer_normalization(n: OnnxNode, x: Value, scale: Value, bias: Value | None = None) -> tuple[Any, ...]:
    axis = n.axis(n.attr("axis", -1), len(x.shape))
    eps, wide = n.attr("epsilon", 1e-5), widened(n, x, stash(n))
    operands = [cast(n, expanded(n, v, x.shape[axis:]), wide.dtype) for v in (scale, bias) if v is not None]
    y = cast(n, n.b.layer_norm(wide, *operands, axis=axis, eps=eps), x.dtype)
    if not n.wants(1) and not n.wants(2):
        return (y,)
    axes = tuple(range(axis, len(x.shape)))
    mean = n.b.mean(wide, axes=axes, keepdims=True)
    var = n.b.var(wide, axes=axes, correction=0, keepdims=True)
    return y, mean, n.b.rsqrt(n.b.add(var, n.b.full_like(var, eps)))


@onnx_op("RMSNormalization")
def rms_normalization(n: OnnxNode, x: Value, scale: Value) -> Value:
    axis = n.axis(n.attr("axis", -1), len(x.shape))
    wide = widened(n, x, stash(n))
    y = n.b.rms_norm(wide, axis=axis, eps=n.attr("epsilon", 1e-5)) if scale.dtype != x.dtype else None
    if y is not None:  # the scale has a dtype of its own, and the result takes it
        return n.b.mul(cast(n, y, scale.dtype), scale)
    weights = cast(n, expanded(n, scale, x.shape[axis:]), wide.dtype)
    return cast(n, n.b.rms_norm(wide, weights, axis=axis, eps=n.attr("epsilon", 1e-5)), x.dtype)


@onnx_op("LpNormalization")
def lp_normalization(n: OnnxNode, x: Value) -> Value:
    axis = n.axis(n.attr("axis", -1), len(x.shape))
    p = n.attr("p", 2)
    if p not in (1, 2):
        n.malformed(f"p = {p} is neither 1 nor 2")
    total = n.b.sum(n.b.mul(x, x) if p == 2 else n.b.abs(x), axes=(axis,), keepdims=True)
    norm = n.b.sqrt(total) if p == 2 else total
    zero = n.b.eq(norm, n.b.full_like(x, 0))
    return n.b.where(zero, n.b.full_like(x, 0), n.b.div(x, n.b.where(zero, n.b.full_like(x, 1), norm)))


@onnx_op("MeanVarianceNormalization")
def mean_variance_normalization(n: OnnxNode, x: Value) -> Value:
    axes = n.axes(n.attr("axes", (0, 2, 3)), len(x.shape))
    centred = n.b.sub(x, n.b.mean(x, axes=axes, keepdims=True))
    deviation = n.b.sqrt(n.b.mean(n.b.mul(centred, centred), axes=axes, keepdims=True))
    return n.b.div(centred, n.b.add(deviation, n.b.full_like(x, 1e-9)))


@onnx_op("LRN", ranks=(2,))
def local_response_normalization(n: OnnxNode, x: Value) -> Value:
    """x / (bias + alpha/size Σ x²)^beta, the sum over `size` channels around each (Krizhevsky et al. 2012, 3.3)."""
    size, alpha, beta = n.attr("size"), n.attr("alpha", 1e-4), n.attr("beta", 0.75)
    channels, rest = x.shape[1], product(x.shape[2:])
    squares = n.b.reshape(n.b.mul(x, x), shape=(x.shape[0], 1, channels, rest))
    before = (size - 1) // 2
    mean = n.b.avg_pool(
        squares,
        kernel=(size, 1),
        strides=(1, 1),
        pads=(before, 0, size - 1 - before, 0),
        dilations=(1, 1),
        ceil_mode=False,
        count_include_pad=True,
    )
    base = n.b.add(
        n.b.mul(n.b.reshape(mean, shape=x.shape), n.b.full_like(x, alpha)), n.b.full_like(x, n.attr("bias", 1.0))
    )
    return n.b.div(x, n.b.pow(base, n.b.full_like(x, beta)))
