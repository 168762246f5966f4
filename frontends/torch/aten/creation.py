"""Tensors made from sizes and numbers."""

from __future__ import annotations

from typing import Any

from effcc.frontends.torch.emitter import Emitter, is_value, lowers
from effcc.ir import Value, bool_, f64


@lowers("full", "full_like", "new_full", "scalar_tensor", "prims::scalar_tensor", "prims::full", "prims::full_like")
def full(e: Emitter, *args: Any, **kwargs: Any) -> Value:
    names = ("fill_value", "s")
    value = next((kwargs[n] for n in names if n in kwargs), None)
    if value is None:
        at = {"full": 1, "full_like": 1, "new_full": 2, "scalar_tensor": 0}[e.target.split("::")[-1].split(".")[1]]
        value = args[at]
    return e.full(e.shape, value)


@lowers(
    "zeros",
    "zeros_like",
    "new_zeros",
    "empty",
    "empty_like",
    "new_empty",
    "empty_permuted",
    "empty_strided",
    "new_empty_strided",
    "zero",
    "prims::empty_strided",
)
def zeros(e: Emitter, *_: Any, **__: Any) -> Value:
    """Also uninitialised memory: a defined value costs nothing once it is overwritten."""
    return e.full(e.shape, 0)


@lowers("ones", "ones_like", "new_ones")
def ones(e: Emitter, *_: Any, **__: Any) -> Value:
    return e.full(e.shape, 1)


@lowers("fill.Scalar", "fill")
def fill(e: Emitter, x: Value, value: Any) -> Value:
    return e.full(x.shape, value, x.dtype)


@lowers("arange.start_step")
def arange(e: Emitter, start: Any, end: Any, step: Any = 1, **_: Any) -> Value:
    return progression(e, e.shape[0], start, step)


@lowers("arange.start")
def arange_start(e: Emitter, start: Any, end: Any, **_: Any) -> Value:
    return progression(e, e.shape[0], start, 1)


@lowers("arange.default")
def arange_default(e: Emitter, end: Any, **_: Any) -> Value:
    return progression(e, e.shape[0], 0, 1)


@lowers("prims::iota")
def iota(e: Emitter, length: Any, *, start: Any, step: Any, **_: Any) -> Value:
    return progression(e, e.shape[0], start, step)


def progression(e: Emitter, count: Any, start: Any, step: Any) -> Value:
    """start, start + step, ... in the result's dtype (floats are computed as start + i * step, as torch does)."""
    out = e.iota((count,), 0, e.dtype)
    if is_value(step) or step != 1:
        out = e.b.mul(out, e.tensor(step))
    if is_value(start) or start != 0:
        out = e.b.add(out, e.tensor(start))
    return out


@lowers("linspace")
def linspace(e: Emitter, start: Any, end: Any, steps: Any, **_: Any) -> Value:
    """From both ends toward the middle, as torch computes it: symmetric rounding."""
    n = e.shape[0]
    if n == 1:
        return e.full((1,), start)
    dtype = e.dtype if e.dtype.is_float else f64
    a, z = (e.tensor(e.tensor(end_), dtype) for end_ in (start, end))
    step = e.b.div(e.b.sub(z, a), e.tensor(n - 1, dtype))
    i = e.iota((n,), 0, dtype)
    low = e.b.add(a, e.b.mul(step, i))
    high = e.b.sub(z, e.b.mul(step, e.b.sub(e.tensor(n - 1, dtype), i)))
    return e.cast(e.b.where(e.b.lt(e.iota((n,), 0), e.index(n // 2)), low, high), e.dtype)


@lowers("eye")
def eye(e: Emitter, *_: Any, **__: Any) -> Value:
    return e.cast(e.b.eq(e.iota(e.shape, 0), e.iota(e.shape, 1)), e.dtype)


@lowers("tril", "triu")
def triangle(e: Emitter, x: Value, diagonal: Any = 0) -> Value:
    rank = len(x.shape)
    rows, cols = e.iota(x.shape[-2:], 0), e.iota(x.shape[-2:], 1)
    distance = e.b.sub(cols, rows)
    compare = e.b.le if "tril" in e.target else e.b.ge
    keep = compare(distance, e.index(e.sizes.dim(diagonal)))
    if x.dtype == bool_:
        return e.b.and_(x, e.reshape(keep, (1,) * (rank - 2) + keep.shape))
    return e.b.where(keep, x, e.number(0, x.dtype))


@lowers("tril_indices", "triu_indices")
def triangle_indices(e: Emitter, row: int, col: int, offset: int = 0, **_: Any) -> Value:
    import torch

    make = torch.tril_indices if "tril" in e.target else torch.triu_indices
    return e.b.const(make(row, col, offset).numpy().astype(e.dtype.numpy), e.dtype)
