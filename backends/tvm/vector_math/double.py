"""Functions that need more than 24 bits on the way: computed in float64, vector by vector, and rounded once."""

from __future__ import annotations

from math import log as _log

from effcc.backends.tvm.vector_math.exponentials import (
    LOG2_E,
)
from effcc.backends.tvm.vector_math.vocabulary import (
    INFINITY,
    NAN,
    Bind,
    Expr,
    absolute,
    add,
    as_bits,
    compare,
    constant,
    copysign,
    fma,
    isnan,
    lanes_of,
    negate,
    or_libm,
    polynomial,
    select,
    shift_left,
    shift_right,
    sqrt,
    subtract,
    trunc,
    vector_type,
)
from effcc.ir.lazy import T, tvm

_ATANH_64 = (0.33333333333291115, 0.20000000027497988, 0.14285708326923013, 0.111117037786255, 0.09061213601226549,
             0.0841750738524426)  # fmt: skip
_EXP2_64 = (1.0, 0.6931471805481201, 0.24022650698128134, 0.05550410935674935, 0.009618128613185077,
            0.0013333454450495102, 0.00015403826642639823, 1.5309268320243894e-05, 1.3178858932246205e-06)  # fmt: skip


def widened(x: Expr) -> Expr:
    return T.Cast(vector_type("float64", lanes_of(x)), x)


def narrowed(x: Expr) -> Expr:
    return T.Cast(vector_type("float32", lanes_of(x)), x)


def log2_wide(bind: Bind, x: Expr) -> Expr:
    """log2 of positive normal float64 x, to 2^-50 or so: e + 2 atanh((m - 1) / (m + 1)) / ln 2."""
    lanes = lanes_of(x)
    bits = bind(T.reinterpret(vector_type("int64", lanes), x))
    sqrt_half = constant(0x3FE6A09E667F3BCD, bits)
    exponent = bind(shift_right(bits - sqrt_half, 52))
    m = bind(T.reinterpret(vector_type("float64", lanes), bits - shift_left(exponent, 52)))
    one = constant(1.0, x)
    s = bind(tvm.tirx.Div(m - one, m + one))
    z = bind(s * s)
    atanh_s = fma(s * z, polynomial(z, _ATANH_64), s)
    n = T.Cast(vector_type("float64", lanes), T.Cast(vector_type("int32", lanes), exponent))
    return atanh_s * constant(2 * LOG2_E, x) + n


def log_wide(bind: Bind, x: Expr) -> Expr:
    return log2_wide(bind, x) * constant(_log(2.0), x)


def exp2_wide(bind: Bind, x: Expr) -> Expr:
    """2^x of float64 |x| < 1000, to 2^-40."""
    magic = 1.5 * 2.0**52
    shifted = bind(add(x, magic))
    r = bind(subtract(x, add(shifted, -magic)))
    bits = T.reinterpret(vector_type("int64", lanes_of(x)), shifted)
    n = bits - constant(0x4338000000000000 - 1023, bits)
    return polynomial(r, _EXP2_64) * T.reinterpret(str(x.ty.dtype), shift_left(n, 52))


@or_libm
def pow(bind: Bind, x: Expr, y: Expr) -> Expr:
    """x^y as 2^(y log2 |x|) in float64, rounded once; the special cases of C99's pow, F.10.4.4."""
    magnitude = bind(absolute(bind, x))
    one, zero = constant(1.0, x), constant(0.0, x)
    inner = tvm.tirx.And(compare(">", magnitude, 0.0), compare("<", magnitude, INFINITY))
    exponent = bind(widened(y) * log2_wide(bind, bind(widened(select(inner, magnitude, one)))))
    for sign, limit in (("<", -200.0), (">", 200.0)):
        exponent = bind(select(compare(sign, exponent, limit), constant(limit, exponent), exponent))
    result = bind(narrowed(exp2_wide(bind, exponent)))
    # |x| of 0 or infinity: 0, 1 or infinity by the sign of y
    grows = compare("==", magnitude, INFINITY)
    positive = compare(">", y, 0.0)
    infinity = constant(INFINITY, x)
    edge = select(grows, select(positive, infinity, zero), select(positive, zero, infinity))
    result = bind(select(inner, result, edge))
    # negative x (and -0): odd y keeps the sign, y that is no integer gives NaN (not for 0 and infinity)
    half = bind(y * constant(0.5, y))
    whole = compare("==", trunc(bind, y), y)
    odd = tvm.tirx.And(whole, tvm.tirx.Not(compare("==", trunc(bind, half), half)))
    negative = compare("<", as_bits(x), 0)
    signed = bind(select(odd, negate(result), result))
    signed = select(tvm.tirx.Or(whole, tvm.tirx.Not(inner)), signed, constant(NAN, x))
    result = bind(select(negative, signed, result))
    # NaNs, then the results that no NaN changes
    nan = tvm.tirx.Or(isnan(bind, x), isnan(bind, y))
    result = select(nan, x + y, result)
    always_one = tvm.tirx.Or(compare("==", x, 1.0), compare("==", y, 0.0))
    minus_one = tvm.tirx.And(compare("==", x, -1.0), compare("==", absolute(bind, y), INFINITY))
    return select(tvm.tirx.Or(always_one, minus_one), one, result)


@or_libm
def asinh(bind: Bind, x: Expr) -> Expr:
    """log(|x| + sqrt(x^2 + 1)) in float64; a polynomial near 0."""
    magnitude = bind(absolute(bind, x))
    wide = bind(widened(magnitude))
    one = constant(1.0, wide)
    large = bind(narrowed(log_wide(bind, bind(wide + sqrt(bind, wide * wide + one)))))
    square = bind(x * x)
    small = fma(magnitude * square, polynomial(square, (-1.0 / 6, 3.0 / 40, -5.0 / 112)), magnitude)
    result = bind(select(compare("<", magnitude, 2.0**-4), small, large))
    finite = compare("<", magnitude, INFINITY)
    return copysign(bind, select(finite, result, magnitude), x)


@or_libm
def acosh(bind: Bind, x: Expr) -> Expr:
    """log(x + sqrt(x^2 - 1)) in float64."""
    wide = bind(widened(x))
    result = narrowed(log_wide(bind, bind(wide + sqrt(bind, wide * wide - constant(1.0, wide)))))
    inside = tvm.tirx.And(compare(">=", x, 1.0), compare("<", x, INFINITY))
    return select(inside, result, select(compare("==", x, INFINITY), x, constant(NAN, x)))


@or_libm
def atanh(bind: Bind, x: Expr) -> Expr:
    """log((1 + |x|) / (1 - |x|)) / 2 in float64; a polynomial near 0."""
    magnitude = bind(absolute(bind, x))
    wide = bind(widened(magnitude))
    one = constant(1.0, wide)
    large = bind(narrowed(log_wide(bind, bind(tvm.tirx.Div(one + wide, one - wide))) * constant(0.5, wide)))
    square = bind(x * x)
    small = fma(magnitude * square, polynomial(square, (1.0 / 3, 0.2, 1.0 / 7)), magnitude)
    edge = select(compare("==", magnitude, 1.0), constant(INFINITY, x), constant(NAN, x))
    result = select(compare("<", magnitude, 1.0), large, edge)
    return copysign(bind, select(compare("<", magnitude, 2.0**-4), small, result), x)
