"""The exponential and what is made of it."""

from __future__ import annotations

from effcc.backends.tvm.vector_math.vocabulary import (
    MAGIC,
    MAGIC_BITS,
    Bind,
    Expr,
    absolute,
    add,
    as_bits,
    as_float,
    compare,
    constant,
    copysign,
    fma,
    multiply_add,
    negate,
    or_libm,
    polynomial,
    select,
    shift_left,
    shift_right,
    subtract,
)
from effcc.ir.lazy import tvm

LN2_HIGH, LN2_LOW = 0.693145751953125, 1.428606765330187e-06  # 15 bits, so that n * LN2_HIGH is exact; the rest
LOG2_E = 1.4426950408889634
_EXP = (0.4999999403953552, 0.1666652113199234, 0.04166828840970993, 0.008368703536689281,
        0.0013818938750773668)  # fmt: skip
_EXPM1 = (0.5, 0.1666666567325592, 0.04166649281978607, 0.008333543315529823, 0.0013932364527136087,
          0.00019764331227634102)  # fmt: skip


def reduce_by_ln2(bind: Bind, x: Expr) -> tuple[Expr, Expr]:
    """(n as int32, r) with x = n ln 2 + r and |r| <= ln 2 / 2."""
    shifted = bind(multiply_add(x, LOG2_E, MAGIC))
    n = bind(add(shifted, -MAGIC))
    r = fma(n, -LN2_HIGH, x)
    r = bind(fma(n, -LN2_LOW, r))
    return bind(as_bits(shifted) - constant(MAGIC_BITS, x, "int32")), r


def exp_reduced(r: Expr) -> Expr:
    """exp(r), |r| <= ln 2 / 2: 1 + (r + r^2 P(r))"""
    return add(multiply_add(r * r, polynomial(r, _EXP), r), 1.0)


def power_of_two(n: Expr) -> Expr:
    """2^n for -127 < n < 128."""
    return as_float(shift_left(n + constant(127, n), 23))


def clamp(bind: Bind, x: Expr, low: float, high: float) -> Expr:
    """x cut to [low, high]; NaN stays."""
    x = bind(select(compare("<", x, low), constant(low, x), x))
    return bind(select(compare(">", x, high), constant(high, x), x))


def _scaled_exp(bind: Bind, x: Expr, bias: int = 0) -> Expr:
    """exp(x) * 2^bias, in two exact scalings and one rounded: no overflow before, no lost subnormals."""
    x = clamp(bind, x, -104.0 - bias, 89.0 - bias)
    n, r = reduce_by_ln2(bind, x)
    if bias:
        n = bind(n + constant(bias, n))
    half = bind(shift_right(n, 1))
    return exp_reduced(r) * power_of_two(half) * power_of_two(n - half)


@or_libm
def exp(bind: Bind, x: Expr) -> Expr:
    return _scaled_exp(bind, x)


def exp_nonpositive(bind: Bind, x: Expr) -> Expr:
    """exp(x) of float32 x <= 0, for softmax: results below 2^-126 are 0 (as -inf gives); a little faster than `exp`."""
    x = bind(x)
    clamped = bind(select(compare("<", x, -87.33654), constant(-87.33654, x), x))
    n, r = reduce_by_ln2(bind, clamped)
    scaled = bind(exp_reduced(r) * power_of_two(n))
    return select(compare("<", x, -87.33654), constant(0.0, x), scaled)


@or_libm
def expm1(bind: Bind, x: Expr) -> Expr:
    return _expm1(bind, x)


def _expm1(bind: Bind, x: Expr) -> Expr:
    clamped = clamp(bind, x, -25.0, 89.0)
    n, r = reduce_by_ln2(bind, clamped)
    p = bind(fma(r * r, polynomial(r, _EXPM1), r))
    scale = bind(power_of_two(n - constant(1, n)))  # half of 2^n, which may overflow
    half = bind(multiply_add(scale, p, add(scale, -0.5)))
    return copysign(bind, half + half, x)


@or_libm
def sinh(bind: Bind, x: Expr) -> Expr:
    """A polynomial below 1, e/2 - 1/(2e) above, e/2 computed without overflow."""
    square, magnitude = bind(x * x), bind(absolute(bind, x))
    half = bind(_scaled_exp(bind, magnitude, -1))
    large = copysign(bind, half - tvm.tirx.Div(constant(0.25, x), half), x)
    small = fma(x * square, polynomial(square, _SINH), x)
    return select(compare("<", magnitude, 1.0), small, large)


_SINH = (0.1666666716337204, 0.00833331048488617, 0.00019842895562760532, 2.7822131869470468e-06)


@or_libm
def cosh(bind: Bind, x: Expr) -> Expr:
    half = bind(_scaled_exp(bind, absolute(bind, x), -1))
    return half + tvm.tirx.Div(constant(0.25, x), half)


def sigmoid(bind: Bind, x: Expr) -> Expr:
    """1 / (1 + exp(-x)); for negative x as e / (1 + e), which keeps small results exact."""
    x = bind(x)
    e = bind(exp(bind, negate(absolute(bind, x))))
    one = constant(1.0, x)
    return tvm.tirx.Div(select(compare("<", x, 0.0), e, one), one + e)


@or_libm
def tanh(bind: Bind, x: Expr) -> Expr:
    """x + x^3 P(x^2) up to 0.5493, where the result is 1/2; 1 - 2 / (exp(2 |x|) + 1) above."""
    magnitude = bind(absolute(bind, x))
    twice = bind(magnitude + magnitude)
    n, r = reduce_by_ln2(bind, bind(select(compare(">", twice, 32.0), constant(32.0, x), twice)))
    power = exp_reduced(r) * power_of_two(n)
    large = subtract(1.0, tvm.tirx.Div(constant(2.0, x), add(power, 1.0)))
    square = bind(x * x)
    small = fma(magnitude * square, polynomial(square, _TANH), magnitude)
    return copysign(bind, select(compare("<", magnitude, 0.5493), small, large), x)


_TANH = (-0.33333316445350647, 0.133325457572937, -0.053847864270210266, 0.021052660420536995, -0.006246489938348532)
