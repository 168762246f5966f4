"""Algebraic simplification: identities that keep every bit, NaN, infinities and the sign of zero included."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from effcc.ir.builder import Builder, inline
from effcc.ir.graph import Value
from effcc.ir.types import DType, Tensor, f32
from effcc.passes.view_algebra import VIEW_RULES
from effcc.pipeline import RulePass
from effcc.rewrite import Rule


@dataclass(frozen=True, eq=False)
class NeutralOperand(Rule):
    """x op e --> x     for e neutral: x * 1, x / 1, x - 0, x ** 1, and x + 0 (on floats x + -0.0: -0.0 + 0.0 is 0.0)"""

    op: str
    neutral: float
    shares = True

    def pattern(self, p: Any, x: Any) -> Any:
        return p.op(self.op, x, p.number("e"))

    def check(self, m: Any, ctx: Any) -> str | None:
        number, wanted = m.number("e"), self.neutral
        if self.op == "add" and not m.x.dtype.is_float:
            wanted = 0
        same = number == wanted and math.copysign(1, number) == math.copysign(1, wanted)
        return None if same else f"{number} is not neutral"

    def rewrite(self, b: Any, m: Any) -> Any:
        return m.x if m.x.type == m.root.result.type else "the other operand broadcasts it"

    def example(self, d: Any, b: Any) -> Any:
        x = b.input("x", Tensor(f32, d.shape()))
        return getattr(b, self.op)(x, b.const(d.choose((self.neutral, -self.neutral, 2.0)), f32))

    @property
    def name(self) -> str:
        return f"neutral-{self.op}"


@dataclass(frozen=True, eq=False)
class TwiceIsOnce(Rule):
    """f(f(x)) --> f(x)     for idempotent f"""

    op: str
    shares = True

    def pattern(self, p: Any, x: Any) -> Any:
        return p.op(self.op, p.op(self.op, x).bind("once"))

    def rewrite(self, b: Any, m: Any) -> Any:
        return m.once

    @property
    def name(self) -> str:
        return f"{self.op}-twice"


@dataclass(frozen=True, eq=False)
class SelfInverse(Rule):
    """f(f(x)) --> x     for neg and not"""

    op: str
    shares = True

    def pattern(self, p: Any, x: Any) -> Any:
        return p.op(self.op, p.op(self.op, x))

    def rewrite(self, b: Any, m: Any) -> Any:
        return m.x

    @property
    def name(self) -> str:
        return f"{self.op}-{self.op}"


class Identity(Rule):
    """identity(x) --> x"""

    shares = True

    def pattern(self, p: Any, x: Any) -> Any:
        return p.identity(x)

    def rewrite(self, b: Any, m: Any) -> Any:
        return m.x


class MulMinusOne(Rule):
    """x * -1 --> neg(x)"""

    shares = True

    def pattern(self, p: Any, x: Any) -> Any:
        return p.mul(x, p.number(-1.0))

    def rewrite(self, b: Any, m: Any) -> Any:
        return b.neg(m.x)


class DivByPowerOfTwo(Rule):
    """x / c --> x * (1/c)     for c a power of two whose reciprocal is a normal number: both are exact"""

    shares = True

    def pattern(self, p: Any, x: Any) -> Any:
        return p.div(x, p.number("c").bind("divisor"))

    def check(self, m: Any, ctx: Any) -> str | None:
        c = m.number("c")
        if not m.x.dtype.is_float or m.x.dtype.bits < 16:
            return "division is exact only on wide floats"
        if not math.isfinite(c) or c in (0.0, 1.0) or abs(math.frexp(c)[0]) != 0.5 or not 2.0**-14 <= abs(c) <= 2.0**14:
            return f"{c} is no power of two (or is 1) of moderate size"
        return None

    def rewrite(self, b: Any, m: Any) -> Any:
        return b.mul(m.x, b.const(filled(m.divisor, 1.0 / m.number("c")), m.x.dtype))


def filled(like: Value, number: float) -> Any:
    """An array of a constant's shape, filled with a number."""
    import numpy as np

    return np.full(like.shape, number, like.dtype.numpy)


class Square(Rule):
    """x ** 2 --> x * x"""

    shares = True

    def pattern(self, p: Any, x: Any) -> Any:
        return p.pow(x, p.number(2.0))

    def rewrite(self, b: Any, m: Any) -> Any:
        return b.mul(m.x, m.x)


class AddNeg(Rule):
    """x + neg(y) --> x - y"""

    shares = True

    def pattern(self, p: Any, x: Any, y: Any) -> Any:
        return p.add(x, p.neg(y))

    def rewrite(self, b: Any, m: Any) -> Any:
        return b.sub(m.x, m.y)


class SubNeg(Rule):
    """x - neg(y) --> x + y"""

    shares = True

    def pattern(self, p: Any, x: Any, y: Any) -> Any:
        return p.sub(x, p.neg(y))

    def rewrite(self, b: Any, m: Any) -> Any:
        return b.add(m.x, m.y)


class ClampToClip(Rule):
    """min(max(x, lo), hi) --> clip(x, lo, hi)     for numbers lo and hi"""

    def pattern(self, p: Any, x: Any) -> Any:
        return p.min(p.max(x, p.number("lo")), p.number("hi"))

    def rewrite(self, b: Any, m: Any) -> Any:
        return b.clip(m.x, m.lo, m.hi)


class ClipToEverything(Rule):
    """clip(x, -inf, inf) --> x"""

    shares = True

    def pattern(self, p: Any, x: Any) -> Any:
        return p.clip(x, p.number("lo"), p.number("hi"))

    def check(self, m: Any, ctx: Any) -> str | None:
        whole = m.number("lo") <= m.x.dtype.min and m.number("hi") >= m.x.dtype.max
        return None if whole else "the bounds limit"

    def rewrite(self, b: Any, m: Any) -> Any:
        return m.x

    def example(self, d: Any, b: Any) -> Any:
        x = b.input("x", d.like(None))
        lo, hi = (x.dtype.min, x.dtype.max) if x.dtype.kind in "fiu" else d.nothing("bool has no bounds")
        return b.clip(x, b.const(lo, x.dtype), b.const(hi if d.chance(80) else lo, x.dtype))


class CastToSame(Rule):
    """cast(x, dtype of x) --> x"""

    shares = True

    def pattern(self, p: Any, x: Any) -> Any:
        return p.cast(x, to=p.any("to"), saturate=p.any("saturate"))

    def check(self, m: Any, ctx: Any) -> str | None:
        return None if m.to == m.x.dtype else "it changes the dtype"

    def rewrite(self, b: Any, m: Any) -> Any:
        return m.x


class CastOfCast(Rule):
    """cast(cast(x, wide), to) --> cast(x, to)     where wide holds every value of x's dtype"""

    shares = True

    def pattern(self, p: Any, x: Any) -> Any:
        return p.cast(p.cast(x, to=p.any("wide"), saturate=p.any("first")), to=p.any("to"), saturate=p.any("saturate"))

    def check(self, m: Any, ctx: Any) -> str | None:
        return None if holds_all(m.wide, m.x.dtype) else f"{m.wide} does not hold every {m.x.dtype}"

    def rewrite(self, b: Any, m: Any) -> Any:
        return b.cast(m.x, to=m.to, saturate=m.saturate)


MANTISSA = {"f64": 53, "f32": 24, "f16": 11, "bf16": 8}
EXPONENT = {"f64": 11, "f32": 8, "f16": 5, "bf16": 8}


def holds_all(wide: DType, narrow: DType) -> bool:
    """Whether a conversion loses nothing."""
    if wide == narrow or narrow.is_bool:
        return wide.kind in "iubf"
    if wide.is_float:
        if narrow.is_float:
            return narrow.name in MANTISSA and wide.name in MANTISSA and (
                MANTISSA[wide.name] >= MANTISSA[narrow.name] and EXPONENT[wide.name] >= EXPONENT[narrow.name])
        return narrow.is_integer and MANTISSA.get(wide.name, 0) >= narrow.bits and narrow.bits <= 16
    if wide.is_integer and narrow.is_integer:
        return narrow.kind == "u" and wide.bits > narrow.bits or narrow.kind == wide.kind and wide.bits >= narrow.bits
    return False


class WhereSame(Rule):
    """where(c, x, x) --> x"""

    shares = True

    def pattern(self, p: Any, c: Any, x: Any) -> Any:
        return p.where(c, x, x)

    def rewrite(self, b: Any, m: Any) -> Any:
        return m.x if m.x.type == m.root.result.type else "the condition broadcasts it"


class WhereConstant(Rule):
    """where(true, x, y) --> x;  where(false, x, y) --> y"""

    shares = True

    def pattern(self, p: Any, x: Any, y: Any) -> Any:
        return p.where(p.number("c"), x, y)

    def rewrite(self, b: Any, m: Any) -> Any:
        chosen = m.x if m.number("c") else m.y
        return chosen if chosen.type == m.root.result.type else b.broadcast_to(chosen, shape=m.root.result.shape)


class IfConstant(Rule):
    """if(true, captures) {then, orelse} --> then(captures)"""

    shares = True

    def pattern(self, p: Any) -> Any:
        return p.if_(p.number("cond"), p.rest("captures"), then=p.any("then"), orelse=p.any("orelse"))

    def rewrite(self, b: Any, m: Any) -> Any:
        return inline(b, m.then if m.number("cond") else m.orelse, m.captures)

    def example(self, d: Any, b: Any) -> Any:
        x = b.input("x", Tensor(f32, d.base_shape))
        branches = []
        for op in ("neg", "abs"):
            inner = Builder(op)
            branches.append(inner.graph(getattr(inner, op)(inner.input("x", x.type))))
        return b.if_(b.const(d.boolean()), x, then=branches[0], orelse=branches[1])


ARITHMETIC_RULES: tuple[Rule, ...] = (
    Identity(), NeutralOperand("mul", 1.0), NeutralOperand("div", 1.0), NeutralOperand("sub", 0.0),
    NeutralOperand("pow", 1.0), NeutralOperand("add", -0.0),
    *(TwiceIsOnce(op) for op in ("abs", "relu", "floor", "ceil", "trunc")),
    SelfInverse("neg"), SelfInverse("not"), MulMinusOne(), DivByPowerOfTwo(), Square(), AddNeg(), SubNeg(),
    ClampToClip(), ClipToEverything(), CastToSame(), CastOfCast(), WhereSame(), WhereConstant(), IfConstant(),
)


class Simplify(RulePass):
    """Identities of arithmetic, casts, selection and views that keep every bit."""

    name = "simplify"
    rules = (*ARITHMETIC_RULES, *VIEW_RULES)
