"""Softmax and the normalizations, forward; the statistics that training saves are computed only where they are read."""

from __future__ import annotations

from typing import Any

from effcc.frontends.torch.emitter import Emitter, lowers
from effcc.ir import Value, product


@lowers("_softmax", "softmax")
def softmax(e: Emitter, x: Value, dim: int, *_: Any) -> Value:
    return _over_axis(e, "softmax", x, dim)


@lowers("_log_softmax", "log_softmax")
def log_softmax(e: Emitter, x: Value, dim: int, *_: Any) -> Value:
    return _over_axis(e, "log_softmax", x, dim)


def _over_axis(e: Emitter, ours: str, x: Value, dim: int) -> Value:
    x = e.cast(x, e.dtype)
    if not x.shape:
        return e.reshape(getattr(e.b, ours)(e.reshape(x, (1,)), axis=0), ())
    return getattr(e.b, ours)(x, axis=e.axis(dim, len(x.shape)))


@lowers("_safe_softmax")
def safe_softmax(e: Emitter, x: Value, dim: int, dtype: Any = None) -> Value:
    """Softmax in which a row that is -inf throughout gives zeros instead of NaN."""
    x = e.cast(x, e.dtype)
    axis = e.axis(dim, len(x.shape))
    hidden = e.b.eq(e.b.amax(x, axes=(axis,), keepdims=True), e.number(float("-inf"), x.dtype))
    return e.b.where(hidden, e.number(0.0, x.dtype), e.b.softmax(x, axis=axis))


@lowers("native_layer_norm", "layer_norm")
def layer_norm(
    e: Emitter,
    x: Value,
    normalized_shape: Any,
    weight: Value | None = None,
    bias: Value | None = None,
    eps: float = 1e-5,
    *_: Any,
) -> Any:
    """Results: the normalised tensor, mean, 1/sqrt(var + eps); the statistics keep the reduced axes as 1."""
    rank = len(x.shape)
    axis = rank - len(normalized_shape)
    if weight is None and bias is not None:
        weight = e.full(e.sizes.dims(normalized_shape), 1, x.dtype)
    operands = [x] + [e.cast(v, x.dtype) for v in (weight, bias) if v is not None]
    y = e.b.layer_norm(*operands, axis=axis, eps=float(eps))
    if not isinstance(e.meta, (tuple, list)):
        return y
    return y, *_statistics(e, x, tuple(range(axis, rank)), eps, keepdims=True)


def _statistics(
    e: Emitter, x: Value, axes: tuple[int, ...], eps: float, keepdims: bool
) -> tuple[Value | None, Value | None]:
    if not e.uses(1, 2):
        return None, None
    wide = e.cast(x, e.compute_dtype(x.dtype))
    mean = e.b.mean(wide, axes=axes, keepdims=keepdims)
    var = e.b.var(wide, axes=axes, correction=0, keepdims=keepdims)
    rstd = e.b.rsqrt(e.b.add(var, e.number(eps, var.dtype)))
    return (e.cast(mean, e.dtype_of(e.meta[1].dtype)), e.cast(rstd, e.dtype_of(e.meta[2].dtype)))


@lowers("_fused_rms_norm", "rms_norm")
def rms_norm(e: Emitter, x: Value, normalized_shape: Any, weight: Value | None = None, eps: float | None = None) -> Any:
    import torch

    rank = len(x.shape)
    axis = rank - len(normalized_shape)
    eps = torch.finfo(x.dtype.torch).eps if eps is None else eps
    operands = (x,) if weight is None else (x, e.cast(weight, x.dtype))
    y = e.b.rms_norm(*operands, axis=axis, eps=float(eps))
    if not isinstance(e.meta, (tuple, list)):
        return y
    if not e.uses(1):
        return y, None
    wide = e.cast(x, e.compute_dtype(x.dtype))
    square = e.b.mean(e.b.mul(wide, wide), axes=tuple(range(axis, rank)), keepdims=True)
    return y, e.cast(e.b.rsqrt(e.b.add(square, e.number(eps, square.dtype))), e.dtype_of(e.meta[1].dtype))


@lowers("native_group_norm")
def group_norm(
    e: Emitter, x: Value, weight: Value | None, bias: Value | None, n: Any, c: Any, hw: Any, groups: int, eps: float
) -> Any:
    if weight is None and bias is not None:
        weight = e.full(bias.shape, 1, x.dtype)
    operands = [x] + [v for v in (weight, bias) if v is not None]
    y = e.b.group_norm(*operands, groups=int(groups), eps=float(eps))
    rows = e.reshape(x, (x.shape[0], groups, product(x.shape[1:]) // groups))
    return y, *_statistics(e, rows, (2,), eps, keepdims=False)


# -- batch normalization ---------------------------------------------------------------------------
def _per_channel(e: Emitter, x: Value, v: Value) -> Value:
    return e.reshape(v, (v.shape[0], *(1 for _ in x.shape[2:])))


def _apply(
    e: Emitter, x: Value, weight: Value | None, bias: Value | None, mean: Value, var: Value, eps: float
) -> Value:
    wide = e.compute_dtype(x.dtype)
    channels = (x.shape[1],)
    weight = e.full(channels, 1, wide) if weight is None else e.cast(weight, wide)
    bias = e.full(channels, 0, wide) if bias is None else e.cast(bias, wide)
    y = e.b.batch_norm(e.cast(x, wide), weight, bias, e.cast(mean, wide), e.cast(var, wide), eps=float(eps))
    return e.cast(y, x.dtype)


@lowers("_native_batch_norm_legit_no_training")
def batch_norm_inference(
    e: Emitter, x: Value, weight: Value | None, bias: Value | None, mean: Value, var: Value, momentum: float, eps: float
) -> Any:
    nothing = e.full((0,), 0.0, e.dtype_of(e.meta[1].dtype)) if e.uses(1, 2) else None
    return _apply(e, x, weight, bias, mean, var, eps), nothing, nothing


@lowers("_native_batch_norm_legit.no_stats")
def batch_norm_batch(
    e: Emitter, x: Value, weight: Value | None, bias: Value | None, training: bool, momentum: float, eps: float
) -> Any:
    mean, var, rstd = _batch_statistics(e, x, eps)
    return _apply(e, x, weight, bias, mean, var, eps), *_as_saved(e, mean, rstd)


@lowers("_native_batch_norm_legit_functional")
def batch_norm_training(
    e: Emitter,
    x: Value,
    weight: Value | None,
    bias: Value | None,
    running_mean: Value,
    running_var: Value,
    training: bool,
    momentum: float,
    eps: float,
) -> Any:
    """Results: y, saved mean, saved 1/std, new running mean, new running variance (unbiased)."""
    if not training:
        y, none, _ = batch_norm_inference(e, x, weight, bias, running_mean, running_var, momentum, eps)
        return y, none, none, *_as_updated(e, running_mean, running_var)
    y, mean, rstd, new_mean, new_var = _train(e, x, weight, bias, running_mean, running_var, momentum, eps)
    return y, mean, rstd, new_mean, new_var


@lowers("_batch_norm_with_update_functional")
def batch_norm_with_update(
    e: Emitter,
    x: Value,
    weight: Value | None,
    bias: Value | None,
    running_mean: Value,
    running_var: Value,
    momentum: float,
    eps: float,
) -> Any:
    y, mean, rstd, new_mean, new_var = _train(e, x, weight, bias, running_mean, running_var, momentum, eps)
    import torch

    reserve = e.full((0,), 0, e.dtype_of(torch.uint8)) if e.uses(3) else None
    return y, mean, rstd, reserve, new_mean, new_var


def _train(
    e: Emitter, x: Value, weight: Any, bias: Any, running_mean: Value, running_var: Value, momentum: float, eps: float
) -> tuple[Value, ...]:
    mean, var, rstd = _batch_statistics(e, x, eps)
    y = _apply(e, x, weight, bias, mean, var, eps)
    count = product(d for k, d in enumerate(x.shape) if k != 1)
    n = e.tensor(count, var.dtype)
    unbiased = e.b.mul(var, e.b.div(n, e.b.max(e.b.sub(n, e.number(1, n.dtype)), e.number(1, n.dtype))))
    updated = _moved(e, running_mean, mean, momentum), _moved(e, running_var, unbiased, momentum)
    return y, *_as_saved(e, mean, rstd), *_as_updated(e, *updated)


def _as_updated(e: Emitter, *running: Value) -> tuple[Value, ...]:
    """Running statistics in the dtypes of the node's last results."""
    return tuple(e.cast(v, e.dtype_of(m.dtype)) for v, m in zip(running, e.meta[-len(running) :], strict=True))


def _as_saved(e: Emitter, *statistics: Value) -> tuple[Value, ...]:
    """Statistics in the dtypes of the node's second and third results."""
    return tuple(e.cast(v, e.dtype_of(m.dtype)) for v, m in zip(statistics, e.meta[1:], strict=False))


def _batch_statistics(e: Emitter, x: Value, eps: float) -> tuple[Value, Value, Value]:
    axes = tuple(k for k in range(len(x.shape)) if k != 1)
    wide = e.cast(x, e.compute_dtype(x.dtype))
    mean = e.b.mean(wide, axes=axes, keepdims=False)
    var = e.b.var(wide, axes=axes, correction=0, keepdims=False)
    return mean, var, e.b.rsqrt(e.b.add(var, e.number(eps, var.dtype)))


def _moved(e: Emitter, running: Value, now: Value, momentum: float) -> Value:
    old = e.b.mul(e.cast(running, now.dtype), e.number(1 - momentum, now.dtype))
    return e.b.add(old, e.b.mul(now, e.number(momentum, now.dtype)))
