"""Rows: elementwise ops and reductions over the same trailing axes, a row at a time, in one kernel.

A row is read once for each reduction (from L1 after the first) and once for the results. Values that are costly and
needed by more than one of these loops wait in scratch. Softmax, layer norm, RMS norm and their soups all take this
form.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from effcc.backends.tvm.emit import Emitter, KernelBuilder
from effcc.backends.tvm.place import Place, merge_axes
from effcc.backends.tvm.region import FlatPoint
from effcc.backends.tvm.templates.emission import divide, lane_pieces, unravel
from effcc.backends.tvm.templates.loops import TILE_ELEMENTS, States, lanes_for
from effcc.backends.tvm.tiles.space import Cut, TileSpace
from effcc.backends.tvm.values import bind, literal, loop, ne, register_dtype, round_to, splat
from effcc.ir import DType, Graph, Node, Value
from effcc.ir.dims import Dim, ceildiv, product
from effcc.ir.lazy import T
from effcc.ir.scalar import Apply, Read, State, cast, walk
from effcc.ops.contraction import accumulate_dtype
from effcc.ops.elementwise import Elementwise
from effcc.ops.reduction import Reduction

Tir = Any
COSTLY = frozenset(
    "exp expm1 log log1p sin cos tan tanh erf erfc pow div sqrt rsqrt "
    "asin acos atan sinh cosh asinh acosh atanh atan2".split()
)


class RowRegion:
    """What the template needs to know of a region before it emits anything."""

    def __init__(self, graph: Graph, places: dict[Value, Place]):
        self.graph, self.places = graph, places
        reductions = [n for n in graph.nodes if isinstance(n.op, Reduction)]
        self.space = reductions[0].operands[0].shape
        self.inner_rank = len(reductions[0].op.axes)  # type: ignore[attr-defined]
        rank = len(self.space)
        split = rank - self.inner_rank
        aligned = {v: p.aligned_strides(self.space) for v, p in places.items()}
        lists = list(aligned.values())
        outer = merge_axes(self.space[:split], [x[:split] for x in lists])
        inner = merge_axes(self.space[split:], [x[split:] for x in lists]) or [[self.inner_rank - 1]]
        runs = outer + [[k + split for k in run] for run in inner]
        self.outer = tuple(product(self.space[k] for k in run) for run in outer)
        self.inner = tuple(product(self.space[split + k] for k in run) for run in inner)
        self.strides = {v: tuple(x[run[-1]] for run in runs) for v, x in aligned.items()}
        self.length = product(self.inner)
        self.kept = self._choose_kept(reductions)

    def varies(self, v: Value) -> bool:
        """Whether a value differs along the row."""
        return any(d != 1 for d in v.shape[max(0, len(v.shape) - self.inner_rank) :]) if v.shape else False

    def _choose_kept(self, reductions: list[Node]) -> list[Value]:
        """Costly values along the row that several loops need: they are kept in scratch."""
        roots = [n.operands[0] for n in reductions] + [v for v in self.graph.results if self.varies(v)]
        uses: dict[Value, int] = {}
        for root in roots:
            seen: set[Value] = set()
            stack = [root]
            while stack:
                v = stack.pop()
                node = self.graph.producer(v)
                if v in seen or node is None or not isinstance(node.op, Elementwise):
                    continue
                seen.add(v)
                uses[v] = uses.get(v, 0) + 1
                stack.extend(node.operands)
        return [
            n.result
            for n in self.graph.nodes
            if uses.get(n.results[0], 0) > 1 and self.varies(n.results[0]) and _is_costly(n)
        ]

    @property
    def scratch_bytes(self) -> Dim:
        total: Dim = 0
        for v in self.kept:
            total = total + self._row_bytes(v)
        return total

    def _row_bytes(self, v: Value) -> Dim:
        return ceildiv(self.length * (8 if v.dtype.bits == 64 else 4), 64) * 64

    def scratch_offset(self, v: Value) -> Dim:
        """In bytes."""
        total: Dim = 0
        for other in self.kept[: self.kept.index(v)]:
            total = total + self._row_bytes(other)
        return total


def _is_costly(node: Node) -> bool:
    reads = tuple(Read(o.dtype, k, ()) for k, o in enumerate(node.operands))
    return any(isinstance(x, Apply) and x.fn in COSTLY for x in walk(node.op.scalar(*reads)))  # type: ignore[attr-defined]


class RowEmitter:
    """Emits one row."""

    def __init__(self, kernel: KernelBuilder, region: RowRegion, outer: tuple[Tir, ...]):
        self.kernel, self.region, self.outer = kernel, region, outer
        self.row: dict[Value, Tir] = {}
        """Values that are the same along the row."""
        self.stored: set[Value] = set()
        self._touched: set[Value] = set()
        self.lanes = lanes_for(kernel, *region.graph.values)
        self.keeps = {
            v: T.decl_buffer((1 << 40,), register_dtype(v.dtype), data=kernel.scratch, align=4) for v in region.kept
        }

    def emit(self) -> None:
        graph = self.region.graph
        self._advance_row_values()
        for node in graph.nodes:
            if isinstance(node.op, Reduction):
                self.row[node.result] = bind(self._reduce(node))
                self._advance_row_values()
        varying = [v for v in dict.fromkeys(graph.results) if self.region.varies(v)]
        if varying:

            def write(point: _RowPoint) -> None:
                for v in varying:
                    self.kernel.store(
                        self.region.places[v], point.index, splat(point.value(v), point.lanes), self.region.strides[v]
                    )

            self._along_row(write)
        zero = tuple(T.int64(0) for _ in self.region.inner)
        for v in dict.fromkeys(graph.results):
            if not self.region.varies(v):
                self.kernel.store(self.region.places[v], (*self.outer, *zero), self.row[v], self.region.strides[v])

    def _advance_row_values(self) -> None:
        """Compute every value of the row that can be by now, in order, so that loops find it ready."""
        region = self.region
        zero = tuple(T.int64(0) for _ in region.inner)
        point = FlatPoint(self.kernel, region.graph, region.places, region.strides, (*self.outer, *zero), self.row)
        for v in region.graph.inputs:
            if v not in self.row and not region.varies(v):
                self.row[v] = point.value(v)
        for node in region.graph.nodes:
            v = node.results[0]
            if v in self.row or region.varies(v) or isinstance(node.op, Reduction):
                continue
            if all(o in self.row for o in node.operands):
                self.row[v] = point.value(v)

    def _along_row(self, visit: Callable[[_RowPoint], None]) -> None:
        """visit(point) for whole vectors, then for the elements left over; never in a row of no elements, whose results
        may have vectors on an axis that their strides (products with the size 0) do not tell apart."""
        region, kernel = self.region, self.kernel
        if 0 in region.inner:
            return

        def nested(depth: int, at: tuple[Tir, ...]) -> None:
            if depth < len(region.inner) - 1:
                with loop(0, kernel.dim(region.inner[depth])) as i:
                    nested(depth + 1, (*at, i))
                return
            self._last_axis(at, visit)

        nested(0, ())
        self.stored.update(v for v in region.kept if v in self._touched)

    def _last_axis(self, at: tuple[Tir, ...], visit: Callable[[_RowPoint], None]) -> None:
        last, lanes = self.region.inner[-1], self.lanes
        self._touched = set()

        def point(position: Tir, width: int) -> None:
            visit(_RowPoint(self, at, bind(position), width))

        if isinstance(last, int):
            whole = last // lanes
            if whole:
                with loop(0, whole) as i:
                    point(i * lanes, lanes)
            for first, width in lane_pieces(last % lanes, lanes):
                point(T.int64(whole * lanes + first), width)
            return
        count = self.kernel.dim(last)
        whole = bind(divide(count, lanes))
        with loop(0, whole) as i:
            point(i * lanes, lanes)
        with loop(whole * lanes, count) as i:
            point(i, 1)

    def _reduce(self, node: Node) -> Tir:
        """Fold one operand along the row: vector accumulators, then across their lanes, then the elements left over."""
        op, source = node.op, node.operands[0]
        assert isinstance(op, Reduction)
        acc = accumulate_dtype(source.dtype, None)
        name = register_dtype(acc)
        vector = States([name], self.lanes)
        single = States([name], 1)
        vector[0] = literal(name, op.identity(acc), self.lanes)
        single[0] = literal(name, op.identity(acc))
        partial: dict[int, States] = {self.lanes: vector, 1: single}
        if isinstance(self.region.inner[-1], int):
            for _, width in lane_pieces(self.region.inner[-1] % self.lanes, self.lanes):
                if width not in partial:
                    partial[width] = States([name], width)
                    partial[width][0] = literal(name, op.identity(acc), width)

        def visit(point: _RowPoint) -> None:
            value = splat(point.value(source), point.lanes)
            states = partial[point.lanes]
            states[0] = bind(self._fold(op, acc, states[0], value, source.dtype))

        self._along_row(visit)
        total: Tir = None
        for width, states in sorted(partial.items(), reverse=True):
            part = self._across_lanes(op, acc, states, width)
            total = part if total is None else bind(self._fold(op, acc, total, part, acc))
        finished = Emitter(self.kernel, (), lambda *_: None, state=(total,))(
            op.finish(State(acc, 0), product(self.region.space[a] for a in op.axes))
        )  # type: ignore[attr-defined]
        return round_to(finished, node.result.dtype)

    def _fold(self, op: Reduction, acc: DType, state: Tir, value: Tir, dtype: DType) -> Tir:
        step = op.fold(cast(Read(dtype, 0, ()), acc), State(acc, 0))
        return Emitter(self.kernel, (), lambda *_: value, state=(state,))(step)

    def _across_lanes(self, op: Reduction, acc: DType, states: States, width: int) -> Tir:
        buffer = states.buffers[0]
        while width > 1:
            width //= 2
            low, high = (_load(buffer, first, width, states.dtypes[0]) for first in (0, width))
            folded = bind(self._fold(op, acc, low, high, acc))
            if states.dtypes[0] == "bool":
                folded = T.Select(folded, literal("uint8", 1, width), literal("uint8", 0, width))
            T.buffer_store(buffer, folded, [T.ramp(0, 1, width) if width > 1 else T.int32(0)])
        return bind(_load(buffer, 0, 1, states.dtypes[0]))


def _load(buffer: Any, first: int, width: int, dtype: str) -> Tir:
    x = buffer[T.ramp(first, 1, width) if width > 1 else T.int32(first)]
    return ne(x, literal("uint8", 0, width)) if dtype == "bool" else x


class _RowPoint(FlatPoint):
    """A position (or vector of them) along the row."""

    def __init__(self, emitter: RowEmitter, at: tuple[Tir, ...], position: Tir, lanes: int):
        region, self.emitter, self.lanes = emitter.region, emitter, lanes
        last = T.ramp(position, T.int64(1), lanes) if lanes > 1 else position
        super().__init__(
            emitter.kernel, region.graph, region.places, region.strides, (*emitter.outer, *at, last), emitter.row
        )
        linear: Tir = T.int64(0)
        for i, d in zip((*at, position), region.inner, strict=True):
            linear = linear * emitter.kernel.dim(d) + i
        self.linear = linear

    def _value(self, v: Value) -> Tir:
        emitter = self.emitter
        if v not in emitter.keeps:
            return super()._value(v)
        words = 8 if v.dtype.bits == 64 else 4
        at = bind(self.linear + emitter.kernel.dim(emitter.region.scratch_offset(v)) // T.int64(words))
        at = T.ramp(at, T.int64(1), self.lanes) if self.lanes > 1 else at
        if v in emitter.stored:
            return emitter.keeps[v][at]
        value = bind(splat(super()._value(v), self.lanes))
        T.buffer_store(emitter.keeps[v], value, [at])
        emitter._touched.add(v)
        return value


def rows(graph: Graph, places: dict[Value, Place]) -> tuple[TileSpace, Dim, Callable[[KernelBuilder], None]]:
    """(tiles, scratch bytes, body) of a region of elementwise ops and reductions (keepdims) over the same trailing
    axes."""
    region = RowRegion(graph, places)
    length = region.length
    total = product(region.outer)
    per_tile = max(1, TILE_ELEMENTS // max(1, length)) if isinstance(length, int) else 4

    def body(kernel: KernelBuilder) -> None:
        first = bind(kernel.tile * per_tile)
        exact = isinstance(total, int) and total % per_tile == 0
        last = first + per_tile if exact else bind(T.min(first + per_tile, kernel.dim(total)))
        with loop(first, last) as row:
            RowEmitter(kernel, region, unravel(row, [kernel.dim(d) for d in region.outer])).emit()

    outer = range(len(region.space) - region.inner_rank)
    return TileSpace(region.space, (Cut(tuple(outer), per_tile),)), region.scratch_bytes, body
