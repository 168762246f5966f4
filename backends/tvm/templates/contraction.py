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

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import gcd, prod
from typing import Any

import numpy as np

from effcc.backends.tvm.runtime.arrays import aligned_memory
from effcc.backends.tvm.templates import dots
from effcc.backends.tvm.templates.blocking import Blocking, choose_blocking
from effcc.backends.tvm.templates.emission import (
    BYTES,
    Cpu,
    Epilogue,
    Expr,
    Index,
    Read,
    are_even,
    bind,
    branch,
    cast,
    ceil_divide,
    constant,
    divide,
    dot,
    flat,
    for_lanes,
    index,
    is_static,
    load,
    minimum,
    product,
    seen_as,
    store,
    transpose,
    unravel,
)
from effcc.backends.tvm.templates.micro_kernel import (
    Arithmetic,
    Steps,
    SumBlock,
    by_row_blocks,
    hand_over,
    hidden_zero,
    is_one_chain,
    multiply,
)
from effcc.ir.lazy import T

L1_WAYS = 8


@dataclass(frozen=True)
class Contraction:
    """A product to emit. Extents and strides are Python integers or int64 expressions, strides count elements.

    batch      extents of the batch dimensions, maybe ()
    a, b, sum  dtypes of the operands as stored and of the accumulators (integers: int32, 16-bit floats: float32)
    panels     how B comes: "packed" by `pack`, "staged" from B as stored, "direct" from B as stored with n contiguous
    a_strides  (batch..., m, k); 0 broadcasts; not used when `read_a` is given
    a_offset, b_offset  where the first element lies in its buffer
    b_strides  (batch..., k, n); for "packed" only the batch, counted in whole matrices; not used when `read_b` is given
    even       whether k, A's offset and all its strides but the last are even (None: as the numbers among them tell)
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
    a_offset: Index = 0
    b_offset: Index = 0
    even: bool | None = None
    prologue: bool = False
    blocking: Blocking = field(default=None)  # type: ignore[assignment]

    def __post_init__(self) -> None:
        assert self.panels in ("packed", "staged", "direct")
        assert self.panels != "packed" or is_static(self.n, self.k), "only constants are packed ahead"
        if self.even is None:
            object.__setattr__(self, "even", are_even(self.k, self.a_offset, *self.a_strides[:-1]))
        if self.blocking is None:
            chosen = choose_blocking(self.m, self.n, self.steps, self.batch, self.cpu, self.sum)
            object.__setattr__(self, "blocking", chosen)

    @cached_property
    def dots(self) -> dots.Dots | None:
        """The instruction that adds several products to a lane (templates/dots.py), if one does."""
        return dots.find(self.cpu, self.a, self.b, self.sum, self.lanes) if self.panels == "packed" else None

    @property
    def steps(self) -> Index:
        """Iterations over k."""
        return ceil_divide(self.k, self.dots.group) if self.dots else self.k

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
        return 1 if self.blocking.depth is None else ceil_divide(self.steps, self.blocking.depth)

    @property
    def panel_depth(self) -> int:
        """The k extent of a staged panel."""
        return self.k if self.blocking.depth is None else self.blocking.depth

    @property
    def stages_rows(self) -> bool:
        """A tile's rows of A are copied to scratch: to run a prologue once, or because they share cache sets."""
        if self.prologue or (self.dots and not self.reads_words):
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
    def reads_words(self) -> bool:
        """Whether A in memory holds the words that `dots` reads."""
        if not isinstance(self.dots, dots.PairDots):
            return False
        return self.a_strides[-1] == 1 and bool(self.even)

    @property
    def row_stride(self) -> int:
        """Elements between staged rows: an odd number of 64-byte lines, so that they spread over the cache's sets."""
        depth = self.steps if isinstance(self.steps, int) else self.panel_depth
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


def packed_shape(spec: Contraction) -> tuple[int, ...]:
    """(panels, K, NR) of one packed matrix; (panels, prefix + K / group, NR, group) for dots."""
    assert isinstance(spec.steps, int) and isinstance(spec.panel_count, int)
    if spec.dots:
        return spec.panel_count, spec.dots.prefix + spec.steps, spec.width, spec.dots.group
    return spec.panel_count, spec.steps, spec.width


def pack(spec: Contraction, matrix: np.ndarray) -> np.ndarray:
    """[..., K, N] -> [..., *packed_shape], the ragged last panel filled with zeros; aligned as a program wants it."""
    if spec.dots:
        return spec.dots.pack(matrix, spec.width)
    panels, depth, width = packed_shape(spec)
    *batch, _, columns = matrix.shape
    shape = (*batch, panels, depth, width)
    packed = aligned_memory(prod(shape) * matrix.dtype.itemsize).view(matrix.dtype).reshape(shape)
    whole, ragged = divmod(columns, width)
    panelled = matrix[..., : whole * width].reshape(*batch, depth, whole, width)
    packed[..., :whole, :, :] = np.moveaxis(panelled, -2, -3)
    if ragged:
        packed[..., whole, :, :ragged] = matrix[..., whole * width :]
        packed[..., whole, :, ragged:] = 0
    return packed


def emit(
    spec: Contraction,
    tile: Expr,
    scratch: Expr,
    epilogue: Epilogue,
    a: Any = None,
    b: Any = None,
    read_a: Read | None = None,
    read_b: Read | None = None,
    light: bool = False,
) -> None:
    """Emit the body of one tile into the current PrimFunc.

    tile      int32 expression in [0, tiles(spec))
    scratch   pointer to scratch_bytes(spec) bytes of this thread
    a, b      flat (one-dimensional) buffers of the operands, from `emission.flat`
    read_a    (batch..., m, k), lanes -> vector along k: instead of `a`, with spec.prologue
    read_b    (batch..., k, n), lanes -> vector along n: instead of `b`, with panels="staged"
    epilogue  (batch..., m, n), value vector of `sum` along n, lanes: stores the result; lanes is a power of two
    light     it takes a few instructions: sums go to it from registers, one copy of it for each
    """
    assert (read_a is not None) == spec.prologue and (a is None) == spec.prologue
    Tile(spec, scratch, epilogue, a, b, read_a, read_b, light).emit(tile)


class Tile:
    """One tile's code; templates/weight_only.py decodes B's panels in a way of its own."""

    def __init__(
        self,
        spec: Contraction,
        scratch: Expr,
        epilogue: Epilogue,
        a: Any,
        b: Any,
        read_a: Read | None,
        read_b: Read | None,
        light: bool = False,
    ):
        self.spec, self.epilogue, self.a, self.b, self.read_a, self.read_b = spec, epilogue, a, b, read_a, read_b
        self.light = light
        self.scratch = flat(scratch, spec.sum)
        self.sums = SumBlock(self.scratch, spec.sum, spec.lanes, spec.blocking.vectors)
        self.arithmetic = spec.dots or Arithmetic(spec.sum, spec.lanes)
        self.rows = flat(scratch, "int32") if spec.dots else self.scratch
        sums, panel, _, _ = _scratch(spec)
        self.panel_base, self.rows_base = sums, sums + panel
        self.blocked = spec.blocking.depth is not None

    def emit(self, tile: Expr) -> None:
        with self.spec.dots.definitions() if self.spec.dots else nullcontext():
            self.emit_tile(tile)

    def emit_tile(self, tile: Expr) -> None:
        self.sums = replace(self.sums, zero=hidden_zero(tile))
        spec, blocking = self.spec, self.spec.blocking
        rank = len(spec.batch)
        *batch, panels, rows = unravel(index(tile), (*spec.batch, spec.panel_chunks, spec.row_chunks))
        self.batch = tuple(batch)
        self.row = bind(rows * blocking.row_chunk)
        self.row_count = bind(minimum(index(spec.m) - self.row, blocking.row_chunk))
        self.a_base = None if spec.prologue else bind(dot(self.batch, spec.a_strides[:rank]) + index(spec.a_offset))
        if self.read_b is None:
            size = product(packed_shape(spec)) if spec.panels == "packed" else 1
            self.b_base = bind(dot(self.batch, spec.b_strides[:rank]) * size + index(spec.b_offset))
        if spec.stages_rows and isinstance(spec.k, int):
            self.stage_rows(T.int64(0), spec.k)
        first = bind(panels * blocking.panel_chunk)
        last = bind(minimum(first + blocking.panel_chunk, spec.panel_count))
        with T.serial(first, last) as panel:
            self.panel = panel
            self.column = bind(panel * spec.width)
            self.column_count = bind(minimum(index(spec.n) - self.column, spec.width))
            self.multiply_panel()

    def multiply_panel(self) -> None:
        """All the tile's rows by the current panel, handed to the epilogue."""
        if not self.blocked:
            self.multiply_depth(T.int64(0), self.spec.steps)
        else:
            self.multiply_by_blocks(self.spec.blocking.depth)

    def multiply_by_blocks(self, depth: int) -> None:
        """k block by k block, the sums of all the tile's rows waiting in scratch."""
        spec = self.spec
        if spec.dots and spec.dots.prefix:
            self.sums.begin(self.row_count, self.arithmetic, self.b, bind(self.packed_panel()))
        else:
            self.sums.clear(self.row_count)
        with T.serial(T.int64(0), index(spec.depth_chunks)) as chunk:
            start = bind(chunk * depth)
            even = isinstance(spec.steps, int) and spec.steps % depth == 0
            extent = depth if even else bind(minimum(index(spec.steps) - start, depth))
            if spec.stages_rows and not isinstance(spec.k, int):
                self.stage_rows(start, extent)
            self.multiply_depth(start, extent)
        self.finish_rows(self.row, self.row_count)

    def multiply_depth(self, start: Expr, extent: Index) -> None:
        """All the tile's rows by the current panel, over k in [start, start + extent)."""
        spec = self.spec
        if spec.panels == "packed":
            step = spec.width * self.arithmetic.unit
            self.rows_by_panel(start, extent, self.b, self.packed_panel() + start * step, step)
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
                self.rows_by_panel(start, extent, self.scratch, T.int64(self.panel_base), spec.width)
            return
        self.stage_panel(start, extent)
        self.rows_by_panel(start, extent, self.scratch, T.int64(self.panel_base), spec.width)

    def packed_panel(self) -> Expr:
        """Where the first step of the current packed panel lies."""
        _, *panel = packed_shape(self.spec)
        dots = self.spec.dots
        prefix = dots.prefix * self.spec.width * dots.group if dots else 0
        return self.b_base + self.panel * product(panel) + prefix

    def rows_by_panel(self, start: Expr, extent: Index, panel: Any, base: Expr, step: Index) -> None:
        """The tile's row blocks in turn; when k is not cut, each is finished at once."""
        spec, blocked = self.spec, self.blocked
        base = bind(base)
        steps = [Steps(extent, 1 if spec.stages_rows else spec.a_strides[-1], step, spec.blocking.depth)]

        direct = self.light and not blocked and _divides(spec.n, spec.width) and is_one_chain(self.sums, steps)

        def kernel(block: Expr, offset: Expr, count: int) -> None:
            source, offsets = self.row_offsets(block + offset, count, start)
            row = block + offset if blocked else offset
            give = self.giver(self.row + block + offset, count) if direct else None
            multiply(self.sums, row, source, offsets, panel, base, steps, blocked, self.arithmetic, give)

        def after(block: Expr, left: Expr) -> None:
            if not blocked and not direct:
                self.finish_rows(self.row + block, left)

        exact = spec.m % spec.blocking.rows if isinstance(spec.m, int) else None
        by_row_blocks(self.row_count, spec.blocking.rows, exact, kernel, after)

    def row_offsets(self, row: Expr, count: int, start: Expr) -> tuple[Any, list[Expr]]:
        """The buffer that holds A's rows, and where rows row, row + 1... of the tile begin at k = start."""
        spec = self.spec
        if spec.stages_rows:
            first = self.rows_base + (start if isinstance(spec.k, int) else 0)
            return self.rows, [bind(first + (row + i) * spec.row_stride) for i in range(count)]
        if spec.reads_words:
            group = spec.dots.group
            first, stride = divide(self.a_base, group) + start, index(divide(spec.a_strides[-2], group))
            words = seen_as(self.a, "int32")
            return words, [bind(first + (self.row + row + i) * stride) for i in range(count)]
        stride, step = (index(stride) for stride in spec.a_strides[-2:])
        first = self.a_base + start * step
        return self.a, [bind(first + (self.row + row + i) * stride) for i in range(count)]

    def finish_rows(self, row: Expr, count: Index) -> None:
        """Hand `count` rows of sums to the epilogue; the first one is row `row` of the product."""
        with T.serial(T.int64(0), index(count)) as i:
            hand_over(self.sums, i, (*self.batch, bind(row + i)), self.column, self.spec.n, self.epilogue)

    def giver(self, first: Expr, count: int) -> Callable[[int, int, Expr], None]:
        """What hands sums of rows first, first + 1... of the product to the epilogue."""
        lanes = self.spec.lanes
        columns = [bind(self.column + v * lanes) for v in range(self.spec.blocking.vectors)]
        rows = [bind(first + i) for i in range(count)]
        return lambda i, v, value: self.epilogue((*self.batch, rows[i], columns[v]), value, lanes)

    def stage_panel(self, start: Expr, extent: Index) -> None:
        """Copy [extent, NR] of B to scratch as a packed panel, zeros beyond column n."""
        spec, lanes, width = self.spec, self.spec.lanes, self.spec.width

        def value(k: Expr, column: Expr, count: int) -> Expr:
            if self.read_b is not None:
                position = (*self.batch, bind(start + k), bind(self.column + column))
                return cast(self.read_b(position, count), spec.sum, count)
            place = self.b_base + dot((start + k, self.column + column), spec.b_strides[-2:])
            return cast(load(self.b, place, count), spec.sum, count)

        def put(k: Expr, column: Expr, count: int, element: Expr) -> None:
            store(self.scratch, element, self.panel_base + k * width + column, count)

        if self.read_b is None and spec.b_strides[-1] != 1 and spec.b_strides[-2] == 1 and lanes > 1:
            self.stage_transposed(start, extent)
            return
        vectors = self.read_b is not None or spec.b_strides[-1] == 1
        whole = bind(divide(self.column_count, lanes)) if vectors else T.int64(0)
        if vectors:
            with T.serial(T.int64(0), index(extent)) as k, T.serial(T.int64(0), whole) as vector:
                put(k, vector * lanes, lanes, value(k, vector * lanes, lanes))
        with T.serial(whole * lanes, self.column_count) as column, T.serial(T.int64(0), index(extent)) as k:
            put(k, column, 1, value(k, column, 1))
        with T.serial(self.column_count, T.int64(width)) as column, T.serial(T.int64(0), index(extent)) as k:
            put(k, column, 1, constant(0, spec.sum))

    def stage_transposed(self, start: Expr, extent: Index) -> None:
        """The same for B with k contiguous: squares of lanes x lanes, turned in registers; then what they leave."""
        spec, lanes, width = self.spec, self.spec.lanes, self.spec.width
        base, stride = bind(self.b_base + start), index(spec.b_strides[-1])
        columns = bind(divide(self.column_count, lanes) * lanes)
        depth = bind(divide(index(extent), lanes) * lanes)

        def put(k: Expr, column: Expr) -> None:
            element = load(self.b, base + k + (self.column + column) * stride)
            store(self.scratch, cast(element, spec.sum, 1), self.panel_base + k * width + column)

        with T.serial(T.int64(0), divide(columns, lanes)) as block:
            column = bind(block * lanes)
            rows = [bind(base + (self.column + column + i) * stride) for i in range(lanes)]
            with T.serial(T.int64(0), divide(depth, lanes)) as step:
                k = bind(step * lanes)
                square = transpose([bind(cast(load(self.b, row + k, lanes), spec.sum, lanes)) for row in rows])
                for i, line in enumerate(square):
                    store(self.scratch, line, self.panel_base + (k + i) * width + column, lanes)
            with T.serial(depth, index(extent)) as k, T.serial(lanes) as i:
                put(k, bind(column + index(i)))
        with T.serial(columns, self.column_count) as column, T.serial(T.int64(0), index(extent)) as k:
            put(k, column)
        with T.serial(T.int64(0), index(extent)) as k, T.serial(self.column_count, T.int64(width)) as column:
            store(self.scratch, constant(0, spec.sum), self.panel_base + k * width + column)

    def stage_rows(self, start: Expr, extent: Index) -> None:
        """Copy the tile's rows, k in [start, start + extent), to scratch, through the prologue if there is one."""
        spec = self.spec
        with T.serial(T.int64(0), self.row_count) as row:
            line = bind(self.rows_base + row * spec.row_stride)
            at_row = bind(self.row + row)

            def read(position: Expr, count: int) -> Expr:
                if self.read_a is not None:
                    return self.read_a((*self.batch, at_row, position), count)
                place = self.a_base + dot((at_row, position), spec.a_strides[-2:])
                return load(self.a, place, count, spec.a_strides[-1])

            def put(position: Expr, count: int) -> None:
                store(self.scratch, cast(read(position, count), spec.sum, count), line + (position - start), count)

            if spec.dots:
                spec.dots.stage(self.rows, line, spec.k, read)
            else:
                for_lanes(start, extent, spec.lanes, put)
