"""What the functions are spelled with: constants, rounded sums, bits, lanes; rounding and roots."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from effcc.ir.lazy import T, tvm

Expr = Any
Bind = Callable[[Expr], Expr]

INFINITY, NAN = float("inf"), float("nan")
_SIGN, ONE = -0x80000000, 0x3F800000
MAGIC = 12582912.0  # 1.5 * 2^23: adding it leaves an integer in the low bits
MAGIC_BITS = 0x4B400000
_HALF_PI = 1.5707963267948966


def lanes_of(x: Expr) -> int:
    _, _, lanes = str(x.ty.dtype).partition("x")
    return int(lanes or 1)


def scalar_type(x: Expr) -> str:
    return str(x.ty.dtype).partition("x")[0]


def vector_type(dtype: str, lanes: int) -> str:
    return dtype if lanes == 1 else f"{dtype}x{lanes}"


def constant(value: float, x: Expr, dtype: str | None = None) -> Expr:
    """`value` in each of x's lanes."""
    dtype = dtype or scalar_type(x)
    literal = tvm.tirx.FloatImm(dtype, value) if dtype.startswith("float") else tvm.tirx.IntImm(dtype, value)
    lanes = lanes_of(x)
    return literal if lanes == 1 else T.broadcast(literal, lanes)


def intrinsic(name: str, *args: Expr) -> Expr:
    return T.call_llvm_pure_intrin(T.llvm_lookup_intrinsic_id(f"llvm.{name}"), *args, dtype=str(args[0].ty.dtype))


def fma(a: Expr, b: Expr | float, c: Expr | float) -> Expr:
    """a b + c rounded once: where the result needs it."""
    return intrinsic("fma", a, *(constant(v, a) if isinstance(v, float) else v for v in (b, c)))


def multiply_add(a: Expr, b: Expr | float, c: Expr | float) -> Expr:
    """a b + c, fused where the machine can."""
    return intrinsic("fmuladd", a, *(constant(v, a) if isinstance(v, float) else v for v in (b, c)))


def add(a: Expr, b: Expr | float) -> Expr:
    """a + b, rounded here: TVM's simplifier takes float sums for exact, and turns (a + b) - b into a."""
    return multiply_add(a, 1.0, b)


def subtract(a: Expr | float, b: Expr) -> Expr:
    """a - b, rounded here."""
    return multiply_add(b, -1.0, a)


def as_bits(x: Expr) -> Expr:
    return T.reinterpret(vector_type("int32", lanes_of(x)), x)


def as_float(bits: Expr) -> Expr:
    return T.reinterpret(vector_type("float32", lanes_of(bits)), bits)


def shift_left(bits: Expr, by: int) -> Expr:
    return T.shift_left(bits, constant(by, bits))


def shift_right(bits: Expr, by: int) -> Expr:
    return T.shift_right(bits, constant(by, bits))


def masked(bits: Expr, mask: int) -> Expr:
    return T.bitwise_and(bits, constant(mask, bits))


def select(condition: Expr, yes: Expr, no: Expr) -> Expr:
    return T.Select(condition, yes, no)


def compare(operator: str, x: Expr, y: float | int | Expr) -> Expr:
    y = constant(y, x) if isinstance(y, (int, float)) else y
    return {"<": tvm.tirx.LT, ">": tvm.tirx.GT, "<=": tvm.tirx.LE, ">=": tvm.tirx.GE, "==": tvm.tirx.EQ}[operator](x, y)


def polynomial(x: Expr, coefficients: Sequence[float]) -> Expr:
    """Horner's rule, lowest power first; linear in the size of the expression when x is a variable."""
    result = constant(coefficients[-1], x)
    for c in reversed(coefficients[:-1]):
        result = multiply_add(result, x, c)
    return result


def negate(x: Expr) -> Expr:
    return x * constant(-1.0, x)


def absolute(bind: Bind, x: Expr) -> Expr:
    return intrinsic("fabs", x)


def copysign(bind: Bind, magnitude: Expr, sign: Expr) -> Expr:
    return intrinsic("copysign", magnitude, sign)


def isnan(bind: Bind, x: Expr) -> Expr:
    """A predicate. (TVM folds x != x to false.)"""
    if scalar_type(x) == "float64":
        bits = T.reinterpret(vector_type("int64", lanes_of(x)), absolute(bind, x))
        return compare(">", bits, 0x7FF0000000000000)
    return compare(">", as_bits(absolute(bind, x)), 0x7F800000)


def any_lane(condition: Expr, lanes: int) -> Expr:
    """Whether a predicate holds in some lane: a scalar predicate."""
    if lanes == 1:
        return condition
    kind = vector_type("int32", lanes)
    ones = T.Select(condition, T.broadcast(T.int32(1), lanes), T.broadcast(T.int32(0), lanes))
    assert str(ones.ty.dtype) == kind
    return reduce_lanes("or", ones) != 0


def reduce_lanes(operation: str, x: Expr) -> Expr:
    """The sum ("add"), or "max"/"min" (NaN in a lane is not seen), or "or" of a vector's lanes, as a scalar."""
    if lanes_of(x) == 1:
        return x
    dtype = scalar_type(x)
    if not dtype.startswith("float"):
        name = {"add": "add", "or": "or", "max": "smax", "min": "smin"}[operation]
        if dtype.startswith("uint"):
            name = name.replace("smax", "umax").replace("smin", "umin")
        identifier = T.llvm_lookup_intrinsic_id(f"llvm.vector.reduce.{name}")
        return T.call_llvm_pure_intrin(identifier, x, dtype=dtype)
    while (lanes := lanes_of(x)) > 1:  # by halves: LLVM's own reduction of floats is in order, lane after lane
        half = lanes // 2
        low, high = (T.Shuffle([x], list(range(first, first + half))) for first in (0, half))
        if operation == "add":
            x = low + high
        else:
            x = (T.max if operation == "max" else T.min)(low, high)
    return x


def per_lane(function: Callable[..., Expr], *args: Expr) -> Expr:
    """A scalar function, lane by lane."""
    lanes = lanes_of(args[0])
    if lanes == 1:
        return function(*args)
    results = [function(*(T.Shuffle([a], [lane]) for a in args)) for lane in range(lanes)]
    return T.Shuffle(results, list(range(lanes)))


def _libm(name: str, bind: Bind, *args: Expr) -> Expr:
    """C's double function of that name, lane by lane."""
    return per_lane(lambda *lane: T.call_pure_extern("float64", name, *lane), *map(bind, args))


def or_libm(float32: Callable[..., Expr]) -> Callable[..., Expr]:
    """The float32 function below; float64 operands go to libm."""
    name = float32.__name__

    def function(bind: Bind, *args: Expr) -> Expr:
        if scalar_type(args[0]) == "float64":
            return _libm(name, bind, *args)
        return float32(bind, *map(bind, args))

    function.__name__, function.__doc__ = name, float32.__doc__
    return function


def sqrt(bind: Bind, x: Expr) -> Expr:
    return intrinsic("sqrt", x)


def reciprocal(bind: Bind, x: Expr) -> Expr:
    return tvm.tirx.Div(constant(1.0, x), x)


def rsqrt(bind: Bind, x: Expr) -> Expr:
    """1 / sqrt(x): two roundings, at most 1.0 ulp."""
    return reciprocal(bind, sqrt(bind, x))


def floor(bind: Bind, x: Expr) -> Expr:
    return intrinsic("floor", x)


def ceil(bind: Bind, x: Expr) -> Expr:
    return intrinsic("ceil", x)


def trunc(bind: Bind, x: Expr) -> Expr:
    return intrinsic("trunc", x)


def rint(bind: Bind, x: Expr) -> Expr:
    """To the nearest integer, halves to even."""
    return intrinsic("rint", x)
