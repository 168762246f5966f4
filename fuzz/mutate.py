"""Mutations of graphs: what campaigns make of those that reached something new.

    GraphMutator(choose, others=graphs).mutate(graph)

Each mutator is a function from (drawer, graph) to another graph, built again from its nodes: the type rules infer every
type anew, and where one refuses (EffccError) or there is nothing to choose from (NothingDrawn), there is no mutation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from effcc.errors import EffccError
from effcc.fuzz.domains import meaningful
from effcc.fuzz.generate import ATTEMPTS, GraphDrawer, donated, in_branch, in_loop
from effcc.fuzz.near_miss import free_names
from effcc.fuzz.pairs import Tried, nested
from effcc.interp import bind_graph, bind_type
from effcc.ir import Builder, Graph, Node, Op, Symbol, Tensor, Value, load_ops, verify
from effcc.ir.blob import Blob
from effcc.ir.graph import symbols_in
from effcc.ir.op import op_class
from effcc.ir.types import DType, Type, type_symbols
from effcc.testing.draw import MAX_ELEMENTS, NothingDrawn
from effcc.testing.operands import arity

MOST_NODES, MOST_RESULTS = 24, 6
SIZES = (0, 1, 2, 3, 17)
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
        require_counted(changed)
        require_sized(changed)
        if not self.closed:
            require_told(changed)
        verify(changed)
        return changed if changed != graph else self.nothing("it changes nothing")

    def some(self, options: Iterable[Any]) -> Any:
        """One of the options, if there are any."""
        listed = list(options)
        return self.choose(listed) if listed else self.nothing("there is nothing to choose from")

    def leaf(self, b: Builder, type_: Type) -> Value:
        fixed = isinstance(type_, Tensor) and type_.is_static and type_.dtype in self.dtypes
        if self.closed:
            return b.const(self.blob(type_)) if fixed else self.nothing("it is no type of constants")
        return super().leaf(b, type_) if fixed else b.input(f"x{len(b.inputs)}", type_)


Mutator = Callable[[GraphMutator, Graph], Graph]


def require_small(graph: Graph) -> None:
    """NothingDrawn where a graph is larger than tests should be."""
    if sum(n.op.name != "const" for n in graph.walk()) > MOST_NODES or len(graph.results) > MOST_RESULTS:
        raise NothingDrawn("the graph grows too large")
    for g in nested(graph):
        for v in g.values:
            if isinstance(v.type, Tensor) and v.type.is_static and v.type.size > 4 * MAX_ELEMENTS:
                raise NothingDrawn(f"{v} grows too large")


def require_counted(graph: Graph) -> None:
    """NothingDrawn where a loop may run another number of times than its `length` says, which no type rule can see."""
    for g in nested(graph):
        for node in g.nodes:
            length = getattr(node.op, "length", None) if node.op.name == "loop" else None
            if isinstance(length, int):
                body = node.op.graphs()["body"]
                trip, begins = (_number(g.producer(v)) for v in node.operands[:2])
                if trip != length or not begins or body.results[0] is not body.inputs[1]:
                    raise NothingDrawn("nobody knows how often the loop runs")


def require_sized(graph: Graph) -> None:
    """NothingDrawn where a sequence may be joined to another size than the op says."""
    for g in nested(graph):
        for node in g.nodes:
            if node.op.name != "sequence_concat":
                continue
            made, op = g.producer(node.operands[0]), node.op.attrs
            if made is None or made.op.name != "sequence_construct":
                raise NothingDrawn("nobody knows what a sequence holds")
            sizes = [1 if op["new_axis"] else v.shape[op["axis"]] for v in made.operands]
            if not sizes or sum(sizes[1:], sizes[0]) != op["size"]:
                raise NothingDrawn("the elements of a sequence have other sizes")


def require_told(graph: Graph) -> None:
    """NothingDrawn where an attribute holds a size that neither an input nor an earlier op tells."""
    known = set().union(*(type_symbols(v.type) for v in graph.inputs))
    for node in graph.nodes:
        known |= set(node.op.defines(*node.types))
        if not node.sizes <= known | symbols_in(tuple(node.op.graphs().values())):
            raise NothingDrawn("nobody tells a size")


def _number(node: Node | None) -> int | None:
    return int(node.op.blob.array) if node is not None and node.op.name == "const" else None  # type: ignore[attr-defined]


class Copy:
    """A graph being built again: `values` tells what its values have become."""

    def __init__(self, graph: Graph, type_of: Callable[[Value], Type] = lambda v: v.type):
        self.old, self.b = graph, Builder(graph.name)
        self.values: dict[Value, Value] = {v: self.input(type_of(v)) for v in graph.inputs}

    def input(self, type_: Type) -> Value:
        return self.b.input(f"x{len(self.b.inputs)}", type_)

    def node(self, node: Node, op: Op | None = None, operands: Sequence[Value] | None = None) -> None:
        """A node again; `operands` are values of the old graph."""
        given = tuple(self.values[v] for v in (node.operands if operands is None else operands))
        with self.b.at(node.loc):
            results = self.b.emit(op or node.op, given)
        if len(results) < len(node.results):
            raise NothingDrawn(f"{node.op.name} has fewer results")
        self.values.update(zip(node.results, results))  # (a loop may scan more than before)

    def nodes(self, nodes: Iterable[Node]) -> None:
        for node in nodes:
            self.node(node)

    def done(self, *more: Value) -> Graph:
        """The new graph; `more` are results besides. Aliases stay where the types still agree."""
        results = tuple(self.values[v] for v in self.old.results)
        aliases = tuple((i, j) for i, j in self.old.aliases if results[i].type == self.b.inputs[j].type)
        return self.b.graph(*results, *more, aliases=aliases)


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


def replace(d: GraphMutator, graph: Graph) -> Graph:
    """f(x) --> g(x), both of one family."""
    node = d.some(inner_nodes(graph))
    classes = [c for c in load_ops().values() if c.family == node.op.family and type(node.op) is not c and c.pure]
    op = redrawn(d, d.some(sorted(classes, key=lambda c: c.name)), node, {})
    copy = Copy(graph)
    for n in graph.nodes:
        copy.node(n, op if n is node else None)
    return copy.done()


def attribute(d: GraphMutator, graph: Graph) -> Graph:
    """f(x) {a=1} --> f(x) {a=2}: some attributes are drawn again, and all types that follow."""
    node = d.some(n for n in inner_nodes(graph) if n.op.attributes() and not n.op.graphs())
    kept = {name: value for name, value in node.op.attrs.items() if d.boolean()}
    op = redrawn(d, type(node.op), node, kept)
    copy = Copy(graph)
    for n in graph.nodes:
        copy.node(n, op if n is node else None)
    return copy.done()


def redrawn(d: GraphMutator, cls: type[Op], node: Node, given: dict[str, Any]) -> Op:
    """An op for a node's operands with all attributes but the given ones drawn."""
    op, types = d.application(cls, [numbered(t) for t in node.types], given, ATTEMPTS)
    return op if len(types) == len(node.types) else d.nothing("it takes other operands")


def rewire(d: GraphMutator, graph: Graph) -> Graph:
    """f(x, y) --> f(y, x), or f(x, z) for a value z from before: of y's type, or of another that fits."""
    node = d.some(n for n in inner_nodes(graph) if n.operands)
    before = [*graph.inputs, *(r for n in graph.nodes[:graph.nodes.index(node)] for r in n.results)]
    operands = list(node.operands)
    at = d.integer(0, len(operands) - 1)
    if len(operands) > 1 and d.boolean():
        other = d.integer(0, len(operands) - 1)
        operands[at], operands[other] = operands[other], operands[at]
    else:
        same = [v for v in before if v.type == operands[at].type and v is not operands[at]]
        operands[at] = d.some(same if same and d.chance(80) else before)
    copy = Copy(graph)
    for n in graph.nodes:
        copy.node(n, None, operands if n is node else None)
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
def retype(d: GraphMutator, graph: Graph) -> Graph:
    """Inputs and constants of one dtype get another, or one input alone."""
    old = d.some(dict.fromkeys(v.dtype for v in graph.inputs if isinstance(v.type, Tensor)))
    new = d.some(t for t in d.dtypes if t != old)
    alone = d.some(v for v in graph.inputs if isinstance(v.type, Tensor) and v.dtype == old) if d.chance(30) else None

    def changed(v: Value | None, type_: Type) -> Type:
        wanted = isinstance(type_, Tensor) and type_.dtype == old and alone in (None, v)
        return type_.with_dtype(new) if wanted else type_  # type: ignore[union-attr]

    if alone is not None:
        return renewed(graph, changed, lambda x: x)
    attributes = d.boolean()
    return renewed(graph, changed, lambda x: new if attributes and x == old and isinstance(x, DType) else x)


def resize(d: GraphMutator, graph: Graph) -> Graph:
    """A size becomes another, or a symbol, wherever it stands: in inputs, constants and attributes."""
    old = d.some(sorted({s for v in graph.inputs if isinstance(v.type, Tensor) for s in v.shape if isinstance(s, int)}))
    free = free_names(graph)
    new: Any = d.some(s for s in SIZES if s != old)
    if free and d.chance(30):
        new = Symbol(free[0], min(old, d.choose((0, 1))), d.choose((None, 64)))
    attributes = d.chance(70)

    def sized(size: Any) -> Any:
        return new if isinstance(size, int) and not isinstance(size, bool) and size == old else size

    def changed(v: Value | None, type_: Type) -> Type:
        if not isinstance(type_, Tensor) or isinstance(new, Symbol) and v is None:
            return type_  # (constants have numbers)
        return type_.with_shape(tuple(map(sized, type_.shape)))

    return renewed(graph, changed, lambda x: sized(x) if attributes else x)


def renewed(graph: Graph, type_of: Callable[[Value | None, Type], Type], size_of: Callable[[Any], Any]) -> Graph:
    """A graph with the types of inputs and constants (of which the value is None) changed, and what stands in
    attributes for sizes and dtypes; nested ones too."""
    copy = Copy(graph, lambda v: type_of(v, v.type))
    for node in graph.nodes:
        op = node.op
        if op.name == "const":
            copy.node(node, remade(op, type_of(None, node.result.type)))
            continue
        changes: dict[str, Any] = {k: renewed(g, type_of, size_of) for k, g in op.graphs().items()}
        for f in op.attributes():
            value = getattr(op, f.name)
            if "Dim" in str(f.type):
                changes[f.name] = tuple(map(size_of, value)) if isinstance(value, tuple) else size_of(value)
            elif isinstance(value, DType):
                changes[f.name] = size_of(value)
        copy.node(node, op.replace(**changes) if changes else op)
    return copy.done()


def remade(op: Any, type_: Type) -> Op:
    """A constant of another type: its elements again and again, those that the dtype lacks cut off."""
    import numpy as np

    blob: Blob = op.blob
    if type_ == blob.type or not isinstance(type_, Tensor):
        return op
    if not type_.is_static or blob.type.dtype.kind not in "fiub" or type_.encoding is not None:
        raise NothingDrawn(f"no constant is of type {type_}")
    array = np.zeros(1, blob.array.dtype) if blob.array.size == 0 else blob.array
    array = np.resize(array, type_.shape)  # type: ignore[arg-type]
    if type_.dtype != blob.type.dtype and not type_.dtype.is_float:
        array = np.clip(np.nan_to_num(array.astype(np.float64)), 0 if type_.dtype.kind in "ub" else -100, 100)
    return type(op)(Blob(array.astype(type_.dtype.numpy), type_.dtype))


def leaf_kind(d: GraphMutator, graph: Graph) -> Graph:
    """An input becomes a constant, or a constant an input."""
    constants = [n for n in graph.nodes if n.op.name == "const"]
    chosen = d.some([*constants, *(v for v in graph.inputs if isinstance(v.type, Tensor) and v.type.is_static)])
    copy = Copy(graph)
    for node in graph.nodes:
        if node is chosen:
            copy.values[node.result] = copy.input(node.result.type)
        else:
            copy.node(node)
    return constant_for(d, copy.done(), graph.inputs.index(chosen)) if isinstance(chosen, Value) else copy.done()


def constant_for(d: GraphMutator, graph: Graph, at: int) -> Graph:
    """The graph without one of its inputs, a constant in its place."""
    copy = Copy(Graph(graph.name, (*graph.inputs[:at], *graph.inputs[at + 1:]), graph.nodes, graph.results))
    copy.values[graph.inputs[at]] = copy.b.const(d.blob(graph.inputs[at].tensor))
    copy.nodes(graph.nodes)
    return copy.done()


def constant_data(d: GraphMutator, graph: Graph) -> Graph:
    """A constant of other data: often all the same, often a neutral element."""
    node = d.some(n for n in graph.nodes if n.op.name == "const" and n.result.tensor.encoding is None
                  and n.result.dtype in d.dtypes)
    copy = Copy(graph)
    for n in graph.nodes:
        copy.node(n, type(n.op)(d.blob(n.result.tensor)) if n is node else None)
    return copy.done()


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


def in_part(change: Callable[[GraphDrawer, Graph], Graph]) -> Mutator:
    """A change that wraps a part of a graph, as a mutator."""

    def mutator(d: GraphMutator, graph: Graph) -> Graph:
        return rebuilt(change(d, graph))

    mutator.__name__, mutator.__doc__ = change.__name__, change.__doc__
    return mutator


def rebuilt(graph: Graph) -> Graph:
    """The same graph with its inputs named in order."""
    copy = Copy(graph)
    copy.nodes(graph.nodes)
    return copy.done()


MUTATORS: tuple[Mutator, ...] = (
    insert, insert, share, delete, replace, attribute, attribute, rewire, duplicate, inside, retype, resize, resize,
    leaf_kind, constant_data, forget, splice, in_part(in_branch), in_part(in_loop), in_part(donated),
)  # fmt: skip
