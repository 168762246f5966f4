"""Quantization: the linear maps, integer matmul and conv with i32 accumulation, and ONNX Runtime's ops on integers.

What has constant weights becomes dequantize -> op -> quantize: `integer-arithmetic` makes one kernel of it.
"""

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
    if n.constant(b) is not None and len(parameter(n, a_scale).shape) == 0 and len(b.shape) == 2:
        x = dequantized(n, a, a_scale, a_zero)
        y = numpy_matmul(n, x, dequantized(n, b, b_scale, b_zero, 1))
        return quantized(n, y, y_scale, y_zero)
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


@onnx_op("ConvInteger", ranks=(3, 3))
def conv_integer(n: OnnxNode, x: Value, w: Value, x_zero: Value | None = None, w_zero: Value | None = None) -> Value:
    return _integer_conv(n, x, w, x_zero, w_zero, i32)


@onnx_op("QLinearConv", ranks=(3, 0, 0, 3))
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
    if n.constant(w) is not None and x_scale.tensor.size == 1:
        n.plain(w.shape[2:], "the kernel's size")
        strides, pads, dilations = geometry(n, x, w.shape[2:])
        operands = [dequantized(n, x, x_scale, x_zero), dequantized(n, w, w_scale, w_zero, 0)]
        if bias is not None:
            both = n.b.mul(cast(n, parameter(n, x_scale), f32), cast(n, parameter(n, w_scale), f32))
            operands.append(n.b.dequantize_linear(bias, both, axis=0))
        groups = n.attr("group", 1)
        y = n.b.conv(*operands, strides=strides, pads=pads, dilations=dilations, groups=groups)
        return quantized(n, y, y_scale, y_zero)
    y = _integer_conv(n, x, w, x_zero, w_zero, i32)
    channel = (1, -1, *[1] * (len(x.shape) - 2))
    if bias is not None:
        y = n.b.add(y, n.b.reshape(bias, shape=tuple(bias.shape[0] if d == -1 else d for d in channel)))
    w_scale = parameter(n, w_scale)
    if w_scale.shape:
        w_scale = n.b.reshape(w_scale, shape=tuple(w_scale.shape[0] if d == -1 else d for d in channel))
    return _requantized(n, y, n.b.mul(parameter(n, x_scale), w_scale), y_scale, y_zero, 1)


# --- com.microsoft: what ONNX Runtime's quantizer writes in its QOperator format ---
def dequantized(n: OnnxNode, x: Value, scale: Value, zero: Value | None, axis: int = 0) -> Value:
    """x as f32; a vector of scales lies along `axis`."""
    operands = [cast(n, parameter(n, scale), f32), *([parameter(n, zero)] if zero is not None else [])]
    return n.b.dequantize_linear(x, *operands, axis=axis)


def quantized(n: OnnxNode, x: Value, scale: Value, zero: Value) -> Value:
    zero = parameter(n, zero)
    return n.b.quantize_linear(x, cast(n, parameter(n, scale), f32), zero, axis=0, dtype=zero.dtype)


@onnx_op("QLinearAdd", "QLinearMul", domain="com.microsoft")
def qlinear_binary(n: OnnxNode, a: Value, a_scale: Value, a_zero: Value, b: Value, b_scale: Value, b_zero: Value,
                   y_scale: Value, y_zero: Value) -> Value:  # fmt: skip
    combine = n.b.add if n.op_type == "QLinearAdd" else n.b.mul
    y = combine(dequantized(n, a, a_scale, a_zero), dequantized(n, b, b_scale, b_zero))
    return quantized(n, y, y_scale, y_zero)


@onnx_op("QLinearSigmoid", "QLinearLeakyRelu", domain="com.microsoft")
def qlinear_unary(n: OnnxNode, x: Value, scale: Value, zero: Value, y_scale: Value, y_zero: Value) -> Value:
    real = dequantized(n, x, scale, zero)
    if n.op_type == "QLinearSigmoid":
        return quantized(n, n.b.sigmoid(real), y_scale, y_zero)
    alpha = n.b.const(np.float32(n.attr("alpha", 0.01)))
    negative = n.b.lt(real, n.b.const(np.float32(0)))
    return quantized(n, n.b.where(negative, n.b.mul(real, alpha), real), y_scale, y_zero)


@onnx_op("QLinearConcat", domain="com.microsoft")
def qlinear_concat(n: OnnxNode, y_scale: Value, y_zero: Value, *parts: Value) -> Value:
    real = [dequantized(n, parts[k], parts[k + 1], parts[k + 2]) for k in range(0, len(parts), 3)]
    y = n.b.concat(*real, axis=n.axis(n.attr("axis", 1), len(real[0].shape)))
    return quantized(n, y, y_scale, y_zero)


@onnx_op("QLinearGlobalAveragePool", domain="com.microsoft")
def qlinear_global_average_pool(n: OnnxNode, x: Value, scale: Value, zero: Value, y_scale: Value,
                                y_zero: Value) -> Value:  # fmt: skip
    first = 1 if n.attr("channels_last", 0) else 2
    axes = tuple(range(first, first + len(x.shape) - 2))
    return quantized(n, n.b.mean(dequantized(n, x, scale, zero), axes=axes, keepdims=True), y_scale, y_zero)


@onnx_op("QGemm", domain="com.microsoft")
def qgemm(n: OnnxNode, a: Value, a_scale: Value, a_zero: Value, b: Value, b_scale: Value, b_zero: Value,
          c: Value | None = None, y_scale: Value | None = None, y_zero: Value | None = None) -> Value:  # fmt: skip
    """alpha · a b + c, where the i32 c has the scale alpha · a_scale · b_scale; f32 without y_scale."""
    turned = bool(n.attr("transB", 0))
    x, w = dequantized(n, a, a_scale, a_zero), dequantized(n, b, b_scale, b_zero, 0 if turned else 1)
    y = n.b.matmul(x, w, transpose_a=bool(n.attr("transA", 0)), transpose_b=turned)
    alpha = n.b.const(np.float32(n.attr("alpha", 1.0)))
    y = y if n.attr("alpha", 1.0) == 1.0 else n.b.mul(y, alpha)
    if c is not None:
        both = n.b.mul(cast(n, parameter(n, a_scale), f32), cast(n, parameter(n, b_scale), f32))
        both = both if n.attr("alpha", 1.0) == 1.0 else n.b.mul(both, alpha)
        y = n.b.add(y, n.b.dequantize_linear(c, both, axis=max(0, len(c.shape) - 1)))
    return y if y_scale is None or y_zero is None else quantized(n, y, y_scale, y_zero)
