"""Orthogonal polynomials whose degrees are data: three-term recurrences, as many steps as the largest degree needs."""

from __future__ import annotations

import math
from typing import Any

from effcc.frontends.torch.aten.numbers import Number, choose, iterate
from effcc.frontends.torch.emitter import Emitter, lowers
from effcc.ir import Value, f64, i64


def _second(target: str, x: Number) -> Number:
    """The polynomial of degree 1."""
    kind = target.split("polynomial_")[1].split(".")[0]
    return {"t": x, "u": x * 2, "v": x * 2 - 1, "w": x * 2 + 1, "h": x * 2, "he": x, "l": 1 - x, "p": x}[kind]


def _next(target: str, k: Number, x: Number, q: Number, p: Number) -> Number:
    """The polynomial of degree k+1 from those of degrees k and k-1 (DLMF 18.9)."""
    kind = target.split("polynomial_")[1].split(".")[0]
    match kind:
        case "h":
            return (x * q - k * p) * 2
        case "he":
            return x * q - k * p
        case "l":
            return ((k * 2 + 1 - x) * q - k * p) / (k + 1)
        case "p":
            return ((k * 2 + 1) * x * q - k * p) / (k + 1)
    return x * q * 2 - p


MOST_HERMITE = {"float32": 128, "float64": 512}
"""The degrees beyond which torch gives NaN."""


@lowers(*(f"special_{shifted}chebyshev_polynomial_{kind}" for shifted in ("", "shifted_") for kind in "tuvw"),
        "special_hermite_polynomial_h", "special_hermite_polynomial_he", "special_laguerre_polynomial_l",
        "special_legendre_polynomial_p")  # fmt: skip
def polynomial(e: Emitter, x: Any, n: Any) -> Value:
    """The polynomial of degree n at x, element by element: 0 where n < 0. As many steps as the largest n asks for."""
    number = Number(e, e.tensor(x, f64))
    degree = Number(e, e.b.trunc(e.tensor(n, f64)))
    if "shifted" in e.target:
        number = number * 2 - 1
    target = e.target
    one = Number(e, e.full(e.shape, 1.0, f64))
    first = _second(target, number) * one
    most = e.b.amax(e.broadcast(degree.value, e.shape), axes=tuple(range(len(e.shape))), keepdims=False)
    most = e.b.max(e.b.cast(most, to=i64), e.index(1))

    def step(i: Number, p: Number, q: Number, found: Number, x: Number, n: Number) -> list[Number]:
        k = i + 1
        r = _next(target, k, x, q, p)
        return [q, r, choose(n.eq(k + 1), r, found)]

    start = choose(degree.eq(0.0), one, choose(degree.eq(1.0), first, 0.0 * one))
    found = iterate(e, e.b.sub(most, e.index(1)), [one, first, start], [number, degree], step)[2]
    if "hermite" in target:
        found = choose(degree > MOST_HERMITE.get(str(e.dtype.torch).split(".")[1], 1024), math.nan, found)
    return e.cast(found.value, e.dtype)
