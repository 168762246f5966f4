"""How a product is cut: sums into registers, k into blocks that keep a panel in L2, rows and panels into tiles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

from effcc.backends.tvm.templates.emission import BYTES, Cpu, Index, halves

TYPICAL_ROWS, TYPICAL_COLUMNS, TYPICAL_DEPTH = 128, 64, 512
"""What symbolic M, N and K are taken for when blocks are chosen (any value is computed right)."""
DEPTH_BLOCK = 512
MOST_ROWS = 512
MOST_ADDRESSES = 14
"""Rows of a block at most: with more x86-64 is short of integer registers, and 15 x 2 is half as fast as 14 x 2."""
ADDRESSES, APART = 9, 0.25
"""Rows whose addresses stay in registers for sure, and cycles that a row costs a k step beyond them."""
MOST_PANELS = 16
UNROLLED, SPARE = 8, 4
"""So few steps LLVM unrolls, and then keeps numbers that the epilogue needs in registers meanwhile: so many, say."""


@dataclass(frozen=True)
class Blocking:
    """rows x vectors accumulators; row_chunk rows and panel_chunk panels a tile; k in blocks of depth (None: whole)."""

    rows: int
    vectors: int
    row_chunk: int
    panel_chunk: int
    depth: int | None


def micro_kernel_cost(rows: int, vectors: int) -> float:
    """Cycles of one k step, in vector FMAs: throughput or latency (4 in flight), and a part of the loads."""
    return max(rows * vectors, 4) + 0.1 * (rows + vectors) + 0.5


def fits(rows: int, vectors: int, registers: int) -> bool:
    """Accumulators, one k's columns of B and, where several vectors need it, an element of A in all lanes fit."""
    return rows * vectors + vectors + (vectors > 1 or registers < 32) <= registers


def register_block(
    m: Index, n: Index, cpu: Cpu, lanes: int, line: Index | None = None, steps: Index | None = None
) -> tuple[int, int]:
    """(rows, vectors) of least modelled cost for M x N, ragged rows and columns counted. line: rows follow each other
    in lines of so many; where blocks are not whole parts of a line, each row has an address of its own. steps: of the
    sum, where they are known."""
    registers = cpu.vector_registers
    if isinstance(steps, int) and steps <= UNROLLED and registers >= 32:
        registers -= SPARE
    typical_m = m if isinstance(m, int) else TYPICAL_ROWS
    typical_n = n if isinstance(n, int) else TYPICAL_COLUMNS

    def cost(rows: int, vectors: int) -> float:
        whole, rest = divmod(typical_m, rows)
        apart = line is not None and (not isinstance(line, int) or line % rows != 0)
        total = whole * (micro_kernel_cost(rows, vectors) + (APART * rows if apart and rows > ADDRESSES else 0))
        if isinstance(m, int):
            total += micro_kernel_cost(rest, vectors) if rest else 0.0
        else:
            total += sum(micro_kernel_cost(piece, vectors) for piece in halves(rows)) / 2
        return -(-typical_n // (lanes * vectors)) * total

    blocks = [
        (rows, vectors)
        for vectors in range(1, 7)
        for rows in range(1, MOST_ADDRESSES + 1)
        if fits(rows, vectors, registers) and rows <= max(1, typical_m)
    ]
    return min(blocks, key=lambda block: (cost(*block), -block[0] * block[1], -block[1]))


def choose_blocking(m: Index, n: Index, k: Index, batch: Sequence[Index], cpu: Cpu, sum_dtype: str) -> Blocking:
    """The blocking for C[batch, m, n]: a tile's rows of A take at most half of L2, and threads get a few tiles each."""
    lanes, size = cpu.lanes(sum_dtype), BYTES[sum_dtype]
    rows, vectors = register_block(m, n, cpu, lanes)
    width = lanes * vectors
    typical_m = max(1, m) if isinstance(m, int) else TYPICAL_ROWS
    panels = -(-(n if isinstance(n, int) else TYPICAL_COLUMNS) // width)
    depth = None
    if not isinstance(k, int):
        depth = DEPTH_BLOCK
    elif k * width * size > cpu.l2_bytes // 2:
        depth = -(-k // -(-k * width * size // (cpu.l2_bytes // 4)))
    row_bytes = size * max(1, k if isinstance(k, int) else TYPICAL_DEPTH)
    most = max(rows, min(MOST_ROWS, cpu.l2_bytes // 2 // row_bytes))
    chunks = -(-typical_m // most)
    repeats = panels
    for extent in batch:
        repeats *= extent if isinstance(extent, int) else 1
    wanted = 4 * cpu.threads if cpu.threads > 1 else 1
    if repeats * chunks < wanted:
        chunks = min(-(-wanted // max(1, repeats)), -(-typical_m // rows))
    row_chunk = ceil(ceil(typical_m / chunks) / rows) * rows
    panel_chunk = max(1, min(MOST_PANELS, repeats * chunks // (2 * wanted)))
    return Blocking(rows, vectors, row_chunk, panel_chunk, depth)
