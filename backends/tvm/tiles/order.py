"""Which tasks precede which, and arenas that reuse memory only where that order allows it.

Under barriers two temporaries may share bytes when their launches follow one another. Without them only the DAG orders:
the new one may take the old one's bytes if every task that touches the old precedes every task that touches the new.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from effcc.backends.tvm.memory import rounded
from effcc.backends.tvm.place import Buffer
from effcc.backends.tvm.tiles.graph import TileGraph, buffers_of

Array = np.ndarray[Any, Any]


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


def conflicts(graph: TileGraph, buffers: Sequence[Buffer]) -> Array:
    """bool [buffers, buffers]: whether two must not share bytes."""
    before = launches_before(graph)
    touch = np.zeros((len(buffers), len(graph.steps)), bool)
    number = {b: k for k, b in enumerate(buffers)}
    for k, step in enumerate(graph.steps):
        for b in buffers_of(step):
            if b in number:
                touch[number[b], k] = True
    unordered = ~before
    # a before b: no launch of a is unordered with one of b
    fails = (touch.astype(np.int32) @ unordered.astype(np.int32) @ touch.T.astype(np.int32)) > 0
    return fails & fails.T


def pack(sizes: Sequence[int], meets: Array) -> tuple[list[int], int]:
    """An offset for each buffer, so that no two that meet overlap, and the size of the arena: largest first, each into
    the smallest gap that holds it among the placed ones that it meets, or above them."""
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
        offsets[i] = top if best < 0 else best
        placed[i] = True
    return offsets.tolist(), int((offsets + lengths).max(initial=0))
