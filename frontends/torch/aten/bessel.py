"""Bessel and Airy functions, in f64 (DLMF 9 and 10)."""

from __future__ import annotations

import math
from collections.abc import Callable
from decimal import Decimal
from functools import cache
from typing import Any

from effcc.frontends.torch.aten.interpolation import decimals, interpolated, power_series, torch_special
from effcc.frontends.torch.aten.numbers import Number, choose, series, special

PI = Decimal("3.14159265358979323846264338327950288419716939937510582097494459")
EULER = Decimal("0.577215664901532860606512090082402431042159335939923598805767")
AI_0 = Decimal("0.355028053887817239260063186004183176397979174199178")
AI_SLOPE_0 = Decimal("-0.258819403792806798405183560189203963479091138354935")
"""π, Euler's constant, Ai(0) and Ai'(0)."""


def _scaled_i(name: str, a: Number) -> Number:
    """exp(-a) I(a), a ≥ 0 (DLMF 10.40.1 gives the form beyond 8)."""
    high = interpolated(_i_beyond(name), 1 / a, 0.0, 1 / 8, 28) / a.sqrt()
    return choose(a <= 8, interpolated(torch_special(name), a, 0.0, 8.0, 36), high)


@cache
def _i_beyond(name: str) -> Callable[[Any], Any]:
    return lambda t: torch_special(name)(1 / t) / t.sqrt()


@special("special_i0e")
def i0e(x: Number) -> Number:
    return _scaled_i("i0e", x.abs())


@special("i0", "special_i0", "special_modified_bessel_i0")
def i0(x: Number) -> Number:
    return _scaled_i("i0e", x.abs()) * x.abs().exp()


@special("special_i1e")
def i1e(x: Number) -> Number:
    size = _scaled_i("i1e", x.abs())
    return choose(x < 0, -size, size)


@special("special_i1", "special_modified_bessel_i1")
def i1(x: Number) -> Number:
    return i1e(x) * x.abs().exp()


def _scaled_k(order: int, x: Number) -> Number:
    """exp(x) K(x): up to 2 by the series with a logarithm (DLMF 10.31), beyond in 1/x (10.40.2); NaN below 0."""
    i = _scaled_i(f"i{order}e", x.abs()) * x.abs().exp()
    regular = interpolated(_k_regular(order), x * x, 0.0, 4.0, 16)
    low = regular - (x * 0.5).log() * i if order == 0 else regular / x + (x * 0.5).log() * i
    high = interpolated(_k_beyond(order), 1 / x, 0.0, 0.5, 40) / x.sqrt()
    y = choose(x <= 2, low * x.exp(), high)
    return choose(x.eq(0.0), math.inf, choose(x < 0, math.nan, y))


@cache
def _k_regular(order: int) -> Callable[[Any], Any]:
    def regular(t: Any) -> Any:
        x = t.sqrt()
        k, i = (torch_special(f"modified_bessel_{kind}{order}")(x) for kind in "ki")
        return k + (x / 2).log() * i if order == 0 else (k - (x / 2).log() * i) * x

    return regular


@cache
def _k_beyond(order: int) -> Callable[[Any], Any]:
    return lambda t: torch_special(f"scaled_modified_bessel_k{order}")(1 / t) / t.sqrt()


for _order in (0, 1):
    special(f"special_scaled_modified_bessel_k{_order}")(lambda x, n=_order: _scaled_k(n, x))
    special(f"special_modified_bessel_k{_order}")(lambda x, n=_order: _scaled_k(n, x) * (-x).exp())


# -- J and Y: interpolants of power series up to 25, Hankel's expansion beyond -------------------
def _j_over_power(order: int, t: Decimal) -> Decimal:
    """J(x) / xⁿ at t = x² (DLMF 10.2.2)."""
    return power_series(Decimal(1) / 2**order, lambda k: -t / 4 / (k * (k + order)))


def _y_rest(order: int, t: Decimal) -> Decimal:
    """xⁿ (Y(x) - 2/π ln x J(x)) at t = x² (DLMF 10.8.1, 10.8.2)."""
    shift = EULER - Decimal(2).ln()

    def harmonic(k: int) -> Decimal:
        return sum((Decimal(1) / j for j in range(1, k + 1)), Decimal(0))

    if order == 0:
        tail = power_series(Decimal(1), lambda k: -t / 4 / (k * k), harmonic)
        return 2 / PI * (shift * _j_over_power(0, t) - tail)
    tail = power_series(Decimal(1), lambda k: -t / 4 / (k * (k + 1)), lambda k: harmonic(k) + harmonic(k + 1))
    return 2 / PI * (shift * t * _j_over_power(1, t) - 1 - t / 4 * tail)


@cache
def _fitted(kind: str, order: int, squared: bool) -> Callable[[Any], Any]:
    """What is interpolated: near 0 the smooth part in x², else the function itself in x."""
    if squared:
        return decimals(lambda t: (_j_over_power if kind == "j" else _y_rest)(order, t))

    def whole(x: Decimal) -> Decimal:
        j = x**order * _j_over_power(order, x * x)
        return j if kind == "j" else _y_rest(order, x * x) / x**order + 2 / PI * x.ln() * j

    return decimals(whole)


def _beyond_8(kind: str, order: int, a: Number) -> Number:
    middle = interpolated(_fitted(kind, order, False), a, 8.0, 16.0, 32)
    outer = interpolated(_fitted(kind, order, False), a, 16.0, 25.0, 32)
    return choose(a < 16, middle, choose(a < 25, outer, _hankel(order, a)[kind == "y"]))


def _hankel(order: int, a: Number) -> tuple[Number, Number]:
    """(J, Y): √(2/πa) times P, Q by the cosine and sine of the phase (DLMF 10.17.3)."""
    terms = [1.0]
    for k in range(1, 24):
        terms.append(terms[-1] * (4 * order**2 - (2 * k - 1) ** 2) / (8 * k))
    inverse = 1 / a
    square = inverse * inverse
    p = series([(-1.0) ** k * terms[2 * k] for k in range(12)], square)
    q = series([(-1.0) ** k * terms[2 * k + 1] for k in range(12)], square) * inverse
    c, s = a.cos() * math.sqrt(0.5), a.sin() * math.sqrt(0.5)
    cos, sin = (c + s, s - c) if order == 0 else (s - c, -(c + s))
    scale = (2 / math.pi / a).sqrt()
    return (p * cos - q * sin) * scale, (p * sin + q * cos) * scale


def _bessel_j(order: int, x: Number) -> Number:
    a = x.abs()
    low = interpolated(_fitted("j", order, True), a * a, 0.0, 64.0, 28)
    y = choose(a <= 8, low * a if order else low, _beyond_8("j", order, a))
    return choose(x < 0, -y, y) if order else y


def _bessel_y(order: int, x: Number) -> Number:
    rest = interpolated(_fitted("y", order, True), x * x, 0.0, 64.0, 28)
    low = (rest / x if order else rest) + x.log() * (2 / math.pi) * _bessel_j(order, x)
    y = choose(x <= 8, low, _beyond_8("y", order, x))
    return choose(x.eq(0.0), -math.inf, choose(x < 0, math.nan, y))


for _order in (0, 1):
    special(f"special_bessel_j{_order}")(lambda x, n=_order: _bessel_j(n, x))
    special(f"special_bessel_y{_order}")(lambda x, n=_order: _bessel_y(n, x))


@special("special_spherical_bessel_j0")
def spherical_bessel_j0(x: Number) -> Number:
    """sin x / x"""
    near = series([(-1.0) ** k / math.factorial(2 * k + 1) for k in range(8)], x * x)
    return choose(x.isinf(), 0.0, choose(x.abs() < 0.5, near, x.sin() / x))


@special("special_airy_ai")
def airy_ai(x: Number) -> Number:
    """Ai: interpolated on [-12, 6], beyond by DLMF 9.7.5 and 9.7.9."""
    middle: Any = interpolated(_airy, x, 0.0, 6.0, 48)
    for low in (-6.0, -12.0):
        middle = choose(x < low + 6, interpolated(_airy, x, low, low + 6, 48), middle)
    a = x.abs()
    phase = a * a.sqrt() * (2 / 3)
    decaying = interpolated(_airy_decaying, 1 / phase, 0.0, 0.11, 20) * (-phase).exp() / a.sqrt().sqrt()
    u = [math.exp(math.lgamma(3 * k + 0.5) - math.lgamma(k + 0.5) - math.lgamma(k + 1)) / 54**k for k in range(14)]
    inverse = 1 / phase
    square = inverse * inverse
    even = series([(-1.0) ** k * u[2 * k] for k in range(7)], square)
    odd = series([(-1.0) ** k * u[2 * k + 1] for k in range(7)], square) * inverse
    angle = phase + math.pi / 4
    waves = (angle.sin() * even - angle.cos() * odd) * (1 / math.sqrt(math.pi)) / a.sqrt().sqrt()
    y = choose(x > 6, decaying, choose(x < -12, waves, middle))
    return choose(x.isinf(), math.nan, choose(x > 103.892, 0.0, y))


@decimals
def _airy(x: Decimal) -> Decimal:
    """Two power series (DLMF 9.4.1)."""
    f = power_series(Decimal(1), lambda k: x**3 / (3 * k * (3 * k - 1)))
    g = power_series(x, lambda k: x**3 / (3 * k * (3 * k + 1)))
    return AI_0 * f + AI_SLOPE_0 * g


def _airy_decaying(t: Any) -> Any:
    x = (1.5 / t) ** (2 / 3)
    large = x > 40  # where Ai underflows: its series
    near = torch_special("airy_ai")(x.clamp(max=40.0)) * (x.clamp(max=40.0) ** 1.5 * 2 / 3).exp() * x**0.25
    expansion = (1 - 5 / 72 * t + 385 / 10368 * t**2 - 85085 / 2239488 * t**3) / (2 * math.sqrt(math.pi))
    return expansion.where(large, near)
