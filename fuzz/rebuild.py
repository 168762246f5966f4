"""Graphs built again with something changed: the type rules infer every type anew.

    copy = Copy(graph)
    copy.nodes(graph.nodes)
    graph = copy.done()

`retype` and `resize` change dtypes and sizes wherever they stand.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from effcc.fuzz.pairs import nested
from effcc.ir import Builder, Graph, Node, Op, Symbol, Tensor, Value
from effcc.ir.blob import Blob
from effcc.ir.graph import symbols_in
from effcc.ir.types import DType, Type, type_symbols
from effcc.testing.draw import Drawer, NothingDrawn

SIZES = (0, 1, 2, 3, 17)
SYMBOLS = "NMKL"


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


def rebuilt(graph: Graph) -> Graph:
    """The same graph with its inputs named in order."""
    copy = Copy(graph)
    copy.nodes(graph.nodes)
    return copy.done()


def retype(d: Drawer, graph: Graph) -> Graph:
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


def resize(d: Drawer, graph: Graph) -> Graph:
    """A size becomes another, or a symbol, wherever it stands: in inputs, constants and attributes."""
    old = d.some(sorted({s for v in graph.inputs if isinstance(v.type, Tensor) for s in v.shape if isinstance(s, int)}))
    free = free_names(graph)
    new: Any = d.some(s for s in SIZES if s != old)
    if free and d.boolean():
        new = Symbol(free[0], min(old, d.choose((0, 1))), d.choose((None, 64)))
    attributes = d.chance(70)

    def sized(size: Any) -> Any:
        return new if isinstance(size, int) and not isinstance(size, bool) and size == old else size

    def changed(v: Value | None, type_: Type) -> Type:
        if not isinstance(type_, Tensor) or isinstance(new, Symbol) and v is None:
            return type_  # (constants have numbers)
        return type_.with_shape(tuple(map(sized, type_.shape)))

    return renewed(graph, changed, lambda x: sized(x) if attributes else x)


def free_names(*graphs: Graph) -> list[str]:
    """Names for symbols that some graphs do not have."""
    taken = {s.name for graph in graphs for s in symbols_in(graph)}
    return [name for name in SYMBOLS if name not in taken]


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


# -- what no type rule sees ------------------------------------------------------------------------
def require_known(graph: Graph, closed: bool = False) -> None:
    """NothingDrawn where nobody knows how often a loop runs, what a sequence holds or how large something is, as far as
    type rules rely on it. closed: the graph is nested, its sizes may be told outside of it."""
    require_counted(graph)
    require_sized(graph)
    if not closed:
        require_told(graph)


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


def require_told(graph: Graph, outside: frozenset[Symbol] = frozenset()) -> None:
    """NothingDrawn where an attribute, in a nested graph too, holds a size that neither an input nor an earlier op
    tells."""
    known = outside.union(*(type_symbols(v.type) for v in graph.inputs))
    for node in graph.nodes:
        known |= set(node.op.defines(*node.types))
        graphs = tuple(node.op.graphs().values())
        for graph_inside in graphs:
            require_told(graph_inside, known)
        if not node.sizes <= known | symbols_in(graphs):
            raise NothingDrawn("nobody tells a size")


def _number(node: Node | None) -> int | None:
    return int(node.op.blob.array) if node is not None and node.op.name == "const" else None  # type: ignore[attr-defined]
