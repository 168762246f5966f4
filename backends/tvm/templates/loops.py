"""Loop nests as they stand: pointwise regions, folds with prologue and epilogue, scans and scatters.

The last axis that runs in parallel is the vector axis; the axes before it are flattened into rows, and tiles are blocks
of rows, or blocks of one row where rows are long.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from effcc.backends.tvm.emit import Emitter, KernelBuilder
from effcc.backends.tvm.place import Place, merge_axes
from effcc.backends.tvm.region import FlatPoint, Point, is_elementwise
from effcc.backends.tvm.templates.emission import for_lanes, unravel
from effcc.backends.tvm.tiles.space import Cut, TileSpace
from effcc.backends.tvm.values import bind, literal, loop, ne, register_dtype, round_to, splat
from effcc.ir import Graph, Value
from effcc.ir.dims import Dim, ceildiv, product
from effcc.ir.lazy import T
from effcc.ir.scalar import PARALLEL, REDUCTION, Compute, Read, State
from effcc.ops.reduction import Reduction

Tir = Any
CHAIN = 128
"""Elements of a reduction that are folded one after the other before they join the rest: long chains lose precision."""
TILE_ELEMENTS = 1 << 14
"""Elements of result that one tile of cheap work computes: 64 KiB of f32, some microseconds."""


@dataclass(frozen=True)
class Rows:
    """How an iteration space is cut: rows (all axes but the last, flattened) by columns (the last axis)."""

    outer: tuple[Dim, ...]
    columns: Dim
    rows_per_tile: int
    columns_per_tile: int | None

    @staticmethod
    def cut(extents: tuple[Dim, ...], cost: float = 1.0, lanes: int = 16) -> Rows:
        """`cost`: work for an element, in units of a cheap pointwise op."""
        extents = extents or (1,)
        columns = extents[-1]
        budget = max(int(TILE_ELEMENTS / cost), lanes)
        if isinstance(columns, int) and columns <= 2 * budget:
            rows = product(extents[:-1])
            per_tile = max(1, budget // max(columns, 1))
            return Rows(
                extents[:-1], columns, min(per_tile, rows) if isinstance(rows, int) and rows > 0 else per_tile, None
            )
        return Rows(extents[:-1], columns, 1, -(-budget // lanes) * lanes)

    @property
    def row_tiles(self) -> Dim:
        return ceildiv(product(self.outer), self.rows_per_tile)

    @property
    def column_tiles(self) -> Dim:
        return 1 if self.columns_per_tile is None else ceildiv(self.columns, self.columns_per_tile)

    def space(self, shape: tuple[Dim, ...], outer: Sequence[int], last: Sequence[int]) -> TileSpace:
        """The tiles of results of `shape` whose axes `outer` are the rows and `last` the columns."""
        columns = () if self.columns_per_tile is None else (Cut(tuple(last), self.columns_per_tile),)
        return TileSpace(shape, (Cut(tuple(outer), self.rows_per_tile), *columns))

    def emit(self, kernel: KernelBuilder, lanes: int, body: Callable[[tuple[Tir, ...], int], None]) -> None:
        """Call body(index, lanes) for each vector of the current tile; the last index is a ramp where lanes > 1."""
        row_block, column_block = kernel.tile, T.int64(0)
        if self.columns_per_tile is not None:
            row_block, column_block = unravel(kernel.tile, (kernel.dim(self.row_tiles), kernel.dim(self.column_tiles)))
        total = kernel.dim(product(self.outer))
        first = bind(row_block * self.rows_per_tile)
        exact = isinstance(product(self.outer), int) and product(self.outer) % self.rows_per_tile == 0
        last = first + self.rows_per_tile if exact else bind(T.min(first + self.rows_per_tile, total))
        columns = self.columns if isinstance(self.columns, int) else kernel.dim(self.columns)
        start: Tir = T.int64(0)
        count: Any = columns
        if self.columns_per_tile is not None:
            start = bind(column_block * self.columns_per_tile)
            if not (isinstance(columns, int) and columns % self.columns_per_tile == 0):
                count = bind(T.min(kernel.dim(self.columns) - start, T.int64(self.columns_per_tile)))
            else:
                count = self.columns_per_tile
        with loop(first, last) as row:
            outer = unravel(row, [kernel.dim(d) for d in self.outer])

            def vector(position: Tir, width: int) -> None:
                body((*outer, position if width == 1 else T.ramp(position, T.int64(1), width)), width)

            for_lanes(start, count, lanes, vector)


def lanes_for(kernel: KernelBuilder, *values: Value) -> int:
    """Lanes of a vector: full registers of the narrowest dtype that is computed in 32 bits or more."""
    bits = [max(32, v.dtype.bits) for v in values]
    return max(1, kernel.vector_bits // min(bits, default=32))


def pointwise_space(
    graph: Graph, places: dict[Value, Place]
) -> tuple[list[list[int]], tuple[Dim, ...], dict[Value, tuple[Dim, ...]]]:
    """For a region of elementwise ops: (merged axes, their extents, each placed value's strides along them)."""
    space = graph.results[0].shape
    aligned = {v: p.aligned_strides(space) for v, p in places.items()}
    runs = merge_axes(space, list(aligned.values())) or ([[len(space) - 1]] if space else [])
    extents = tuple(product(space[k] for k in run) for run in runs)
    strides = {v: tuple(st[run[-1]] for run in runs) for v, st in aligned.items()}
    return runs, extents, strides


def pointwise(graph: Graph, places: dict[Value, Place]) -> tuple[TileSpace, Callable[[KernelBuilder], None]]:
    """(tiles, body) of a region of maps whose results share one shape; `places` has its inputs and results."""
    results = {v: places[v] for v in graph.results}
    inputs = {v: places[v] for v in graph.inputs}
    cost = max(1.0, sum(1 for n in graph.nodes) / 4)
    if is_elementwise(graph):
        runs, extents, strides = pointwise_space(graph, places)
        rows = Rows.cut(extents, cost)
        shape = graph.results[0].shape
        first = runs[-2][-1] + 1 if len(runs) > 1 else 0

        def body(kernel: KernelBuilder) -> None:
            def vector(index: tuple[Tir, ...], lanes: int) -> None:
                point = FlatPoint(kernel, graph, inputs, strides, index if extents else ())
                for v in dict.fromkeys(graph.results):
                    value = splat(point.value(v), lanes)
                    kernel.store(results[v], index if extents else (), value, strides[v])

            rows.emit(kernel, lanes_for(kernel, *graph.values), vector)

        return rows.space(shape, range(first), range(first, len(shape))), body

    space = graph.results[0].shape
    rows = Rows.cut(space, cost)

    def general(kernel: KernelBuilder) -> None:
        def vector(index: tuple[Tir, ...], lanes: int) -> None:
            at = index if space else ()
            point = Point(kernel, graph, inputs)
            for v in dict.fromkeys(graph.results):
                kernel.store(results[v], at, splat(point.value(v, at), lanes))

        rows.emit(kernel, lanes_for(kernel, *graph.values) if space else 1, vector)

    return rows.space(space, range(len(space) - 1), range(len(space))[-1:]), general


class States:
    """A fold's states, a vector each, in buffers that LLVM keeps in registers."""

    def __init__(self, dtypes: list[str], lanes: int):
        self.lanes = lanes
        self.dtypes = dtypes
        self.buffers = [T.alloc_buffer((lanes,), "uint8" if d == "bool" else d) for d in dtypes]
        self.whole = T.ramp(0, 1, lanes) if lanes > 1 else T.int32(0)

    def __getitem__(self, k: int) -> Tir:
        x = self.buffers[k][self.whole]
        return ne(x, literal("uint8", 0, self.lanes)) if self.dtypes[k] == "bool" else x

    def __setitem__(self, k: int, value: Tir) -> None:
        value = splat(value, self.lanes)
        if self.dtypes[k] == "bool":
            value = T.Select(value, literal("uint8", 1, self.lanes), literal("uint8", 0, self.lanes))
        T.buffer_store(self.buffers[k], value, [self.whole])

    def all(self) -> tuple[Tir, ...]:
        return tuple(bind(self[k]) for k in range(len(self.buffers)))


def fold_states(nest: Compute, lanes: int) -> States:
    return States([register_dtype(x.dtype) for x in nest.init], lanes)


def emit_fold(
    kernel: KernelBuilder,
    graph: Graph,
    inputs: dict[Value, Place],
    anchor: Any,
    nest: Compute,
    index: tuple[Tir, ...],
    lanes: int,
) -> tuple[Tir, ...]:
    """Fold the reduction axes at one point (or vector) of the parallel axes; returns the anchor's results there."""
    states = fold_states(nest, lanes)
    operand = anchor.operands.__getitem__

    def reader(point: Point) -> Callable[[int, tuple[Tir, ...]], Tir]:
        return lambda k, at: point.value(operand(k), at)

    start = Emitter(kernel, _spread(nest, index, ()), reader(Point(kernel, graph, inputs)))
    for k, x in enumerate(nest.init):
        states[k] = start(x)
    extents = [nest.extents[a] for a in nest.axes(REDUCTION)]
    cascades = isinstance(anchor.op, Reduction) and bool(extents)
    partial = fold_states(nest, lanes) if cascades else states

    def step(taps: tuple[Tir, ...]) -> None:
        emit = Emitter(kernel, _spread(nest, index, taps), reader(Point(kernel, graph, inputs)), state=partial.all())
        for k, new in enumerate([bind(splat(emit(x), lanes)) for x in nest.step]):
            partial[k] = new

    def chain(taps: tuple[Tir, ...], first: Tir, last: Tir) -> None:
        """Fold [first, last) of the last axis by itself, then add that to the rest."""
        for k, x in enumerate(nest.init):
            partial[k] = start(x)
        with loop(first, last) as i:
            step((*taps, i))
        acc = nest.init[0].dtype
        join = Emitter(kernel, (), lambda *_: partial[0], state=states.all())
        states[0] = bind(splat(join(anchor.op.fold(Read(acc, 0, ()), State(acc, 0))), lanes))

    def nested(depth: int, taps: tuple[Tir, ...]) -> None:
        extent = extents[depth] if depth < len(extents) else 0
        if depth == len(extents):
            step(taps)
        elif depth < len(extents) - 1 or not cascades:
            with loop(0, kernel.dim(extent)) as i:
                nested(depth + 1, (*taps, i))
        elif isinstance(extent, int) and extent <= CHAIN:
            chain(taps, T.int64(0), T.int64(extent))
        else:
            with loop(0, kernel.dim(ceildiv(extent, CHAIN))) as block:
                first = bind(block * CHAIN)
                chain(taps, first, bind(T.min(first + CHAIN, kernel.dim(extent))))

    nested(0, ())
    finish = Emitter(kernel, _spread(nest, index, ()), reader(Point(kernel, graph, inputs)), state=states.all())
    return tuple(bind(splat(finish(x), lanes)) for x in nest.results)


def _spread(nest: Compute, index: tuple[Tir, ...], taps: tuple[Tir, ...]) -> tuple[Tir, ...]:
    """The loop index of every axis, in the nest's order."""
    points, inner = iter(index), iter(taps)
    return tuple(next(inner, None) if k == REDUCTION else next(points) for k in nest.kinds)


def fold(graph: Graph, anchor: Any, places: dict[Value, Place]) -> tuple[TileSpace, Callable[[KernelBuilder], None]]:
    """(tiles, body) of a region around one folding node: maps feed it, and its results' shape is the region's."""
    nest = anchor.op.compute(*anchor.types)
    inputs = {v: places[v] for v in graph.inputs}
    results = {v: places[v] for v in graph.results}
    space = anchor.results[0].shape
    inner = product(nest.extents[a] for a in nest.axes(REDUCTION))
    rows = Rows.cut(space, max(1.0, float(inner) if isinstance(inner, int) else 64.0))

    def body(kernel: KernelBuilder) -> None:
        def vector(index: tuple[Tir, ...], lanes: int) -> None:
            at = index if space else ()
            folded = emit_fold(kernel, graph, inputs, anchor, nest, at, lanes)
            rounded = {r: round_to(x, r.dtype) for r, x in zip(anchor.results, folded, strict=True)}
            given = {r: (lambda _, r=r: rounded[r]) for r in rounded}
            point = Point(kernel, graph, inputs, given)
            for v in dict.fromkeys(graph.results):
                kernel.store(results[v], at, splat(point.value(v, at), lanes))

        rows.emit(kernel, lanes_for(kernel, *anchor.results, *anchor.operands) if space else 1, vector)

    return rows.space(space, range(len(space) - 1), range(len(space))[-1:]), body


def scan(node: Any, places: dict[Value, Place]) -> tuple[TileSpace | Dim, Callable[[KernelBuilder], None]]:
    """(tiles, body) of one node with sequential axes or its own write index: scans, and scatters onto what is there."""
    nest: Compute = node.op.compute(*node.types)
    graph = Graph("scan", tuple(dict.fromkeys(node.operands)), (node,), node.results)
    inputs = {v: places[v] for v in graph.inputs}
    parallel = nest.axes(PARALLEL)
    rows = Rows.cut(tuple(nest.extents[a] for a in parallel), 64.0)
    sequential = [a for a in range(len(nest.extents)) if nest.kinds[a] != PARALLEL]

    def body(kernel: KernelBuilder) -> None:
        def point(at: tuple[Tir, ...], _: int) -> None:
            index: list[Tir] = [None] * len(nest.extents)
            for a, i in zip(parallel, at if parallel else (), strict=True):
                index[a] = i
            states = fold_states(nest, 1)

            def emitter(**extra: Any) -> Emitter:
                here = Point(kernel, graph, inputs)
                return Emitter(kernel, tuple(index), lambda k, i: here.value(node.operands[k], i), **extra)

            begin = emitter()
            for k, x in enumerate(nest.init):
                states[k] = begin(x)

            def nested(depth: int) -> None:
                if depth < len(sequential):
                    with loop(0, kernel.dim(nest.extents[sequential[depth]])) as i:
                        index[sequential[depth]] = i
                        nested(depth + 1)
                    return
                emit = emitter(state=states.all())
                for k, new in enumerate([bind(emit(x)) for x in nest.step]):
                    states[k] = new
                order = tuple(index)
                finish = emitter(state=states.all())
                targets = [
                    tuple(finish(i) for i in nest.write[k]) if nest.write is not None else order
                    for k in range(len(nest.results))
                ]
                finish.old = (
                    tuple(kernel.load(places[r], t) for r, t in zip(node.results, targets, strict=True))
                    if nest.initial is not None
                    else ()
                )
                values = [bind(round_to(finish(x), r.dtype)) for x, r in zip(nest.results, node.results, strict=True)]
                for r, t, value in zip(node.results, targets, values, strict=True):
                    kernel.store(places[r], t, value)

            nested(0)

        rows.emit(kernel, 1, point)

    kept = [a for a in range(len(nest.extents)) if nest.kinds[a] != REDUCTION]
    across = [kept.index(a) for a in parallel]
    space = rows.space(tuple(nest.extents[a] for a in kept), across[:-1], across[-1:])
    return space if nest.write is None else space.tiles, body
