"""softmax(q k^T scale + mask) v, one block of queries against blocks of keys, without the matrix of scores in memory.

Online softmax (Milakov and Gimelshein, 2018; Dao et al., "FlashAttention", 2022), laid out for vectors along *queries*:
a tile keeps its queries transposed as a packed panel [D][queries], so that scores [keys][queries] and sums of values
[D][queries] are products by the shared micro-kernel that read k and v in place, whatever their strides; maxima and sums
over keys need no horizontal operations.

A block of few queries (decoding) would leave most lanes idle: there each query runs by itself with vectors along D, at
the speed at which k and v come from memory.

A tile is one block of queries of one head. A query that may attend to no key gives zeros.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from effcc.backends.tvm import vector_math
from effcc.backends.tvm.templates.blocking import MOST_ADDRESSES, TYPICAL_ROWS, fits, micro_kernel_cost
from effcc.backends.tvm.templates.emission import (
    BYTES,
    Accumulators,
    Cpu,
    Epilogue,
    Expr,
    Index,
    are_even,
    at,
    bind,
    branch,
    cast,
    ceil_divide,
    constant,
    divide,
    dot,
    dtype_of,
    flat,
    for_lanes,
    index,
    load,
    minimum,
    product,
    splat,
    store,
    transpose,
    unravel,
)
from effcc.backends.tvm.templates.micro_kernel import Steps, SumBlock, by_row_blocks, multiply
from effcc.ir.lazy import T, tvm

Mask = Callable[[tuple[Expr, ...], int], Expr]
FEW_QUERIES = 4
"""Blocks of at most so many queries run query by query."""


@dataclass(frozen=True)
class QueryBlocking:
    """vectors of queries in a block, keys in a block, and the micro-kernels' rows for scores and for values."""

    vectors: int
    keys: int
    score_rows: int
    value_rows: int


@dataclass(frozen=True)
class Attention:
    """What to emit. Extents and strides are Python integers or int64 expressions (head sizes: integers), in elements.

    batch                 extents of the batch dimensions, maybe ()
    heads, key_heads      heads of q, and of k and v: a divisor of it
    queries, keys         lengths
    size, value_size      D of q and k, and of v
    q_strides, k_strides, v_strides   (batch..., head, position, element); 0 broadcasts
    q_offset, ...         where the first element lies in its buffer
    even                  whether offsets of q and k and all their strides but the last are even (None: as the numbers
                          among them tell)
    scale                 of the scores
    softcap               c: scores become c tanh(score / c), before the mask
    causal                query i attends to keys j <= i + causal; None: to all
    q, k, v, sum          dtypes as stored, and of the arithmetic (float32 or float64)
    """

    heads: Index
    key_heads: Index
    queries: Index
    keys: Index
    size: int
    value_size: int
    q_strides: tuple[Index, ...]
    k_strides: tuple[Index, ...]
    v_strides: tuple[Index, ...]
    scale: float
    cpu: Cpu
    batch: tuple[Index, ...] = ()
    softcap: float | None = None
    causal: Index | None = None
    q: str = "float32"
    k: str = "float32"
    v: str = "float32"
    sum: str = "float32"
    q_offset: Index = 0
    k_offset: Index = 0
    v_offset: Index = 0
    even: bool | None = None
    blocking: QueryBlocking = field(default=None)  # type: ignore[assignment]

    def __post_init__(self) -> None:
        if self.even is None:
            places = (self.q_offset, self.k_offset, *self.q_strides[:-1], *self.k_strides[:-1])
            object.__setattr__(self, "even", are_even(*places))
        if self.blocking is None:
            object.__setattr__(self, "blocking", choose_blocking(self))

    @property
    def lanes(self) -> int:
        return self.cpu.lanes(self.sum)

    @property
    def width(self) -> int:
        """Queries of a block."""
        return self.lanes * self.blocking.vectors

    @property
    def by_pairs(self) -> bool:
        """Whether both products take pairs of bf16 by one instruction (templates/pair_attention.py)."""
        if not self.cpu.pair_dots or not self.q == self.k == self.v == "bfloat16" or self.lanes not in (4, 8, 16):
            return False
        steps = (self.q_strides[-1], self.k_strides[-1], self.v_strides[-1])
        return steps == (1, 1, 1) and self.size % 2 == 0 and bool(self.even)

    @property
    def query_blocks(self) -> Index:
        return ceil_divide(self.queries, self.width)


def choose_blocking(spec: Attention) -> QueryBlocking:
    """Least modelled cost of the two products, idle lanes counted; a block of scores takes at most half of L1."""
    lanes, registers = spec.lanes, spec.cpu.vector_registers
    queries = spec.queries if isinstance(spec.queries, int) else TYPICAL_ROWS
    keys = spec.keys if isinstance(spec.keys, int) else TYPICAL_ROWS

    def best_rows(total: int, vectors: int) -> tuple[float, int]:
        def cost(rows: int) -> float:
            whole, rest = divmod(total, rows)
            return whole * micro_kernel_cost(rows, vectors) + (micro_kernel_cost(rest, vectors) if rest else 0.0)

        return min((cost(rows), -rows) for rows in range(1, MOST_ADDRESSES + 1) if fits(rows, vectors, registers))

    def total(vectors: int) -> float:
        return -(-queries // (lanes * vectors)) * (best_rows(keys, vectors)[0] + best_rows(spec.value_size, vectors)[0])

    vectors = min(range(1, 5), key=lambda vectors: (total(vectors), vectors))
    score_rows, value_rows = -best_rows(keys, vectors)[1], -best_rows(spec.value_size, vectors)[1]
    most = max(1, spec.cpu.l1_bytes // (lanes * vectors * BYTES[spec.sum]))
    blocks = max(1, round(keys / most)) if isinstance(spec.keys, int) else 1
    block = min(most + most // 4, -(-keys // blocks)) if isinstance(spec.keys, int) else most
    return QueryBlocking(vectors, max(1, -(-block // score_rows)) * score_rows, score_rows, value_rows)


def tiles(spec: Attention) -> Index:
    """The number of tiles."""
    return product((*spec.batch, spec.heads, spec.query_blocks))


def _scratch(spec: Attention) -> dict[str, int]:
    """Elements of each part of the scratch."""
    width = spec.width
    pairs = {
        "query pairs": spec.size // 2 * width,
        "weight pairs": ceil_divide(spec.blocking.keys, 2) * width,
        "value pairs": ceil_divide(spec.blocking.keys, 2) * spec.value_size,
    }
    return {
        "queries": max(spec.size, spec.value_size) * width,  # [D][queries]; at the end the results, [queries][D]
        "scores": spec.blocking.keys * width,
        "values": spec.value_size * width,
        "maximum": width,
        "total": width,
        "correction": width,
        **(pairs if spec.by_pairs else {}),
    }


def scratch_bytes(spec: Attention) -> int:
    """Bytes of scratch that a tile needs."""
    return sum(_scratch(spec).values()) * BYTES[spec.sum]


def emit(
    spec: Attention, tile: Expr, scratch: Expr, epilogue: Epilogue, q: Any, k: Any, v: Any, mask: Mask | None = None
) -> None:
    """Emit the body of one tile into the current PrimFunc.

    tile      int32 expression in [0, tiles(spec))
    scratch   pointer to scratch_bytes(spec) bytes of this thread
    q, k, v   flat buffers
    mask      (batch..., head, query, key), lanes -> the mask there, as a predicate (true: attend) or a float to be
              added; the query or the key is a vector of indices (never beyond the last query), the rest are scalars
    epilogue  (batch..., head, query, element), value vector of `sum` along elements, lanes: stores the result
    """
    kind = Tile
    if spec.by_pairs:
        from effcc.backends.tvm.templates.pair_attention import PairTile as kind
    kind(spec, scratch, epilogue, q, k, v, mask).emit(tile)


class Tile:
    def __init__(self, spec: Attention, scratch: Expr, epilogue: Epilogue, q: Any, k: Any, v: Any, mask: Mask | None):
        self.spec, self.epilogue, self.q, self.k, self.v, self.mask = spec, epilogue, q, k, v, mask
        self.scratch = flat(scratch, spec.sum)
        self.part: dict[str, int] = {}
        start = 0
        for name, elements in _scratch(spec).items():
            self.part[name] = start
            start += elements
        self.scores = self.block("scores")
        self.values = self.block("values")

    def block(self, name: str) -> SumBlock:
        spec = self.spec
        return SumBlock(self.scratch, spec.sum, spec.lanes, spec.blocking.vectors, self.part[name])

    def emit(self, tile: Expr) -> None:
        spec = self.spec
        *batch, head, block = unravel(index(tile), (*spec.batch, spec.heads, spec.query_blocks))
        self.outer = (*batch, head)
        shared = bind(divide(head, divide(spec.heads, spec.key_heads)))
        self.q_base = bind(index(spec.q_offset) + dot(self.outer, spec.q_strides[:-2]))
        self.k_base = bind(index(spec.k_offset) + dot((*batch, shared), spec.k_strides[:-2]))
        self.v_base = bind(index(spec.v_offset) + dot((*batch, shared), spec.v_strides[:-2]))
        self.first = bind(block * spec.width)
        self.count = bind(minimum(index(spec.queries) - self.first, spec.width))
        few = min(FEW_QUERIES, spec.lanes // 2)
        if isinstance(spec.queries, int) and 0 < spec.queries % spec.width <= few and spec.queries < spec.width:
            self.query_by_query()
        elif isinstance(spec.queries, int) and not 0 < spec.queries % spec.width <= few:
            self.query_block()
        else:
            with branch(self.count <= few):
                self.query_by_query()
            with branch(self.count > few):
                self.query_block()

    def query_by_query(self) -> None:
        with T.serial(T.int64(0), self.count) as i:
            _OneQuery(self, bind(self.first + i)).emit()

    def key_end(self, last_query: Expr) -> Expr:
        """The keys that queries up to `last_query` may attend to are [0, end)."""
        spec = self.spec
        if spec.causal is None:
            return index(spec.keys)
        end = minimum(last_query + index(spec.causal) + 1, spec.keys)
        return bind(T.max(end, T.int64(0)))

    # -- a block of queries -------------------------------------------------------------------------------------------

    def query_block(self) -> None:
        spec, blocking = self.spec, self.spec.blocking
        self.load_queries()
        lowest = constant(float("-inf"), spec.sum, spec.lanes)
        for v in range(blocking.vectors):
            store(self.scratch, lowest, self.vector("maximum", v), spec.lanes)
            store(self.scratch, constant(0, spec.sum, spec.lanes), self.vector("total", v), spec.lanes)
        self.values.clear(spec.value_size)
        end = bind(self.key_end(self.first + self.count - 1))
        with T.serial(T.int64(0), ceil_divide(end, blocking.keys)) as block:
            first = bind(block * blocking.keys)
            count = bind(minimum(end - first, blocking.keys))
            self.multiply_keys(first, count)
            self.softmax(first, count)
            self.multiply_values(first, count)
        self.finish()

    def vector(self, name: str, v: int) -> Expr:
        return T.int64(self.part[name] + v * self.spec.lanes)

    def load_queries(self) -> None:
        """The block's queries times the scale as a panel [D][queries]; rows beyond the last repeat it."""
        spec, lanes, width = self.spec, self.spec.lanes, self.spec.width
        stride, step = (index(s) for s in spec.q_strides[-2:])

        def row(i: Expr) -> Expr:
            return bind(self.q_base + T.min(self.first + i, self.first + self.count - 1) * stride)

        def scaled(value: Expr, count: int) -> Expr:
            return cast(value, spec.sum, count) * constant(spec.scale, spec.sum, count)

        blocks = spec.size // lanes if spec.q_strides[-1] == 1 and lanes > 1 else 0
        with T.serial(spec.blocking.vectors) as v:
            start = bind(index(v) * lanes)
            rows = [row(start + i) for i in range(lanes)]
            if blocks:
                with T.serial(blocks) as block:
                    d = bind(index(block) * lanes)
                    square = transpose([bind(scaled(load(self.q, r + d, lanes), lanes)) for r in rows])
                    for i, column in enumerate(square):
                        store(self.scratch, column, self.part["queries"] + (d + i) * width + start, lanes)
            with T.serial(blocks * lanes, spec.size) as d:
                for i, r in enumerate(rows):
                    value = scaled(load(self.q, r + index(d) * step), 1)
                    store(self.scratch, value, self.part["queries"] + index(d) * width + (start + i))

    def multiply_keys(self, first: Expr, count: Expr) -> None:
        """scores[key, query] = k[key, :] . queries[:, query]"""
        spec = self.spec
        stride, step = spec.k_strides[-2:]
        base = bind(self.k_base + first * index(stride))
        steps = [Steps(spec.size, step, spec.width)]

        def kernel(block: Expr, offset: Expr, rows: int) -> None:
            at_row = bind(block + offset)
            offsets = [bind(base + (at_row + i) * index(stride)) for i in range(rows)]
            panel = T.int64(self.part["queries"])
            multiply(self.scores, at_row, self.k, offsets, self.scratch, panel, steps, False)

        rows = spec.blocking.score_rows
        exact = spec.keys % rows if isinstance(spec.keys, int) and spec.causal is None else None
        by_row_blocks(count, rows, exact, kernel, lambda *_: None)

    def multiply_values(self, first: Expr, count: Expr) -> None:
        """values[element, query] += sum over keys of v[key, element] weights[key, query]"""
        spec = self.spec
        stride, step = spec.v_strides[-2:]
        base = bind(self.v_base + first * index(stride))
        steps = [Steps(count, stride, spec.width, spec.blocking.keys)]

        def kernel(block: Expr, offset: Expr, rows: int) -> None:
            at_row = bind(block + offset)
            offsets = [bind(base + (at_row + i) * index(step)) for i in range(rows)]
            panel = T.int64(self.part["scores"])
            multiply(self.values, at_row, self.v, offsets, self.scratch, panel, steps, True)

        rows = spec.blocking.value_rows
        by_row_blocks(spec.value_size, rows, spec.value_size % rows, kernel, lambda *_: None)

    def softmax(self, first: Expr, count: Expr) -> None:
        """Scores -> weights relative to the maximum so far; totals and values are brought to the new maximum."""
        spec, lanes, vectors = self.spec, self.spec.lanes, self.spec.blocking.vectors
        top = Accumulators(1, vectors, spec.sum, lanes)
        total = Accumulators(1, vectors, spec.sum, lanes)
        for v in range(vectors):
            top[0, v] = load(self.scratch, self.vector("maximum", v), lanes)
        with T.serial(T.int64(0), count) as j:
            for v in range(vectors):
                place = bind(self.part["scores"] + j * spec.width + v * lanes)
                product = bind(load(self.scratch, place, lanes))
                position = (*self.outer, bind(self.first + v * lanes), bind(first + j))
                final = adjust(spec, self.mask, self.score(product), position, lanes, "query")
                if final is not product:
                    final = bind(final)
                    store(self.scratch, final, place, lanes)
                top[0, v] = T.max(top[0, v], final)
        for v in range(vectors):
            self.correct(v, bind(top[0, v]))
            top[0, v] = finite(spec, bind(top[0, v]), lanes)
            total[0, v] = constant(0, spec.sum, lanes)
        self.weigh(count, top, total)
        for v in range(vectors):
            at_total = self.vector("total", v)
            correction = load(self.scratch, self.vector("correction", v), lanes)
            store(self.scratch, load(self.scratch, at_total, lanes) * correction + total[0, v], at_total, lanes)
        with T.serial(spec.value_size) as d:
            for v in range(vectors):
                place = bind(self.part["values"] + index(d) * spec.width + v * lanes)
                correction = load(self.scratch, self.vector("correction", v), lanes)
                store(self.scratch, load(self.scratch, place, lanes) * correction, place, lanes)

    def score(self, product: Expr) -> Expr:
        """What the product of a key and the queries in scratch means."""
        return product

    def weight(self, key: Expr, v: int, top: Accumulators) -> Expr:
        """exp(score - maximum) of a key of the block."""
        place = bind(self.part["scores"] + key * self.spec.width + v * self.spec.lanes)
        return bind(exponential(self.spec, load(self.scratch, place, self.spec.lanes) - top[0, v]))

    def weigh(self, count: Expr, top: Accumulators, total: Accumulators) -> None:
        """Scores -> weights, added to `total`."""
        spec, lanes = self.spec, self.spec.lanes
        with T.serial(T.int64(0), count) as j:
            for v in range(spec.blocking.vectors):
                weight = self.weight(j, v, top)
                store(self.scratch, weight, self.part["scores"] + j * spec.width + v * lanes, lanes)
                total[0, v] = total[0, v] + weight

    def correct(self, v: int, top: Expr) -> None:
        """Note the new maximum, and what the sums so far are worth under it."""
        spec, lanes = self.spec, self.spec.lanes
        before = load(self.scratch, self.vector("maximum", v), lanes)
        correction = bind(exponential(spec, before - finite(spec, top, lanes)))
        store(self.scratch, correction, self.vector("correction", v), lanes)
        store(self.scratch, top, self.vector("maximum", v), lanes)

    def finish(self) -> None:
        """values / total, transposed to [queries][D], to the epilogue."""
        spec, lanes, size = self.spec, self.spec.lanes, self.spec.value_size
        blocks = size // lanes if lanes > 1 else 0
        results = self.part["queries"]
        with T.serial(spec.blocking.vectors) as v:
            start = bind(index(v) * lanes)
            factor = bind(inverse(spec, bind(load(self.scratch, self.part["total"] + start, lanes)), lanes))

            def value(d: Expr) -> Expr:
                return bind(load(self.scratch, self.part["values"] + d * spec.width + start, lanes) * factor)

            if blocks:
                with T.serial(blocks) as block:
                    d = bind(index(block) * lanes)
                    for i, row in enumerate(transpose([value(d + r) for r in range(lanes)])):
                        store(self.scratch, row, results + (start + i) * size + d, lanes)
            with T.serial(blocks * lanes, size) as d:
                column = value(index(d))
                for i in range(lanes):
                    element = column if lanes == 1 else T.Shuffle([column], [i])
                    store(self.scratch, element, results + (start + i) * size + index(d))
        with T.serial(T.int64(0), self.count) as i:
            query, line = bind(self.first + i), bind(results + i * size)

            def give(d: Expr, count: int) -> None:
                self.epilogue((*self.outer, query, d), bind(load(self.scratch, line + d, count)), count)

            for_lanes(T.int64(0), size, lanes, give)


class _OneQuery:
    """One query, vectors along D; scores of a block of keys wait in scratch."""

    def __init__(self, tile: Tile, query: Expr):
        self.tile, self.spec, self.query = tile, tile.spec, query
        self.scratch, self.part = tile.scratch, tile.part

    def emit(self) -> None:
        spec, tile = self.spec, self.tile
        base = bind(tile.q_base + self.query * index(spec.q_strides[-2]))
        queries, values = self.part["queries"], self.part["values"]
        with T.serial(spec.size) as d:
            element = cast(load(tile.q, base + index(d) * index(spec.q_strides[-1])), spec.sum, 1)
            store(self.scratch, element * constant(spec.scale, spec.sum), queries + index(d))
        with T.serial(spec.value_size) as d:
            store(self.scratch, constant(0, spec.sum), values + index(d))
        self.top, self.total = Accumulators(1, 1, spec.sum, 1), Accumulators(1, 1, spec.sum, 1)
        self.top.fill(float("-inf"))
        self.total.fill(0)
        end = tile.key_end(self.query)
        most = spec.blocking.keys * spec.width  # the room for a block's scores
        with T.serial(T.int64(0), ceil_divide(end, most)) as block:
            first = bind(block * most)
            count = bind(minimum(end - first, most))
            self.score(first, count)
            self.softmax(first, count)
            self.add_values(first, count)
        factor = bind(inverse(spec, bind(self.total[0, 0]), 1))

        def give(d: Expr, lanes: int) -> None:
            value = bind(load(self.scratch, values + d, lanes) * splat(factor, lanes))
            tile.epilogue((*tile.outer, self.query, d), value, lanes)

        for_lanes(T.int64(0), spec.value_size, spec.lanes, give)

    def score(self, first: Expr, count: Expr) -> None:
        """scores[j] = q . k[first + j, :]: as many keys at a time as a vector has lanes, summed by a transposition."""
        spec, lanes = self.spec, self.spec.lanes
        stride, step = (index(s) for s in spec.k_strides[-2:])
        along = spec.k_strides[-1] if isinstance(spec.k_strides[-1], int) else 0
        whole = spec.size // lanes if lanes > 1 and along == 1 else 0
        base = bind(self.tile.k_base + first * stride)

        def products(rows: list[Expr]) -> list[Expr]:
            """For each row of k the sums over whole vectors of D."""
            sums = Accumulators(1, len(rows), spec.sum, lanes)
            sums.fill()
            with T.serial(whole) as block:
                d = bind(index(block) * lanes)
                query = bind(load(self.scratch, self.part["queries"] + d, lanes))
                for i, row in enumerate(rows):
                    key = cast(load(self.tile.k, row + d, lanes), spec.sum, lanes)
                    sums[0, i] = sums[0, i] + query * key
            return [sums[0, i] for i in range(len(rows))]

        def rest(row: Expr, place: Expr) -> None:
            """What whole vectors leave of D."""
            with T.serial(whole * lanes, spec.size) as d:
                key = cast(load(self.tile.k, row + index(d) * step), spec.sum, 1)
                product = load(self.scratch, self.part["queries"] + index(d)) * key
                store(self.scratch, load(self.scratch, place) + product, place)

        groups = bind(divide(count, lanes)) if whole else T.int64(0)
        if whole:
            with T.serial(T.int64(0), groups) as group:
                j = bind(group * lanes)
                rows = [bind(base + (j + i) * stride) for i in range(lanes)]
                summed = transpose([bind(x) for x in products(rows)])
                while len(summed) > 1:
                    half = len(summed) // 2
                    summed = [bind(a + b) for a, b in zip(summed[:half], summed[half:], strict=True)]
                store(self.scratch, summed[0], self.part["scores"] + j, lanes)
                if spec.size % lanes:
                    for i, row in enumerate(rows):
                        rest(row, bind(self.part["scores"] + (j + i)))
        with T.serial(groups * lanes, count) as j:
            row, place = bind(base + j * stride), bind(self.part["scores"] + j)
            initial = constant(0, spec.sum)
            if whole:
                initial = vector_math.reduce_lanes("add", bind(products([row])[0]))
            store(self.scratch, initial, place)
            rest(row, place)

    def softmax(self, first: Expr, count: Expr) -> None:
        spec, lanes, scores = self.spec, self.spec.lanes, self.part["scores"]
        before = bind(self.top[0, 0])

        def see(j: Expr, n: int) -> None:
            position = (*self.tile.outer, self.query, bind(first + j))
            score = bind(load(self.scratch, scores + j, n))
            final = adjust(spec, self.tile.mask, score, position, n, "key")
            if final is not score:
                final = bind(final)
                store(self.scratch, final, scores + j, n)
            self.top[0, 0] = T.max(self.top[0, 0], vector_math.reduce_lanes("max", final))

        for_lanes(T.int64(0), count, lanes, see)
        top = bind(finite(spec, bind(self.top[0, 0]), 1))
        self.correction = bind(exponential(spec, before - top))
        self.total[0, 0] = self.total[0, 0] * self.correction

        def weigh(j: Expr, n: int) -> None:
            weight = bind(exponential(spec, load(self.scratch, scores + j, n) - splat(top, n)))
            store(self.scratch, weight, scores + j, n)
            self.total[0, 0] = self.total[0, 0] + vector_math.reduce_lanes("add", weight)

        for_lanes(T.int64(0), count, lanes, weigh)

    def add_values(self, first: Expr, count: Expr) -> None:
        """values = values correction + sum over keys of weight v[key, :], some vectors of D at a time in registers."""
        spec, lanes = self.spec, self.spec.lanes
        stride, step = (index(s) for s in spec.v_strides[-2:])
        base = bind(self.tile.v_base + first * stride)
        vectors = min(8, max(1, spec.value_size // lanes))

        def piece(d: Expr, n: int, count_of: int) -> None:
            sums = Accumulators(1, count_of, spec.sum, n)
            for i in range(count_of):
                place = self.part["values"] + d + i * n
                sums[0, i] = load(self.scratch, place, n) * splat(self.correction, n)
            with T.serial(T.int64(0), count) as j:
                weight = bind(splat(load(self.scratch, self.part["scores"] + j), n))
                row = bind(base + j * stride + d * step)
                for i in range(count_of):
                    element = self.tile.v[at(row + i * n * step, n, spec.v_strides[-1])]
                    sums[0, i] = sums[0, i] + weight * cast(element, spec.sum, n)
            for i in range(count_of):
                store(self.scratch, sums[0, i], self.part["values"] + d + i * n, n)

        wide = lanes * vectors
        if spec.value_size >= wide and lanes > 1:
            with T.serial(spec.value_size // wide) as block:
                piece(bind(index(block) * wide), lanes, vectors)
        done = spec.value_size // wide * wide if lanes > 1 else 0
        for_lanes(T.int64(done), spec.value_size - done, lanes, lambda d, n: piece(d, n, 1))


def adjust(spec: Attention, mask: Mask | None, score: Expr, position: tuple[Expr, ...], lanes: int, along: str) -> Expr:
    """The score with cap, mask and causality; `position` is lane 0's, lanes run along "query" or "key"."""
    lowest = constant(float("-inf"), spec.sum, lanes)
    if spec.softcap is not None:
        inner = score * constant(1 / spec.softcap, spec.sum, lanes)
        score = vector_math.tanh(bind, inner) * constant(spec.softcap, spec.sum, lanes)
    if mask is not None:
        *outer, query, key = position
        if lanes > 1 and along == "key":
            key = at(key, lanes)
        elif lanes > 1:
            query = T.min(at(query, lanes), splat(index(spec.queries) - 1, lanes))
        given = mask((*outer, query, key), lanes)
        if dtype_of(given).startswith("bool"):
            score = T.Select(given, score, lowest)
        else:
            score = score + cast(given, spec.sum, lanes)
    if spec.causal is not None:
        *_, query, key = position
        ahead = T.Cast("int32", key - query - index(spec.causal))  # of lane 0: allowed up to 0
        steps = T.ramp(T.int32(0), T.int32(1 if along == "key" else -1), lanes) if lanes > 1 else T.int32(0)
        allowed = tvm.tirx.LE(splat(ahead, lanes) + steps, constant(0, "int32", lanes))
        score = T.Select(allowed, score, lowest)
    return score


def finite(spec: Attention, top: Expr, lanes: int) -> Expr:
    """A maximum that may be subtracted: 0 where all is masked."""
    lowest = constant(float("-inf"), spec.sum, lanes)
    return T.Select(tvm.tirx.EQ(top, lowest), constant(0, spec.sum, lanes), top)


def inverse(spec: Attention, total: Expr, lanes: int) -> Expr:
    """1 / total, 0 for a query without keys."""
    zero = constant(0, spec.sum, lanes)
    return T.Select(tvm.tirx.EQ(total, zero), zero, constant(1, spec.sum, lanes) / total)


def exponential(spec: Attention, x: Expr) -> Expr:
    return vector_math.exp_nonpositive(bind, x) if spec.sum == "float32" else vector_math.exp(bind, x)
