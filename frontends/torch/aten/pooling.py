"""Pooling, forward and backward. A missing batch axis is added and removed."""

from __future__ import annotations

import math
from typing import Any

from effcc.frontends.torch.aten.contraction import product_of
from effcc.frontends.torch.aten.convolution import spread
from effcc.frontends.torch.emitter import Emitter, lowers, static
from effcc.ir import Value, i64, product


def _batched(e: Emitter, x: Value, n: int) -> Value:
    return e.unsqueeze(x, 0) if len(x.shape) == n + 1 else x


def _unbatched(e: Emitter, y: Value, n: int, x: Value) -> Value:
    return e.reshape(y, y.shape[1:]) if len(x.shape) == n + 1 else y


def spatial_rank(e: Emitter) -> int:
    """The 2 of "max_pool2d"."""
    return int(e.target.split("pool")[1][0])


@lowers("max_pool2d_with_indices", "max_pool3d_with_indices", "max_pool1d", "max_pool2d", "max_pool3d")
def max_pool(
    e: Emitter, x: Value, kernel: Any, stride: Any = (), padding: Any = 0, dilation: Any = 1, ceil_mode: bool = False
) -> Any:
    n = spatial_rank(e)
    kernel = spread(kernel, n)
    window = {
        "kernel": kernel,
        "strides": spread(stride, n) if stride else kernel,
        "pads": spread(padding, n) * 2,
        "dilations": spread(dilation, n),
        "ceil_mode": bool(ceil_mode),
    }
    image = _batched(e, x, n)
    if isinstance(e.meta, (tuple, list)) and e.uses(1):
        y, at = e.b.max_pool_with_indices(image, **window)
        return _unbatched(e, y, n, x), _unbatched(e, at, n, x)
    y = _unbatched(e, e.b.max_pool(image, **window), n, x)
    return (y, None) if isinstance(e.meta, (tuple, list)) else y


@lowers("max_pool2d_with_indices_backward", "max_pool3d_with_indices_backward")
def max_pool_backward(e: Emitter, grad: Value, x: Value, *args: Any) -> Value:
    """Each gradient goes to the element that won: args end with the indices into the spatial plane."""
    n = spatial_rank(e)
    at = args[-1]
    rows, plane = product(x.shape[:-n]), product(x.shape[-n:])
    zeros = e.full((rows, plane), 0, grad.dtype)
    count = product(grad.shape[-n:])
    spread_out = e.b.scatter_elements(
        zeros, e.reshape(at, (rows, count)), e.reshape(grad, (rows, count)), axis=1, reduction="add"
    )
    return e.reshape(spread_out, x.shape)


@lowers("avg_pool1d", "avg_pool2d", "avg_pool3d")
def avg_pool(
    e: Emitter,
    x: Value,
    kernel: Any,
    stride: Any = (),
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Value:
    n = spatial_rank(e)
    kernel = spread(kernel, n)
    window = {
        "kernel": kernel,
        "strides": spread(stride, n) if stride else kernel,
        "pads": spread(padding, n) * 2,
        "dilations": (1,) * n,
        "ceil_mode": bool(ceil_mode),
    }
    if x.dtype.is_integer or (divisor_override and ceil_mode):
        return _avg_pool_by_sums(e, x, window, bool(count_include_pad), divisor_override)
    image = _batched(e, x, n)
    if divisor_override:  # sum = mean over all taps, those of the padding included, times their number
        y = e.b.avg_pool(image, **window, count_include_pad=True)
        y = e.b.mul(y, e.number(math.prod(kernel) / divisor_override, y.dtype))
    else:
        y = e.b.avg_pool(image, **window, count_include_pad=bool(count_include_pad))
    return _unbatched(e, y, n, x)


def _avg_pool_by_sums(e: Emitter, x: Value, window: Any, count_include_pad: bool, divisor: int | None) -> Value:
    """Each window's sum, as products with 0/1 matrices along the axes, divided by its size; integers truncate."""
    import numpy as np

    n = spatial_rank(e)
    sizes, outs = (static(shape[-n:], "average pooling of this kind") for shape in (x.shape, e.shape))
    covers, counts = _windows(sizes, outs, window["kernel"], window["strides"], window["pads"][:n], count_include_pad)
    sums = along_axes(e, x, covers, transposed=True)
    by = np.full(outs, divisor) if divisor else math.prod(np.ix_(*counts))
    return e.b.div(sums, e.b.const(np.asarray(by).astype(x.dtype.numpy), x.dtype))


def _windows(sizes: Any, outs: Any, kernel: Any, stride: Any, padding: Any, count_include_pad: bool) -> Any:
    """For each axis: which elements each window covers, [out, size] of 0 and 1, and its length."""
    import numpy as np

    matrices, counts = [], []
    for k, (size, out) in enumerate(zip(sizes, outs, strict=True)):
        covers, count = np.zeros((out, size)), np.zeros(out)
        for o in range(out):
            begin = o * stride[k] - padding[k]
            end = min(begin + kernel[k], size + padding[k])
            covers[o, max(begin, 0) : min(end, size)] = 1
            count[o] = end - begin if count_include_pad else min(end, size) - max(begin, 0)
        matrices.append(covers)
        counts.append(count)
    return matrices, counts


@lowers("avg_pool2d_backward", "avg_pool3d_backward")
def avg_pool_backward(
    e: Emitter,
    grad: Value,
    x: Value,
    kernel: Any,
    stride: Any,
    padding: Any,
    ceil_mode: bool,
    count_include_pad: bool,
    divisor_override: int | None,
) -> Value:
    """Each gradient, divided by its window's size, goes to every element of the window: a product with 0/1 matrices
    along each axis, since windows are separable."""
    n = spatial_rank(e)
    kernel, padding = spread(kernel, n), spread(padding, n)
    stride = spread(stride, n) if stride else kernel
    sizes, outs = (static(shape[-n:], "the gradient of avg_pool") for shape in (x.shape, grad.shape))
    matrices, counts = _windows(sizes, outs, kernel, stride, padding, count_include_pad)
    if divisor_override:
        matrices[0] = matrices[0] / divisor_override
    else:
        matrices = [m / c[:, None] for m, c in zip(matrices, counts, strict=True)]
    return along_axes(e, grad, matrices, transposed=False)


def along_axes(e: Emitter, x: Value, matrices: Any, transposed: bool) -> Value:
    """Contract each of the last axes of x with a constant matrix [in, out]."""
    n = len(matrices)
    rank = len(x.shape)
    for k, matrix in enumerate(matrices):
        axis = rank - n + k
        m = e.b.const((matrix.T if transposed else matrix).astype(x.dtype.numpy), x.dtype)
        if axis == rank - 1:
            x = product_of(e, x, m)
        else:
            x = e.swap(product_of(e, e.swap(x, axis, -1), m), axis, -1)
    return x


# -- adaptive --------------------------------------------------------------------------------------
def _adaptive_bounds(size: int, out: int) -> list[tuple[int, int]]:
    """Window o covers [⌊o·size/out⌋, ⌈(o+1)·size/out⌉)."""
    return [(o * size // out, -(-(o + 1) * size // out)) for o in range(out)]


@lowers(
    "_adaptive_avg_pool2d", "_adaptive_avg_pool3d", "adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d"
)
def adaptive_avg_pool(e: Emitter, x: Value, output_size: Any) -> Value:
    n = spatial_rank(e)
    out = e.shape[-n:]
    sizes = x.shape[-n:]
    axes = tuple(range(len(x.shape) - n, len(x.shape)))
    if 0 in out:
        return e.full(e.shape, 0)
    if all(o == 1 for o in out):
        return e.b.mean(x, axes=axes, keepdims=True)
    out, sizes = (
        static(out, "adaptive pooling to several elements"),
        static(sizes, "adaptive pooling to several elements"),
    )
    if all(s % o == 0 for s, o in zip(sizes, out, strict=True)):
        kernel = tuple(s // o for s, o in zip(sizes, out, strict=True))
        y = e.b.avg_pool(
            _batched(e, x, n),
            kernel=kernel,
            strides=kernel,
            pads=(0,) * 2 * n,
            dilations=(1,) * n,
            ceil_mode=False,
            count_include_pad=False,
        )
        return _unbatched(e, y, n, x)
    return along_axes(e, x, [_adaptive_matrix(s, o) for s, o in zip(sizes, out, strict=True)], transposed=True)


def _adaptive_matrix(size: int, out: int) -> Any:
    """[out, size]: row o averages its window."""
    import numpy as np

    matrix = np.zeros((out, size))
    for o, (begin, end) in enumerate(_adaptive_bounds(size, out)):
        matrix[o, begin:end] = 1 / (end - begin)
    return matrix


@lowers("_adaptive_avg_pool2d_backward", "_adaptive_avg_pool3d_backward")
def adaptive_avg_pool_backward(e: Emitter, grad: Value, x: Value) -> Value:
    n = spatial_rank(e)
    out, sizes = grad.shape[-n:], x.shape[-n:]
    if all(o == 1 for o in out):
        return e.broadcast(e.b.div(grad, e.tensor(product(sizes), grad.dtype)), x.shape)
    out, sizes = (static(shape, "the gradient of adaptive pooling") for shape in (out, sizes))
    return along_axes(e, grad, [_adaptive_matrix(s, o) for s, o in zip(sizes, out, strict=True)], transposed=False)


@lowers("adaptive_max_pool2d", "adaptive_max_pool3d")
def adaptive_max_pool(e: Emitter, x: Value, output_size: Any) -> tuple[Value, Value]:
    """Windows gathered to a last axis, then reduced; windows shorter than the longest repeat their first element."""
    import numpy as np

    n = spatial_rank(e)
    sizes, out = (static(shape, "adaptive max pooling") for shape in (x.shape[-n:], e.shape[-n:]))
    taps = []
    for size, o in zip(sizes, out, strict=True):
        windows = _adaptive_bounds(size, o)
        longest = max(end - begin for begin, end in windows)
        taps.append(
            np.array([[begin + (t if begin + t < end else 0) for t in range(longest)] for begin, end in windows])
        )
    plane = np.zeros([*out, *(t.shape[1] for t in taps)], np.int64)
    stride = 1
    for k in reversed(range(n)):
        shape = [1] * (2 * n)
        shape[k], shape[n + k] = taps[k].shape
        plane = plane + taps[k].reshape(shape) * stride
        stride *= sizes[k]
    cells = math.prod(out)
    plane = np.ascontiguousarray(plane.reshape(cells, -1))
    rows = product(x.shape[:-n])
    flat = e.reshape(x, (rows, product(sizes)))
    at = e.b.const(plane)
    windows = e.b.gather(flat, at, axis=1)  # [rows, cells, taps]
    values = e.reshape(e.b.amax(windows, axes=(2,), keepdims=False), e.shape)
    if not e.uses(1):
        return values, None  # type: ignore[return-value]
    best = e.b.argmax(windows, axis=2, keepdims=True)
    where = e.b.gather_elements(e.broadcast(e.unsqueeze(at, 0), (rows, *plane.shape)), best, axis=2)
    return values, e.cast(e.reshape(where, e.shape), i64)


@lowers("adaptive_max_pool2d_backward", "adaptive_max_pool3d_backward")
def adaptive_max_pool_backward(e: Emitter, grad: Value, x: Value, indices: Value) -> Value:
    return max_pool_backward(e, grad, x, indices)
