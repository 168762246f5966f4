"""The private, mutable copy of a graph on which one pass works; users are kept up to date, and it is frozen once.

Recomputing users after each of 10,000 rewrites would be quadratic; here every edit costs what it touches.

>>> from effcc.ir import Builder, Tensor, f32
>>> b = Builder()
>>> x = b.input("x", Tensor(f32, (3,)))
>>> w = Workspace(b.graph(b.neg(b.neg(x))))
>>> last = list(w.items())[-1]
>>> w.replace(last, (x,))
>>> len(w.freeze().nodes)
0
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator

from effcc.errors import EffccError, TypeRuleError
from effcc.ir.blob import Blob
from effcc.ir.builder import OpBuilder
from effcc.ir.graph import Graph, Node, Value
from effcc.ir.location import UNKNOWN, Loc
from effcc.ir.op import Op


class Item:
    """A node under edit, linked to its neighbours in program order."""

    __slots__ = ("alive", "loc", "next", "op", "operands", "origin", "previous", "results")

    def __init__(
        self, op: Op, operands: tuple[Value, ...], results: tuple[Value, ...], loc: Loc, origin: Node | None = None,
    ):
        self.op, self.operands, self.results, self.loc, self.origin = op, operands, results, loc, origin
        self.previous: Item = self
        self.next: Item = self
        self.alive = True

    @property
    def result(self) -> Value:
        assert len(self.results) == 1, f"{self.op.name} has {len(self.results)} results"
        return self.results[0]

    def __repr__(self) -> str:
        return repr(Node(self.op, self.operands, self.results, self.loc))

    def node(self) -> Node:
        """Frozen again; the original node where nothing changed."""
        o = self.origin
        if o is not None and (o.op is self.op and o.operands == self.operands
                              and o.results == self.results and o.loc == self.loc):
            return o
        return Node(self.op, self.operands, self.results, self.loc)


class RewriteError(EffccError):
    """A rewrite that would break the graph (its rule is at fault, or does not apply here)."""


class Workspace:
    """A graph under edit."""

    def __init__(self, graph: Graph):
        self.graph = graph
        self.outputs: list[Value] = list(graph.results)
        self.changed = False
        self.lost_use: Callable[[Value], None] = lambda value: None
        """Called when a value loses a user: a driver looks at the others again."""
        self._producers: dict[Value, Item] = {}
        self._uses: dict[Value, dict[Item, int]] = {}
        self._output_uses: dict[Value, int] = {}
        self._end = Item(_End(), (), (), UNKNOWN)  # sentinel of the circular list
        for v in self.outputs:
            self._output_uses[v] = self._output_uses.get(v, 0) + 1
        for n in graph.nodes:
            self._link(Item(n.op, n.operands, n.results, n.loc, n), self._end)

    # -- reading -----------------------------------------------------------------------------------------------------
    def items(self) -> Iterator[Item]:
        """All nodes in order; the one just yielded may be erased, and others inserted before it."""
        item = self._end.next
        while item is not self._end:
            yield item
            item = item.next  # an erased node still knows what came after it
            while not item.alive:
                item = item.next

    def producer(self, value: Value) -> Item | None:
        return self._producers.get(value)

    def users(self, value: Value) -> tuple[Item, ...]:
        """The nodes that read a value, each once."""
        return tuple(self._uses.get(value, ()))

    def is_output(self, value: Value) -> bool:
        return value in self._output_uses

    def readers(self, value: Value) -> Collection[Item]:
        """The nodes that read a value, as a live view (users() is a copy)."""
        return self._uses.get(value, {}).keys()

    def is_used(self, value: Value) -> bool:
        return value in self._uses or value in self._output_uses

    def constant(self, value: Value) -> Blob | None:
        """The data of a value that a const makes."""
        item = self._producers.get(value)
        return item.op.blob if item is not None and item.op.name == "const" else None  # type: ignore[attr-defined]

    # -- editing -----------------------------------------------------------------------------------------------------
    def insert(self, op: Op, operands: tuple[Value, ...], before: Item | None = None, loc: Loc = UNKNOWN) -> Item:
        """Add a node before another (or at the end), its result types inferred."""
        item = Item(op, operands, tuple(Value(t) for t in op.result_types(tuple(v.type for v in operands))), loc)
        self._link(item, before or self._end)
        self.changed = True
        return item

    def place(self, item: Item, before: Item | None = None) -> None:
        """Link an item made elsewhere."""
        self._link(item, before or self._end)
        self.changed = True

    def move(self, item: Item, before: Item) -> None:
        """Change the order of two nodes; the caller sees to it that definitions stay before uses."""
        item.previous.next, item.next.previous = item.next, item.previous
        self._chain(item, before)
        self.changed = True

    def set_op(self, item: Item, op: Op) -> None:
        """Change attributes; the result types must stay."""
        types = op.result_types(tuple(v.type for v in item.operands))
        _require_types(types, tuple(v.type for v in item.results), op.name)
        item.op, self.changed = op, True

    def set_operands(self, item: Item, operands: tuple[Value, ...]) -> None:
        for v in item.operands:
            self._drop_use(v, item)
        item.operands, self.changed = operands, True
        for v in operands:
            self._add_use(v, item)

    def replace_all_uses(self, old: Value, new: Value) -> None:
        """Every reader of `old`, the graph's results included, reads `new`."""
        if old is new:
            return
        _require_types((new.type,), (old.type,), "a replacement")
        for item in self.users(old):
            self.set_operands(item, tuple(new if v is old else v for v in item.operands))
        count = self._output_uses.pop(old, 0)
        if count:
            self.outputs = [new if v is old else v for v in self.outputs]
            self._output_uses[new] = self._output_uses.get(new, 0) + count
        self.changed = True

    def replace(self, item: Item, values: Iterable[Value], fresh: Iterable[Item] = ()) -> None:
        """Replace a node by values of its results' types, erase it and what only it used.

        fresh: items made for this replacement. They take over the old result values, so that names stay and readers
        need no change.
        """
        values = tuple(values)
        _require_types(tuple(v.type for v in values), tuple(v.type for v in item.results), item.op.name)
        made = {id(f) for f in fresh}
        taken: dict[Value, Value] = {}
        for old, new in zip(item.results, values):
            new = taken.get(new, new)
            producer = self._producers.get(new)
            if producer is not None and id(producer) in made and new not in taken.values():
                self._rename(producer, new, old)
                taken[new] = old
            else:
                self.replace_all_uses(old, new)
        self._unlink(item, keep=set(taken.values()))
        self.changed = True
        for v in item.operands:
            self.erase_dead(v)

    def erase(self, item: Item) -> None:
        """Remove a node that nothing uses, and what only it used."""
        for r in item.results:
            if self.is_used(r):
                raise RewriteError(f"{item} is still used", where=item.loc)
        self._unlink(item)
        self.changed = True
        for v in item.operands:
            self.erase_dead(v)

    def erase_dead(self, value: Value) -> None:
        """Remove a value's producer if it is pure and nothing uses it, and so on upward."""
        stack = [value]
        while stack:
            item = self._producers.get(stack.pop())
            if item is None or not item.op.pure or any(self.is_used(r) for r in item.results):
                continue
            if self._tells_a_size(item):
                continue
            self._unlink(item)
            self.changed = True
            stack.extend(item.operands)

    def _tells_a_size(self, item: Item) -> bool:
        """Whether other nodes have sizes that this one defines."""
        defined = set(item.op.defines(*(v.type for v in item.operands)))
        return bool(defined) and any(other is not item and defined & other.node().sizes for other in self.items())

    def freeze(self) -> Graph:
        """The edited graph; the original one where nothing changed."""
        if not self.changed:
            return self.graph
        nodes = self._ordered([i.node() for i in self.items()])
        g = self.graph
        return Graph(g.name, g.inputs, tuple(nodes), tuple(self.outputs), g.aliases)

    def _ordered(self, nodes: list[Node]) -> list[Node]:
        """The same nodes, each after what it reads: they are, unless a pass moved some."""
        ready = set(self.graph.inputs)
        for n in nodes:
            if not ready.issuperset(n.operands):
                return topological_order(self.graph.inputs, nodes)
            ready.update(n.results)
        return nodes

    # -- links and uses ----------------------------------------------------------------------------------------------
    def _link(self, item: Item, before: Item) -> None:
        self._chain(item, before)
        for r in item.results:
            self._producers[r] = item
        for v in item.operands:
            self._add_use(v, item)

    @staticmethod
    def _chain(item: Item, before: Item) -> None:
        item.previous, item.next = before.previous, before
        before.previous.next = item
        before.previous = item

    def _unlink(self, item: Item, keep: Iterable[Value] = ()) -> None:
        item.previous.next, item.next.previous = item.next, item.previous
        item.alive = False
        for r in item.results:
            if r not in keep:
                self._producers.pop(r, None)
        for v in item.operands:
            self._drop_use(v, item)

    def _rename(self, producer: Item, new: Value, old: Value) -> None:
        """A fresh node's result becomes the old value itself."""
        for user in self.users(new):
            self.set_operands(user, tuple(old if v is new else v for v in user.operands))
        producer.results = tuple(old if r is new else r for r in producer.results)
        self._producers.pop(new, None)
        self._producers[old] = producer

    def _add_use(self, v: Value, item: Item) -> None:
        uses = self._uses.setdefault(v, {})
        uses[item] = uses.get(item, 0) + 1

    def _drop_use(self, v: Value, item: Item) -> None:
        uses = self._uses[v]
        uses[item] -= 1
        if not uses[item]:
            del uses[item]
            self.lost_use(v)
            if not uses:
                del self._uses[v]


class _End(Op):
    """The list's sentinel."""


class ItemBuilder(OpBuilder):
    """Collects new nodes that are linked into the workspace later, all at once or not at all."""

    def __init__(self, loc: Loc = UNKNOWN):
        self.loc = loc
        self.made: list[Item] = []

    def emit(self, op: Op, operands: tuple[Value, ...]) -> tuple[Value, ...]:
        for v in operands:
            if not isinstance(v, Value):
                raise TypeRuleError(f"{op.name}: operand {v!r} is not a value", where=self.loc)
        results = tuple(Value(t) for t in op.result_types(tuple(v.type for v in operands)))
        self.made.append(Item(op, operands, results, self.loc))
        return results


def _require_types(actual: tuple, wanted: tuple, what: str) -> None:
    if actual != wanted:
        before, after = (", ".join(map(str, types)) for types in (wanted, actual))
        raise RewriteError(f"{what} would change type from {before} to {after}")


def topological_order(inputs: Iterable[Value], nodes: list[Node]) -> list[Node]:
    """Nodes after what they read, otherwise in the given order (Kahn 1962, with a heap of positions)."""
    import heapq

    producer = {r: i for i, n in enumerate(nodes) for r in n.results}
    waits = [len({producer[v] for v in n.operands if v in producer}) for n in nodes]
    readers: dict[int, list[int]] = {}
    for i, n in enumerate(nodes):
        for p in {producer[v] for v in n.operands if v in producer}:
            readers.setdefault(p, []).append(i)
    heap = [i for i, w in enumerate(waits) if not w]
    out: list[Node] = []
    while heap:
        i = heapq.heappop(heap)
        out.append(nodes[i])
        for r in readers.get(i, ()):
            waits[r] -= 1
            if not waits[r]:
                heapq.heappush(heap, r)
    if len(out) != len(nodes):
        raise RewriteError("a rewrite made a cycle", where=next(n.loc for n, w in zip(nodes, waits) if w))
    return out
