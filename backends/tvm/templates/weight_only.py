"""C = A · W with W a constant of few bits: (q[k, n] - zero[k / group, n]) · scale[k / group, n]; A and sums in float32.

W lies in panels of NR columns like those of templates/contraction.py, as 32-bit words: word [panel][k / per][NR] holds
per = 32 / bits consecutive k of one column, the first lowest, so that one load gives a vector of columns for `per`
steps of k, each of which is two shifts and a conversion away. Scales and zeros lie in [panel][group][NR].

Few rows (a decoder's single token is one): words are decoded in registers, and each is read once; the sums of a group
are scaled when they join the rest: one rounding, where the dequantized product has one for each weight. Many rows: a
panel is decoded into scratch once for the tile's rows, and the dense micro-kernel runs. A tile chooses by its rows.
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
    cast,
    constant,
    divide,
    hold,
    index,
    load,
    splat,
    store,
    vector_type,
)
from effcc.backends.tvm.templates.micro_kernel import CHAIN, by_row_blocks
from effcc.ir.lazy import T

WORD = 32
FEW_ROWS = 8
"""Rows up to which decoding in registers, again for each block of rows, costs less than decoding a panel to scratch."""


@dataclass(frozen=True)
class WeightOnly:
    """A product with such weights.

    dense  the same product with float32 weights in staged panels: extents, strides of A, blocking
    bits   2, 4 or 8: of a stored element, two's complement
    group  consecutive k under one scale, a multiple of 32 / bits; K where a scale covers a column
    zeros  whether there are zero points
    scale  dtype of the scales: "float32" or "float16"
    """

    dense: Contraction
    bits: int
    group: int
    zeros: bool = False
    scale: str = "float32"

    def __post_init__(self) -> None:
        assert self.dense.panels == "staged" and self.dense.sum == "float32"
        assert self.group == self.dense.k or self.group % self.per_word == 0
        blocking = self.dense.blocking
        if blocking.depth is not None:  # cut at words and, where they are shorter, at groups
            unit = self.group if self.group <= blocking.depth else self.per_word
            depth = -(-blocking.depth // unit) * unit
            object.__setattr__(self, "dense", replace(self.dense, blocking=replace(blocking, depth=depth)))

    @property
    def per_word(self) -> int:
        return WORD // self.bits

    @property
    def words(self) -> int:
        """Words of a panel's column."""
        return -(-self.dense.k // self.per_word)

    @property
    def groups(self) -> int:
        return max(1, -(-self.dense.k // self.group))

    @property
    def few_rows(self) -> int:
        """Rows of a block decoded in registers: sums, a vector of words each, and two more."""
        vectors, registers = self.dense.blocking.vectors, self.dense.cpu.vector_registers
        most = max(1, min((registers - 2 - vectors) // vectors, self.dense.blocking.rows, FEW_ROWS))
        return min(most, max(1, self.dense.m)) if isinstance(self.dense.m, int) else min(most, FEW_ROWS // 2)


def product(m: Index, n: int, k: int, bits: int, group: int, *, zeros: bool = False, scale: str = "float32",
            **dense: Any) -> WeightOnly:
    """The spec of A[m, k] · W[k, n]; `dense`: further fields of Contraction."""
    return WeightOnly(Contraction(m, n, k, panels="staged", b="int32", **dense), bits, group, zeros, scale)


def pack_words(spec: WeightOnly, q: np.ndarray) -> np.ndarray:
    """int8 [K, N] -> int32 [panels, words, NR]; the ragged last panel and word hold zeros."""
    (depth, columns), width, per = q.shape, spec.dense.width, spec.per_word
    panels = -(-columns // width)
    padded = np.zeros((spec.words * per, panels * width), np.uint8)
    padded[:depth, :columns] = q.view(np.uint8) & ((1 << spec.bits) - 1)
    words = np.zeros((spec.words, panels * width), np.uint32)
    for i in range(per):
        words |= padded[i::per].astype(np.uint32) << np.uint32(i * spec.bits)
    return np.ascontiguousarray(words.view(np.int32).reshape(spec.words, panels, width).swapaxes(0, 1))


def pack_groups(spec: WeightOnly, parameter: np.ndarray) -> np.ndarray:
    """Scales or zero points [groups, N] -> [panels, groups, NR]."""
    (groups, columns), width = parameter.shape, spec.dense.width
    panels = -(-columns // width)
    padded = np.zeros((groups, panels * width), parameter.dtype)
    padded[:, :columns] = parameter
    return np.ascontiguousarray(padded.reshape(groups, panels, width).swapaxes(0, 1))


def tiles(spec: WeightOnly) -> Index:
    return contraction.tiles(spec.dense)


def scratch_bytes(spec: WeightOnly) -> int:
    return contraction.scratch_bytes(spec.dense)


def emit(
    spec: WeightOnly,
    tile: Expr,
    scratch: Expr,
    epilogue: Epilogue,
    a: Any,
    words: Any,
    scales: Any,
    zeros: Any = None,
    read_a: Read | None = None,
) -> None:
    """Emit the body of one tile; `words`, `scales` and `zeros` (int8) are flat buffers of what the pack functions give.
    The rest is as in contraction.emit."""
    assert (zeros is not None) == spec.zeros
    _Tile(spec, scratch, epilogue, a, words, scales, zeros, read_a).emit(tile)


class _Tile(contraction.Tile):
    def __init__(self, spec: WeightOnly, scratch: Expr, epilogue: Epilogue, a: Any, words: Any, scales: Any,
                 zeros: Any, read_a: Read | None):
        super().__init__(spec.dense, scratch, epilogue, a, words, read_a, None)
        self.weights, self.words, self.scales, self.zeros = spec, words, scales, zeros

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

    # -- few rows ------------------------------------------------------------------------------------------------------
    def multiply_in_registers(self) -> None:
        """The tile's rows by the current panel, some at a time, each handed over when it is done."""
        rows, m = self.weights.few_rows, self.spec.m
        exact = m % rows if isinstance(m, int) and m <= FEW_ROWS else None

        def kernel(block: Expr, offset: Expr, count: int) -> None:
            source, offsets = self.row_offsets(block + offset, count, T.int64(0))
            self.decode_and_add(source, offsets, offset)

        by_row_blocks(self.row_count, rows, exact, kernel, lambda block, left: self.finish_rows(self.row + block, left))

    def decode_and_add(self, a: Any, offsets: list[Expr], row: Expr) -> None:
        """sums[row + i, :] = sum over k of a[offsets[i] + k] · W[k, panel], by chains of products under one scale."""
        spec, lanes = self.weights, self.spec.lanes
        chain = spec.group if spec.group <= CHAIN else CHAIN // spec.per_word * spec.per_word
        accumulators = Accumulators(len(offsets), self.spec.blocking.vectors, "float32", lanes)
        first_row = bind(self.sums.base + row * self.sums.width)
        for vector in range(len(offsets) * self.spec.blocking.vectors):
            store(self.sums.buffer, constant(0, "float32", lanes), first_row + vector * lanes, lanes)

        def one(group: Expr, start: Expr, depth: int) -> None:
            accumulators.fill()
            first, zero = bind(self.word_at(start)), bind(self.parameter_at(group))
            whole, rest = divmod(depth, spec.per_word)
            if whole:
                with T.serial(T.int64(0), T.int64(whole)) as word:
                    self.word(accumulators, a, offsets, bind(start + word * spec.per_word),
                              bind(first + word * self.spec.width), zero, spec.per_word)
            if rest:
                self.word(accumulators, a, offsets, bind(start + whole * spec.per_word),
                          bind(first + whole * self.spec.width), zero, rest)
            for v in range(self.spec.blocking.vectors):
                scale = bind(cast(load(self.scales, zero + v * lanes, lanes), "float32", lanes))
                for i in range(len(offsets)):
                    place = first_row + (i * self.sums.width + v * lanes)
                    total = load(self.sums.buffer, place, lanes) + accumulators[i, v] * scale
                    store(self.sums.buffer, total, place, lanes)

        def group_of(group: Expr, length: int) -> None:
            whole, rest = divmod(length, chain)
            start = bind(group * spec.group)
            if whole:
                with T.serial(T.int64(0), T.int64(whole)) as piece:
                    one(group, bind(start + piece * chain), chain)
            if rest:
                one(group, bind(start + whole * chain), rest)

        whole, rest = divmod(self.spec.k, spec.group) if spec.group else (0, 0)
        if whole:
            with T.serial(T.int64(0), T.int64(whole)) as group:
                group_of(group, spec.group)
        if rest:
            group_of(T.int64(whole), rest)

    def word(self, accumulators: Accumulators, a: Any, offsets: list[Expr], k: Expr, place: Expr, zero: Expr,
             steps: int) -> None:
        """The `steps` products of one vector of words a panel vector."""
        spec, lanes = self.weights, self.spec.lanes
        stride = 1 if self.spec.stages_rows else self.spec.a_strides[-1]
        words = [bind(load(self.words, place + v * lanes, lanes)) for v in range(accumulators.vectors)]
        for i in range(steps):
            values = [
                bind(splat(cast(load(a, offset + (k + i) * index(stride)), "float32", 1), lanes)) for offset in offsets
            ]
            for v, word in enumerate(words):
                column = hold(self.centred(decode(word, i, spec.bits, lanes), zero + v * lanes))
                for r, value in enumerate(values):
                    accumulators[r, v] = accumulators[r, v] + value * column

    # -- many rows -----------------------------------------------------------------------------------------------------
    def stage_panel(self, start: Expr, extent: Index) -> None:
        """Decode [extent, NR] of W to scratch; `start` is at the beginning of a word."""
        spec, lanes, per = self.weights, self.spec.lanes, self.weights.per_word
        first = bind(self.word_at(start))

        def word(at: Expr, steps: int) -> None:
            parameters = bind(self.parameter_at(divide(start + at * per, max(1, spec.group))))
            with T.serial(T.int64(0), T.int64(self.spec.blocking.vectors)) as v:
                column = bind(v * lanes)
                words = bind(load(self.words, first + at * self.spec.width + column, lanes))
                scale = bind(cast(load(self.scales, parameters + column, lanes), "float32", lanes))
                for i in range(steps):
                    value = self.centred(decode(words, i, spec.bits, lanes), parameters + column) * scale
                    place = self.panel_base + (at * per + i) * self.spec.width + column
                    store(self.scratch, value, place, lanes)

        with T.serial(T.int64(0), index(divide(extent, per))) as at:
            word(at, per)
        rest = self.spec.k % per  # only the last word of all is short
        if rest:
            with branch(index(extent) % per != 0):
                word(divide(index(extent), per), rest)

    # -- where things lie ----------------------------------------------------------------------------------------------
    def word_at(self, k: Expr) -> Expr:
        """The word that holds k (a multiple of per_word) of the current panel's first column."""
        return (self.panel * self.weights.words + divide(k, self.weights.per_word)) * self.spec.width

    def parameter_at(self, group: Index) -> Expr:
        """The scale of a group for the current panel's first column."""
        return (self.panel * self.weights.groups + index(group)) * self.spec.width

    def centred(self, value: Expr, place: Expr) -> Expr:
        """float32 values less their zero points."""
        if self.zeros is None:
            return value
        return value - cast(load(self.zeros, place, self.spec.lanes), "float32", self.spec.lanes)


def decode(words: Expr, i: int, bits: int, lanes: int) -> Expr:
    """The i-th elements of a vector of words, as float32: shifted to the top, and down again with their sign."""
    up = WORD - bits * (i + 1)
    if up:
        words = T.shift_left(words, constant(up, "int32", lanes))
    if bits < WORD:
        words = T.shift_right(words, constant(WORD - bits, "int32", lanes))
    return T.Cast(vector_type("float32", lanes), words)

