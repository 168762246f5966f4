"""Transposes and reshapes sink through elementwise ops, reductions, softmax, slices and concats, and cancel there.

What producers compute then meets its consumers directly, which fusion needs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from effcc.ir.op import Op, load_ops
from effcc.passes.view_algebra import ReshapeOfReshape, SameShape, TransposeOfNothing, TransposeOfTranspose
from effcc.pipeline import RulePass
from effcc.rewrite import Rule


def inverse(perm: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(perm.index(k) for k in range(len(perm)))


def apply(p: Any, op: str, *operands: Any) -> Any:
    """A pattern of an op with any attributes."""
    return p.op(op, *operands, **p.any_attributes(op))


@dataclass(frozen=True, eq=False)
class UnaryOfTranspose(Rule):
    """f(transpose(x)) --> transpose(f(x))"""

    shares = True  # a transpose is a view: it may stay for its other readers

    op: str

    def pattern(self, p: Any, x: Any) -> Any:
        return apply(p, self.op, p.transpose(x, perm=p.any("perm")))

    def rewrite(self, b: Any, m: Any) -> Any:
        return b.transpose(b.add(m.root.op, m.x), perm=m.perm)

    @property
    def name(self) -> str:
        return f"{self.op}-of-transpose"


@dataclass(frozen=True, eq=False)
class UnaryOfReshape(Rule):
    """f(reshape(x)) --> reshape(f(x))"""

    op: str

    def pattern(self, p: Any, x: Any) -> Any:
        return apply(p, self.op, p.reshape(x, shape=p.any("to_shape")))

    def rewrite(self, b: Any, m: Any) -> Any:
        return b.reshape(b.add(m.root.op, m.x), shape=m.to_shape)

    @property
    def name(self) -> str:
        return f"{self.op}-of-reshape"


@dataclass(frozen=True, eq=False)
class BinaryOfTransposes(Rule):
    """f(transpose(x, p), transpose(y, p)) --> transpose(f(x, y), p)"""

    shares = True  # a transpose is a view: it may stay for its other readers

    op: str

    def pattern(self, p: Any, x: Any, y: Any) -> Any:
        return apply(p, self.op, p.transpose(x, perm=p.any("perm")), p.transpose(y, perm=p.any("perm")))

    def rewrite(self, b: Any, m: Any) -> Any:
        return b.transpose(b.add(m.root.op, m.x, m.y), perm=m.perm)

    @property
    def name(self) -> str:
        return f"{self.op}-of-transposes"


@dataclass(frozen=True, eq=False)
class BinaryOfReshapes(Rule):
    """f(reshape(x, s), reshape(y, s)) --> reshape(f(x, y), s)     for x and y of one shape"""

    op: str

    def pattern(self, p: Any, x: Any, y: Any) -> Any:
        return apply(p, self.op, p.reshape(x, shape=p.any("to_shape")), p.reshape(y, shape=p.any("to_shape")))

    def check(self, m: Any, ctx: Any) -> str | None:
        return None if m.x.shape == m.y.shape else "their shapes differ before"

    def rewrite(self, b: Any, m: Any) -> Any:
        return b.reshape(b.add(m.root.op, m.x, m.y), shape=m.to_shape)

    @property
    def name(self) -> str:
        return f"{self.op}-of-reshapes"


@dataclass(frozen=True, eq=False)
class BinaryOfTransposeAndConstant(Rule):
    """f(transpose(x, p), c) --> transpose(f(x, c turned back), p)     for a constant c"""

    shares = True  # a transpose is a view: it may stay for its other readers

    op: str
    left: bool

    def pattern(self, p: Any, x: Any) -> Any:
        turned, c = p.transpose(x, perm=p.any("perm")), p.constant("c")
        return apply(p, self.op, *((turned, c) if self.left else (c, turned)))

    def check(self, m: Any, ctx: Any) -> str | None:
        return None if m.array("c").ndim <= len(m.perm) else "the constant has more axes"

    def rewrite(self, b: Any, m: Any) -> Any:
        c = m.array("c")
        if c.size == 1 and c.ndim == 0:
            other = m.c
        else:
            full = c.reshape((1,) * (len(m.perm) - c.ndim) + c.shape)
            other = b.const(full.transpose(inverse(m.perm)), m.c.dtype)
        return b.transpose(b.add(m.root.op, *((m.x, other) if self.left else (other, m.x))), perm=m.perm)

    @property
    def name(self) -> str:
        return f"{self.op}-of-transpose-and-constant"


@dataclass(frozen=True, eq=False)
class BinaryOfTransposeAndVector(Rule):
    """f(transpose(x, p), v) --> transpose(f(x, v turned back), p)     for v along one axis, as the gates of channels"""

    shares = True  # a transpose is a view: it may stay for its other readers

    op: str
    left: bool

    def pattern(self, p: Any, x: Any, v: Any) -> Any:
        turned = p.transpose(x, perm=p.any("perm"))
        return apply(p, self.op, *((turned, v) if self.left else (v, turned)))

    def check(self, m: Any, ctx: Any) -> str | None:
        if len(m.v.shape) > len(m.perm):
            return f"{m.v.type} has more axes"
        return None if sum(d != 1 for d in m.v.shape) < 2 else f"{m.v.type} lies along several axes"

    def rewrite(self, b: Any, m: Any) -> Any:
        other = m.v
        if other.shape:
            full = (1,) * (len(m.perm) - len(other.shape)) + other.shape
            other = b.reshape(other, shape=tuple(full[k] for k in inverse(m.perm)))
        return b.transpose(b.add(m.root.op, *((m.x, other) if self.left else (other, m.x))), perm=m.perm)

    @property
    def name(self) -> str:
        return f"{self.op}-of-transpose-and-vector"


@dataclass(frozen=True, eq=False)
class BinaryOfReshapeAndNumber(Rule):
    """f(reshape(x), number) --> reshape(f(x, number))"""

    op: str
    left: bool

    def pattern(self, p: Any, x: Any) -> Any:
        view, c = p.reshape(x, shape=p.any("to_shape")), p.number("c")
        return apply(p, self.op, *((view, c) if self.left else (c, view)))

    def check(self, m: Any, ctx: Any) -> str | None:
        return None if m.array("c").ndim == 0 else "the number is no scalar"

    def rewrite(self, b: Any, m: Any) -> Any:
        return b.reshape(b.add(m.root.op, *((m.x, m.c) if self.left else (m.c, m.x))), shape=m.to_shape)

    @property
    def name(self) -> str:
        return f"{self.op}-of-reshape-and-number"


@dataclass(frozen=True, eq=False)
class BinaryOfReshapeAndLast(Rule):
    """f(reshape(x), v) --> reshape(f(x, v))     for v along the last axis, which the reshape leaves as it is"""

    op: str
    left: bool

    def pattern(self, p: Any, x: Any, v: Any) -> Any:
        view = p.reshape(x, shape=p.any("to_shape"))
        return apply(p, self.op, *((view, v) if self.left else (v, view)))

    def check(self, m: Any, ctx: Any) -> str | None:
        if not m.v.shape or len(m.v.shape) > len(m.to_shape) or any(d != 1 for d in m.v.shape[:-1]):
            return f"{m.v.type} does not lie along the last axis"
        same = m.x.shape and m.to_shape and m.x.shape[-1] == m.to_shape[-1] == m.v.shape[-1]
        return None if same else f"the last axes of {m.x.type}, {m.to_shape} and {m.v.type} differ"

    def rewrite(self, b: Any, m: Any) -> Any:
        v = b.reshape(m.v, shape=m.v.shape[-1:]) if len(m.v.shape) > 1 else m.v
        return b.reshape(b.add(m.root.op, *((m.x, v) if self.left else (v, m.x))), shape=m.to_shape)

    @property
    def name(self) -> str:
        return f"{self.op}-of-reshape-and-last"


class ClipOfTranspose(Rule):
    """clip(transpose(x, p), lo, hi) --> transpose(clip(x, lo, hi), p)     for numbers lo and hi"""

    shares = True  # a transpose is a view: it may stay for its other readers

    def pattern(self, p: Any, x: Any) -> Any:
        return p.clip(p.transpose(x, perm=p.any("perm")), p.number("lo"), p.number("hi"))

    def check(self, m: Any, ctx: Any) -> str | None:
        return None if m.array("lo").ndim == m.array("hi").ndim == 0 else "a bound is no scalar"

    def rewrite(self, b: Any, m: Any) -> Any:
        return b.transpose(b.clip(m.x, m.lo, m.hi), perm=m.perm)


@dataclass(frozen=True, eq=False)
class ReductionOfTranspose(Rule):
    """reduce(transpose(x, p), axes) --> transpose(reduce(x, p[axes]))"""

    shares = True  # a transpose is a view: it may stay for its other readers

    op: str

    def pattern(self, p: Any, x: Any) -> Any:
        return apply(p, self.op, p.transpose(x, perm=p.any("perm")))

    def rewrite(self, b: Any, m: Any) -> Any:
        axes = tuple(sorted(m.perm[a] for a in m.axes))
        reduced = b.add(m.root.op.replace(axes=axes), m.x)
        if m.keepdims:
            return b.transpose(reduced, perm=m.perm)
        left = [a for a in range(len(m.perm)) if a not in axes]
        return b.transpose(reduced, perm=tuple(left.index(a) for a in m.perm if a not in axes))

    @property
    def name(self) -> str:
        return f"{self.op}-of-transpose"


@dataclass(frozen=True, eq=False)
class SoftmaxOfTranspose(Rule):
    """softmax(transpose(x, p), axis) --> transpose(softmax(x, p[axis]), p)"""

    op: str

    def pattern(self, p: Any, x: Any) -> Any:
        return apply(p, self.op, p.transpose(x, perm=p.any("perm")))

    def rewrite(self, b: Any, m: Any) -> Any:
        return b.transpose(b.add(m.root.op.replace(axis=m.perm[m.axis]), m.x), perm=m.perm)

    @property
    def name(self) -> str:
        return f"{self.op}-of-transpose"


class ResizeOfTranspose(Rule):
    """resize(transpose(x, p), sizes) --> transpose(resize(x, sizes turned back), p)"""

    shares = True

    def pattern(self, p: Any, x: Any) -> Any:
        return apply(p, "resize", p.transpose(x, perm=p.any("perm")))

    def check(self, m: Any, ctx: Any) -> str | None:
        return "it crops a region of interest" if m.root.op.roi else None

    def rewrite(self, b: Any, m: Any) -> Any:
        op, back = m.root.op, inverse(m.perm)
        scales = None if op.scales is None else tuple(op.scales[k] for k in back)
        return b.transpose(b.add(op.replace(sizes=tuple(op.sizes[k] for k in back), scales=scales), m.x), perm=m.perm)


class SliceOfTranspose(Rule):
    """slice(transpose(x, p)) --> transpose(slice(x), p)"""

    def pattern(self, p: Any, x: Any) -> Any:
        return apply(p, "slice", p.transpose(x, perm=p.any("perm")))

    def rewrite(self, b: Any, m: Any) -> Any:
        back = inverse(m.perm)
        starts, stops, steps = (tuple(v[k] for k in back) for v in (m.starts, m.stops, m.steps))
        return b.transpose(b.slice(m.x, starts=starts, stops=stops, steps=steps), perm=m.perm)


class ConcatOfTransposes(Rule):
    """concat(transpose(x, p), transpose(y, p)) --> transpose(concat(x, y), p)"""

    def pattern(self, p: Any) -> Any:
        return p.concat(p.rest("parts"), axis=p.any("axis"))

    def rewrite(self, b: Any, m: Any) -> Any:
        items = [m.workspace.producer(v) for v in m.parts]
        if any(
            i is None or i.op.name != "transpose" or len(m.users(v)) > 1 or m.workspace.is_output(v)
            for i, v in zip(items, m.parts)
        ):
            return "an operand is no transpose, or has other readers"
        perms = {i.op.perm for i in items}
        if len(perms) != 1:
            return "the operands are transposed in different ways"
        (perm,) = perms
        joined = b.concat(*(i.operands[0] for i in items), axis=perm[m.axis])
        return b.transpose(joined, perm=perm)

    def example(self, d: Any, b: Any) -> Any:
        d.base_shape = d.shape(1)
        parts = [b.input(f"x{k}", d.like(None)) for k in range(2)]
        perm = d.permutation(len(d.base_shape))
        second = perm if d.chance(80) else d.permutation(len(perm))
        turned = [b.transpose(parts[0], perm=perm), b.transpose(parts[1], perm=second)]
        return b.concat(*turned, axis=d.integer(0, len(perm) - 1))


def _elementwise(arity: int) -> list[str]:
    def fits(cls: type[Op]) -> bool:
        return cls.family == "elementwise" and cls.arity() == (arity, arity)

    return sorted(name for name, cls in load_ops().items() if fits(cls))


REDUCTIONS = ("all", "amax", "amin", "any", "logsumexp", "mean", "prod", "sum", "var")

SINKING_RULES: tuple[Rule, ...] = (
    *(UnaryOfTranspose(op) for op in _elementwise(1)),
    *(UnaryOfReshape(op) for op in _elementwise(1)),
    *(BinaryOfTransposes(op) for op in _elementwise(2)),
    *(BinaryOfReshapes(op) for op in _elementwise(2)),
    *(BinaryOfTransposeAndConstant(op, left) for op in _elementwise(2) for left in (True, False)),
    *(BinaryOfTransposeAndVector(op, left) for op in _elementwise(2) for left in (True, False)),
    *(BinaryOfReshapeAndNumber(op, left) for op in _elementwise(2) for left in (True, False)),
    *(BinaryOfReshapeAndLast(op, left) for op in _elementwise(2) for left in (True, False)),
    *map(ReductionOfTranspose, REDUCTIONS),
    *map(SoftmaxOfTranspose, ("softmax", "log_softmax")),
    ClipOfTranspose(),
    ResizeOfTranspose(),
    SliceOfTranspose(),
    ConcatOfTransposes(),
)


class SinkViews(RulePass):
    """Move transposes and reshapes toward the results; they cancel where they meet."""

    name = "sink-views"
    rules = (
        TransposeOfTranspose(),
        TransposeOfNothing(),
        ReshapeOfReshape(),
        SameShape("reshape"),
        *SINKING_RULES,
    )
