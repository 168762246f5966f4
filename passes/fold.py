"""Constant folding: ops on constants are evaluated by the interpreter."""

from __future__ import annotations

from typing import Any

from effcc.errors import EffccError
from effcc.interp import evaluate_node
from effcc.ir.blob import Blob
from effcc.ir.dims import evaluate
from effcc.ir.graph import Graph
from effcc.ir.types import Tensor
from effcc.ops.constant import Const
from effcc.pipeline import Context, Pass
from effcc.rewrite import Item, Workspace, map_nested

KEPT_FAMILIES = frozenset({"constant", "random", "control", "quantize", "encoding"})
"""Never folded: random draws; fused groups, branches, loops; (de)quantization and compressed layouts, whose small
operands are the point."""


class Fold(Pass):
    """f(constants...) --> constant

    A result may outgrow its operands together by `max_growth` bytes at most: a broadcast scalar is better computed.
    """

    name = "fold"
    max_growth: int = 1 << 16

    def run(self, graph: Graph, ctx: Context) -> Graph:
        w = Workspace(graph)
        for item in w.items():
            op = map_nested(item.op, lambda g: self.run(g, ctx))
            if op is not item.op:
                w.set_op(item, op)
            self._fold(item, w, ctx)
        return w.freeze()

    def _fold(self, item: Item, w: Workspace, ctx: Context) -> None:
        if not item.op.pure or item.op.family in KEPT_FAMILIES:
            return
        operands = [blob for v in item.operands if (blob := w.constant(v)) is not None]
        if len(operands) < len(item.operands):
            return
        types = [r.type for r in item.results if isinstance(r.type, Tensor) and r.type.is_static]
        if len(types) < len(item.results):
            return
        grown = sum(evaluate(t.nbytes, {}) for t in types) - sum(b.array.nbytes for b in operands)
        if grown > self.max_growth:
            ctx.refused("fold", item.loc, f"the result would be {grown} bytes larger than its operands")
            return
        try:
            results = evaluate_node(item.node(), tuple(b.torch() for b in operands), {})
        except EffccError as error:
            ctx.refused("fold", item.loc, f"it has no value: {error.message}")
            return
        if not ctx.allow("fold", item.loc):
            return
        made = [w.insert(Const(to_blob(x, t)), (), item, item.loc) for x, t in zip(results, types)]
        w.replace(item, tuple(i.result for i in made), made)


def to_blob(t: Any, type_: Tensor) -> Blob:
    """A torch tensor as constant data of a type (whose dtype may be narrower than its carrier)."""
    blob = Blob.from_torch(t)
    return blob if blob.type == type_ else Blob(blob.array, type_.dtype, owner=t)
