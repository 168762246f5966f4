"""Composites -> smaller ops, for backends that have no kernel for the whole.

softmax(x) --> div(e, sum(e)) with e = exp(sub(x, amax(x)))      and so on, by each op's own `decompose`
sum(x) {keepdims=False} --> reshape(sum(x) {keepdims=True})      so that reductions keep the rank of their row
"""

from __future__ import annotations

from typing import Any

from effcc.ir import Graph, Node, Op, Value
from effcc.ir.builder import OpBuilder, spelled_out
from effcc.ir.location import Loc
from effcc.ir.types import Tensor, f32
from effcc.ops.reduction import Reduction
from effcc.pipeline import Context, Pass


class Decompose(Pass):
    """Expand every op that has neither a loop nest nor a name in `keep`, until nothing is left to expand."""

    name = "decompose"
    category = "lower"
    contract = "bounded"
    choices = {"keep": (("attention",), (), ("softmax",))}
    keep: tuple[str, ...] = ("attention",)

    def run(self, graph: Graph, ctx: Context) -> Graph:
        builder = _Rebuild(self.keep, ctx)
        return builder.graph(graph)

    def example(self, d: Any, b: Any) -> Any:
        """Composites and reductions, one over the other."""
        x = b.input("x", Tensor(f32, (2, 3, 4)))
        for _ in range(d.integer(1, 3)):
            x = d.choose((b.softmax, b.log_softmax, b.layer_norm))(x, axis=x.tensor.rank - 1)
            x = b.mul(x, x) if d.boolean() else d.choose((b.sum, b.amax, b.mean))(x, axes=(0,), keepdims=d.boolean())
        return x


class _Rebuild(OpBuilder):
    """Copies a graph, expanding on the way."""

    def __init__(self, keep: tuple[str, ...], ctx: Context):
        self.keep, self.ctx = keep, ctx
        self.nodes: list[Node] = []
        self.loc = Loc()
        self.changed = False

    def graph(self, graph: Graph) -> Graph:
        mapping: dict[Value, Value] = {v: v for v in graph.inputs}
        for node in graph.nodes:
            self.loc = node.loc
            operands = tuple(mapping[v] for v in node.operands)
            op = self._nested(node.op)
            expanded = self._expand(op, operands)
            if expanded is None:
                same = op is node.op and operands == node.operands
                self.nodes.append(node if same else Node(op, operands, node.results, node.loc))
                mapping.update(zip(node.results, node.results, strict=True))
            else:
                self.changed = True
                mapping.update(zip(node.results, expanded, strict=True))
        if not self.changed:
            return graph
        return Graph(
            graph.name, graph.inputs, tuple(self.nodes), tuple(mapping[v] for v in graph.results), graph.aliases
        )

    def _nested(self, op: Op) -> Op:
        changes: dict[str, Any] = {}
        for name, nested in op.graphs().items():
            inner = _Rebuild(self.keep, self.ctx).graph(nested)
            if inner is not nested:
                changes[name] = inner
        self.changed |= bool(changes)
        return op.replace(**changes) if changes else op

    def _expand(self, op: Op, operands: tuple[Value, ...]) -> tuple[Value, ...] | None:
        types: tuple[Any, ...] = tuple(v.type for v in operands)
        if isinstance(op, Reduction) and not op.keepdims and op.compute(*types) is not None:  # type: ignore[attr-defined]
            if not self.ctx.allow("keep-axes", self.loc):
                return None
            shape = op.result_types(types)[0].shape  # type: ignore[attr-defined]
            kept = self.add(op.replace(keepdims=True), *operands)
            return (self.reshape(kept, shape=shape),)
        if type(op).decompose is Op.decompose or op.name in self.keep or op.graphs():
            return None
        if op.compute(*types) is not None or not self.ctx.allow(f"decompose-{op.name}", self.loc):
            return None
        return spelled_out(self, op, operands)

    def emit(self, op: Op, operands: tuple[Value, ...]) -> tuple[Value, ...]:
        expanded = self._expand(op, operands)
        if expanded is not None:
            self.changed = True
            return expanded
        results = tuple(Value(t) for t in op.result_types(tuple(v.type for v in operands)))
        self.nodes.append(Node(op, operands, results, self.loc))
        return results
