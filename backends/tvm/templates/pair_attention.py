"""Attention in bf16 by vdpbf16ps: keys two elements, values two keys at a time; softmax in f32, its weights rounded.

Words of 32 bits hold two bf16 (templates/dots.py). Queries lie in scratch as words [D / 2][queries], weights as words
[keys / 2][queries]; keys are read in place, and a block's values are copied to scratch as words [keys / 2][D].
"""

from __future__ import annotations

from typing import Any

from effcc.backends.tvm.templates.attention import Tile
from effcc.backends.tvm.templates.dots import PairDots
from effcc.backends.tvm.templates.emission import (
    Accumulators,
    Expr,
    bind,
    branch,
    cast,
    constant,
    divide,
    for_lanes,
    index,
    load,
    seen_as,
    store,
    transpose,
    vector_type,
)
from effcc.backends.tvm.templates.micro_kernel import Steps, by_row_blocks, multiply
from effcc.ir.lazy import T


class PairTile(Tile):
    def emit(self, tile: Expr) -> None:
        self.dots = PairDots(self.spec.lanes, words=True)
        self.words = seen_as(self.scratch, "int32")
        self.q_words, self.k_words = (seen_as(x, "int32") for x in (self.q, self.k))
        with self.dots.definitions():
            super().emit(tile)

    def load_queries(self) -> None:
        """The block's queries as a panel of words; rows beyond the last repeat it."""
        spec, lanes, width, panel = self.spec, self.spec.lanes, self.spec.width, self.part["query pairs"]
        depth = spec.size // 2
        base, stride = bind(divide(self.q_base, 2)), index(divide(spec.q_strides[-2], 2))

        with T.serial(spec.blocking.vectors) as v:
            start = bind(index(v) * lanes)
            last = bind(self.first + self.count - 1)
            rows = [bind(base + T.min(self.first + start + i, last) * stride) for i in range(lanes)]
            if depth >= lanes:
                with T.serial(depth // lanes) as block:
                    d = bind(index(block) * lanes)
                    square = transpose([bind(load(self.q_words, row + d, lanes)) for row in rows])
                    for i, column in enumerate(square):
                        store(self.words, column, panel + (d + i) * width + start, lanes)
            with T.serial(depth // lanes * lanes, depth) as d:
                for i, row in enumerate(rows):
                    store(self.words, load(self.q_words, row + index(d)), panel + index(d) * width + (start + i))

    def multiply_keys(self, first: Expr, count: Expr) -> None:
        spec = self.spec
        stride = index(divide(spec.k_strides[-2], 2))
        base = bind(divide(self.k_base, 2) + first * stride)
        steps, panel = [Steps(spec.size // 2, 1, spec.width)], T.int64(self.part["query pairs"])

        def kernel(block: Expr, offset: Expr, rows: int) -> None:
            row = bind(block + offset)
            offsets = [bind(base + (row + i) * stride) for i in range(rows)]
            multiply(self.scores, row, self.k_words, offsets, self.words, panel, steps, False, self.dots)

        rows = spec.blocking.score_rows
        exact = spec.keys % rows if isinstance(spec.keys, int) and spec.causal is None else None
        by_row_blocks(count, rows, exact, kernel, lambda *_: None)

    def score(self, product: Expr) -> Expr:
        return product * constant(self.spec.scale, self.spec.sum, self.spec.lanes)

    def weigh(self, count: Expr, top: Accumulators, total: Accumulators) -> None:
        """Pairs of keys; the one that an odd block's last lacks weighs nothing."""
        spec, lanes = self.spec, self.spec.lanes

        def pair(step: Expr, whole: bool) -> None:
            for v in range(spec.blocking.vectors):
                weights = [self.weight(step * 2 + i, v, top) for i in range(1 + whole)]
                for weight in weights:
                    total[0, v] = total[0, v] + weight
                word = self.paired([cast(weight, "bfloat16", lanes) for weight in weights], lanes)
                store(self.words, word, self.part["weight pairs"] + step * spec.width + v * lanes, lanes)

        self.by_pairs(count, pair)

    def multiply_values(self, first: Expr, count: Expr) -> None:
        spec = self.spec
        stride = index(spec.v_strides[-2])
        base = bind(self.v_base + first * stride)
        staged = self.part["value pairs"]

        def pair(step: Expr, whole: bool) -> None:
            rows = [bind(base + (step * 2 + i) * stride) for i in range(1 + whole)]

            def put(d: Expr, lanes: int) -> None:
                word = self.paired([load(self.v, row + d, lanes) for row in rows], lanes)
                store(self.words, word, staged + step * spec.value_size + d, lanes)

            for_lanes(T.int64(0), spec.value_size, spec.lanes, put)

        self.by_pairs(count, pair)
        most = -(-spec.blocking.keys // 2)
        steps = [Steps(bind(divide(count + 1, 2)), spec.value_size, spec.width, most)]
        panel = T.int64(self.part["weight pairs"])

        def kernel(block: Expr, offset: Expr, rows: int) -> None:
            row = bind(block + offset)
            offsets = [bind(row + (staged + i)) for i in range(rows)]
            multiply(self.values, row, self.words, offsets, self.words, panel, steps, True, self.dots)

        rows = spec.blocking.value_rows
        by_row_blocks(spec.value_size, rows, spec.value_size % rows, kernel, lambda *_: None)

    def by_pairs(self, count: Expr, body: Any) -> None:
        """body(step, whether both keys are there) for each two keys of a block."""
        with T.serial(T.int64(0), bind(divide(count, 2))) as step:
            body(step, True)
        keys = self.spec.keys
        if not isinstance(keys, int) or keys % 2 or self.spec.causal is not None or self.spec.blocking.keys % 2:
            with branch(T.bitwise_and(count, T.int64(1)) != 0):
                body(bind(divide(count, 2)), False)

    @staticmethod
    def paired(numbers: list[Expr], lanes: int) -> Expr:
        """One or two bf16 as a word, the first below."""
        low, *high = (
            bind(T.Cast(vector_type("int32", lanes), T.reinterpret(vector_type("uint16", lanes), x))) for x in numbers
        )
        return T.bitwise_or(low, T.shift_left(high[0], constant(16, "int32", lanes))) if high else low
