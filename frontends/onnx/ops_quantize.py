"""Quantization: the linear maps, and integer matmul and conv with i32 accumulation."""

from __future__ import annotations

import numpy as np

from effcc.frontends.onnx.node import OnnxNode, onnx_op
from effcc.frontends.onnx.ops_contraction import numpy_matmul
from effcc.frontends.onnx.ops_elementwise import cast, scalar
from effcc.frontends.onnx.ops_window import geometry
from effcc.ir.graph import Value
from effcc.ir.types import DType, f32, i32, u8


def parameter(n: OnnxNode, v: Value) -> Value:
    """A scale or zero point of one element as a scalar."""
    return scalar(n, v) if v.tensor.size == 1 and len(v.shape) <= 1 else v


def _axis(n: OnnxNode, x: Value, scale: Value) -> int:
    return n.axis(n.attr("axis", 1), len(x.shape)) if scale.shape else 0


@onnx_op("QuantizeLinear")
def quantize_linear(n: OnnxNode, x: Value, scale: Value, zero_point: Value | None = None) -> Value:
    dtype = zero_point.dtype if zero_point is not None else n.dtype_attr("output_dtype", u8)
    operands = [parameter(n, v) for v in (scale, zero_point) if v is not None]
    precision = n.dtype_attr("precision", None)
    if precision is not None and precision != f32:
        x = cast(n, x, precision)
    return n.b.quantize_linear(
        x,
        *operands,
        axis=_axis(n, x, operands[0]),
        block_size=n.attr("block_size", 0),
        dtype=dtype,
        saturate=bool(n.attr("saturate", 1)),
    )


@onnx_op("DequantizeLinear")
def dequantize_linear(n: OnnxNode, x: Value, scale: Value, zero_point: Value | None = None) -> Value:
    operands = [parameter(n, v) for v in (scale, zero_point) if v is not None]
    return n.b.dequantize_linear(
        x,
        *operands,
        axis=_axis(n, x, operands[0]),
        block_size=n.attr("block_size", 0),
        dtype=n.dtype_attr("output_dtype", None),
    )


@onnx_op("DynamicQuantizeLinear")
def dynamic_quantize_linear(n: OnnxNode, x: Value) -> tuple[Value, Value, Value]:
    """u8 over the range of x, zero included."""
    axes = tuple(range(len(x.shape)))
    zero = n.b.full_like(x, 0)
    low, high = n.b.min(n.b.amin(x, axes=axes), zero), n.b.max(n.b.amax(x, axes=axes), zero)
    span = n.b.sub(high, low)
    scale = n.b.div(span, n.b.full_like(x, 255))
    point = n.b.clip(n.b.round(n.b.sub(zero, n.b.div(low, scale))), zero, n.b.full_like(x, 255))
    zero_point = n.b.cast(point, to=u8)
    return n.b.quantize_linear(x, scale, zero_point, axis=0, dtype=u8), scale, zero_point


def centred(n: OnnxNode, x: Value, zero_point: Value | None, axis: int | None = None) -> Value:
    """x - zero_point in i32; a vector of zero points lies along `axis`."""
    wide = cast(n, x, i32)
    if zero_point is None:
        return wide
    constant = n.constant(zero_point)
    if constant is not None and not np.any(constant):
        return wide
    shift = cast(n, parameter(n, zero_point), i32)
    if len(shift.shape) == 1 and axis is not None:
        shift = n.b.reshape(shift, shape=tuple(shift.shape[0] if k == axis else 1 for k in range(len(x.shape))))
    return n.b.sub(wide, shift)


def _integer_matmul(n: OnnxNode, a: Value, b: Value, a_zero: Value | None, b_zero: Value | None) -> Value:
    rows = len(a.shape) - 2 if len(a.shape) > 1 else None
    columns = len(b.shape) - 1 if len(b.shape) > 1 else None
    return numpy_matmul(n, centred(n, a, a_zero, rows), centred(n, b, b_zero, columns), accumulate=i32)


@onnx_op("MatMulInteger")
def matmul_integer(n: OnnxNode, a: Value, b: Value, a_zero: Value | None = None, b_zero: Value | None = None) -> Value:
    return _integer_matmul(n, a, b, a_zero, b_zero)


@onnx_op("QLinearMatMul")
def qlinear_matmul(
    n: OnnxNode,
    a: Value,
    a_scale: Value,
    a_zero: Value,
    b: Value,
    b_scale: Value,
    b_zero: Value,
    y_scale: Value,
    y_zero: Value,
) -> Value:
    y = _integer_matmul(n, a, b, a_zero, b_zero)
    a_scale = _along(n, parameter(n, a_scale), len(y.shape), -2)
    b_scale = _along(n, parameter(n, b_scale), len(y.shape), -1)
    return _requantized(n, y, n.b.mul(cast(n, a_scale, f32), cast(n, b_scale, f32)), y_scale, y_zero, -1)


def _along(n: OnnxNode, scale: Value, rank: int, axis: int) -> Value:
    """A vector of scales, shaped to broadcast along an axis counted from the end."""
    return n.b.reshape(scale, shape=(*scale.shape, *[1] * (-1 - axis))) if len(scale.shape) == 1 else scale


def _requantized(n: OnnxNode, y: Value, scale: Value, y_scale: Value, y_zero: Value, axis: int) -> Value:
    """i32 sums -> real numbers -> the output's integers."""
    real = n.b.mul(cast(n, y, f32), scale)
    y_scale, y_zero = cast(n, parameter(n, y_scale), f32), parameter(n, y_zero)
    return n.b.quantize_linear(
        real, y_scale, y_zero, axis=axis % len(y.shape) if y_scale.shape else 0, dtype=y_zero.dtype
    )


def _integer_conv(n: OnnxNode, x: Value, w: Value, x_zero: Value | None, w_zero: Value | None, dtype: DType) -> Value:
    n.plain(w.shape[2:], "the kernel's size")
    strides, pads, dilations = geometry(n, x, w.shape[2:])
    return n.b.conv(
        cast(n, centred(n, x, x_zero), dtype),
        cast(n, centred(n, w, w_zero, 0), dtype),
        strides=strides,
        pads=pads,
        dilations=dilations,
        groups=n.attr("group", 1),
    )


@onnx_op("ConvInteger")
def conv_integer(n: OnnxNode, x: Value, w: Value, x_zero: Value | None = None, w_zero: Value | None = None) -> Value:
    return _integer_conv(n, x, w, x_zero, w_zero, i32)


@onnx_op("QLinearConv")
def qlinear_conv(
    n: OnnxNode,
    x: Value,
    x_scale: Value,
    x_zero: Value,
    w: Value,
    w_scale: Value,
    w_zero: Value,
    y_scale: Value,
    y_zero: Value,
    bias: Value | None = None,
) -> Value:
    y = _integer_conv(n, x, w, x_zero, w_zero, i32)
    channel = (1, -1, *[1] * (len(x.shape) - 2))
    if bias is not None:
        y = n.b.add(y, n.b.reshape(bias, shape=tuple(bias.shape[0] if d == -1 else d for d in channel)))
    w_scale = parameter(n, w_scale)
    if w_scale.shape:
        w_scale = n.b.reshape(w_scale, shape=tuple(w_scale.shape[0] if d == -1 else d for d in channel))
    return _requantized(n, y, n.b.mul(parameter(n, x_scale), w_scale), y_scale, y_zero, 1)
