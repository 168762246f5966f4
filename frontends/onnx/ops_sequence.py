"""Sequences of known length: they are resolved at import, so that the graph holds their tensors only."""

from __future__ import annotations

from typing import Any

import numpy as np

from effcc.frontends.onnx.node import Items, OnnxNode, onnx_op
from effcc.frontends.onnx.ops_shape import piece, split_at
from effcc.ir.dims import Dim
from effcc.ir.graph import Value


@onnx_op("SequenceEmpty")
def sequence_empty(n: OnnxNode) -> Items:
    return Items(())


@onnx_op("SequenceConstruct")
def sequence_construct(n: OnnxNode, *values: Any) -> Items:
    return Items(values)


@onnx_op("SequenceInsert")
def sequence_insert(n: OnnxNode, items: Items, value: Any, position: Value | None = None) -> Items:
    count = len(items.values)
    at = count if position is None else _position(n, position, count + 1)
    return Items((*items.values[:at], value, *items.values[at:]))


@onnx_op("SequenceErase")
def sequence_erase(n: OnnxNode, items: Items, position: Value | None = None) -> Items:
    at = _position(n, position, len(items.values)) if position is not None else len(items.values) - 1
    return Items(items.values[:at] + items.values[at + 1 :])


@onnx_op("SequenceAt")
def sequence_at(n: OnnxNode, items: Items, position: Value) -> Any:
    return items.values[_position(n, position, len(items.values))]


@onnx_op("SequenceLength")
def sequence_length(n: OnnxNode, items: Items) -> Value:
    return n.b.const(np.int64(len(items.values)))


def _position(n: OnnxNode, position: Value, count: int) -> int:
    at = n.integer(position, "the position")
    limit = count if n.op_type != "SequenceInsert" else count - 1
    at = at + limit if at < 0 else at
    if not 0 <= at < count:
        n.malformed(f"position {at} in a sequence of {count}")
    return at


@onnx_op("SplitToSequence")
def split_to_sequence(n: OnnxNode, x: Value, split: Value | None = None) -> Items:
    axis = n.axis(n.attr("axis", 0), len(x.shape))
    size = x.shape[axis]
    if split is None:
        n.plain([size], "the number of pieces")
        parts = [piece(n, x, axis, i, i + 1) for i in range(size)]
        if n.attr("keepdims", 1):
            return Items(tuple(parts))
        rest = (*x.shape[:axis], *x.shape[axis + 1 :])
        return Items(tuple(n.b.reshape(p, shape=rest) for p in parts))
    sizes: tuple[Dim, ...]
    if split.shape:
        sizes = n.dims(split, "the sizes")
    else:
        n.plain([size], "the number of pieces")
        each = n.integer(split, "the size")
        sizes = tuple(min(each, size - start) for start in range(0, size, each))
    return Items(split_at(n, x, axis, sizes))


@onnx_op("ConcatFromSequence")
def concat_from_sequence(n: OnnxNode, items: Items) -> Value:
    values = items.values
    rank = len(values[0].shape)
    if not n.attr("new_axis", 0):
        return n.b.concat(*values, axis=n.axis(n.attr("axis"), rank))
    axis = n.axis(n.attr("axis"), rank + 1)
    return n.b.concat(*(n.b.reshape(v, shape=(*v.shape[:axis], 1, *v.shape[axis:])) for v in values), axis=axis)


@onnx_op("SequenceMap")
def sequence_map(n: OnnxNode, items: Items, *others: Any) -> tuple[Items, ...]:
    rows = []
    for i, value in enumerate(items.values):
        extra = (other.values[i] if isinstance(other, Items) else other for other in others)
        rows.append(n.scope.inline_graph(n.attr("body"), (value, *extra)))
    return tuple(Items(tuple(row[k] for row in rows)) for k in range(n.num_outputs))
