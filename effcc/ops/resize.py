"""Resizing: each axis of a regular grid sampled at another number of positions."""

from __future__ import annotations

import itertools
import math
from typing import Any

from effcc.ir import scalar as s
from effcc.ir.dims import Dim, ceildiv, dim_max
from effcc.ir.lazy import torch
from effcc.ir.op import Op, require, tensor
from effcc.ir.scalar import PARALLEL, REDUCTION, Compute, Read, Scalar, State
from effcc.ir.types import DType, Tensor, Type, f32, f64, i64
from effcc.ops.contraction import accumulate_dtype
from effcc.ops.elementwise.family import wide


class Resampling(Op):
    family = "index"

    def magnitude(self, x: Any, *_: Any) -> Any:
        """What a rounding is relative to, for any element: the plane's largest element, times the longest axis, at
        whose scale coordinates (and so the weights of neighbours) are rounded."""
        longest = max(x.shape[2:], default=1)
        return longest * x.abs().nan_to_num(0.0, 0.0, 0.0).max() if x.numel() else x.new_zeros(())


def clamp_index(i: Scalar, size: Dim) -> Scalar:
    return s.maximum(s.minimum(i, s.size(size - 1)), 0)


def cubic_weight(distance: Scalar, a: float) -> Scalar:
    """Keys' convolution kernel at a distance ≥ 0. (Keys 1981, "Cubic convolution interpolation")"""
    d = distance
    near = ((a + 2) * d - (a + 3)) * d * d + 1.0
    far = ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
    return s.select(d <= 1.0, near, s.select(d < 2.0, far, 0.0))


def cubic_weight_torch(distance: Any, a: float) -> Any:
    d = distance.abs()
    near = (a + 2) * d**3 - (a + 3) * d**2 + 1
    far = a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a
    return torch.where(d <= 1, near, torch.where(d < 2, far, 0.0))


COORDINATES = (
    "half_pixel",
    "pytorch_half_pixel",
    "align_corners",
    "asymmetric",
    "half_pixel_symmetric",
    "tf_crop_and_resize",
)
NEAREST = ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")


def weighted(value: Scalar, weight: Scalar) -> Scalar:
    """value · weight, and 0 where the weight is 0: a neighbour that takes no part may be infinite. So an axis that
    keeps its size, for some sizes, gives what it is given."""
    return s.select(weight.eq(0.0), 0.0, value * weight)


class Resize(Resampling):
    """Resampling to `sizes` (one for each axis; axes that keep their size pass), by the `nearest` element, or a
    `linear` or `cubic` (kernel parameter `cubic_a`) combination of neighbours in each resized axis. (ONNX Resize 19;
    torch's interpolate)

    coordinate: where result i of m lies among n elements: half_pixel (i + ½) n/m - ½ (pytorch_half_pixel: 0 where m =
    1),
        align_corners i (n-1)/(m-1), asymmetric i n/m, half_pixel_symmetric, tf_crop_and_resize (`roi`: starts, then
        ends, relative; beyond the elements `extrapolation`). These are exact rational numbers; with `scales` (m/n as
        the model has it, one for each axis) f32 arithmetic (f64 under antialias) replaces n/m by 1/scale.
    nearest_mode: how `nearest` rounds.    exclude_outside: leave out neighbours beyond the edge instead of repeating
    the edge. antialias: where it shrinks, stretch the kernel by n/m, as Pillow does.
    """

    name = "resize"
    sizes: tuple[Dim, ...]
    mode: str = "nearest"
    coordinate: str = "half_pixel"
    nearest_mode: str = "round_prefer_floor"
    scales: tuple[float, ...] | None = None
    cubic_a: float = -0.75
    exclude_outside: bool = False
    antialias: bool = False
    roi: tuple[float, ...] = ()
    extrapolation: float = 0.0

    def infer(self, x: Type) -> Tensor:
        t = tensor(x)
        require(len(self.sizes) == t.rank, f"resize needs {t.rank} sizes, got {len(self.sizes)}")
        for value, known, what in (
            (self.mode, ("nearest", "linear", "cubic"), "mode"),
            (self.coordinate, COORDINATES, "coordinate"),
            (self.nearest_mode, NEAREST, "nearest_mode"),
        ):
            require(value in known, f"unknown {what} {value!r}", "one of " + ", ".join(known))
        require(
            t.dtype.is_float or self.mode == "nearest", f"{self.mode} resize does not take {t.dtype}", "insert a cast"
        )
        require(
            self.scales is None or len(self.scales) == t.rank and min(self.scales, default=1.0) > 0,
            f"the scales {self.scales} do not fit {t}",
        )
        require(
            self.coordinate != "tf_crop_and_resize" or len(self.roi) == 2 * t.rank,
            f"the region {self.roi} does not fit {t}",
        )
        for k in self.resized(t):
            require(t.shape[k] != 0 or 0 in self.sizes, f"axis {k} is empty: there is nothing to resize")
        return t.with_shape(self.sizes)

    def resized(self, x: Tensor) -> tuple[int, ...]:
        """The axes that do not simply pass."""
        def passes(k: int) -> bool:
            whole = self.coordinate != "tf_crop_and_resize" or (self.roi[k], self.roi[x.rank + k]) == (0.0, 1.0)
            return x.shape[k] == self.sizes[k] and (self.scales is None or self.scales[k] == 1.0) and whole

        return tuple(k for k in range(x.rank) if not passes(k))

    # -- the loop nest -----------------------------------------------------------------------------
    def compute(self, x: Tensor) -> Compute:
        axes = self.resized(x)
        if self.antialias and self.mode != "nearest" and axes:
            return self.compute_antialiased(x, axes)
        acc = accumulate_dtype(x.dtype, None)
        taps = [self.taps(x, k, acc) for k in axes]
        here = [s.index(k) for k in range(x.rank)]
        total: Scalar | None = None
        for chosen in itertools.product(*taps):
            at, weight = list(here), None
            for k, (i, w) in zip(axes, chosen):
                at[k], weight = i, w if weight is None else weight if w is None else weight * w
            value = Read(x.dtype, 0, tuple(at))
            term = value if weight is None else weighted(s.cast(value, acc), weight)
            total = term if total is None else total + term
        assert total is not None
        result = s.cast(total, x.dtype)
        if self.coordinate == "tf_crop_and_resize":
            for k in axes:
                c = self.coordinate_float(k, x.shape[k])
                inside = (c >= 0.0) & (c <= s.cast(s.size(x.shape[k] - 1), c.dtype))
                result = s.select(inside, result, s.cast(s.const(f32, self.extrapolation), x.dtype))
        return Compute(self.sizes, (result,))

    def taps(self, x: Tensor, axis: int, acc: DType) -> list[tuple[Scalar, Scalar | None]]:
        """The neighbours of the coordinate on an axis, with their weights."""
        n = x.shape[axis]
        if self.mode == "nearest":
            return [(clamp_index(self.nearest_index(axis, n), n), None)]
        first, f = self.floor_and_fraction(axis, n, acc)
        if self.mode == "linear":
            distances = [f, 1.0 - f]
            weights = [1.0 - d for d in distances]
        else:
            distances = [1.0 + f, f, 1.0 - f, 2.0 - f]
            weights = [cubic_weight(d, self.cubic_a) for d in distances]
        places = [first + (j - (self.mode == "cubic")) for j in range(len(weights))]
        if self.exclude_outside:
            weights = [s.select((i >= 0) & (i < s.size(n)), w, 0.0) for i, w in zip(places, weights)]
            total = weights[0]
            for w in weights[1:]:
                total = total + w
            weights = [w / total for w in weights]
        return [(clamp_index(i, n), w) for i, w in zip(places, weights)]

    def is_rational(self) -> bool:
        return self.coordinate == "align_corners" or self.scales is None and self.coordinate != "tf_crop_and_resize"

    def coordinate_rational(self, axis: int, n: Dim) -> tuple[Scalar, Scalar]:
        """(numerator, denominator > 0) of the coordinate of the loop's element."""
        i, m = s.index(axis), self.sizes[axis]
        if self.coordinate == "asymmetric":
            return i * s.size(n), s.size(m)
        if self.coordinate == "align_corners":
            return i * s.size(n - 1), s.size(dim_max(m - 1, 1))
        numerator = (i * 2 + 1) * s.size(n) - s.size(m)
        if self.coordinate == "pytorch_half_pixel":
            numerator = s.select(s.size(m) > 1, numerator, 0)
        return numerator, s.size(m * 2)

    def coordinate_dtype(self) -> DType:
        """What coordinates by scales are computed in; antialiased ones are summed over, and torch has f64 of them."""
        return f64 if self.antialias and self.mode != "nearest" else f32

    def coordinate_float(self, axis: int, n: Dim) -> Scalar:
        """The coordinate by the scales."""
        dtype = self.coordinate_dtype()
        i, m, count = s.cast(s.index(axis), dtype), self.sizes[axis], s.cast(s.size(n), dtype)
        if self.coordinate == "tf_crop_and_resize":
            start, end = self.roi[axis], self.roi[len(self.sizes) + axis]
            span = s.cast(s.size(n - 1), dtype)
            moved = start * span + i * (end - start) * span / s.cast(s.size(dim_max(m - 1, 1)), dtype)
            return s.select(s.size(m) > 1, moved, 0.5 * (start + end) * span)
        scale = self.scales[axis]  # type: ignore[index]
        if self.coordinate == "asymmetric":
            return i / scale
        c = (i + 0.5) / scale - 0.5
        if self.coordinate == "pytorch_half_pixel":
            return s.select(s.size(m) > 1, c, 0.0)
        if self.coordinate == "half_pixel_symmetric":
            adjustment = s.cast(s.size(m), dtype) / (count * scale)
            return count * 0.5 * (1.0 - adjustment) + c
        return c

    def nearest_index(self, axis: int, n: Dim) -> Scalar:
        if self.is_rational():
            p, q = self.coordinate_rational(axis, n)
            match self.nearest_mode:
                case "floor":
                    return p // q
                case "ceil":
                    return -((-p) // q)
                case "round_prefer_floor":
                    return -((q - p * 2) // (q * 2))
                case _:
                    return (p * 2 + q) // (q * 2)
        c = self.coordinate_float(axis, n)
        match self.nearest_mode:
            case "floor":
                c = s.floor(c)
            case "ceil":
                c = s.ceil(c)
            case "round_prefer_floor":
                c = s.ceil(c - 0.5)
            case _:
                c = s.floor(c + 0.5)
        return s.cast(c, i64)

    def floor_and_fraction(self, axis: int, n: Dim, acc: DType) -> tuple[Scalar, Scalar]:
        if self.is_rational():
            p, q = self.coordinate_rational(axis, n)
            whole = p // q
            return whole, s.cast(p - whole * q, acc) / s.cast(q, acc)
        c = self.coordinate_float(axis, n)
        whole = s.floor(c)
        return s.cast(whole, i64), s.cast(c - whole, acc)

    def compute_antialiased(self, x: Tensor, axes: tuple[int, ...]) -> Compute:
        """Sums over stretched kernels: states are the weighted sum and the sum of the weights."""
        acc, support = accumulate_dtype(x.dtype, None), 1 if self.mode == "linear" else 2
        at: list[Scalar] = [s.index(k) for k in range(x.rank)]
        weight: Scalar | None = None
        extents = list(self.sizes)
        for k in axes:
            n, m = x.shape[k], self.sizes[k]
            whole, fraction = self.floor_and_fraction(k, n, acc)
            if self.scales is None:
                reach = ceildiv(dim_max(n, m) * support, dim_max(m, 1))
                stretch = s.cast(s.size(dim_max(n, m)), acc) / s.cast(s.size(m), acc)
            else:
                reach = math.ceil(support * max(1.0, 1.0 / self.scales[k]))
                stretch = s.const(acc, max(1.0, 1.0 / self.scales[k]))
            j = s.index(len(extents)) - s.size(reach)
            extents.append(reach * 2 + 2)
            distance = s.absolute(s.cast(j, acc) - fraction) / stretch
            w = s.maximum(1.0 - distance, 0.0) if self.mode == "linear" else cubic_weight(distance, self.cubic_a)
            i = whole + j
            if self.exclude_outside:
                w = s.select((i >= 0) & (i < s.size(n)), w, 0.0)
            at[k], weight = clamp_index(i, n), w if weight is None else weight * w
        assert weight is not None
        zero = s.const(acc, 0)
        term = weighted(s.cast(Read(x.dtype, 0, tuple(at)), acc), weight)
        step = (State(acc, 0) + term, State(acc, 1) + weight)
        return Compute(
            tuple(extents),
            (s.cast(State(acc, 0) / State(acc, 1), x.dtype),),
            PARALLEL * x.rank + REDUCTION * len(axes),
            (zero, zero),
            step,
        )

    # -- the meaning, one axis after another ---------------------------------------------------------
    def reference(self, x: Any) -> Any:
        if 0 in self.sizes:
            return x.new_zeros(self.sizes)
        y = wide(x) if self.mode != "nearest" else x
        outside = torch.zeros(self.sizes, dtype=torch.bool)
        for k in self.resized(Tensor(f32, tuple(x.shape))):
            n, lanes = x.shape[k], [-1 if a == k else 1 for a in range(x.dim())]
            whole, fraction = self.position(k, n)
            if self.coordinate == "tf_crop_and_resize":
                c = whole + fraction
                outside = outside | ((c < 0) | (c > n - 1)).reshape(lanes)
            if self.mode == "nearest":
                half = {
                    "floor": 0,
                    "ceil": fraction > 0,
                    "round_prefer_floor": fraction > 0.5,
                    "round_prefer_ceil": fraction >= 0.5,
                }
                y = y.index_select(k, (whole + half[self.nearest_mode]).clamp(0, n - 1))
                continue
            out = torch.zeros([self.sizes[a] if a == k else d for a, d in enumerate(y.shape)], dtype=y.dtype)  # type: ignore[misc]
            for place, weight in self.neighbours(whole, fraction, n, k):
                w = weight.to(y.dtype).reshape(lanes)
                taken = y.index_select(k, place.clamp(0, n - 1)) * w
                out = out + torch.where(w == 0, torch.zeros((), dtype=y.dtype), taken)
            y = out
        return torch.where(outside, torch.tensor(self.extrapolation).to(y.dtype), y).to(x.dtype).clone()

    def neighbours(self, whole: Any, fraction: Any, n: int, axis: int) -> list[tuple[Any, Any]]:
        """(index, weight) vectors of the elements that take part on an axis."""
        stretch = 1.0
        if self.antialias:
            stretch = max(1.0, n / max(self.sizes[axis], 1) if self.scales is None else 1 / self.scales[axis])  # type: ignore[type-var]
        reach = math.ceil((1 if self.mode == "linear" else 2) * stretch)
        found = []
        for j in range(-reach, reach + 2) if self.antialias else range(1 - reach, reach + 1):  # (0 * inf would be NaN)
            distance = (j - fraction).abs() / stretch
            weight = (
                (1 - distance).clamp(min=0) if self.mode == "linear" else cubic_weight_torch(distance, self.cubic_a)
            )
            if self.exclude_outside:
                weight = torch.where((whole + j >= 0) & (whole + j < n), weight, 0.0)
            found.append((whole + j, weight))
        total = sum(w for _, w in found)
        return [(i, w / total) for i, w in found]

    def position(self, axis: int, n: int) -> tuple[Any, Any]:
        """(floor as i64, fraction as f64) of each result's coordinate."""
        m: Any = self.sizes[axis]
        i = torch.arange(m)
        if self.is_rational():
            if self.coordinate == "asymmetric":
                p, q = i * n, m
            elif self.coordinate == "align_corners":
                p, q = i * (n - 1), max(m - 1, 1)
            else:
                p, q = (2 * i + 1) * n - m, 2 * m
                p = p * 0 if self.coordinate == "pytorch_half_pixel" and m == 1 else p
            whole = torch.div(p, max(q, 1), rounding_mode="floor")
            return whole, (p - whole * q).double() / max(q, 1)
        dtype = torch.float64 if self.coordinate_dtype() is f64 else torch.float32
        i = i.to(dtype)
        if self.coordinate == "tf_crop_and_resize":
            start, end = (torch.tensor(self.roi[k], dtype=dtype) for k in (axis, len(self.sizes) + axis))
            c = (
                start * (n - 1) + i * (end - start) * (n - 1) / (m - 1)
                if m > 1
                else (0.5 * (start + end) * (n - 1)).reshape(m)
            )
        else:
            scale = torch.tensor(self.scales[axis], dtype=dtype)  # type: ignore[index]
            c = i / scale if self.coordinate == "asymmetric" else (i + 0.5) / scale - 0.5
            if self.coordinate == "pytorch_half_pixel" and m == 1:
                c = c * 0
            if self.coordinate == "half_pixel_symmetric":
                c = n * 0.5 * (1 - torch.tensor(float(m), dtype=dtype) / (n * scale)) + c
        whole = c.floor()
        return whole.to(torch.int64), (c - whole).double()
