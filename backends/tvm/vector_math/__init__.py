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

from effcc.backends.tvm.vector_math.double import acosh, asinh, atanh, pow
from effcc.backends.tvm.vector_math.error_function import erf, erfc, normal_cdf
from effcc.backends.tvm.vector_math.exponentials import cosh, exp, exp_nonpositive, expm1, sigmoid, sinh, tanh
from effcc.backends.tvm.vector_math.logarithms import log, log1p
from effcc.backends.tvm.vector_math.trigonometry import acos, asin, atan, atan2, cos, sin, tan
from effcc.backends.tvm.vector_math.vocabulary import (
    absolute,
    any_lane,
    ceil,
    copysign,
    floor,
    isnan,
    lanes_of,
    per_lane,
    reciprocal,
    reduce_lanes,
    rint,
    rsqrt,
    scalar_type,
    sqrt,
    trunc,
)

LARGEST_ERROR = {
    "exp": 1.0, "expm1": 1.5, "log": 0.9, "log1p": 1.5, "sigmoid": 2.3, "tanh": 1.5, "erf": 1.1, "erfc": 0.6,
    "sin": 1.6, "cos": 1.6, "tan": 2.7, "asin": 2.1, "acos": 1.2, "atan": 1.4, "sinh": 1.6, "cosh": 1.5,
    "asinh": 0.6, "acosh": 0.6, "atanh": 0.6, "sqrt": 0.5, "rsqrt": 1.5, "reciprocal": 0.5, "pow": 0.6, "atan2": 2.0,
}  # fmt: skip
"""float32, in units in the last place, seen over every 251st float; pow and atan2 over fewer."""

__all__ = [
    "LARGEST_ERROR", "absolute", "acos", "acosh", "any_lane", "asin", "asinh", "atan", "atan2", "atanh", "ceil",
    "copysign", "cos", "cosh", "erf", "erfc", "exp", "exp_nonpositive", "expm1", "floor", "isnan", "lanes_of",
    "log", "log1p", "normal_cdf", "per_lane", "pow", "reciprocal", "reduce_lanes", "rint", "rsqrt", "scalar_type",
    "sigmoid", "sin", "sinh", "sqrt", "tan", "tanh", "trunc",
]  # fmt: skip
