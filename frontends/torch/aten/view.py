"""Views and data movement. Values are logical arrays: a view op means its result's elements, never shared memory."""

from __future__ import annotations

from typing import Any

from effcc.errors import UnsupportedError
from effcc.frontends.torch.emitter import Emitter, lowers
from effcc.ir import Dim, Value, bounds, dim_max, dim_min, i64, product


@lowers(
    "view",
    "_unsafe_view",
    "reshape",
    "_reshape_alias",
    "unsqueeze",
    "squeeze",
    "flatten",
    "unflatten",
    "prims::collapse",
    "prims::split_dim",
    "view_copy",
    "squeeze_copy",
    "unsqueeze_copy",
)
def reshape(e: Emitter, x: Value, *_: Any, **__: Any) -> Value:
    """The same elements in row-major order; torch has computed the result's shape."""
    if e.dtype != x.dtype:
        raise UnsupportedError(
            f"reading {x.dtype} memory as {e.dtype} (view of another dtype) is not supported",
            hint="use .to(dtype) if you mean a conversion",
        )
    return e.reshape(x, e.shape)


@lowers("permute", "permute_copy", "prims::transpose")
def permute(e: Emitter, x: Value, dims: Any) -> Value:
    return e.transpose(x, dims)


@lowers("transpose", "swapaxes", "transpose_copy")
def transpose(e: Emitter, x: Value, a: int, b: int) -> Value:
    rank = len(x.shape)
    return e.swap(x, e.axis(a, rank), e.axis(b, rank)) if rank else x


@lowers("t", "numpy_T", "mT", "t_copy")
def t(e: Emitter, x: Value) -> Value:
    return e.swap(x, -1, -2) if len(x.shape) >= 2 else x


@lowers("expand", "expand_copy", "prims::broadcast_in_dim")
def expand(e: Emitter, x: Value, *args: Any, **_: Any) -> Value:
    if e.target.startswith("prims") and len(x.shape) != len(e.shape):
        axes = list(args[1])
        x = e.reshape(x, tuple(x.shape[axes.index(k)] if k in axes else 1 for k in range(len(e.shape))))
    return e.broadcast(x, e.shape)


@lowers("repeat", "tile")
def repeat(e: Emitter, x: Value, repeats: Any) -> Value:
    rank = max(len(repeats), len(x.shape))
    x = e.reshape(x, (1,) * (rank - len(x.shape)) + x.shape)
    counts = (1,) * (rank - len(repeats)) + e.sizes.dims(repeats)
    if all(n == 1 for n in counts):
        return x
    if all(d == 1 or n == 1 for d, n in zip(x.shape, counts, strict=True)):
        return e.broadcast(x, e.shape)
    return e.b.repeat(x, counts=counts)


# -- slices ----------------------------------------------------------------------------------------
def clamped_start(e: Emitter, start: Any, size: Dim) -> Dim:
    """torch's start of a slice: negative counts from the end, then clamped to [0, size]."""
    start = 0 if start is None else e.sizes.dim(start)
    if isinstance(start, int) and isinstance(size, int):
        return min(max(start + size if start < 0 else start, 0), size)
    low, high = bounds(start)
    if high is not None and high < 0:
        return dim_max(start + size, 0)
    if low is None or low < 0:
        raise UnsupportedError(f"the sign of the slice start {start} is not known at compile time")
    return dim_min(start, size)


@lowers("slice")
def slice_(e: Emitter, x: Value, dim: int = 0, start: Any = None, end: Any = None, step: int = 1) -> Value:
    axis = e.axis(dim, len(x.shape))
    begin = clamped_start(e, start, x.shape[axis])
    length = e.shape[axis]
    if length == 0:
        return e.slice(x, axis, begin, begin)
    return e.slice(x, axis, begin, begin + (length - 1) * step + 1, step)


@lowers("slice_copy")
def slice_copy(e: Emitter, *args: Any, **kwargs: Any) -> Value:
    return slice_(e, *args, **kwargs)


@lowers("narrow", "narrow_copy")
def narrow(e: Emitter, x: Value, dim: int, start: Any, length: Any) -> Value:
    axis = e.axis(dim, len(x.shape))
    begin = clamped_start(e, start, x.shape[axis])
    return e.slice(x, axis, begin, begin + e.sizes.dim(length))


@lowers("select", "select_copy")
def select(e: Emitter, x: Value, dim: int, index: Any) -> Value:
    axis = e.axis(dim, len(x.shape))
    at = e.sizes.dim(index)
    low, high = bounds(at)
    if high is not None and high < 0:
        at = at + x.shape[axis]
    elif low is None or low < 0:
        raise UnsupportedError(f"the sign of the index {at} is not known at compile time")
    picked = e.slice(x, axis, at, at + 1)
    return e.reshape(picked, x.shape[:axis] + x.shape[axis + 1 :])


@lowers(
    "split_with_sizes",
    "split",
    "chunk",
    "unsafe_split",
    "unsafe_split_with_sizes",
    "split_with_sizes_copy",
    "tensor_split",
)
def split(e: Emitter, x: Value, _: Any, dim: int = 0, **__: Any) -> tuple[Value, ...]:
    """Pieces along an axis; their sizes are those of the results."""
    axis = e.axis(dim, len(x.shape))
    pieces: list[Value] = []
    start: Dim = 0
    for piece in e.meta:
        size = e.sizes.dim(piece.shape[axis])
        pieces.append(e.slice(x, axis, start, start + size))
        start = start + size
    return tuple(pieces)


@lowers("unbind", "unbind_copy")
def unbind(e: Emitter, x: Value, dim: int = 0) -> tuple[Value, ...]:
    axis = e.axis(dim, len(x.shape))
    shape = x.shape[:axis] + x.shape[axis + 1 :]
    return tuple(e.reshape(e.slice(x, axis, i, i + 1), shape) for i in range(len(e.meta)))


@lowers("cat", "concat", "prims::cat")
def cat(e: Emitter, tensors: Any, dim: int = 0) -> Value:
    xs = [e.tensor(x) for x in tensors if x.shape != (0,) or len(e.shape) == 1]
    return xs[0] if len(xs) == 1 else e.b.concat(*xs, axis=e.axis(dim, len(e.shape)))


@lowers("stack")
def stack(e: Emitter, tensors: Any, dim: int = 0) -> Value:
    axis = e.axis(dim, len(e.shape))
    return e.b.concat(*(e.unsqueeze(e.tensor(x), axis) for x in tensors), axis=axis)


@lowers("flip", "prims::rev")
def flip(e: Emitter, x: Value, dims: Any) -> Value:
    axes = e.axes(dims, len(x.shape)) if dims else ()
    if not axes:
        return x
    starts = tuple(d - 1 if k in axes else 0 for k, d in enumerate(x.shape))
    stops = tuple(-1 if k in axes else d for k, d in enumerate(x.shape))
    if any(x.shape[k] == 0 for k in axes):
        return x
    return e.b.slice(x, starts=starts, stops=stops, steps=tuple(-1 if k in axes else 1 for k in range(len(x.shape))))


@lowers("roll")
def roll(e: Emitter, x: Value, shifts: Any, dims: Any = ()) -> Value:
    """Cyclic shift; without axes, of the flattened tensor."""
    shifts = list(shifts) if isinstance(shifts, (list, tuple)) else [shifts]
    dims = list(dims) if isinstance(dims, (list, tuple)) else [dims]
    shape = x.shape
    if not dims:
        x, dims = e.reshape(x, (product(shape),)), [0]
    amounts: list[Dim] = [0] * len(x.shape)
    for shift, dim in zip(shifts, dims, strict=True):
        axis = e.axis(dim, len(x.shape))
        amounts[axis] = amounts[axis] + e.sizes.dim(shift)
    return e.reshape(e.b.roll(x, shifts=tuple(amounts)), shape)


# -- padding ---------------------------------------------------------------------------------------
def _pad(e: Emitter, x: Value, pad: Any, mode: str, value: Any = None) -> Value:
    """torch lists amounts from the last axis to the first, (before, after) each."""
    rank = len(x.shape)
    before: list[Dim] = [0] * rank
    after: list[Dim] = [0] * rank
    for k in range(len(pad) // 2):
        before[rank - 1 - k], after[rank - 1 - k] = e.sizes.dim(pad[2 * k]), e.sizes.dim(pad[2 * k + 1])
    if all(p == 0 for p in before + after):
        return x
    operands = (x,) if value is None or (not hasattr(value, "type") and value == 0) else (x, e.tensor(value, x.dtype))
    return e.b.pad(*operands, pads=tuple(before + after), mode=mode)


@lowers("constant_pad_nd")
def constant_pad_nd(e: Emitter, x: Value, pad: Any, value: Any = 0) -> Value:
    return _pad(e, x, pad, "constant", value)


@lowers("pad")
def pad_any(e: Emitter, x: Value, pad: Any, mode: str = "constant", value: Any = None) -> Value:
    return _pad(e, x, pad, {"replicate": "edge", "circular": "wrap"}.get(mode, mode), value)


@lowers("reflection_pad1d", "reflection_pad2d", "reflection_pad3d")
def reflection_pad(e: Emitter, x: Value, padding: Any) -> Value:
    return _pad(e, x, padding, "reflect")


@lowers("replication_pad1d", "replication_pad2d", "replication_pad3d")
def replication_pad(e: Emitter, x: Value, padding: Any) -> Value:
    return _pad(e, x, padding, "edge")


@lowers("_pad_circular")
def circular_pad(e: Emitter, x: Value, pad: Any) -> Value:
    return _pad(e, x, pad, "wrap")


# -- writing into a part ---------------------------------------------------------------------------
@lowers("slice_scatter")
def slice_scatter(
    e: Emitter, x: Value, src: Value, dim: int = 0, start: Any = None, end: Any = None, step: int = 1
) -> Value:
    axis = e.axis(dim, len(x.shape))
    begin = clamped_start(e, start, x.shape[axis])
    src = e.broadcast(e.tensor(src), src.shape)
    if step == 1:
        if begin == 0 and src.shape[axis] == x.shape[axis]:
            return src
        return e.b.update_slice(x, src, *(e.index(begin if k == axis else 0) for k in range(len(x.shape))))
    rows = e.b.add(e.b.mul(e.iota((src.shape[axis],), 0), e.index(step)), e.index(begin))
    order = (axis, *(k for k in range(len(x.shape)) if k != axis))
    written = e.b.scatter_nd(e.transpose(x, order), e.unsqueeze(rows, 1), e.transpose(src, order), reduction="none")
    return e.transpose(written, tuple(order.index(k) for k in range(len(order))))


@lowers("select_scatter")
def select_scatter(e: Emitter, x: Value, src: Value, dim: int, index: Any) -> Value:
    axis = e.axis(dim, len(x.shape))
    at = e.sizes.dim(index)
    at = at + x.shape[axis] if isinstance(at, int) and at < 0 else at
    return e.b.update_slice(
        x, e.unsqueeze(e.tensor(src), axis), *(e.index(at if k == axis else 0) for k in range(len(x.shape)))
    )


@lowers("copy", "fill.Tensor")
def copy(e: Emitter, x: Value, src: Any, non_blocking: bool = False) -> Value:
    return e.broadcast(e.tensor(src, x.dtype), x.shape)


# -- strided access --------------------------------------------------------------------------------
@lowers("as_strided", "as_strided_copy")
def as_strided(e: Emitter, x: Value, size: Any, stride: Any, storage_offset: Any = None) -> Value:
    """Element i of the result is storage[offset + Σ i_k stride_k]; x's storage is its elements, row-major."""
    size, stride = e.sizes.dims(size), e.sizes.dims(stride)
    offset = 0 if storage_offset is None else e.sizes.dim(storage_offset)
    x = _storage_order(e, x)
    total = product(x.shape)
    flat = e.reshape(x, (total,))
    if stride == row_major(size) and (isinstance(offset, int) or offset == 0):
        return e.reshape(e.slice(flat, 0, offset, offset + product(size)), size)
    at = strided_index(e, size, stride, offset)
    return e.b.gather(flat, at, axis=0)


@lowers("as_strided_scatter")
def as_strided_scatter(e: Emitter, x: Value, src: Value, size: Any, stride: Any, storage_offset: Any = None) -> Value:
    size, stride = e.sizes.dims(size), e.sizes.dims(stride)
    offset = 0 if storage_offset is None else e.sizes.dim(storage_offset)
    flat = e.reshape(x, (product(x.shape),))
    at = e.reshape(strided_index(e, size, stride, offset), (product(size), 1))
    written = e.b.scatter_nd(flat, at, e.reshape(e.tensor(src), (product(size),)), reduction="none")
    return e.reshape(written, x.shape)


def _storage_order(e: Emitter, x: Value) -> Value:
    """x with its axes in the order of the strides that torch traced it with."""
    fake = e.operand_meta(0)
    strides = list(fake.stride())
    if any(not isinstance(s, int) for s in strides):
        return x
    order = sorted(range(len(strides)), key=lambda k: (-strides[k], k))
    return e.transpose(x, order)


def row_major(shape: tuple[Dim, ...]) -> tuple[Dim, ...]:
    strides: list[Dim] = []
    step: Dim = 1
    for d in reversed(shape):
        strides.insert(0, step)
        step = step * d
    return tuple(strides)


def strided_index(e: Emitter, size: tuple[Dim, ...], stride: tuple[Dim, ...], offset: Dim) -> Value:
    """offset + Σ i_k stride_k as an i64 tensor of shape `size`."""
    total = e.full(size, offset, i64) if not size else e.index(offset)
    for k, (d, step) in enumerate(zip(size, stride, strict=True)):
        along = e.b.mul(e.iota((d,), 0), e.index(step))
        total = e.b.add(total, e.reshape(along, (d, *(1 for _ in size[k + 1 :]))))
    return e.broadcast(total, size)


@lowers("unfold", "unfold_copy")
def unfold(e: Emitter, x: Value, dimension: int, size: int, step: int) -> Value:
    """Windows along an axis: result[..., i, ..., j] = x[..., i*step + j, ...], j on a new last axis."""
    rank = len(x.shape)
    axis = e.axis(dimension, rank)
    count = e.shape[axis] if rank else 1
    start = e.b.mul(e.iota((count, size), 0), e.index(step))
    windows = e.b.gather(x if rank else e.reshape(x, (1,)), e.b.add(start, e.iota((count, size), 1)), axis=axis)
    if not rank:
        return e.reshape(windows, e.shape)
    perm = [k for k in range(rank + 1) if k != axis + 1] + [axis + 1]
    return e.transpose(windows, perm)


@lowers("diagonal", "diagonal_copy")
def diagonal(e: Emitter, x: Value, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Value:
    rank = len(x.shape)
    a, b = e.axis(dim1, rank), e.axis(dim2, rank)
    rest = [k for k in range(rank) if k not in (a, b)]
    x = e.transpose(x, [*rest, a, b])
    rows, cols = x.shape[-2:]
    x = e.reshape(x, (*x.shape[:-2], rows * cols))
    count = e.shape[-1]
    first = offset if offset >= 0 else cols * -offset
    at = e.b.add(e.b.mul(e.iota((count,), 0), e.index(cols + 1)), e.index(first))
    return e.b.gather(x, at, axis=rank - 2)


@lowers("movedim")
def movedim(e: Emitter, x: Value, source: Any, destination: Any) -> Value:
    rank = len(x.shape)
    source = [source] if isinstance(source, int) else list(source)
    destination = [destination] if isinstance(destination, int) else list(destination)
    moved = {e.axis(d, rank): e.axis(s, rank) for s, d in zip(source, destination, strict=True)}
    rest = iter(k for k in range(rank) if k not in moved.values())
    return e.transpose(x, [moved[k] if k in moved else next(rest) for k in range(rank)])


@lowers("diagonal_scatter")
def diagonal_scatter(e: Emitter, x: Value, src: Value, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Value:
    rank = len(x.shape)
    a, b = e.axis(dim1, rank), e.axis(dim2, rank)
    order = [*(k for k in range(rank) if k not in (a, b)), a, b]
    plane = e.transpose(x, order)
    rows, cols = plane.shape[-2:]
    flat = e.reshape(plane, (*plane.shape[:-2], rows * cols))
    count = src.shape[-1]
    first = offset if offset >= 0 else cols * -offset
    at = e.b.add(e.b.mul(e.iota((count,), 0), e.index(cols + 1)), e.index(first))
    at = e.broadcast(at, src.shape)
    written = e.b.scatter_elements(flat, at, e.tensor(src), axis=rank - 2)
    return e.transpose(e.reshape(written, plane.shape), [order.index(k) for k in range(rank)])
