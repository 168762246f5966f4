"""Indexing, scatters, sorting, and ops whose result sizes depend on data."""

from __future__ import annotations

import numpy as np

from effcc.frontends.onnx.node import OnnxNode, onnx_op
from effcc.frontends.onnx.ops_elementwise import cast
from effcc.ir.dims import Dim, Symbol, dim_min, product, upper_bound
from effcc.ir.graph import Value
from effcc.ir.types import i64


@onnx_op("Gather")
def gather(n: OnnxNode, x: Value, index: Value) -> Value:
    return n.b.gather(x, index, axis=n.axis(n.attr("axis", 0), len(x.shape)))


@onnx_op("GatherElements")
def gather_elements(n: OnnxNode, x: Value, index: Value) -> Value:
    return n.b.gather_elements(x, index, axis=n.axis(n.attr("axis", 0), len(x.shape)))


@onnx_op("GatherND")
def gather_nd(n: OnnxNode, x: Value, index: Value) -> Value:
    return n.b.gather_nd(x, index, batch_dims=n.attr("batch_dims", 0))


@onnx_op("ScatterElements", "Scatter")
def scatter_elements(n: OnnxNode, x: Value, index: Value, updates: Value) -> Value:
    axis = n.axis(n.attr("axis", 0), len(x.shape))
    return n.b.scatter_elements(x, index, updates, axis=axis, reduction=n.attr("reduction", "none"))


@onnx_op("ScatterND")
def scatter_nd(n: OnnxNode, x: Value, index: Value, updates: Value) -> Value:
    return n.b.scatter_nd(x, index, updates, reduction=n.attr("reduction", "none"))


@onnx_op("TensorScatter")
def tensor_scatter(n: OnnxNode, cache: Value, update: Value, start: Value | None = None) -> Value:
    """Each batch entry's update is written into its cache from `start[entry]` on; seen from the cache: position p holds
    update[p - start] where that exists."""
    rank = len(cache.shape)
    axis = n.axis(n.attr("axis", -2), rank)
    view = tuple(d if k == 0 else 1 for k, d in enumerate(cache.shape))
    position = n.b.iota(shape=tuple(d if k == axis else 1 for k, d in enumerate(cache.shape)), axis=axis, dtype=i64)
    if start is not None:
        position = n.b.sub(position, n.b.reshape(cast(n, start, i64), shape=view))
        if n.attr("mode", "linear") == "circular":
            position = n.b.mod(position, size_value(n, cache.shape[axis]))
    zero, length = n.b.const(np.int64(0)), size_value(n, update.shape[axis])
    inside = n.b.and_(n.b.ge(position, zero), n.b.lt(position, length))
    at = n.b.broadcast_to(n.b.where(inside, position, zero), shape=cache.shape)
    return n.b.where(inside, n.b.gather_elements(update, at, axis=axis), cache)


def size_value(n: OnnxNode, dim: Dim) -> Value:
    return n.b.const(np.int64(dim)) if isinstance(dim, int) else n.b.dim(value=dim)


@onnx_op("OneHot")
def one_hot(n: OnnxNode, index: Value, depth: Value, values: Value) -> Value:
    (size,) = n.dims(depth, "the depth") if depth.dtype.is_integer else (int(n.array(depth, "the depth").item()),)
    rank = len(index.shape) + 1
    axis = n.axis(n.attr("axis", -1), rank)
    index = cast(n, index, i64)
    wrapped = n.b.where(n.b.lt(index, n.b.const(np.int64(0))), n.b.add(index, size_value(n, size)), index)
    shape = list(index.shape)
    shape.insert(axis, 1)
    ruler = n.b.iota(shape=tuple(size if k == axis else 1 for k in range(rank)), axis=axis, dtype=i64)
    hot = n.b.eq(n.b.reshape(wrapped, shape=tuple(shape)), ruler)
    off, on = (n.b.reshape(n.b.slice(values, starts=(i,), stops=(i + 1,), steps=(1,)), shape=()) for i in (0, 1))
    return n.b.where(hot, on, off)


# --- sizes that depend on data ---
def data_size(n: OnnxNode, data: Value, bound: Dim) -> Symbol:
    """A fresh symbol for a size that `data` decides, at most `bound`."""
    sizes = n.scope.importer.defined_sizes
    symbol = Symbol(f"n{len(sizes)}_{n.op_type.lower()}", 0, upper_bound(bound))
    sizes[symbol] = data
    return symbol


@onnx_op("NonZero")
def nonzero(n: OnnxNode, x: Value) -> Value:
    return n.b.nonzero(x, size=data_size(n, x, product(x.shape)))


@onnx_op("Compress", ranks=(1, 1))
def compress(n: OnnxNode, x: Value, keep: Value) -> Value:
    if "axis" not in n:
        x = n.b.reshape(x, shape=(product(x.shape),))
    axis = n.axis(n.attr("axis", 0), len(x.shape))
    length, size = keep.shape[0], x.shape[axis]
    if length != size:  # a shorter condition keeps none of the rest
        shorter = dim_min(length, size)
        keep = n.b.slice(keep, starts=(0,), stops=(shorter,), steps=(1,))
        keep = n.b.pad(keep, pads=(0, size - shorter))
    return n.b.compress(x, keep, axis=axis, size=data_size(n, keep, size))


@onnx_op("Unique")
def unique(n: OnnxNode, x: Value) -> tuple[Value, ...]:
    axis = n.axis(n.attr("axis"), len(x.shape)) if "axis" in n else None
    bound = product(x.shape) if axis is None else x.shape[axis]
    return n.b.unique(x, axis=axis, sorted=bool(n.attr("sorted", 1)), size=data_size(n, x, bound))


# --- sorting ---
@onnx_op("TopK")
def topk(n: OnnxNode, x: Value, k: Value | None = None) -> tuple[Value, Value]:
    (count,) = (n.attr("k"),) if k is None else n.dims(k, "k")
    axis = n.axis(n.attr("axis", -1), len(x.shape))
    return n.b.topk(x, k=count, axis=axis, largest=bool(n.attr("largest", 1)), sorted=bool(n.attr("sorted", 1)))


@onnx_op("ArgMax", "ArgMin")
def argmax(n: OnnxNode, x: Value) -> Value:
    op = n.b.argmax if n.op_type == "ArgMax" else n.b.argmin
    axis = n.axis(n.attr("axis", 0), len(x.shape))
    return op(x, axis=axis, keepdims=n.flag("keepdims", 1), select_last=bool(n.attr("select_last_index", 0)))


@onnx_op("Hardmax")
def hardmax(n: OnnxNode, x: Value) -> Value:
    from effcc.frontends.onnx.ops_normalization import over_axis

    def hot(y: Value, axis: int) -> Value:
        best = n.b.argmax(y, axis=axis, keepdims=True, select_last=False)
        view = tuple(d if k == axis else 1 for k, d in enumerate(y.shape))
        return cast(n, n.b.eq(best, n.b.iota(shape=view, axis=axis, dtype=i64)), y.dtype)

    return over_axis(n, x, hot)


# --- scans ---
@onnx_op("CumSum", "CumProd")
def cumulate(n: OnnxNode, x: Value, axis: Value) -> Value:
    op = n.b.cumsum if n.op_type == "CumSum" else n.b.cumprod
    k = n.axis(n.integer(axis, "the axis"), len(x.shape))
    return op(x, axis=k, exclusive=bool(n.attr("exclusive", 0)), reverse=bool(n.attr("reverse", 0)))


@onnx_op("MaxUnpool", ranks=(3, 3))
def max_unpool(n: OnnxNode, x: Value, index: Value, output_shape: Value | None = None) -> Value:
    """Indices are flat in the tensor that was pooled; a larger output has that tensor in its upper left corner."""
    spatial = len(x.shape) - 2
    kernel = n.attr("kernel_shape")
    strides, pads = n.attr("strides", (1,) * spatial), n.attr("pads", (0,) * (2 * spatial))
    pooled = (
        *x.shape[:2],
        *((x.shape[2 + i] - 1) * strides[i] - pads[i] - pads[spatial + i] + kernel[i] for i in range(spatial)),
    )
    size = product(pooled)
    zeros = n.b.broadcast_to(n.b.full_like(x, 0), shape=(size,))
    flat = n.b.scatter_elements(
        zeros, n.b.reshape(index, shape=(product(index.shape),)), n.b.reshape(x, shape=(product(x.shape),)), axis=0
    )
    y = n.b.reshape(flat, shape=pooled)
    if output_shape is None:
        return y
    wanted = n.dims(output_shape, "the output shape")
    return n.b.pad(y, pads=(*[0] * len(pooled), *(w - p for w, p in zip(wanted, pooled, strict=True))))


@onnx_op("NonMaxSuppression", ranks=(3, 3))
def non_max_suppression(
    n: OnnxNode,
    boxes: Value,
    scores: Value,
    most: Value | None = None,
    overlap: Value | None = None,
    least: Value | None = None,
) -> Value:
    count = 0 if most is None else n.integer(most, "the number of boxes")
    iou, threshold = (None if v is None else float(n.array(v, "the threshold").item()) for v in (overlap, least))
    classes, spatial = scores.shape[1], boxes.shape[1]
    bound = product((boxes.shape[0], classes, dim_min(max(count, 0), spatial)))
    return n.b.nms(
        boxes,
        scores,
        size=data_size(n, n.b.add(n.b.amax(scores, axes=(0, 1, 2)), n.b.amax(boxes, axes=(0, 1, 2))), bound),
        max_output=count,
        iou_threshold=iou or 0.0,
        score_threshold=threshold,
        center_point_box=bool(n.attr("center_point_box", 0)),
    )
