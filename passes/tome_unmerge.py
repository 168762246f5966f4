"""Tokens merge in front of a sublayer and come apart behind it: the stream and the outputs keep all of them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from effcc.analysis.transformer import ATTENTION, MLP, Refused, Stream, Sublayer, TokenAxis, streams, token_axis
from effcc.ir import Graph, Node, Value, op_class
from effcc.ir.location import UNKNOWN
from effcc.passes.token_merging import Rebuild, key_weights, match, present
from effcc.pipeline import Context, Pass, Range
from effcc.rewrite.workspace import topological_order


@dataclass(frozen=True)
class Detour:
    """A sublayer whose nodes behind `entry` see merged tokens. alias: what stands for entry there."""

    sublayer: Sublayer
    entry: Value
    alias: Value


class TomeUnmerge(Pass):
    """x + f(norm(x)) --> x + unmerge(f(merge(norm(x)))), for some sublayers f (ToMe for diffusion).

    ratio: the share of tokens that merge away.
    sx, sy: one token of each cell of sx x sy stays, and the others may merge into it or into that of another cell.
    height: rows of the grid of tokens; none: a square if they fill one, else one row.
    seed: draw the token that stays of each cell by this seed, once, at compile time; none: the first.
    sublayers: attention, mlp or both (attention+mlp).
    layers, skip: only these of them, or not these; counted for each kind, from 0.
    protect: how many leading tokens never merge; none: those that the graph treats apart (class token, registers).
    """

    name = "tome-unmerge"
    category = "reduce-tokens"
    contract = ("approximate; exact when ratio=0; "
                "bounded on duplicates when sublayers=mlp and height=1 and sx=2 and seed=none and protect=1")
    source = "Bolya & Hoffman 2023, Token Merging for Fast Stable Diffusion (arXiv:2303.17604)"
    searchable = {"ratio": Range(0.0, 0.9, 0.05)}
    choices = {
        "sx": (2, 1, 3), "sy": (2, 1), "height": (None, 1, 2), "seed": (None, 0),
        "sublayers": ((ATTENTION,), (MLP,), (ATTENTION, MLP)), "layers": ((), (0,)), "skip": ((), (0,)),
        "protect": (None, 0, 1, 100),
    }  # fmt: skip
    ratio: float = 0.5
    sx: int = 2
    sy: int = 2
    height: int | None = None
    seed: int | None = None
    sublayers: tuple[str, ...] = (ATTENTION,)
    layers: tuple[int, ...] = ()
    skip: tuple[int, ...] = ()
    protect: int | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.ratio <= 1:
            raise ValueError(f"ratio={self.ratio} is not between 0 and 1")
        if self.sx < 1 or self.sy < 1 or (self.height is not None and self.height < 1):
            raise ValueError("sx, sy and height count from 1")
        if unknown := set(self.sublayers) - {ATTENTION, MLP}:
            raise ValueError(f"sublayers={'+'.join(sorted(unknown))}: write attention, mlp or attention+mlp")

    def run(self, graph: Graph, ctx: Context) -> Graph:
        if not self.ratio:
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
        """The graph with sublayers of one stream on merged tokens. Raises Refused."""
        axis = token_axis(graph, stream)
        sources, targets = self.cells(axis)
        r = min(int((len(sources) + len(targets)) * self.ratio), len(sources))
        if r == 0:
            raise Refused(f"no tokens to merge: {axis.n} tokens, ratio {self.ratio}", stream.attentions[0].loc)
        chosen = []
        for s in self.chosen(stream):
            if _read_inside(graph, s):
                ctx.refused(self.name, s.loc, "something behind this sublayer reads tokens inside of it")
            elif ctx.allow(self.name, s.loc):
                chosen.append(s)
        return self.rebuilt(axis, chosen, sources, targets, r) if chosen else graph

    def chosen(self, stream: Stream) -> list[Sublayer]:
        out = []
        for kind in self.sublayers:
            same = [s for s in stream.sublayers if s.kind == kind]
            out += [s for k, s in enumerate(same) if (not self.layers or k in self.layers) and k not in self.skip]
        return out

    def cells(self, axis: TokenAxis) -> tuple[np.ndarray, np.ndarray]:
        """(tokens that may merge away, the one token of each cell that stays), ascending."""
        first = axis.special if self.protect is None else min(self.protect, axis.n)
        count = axis.n - first
        side = math.isqrt(count)
        height = self.height or (side if side * side == count > 0 else 1)
        if count % height:
            raise Refused(f"{count} tokens do not fill a grid of {height} rows: give another height=",
                          axis.stream.attentions[0].loc)
        grid = np.arange(first, axis.n).reshape(height, count // height)
        draw = None if self.seed is None else np.random.default_rng(self.seed)
        sy, sx = min(self.sy, height), min(self.sx, max(grid.shape[1], 1))
        stay = []
        for row in range(0, height - sy + 1, sy):
            for column in range(0, grid.shape[1] - sx + 1, sx):
                down, right = (0, 0) if draw is None else (draw.integers(sy), draw.integers(sx))
                stay.append(grid[row + down, column + right])
        targets = np.sort(np.asarray(stay, "i8"))
        return np.setdiff1d(grid.reshape(-1), targets), targets

    def rebuilt(self, axis: TokenAxis, chosen: list[Sublayer], sources: np.ndarray, targets: np.ndarray, r: int,
                ) -> Graph:
        graph, detours = with_aliases(axis, chosen)
        entered = {d.alias: d for d in detours}
        left = {d.sublayer.branch: d for d in detours}

        def behind(rebuild: Rebuild, node: Node) -> None:
            for v in node.results:
                if v in entered:
                    sublayer = entered[v].sublayer
                    if sublayer.attention is not None and len(sublayer.attention.operands) > 3:
                        rebuild.mask = sublayer.attention.operands[3]
                        rebuild.weights = key_weights(rebuild, sublayer.attention)
                    metric = rebuild.rows(sublayer.source, axis.n)
                    rebuild.merge(v, match(rebuild.b, metric, sources, targets, r, rebuild.weights))
                elif v in left:
                    rebuild.values[v] = rebuild.restored(v)
                    rebuild.epochs.pop(v, None)  # what read all tokens on the way had them put back already
                    rebuild.merges, rebuild.weights, rebuild.mask = [], None, None

        rebuilt = Rebuild(graph, axis, bias=bias).run(behind)
        return rebuilt.with_nodes(tuple(topological_order(graph.inputs, list(rebuilt.nodes))))  # masks come late

    def example(self, d: Any, b: Any) -> Any:
        from effcc.testing.transformer import small_transformer

        return small_transformer(d, b)

    def duplicates(self, d: Any, b: Any) -> Any:
        """A transformer each of whose tokens but the first is there twice: an MLP on one of both loses nothing."""
        from effcc.testing.transformer import small_transformer

        return small_transformer(d, b, twice=True)


def bias(rebuild: Rebuild, attention: Node) -> Value | None:
    """What stands for the mask of an attention over merged tokens: those are masked that consist of masked ones."""
    if rebuild.mask is None:
        return None
    assert rebuild.weights is not None
    return present(rebuild, attention, rebuild.weights)


def with_aliases(axis: TokenAxis, chosen: list[Sublayer]) -> tuple[Graph, list[Detour]]:
    """The graph in which each sublayer reads a copy of its normalised input, so that this one alone can be merged."""
    graph = axis.stream.graph
    detours, entries = [], {}
    for s in chosen:
        entry = entry_of(graph, s)
        detours.append(Detour(s, entry, Value(entry.type)))
        entries.setdefault(entry, []).append(detours[-1])
    nodes: list[Node] = []

    def copies(value: Value) -> None:
        for d in entries.get(value, ()):
            nodes.append(Node(op_class("identity")(), (value,), (d.alias,), d.sublayer.loc))
            for course in (axis.course, axis.sequences):
                if course is not None and value in course.places:
                    course.places[d.alias] = course.places[value]

    for v in graph.inputs:
        copies(v)
    for node in graph.nodes:
        for d in detours:
            if node in d.sublayer.nodes and d.entry in node.operands:
                operands = tuple(d.alias if v is d.entry else v for v in node.operands)
                node = Node(node.op, operands, node.results, node.loc)
                break
        nodes.append(node)
        for v in node.results:
            copies(v)
    return Graph(graph.name, graph.inputs, tuple(nodes), graph.results, graph.aliases), detours


def entry_of(graph: Graph, sublayer: Sublayer) -> Value:
    """Where tokens are merged: behind the norm that a sublayer begins with, or its source where there is none."""
    inside = [n for n in graph.users(sublayer.source) if n in sublayer.nodes]
    one = inside[0] if len(inside) == 1 else None
    if one is not None and one.op.family == "normalization" and one.operands[0] is sublayer.source:
        return one.result
    return sublayer.source


def _read_inside(graph: Graph, sublayer: Sublayer) -> bool:
    """Whether a value inside of a sublayer has readers outside."""
    made = {v for n in sublayer.nodes for v in n.results if v is not sublayer.branch}
    outside = any(n not in sublayer.nodes for v in made for n in graph.users(v))
    return outside or any(v in made for v in graph.results)
