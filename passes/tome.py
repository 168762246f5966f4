"""Tokens that are alike become one behind each attention, so that all layers behind it have less to do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from effcc.analysis.transformer import Refused, Stream, Sublayer, TokenAxis, streams, token_axis
from effcc.ir import Graph, Node, Value
from effcc.ir.location import UNKNOWN
from effcc.passes.token_merging import Rebuild, key_weights, log_weights, match, present
from effcc.pipeline import Context, Pass, Range


@dataclass(frozen=True)
class Layer:
    """One merge: behind `sublayer`, where the stream is `value`, r of n tokens go."""

    sublayer: Sublayer
    value: Value
    n: int
    r: int


class Tome(Pass):
    """Merge the r most similar pairs of tokens behind the attention of each layer (ToMe).

    r: how many tokens each layer merges away; a list such as 8+8+4 says it layer by layer (none behind its end).
    inflect: with one r, from r·(1 - inflect) at the first layer to r·(1 + inflect) at the last; -1: from 2r to 0.
    prop_attn: attend to a merged token as often as to those that it stands for.
    layers, skip: merge only in these layers, or not in these; 0 is the first attention.
    protect: how many leading tokens never merge; none: those that the graph treats apart (class token, registers).
    """

    name = "tome"
    category = "reduce-tokens"
    contract = "approximate; exact when r=0; bounded on duplicates when layers=0"
    source = "Bolya et al. 2023, Token Merging: Your ViT But Faster (arXiv:2210.09461)"
    searchable = {"r": Range(0, None)}
    choices = {
        "r": ((8,), (0,), (1,), (2,), (1, 2), (0, 1, 1)), "inflect": (0.0, -1.0, 1.0), "layers": ((), (0,), (1,)),
        "skip": ((), (0,)), "protect": (None, 0, 1, 100),
    }  # fmt: skip
    r: tuple[int, ...] = (8,)
    inflect: float = 0.0
    prop_attn: bool = True
    layers: tuple[int, ...] = ()
    skip: tuple[int, ...] = ()
    protect: int | None = None

    def __post_init__(self) -> None:
        if any(r < 0 for r in self.r):
            raise ValueError(f"r={'+'.join(map(str, self.r))} has a negative number of tokens")
        if len(self.r) > 1 and self.inflect:
            raise ValueError("inflect goes with one r, not with a list")
        if not -1 <= self.inflect <= 1:
            raise ValueError(f"inflect={self.inflect} is not between -1 and 1")

    def run(self, graph: Graph, ctx: Context) -> Graph:
        if not any(self.r):
            return graph
        count = sum(bool(s.attentions) for s in streams(graph))
        if not count:
            ctx.refused(self.name, UNKNOWN, "no attention sublayer found: x + f(x) with attention in f")
        for k in range(count):
            stream = [s for s in streams(graph) if s.attentions][k]
            try:
                graph = self.reduced(graph, stream, ctx)
            except Refused as why:
                ctx.refused(self.name, why.loc, why.reason)
        return graph

    def reduced(self, graph: Graph, stream: Stream, ctx: Context) -> Graph:
        """The graph with the tokens of one stream merged. Raises Refused."""
        axis = token_axis(graph, stream)
        plan = self.plan(axis)
        if not plan:
            raise Refused(f"no layer has tokens to merge: {axis.n} tokens, {self.protected(axis)} of them protected",
                          stream.attentions[0].loc)
        whole = self.rebuilt(axis, plan)
        granted = [layer for layer in plan if ctx.allow(self.name, layer.sublayer.loc)]
        if len(granted) == len(plan):
            return whole
        return self.rebuilt(axis, granted) if granted else graph

    def protected(self, axis: TokenAxis) -> int:
        return axis.special if self.protect is None else min(self.protect, axis.n)

    def schedule(self, depth: int) -> list[int]:
        """How many tokens each of `depth` layers shall merge."""
        if len(self.r) > 1:
            r = [*self.r[:depth], *[0] * (depth - len(self.r))]
        else:
            mean = self.r[0]  # type: ignore[misc]
            low = int(mean * (1 - self.inflect))
            step = 2 * (mean - low) / max(depth - 1, 1)
            r = [int(low + step * k) for k in range(depth)]
        return [n if (not self.layers or k in self.layers) and k not in self.skip else 0 for k, n in enumerate(r)]

    def plan(self, axis: TokenAxis) -> list[Layer]:
        attentions, n, plan = axis.stream.attentions, axis.n, []
        protected = self.protected(axis)
        for sublayer, wanted in zip(attentions, self.schedule(len(attentions)), strict=True):
            r = min(wanted, (n - protected) // 2)
            if r > 0 and sublayer is not axis.stream.sublayers[-1]:  # somebody must have less to do
                plan.append(Layer(sublayer, axis.stream.after(sublayer), n, r))
                n -= r
        return plan

    def rebuilt(self, axis: TokenAxis, plan: list[Layer]) -> Graph:
        """The graph with a plan's merges. Raises Refused."""
        waiting = list(plan)

        def behind(rebuild: Rebuild, node: Node) -> None:
            while waiting and any(v is waiting[0].value for v in node.results):
                self.merge(rebuild, waiting.pop(0))

        return Rebuild(axis.stream.graph, axis, bias=self.bias, fixed=self.protected(axis)).run(behind)

    def merge(self, rebuild: Rebuild, layer: Layer) -> None:
        attention = layer.sublayer.attention
        assert attention is not None
        if rebuild.epoch(attention.operands[1]) != len(rebuild.merges):
            raise Refused("the stream goes around a merge in front of this attention", attention.loc)
        if not rebuild.merges and len(attention.operands) > 3:
            rebuild.mask, rebuild.weights = attention.operands[3], key_weights(rebuild, attention)
        n = rebuild.tokens(len(rebuild.merges))
        positions = np.arange(self.protected(rebuild.axis), n)
        sources, targets = positions[positions % 2 == 0], positions[positions % 2 == 1]
        metric = rebuild.metric_of_keys(layer.sublayer, n)
        weights = rebuild.weights if rebuild.mask is not None else None
        rebuild.merge(layer.value, match(rebuild.b, metric, sources, targets, min(layer.r, len(sources)), weights))

    def bias(self, rebuild: Rebuild, attention: Node) -> Value | None:
        """What stands for the mask of an attention over merged tokens."""
        if (attention.operands[3] if len(attention.operands) > 3 else None) is not rebuild.mask:
            raise Refused("the mask of this attention is not that of the layers before it", attention.loc)
        assert rebuild.weights is not None
        if self.prop_attn:
            return log_weights(rebuild, attention, rebuild.weights)
        return None if rebuild.mask is None else present(rebuild, attention, rebuild.weights)

    def example(self, d: Any, b: Any) -> Any:
        from effcc.testing.transformer import small_transformer

        return small_transformer(d, b)

    def duplicates(self, d: Any, b: Any) -> Any:
        """A transformer each of whose tokens but the first is there twice, side by side: merging loses nothing."""
        from effcc.testing.transformer import small_transformer

        return small_transformer(d, b, twice=True)

