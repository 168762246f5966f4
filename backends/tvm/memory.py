"""The arena: which temporaries may share bytes, decided once; where they lie, worked out for each binding of sizes.

`plan` packs the temporaries for sample sizes, largest first, each into the lowest gap among those that live at the same
time (Pisarchyk and Lee, "Efficient Memory Management for Deep Neural Net Inference", 2020).  What it keeps is not the
offsets but who lies on whom: a temporary begins where the highest of those below it ends.  That holds for any sizes:
of two that live at the same time, one always lies above the other.

    offset(t) = max(offset(b) + size(b) for b in t.above), 0 on the ground
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from heapq import heappop, heappush
from typing import Any

import numpy as np

from .entry import Copy, If, Launch, LoadSize, Program, Rebind, Size, Step, StoreSize, Temporary, Tiles, While, evaluate

ALIGNMENT = 64
SAMPLE = 512
"""What a size is taken to be, within its range, when buffers of different formulas are compared."""

SEARCHED = 4096
"""Up to so many temporaries the packing compares each with all; beyond, it goes through them once in time's order."""


@dataclass(frozen=True)
class Usage:
    """Bytes of the arena for some sizes, and the least that any arena could have: what lives at once, at the worst."""

    peak: int
    lower_bound: int
    unshared: int
    """If no two temporaries shared a byte."""


def plan(program: Program, sample: Mapping[str, int] | None = None) -> Program:
    """The program with its temporaries in the order of their places, each knowing which ones it lies on."""
    if sample is None:
        sample = {s.name: min(max(SAMPLE, s.low), s.high or SAMPLE) for s in map(_size, program.sizes)}
    ranges = live_ranges(program)
    used = [t for t in program.temporaries if t.name in ranges]
    sizes = [rounded(evaluate(t.size, sample)) for t in used]
    spans = [ranges[t.name] for t in used]
    offsets = pack(spans, sizes)
    order = sorted(range(len(used)), key=lambda i: (offsets[i], spans[i]))
    names = [t.name for t in used]
    below = _skyline([spans[i] for i in order])
    placed = [
        replace(used[i], above=tuple(sorted(names[order[b]] for b in under)))
        for i, under in zip(order, below, strict=True)
    ]
    return replace(program, temporaries=tuple(placed))


def place(temporaries: Iterable[Temporary], sizes: Mapping[str, int]) -> tuple[list[int], int]:
    """The offset of each temporary, and the arena's size, in bytes."""
    ends: dict[str, int] = {}
    offsets, peak = [], 0
    for t in temporaries:
        offset = max([ends[name] for name in t.above], default=0) if t.offset is None else t.offset
        offsets.append(offset)
        ends[t.name] = end = offset + rounded(evaluate(t.size, sizes))
        peak = max(peak, end)
    return offsets, peak


def usage(program: Program, sizes: Mapping[str, int]) -> Usage:
    """How much memory the arena of a planned program takes."""
    ranges = live_ranges(program)
    lengths = {t.name: rounded(evaluate(t.size, sizes)) for t in program.temporaries}
    changes: dict[int, int] = {}
    for name, (first, last) in ranges.items():
        changes[first] = changes.get(first, 0) + lengths[name]
        changes[last + 1] = changes.get(last + 1, 0) - lengths[name]
    live = bound = 0
    for step in sorted(changes):
        live += changes[step]
        bound = max(bound, live)
    return Usage(place(program.temporaries, sizes)[1], bound, sum(lengths.values()))


def described(program: Program, constants: Mapping[str, np.ndarray], sizes: Mapping[str, int]) -> dict[str, Any]:
    """What a report says: bytes of temporaries at the peak, the least there could be, and where each lies; bytes of
    constants."""
    used, ranges = usage(program, sizes), live_ranges(program)
    offsets, _ = place(program.temporaries, sizes)
    buffers = [
        {
            "name": t.name,
            "offset": offset,
            "bytes": rounded(evaluate(t.size, sizes)),
            "first": ranges[t.name][0],
            "last": ranges[t.name][1],
        }
        for t, offset in zip(program.temporaries, offsets, strict=True)
    ]
    return {
        "peak": used.peak,
        "lower_bound": used.lower_bound,
        "unshared": used.unshared,
        "buffers": buffers,
        "constants": sum(array.nbytes for array in constants.values()),
    }


def rounded(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


# -- live ranges -------------------------------------------------------------------------------------------------------


@dataclass
class _Life:
    first: int
    last: int
    written_first: bool


def live_ranges(program: Program) -> dict[str, tuple[int, int]]:
    """First and last step (counted in program order) at which each used temporary must keep its bytes.

    What a loop's body touches lives during the whole loop, unless nothing else touches it and each round writes it
    first.  Buffers whose names are exchanged live as one.
    """
    lives: dict[str, _Life] = {}
    together: dict[str, str] = {}
    temporaries = {t.name for t in program.temporaries}

    def root(name: str) -> str:
        while name in together:
            name = together[name]
        return name

    def touch(name: str, step: int, writes: bool) -> None:
        if name not in temporaries:
            return
        if name in lives:
            lives[name].last = step
        else:
            lives[name] = _Life(step, step, writes)

    def visit(steps: Iterable[Step], step: int) -> int:
        for s in steps:
            match s:
                case Launch():
                    for name in s.pointers:
                        touch(name, step, name in s.writes)
                case Copy(target, source):
                    touch(source, step, False)
                    touch(target, step, True)
                case LoadSize(_, buffer):
                    touch(buffer, step, False)
                case StoreSize(buffer):
                    touch(buffer, step, True)
                case Rebind(targets, sources):
                    for name in (*targets, *sources):
                        touch(name, step, False)
                        if root(name) != root(targets[0]):
                            together[root(name)] = root(targets[0])
                case Tiles(steps):
                    step = visit(steps, step)
                case If(_, then, orelse):
                    step = visit(orelse, visit(then, step + 1))
                case While(_, body):
                    begin, before = step, {name: life.last for name, life in lives.items()}
                    step = visit(body, step + 1)
                    loops.append((begin, step, {n for n, x in lives.items() if before.get(n) != x.last}))
                case _:
                    pass
            step += 1
        return step

    loops: list[tuple[int, int, set[str]]] = []
    visit(program.steps, 0)
    exchanged = {root(name) for name in together}
    for begin, end, names in loops:  # inner ones come before those around them
        for name in names:
            life = lives[name]
            local = begin <= life.first and life.last <= end and life.written_first and root(name) not in exchanged
            if not local:
                life.first, life.last = min(life.first, begin), max(life.last, end)
    hulls: dict[str, tuple[int, int]] = {}
    for name, life in lives.items():
        first, last = hulls.get(root(name), (life.first, life.last))
        hulls[root(name)] = (min(first, life.first), max(last, life.last))
    return {name: hulls[root(name)] for name in lives}


# -- packing -----------------------------------------------------------------------------------------------------------


def pack(spans: list[tuple[int, int]], sizes: list[int]) -> list[int]:
    """An offset for each buffer, so that no two whose spans (inclusive) meet overlap."""
    if len(spans) > SEARCHED:
        return _pack_in_time(spans, sizes)
    return min((_pack_by_size(spans, sizes), _pack_in_time(spans, sizes)), key=lambda o: _height(o, sizes))


def _height(offsets: list[int], sizes: list[int]) -> int:
    return max((offset + size for offset, size in zip(offsets, sizes, strict=True)), default=0)


def _pack_by_size(spans: list[tuple[int, int]], sizes: list[int]) -> list[int]:
    """Largest first, each into the smallest gap that holds it among the placed ones that it meets, or above them."""
    offsets = np.zeros(len(spans), np.int64)
    lengths = np.array(sizes, np.int64)
    first, last = np.array(spans, np.int64).reshape(-1, 2).T
    placed = np.zeros(len(spans), bool)
    for i in sorted(range(len(spans)), key=lambda i: (-sizes[i], spans[i])):
        met = np.flatnonzero(placed & (first <= last[i]) & (last >= first[i]))
        met = met[np.argsort(offsets[met], kind="stable")]
        best, smallest, top = -1, 0, 0
        for start, end in zip(offsets[met].tolist(), (offsets[met] + lengths[met]).tolist(), strict=True):
            gap = start - top
            if gap >= sizes[i] and (best < 0 or gap < smallest):
                best, smallest = top, gap
            top = max(top, end)
        offsets[i] = top if best < 0 else best
        placed[i] = True
    return offsets.tolist()


def _pack_in_time(spans: list[tuple[int, int]], sizes: list[int]) -> list[int]:
    """In the order of their beginnings, each into the smallest free hole that holds it: an allocator's best fit."""
    offsets = [0] * len(spans)
    holes = _Holes()
    ends: list[tuple[int, int]] = []
    for i in sorted(range(len(spans)), key=lambda i: (spans[i][0], -sizes[i])):
        while ends and ends[0][0] < spans[i][0]:
            _, done = heappop(ends)
            holes.free(offsets[done], sizes[done])
        offsets[i] = holes.take(sizes[i])
        heappush(ends, (spans[i][1], i))
    return offsets


class _Holes:
    """The free intervals of a growing memory, by size and by place."""

    def __init__(self) -> None:
        self.by_size: list[tuple[int, int]] = []
        self.begin_of: dict[int, int] = {}
        self.end_of: dict[int, int] = {}
        self.top = 0

    def take(self, size: int) -> int:
        at = bisect_left(self.by_size, (size, -1))
        if size == 0 or at == len(self.by_size):
            begin = self.top
            if size and self.top in self.begin_of:  # grow the hole at the end
                begin = self.begin_of[self.top]
                self._remove(begin, self.top)
            self.top = begin + size
            return begin
        length, begin = self.by_size[at]
        self._remove(begin, begin + length)
        if length > size:
            self._add(begin + size, begin + length)
        return begin

    def free(self, begin: int, size: int) -> None:
        end = begin + size
        if size == 0:
            return
        if begin in self.begin_of:
            before = self.begin_of[begin]
            self._remove(before, begin)
            begin = before
        if end in self.end_of:
            after = self.end_of[end]
            self._remove(end, after)
            end = after
        self._add(begin, end)

    def _add(self, begin: int, end: int) -> None:
        self.begin_of[end], self.end_of[begin] = begin, end
        insort(self.by_size, (end - begin, begin))

    def _remove(self, begin: int, end: int) -> None:
        del self.begin_of[end], self.end_of[begin]
        del self.by_size[bisect_left(self.by_size, (end - begin, begin))]


def _skyline(spans: list[tuple[int, int]]) -> list[list[int]]:
    """For buffers dropped one after another onto the axis of time: which ones each comes to lie on."""
    starts, tops = [-1], [-1]  # segments of time, and the topmost buffer of each (-1: the ground)
    below = []
    for i, (first, last) in enumerate(spans):
        low = bisect_right(starts, first) - 1
        high = bisect_right(starts, last) - 1
        below.append(sorted(set(tops[low : high + 1]) - {-1}))
        new = [(first, i), (last + 1, tops[high])]
        if starts[low] < first:
            new.insert(0, (starts[low], tops[low]))
        if high + 1 < len(starts) and starts[high + 1] == last + 1:
            new.pop()
        starts[low : high + 1] = [start for start, _ in new]
        tops[low : high + 1] = [top for _, top in new]
    return below


def _size(size: Size | str) -> Size:
    return Size(size) if isinstance(size, str) else size
