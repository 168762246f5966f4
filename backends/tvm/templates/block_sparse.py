"""C[m, n] = sum over k of A[m, k] * B[k, n], of B only the blocks that are not zero; register-blocked like the dense.

B comes in panels of NR columns, of each panel only the kept blocks of `block` rows, one behind the other:

    values   [kept, block, NR]    all panels' blocks, panel by panel, k rising
    starts   i32[panels + 1]      which of them are a panel's
    depths   i32[kept]            the k of a block's first row

The micro-kernel is the dense one's (rows x vectors accumulators, FMAs with broadcasts of A) with one more loop around
it: over a panel's blocks, each of which says where in A's rows it begins. So the work is that of the kept blocks, A is
read in place or staged as for dense panels, and prologue and epilogue are the same. The pattern is data: one kernel
serves all weights of one shape and blocking. (The lists are block-CSR of the transposed matrix.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil, gcd
from typing import Any

import numpy as np

from effcc.backends.tvm.templates import contraction
from effcc.backends.tvm.templates.blocking import MOST_PANELS, Blocking, choose_blocking, fits, micro_kernel_cost
from effcc.backends.tvm.templates.contraction import Contraction
from effcc.backends.tvm.templates.emission import (
    BYTES,
    Accumulators,
    Cpu,
    Epilogue,
    Expr,
    Index,
    Read,
    bind,
    constant,
    divide,
    index,
    load,
    minimum,
    store,
)
from effcc.backends.tvm.templates.micro_kernel import CHAIN, Arithmetic, SumBlock, by_row_blocks
from effcc.ir.lazy import T

MOST_ROWS = 28
"""Rows of a micro-kernel of one vector: with fewer columns a row more costs one register."""
BLOCK_COST = 4.0
"""Cycles of a block beside its FMAs: its place is read, and the loop goes on."""
IN_FLIGHT = 8
"""Independent sums that keep two FMA units of latency four busy."""


@dataclass(frozen=True)
class BlockSparse(Contraction):
    """A product to emit (see Contraction; `panels` is "packed"). block: rows of B in a kept block; it divides k."""

    block: int = 1

    def __post_init__(self) -> None:
        assert self.panels == "packed" and self.blocking is not None and self.blocking.depth is None
        assert isinstance(self.k, int) and self.k % self.block == 0

    @property
    def dots(self) -> None:  # type: ignore[override]
        return None


def kept_blocks(matrix: np.ndarray, block: int, width: int) -> np.ndarray:
    """bool[panels, K / block]: which blocks of [block, width] of [K, N] hold something."""
    k, n = matrix.shape
    full = np.pad(matrix != 0, ((0, 0), (0, -n % width)))
    return np.asarray(full.reshape(k // block, block, ceil(n / width), width).any(axis=(1, 3))).T


def pack(spec: BlockSparse, matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """[K, N] -> (values, starts, depths)."""
    k, n = matrix.shape
    kept = kept_blocks(matrix, spec.block, spec.width)
    padded = np.pad(matrix, ((0, 0), (0, -n % spec.width)))
    blocks = padded.reshape(k // spec.block, spec.block, ceil(n / spec.width), spec.width).transpose(2, 0, 1, 3)
    starts = np.concatenate([[0], np.cumsum(kept.sum(1))]).astype(np.int32)
    _, depths = np.nonzero(kept)
    return np.ascontiguousarray(blocks[kept]), starts, (depths * spec.block).astype(np.int32)


def choose(
    m: Index, matrix: np.ndarray, block: tuple[int, int], batch: Sequence[Index], cpu: Cpu, sum_dtype: str
) -> tuple[Blocking, int, float]:
    """(blocking, rows of a block, modelled cycles of one core) of least cost for [K, N] zero but for blocks of
    `block`."""
    k, n = matrix.shape
    lanes = cpu.lanes(sum_dtype)
    height = gcd(block[0], k) if k else 1
    best: tuple[float, int, int] | None = None
    for vectors in range(1, 5):
        kept = int(kept_blocks(matrix, height, lanes * vectors).sum())
        for rows in range(1, MOST_ROWS + 1):
            if not fits(rows, vectors, cpu.vector_registers) or (isinstance(m, int) and rows > max(1, m)):
                continue
            cost = kept * row_blocks_cost(m, rows, vectors, height)
            if best is None or cost < best[0]:
                best = cost, rows, vectors
    assert best is not None
    cost, rows, vectors = best
    return tiled(m, n, max(k, 1), rows, vectors, batch, cpu, sum_dtype), height, cost


def row_blocks_cost(m: Index, rows: int, vectors: int, height: int) -> float:
    """Modelled cycles of one kept block, for all rows of A."""
    typical = m if isinstance(m, int) else 128
    whole, rest = divmod(typical, rows)
    return whole * block_cost(rows, vectors, height) + (block_cost(rest, vectors, height) if rest else 0.0)


def block_cost(rows: int, vectors: int, height: int) -> float:
    """The same for one block of rows: blocking.micro_kernel_cost, but that copies of few sums do not wait."""
    copies = in_flight(rows * vectors, height)
    waiting = max(rows * vectors, 4) - max(rows * vectors * copies, 4) / copies
    return height * (micro_kernel_cost(rows, vectors) - waiting) + BLOCK_COST


def tiled(
    m: Index, n: int, k: int, rows: int, vectors: int, batch: Sequence[Index], cpu: Cpu, sum_dtype: str
) -> Blocking:
    """Tiles for a micro-kernel: few, as each may have to stage its rows of A, but some for each thread."""
    lanes = cpu.lanes(sum_dtype)
    typical = max(1, m) if isinstance(m, int) else 128
    most = max(rows, cpu.l2_bytes // 2 // (k * BYTES[sum_dtype]))
    chunks = ceil(typical / most)
    row_chunk = ceil(ceil(typical / chunks) / rows) * rows
    panels = ceil(n / (lanes * vectors))
    wanted = 4 * cpu.threads if cpu.threads > 1 else 1
    panel_chunk = max(1, min(4 * MOST_PANELS, panels * chunks // wanted))
    return Blocking(rows, vectors, row_chunk, panel_chunk, None)


def dense_cost(m: Index, n: int, k: int, cpu: Cpu, sum_dtype: str) -> float:
    """Modelled cycles of the dense product, by the same measure."""
    blocking = choose_blocking(m, n, k, (), replace(cpu, threads=1), sum_dtype)
    typical = m if isinstance(m, int) else 128
    whole, rest = divmod(typical, blocking.rows)
    one = whole * micro_kernel_cost(blocking.rows, blocking.vectors)
    one += micro_kernel_cost(rest, blocking.vectors) if rest else 0.0
    return -(-n // (cpu.lanes(sum_dtype) * blocking.vectors)) * k * one


def emit(
    spec: BlockSparse,
    tile: Expr,
    scratch: Expr,
    epilogue: Epilogue,
    a: Any,
    values: Any,
    starts: Any,
    depths: Any,
    read_a: Read | None = None,
) -> None:
    """Emit the body of one tile; see contraction.emit. values, starts, depths: flat buffers of what `pack` gives."""
    body = _SparseTile(spec, scratch, epilogue, a, values, read_a, None)
    body.starts, body.depths = starts, depths
    body.emit(tile)


class _SparseTile(contraction.Tile):
    """A tile of the dense template whose panels are lists of blocks."""

    spec: BlockSparse
    starts: Any
    depths: Any

    def multiply_depth(self, start: Expr, extent: Index) -> None:
        spec = self.spec
        first = bind(T.Cast("int64", load(self.starts, self.panel)))
        last = bind(T.Cast("int64", load(self.starts, self.panel + 1)))

        def kernel(block: Expr, offset: Expr, count: int) -> None:
            source, offsets = self.row_offsets(block + offset, count, start)
            step = 1 if spec.stages_rows else spec.a_strides[-1]
            arithmetic = Arithmetic(spec.sum, spec.lanes)
            multiply_blocks(
                self.sums, offset, source, offsets, step, self.b, self.depths, (first, last), spec, arithmetic
            )

        def after(block: Expr, left: Expr) -> None:
            self.finish_rows(self.row + block, left)

        exact = spec.m % spec.blocking.rows if isinstance(spec.m, int) else None
        by_row_blocks(self.row_count, spec.blocking.rows, exact, kernel, after)


def in_flight(sums: int, block: int) -> int:
    """Copies of each sum that the rows of a block are dealt to in turn, where few sums would wait for each other."""
    return max(copies for copies in (1, 2, 4) if block % copies == 0 and (copies == 1 or sums * copies <= IN_FLIGHT))


def multiply_blocks(
    sums: SumBlock,
    row: Expr,
    a: Any,
    offsets: Sequence[Expr],
    step: Index,
    values: Any,
    depths: Any,
    blocks: tuple[Expr, Expr],
    spec: BlockSparse,
    arithmetic: Arithmetic,
) -> None:
    """sums[row + i, :] = sum over the blocks [first, last) of a[offsets[i] + step * (depth + j)] * values[block, j, :].

    At most CHAIN products are added in registers before their sum joins those in `sums`.
    """
    lanes, vectors, dtype = sums.lanes, sums.vectors, sums.dtype
    copies = in_flight(len(offsets) * vectors, spec.block)
    accumulators = Accumulators(len(offsets) * copies, vectors, dtype, lanes)
    place = bind(sums.base + row * sums.width)
    first, last = blocks
    per_chain = max(1, CHAIN // spec.block)

    for i in range(len(offsets)):
        for v in range(vectors):
            store(sums.buffer, constant(0, dtype, lanes), place + (i * sums.width + v * lanes), lanes)
    with T.serial(T.int64(0), divide(last - first + (per_chain - 1), per_chain)) as chain:
        begin = bind(first + chain * per_chain)
        accumulators.fill()
        with T.serial(begin, minimum(begin + per_chain, last)) as block:
            depth = bind(T.Cast("int64", load(depths, block)) * index(step))
            base = bind(block * (spec.block * sums.width))
            with T.serial(T.int64(0), T.int64(spec.block // copies)) as turn:
                for copy in range(copies):
                    j = bind(turn * copies + copy)
                    columns = [
                        bind(arithmetic.column(values, base + j * sums.width + v * lanes)) for v in range(vectors)
                    ]
                    for i, offset in enumerate(offsets):
                        value = bind(arithmetic.value(a, offset + depth + j * index(step)))
                        for v in range(vectors):
                            at = (i * copies + copy, v)
                            accumulators[at] = arithmetic.add(accumulators[at], value, columns[v])
        for i in range(len(offsets)):
            for v in range(vectors):
                where = place + (i * sums.width + v * lanes)
                total = load(sums.buffer, where, lanes)
                for copy in range(copies):
                    total = total + accumulators[i * copies + copy, v]
                store(sums.buffer, total, where, lanes)
