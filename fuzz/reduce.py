"""Making a failing graph small: fewer results, fewer nodes, smaller sizes, as long as it still fails the same way.

Greedy, from large steps to small ones (Zeller & Hildebrandt 2002, "Simplifying and Isolating Failure-Inducing Input");
then the list of passes, one by one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence

from effcc.errors import EffccError
from effcc.ir import Builder, Graph, Node, Tensor, Value, verify
from effcc.ir.dims import Dim
from effcc.ir.types import Type

Fails = Callable[[Graph], bool]


def reduce_graph(graph: Graph, fails: Fails, seconds: float = 30.0) -> Graph:
    """The smallest graph found in time on which `fails` still holds."""
    deadline = time.monotonic() + seconds
    improved = True
    while improved and time.monotonic() < deadline:
        improved = False
        for candidate in smaller(graph):
            if time.monotonic() > deadline:
                break
            if weight(candidate) < weight(graph) and fails(candidate):
                graph, improved = candidate, True
                break
    return graph


def reduce_list(items: Sequence[str], fails: Callable[[Sequence[str]], bool]) -> tuple[str, ...]:
    """A shortest sublist, found by leaving one out at a time, that still fails."""
    kept = tuple(items)
    k = 0
    while k < len(kept):
        shorter = kept[:k] + kept[k + 1:]
        if fails(shorter):
            kept = shorter
        else:
            k += 1
    return kept


def weight(graph: Graph) -> tuple[int, int, int]:
    """What reduction makes smaller: nodes first (nested ones too), then results and inputs, then sizes."""
    shapes = [v.shape for v in graph.values if isinstance(v.type, Tensor)]
    elements = sum(d if isinstance(d, int) else 1 for shape in shapes for d in shape)
    return sum(1 for _ in graph.walk()), len(graph.results) + len(graph.inputs), elements


def smaller(graph: Graph) -> Iterator[Graph]:
    """Well-typed graphs with something less, the largest cuts first."""
    for results in _fewer(graph.results):
        yield from _rebuilt(graph, results)
    for size in (max(len(graph.nodes) // 2, 1), 1):
        for start in range(0, len(graph.nodes), size):
            cut = graph.nodes[start: start + size]
            yield from _rebuilt(graph, graph.results, cut=cut)
    for node in graph.nodes:
        for v in node.operands:
            for r in node.results:
                if r.type == v.type:
                    yield from _rebuilt(graph, graph.results, instead={r: v})
        for inner in node.op.graphs().values():
            yield from _inlined(graph, node, inner)
    for size in sorted({d for v in graph.inputs if isinstance(v.type, Tensor) for d in v.shape if isinstance(d, int)}):
        for less in (1, 2, 3, size // 2, size - 1):
            if 0 <= less < size:
                yield from _rebuilt(graph, graph.results, resize=(size, less))
    if graph.aliases:
        yield Graph(graph.name, graph.inputs, graph.nodes, graph.results)


def _fewer(results: tuple[Value, ...]) -> Iterator[tuple[Value, ...]]:
    if len(results) > 1:
        yield from ((r,) for r in results)
        yield from (results[:k] + results[k + 1:] for k in range(len(results)))


def _rebuilt(
    graph: Graph, results: tuple[Value, ...], cut: tuple[Node, ...] = (), instead: dict[Value, Value] | None = None,
    resize: tuple[int, int] | None = None,
) -> Iterator[Graph]:
    """The graph of what `results` need: the results of `cut` become inputs, others give way to a value `instead`, one
    size is another. Nothing where the type rules refuse that."""
    cut_results = {r for n in cut for r in n.results}
    instead = instead or {}
    needed = _needed(graph, results, cut_results, instead)
    b = Builder(graph.name)
    values: dict[Value, Value] = {}
    try:
        for v in graph.inputs:
            if v in needed:
                values[v] = b.input(v.name, _resized(v.type, resize))
        for node in graph.nodes:
            if not any(r in needed for r in node.results):
                continue
            if node in cut:
                for k, r in enumerate(node.results):
                    if r in needed:
                        values[r] = b.input(f"cut{len(b.inputs)}_{k}", _resized(r.type, resize))
                continue
            operands = tuple(values[instead.get(v, v)] for v in node.operands)
            for old, new in zip(node.results, b.emit(node.op, operands), strict=True):
                values[old] = new
        reduced = b.graph(*(values[instead.get(r, r)] for r in results))
        verify(reduced)
        yield reduced
    except (EffccError, KeyError):
        return


def _needed(graph: Graph, results: tuple[Value, ...], cut: set[Value], instead: dict[Value, Value]) -> set[Value]:
    needed: set[Value] = set()
    stack = [instead.get(r, r) for r in results]
    while stack:
        v = stack.pop()
        if v in needed:
            continue
        needed.add(v)
        node = graph.producer(v)
        if node is not None and v not in cut:
            stack.extend(instead.get(o, o) for o in node.operands)
    return needed


def _inlined(graph: Graph, node: Node, inner: Graph) -> Iterator[Graph]:
    """The inner graph of a node alone, its inputs the graph's."""
    b = Builder(graph.name)
    values = {v: b.input(v.name or f"x{k}", v.type) for k, v in enumerate(inner.inputs)}
    try:
        for each in inner.nodes:
            values.update(zip(each.results, b.emit(each.op, tuple(values[v] for v in each.operands)), strict=True))
        alone = b.graph(*(values[v] for v in inner.results))
        verify(alone)
        yield alone
    except (EffccError, KeyError):
        return


def _resized(type_: Type, resize: tuple[int, int] | None) -> Type:
    if resize is None or not isinstance(type_, Tensor):
        return type_
    old, new = resize
    shape: tuple[Dim, ...] = tuple(new if d == old else d for d in type_.shape)
    return type_.with_shape(shape)
