"""Inputs and constants on which graphs have a meaning: what an op's operand must be (`Op.domains`) is drawn so.

    graph = meaningful(graph)                      # its constants
    inputs = meaningful_inputs(graph, inputs)

Values that are computed may still stray from it; `watched` tells.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from effcc.interp import observed
from effcc.ir import Graph, Node, Value
from effcc.ir.blob import Blob
from effcc.ir.domain import Domain
from effcc.ops.constant import Const


def domains(graph: Graph) -> dict[Value, list[Domain]]:
    """What values must be because ops read them, or what views make of them."""
    found: dict[Value, list[Domain]] = {}
    for node in reversed(graph.nodes):
        for k, v in enumerate(node.operands):
            domain = node.op.domain(k)
            needed = [domain] if domain else found.get(node.results[0], ()) if node.op.family == "view" else ()
            if needed:
                found.setdefault(v, []).extend(needed)
    return found


def meaningful(graph: Graph) -> Graph:
    """The graph with constants that are what ops must read."""
    wanted = domains(graph)
    if not wanted:
        return graph
    return graph.with_nodes(tuple(_fitted(n, wanted.get(n.results[0], ())) if n.results else n for n in graph.nodes))


def _fitted(node: Node, wanted: Sequence[Domain]) -> Node:
    if not wanted or not isinstance(node.op, Const):
        return node
    blob = node.op.blob
    if blob.type.encoding is not None or not blob.type.dtype.is_float or blob.type.dtype.bits < 16:
        return node
    x = blob.torch()
    for domain in wanted:
        x = domain.fit(x)
    return Node(Const(Blob.from_torch(x)), (), node.results, node.loc)


def meaningful_inputs(graph: Graph, inputs: Sequence[Any]) -> list[Any]:
    """The inputs with elements that are what ops must read."""
    wanted, out = domains(graph), []
    for v, x in zip(graph.inputs, inputs, strict=True):
        for domain in wanted.get(v, ()):
            x = domain.fit(x)
        out.append(x)
    return out


@contextmanager
def watched(graph: Graph) -> Iterator[list[str]]:
    """Names the ops that a run inside of the block gives what they must not read."""
    strayed: list[str] = []

    def see(node: Node, operands: tuple[Any, ...], results: tuple[Any, ...]) -> None:
        if node.op.domains:
            needed = ((node.op.domain(k), x) for k, x in enumerate(operands))
            if not all(domain.holds(x) for domain, x in needed if domain):
                strayed.append(node.op.name)

    if not any(node.op.domains for node in graph.walk()):
        yield strayed
        return
    with observed(see):
        yield strayed
