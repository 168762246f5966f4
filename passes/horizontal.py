"""Horizontal fusion: several matmuls of one input become one wide matmul and slices (the Q, K and V projections)."""

from __future__ import annotations

from typing import Any

from effcc.ir.blob import Blob
from effcc.ir.graph import Graph, Value
from effcc.ir.location import merge
from effcc.ir.types import Tensor, f32
from effcc.ops.constant import Const
from effcc.ops.view import Slice
from effcc.pipeline import Context, Pass
from effcc.rewrite import Item, Workspace, map_nested


class Horizontal(Pass):
    """x @ w1, x @ w2 --> y = x @ concat(w1, w2); y[..., :n1], y[..., n1:]

    for constant weights that nothing else reads, at most `max_group` at a time.
    """

    name = "horizontal"
    choices = {"max_group": (8, 2)}
    max_group: int = 8

    def run(self, graph: Graph, ctx: Context) -> Graph:
        w = Workspace(graph)
        for item in w.items():
            op = map_nested(item.op, lambda g: self.run(g, ctx))
            if op is not item.op:
                w.set_op(item, op)
        for x in graph.values:
            for group in self._groups(x, w):
                loc = merge(tuple(i.loc for i in group))
                if ctx.allow("join-matmuls", loc):
                    self._join(x, group, w, loc)
        return w.freeze()

    def example(self, d: Any, b: Any) -> Any:
        x = b.input("x", Tensor(f32, (d.integer(1, 2), d.integer(1, 3), 4)))
        turned = d.boolean()
        sizes = [d.choose((2, 3, 1, 0)) for _ in range(d.integer(2, 4))]
        weights = [b.const(d.blob(Tensor(f32, (n, 4) if turned else (4, n)))) for n in sizes]
        weights.append(d.choose(weights))
        return [b.matmul(x, w, transpose_b=turned) for w in weights]

    def _groups(self, x: Value, w: Workspace) -> list[list[Item]]:
        """Matmuls of x by constant matrices, of one kind, in program order."""
        kinds: dict[Any, list[Item]] = {}
        for item in w.readers(x):
            if item.op.name != "matmul" or item.operands[0] is not x or item.op.transpose_a:  # type: ignore[attr-defined]
                continue
            blob = w.constant(item.operands[1])
            if blob is not None and blob.array.ndim == 2 and len(w.readers(item.operands[1])) == 1:
                kinds.setdefault((item.op, blob.type.dtype), []).append(item)
        return [g[: self.max_group] for g in kinds.values() if len(g) > 1]

    def _join(self, x: Value, group: list[Item], w: Workspace, loc: Any) -> None:
        import numpy as np

        op = group[0].op
        axis = 0 if op.transpose_b else 1  # type: ignore[attr-defined]
        blobs = [blob for i in group if (blob := w.constant(i.operands[1])) is not None]
        weights = Blob(np.concatenate([b.array for b in blobs], axis), blobs[0].type.dtype)
        constant = w.insert(Const(weights), (), group[0], loc)
        wide = w.insert(op, (x, constant.result), group[0], loc).result
        start = 0
        for item, blob in zip(group, blobs):
            stop = start + blob.array.shape[axis]
            rank = len(wide.shape)
            op = Slice((*(0,) * (rank - 1), start), (*wide.shape[:-1], stop), (1,) * rank)
            part = w.insert(op, (wide,), item, item.loc)
            w.replace(item, (part.result,), [part])
            start = stop
