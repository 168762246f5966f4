"""The error function."""

from __future__ import annotations

from math import sqrt

from effcc.backends.tvm.vector_math.double import (
    exp2_wide,
    narrowed,
    widened,
)
from effcc.backends.tvm.vector_math.exponentials import (
    LOG2_E,
    clamp,
    exp_reduced,
    power_of_two,
    reduce_by_ln2,
)
from effcc.backends.tvm.vector_math.vocabulary import (
    Bind,
    Expr,
    absolute,
    compare,
    constant,
    copysign,
    fma,
    lanes_of,
    negate,
    or_libm,
    polynomial,
    scalar_type,
    select,
    vector_type,
)
from effcc.ir.lazy import T, tvm

_ERF_SMALL = (0.12837915122509003, -0.37612491846084595, 0.1128176674246788, -0.026764314621686935,
              0.0049893599934875965, -0.0005969867343083024)  # fmt: skip
_ERF_LARGE = (0.128514364361763, 0.6357182860374451, 0.1052619144320488, -0.022890038788318634,
              0.0032149909529834986, -0.000213991166674532)  # fmt: skip
_ERFC = (1.2329951187350128, -0.13962111905157074, 0.015379630531296916, 0.06809718341746968, -0.10103829506580046,
         0.0937311306991253, -0.0663408412482255, 0.037170775540304096, -0.01613845707127751, 0.005079212526101229,
         -0.0008625679572633827, -0.0003860482022324553, 7.654713242545939e-05)  # fmt: skip


_CDF = ((0.3989422347523431, 0.033852557613688404, 0.004677226999090035, 0.00016882089357820955, 6.351733994424706e-06,
         2.2747292460489014e-08),
        (1.0, 0.2515216981558621, 0.028645747869610858, 0.00188441944073416, 7.364411597574272e-05,
         1.1974147127696685e-06))  # fmt: skip
_CERTAIN = 5.5


def normal_cdf(bind: Bind, x: Expr) -> Expr:
    """The standard normal distribution's 1/2 + x P(x^2) / Q(x^2), off by at most 3 2^-24; 0 and 1 from 5.5 on, where it
    is 2e-8 from them. A third of erf's arithmetic: near 0 an erf must be right in relation to its size, this need not.

    P / Q is a minimax fit of the absolute error, 7e-9, by reweighted least squares.
    """
    x = bind(x)
    half, one = constant(0.5, x), constant(1.0, x)
    if scalar_type(x) == "float64":
        return half * (one + erf(bind, x * constant(sqrt(0.5), x)))
    square = bind(x * x)
    above, below = (polynomial(square, coefficients) for coefficients in _CDF)
    inner = tvm.tirx.Div(x * above, below)
    certain = compare(">=", absolute(bind, x), _CERTAIN)
    return half + select(certain, copysign(bind, half, x), inner)


@or_libm
def erf(bind: Bind, x: Expr) -> Expr:
    """x + x P(x^2) below 0.9277, 1 - exp(-t - t Q(t)) above, t = |x| cut to 4, where erf is 1."""
    magnitude = bind(absolute(bind, x))
    t = bind(select(compare(">", magnitude, 4.0), constant(4.0, x), magnitude))
    tail = bind(negate(fma(t, polynomial(t, _ERF_LARGE), t)))
    n, r = reduce_by_ln2(bind, tail)
    large = copysign(bind, constant(1.0, x) - exp_reduced(r) * power_of_two(n), x)
    square = bind(x * x)
    small = fma(x, polynomial(square, _ERF_SMALL), x)
    return select(compare(">", magnitude, 0.927734375), large, small)


@or_libm
def erfc(bind: Bind, x: Expr) -> Expr:
    """exp(-t^2) P((t - 4) / (t + 4)) / (1 + 2t) in float64, t = |x|; 2 minus that for negative x."""
    wide = bind(widened(clamp(bind, absolute(bind, x), 0.0, 10.1)))
    four, one = constant(4.0, wide), constant(1.0, wide)
    q = bind(tvm.tirx.Div(wide - four, wide + four))
    power = exp2_wide(bind, bind(wide * wide * constant(-LOG2_E, wide)))
    tail = bind(tvm.tirx.Div(polynomial(q, _ERFC) * power, one + wide + wide))
    negative = compare("<", T.Cast(vector_type("float64", lanes_of(x)), x), 0.0)
    return narrowed(select(negative, constant(2.0, wide) - tail, tail))
