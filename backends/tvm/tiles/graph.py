"""Launches -> tasks and what each waits for.

A task is some consecutive tiles of a launch: enough of them that scheduling it costs a percent at most. What a task
waits for follows from memory: it reads what others have written (boxes through access maps and places), and it must not
overwrite what others wrote or still read. Where c tasks wait for the same p tasks, a join stands between: p + c edges
instead of p c (the events of MPK); launches that wait for the same tasks share it.

The DAG holds for any order of running, so nothing may rely on the order of launches but what is an edge here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from effcc.backends.tvm.place import Buffer, Place
from effcc.backends.tvm.placing import same_place
from effcc.backends.tvm.plan import Copy, KernelPlan, Launch
from effcc.backends.tvm.tiles.overlap import addresses, project
from effcc.backends.tvm.tiles.pieces import Grid, grid_of, one_piece
from effcc.backends.tvm.tiles.regions import Box, needed

Array = np.ndarray[Any, Any]

LEAST_NS, GOOD_NS = 5_000, 25_000
"""Work below which a task is not divided even to give every thread some, and at all."""
MOST_TASKS = 16
"""Tasks of a launch for each thread, at most."""
FEW_EDGES = 4
"""So many edges are no more than a join would have."""


@dataclass(frozen=True, eq=False)
class TileGraph:
    """Tasks in an order in which they may run. Arrays are int32 over the tasks, or the edges.

    launch       which of `steps`, -1 for a join     begin, end   its tiles
    starts       [tasks + 1]: the tasks that wait for task i are children[starts[i]:starts[i + 1]]
    footprints   what the tasks of each of `steps` touch
    """

    steps: tuple[Launch | Copy, ...]
    launch: Array
    begin: Array
    end: Array
    starts: Array
    children: Array
    footprints: tuple[Footprint, ...] = ()

    @property
    def tasks(self) -> int:
        """How many there are, joins included."""
        return len(self.launch)

    @property
    def joins(self) -> int:
        return int(np.count_nonzero(self.launch < 0))

    @property
    def edges(self) -> int:
        return len(self.children)

    @cached_property
    def waits(self) -> Array:
        """[tasks]: for how many others each waits."""
        return np.bincount(self.children, minlength=self.tasks).astype(np.int32)

    @cached_property
    def parents(self) -> tuple[Array, Array]:
        """(starts, parents): the tasks that task i waits for, as `children` has those that wait for it."""
        sources = np.repeat(np.arange(self.tasks, dtype=np.int32), np.diff(self.starts))
        order = np.argsort(self.children, kind="stable")
        return np.concatenate(([0], np.cumsum(self.waits))).astype(np.int32), sources[order]

    def of(self, step: int) -> Array:
        """The tasks of a launch."""
        return np.flatnonzero(self.launch == step)


@dataclass(frozen=True, eq=False)
class Access:
    """What each task of a launch touches of one buffer, by its number in the launch: a box of a place, or all of it."""

    buffer: int
    place: Place | None
    box: Box | None

    def spans(self, tasks: int, size: int) -> tuple[Array, Array]:
        """The least and the greatest element (of `size`) that each task touches."""
        if self.box is None or self.place is None:
            return np.zeros(tasks, np.int64), np.full(tasks, size - 1)
        return addresses(self.box, self.place)


@dataclass(frozen=True, eq=False)
class Footprint:
    """The tasks of a kernel's launches, and what they read and write."""

    grid: Grid
    reads: tuple[Access, ...]
    writes: tuple[Access, ...]


def footprint(kernel: KernelPlan, tiles: int, wanted: int) -> Footprint:
    """What the tasks of a kernel touch when its tiles are divided into about `wanted` of them."""
    touched, number = kernel.touched, {b: k for k, b in enumerate(kernel.touched.buffers)}
    if touched.space is None:
        grid = one_piece(tiles, wanted)
        places = [p for p in (*touched.operands, *touched.more) if not _updated(p, touched.results)]
        reads = tuple(Access(number[p.buffer], None, None) for p in places)
        return Footprint(grid, reads, tuple(Access(number[p.buffer], None, None) for p in touched.results))
    grid = grid_of(touched.space, wanted)
    results = dict(zip(touched.graph.results, touched.results))
    boxes = {v: grid.box_of(v.shape) for v in results}
    writes = tuple(Access(number[p.buffer], p, boxes[v]) for v, p in results.items())
    wants = needed(touched.graph, boxes)
    reads = [Access(number[p.buffer], None, None) for p in touched.more]
    for v, place in zip(touched.graph.inputs, touched.operands):
        k = number[place.buffer]
        seen = v in wants and place.shape == v.shape  # packed weights have other shapes
        reads.append(Access(k, place, wants[v]) if seen else Access(k, None, None))
    return Footprint(grid, tuple(reads), writes)


def _updated(place: Place, results: tuple[Place, ...]) -> bool:
    """Whether a kernel updates what it was given, in place, where data decide: its tasks read none but the elements
    that they write, of which no two are the same."""
    return any(place.shape == r.shape and same_place(place, r) for r in results)


def copied(step: Copy) -> Footprint:
    return Footprint(one_piece(1, 1), (Access(1, None, None),), (Access(0, None, None),))


def build(steps: Sequence[Launch | Copy], threads: int, flops_per_ns: float) -> TileGraph:
    """The tile graph of launches and copies, all of whose sizes are integers."""
    return _Builder(tuple(steps), threads, flops_per_ns).graph()


def buffers_of(step: Launch | Copy) -> tuple[Buffer, ...]:
    """The buffers that a step touches, as `Access` numbers them."""
    return step.buffers if isinstance(step, Launch) else (step.target, step.source)


def tasks_wanted(step: Launch, threads: int, flops_per_ns: float) -> int:
    """Tasks of at least GOOD_NS; for each thread two of at least LEAST_NS."""
    work: Any = float(step.flops) / flops_per_ns + float(step.nbytes) / 8  # type: ignore[arg-type]
    wanted = max(min(2 * threads, work / LEAST_NS), work / GOOD_NS)
    return max(1, min(int(wanted), MOST_TASKS * threads))


@dataclass(frozen=True, eq=False)
class _Wait:
    """Tasks of a launch wait for tasks of `producer`: for each those with coordinates low..high (int64 [axes, T]) in
    its grid, where `meets`."""

    producer: int
    low: Array
    high: Array
    meets: Array


class _Builder:
    def __init__(self, steps: tuple[Launch | Copy, ...], threads: int, flops_per_ns: float):
        self.steps, self.threads, self.flops_per_ns = steps, threads, flops_per_ns
        self.known: dict[tuple[KernelPlan, int], Footprint] = {}
        self.footprints: list[Footprint] = []
        self.first: list[int] = []
        self.writers: dict[Buffer, list[tuple[int, Access]]] = {}
        self.readers: dict[Buffer, list[tuple[int, Access]]] = {}
        self.joins: dict[Any, int] = {}
        self.launch: list[Array] = []
        self.begin: list[Array] = []
        self.end: list[Array] = []
        self.edges: list[tuple[Array, Array]] = []
        self.count = 0

    def graph(self) -> TileGraph:
        for k, step in enumerate(self.steps):
            self.footprints.append(self._footprint(step))
            pending = self._edges(self._waits(k, step))
            grid = self.footprints[k].grid
            self.first.append(self._add(k, grid.begin, grid.end))
            for sources, targets in pending:
                self.edges.append((sources, targets + self.first[k]))
            for of, accesses in ((self.readers, self.footprints[k].reads), (self.writers, self.footprints[k].writes)):
                for access in accesses:
                    of.setdefault(buffers_of(step)[access.buffer], []).append((k, access))
        n = self.count
        none = (np.zeros(0, np.int64),) * 2
        sources, targets = (np.concatenate(x) for x in zip(*self.edges)) if self.edges else none
        packed = np.unique(sources.astype(np.int64) * max(n, 1) + targets)
        sources, targets = packed // max(n, 1), packed % max(n, 1)
        starts = np.concatenate(([0], np.cumsum(np.bincount(sources, minlength=n))))
        launch, begin, end = (np.concatenate(x) if x else none[0] for x in (self.launch, self.begin, self.end))
        arrays = (x.astype(np.int32) for x in (launch, begin, end, starts, targets))
        return TileGraph(self.steps, *arrays, tuple(self.footprints))

    def _footprint(self, step: Launch | Copy) -> Footprint:
        if isinstance(step, Copy):
            return copied(step)
        tiles: Any = step.tiles
        if tiles == 0:
            return Footprint(one_piece(0, 1), (), ())
        wanted = tasks_wanted(step, self.threads, self.flops_per_ns)
        if (step.kernel, wanted) not in self.known:
            self.known[step.kernel, wanted] = footprint(step.kernel, tiles, wanted)
        return self.known[step.kernel, wanted]

    def _add(self, launch: int, begin: Array, end: Array) -> int:
        """Appends tasks; the number of the first."""
        self.launch.append(np.full(len(begin), launch))
        self.begin.append(begin)
        self.end.append(end)
        self.count += len(begin)
        return self.count - len(begin)

    # -- who waits for whom --------------------------------------------------------------------------------------------
    def _waits(self, k: int, step: Launch | Copy) -> list[_Wait]:
        own, waits = self.footprints[k], []
        buffers = buffers_of(step)
        for access in own.reads:
            for producer, written in self.writers.get(buffers[access.buffer], ()):
                waits.append(self._wait(own, access, producer, written))
        for access in own.writes:
            for producer, written in self.writers.get(buffers[access.buffer], ()):
                waits.append(self._wait(own, access, producer, written))
            for reader, read in self.readers.get(buffers[access.buffer], ()):
                if meets(read, access):
                    waits.append(self._all(own, reader))
            if buffers[access.buffer].kind == "input":  # the caller may have given one array for several inputs
                others = (of for b, of in self.readers.items() if b.kind == "input")
                waits += [self._all(own, reader) for of in others for reader, _ in of]
        return [w for w in waits if w.meets.any()]

    def _all(self, own: Footprint, producer: int) -> _Wait:
        """Every task for every task."""
        tasks, shape = own.grid.tasks, np.array(self.footprints[producer].grid.shape, np.int64).reshape(-1, 1)
        none = (shape == 0).any()
        return _Wait(
            producer,
            np.zeros((len(shape), tasks), np.int64),
            np.repeat(shape - 1, tasks, axis=1),
            np.full(tasks, not none),
        )

    def _wait(self, own: Footprint, access: Access, producer: int, written: Access) -> _Wait:
        """Each task for those that wrote what it touches."""
        if access.box is None or access.place is None or written.place is None:
            return self._all(own, producer)
        at, hit = project(access.box, access.place, written.place)
        low, high = self.footprints[producer].grid.pieces_of(at, written.place.shape)
        return _Wait(producer, low, high, hit)

    # -- edges ---------------------------------------------------------------------------------------------------------
    def _edges(self, waits: list[_Wait]) -> list[tuple[Array, Array]]:
        """(tasks waited for, the waiting launch's own tasks, counted from 0); joins are made where they save edges."""
        out = []
        for wait in waits:
            mine = np.flatnonzero(wait.meets)
            rows = np.concatenate((wait.low, wait.high))[:, mine].T
            boxes, which = np.unique(rows, axis=0, return_inverse=True)
            for k, box in enumerate(boxes):
                waiting = mine[which.reshape(-1) == k]
                out.append(self._edges_of(wait.producer, box, waiting))
        return out

    def _edges_of(self, producer: int, box: Array, waiting: Array) -> tuple[Array, Array]:
        grid = self.footprints[producer].grid
        low, high = box.reshape(2, -1)
        count, key = int(np.prod(high - low + 1)), (producer, box.tobytes())
        if key in self.joins:
            sources = np.array([self.joins[key]])
        else:
            sources = self.first[producer] + grid.tasks_in(low, high)
            if count * len(waiting) > max(count + len(waiting), FEW_EDGES):
                nothing = np.zeros(1, np.int64)
                join = self.joins[key] = self._add(-1, nothing, nothing)
                self.edges.append((sources, np.full(count, join)))
                sources = np.array([join])
        return np.repeat(sources, len(waiting)), np.tile(waiting, len(sources))


def meets(read: Access, written: Access) -> bool:
    """Whether any task of a reader touches what any task of a writer does."""
    if read.box is None or read.place is None or written.box is None or written.place is None:
        return True
    at, hit = project(hull(read.box), read.place, written.place)
    other = hull(written.box)
    return bool(hit[0]) and bool(((at.low <= other.high) & (other.low <= at.high)).all())


def hull(box: Box) -> Box:
    """One box around those of all tasks."""
    return Box(box.low.min(axis=1, keepdims=True, initial=1 << 62), box.high.max(axis=1, keepdims=True, initial=-1))
