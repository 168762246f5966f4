"""Ordering, selection and scans along an axis."""

from __future__ import annotations

from typing import Any

from effcc.errors import TypeRuleError, UnsupportedError
from effcc.frontends.torch.emitter import Emitter, lowers
from effcc.ir import Builder, Tensor, Value, bool_, i64, product


def _scalar_pair(e: Emitter, x: Value) -> tuple[Value, Value]:
    return x, e.full((), 0, i64)


@lowers("sort")
def sort(
    e: Emitter, x: Value, *args: Any, stable: bool = True, dim: int = -1, descending: bool = False
) -> tuple[Value, Value]:
    rest = [a for a in args if a is not None] if ".stable" in e.target else list(args)
    if ".stable" in e.target and rest and isinstance(rest[0], bool) and len(rest) > 2:
        rest = rest[1:]
    dim = rest[0] if rest else dim
    descending = rest[1] if len(rest) > 1 else descending
    if not x.shape:
        return _scalar_pair(e, x)
    return e.b.sort(x, axis=e.axis(dim, len(x.shape)), descending=bool(descending), stable=True)


@lowers("argsort")
def argsort(e: Emitter, x: Value, *args: Any, **kwargs: Any) -> Value:
    return sort(e, x, *args, **kwargs)[1]


@lowers("topk")
def topk(e: Emitter, x: Value, k: Any, dim: int = -1, largest: bool = True, sorted: bool = True) -> tuple[Value, Value]:
    if x.dtype.is_bool:
        raise TypeRuleError("topk does not take bool", hint="convert to uint8")
    if not x.shape:
        return _scalar_pair(e, x)
    return e.b.topk(x, k=e.sizes.dim(k), axis=e.axis(dim, len(x.shape)), largest=bool(largest), sorted=True)


@lowers("kthvalue")
def kthvalue(e: Emitter, x: Value, k: int, dim: int = -1, keepdim: bool = False) -> tuple[Value, Value]:
    return _nth(e, x, int(k) - 1, dim, keepdim)


@lowers("median.dim")
def median(e: Emitter, x: Value, dim: int = -1, keepdim: bool = False) -> tuple[Value, Value]:
    """The lower of the two middle values."""
    axis = e.axis(dim, len(x.shape))
    return _nth(e, x, (x.shape[axis] - 1) // 2 if x.shape else 0, dim, keepdim)


@lowers("median.default")
def median_all(e: Emitter, x: Value) -> Value:
    flat = e.reshape(x, (product(x.shape),))
    return _nth(e, flat, (flat.shape[0] - 1) // 2, 0, False)[0]


def _nth(e: Emitter, x: Value, at: Any, dim: int, keepdim: bool) -> tuple[Value, Value]:
    if not x.shape:
        return _scalar_pair(e, x)
    axis = e.axis(dim, len(x.shape))
    values, indices = e.b.sort(x, axis=axis, descending=False, stable=True)
    picked = [e.slice(v, axis, at, at + 1) for v in (values, indices)]
    if not keepdim:
        picked = [e.reshape(v, v.shape[:axis] + v.shape[axis + 1 :]) for v in picked]
    return picked[0], picked[1]


@lowers("cumsum", "cumprod")
def cumulative(e: Emitter, x: Value, dim: int, *, dtype: Any = None) -> Value:
    ours = e.target.split(".")[1]
    x = e.cast(e.cast(x, e.dtype), e.compute_dtype(e.dtype))
    if not x.shape:
        return e.cast(x, e.dtype)
    return e.cast(getattr(e.b, ours)(x, axis=e.axis(dim, len(x.shape))), e.dtype)


@lowers("cummax", "cummin")
def cumulative_extremum(e: Emitter, x: Value, dim: int) -> tuple[Value, Value]:
    """Running extremum and where it was last met."""
    axis = e.axis(dim, len(x.shape))
    if not x.shape:
        return _scalar_pair(e, x)
    ordered = e.cast(x, i64) if x.dtype.is_bool else x
    values, at = getattr(e.b, e.target.split(".")[1])(ordered, axis=axis)
    return e.cast(values, x.dtype), at


@lowers("nanmedian.dim")
def nanmedian(e: Emitter, x: Value, dim: int = -1, keepdim: bool = False) -> tuple[Value, Value]:
    """The lower middle of the numbers of each row (sorting puts NaN last); NaN where there is none."""
    if not x.dtype.is_float:
        return median(e, x, dim, keepdim)
    if not x.shape:
        return _scalar_pair(e, x)
    axis = e.axis(dim, len(x.shape))
    values, indices = e.b.sort(x, axis=axis, descending=False, stable=True)
    numbers = e.b.sum(e.cast(e.b.not_(e.b.isnan(x)), i64), axes=(axis,), keepdims=True)
    middle = e.b.floordiv(e.b.max(e.b.sub(numbers, e.index(1)), e.index(0)), e.index(2))
    picked = [e.b.gather_elements(v, middle, axis=axis) for v in (values, indices)]
    return tuple(picked if keepdim else (e.reshape(v, e.shape) for v in picked))  # type: ignore[return-value]


@lowers("nanmedian.default")
def nanmedian_all(e: Emitter, x: Value) -> Value:
    return e.reshape(nanmedian(e, e.reshape(x, (product(x.shape),)), 0, True)[0], ())


@lowers("mode")
def mode(e: Emitter, x: Value, dim: int = -1, keepdim: bool = False) -> tuple[Value, Value]:
    """The most frequent element of each row, the least of several, and the last place where it stands."""
    if not x.shape:
        return _scalar_pair(e, x)
    axis = e.axis(dim, len(x.shape))
    values, indices = (e.swap(v, axis, -1) for v in e.b.sort(x, axis=axis, descending=False, stable=True))
    rank = len(x.shape)
    same = e.b.eq(e.unsqueeze(values, rank), e.unsqueeze(values, rank - 1))
    counts = e.b.sum(e.cast(same, i64), axes=(rank,), keepdims=False)
    first = e.b.argmax(counts, axis=rank - 1, keepdims=True)
    last = e.b.add(first, e.b.sub(e.b.amax(counts, axes=(rank - 1,), keepdims=True), e.index(1)))
    picked = (e.swap(e.b.gather_elements(v, last, axis=rank - 1), axis, -1) for v in (values, indices))
    value, at = (v if keepdim else e.reshape(v, e.shape) for v in picked)
    return value, at


@lowers("logcumsumexp")
def logcumsumexp(e: Emitter, x: Value, dim: int) -> Value:
    """ln of the running sum of exponentials: one element joins at a time, so that no maximum swamps the rest."""
    from effcc.frontends.torch.aten.elementwise import logaddexp_of

    if not x.shape:
        return x
    axis = e.axis(dim, len(x.shape))
    length = x.shape[axis]
    rows = e.transpose(e.cast(x, e.compute_dtype(x.dtype)), (axis, *(k for k in range(len(x.shape)) if k != axis)))
    body = Builder("body")
    i, going = body.input("i", Tensor(i64, ())), body.input("going", Tensor(bool_, ()))
    running = body.input("running", Tensor(rows.dtype, rows.shape[1:]))
    whole = body.input("rows", rows.type)
    joined = logaddexp_of(Emitter(body, e.sizes), running, body.gather(whole, i, axis=0))
    graph = body.graph(going, joined, joined)
    start = e.full(rows.shape[1:], float("-inf"), rows.dtype)
    _, scanned = e.b.loop(
        e.index(length), e.number(True, bool_), start, rows, body=graph, num_carried=1, length=length
    )
    back = [*range(1, axis + 1), 0, *range(axis + 1, len(x.shape))]
    return e.cast(e.transpose(scanned, back), e.dtype)


@lowers("unique_consecutive")
def unique_consecutive(
    e: Emitter, x: Value, return_inverse: bool = False, return_counts: bool = False, dim: int | None = None
) -> Any:
    """The first of each run of equal elements (or slices along an axis), each one's run, each run's length."""
    if dim == -1:
        message = "unique_consecutive along dim=-1, for which torch infers a wrong shape, is not supported"
        raise UnsupportedError(message, hint="count the axis from the front")
    axis = 0 if dim is None else e.axis(dim, len(x.shape))
    along = e.reshape(x, (product(x.shape),)) if dim is None else x
    n = along.shape[axis]
    if n == 0:
        raise UnsupportedError("unique_consecutive of nothing is not supported")
    differs = e.b.ne(e.slice(along, axis, 1, n), e.slice(along, axis, 0, n - 1))
    others = tuple(k for k in range(len(along.shape)) if k != axis)
    differs = e.reshape(e.b.any(differs, axes=others, keepdims=False) if others else differs, (n - 1,))
    begins = e.b.concat(e.full((1,), True, bool_), differs, axis=0)
    (found,) = (e.reshape(v, (v.shape[1],)) for v in (e.b.nonzero(begins, size=e.new_size(x)),))
    values = e.b.gather(along, found, axis=axis)
    run = e.b.sub(e.b.cumsum(e.cast(begins, i64), axis=0), e.index(1))
    ends = e.b.concat(e.slice(found, 0, 1, found.shape[0]), e.full((1,), n, i64), axis=0)
    inverse = (e.reshape(run, x.shape) if dim is None else run) if e.uses(1) else None
    return values, inverse, e.b.sub(ends, found) if e.uses(2) else None


@lowers("_unique2", "unique_dim")
def unique(e: Emitter, x: Value, *args: Any, **kwargs: Any) -> Any:
    """Sorted distinct elements, where each element went, how often each occurs."""
    if "_unique2" not in e.target:
        raise UnsupportedError("unique along an axis is not supported")
    flat = e.reshape(x, (product(x.shape),))
    values, _, inverse, counts = e.b.unique(flat, axis=None, sorted=True, size=e.new_size(x))
    return values, e.reshape(inverse, x.shape) if e.uses(1) else None, counts if e.uses(2) else None
