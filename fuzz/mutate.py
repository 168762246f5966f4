"""Mutations of graphs: what campaigns make of those that reached something new.

    GraphMutator(choose, others=graphs).mutate(graph)

Each mutator is a function from (drawer, graph) to another graph, built again from its nodes: the type rules infer every
type anew, and where one refuses (EffccError) or there is nothing to choose from (NothingDrawn), there is no mutation.
The changes that make near misses of rules' patterns are mutators as well (effcc.fuzz.near_miss).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from effcc.errors import EffccError
from effcc.fuzz.domains import meaningful
from effcc.fuzz.generate import ATTEMPTS, GraphDrawer, donated, in_branch, in_loop
from effcc.fuzz.near_miss import (
    UNDRAWABLE,
    constant_is_input,
    input_is_constant,
    other_attribute,
    other_constant,
    other_op,
    other_operands,
    other_shape,
)
from effcc.fuzz.pairs import Tried, nested
from effcc.fuzz.rebuild import Copy, free_names, rebuilt, require_known, resize, retype
from effcc.interp import bind_graph, bind_type
from effcc.ir import Builder, Graph, Node, Symbol, Tensor, Value, verify
from effcc.ir.graph import symbols_in
from effcc.ir.op import op_class
from effcc.ir.types import Type, type_symbols
from effcc.testing.draw import MAX_ELEMENTS, NothingDrawn
from effcc.testing.operands import arity

MOST_NODES, MOST_RESULTS = 24, 6
TRIES = 12
"""How many mutators are tried before a graph is given up."""


class GraphMutator(GraphDrawer):
    """Draws mutations; `others` are graphs to splice in."""

    def __init__(
        self, choose: Callable[[Any], Any], tried: Tried | None = None, others: Sequence[Graph] = (),
    ):
        super().__init__(choose, tried)
        self.others = others
        self.closed = False
        """Whether the graph being mutated is nested: its inputs are given."""

    def mutate(self, graph: Graph, times: int = 1) -> Graph:
        """The graph after some mutations, verified. NothingDrawn where none applies."""
        changed = graph
        for _ in range(TRIES):
            try:
                changed = self.mutated(self.choose(MUTATORS), changed)
            except (EffccError, NothingDrawn):
                continue
            times -= 1
            if not times:
                break
        return meaningful(changed) if changed != graph else self.nothing("no mutation applies")

    def mutated(self, mutator: Mutator, graph: Graph) -> Graph:
        """The graph after one mutation. EffccError or NothingDrawn where it does not apply."""
        changed = mutator(self, graph)
        if self.closed and [v.type for v in changed.inputs] != [v.type for v in graph.inputs]:
            return self.nothing("the inputs of a nested graph are given")
        if not all(isinstance(v.type, Tensor) for v in changed.results):
            return self.nothing("a result is no tensor")
        require_small(changed)
        require_known(changed, self.closed)
        verify(changed)
        return changed if changed != graph else self.nothing("it changes nothing")

    def leaf(self, b: Builder, type_: Type) -> Value:
        if isinstance(type_, Tensor) and type_.is_static and type_.dtype in self.dtypes:
            return b.const(self.blob(type_)) if self.closed else super().leaf(b, type_)
        return self.nothing("it is no type of constants") if self.closed else b.input(f"x{len(b.inputs)}", type_)


Mutator = Callable[[GraphMutator, Graph], Graph]


def require_small(graph: Graph) -> None:
    """NothingDrawn where a graph is larger than tests should be."""
    if sum(n.op.name != "const" for n in graph.walk()) > MOST_NODES or len(graph.results) > MOST_RESULTS:
        raise NothingDrawn("the graph grows too large")
    for g in nested(graph):
        for v in g.values:
            if isinstance(v.type, Tensor) and isinstance(n := v.type.size, int) and n > 4 * MAX_ELEMENTS:
                raise NothingDrawn(f"{v} grows too large")


def inner_nodes(graph: Graph) -> list[Node]:
    """The nodes that compute something."""
    return [n for n in graph.nodes if n.op.name != "const"]


# -- nodes -----------------------------------------------------------------------------------------
def insert(d: GraphMutator, graph: Graph) -> Graph:
    """x, f(x) --> y = g(x), f(y): an op on some value, whose later readers read its result."""
    at = d.integer(0, len(graph.nodes))
    copy = Copy(graph)
    copy.nodes(graph.nodes[:at])
    read = d.some(v for v in copy.values if isinstance(v.type, Tensor))
    made = applied(d, copy, graph, read)
    copy.values[read] = d.choose(made.results)
    copy.nodes(graph.nodes[at:])
    return copy.done()


def share(d: GraphMutator, graph: Graph) -> Graph:
    """A value has one reader more: the graph's result, or an op's whose result is."""
    copy = Copy(graph)
    copy.nodes(graph.nodes)
    read = d.some(v for v in copy.values if isinstance(v.type, Tensor))
    if d.boolean():
        return copy.done(copy.values[read])
    return copy.done(*applied(d, copy, graph, read).results)


def applied(d: GraphMutator, copy: Copy, graph: Graph, read: Value) -> Node:
    """An op on a value and others of the copy. Where sizes are symbols it is drawn for numbers in their place."""
    b, known = copy.b, list(copy.values.values())
    value, maker = copy.values[read], graph.producer(read)
    _, name = d.rare([value], {} if maker is None else {value: maker.op.name})
    word = d.vocabulary[name]
    if value.tensor.is_static:
        return d.apply(b, word, known, value)
    cls = op_class(word.op)
    count = word.operands or arity(d, cls, value.type)
    operands: list[Value | None] = [d.choose(known[-8:]) if d.chance(40) else None for _ in range(count)]
    operands[d.integer(0, count - 1)] = value
    op, types = d.application(cls, [v and numbered(v.type) for v in operands], dict(word.given), ATTEMPTS)
    b.add(op, *(v or d.leaf(b, t) for v, t in zip(operands, types, strict=True)))
    return b.nodes[-1]


def numbered(type_: Type) -> Type:
    """A type with a number in place of each symbol."""
    sizes = {s: max(s.lo, 3 if s.hi is None else min(3, s.hi)) for s in type_symbols(type_)}
    return bind_type(type_, sizes) if sizes else type_


def delete(d: GraphMutator, graph: Graph) -> Graph:
    """f(x) --> x, or another value or leaf of its type."""
    node = d.some(inner_nodes(graph))
    copy = Copy(graph)
    for n in graph.nodes:
        if n is not node:
            copy.node(n)
            continue
        for r in n.results:
            same = [v for v in copy.values if v.type == r.type]
            near = [v for v in n.operands if isinstance(v.type, Tensor)]
            options = [v for v in near if v in same] or (near if d.chance(30) else []) or same
            copy.values[r] = copy.values[d.choose(options)] if options else d.leaf(copy.b, r.type)
    return copy.done()


def duplicate(d: GraphMutator, graph: Graph) -> Graph:
    """A value is computed twice, with some of what it is computed from: a reader, or the world, reads the copy."""
    node = d.some(inner_nodes(graph))
    cone, wanted = [], set(node.results)
    for n in reversed(graph.nodes[:graph.nodes.index(node) + 1]):
        if wanted.intersection(n.results) and (n is node or d.chance(60)):
            cone.insert(0, n)
            wanted.update(n.operands)
    copy = Copy(graph)
    again: dict[Value, Value] = {}
    users = [u for r in node.results for u in graph.users(r)]
    reader = d.choose(users) if users and d.chance(60) else None
    for n in graph.nodes:
        if n is reader:
            kept = {r: copy.values[r] for r in again}
            copy.values.update(again)
            copy.node(n)
            copy.values.update(kept)
        else:
            copy.node(n)
        if n is node:
            for m in cone:
                results = copy.b.emit(m.op, tuple(again.get(v) or copy.values[v] for v in m.operands))
                again.update(zip(m.results, results, strict=True))
    return copy.done(*(() if reader else (again[r] for r in node.results)))


def inside(d: GraphMutator, graph: Graph) -> Graph:
    """A mutation of a branch or a loop's body."""
    node = d.some(n for n in graph.nodes if n.op.graphs() and n.op.name != "fused")
    name = d.choose(sorted(node.op.graphs()))
    was, d.closed = d.closed, True
    try:
        changed = d.mutate(node.op.graphs()[name])
    finally:
        d.closed = was
    copy = Copy(graph)
    for n in graph.nodes:
        copy.node(n, node.op.replace(**{name: changed}) if n is node else None)
    return copy.done()


# -- values ----------------------------------------------------------------------------------------
def forget(d: GraphMutator, graph: Graph) -> Graph:
    """A result is none any more, so that nodes are dead."""
    if len(graph.results) < 2:
        return d.nothing("a graph has results")
    at = d.integer(0, len(graph.results) - 1)
    return rebuilt(Graph(graph.name, graph.inputs, graph.nodes, graph.results[:at] + graph.results[at + 1:]))


def splice(d: GraphMutator, graph: Graph) -> Graph:
    """Two graphs become one: some inputs of the second, or all, are values of the first."""
    other = told_apart(d.some(d.others), graph)
    copy = Copy(graph)
    copy.nodes(graph.nodes)
    pool = [v for v in copy.values.values() if isinstance(v.type, Tensor)]
    values: dict[Value, Value] = {}
    linked = d.some(other.inputs)
    for v in other.inputs:
        same = [x for x in pool if x.type == v.type]
        if v is linked or same and d.chance(70):
            values[v] = d.some(same if same and d.chance(70) else pool)
        else:
            values[v] = copy.input(v.type)
    for node in other.nodes:
        values.update(zip(node.results, copy.b.emit(node.op, tuple(values[v] for v in node.operands)), strict=True))
    both = dict.fromkeys((*(copy.values[v] for v in graph.results), *(values[v] for v in other.results)))
    kept = [v for v in both if d.chance(60)] or list(both)
    return copy.b.graph(*kept[:MOST_RESULTS])


def told_apart(graph: Graph, beside: Graph) -> Graph:
    """A graph whose sizes have no name that another has for other ones."""
    known = {s.name: s for s in symbols_in(beside)}
    clash = [s for s in sorted(symbols_in(graph), key=str) if known.get(s.name, s) != s]
    free = free_names(graph, beside)
    if len(free) < len(clash):
        raise NothingDrawn("there are no more names for sizes")
    return bind_graph(graph, {s: Symbol(name, s.lo, s.hi) for s, name in zip(clash, free)}) if clash else graph


def mutating(change: Callable[[Any, Graph], Graph]) -> Mutator:
    """Any change of a graph as a mutator."""

    def mutator(d: GraphMutator, graph: Graph) -> Graph:
        try:
            return rebuilt(change(d, graph))
        except UNDRAWABLE as error:
            return d.nothing(f"it does not apply: {error}")

    mutator.__name__, mutator.__doc__ = change.__name__, change.__doc__
    return mutator


MUTATORS: tuple[Mutator, ...] = (
    insert, insert, share, delete, duplicate, inside, forget, splice,
    *map(mutating, (
        retype, resize, resize, other_shape, other_op, other_attribute, other_attribute, other_operands,
        other_constant, constant_is_input, input_is_constant, in_branch, in_loop, donated,
    )),
)  # fmt: skip
