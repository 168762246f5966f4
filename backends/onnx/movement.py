"""Views, indexing, ordering as ONNX operators."""

from __future__ import annotations

from typing import Any

import numpy as np

from effcc.backends.onnx.arithmetic import Operands, may_be_zero
from effcc.backends.onnx.emit import Ref
from effcc.backends.onnx.export import Writer, exports
from effcc.ir.dims import Dim, product
from effcc.ir.graph import Value
from effcc.ir.types import DTYPES, bool_, f32, i32, i64

MINIMUM = -(2**63) + 1
"""Of a slice with a negative step: through the first element."""


# -- views -------------------------------------------------------------------------------------------------------------
@exports("reshape")
def reshape(w: Writer, op: Any, operands: Operands) -> Ref:
    return w.scope.reshape(w.ref(operands[0]), op.shape)


@exports("transpose")
def transpose(w: Writer, op: Any, operands: Operands) -> Ref:
    x = w.ref(operands[0])
    return w.scope.call("Transpose", x, perm=list(op.perm)) if op.perm else x


@exports("broadcast_to")
def broadcast_to(w: Writer, op: Any, operands: Operands) -> Ref:
    x = w.ref(operands[0])
    if 0 in op.shape and all(isinstance(d, int) for d in op.shape):  # (ONNX Runtime takes the Expand for an identity)
        return w.scope.const(np.zeros(op.shape), x.dtype)
    return w.scope.expand(x, op.shape)


@exports("slice")
def slices(w: Writer, op: Any, operands: Operands) -> Ref:
    e, (x,) = w.scope, operands
    facts = list(zip(op.starts, op.stops, op.steps, x.shape, strict=True))
    axes = [k for k, (a, z, step, d) in enumerate(facts) if (a, step) != (0, 1) or z != d]
    if not axes:
        return w.ref(x)
    starts = e.shape(tuple(op.starts[k] for k in axes))
    stops = e.shape(tuple(MINIMUM if op.stops[k] == -1 else op.stops[k] for k in axes))
    given = [starts, stops, e.ints(*axes), e.ints(*(op.steps[k] for k in axes))]
    return e.call("Slice", w.ref(x), *given, data=1)


@exports("concat")
def concat(w: Writer, op: Any, operands: Operands) -> Ref:
    return w.scope.call("Concat", *(w.ref(v) for v in operands), axis=op.axis)


@exports("pad")
def pad(w: Writer, op: Any, operands: Operands) -> Any:
    """Crops are slices. Padding that repeats itself, or an empty operand, is left to the loop nest."""
    e, x, rank = w.scope, operands[0], len(operands[0].shape)
    if not all(isinstance(p, int) for p in op.pads):
        return NotImplemented
    ends = list(zip(op.pads[:rank], op.pads[rank:], strict=True))
    if op.mode != "constant" and any(may_be_zero(d) or min(e) < 0 for d, e in zip(x.shape, ends, strict=True)):
        return NotImplemented
    if op.mode in ("reflect", "wrap"):
        reach = 1 if op.mode == "reflect" else 0
        if not all(isinstance(d, int) and max(e) <= d - reach for d, e in zip(x.shape, ends, strict=True) if max(e)):
            return NotImplemented
    grown = [max(p, 0) for p in op.pads]
    y = w.ref(x)
    if any(grown):
        fill = [w.ref(operands[1])] if len(operands) > 1 else [e.number(0, y.dtype)]
        fill = fill if op.mode == "constant" else []
        wide = e.call("Pad", y, e.ints(*grown), data=1, mode=op.mode) if not fill else None
        y = wide or padded(w, y, grown, fill[0])
    if any(p < 0 for p in op.pads):
        whole = tuple(d + grown[k] + grown[rank + k] for k, d in enumerate(x.shape))
        starts = e.ints(*(max(-a, 0) for a, _ in ends))
        stops = e.shape(tuple(d - max(-z, 0) for d, (_, z) in zip(whole, ends, strict=True)))
        y = e.call("Slice", y, starts, stops, data=1)
    return y


def padded(w: Writer, x: Ref, pads: list[int], fill: Ref) -> Ref:
    from effcc.backends.onnx.emit import carrier

    e, wide = w.scope, carrier("Pad", x.dtype)
    return e.cast(e.node("Pad", [e.cast(x, wide), e.ints(*pads), e.cast(fill, wide)], [wide])[0], x.dtype)


@exports("repeat")
def repeat(w: Writer, op: Any, operands: Operands) -> Ref:
    return w.scope.call("Tile", w.ref(operands[0]), w.scope.shape(op.counts), data=1)


@exports("roll")
def roll(w: Writer, op: Any, operands: Operands) -> Any:
    (x,) = operands
    if not all(isinstance(d, int) and isinstance(s, int) for d, s in zip(x.shape, op.shifts, strict=True)):
        return NotImplemented
    for axis, (size, shift) in enumerate(zip(x.shape, op.shifts, strict=True)):
        if size and shift % size:
            at = size - shift % size
            whole = tuple(x.shape)

            def part(start: int, stop: int, v: Value = x, axis: int = axis, whole: Any = whole) -> Value:
                starts = tuple(start if k == axis else 0 for k in range(len(whole)))
                stops = tuple(stop if k == axis else d for k, d in enumerate(whole))
                return w.slice(v, starts=starts, stops=stops, steps=(1,) * len(whole))

            x = w.concat(part(at, size), part(0, at), axis=axis)
    return x


# -- indexing ----------------------------------------------------------------------------------------------------------
@exports("gather")
def gather(w: Writer, op: Any, operands: Operands) -> Ref:
    x, idx = map(w.ref, operands)
    return w.scope.call("Gather", x, idx, data=1, axis=op.axis)


@exports("gather_elements")
def gather_elements(w: Writer, op: Any, operands: Operands) -> Ref:
    x, idx = map(w.ref, operands)
    return w.scope.call("GatherElements", x, idx, data=1, axis=op.axis)


@exports("gather_nd")
def gather_nd(w: Writer, op: Any, operands: Operands) -> Any:
    x, idx = map(w.ref, operands)
    if operands[1].shape[-1] == 0:  # every tuple is empty: x for each
        return w.broadcast_to(operands[0], shape=(*operands[1].shape[:-1], *operands[0].shape))
    return w.scope.call("GatherND", x, w.scope.cast(idx, i64), data=1, batch_dims=op.batch_dims or None)


@exports("scatter_elements")
def scatter_elements(w: Writer, op: Any, operands: Operands) -> Ref:
    x, idx, updates = map(w.ref, operands)
    facts = {"axis": op.axis, "reduction": None if op.reduction == "none" else op.reduction}
    return scatter(w, "ScatterElements", x, idx, updates, facts)


@exports("scatter_nd")
def scatter_nd(w: Writer, op: Any, operands: Operands) -> Any:
    if operands[1].shape[-1] == 0:
        return scattered_whole(w, op, operands)
    x, idx, updates = map(w.ref, operands)
    facts = {"reduction": None if op.reduction == "none" else op.reduction}
    return scatter(w, "ScatterND", x, w.scope.cast(idx, i64), updates, facts)


def scattered_whole(w: Writer, op: Any, operands: Operands) -> Value:
    """With index tuples of no element every update is for all of x: the last one, or x combined with all."""
    x, _, updates = operands
    count = product(updates.shape[: len(updates.shape) - len(x.shape)])
    if count == 0:
        return x
    rows = w.reshape(updates, shape=(count, *x.shape))
    if op.reduction == "none":
        starts, whole = (count - 1, *(0,) * len(x.shape)), (count, *x.shape)
        return w.reshape(w.slice(rows, starts=starts, stops=whole, steps=(1,) * len(whole)), shape=x.shape)
    folds, joins = {"add": w.sum, "mul": w.prod, "min": w.amin, "max": w.amax}, {"min": w.min, "max": w.max}
    folded = folds[op.reduction](rows, axes=(0,))
    return {**joins, "add": w.add, "mul": w.mul}[op.reduction](x, folded)


def scatter(w: Writer, name: str, x: Ref, idx: Ref, updates: Ref, facts: dict[str, Any]) -> Ref:
    e, dtype = w.scope, x.dtype
    wide = f32 if dtype.name in ("bf16", "f16") else dtype if dtype.bits >= 8 else i32
    if facts.get("reduction") and dtype.is_integer and dtype.bits < 32:
        wide = i32
    given: list[Ref | None] = [e.cast(x, wide), idx, e.cast(updates, wide)]
    return e.cast(e.node(name, given, [wide], **facts)[0], dtype)


@exports("update_slice")
def update_slice(w: Writer, op: Any, operands: Operands) -> Any:
    """A scatter of the block's rows: along the axes up to the last one on which the block is smaller."""
    x, updates, *starts = operands
    smaller = [k for k, (n, d) in enumerate(zip(updates.shape, x.shape, strict=True)) if n != d]
    if not smaller:
        return w.ref(updates)
    outer = updates.shape[: smaller[-1] + 1]
    lanes = []
    for axis, length in enumerate(outer):
        at = w.iota(shape=(*[1] * axis, length, *[1] * (len(outer) - axis)), axis=axis, dtype=i64)
        if axis in smaller:
            at = w.add(at, first(w, starts[axis], x.shape[axis], length))
        lanes.append(w.broadcast_to(at, shape=(*outer, 1)))
    return w.scatter_nd(x, w.concat(*lanes, axis=len(outer)), updates)


def first(w: Writer, start: Value, size: Dim, length: Dim) -> Value:
    """Where a block of `length` begins on an axis, so that it fits."""
    at = start if start.dtype == i64 else w.cast(start, to=i64)
    return w.max(w.min(at, w.dim(value=size - length)), w.const(0, i64))


@exports("dynamic_slice")
def dynamic_slice(w: Writer, op: Any, operands: Operands) -> Any:
    x, *starts = operands
    for axis, (start, size, length) in enumerate(zip(starts, x.shape, op.sizes, strict=True)):
        if size != length:
            at = w.add(w.iota(shape=(length,), axis=0, dtype=i64), first(w, start, size, length))
            x = w.gather(x, at, axis=axis)
    return x


@exports("iota")
def iota(w: Writer, op: Any, operands: Operands) -> Ref:
    e = w.scope
    ends = [e.number(0, i64), e.size(op.shape[op.axis]), e.number(1, i64)]
    line = e.cast(e.node("Range", list(ends), [i64])[0], op.dtype)
    lanes = e.ints(*(-1 if k == op.axis else 1 for k in range(len(op.shape))))
    return e.expand(e.call("Reshape", line, lanes, data=1), op.shape)


@exports("dim")
def dim(w: Writer, op: Any, operands: Operands) -> Ref:
    return w.scope.size(op.value)


@exports("trilu")
def trilu(w: Writer, op: Any, operands: Operands) -> Ref:
    e = w.scope
    diagonal = [e.cast(w.ref(v), i64) for v in operands[1:]]
    return e.call("Trilu", w.ref(operands[0]), *diagonal, data=1, upper=int(op.upper))


@exports("searchsorted")
def searchsorted(w: Writer, op: Any, operands: Operands) -> Any:
    """How many boundaries lie before each value."""
    boundaries, values = operands
    *outer, count = boundaries.shape
    lanes = (*outer, 1, count) if outer else (count,)
    spread = w.reshape(boundaries, shape=lanes)
    each = w.reshape(values, shape=(*values.shape, 1))
    behind = w.gt(spread, each) if op.right else w.ge(spread, each)
    return w.sum(w.cast(w.not_(behind), to=i64), axes=(len(values.shape),))


@exports("nonzero")
def nonzero(w: Writer, op: Any, operands: Operands) -> Ref:
    x, e = w.ref(operands[0]), w.scope
    if not x.dtype.is_bool:
        x = e.call("Not", e.call("Equal", x, e.number(0, x.dtype), out=bool_))
    return e.node("NonZero", [x], [i64])[0]


@exports("compress")
def compress(w: Writer, op: Any, operands: Operands) -> Ref:
    x, keep = map(w.ref, operands)
    return w.scope.call("Compress", x, keep, data=1, axis=op.axis)


# -- ordering ----------------------------------------------------------------------------------------------------------
@exports("sort", "topk")
def topk(w: Writer, op: Any, operands: Operands) -> list[Ref]:
    from effcc.backends.onnx.emit import carrier

    e, x = w.scope, w.ref(operands[0])
    k, largest = (operands[0].shape[op.axis], op.descending) if op.name == "sort" else (op.k, op.largest)
    wide = carrier("TopK", x.dtype)
    facts = {"axis": op.axis, "largest": int(largest), "sorted": 1}
    values, where = e.node("TopK", [e.cast(x, wide), e.vector(e.size(k))], [wide, i64], **facts)
    return [e.cast(values, x.dtype), where]


@exports("unique")
def unique(w: Writer, op: Any, operands: Operands) -> list[Ref]:
    from effcc.backends.onnx.emit import carrier

    e, x = w.scope, w.ref(operands[0])
    wide = DTYPES["i64"] if x.dtype.kind in "iub" else carrier("Unique", x.dtype)
    found = e.node("Unique", [e.cast(x, wide)], [wide, i64, i64, i64], axis=op.axis, sorted=int(op.sorted))
    return [e.cast(found[0], x.dtype), *found[1:]]


@exports("nms")
def nms(w: Writer, op: Any, operands: Operands) -> Ref:
    e = w.scope
    boxes, scores = map(w.ref, operands)
    limits: list[Ref | None] = [e.ints(op.max_output), e.const([op.iou_threshold], f32)]
    limits += [] if op.score_threshold is None else [e.const([op.score_threshold], f32)]
    found = e.node("NonMaxSuppression", [boxes, scores, *limits], [i64], center_point_box=int(op.center_point_box))
    return found[0]
