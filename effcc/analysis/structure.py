"""Questions about the shape of a graph, answered by networkx over its nodes."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TYPE_CHECKING

from effcc.ir.graph import Graph, Node

if TYPE_CHECKING:
    import networkx as nx

SOURCE, SINK = "source", "sink"
"""The vertices before all nodes (the inputs) and behind all results."""


def dataflow(graph: Graph) -> nx.DiGraph:
    """Edges from producers to readers; SOURCE feeds nodes that read an input or nothing, SINK reads results."""
    import networkx as nx

    g = nx.DiGraph()
    g.add_nodes_from((SOURCE, *graph.nodes, SINK))
    for node in graph.nodes:
        producers = [graph.producer(v) for v in node.operands]
        g.add_edges_from((SOURCE if p is None else p, node) for p in producers or [None])
    for v in graph.results:
        g.add_edge(graph.producer(v) or SOURCE, SINK)
    return g


def dominators(graph: Graph) -> dict[Node, Node | str]:
    """For each node the nearest one through which every path from the inputs to it goes (or SOURCE)."""
    import networkx as nx

    found = nx.immediate_dominators(dataflow(graph), SOURCE)
    return {n: found[n] for n in graph.nodes}


def post_dominators(graph: Graph) -> dict[Node, Node | str]:
    """For each live node the nearest one through which all that it computes flows (or SINK): where branches meet."""
    import networkx as nx

    found = nx.immediate_dominators(dataflow(graph).reverse(copy=False), SINK)
    return {n: found[n] for n in graph.nodes if n in found}


def is_convex(graph: Graph, region: Collection[Node]) -> bool:
    """Whether no path leaves a set of nodes and comes back: only then can it run as one."""
    inside = set(region)
    last = max((k for k, n in enumerate(graph.nodes) if n in inside), default=-1)
    tainted: set[Node] = set()
    for node in graph.nodes[: last + 1]:
        producers = {graph.producer(v) for v in node.operands}
        if node in inside:
            if producers & tainted:
                return False
        elif producers & (tainted | inside):
            tainted.add(node)
    return True


def critical_path(graph: Graph, weight: Callable[[Node], float] = lambda node: 1.0) -> list[Node]:
    """The chain of nodes with the greatest total weight: what no number of workers can shorten."""
    import networkx as nx

    g = dataflow(graph)
    for _, target, data in g.edges(data=True):
        data["weight"] = weight(target) if isinstance(target, Node) else 0.0
    return [n for n in nx.dag_longest_path(g) if isinstance(n, Node)]
