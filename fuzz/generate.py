"""Well-typed graphs that nobody wrote, correct by construction: the registry's type rules decide, nothing is filtered.

`GraphDrawer(choose).graph()` draws a graph through one function `choose(options)`: a seeded generator in campaigns,
Hypothesis's in `effcc.fuzz.strategies`. Compared with the Drawer of `effcc.testing`, from which it takes types and
attributes, it prefers pairs of ops that were seen seldom, and adds branches, loops, symbolic sizes, donated inputs,
values that are computed twice or for nothing.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from effcc.errors import EffccError
from effcc.fuzz import state
from effcc.fuzz.domains import meaningful
from effcc.fuzz.near_miss import drawn, kinds, passes
from effcc.fuzz.pairs import Pair, Tried, pairs
from effcc.fuzz.surround import surrounded
from effcc.fuzz.vocabulary import Vocabulary, Word, own_vocabulary
from effcc.ir import Builder, Graph, Node, Op, Symbol, Tensor, Value, verify
from effcc.ir.assumptions import assumed
from effcc.ir.builder import inline
from effcc.ir.lazy import torch
from effcc.ir.location import UNKNOWN
from effcc.ir.op import op_class
from effcc.ir.types import Type, bool_, i64
from effcc.pipeline import Pass
from effcc.rewrite import Rule
from effcc.testing.draw import Drawer, NothingDrawn
from effcc.testing.operands import arity

NEAR_MISSES = 35
"""How many in a hundred graphs are made around rules."""
RULES_A_GRAPH = 2
"""How many rules' patterns stand in one of these."""
ATTEMPTS = 4
"""How often attributes and types of new operands are drawn for an op at one place before another place is tried."""

COMPARED = 8
"""Of how many pairs the one that was tried the least often is drawn."""
SOUGHT = 64
"""Of how many pairs the one that was looked for the least often is."""


class GraphDrawer(Drawer):
    """Draws graphs from a vocabulary; `tried` counts the pairs that were drawn, or could not be, and those that never
    were go first (None: any pair is as good as another). near_misses: how many in a hundred graphs are made
    around a rule's pattern instead (effcc.fuzz.near_miss), where the vocabulary is effcc's own."""

    def __init__(
        self, choose: Callable[[Any], Any], tried: Tried | None = None, vocabulary: Vocabulary | None = None,
        near_misses: int = NEAR_MISSES,
    ):
        super().__init__(choose)
        self.near_misses = near_misses if vocabulary is None else 0
        self.tried = tried
        self.vocabulary = vocabulary or own_vocabulary()
        self.drawn: list[Pair] = []
        """The pairs of the graph's words."""

    def graph(self, low: int = 1, high: int = 10) -> Graph:
        """A verified graph of `low` to `high` ops, constants apart."""
        near = self.around_a_rule(self.integer(low, high)) if self.chance(self.near_misses) else None
        graph = near or self.chain(self.integer(low, high))
        if self.chance(12):
            graph = self.or_same(symbolic, graph)
        if self.chance(8):
            graph = self.or_same(in_branch, graph)
        if self.chance(8):
            graph = self.or_same(in_loop, graph)
        if self.chance(10):
            graph = self.or_same(donated, graph)
        elif self.chance(12):
            graph = self.or_same(self.choose((state.carried, state.updated, state.counted)), graph)
        graph = meaningful(graph)
        verify(graph)
        return graph

    def around_a_rule(self, size: int) -> Graph | None:
        """A graph of `size` ops or more on which some rules of some passes fire, or nearly do; None where none was
        found."""
        found: list[Graph] = []
        for _ in range(RULES_A_GRAPH):
            try:
                graph = self.around(self.choose(passes()) if self.chance(10) else self.choose(self.choose(kinds())))
            except (EffccError, NothingDrawn):
                continue
            if not graph.symbols or not any(g.symbols for g in found):  # (each has an N of its own)
                found.append(graph)
        try:
            graph = surrounded(self, *found, size=size) if found else self.nothing("no rule was met")
        except (EffccError, NothingDrawn):
            return None
        self.drawn = pairs(graph)
        return graph

    def around(self, pattern: Rule | Pass) -> Graph:
        """A rule's pattern or a pass's example, or nearly."""
        self.base_shape, self.base_dtype = self.cube() if self.boolean() else self.shape(), self.choose(self.dtypes)
        return drawn(self, pattern)

    def cube(self) -> tuple[int, ...]:
        """A shape whose axes can be confused."""
        return (self.choose((2, 3, 4)),) * self.choose((2, 3))

    def or_same(self, change: Callable[[GraphDrawer, Graph], Graph], graph: Graph) -> Graph:
        """The changed graph, or the graph where the change does not apply."""
        try:
            changed = change(self, graph)
            verify(changed)
            return changed
        except (EffccError, NothingDrawn):
            return graph

    def chain(self, size: int) -> Graph:
        """Ops on earlier values, new inputs and constants; some results dead, some read several times."""
        b = Builder("fuzzed")
        pool: list[Value] = [b.input("x0", Tensor(self.base_dtype, self.base_shape))]
        makers: dict[Value, str] = {}
        if self.tried is not None and size > 1 and self.chance(60):
            self.pair(b, pool, makers)
        for _ in range(6 * size):
            count = sum(n.op.name != "const" for n in b.nodes)
            if count >= size:
                break
            if count and self.chance(5):  # once more the same, or nearly
                again = self.choose([n for n in b.nodes if n.op.name != "const"])
                results = self.nearly(b, again)
                makers.update(zip(results, (makers.get(r, "") for r in again.results), strict=True))
                pool.extend(results)
                continue
            made = [v for v in pool if v in makers] or pool
            reads = [self.choose(made[-6:]), self.choose(made if self.chance(85) else pool)]
            read, name = self.rare(reads, makers)
            self.word(b, name, pool, read, makers)
        used = {v for n in b.nodes for v in n.operands}
        tensors = [v for v in pool if isinstance(v.type, Tensor)]
        ends = [v for v in tensors if v not in used and v not in b.inputs] or tensors[-1:]
        kept = [v for v in ends if not self.chance(15)] or ends[:1]
        if self.chance(30):
            kept.append(self.choose(tensors))
        return b.graph(*dict.fromkeys(kept))

    def nearly(self, b: Builder, node: Node) -> tuple[Value, ...]:
        """The op once more: as it is, on its operands in the other order, or with attributes drawn anew."""
        op, operands = node.op, node.operands
        change = self.choose(("none", "order", "attributes"))
        try:
            if change == "order":
                return b.emit(op, operands[::-1])
            if change == "attributes" and not op.graphs() and op.family != "sequence":
                return b.emit(op.replace(**self.attributes(type(op), list(node.types), {})), operands)
        except (EffccError, ValueError, TypeError, IndexError):  # it does not take them so
            pass
        return b.emit(op, operands)

    def word(
        self, b: Builder, name: str, pool: list[Value], read: Value | None, makers: dict[Value, str]
    ) -> Node | None:
        """A node that is a word and reads a value (None: it reads new ones), and what it makes added to the pool; None
        where none was found."""
        before = len(b.nodes)
        try:
            node = self.apply(b, self.vocabulary[name], pool, read)
        except NothingDrawn:
            if self.tried is not None and read is not None:
                self.tried.refused[makers.get(read, ""), name] += 1
            return None
        for prepared in b.nodes[before:-1]:
            if prepared.op.name in self.vocabulary:
                makers.update(dict.fromkeys(prepared.results, prepared.op.name))
        found = [(makers[v], name) for v in dict.fromkeys(node.operands) if v in makers]
        self.drawn += found
        if self.tried is not None:
            read_by_others = [(makers[read], name)] if read in makers else []  # (where operands are prepared)
            self.tried.drawn.update({*found, *read_by_others})
        makers.update(dict.fromkeys(node.results, name))
        pool.extend(node.results)
        return node

    def pair(self, b: Builder, pool: list[Value], makers: dict[Value, str]) -> None:
        """Two words that were seldom tried together, one reading the other's result."""
        assert self.tried is not None
        names, reading = self.vocabulary.names, self.vocabulary.reading
        candidates = [(self.choose(names), self.choose(reading)) for _ in range(SOUGHT)]
        first, second = min(candidates, key=self.tried.rank)
        self.tried.sought[first, second] += 1
        self.joined(b, first, second, pool, makers, 4)

    def joined(
        self, b: Builder, first: str, second: str, pool: list[Value], makers: dict[Value, str], attempts: int
    ) -> bool:
        """Whether a word that reads the result of another was found and added."""
        for attempt in range(attempts):
            if attempt % 4:
                self.lean_to(self.vocabulary[second])
            maker = self.word(b, first, pool, None, makers)
            reads = [v for v in maker.results if second in self.vocabulary.readers(v)] if maker is not None else ()
            if reads and self.word(b, second, pool, self.choose(reads), makers) is not None:
                return True
            self.base_shape, self.base_dtype = self.shape(), self.choose(self.dtypes)
        return False

    def lean_to(self, word: Word) -> None:
        """Let new values be of a type that a word's operand may have."""
        cls = op_class(word.op)
        count = word.operands or arity(self, cls)
        with contextlib.suppress(NothingDrawn):
            _, types = self.application(cls, [None] * count, dict(word.given), ATTEMPTS)
            wanted = self.choose(types)
            if isinstance(wanted, Tensor) and wanted.is_static:
                self.base_dtype, self.base_shape = wanted.dtype, wanted.shape  # type: ignore[assignment]

    def rare(self, reads: Sequence[Value], makers: Mapping[Value, str]) -> tuple[Value, str]:
        """A value, and a word that may read it: one that was tried the least often after the value's maker."""
        if self.tried is None or self.chance(10):
            read = self.choose(reads)
            return read, self.choose(self.vocabulary.readers(read))
        weight, fitting = self.tried.weight, [(read, self.vocabulary.readers(read)) for read in reads]
        drawn = [(read, self.choose(names)) for read, names in fitting for _ in range(COMPARED)]
        return min(drawn, key=lambda pair: weight((makers.get(pair[0], ""), pair[1])))

    def apply(self, b: Builder, word: Word, pool: list[Value], read: Value | None) -> Node:
        """The op on `read` at a place that takes it, and on other values of the pool or new ones."""
        cls = op_class(word.op)
        if word.op in PREPARED and (read is None or isinstance(read.type, Tensor)):
            return self.prepared(b, word.op, read or self.leaf(b, Tensor(self.base_dtype, self.base_shape)))
        count = word.operands or arity(self, cls, read and read.type)
        named = min(count, len(cls.operands))  # (of many alike, any is as good as the first)
        able = [k for k in range(named) if takes_zero(cls, k)]  # (what is computed often is 0)
        places = [able[k] for k in self.permutation(len(able))][:2] if read is not None else (-1,)  # -1: nothing old
        for place, alone in [(p, alone) for p in places for alone in (False, True)]:
            given = [None if alone or read is None or not takes_zero(cls, k) else self.other(pool, read)
                     for k in range(count)]  # fmt: skip
            operands = [read if k == place else v for k, v in enumerate(given)]
            try:
                op, types = self.application(cls, [v and v.type for v in operands], dict(word.given), ATTEMPTS)
            except NothingDrawn:
                continue
            values = [v or Value(t) for v, t in zip(operands, types, strict=True)]
            node = Node(op, tuple(values), tuple(map(Value, op.result_types(types))), UNKNOWN)
            if not word.means(node) or assumed(node):  # (sizes that the data decide seldom equal others)
                continue
            if any(v is None and not is_given(t) for v, t in zip(operands, types, strict=True)):
                continue
            b.add(op, *(v or self.new(b, cls, t) for v, t in zip(operands, types, strict=True)))
            return b.nodes[-1]
        raise NothingDrawn(f"{word.op} cannot read {read.type if read is not None else 'new values'}")

    def prepared(self, b: Builder, name: str, read: Value) -> Node:
        """An op whose operands other ops make of a value."""
        if not read.tensor.rank:
            raise NothingDrawn(f"{name} takes a tensor with axes")
        try:
            PREPARED[name](self, b, read)
        except EffccError as error:
            raise NothingDrawn(f"{name} of {read.type}: {error}") from error
        return b.nodes[-1]

    def new(self, b: Builder, cls: type[Op], type_: Type) -> Value:
        """An input or a constant; positions in sequences are those that any but an empty one has."""
        if cls.family == "sequence" and type_ == Tensor(i64, ()):
            return b.const(self.choose((0, -1)), i64)
        return self.leaf(b, type_)

    def other(self, pool: list[Value], read: Value) -> Value | None:
        """Another operand: often a value of the same type, sometimes any, else none: a new one."""
        if self.chance(60):
            return self.choose([v for v in pool[-8:] if v.type == read.type] or [read])
        return self.choose(pool[-6:]) if self.chance(25) else None


def is_given(type_: Type) -> bool:
    """Whether an input or a constant may have the type."""
    return isinstance(type_, Tensor) and type_.is_static


def _searchsorted(d: GraphDrawer, b: Builder, x: Value) -> Any:
    ordered, _ = b.sort(x, axis=x.tensor.rank - 1)
    return b.searchsorted(ordered, x, right=d.boolean())


def _max_unpool(d: GraphDrawer, b: Builder, x: Value) -> Any:
    spatial = len(x.shape[2:])
    once, twice = (1,) * spatial, (2,) * spatial
    pooled = b.max_pool_with_indices(x, kernel=twice, strides=twice, pads=(0,) * 2 * spatial, dilations=once)
    return b.max_unpool(*pooled, sizes=x.shape[2:])


def _sequence_concat(d: GraphDrawer, b: Builder, x: Value) -> Any:
    count, axis, stacked = d.integer(1, 3), d.integer(0, x.tensor.rank - 1), d.boolean()
    size = count if stacked else count * x.shape[axis]
    return b.sequence_concat(b.sequence_construct(*[x] * count), axis=axis, size=size, new_axis=stacked)


def _on_sequence(name: str) -> Callable[[GraphDrawer, Builder, Value], Any]:
    def draw(d: GraphDrawer, b: Builder, x: Value) -> Any:
        xs = b.sequence_construct(*[x] * d.integer(1, 3))
        at = (b.const(d.choose((0, -1)), i64),) if name == "sequence_at" or d.boolean() else ()
        return b.emit(_op(name), (xs, x, *at) if name == "sequence_insert" else (xs, *at))

    return draw


PREPARED: dict[str, Callable[[GraphDrawer, Builder, Value], Any]] = {
    "sequence_at": _on_sequence("sequence_at"), "sequence_erase": _on_sequence("sequence_erase"),
    "sequence_insert": _on_sequence("sequence_insert"),
    "sequence_length": lambda d, b, x: b.sequence_length(b.sequence_construct(*[x] * d.integer(0, 3), element=x.type)),
    "optional_has_element": lambda d, b, x: b.optional_has_element(b.optional(x)),
    "optional_get_element": lambda d, b, x: b.optional_get_element(b.optional(x)),
    "searchsorted": _searchsorted, "max_unpool": _max_unpool, "sequence_concat": _sequence_concat,
}  # fmt: skip
"""Ops of operands that few values are, with how to make them of any."""


def symbolic(d: GraphDrawer, graph: Graph) -> Graph:
    """One size of the inputs, wherever it stands, becomes a symbol. EffccError where an op needs the number."""
    if graph.symbols:
        return d.nothing("it has symbols already")
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


def takes_zero(cls: type[Op], k: int) -> bool:
    """Whether an operand may be 0."""
    domain = cls.domain(k)
    return domain is None or domain.holds(torch.zeros(()))


def in_branch(d: GraphDrawer, graph: Graph) -> Graph:
    """The later part runs where a condition holds; else zeros of the same types."""
    part, captures, results, at = split(d, graph)
    other = Builder("other")
    given = {v: other.input(v.name, v.type) for v in captures}
    same = [next((g for g in given.values() if g.type == r.type), None) for r in results]
    lone = [r.type for g, r in zip(same, results, strict=True) if g is None]
    if not all(isinstance(t, Tensor) and t.is_static for t in lone):
        d.nothing("the other branch has no value of the type")
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
    return op_class(name)(**attributes)


