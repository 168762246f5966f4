"""C[batch, m, n] = sum over k of A[batch, m, k] * B[batch, k, n], register-blocked, with fused prologues and epilogue.

B is read in panels of NR = vectors * lanes columns, [panel][k][NR]: packed ahead (`pack`, for constants), staged into
the tile's scratch (B known at run time only), or read in place (small M, where a copy costs more than it saves).
A micro-kernel keeps rows x vectors accumulators in registers: its loop over k is FMAs with broadcasts and nothing else
(Goto and van de Geijn, "Anatomy of High-Performance Matrix Multiplication", 2008; A is copied only where its rows would
evict each other from L1). When a panel would not fit L2, k is cut into blocks and the sums wait in scratch. Finished
sums pass through a small scratch block, so that the epilogue's code is emitted once, not rows x vectors times.

A tile is row_chunk rows x panel_chunk panels of one batch element, rows fastest: neighbouring tiles share panels of B.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import gcd
from typing import Any

import numpy as np
from tvm.tirx.script import builder as T

from effcc.backends.tvm.templates.blocking import Blocking, choose_blocking
from effcc.backends.tvm.templates.emission import (
    BYTES,
    Accumulators,
    Cpu,
    Epilogue,
    Expr,
    Index,
    Read,
    bind,
    branch,
    cast,
    ceil_divide,
    constant,
    divide,
    dot,
    flat,
    for_lanes,
    halves,
    index,
    is_static,
    lane_pieces,
    load,
    minimum,
    product,
    splat,
    store,
    unravel,
)

L1_WAYS = 8


@dataclass(frozen=True)
class Contraction:
    """A product to emit. Extents and strides are Python integers or int64 expressions, strides count elements.

    batch      extents of the batch dimensions, maybe ()
    a, b, sum  dtypes of the operands as stored and of the accumulators (integers: int32, 16-bit floats: float32)
    panels     how B comes: "packed" by `pack`, "staged" from B as stored, "direct" from B as stored with n contiguous
    a_strides  (batch..., m, k); 0 broadcasts; not used when `read_a` is given
    b_strides  (batch..., k, n); for "packed" only the batch, counted in whole matrices; not used when `read_b` is given
    prologue   A comes from `read_a`, evaluated once for each element of a tile into scratch
    """

    m: Index
    n: Index
    k: Index
    cpu: Cpu
    batch: tuple[Index, ...] = ()
    a: str = "float32"
    b: str = "float32"
    sum: str = "float32"
    panels: str = "packed"
    a_strides: tuple[Index, ...] = ()
    b_strides: tuple[Index, ...] = ()
    prologue: bool = False
    blocking: Blocking = field(default=None)  # type: ignore[assignment]

    def __post_init__(self) -> None:
        assert self.panels in ("packed", "staged", "direct")
        assert self.panels != "packed" or is_static(self.n, self.k), "only constants are packed ahead"
        if self.blocking is None:
            chosen = choose_blocking(self.m, self.n, self.k, self.batch, self.cpu, self.sum)
            object.__setattr__(self, "blocking", chosen)

    @property
    def lanes(self) -> int:
        return self.cpu.lanes(self.sum)

    @property
    def width(self) -> int:
        """NR: columns of a panel."""
        return self.lanes * self.blocking.vectors

    @property
    def row_chunks(self) -> Index:
        return ceil_divide(self.m, self.blocking.row_chunk)

    @property
    def panel_count(self) -> Index:
        return ceil_divide(self.n, self.width)

    @property
    def panel_chunks(self) -> Index:
        return ceil_divide(self.panel_count, self.blocking.panel_chunk)

    @property
    def depth_chunks(self) -> Index:
        return 1 if self.blocking.depth is None else ceil_divide(self.k, self.blocking.depth)

    @property
    def panel_depth(self) -> int:
        """The k extent of a staged panel."""
        return self.k if self.blocking.depth is None else self.blocking.depth

    @property
    def stages_rows(self) -> bool:
        """A tile's rows of A are copied to scratch: to run a prologue once, or because they share cache sets."""
        if self.prologue:
            return True
        stride, step = self.a_strides[-2:]
        if not is_static(stride, step, self.k) or step != 1 or stride == 0:
            return False
        line_bytes = 64
        stride_bytes = stride * BYTES[self.a]
        if stride_bytes % line_bytes or self.blocking.rows < 5:
            return False
        sets = self.cpu.l1_bytes // L1_WAYS // line_bytes
        return self.blocking.rows > L1_WAYS // 2 * (sets // gcd(sets, stride_bytes // line_bytes))

    @property
    def row_stride(self) -> int:
        """Elements between staged rows: an odd number of 64-byte lines, so that they spread over the cache's sets."""
        depth = self.k if isinstance(self.k, int) else self.panel_depth
        line = 64 // BYTES[self.sum]
        return (-(-depth // line) | 1) * line

    @property
    def stages_panels(self) -> bool:
        """Panels are copied to scratch: always when staged, and the ragged last one when read in place."""
        return self.panels == "staged" or (self.panels == "direct" and not _divides(self.n, self.width))


def _divides(n: Index, width: int) -> bool:
    return isinstance(n, int) and n % width == 0


def tiles(spec: Contraction) -> Index:
    """The number of tiles (0 when there is nothing to compute)."""
    return product((*spec.batch, spec.panel_chunks, spec.row_chunks))


def _scratch(spec: Contraction) -> tuple[int, int, int, int]:
    """Elements of: sums, then the staged panel, then staged A; and the total."""
    blocked = spec.blocking.depth is not None
    sums = (spec.blocking.row_chunk if blocked else spec.blocking.rows) * spec.width
    panel = spec.panel_depth * spec.width if spec.stages_panels else 0
    rows = spec.blocking.row_chunk * spec.row_stride if spec.stages_rows else 0
    return sums, panel, rows, sums + panel + rows


def scratch_bytes(spec: Contraction) -> int:
    """Bytes of scratch that a tile needs."""
    return _scratch(spec)[3] * BYTES[spec.sum]


def packed_shape(spec: Contraction) -> tuple[int, int, int]:
    """(panels, K, NR) of one packed matrix."""
    assert isinstance(spec.k, int) and isinstance(spec.panel_count, int)
    return spec.panel_count, spec.k, spec.width


def pack(spec: Contraction, matrix: np.ndarray) -> np.ndarray:
    """[..., K, N] -> [..., panels, K, NR], the ragged last panel filled with zeros."""
    panels, depth, width = packed_shape(spec)
    *batch, _, columns = matrix.shape
    padded = np.zeros((*batch, depth, panels * width), matrix.dtype)
    padded[..., :columns] = matrix
    return np.ascontiguousarray(np.moveaxis(padded.reshape(*batch, depth, panels, width), -2, -3))


def emit(
    spec: Contraction,
    tile: Expr,
    scratch: Expr,
    epilogue: Epilogue,
    a: Any = None,
    b: Any = None,
    read_a: Read | None = None,
    read_b: Read | None = None,
) -> None:
    """Emit the body of one tile into the current PrimFunc.

    tile      int32 expression in [0, tiles(spec))
    scratch   pointer to scratch_bytes(spec) bytes of this thread
    a, b      flat (one-dimensional) buffers of the operands, from `emission.flat`
    read_a    (batch..., m, k), lanes -> vector along k: instead of `a`, with spec.prologue
    read_b    (batch..., k, n), lanes -> vector along n: instead of `b`, with panels="staged"
    epilogue  (batch..., m, n), value vector of `sum` along n, lanes: stores the result; lanes is a power of two
    """
    assert (read_a is not None) == spec.prologue and (a is None) == spec.prologue
    _Tile(spec, scratch, epilogue, a, b, read_a, read_b).emit(tile)


class _Tile:
    def __init__(
        self,
        spec: Contraction,
        scratch: Expr,
        epilogue: Epilogue,
        a: Any,
        b: Any,
        read_a: Read | None,
        read_b: Read | None,
    ):
        self.spec, self.epilogue, self.a, self.b, self.read_a, self.read_b = spec, epilogue, a, b, read_a, read_b
        self.sums = flat(scratch, spec.sum)
        sums, panel, _, _ = _scratch(spec)
        self.panel_base, self.rows_base = sums, sums + panel
        self.blocked = spec.blocking.depth is not None

    def emit(self, tile: Expr) -> None:
        spec, blocking = self.spec, self.spec.blocking
        rank = len(spec.batch)
        *batch, panels, rows = unravel(index(tile), (*spec.batch, spec.panel_chunks, spec.row_chunks))
        self.batch = tuple(batch)
        self.row = bind(rows * blocking.row_chunk)
        self.row_count = bind(minimum(index(spec.m) - self.row, blocking.row_chunk))
        self.a_base = None if spec.prologue else bind(dot(self.batch, spec.a_strides[:rank]))
        if self.read_b is None:
            size = product(packed_shape(spec)) if spec.panels == "packed" else 1
            self.b_base = bind(dot(self.batch, spec.b_strides[:rank]) * size)
        if spec.stages_rows and isinstance(spec.k, int):
            self.stage_rows(T.int64(0), spec.k)
        first = bind(panels * blocking.panel_chunk)
        last = bind(minimum(first + blocking.panel_chunk, spec.panel_count))
        with T.serial(first, last) as panel:
            self.panel = panel
            self.column = bind(panel * spec.width)
            self.column_count = bind(minimum(index(spec.n) - self.column, spec.width))
            if not self.blocked:
                self.multiply(T.int64(0), spec.k)
            else:
                self.multiply_by_blocks(blocking.depth)

    def multiply_by_blocks(self, depth: int) -> None:
        """k block by k block, the sums of all the tile's rows waiting in scratch."""
        spec = self.spec
        self.clear()
        with T.serial(T.int64(0), index(spec.depth_chunks)) as chunk:
            start = bind(chunk * depth)
            extent = bind(minimum(index(spec.k) - start, depth))
            if spec.stages_rows and not isinstance(spec.k, int):
                self.stage_rows(start, extent)
            self.multiply(start, extent)
        with T.serial(T.int64(0), self.row_count) as row:
            self.finish(self.row + row, row * spec.width)

    def multiply(self, start: Expr, extent: Index) -> None:
        """All the tile's rows by the current panel, over k in [start, start + extent)."""
        spec = self.spec
        if spec.panels == "packed":
            depth, width = spec.k, spec.width
            self.rows_by_panel(start, extent, self.b, self.b_base + self.panel * (depth * width) + start * width, width)
            return
        if spec.panels == "direct":
            in_place = self.b_base + start * index(spec.b_strides[-2]) + self.column
            if not spec.stages_panels:
                self.rows_by_panel(start, extent, self.b, in_place, spec.b_strides[-2])
                return
            with branch(self.column_count == spec.width):
                self.rows_by_panel(start, extent, self.b, in_place, spec.b_strides[-2])
            with branch(self.column_count < spec.width):
                self.stage_panel(start, extent)
                self.rows_by_panel(start, extent, self.sums, T.int64(self.panel_base), spec.width)
            return
        self.stage_panel(start, extent)
        self.rows_by_panel(start, extent, self.sums, T.int64(self.panel_base), spec.width)

    def rows_by_panel(self, start: Expr, extent: Index, panel: Any, base: Expr, step: Index) -> None:
        """Row blocks in turn; the ragged one by a micro-kernel of its size (M static) or a binary choice of sizes."""
        spec, rows = self.spec, self.spec.blocking.rows
        base = bind(base)
        with T.serial(T.int64(0), ceil_divide(self.row_count, rows)) as block:
            first = bind(block * rows)  # relative to the tile's first row
            left = bind(minimum(self.row_count - first, rows))
            sums = bind(first * spec.width) if self.blocked else T.int64(0)

            def kernel(offset: Expr, count: int) -> None:
                position = bind(first + offset)
                self.micro_kernel(position, count, start, extent, panel, base, step, sums + offset * spec.width)

            if isinstance(spec.m, int) and spec.m % rows == 0:
                kernel(T.int64(0), rows)
            else:
                with branch(left == rows):
                    kernel(T.int64(0), rows)
                rest = bind(left % rows)
                pieces = [spec.m % rows] if isinstance(spec.m, int) else halves(rows)
                for piece in pieces:
                    exact = isinstance(spec.m, int)
                    with branch(rest == piece if exact else T.bitwise_and(rest, T.int64(piece)) != 0):
                        kernel(T.int64(0) if exact else rest - rest % (2 * piece), piece)
            if not self.blocked:
                with T.serial(T.int64(0), left) as row:
                    self.finish(self.row + first + row, row * spec.width)

    def micro_kernel(
        self, row: Expr, rows: int, start: Expr, extent: Index, panel: Any, base: Expr, step: Index, sums: Expr
    ) -> None:
        """rows x vectors sums in registers over one panel; row is relative to the tile."""
        spec, lanes, vectors = self.spec, self.spec.lanes, self.spec.blocking.vectors
        accumulators = Accumulators(rows, vectors, spec.sum, lanes)
        sums = bind(sums)
        for i, v in accumulators:
            place = sums + (i * spec.width + v * lanes)
            accumulators[i, v] = load(self.sums, place, lanes) if self.blocked else constant(0, spec.sum, lanes)
        if spec.stages_rows:
            source, stride = self.sums, 1
            first = self.rows_base + (start if isinstance(spec.k, int) else 0)
            offsets = [bind(first + (row + i) * spec.row_stride) for i in range(rows)]
        else:
            source, stride = self.a, spec.a_strides[-1]
            first = self.a_base + start * index(stride)
            offsets = [bind(first + (self.row + row + i) * index(spec.a_strides[-2])) for i in range(rows)]
        with T.serial(T.int64(0), index(extent)) as k:
            place = bind(base + k * index(step))
            columns = [bind(cast(load(panel, place + v * lanes, lanes), spec.sum, lanes)) for v in range(vectors)]
            for i in range(rows):
                value = bind(splat(cast(load(source, offsets[i] + k * index(stride)), spec.sum, 1), lanes))
                for v in range(vectors):
                    accumulators[i, v] = accumulators[i, v] + value * columns[v]
        for i, v in accumulators:
            store(self.sums, accumulators[i, v], sums + (i * spec.width + v * lanes), lanes)

    def finish(self, row: Expr, sums: Expr) -> None:
        """Hand one row of the panel to the epilogue."""
        spec, lanes = self.spec, self.spec.lanes
        row, sums = bind(row), bind(sums)

        def hand_over(column: Expr, count: int) -> None:
            column = bind(column)
            value = bind(load(self.sums, sums + column, count))
            self.epilogue((*self.batch, row, bind(self.column + column)), value, count)

        ragged = spec.n % lanes if isinstance(spec.n, int) else None
        whole = bind(divide(self.column_count, lanes))
        if isinstance(spec.n, int) and spec.n % spec.width == 0:
            whole = T.int64(spec.blocking.vectors)
        with T.serial(T.int64(0), whole) as vector:
            hand_over(vector * lanes, lanes)
        if ragged is None and lanes > 1:
            with T.serial(whole * lanes, self.column_count) as column:
                hand_over(column, 1)
        elif ragged:
            with branch(whole < spec.blocking.vectors):
                for first, count in lane_pieces(ragged, lanes):
                    hand_over(whole * lanes + first, count)

    def clear(self) -> None:
        lanes = self.spec.lanes
        with T.serial(T.int64(0), self.row_count * self.spec.blocking.vectors) as vector:
            store(self.sums, constant(0, self.spec.sum, lanes), vector * lanes, lanes)

    def stage_panel(self, start: Expr, extent: Index) -> None:
        """Copy [extent, NR] of B to scratch as a packed panel, zeros beyond column n."""
        spec, lanes, width = self.spec, self.spec.lanes, self.spec.width

        def value(k: Expr, column: Expr, count: int) -> Expr:
            if self.read_b is not None:
                return cast(
                    self.read_b((*self.batch, bind(start + k), bind(self.column + column)), count), spec.sum, count
                )
            place = (
                self.b_base
                + (start + k) * index(spec.b_strides[-2])
                + (self.column + column) * index(spec.b_strides[-1])
            )
            return cast(load(self.b, place, count), spec.sum, count)

        def put(k: Expr, column: Expr, count: int, element: Expr) -> None:
            store(self.sums, element, self.panel_base + k * width + column, count)

        vectors = self.read_b is not None or spec.b_strides[-1] == 1
        whole = bind(divide(self.column_count, lanes)) if vectors else T.int64(0)
        if vectors:
            with T.serial(T.int64(0), index(extent)) as k, T.serial(T.int64(0), whole) as vector:
                put(k, vector * lanes, lanes, value(k, vector * lanes, lanes))
        with T.serial(whole * lanes, self.column_count) as column, T.serial(T.int64(0), index(extent)) as k:
            put(k, column, 1, value(k, column, 1))
        with T.serial(self.column_count, T.int64(width)) as column, T.serial(T.int64(0), index(extent)) as k:
            put(k, column, 1, constant(0, spec.sum))

    def stage_rows(self, start: Expr, extent: Index) -> None:
        """Copy the tile's rows, k in [start, start + extent), to scratch, through the prologue if there is one."""
        spec = self.spec
        with T.serial(T.int64(0), self.row_count) as row:
            line = bind(self.rows_base + row * spec.row_stride)
            at_row = bind(self.row + row)

            def put(position: Expr, count: int) -> None:
                if self.read_a is not None:
                    value = self.read_a((*self.batch, at_row, position), count)
                else:
                    value = load(self.a, self.a_base + at_row * index(spec.a_strides[-2]) + position, count)
                store(self.sums, cast(value, spec.sum, count), line + (position - start), count)

            for_lanes(start, extent, spec.lanes, put)
