"""Elementwise ops: arithmetic, comparison, logic, activations, casts."""

from __future__ import annotations

import math
from functools import reduce
from typing import Any

import numpy as np

from effcc.frontends.onnx.node import Absent, Items, OnnxNode, onnx_op
from effcc.ir.graph import Value
from effcc.ir.types import DType, bool_, f4, f8e8m0, f32, i32, i64

UNARY = {
    "Abs": "abs",
    "Acos": "acos",
    "Acosh": "acosh",
    "Asin": "asin",
    "Asinh": "asinh",
    "Atan": "atan",
    "Atanh": "atanh",
    "BitwiseNot": "not",
    "Ceil": "ceil",
    "Cos": "cos",
    "Cosh": "cosh",
    "Erf": "erf",
    "Exp": "exp",
    "Floor": "floor",
    "HardSwish": "hard_swish",
    "IsNaN": "isnan",
    "Log": "log",
    "Mish": "mish",
    "Neg": "neg",
    "Not": "not",
    "Reciprocal": "reciprocal",
    "Relu": "relu",
    "Round": "round",
    "Sigmoid": "sigmoid",
    "Sign": "sign",
    "Sin": "sin",
    "Sinh": "sinh",
    "Softplus": "softplus",
    "Softsign": "softsign",
    "Sqrt": "sqrt",
    "Tan": "tan",
    "Tanh": "tanh",
}
BINARY = {
    "Add": "add",
    "Sub": "sub",
    "Mul": "mul",
    "Div": "div",
    "And": "and",
    "Or": "or",
    "Xor": "xor",
    "BitwiseAnd": "and",
    "BitwiseOr": "or",
    "BitwiseXor": "xor",
    "Equal": "eq",
    "Greater": "gt",
    "GreaterOrEqual": "ge",
    "Less": "lt",
    "LessOrEqual": "le",
}


@onnx_op(*UNARY)
def unary(n: OnnxNode, x: Value) -> Value:
    return getattr(n.b, UNARY[n.op_type])(x)


@onnx_op("Identity")
def identity(n: OnnxNode, x: Any) -> Any:
    return x


@onnx_op("LeakyRelu")
def leaky_relu(n: OnnxNode, x: Value) -> Value:
    return n.b.leaky_relu(x, alpha=n.attr("alpha", 0.01))


@onnx_op("Elu")
def elu(n: OnnxNode, x: Value) -> Value:
    return n.b.elu(x, alpha=n.attr("alpha", 1.0))


@onnx_op("Celu")
def celu(n: OnnxNode, x: Value) -> Value:
    return n.b.celu(x, alpha=n.attr("alpha", 1.0))


@onnx_op("Selu")
def selu(n: OnnxNode, x: Value) -> Value:
    newer = n.version >= 6
    alpha = n.attr("alpha", 1.67326319217681884765625 if newer else 1.6732)
    return n.b.selu(x, alpha=alpha, gamma=n.attr("gamma", 1.05070102214813232421875 if newer else 1.0507))


@onnx_op("ThresholdedRelu")
def thresholded_relu(n: OnnxNode, x: Value) -> Value:
    return n.b.thresholded_relu(x, alpha=n.attr("alpha", 1.0))


@onnx_op("HardSigmoid")
def hard_sigmoid(n: OnnxNode, x: Value) -> Value:
    return n.b.hard_sigmoid(x, alpha=n.attr("alpha", 0.2), beta=n.attr("beta", 0.5))


@onnx_op("Gelu")
def gelu(n: OnnxNode, x: Value) -> Value:
    return n.b.gelu(x, approximate=n.attr("approximate", "none"))


@onnx_op("Swish")
def swish(n: OnnxNode, x: Value) -> Value:
    alpha = n.attr("alpha", 1.0)
    return n.b.silu(x) if alpha == 1.0 else n.b.mul(x, n.b.sigmoid(n.b.mul(x, n.b.full_like(x, alpha))))


@onnx_op("IsInf")
def is_inf(n: OnnxNode, x: Value) -> Value:
    return n.b.isinf(x, positive=bool(n.attr("detect_positive", 1)), negative=bool(n.attr("detect_negative", 1)))


# --- binary ---
@onnx_op(*BINARY)
def binary(n: OnnxNode, a: Value, b: Value) -> Value:
    return getattr(n.b, BINARY[n.op_type] + ("_" if BINARY[n.op_type] in ("and", "or") else ""))(a, aligned(n, a, b))


def aligned(n: OnnxNode, a: Value, b: Value) -> Value:
    """Before opset 7, b aligns with a from `axis` on; NumPy's rule aligns at the last axis."""
    if "axis" not in n or not n.attr("broadcast", 0) or n.version >= 7:
        return b
    axis = n.axis(n.attr("axis"), len(a.shape))
    trailing = len(a.shape) - axis - len(b.shape)
    return n.b.reshape(b, shape=(*b.shape, *[1] * trailing)) if trailing > 0 else b


@onnx_op("Pow")
def power(n: OnnxNode, a: Value, b: Value) -> Value:
    b = aligned(n, a, b)
    if a.dtype == b.dtype:
        return n.b.pow(a, b)
    if a.dtype.is_integer and b.dtype.is_float:
        wide = b.dtype if b.dtype.bits >= 32 else f32
        return cast(n, n.b.pow(cast(n, a, wide), cast(n, b, wide)), a.dtype)
    return n.b.pow(a, cast(n, b, a.dtype))


@onnx_op("Mod")
def mod(n: OnnxNode, a: Value, b: Value) -> Value:
    if n.attr("fmod", 0) not in (0, 1):
        n.malformed(f"fmod is {n.attr('fmod')}, not 0 or 1")
    return n.b.fmod(a, b) if n.attr("fmod", 0) else n.b.mod(a, b)


@onnx_op("BitShift")
def bit_shift(n: OnnxNode, a: Value, b: Value) -> Value:
    direction = n.attr("direction")
    if direction not in ("LEFT", "RIGHT"):
        n.malformed(f"direction {direction!r} is neither LEFT nor RIGHT")
    return n.b.shl(a, b) if direction == "LEFT" else n.b.shr(a, b)


@onnx_op("PRelu")
def prelu(n: OnnxNode, x: Value, slope: Value) -> Value:
    if n.version < 7 and len(slope.shape) == 1 and len(x.shape) > 2:
        slope = n.b.reshape(slope, shape=(*slope.shape, *[1] * (len(x.shape) - 2)))
    return n.b.prelu(x, slope)


@onnx_op("Where")
def where(n: OnnxNode, cond: Value, a: Value, b: Value) -> Value:
    return n.b.where(cond, a, b)


# --- variadic ---
@onnx_op("Max")
def maximum(n: OnnxNode, *xs: Value) -> Value:
    return reduce(n.b.max, xs)


@onnx_op("Min")
def minimum(n: OnnxNode, *xs: Value) -> Value:
    return reduce(n.b.min, xs)


@onnx_op("Sum")
def total(n: OnnxNode, *xs: Value) -> Value:
    return reduce(n.b.add, xs)


@onnx_op("Mean")
def mean(n: OnnxNode, *xs: Value) -> Value:
    return n.b.div(reduce(n.b.add, xs), n.b.full_like(xs[0], len(xs)))


@onnx_op("Clip")
def clip(n: OnnxNode, x: Value, lo: Value | None = None, hi: Value | None = None) -> Value:
    if n.version < 11:
        lo = n.b.full_like(x, n.attr("min")) if "min" in n else None
        hi = n.b.full_like(x, n.attr("max")) if "max" in n else None
    lo, hi = (scalar(n, v) if v is not None else None for v in (lo, hi))
    if lo is not None and hi is not None:
        return n.b.clip(x, lo, hi)
    if lo is not None:
        return n.b.max(x, lo)
    return n.b.min(x, hi) if hi is not None else x


def scalar(n: OnnxNode, x: Value) -> Value:
    """A tensor of one element as a rank-0 tensor."""
    return x if len(x.shape) == 0 else n.b.reshape(x, shape=())


# --- conversion ---
def cast(n: OnnxNode, x: Value, dtype: DType, saturate: bool = False) -> Value:
    """x in another dtype, itself where it has that dtype already."""
    if x.dtype == dtype:
        return x
    if dtype.kind in "sc":
        n.refuse(f"a cast from {x.dtype} to {dtype}")
    return n.b.cast(x, to=dtype, saturate=saturate and x.dtype.is_float and dtype.is_float and dtype.bits <= 8)


@onnx_op("Cast")
def cast_op(n: OnnxNode, x: Value) -> Value:
    to = n.dtype_attr("to")
    assert to is not None
    return _cast_like(n, x, to)


@onnx_op("CastLike")
def cast_like(n: OnnxNode, x: Value, like: Value) -> Value:
    return _cast_like(n, x, like.dtype)


def _cast_like(n: OnnxNode, x: Value, to: DType) -> Value:
    if to == f8e8m0 and x.dtype.is_float and x.dtype != to:
        return to_exponent(n, cast(n, x, f32), n.attr("round_mode", "up"))
    if to == f4 and x.dtype.is_float:  # it has no NaN; ONNX's own conversion makes it -0
        x = n.b.where(n.b.isnan(x), n.b.full_like(x, -0.0), x)
    return cast(n, x, to, bool(n.attr("saturate", 1)))


def to_exponent(n: OnnxNode, x: Value, mode: str) -> Value:
    """f32 -> f8e8m0: the biased exponent, rounded up, down or to the nearest; saturating, negative and NaN to NaN.

    (OCP Microscaling Formats 1.0, 5.4.1)
    """
    b = n.b
    bits = b.bitcast(x, to=i32)
    exponent = b.shr(bits, b.const(np.int32(23)))
    fraction = b.and_(bits, b.const(np.int32(0x7FFFFF)))
    if mode not in ("up", "down", "nearest"):
        n.malformed(f"round_mode {mode!r}")
    if mode != "down":
        above = b.gt(fraction, b.const(np.int32(0))) if mode == "up" else b.ge(fraction, b.const(np.int32(1 << 22)))
        exponent = b.add(exponent, b.cast(above, to=i32))
    exponent = b.min(exponent, b.const(np.int32(254)))
    normal = b.shl(exponent, b.const(np.int32(23)))
    power = b.where(b.gt(exponent, b.const(np.int32(0))), normal, b.const(np.int32(1 << 22)))
    invalid = b.or_(b.lt(bits, b.const(np.int32(0))), b.isnan(x))
    exact = b.where(invalid, b.full_like(x, math.nan), b.bitcast(power, to=f32))
    return b.cast(exact, to=f8e8m0)


@onnx_op("BitCast")
def bit_cast(n: OnnxNode, x: Value) -> Value:
    to = n.dtype_attr("to")
    return n.b.bitcast(x, to=to)


# --- constants ---
@onnx_op("Constant")
def constant(n: OnnxNode) -> Value:
    if len(n.attributes) != 1:
        n.malformed(f"{len(n.attributes)} values")
    (kind,) = n.attributes
    if kind == "sparse_value":
        from effcc.frontends.onnx.scope import dense

        return n.b.const(dense(n.attributes[kind].sparse_tensor, n.source))
    value = n.attr(kind)
    if kind in ("value_string", "value_strings") or (kind == "value" and value.dtype.kind in "OSU"):
        n.refuse("strings", "do that part of the work outside of the model")
    return n.b.const(
        np.asarray(
            value,
            {"value_float": np.float32, "value_floats": np.float32, "value_int": np.int64, "value_ints": np.int64}.get(
                kind
            ),
        )
    )


@onnx_op("ConstantOfShape")
def constant_of_shape(n: OnnxNode, shape: Value) -> Value:
    value = n.attr("value", np.zeros(1, np.float32))
    return n.b.broadcast_to(n.b.const(value.reshape(())), shape=n.dims(shape, "the shape"))


@onnx_op("EyeLike")
def eye_like(n: OnnxNode, x: Value) -> Value:
    rows, columns = (n.b.iota(shape=x.shape, axis=axis, dtype=i64) for axis in (0, 1))
    on = n.b.eq(n.b.add(rows, n.b.const(np.int64(n.attr("k", 0)))), columns)
    return cast(n, on, n.dtype_attr("dtype", x.dtype) or f32)


@onnx_op("Dropout")
def dropout(n: OnnxNode, x: Value, ratio: Value | None = None, training: Value | None = None) -> Any:
    mode = False
    if n.version >= 12 and training is not None:
        mode = bool(n.array(training, "training_mode").item())
    rate = 0.5 if ratio is None else float(n.array(ratio, "the ratio").item()) if mode else 0.0
    if n.version < 7:
        mode, rate = not n.attr("is_test", 0), n.attr("ratio", 0.5)
    if not mode or rate == 0.0:
        mask_dtype = bool_ if n.version >= 10 else x.dtype
        mask = n.b.broadcast_to(n.b.const(np.ones((), mask_dtype.numpy)), shape=x.shape) if n.wants(1) else None
        return x, mask
    seed = n.b.const(np.int64(n.attr("seed", 0)))
    draws = n.b.random_uniform(seed, n.b.const(np.int64(0)), shape=x.shape, dtype=f32)
    keep = n.b.ge(draws, n.b.const(np.float32(rate)))
    scaled = n.b.mul(n.b.mul(x, cast(n, keep, x.dtype)), n.b.full_like(x, 1.0 / (1.0 - rate)))
    return scaled, keep


# --- optionals (elements that are there are themselves) ---
@onnx_op("Optional")
def optional(n: OnnxNode, x: Any = None) -> Any:
    return Absent() if x is None else x


@onnx_op("OptionalHasElement")
def optional_has_element(n: OnnxNode, x: Any = None) -> Value:
    return n.b.const(np.array(x is not None and not isinstance(x, Absent)))


@onnx_op("OptionalGetElement")
def optional_get_element(n: OnnxNode, x: Any) -> Any:
    if isinstance(x, Absent):
        n.malformed("the optional is empty")
    assert isinstance(x, (Value, Items))
    return x
