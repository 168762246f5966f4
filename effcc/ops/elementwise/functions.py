"""Functions of one number, rounding, and parts of it."""

from __future__ import annotations

from typing import Any

from effcc.ir import scalar as s
from effcc.ir.lazy import torch
from effcc.ir.scalar import Scalar
from effcc.ops.elementwise.family import FLOAT, Unary, UnaryFunction


class Neg(Unary):
    """-x; integers wrap."""

    name = "neg"

    def scalar(self, x: Scalar) -> Scalar:
        return -x


class Abs(Unary):
    """|x|; the least integer stays itself."""

    name = "abs"

    def scalar(self, x: Scalar) -> Scalar:
        return x if x.dtype.kind == "u" else s.absolute(x)

    def reference(self, x: Any) -> Any:
        return x if x.dtype == torch.uint8 else x.abs()


class Sign(Unary):
    """-1, 0 or 1; NaN stays NaN."""

    name = "sign"

    def scalar(self, x: Scalar) -> Scalar:
        positive = s.select(x > 0, s.const(x.dtype, 1), x * 0 if x.dtype.is_float else s.const(x.dtype, 0))
        if x.dtype.kind == "u":
            return positive
        if x.dtype.is_float:
            return s.select(x > 0, 1, s.select(x < 0, -1, s.select(s.isnan(x), x, s.const(x.dtype, 0))))
        return s.select(x > 0, 1, s.select(x < 0, s.const(x.dtype, -1), 0))

    def reference(self, x: Any) -> Any:
        return torch.where(x.isnan(), x, x.sign()) if x.is_floating_point() else x.sign()


class Reciprocal(Unary):
    """1 / x"""

    name = "reciprocal"
    kinds = FLOAT

    def scalar(self, x: Scalar) -> Scalar:
        return 1.0 / x


class Exp(UnaryFunction):
    """eˣ"""

    name = "exp"


class Expm1(UnaryFunction):
    """eˣ - 1, accurate near 0"""

    name = "expm1"


class Log(UnaryFunction):
    """ln x"""

    name = "log"


class Log1p(UnaryFunction):
    """ln(1 + x), accurate near 0"""

    name = "log1p"


class Sqrt(UnaryFunction):
    """√x, correctly rounded"""

    name = "sqrt"

    def reference(self, x: Any) -> Any:
        """NumPy's root: torch's vectors round a sixth of all roots wrong on some machines (docs/upstream)."""
        import numpy as np

        if x.requires_grad:
            return x.sqrt()
        wide = x if x.dtype in (torch.float32, torch.float64) else x.float()
        with np.errstate(invalid="ignore"):
            return torch.from_numpy(np.asarray(np.sqrt(wide.numpy()))).to(x.dtype)


class Rsqrt(UnaryFunction):
    """1 / √x"""

    name = "rsqrt"


class Sin(UnaryFunction):
    """sin x"""

    name = "sin"


class Cos(UnaryFunction):
    """cos x"""

    name = "cos"


class Tan(UnaryFunction):
    """tan x"""

    name = "tan"


class Asin(UnaryFunction):
    """arcsin x"""

    name = "asin"


class Acos(UnaryFunction):
    """arccos x"""

    name = "acos"


class Atan(UnaryFunction):
    """arctan x"""

    name = "atan"


class Sinh(UnaryFunction):
    """sinh x"""

    name = "sinh"


class Cosh(UnaryFunction):
    """cosh x"""

    name = "cosh"


class Asinh(UnaryFunction):
    """arsinh x"""

    name = "asinh"


class Acosh(UnaryFunction):
    """arcosh x"""

    name = "acosh"


class Atanh(UnaryFunction):
    """artanh x"""

    name = "atanh"


class Tanh(UnaryFunction):
    """tanh x"""

    name = "tanh"


class Erf(UnaryFunction):
    """The error function, 2/√π ∫₀ˣ e^(-t²) dt"""

    name = "erf"


class Erfc(Unary):
    """1 - erf x"""

    name = "erfc"
    kinds = FLOAT

    def scalar(self, x: Scalar) -> Scalar:
        return s.apply("erfc", x)


class Rounding(Unary):
    """Rounding of floats; the identity on integers."""

    def scalar(self, x: Scalar) -> Scalar:
        return s.apply(self.name, x) if x.dtype.is_float else x

    def reference(self, x: Any) -> Any:
        return getattr(torch, self.name)(x) if x.is_floating_point() else x.clone()


class Floor(Rounding):
    """⌊x⌋"""

    name = "floor"


class Ceil(Rounding):
    """⌈x⌉"""

    name = "ceil"


class Round(Rounding):
    """To the nearest integer, halves to even"""

    name = "round"


class Trunc(Rounding):
    """Toward zero"""

    name = "trunc"
