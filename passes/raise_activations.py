"""Raising activations: what exporters emit for GELU, SiLU, softplus, mish, hard swish ... becomes one op again.

Each sum or product is matched in both orders; numbers match up to a few roundings in their dtype.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from effcc.rewrite import BOUNDED, Rule


class Bounded(Rule):
    """A rule that reassociates floats."""

    contract = BOUNDED


class GeluErf(Bounded):
    """0.5 * x * (1 + erf(x / sqrt 2)) --> gelu(x), however the three factors are grouped"""

    def pattern(self, p: Any, x: Any) -> Any:
        root, inverse = (p.number(math.sqrt(n), rounded=True) for n in (2, 0.5))
        inner = p.either(p.div(x, root), p.mul(x, inverse))
        return three_factors(p, x, p.add(p.erf(inner), p.number(1.0)))

    def rewrite(self, b: Any, m: Any) -> Any:
        return b.gelu(m.x, approximate="none")


class GeluTanh(Bounded):
    """0.5 * x * (1 + tanh(sqrt(2/pi) * (x + 0.044715 x³))) --> gelu(x) {approximate="tanh"}"""

    def pattern(self, p: Any, x: Any) -> Any:
        square = p.mul(x, x)
        cube = p.either(p.mul(square, x), p.pow(x, p.number(3.0)))
        k, c = p.number(math.sqrt(2 / math.pi), rounded=True), p.number(0.044715, rounded=True)
        plain = p.mul(p.add(x, p.mul(cube, c)), k)
        factored = p.mul(p.mul(x, k), p.add(p.either(p.mul(square, c), p.mul(p.mul(x, c), x)), p.number(1.0)))
        return three_factors(p, x, p.add(p.tanh(p.either(plain, factored)), p.number(1.0)))

    def rewrite(self, b: Any, m: Any) -> Any:
        return b.gelu(m.x, approximate="tanh")


def three_factors(p: Any, x: Any, inner: Any) -> Any:
    """x * inner * 0.5, in any grouping (dividing by 2 is multiplying by 0.5 after `simplify`)."""
    half = p.number(0.5)
    return p.either(p.mul(p.mul(x, inner), half), p.mul(p.mul(x, half), inner), p.mul(x, p.mul(inner, half)))


class Sigmoid(Bounded):
    """1 / (1 + exp(-x)) --> sigmoid(x)"""

    def pattern(self, p: Any, x: Any) -> Any:
        below = p.add(p.exp(p.neg(x)), p.number(1.0))
        return p.either(p.div(p.number(1.0), below), p.reciprocal(below))

    def rewrite(self, b: Any, m: Any) -> Any:
        return b.sigmoid(m.x)


class Silu(Bounded):
    """x * sigmoid(x) --> silu(x);  x / (1 + exp(-x)) --> silu(x)"""

    def pattern(self, p: Any, x: Any) -> Any:
        return p.either(p.mul(x, p.sigmoid(x)), p.div(x, p.add(p.exp(p.neg(x)), p.number(1.0))))

    def rewrite(self, b: Any, m: Any) -> Any:
        return b.silu(m.x)


class Softplus(Bounded):
    """log(1 + exp(x)) --> softplus(x), which does not overflow"""

    def pattern(self, p: Any, x: Any) -> Any:
        return p.either(p.log1p(p.exp(x)), p.log(p.add(p.exp(x), p.number(1.0))))

    def rewrite(self, b: Any, m: Any) -> Any:
        return b.softplus(m.x)


class Mish(Bounded):
    """x * tanh(softplus(x)) --> mish(x)"""

    def pattern(self, p: Any, x: Any) -> Any:
        return p.mul(x, p.tanh(p.softplus(x)))

    def rewrite(self, b: Any, m: Any) -> Any:
        return b.mish(m.x)


class Softsign(Bounded):
    """x / (1 + |x|) --> softsign(x)"""

    def pattern(self, p: Any, x: Any) -> Any:
        return p.div(x, p.add(p.abs(x), p.number(1.0)))

    def check(self, m: Any, ctx: Any) -> str | None:
        return None if m.x.dtype.is_float else "softsign is of floats"

    def rewrite(self, b: Any, m: Any) -> Any:
        return b.softsign(m.x)


class ReluFromMax(Bounded):
    """max(x, 0) --> relu(x) (the sign of a zero is not kept)"""

    def pattern(self, p: Any, x: Any) -> Any:
        return p.max(x, p.number(0.0))

    def rewrite(self, b: Any, m: Any) -> Any:
        return b.relu(m.x) if m.x.type == m.root.result.type else "zero broadcasts x"


class Relu6(Bounded):
    """min(relu(x), c) --> clip(x, 0, c)     for c ≥ 0"""

    def pattern(self, p: Any, x: Any) -> Any:
        return p.min(p.relu(x), p.number("c").bind("top"))

    def check(self, m: Any, ctx: Any) -> str | None:
        return None if m.number("c") >= 0 else "the upper bound is negative (or NaN)"

    def rewrite(self, b: Any, m: Any) -> Any:
        return b.clip(m.x, b.const(0, m.x.dtype), m.top)


class HardSigmoid(Bounded):
    """clip(a * x + c, 0, 1) --> hard_sigmoid(x) {alpha=a, beta=c}"""

    def pattern(self, p: Any, x: Any) -> Any:
        line = p.add(p.mul(x, p.number("a")), p.number("c"))
        return p.clip(line, p.number(0.0), p.number(1.0))

    def check(self, m: Any, ctx: Any) -> str | None:
        if not m.x.dtype.is_float:
            return "hard_sigmoid is of floats"
        return None if math.isfinite(m.number("a")) and math.isfinite(m.number("c")) else "the line is not finite"

    def rewrite(self, b: Any, m: Any) -> Any:
        return b.hard_sigmoid(m.x, alpha=m.number("a"), beta=m.number("c"))


class HardSigmoidFrom6(Bounded):
    """clip(x + 3, 0, 6) / 6 --> hard_sigmoid(x) {alpha=1/6, beta=0.5}"""

    def pattern(self, p: Any, x: Any) -> Any:
        clipped = p.clip(p.add(x, p.number(3.0)), p.number(0.0), p.number(6.0))
        return p.either(p.div(clipped, p.number(6.0)), p.mul(clipped, p.number(1 / 6, rounded=True)))

    def check(self, m: Any, ctx: Any) -> str | None:
        return None if m.x.dtype.is_float else "hard_sigmoid is of floats"

    def rewrite(self, b: Any, m: Any) -> Any:
        return b.hard_sigmoid(m.x, alpha=1 / 6, beta=0.5)


@dataclass(frozen=True, eq=False)
class HardSwish(Bounded):
    """x * hard_sigmoid(x) {alpha=1/6, beta=0.5} --> hard_swish(x);  x * clip(x + 3, 0, 6) / 6 --> hard_swish(x)"""

    def pattern(self, p: Any, x: Any) -> Any:
        sixth = p.any("alpha", where=lambda a: abs(6 * a - 1) < 1e-6)  # (ONNX has it in f32)
        clipped = p.clip(p.add(x, p.number(3.0)), p.number(0.0), p.number(6.0))
        product = p.mul(x, clipped)
        return p.either(p.mul(x, p.hard_sigmoid(x, alpha=sixth, beta=0.5)),
                        p.div(product, p.number(6.0)), p.mul(product, p.number(1 / 6, rounded=True)))

    def check(self, m: Any, ctx: Any) -> str | None:
        return None if m.x.dtype.is_float else "hard_swish is of floats"

    def rewrite(self, b: Any, m: Any) -> Any:
        return b.hard_swish(m.x)


class LeakyRelu(Bounded):
    """where(x > 0, x, a * x) --> leaky_relu(x) {alpha=a}"""

    def pattern(self, p: Any, x: Any) -> Any:
        condition = p.either(p.gt(x, p.number(0.0)), p.ge(x, p.number(0.0)))
        return p.where(condition, x, p.mul(x, p.number("a")))

    def check(self, m: Any, ctx: Any) -> str | None:
        if not m.x.dtype.is_float:
            return "leaky_relu is of floats"
        return None if math.isfinite(m.number("a")) else "the slope is not finite"

    def rewrite(self, b: Any, m: Any) -> Any:
        return b.leaky_relu(m.x, alpha=m.number("a"))


ACTIVATION_RULES: tuple[Rule, ...] = (
    Sigmoid(), Silu(), GeluErf(), GeluTanh(), Softplus(), Mish(), Softsign(), ReluFromMax(), Relu6(),
    HardSwish(), HardSigmoidFrom6(), HardSigmoid(), LeakyRelu(),
)
