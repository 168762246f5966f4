"""Special functions in f64 against SciPy: more digits than the tests of handlers ask for, and the edges."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from effcc.frontends.torch import backend
from effcc.frontends.torch.aten.interpolation import coefficients

scipy = pytest.importorskip("scipy.special")
EDGES = [-math.inf, -3.0, -2.5, -1.0, -0.0, 0.0, 0.5, 1.0, 2.0, 3.0, 8.0, 100.0, math.inf, math.nan]
EVERYWHERE = np.concatenate([np.linspace(-20, 40, 241), EDGES])
POSITIVE = np.concatenate([np.linspace(0, 60, 241), [0.0, 1e-300, 2.0, 8.0, 16.0, 25.0, math.nan]])
UNIT = np.concatenate([np.linspace(-1, 1, 101), [1e-20, -1e-20, 1 - 2**-53, 1.5, math.nan]])

FUNCTIONS = {
    "gammaln": (torch.lgamma, scipy.gammaln, EVERYWHERE[np.isfinite(EVERYWHERE)]),
    "psi": (torch.digamma, scipy.psi, np.linspace(0.01, 40, 200)),
    "trigamma": (lambda x: torch.polygamma(1, x), lambda x: scipy.polygamma(1, x), np.linspace(0.01, 40, 200)),
    "erfcx": (torch.special.erfcx, scipy.erfcx, np.linspace(-5, 100, 211)),
    "log_ndtr": (torch.special.log_ndtr, scipy.log_ndtr, EVERYWHERE),
    "erfinv": (torch.erfinv, scipy.erfinv, UNIT),
    "ndtri": (torch.special.ndtri, scipy.ndtri, np.concatenate([np.abs(UNIT), 10.0 ** -np.arange(1, 300, 13)])),
    "i0": (torch.i0, scipy.i0, EVERYWHERE[np.isfinite(EVERYWHERE)]),
    "i1e": (torch.special.i1e, scipy.i1e, EVERYWHERE[np.isfinite(EVERYWHERE)]),
    "k0": (torch.special.modified_bessel_k0, scipy.k0, POSITIVE),
    "k1e": (torch.special.scaled_modified_bessel_k1, scipy.k1e, POSITIVE),
    "j0": (torch.special.bessel_j0, scipy.j0, EVERYWHERE[np.isfinite(EVERYWHERE)]),
    "j1": (torch.special.bessel_j1, scipy.j1, EVERYWHERE[np.isfinite(EVERYWHERE)]),
    "y0": (torch.special.bessel_y0, scipy.y0, POSITIVE),
    "y1": (torch.special.bessel_y1, scipy.y1, POSITIVE[POSITIVE != 1e-300]),
    "airy": (torch.special.airy_ai, lambda x: scipy.airy(x)[0], np.linspace(-30, 30, 241)),
    "spherical": (torch.special.spherical_bessel_j0, lambda x: scipy.spherical_jn(0, x), POSITIVE),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_twelve_digits(name: str) -> None:
    """12 digits of the larger of |f| and 1/100 (near zeros the error is absolute); infinities and NaN in place."""
    function, reference, at = FUNCTIONS[name]
    torch._dynamo.reset()
    ours = torch.compile(function, backend=backend, fullgraph=True, options={"target": "interpreter"})
    got, want = ours(torch.from_numpy(at)).numpy(), reference(at)
    np.testing.assert_array_equal(np.isnan(got), np.isnan(want))
    infinite = np.isinf(want)
    np.testing.assert_array_equal(got[infinite], want[infinite])
    finite = np.isfinite(want)
    off = np.abs(got - want)[finite] / np.maximum(np.abs(want[finite]), 1e-2)
    assert off.max() < 2e-13, (at[finite][off.argmax()], off.max())


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.int64])
def test_other_dtypes_are_computed_in_f64(dtype: torch.dtype) -> None:
    x = torch.arange(1, 9).to(dtype)
    torch._dynamo.reset()
    ours = torch.compile(torch.lgamma, backend=backend, fullgraph=True, options={"target": "interpreter"})
    assert torch.equal(ours(x), torch.lgamma(x.double()).to(torch.lgamma(x).dtype))


def test_coefficients_of_interpolants_are_exact_to_the_last_digits() -> None:
    """Of exp on [-1, 1] they are those of its Chebyshev series, I₀(1) and 2 Iₖ(1) (DLMF 10.35.1), but for the tail."""
    found = np.array(coefficients(torch.exp, -1.0, 1.0, 20))
    exact = np.array([(2 if k else 1) * scipy.iv(k, 1.0) for k in range(21)])
    assert np.abs(found - exact).max() < 4 * np.finfo(np.float64).eps
