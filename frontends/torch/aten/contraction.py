"""Matrix products."""

from __future__ import annotations

from typing import Any

from effcc.errors import UnsupportedError
from effcc.frontends.torch.emitter import Emitter, lowers
from effcc.ir import Value, i64


def product_of(e: Emitter, a: Value, b: Value) -> Value:
    """a @ b for ranks ≥ 2; integers accumulate in their own width as torch's do."""
    if a.dtype.is_integer:
        return e.cast(e.b.matmul(a, b, accumulate=a.dtype), a.dtype)
    return e.b.matmul(a, b)


@lowers("mm", "bmm")
def mm(e: Emitter, a: Value, b: Value, *_: Any, **__: Any) -> Value:
    return e.cast(product_of(e, a, b), e.dtype)


@lowers("matmul")
def matmul(e: Emitter, a: Value, b: Value) -> Value:
    """NumPy's rules: vectors gain an axis and lose it again."""
    left = e.unsqueeze(a, 0) if len(a.shape) == 1 else a
    right = e.unsqueeze(b, 1) if len(b.shape) == 1 else b
    return e.reshape(product_of(e, left, right), e.shape)


@lowers("mv")
def mv(e: Emitter, a: Value, v: Value) -> Value:
    return e.reshape(product_of(e, a, e.unsqueeze(v, 1)), (a.shape[0],))


@lowers("dot", "vdot")
def dot(e: Emitter, a: Value, b: Value) -> Value:
    return e.reshape(product_of(e, e.unsqueeze(a, 0), e.unsqueeze(b, 1)), ())


@lowers("addmm", "baddbmm", "addbmm", "addmv")
def addmm(e: Emitter, bias: Value, a: Value, b: Value, *, beta: Any = 1, alpha: Any = 1, **_: Any) -> Value:
    """beta * bias + alpha * (a @ b); with beta = 0 even a NaN in the bias does not count."""
    if "addmv" in e.target:
        y = e.reshape(product_of(e, a, e.unsqueeze(b, 1)), (a.shape[0],))
    else:
        y = product_of(e, a, b)
    if "addbmm" in e.target and "baddbmm" not in e.target:
        y = e.b.sum(y, axes=(0,), keepdims=False)
    y = _times(e, e.cast(y, e.dtype), alpha)
    return e.broadcast(y, e.shape) if beta == 0 else e.b.add(y, _times(e, e.cast(bias, e.dtype), beta))


def _times(e: Emitter, x: Value, factor: Any) -> Value:
    return x if factor == 1 else e.b.mul(x, e.tensor(factor, x.dtype))


@lowers("linear")
def linear(e: Emitter, x: Value, weight: Value, bias: Value | None = None) -> Value:
    """x @ weightᵀ + bias, weight [out, in]."""
    rows = e.unsqueeze(x, 0) if len(x.shape) == 1 else x
    y = e.reshape(e.b.matmul(rows, e.swap(weight, 0, 1)), e.shape)
    return y if bias is None else e.b.add(y, bias)


@lowers("transformers::grouped_mm_fallback", "_grouped_mm")
def grouped_mm(e: Emitter, x: Value, weight: Value, offs: Value | None = None, *_: Any, **__: Any) -> Value:
    """Rows offs[g-1]..offs[g] of x [S,K] times weight[g] [K,N] -> [S,N]; rows past the last offset are zero.

    With few rows each takes its own matrix (S gathered matrices); else every matrix meets every row and one is kept.
    """
    assert offs is not None
    rows, (groups, _k, columns) = x.shape[0], weight.shape
    row = e.iota((rows, 1), 0)
    ends = e.unsqueeze(e.cast(offs, i64), 0)
    group = e.b.sum(
        e.cast(e.b.le(ends, row), i64), axes=(1,), keepdims=False
    )  # how many groups end at or before the row
    inside = e.b.lt(e.unsqueeze(group, 1), e.index(groups))
    group = e.b.min(group, e.index(groups - 1))
    if isinstance(rows, int) and isinstance(groups, int) and rows <= groups:
        y = e.reshape(e.b.matmul(e.unsqueeze(x, 1), e.b.gather(weight, group, axis=0)), (rows, columns))
    else:
        every = e.b.matmul(e.unsqueeze(x, 0), weight)  # [groups, rows, columns]
        chosen = e.b.eq(e.iota((groups, 1, 1), 0), e.reshape(group, (1, rows, 1)))
        y = e.b.sum(e.b.where(chosen, every, e.number(0, every.dtype)), axes=(0,), keepdims=False)
    return e.cast(e.b.where(inside, y, e.number(0, y.dtype)), e.dtype)


@lowers("_cdist_forward", "_euclidean_dist")
def cdist(e: Emitter, a: Value, b: Value, p: float = 2.0, *_: Any) -> Value:
    """Distances between the rows of a [..., P, M] and b [..., R, M]: (Σ |a - b|^p)^(1/p)."""
    apart = e.b.abs(e.b.sub(e.unsqueeze(a, len(a.shape) - 1), e.unsqueeze(b, len(b.shape) - 2)))
    last = (len(apart.shape) - 1,)
    if p == 0:
        return e.b.sum(e.cast(e.b.ne(apart, e.number(0, a.dtype)), a.dtype), axes=last, keepdims=False)
    if p == float("inf"):
        return e.b.amax(apart, axes=last, keepdims=False)
    if p == 2:
        return e.b.sqrt(e.b.sum(e.b.mul(apart, apart), axes=last, keepdims=False))
    if p == 1:
        return e.b.sum(apart, axes=last, keepdims=False)
    summed = e.b.sum(e.b.pow(apart, e.number(p, a.dtype)), axes=last, keepdims=False)
    return e.b.pow(summed, e.number(1 / p, a.dtype))


@lowers("_pdist_forward")
def pdist(e: Emitter, x: Value, p: float = 2.0) -> Value:
    """Distances between every pair of different rows, in the order of the upper triangle."""
    import torch

    if not isinstance(x.shape[0], int):
        raise UnsupportedError("pdist of a dynamic number of rows is not supported")
    first, second = torch.triu_indices(x.shape[0], x.shape[0], 1)
    a, b = (e.b.gather(x, e.b.const(i.numpy()), axis=0) for i in (first, second))
    return e.reshape(cdist(e, e.unsqueeze(a, 1), e.unsqueeze(b, 1), p), e.shape)


@lowers("_trilinear")
def trilinear(
    e: Emitter, a: Value, b: Value, c: Value, expand1: Any, expand2: Any, expand3: Any, sumdim: Any, unroll_dim: int = 1
) -> Value:
    """Σ a·b·c over the axes `sumdim`, each operand first given axes of length 1."""
    a, b, c = (e.unsqueeze(x, *axes) if axes else x for x, axes in ((a, expand1), (b, expand2), (c, expand3)))
    return e.b.sum(e.b.mul(e.b.mul(a, b), c), axes=e.axes(list(sumdim), len(e.shape) + len(sumdim)), keepdims=False)
