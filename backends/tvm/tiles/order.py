"""Which tasks precede which, and arenas that reuse memory only where that order allows it.

Under barriers two temporaries may share bytes when their launches follow one another. Without them only the DAG orders:
the new one may take the old one's bytes if every task that touches the old precedes every task that touches the new.
Or, where both begin at the same byte, if that holds byte for byte: the third of three convolutions writes a line after
those lines of the first one's input were read that lie there, whatever becomes of the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from effcc.backends.tvm.memory import rounded
from effcc.backends.tvm.place import Buffer
from effcc.backends.tvm.tiles.graph import TileGraph, buffers_of

Array = np.ndarray[Any, Any]
MOST_PAIRS = 1 << 20
"""Pairs of tasks of two temporaries beyond which they are not compared byte for byte."""


def ancestors(graph: TileGraph) -> Array:
    """uint8 [tasks, ceil(tasks / 8)]: bit j of row i says whether task j precedes task i (bits as numpy.packbits')."""
    own = np.packbits(np.eye(graph.tasks, dtype=bool), axis=1)
    above = np.zeros_like(own)
    starts, parents = graph.parents
    for i in range(graph.tasks):
        before = parents[starts[i] : starts[i + 1]]
        if len(before):
            above[i] = np.bitwise_or.reduce(above[before] | own[before], axis=0)
    return above


def launches_before(graph: TileGraph, above: Array | None = None) -> Array:
    """bool [launches, launches]: whether every task of the first precedes every task of the second."""
    above = ancestors(graph) if above is None else above
    count = len(graph.steps)
    mine = graph.launch >= 0
    sizes = np.bincount(graph.launch[mine], minlength=count)
    out = np.zeros((count, count), bool)
    for b in range(count):
        tasks = graph.of(b)
        common = np.unpackbits(np.bitwise_and.reduce(above[tasks], axis=0), count=graph.tasks).astype(bool)
        reached = np.bincount(graph.launch[common & mine], minlength=count) if len(tasks) else sizes
        out[:, b] = reached == sizes
    return out


class Arena:
    """Which temporaries of a graph may share bytes, and where each lies."""

    def __init__(self, graph: TileGraph, buffers: Sequence[Buffer]):
        self.graph, self.buffers = graph, list(buffers)
        self.above = ancestors(graph)
        number = {b: k for k, b in enumerate(self.buffers)}
        self.touching: list[list[int]] = [[] for _ in self.buffers]
        for k, step in enumerate(graph.steps):
            for b in dict.fromkeys(buffers_of(step)):
                if b in number:
                    self.touching[number[b]].append(k)
        self.sizes = [rounded(b.nbytes) for b in self.buffers]  # type: ignore[arg-type]
        self._known: dict[tuple[int, int], bool] = {}

    def meets(self) -> Array:
        """bool [buffers, buffers]: whether there is a task of each, neither of which precedes the other."""
        touch = np.zeros((len(self.buffers), len(self.graph.steps)), np.int32)
        for b, launches in enumerate(self.touching):
            touch[b, launches] = 1
        unordered = (~launches_before(self.graph, self.above)).astype(np.int32)
        fails = (touch @ unordered @ touch.T) > 0
        return fails & fails.T

    def in_step(self, i: int, j: int) -> bool:
        """Whether two may lie at the same offset: each task that writes some bytes of the later one comes after all
        that touch these bytes of the earlier one."""
        first, second = sorted((i, j), key=lambda b: self.touching[b])
        if (first, second) not in self._known:
            self._known[first, second] = self._follows(first, second)
        return self._known[first, second]

    def _follows(self, first: int, second: int) -> bool:
        old, low, high = self._spans(first, reads=True)
        new, begin, end = self._spans(second, reads=False)
        if len(old) * len(new) > MOST_PAIRS:
            return False
        shared = (low[:, None] <= end) & (begin <= high[:, None])
        ordered = (self.above[new][:, old // 8] >> (7 - old % 8)) & 1
        return bool((ordered.T.astype(bool) | ~shared).all())

    def _spans(self, b: int, reads: bool) -> tuple[Array, Array, Array]:
        """(tasks, first byte, last byte) of what touches a temporary, or writes it."""
        buffer, out = self.buffers[b], []
        for k in self.touching[b]:
            mark = self.graph.footprints[k]
            mine, tasks = buffers_of(self.graph.steps[k]), self.graph.of(k)
            for access in (*mark.writes, *(mark.reads if reads else ())):
                if mine[access.buffer] is buffer:
                    spans = access.spans(len(tasks), int(buffer.size))  # type: ignore[call-overload]
                    out.append((tasks, *spans))
        tasks, low, high = (np.concatenate(part) for part in zip(*out))
        return tasks, low * buffer.dtype.bytes, (high + 1) * buffer.dtype.bytes - 1

    def place(self) -> tuple[list[int], int]:
        """The offset of each temporary, and the arena's size."""
        return pack(self.sizes, self.meets(), self.in_step)


def pack(
    sizes: Sequence[int], meets: Array, in_step: Callable[[int, int], bool] = lambda i, j: False
) -> tuple[list[int], int]:
    """An offset for each buffer, so that no two that meet overlap unless they begin together and go `in_step`; and the
    size of the arena. Largest first, each into the smallest gap that holds it among the placed ones that it meets; else
    upon one of them; else above all."""
    offsets, placed = np.zeros(len(sizes), np.int64), np.zeros(len(sizes), bool)
    lengths = np.array([rounded(s) for s in sizes], np.int64)
    for i in sorted(range(len(sizes)), key=lambda i: (-lengths[i], i)):
        others = np.flatnonzero(placed & meets[i])
        others = others[np.argsort(offsets[others], kind="stable")]
        best, smallest, top = -1, 0, 0
        for start, end in zip(offsets[others].tolist(), (offsets[others] + lengths[others]).tolist()):
            gap = start - top
            if gap >= lengths[i] and (best < 0 or gap < smallest):
                best, smallest = top, gap
            top = max(top, end)
        if best < 0 and top + lengths[i] > (offsets + lengths)[placed].max(initial=0):
            best = _upon(i, others, offsets, lengths, in_step)
        offsets[i] = top if best < 0 else best
        placed[i] = True
    return offsets.tolist(), int((offsets + lengths).max(initial=0))


def _upon(i: int, others: Array, offsets: Array, lengths: Array, in_step: Callable[[int, int], bool]) -> int:
    """The least offset at which all that a buffer would overlap begin there, too, and go in step with it; -1: none."""
    for offset in np.unique(offsets[others]).tolist():
        over = [j for j in others.tolist() if offsets[j] < offset + lengths[i] and offset < offsets[j] + lengths[j]]
        if all(offsets[j] == offset for j in over) and all(in_step(i, j) for j in over):
            return offset
    return -1
