"""Convolutions and pooling."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product as combinations
from math import prod

import numpy as np

from effcc.frontends.onnx.node import OnnxNode, onnx_op
from effcc.frontends.onnx.ops_elementwise import cast
from effcc.ir.dims import Dim, ceildiv, dim_max, product
from effcc.ir.graph import Value
from effcc.ir.types import i64


def geometry(n: OnnxNode, x: Value, kernel: Sequence[int]) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """(strides, pads, dilations), auto_pad worked out."""
    k = len(kernel)
    if len(x.shape) != k + 2:
        n.malformed(f"a window over {k} axes of {x.type}")
    strides = tuple(n.attr("strides", (1,) * k))
    dilations = tuple(n.attr("dilations", (1,) * k))
    pads = tuple(n.attr("pads", (0,) * (2 * k)))
    if (len(strides), len(dilations), len(pads)) != (k, k, 2 * k) or min((*strides, *dilations), default=1) < 1:
        n.malformed(f"strides {strides}, dilations {dilations} and pads {pads} of a window over {k} axes")
    mode = n.attr("auto_pad", "NOTSET") or "NOTSET"
    if mode == "NOTSET":
        return strides, pads, dilations
    if mode == "VALID":
        return strides, (0,) * (2 * k), dilations
    if mode not in ("SAME_UPPER", "SAME_LOWER"):
        n.malformed(f"auto_pad {mode!r}")
    begin, end = [], []
    for i in range(k):
        reach, size = (kernel[i] - 1) * dilations[i] + 1, x.shape[2 + i]
        total = dim_max((ceildiv(size, strides[i]) - 1) * strides[i] + reach - size, 0) if strides[i] > 1 else reach - 1
        n.plain([total], "the padding")
        small, large = total // 2, total - total // 2
        begin.append(small if mode == "SAME_UPPER" else large)
        end.append(large if mode == "SAME_UPPER" else small)
    return strides, (*begin, *end), dilations


@onnx_op("Conv", ranks=(3, 3))
def conv(n: OnnxNode, x: Value, w: Value, bias: Value | None = None) -> Value:
    n.plain(w.shape[2:], "the kernel's size")
    given = n.attr("kernel_shape", w.shape[2:])
    if tuple(given) != w.shape[2:]:
        n.malformed(f"kernel_shape is {list(given)}, the kernel {list(w.shape)}")
    strides, pads, dilations = geometry(n, x, w.shape[2:])
    operands = (x, w) if bias is None else (x, w, bias)
    return n.b.conv(*operands, strides=strides, pads=pads, dilations=dilations, groups=n.attr("group", 1))


@onnx_op("ConvTranspose", ranks=(3, 3))
def conv_transpose(n: OnnxNode, x: Value, w: Value, bias: Value | None = None) -> Value:
    k = len(w.shape) - 2
    n.of_rank(x, k + 2)
    n.plain(w.shape[2:], "the kernel's size")
    strides, dilations = tuple(n.attr("strides", (1,) * k)), tuple(n.attr("dilations", (1,) * k))
    extra = list(n.attr("output_padding", (0,) * k))
    mode = n.attr("auto_pad", "NOTSET")
    pads = list(n.attr("pads", (0,) * (2 * k))) if mode == "NOTSET" else [0] * (2 * k)
    wanted: Sequence[Dim] | None = n.attr("output_shape")
    if wanted is None and mode in ("SAME_UPPER", "SAME_LOWER"):
        wanted = tuple(x.shape[2 + i] * strides[i] for i in range(k))
    for i in range(k):
        if wanted is None:
            break
        reach = (w.shape[2 + i] - 1) * dilations[i] + 1
        total = (x.shape[2 + i] - 1) * strides[i] + extra[i] + reach - wanted[len(wanted) - k + i]
        n.plain([total], "the padding")
        if total < 0:
            extra[i], total = extra[i] - total, 0
        pads[i] = total // 2 if mode == "SAME_UPPER" else total - total // 2
        pads[k + i] = total - pads[i]
    operands = (x, w) if bias is None else (x, w, bias)
    return n.b.conv_transpose(
        *operands,
        strides=strides,
        pads=tuple(pads),
        output_pads=tuple(extra),
        dilations=dilations,
        groups=n.attr("group", 1),
    )


@onnx_op("MaxPool")
def max_pool(n: OnnxNode, x: Value) -> tuple[Value, ...]:
    kernel = n.attr("kernel_shape")
    strides, pads, dilations = geometry(n, x, kernel)
    facts = {"kernel": tuple(kernel), "strides": strides, "pads": pads, "dilations": dilations}
    facts["ceil_mode"] = n.flag("ceil_mode")
    if not n.wants(1):
        return (n.b.max_pool(x, **facts),)
    y, where = n.b.max_pool_with_indices(x, **facts)
    spatial = x.shape[2:]
    if n.attr("storage_order", 0):  # column-major within the plane
        at, stride, flat = where, product(spatial), None
        column: Dim = 1
        for d in spatial:
            stride = stride // d
            part = n.b.mul(n.b.div(at, _size(n, stride)), _size(n, column))
            at, flat, column = n.b.mod(at, _size(n, stride)), part if flat is None else n.b.add(flat, part), column * d
        where = flat
    plane = n.b.iota(shape=(product(x.shape[:2]),), axis=0, dtype=i64)
    offset = n.b.mul(plane, _size(n, product(spatial)))
    return y, n.b.add(where, n.b.reshape(offset, shape=(*x.shape[:2], *[1] * len(spatial))))


def _size(n: OnnxNode, dim: Dim) -> Value:
    return n.b.const(np.int64(dim)) if isinstance(dim, int) else n.b.dim(value=dim)


@onnx_op("AveragePool")
def average_pool(n: OnnxNode, x: Value) -> Value:
    kernel = n.attr("kernel_shape")
    strides, pads, dilations = geometry(n, x, kernel)
    return n.b.avg_pool(
        x,
        kernel=tuple(kernel),
        strides=strides,
        pads=pads,
        dilations=dilations,
        ceil_mode=n.flag("ceil_mode"),
        count_include_pad=bool(n.attr("count_include_pad", 0)),
    )


@onnx_op("LpPool")
def lp_pool(n: OnnxNode, x: Value) -> Value:
    """(Σ |x|ᵖ)^(1/p) over windows: each plane convolved with ones."""
    kernel = tuple(n.attr("kernel_shape"))
    strides, pads, dilations = geometry(n, x, kernel)
    p = n.attr("p", 2)
    if n.attr("ceil_mode", 0):
        k = len(kernel)
        pads = list(pads)
        for i in range(k):
            reach = (kernel[i] - 1) * dilations[i] + 1
            span = x.shape[2 + i] + pads[i] + pads[k + i] - reach
            pads[k + i] += ceildiv(span, strides[i]) * strides[i] - span
        n.plain(pads, "the padding")
    powers = _power(n, n.b.abs(x), p)
    planes = n.b.reshape(powers, shape=(product(x.shape[:2]), 1, *x.shape[2:]))
    ones = n.b.const(np.ones((1, 1, *kernel), x.dtype.numpy))
    y = n.b.conv(planes, ones, strides=strides, pads=tuple(pads), dilations=dilations, groups=1)
    return _power(n, n.b.reshape(y, shape=(*x.shape[:2], *y.shape[2:])), 1 / p)


def _power(n: OnnxNode, x: Value, p: float) -> Value:
    if p == 1:
        return x
    if p == 2:
        return n.b.mul(x, x)
    return n.b.sqrt(x) if p == 0.5 else n.b.pow(x, n.b.full_like(x, p))


def _spatial(x: Value) -> tuple[int, ...]:
    return tuple(range(2, len(x.shape)))


@onnx_op("GlobalAveragePool")
def global_average_pool(n: OnnxNode, x: Value) -> Value:
    return n.b.mean(x, axes=_spatial(x), keepdims=True)


@onnx_op("GlobalMaxPool")
def global_max_pool(n: OnnxNode, x: Value) -> Value:
    return n.b.amax(x, axes=_spatial(x), keepdims=True)


@onnx_op("GlobalLpPool")
def global_lp_pool(n: OnnxNode, x: Value) -> Value:
    p = n.attr("p", 2)
    return _power(n, n.b.sum(_power(n, n.b.abs(x), p), axes=_spatial(x), keepdims=True), 1 / p)


@onnx_op("Col2Im", ranks=(2,))
def col2im(n: OnnxNode, x: Value, image_shape: Value, block_shape: Value) -> Value:
    """Columns added back into an image: a transposed convolution whose weights are one-hot."""
    image, block = n.dims(image_shape, "the image's shape"), n.ints(block_shape, "the block's shape")
    k = len(block)
    strides, dilations = n.attr("strides", (1,) * k), n.attr("dilations", (1,) * k)
    pads = n.attr("pads", (0,) * (2 * k))
    reach = [(block[i] - 1) * dilations[i] + 1 for i in range(k)]
    counts = tuple((image[i] + pads[i] + pads[k + i] - reach[i]) // strides[i] + 1 for i in range(k))
    size = prod(block)
    channels = x.shape[1] // size
    n.plain([channels, *image], "the shape")
    columns = n.b.reshape(x, shape=(x.shape[0], x.shape[1], *counts))
    hot = np.tile(np.eye(size, dtype=x.dtype.numpy).reshape(size, 1, *block), (channels, *[1] * (k + 1)))
    extra = tuple(image[i] - ((counts[i] - 1) * strides[i] - pads[i] - pads[k + i] + reach[i]) for i in range(k))
    return n.b.conv_transpose(
        columns,
        n.b.const(hot),
        strides=tuple(strides),
        pads=tuple(pads),
        output_pads=extra,
        dilations=tuple(dilations),
        groups=channels,
    )


@onnx_op("DeformConv", ranks=(4, 4, 4))
def deform_conv(
    n: OnnxNode, x: Value, w: Value, offset: Value, bias: Value | None = None, mask: Value | None = None
) -> Value:
    """Taps read at offset positions by bilinear interpolation, then a product with the weights.

    (Dai et al. 2017, Zhu et al. 2019)
    """
    if len(x.shape) != 4:
        n.refuse("other than two spatial axes")
    if not len(w.shape) == len(offset.shape) == 4:
        n.malformed(f"weights {w.type} and offsets {offset.type} of an image are of 4 axes")
    kernel = w.shape[2:]
    strides, pads, dilations = geometry(n, x, kernel)
    groups, offset_groups = n.attr("group", 1), n.attr("offset_group", 1)
    batch, channels, height, width = x.shape
    rows, columns = offset.shape[2:]
    taps = prod(kernel)
    per = channels // offset_groups
    b = n.b
    shifts = b.reshape(offset, shape=(batch, offset_groups, taps, 2, rows, columns))
    position = []
    for axis, size in ((0, rows), (1, columns)):
        tap = np.arange(taps) // (kernel[1] if axis == 0 else 1) % kernel[axis] * dilations[axis] - pads[axis]
        view = (size, 1) if axis == 0 else (1, size)
        base = b.add(
            b.mul(b.iota(shape=view, axis=axis, dtype=i64), b.const(np.int64(strides[axis]))),
            b.const(tap.reshape(taps, 1, 1)),
        )
        shift = b.slice(
            shifts,
            starts=(0, 0, 0, axis, 0, 0),
            stops=(batch, offset_groups, taps, axis + 1, rows, columns),
            steps=(1,) * 6,
        )
        position.append(
            b.add(b.reshape(shift, shape=(batch, offset_groups, taps, rows, columns)), cast(n, base, x.dtype))
        )
    planes = b.reshape(x, shape=(batch, offset_groups, per, height * width))
    sampled = None
    for dy, dx in combinations((0, 1), repeat=2):
        weight, index, inside = None, None, None
        for p, d, size in ((position[0], dy, height), (position[1], dx, width)):
            low = b.floor(p)
            part = b.sub(p, low)
            part = part if d else b.sub(b.full_like(x, 1), part)
            at = b.add(cast(n, low, i64), b.const(np.int64(d)))
            ok = b.and_(b.ge(at, b.const(np.int64(0))), b.lt(at, _size(n, size)))
            weight = part if weight is None else b.mul(weight, part)
            index = at if index is None else b.add(b.mul(index, _size(n, size)), at)
            inside = ok if inside is None else b.and_(inside, ok)
        index = b.where(inside, index, b.const(np.int64(0)))
        weight = b.where(inside, weight, b.full_like(x, 0))
        spots = taps * rows * columns
        flat = b.broadcast_to(
            b.reshape(index, shape=(batch, offset_groups, 1, spots)), shape=(batch, offset_groups, per, spots)
        )
        value = b.mul(
            b.gather_elements(planes, flat, axis=3), b.reshape(weight, shape=(batch, offset_groups, 1, spots))
        )
        sampled = value if sampled is None else b.add(sampled, value)
    if mask is not None:
        sampled = b.mul(sampled, b.reshape(mask, shape=(batch, offset_groups, 1, taps * rows * columns)))
    patches = b.reshape(sampled, shape=(batch, groups, channels // groups * taps, rows * columns))
    weights = b.reshape(w, shape=(groups, w.shape[0] // groups, w.shape[1] * taps))
    y = b.reshape(b.matmul(weights, patches), shape=(batch, w.shape[0], rows, columns))
    return y if bias is None else b.add(y, b.reshape(bias, shape=(w.shape[0], 1, 1)))
