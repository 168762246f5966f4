"""Elementary functions on vectors of any lane count, branch-free, in TIR expressions.

TVM lowers exp, log, tanh, sin of a vector to one libm call a lane (ten times slower), and erf not at all.
Every function is `f(bind, x)` (or `f(bind, x, y)`): `bind(expr)` computes it in the current scope and returns a
reference (`templates.emission.bind`), so that shared subexpressions stay shared. Operands are float32 or float64.

float32: LARGEST_ERROR has the errors in units in the last place (`benchmarks/vector_math.py` runs all 2^32 floats).
NaN, infinities, signed zeros and subnormals are right throughout (no flush to zero is assumed or made).
float64: libm, lane by lane.

Sources: range reductions after Cody and Waite, "Software Manual for the Elementary Functions" (1980); the
variable (t - 4) / (t + 4) of erfc after Shepherd and Laframboise, "Chebyshev approximation of (1 + 2x) exp(x^2) erfc x"
(1981). Polynomials are minimax fits with coefficients rounded one by one, lowest power first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import log as _log
from typing import Any

from effcc.ir.lazy import T, tvm

Expr = Any
Bind = Callable[[Expr], Expr]

LARGEST_ERROR = {
    "exp": 1.0, "expm1": 1.5, "log": 0.9, "log1p": 1.5, "sigmoid": 2.3, "tanh": 1.5, "erf": 1.1, "erfc": 0.6,
    "sin": 1.6, "cos": 1.6, "tan": 2.7, "asin": 2.1, "acos": 1.2, "atan": 1.4, "sinh": 1.6, "cosh": 1.5,
    "asinh": 0.6, "acosh": 0.6, "atanh": 0.6, "sqrt": 0.5, "rsqrt": 1.5, "reciprocal": 0.5, "pow": 0.6, "atan2": 2.0,
}  # fmt: skip
"""float32, in units in the last place, seen over every 251st float; pow and atan2 over fewer."""

INFINITY, NAN = float("inf"), float("nan")
_SIGN, _ONE = -0x80000000, 0x3F800000
_MAGIC = 12582912.0  # 1.5 * 2^23: adding it leaves an integer in the low bits
_MAGIC_BITS = 0x4B400000
_HALF_PI = 1.5707963267948966


# -- the vocabulary ---------------------------------------------------------------------------------------------------


def lanes_of(x: Expr) -> int:
    _, _, lanes = str(x.ty.dtype).partition("x")
    return int(lanes or 1)


def scalar_type(x: Expr) -> str:
    return str(x.ty.dtype).partition("x")[0]


def _type(dtype: str, lanes: int) -> str:
    return dtype if lanes == 1 else f"{dtype}x{lanes}"


def _constant(value: float, x: Expr, dtype: str | None = None) -> Expr:
    """`value` in each of x's lanes."""
    dtype = dtype or scalar_type(x)
    literal = tvm.tirx.FloatImm(dtype, value) if dtype.startswith("float") else tvm.tirx.IntImm(dtype, value)
    lanes = lanes_of(x)
    return literal if lanes == 1 else T.broadcast(literal, lanes)


def _intrinsic(name: str, *args: Expr) -> Expr:
    return T.call_llvm_pure_intrin(T.llvm_lookup_intrinsic_id(f"llvm.{name}"), *args, dtype=str(args[0].ty.dtype))


def _fma(a: Expr, b: Expr | float, c: Expr | float) -> Expr:
    """a b + c rounded once: where the result needs it."""
    return _intrinsic("fma", a, *(_constant(v, a) if isinstance(v, float) else v for v in (b, c)))


def _multiply_add(a: Expr, b: Expr | float, c: Expr | float) -> Expr:
    """a b + c, fused where the machine can."""
    return _intrinsic("fmuladd", a, *(_constant(v, a) if isinstance(v, float) else v for v in (b, c)))


def _add(a: Expr, b: Expr | float) -> Expr:
    """a + b, rounded here: TVM's simplifier takes float sums for exact, and turns (a + b) - b into a."""
    return _multiply_add(a, 1.0, b)


def _subtract(a: Expr | float, b: Expr) -> Expr:
    """a - b, rounded here."""
    return _multiply_add(b, -1.0, a)


def _bits(x: Expr) -> Expr:
    return T.reinterpret(_type("int32", lanes_of(x)), x)


def _float(bits: Expr) -> Expr:
    return T.reinterpret(_type("float32", lanes_of(bits)), bits)


def _shift_left(bits: Expr, by: int) -> Expr:
    return T.shift_left(bits, _constant(by, bits))


def _shift_right(bits: Expr, by: int) -> Expr:
    return T.shift_right(bits, _constant(by, bits))


def _and(bits: Expr, mask: int) -> Expr:
    return T.bitwise_and(bits, _constant(mask, bits))


def _select(condition: Expr, yes: Expr, no: Expr) -> Expr:
    return T.Select(condition, yes, no)


def _compare(operator: str, x: Expr, y: float | int | Expr) -> Expr:
    y = _constant(y, x) if isinstance(y, (int, float)) else y
    return {"<": tvm.tirx.LT, ">": tvm.tirx.GT, "<=": tvm.tirx.LE, ">=": tvm.tirx.GE, "==": tvm.tirx.EQ}[operator](x, y)


def _polynomial(x: Expr, coefficients: Sequence[float]) -> Expr:
    """Horner's rule, lowest power first; linear in the size of the expression when x is a variable."""
    result = _constant(coefficients[-1], x)
    for c in reversed(coefficients[:-1]):
        result = _multiply_add(result, x, c)
    return result


def _negate(x: Expr) -> Expr:
    return x * _constant(-1.0, x)


def absolute(bind: Bind, x: Expr) -> Expr:
    return _intrinsic("fabs", x)


def copysign(bind: Bind, magnitude: Expr, sign: Expr) -> Expr:
    return _intrinsic("copysign", magnitude, sign)


def isnan(bind: Bind, x: Expr) -> Expr:
    """A predicate. (TVM folds x != x to false.)"""
    if scalar_type(x) == "float64":
        bits = T.reinterpret(_type("int64", lanes_of(x)), absolute(bind, x))
        return _compare(">", bits, 0x7FF0000000000000)
    return _compare(">", _bits(absolute(bind, x)), 0x7F800000)


def any_lane(condition: Expr, lanes: int) -> Expr:
    """Whether a predicate holds in some lane: a scalar predicate."""
    if lanes == 1:
        return condition
    kind = _type("int32", lanes)
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


def _or_libm(float32: Callable[..., Expr]) -> Callable[..., Expr]:
    """The float32 function below; float64 operands go to libm."""
    name = float32.__name__

    def function(bind: Bind, *args: Expr) -> Expr:
        if scalar_type(args[0]) == "float64":
            return _libm(name, bind, *args)
        return float32(bind, *map(bind, args))

    function.__name__, function.__doc__ = name, float32.__doc__
    return function


# -- rounding and roots -----------------------------------------------------------------------------------------------


def sqrt(bind: Bind, x: Expr) -> Expr:
    return _intrinsic("sqrt", x)


def reciprocal(bind: Bind, x: Expr) -> Expr:
    return tvm.tirx.Div(_constant(1.0, x), x)


def rsqrt(bind: Bind, x: Expr) -> Expr:
    """1 / sqrt(x): two roundings, at most 1.0 ulp."""
    return reciprocal(bind, sqrt(bind, x))


def floor(bind: Bind, x: Expr) -> Expr:
    return _intrinsic("floor", x)


def ceil(bind: Bind, x: Expr) -> Expr:
    return _intrinsic("ceil", x)


def trunc(bind: Bind, x: Expr) -> Expr:
    return _intrinsic("trunc", x)


def rint(bind: Bind, x: Expr) -> Expr:
    """To the nearest integer, halves to even."""
    return _intrinsic("rint", x)


# -- exponentials -----------------------------------------------------------------------------------------------------

_LN2_HIGH, _LN2_LOW = 0.693145751953125, 1.428606765330187e-06  # 15 bits, so that n * _LN2_HIGH is exact; the rest
_LOG2_E = 1.4426950408889634
_EXP = (0.4999999403953552, 0.1666652113199234, 0.04166828840970993, 0.008368703536689281,
        0.0013818938750773668)  # fmt: skip
_EXPM1 = (0.5, 0.1666666567325592, 0.04166649281978607, 0.008333543315529823, 0.0013932364527136087,
          0.00019764331227634102)  # fmt: skip


def _reduce_by_ln2(bind: Bind, x: Expr) -> tuple[Expr, Expr]:
    """(n as int32, r) with x = n ln 2 + r and |r| <= ln 2 / 2."""
    shifted = bind(_multiply_add(x, _LOG2_E, _MAGIC))
    n = bind(_add(shifted, -_MAGIC))
    r = _fma(n, -_LN2_HIGH, x)
    r = bind(_fma(n, -_LN2_LOW, r))
    return bind(_bits(shifted) - _constant(_MAGIC_BITS, x, "int32")), r


def _exp_reduced(r: Expr) -> Expr:
    """exp(r), |r| <= ln 2 / 2: 1 + (r + r^2 P(r))"""
    return _add(_multiply_add(r * r, _polynomial(r, _EXP), r), 1.0)


def _power_of_two(n: Expr) -> Expr:
    """2^n for -127 < n < 128."""
    return _float(_shift_left(n + _constant(127, n), 23))


def _clamp(bind: Bind, x: Expr, low: float, high: float) -> Expr:
    """x cut to [low, high]; NaN stays."""
    x = bind(_select(_compare("<", x, low), _constant(low, x), x))
    return bind(_select(_compare(">", x, high), _constant(high, x), x))


def _scaled_exp(bind: Bind, x: Expr, bias: int = 0) -> Expr:
    """exp(x) * 2^bias, in two exact scalings and one rounded: no overflow before, no lost subnormals."""
    x = _clamp(bind, x, -104.0 - bias, 89.0 - bias)
    n, r = _reduce_by_ln2(bind, x)
    if bias:
        n = bind(n + _constant(bias, n))
    half = bind(_shift_right(n, 1))
    return _exp_reduced(r) * _power_of_two(half) * _power_of_two(n - half)


@_or_libm
def exp(bind: Bind, x: Expr) -> Expr:
    return _scaled_exp(bind, x)


def exp_nonpositive(bind: Bind, x: Expr) -> Expr:
    """exp(x) of float32 x <= 0, for softmax: results below 2^-126 are 0 (as -inf gives); a little faster than `exp`."""
    x = bind(x)
    clamped = bind(_select(_compare("<", x, -87.33654), _constant(-87.33654, x), x))
    n, r = _reduce_by_ln2(bind, clamped)
    scaled = bind(_exp_reduced(r) * _power_of_two(n))
    return _select(_compare("<", x, -87.33654), _constant(0.0, x), scaled)


@_or_libm
def expm1(bind: Bind, x: Expr) -> Expr:
    return _expm1(bind, x)


def _expm1(bind: Bind, x: Expr) -> Expr:
    clamped = _clamp(bind, x, -25.0, 89.0)
    n, r = _reduce_by_ln2(bind, clamped)
    p = bind(_fma(r * r, _polynomial(r, _EXPM1), r))
    scale = bind(_power_of_two(n - _constant(1, n)))  # half of 2^n, which may overflow
    half = bind(_multiply_add(scale, p, _add(scale, -0.5)))
    return copysign(bind, half + half, x)


@_or_libm
def sinh(bind: Bind, x: Expr) -> Expr:
    """A polynomial below 1, e/2 - 1/(2e) above, e/2 computed without overflow."""
    square, magnitude = bind(x * x), bind(absolute(bind, x))
    half = bind(_scaled_exp(bind, magnitude, -1))
    large = copysign(bind, half - tvm.tirx.Div(_constant(0.25, x), half), x)
    small = _fma(x * square, _polynomial(square, _SINH), x)
    return _select(_compare("<", magnitude, 1.0), small, large)


_SINH = (0.1666666716337204, 0.00833331048488617, 0.00019842895562760532, 2.7822131869470468e-06)


@_or_libm
def cosh(bind: Bind, x: Expr) -> Expr:
    half = bind(_scaled_exp(bind, absolute(bind, x), -1))
    return half + tvm.tirx.Div(_constant(0.25, x), half)


def sigmoid(bind: Bind, x: Expr) -> Expr:
    """1 / (1 + exp(-x)); for negative x as e / (1 + e), which keeps small results exact."""
    x = bind(x)
    e = bind(exp(bind, _negate(absolute(bind, x))))
    one = _constant(1.0, x)
    return tvm.tirx.Div(_select(_compare("<", x, 0.0), e, one), one + e)


@_or_libm
def tanh(bind: Bind, x: Expr) -> Expr:
    """x + x^3 P(x^2) up to 0.5493, where the result is 1/2; 1 - 2 / (exp(2 |x|) + 1) above."""
    magnitude = bind(absolute(bind, x))
    twice = bind(magnitude + magnitude)
    n, r = _reduce_by_ln2(bind, bind(_select(_compare(">", twice, 32.0), _constant(32.0, x), twice)))
    power = _exp_reduced(r) * _power_of_two(n)
    large = _subtract(1.0, tvm.tirx.Div(_constant(2.0, x), _add(power, 1.0)))
    square = bind(x * x)
    small = _fma(magnitude * square, _polynomial(square, _TANH), magnitude)
    return copysign(bind, _select(_compare("<", magnitude, 0.5493), small, large), x)


_TANH = (-0.33333316445350647, 0.133325457572937, -0.053847864270210266, 0.021052660420536995, -0.006246489938348532)


# -- logarithms -------------------------------------------------------------------------------------------------------

_LOG = (0.3333333134651184, -0.2500082552433014, 0.20001249015331268, -0.1662318855524063, 0.14201222360134125,
        -0.13161534070968628, 0.1276586949825287, -0.07635800540447235)  # fmt: skip
_SQRT_HALF_BITS = 0x3F3504F3


def _split(bind: Bind, x: Expr) -> tuple[Expr, Expr]:
    """(exponent as int32, mantissa in [sqrt 1/2, sqrt 2)) of a positive normal x."""
    bits = bind(_bits(x))
    exponent = bind(_shift_right(bits - _constant(_SQRT_HALF_BITS, bits), 23))
    return exponent, _float(bits - _shift_left(exponent, 23))


def _log_of_one_plus(bind: Bind, f: Expr, exponent: Expr) -> Expr:
    """log(1 + f) + exponent ln 2, |f| < 0.42: f - f^2/2 + f^3 P(f), the small parts summed first."""
    n = bind(T.Cast(_type("float32", lanes_of(f)), exponent))
    square = bind(f * f)
    small = _fma(square * f, _polynomial(f, _LOG), n * _constant(_LN2_LOW, f))
    small = _fma(square, -0.5, small)
    return _fma(n, _LN2_HIGH, f + small)


def _at_the_ends(x: Expr, result: Expr, zero: float) -> Expr:
    """result for finite x > zero; -inf at zero, inf at inf, NaN below and for NaN."""
    inside = tvm.tirx.And(_compare(">", x, zero), _compare("<", x, INFINITY))
    edge = _select(_compare("==", x, zero), _constant(-INFINITY, x), _constant(NAN, x))
    return _select(inside, result, _select(_compare("==", x, INFINITY), x, edge))


@_or_libm
def log(bind: Bind, x: Expr) -> Expr:
    small = _compare("<", x, 2.0**-126)
    normal = bind(_select(small, x * _constant(2.0**23, x), x))
    exponent, mantissa = _split(bind, normal)
    shift = _select(small, _constant(-23, x, "int32"), _constant(0, x, "int32"))
    f = bind(_add(mantissa, -1.0))
    return _at_the_ends(x, _log_of_one_plus(bind, f, exponent + shift), 0.0)


@_or_libm
def log1p(bind: Bind, x: Expr) -> Expr:
    """u = 1 + x is split; what its rounding lost is put back, scaled as the mantissa was."""
    u = bind(_add(x, 1.0))
    back = bind(_add(u, -1.0))
    lost = bind(_add(_subtract(1.0, _subtract(u, back)), _subtract(x, back)))
    exponent, mantissa = _split(bind, u)
    scale = _float(_constant(_ONE, exponent) - _shift_left(exponent, 23))
    scale = _select(_compare(">", exponent, 125), _constant(0.0, x), scale)
    f = bind(_multiply_add(lost, scale, _add(mantissa, -1.0)))
    result = _at_the_ends(x, _log_of_one_plus(bind, f, exponent), -1.0)
    return _select(_compare("<", absolute(bind, x), 2.0**-25), x, result)


# -- in double, vector by vector --------------------------------------------------------------------------------------

_ATANH_64 = (0.33333333333291115, 0.20000000027497988, 0.14285708326923013, 0.111117037786255, 0.09061213601226549,
             0.0841750738524426)  # fmt: skip
_EXP2_64 = (1.0, 0.6931471805481201, 0.24022650698128134, 0.05550410935674935, 0.009618128613185077,
            0.0013333454450495102, 0.00015403826642639823, 1.5309268320243894e-05, 1.3178858932246205e-06)  # fmt: skip


def _wide(x: Expr) -> Expr:
    return T.Cast(_type("float64", lanes_of(x)), x)


def _narrow(x: Expr) -> Expr:
    return T.Cast(_type("float32", lanes_of(x)), x)


def _log2_wide(bind: Bind, x: Expr) -> Expr:
    """log2 of positive normal float64 x, to 2^-50 or so: e + 2 atanh((m - 1) / (m + 1)) / ln 2."""
    lanes = lanes_of(x)
    bits = bind(T.reinterpret(_type("int64", lanes), x))
    sqrt_half = _constant(0x3FE6A09E667F3BCD, bits)
    exponent = bind(_shift_right(bits - sqrt_half, 52))
    m = bind(T.reinterpret(_type("float64", lanes), bits - _shift_left(exponent, 52)))
    one = _constant(1.0, x)
    s = bind(tvm.tirx.Div(m - one, m + one))
    z = bind(s * s)
    atanh_s = _fma(s * z, _polynomial(z, _ATANH_64), s)
    n = T.Cast(_type("float64", lanes), T.Cast(_type("int32", lanes), exponent))
    return atanh_s * _constant(2 * _LOG2_E, x) + n


def _log_wide(bind: Bind, x: Expr) -> Expr:
    return _log2_wide(bind, x) * _constant(_log(2.0), x)


def _exp2_wide(bind: Bind, x: Expr) -> Expr:
    """2^x of float64 |x| < 1000, to 2^-40."""
    magic = 1.5 * 2.0**52
    shifted = bind(_add(x, magic))
    r = bind(_subtract(x, _add(shifted, -magic)))
    bits = T.reinterpret(_type("int64", lanes_of(x)), shifted)
    n = bits - _constant(0x4338000000000000 - 1023, bits)
    return _polynomial(r, _EXP2_64) * T.reinterpret(str(x.ty.dtype), _shift_left(n, 52))


@_or_libm
def pow(bind: Bind, x: Expr, y: Expr) -> Expr:
    """x^y as 2^(y log2 |x|) in float64, rounded once; the special cases of C99's pow, F.10.4.4."""
    magnitude = bind(absolute(bind, x))
    one, zero = _constant(1.0, x), _constant(0.0, x)
    inner = tvm.tirx.And(_compare(">", magnitude, 0.0), _compare("<", magnitude, INFINITY))
    exponent = bind(_wide(y) * _log2_wide(bind, bind(_wide(_select(inner, magnitude, one)))))
    for sign, limit in (("<", -200.0), (">", 200.0)):
        exponent = bind(_select(_compare(sign, exponent, limit), _constant(limit, exponent), exponent))
    result = bind(_narrow(_exp2_wide(bind, exponent)))
    # |x| of 0 or infinity: 0, 1 or infinity by the sign of y
    grows = _compare("==", magnitude, INFINITY)
    positive = _compare(">", y, 0.0)
    infinity = _constant(INFINITY, x)
    edge = _select(grows, _select(positive, infinity, zero), _select(positive, zero, infinity))
    result = bind(_select(inner, result, edge))
    # negative x (and -0): odd y keeps the sign, y that is no integer gives NaN (not for 0 and infinity)
    half = bind(y * _constant(0.5, y))
    whole = _compare("==", trunc(bind, y), y)
    odd = tvm.tirx.And(whole, tvm.tirx.Not(_compare("==", trunc(bind, half), half)))
    negative = _compare("<", _bits(x), 0)
    signed = bind(_select(odd, _negate(result), result))
    signed = _select(tvm.tirx.Or(whole, tvm.tirx.Not(inner)), signed, _constant(NAN, x))
    result = bind(_select(negative, signed, result))
    # NaNs, then the results that no NaN changes
    nan = tvm.tirx.Or(isnan(bind, x), isnan(bind, y))
    result = _select(nan, x + y, result)
    always_one = tvm.tirx.Or(_compare("==", x, 1.0), _compare("==", y, 0.0))
    minus_one = tvm.tirx.And(_compare("==", x, -1.0), _compare("==", absolute(bind, y), INFINITY))
    return _select(tvm.tirx.Or(always_one, minus_one), one, result)


@_or_libm
def asinh(bind: Bind, x: Expr) -> Expr:
    """log(|x| + sqrt(x^2 + 1)) in float64; a polynomial near 0."""
    magnitude = bind(absolute(bind, x))
    wide = bind(_wide(magnitude))
    one = _constant(1.0, wide)
    large = bind(_narrow(_log_wide(bind, bind(wide + sqrt(bind, wide * wide + one)))))
    square = bind(x * x)
    small = _fma(magnitude * square, _polynomial(square, (-1.0 / 6, 3.0 / 40, -5.0 / 112)), magnitude)
    result = bind(_select(_compare("<", magnitude, 2.0**-4), small, large))
    finite = _compare("<", magnitude, INFINITY)
    return copysign(bind, _select(finite, result, magnitude), x)


@_or_libm
def acosh(bind: Bind, x: Expr) -> Expr:
    """log(x + sqrt(x^2 - 1)) in float64."""
    wide = bind(_wide(x))
    result = _narrow(_log_wide(bind, bind(wide + sqrt(bind, wide * wide - _constant(1.0, wide)))))
    inside = tvm.tirx.And(_compare(">=", x, 1.0), _compare("<", x, INFINITY))
    return _select(inside, result, _select(_compare("==", x, INFINITY), x, _constant(NAN, x)))


@_or_libm
def atanh(bind: Bind, x: Expr) -> Expr:
    """log((1 + |x|) / (1 - |x|)) / 2 in float64; a polynomial near 0."""
    magnitude = bind(absolute(bind, x))
    wide = bind(_wide(magnitude))
    one = _constant(1.0, wide)
    large = bind(_narrow(_log_wide(bind, bind(tvm.tirx.Div(one + wide, one - wide))) * _constant(0.5, wide)))
    square = bind(x * x)
    small = _fma(magnitude * square, _polynomial(square, (1.0 / 3, 0.2, 1.0 / 7)), magnitude)
    edge = _select(_compare("==", magnitude, 1.0), _constant(INFINITY, x), _constant(NAN, x))
    result = _select(_compare("<", magnitude, 1.0), large, edge)
    return copysign(bind, _select(_compare("<", magnitude, 2.0**-4), small, result), x)


# -- the error function -----------------------------------------------------------------------------------------------

_ERF_SMALL = (0.12837915122509003, -0.37612491846084595, 0.1128176674246788, -0.026764314621686935,
              0.0049893599934875965, -0.0005969867343083024)  # fmt: skip
_ERF_LARGE = (0.128514364361763, 0.6357182860374451, 0.1052619144320488, -0.022890038788318634,
              0.0032149909529834986, -0.000213991166674532)  # fmt: skip
_ERFC = (1.2329951187350128, -0.13962111905157074, 0.015379630531296916, 0.06809718341746968, -0.10103829506580046,
         0.0937311306991253, -0.0663408412482255, 0.037170775540304096, -0.01613845707127751, 0.005079212526101229,
         -0.0008625679572633827, -0.0003860482022324553, 7.654713242545939e-05)  # fmt: skip


@_or_libm
def erf(bind: Bind, x: Expr) -> Expr:
    """x + x P(x^2) below 0.9277, 1 - exp(-t - t Q(t)) above, t = |x| cut to 4, where erf is 1."""
    magnitude = bind(absolute(bind, x))
    t = bind(_select(_compare(">", magnitude, 4.0), _constant(4.0, x), magnitude))
    tail = bind(_negate(_fma(t, _polynomial(t, _ERF_LARGE), t)))
    n, r = _reduce_by_ln2(bind, tail)
    large = copysign(bind, _constant(1.0, x) - _exp_reduced(r) * _power_of_two(n), x)
    square = bind(x * x)
    small = _fma(x, _polynomial(square, _ERF_SMALL), x)
    return _select(_compare(">", magnitude, 0.927734375), large, small)


@_or_libm
def erfc(bind: Bind, x: Expr) -> Expr:
    """exp(-t^2) P((t - 4) / (t + 4)) / (1 + 2t) in float64, t = |x|; 2 minus that for negative x."""
    wide = bind(_wide(_clamp(bind, absolute(bind, x), 0.0, 10.1)))
    four, one = _constant(4.0, wide), _constant(1.0, wide)
    q = bind(tvm.tirx.Div(wide - four, wide + four))
    power = _exp2_wide(bind, bind(wide * wide * _constant(-_LOG2_E, wide)))
    tail = bind(tvm.tirx.Div(_polynomial(q, _ERFC) * power, one + wide + wide))
    negative = _compare("<", T.Cast(_type("float64", lanes_of(x)), x), 0.0)
    return _narrow(_select(negative, _constant(2.0, wide) - tail, tail))


# -- trigonometry -----------------------------------------------------------------------------------------------------

_SIN = (-0.16666655242443085, 0.008332187309861183, -0.00019517909095156938)
_COS = (0.04166664555668831, -0.0013887309469282627, 2.4432336431345902e-05)
_TAN = (0.33333155512809753, 0.1333884447813034, 0.053407035768032074, 0.02444656938314438, 0.0030919783748686314,
        0.009402706287801266)  # fmt: skip
_HALF_PI_PARTS = (1.57079601287841796875, 3.139164786504813e-07, 5.3903029534742384e-15)
_LARGEST_REDUCED = 71476.0


def _reduce_by_half_pi(bind: Bind, x: Expr) -> tuple[Expr, Expr]:
    """(quadrant as int32, r) with x = quadrant pi/2 + r; for |x| <= _LARGEST_REDUCED."""
    shifted = bind(_multiply_add(x, 2 / 3.141592653589793, _MAGIC))
    n = bind(_add(shifted, -_MAGIC))
    r = x
    for part in _HALF_PI_PARTS:
        r = bind(_fma(n, -part, r))
    return bind(_bits(shifted)), r


def _or_libm_for_huge(name: str, bind: Bind, x: Expr, result: Expr) -> Expr:
    """Rare arguments beyond the reduction's reach go to libm, lane by lane, in a branch that is hardly ever taken."""
    lanes = lanes_of(x)
    huge = _compare(">", absolute(bind, x), _LARGEST_REDUCED)
    position = T.ramp(0, 1, lanes) if lanes > 1 else T.int32(0)
    arguments, results = (T.alloc_buffer((lanes,), "float32") for _ in range(2))
    T.buffer_store(results, result, [position])
    with T.If(any_lane(huge, lanes)), T.Then():
        T.buffer_store(arguments, x, [position])
        with T.serial(lanes) as lane:
            with T.If(_compare(">", absolute(bind, arguments[lane]), _LARGEST_REDUCED)), T.Then():
                T.buffer_store(results, T.call_pure_extern("float32", name, arguments[lane]), [lane])
    return bind(results[position])


def _sine(bind: Bind, x: Expr, quarter_turns: int) -> Expr:
    """sin(x + quarter_turns pi/2)"""
    quadrant, r = _reduce_by_half_pi(bind, x)
    if quarter_turns:
        quadrant = bind(quadrant + _constant(quarter_turns, quadrant))
    square = bind(r * r)
    sine = _fma(r * square, _polynomial(square, _SIN), r)
    cosine = _fma(square * square, _polynomial(square, _COS), _fma(square, -0.5, 1.0))
    value = _select(_compare("==", _and(quadrant, 1), 0), sine, cosine)
    sign = _shift_left(_and(quadrant, 2), 30)
    return _float(T.bitwise_xor(_bits(bind(value)), sign))


@_or_libm
def sin(bind: Bind, x: Expr) -> Expr:
    result = _select(_compare("==", x, 0.0), x, _sine(bind, x, 0))
    return _or_libm_for_huge("sinf", bind, x, result)


@_or_libm
def cos(bind: Bind, x: Expr) -> Expr:
    return _or_libm_for_huge("cosf", bind, x, _sine(bind, x, 1))


@_or_libm
def tan(bind: Bind, x: Expr) -> Expr:
    quadrant, r = _reduce_by_half_pi(bind, x)
    square = bind(r * r)
    t = bind(_fma(r * square, _polynomial(square, _TAN), r))
    value = _select(_compare("==", _and(quadrant, 1), 0), t, tvm.tirx.Div(_constant(-1.0, x), t))
    return _or_libm_for_huge("tanf", bind, x, _select(_compare("==", x, 0.0), x, value))


_ATAN = (-0.33333298563957214, 0.1999853104352951, -0.14264051616191864, 0.10951174795627594, -0.08400475233793259,
         0.05790654569864273, -0.031127002090215683, 0.010887361131608486, -0.0017875476041808724)  # fmt: skip
_ASIN = (0.16666752099990845, 0.07495307177305222, 0.04546964168548584, 0.02418149821460247, 0.0421651192009449)
_HALF_PI_HIGH, _HALF_PI_LOW = 1.57079637050628662109375, -4.37113900018624283e-8


def _atan_of_ratio(bind: Bind, z: Expr, inverted: Expr) -> Expr:
    """atan(z) for 0 <= z <= 1, or pi/2 - atan(z) where `inverted`."""
    square = bind(z * z)
    r = bind(_fma(z * square, _polynomial(square, _ATAN), z))
    rest = _subtract(_HALF_PI_HIGH, _add(r, -_HALF_PI_LOW))
    return bind(_select(inverted, rest, r))


@_or_libm
def atan(bind: Bind, x: Expr) -> Expr:
    magnitude = bind(absolute(bind, x))
    inverted = _compare(">", magnitude, 1.0)
    z = bind(_select(inverted, tvm.tirx.Div(_constant(1.0, x), magnitude), magnitude))
    return copysign(bind, _atan_of_ratio(bind, z, inverted), x)


@_or_libm
def atan2(bind: Bind, y: Expr, x: Expr) -> Expr:
    """The angle of (x, y); C99's cases for zeros and infinities (F.10.1.4)."""
    across, up = bind(absolute(bind, x)), bind(absolute(bind, y))
    inverted = _compare(">", up, across)
    small, large = bind(_select(inverted, across, up)), bind(_select(inverted, up, across))
    ratio = tvm.tirx.Div(small, large)
    ratio = _select(_compare("==", large, 0.0), _constant(0.0, x), ratio)
    ratio = bind(_select(_compare("==", small, INFINITY), _constant(1.0, x), ratio))
    angle = _atan_of_ratio(bind, ratio, inverted)
    behind = _subtract(2 * _HALF_PI_HIGH, _add(angle, -2 * _HALF_PI_LOW))
    angle = copysign(bind, _select(_compare("<", _bits(x), 0), behind, angle), y)
    return _select(tvm.tirx.Or(isnan(bind, x), isnan(bind, y)), x + y, angle)


@_or_libm
def asin(bind: Bind, x: Expr) -> Expr:
    """x + x^3 P(x^2) up to 1/2; pi/2 - 2 asin(sqrt((1 - |x|) / 2)) above."""
    magnitude = bind(absolute(bind, x))
    square = bind(_half_of_rest(bind, x, magnitude))
    root = bind(_select(_compare(">", magnitude, 0.5), sqrt(bind, square), magnitude))
    rest = bind(root * square * _polynomial(square, _ASIN))
    large = _subtract(_multiply_add(root, -2.0, _HALF_PI_HIGH), _multiply_add(rest, 2.0, -_HALF_PI_LOW))
    return copysign(bind, _select(_compare(">", magnitude, 0.5), large, root + rest), x)


@_or_libm
def acos(bind: Bind, x: Expr) -> Expr:
    """pi/2 - asin(x) up to 1/2; 2 asin(sqrt((1 - |x|) / 2)) above, from pi for negative x."""
    magnitude = bind(absolute(bind, x))
    square = bind(_half_of_rest(bind, x, magnitude))
    root = bind(_select(_compare(">", magnitude, 0.5), sqrt(bind, square), x))
    r = bind(_fma(root * square, _polynomial(square, _ASIN), root))
    middle = _subtract(_HALF_PI_HIGH, _add(r, -_HALF_PI_LOW))
    twice = bind(r + r)
    behind = _subtract(2 * _HALF_PI_HIGH, _add(twice, -2 * _HALF_PI_LOW))
    ends = _select(_compare("<", x, 0.0), behind, twice)
    return _select(_compare(">", magnitude, 0.5), ends, middle)


def _half_of_rest(bind: Bind, x: Expr, magnitude: Expr) -> Expr:
    """The square of asin's reduced argument: x^2 up to 1/2, (1 - |x|) / 2 above."""
    return _select(_compare(">", magnitude, 0.5), _fma(magnitude, -0.5, 0.5), x * x)
