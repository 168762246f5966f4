"""Trigonometry."""

from __future__ import annotations

from effcc.backends.tvm.vector_math.vocabulary import (
    INFINITY,
    MAGIC,
    Bind,
    Expr,
    absolute,
    add,
    any_lane,
    as_bits,
    as_float,
    compare,
    constant,
    copysign,
    fma,
    isnan,
    lanes_of,
    masked,
    multiply_add,
    or_libm,
    polynomial,
    select,
    shift_left,
    sqrt,
    subtract,
)
from effcc.ir.lazy import T, tvm

_SIN = (-0.16666655242443085, 0.008332187309861183, -0.00019517909095156938)
_COS = (0.04166664555668831, -0.0013887309469282627, 2.4432336431345902e-05)
_TAN = (0.33333155512809753, 0.1333884447813034, 0.053407035768032074, 0.02444656938314438, 0.0030919783748686314,
        0.009402706287801266)  # fmt: skip
_HALF_PI_PARTS = (1.57079601287841796875, 3.139164786504813e-07, 5.3903029534742384e-15)
_LARGEST_REDUCED = 71476.0


def _reduce_by_half_pi(bind: Bind, x: Expr) -> tuple[Expr, Expr]:
    """(quadrant as int32, r) with x = quadrant pi/2 + r; for |x| <= _LARGEST_REDUCED."""
    shifted = bind(multiply_add(x, 2 / 3.141592653589793, MAGIC))
    n = bind(add(shifted, -MAGIC))
    r = x
    for part in _HALF_PI_PARTS:
        r = bind(fma(n, -part, r))
    return bind(as_bits(shifted)), r


def _or_libm_for_huge(name: str, bind: Bind, x: Expr, result: Expr) -> Expr:
    """Rare arguments beyond the reduction's reach go to libm, lane by lane, in a branch that is hardly ever taken."""
    lanes = lanes_of(x)
    huge = compare(">", absolute(bind, x), _LARGEST_REDUCED)
    position = T.ramp(0, 1, lanes) if lanes > 1 else T.int32(0)
    arguments, results = (T.alloc_buffer((lanes,), "float32") for _ in range(2))
    T.buffer_store(results, result, [position])
    with T.If(any_lane(huge, lanes)), T.Then():
        T.buffer_store(arguments, x, [position])
        with T.serial(lanes) as lane:
            with T.If(compare(">", absolute(bind, arguments[lane]), _LARGEST_REDUCED)), T.Then():
                T.buffer_store(results, T.call_pure_extern("float32", name, arguments[lane]), [lane])
    return bind(results[position])


def _sine(bind: Bind, x: Expr, quarter_turns: int) -> Expr:
    """sin(x + quarter_turns pi/2)"""
    quadrant, r = _reduce_by_half_pi(bind, x)
    if quarter_turns:
        quadrant = bind(quadrant + constant(quarter_turns, quadrant))
    square = bind(r * r)
    sine = fma(r * square, polynomial(square, _SIN), r)
    cosine = fma(square * square, polynomial(square, _COS), fma(square, -0.5, 1.0))
    value = select(compare("==", masked(quadrant, 1), 0), sine, cosine)
    sign = shift_left(masked(quadrant, 2), 30)
    return as_float(T.bitwise_xor(as_bits(bind(value)), sign))


@or_libm
def sin(bind: Bind, x: Expr) -> Expr:
    result = select(compare("==", x, 0.0), x, _sine(bind, x, 0))
    return _or_libm_for_huge("sinf", bind, x, result)


@or_libm
def cos(bind: Bind, x: Expr) -> Expr:
    return _or_libm_for_huge("cosf", bind, x, _sine(bind, x, 1))


@or_libm
def tan(bind: Bind, x: Expr) -> Expr:
    quadrant, r = _reduce_by_half_pi(bind, x)
    square = bind(r * r)
    t = bind(fma(r * square, polynomial(square, _TAN), r))
    value = select(compare("==", masked(quadrant, 1), 0), t, tvm.tirx.Div(constant(-1.0, x), t))
    return _or_libm_for_huge("tanf", bind, x, select(compare("==", x, 0.0), x, value))


_ATAN = (-0.33333298563957214, 0.1999853104352951, -0.14264051616191864, 0.10951174795627594, -0.08400475233793259,
         0.05790654569864273, -0.031127002090215683, 0.010887361131608486, -0.0017875476041808724)  # fmt: skip
_ASIN = (0.16666752099990845, 0.07495307177305222, 0.04546964168548584, 0.02418149821460247, 0.0421651192009449)
_HALF_PI_HIGH, _HALF_PI_LOW = 1.57079637050628662109375, -4.37113900018624283e-8


def _atan_of_ratio(bind: Bind, z: Expr, inverted: Expr) -> Expr:
    """atan(z) for 0 <= z <= 1, or pi/2 - atan(z) where `inverted`."""
    square = bind(z * z)
    r = bind(fma(z * square, polynomial(square, _ATAN), z))
    rest = subtract(_HALF_PI_HIGH, add(r, -_HALF_PI_LOW))
    return bind(select(inverted, rest, r))


@or_libm
def atan(bind: Bind, x: Expr) -> Expr:
    magnitude = bind(absolute(bind, x))
    inverted = compare(">", magnitude, 1.0)
    z = bind(select(inverted, tvm.tirx.Div(constant(1.0, x), magnitude), magnitude))
    return copysign(bind, _atan_of_ratio(bind, z, inverted), x)


@or_libm
def atan2(bind: Bind, y: Expr, x: Expr) -> Expr:
    """The angle of (x, y); C99's cases for zeros and infinities (F.10.1.4)."""
    across, up = bind(absolute(bind, x)), bind(absolute(bind, y))
    inverted = compare(">", up, across)
    small, large = bind(select(inverted, across, up)), bind(select(inverted, up, across))
    ratio = tvm.tirx.Div(small, large)
    ratio = select(compare("==", large, 0.0), constant(0.0, x), ratio)
    ratio = bind(select(compare("==", small, INFINITY), constant(1.0, x), ratio))
    angle = _atan_of_ratio(bind, ratio, inverted)
    behind = subtract(2 * _HALF_PI_HIGH, add(angle, -2 * _HALF_PI_LOW))
    angle = copysign(bind, select(compare("<", as_bits(x), 0), behind, angle), y)
    return select(tvm.tirx.Or(isnan(bind, x), isnan(bind, y)), x + y, angle)


@or_libm
def asin(bind: Bind, x: Expr) -> Expr:
    """x + x^3 P(x^2) up to 1/2; pi/2 - 2 asin(sqrt((1 - |x|) / 2)) above."""
    magnitude = bind(absolute(bind, x))
    square = bind(_half_of_rest(bind, x, magnitude))
    root = bind(select(compare(">", magnitude, 0.5), sqrt(bind, square), magnitude))
    rest = bind(root * square * polynomial(square, _ASIN))
    large = subtract(multiply_add(root, -2.0, _HALF_PI_HIGH), multiply_add(rest, 2.0, -_HALF_PI_LOW))
    return copysign(bind, select(compare(">", magnitude, 0.5), large, root + rest), x)


@or_libm
def acos(bind: Bind, x: Expr) -> Expr:
    """pi/2 - asin(x) up to 1/2; 2 asin(sqrt((1 - |x|) / 2)) above, from pi for negative x."""
    magnitude = bind(absolute(bind, x))
    square = bind(_half_of_rest(bind, x, magnitude))
    root = bind(select(compare(">", magnitude, 0.5), sqrt(bind, square), x))
    r = bind(fma(root * square, polynomial(square, _ASIN), root))
    middle = subtract(_HALF_PI_HIGH, add(r, -_HALF_PI_LOW))
    twice = bind(r + r)
    behind = subtract(2 * _HALF_PI_HIGH, add(twice, -2 * _HALF_PI_LOW))
    ends = select(compare("<", x, 0.0), behind, twice)
    return select(compare(">", magnitude, 0.5), ends, middle)


def _half_of_rest(bind: Bind, x: Expr, magnitude: Expr) -> Expr:
    """The square of asin's reduced argument: x^2 up to 1/2, (1 - |x|) / 2 above."""
    return select(compare(">", magnitude, 0.5), fma(magnitude, -0.5, 0.5), x * x)
