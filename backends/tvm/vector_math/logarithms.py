"""Logarithms."""

from __future__ import annotations

from effcc.backends.tvm.vector_math.exponentials import (
    LN2_HIGH,
    LN2_LOW,
)
from effcc.backends.tvm.vector_math.vocabulary import (
    INFINITY,
    NAN,
    ONE,
    Bind,
    Expr,
    absolute,
    add,
    as_bits,
    as_float,
    compare,
    constant,
    fma,
    lanes_of,
    multiply_add,
    or_libm,
    polynomial,
    select,
    shift_left,
    shift_right,
    subtract,
    vector_type,
)
from effcc.ir.lazy import T, tvm

_LOG = (0.3333333134651184, -0.2500082552433014, 0.20001249015331268, -0.1662318855524063, 0.14201222360134125,
        -0.13161534070968628, 0.1276586949825287, -0.07635800540447235)  # fmt: skip
_SQRT_HALF_BITS = 0x3F3504F3


def _split(bind: Bind, x: Expr) -> tuple[Expr, Expr]:
    """(exponent as int32, mantissa in [sqrt 1/2, sqrt 2)) of a positive normal x."""
    bits = bind(as_bits(x))
    exponent = bind(shift_right(bits - constant(_SQRT_HALF_BITS, bits), 23))
    return exponent, as_float(bits - shift_left(exponent, 23))


def _log_of_one_plus(bind: Bind, f: Expr, exponent: Expr) -> Expr:
    """log(1 + f) + exponent ln 2, |f| < 0.42: f - f^2/2 + f^3 P(f), the small parts summed first."""
    n = bind(T.Cast(vector_type("float32", lanes_of(f)), exponent))
    square = bind(f * f)
    small = fma(square * f, polynomial(f, _LOG), n * constant(LN2_LOW, f))
    small = fma(square, -0.5, small)
    return fma(n, LN2_HIGH, f + small)


def _at_the_ends(x: Expr, result: Expr, zero: float) -> Expr:
    """result for finite x > zero; -inf at zero, inf at inf, NaN below and for NaN."""
    inside = tvm.tirx.And(compare(">", x, zero), compare("<", x, INFINITY))
    edge = select(compare("==", x, zero), constant(-INFINITY, x), constant(NAN, x))
    return select(inside, result, select(compare("==", x, INFINITY), x, edge))


@or_libm
def log(bind: Bind, x: Expr) -> Expr:
    small = compare("<", x, 2.0**-126)
    normal = bind(select(small, x * constant(2.0**23, x), x))
    exponent, mantissa = _split(bind, normal)
    shift = select(small, constant(-23, x, "int32"), constant(0, x, "int32"))
    f = bind(add(mantissa, -1.0))
    return _at_the_ends(x, _log_of_one_plus(bind, f, exponent + shift), 0.0)


@or_libm
def log1p(bind: Bind, x: Expr) -> Expr:
    """u = 1 + x is split; what its rounding lost is put back, scaled as the mantissa was."""
    u = bind(add(x, 1.0))
    back = bind(add(u, -1.0))
    lost = bind(add(subtract(1.0, subtract(u, back)), subtract(x, back)))
    exponent, mantissa = _split(bind, u)
    scale = as_float(constant(ONE, exponent) - shift_left(exponent, 23))
    scale = select(compare(">", exponent, 125), constant(0.0, x), scale)
    f = bind(multiply_add(lost, scale, add(mantissa, -1.0)))
    result = _at_the_ends(x, _log_of_one_plus(bind, f, exponent), -1.0)
    return select(compare("<", absolute(bind, x), 2.0**-25), x, result)
