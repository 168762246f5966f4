"""Functions of one number as Chebyshev interpolants on intervals, in a variable in which they are smooth.

The coefficients are computed when an interpolant is first asked for, from torch's own function in f64 or from a power
series summed in sixty digits (`decimals`): there are no tables here.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from decimal import Context, Decimal, localcontext
from functools import cache
from typing import Any

from effcc.frontends.torch.aten.numbers import Number


@cache
def coefficients(f: Callable[[Any], Any], low: float, high: float, degree: int) -> tuple[float, ...]:
    """Those of the Chebyshev interpolant of f on [low, high], through the zeros of the next polynomial.

    f takes and gives an f64 tensor."""
    import numpy as np
    import torch

    whole = 2 * (degree + 1)
    odd = 2 * np.arange(degree + 1) + 1
    t = torch.from_numpy(low + (high - low) * (np.cos(odd * (np.pi / whole)) + 1) / 2)
    values = f(t).numpy()
    cosines = [np.cos(k * odd % (2 * whole) * (np.pi / whole)) for k in range(degree + 1)]  # of angles below 2π
    c = [4 / whole * math.fsum(values * row) for row in cosines]
    return (c[0] / 2, *c[1:])


def interpolated(f: Callable[[Any], Any], t: Number, low: float, high: float, degree: int) -> Number:
    """Clenshaw's recurrence (1955); anything outside of [low, high]."""
    first, *rest = coefficients(f, low, high, degree)
    u = (t * 2 - (low + high)) * (1 / (high - low))
    twice = u * 2
    before: Any = 0.0
    last: Any = rest[-1]
    for c in reversed(rest[:-1]):
        before, last = last, twice * last - before + c
    return u * last - before + first


def torch_special(name: str) -> Callable[[Any], Any]:
    import torch

    return getattr(torch.special, name)


def decimals(f: Callable[[Decimal], Decimal]) -> Callable[[Any], Any]:
    """A function on an f64 tensor from one that computes with sixty digits."""

    def on_tensor(t: Any) -> Any:
        import torch

        with localcontext(Context(prec=60)):
            return torch.tensor([float(f(Decimal(x))) for x in t.tolist()], dtype=torch.float64)

    return on_tensor


def power_series(first: Decimal, ratio: Callable[[int], Decimal],
                 weight: Callable[[int], Decimal] = lambda k: Decimal(1)) -> Decimal:  # fmt: skip
    """Σ weight(k) c(k), with c(0) = first and c(k) = c(k-1) ratio(k), until terms are small and fall."""
    total, term, k = weight(0) * first, first, 0
    while True:
        k += 1
        term *= ratio(k)
        total += weight(k) * term
        if abs(ratio(k + 1)) < Decimal("0.5") and abs(weight(k) * term) < Decimal("1e-40"):
            return total
