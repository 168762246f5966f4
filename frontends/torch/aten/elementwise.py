"""Elementwise aten ops. Torch promotes dtypes and mixes numbers with tensors; here they become casts and constants."""

from __future__ import annotations

import math
from typing import Any

from effcc.frontends.torch.emitter import Emitter, is_value, lowers
from effcc.ir import Value, bool_

UNARY = {
    "neg": "neg",
    "_neg_view": "neg",
    "abs": "abs",
    "sign": "sign",
    "sgn": "sign",
    "exp": "exp",
    "expm1": "expm1",
    "log": "log",
    "log1p": "log1p",
    "sqrt": "sqrt",
    "rsqrt": "rsqrt",
    "reciprocal": "reciprocal",
    "sin": "sin",
    "cos": "cos",
    "tan": "tan",
    "asin": "asin",
    "acos": "acos",
    "atan": "atan",
    "sinh": "sinh",
    "cosh": "cosh",
    "asinh": "asinh",
    "acosh": "acosh",
    "atanh": "atanh",
    "tanh": "tanh",
    "erf": "erf",
    "erfc": "erfc",
    "sigmoid": "sigmoid",
    "relu": "relu",
    "silu": "silu",
    "mish": "mish",
    "hardswish": "hard_swish",
}
"""aten op -> catalogue op with the same meaning once the operand has the result's dtype."""

BINARY = {
    "mul": "mul",
    "maximum": "max",
    "minimum": "min",
    "max.other": "max",
    "min.other": "min",
    "remainder": "mod",
    "fmod": "fmod",
    "atan2": "atan2",
    "bitwise_and": "and",
    "bitwise_or": "or",
    "bitwise_xor": "xor",
    "bitwise_left_shift": "shl",
    "bitwise_right_shift": "shr",
    "__lshift__": "shl",
    "__rshift__": "shr",
}
COMPARE = {"eq": "eq", "ne": "ne", "lt": "lt", "le": "le", "gt": "gt", "ge": "ge"}
ROUNDING = {"floor": "floor", "ceil": "ceil", "trunc": "trunc"}


def _unary(ours: str):
    return lambda e, x: x if ours == "sign" and x.dtype.is_bool else getattr(e.b, ours)(e.cast(x, e.dtype))


def _binary(ours: str):
    of_bools = {"mul": "and", "min": "and", "max": "or"}.get(ours, ours)
    return lambda e, x, y: getattr(e.b, of_bools if e.dtype.is_bool else ours)(e.tensor(x), e.tensor(y))


def _compare(ours: str):
    def handler(e: Emitter, x: Any, y: Any) -> Value:
        dtype = e.promoted(x, y)
        return getattr(e.b, ours)(e.tensor(x, dtype), e.tensor(y, dtype))

    return handler


def _rounding(ours: str):
    return lambda e, x: x if not x.dtype.is_float else getattr(e.b, ours)(x)


for _table, _make in ((UNARY, _unary), (BINARY, _binary), (COMPARE, _compare), (ROUNDING, _rounding)):
    for _aten, _ours in _table.items():
        lowers(_aten, *(() if "." in _aten or _aten.startswith("__") else (f"prims::{_aten}",)))(_make(_ours))


# -- arithmetic ------------------------------------------------------------------------------------
@lowers("add", "prims::add")
def add(e: Emitter, x: Any, y: Any, *, alpha: Any = 1) -> Value:
    if e.dtype.is_bool:
        return e.b.or_(e.tensor(x), _scaled(e, y, alpha))
    return e.b.add(e.tensor(x), _scaled(e, y, alpha))


@lowers("sub", "prims::sub")
def sub(e: Emitter, x: Any, y: Any, *, alpha: Any = 1) -> Value:
    return e.b.sub(e.tensor(x), _scaled(e, y, alpha))


@lowers("rsub")
def rsub(e: Emitter, x: Any, y: Any, alpha: Any = 1) -> Value:
    return e.b.sub(e.tensor(y), _scaled(e, x, alpha))


def _scaled(e: Emitter, y: Any, alpha: Any) -> Value:
    value = e.tensor(y)
    if value.dtype.is_bool:
        return value if not is_value(alpha) and alpha else e.b.and_(value, e.tensor(alpha))
    return value if not is_value(alpha) and alpha == 1 else e.b.mul(value, e.tensor(alpha))


@lowers("div", "true_divide", "prims::div")
def div(e: Emitter, x: Any, y: Any, *, rounding_mode: str | None = None) -> Value:
    x, y = e.tensor(x), e.tensor(y)
    if rounding_mode == "floor":
        return e.b.floordiv(x, y)
    quotient = e.b.div(x, y)  # on integers it truncates toward zero by itself
    return e.b.trunc(quotient) if rounding_mode == "trunc" and quotient.dtype.is_float else quotient


@lowers("floor_divide")
def floor_divide(e: Emitter, x: Any, y: Any) -> Value:
    return e.b.floordiv(e.tensor(x), e.tensor(y))


@lowers("pow", "prims::pow")
def pow_(e: Emitter, x: Any, y: Any) -> Value:
    """Small exponents as torch's own kernel computes them."""
    if is_value(y) or not isinstance(y, (int, float)):
        return e.b.pow(e.tensor(x), e.tensor(y))
    x = e.tensor(x)
    match float(y):
        case 0.0:
            return e.full(x.shape, 1)
        case 1.0:
            return x
        case 2.0:
            return e.b.mul(x, x)
        case 3.0:
            return e.b.mul(e.b.mul(x, x), x)
        case 0.5 if x.dtype.is_float:
            return e.b.sqrt(x)
        case -0.5 if x.dtype.is_float:
            return e.b.rsqrt(x)
        case -1.0 if x.dtype.is_float:
            return e.b.reciprocal(x)
        case -2.0 if x.dtype.is_float:
            return e.b.reciprocal(e.b.mul(x, x))
    return e.b.pow(x, e.tensor(y))


@lowers("square")
def square(e: Emitter, x: Value) -> Value:
    return e.b.mul(x, x)


@lowers("exp2")
def exp2(e: Emitter, x: Value) -> Value:
    return e.b.pow(e.number(2.0, e.dtype), e.cast(x, e.dtype))


@lowers("log2", "log10")
def log_base(e: Emitter, x: Value) -> Value:
    base = 2.0 if "log2" in e.target else 10.0
    x = e.cast(x, e.dtype)
    return e.b.mul(e.b.log(x), e.number(1.0 / math.log(base), x.dtype))


@lowers("round")
def round_(e: Emitter, x: Value, *, decimals: int = 0) -> Value:
    if not x.dtype.is_float:
        return x
    if decimals == 0:
        return e.b.round(x)
    scale = e.number(10.0 ** abs(decimals), x.dtype)
    if decimals > 0:
        return e.b.div(e.b.round(e.b.mul(x, scale)), scale)
    return e.b.mul(e.b.round(e.b.div(x, scale)), scale)


@lowers("clamp")
def clamp(e: Emitter, x: Value, low: Any = None, high: Any = None, **bounds: Any) -> Value:
    low, high = bounds.get("min", low), bounds.get("max", high)
    x = e.cast(x, e.dtype)
    if low is not None and high is not None and not x.dtype.is_bool:
        return e.b.clip(x, e.tensor(low), e.tensor(high))
    if low is not None:
        x = _binary("max")(e, x, low)
    return x if high is None else _binary("min")(e, x, high)


@lowers("fmax", "fmin", "prims::fmax", "prims::fmin")
def extremum_of_numbers(e: Emitter, x: Any, y: Any) -> Value:
    """The greater (less) of two, a NaN giving way to a number."""
    x, y = e.tensor(x), e.tensor(y)
    best = _binary("max" if "fmax" in e.target else "min")(e, x, y)
    if not x.dtype.is_float:
        return best
    return e.b.where(e.b.isnan(x), y, e.b.where(e.b.isnan(y), x, best))


@lowers("clamp_min")
def clamp_min(e: Emitter, x: Value, low: Any = None, **bounds: Any) -> Value:
    return clamp(e, x, bounds.get("min", low), None)


@lowers("clamp_max")
def clamp_max(e: Emitter, x: Value, high: Any = None, **bounds: Any) -> Value:
    return clamp(e, x, None, bounds.get("max", high))


@lowers("hypot")
def hypot(e: Emitter, x: Value, y: Value) -> Value:
    x, y = e.tensor(x), e.tensor(y)
    return e.b.sqrt(e.b.add(e.b.mul(x, x), e.b.mul(y, y)))


@lowers("copysign")
def copysign(e: Emitter, x: Any, y: Any) -> Value:
    """|x| with y's sign; the sign of a zero is that of 1/y."""
    x, y = e.b.abs(e.tensor(x)), e.tensor(y)
    zero = e.number(0.0, x.dtype)
    negative = e.b.or_(e.b.lt(y, zero), e.b.lt(e.b.reciprocal(y), zero))
    return e.b.where(negative, e.b.neg(x), x)


# -- logic -----------------------------------------------------------------------------------------
def truth(e: Emitter, x: Any) -> Value:
    """x != 0 (also of NaN)."""
    return x if is_value(x) and x.dtype == bool_ else e.tensor(x, bool_)


@lowers("logical_and")
def logical_and(e: Emitter, x: Any, y: Any) -> Value:
    return e.b.and_(truth(e, x), truth(e, y))


@lowers("logical_or")
def logical_or(e: Emitter, x: Any, y: Any) -> Value:
    return e.b.or_(truth(e, x), truth(e, y))


@lowers("logical_xor")
def logical_xor(e: Emitter, x: Any, y: Any) -> Value:
    return e.b.xor(truth(e, x), truth(e, y))


@lowers("logical_not")
def logical_not(e: Emitter, x: Value) -> Value:
    return e.b.not_(truth(e, x))


@lowers("bitwise_not")
def bitwise_not(e: Emitter, x: Value) -> Value:
    return e.b.not_(x)


@lowers("isnan")
def isnan(e: Emitter, x: Value) -> Value:
    return e.b.isnan(x) if x.dtype.is_float else e.full(x.shape, False, bool_)


@lowers("isinf")
def isinf(e: Emitter, x: Value) -> Value:
    return e.b.isinf(x) if x.dtype.is_float else e.full(x.shape, False, bool_)


@lowers("isfinite")
def isfinite(e: Emitter, x: Value) -> Value:
    if not x.dtype.is_float:
        return e.full(x.shape, True, bool_)
    return e.b.not_(e.b.or_(e.b.isnan(x), e.b.isinf(x)))


@lowers("signbit")
def signbit(e: Emitter, x: Value) -> Value:
    zero = e.number(0, x.dtype)
    negative = e.b.lt(x, zero)
    return e.b.or_(negative, e.b.lt(e.b.reciprocal(x), zero)) if x.dtype.is_float else negative


@lowers("where", "prims::where")
def where(e: Emitter, cond: Value, x: Any, y: Any) -> Value:
    return e.b.where(truth(e, cond), e.tensor(x), e.tensor(y))


@lowers("masked_fill")
def masked_fill(e: Emitter, x: Value, mask: Value, value: Any) -> Value:
    return e.b.where(mask, e.tensor(value), e.cast(x, e.dtype))


# -- activations -----------------------------------------------------------------------------------
@lowers("gelu")
def gelu(e: Emitter, x: Value, *, approximate: str = "none") -> Value:
    return e.b.gelu(x, approximate=approximate)


@lowers("leaky_relu")
def leaky_relu(e: Emitter, x: Value, negative_slope: float = 0.01) -> Value:
    return e.b.leaky_relu(x, alpha=float(negative_slope))


@lowers("elu")
def elu(e: Emitter, x: Value, alpha: float = 1.0, scale: float = 1.0, input_scale: float = 1.0) -> Value:
    """scale * (x if x > 0 else alpha * expm1(input_scale * x))"""
    if input_scale == 1:
        y = e.b.elu(x, alpha=float(alpha))
    else:
        negative = e.b.mul(e.b.expm1(e.b.mul(x, e.tensor(input_scale))), e.tensor(alpha))
        y = e.b.where(e.b.gt(x, e.tensor(0)), x, negative)
    return y if scale == 1 else e.b.mul(y, e.tensor(scale))


@lowers("selu")
def selu(e: Emitter, x: Value) -> Value:
    return e.b.selu(x)


@lowers("celu")
def celu(e: Emitter, x: Value, alpha: float = 1.0) -> Value:
    return e.b.celu(x, alpha=float(alpha))


@lowers("softplus")
def softplus(e: Emitter, x: Value, beta: float = 1.0, threshold: float = 20.0) -> Value:
    """x where beta*x > threshold, else log1p(exp(beta*x)) / beta."""
    scaled = x if beta == 1 else e.b.mul(x, e.tensor(beta))
    soft = e.b.softplus(scaled)
    soft = soft if beta == 1 else e.b.div(soft, e.tensor(beta))
    return e.b.where(e.b.gt(scaled, e.tensor(threshold)), x, soft)


@lowers("hardsigmoid")
def hardsigmoid(e: Emitter, x: Value) -> Value:
    return e.b.hard_sigmoid(x, alpha=1 / 6, beta=0.5)


@lowers("hardtanh", "relu6")
def hardtanh(e: Emitter, x: Value, min_val: Any = None, max_val: Any = None) -> Value:
    low, high = (
        (0, 6) if "relu6" in e.target else (-1 if min_val is None else min_val, 1 if max_val is None else max_val)
    )
    return e.b.clip(x, e.tensor(low), e.tensor(high))


@lowers("prelu", "_prelu_kernel")
def prelu(e: Emitter, x: Value, weight: Value) -> Value:
    if len(weight.shape) == 1 and len(x.shape) > 1:
        weight = e.reshape(weight, (weight.shape[0], *(1 for _ in x.shape[2:])))
    elif not x.shape:  # one weight, which does not make an axis of a number
        weight = e.reshape(weight, ())
    return e.b.prelu(x, weight)


@lowers("glu")
def glu(e: Emitter, x: Value, dim: int = -1) -> Value:
    axis = e.axis(dim, len(x.shape))
    half = e.shape[axis]
    return e.b.mul(e.slice(x, axis, 0, half), e.b.sigmoid(e.slice(x, axis, half, half * 2)))


# -- dtype conversions -----------------------------------------------------------------------------
@lowers(
    "_to_copy",
    "to",
    "prims::convert_element_type",
    "type_as",
    "lift_fresh_copy",
    "lift_fresh",
    "lift",
    "clone",
    "alias",
    "detach",
    "contiguous",
    "positive",
    "prims::device_put",
    "prims::view_of",
)
def convert(e: Emitter, x: Value, *_: Any, **__: Any) -> Value:
    """Another dtype; device, layout and memory format mean nothing here."""
    return e.cast(x, e.dtype)


@lowers("frac")
def frac(e: Emitter, x: Value) -> Value:
    return e.b.sub(x, e.b.trunc(x))


@lowers("special_expit")
def expit(e: Emitter, x: Value) -> Value:
    return e.b.sigmoid(e.cast(x, e.dtype))


@lowers("logaddexp")
def logaddexp(e: Emitter, x: Value, y: Value) -> Value:
    """max(x, y) + log1p(exp(-|x - y|)), infinities of one sign kept."""
    return logaddexp_of(e, e.tensor(x), e.tensor(y))


def logaddexp_of(e: Emitter, x: Value, y: Value) -> Value:
    high = e.b.max(x, y)
    soft = e.b.add(high, e.b.log1p(e.b.exp(e.b.neg(e.b.abs(e.b.sub(x, y))))))
    return e.b.where(e.b.isinf(high), high, soft)


@lowers("angle")
def angle(e: Emitter, x: Value) -> Value:
    """Of a real number: 0, or π where it is negative."""
    x = e.cast(x, e.dtype)
    turned = e.b.where(e.b.lt(x, e.number(0, x.dtype)), e.number(math.pi, x.dtype), e.number(0, x.dtype))
    return e.b.where(e.b.isnan(x), x, turned)
