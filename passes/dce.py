"""Dead code: ops that nothing reads disappear."""

from __future__ import annotations

from effcc.ir.graph import Graph, Node, Value
from effcc.ir.types import type_symbols
from effcc.pipeline import Context, Pass
from effcc.rewrite import map_nested


class DeadCode(Pass):
    """Drop pure ops whose results no op and no graph result reads, nor a size that they define; in nested graphs
    too."""

    name = "dce"

    def run(self, graph: Graph, ctx: Context) -> Graph:
        live: set[Value] = set(graph.results)
        sizes = set().union(*(type_symbols(v.type) for v in graph.results))
        kept: list[Node] = []
        for node in reversed(graph.nodes):
            unread = live.isdisjoint(node.results) and sizes.isdisjoint(node.op.defines(*node.types))
            if unread and node.op.pure and ctx.allow("drop-dead-op", node.loc):
                continue
            op = map_nested(node.op, lambda g: self.run(g, ctx))
            kept.append(node if op is node.op else Node(op, node.operands, node.results, node.loc))
            live.update(node.operands)
            sizes |= node.sizes
        kept.reverse()
        same = len(kept) == len(graph.nodes) and all(a is b for a, b in zip(kept, graph.nodes))
        return graph if same else graph.with_nodes(tuple(kept))
