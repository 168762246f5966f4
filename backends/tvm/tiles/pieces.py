"""Tasks of one launch: its tiles in blocks of consecutive ones, and where each block lies in the results.

The index of a tile has a digit for each cut of its space. A block is one value of the slow digits, some consecutive
values of one digit, and all of the faster ones: consecutive tiles, and again a range along every cut.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from effcc.backends.tvm.tiles.regions import Box
from effcc.backends.tvm.tiles.space import Cut, TileSpace

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, eq=False)
class Grid:
    """Tasks of a launch, in row-major order of their coordinates.

    shape        how many values each coordinate has: one for each cut up to the blocked one
    block        values of the last coordinate's digit in a block
    begin, end   [T]: tiles of each task
    space        None where it is not known what a tile writes
    """

    shape: tuple[int, ...]
    block: int
    begin: Array
    end: Array
    space: TileSpace | None

    @property
    def tasks(self) -> int:
        return len(self.begin)

    def tasks_in(self, low: Array, high: Array) -> Array:
        """The tasks with coordinates low..high."""
        axes = np.ix_(*(np.arange(a, b + 1) for a, b in zip(low, high)))
        return np.ravel_multi_index(axes, self.shape).reshape(-1) if self.shape else np.zeros(1, np.int64)

    def box_of(self, shape: tuple[Any, ...]) -> Box:
        """What each task writes of a result of this shape, as a box around it."""
        low, high = self._space_box
        lead = len(low) - len(shape)
        assert self.space is not None
        for axis, extent in enumerate(shape):
            if extent != self.space.shape[axis + lead]:  # of size 1, broadcast to the space
                low[axis + lead], high[axis + lead] = 0, extent - 1
        return Box(low[lead:], high[lead:])

    @property
    def _space_box(self) -> tuple[Array, Array]:
        """The indices of each axis of the space, least and greatest, [rank, T]."""
        assert self.space is not None
        extents = np.array(self.space.shape, np.int64).reshape(-1, 1)
        low, high = np.zeros((len(extents), self.tasks), np.int64), np.repeat(extents - 1, self.tasks, axis=1)
        coordinates = np.unravel_index(np.arange(self.tasks), self.shape) if self.shape else ()
        for k, cut in enumerate(self.space.cuts[: len(self.shape)]):
            first = coordinates[k]
            last = first
            if k == len(self.shape) - 1:
                first = first * self.block
                last = np.minimum(first + self.block, int(self.space.count(cut))) - 1  # type: ignore[call-overload]
            a, b = begin_of(self.space, cut, first), end_of(self.space, cut, last) - 1
            for axis, unit in zip(cut.axes, units(self.space, cut)):
                low[axis], high[axis] = a // unit, b // unit
                one = low[axis] == high[axis]
                a, b = np.where(one, a - low[axis] * unit, 0), np.where(one, b - high[axis] * unit, unit - 1)
        return low, high

    def pieces_of(self, box: Box, shape: tuple[Any, ...]) -> tuple[Array, Array]:
        """The coordinates, least and greatest, of the tasks that write the box of a result of this shape."""
        assert self.space is not None
        lead = len(self.space.shape) - len(shape)
        low, high = [], []
        for k, cut in enumerate(self.space.cuts[: len(self.shape)]):
            first = last = np.zeros(box.tiles, np.int64)
            for axis, unit in zip(cut.axes, units(self.space, cut)):
                extent: Any = self.space.shape[axis]
                known = axis >= lead and shape[axis - lead] == extent
                first = first + (box.low[axis - lead] * unit if known else 0)
                last = last + (box.high[axis - lead] if known else extent - 1) * unit
            first, last = piece_of(self.space, cut, first), piece_of(self.space, cut, last)
            if k == len(self.shape) - 1:
                first, last = first // self.block, last // self.block
            low.append(first)
            high.append(last)
        none = np.zeros((0, box.tiles), np.int64)
        return (np.stack(low), np.stack(high)) if low else (none, none)


def grid_of(space: TileSpace, wanted: int) -> Grid:
    """About `wanted` tasks of a space's tiles (of which there are some), at most one a tile."""
    counts: list[Any] = [space.count(cut) for cut in space.cuts]
    tiles = int(np.prod(counts, dtype=np.int64))
    together = max(1, -(-tiles // max(1, wanted)))  # tiles of a task
    axis, inner = len(counts) - 1, 1
    while axis > 0 and together >= inner * counts[axis]:
        inner, axis = inner * counts[axis], axis - 1
    if axis < 0:
        return Grid((), 1, np.zeros(1, np.int64), np.ones(1, np.int64), space)
    blocks = -(-counts[axis] // max(1, together // inner))
    block = -(-counts[axis] // blocks)
    shape = (*counts[:axis], -(-counts[axis] // block))
    coordinates = np.unravel_index(np.arange(int(np.prod(shape))), shape)
    row = np.ravel_multi_index(coordinates[:-1], shape[:-1]) if axis else 0
    begin = (row * counts[axis] + coordinates[-1] * block) * inner
    end = (row * counts[axis] + np.minimum(coordinates[-1] * block + block, counts[axis])) * inner
    return Grid(shape, block, begin, end, space)


def one_piece(tiles: int, wanted: int) -> Grid:
    """Tasks of tiles of which nothing is known but their number."""
    tasks = min(tiles, max(1, wanted))
    bounds = np.arange(tasks + 1) * tiles // max(1, tasks)
    return Grid((tasks,), 1, bounds[:-1], bounds[1:], None)


# -- along one cut: pieces and elements of its flattened axes ----------------------------------------------------------


def units(space: TileSpace, cut: Cut) -> list[int]:
    """How many elements of the flattened axes one step along each of them is."""
    out, unit = [], 1
    for axis in reversed(cut.axes):
        out.append(unit)
        unit *= max(1, space.shape[axis])  # type: ignore[type-var,assignment]
    return out[::-1]


def _part(space: TileSpace, cut: Cut) -> tuple[int, int, int]:
    """(elements of a part, pieces of a part, elements of a piece)"""
    part: Any = space.extent(cut) // cut.parts  # type: ignore[operator]
    return part, max(1, -(-part // cut.step)), cut.step  # type: ignore[operator,return-value]


def begin_of(space: TileSpace, cut: Cut, piece: Array) -> Array:
    """The first element of a piece."""
    part, pieces, step = _part(space, cut)
    return piece // pieces * part + piece % pieces * step


def end_of(space: TileSpace, cut: Cut, piece: Array) -> Array:
    part, pieces, step = _part(space, cut)
    return piece // pieces * part + np.minimum(piece % pieces * step + step, part)


def piece_of(space: TileSpace, cut: Cut, element: Array) -> Array:
    """The piece that holds an element."""
    part, pieces, step = _part(space, cut)
    return element // max(1, part) * pieces + element % max(1, part) // step
