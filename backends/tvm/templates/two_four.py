"""C[m, n] = sum over k of A[m, k] * B[k, n] in float32, of B two of each four neighbours along k and where they were.

B lies in panels of NR columns like those of templates/contraction.py:

    values     f32[panels, K / 4, 2, NR]        the two of each four, in their order
    positions  i32[panels, ⌈K / 32⌉, NR]        eight fours a word, the first lowest: two bits for each of the two

That is 53% of the dense panel's bytes. Few rows (a decoder's single token is one) are bound by reading them: A's four
values are chosen between in registers by the positions' bits, and each word and value is read once. Many rows: a panel
is spread out into scratch once for the tile's rows, and the dense micro-kernel runs.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from effcc.backends.tvm.templates import contraction
from effcc.backends.tvm.templates.contraction import Contraction
from effcc.backends.tvm.templates.emission import (
    Accumulators,
    Epilogue,
    Expr,
    Index,
    Read,
    bind,
    branch,
    ceil_divide,
    constant,
    divide,
    hold,
    index,
    load,
    minimum,
    splat,
    store,
)
from effcc.backends.tvm.templates.micro_kernel import CHAIN, by_row_blocks
from effcc.ir.lazy import T

FOURS = 8
"""Fours in a word."""
WORD = 4 * FOURS
"""Steps of k in a word."""
FEW_ROWS = 2
"""Rows up to which choosing in registers, again for each block of rows, costs less than spreading a panel out."""


@dataclass(frozen=True)
class TwoFour:
    """A product with such a B. dense: the same product with B in staged panels; K is a multiple of 4."""

    dense: Contraction

    def __post_init__(self) -> None:
        dense = self.dense
        assert dense.panels == "staged" and dense.sum == "float32" and dense.k % 4 == 0
        depth = dense.blocking.depth
        if depth is not None:  # cut at words
            blocking = replace(dense.blocking, depth=-(-depth // WORD) * WORD)
            object.__setattr__(self, "dense", replace(dense, blocking=blocking))

    @property
    def fours(self) -> int:
        return self.dense.k // 4

    @property
    def words(self) -> int:
        return -(-self.fours // FOURS)


def product(m: Index, n: int, k: int, **dense: Any) -> TwoFour:
    """The spec of A[m, k] * B[k, n]; `dense`: further fields of Contraction."""
    return TwoFour(Contraction(m, n, k, panels="staged", **dense))


def pack(spec: TwoFour, values: np.ndarray, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """values f32[K / 4, 2, N] and their places 0..3 among the four, rising -> (values, positions) in panels."""
    fours, _, columns = values.shape
    width = spec.dense.width
    panels = -(-columns // width)
    padding = ((0, 0), (0, 0), (0, panels * width - columns))
    spread = np.pad(values.astype(np.float32), padding).reshape(fours, 2, panels, width)
    bits = np.pad((places[:, 0] | places[:, 1] << 2).astype(np.uint32), (padding[0], padding[2]))
    words = np.zeros((spec.words, panels * width), np.uint32)
    for i in range(FOURS):
        part = bits[i::FOURS]
        words[: len(part)] |= part << np.uint32(4 * i)
    positions = words.view(np.int32).reshape(spec.words, panels, width).swapaxes(0, 1)
    return np.ascontiguousarray(spread.transpose(2, 0, 1, 3)), np.ascontiguousarray(positions)


def emit(
    spec: TwoFour,
    tile: Expr,
    scratch: Expr,
    epilogue: Epilogue,
    a: Any,
    values: Any,
    positions: Any,
    read_a: Read | None = None,
) -> None:
    """Emit the body of one tile; see contraction.emit. values, positions: flat buffers of what `pack` gives."""
    assert read_a is None, "A is float32 as stored"
    body = _Tile(spec.dense, scratch, epilogue, a, values, None, None)
    body.weights, body.positions = spec, positions
    body.emit(tile)


class _Tile(contraction.Tile):
    weights: TwoFour
    positions: Any

    def multiply_panel(self) -> None:
        rows = self.spec.m
        if isinstance(rows, int) and rows <= FEW_ROWS:
            self.multiply_in_registers()
        elif isinstance(rows, int) and rows % self.spec.blocking.row_chunk == 0:
            super().multiply_panel()
        else:
            with branch(self.row_count <= FEW_ROWS):
                self.multiply_in_registers()
            with branch(self.row_count > FEW_ROWS):
                super().multiply_panel()

    def four_at(self, four: Expr) -> Expr:
        """Where the two values of a four begin, in the current panel."""
        return (self.panel * self.weights.fours + four) * (2 * self.spec.width)

    def word_at(self, word: Expr) -> Expr:
        return (self.panel * self.weights.words + word) * self.spec.width

    # -- few rows ------------------------------------------------------------------------------------------------------
    def multiply_in_registers(self) -> None:
        """The tile's rows by the current panel, one at a time, each handed over when it is done."""

        def kernel(block: Expr, offset: Expr, count: int) -> None:
            source, (start,) = self.row_offsets(block + offset, 1, T.int64(0))
            self.choose_and_add(source, start, offset)

        by_row_blocks(self.row_count, 1, 0, kernel, lambda block, left: self.finish_rows(self.row + block, left))

    def choose_and_add(self, a: Any, start: Expr, row: Expr) -> None:
        """sums[row, :] = sum over the fours of the two values times those of a[start + k...] that they belong to."""
        spec, weights, lanes = self.spec, self.weights, self.spec.lanes
        step = index(1 if spec.stages_rows else spec.a_strides[-1])
        vectors = spec.blocking.vectors
        accumulators = Accumulators(1, vectors, "float32", lanes)
        first = bind(self.sums.base + row * self.sums.width)
        per_chain = CHAIN // (2 * FOURS)
        for v in range(vectors):
            store(self.sums.buffer, constant(0, "float32", lanes), first + v * lanes, lanes)
        with T.serial(T.int64(0), index(ceil_divide(weights.words, per_chain))) as chain:
            accumulators.fill()
            last = minimum(bind((chain + 1) * per_chain), weights.words)
            with T.serial(bind(chain * per_chain), bind(index(last))) as word:
                place = bind(self.word_at(word))
                words = [bind(load(self.positions, place + v * lanes, lanes)) for v in range(vectors)]
                count = FOURS if weights.fours % FOURS == 0 else bind(minimum(weights.fours - word * FOURS, FOURS))
                with T.serial(T.int64(0), index(count)) as i:
                    four = bind(word * FOURS + i)
                    x = [hold(splat(load(a, start + (four * 4 + j) * step), lanes)) for j in range(4)]
                    values = bind(self.four_at(four))
                    shift = splat(T.Cast("int32", i * 4), lanes)
                    for v in range(vectors):
                        bits = hold(T.shift_right(words[v], shift))
                        low = T.Select(self.bit(bits, 1), x[2], T.Select(self.bit(bits, 0), x[1], x[0]))
                        high = T.Select(self.bit(bits, 3), T.Select(self.bit(bits, 2), x[3], x[2]), x[1])
                        for which, chosen in enumerate((low, high)):
                            kept = load(self.b, values + which * spec.width + v * lanes, lanes)
                            accumulators[0, v] = accumulators[0, v] + hold(chosen) * kept
            for v in range(vectors):
                at = first + v * lanes
                store(self.sums.buffer, load(self.sums.buffer, at, lanes) + accumulators[0, v], at, lanes)

    def bit(self, bits: Expr, which: int) -> Expr:
        one, none = (constant(value, "int32", self.spec.lanes) for value in (1 << which, 0))
        return T.bitwise_and(bits, one) > none

    # -- many rows -----------------------------------------------------------------------------------------------------
    def stage_panel(self, start: Expr, extent: Index) -> None:
        """Spread [extent, NR] of B out in scratch; `start` is at the beginning of a word."""
        spec, lanes, width = self.spec, self.spec.lanes, self.spec.width
        zero = constant(0, "float32", lanes)
        first = bind(divide(start, 4))
        with T.serial(T.int64(0), index(divide(extent, 4))) as i:
            four = bind(first + i)
            place, values = bind(self.word_at(divide(four, FOURS))), bind(self.four_at(four))
            shift = splat(T.Cast("int32", four % FOURS * 4), lanes)
            with T.serial(T.int64(0), T.int64(spec.blocking.vectors)) as v:
                bits = hold(T.shift_right(load(self.positions, place + v * lanes, lanes), shift))
                low, high = (hold(load(self.b, values + w * width + v * lanes, lanes)) for w in range(2))
                one, two, not_one, three = (self.bit(bits, w) for w in (0, 1, 3, 2))
                spread = (
                    T.Select(one, zero, T.Select(two, zero, low)),
                    T.Select(one, low, T.Select(not_one, zero, high)),
                    T.Select(two, low, T.Select(not_one, T.Select(three, zero, high), zero)),
                    T.Select(not_one, T.Select(three, high, zero), zero),
                )
                for j, line in enumerate(spread):
                    store(self.scratch, line, self.panel_base + (i * 4 + j) * width + v * lanes, lanes)
