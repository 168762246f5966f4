"""Constant folding: ops on constants are evaluated by the interpreter."""

from __future__ import annotations

from typing import Any

import numpy as np

from effcc.errors import EffccError
from effcc.interp import evaluate_node
from effcc.ir.blob import Blob
from effcc.ir.dims import evaluate
from effcc.ir.evaluator import NestError, carrier, evaluate_nest
from effcc.ir.graph import Graph, Node
from effcc.ir.scalar import Compute, Index, Read
from effcc.ir.types import Tensor, bool_, f32, i8
from effcc.ops.constant import Const
from effcc.pipeline import Context, Pass
from effcc.rewrite import Item, Workspace, map_nested

KEPT_FAMILIES = frozenset({"constant", "random", "control", "quantize", "encoding"})
"""Never folded: random draws; fused groups, branches, loops; (de)quantization and compressed layouts, whose small
operands are the point."""


EXACT_DTYPES = frozenset("bool i8 i16 i32 i64 u8 f32 f64".split())
EXACT_FUNCTIONS = frozenset("add sub min max eq ne lt le gt ge and or xor not select".split())
"""What NumPy computes to the bit as the interpreter does."""
MOST_POINTS = 1 << 17
"""Larger results are torch's: a loop nest is evaluated over grids of indices, which is slow."""


class Fold(Pass):
    """f(constants...) --> constant

    A result may outgrow its operands together by `max_growth` bytes at most: a broadcast scalar is better computed.
    """

    name = "fold"
    choices = {"max_growth": (1 << 16, 0, 64)}
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
        if len(operands) < len(item.operands) or item.node().sizes:  # (known at run time only: `dim` reads one)
            return
        types = [r.type for r in item.results if isinstance(r.type, Tensor) and r.type.is_static]
        if len(types) < len(item.results):
            return
        grown = sum(evaluate(t.nbytes, {}) for t in types) - sum(b.array.nbytes for b in operands)
        if grown > self.max_growth:
            ctx.refused("fold", item.loc, f"the result would be {grown} bytes larger than its operands")
            return
        node = item.node()
        try:
            blobs = by_loop_nest(node, operands, types) or tuple(
                to_blob(x, t) for x, t in zip(evaluate_node(node, tuple(b.torch() for b in operands), {}), types)
            )
        except EffccError as error:
            ctx.refused("fold", item.loc, f"it has no value: {error.message}")
            return
        if not ctx.allow("fold", item.loc):
            return
        made = [w.insert(Const(blob), (), item, item.loc) for blob in blobs]
        w.replace(item, tuple(i.result for i in made), made)

    def example(self, d: Any, b: Any) -> Any:
        """Constants under ops that NumPy computes, that it does not, or that are too large for it."""
        large = d.chance(10)
        dtype = d.choose((i8, f32, bool_)) if not large else i8
        c = b.const(d.blob(Tensor(dtype, (MOST_POINTS + 1,) if large else d.shape())))
        c = b.add(c, c) if dtype != bool_ else b.not_(c)
        if large:
            return b.slice(c, starts=(0,), stops=(4,), steps=(1,))
        return d.choose((b.abs, b.exp) if dtype == f32 else (b.neg,) if dtype == i8 else (b.not_,))(c)


def by_loop_nest(node: Node, operands: list[Blob], types: list[Tensor]) -> tuple[Blob, ...] | None:
    """What NumPy makes of the op's loop nest, where that is exact: importing torch takes a second. None elsewhere."""
    if any(t.dtype.name not in EXACT_DTYPES for t in (*types, *(b.type for b in operands))):
        return None
    nest = node.op.compute(*node.types)
    if nest is None or not nest.is_map:
        return None
    if (axes := permuted(nest)) is not None:
        turned = operands[0].array.transpose(axes)[tuple(slice(evaluate(n, {})) for n in types[0].shape)]
        return (Blob(np.ascontiguousarray(turned).reshape(turned.shape), types[0].dtype),)  # (it makes rank 0 rank 1)
    if sum(evaluate(t.size, {}) for t in types) > MOST_POINTS:
        return None
    if any(x.fn not in EXACT_FUNCTIONS for x in nest.applied()):
        return None
    try:
        given = tuple(b.array.astype(carrier(b.type.dtype), copy=False) for b in operands)
        results = evaluate_nest(nest, given, types)
    except NestError:  # an index out of range, say: the interpreter tells what
        return None
    return tuple(Blob(x.astype(t.dtype.numpy), t.dtype) for x, t in zip(results, types, strict=True))


def permuted(nest: Compute) -> tuple[int, ...] | None:
    """The operand's axis that each axis of the result walks, where a nest does nothing but permute; else None.

    An axis may stop before the operand's does, as a slice from the start makes it.
    """
    match nest.results:
        case (Read(operand=0, index=at),) if all(isinstance(i, Index) for i in at):
            loops = [i.axis for i in at if isinstance(i, Index)]
            every = sorted(loops) == list(range(len(nest.extents)))
            return tuple(loops.index(k) for k in range(len(loops))) if every else None
    return None


def to_blob(t: Any, type_: Tensor) -> Blob:
    """A torch tensor as constant data of a type (whose dtype may be narrower than its carrier)."""
    blob = Blob.from_torch(t)
    return blob if blob.type == type_ else Blob(blob.array, type_.dtype, owner=t)
