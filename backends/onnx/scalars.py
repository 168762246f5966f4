"""The functions of scalar expressions (effcc.ir.scalar) as ONNX nodes, elementwise on tensors that broadcast."""

from __future__ import annotations

import math
from collections.abc import Callable

from effcc.backends.onnx.emit import Ref, Scope, onnx_dtype
from effcc.ir.types import DTYPES, DType, bool_, i64, u8

NODES = {
    "add": "Add", "sub": "Sub", "mul": "Mul", "exp": "Exp", "log": "Log", "sqrt": "Sqrt", "sin": "Sin", "cos": "Cos",
    "tan": "Tan", "asin": "Asin", "acos": "Acos", "atan": "Atan", "sinh": "Sinh", "cosh": "Cosh", "asinh": "Asinh",
    "acosh": "Acosh", "atanh": "Atanh", "tanh": "Tanh", "erf": "Erf", "abs": "Abs",
}  # fmt: skip
COMPARISONS = {"eq": "Equal", "lt": "Less", "le": "LessOrEqual", "gt": "Greater", "ge": "GreaterOrEqual"}
LOGIC = {"and": ("And", "BitwiseAnd"), "or": ("Or", "BitwiseOr"), "xor": ("Xor", "BitwiseXor"),
         "not": ("Not", "BitwiseNot")}  # fmt: skip
ROUNDINGS = {"floor": "Floor", "ceil": "Ceil", "round": "Round"}

Function = Callable[..., Ref]


def apply(e: Scope, fn: str, dtype: DType, *args: Ref) -> Ref:
    """A scalar function on tensors; `dtype` is the result's."""
    x = args[0]
    if fn in OTHERS:
        return OTHERS[fn](e, *args)
    if fn in NODES:
        return e.call(NODES[fn], *args)
    if fn in COMPARISONS:
        return e.call(COMPARISONS[fn], *args, out=bool_)
    if fn in LOGIC:
        return e.call(LOGIC[fn][0 if x.dtype.is_bool else 1], *args)
    if fn in ROUNDINGS:
        return e.call(ROUNDINGS[fn], x) if x.dtype.is_float else x
    if fn == "cast":
        return cast(e, x, dtype)
    if fn == "bitcast":
        return e.node("BitCast", [x], [dtype], to=onnx_dtype(dtype))[0]
    if fn == "select":
        return e.call("Where", *args)
    raise NotImplementedError(fn)


def cast(e: Scope, x: Ref, dtype: DType) -> Ref:
    if dtype.is_bool and not x.dtype.is_bool:  # a float below 1 is true as well
        return e.node("Cast", [x], [bool_], to=onnx_dtype(bool_))[0]
    return e.cast(x, dtype)


def fill(e: Scope, x: Ref, value: float) -> Ref:
    """A number of x's dtype."""
    return e.number(value, x.dtype)


def _neg(e: Scope, x: Ref) -> Ref:
    return e.call("Sub", fill(e, x, 0), x) if x.dtype.kind == "u" else e.call("Neg", x)


def _ne(e: Scope, a: Ref, b: Ref) -> Ref:
    return e.call("Not", e.call("Equal", a, b, out=bool_))


def isnan(e: Scope, x: Ref) -> Ref:
    return _ne(e, x, x)


def _trunc(e: Scope, x: Ref) -> Ref:
    if not x.dtype.is_float:
        return x
    return e.call("Where", e.call("Less", x, fill(e, x, 0), out=bool_), e.call("Ceil", x), e.call("Floor", x))


def _expm1(e: Scope, x: Ref) -> Ref:
    """(u - 1) x / ln u for u = eˣ, which is accurate near 0. (Kahan; Higham 2002, "Accuracy and Stability of Numerical
    Algorithms", section 1.14.1)"""
    one = fill(e, x, 1)
    u = e.call("Exp", x)
    less = e.call("Sub", u, one)
    near = e.call("Div", e.call("Mul", less, x), e.call("Log", u))
    tame = e.call("Less", e.call("Abs", x), one, out=bool_)
    out = e.call("Where", tame, near, less)
    return e.call("Where", e.call("Equal", u, one, out=bool_), x, out)


def _log1p(e: Scope, x: Ref) -> Ref:
    """x ln u / (u - 1) for u = 1 + x. (Higham 2002, problem 1.5)"""
    one = fill(e, x, 1)
    u = e.call("Add", x, one)
    log = e.call("Log", u)
    near = e.call("Div", e.call("Mul", x, log), e.call("Sub", u, one))
    tame = e.call("Less", e.call("Abs", x), one, out=bool_)
    return e.call("Where", e.call("Equal", u, one, out=bool_), x, e.call("Where", tame, near, log))


def _rsqrt(e: Scope, x: Ref) -> Ref:
    return e.call("Reciprocal", e.call("Sqrt", x))


def _atan2(e: Scope, y: Ref, x: Ref) -> Ref:
    """The angle of (x, y) from that of the nearer axis, by octant; signed zeros and infinities as in C."""
    zero, one = fill(e, x, 0), fill(e, x, 1)

    def below(v: Ref) -> Ref:  # also -0
        inverse = e.call("Less", e.call("Div", one, v), zero, out=bool_)
        return e.call("Or", e.call("Less", v, zero, out=bool_), inverse)

    ax, ay = e.call("Abs", x), e.call("Abs", y)
    low, high = e.call("Min", ax, ay), e.call("Max", ax, ay)
    equal = e.call("Equal", ax, ay, out=bool_)
    both = e.call("Where", e.call("Equal", ax, zero, out=bool_), zero, one)
    ratio = e.call("Where", equal, both, e.call("Div", low, high))
    angle = e.call("Atan", ratio)
    steep = e.call("Greater", ay, ax, out=bool_)
    angle = e.call("Where", steep, e.call("Sub", fill(e, x, math.pi / 2), angle), angle)
    angle = e.call("Where", below(x), e.call("Sub", fill(e, x, math.pi), angle), angle)
    angle = e.call("Where", below(y), e.call("Neg", angle), angle)
    undefined = e.call("Or", isnan(e, x), isnan(e, y))
    return e.call("Where", undefined, fill(e, x, math.nan), angle)


def _minus_one(e: Scope, b: Ref) -> Ref:
    return e.call("Equal", b, fill(e, b, -1), out=bool_)


def _safe(e: Scope, b: Ref) -> Ref:
    """A divisor that does not trap: not 0, nor, where nothing wider is left, -1 (whose remainders are those of 1)."""
    if (e.model.numbers.get(b.name) or 0) > 0:
        return b
    bad = e.call("Equal", b, fill(e, b, 0), out=bool_)
    if b.dtype == i64:
        bad = e.call("Or", bad, _minus_one(e, b))
    return e.call("Where", bad, fill(e, b, 1), b)


def _wide(e: Scope, a: Ref) -> Ref:
    """The least integer divided by -1 wraps: computed in i64."""
    return e.cast(a, i64) if a.dtype.kind == "i" else a


def _quotient(e: Scope, a: Ref, b: Ref) -> Ref:
    """Of integers, toward zero; `b` as it came, before it was made safe."""
    safe = _safe(e, b)
    out = e.call("Div", a, safe)
    return out if safe is b or b.dtype.kind == "u" else e.call("Where", _minus_one(e, b), e.call("Neg", a), out)


def _div(e: Scope, a: Ref, b: Ref) -> Ref:
    if a.dtype.is_float:
        return e.call("Div", a, b)
    return e.cast(_quotient(e, _wide(e, a), _wide(e, b)), a.dtype)


def _floordiv(e: Scope, a: Ref, b: Ref) -> Ref:
    """The quotient toward zero, less one where it was rounded up."""
    wide, divisor = _wide(e, a), _wide(e, b)
    quotient = _quotient(e, wide, divisor)
    if a.dtype.kind == "u":
        return quotient
    zero = fill(e, wide, 0)
    rest = e.call("Mod", wide, _safe(e, divisor), fmod=1)
    below = (e.call("Less", x, zero, out=bool_) for x in (rest, divisor))
    up = e.call("And", _ne(e, rest, zero), e.call("Xor", *below))
    return e.cast(e.call("Sub", quotient, e.cast(up, wide.dtype)), a.dtype)


def _mod(e: Scope, a: Ref, b: Ref) -> Ref:
    return e.cast(e.call("Mod", _wide(e, a), _safe(e, _wide(e, b))), a.dtype)


def _fmod(e: Scope, a: Ref, b: Ref) -> Ref:
    if a.dtype.is_float:
        return e.call("Mod", a, b, fmod=1)
    return e.cast(e.call("Mod", _wide(e, a), _safe(e, _wide(e, b)), fmod=1), a.dtype)


def _pow(e: Scope, a: Ref, b: Ref) -> Ref:
    """Of integers by repeated squaring, so that products wrap; exponents count by their low bits."""
    if a.dtype.is_float:
        return e.call("Pow", a, b)
    one, power, rest = fill(e, a, 1), a, b
    result = one
    for bit in range(a.dtype.bits):
        odd = e.call("Equal", _mod(e, rest, fill(e, b, 2)), one, out=bool_)
        result = e.call("Mul", result, e.call("Where", odd, power, one))
        if bit + 1 < a.dtype.bits:
            power, rest = e.call("Mul", power, power), _div(e, rest, fill(e, b, 2))
    return result


def _unsigned(e: Scope, x: Ref) -> Ref:
    return e.cast(x, DTYPES[f"u{x.dtype.bits}"])


def _shl(e: Scope, a: Ref, b: Ref) -> Ref:
    if a.dtype.bits < 8:
        return e.cast(_shl(e, e.cast(a, u8), e.cast(b, u8)), a.dtype)
    return e.cast(e.call("BitShift", _unsigned(e, a), _unsigned(e, b), direction="LEFT"), a.dtype)


def _shr(e: Scope, a: Ref, b: Ref) -> Ref:
    """Of negative numbers ~(~a >> b)."""
    if a.dtype.bits < 8:
        wide = DTYPES["i8"] if a.dtype.kind == "i" else u8
        return e.cast(_shr(e, e.cast(a, wide), e.cast(b, wide)), a.dtype)
    if a.dtype.kind == "u":
        return e.call("BitShift", a, b, direction="RIGHT")
    negative = e.call("Less", a, fill(e, a, 0), out=bool_)
    magnitude = e.call("Where", negative, e.call("BitwiseNot", a), a)
    out = e.cast(e.call("BitShift", _unsigned(e, magnitude), _unsigned(e, b), direction="RIGHT"), a.dtype)
    return e.call("Where", negative, e.call("BitwiseNot", out), out)


def _extremum(e: Scope, op: str, a: Ref, b: Ref) -> Ref:
    if a.dtype.is_bool:
        return e.call("And" if op == "Min" else "Or", a, b)
    return e.call(op, a, b)


def _erfc(e: Scope, x: Ref) -> Ref:
    """1 - erf x: ONNX has no function that is exact in the tail."""
    return e.call("Sub", fill(e, x, 1), e.call("Erf", x))


OTHERS: dict[str, Function] = {
    "erfc": _erfc,
    "neg": _neg, "ne": _ne, "isnan": isnan, "trunc": _trunc, "expm1": _expm1, "log1p": _log1p, "rsqrt": _rsqrt,
    "atan2": _atan2, "div": _div, "floordiv": _floordiv, "mod": _mod, "fmod": _fmod, "pow": _pow, "shl": _shl,
    "shr": _shr, "max": lambda e, a, b: _extremum(e, "Max", a, b), "min": lambda e, a, b: _extremum(e, "Min", a, b),
}  # fmt: skip

__all__ = ["apply", "cast", "fill", "isnan"]
