"""Resampling: Resize, Upsample, GridSample, RoiAlign."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np

from effcc.frontends.onnx.node import OnnxNode, onnx_op
from effcc.frontends.onnx.ops_elementwise import cast
from effcc.ir.dims import Dim
from effcc.ir.graph import Value
from effcc.ir.types import f32


@onnx_op("Resize")
def resize(n: OnnxNode, x: Value, *inputs: Value | None) -> Value:
    rank = len(x.shape)
    roi, scales, sizes = (*inputs, None, None, None)[:3] if n.version >= 11 else (None, inputs[0], None)
    axes = tuple(n.axis(a, rank) for a in n.attr("axes", tuple(range(rank))))
    facts: dict[str, Any] = {"mode": n.attr("mode", "nearest")}
    if n.version < 11:
        facts |= {"coordinate": "asymmetric", "nearest_mode": "floor"}
    else:
        facts |= {
            "coordinate": n.attr("coordinate_transformation_mode", "half_pixel"),
            "nearest_mode": n.attr("nearest_mode", "round_prefer_floor"),
            "cubic_a": n.attr("cubic_coeff_a", -0.75),
            "exclude_outside": bool(n.attr("exclude_outside", 0)),
            "antialias": bool(n.attr("antialias", 0)),
        }
    region = [0.0] * rank + [1.0] * rank
    if facts["coordinate"] == "tf_crop_and_resize" and roi is not None:
        given = n.array(roi, "the region").astype(np.float64).tolist()
        for i, axis in enumerate(axes):
            region[axis], region[rank + axis] = given[i], given[len(axes) + i]
        facts |= {"roi": tuple(region), "extrapolation": n.attr("extrapolation_value", 0.0)}
    out: list[Dim] = list(x.shape)
    factors = [1.0] * rank
    if sizes is not None and sizes.tensor.size != 0:
        wanted = n.dims(sizes, "the sizes")
        policy = n.attr("keep_aspect_ratio_policy", "stretch")
        if policy != "stretch":
            wanted, factors = _with_aspect(n, x, axes, wanted, policy)
            facts["scales"] = tuple(factors)
        for axis, size in zip(axes, wanted, strict=True):
            out[axis] = size
    elif scales is not None:
        _by_scales(n, x, axes, n.array(scales, "the scales"), out, region, facts)
    else:
        n.malformed("neither scales nor sizes")
    return through_float(n, x, out, facts)


def _by_scales(
    n: OnnxNode, x: Value, axes: tuple[int, ...], scales: np.ndarray, out: list[Dim], region: list[float], facts: dict
) -> None:
    """Sizes from scales; scales that divide evenly need not be kept: sizes say the same exactly."""
    rank = len(x.shape)
    factors = [1.0] * rank
    exact = facts["coordinate"] not in ("tf_crop_and_resize", "half_pixel_symmetric")
    for axis, scale in zip(axes, scales.tolist(), strict=True):
        if scale <= 0:
            n.malformed(f"a scale of {scale}")
        span = region[rank + axis] - region[axis]
        ratio = Fraction(scale) * Fraction(span)
        if isinstance(x.shape[axis], int):
            out[axis] = int(np.floor(x.shape[axis] * span * scale))
        else:
            ratio = ratio.limit_denominator(1 << 16)
            out[axis] = x.shape[axis] * ratio.numerator // ratio.denominator
        factors[axis] = scale
        if facts["coordinate"] == "align_corners" and isinstance(x.shape[axis], int) and x.shape[axis] > 1:
            factors[axis] = (x.shape[axis] * scale - 1) / (x.shape[axis] - 1)
        exact = exact and (ratio.denominator == 1 or out[axis] == x.shape[axis] * Fraction(scale))
    if not exact:
        facts["scales"] = tuple(factors)
        if facts["coordinate"] == "align_corners":  # over the size before it is rounded: i (n - 1) / (n scale - 1)
            facts["coordinate"] = "asymmetric"


def _with_aspect(
    n: OnnxNode, x: Value, axes: tuple[int, ...], wanted: tuple[Dim, ...], policy: str
) -> tuple[tuple[Dim, ...], list[float]]:
    """Sizes that keep the aspect ratio, within the wanted ones or around them."""
    n.plain([*wanted, *(x.shape[a] for a in axes)], "the sizes")
    ratios = [size / x.shape[axis] for axis, size in zip(axes, wanted, strict=True)]
    scale = min(ratios) if policy == "not_larger" else max(ratios)
    factors = [scale if a in axes else 1.0 for a in range(len(x.shape))]
    return tuple(int(np.floor(scale * x.shape[a] + 0.5)) for a in axes), factors


def through_float(n: OnnxNode, x: Value, sizes: list[Dim], facts: dict) -> Value:
    """The resize op; interpolation of integers goes through f32."""
    if x.dtype.is_float or facts["mode"] == "nearest":
        return n.b.resize(x, sizes=tuple(sizes), **facts)
    return cast(n, n.b.resize(cast(n, x, f32), sizes=tuple(sizes), **facts), x.dtype)


@onnx_op("Upsample")
def upsample(n: OnnxNode, x: Value, scales: Value | None = None) -> Value:
    given = np.asarray(n.attr("scales"), np.float32) if scales is None else n.array(scales, "the scales")
    rank = len(x.shape)
    out: list[Dim] = list(x.shape)
    facts: dict[str, Any] = {
        "mode": n.attr("mode", "nearest"),
        "coordinate": "asymmetric",
        "nearest_mode": "floor",
    }
    _by_scales(n, x, tuple(range(rank)), given, out, [0.0] * rank + [1.0] * rank, facts)
    return through_float(n, x, out, facts)


@onnx_op("GridSample")
def grid_sample(n: OnnxNode, x: Value, grid: Value) -> Value:
    mode = n.attr("mode", "linear" if n.version >= 20 else "bilinear").removeprefix("bi")
    padding = n.attr("padding_mode", "zeros")
    align = bool(n.attr("align_corners", 0))
    return n.b.grid_sample(x, cast(n, grid, x.dtype), mode=mode, padding=padding, align_corners=align)


@onnx_op("RoiAlign")
def roi_align(n: OnnxNode, x: Value, rois: Value, batch: Value) -> Value:
    mode = n.attr("coordinate_transformation_mode", "half_pixel" if n.version >= 16 else "output_half_pixel")
    return n.b.roi_align(
        x,
        rois,
        batch,
        output_size=(n.attr("output_height", 1), n.attr("output_width", 1)),
        spatial_scale=n.attr("spatial_scale", 1.0),
        sampling_ratio=n.attr("sampling_ratio", 0),
        mode=n.attr("mode", "avg"),
        aligned=mode == "half_pixel",
    )
