"""What a graph costs before any code exists: arithmetic and memory traffic, from the ops' loop nests.

    >>> from effcc.ir import Builder, Tensor, f32
    >>> b = Builder()
    >>> x, w = b.input("x", Tensor(f32, (8, 64))), b.input("w", Tensor(f32, (64, 16)))
    >>> cost(b.graph(b.matmul(x, w)))
    Cost(flops=16384, bytes=6656)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from effcc.ir.dims import Dim, Symbol, evaluate, substitute, upper_bound
from effcc.ir.graph import Graph, Node, Value
from effcc.ir.types import Tensor

MOVES_NOTHING = frozenset({"constant", "view"})
"""Families whose results are other views of what is there already."""


@dataclass(frozen=True)
class Cost:
    """flops: arithmetic on values. bytes: operands read and results written, once each."""

    flops: Dim
    bytes: Dim

    @property
    def intensity(self) -> float:
        """Operations a byte (Williams et al. 2009, the roofline model); both must be numbers."""
        assert isinstance(self.flops, int) and isinstance(self.bytes, int)
        return self.flops / max(self.bytes, 1)


def node_cost(node: Node) -> Cost:
    """The cost of one node run alone; views and constants cost nothing."""
    if node.op.family in MOVES_NOTHING:
        return Cost(0, 0)
    return Cost(node.op.flops(*node.types), bytes_of((*dict.fromkeys(node.operands), *node.results)))


def cost(graph: Graph, sizes: Mapping[Symbol, int] | None = None) -> Cost:
    """The sum over a graph's nodes, each run alone; a number where `sizes` binds all symbols."""
    costs = [node_cost(n) for n in graph.nodes]
    flops, traffic = total(c.flops for c in costs), total(c.bytes for c in costs)
    return Cost(substitute(flops, sizes or {}), substitute(traffic, sizes or {}))


def bytes_of(values: Iterable[Value]) -> Dim:
    """The bytes that tensors take together."""
    return total(v.type.nbytes for v in values if isinstance(v.type, Tensor))


def total(dims: Iterable[Dim]) -> Dim:
    out: Dim = 0
    for d in dims:
        out = d + out
    return out


@dataclass(frozen=True)
class LiveRange:
    """Where a value is made (a node's position; -1: an input) and read last (the graph's length: a result)."""

    start: int
    end: int


def live_ranges(graph: Graph) -> dict[Value, LiveRange]:
    """When each value must be in memory."""
    start = dict.fromkeys(graph.inputs, -1)
    end: dict[Value, int] = {}
    for k, node in enumerate(graph.nodes):
        start.update(dict.fromkeys(node.results, k))
        end.update(dict.fromkeys((*node.operands, *node.results), k))
    end.update(dict.fromkeys(graph.results, len(graph.nodes)))
    return {v: LiveRange(k, end.get(v, k)) for v, k in start.items()}


def peak_bytes(graph: Graph, sizes: Mapping[Symbol, int] | None = None) -> int:
    """The most bytes that values made by nodes take at one time, in the graph's order: no plan can do with less.

    Symbols that `sizes` does not bind count with their upper bounds.
    """
    changes = [0] * (len(graph.nodes) + 2)
    for v, live in live_ranges(graph).items():
        producer = graph.producer(v)
        if producer is None or producer.op.family in MOVES_NOTHING or not isinstance(v.type, Tensor):
            continue
        size = _number(v.type.nbytes, sizes or {})
        changes[live.start] += size
        changes[live.end + 1] -= size
    now = peak = 0
    for change in changes:
        now += change
        peak = max(peak, now)
    return peak


def _number(dim: Dim, sizes: Mapping[Symbol, int]) -> int:
    left = substitute(dim, sizes)
    bound = left if isinstance(left, int) else upper_bound(left)
    return evaluate(left, sizes) if bound is None else bound
