"""Checks of a tile graph, element by element where the builder reasons in boxes.

    1  every edge leads to a later task: there is no cycle, and the order is that of the launches
    2  every tile of every launch is in one task
    3  the tiles of a launch write each element of its results once
    4  of two tasks that touch the same byte, one of them writing, one waits for the other (directly or by others)

From 1 and 4: every read comes after the writes of the launches before it and before those of the launches behind it,
in memory that temporaries share, too. What a task writes is taken from its kernel's tile space, one element after the
other; what it reads from the boxes of access maps, whose soundness has tests of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from effcc.backends.tvm.place import Buffer, Place
from effcc.backends.tvm.plan import Copy, Launch
from effcc.backends.tvm.tiles import order
from effcc.backends.tvm.tiles.graph import Access, Footprint, TileGraph, buffers_of, footprint
from effcc.backends.tvm.tiles.pieces import begin_of, end_of, units
from effcc.backends.tvm.tiles.space import TileSpace
from effcc.errors import VerifyError

Array = np.ndarray[Any, Any]


def verify(graph: TileGraph, offsets: Mapping[Buffer, int]) -> None:
    """Raises VerifyError with the first fault. `offsets`: where each temporary begins in the arena."""
    for fault in faults(graph, offsets):
        raise VerifyError(f"tile graph: {fault}")


def faults(graph: TileGraph, offsets: Mapping[Buffer, int]) -> Iterator[str]:
    """What is wrong with a tile graph, in words; the checks that others rest upon come first."""
    sources = np.repeat(np.arange(graph.tasks), np.diff(graph.starts))
    backward = np.flatnonzero(graph.children <= sources)
    if len(backward):
        k = backward[0]
        yield f"task {graph.children[k]} waits for task {sources[k]}, which comes after it"
        return
    yield from _tiles_once(graph)
    yield from _elements_once(graph)
    yield from _races(graph, offsets)


def _tiles_once(graph: TileGraph) -> Iterator[str]:
    for k, step in enumerate(graph.steps):
        tiles: Any = step.tiles if isinstance(step, Launch) else 1
        counts = np.zeros(tiles + 1, np.int64)
        for begin, end in zip(graph.begin[graph.of(k)], graph.end[graph.of(k)]):
            counts[begin] += 1
            counts[end] -= 1
        wrong = np.flatnonzero(np.cumsum(counts)[:-1] != 1)
        if len(wrong):
            yield f"tile {wrong[0]} of launch {k} ({_label(step)}) is in {np.cumsum(counts)[wrong[0]]} tasks"


def _elements_once(graph: TileGraph) -> Iterator[str]:
    done = set()
    for k, step in enumerate(graph.steps):
        if isinstance(step, Copy) or step.kernel in done or step.kernel.touched.space is None:
            continue
        done.add(step.kernel)
        touched = step.kernel.touched
        for v, place in zip(touched.graph.results, touched.results):
            written: Any = np.concatenate(
                [_tile_addresses(touched.space, tile, v.shape, place) for tile in range(int(step.tiles))]  # type: ignore
                or [np.zeros(0, np.int64)]
            )
            wanted = _addresses(place, np.zeros((len(v.shape), 1), int), np.array(v.shape, int).reshape(-1, 1) - 1, 0)
            if not np.array_equal(np.sort(written), np.sort(wanted)):
                yield f"launch {k} ({_label(step)}) does not write each element of {v} once"


# -- races -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Touch:
    """A task's access: which elements of which buffer."""

    task: int
    step: int
    buffer: Buffer
    access: Access
    tiles: range
    writes: bool

    def elements(self, graph: TileGraph) -> Array:
        step, place, box = graph.steps[self.step], self.access.place, self.access.box
        if box is None or place is None:
            return np.arange(self.buffer.size)  # type: ignore[call-overload]
        if self.writes and isinstance(step, Launch) and step.kernel.touched.space is not None:
            space = step.kernel.touched.space
            return np.concatenate([_tile_addresses(space, t, place.shape, place) for t in self.tiles])
        return np.concatenate([_addresses(place, box.low, box.high, t) for t in self.tiles])

    def hull(self) -> tuple[int, int]:
        """The first and the last element, of those that it might touch."""
        place, box = self.access.place, self.access.box
        if box is None or place is None:
            return 0, int(self.buffer.size) - 1  # type: ignore[arg-type]
        low = high = int(place.offset)  # type: ignore[arg-type]
        for axis, stride in enumerate(place.strides):
            ends = box.low[axis, self.tiles].min() * stride, box.high[axis, self.tiles].max() * stride
            low, high = low + int(min(ends)), high + int(max(ends))
        return low, high


def _races(graph: TileGraph, offsets: Mapping[Buffer, int]) -> Iterator[str]:
    above = np.unpackbits(order.ancestors(graph), axis=1, count=graph.tasks).astype(bool)
    ordered = above | above.T
    spaces: dict[Any, list[_Touch]] = {}
    for touch in _touches(graph):
        spaces.setdefault("arena" if touch.buffer in offsets else touch.buffer, []).append(touch)
    cache: dict[int, Array] = {}

    def bytes_of(touch: _Touch) -> Array:
        if id(touch) not in cache:
            first = offsets.get(touch.buffer, 0)
            size = touch.buffer.dtype.bytes
            each = np.unique(touch.elements(graph)) * size + first
            cache[id(touch)] = (each[:, None] + np.arange(size)).reshape(-1)
        return cache[id(touch)]

    for touches in spaces.values():
        if not any(t.writes for t in touches):
            continue
        task = np.array([t.task for t in touches])
        hulls = np.array([t.hull() for t in touches]).T
        base = np.array([offsets.get(t.buffer, 0) for t in touches])
        size = np.array([t.buffer.dtype.bytes for t in touches])
        low, high = base + hulls[0] * size, base + (hulls[1] + 1) * size - 1
        for k, touch in enumerate(touches):
            if not touch.writes:
                continue
            near = (low <= high[k]) & (high >= low[k]) & ~ordered[touch.task, task] & (task != touch.task)
            for other in (touches[j] for j in np.flatnonzero(near)):
                exact = other.step == touch.step and other.writes and other.buffer is touch.buffer
                if exact and (touch.access.box is not None or touch.access is other.access):
                    continue  # seen to be disjoint by _elements_once, or not known
                shared = np.intersect1d(bytes_of(touch), bytes_of(other), assume_unique=True)
                if len(shared):
                    yield (
                        f"tasks {touch.task} ({_label(graph.steps[touch.step])}) and {other.task} "
                        f"({_label(graph.steps[other.step])}) touch byte {shared[0]} of {touch.buffer} in any order"
                    )


def _touches(graph: TileGraph) -> Iterator[_Touch]:
    known: dict[Any, Footprint] = {}
    for k, step in enumerate(graph.steps):
        tasks = graph.of(k)
        if not len(tasks):
            continue
        buffers = buffers_of(step)
        if isinstance(step, Copy):
            yield _Touch(int(tasks[0]), k, step.target, Access(0, None, None), range(1), True)
            yield _Touch(int(tasks[0]), k, step.source, Access(1, None, None), range(1), False)
            continue
        if step.kernel not in known:  # as if each tile were a task
            known[step.kernel] = footprint(step.kernel, int(step.tiles), int(step.tiles))  # type: ignore[arg-type]
        for writes, accesses in ((False, known[step.kernel].reads), (True, known[step.kernel].writes)):
            for access in accesses:
                if buffers[access.buffer].kind == "constant":
                    continue
                for task in tasks.tolist():
                    tiles = range(graph.begin[task], graph.end[task])
                    yield _Touch(task, k, buffers[access.buffer], access, tiles, writes)


# -- elements ----------------------------------------------------------------------------------------------------------


def _addresses(place: Place, low: Array, high: Array, task: int) -> Array:
    """The elements of a task's box of a place."""
    out: Any = np.array([place.offset])
    for axis, stride in enumerate(place.strides):
        out = np.add.outer(out, np.arange(low[axis, task], high[axis, task] + 1) * stride).reshape(-1)
    return out


def _tile_addresses(space: TileSpace, tile: int, shape: tuple[Any, ...], place: Place) -> Array:
    """The elements that one tile writes of a result, with repetitions if it writes any twice."""
    strides = place.aligned_strides(space.shape)
    counts: Any = [space.count(cut) for cut in space.cuts]
    digits = np.unravel_index(tile, counts) if counts else ()
    out: Any = np.array([place.offset])
    for cut, digit in zip(space.cuts, digits):
        flat = np.arange(begin_of(space, cut, digit), end_of(space, cut, digit))
        along: Any = np.zeros(len(flat), np.int64)
        for axis, unit in zip(cut.axes, units(space, cut)):
            along = along + flat // unit % space.shape[axis] * strides[axis]
        out = np.add.outer(out, along).reshape(-1)
    for axis in set(range(len(space.shape))) - {a for cut in space.cuts for a in cut.axes}:
        extent: Any = space.shape[axis] if strides[axis] != 0 else 1
        out = np.add.outer(out, np.arange(extent) * strides[axis]).reshape(-1)
    return out


def _label(step: Launch | Copy) -> str:
    return step.label if isinstance(step, Launch) else "copy"
