"""Shapes and data movement: views, slices, concatenation, padding, tiling, and shapes as data."""

from __future__ import annotations

from typing import Any

import numpy as np

from effcc.frontends.onnx.node import OnnxNode, onnx_op
from effcc.frontends.onnx.ops_elementwise import cast, scalar
from effcc.ir.dims import Dim, bounds, ceildiv, dim_max, dim_min, product
from effcc.ir.graph import Value
from effcc.ir.types import bool_, i64
from effcc.ops.elementwise import broadcast_shapes


# --- shapes as data ---
def dims_value(n: OnnxNode, dims: tuple[Dim, ...]) -> Value:
    """Dimensions as an i64 vector."""
    if all(isinstance(d, int) for d in dims):
        return n.b.const(np.array(dims, np.int64))
    return n.b.concat(*(n.b.reshape(dim_value(n, d), shape=(1,)) for d in dims), axis=0)


def dim_value(n: OnnxNode, dim: Dim) -> Value:
    """A dimension as an i64 scalar."""
    return n.b.const(np.int64(dim)) if isinstance(dim, int) else n.b.dim(value=dim)


@onnx_op("Shape")
def shape_of(n: OnnxNode, x: Value) -> Value:
    rank = len(x.shape)
    start, end = n.attr("start", 0), n.attr("end", rank)
    start, end = (min(max(e + rank if e < 0 else e, 0), rank) for e in (start, end))
    return dims_value(n, x.shape[start:end])


@onnx_op("Size")
def size_of(n: OnnxNode, x: Value) -> Value:
    return dim_value(n, x.tensor.size)


# --- reshaping ---
@onnx_op("Reshape")
def reshape(n: OnnxNode, x: Value, shape: Value | None = None) -> Value:
    if shape is None:
        wanted: list[Any] = list(n.attr("shape", ()))
    else:
        content = n.known(shape)
        unknown = 0 if content is None else sum(e is None for e in content.flat)
        if content is not None and unknown == 1 and -1 not in [e for e in content.flat if isinstance(e, int)]:
            wanted = [-1 if e is None else e for e in content.flat]  # one unknown size follows from the others
        else:
            wanted = list(n.dims(shape, "the target shape"))
    for i, d in enumerate(wanted):
        if isinstance(d, int) and d == 0 and not n.attr("allowzero", 0):
            if i >= len(x.shape):
                n.malformed(f"a 0 at position {i} of the target shape {wanted}, but the input has rank {len(x.shape)}")
            wanted[i] = x.shape[i]
    return n.b.reshape(x, shape=infer_minus_one(n, x.shape, wanted))


def infer_minus_one(n: OnnxNode, shape: tuple[Dim, ...], wanted: list[Any]) -> tuple[Dim, ...]:
    """The target shape with its -1 worked out."""
    free = [i for i, d in enumerate(wanted) if isinstance(d, int) and d == -1]
    if not free:
        return tuple(wanted)
    if len(free) > 1:
        n.malformed(f"two -1 in the target shape {wanted}")
    known = product(d for i, d in enumerate(wanted) if i != free[0])
    total = product(shape)
    if isinstance(known, int) and known == 0:
        n.malformed(f"a -1 beside a 0 in the target shape {wanted}")
    if isinstance(known, int) and isinstance(total, int) and total % known:
        n.malformed(f"{list(shape)} does not fit the target shape {wanted}")
    wanted[free[0]] = total // known
    return tuple(wanted)


@onnx_op("Flatten")
def flatten(n: OnnxNode, x: Value) -> Value:
    rank = len(x.shape)
    axis = n.attr("axis", 1)
    axis = axis + rank if axis < 0 else axis
    if not 0 <= axis <= rank:
        n.malformed(f"axis {n.attr('axis', 1)} of a tensor of rank {rank}")
    return n.b.reshape(x, shape=(product(x.shape[:axis]), product(x.shape[axis:])))


def given_axes(n: OnnxNode, axes: Value | None, since: int = 13) -> tuple[int, ...] | None:
    """Axes that were an attribute before opset `since` and an input from then on; None where not given."""
    if axes is not None:
        return n.ints(axes, "the axes")
    return n.attr("axes") if n.version < since else None


@onnx_op("Squeeze")
def squeeze(n: OnnxNode, x: Value, axes: Value | None = None) -> Value:
    given = given_axes(n, axes)
    if given is None:
        n.plain([d for d in x.shape if bounds(d)[0] in (None, 0, 1)], "which axes are of size 1")
        kept = tuple(d for d in x.shape if d != 1)
    else:
        dropped = n.axes(given, len(x.shape))
        for a in dropped:
            if isinstance(x.shape[a], int) and x.shape[a] != 1:
                n.malformed(f"axis {a} of {x.type} is not of size 1")
        kept = tuple(d for i, d in enumerate(x.shape) if i not in dropped)
    return n.b.reshape(x, shape=kept)


@onnx_op("Unsqueeze")
def unsqueeze(n: OnnxNode, x: Value, axes: Value | None = None) -> Value:
    given = given_axes(n, axes)
    if given is None:
        n.malformed("no axes")
    axes_ = n.axes(given, len(x.shape) + len(given))
    rest = iter(x.shape)
    return n.b.reshape(x, shape=tuple(1 if i in axes_ else next(rest) for i in range(len(x.shape) + len(axes_))))


@onnx_op("Transpose")
def transpose(n: OnnxNode, x: Value) -> Value:
    perm = n.attr("perm", tuple(reversed(range(len(x.shape)))))
    return n.b.transpose(x, perm=tuple(n.axis(p, len(x.shape)) for p in perm))


@onnx_op("Expand")
def expand(n: OnnxNode, x: Value, shape: Value) -> Value:
    return n.b.broadcast_to(x, shape=broadcast_shapes(x.shape, n.dims(shape, "the target shape")))


# --- slices ---
@onnx_op("Slice")
def slice_(
    n: OnnxNode,
    x: Value,
    starts: Value | None = None,
    ends: Value | None = None,
    axes: Value | None = None,
    steps: Value | None = None,
) -> Value:
    rank = len(x.shape)
    if n.version < 10:
        first, last = n.attr("starts"), n.attr("ends")
        axes_, steps_ = n.attr("axes", tuple(range(len(first)))), (1,) * len(first)
    else:
        assert starts is not None and ends is not None
        first, last = n.dims(starts, "starts"), n.dims(ends, "ends")
        axes_ = tuple(range(len(first))) if axes is None else n.ints(axes, "axes")
        steps_ = (1,) * len(first) if steps is None else n.ints(steps, "steps")
    if not len(first) == len(last) == len(axes_) == len(steps_):
        n.malformed("starts, ends, axes and steps differ in length")
    begin: list[Dim] = [0] * rank
    end: list[Dim] = list(x.shape)
    stride = [1] * rank
    for a, z, axis, step in zip(first, last, axes_, steps_, strict=True):
        k = n.axis(axis, rank)
        if step == 0:
            n.malformed("a step of 0")
        begin[k], end[k] = slice_bounds(n, a, z, step, x.shape[k])
        stride[k] = step
    return n.b.slice(x, starts=tuple(begin), stops=tuple(end), steps=tuple(stride))


def slice_bounds(n: OnnxNode, start: Dim, end: Dim, step: int, size: Dim) -> tuple[Dim, Dim]:
    """Python's slice(start, end, step).indices(size), on dimensions; the end is -1 for "through index 0"."""
    if size == 0:
        return 0, 0
    if all(isinstance(d, int) for d in (start, end, size)):
        a, z, _ = slice(start, end, step).indices(size)  # type: ignore[arg-type]
        if end < 0 and step < 0 and end + size < 0:  # type: ignore[operator]
            z = -1
        return (a, max(z, a) if step > 0 else min(z, a)) if step > 0 else (min(max(a, 0), size), min(z, max(a, 0)))  # type: ignore
    low, high = (0, size) if step > 0 else (-1, size - 1)
    a, z = (dim_min(dim_max(_from_end(n, e, size), low), high) for e in (start, end))
    return a, (dim_max(a, z) if step > 0 else dim_min(a, z))


def _from_end(n: OnnxNode, e: Dim, size: Dim) -> Dim:
    lo, hi = bounds(e)
    if hi is not None and hi < 0:
        return e + size
    if lo is None or lo < 0:
        if lo is None or not isinstance(e, int):
            n.plain([e], "whether a slice bound counts from the end")
    return e


@onnx_op("Split")
def split(n: OnnxNode, x: Value, sizes: Value | None = None) -> tuple[Value, ...]:
    axis = n.axis(n.attr("axis", 0), len(x.shape))
    given = n.dims(sizes, "the sizes") if sizes is not None else n.attr("split")
    size = x.shape[axis]
    if given is None:
        count = n.attr("num_outputs", n.num_outputs)
        if n.version < 18 and isinstance(size, int) and size % n.num_outputs:
            n.malformed(f"axis {axis} of {size} elements has no {n.num_outputs} equal parts")
        given = even_parts(size, count)
    elif isinstance(size, int) and all(isinstance(d, int) for d in given) and sum(given) != size:  # type: ignore[arg-type]
        n.malformed(f"parts of {list(given)} elements are not those of axis {axis}, {size}")
    if len(given) != n.num_outputs:
        n.malformed(f"{len(given)} parts for {n.num_outputs} outputs")
    return split_at(n, x, axis, tuple(given))


def even_parts(size: Dim, count: int) -> tuple[Dim, ...]:
    """`count` parts of equal size, the last one smaller if need be."""
    part = ceildiv(size, count)
    return (*[part] * (count - 1), size - part * (count - 1))


def split_at(n: OnnxNode, x: Value, axis: int, sizes: tuple[Dim, ...]) -> tuple[Value, ...]:
    """Consecutive pieces of the given sizes along an axis."""
    pieces, start = [], 0
    for s in sizes:
        pieces.append(piece(n, x, axis, start, start + s))
        start = start + s
    return tuple(pieces)


def piece(n: OnnxNode, x: Value, axis: int, start: Dim, stop: Dim) -> Value:
    """x[..., start:stop, ...] on one axis; the bounds are not negative."""
    starts: list[Dim] = [0] * len(x.shape)
    stops: list[Dim] = list(x.shape)
    starts[axis], stops[axis] = start, stop
    return n.b.slice(x, starts=tuple(starts), stops=tuple(stops), steps=(1,) * len(x.shape))


def flip(n: OnnxNode, x: Value, axis: int) -> Value:
    """x backwards along an axis."""
    starts: list[Dim] = [0] * len(x.shape)
    stops: list[Dim] = list(x.shape)
    steps = [1] * len(x.shape)
    starts[axis], stops[axis], steps[axis] = dim_max(x.shape[axis] - 1, 0), -1, -1
    return n.b.slice(x, starts=tuple(starts), stops=tuple(stops), steps=tuple(steps))


@onnx_op("Concat")
def concat(n: OnnxNode, *xs: Value) -> Value:
    return n.b.concat(*xs, axis=n.axis(n.attr("axis", 1), len(xs[0].shape)))


@onnx_op("Tile")
def tile(n: OnnxNode, x: Value, repeats: Value, axis: Value | None = None) -> Value:
    if n.version < 6:
        assert axis is not None
        counts = [1] * len(x.shape)
        counts[n.integer(axis, "the axis")] = n.integer(repeats, "the number of tiles")
        return n.b.repeat(x, counts=tuple(counts))
    return n.b.repeat(x, counts=n.dims(repeats, "the repeats"))


@onnx_op("Pad")
def pad(
    n: OnnxNode, x: Value, pads: Value | None = None, value: Value | None = None, axes: Value | None = None
) -> Value:
    rank = len(x.shape)
    if n.version < 11:
        amounts = n.attr("pads", n.attr("paddings"))
        value = n.b.full_like(x, n.attr("value", 0.0))
    else:
        assert pads is not None
        amounts = n.dims(pads, "the pads")
    which = tuple(range(rank)) if axes is None else tuple(n.axis(a, rank) for a in n.ints(axes, "the axes"))
    if len(amounts) != 2 * len(which):
        n.malformed(f"{len(amounts)} pads for {len(which)} axes")
    out: list[Dim] = [0] * (2 * rank)
    for i, axis in enumerate(which):
        out[axis], out[rank + axis] = amounts[i], amounts[len(which) + i]
    mode = n.attr("mode", "constant")
    operands = (x,) if value is None or mode != "constant" else (x, scalar(n, value))
    return n.b.pad(*operands, pads=tuple(out), mode=mode)


@onnx_op("Range")
def range_(n: OnnxNode, start: Value, limit: Value, delta: Value) -> Value:
    start, limit, delta = (scalar(n, v) for v in (start, limit, delta))
    dtype = start.dtype
    if dtype.is_integer:
        (first,), (last,) = n.dims(start, "the start"), n.dims(limit, "the limit")
        step = n.integer(delta, "the step")
        if step == 0:
            n.malformed("a step of 0")
        count = dim_max(ceildiv(last - first, step) if step > 0 else ceildiv(first - last, -step), 0)
    else:
        first, last, step = (n.array(v, "the range").item() for v in (start, limit, delta))
        count = max(int(np.ceil((last - first) / step)), 0)
    wide = dtype if dtype in (i64,) else None
    steps = n.b.iota(shape=(count,), axis=0, dtype=i64)
    steps = steps if wide is not None else cast(n, steps, dtype)
    return n.b.add(n.b.mul(steps, delta), start)


@onnx_op("Trilu", ranks=(2,))
def trilu(n: OnnxNode, x: Value, k: Value | None = None) -> Value:
    rank = len(x.shape)
    rows, columns = (n.b.iota(shape=x.shape[-2:], axis=a, dtype=i64) for a in (0, 1))
    offset = n.b.const(np.int64(0)) if k is None else scalar(n, k)
    distance = n.b.sub(columns, rows)
    keep = n.b.ge(distance, offset) if n.attr("upper", 1) else n.b.le(distance, offset)
    assert rank >= 2
    return n.b.where(keep, x, n.b.full_like(x, 0) if x.dtype != bool_ else n.b.const(np.array(False)))


@onnx_op("DepthToSpace", ranks=(4,))
def depth_to_space(n: OnnxNode, x: Value) -> Value:
    batch, channels, height, width = x.shape
    block = n.attr("blocksize")
    depth = channels // (block * block)
    if n.attr("mode", "DCR") == "DCR":
        split_, perm = (batch, block, block, depth, height, width), (0, 3, 4, 1, 5, 2)
    else:
        split_, perm = (batch, depth, block, block, height, width), (0, 1, 4, 2, 5, 3)
    return n.b.reshape(
        n.b.transpose(n.b.reshape(x, shape=split_), perm=perm), shape=(batch, depth, height * block, width * block)
    )


@onnx_op("SpaceToDepth", ranks=(4,))
def space_to_depth(n: OnnxNode, x: Value) -> Value:
    batch, channels, height, width = x.shape
    block = n.attr("blocksize")
    y = n.b.reshape(x, shape=(batch, channels, height // block, block, width // block, block))
    perm = (0, 3, 5, 1, 2, 4) if n.attr("mode", "DCR") == "DCR" else (0, 1, 3, 5, 2, 4)
    y = n.b.transpose(y, perm=perm)
    return n.b.reshape(y, shape=(batch, channels * block * block, height // block, width // block))


@onnx_op("CenterCropPad")
def center_crop_pad(n: OnnxNode, x: Value, shape: Value) -> Value:
    rank = len(x.shape)
    axes = tuple(n.axis(a, rank) for a in n.attr("axes", tuple(range(rank))))
    if len(set(axes)) != len(axes):
        n.malformed(f"an axis occurs twice in {list(axes)}")
    wanted = n.dims(shape, "the target shape")
    if len(axes) != len(wanted):
        n.malformed(f"a target shape of {len(wanted)} sizes for {len(axes)} axes")
    before: list[Dim] = [0] * rank
    after: list[Dim] = [0] * rank
    for axis, size in zip(axes, wanted, strict=True):
        have = x.shape[axis]
        n.plain([size, have], "whether an axis is cropped or padded")
        assert isinstance(size, int) and isinstance(have, int)
        before[axis] = (size - have) // 2 if size > have else -((have - size) // 2)
        after[axis] = size - have - before[axis]
    return n.b.pad(x, pads=(*before, *after))


@onnx_op("ReverseSequence")
def reverse_sequence(n: OnnxNode, x: Value, lengths: Value) -> Value:
    time, batch = n.attr("time_axis", 0), n.attr("batch_axis", 1)
    return reverse_prefix(n, x, lengths, n.axis(time, len(x.shape)), n.axis(batch, len(x.shape)))


def reverse_prefix(n: OnnxNode, x: Value, lengths: Value, time: int, batch: int) -> Value:
    """Of each batch entry, the first `lengths[entry]` steps backwards, the others as they are."""
    rank = len(x.shape)
    small = tuple(d if k in (time, batch) else 1 for k, d in enumerate(x.shape))
    step = n.b.iota(shape=small, axis=time, dtype=i64)
    view = tuple(d if k == batch else 1 for k, d in enumerate(x.shape))
    length = n.b.reshape(cast(n, lengths, i64), shape=view)
    mirrored = n.b.sub(n.b.sub(length, n.b.const(np.int64(1))), step)
    at = n.b.where(n.b.lt(step, length), mirrored, step)
    assert rank >= 2
    return n.b.gather_elements(x, n.b.broadcast_to(at, shape=x.shape), axis=time)
