"""Interpolation: upsampling as `resize`, its gradients as products with interpolation matrices, grid sampling."""

from __future__ import annotations

import math
import re
from typing import Any

import torch

from effcc.errors import TypeRuleError
from effcc.frontends.torch.aten.pooling import along_axes
from effcc.frontends.torch.emitter import Emitter, lowers, static
from effcc.ir import Value

UPSAMPLE = [name for n in (1, 2, 3) for name in (f"upsample_nearest{n}d", f"_upsample_nearest_exact{n}d")]
UPSAMPLE += ["upsample_linear1d", "upsample_bilinear2d", "upsample_trilinear3d", "upsample_bicubic2d"]
ANTIALIASED = ["_upsample_bilinear2d_aa", "_upsample_bicubic2d_aa"]


def _name(e: Emitter) -> str:
    return e.target.split(".")[1]


def _align(e: Emitter, rest: tuple[Any, ...]) -> tuple[bool, list[Any]]:
    """(align_corners, the scales) of the arguments after the output size; nearest has no align_corners."""
    align = False
    if "nearest" not in _name(e):
        align, rest = bool(rest[0]), rest[1:]
    if ".vec" in e.target:
        return align, list(rest[0]) if rest and rest[0] else []
    return align, list(rest)


@lowers(*UPSAMPLE, *ANTIALIASED)
def upsample(e: Emitter, x: Value, output_size: Any, *rest: Any, **kwargs: Any) -> Value:
    """Scales count only where they are not the ratio of the sizes: torch then samples by the given factor."""
    name, n = _name(e), len(x.shape) - 2
    align, scales = _align(e, rest)
    kept: list[float] = []
    for k in range(n):
        scale = scales[k] if k < len(scales) else None
        size, out = x.shape[2 + k], e.shape[2 + k]
        ratio = out / size if isinstance(size, int) and isinstance(out, int) and size else None
        kept.append(0.0 if scale is None or float(scale) == ratio else float(scale))
    how: dict[str, Any]
    if "exact" in name:
        how = {"mode": "nearest", "coordinate": "half_pixel", "nearest_mode": "round_prefer_ceil"}
    elif "nearest" in name:
        how = {"mode": "nearest", "coordinate": "asymmetric", "nearest_mode": "floor"}
    else:
        how = {
            "mode": "cubic" if "bicubic" in name else "linear",
            "coordinate": "align_corners" if align else "half_pixel",
        }
    if align and name in ANTIALIASED:  # torch then takes the distance of corners for a factor, and aligns nothing
        sizes = static((*x.shape[2:], *e.shape[2:]), "antialiased interpolation of aligned corners")
        corners = zip(sizes[:n], sizes[n:], strict=True)
        kept = [(out - 1) / (size - 1) if size > 1 and out > 1 else math.inf for size, out in corners]
        align, how["coordinate"] = False, "half_pixel"
    if any(kept) and not align:
        if not all(kept):
            sizes = static((*x.shape[2:], *e.shape[2:]), "interpolation by a factor along some axes only")
            kept = [s or sizes[n + k] / sizes[k] for k, s in enumerate(kept)]
        how["scales"] = (1.0, 1.0, *kept)
    if name in ANTIALIASED:
        how |= {"antialias": True, "cubic_a": -0.5, "exclude_outside": True}
    return e.b.resize(x, sizes=e.shape, **how)


@lowers(*(f"{name}_backward" for name in UPSAMPLE))
def upsample_backward(e: Emitter, grad: Value, output_size: Any, input_size: Any, *rest: Any) -> Value:
    """Interpolation is linear and separable: its gradient is the product with each axis's matrix, transposed."""
    name, n = _name(e).removesuffix("_backward"), len(grad.shape) - 2
    outs, sizes = (static(shape[2:], "the gradient of an interpolation") for shape in (grad.shape, e.shape))
    align, scales = _align(e, rest)
    matrices = []
    for k in range(n):
        scale = scales[k] if k < len(scales) else None
        matrices.append(_matrix(name, sizes[k], outs[k], align, scale))
    return along_axes(e, grad, matrices, transposed=False)


def _matrix(name: str, size: int, out: int, align: bool, scale: float | None) -> Any:
    """[out, size]: how an axis of `size` elements is interpolated to `out`, found by interpolating unit vectors."""
    unit = torch.eye(size, dtype=torch.float64).reshape(1, size, 1, size)
    aten = torch.ops.aten
    if "exact" in name:
        y = aten._upsample_nearest_exact2d(unit, [1, out], None, scale)
    elif "nearest" in name:
        y = aten.upsample_nearest2d(unit, [1, out], None, scale)
    else:
        interpolate = aten.upsample_bicubic2d if "bicubic" in name else aten.upsample_bilinear2d
        y = interpolate(unit, [1, out], align, None, scale)
    return y.reshape(size, out).T.numpy()


@lowers("grid_sampler_2d", "grid_sampler_3d")
def grid_sample(e: Emitter, x: Value, grid: Value, mode: int, padding: int, align_corners: bool) -> Value:
    if grid.dtype != x.dtype:
        raise TypeRuleError(f"the grid is {grid.dtype}, what it samples {x.dtype}", hint="convert one of them")
    return e.b.grid_sample(
        x,
        grid,
        mode=("linear", "nearest", "cubic")[mode],
        align_corners=bool(align_corners),
        padding=("zeros", "border", "reflection")[padding],
    )


@lowers("pixel_shuffle")
def pixel_shuffle(e: Emitter, x: Value, factor: int) -> Value:
    """[..., C r², H, W] -> [..., C, H r, W r]"""
    *batch, channels, height, width = x.shape
    n = len(batch)
    split = e.reshape(x, (*batch, channels // (factor * factor), factor, factor, height, width))
    return e.reshape(e.transpose(split, [*range(n), n, n + 3, n + 1, n + 4, n + 2]), e.shape)


@lowers("max_unpool2d", "max_unpool3d")
def max_unpool(e: Emitter, x: Value, at: Value, output_size: Any, *_: Any) -> Value:
    """Each element goes to its flat place in the output's plane."""
    n = int(re.search(r"(\d)d", e.target)[1])  # type: ignore[index]
    from effcc.ir import product

    rows, plane = product(e.shape[:-n]), product(e.shape[-n:])
    count = product(x.shape[-n:])
    zeros = e.full((rows, plane), 0, x.dtype)
    written = e.b.scatter_elements(zeros, e.reshape(at, (rows, count)), e.reshape(x, (rows, count)), axis=1)
    return e.reshape(written, e.shape)
