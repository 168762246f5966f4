"""Special functions of one number: built in f64 from the catalogue's functions, whatever dtype the result has.

The gamma function and its derivatives, the error function's relatives. Handbook: NIST Digital Library of Mathematical
Functions (DLMF), whose sections are cited.
"""

from __future__ import annotations

import math
from typing import Any

from effcc.frontends.torch.aten.interpolation import interpolated, torch_special
from effcc.frontends.torch.aten.numbers import Number, choose, iterate, series, special
from effcc.frontends.torch.emitter import Emitter, lowers
from effcc.ir import Value, f64, i64

BERNOULLI = (1 / 6, -1 / 30, 1 / 42, -1 / 30, 5 / 66, -691 / 2730, 7 / 6, -3617 / 510, 43867 / 798, -174611 / 330)
"""B₂, B₄, ..., B₂₀."""


# -- the gamma function and its derivatives --------------------------------------------------------
@special("lgamma", "special_gammaln")
def lgamma(x: Number) -> Number:
    """ln |Γ(x)|: reflected below 0 (DLMF 5.5.3), interpolated on [1, 8], Stirling's series from there (5.11.1)."""
    a = x.abs()
    near = choose(a < 1, a + 1, a)
    low = (near - 1) * (near - 2) * interpolated(_lgamma_over_zeros, near, 1.0, 3.0, 31) - choose(a < 1, a.log(), 0.0)
    middle = interpolated(_lgamma, a, 3.0, 8.0, 30)
    inverse = 1 / a
    stirling = series([b / (2 * k * (2 * k - 1)) for k, b in enumerate(BERNOULLI, 1)], inverse * inverse) * inverse
    high = (a - 0.5) * (a.log() - 1) - 0.5 + 0.5 * math.log(2 * math.pi) + stirling
    positive = choose(a < 3, low, choose(a < 8, middle, high))
    reflected = (math.pi / (a * _sin_pi(a)).abs()).log() - positive
    return choose(a.isinf(), a, choose(x < 0, reflected, positive))


def _lgamma(t: Any) -> Any:
    return t.lgamma()


def _lgamma_over_zeros(t: Any) -> Any:
    return t.lgamma() / ((t - 1) * (t - 2))


def _sin_pi(x: Number) -> Number:
    """|sin πx|, exact at whole numbers."""
    return ((x - x.round()) * math.pi).sin().abs()


@special("digamma", "special_psi")
def digamma(x: Number) -> Number:
    """Γ'/Γ: ten steps up by ψ(x) = ψ(x+1) - 1/x (DLMF 5.5.2), then 5.11.2; reflected below 0 (5.5.4)."""
    a = choose(x < 0, 1 - x, x)
    steps: Any = 1 / a
    for k in range(1, 10):
        steps = steps + 1 / (a + k)
    z = a + 10
    inverse = 1 / z
    tail = series([b / (2 * k) for k, b in enumerate(BERNOULLI, 1)], inverse * inverse) * inverse * inverse
    positive = z.log() - inverse * 0.5 - tail - steps
    r = x - x.round()
    reflected = positive - math.pi / (r * math.pi).tan()
    below = choose(x.eq(x.floor()), math.nan, reflected)
    return choose(x.eq(0.0), -1 / x, choose(x < 0, below, positive))


@lowers("polygamma", "special_polygamma")
def polygamma(e: Emitter, n: int, x: Value) -> Value:
    """ψ⁽ⁿ⁾(x) = (-1)ⁿ⁺¹ n! ζ(n+1, x) (DLMF 25.11.12); the first reflected below 1/2 (5.15.6)."""
    number = Number(e, e.cast(x, f64))
    if n == 0:
        return e.cast(digamma(number).value, e.dtype)
    if n == 1:
        up = hurwitz(Number(e, e.number(2.0, f64)), choose(number < 0.5, 1 - number, number))
        sine = _sin_pi(number)
        y = choose(number < 0.5, math.pi**2 / (sine * sine) - up, up)
    else:
        y = hurwitz(Number(e, e.number(n + 1.0, f64)), number) * ((-1.0) ** (n + 1) * math.factorial(n))
    return e.cast(y.value, e.dtype)


@lowers("special_zeta")
def zeta(e: Emitter, x: Any, q: Any) -> Value:
    return e.cast(hurwitz(*(Number(e, e.tensor(v, f64)) for v in (x, q))).value, e.dtype)


def hurwitz(x: Number, q: Number) -> Number:
    """ζ(x, q) = Σ (q+k)⁻ˣ, k from 0: the terms up to q+k > 9, then Euler and Maclaurin's sum of the rest (25.11.5)."""
    e = x.e
    count = choose(q < 0, 1 - q.floor(), 0.0) + 10
    largest = e.b.amax(count.value, axes=tuple(range(len(count.value.shape))), keepdims=False)
    shape = (x + q + count).value.shape
    start = Number(e, e.full(shape, 0.0, f64))
    trips = e.cast(e.b.min(largest, e.number(1e6, f64)), i64)

    def step(i: Number, total: Number, x: Number, q: Number, count: Number) -> list[Number]:
        return [total + choose(i < count, (q + i).pow(-x), 0.0)]

    (total,) = iterate(e, trips, [start], [x, q, count], step)
    w = q + count
    power = w.pow(-x)
    total = total + power * w / (x - 1) + power * 0.5
    factor, power = x, power / w
    for k, b in enumerate(BERNOULLI, 1):
        total = total + factor * power * (b / math.factorial(2 * k))
        factor = factor * (x + (2 * k - 1)) * (x + 2 * k)
        power = power / (w * w)
    outside = choose(q.eq(q.floor()), math.inf, choose(x.eq(x.floor()), total, math.nan))
    inside = choose(q <= 0, outside, total)
    return choose(x.eq(1.0), math.inf, choose(x < 1, math.nan, inside))


# -- error functions -------------------------------------------------------------------------------
def erfcx_of(x: Number) -> Number:
    """exp(x²) erfc(x): (1 + 2x) times it is smooth in (x - k)/(x + k) (Shepherd and Laframboise 1981)."""
    a = x.abs()
    t = 1 - 7.5 / (a + 3.75)
    positive = interpolated(_scaled_erfcx, t, -1.0, 1.0, 40) / (a * 2 + 1)
    return choose(x < 0, (x * x).exp() * 2 - positive, positive)


def _scaled_erfcx(t: Any) -> Any:
    x = 3.75 * (1 + t) / (1 - t)
    return (1 + 2 * x) * torch_special("erfcx")(x)


special("special_erfcx")(erfcx_of)


@special("special_log_ndtr")
def log_ndtr(x: Number) -> Number:
    """ln Φ(x)"""
    t = x * math.sqrt(0.5)
    return choose(x < -1, (erfcx_of(-t) * 0.5).log() - t * t, (t.erfc() * -0.5).log1p())


@special("erfinv", "special_erfinv")
def erfinv(y: Number) -> Number:
    """Winitzki's approximation (2008), then Halley's steps on erf, in the tails on erfc."""
    a = y.abs()
    rest = 1 - a
    x = _winitzki((rest * (1 + a)).log())
    for _ in range(3):
        slope = (x * x * -1).exp() * (2 / math.sqrt(math.pi))
        off = choose(a < 0.5, x.erf() - a, rest - x.erfc()) / slope
        x = x - off / (1 + x * off)
    x = choose(a.eq(1.0), math.inf, choose(a > 1, math.nan, x))
    return choose(y < 0, -x, choose(y.eq(0.0), y, x))


def _winitzki(log: Number) -> Number:
    """About erfinv(y) from ln(1 - y²)."""
    half = log * 0.5 + 2 / (math.pi * 0.147)
    return ((half * half - log * (1 / 0.147)).sqrt() - half).sqrt()


@special("special_ndtri")
def ndtri(p: Number) -> Number:
    """Φ⁻¹(p): near the middle by erfinv, in the tails by Newton's steps on ln erfc."""
    tail = choose(p < 0.5, p, 1 - p)
    goal = (tail * 2).log()
    x = _winitzki((tail * (1 - tail) * 4).log())
    for _ in range(4):
        scaled = erfcx_of(x)
        x = x + (scaled.log() - x * x - goal) * scaled * (math.sqrt(math.pi) / 2)
    outer = choose(p < 0.5, -x, x)
    y = choose((p - 0.5).abs() < 0.4, erfinv(p * 2 - 1), outer) * math.sqrt(2)
    edge = choose(p.eq(0.0), -math.inf, choose(p.eq(1.0), math.inf, math.nan))
    return choose((p > 0) & (p < 1), y, edge)
