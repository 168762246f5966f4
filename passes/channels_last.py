"""Windows in the layout that CPU kernels want: channels innermost.

conv(x, w, b) --> transpose(conv(transpose(x), w, b) {layout=nhwc})      likewise max_pool and avg_pool

The transposes then sink and cancel (`sink-views`), so that a whole network runs channels last and only its edges are
transposed; those at the edges are views, read in place.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from effcc.ir import Graph, Op, Value
from effcc.ops.reduction import convert
from effcc.passes.sink_views import SinkViews, apply
from effcc.pipeline import Context, Pass
from effcc.rewrite import BOUNDED, Rule, rewrite


def inward(rank: int) -> tuple[int, ...]:
    """N C spatial... -> N spatial... C"""
    return (0, *range(2, rank), 1)


def outward(rank: int) -> tuple[int, ...]:
    """N spatial... C -> N C spatial..."""
    return (0, rank - 1, *range(1, rank - 1))


class WindowLast(Rule):
    """window(x, ...) --> transpose(window(transpose(x), ...) {layout=nhwc})"""

    def moved(self, b: Any, op: Op, x: Value, *others: Value) -> Value:
        rank = x.tensor.rank
        inner = b.add(op.replace(layout="nhwc"), b.transpose(x, perm=inward(rank)), *others)
        return b.transpose(inner, perm=outward(rank))

    def check(self, m: Any, ctx: Any) -> str | None:
        return "it is channels last already" if m.root.op.layout == "nhwc" else None


def attributes(p: Any, op: str) -> dict[str, Any]:
    return p.any_attributes(op)


class ConvLast(WindowLast):
    """conv(x, w) --> transpose(conv(transpose(x), w) {layout=nhwc})"""

    def pattern(self, p: Any, x: Any, w: Any) -> Any:
        return p.op("conv", x, w, **attributes(p, "conv"))

    def rewrite(self, b: Any, m: Any) -> Any:
        return self.moved(b, m.root.op, m.x, m.w)


class ConvBiasLast(WindowLast):
    """conv(x, w, bias) --> transpose(conv(transpose(x), w, bias) {layout=nhwc})"""

    def pattern(self, p: Any, x: Any, w: Any, bias: Any) -> Any:
        return p.op("conv", x, w, bias, **attributes(p, "conv"))

    def rewrite(self, b: Any, m: Any) -> Any:
        return self.moved(b, m.root.op, m.x, m.w, m.bias)


class MaxPoolLast(WindowLast):
    """max_pool(x) --> transpose(max_pool(transpose(x)) {layout=nhwc})"""

    def pattern(self, p: Any, x: Any) -> Any:
        return p.op("max_pool", x, **attributes(p, "max_pool"))

    def rewrite(self, b: Any, m: Any) -> Any:
        return self.moved(b, m.root.op, m.x)


class AvgPoolLast(WindowLast):
    """avg_pool(x) --> transpose(avg_pool(transpose(x)) {layout=nhwc})"""

    def pattern(self, p: Any, x: Any) -> Any:
        return p.op("avg_pool", x, **attributes(p, "avg_pool"))

    def rewrite(self, b: Any, m: Any) -> Any:
        return self.moved(b, m.root.op, m.x)


@dataclass(frozen=True, eq=False)
class GroupNormOfTranspose(Rule):
    """group_norm(transpose(x, p), g, c) --> transpose(layer_norm(x) * g + c, p)     for one group"""

    contract = BOUNDED
    shares = True  # a transpose is a view: it may stay for its other readers

    parameters: int

    def pattern(self, p: Any, x: Any, g: Any, c: Any) -> Any:
        return apply(p, "group_norm", p.transpose(x, perm=p.any("perm")), *(g, c)[: self.parameters])

    def check(self, m: Any, ctx: Any) -> str | None:
        if m.root.op.groups != 1:
            return f"it has {m.root.op.groups} groups"
        return None if m.perm[0] == 0 else "the first axis moves"

    def rewrite(self, b: Any, m: Any) -> Any:
        rank, at = len(m.perm), m.perm[1]
        y = b.layer_norm(m.x, axis=1, eps=m.root.op.eps)
        for f, v in ((b.mul, "g"), (b.add, "c"))[: self.parameters]:
            value = convert(b, getattr(m, v), y.dtype)
            y = f(y, b.reshape(value, shape=(*value.shape, *(1,) * (rank - 1 - at))))
        return b.transpose(y, perm=m.perm)

    @property
    def name(self) -> str:
        return f"group_norm-of-transpose-{self.parameters}"

    def example(self, d: Any, b: Any) -> Any:
        d.kinds = "f"
        d.base_shape = (2, 3, d.integer(1, 3), 4)
        x = b.input("x", d.like(None))
        perm = d.choose(((0, 3, 1, 2), (0, 2, 1, 3), (0, 1, 3, 2), (3, 0, 1, 2)))
        turned = b.transpose(x, perm=perm)
        parameters = [b.input(name, turned.tensor.with_shape(turned.shape[1:2])) for name in "gc"[: self.parameters]]
        return b.group_norm(turned, *parameters, groups=d.choose((1, 1, turned.shape[1])))


class ChannelsLast(Pass):
    """Turn every window op to channels last, then let the transposes sink and cancel."""

    name = "channels-last"
    category = "lower"
    contract = "bounded"
    rules = (ConvLast(), ConvBiasLast(), MaxPoolLast(), AvgPoolLast(), *map(GroupNormOfTranspose, range(3)))

    def run(self, graph: Graph, ctx: Context) -> Graph:
        turned = rewrite(graph, self.rules[:4], ctx)
        return rewrite(turned, (*SinkViews.rules, *self.rules[4:]), ctx)
