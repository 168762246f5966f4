"""Reductions over axes. Integer sums widen to i64 and half precisions are reduced in f32, as torch does."""

from __future__ import annotations

import math
from typing import Any

from effcc.frontends.torch.aten.elementwise import truth
from effcc.frontends.torch.emitter import Emitter, lowers, static
from effcc.ir import Value, i64, product


def _reduce(e: Emitter, ours: str, x: Value, dim: Any, keepdim: bool, **attributes: Any) -> Value:
    """Reduce over the axes that torch names; a rank-0 tensor counts as one of a single element."""
    if not x.shape:
        x = e.reshape(x, (1,))
        return e.reshape(getattr(e.b, ours)(x, axes=(0,), keepdims=False, **attributes), ())
    return getattr(e.b, ours)(x, axes=e.axes(dim, len(x.shape)), keepdims=bool(keepdim), **attributes)


@lowers("sum", "mean", "prod.dim_int", "nansum")
def total(e: Emitter, x: Value, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Value:
    ours = e.target.split(".")[1].removeprefix("nan")
    x = e.cast(x, e.dtype)
    if "nansum" in e.target and x.dtype.is_float:
        x = e.b.where(e.b.isnan(x), e.number(0, x.dtype), x)
    return e.cast(_reduce(e, ours, e.cast(x, e.compute_dtype(x.dtype)), dim, keepdim), e.dtype)


@lowers("prod")
def prod(e: Emitter, x: Value, *, dtype: Any = None) -> Value:
    x = e.cast(x, e.dtype)
    return e.cast(_reduce(e, "prod", e.cast(x, e.compute_dtype(x.dtype)), None, False), e.dtype)


@lowers("amax", "amin")
def extremum(e: Emitter, x: Value, dim: Any = (), keepdim: bool = False) -> Value:
    return _bool_through_int(e, e.target.split(".")[1], x, dim, keepdim)


@lowers("max.default", "min.default")
def extremum_all(e: Emitter, x: Value) -> Value:
    return _bool_through_int(e, "a" + e.target.split(".")[1], x, None, False)


@lowers("max.dim", "min.dim")
def extremum_with_index(e: Emitter, x: Value, dim: int, keepdim: bool = False) -> tuple[Value, Value]:
    which = e.target.split(".")[1]
    rank = len(x.shape)
    if not rank:
        return x, e.full((), 0, i64)
    axis = e.axis(dim, rank)
    values = _bool_through_int(e, f"a{which}", x, axis, keepdim)
    return values, getattr(e.b, f"arg{which}")(_ordered(e, x), axis=axis, keepdims=bool(keepdim))


def _ordered(e: Emitter, x: Value) -> Value:
    return e.cast(x, i64) if x.dtype.is_bool else x


def _bool_through_int(e: Emitter, ours: str, x: Value, dim: Any, keepdim: bool) -> Value:
    if x.dtype.is_bool:
        ours = {"amax": "any", "amin": "all"}[ours]
    return _reduce(e, ours, x, dim, keepdim)


@lowers("argmax", "argmin")
def arg_extremum(e: Emitter, x: Value, dim: int | None = None, keepdim: bool = False) -> Value:
    ours = getattr(e.b, e.target.split(".")[1])
    if dim is None or not len(x.shape):
        flat = e.reshape(_ordered(e, x), (product(x.shape),))
        return e.reshape(ours(flat, axis=0, keepdims=False), e.shape)
    return ours(_ordered(e, x), axis=e.axis(dim, len(x.shape)), keepdims=bool(keepdim))


@lowers("any", "all")
def quantifier(e: Emitter, x: Value, dim: Any = None, keepdim: bool = False) -> Value:
    return e.cast(_reduce(e, e.target.split(".")[1], truth(e, x), dim, keepdim), e.dtype)


@lowers("logsumexp")
def logsumexp(e: Emitter, x: Value, dim: Any, keepdim: bool = False) -> Value:
    return _reduce(e, "logsumexp", e.cast(x, e.dtype), dim, keepdim)


def variance(e: Emitter, x: Value, dim: Any, correction: Any, keepdim: bool) -> Value:
    correction = 1 if correction is None else correction
    whole = int(correction) == correction
    return _reduce(e, "var", x, dim, keepdim, correction=int(correction) if whole else float(correction))


@lowers("var.correction")
def var(e: Emitter, x: Value, dim: Any = None, *, correction: Any = None, keepdim: bool = False) -> Value:
    return variance(e, x, dim, correction, keepdim)


@lowers("var_mean.correction")
def var_mean(
    e: Emitter, x: Value, dim: Any = None, *, correction: Any = None, keepdim: bool = False
) -> tuple[Value, Value]:
    return variance(e, x, dim, correction, keepdim), _reduce(e, "mean", x, dim, keepdim)


@lowers("std.correction")
def std(e: Emitter, x: Value, dim: Any = None, *, correction: Any = None, keepdim: bool = False) -> Value:
    return e.b.sqrt(variance(e, x, dim, correction, keepdim))


@lowers("linalg_vector_norm")
def vector_norm(
    e: Emitter, x: Value, ord: Any = 2, dim: Any = None, keepdim: bool = False, *, dtype: Any = None
) -> Value:
    """(Σ |x|^p)^(1/p), its limits for p = ±inf, the number of non-zeros for p = 0."""
    x = e.cast(x, e.compute_dtype(e.dtype))
    p = float(ord)
    size = e.b.abs(x)
    if p == math.inf or p == -math.inf:
        out = _reduce(e, "amax" if p > 0 else "amin", size, dim, keepdim)
    elif p == 0:
        out = _reduce(e, "sum", e.cast(e.b.ne(x, e.number(0, x.dtype)), x.dtype), dim, keepdim)
    elif p == 1:
        out = _reduce(e, "sum", size, dim, keepdim)
    elif p == 2:
        out = e.b.sqrt(_reduce(e, "sum", e.b.mul(x, x), dim, keepdim))
    else:
        powered = _reduce(e, "sum", e.b.pow(size, e.number(p, x.dtype)), dim, keepdim)
        out = e.b.pow(powered, e.number(1 / p, x.dtype))
    return e.cast(out, e.dtype)


@lowers("histc")
def histc(e: Emitter, x: Value, bins: int = 100, min: Any = 0, max: Any = 0) -> Value:
    """Counts in `bins` equal bins of [min, max]; an element at max belongs to the last bin, one outside to none."""
    flat = e.reshape(x, (product(x.shape), 1))
    if float(min) == float(max):
        low = e.b.amin(flat, axes=(0, 1), keepdims=False)
        high = e.b.amax(flat, axes=(0, 1), keepdims=False)
        same = e.b.eq(low, high)
        one = e.number(1, x.dtype)
        low, high = e.b.where(same, e.b.sub(low, one), low), e.b.where(same, e.b.add(high, one), high)
    else:
        low, high = e.tensor(min, x.dtype), e.tensor(max, x.dtype)
    inside = e.b.and_(e.b.ge(flat, low), e.b.le(flat, high))
    scaled = e.b.div(e.b.mul(e.b.sub(flat, low), e.number(bins, x.dtype)), e.b.sub(high, low))
    at = e.b.min(e.cast(scaled, i64), e.number(bins - 1, i64))
    hit = e.b.and_(inside, e.b.eq(at, e.iota((1, bins), 1)))
    return e.cast(e.b.sum(e.cast(hit, i64), axes=(0,), keepdims=False), e.dtype)


@lowers("bincount")
def bincount(e: Emitter, x: Value, weights: Value | None = None, minlength: int = 0) -> Value:
    (bins,) = static(e.shape, "bincount, whose length is its largest element,")
    hit = e.b.eq(e.unsqueeze(e.cast(x, i64), 1), e.iota((1, bins), 1))
    if weights is None:
        return e.b.sum(e.cast(hit, i64), axes=(0,), keepdims=False)
    return e.b.sum(
        e.b.where(hit, e.unsqueeze(e.cast(weights, e.dtype), 1), e.number(0, e.dtype)), axes=(0,), keepdims=False
    )
