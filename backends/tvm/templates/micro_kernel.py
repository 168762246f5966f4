"""The inner loops that products and convolutions share: sums in registers, and finished sums handed to the epilogue."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from effcc.backends.tvm.templates.dots import Dots
from effcc.backends.tvm.templates.emission import (
    Accumulators,
    Epilogue,
    Expr,
    Index,
    bind,
    branch,
    cast,
    ceil_divide,
    constant,
    divide,
    halves,
    index,
    lane_pieces,
    load,
    minimum,
    splat,
    store,
    wrapped,
)
from effcc.ir.lazy import T

CHAIN = 256
"""Products added one after the other before their sum is added to the rest: the error of a long sum in one register
grows with its length (Higham, Accuracy and Stability of Numerical Algorithms, 4.2)."""


@dataclass(frozen=True)
class Steps:
    """One loop of the sum: its extent, how far an iteration moves in A and in the panel of B (elements), and the bound
    of an extent that is known at run time only."""

    extent: Index
    a: Index
    b: Index
    most: int | None = None


@dataclass(frozen=True)
class SumBlock:
    """Where sums wait: rows of `width` = vectors * lanes elements from `base` in a flat buffer of `dtype`.

    zero: 0 for us, unknown to LLVM (see `hidden_zero`); without it, sums stay in registers however long they are.
    """

    buffer: Any
    dtype: str
    lanes: int
    vectors: int
    base: Index = 0
    zero: Expr | None = None

    @property
    def width(self) -> int:
        return self.lanes * self.vectors

    def clear(self, rows: Index) -> None:
        with T.serial(T.int64(0), index(rows) * self.vectors) as vector:
            store(self.buffer, constant(0, self.dtype, self.lanes), self.base + vector * self.lanes, self.lanes)

    def begin(self, rows: Index, arithmetic: Arithmetic | Dots, b: Any, panel: Expr) -> None:
        """The sums before the first product."""
        values = [bind(arithmetic.initial(b, panel, v, self.vectors)) for v in range(self.vectors)]
        with T.serial(T.int64(0), index(rows)) as row:
            for v, value in enumerate(values):
                store(self.buffer, value, self.base + row * self.width + v * self.lanes, self.lanes)


def hidden_zero(tile: Expr) -> Expr:
    """0, as an int64 that LLVM cannot evaluate: a tile's number is never negative, but only we know that.

    A place in memory that depends on it cannot be promoted to registers. LLVM does so with sums that wait between two
    chains, and then spills those that the inner loop works on.
    """
    return bind(T.Cast("int64", T.shift_right(tile, T.int32(31))))


class Arithmetic:
    """How the micro-kernel reads and adds: both operands converted to the sums' dtype, one multiplication a lane."""

    unit = 1  # elements of B for each lane

    def __init__(self, dtype: str, lanes: int):
        self.dtype, self.lanes = dtype, lanes

    def column(self, b: Any, place: Expr) -> Expr:
        """A vector of B."""
        return cast(load(b, place, self.lanes), self.dtype, self.lanes)

    def value(self, a: Any, place: Expr) -> Expr:
        """An element of A in all lanes."""
        return splat(cast(load(a, place), self.dtype, 1), self.lanes)

    def add(self, total: Expr, value: Expr, column: Expr) -> Expr:
        return wrapped("add", total, wrapped("mul", value, column))

    def initial(self, b: Any, panel: Expr, vector: int, vectors: int) -> Expr:
        """What the sums of a panel's vector begin with."""
        return constant(0, self.dtype, self.lanes)


REGISTERS_LEFT = "effcc_leave_registers"
"""What `leave_registers` calls; `objects` makes of the call a line of assembly that says to change all vectors."""


def leave_registers() -> None:
    """Vectors that are live here wait in memory.

    Around the inner loop the registers belong to the sums. LLVM moves the numbers of an epilogue (a gelu has 26), and
    all of a small panel of B, out of all loops, and then spills sums instead.
    """
    T.evaluate(T.call_extern("int32", REGISTERS_LEFT))


def multiply(
    sums: SumBlock,
    row: Expr,
    a: Any,
    offsets: Sequence[Expr],
    b: Any,
    panel: Expr,
    steps: Sequence[Steps],
    accumulate: bool,
    arithmetic: Arithmetic | Dots | None = None,
    give: Callable[[int, int, Expr], None] | None = None,
) -> None:
    """sums[row + i, :] (+)= sum over `steps` of a[offsets[i] + ...] * b[panel + ..., :], the rows unrolled.

    At most CHAIN products are added in registers, then their sum joins those in `sums` (if it has a hidden zero).
    give: called with each row, vector and sum instead, where all products are one chain.
    """
    lanes, vectors, dtype = sums.lanes, sums.vectors, sums.dtype
    arithmetic = arithmetic or Arithmetic(dtype, lanes)
    leave_registers()
    accumulators = Accumulators(len(offsets), vectors, dtype, lanes)
    first = bind(sums.base + row * sums.width)
    outer, inner, ragged = chains_of(sums, steps)

    def start(initial: bool) -> None:
        for i, v in accumulators:
            value = arithmetic.initial(b, panel, v, vectors) if initial else constant(0, dtype, lanes)
            accumulators[i, v] = value

    def finish(add: bool, beginning: Expr = first) -> None:
        for i, v in accumulators:
            place = beginning + (i * sums.width + v * lanes)
            total = accumulators[i, v]
            total = wrapped("add", load(sums.buffer, place, lanes), total) if add else total
            store(sums.buffer, total, place, lanes)

    def nest(a_offset: Expr, b_offset: Expr, rest: Sequence[Steps], body: Callable[..., None], *last: Expr) -> None:
        if not rest:
            body(a_offset, b_offset, *last)
            return
        with T.serial(T.int64(0), index(rest[0].extent)) as k:
            nest(a_offset + k * index(rest[0].a), bind(b_offset + k * index(rest[0].b)), rest[1:], body, k)

    def product(a_offset: Expr, b_offset: Expr, *_: Expr) -> None:
        columns = [bind(arithmetic.column(b, b_offset + v * lanes * arithmetic.unit)) for v in range(vectors)]
        for i, offset in enumerate(offsets):
            value = bind(arithmetic.value(a, offset + a_offset))
            for v in range(vectors):
                accumulators[i, v] = arithmetic.add(accumulators[i, v], value, columns[v])

    def chain(a_offset: Expr, b_offset: Expr, k: Expr) -> None:
        loops = inner
        if ragged is not None:
            left = minimum(index(ragged) - k * index(inner[0].extent), index(inner[0].extent))
            loops = (replace(inner[0], extent=bind(left)), *inner[1:])
        start(False)
        nest(a_offset, b_offset, loops, product)
        finish(True, bind(first + k * sums.zero))

    if outer:
        if not accumulate:
            start(True)
            finish(False)
        nest(T.int64(0), panel, outer, chain)
        leave_registers()
    else:
        start(not accumulate)
        nest(T.int64(0), panel, inner, product)
        if give is None:
            finish(accumulate)
            leave_registers()
        else:
            assert not accumulate
            for i, v in accumulators:
                give(i, v, accumulators[i, v])


Chains = tuple[tuple[Steps, ...], tuple[Steps, ...], Index | None]


def is_one_chain(sums: SumBlock, steps: Sequence[Steps]) -> bool:
    """Whether `multiply` adds all products in registers."""
    return not chains_of(sums, steps)[0]


def chains_of(sums: SumBlock, steps: Sequence[Steps]) -> Chains:
    """How `multiply` cuts its sum: floats into chains, where they have a hidden zero; integers not at all."""
    cut = sums.dtype.startswith("float") and sums.zero is not None
    return chains(steps) if cut else ((), tuple(steps), None)


def chains(steps: Sequence[Steps]) -> Chains:
    """(outer, inner, ragged): the loops cut so that `inner` makes at most CHAIN products.

    Where no near divisor cuts a loop evenly, or its extent is symbolic, `ragged` is that extent: the last round of the
    last outer loop is shorter.
    """
    length = 1
    for at in reversed(range(len(steps))):
        step, most = steps[at], max(1, CHAIN // length)
        extent = step.extent
        bound = extent if isinstance(extent, int) else step.most
        if bound is not None and bound <= most:
            length *= max(1, bound)
            continue
        piece = most
        if isinstance(extent, int):
            divisor = max(d for d in range(1, most + 1) if extent % d == 0)
            piece = divisor if 2 * divisor >= most else -(-extent // -(-extent // most))
        ragged = None if isinstance(extent, int) and extent % piece == 0 else extent
        outer = Steps(ceil_divide(extent, piece), step.a * piece, step.b * piece)
        return (*steps[:at], outer), (replace(step, extent=piece), *steps[at + 1 :]), ragged
    return (), tuple(steps), None


def by_row_blocks(
    count: Index,
    rows: int,
    exact: int | None,
    kernel: Callable[[Expr, Expr, int], None],
    after: Callable[[Expr, Expr], None],
) -> None:
    """Rows [0, count) in blocks of `rows`: kernel(block's first row, offset in it, rows), then after(first, rows left).

    The last block's remainder is `exact`, where known at compile time, or a binary choice of smaller kernels.
    """
    with T.serial(T.int64(0), divide(index(count) + (rows - 1), rows)) as block:
        first = bind(block * rows)
        left = bind(minimum(index(count) - first, rows))
        if exact == 0:
            kernel(first, T.int64(0), rows)
        else:
            with branch(left == rows):
                kernel(first, T.int64(0), rows)
            rest = bind(left % rows)
            if exact is not None:
                with branch(rest != 0):
                    kernel(first, T.int64(0), exact)
            else:
                for piece in halves(rows):
                    with branch(T.bitwise_and(rest, T.int64(piece)) != 0):
                        kernel(first, bind(rest - rest % (2 * piece)), piece)
        after(first, left)


def hand_over(
    sums: SumBlock, row: Expr, coordinates: tuple[Expr, ...], column: Expr, total: Index, epilogue: Epilogue
) -> None:
    """Give the epilogue row `row` of the sums: columns [column, column + width) of `total`, at `coordinates`."""
    lanes = sums.lanes
    first = bind(sums.base + row * sums.width)

    def give(offset: Expr, count: int) -> None:
        value = bind(load(sums.buffer, first + offset, count))
        epilogue((*coordinates, bind(column + offset)), value, count)

    if isinstance(total, int) and total % sums.width == 0:
        with T.serial(T.int64(0), T.int64(sums.vectors)) as vector:
            give(bind(vector * lanes), lanes)
        return
    left = bind(minimum(index(total) - column, sums.width))
    whole = bind(divide(left, lanes))
    if not isinstance(total, int) or total >= lanes:  # (a row of one column has stride 0: nothing to store a vector to)
        with T.serial(T.int64(0), whole) as vector:
            give(bind(vector * lanes), lanes)
    if not isinstance(total, int):
        with T.serial(whole * lanes, left) as element:
            give(element, 1)
    elif total % lanes:
        with branch(whole < sums.vectors):
            for offset, count in lane_pieces(total % lanes, lanes):
                give(bind(whole * lanes + offset), count)
