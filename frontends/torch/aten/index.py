"""Indexing by data: gathers, scatters, masks. Negative indices count from the end, as the catalogue's index ops do."""

from __future__ import annotations

from typing import Any

from effcc.errors import TypeRuleError, UnsupportedError
from effcc.frontends.torch.emitter import Emitter, lowers
from effcc.ir import Dim, Value, bool_, i64, product, u8
from effcc.ops.elementwise import broadcast_shapes


@lowers("embedding")
def embedding(e: Emitter, weight: Value, indices: Value, *_: Any) -> Value:
    return e.b.gather(weight, indices, axis=0)


@lowers("embedding_dense_backward")
def embedding_backward(
    e: Emitter, grad: Value, indices: Value, num_weights: Any, padding_idx: int, scale: bool
) -> Value:
    """Sum of the gradients of each row; none for the padding row."""
    width = grad.shape[-1]
    count = product(indices.shape)
    at = e.reshape(e.cast(indices, i64), (count, 1))
    rows = e.reshape(grad, (count, width))
    if scale:
        ones = e.full((count,), 1, grad.dtype)
        times = e.b.scatter_nd(e.full((e.sizes.dim(num_weights),), 0, grad.dtype), at, ones, reduction="add")
        rows = e.b.div(rows, e.unsqueeze(e.b.gather(times, e.reshape(at, (count,)), axis=0), 1))
    if int(padding_idx) >= 0:
        rows = e.b.where(e.b.eq(at, e.index(int(padding_idx))), e.number(0, rows.dtype), rows)
    zeros = e.full((e.sizes.dim(num_weights), width), 0, grad.dtype)
    return e.b.scatter_nd(zeros, at, rows, reduction="add")


@lowers("gather")
def gather(e: Emitter, x: Value, dim: int, index: Value, **_: Any) -> Value:
    if not x.shape:
        return e.broadcast(x, index.shape)
    if 0 in index.shape:  # torch then takes an index of any rank
        return e.full(index.shape, 0, x.dtype)
    if not index.shape:
        return e.reshape(e.b.gather_elements(x, e.reshape(index, (1,)), axis=0), ())
    return e.b.gather_elements(x, e.cast(index, i64), axis=e.axis(dim, len(x.shape)))


@lowers("index_select")
def index_select(e: Emitter, x: Value, dim: int, index: Value) -> Value:
    if not x.shape:
        return x
    return e.b.gather(x, e.reshape(index, (product(index.shape),)), axis=e.axis(dim, len(x.shape)))


@lowers("take")
def take(e: Emitter, x: Value, index: Value) -> Value:
    return e.b.gather(e.reshape(x, (product(x.shape),)), index, axis=0)


# -- advanced indexing -----------------------------------------------------------------------------
def positions(e: Emitter, x: Value, indices: Any) -> tuple[list[int], Value, tuple[Dim, ...], bool]:
    """The axes that index tensors address, the index tuples [i..., axes], i..., and whether the axes are adjacent."""
    axes: list[int] = []
    parts: list[Value] = []
    axis = 0
    for index in indices:
        if index is None:
            axis += 1
        elif index.dtype == bool_:
            columns = mask_positions(e, index)
            for k in range(len(index.shape)):
                axes.append(axis + k)
                parts.append(e.reshape(e.slice(columns, 0, k, k + 1), (columns.shape[1],)))
            axis += len(index.shape)
        else:
            axes.append(axis)
            parts.append(e.cast(index, i64))
            axis += 1
    shape = broadcast_shapes(*(p.shape for p in parts))
    tuples = (
        e.b.concat(*(e.unsqueeze(e.broadcast(p, shape), len(shape)) for p in parts), axis=len(shape))
        if len(parts) > 1
        else e.unsqueeze(parts[0], len(shape))
    )
    given = [k for k, index in enumerate(indices) if index is not None]
    return axes, tuples, shape, given == list(range(given[0], given[-1] + 1))


def mask_positions(e: Emitter, mask: Value) -> Value:
    """i64 [rank, n] of the true elements; n is a symbol that torch named in this op's result."""
    return e.b.nonzero(mask, size=e.new_size(mask))


@lowers("index", "_unsafe_index")
def index(e: Emitter, x: Value, indices: Any) -> Value:
    """NumPy's advanced indexing: adjacent index axes stay in place, others move to the front."""
    given = [k for k, i in enumerate(indices) if i is not None]
    if not given:
        return x
    if len(given) == 1 and indices[given[0]].dtype != bool_:
        return e.b.gather(x, indices[given[0]], axis=given[0])
    axes, tuples, shape, adjacent = positions(e, x, indices)
    rest = [k for k in range(len(x.shape)) if k not in axes]
    picked = e.b.gather_nd(e.transpose(x, [*axes, *rest]), tuples, batch_dims=0)
    if not adjacent or axes[0] == 0:
        return picked
    n, before = len(shape), axes[0]
    return e.transpose(picked, [*range(n, n + before), *range(n), *range(n + before, n + len(rest))])


@lowers("index_put", "_unsafe_index_put", "_index_put_impl")
def index_put(e: Emitter, x: Value, indices: Any, values: Value, accumulate: bool = False, *_: Any) -> Value:
    if not x.shape:
        return e.reshape(index_put(e, e.reshape(x, (1,)), indices, values, accumulate), ())
    values = e.cast(values, x.dtype)
    given = [k for k, i in enumerate(indices) if i is not None]
    if len(given) == 1 and indices[given[0]].dtype == bool_ and product(values.shape) == 1:
        mask = indices[given[0]]
        first, n = given[0], len(mask.shape)
        mask = e.reshape(mask, (*mask.shape, *(1 for _ in x.shape[first + n :])))
        value = e.reshape(values, ())
        sum_ = e.b.or_ if x.dtype.is_bool else e.b.add
        return e.b.where(mask, sum_(x, value) if accumulate else value, x)
    if len(given) == 1 and indices[given[0]].dtype == bool_:
        return _masked_put(e, x, indices[given[0]], given[0], values, accumulate)
    axes, tuples, shape, adjacent = positions(e, x, indices)
    rest = [k for k in range(len(x.shape)) if k not in axes]
    order = [*axes, *rest]
    n, before = len(shape), axes[0] if adjacent else 0
    tail = tuple(x.shape[k] for k in rest)
    values = e.broadcast(values, (*tail[:before], *shape, *tail[before:]))
    if before:
        values = e.transpose(values, [*range(before, before + n), *range(before), *range(before + n, n + len(rest))])
    start = e.transpose(x, order)
    if accumulate and x.dtype.is_bool:
        added = e.b.scatter_nd(e.cast(start, u8), tuples, e.cast(values, u8), reduction="max")
        written = e.cast(added, bool_)
    else:
        written = e.b.scatter_nd(start, tuples, values, reduction="add" if accumulate else "none")
    return e.transpose(written, [order.index(k) for k in range(len(order))])


def _masked_put(e: Emitter, x: Value, mask: Value, first: int, values: Value, accumulate: bool) -> Value:
    """index_put through one mask, over the axes of x from `first` on: its k-th true element takes values[k]."""
    n = len(mask.shape)
    axes = list(range(first, first + n))
    rest = [k for k in range(len(x.shape)) if k not in axes]
    count, tail = product(mask.shape), tuple(x.shape[k] for k in rest)
    flat = e.reshape(mask, (count,))
    rank = e.b.max(e.b.sub(e.b.cumsum(e.cast(flat, i64), axis=0), e.index(1)), e.index(0))
    values = e.reshape(values, (1,) * (len(rest) + 1 - len(values.shape)) + values.shape)
    at = first if first < len(values.shape) else 0
    if values.shape[at] != 1:
        values = e.b.gather(values, rank, axis=at)
    shape = (*tail[:first], count, *tail[first:])
    values = e.reshape(e.broadcast(values, shape), (*tail[:first], *mask.shape, *tail[first:]))
    mask = e.reshape(mask, (*mask.shape, *(1 for _ in tail[first:])))
    if accumulate:
        values = e.b.or_(x, values) if x.dtype.is_bool else e.b.add(x, values)
    return e.b.where(mask, values, x)


@lowers("masked_select")
def masked_select(e: Emitter, x: Value, mask: Value) -> Value:
    shape = broadcast_shapes(x.shape, mask.shape) or (1,)
    return index(e, e.broadcast(x, shape), [e.broadcast(mask, shape)])


@lowers("masked_scatter")
def masked_scatter(e: Emitter, x: Value, mask: Value, source: Value) -> Value:
    """The k-th true element of the mask takes the k-th element of the source."""
    shape = broadcast_shapes(x.shape, mask.shape)
    x, mask = e.broadcast(x, shape), e.broadcast(mask, shape)
    n = product(x.shape)
    rank = e.b.sub(e.b.cumsum(e.cast(e.reshape(mask, (n,)), i64), axis=0), e.index(1))
    rank = e.b.max(rank, e.index(0))
    picked = e.b.gather(e.reshape(source, (product(source.shape),)), rank, axis=0)
    return e.b.where(mask, e.reshape(e.cast(picked, x.dtype), x.shape), x)


@lowers("nonzero")
def nonzero(e: Emitter, x: Value) -> Value:
    """i64 [n, rank]."""
    return e.swap(e.b.nonzero(x, size=e.new_size(x)), 0, 1)


# -- scatters --------------------------------------------------------------------------------------
REDUCTIONS = {"sum": "add", "prod": "mul", "amax": "max", "amin": "min", "add": "add", "multiply": "mul"}


OF_BOOLS = {"add": "max", "mul": "min", "max": "max", "min": "min"}
"""Reductions of booleans, as those of the numbers 0 and 1."""


def _scatter(e: Emitter, x: Value, dim: int, at: Value, src: Value, reduction: str) -> Value:
    if not x.shape:
        flat = _scatter(e, e.reshape(x, (1,)), 0, e.reshape(at, (1,)), e.reshape(src, (1,)), reduction)
        return e.reshape(flat, ())
    for k, d in enumerate(at.shape):  # torch lets the index be smaller than the source
        src = e.slice(src, k, 0, d)
    if x.dtype.is_bool and reduction != "none":
        x, src = e.cast(x, u8), e.cast(src, u8)
        return e.cast(_scatter(e, x, dim, at, src, OF_BOOLS[reduction]), bool_)
    return e.b.scatter_elements(x, e.cast(at, i64), src, axis=e.axis(dim, len(x.shape)), reduction=reduction)


@lowers("scatter.src", "scatter.reduce")
def scatter_src(e: Emitter, x: Value, dim: int, at: Value, src: Value, *, reduce: str = "") -> Value:
    return _scatter(e, x, dim, at, e.cast(src, x.dtype), REDUCTIONS.get(reduce, "none"))


@lowers("scatter.value", "scatter.value_reduce")
def scatter_value(e: Emitter, x: Value, dim: int, at: Value, value: Any, *, reduce: str = "") -> Value:
    return _scatter(e, x, dim, at, e.full(at.shape, value, x.dtype), REDUCTIONS.get(reduce, "none"))


@lowers("scatter_add")
def scatter_add(e: Emitter, x: Value, dim: int, at: Value, src: Value) -> Value:
    return _scatter(e, x, dim, at, src, "add")


@lowers("scatter_reduce")
def scatter_reduce(
    e: Emitter, x: Value, dim: int, at: Value, src: Value, reduce: str, *, include_self: bool = True
) -> Value:
    axis = e.axis(dim, len(x.shape))
    for k, d in enumerate(at.shape):
        src = e.slice(src, k, 0, d)
    if reduce == "mean":
        ones = e.full(at.shape, 1, x.dtype)
        start = x if include_self else _scatter(e, x, axis, at, e.full(at.shape, 0, x.dtype), "none")
        count = e.full(x.shape, 1 if include_self else 0, x.dtype)
        count = e.b.max(_scatter(e, count, axis, at, ones, "add"), e.number(1, x.dtype))
        summed = _scatter(e, start, axis, at, src, "add")
        return e.b.div(summed, count) if x.dtype.is_float else e.b.floordiv(summed, count)
    start = x
    if not include_self:
        neutral = {"sum": 0, "prod": 1, "amax": x.dtype.min, "amin": x.dtype.max}[reduce]
        start = _scatter(e, x, axis, at, e.full(at.shape, neutral, x.dtype), "none")
    return _scatter(e, start, axis, at, src, REDUCTIONS[reduce])


@lowers("index_add")
def index_add(e: Emitter, x: Value, dim: int, at: Value, source: Value, *, alpha: Any = 1) -> Value:
    axis = e.axis(dim, len(x.shape))
    rests = [v.shape[:axis] + v.shape[axis + 1 :] for v in (x, source)]
    if source.dtype != x.dtype or len(x.shape) != len(source.shape) or rests[0] != rests[1]:
        raise TypeRuleError(f"the source {source.type} does not fit {x.type} on the axes besides {axis}")
    if alpha != 1:
        scale = e.b.and_ if x.dtype.is_bool else e.b.mul
        source = scale(source, e.tensor(alpha, x.dtype))
    return index_put(e, x, [None] * e.axis(dim, len(x.shape)) + [e.reshape(at, (product(at.shape),))], source, True)


@lowers("index_copy")
def index_copy(e: Emitter, x: Value, dim: int, at: Value, source: Value) -> Value:
    axis = e.axis(dim, len(x.shape))
    if at.shape == (1,) and x.shape:  # one slice is a block, written in place: a token of a key-value cache
        start = e.cast(e.reshape(at, ()), i64)
        return e.b.update_slice(x, source, *(start if k == axis else e.index(0) for k in range(len(x.shape))))
    return index_put(e, x, [None] * e.axis(dim, len(x.shape)) + [e.reshape(at, (product(at.shape),))], source)


@lowers("index_fill")
def index_fill(e: Emitter, x: Value, dim: int, at: Value, value: Any) -> Value:
    return index_put(
        e, x, [None] * e.axis(dim, len(x.shape)) + [e.reshape(at, (product(at.shape),))], e.tensor(value, x.dtype)
    )


@lowers("_unsafe_masked_index")
def unsafe_masked_index(e: Emitter, x: Value, mask: Value, indices: Any, fill: Any) -> Value:
    """x[indices] where the mask holds, else fill; indices under a false mask may lie outside."""
    picked = index(e, x, indices)
    return e.b.where(mask, picked, e.tensor(fill, picked.dtype))


@lowers("_unsafe_masked_index_put_accumulate")
def unsafe_masked_index_put(e: Emitter, x: Value, mask: Value, indices: Any, values: Value) -> Value:
    return index_put(e, x, indices, e.b.where(mask, values, e.number(0, values.dtype)), True)


@lowers("searchsorted.Tensor")
def searchsorted(
    e: Emitter,
    boundaries: Value,
    values: Value,
    *,
    out_int32: bool = False,
    right: bool = False,
    side: str | None = None,
    sorter: Any = None,
) -> Value:
    if sorter is not None:
        boundaries = e.b.gather_elements(boundaries, sorter, axis=len(boundaries.shape) - 1)
    dtype = e.promoted(boundaries, values)
    found = e.b.searchsorted(e.cast(boundaries, dtype), e.cast(values, dtype), right=bool(right) or side == "right")
    return e.cast(found, e.dtype)


@lowers("bucketize")
def bucketize(e: Emitter, values: Any, boundaries: Value, *, out_int32: bool = False, right: bool = False) -> Value:
    """The number of boundaries below each value (with `right`: not above it)."""
    dtype = e.promoted(values, boundaries)
    found = e.b.searchsorted(e.cast(boundaries, dtype), e.tensor(values, dtype), right=bool(right))
    return e.cast(found, e.dtype)


@lowers("repeat_interleave.Tensor")
def repeat_interleave(e: Emitter, repeats: Value, *, output_size: Any = None) -> Value:
    """Index i repeats[i] times: position p belongs to the first i whose running total exceeds p."""
    total = e.shape[0]
    if output_size is None and not isinstance(total, int):
        raise UnsupportedError(
            "repeat_interleave without output_size has a data-dependent size", hint="pass output_size"
        )
    ends = e.b.cumsum(e.cast(repeats, i64), axis=0)
    at = e.iota((total, 1), 0)
    return e.cast(e.b.sum(e.cast(e.b.le(e.unsqueeze(ends, 0), at), i64), axes=(1,), keepdims=False), e.dtype)


@lowers("index_reduce")
def index_reduce(
    e: Emitter, x: Value, dim: int, at: Value, source: Value, reduce: str, *, include_self: bool = True
) -> Value:
    axis = e.axis(dim, len(x.shape))
    at = e.reshape(at, tuple(product(at.shape) if k == axis else 1 for k in range(len(x.shape))))
    return scatter_reduce(e, x, axis, e.broadcast(at, source.shape), source, reduce, include_self=include_self)


@lowers("put")
def put(e: Emitter, x: Value, at: Value, source: Value, accumulate: bool = False) -> Value:
    flat, rows = e.reshape(x, (product(x.shape),)), product(at.shape)
    return e.reshape(index_put(e, flat, [e.reshape(at, (rows,))], e.reshape(source, (rows,)), accumulate), x.shape)


@lowers("nonzero_static")
def nonzero_static(e: Emitter, x: Value, *, size: int, fill_value: int = -1) -> Value:
    """i64 [size, rank]: the first `size` positions, then the fill value."""
    rank, count = len(x.shape), product(x.shape)
    mask = e.reshape(e.tensor(x, bool_), (count,))
    order = e.b.sub(e.b.cumsum(e.cast(mask, i64), axis=0), e.index(1))
    slot = e.b.where(e.b.and_(mask, e.b.lt(order, e.index(size))), order, e.index(size))
    columns = []
    for axis in range(rank):
        start = e.full((size + 1,), fill_value, i64)
        here = e.reshape(e.iota(x.shape, axis), (count,))
        columns.append(e.slice(e.b.scatter_elements(start, slot, here, axis=0), 0, 0, size))
    return e.b.concat(*(e.unsqueeze(c, 1) for c in columns), axis=1) if columns else e.full((size, 0), 0, i64)


@lowers("_embedding_bag", "_embedding_bag_forward_only")
def embedding_bag(
    e: Emitter,
    weight: Value,
    indices: Value,
    offsets: Value,
    scale_grad_by_freq: bool = False,
    mode: int = 0,
    sparse: bool = False,
    per_sample_weights: Value | None = None,
    include_last_offset: bool = False,
    padding_idx: int = -1,
) -> tuple[Value | None, ...]:
    """Sum, mean or maximum of each bag's rows, padding left out; bag b is indices[offsets[b] : offsets[b+1]]."""
    if e.uses(1, 2, 3):
        raise UnsupportedError("training through embedding_bag is not supported", hint="use embedding and a reduction")
    bags, width = e.shape
    count = indices.shape[0]
    rows = e.b.gather(weight, indices, axis=0)
    starts = e.slice(e.cast(offsets, i64), 0, 0, bags)
    at = e.iota((count, 1), 0)
    bag = e.b.sub(e.b.sum(e.cast(e.b.le(e.unsqueeze(starts, 0), at), i64), axes=(1,), keepdims=False), e.index(1))
    counted = e.b.ne(e.cast(indices, i64), e.index(int(padding_idx)))
    if per_sample_weights is not None:
        rows = e.b.mul(rows, e.unsqueeze(per_sample_weights, 1))
    neutral = weight.dtype.min if mode == 2 else 0
    rows = e.b.where(e.unsqueeze(counted, 1), rows, e.number(neutral, weight.dtype))
    start = e.full((bags, width), neutral, weight.dtype)
    y = e.b.scatter_nd(start, e.unsqueeze(bag, 1), rows, reduction="max" if mode == 2 else "add")
    sizes = e.b.scatter_nd(e.full((bags,), 0, i64), e.unsqueeze(bag, 1), e.cast(counted, i64), reduction="add")
    sizes = e.unsqueeze(sizes, 1)
    if mode == 1:
        y = e.b.div(y, e.cast(e.b.max(sizes, e.index(1)), y.dtype))
    if mode == 2:
        y = e.b.where(e.b.eq(sizes, e.index(0)), e.number(0, y.dtype), y)
    return y, None, None, None
