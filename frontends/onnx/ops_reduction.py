"""Reductions."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from effcc.frontends.onnx.node import OnnxNode, onnx_op
from effcc.frontends.onnx.ops_elementwise import cast
from effcc.ir.dims import Dim, product
from effcc.ir.graph import Value
from effcc.ir.types import DType, f32, f64, i64

Reduce = Callable[[OnnxNode, Value, tuple[int, ...], bool], Value]


def reduced_axes(n: OnnxNode, x: Value, axes: Value | None, since: int) -> tuple[int, ...] | None:
    """The axes to reduce; all where none is given, or None where `noop_with_empty_axes` says to reduce nothing."""
    given = n.ints(axes, "the axes") if axes is not None else n.attr("axes") if n.version < since else None
    if not given:
        if n.flag("noop_with_empty_axes"):
            return None
        return tuple(range(len(x.shape)))
    return n.axes(given, len(x.shape))


def reduction(
    name: str, since: int = 18, before: Callable[[OnnxNode, Value], Value] | None = None
) -> Callable[[Reduce], Reduce]:
    """Register a reduction whose axes became an input at opset `since`. `before` is what it does to each element, also
    when it reduces nothing."""

    def register(reduce: Reduce) -> Reduce:
        @onnx_op(name)
        def handle(n: OnnxNode, x: Value, axes: Value | None = None) -> Value:
            chosen = reduced_axes(n, x, axes, since)
            y = before(n, x) if before is not None else x
            return reduce(n, y, () if chosen is None else chosen, n.flag("keepdims", 1))

        return reduce

    return register


def square(n: OnnxNode, x: Value) -> Value:
    return n.b.mul(x, x)


@reduction("ReduceSum", since=13)
def reduce_sum(n: OnnxNode, x: Value, axes: tuple[int, ...], keep: bool) -> Value:
    return n.b.sum(x, axes=axes, keepdims=keep)


@reduction("ReduceProd")
def reduce_prod(n: OnnxNode, x: Value, axes: tuple[int, ...], keep: bool) -> Value:
    return n.b.prod(x, axes=axes, keepdims=keep)


@reduction("ReduceMean")
def reduce_mean(n: OnnxNode, x: Value, axes: tuple[int, ...], keep: bool) -> Value:
    if x.dtype.is_float:
        return n.b.mean(x, axes=axes, keepdims=keep)
    return n.b.div(n.b.sum(x, axes=axes, keepdims=keep), count_value(n, product(x.shape[a] for a in axes), x.dtype))


def count_value(n: OnnxNode, count: Dim, dtype: DType) -> Value:
    """A number of elements as a scalar of a dtype."""
    if isinstance(count, int):
        return n.b.const(np.asarray(count, np.float64).astype(dtype.numpy))
    return cast(n, n.b.dim(value=count), dtype)


@reduction("ReduceMax")
def reduce_max(n: OnnxNode, x: Value, axes: tuple[int, ...], keep: bool) -> Value:
    return n.b.amax(x, axes=axes, keepdims=keep)


@reduction("ReduceMin")
def reduce_min(n: OnnxNode, x: Value, axes: tuple[int, ...], keep: bool) -> Value:
    return n.b.amin(x, axes=axes, keepdims=keep)


@reduction("ReduceL1", before=lambda n, x: n.b.abs(x))
def reduce_l1(n: OnnxNode, x: Value, axes: tuple[int, ...], keep: bool) -> Value:
    return n.b.sum(x, axes=axes, keepdims=keep)


@reduction("ReduceSumSquare", before=square)
def reduce_sum_square(n: OnnxNode, x: Value, axes: tuple[int, ...], keep: bool) -> Value:
    return n.b.sum(x, axes=axes, keepdims=keep)


@reduction("ReduceL2", before=square)
def reduce_l2(n: OnnxNode, x: Value, axes: tuple[int, ...], keep: bool) -> Value:
    return through_float(n, n.b.sum(x, axes=axes, keepdims=keep), n.b.sqrt)


@reduction("ReduceLogSum")
def reduce_log_sum(n: OnnxNode, x: Value, axes: tuple[int, ...], keep: bool) -> Value:
    return through_float(n, n.b.sum(x, axes=axes, keepdims=keep), n.b.log)


@reduction("ReduceLogSumExp")
def reduce_log_sum_exp(n: OnnxNode, x: Value, axes: tuple[int, ...], keep: bool) -> Value:
    return through_float(n, x, lambda y: n.b.logsumexp(y, axes=axes, keepdims=keep))


def through_float(n: OnnxNode, x: Value, f: Callable[[Value], Value]) -> Value:
    """f(x) for a float function f, also on integers."""
    if x.dtype.is_float:
        return f(x)
    return cast(n, f(cast(n, x, f64 if x.dtype in (i64,) else f32)), x.dtype)
