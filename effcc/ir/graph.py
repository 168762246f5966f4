"""Values, nodes and graphs: immutable SSA dataflow.

A value knows its type and nothing of its producer, so graphs of any depth hash, pickle and print without recursion.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from effcc.errors import VerifyError
from effcc.ir.dims import Atom, Expr, Symbol, symbols
from effcc.ir.location import UNKNOWN, Loc
from effcc.ir.op import Op, graph_attributes, size_attributes
from effcc.ir.types import Tensor, Type, type_symbols

_ids = itertools.count()


@dataclass(frozen=True, eq=False, slots=True)
class Value:
    """An SSA value: a type, an optional name for people, an identity."""

    type: Type
    name: str = ""
    id: int = field(default_factory=lambda: next(_ids))

    def __repr__(self) -> str:
        return f"%{self.name or self.id}: {self.type}"

    @property
    def tensor(self) -> Tensor:
        """Its type, known to be a tensor."""
        assert isinstance(self.type, Tensor), f"{self} is not a tensor"
        return self.type

    @property
    def shape(self) -> tuple[Any, ...]:
        return self.tensor.shape

    @property
    def dtype(self) -> Any:
        return self.tensor.dtype


@dataclass(frozen=True, eq=False, slots=True)
class Node:
    """An op applied to operands."""

    op: Op
    operands: tuple[Value, ...]
    results: tuple[Value, ...]
    loc: Loc = UNKNOWN

    @property
    def result(self) -> Value:
        assert len(self.results) == 1, f"{self.op.name} has {len(self.results)} results"
        return self.results[0]

    @property
    def types(self) -> tuple[Type, ...]:
        return tuple(v.type for v in self.operands)

    @property
    def sizes(self) -> set[Symbol]:
        """The size symbols in the types of its results and in its attributes."""
        return set().union(*(type_symbols(v.type) for v in self.results), symbols_in(self.op))

    def __repr__(self) -> str:
        operands = ", ".join(f"%{v.name or v.id}" for v in self.operands)
        return f"{', '.join(map(repr, self.results))} = {self.op.name}({operands})"


@dataclass(frozen=True, eq=False)
class Graph:
    """Inputs, nodes in topological order, results. Nested graphs see nothing but their inputs.

    aliases: (result, input) pairs of positions: that result is the input's storage, updated in place.
    """

    name: str
    inputs: tuple[Value, ...]
    nodes: tuple[Node, ...]
    results: tuple[Value, ...]
    aliases: tuple[tuple[int, int], ...] = ()

    @cached_property
    def _producers(self) -> dict[Value, Node]:
        return {r: n for n in self.nodes for r in n.results}

    @cached_property
    def _users(self) -> dict[Value, tuple[Node, ...]]:
        users: dict[Value, list[Node]] = {}
        for node in self.nodes:
            for v in dict.fromkeys(node.operands):
                users.setdefault(v, []).append(node)
        return {v: tuple(nodes) for v, nodes in users.items()}

    def producer(self, value: Value) -> Node | None:
        """The node that makes a value; None for inputs."""
        return self._producers.get(value)

    def users(self, value: Value) -> tuple[Node, ...]:
        """The nodes that read a value, each once, in order."""
        return self._users.get(value, ())

    @cached_property
    def values(self) -> tuple[Value, ...]:
        return (*self.inputs, *(r for n in self.nodes for r in n.results))

    @cached_property
    def symbols(self) -> tuple[Any, ...]:
        """The size symbols that occur in any type, by name."""
        found = set().union(*(type_symbols(v.type) for v in self.values)) if self.values else set()
        return tuple(sorted(found, key=lambda s: s.name))

    @cached_property
    def op_names(self) -> frozenset[str]:
        """Of all nodes, those of nested graphs included."""
        return frozenset(node.op.name for node in self.walk())

    def walk(self) -> Iterator[Node]:
        """Every node, those of nested graphs included, outer before inner."""
        stack: list[Graph] = [self]
        while stack:
            graph = stack.pop()
            for node in graph.nodes:
                yield node
                stack.extend(getattr(node.op, name) for name in graph_attributes(type(node.op)))

    def with_nodes(self, nodes: tuple[Node, ...]) -> Graph:
        return Graph(self.name, self.inputs, nodes, self.results, self.aliases)

    def __eq__(self, other: object) -> bool:
        """Structural equality: the same ops, attributes, types and wiring; names and locations do not count."""
        return self is other or (isinstance(other, Graph) and self._key == other._key)

    def __hash__(self) -> int:
        return hash(self._key)

    @cached_property
    def _key(self) -> tuple[Any, ...]:
        number: Mapping[Value, int] = {v: i for i, v in enumerate(self.values)}
        try:
            nodes = tuple(
                (n.op, tuple(number[v] for v in n.operands), tuple(r.type for r in n.results)) for n in self.nodes
            )
            return (tuple(v.type for v in self.inputs), nodes, tuple(number[v] for v in self.results), self.aliases)
        except KeyError as error:
            raise VerifyError(f"value {error.args[0]!r} is used but not defined", where=f"graph @{self.name}") from None

    def __str__(self) -> str:
        from effcc.text import print_graph

        return print_graph(self)


def symbols_in(value: object) -> set[Symbol]:
    """Every size symbol in an op's attributes, or in one: a dimension, a type, a graph, a tuple of such."""
    if isinstance(value, Op):  # (most often, and most have none)
        names = size_attributes(type(value))
        return set().union(*(symbols_in(getattr(value, name)) for name in names)) if names else set()
    match value:
        case int() | float() | str() | None:
            return set()
        case Expr() | Atom():
            return symbols(value)  # type: ignore[arg-type]
        case tuple():
            return set().union(*(symbols_in(v) for v in value if type(v) is not int))
        case Type():
            return type_symbols(value)
        case Graph():
            return set(value.symbols).union(*(symbols_in(node.op) for node in value.nodes))
    return set()
