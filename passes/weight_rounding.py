"""Rounding constant matrices to integers with scales: per output channel, or for groups along the summed axis."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

SMALLEST_SCALE = 2.0**-14
"""What a group of zeros gets: the least normal number of float16."""
SHRINKS = tuple(1 - 0.05 * k for k in range(9))
"""Parts of the full range that the search tries."""
CHUNK = 1 << 20
"""Elements that are rounded at a time: they stay in cache."""


@dataclass(frozen=True)
class Grid:
    """Which numbers a weight may become: (q - zero) * scale.

    bits: of an element. group: consecutive k under a scale; 0: all of them. asymmetric: whether each scale has a zero
    point (elements are unsigned then). search: whether a smaller range is taken where the mean squared error is less.
    scales: the dtype of the scales, "float32" or "float16" (rounded up, so that the range holds each weight).
    """

    bits: int
    group: int = 0
    asymmetric: bool = False
    search: bool = False
    scales: str = "float32"

    @property
    def lowest(self) -> int:
        """Of a symmetric grid the lowest element is used by the search alone: without it the range is symmetric."""
        return 0 if self.asymmetric else -(1 << self.bits - 1)

    @property
    def highest(self) -> int:
        return (1 << self.bits) - 1 if self.asymmetric else (1 << self.bits - 1) - 1


@dataclass(frozen=True)
class Rounded:
    """q [K, N] in int8 or uint8, scale [groups, N], zero [groups, N] like q or None, and the grid they lie on."""

    q: np.ndarray
    scale: np.ndarray
    zero: np.ndarray | None
    grid: Grid

    @property
    def group(self) -> int:
        return self.grid.group or self.q.shape[0]

    def restored(self) -> np.ndarray:
        """The weights that they stand for, in float32 as dequantize_linear computes them."""
        scale, zero = (None if p is None else spread(p, self.group, len(self.q)) for p in (self.scale, self.zero))
        q = self.q.astype(np.float32) if zero is None else self.q.astype(np.float32) - zero.astype(np.float32)
        return q * scale.astype(np.float32)  # type: ignore[union-attr]


def spread(parameter: np.ndarray, group: int, depth: int) -> np.ndarray:
    """[groups, N] -> [K, N]"""
    return np.repeat(parameter, group, 0)[:depth]


def round_weights(w: np.ndarray, grid: Grid) -> Rounded:
    """The nearest elements of the grid, its scales found group by group.

    w: [K, N], finite. Each weight moves by half of its scale at most, where nothing is searched.
    """
    depth, columns = w.shape
    group = grid.group or depth
    groups = -(-depth // group)
    q = np.empty((depth, columns), np.uint8 if grid.asymmetric else np.int8)
    scale = np.empty((groups, columns), grid.scales)
    zero = np.empty((groups, columns), np.uint8) if grid.asymmetric else None
    for part in chunks(depth, columns):
        block = np.zeros((groups * group, part.stop - part.start), np.float32)
        block[:depth] = w[:, part]
        block = block.reshape(groups, group, -1)
        s, z = scales_of(block, grid)
        scale[:, part] = s
        if zero is not None:
            zero[:, part] = z
        q[:, part] = nearest(block, s, z, grid).reshape(groups * group, -1)[:depth]
    return Rounded(q, scale, zero, grid)


def chunks(depth: int, columns: int) -> Iterator[slice]:
    step = max(1, CHUNK // max(1, depth))
    return (slice(start, min(start + step, columns)) for start in range(0, columns, step))


def scales_of(block: np.ndarray, grid: Grid) -> tuple[np.ndarray, Any]:
    """(scale, zero point or 0), each [groups, N], of w [groups, group, N]."""
    low, high = np.minimum(block.min(1), 0), np.maximum(block.max(1), 0)
    if grid.asymmetric:
        full = (high - low) / np.float32(grid.highest)
    else:
        full = np.maximum(high, -low) / np.float32(grid.highest)
    full = round_up(np.maximum(full, np.float32(SMALLEST_SCALE) * (full == 0)), grid.scales)
    scale, zero = full, zero_of(low, full, grid)
    if not grid.search:
        return scale, zero
    least = squared_error(block, scale, zero, grid)
    for shrink in SHRINKS[1:]:
        tried = round_up(full.astype(np.float32) * np.float32(shrink), grid.scales)
        shifted = zero_of(low * np.float32(shrink), tried, grid)
        error = squared_error(block, tried, shifted, grid)
        better = error < least
        least = np.where(better, error, least)
        scale = np.where(better, tried, scale)
        zero = np.where(better, shifted, zero) if grid.asymmetric else 0
    return scale, zero


def zero_of(low: np.ndarray, scale: np.ndarray, grid: Grid) -> Any:
    """The element that stands for 0: the lowest one stands for the lowest weight."""
    return np.clip(np.rint(-low / scale.astype(np.float32)), 0, grid.highest) if grid.asymmetric else 0


def round_up(scale: np.ndarray, dtype: str) -> np.ndarray:
    """In the dtype, not below."""
    rounded = scale.astype(dtype)
    return np.where(rounded.astype(np.float32) < scale, np.nextafter(rounded, rounded.dtype.type(np.inf)), rounded)


def nearest(block: np.ndarray, scale: np.ndarray, zero: Any, grid: Grid) -> np.ndarray:
    """Elements for w [groups, group, N], halves to even."""
    shift = zero[:, None] if grid.asymmetric else 0
    return np.clip(np.rint(block / scale.astype(np.float32)[:, None]) + shift, grid.lowest, grid.highest)


def squared_error(block: np.ndarray, scale: np.ndarray, zero: Any, grid: Grid) -> np.ndarray:
    """Of each group, [groups, N]."""
    shift = zero[:, None] if grid.asymmetric else 0
    moved = (nearest(block, scale, zero, grid) - shift) * scale.astype(np.float32)[:, None] - block
    return np.einsum("gkn,gkn->gn", moved, moved)


def deviation(w: np.ndarray, rounded: Rounded) -> np.ndarray:
    """By how much a weight may move: half of its scale, more where the search cut the range. [K, N], float64.

    A product y = x @ w then moves by at most |x| @ deviation.
    """
    depth, group = len(w), rounded.group
    scale = spread(rounded.scale.astype(np.float64), group, depth)
    zero = 0.0 if rounded.zero is None else spread(rounded.zero.astype(np.float64), group, depth)
    low, high = (rounded.grid.lowest - zero) * scale, (rounded.grid.highest - zero) * scale
    return np.maximum(scale / 2, np.maximum(w - high, low - w))
