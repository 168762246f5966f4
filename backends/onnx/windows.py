"""Convolutions, pooling and resampling as ONNX operators; these have channels first."""

from __future__ import annotations

from typing import Any

import numpy as np

from effcc.backends.onnx.arithmetic import Operands, may_be_zero
from effcc.backends.onnx.emit import Ref, takes
from effcc.backends.onnx.export import Writer, exports
from effcc.ir.dims import Dim, product
from effcc.ir.graph import Value
from effcc.ir.types import f32, f64, i8, i32, i64, u8


def channels_first(w: Writer, op: Any, x: Value) -> Value:
    if getattr(op, "layout", "nchw") == "nchw":
        return x
    rank = len(x.shape)
    return w.transpose(x, perm=(0, rank - 1, *range(1, rank - 1)))


def as_laid_out(w: Writer, op: Any, y: Ref, rank: int) -> Ref:
    if getattr(op, "layout", "nchw") == "nchw":
        return y
    return w.scope.call("Transpose", y, perm=[0, *range(2, rank), 1])


def geometry(op: Any) -> dict[str, Any]:
    return {name: list(getattr(op, name)) for name in ("strides", "pads", "dilations")}


def fits(op: Any, x: Value, kernel: Any) -> bool:
    """Whether no window is known to be larger than the padded image: there effcc gives nothing, and ONNX is invalid."""
    n = len(kernel)
    axes = zip(x.shape[2:], kernel, op.dilations, op.pads[:n], op.pads[n:], strict=True)
    return not any(isinstance(size, int) and size + a + z < d * (k - 1) + 1 for size, k, d, a, z in axes)


@exports("conv")
def conv(w: Writer, op: Any, operands: Operands) -> Any:
    e, rank = w.scope, len(operands[0].shape)
    x, weights = channels_first(w, op, operands[0]), operands[1]
    if 0 in x.shape[1:] or 0 in weights.shape or min(op.pads) < 0 or not fits(op, x, weights.shape[2:]):
        return NotImplemented
    facts = {**geometry(op), "group": op.groups, "kernel_shape": list(weights.shape[2:])}
    bias = None if len(operands) < 3 else w.ref(operands[2])
    if op.accumulate == i32 and {x.dtype, weights.dtype} <= {i8, u8}:
        zero = None if op.pad_value == 0 else e.number(op.pad_value, x.dtype)
        if zero is not None:  # ConvInteger pads with the zero point, which it also subtracts: pad in front instead
            n = rank - 2
            grown = (0, 0, *op.pads[:n], 0, 0, *op.pads[n:])
            x = w.pad(x, w.const(op.pad_value, x.dtype), pads=grown)
            facts["pads"] = [0] * (2 * n)
        y = e.node("ConvInteger", [w.ref(x), w.ref(weights)], [i32], **facts)[0]
        if bias is not None:
            y = e.call("Add", y, e.reshape(bias, (weights.shape[0], *[1] * (rank - 2))))
        return as_laid_out(w, op, y, rank)
    if op.accumulate is not None and op.accumulate.is_float and x.dtype.is_float:
        refs = [e.cast(w.ref(v), op.accumulate) for v in (x, weights)]
        return as_laid_out(w, op, e.call("Conv", *refs, *([] if bias is None else [bias]), **facts), rank)
    if op.accumulate is not None or not x.dtype.is_float:
        return NotImplemented
    y = e.call("Conv", w.ref(x), w.ref(weights), *([] if bias is None else [bias]), **facts)
    return as_laid_out(w, op, y, rank)


@exports("conv_transpose")
def conv_transpose(w: Writer, op: Any, operands: Operands) -> Any:
    beyond = any(p >= max(s, d) for p, s, d in zip(op.output_pads, op.strides, op.dilations, strict=True))
    if min(op.pads) < 0 or min(op.output_pads) < 0 or beyond or any(map(may_be_zero, operands[0].shape[1:])):
        return NotImplemented
    kernel = list(operands[1].shape[2:])
    known = all(isinstance(k, int) for k in kernel)  # else the weights tell
    facts = {**geometry(op), "group": op.groups, "kernel_shape": kernel if known else None}
    return w.scope.call("ConvTranspose", *(w.ref(v) for v in operands), output_padding=list(op.output_pads), **facts)


def plain_pool(op: Any, x: Value) -> bool:
    """Whether every window reaches into the image, as ONNX asks."""
    n = len(op.kernel)
    pads = zip(op.pads[:n], op.pads[n:], op.kernel, strict=True)
    reach = all(0 <= max(a, z) < k and min(a, z) >= 0 for a, z, k in pads)
    return reach and fits(op, x, op.kernel) and not any(map(may_be_zero, x.shape[1:]))


@exports("max_pool", "max_pool_with_indices")
def max_pool(w: Writer, op: Any, operands: Operands) -> Any:
    e, rank = w.scope, len(operands[0].shape)
    x = channels_first(w, op, operands[0])
    if not plain_pool(op, x) or not takes("MaxPool", x.dtype) and x.dtype.name != "bf16":
        return NotImplemented
    facts = {**geometry(op), "kernel_shape": list(op.kernel), "ceil_mode": int(op.ceil_mode)}
    wide = f32 if x.dtype.name == "bf16" else x.dtype
    given: list[Ref | None] = [e.cast(w.ref(x), wide)]
    if op.name == "max_pool":
        return as_laid_out(w, op, e.cast(e.node("MaxPool", given, [wide], **facts)[0], x.dtype), rank)
    y, place = e.node("MaxPool", given, [wide, i64], **facts)
    return [e.cast(y, x.dtype), e.call("Mod", place, e.size(product(x.shape[2:])))]


@exports("avg_pool")
def avg_pool(w: Writer, op: Any, operands: Operands) -> Any:
    rank = len(operands[0].shape)
    x = channels_first(w, op, operands[0])
    if not plain_pool(op, x) or x.dtype == f64 or op.ceil_mode:
        return NotImplemented
    facts = {**geometry(op), "kernel_shape": list(op.kernel), "count_include_pad": int(op.count_include_pad)}
    return as_laid_out(w, op, w.scope.call("AveragePool", w.ref(x), **facts), rank)


@exports("resize")
def resize(w: Writer, op: Any, operands: Operands) -> Any:
    """Images of two spatial axes. Nearest neighbours only of whole multiples: elsewhere ONNX computes in floats what
    effcc computes in fractions, and the loop nest says it."""
    e, (x,) = w.scope, operands
    image = len(x.shape) == 4 and set(op.resized(x.tensor)) <= {2, 3} and not any(map(may_be_zero, x.shape))
    if not image or x.dtype != f32 or op.coordinate == "tf_crop_and_resize" or op.antialias or op.exclude_outside:
        return NotImplemented
    facts: dict[str, Any] = {"mode": op.mode, "coordinate_transformation_mode": op.coordinate}
    if op.mode == "nearest":
        factors = [multiple(n, m) for n, m in zip(x.shape, op.sizes, strict=True)]
        exact = op.coordinate in ("half_pixel", "asymmetric") and op.nearest_mode in ("round_prefer_floor", "floor")
        if None in factors or not exact:
            return NotImplemented
        scales = e.const(np.asarray(factors, np.float32), f32)
        return e.node("Resize", [w.ref(x), None, scales], [f32], nearest_mode=op.nearest_mode, **facts)[0]
    if op.mode == "cubic":
        facts["cubic_coeff_a"] = op.cubic_a
    if op.scales is not None and op.coordinate != "align_corners":  # which goes by the sizes alone
        whole = [isinstance(n, int) and int(n * np.float32(f)) for n, f in zip(x.shape, op.scales, strict=True)]
        if whole != list(op.sizes):  # ONNX takes sizes or scales, never both
            return NotImplemented
        given = [None, e.const(np.asarray(op.scales, np.float32), f32)]
    else:
        given = [None, None, e.shape(op.sizes)]
    return e.node("Resize", [w.ref(x), *given], [f32], **facts)[0]


def multiple(size: Dim, resized: Dim) -> int | None:
    """Which multiple of an axis another size is, up to 16; None where it is none."""
    return next((k for k in range(1, 17) if resized == size * k), None)


@exports("grid_sample")
def grid_sample(w: Writer, op: Any, operands: Operands) -> Any:
    x, grid = operands
    if len(x.shape) != 4 or x.dtype != grid.dtype or any(map(may_be_zero, (*x.shape, *grid.shape))):
        return NotImplemented
    facts = {"mode": op.mode, "padding_mode": op.padding, "align_corners": int(op.align_corners)}
    return w.scope.call("GridSample", w.ref(x), w.ref(grid), **facts)


@exports("roi_align")
def roi_align(w: Writer, op: Any, operands: Operands) -> Any:
    """With a known number of points by the loop nest: ONNX Runtime has no kernel for the operator's latest version."""
    e = w.scope
    if op.sampling_ratio:
        return NotImplemented
    x, rois, images = map(w.ref, operands)
    height, width = op.output_size
    mode = "half_pixel" if op.aligned else "output_half_pixel"
    facts = {"output_height": height, "output_width": width, "spatial_scale": op.spatial_scale, "mode": op.mode,
             "sampling_ratio": op.sampling_ratio, "coordinate_transformation_mode": mode}  # fmt: skip
    return e.call("RoiAlign", x, rois, e.cast(images, i64), data=2, **facts)
