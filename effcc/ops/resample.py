"""Resampling at positions that are data: grid sampling, regions of interest, and unpooling."""

from __future__ import annotations

import itertools
import math
from typing import Any

from effcc.errors import InputError
from effcc.ir import scalar as s
from effcc.ir.assumptions import may_equal
from effcc.ir.dims import Dim, product
from effcc.ir.domain import FINITE
from effcc.ir.lazy import F, torch
from effcc.ir.op import require, tensor
from effcc.ir.scalar import PARALLEL, REDUCTION, Compute, Read, Scalar, State
from effcc.ir.types import Tensor, Type, i64
from effcc.ops.contraction import accumulate_dtype
from effcc.ops.elementwise.family import wide
from effcc.ops.index import index_tensor, require_elements, wrap, wrap_index
from effcc.ops.resize import Resampling, clamp_index, cubic_weight

Tap = tuple[Scalar, Scalar, "Scalar | None"]
"""An element that takes part: its index, its weight, and whether it exists (None: always)."""


class GridSample(Resampling):
    """The values of x [N, C, spatial...] at the positions `grid` [N, out..., 2 or 3], whose last axis is (x, y[, z]) in
    [-1, 1]: from edge to edge of the image, or with `align_corners` from the first element to the last. `padding`:
    zeros, border or reflection beyond them. (torch's grid_sample; ONNX GridSample; Jaderberg et al. 2015)"""
    name = "grid_sample"
    kinds = "f"
    operands = ("x", "grid")
    undefined = "NaN or infinity in the grid"
    domains = {"grid": FINITE}
    mode: str = "linear"
    padding: str = "zeros"
    align_corners: bool = False

    def infer(self, x: Type, grid: Type) -> Tensor:
        t, g = tensor(x), tensor(grid)
        require(
            t.dtype.is_float and g.dtype.is_float, f"grid_sample does not take {t.dtype} and {g.dtype}", "insert a cast"
        )
        require(self.mode in ("linear", "nearest", "cubic"), f"unknown mode {self.mode!r}", "linear, nearest or cubic")
        require(
            self.padding in ("zeros", "border", "reflection"),
            f"unknown padding {self.padding!r}",
            "zeros, border or reflection",
        )
        require(t.rank in (4, 5) and g.rank == t.rank and g.shape[-1] == t.rank - 2,
                f"x {t} and grid {g} should have shapes [N, C, spatial...] and [N, out..., number of spatial axes]")
        require(self.mode != "cubic" or t.rank == 4, "cubic sampling has two spatial axes")
        require(may_equal(t.shape[0], g.shape[0]), f"batch sizes {t.shape[0]} and {g.shape[0]} differ")
        require(0 not in t.shape[2:], "the image is empty")
        return t.with_shape((t.shape[0], t.shape[1], *g.shape[1:-1]))

    def reference(self, x: Any, grid: Any) -> Any:
        y, mode = wide(x), {"linear": "bilinear", "cubic": "bicubic"}.get(self.mode, self.mode)
        if 0 in (*x.shape[:2], *grid.shape):
            return x.new_zeros((*x.shape[:2], *grid.shape[1:-1]))
        return F.grid_sample(y, wide(grid).to(y.dtype), mode, self.padding, self.align_corners).to(x.dtype)

    def compute(self, x: Tensor, grid: Tensor) -> Compute:
        out, spatial, acc = self.infer(x, grid), x.shape[2:], accumulate_dtype(x.dtype, None)
        here = tuple(s.index(k) for k in range(out.rank))
        taps = []
        for k, n in enumerate(spatial):
            at = (here[0], *here[2:], s.size(len(spatial) - 1 - k))
            taps.append(self.taps(s.cast(Read(grid.dtype, 1, at), acc), n))
        total: Scalar = s.const(acc, 0)
        for chosen in itertools.product(*taps):
            weight, exists = s.const(acc, 1), None
            for _, w, there in chosen:
                weight = weight * w
                exists = there if exists is None else exists if there is None else exists & there
            value = s.cast(Read(x.dtype, 0, (*here[:2], *(i for i, _, _ in chosen))), acc)
            total = total + weight * (value if exists is None else s.select(exists, value, 0.0))
        return Compute(out.shape, (s.cast(total, x.dtype),))

    def taps(self, g: Scalar, n: Dim) -> list[Tap]:
        """The neighbours of a relative position on an axis of n elements."""
        acc, size = g.dtype, s.cast(s.size(n), g.dtype)
        c = (g + 1.0) / 2.0 * (size - 1.0) if self.align_corners else ((g + 1.0) * size - 1.0) / 2.0
        if self.mode != "cubic":
            c = self.padded(c, size)
        if self.mode == "nearest":
            return [self.tap(s.round_even(c), s.const(acc, 1), n)]
        first = s.floor(c)
        f = c - first
        if self.mode == "linear":
            return [self.tap(first, 1.0 - f, n), self.tap(first + 1.0, f, n)]
        distances = [1.0 + f, f, 1.0 - f, 2.0 - f]
        return [
            self.tap(self.padded(first + float(j - 1), size), cubic_weight(d, -0.75), n)
            for j, d in enumerate(distances)
        ]

    def padded(self, c: Scalar, size: Scalar) -> Scalar:
        """A coordinate brought back among the elements, as the padding says."""
        if self.padding == "reflection":
            low = 0.0 if self.align_corners else -0.5
            span = size - 1.0 if self.align_corners else size
            away = s.absolute(c - low)
            safe = s.maximum(span, 1.0)  # one element and aligned corners: the span is 0, and so is the coordinate
            flips = s.floor(away / safe)
            extra = s.apply("fmod", away, safe)
            even = s.apply("fmod", flips, s.const(c.dtype, 2)).eq(0.0)
            c = s.select(span > 0.0, s.select(even, extra + low, span - extra + low), 0.0)
        return c if self.padding == "zeros" else s.minimum(s.maximum(c, 0.0), size - 1.0)

    def tap(self, c: Scalar, weight: Scalar, n: Dim) -> Tap:
        size = s.cast(s.size(n), c.dtype)
        c = s.select(c > -2.0, c, -2.0)  # also NaN
        i = s.cast(s.minimum(c, size + 1.0), i64)
        return clamp_index(i, n), weight, (i >= 0) & (i < s.size(n))


class RoiAlign(Resampling):
    """Pools regions of interest of x [N, C, H, W] to `output_size`: each bin is the mean (or maximum) of linear
    interpolations at a regular grid of points, `sampling_ratio` a side (0: ⌈bin size⌉). (He et al. 2017, Mask R-CNN;
    ONNX and torchvision RoiAlign)

    rois [R, 4] are (x1, y1, x2, y2) times 1/`spatial_scale` in image `batch_indices` [R]. `aligned`: pixel centers lie
    at halves. Points farther than one element outside count as 0. `max` takes, as ONNX has it, the greatest weighted
    corner.
    """

    name = "roi_align"
    kinds = "fiu"
    operands = ("x", "rois", "batch_indices")
    undefined = "NaN or infinite rois, batch indices out of range"
    domains = {"rois": FINITE}
    output_size: tuple[int, int]
    spatial_scale: float = 1.0
    sampling_ratio: int = 0
    mode: str = "avg"
    aligned: bool = True

    def infer(self, x: Type, rois: Type, batch_indices: Type) -> Tensor:
        t, r, b = tensor(x), tensor(rois), index_tensor(batch_indices, "the batch index")
        require(
            t.dtype.is_float and r.dtype == t.dtype,
            f"roi_align does not take {t.dtype} and rois of {r.dtype}",
            "insert a cast",
        )
        require(t.rank == 4 and 0 not in t.shape[2:], f"x is {t}, not [N, C, H, W] with elements")
        require(r.rank == 2 and r.shape[1] == 4 and b.rank == 1 and may_equal(r.shape[0], b.shape[0]),
                f"rois {r} and batch indices {b} should have shapes [R, 4] and [R]")
        require(self.mode in ("avg", "max"), f"unknown mode {self.mode!r}", "avg or max")
        require_elements(b, t.shape[0])
        return t.with_shape((r.shape[0], t.shape[1], *self.output_size))

    def reference(self, x: Any, rois: Any, batch_indices: Any) -> Any:
        y, boxes = wide(x), wide(rois).nan_to_num(0.0, 0.0, 0.0)  # (a box of infinite size has no number of points)
        out = torch.zeros((len(rois), x.shape[1], *self.output_size), dtype=y.dtype)
        shift = 0.5 if self.aligned else 0.0
        for r, (box, image) in enumerate(zip(boxes, wrap(batch_indices, x.shape[0]))):
            x1, y1, x2, y2 = box * self.spatial_scale - shift
            lines = [self.samples(a, b, bins, n) for a, b, bins, n in
                     zip((y1, x1), (y2, x2), self.output_size, x.shape[2:])]
            (rows, row_weights, in_rows), (columns, column_weights, in_columns) = lines
            picked = y[int(image)][:, rows][..., columns]  # [C, bins, points, 2 corners, bins, points, 2 corners]
            weights = (row_weights * in_rows)[..., None, None, None] * (column_weights * in_columns)
            corners = (picked * weights).movedim(3, -1)  # [C, bins y, points, bins x, points, 2, 2]
            if corners.numel() == 0:
                continue
            if self.mode == "avg":
                count = max(rows.shape[1] * columns.shape[1], 1)
                out[r] = corners.sum((2, 4, 5, 6)) / count
            else:
                out[r] = corners.amax((2, 4, 5, 6))
        return out.to(x.dtype)

    def samples(self, start: Any, end: Any, bins: int, n: int) -> tuple[Any, Any, Any]:
        """Of the points of one axis: corner indices and weights [bins, points, 2], and whether they lie within
        reach."""
        length = end - start
        length = length if self.aligned else length.clamp(min=1)
        if not length.isfinite():
            raise InputError("roi_align has no meaning for rois that are NaN or infinite")
        points = self.sampling_ratio or max(int(torch.ceil(length / bins)), 0)
        grid = (torch.arange(points, dtype=length.dtype) + 0.5) * (length / bins) / max(points, 1)
        c = start + torch.arange(bins, dtype=length.dtype)[:, None] * (length / bins) + grid
        near = ((c >= -1) & (c <= n))[..., None].expand(bins, points, 2)
        c = c.clamp(0, n - 1)
        low = c.floor().clamp(max=n - 1)
        high = (low + 1).clamp(max=n - 1)
        return torch.stack((low, high), -1).long(), torch.stack((1 - (c - low), c - low), -1), near

    def compute(self, x: Tensor, rois: Tensor, batch_indices: Tensor) -> Compute:
        acc = accumulate_dtype(x.dtype, None)
        r, channel, reduced = s.index(0), s.index(1), []
        image = wrap_index(Read(batch_indices.dtype, 2, (r,)), x.shape[0])
        taps, inside, counts = [], [], []
        for k, (bins, n) in enumerate(zip(self.output_size, x.shape[2:])):  # height from y, width from x
            start, end = (
                s.cast(Read(rois.dtype, 1, (r, s.size(c))), acc) * self.spatial_scale - (0.5 if self.aligned else 0.0)
                for c in (1 - k, 3 - k)
            )
            length = end - start
            length = length if self.aligned else s.maximum(length, 1.0)
            origin = start + s.cast(s.index(2 + k), acc) * (length / float(bins))
            point: Scalar = s.index(4 + k)
            if self.sampling_ratio:
                count: Scalar = s.size(self.sampling_ratio)
                spacing = length / float(bins) / float(self.sampling_ratio)
                reduced.append(self.sampling_ratio)
            else:  # points lie less than 1 and (but a lone one) more than ½ apart: few are within reach of the image
                points = s.ceil(length / float(bins))
                spacing = length / float(bins) / s.maximum(points, 1.0)
                first = s.minimum(s.maximum(s.floor((-1.0 - origin) / s.maximum(spacing, 0.5) - 0.5), 0.0), points)
                point = point + s.cast(first, i64)
                count = s.cast(points, i64)
                reduced.append(n * 2 + 6)
            c = origin + (s.cast(point, acc) + 0.5) * spacing
            top = s.cast(s.size(n - 1), acc)
            inside.append((point < count) & (c >= -1.0) & (c <= s.cast(s.size(n), acc)))
            counts.append(count)
            c = s.minimum(s.maximum(c, 0.0), top)
            low = s.floor(c)
            i, f = s.cast(low, i64), c - low
            taps.append([(clamp_index(i, n), 1.0 - f), (clamp_index(i + 1, n), f)])
        within = inside[0] & inside[1]
        corners = [
            s.cast(Read(x.dtype, 0, (image, channel, i, j)), acc) * (v * w) for i, v in taps[0] for j, w in taps[1]
        ]
        total, seen = State(acc, 0), State(i64, 1)
        every = s.maximum(counts[0] * counts[1], 1)
        if self.mode == "avg":
            value = corners[0] + corners[1] + corners[2] + corners[3]
            step, start_value = s.select(within, total + value, total), s.const(acc, 0)
            result = total / s.cast(every, acc)
        else:
            value = s.maximum(s.maximum(corners[0], corners[1]), s.maximum(corners[2], corners[3]))
            step, start_value = s.select(within, s.maximum(total, value), total), s.const(acc, acc.min)
            result = s.select(seen < every, s.maximum(total, 0.0), total)
        states = ((start_value, s.size(0)), (step, s.select(within, seen + 1, seen)))
        return Compute((rois.shape[0], x.shape[1], *self.output_size, *reduced), (s.cast(result, x.dtype),),
                       PARALLEL * 4 + REDUCTION * 2, *states)


class MaxUnpool(Resampling):
    """The partial inverse of max pooling: zeros of spatial `sizes`, with x [N, C, spatial...] at the flat spatial
    `indices` that max_pool_with_indices gave; of equal indices the last wins. (torch's max_unpool)"""
    name = "max_unpool"
    operands = ("x", "indices")
    undefined = "indices outside of the result"
    sizes: tuple[Dim, ...]

    def infer(self, x: Type, indices: Type) -> Tensor:
        t, i = tensor(x), index_tensor(indices)
        require(
            t.rank >= 3 and len(self.sizes) == t.rank - 2,
            f"x {t} does not have {len(self.sizes)} spatial axes after [N, C]",
        )
        require(
            i.rank == t.rank and all(map(may_equal, i.shape, t.shape)), f"the indices {i} have another shape than {t}"
        )
        return t.with_shape((*t.shape[:2], *self.sizes))

    def reference(self, x: Any, indices: Any) -> Any:
        flat = torch.zeros((*x.shape[:2], math.prod(self.sizes)), dtype=x.dtype)  # type: ignore[arg-type]
        where = indices.to(torch.int64).reshape(*x.shape[:2], math.prod(x.shape[2:]))
        return flat.scatter(2, where, x.reshape(where.shape)).reshape((*x.shape[:2], *self.sizes))

    def decompose(self, b: Any, x: Any, indices: Any) -> Any:
        outer, few, many = x.shape[:2], product(x.shape[2:]), product(self.sizes)
        zeros = b.broadcast_to(b.const(0, x.dtype), shape=(*outer, many))
        flat = (b.reshape(v, shape=(*outer, few)) for v in (indices, x))
        return b.reshape(b.scatter_elements(zeros, *flat, axis=2), shape=(*outer, *self.sizes))
