"""Well-typed graphs that nobody wrote, correct by construction: the registry's type rules decide, nothing is filtered.

`GraphDrawer(choose).graph()` draws a graph through one function `choose(options)`: a seeded generator in campaigns,
Hypothesis's in `effcc.fuzz.strategies`. Compared with the Drawer of `effcc.testing`, from which it takes types and
attributes, it prefers pairs of ops that were seen seldom, and adds branches, loops, symbolic sizes, donated inputs,
values that are computed twice or for nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from effcc.errors import EffccError
from effcc.ir import Builder, Graph, Node, Op, Symbol, Tensor, Value, load_ops, verify
from effcc.ir.builder import inline
from effcc.ir.types import bool_, i64
from effcc.testing.draw import Drawer, NothingDrawn, drawable_ops

ATTEMPTS = 6
"""How often attributes and other operands are drawn for an op before another op is."""

Pair = tuple[str, str]
"""An op and one that reads its result."""


def pairs(graph: Graph) -> list[Pair]:
    """The pairs of ops in a graph, those of nested graphs included."""
    found = []
    for g in nested(graph):
        for node in g.nodes:
            makers = (g.producer(v) for v in node.operands)
            found += [(m.op.name, node.op.name) for m in makers if m is not None and m.op.name != "const"]
    return found


def nested(graph: Graph) -> list[Graph]:
    """The graph and all graphs inside of it."""
    return [graph, *(g for node in graph.walk() for g in node.op.graphs().values())]


def readers() -> list[type[Op]]:
    """The ops that random graphs are made of: the registry's, but for those that need operands of a special making."""
    return drawable_ops()


class GraphDrawer(Drawer):
    """Draws graphs; `seen` counts the pairs of ops drawn so far, and is only read."""

    def __init__(self, choose: Callable[[Sequence[Any]], Any], seen: Mapping[Pair, int] | None = None):
        super().__init__(choose)
        self.seen = seen or {}

    def graph(self, low: int = 1, high: int = 10) -> Graph:
        """A verified graph of `low` to `high` ops, constants apart."""
        graph = self.chain(readers(), self.integer(low, high))
        if self.chance(12):
            graph = self.or_same(symbolic, graph)
        if self.chance(8):
            graph = self.or_same(in_branch, graph)
        if self.chance(8):
            graph = self.or_same(in_loop, graph)
        if self.chance(10):
            graph = self.or_same(donated, graph)
        verify(graph)
        return graph

    def or_same(self, change: Callable[[GraphDrawer, Graph], Graph], graph: Graph) -> Graph:
        """The changed graph, or the graph where the change does not apply."""
        try:
            changed = change(self, graph)
            verify(changed)
            return changed
        except (EffccError, NothingDrawn):
            return graph

    def chain(self, classes: Sequence[type[Op]], size: int) -> Graph:
        """Ops on earlier values, new inputs and constants; some results dead, some read several times."""
        b = Builder("fuzzed")
        pool: list[Value] = [b.input("x0", Tensor(self.base_dtype, self.base_shape))]
        makers: dict[Value, str] = {}
        count = attempts = 0
        while count < size and attempts < 6 * size:
            attempts += 1
            if count and self.chance(6):  # once more the same
                again = self.choose([n for n in b.nodes if n.op.name != "const"])
                pool.extend(b.emit(again.op, again.operands))
                count += 1
                continue
            read = self.choose(pool[-5:]) if self.chance(85) else self.choose(pool)
            cls = self.rare(classes, read, makers.get(read))
            try:
                node = self.apply(b, cls, pool, read)
            except NothingDrawn:
                continue
            count += 1
            makers.update(dict.fromkeys(node.results, cls.name))
            pool.extend(node.results)
        used = {v for n in b.nodes for v in n.operands}
        ends = [v for v in pool if v not in used and v not in b.inputs] or pool[-1:]
        kept = [v for v in ends if not self.chance(15)] or ends[:1]
        if self.chance(30):
            kept.append(self.choose(pool))
        return b.graph(*kept)

    def rare(self, classes: Sequence[type[Op]], read: Value, maker: str | None) -> type[Op]:
        """Of six ops that take the value's dtype the one that has read its maker's results the least often."""
        drawn = [self.choose(classes) for _ in range(6)]
        fitting = [cls for cls in drawn if read.dtype.kind in getattr(cls, "kinds", "fiub")] or drawn
        return min(fitting, key=lambda cls: self.seen.get((maker or "", cls.name), 0))

    def apply(self, b: Builder, cls: type[Op], pool: list[Value], read: Value) -> Node:
        """The op on `read` at a place that takes it, and on other values of the pool or new ones."""
        low, high = cls.arity()
        arity = self.integer(low, min(high if high is not None else low + 2, low + 2))
        operands: list[Value | None] = [None] * arity
        if arity:
            operands[self.integer(0, arity - 1)] = read
            operands = [v or (self.choose(pool[-6:]) if self.chance(35) else None) for v in operands]
        try:
            op, types = self.application(cls, [v and v.type for v in operands], {}, ATTEMPTS)
        except NothingDrawn:  # the other values do not fit it
            operands = [v if v is read else None for v in operands]
            op, types = self.application(cls, [v and v.type for v in operands], {}, ATTEMPTS)
        b.add(op, *(v or self.leaf(b, t) for v, t in zip(operands, types, strict=True)))
        return b.nodes[-1]


def symbolic(d: GraphDrawer, graph: Graph) -> Graph:
    """One size of the inputs, wherever it stands, becomes a symbol. EffccError where an op needs the number."""
    sizes = sorted({n for v in graph.inputs for n in v.shape})
    size = d.choose(sizes) if sizes else d.nothing("the inputs are scalars")
    symbol = Symbol("N", min(size, d.choose((0, 1))), d.choose((None, 64)))
    b = Builder(graph.name)
    values: dict[Value, Value] = {}
    for v in graph.inputs:
        values[v] = b.input(v.name, v.tensor.with_shape(tuple(symbol if n == size else n for n in v.shape)))
    for node in graph.nodes:
        values.update(zip(node.results, b.emit(node.op, tuple(values[v] for v in node.operands)), strict=True))
    return b.graph(*(values[v] for v in graph.results))


def split(d: GraphDrawer, graph: Graph) -> tuple[Graph, tuple[Value, ...], tuple[Value, ...], int]:
    """(the later part of the graph as a graph of its own, what it captures, what it gives, where it begins)"""
    at = d.integer(0, max(len(graph.nodes) - 1, 0))
    inside = graph.nodes[at:]
    made = {r for n in inside for r in n.results}
    captures = tuple(dict.fromkeys(v for n in inside for v in n.operands if v not in made))
    results = tuple(dict.fromkeys(v for v in graph.results if v in made))
    return Graph("part", captures, inside, results), captures, results, at


def in_branch(d: GraphDrawer, graph: Graph) -> Graph:
    """The later part runs where a condition holds; else zeros of the same types."""
    part, captures, results, at = split(d, graph)
    other = Builder("other")
    given = {v: other.input(v.name, v.type) for v in captures}
    same = [next((g for g in given.values() if g.type == r.type), None) for r in results]
    both = zip(same, results, strict=True)
    makers = [g or other.broadcast_to(other.const(0, r.dtype), shape=r.shape) for g, r in both]
    b = Builder(graph.name)
    condition = b.input("condition", Tensor(bool_, ()))
    values, nodes = _begin(b, graph, at)
    branch = _op("if", then=_renamed(part), orelse=other.graph(*makers))
    out = b.emit(branch, (condition, *(values[v] for v in captures)))
    values.update(zip(results, out, strict=True))
    return b.graph(*(values[v] for v in graph.results))


def in_loop(d: GraphDrawer, graph: Graph) -> Graph:
    """The later part runs up to three times, and its results of all rounds are stacked."""
    part, captures, results, at = split(d, graph)
    body = Builder("body")
    body.input("i", Tensor(i64, ()))
    going = body.input("going", Tensor(bool_, ()))
    out = inline(body, part, tuple(body.input(v.name, v.type) for v in captures))
    b = Builder(graph.name)
    values, _ = _begin(b, graph, at)
    rounds = d.integer(0, 3)
    loop = _op("loop", body=body.graph(going, *out), num_carried=0, length=rounds)
    stacked = b.emit(loop, (b.const(rounds, i64), b.const(True, bool_), *(values[v] for v in captures)))
    values.update(zip(results, stacked, strict=True))
    return b.graph(*(values[v] for v in graph.results))


def donated(d: GraphDrawer, graph: Graph) -> Graph:
    """A result takes the storage of an input of its type. VerifyError where that may not be."""
    fitting = [(k, j) for k, r in enumerate(graph.results) for j, v in enumerate(graph.inputs) if r.type == v.type]
    pair = d.choose(fitting) if fitting else d.nothing("no result has an input's type")
    return Graph(graph.name, graph.inputs, graph.nodes, graph.results, (pair,))


def _begin(b: Builder, graph: Graph, at: int) -> tuple[dict[Value, Value], tuple[Node, ...]]:
    """The inputs and the first nodes of a graph, built again."""
    values: dict[Value, Value] = {v: b.input(v.name, v.type) for v in graph.inputs}
    for node in graph.nodes[:at]:
        values.update(zip(node.results, b.emit(node.op, tuple(values[v] for v in node.operands)), strict=True))
    return values, graph.nodes[at:]


def _renamed(graph: Graph) -> Graph:
    """The graph with inputs of its own."""
    b = Builder(graph.name)
    return b.graph(*inline(b, graph, tuple(b.input(v.name, v.type) for v in graph.inputs)))


def _op(name: str, **attributes: Any) -> Op:
    return load_ops()[name](**attributes)


