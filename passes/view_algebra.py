"""Identities of views: what only moves elements composes, cancels, and vanishes where it moves nothing."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from effcc.ir.dims import Dim
from effcc.ir.types import Tensor, f32
from effcc.rewrite import Rule


class TransposeOfTranspose(Rule):
    """transpose(transpose(x, p), q) --> transpose(x, p[q])"""

    shares = True

    def pattern(self, p: Any, x: Any) -> Any:
        return p.transpose(p.transpose(x, perm=p.any("first")), perm=p.any("second"))

    def rewrite(self, b: Any, m: Any) -> Any:
        return b.transpose(m.x, perm=tuple(m.first[k] for k in m.second))


class TransposeOfNothing(Rule):
    """transpose(x, perm) --> x or reshape(x)     where only axes of size 1 move"""

    shares = True

    def pattern(self, p: Any, x: Any) -> Any:
        return p.transpose(x, perm=p.any("perm"))

    def check(self, m: Any, ctx: Any) -> str | None:
        moved = [k for k in m.perm if m.x.shape[k] != 1]
        return None if moved == sorted(moved) else "it moves elements"

    def rewrite(self, b: Any, m: Any) -> Any:
        out = m.root.result
        return m.x if m.perm == tuple(range(len(m.perm))) else b.reshape(m.x, shape=out.shape)


class ReshapeOfReshape(Rule):
    """reshape(reshape(x, s), t) --> reshape(x, t)"""

    shares = True

    def pattern(self, p: Any, x: Any) -> Any:
        return p.reshape(p.reshape(x, shape=p.any("first")), shape=p.any("second"))

    def rewrite(self, b: Any, m: Any) -> Any:
        return b.reshape(m.x, shape=m.second)


class ReshapeOfSwap(Rule):
    """reshape(swap(x), [*batch, n, m]) --> swap(reshape(x, [*batch, m, n]))

    where swap transposes the last two axes, and only the leading axes are split or joined.
    """

    def pattern(self, p: Any, x: Any) -> Any:
        return p.reshape(p.transpose(x, perm=p.any("perm", where=swaps_last_two)), shape=p.any("to_shape"))

    def check(self, m: Any, ctx: Any) -> str | None:
        n, last = m.x.shape[-1], m.x.shape[-2]
        return None if len(m.to_shape) > 2 and m.to_shape[-2:] == (n, last) else "the last two axes change"

    def rewrite(self, b: Any, m: Any) -> Any:
        *batch, n, last = m.to_shape
        rank = len(m.to_shape)
        return b.transpose(b.reshape(m.x, shape=(*batch, last, n)), perm=(*range(rank - 2), rank - 1, rank - 2))

    def example(self, d: Any, b: Any) -> Any:
        d.base_shape = (*d.shape(1, 2), *d.shape(2, 2))
        x = b.input("x", d.like(None))
        *batch, n, last = x.shape
        rank = len(x.shape)
        turned = b.transpose(x, perm=(*range(rank - 2), rank - 1, rank - 2))
        tail = d.choose(((last, n), (last, n), (last * n, 1)))
        return b.reshape(turned, shape=(*d.refactor(math.prod(batch)), *tail))


@dataclass(frozen=True, eq=False)
class SameShape(Rule):
    """reshape(x, s) --> x;  broadcast_to(x, s) --> x     where s is x's shape"""

    op: str
    shares = True

    def pattern(self, p: Any, x: Any) -> Any:
        return p.op(self.op, x, shape=p.any("shape"))

    def check(self, m: Any, ctx: Any) -> str | None:
        return None if m.x.shape == m.shape else "it changes the shape"

    def rewrite(self, b: Any, m: Any) -> Any:
        return m.x

    @property
    def name(self) -> str:
        return f"same-shape-{self.op.replace('_', '-')}"


class BroadcastOfBroadcast(Rule):
    """broadcast_to(broadcast_to(x, s), t) --> broadcast_to(x, t)"""

    shares = True

    def pattern(self, p: Any, x: Any) -> Any:
        return p.broadcast_to(p.broadcast_to(x, shape=p.any("first")), shape=p.any("second"))

    def rewrite(self, b: Any, m: Any) -> Any:
        return b.broadcast_to(m.x, shape=m.second)


@dataclass(frozen=True, eq=False)
class BroadcastOperand(Rule):
    """broadcast_to(x) op y --> x op y     where y has the result's shape (elementwise ops broadcast by themselves)"""

    op: str
    left: bool = True
    shares = True

    def pattern(self, p: Any, x: Any, y: Any) -> Any:
        wide = p.broadcast_to(x, shape=p.any("shape"))
        return p.op(self.op, *((wide, y) if self.left else (y, wide)))

    def rewrite(self, b: Any, m: Any) -> Any:
        operands = (m.x, m.y) if self.left else (m.y, m.x)
        out = b.add(type(m.root.op)(), *operands)
        return out if out.type == m.root.result.type else "the result would be smaller"

    @property
    def name(self) -> str:
        return f"broadcast-in-{self.op}"


class SliceOfEverything(Rule):
    """slice(x, 0, size, 1) --> x"""

    shares = True

    def pattern(self, p: Any, x: Any) -> Any:
        return p.slice(x, starts=p.any("starts"), stops=p.any("stops"), steps=p.any("steps"))

    def check(self, m: Any, ctx: Any) -> str | None:
        whole = all(a == 0 and z == d and st == 1 for a, z, st, d in zip(m.starts, m.stops, m.steps, m.x.shape))
        return None if whole else "it cuts"

    def rewrite(self, b: Any, m: Any) -> Any:
        return m.x


class SliceOfSlice(Rule):
    """slice(slice(x)) --> slice(x)     where the inner one has steps 1 and the outer steps are positive"""

    shares = True

    def pattern(self, p: Any, x: Any) -> Any:
        inner = p.slice(x, starts=p.any("starts"), stops=p.any("stops"), steps=p.any("ones"))
        return p.slice(inner, starts=p.any("starts2"), stops=p.any("stops2"), steps=p.any("steps"))

    def check(self, m: Any, ctx: Any) -> str | None:
        return None if set(m.ones) <= {1} and all(st > 0 for st in m.steps) else "the steps do not compose"

    def rewrite(self, b: Any, m: Any) -> Any:
        starts = tuple(a + c for a, c in zip(m.starts, m.starts2))
        stops = tuple(a + c for a, c in zip(m.starts, m.stops2))
        return b.slice(m.x, starts=starts, stops=stops, steps=m.steps)


class ConcatOfOne(Rule):
    """concat(x) --> x"""

    shares = True

    def pattern(self, p: Any, x: Any) -> Any:
        return p.concat(x, axis=p.any("axis"))

    def rewrite(self, b: Any, m: Any) -> Any:
        return m.x


class ConcatOfConcat(Rule):
    """concat(concat(a, b), c) --> concat(a, b, c)     along one axis, wherever the inner one stands"""

    shares = True

    def pattern(self, p: Any) -> Any:
        return p.concat(p.rest("parts"), axis=p.any("axis"))

    def rewrite(self, b: Any, m: Any) -> Any:
        flat: list[Any] = []
        for v in m.parts:
            inner = m.workspace.producer(v)
            if inner is not None and inner.op == m.root.op and len(m.users(v)) == 1:
                flat += inner.operands
            else:
                flat.append(v)
        if len(flat) == len(m.parts):
            return "no operand is a concat along this axis that nothing else reads"
        return b.concat(*flat, axis=m.axis)

    def example(self, d: Any, b: Any) -> Any:
        d.base_shape = d.shape(1)
        parts = [b.input(f"x{k}", d.like(None)) for k in range(3)]
        axis = d.integer(0, len(d.base_shape) - 1)
        inner = b.concat(parts[0], parts[1], axis=axis if d.chance(80) else 0)
        return b.concat(*((inner, parts[2]) if d.boolean() else (parts[2], inner)), axis=axis)


class ConcatOfSlices(Rule):
    """concat(x[0:k], x[k:n]) --> x[0:n]     adjacent slices of one tensor join"""

    shares = True

    def pattern(self, p: Any) -> Any:
        return p.concat(p.rest("parts"), axis=p.any("axis"))

    def rewrite(self, b: Any, m: Any) -> Any:
        joined: list[tuple[Any, Any]] = []  # (operand, its slice item)
        for v in m.parts:
            item = m.workspace.producer(v)
            item = item if item is not None and item.op.name == "slice" else None
            if joined and item is not None and joined[-1][1] is not None:
                merged = _adjacent(joined[-1][1], item, m.axis)
                if merged is not None:
                    made = b.slice(item.operands[0], **merged)
                    joined[-1] = (made, b.made[-1])
                    continue
            joined.append((v, item))
        if len(joined) == len(m.parts):
            return "no two neighbours are adjacent slices of one tensor"
        return joined[0][0] if len(joined) == 1 else b.concat(*(v for v, _ in joined), axis=m.axis)

    def example(self, d: Any, b: Any) -> Any:
        d.base_shape = d.shape(1)
        x, axis = b.input("x", d.like(None)), d.integer(0, len(d.base_shape) - 1)
        cuts = sorted(d.integer(0, x.shape[axis]) for _ in range(d.integer(3, 4)))
        rows = d.chance(20)  # adjacent, but from different places on the other axes
        parts = [self._part(b, x, axis, a, z if d.chance(85) else a, k if rows else None)
                 for k, (a, z) in enumerate(zip(cuts, cuts[1:]))]
        return b.concat(*parts, axis=axis)

    @staticmethod
    def _part(b: Any, x: Any, axis: int, start: int, stop: int, row: int | None) -> Any:
        """x[start:stop] on an axis, and of the other axes all, or one row."""
        other = [(0, s) if row is None or row >= s else (row, row + 1) for s in x.shape]
        starts, stops = zip(*((start, stop) if k == axis else other[k] for k in range(len(x.shape))), strict=True)
        return b.slice(x, starts=starts, stops=stops, steps=(1,) * len(starts))


def _adjacent(first: Any, second: Any, axis: int) -> dict[str, tuple[Dim, ...]] | None:
    """The slice that covers two, where the second begins at the first's end on `axis` and they agree elsewhere."""
    if first.operands != second.operands or first.op.steps != second.op.steps or first.op.steps[axis] != 1:
        return None
    if first.op.stops[axis] != second.op.starts[axis]:
        return None
    for k in range(len(first.op.steps)):
        if k != axis and (first.op.starts[k], first.op.stops[k]) != (second.op.starts[k], second.op.stops[k]):
            return None
    stops = tuple(second.op.stops[k] if k == axis else z for k, z in enumerate(first.op.stops))
    return {"starts": first.op.starts, "stops": stops, "steps": first.op.steps}


class PadByNothing(Rule):
    """pad(x, 0...) --> x"""

    shares = True

    def pattern(self, p: Any, x: Any, value: Any) -> Any:
        attributes = {"pads": p.any("pads"), "mode": p.any("mode")}
        return p.either(p.pad(x, **attributes), p.pad(x, value, **attributes))

    def check(self, m: Any, ctx: Any) -> str | None:
        return None if all(k == 0 for k in m.pads) else "it pads"

    def rewrite(self, b: Any, m: Any) -> Any:
        return m.x


class PadThenConv(Rule):
    """conv(pad(x, zeros), w) --> conv(x, w) with that much more padding"""

    special_inputs = False  # (a pad's zeros make NaN of infinite weights; a convolution's own need not)

    def pattern(self, p: Any, x: Any) -> Any:
        attributes = {"pads": p.any("outer"), "mode": "constant"}
        padded = p.either(p.pad(x, **attributes), p.pad(x, p.number("value"), **attributes))
        return p.conv(padded, p.rest("weights"), **(p.any_attributes("conv") | {"layout": "nchw"}))

    def check(self, m: Any, ctx: Any) -> str | None:
        rank = len(m.x.shape)
        if any(m.outer[k] != 0 for k in (0, 1, rank, rank + 1)):
            return "batch or channels are padded"
        if not all(isinstance(n, int) and n >= 0 for n in m.outer):
            return "the padding crops, or is symbolic"
        filled = m.number("value") if hasattr(m, "value") else 0
        return f"the padding is {filled}, not {m.pad_value}" if filled != m.pad_value else None

    def rewrite(self, b: Any, m: Any) -> Any:
        rank = len(m.x.shape)
        outer = m.outer[2:rank] + m.outer[rank + 2:]
        pads = tuple(a + c for a, c in zip(m.pads, outer, strict=True))
        return b.add(m.root.op.replace(pads=pads), m.x, *m.weights)

    def example(self, d: Any, b: Any) -> Any:
        x, w = (b.input(n, Tensor(f32, s)) for n, s in (("x", (1, 2, 4, 3)), ("w", (3, 2, 2, 3))))
        before, after = ((d.integer(0, 2), d.choose((1, 2, 1, 2, -1))) for _ in range(2))
        pads = (0, 0, *before, 0, 0, *after)
        value = [b.const(d.choose((0.0, 1.0)), f32)] if d.boolean() else []
        strides = tuple(d.integer(1, 2) for _ in range(2))
        return b.conv(b.pad(x, *value, pads=pads), w, strides=strides, pads=(0, 1, 1, 0), dilations=(1, 1))


class RepeatOnce(Rule):
    """repeat(x, 1...) --> x"""

    shares = True

    def pattern(self, p: Any, x: Any) -> Any:
        return p.repeat(x, counts=p.any("counts"))

    def check(self, m: Any, ctx: Any) -> str | None:
        return None if all(k == 1 for k in m.counts) else "it repeats"

    def rewrite(self, b: Any, m: Any) -> Any:
        return m.x


class GatherOne(Rule):
    """gather(x, i) --> reshape(x[i:i+1])     for a constant scalar index inside x"""

    shares = True

    def pattern(self, p: Any, x: Any) -> Any:
        return p.gather(x, p.number("i").bind("index"), axis=p.any("axis"))

    def check(self, m: Any, ctx: Any) -> str | None:
        if m.index.shape != ():
            return "the index is no scalar"
        size, i = m.x.shape[m.axis], m.number("i")
        return None if isinstance(size, int) and -size <= i < size else "the index may be out of range"

    def rewrite(self, b: Any, m: Any) -> Any:
        i = m.number("i") % m.x.shape[m.axis]
        starts = tuple(i if k == m.axis else 0 for k in range(len(m.x.shape)))
        stops = tuple(i + 1 if k == m.axis else d for k, d in enumerate(m.x.shape))
        one = b.slice(m.x, starts=starts, stops=stops, steps=(1,) * len(starts))
        return b.reshape(one, shape=m.root.result.shape)


@dataclass(frozen=True, eq=False)
class TransposedOperand(Rule):
    """matmul(transpose(a, last two swapped), b) --> matmul(a, b) {transpose_a}"""

    left: bool
    shares = True

    def pattern(self, p: Any, a: Any, c: Any) -> Any:
        turned = p.transpose(a, perm=p.any("perm", where=swaps_last_two))
        operands = (turned, c) if self.left else (c, turned)
        flags = {"transpose_a": p.any("ta"), "transpose_b": p.any("tb"), "accumulate": p.any("accumulate")}
        return p.matmul(*operands, **flags)

    def rewrite(self, b: Any, m: Any) -> Any:
        operands = (m.a, m.c) if self.left else (m.c, m.a)
        return b.matmul(*operands, transpose_a=m.ta ^ self.left, transpose_b=m.tb ^ (not self.left),
                        accumulate=m.accumulate)

    @property
    def name(self) -> str:
        return f"transposed-{'left' if self.left else 'right'}-operand"


def swaps_last_two(perm: tuple[int, ...]) -> bool:
    n = len(perm)
    return n >= 2 and perm == (*range(n - 2), n - 1, n - 2)


VIEW_RULES: tuple[Rule, ...] = (
    TransposeOfTranspose(), TransposeOfNothing(), ReshapeOfReshape(), ReshapeOfSwap(),
    SameShape("reshape"), SameShape("broadcast_to"),
    BroadcastOfBroadcast(), SliceOfEverything(), SliceOfSlice(), ConcatOfOne(), ConcatOfConcat(), ConcatOfSlices(),
    PadByNothing(), PadThenConv(), RepeatOnce(), GatherOne(),
    TransposedOperand(left=True), TransposedOperand(left=False),
    *(BroadcastOperand(op) for op in ("add", "mul", "max", "min", "and", "or", "eq")),
    *(BroadcastOperand(op, left) for op in ("sub", "div", "pow", "lt", "le", "gt", "ge") for left in (True, False)),
)
