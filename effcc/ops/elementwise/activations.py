"""Activations of neural networks."""

from __future__ import annotations

import math
from typing import Any

from effcc.ir import scalar as s
from effcc.ir.lazy import F, torch
from effcc.ir.op import require
from effcc.ir.scalar import Scalar
from effcc.ir.types import Tensor, f16
from effcc.ops.elementwise.family import FLOAT, Binary, Unary, wide


class Sigmoid(Unary):
    """1 / (1 + e⁻ˣ)"""

    name = "sigmoid"
    kinds = FLOAT

    def scalar(self, x: Scalar) -> Scalar:
        return 1.0 / (1.0 + s.exp(-x))


class Relu(Unary):
    """max(x, 0); NaN stays NaN"""

    name = "relu"

    def scalar(self, x: Scalar) -> Scalar:
        return s.maximum(x, 0)


class Gelu(Unary):
    """x Φ(x), exact ("none") or by tanh (Hendrycks & Gimpel 2016)"""

    name = "gelu"
    kinds = FLOAT
    approximate: str = "none"

    def infer(self, *types: Any, **_: Any) -> Tensor:
        require(self.approximate in ("none", "tanh"), f"approximate is none or tanh, not {self.approximate}")
        return super().infer(*types)

    def scalar(self, x: Scalar) -> Scalar:
        if self.approximate == "tanh":
            return 0.5 * x * (1.0 + s.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x)))
        return x * s.normal_cdf(x)

    def reference(self, x: Any) -> Any:  # (torch's gelu takes -inf otherwise in vectors than in what is left over)
        y = x if x.dtype == torch.float64 else x.float()
        if self.approximate == "tanh":
            inner = torch.tanh(math.sqrt(2 / math.pi) * (y + 0.044715 * y * y * y))
        else:
            inner = torch.erf(y * math.sqrt(0.5))
        return (0.5 * y * (1.0 + inner)).to(x.dtype)


class Silu(Unary):
    """x · sigmoid(x)"""

    name = "silu"
    kinds = FLOAT

    def scalar(self, x: Scalar) -> Scalar:
        return x / (1.0 + s.exp(-x))

    def reference(self, x: Any) -> Any:
        return F.silu(x)


class Softplus(Unary):
    """ln(1 + eˣ), without overflow"""

    name = "softplus"
    kinds = FLOAT

    def scalar(self, x: Scalar) -> Scalar:
        return s.maximum(x, 0.0) + s.log1p(s.exp(-s.absolute(x)))

    def reference(self, x: Any) -> Any:
        return torch.logaddexp(x, torch.zeros_like(x))


class HardSigmoid(Unary):
    """max(0, min(1, αx + β))"""

    name = "hard_sigmoid"
    kinds = FLOAT
    alpha: float = 0.2
    beta: float = 0.5

    def scalar(self, x: Scalar) -> Scalar:
        return s.maximum(s.minimum(self.alpha * x + self.beta, 1.0), 0.0)

    def reference(self, x: Any) -> Any:
        return (self.alpha * x + self.beta).clamp(0, 1)


class HardSwish(Unary):
    """x · max(0, min(1, x/6 + 1/2)) (Howard et al. 2019)"""

    name = "hard_swish"
    kinds = FLOAT

    def scalar(self, x: Scalar) -> Scalar:
        return x * s.maximum(s.minimum(x * (1 / 6) + 0.5, 1.0), 0.0)

    def reference(self, x: Any) -> Any:
        return F.hardswish(x)


class LeakyRelu(Unary):
    """x where x > 0, else αx"""

    name = "leaky_relu"
    kinds = FLOAT
    alpha: float = 0.01

    def scalar(self, x: Scalar) -> Scalar:
        return s.select(x > 0.0, x, x * self.alpha)

    def reference(self, x: Any) -> Any:
        return F.leaky_relu(x, self.alpha)


class Elu(Unary):
    """x where x > 0, else α(eˣ - 1)"""

    name = "elu"
    kinds = FLOAT
    alpha: float = 1.0

    def scalar(self, x: Scalar) -> Scalar:
        return s.select(x > 0.0, x, self.alpha * s.expm1(x))

    def reference(self, x: Any) -> Any:
        return F.elu(x, self.alpha)


class Selu(Unary):
    """γx where x > 0, else γα(eˣ - 1) (Klambauer et al. 2017)"""

    name = "selu"
    kinds = FLOAT
    alpha: float = 1.67326319217681884765625
    gamma: float = 1.05070102214813232421875

    def scalar(self, x: Scalar) -> Scalar:
        return s.select(x > 0.0, self.gamma * x, self.gamma * self.alpha * s.expm1(x))

    def reference(self, x: Any) -> Any:
        return torch.where(x > 0, self.gamma * x, self.gamma * self.alpha * torch.expm1(x))


class Celu(Unary):
    """max(0, x) + min(0, α(e^(x/α) - 1))"""

    name = "celu"
    kinds = FLOAT
    alpha: float = 1.0

    def infer(self, *types: Any, **_: Any) -> Tensor:
        require(self.alpha != 0, "alpha is 0, by which x is divided")
        return super().infer(*types)

    def scalar(self, x: Scalar) -> Scalar:
        return s.select(x > 0.0, x, self.alpha * s.expm1(x / self.alpha))

    def reference(self, x: Any) -> Any:
        return F.celu(x, self.alpha)


class ThresholdedRelu(Unary):
    """x where x > α, else 0"""

    name = "thresholded_relu"
    kinds = FLOAT
    alpha: float = 1.0

    def scalar(self, x: Scalar) -> Scalar:
        return s.select(x > self.alpha, x, 0.0)

    def reference(self, x: Any) -> Any:
        return torch.where(wide(x) > self.alpha, x, torch.zeros_like(x))  # (torch would round alpha to x's dtype)


class Softsign(Unary):
    """x / (1 + |x|)"""

    name = "softsign"
    kinds = FLOAT

    def scalar(self, x: Scalar) -> Scalar:
        return x / (1.0 + s.absolute(x))

    def reference(self, x: Any) -> Any:
        return F.softsign(x)


class Mish(Unary):
    """x · tanh(softplus(x)) = x · n / (n + 2) with n = eˣ(eˣ + 2) (Misra 2019)"""

    name = "mish"
    kinds = FLOAT

    def scalar(self, x: Scalar) -> Scalar:
        top = 5.5 if x.dtype == f16 else 20.0  # (where e²ˣ is still finite, and n / (n + 2) rounds to 1)
        e = s.exp(s.minimum(x, top))
        n = e * (e + 2.0)
        return s.select(x > top, x, x * (n / (n + 2.0)))

    def reference(self, x: Any) -> Any:
        return F.mish(x)


class Prelu(Binary):
    """x where x ≥ 0, else slope · x (slope broadcasts against x by NumPy's rule: frontends reshape a channel vector)"""

    name = "prelu"
    operands = ("x", "slope")

    def scalar(self, x: Scalar, slope: Scalar) -> Scalar:
        return s.select(x < 0, x * slope, x)

    def reference(self, x: Any, slope: Any) -> Any:
        return torch.where(x < 0, x * slope, x)
