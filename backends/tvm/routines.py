"""The sort family and data-dependent sizes: algorithms written out as serial code, a row (or the whole tensor) at a
time.

What finds a size does so in two kernels: the first counts, the size symbol is set, and the second writes results whose
strides depend on it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from effcc.backends.tvm.emit import KernelBuilder
from effcc.backends.tvm.lower import Lowering, as_region, lowers
from effcc.backends.tvm.place import Place
from effcc.backends.tvm.plan import Define
from effcc.backends.tvm.templates.emission import unravel
from effcc.backends.tvm.tiles.space import Cut, TileSpace
from effcc.backends.tvm.values import bind, eq, isnan, literal, loop, ne, register_dtype, unequal
from effcc.ir import Node, Tensor, Value, i64
from effcc.ir.dims import Dim, product
from effcc.ir.lazy import T, tvm
from effcc.ops.index import Compress, Nonzero
from effcc.ops.sort import Nms, Sort, TopK, Unique

Tir = Any


class Cell:
    """A mutable variable of generated code."""

    def __init__(self, dtype: str, value: Tir):
        self.buffer = T.alloc_buffer((1,), dtype)
        self.set(value)

    def get(self) -> Tir:
        return bind(self.buffer[0])

    def set(self, value: Tir) -> None:
        T.buffer_store(self.buffer, value, [0])


def integer(value: int) -> Tir:
    return T.int64(value)


def when(condition: Tir) -> Any:
    """`with when(c) as _:` runs its body if c; as one context manager."""
    from effcc.backends.tvm.templates.emission import branch

    return branch(condition)


def words(kernel: KernelBuilder) -> Any:
    """Scratch as i64 words."""
    return T.decl_buffer((1 << 40,), "int64", data=kernel.scratch, align=8)


def goes_before(a: Tir, b: Tir, is_float: bool, descending: bool) -> Tir:
    """Strict order of two keys; NaN is the greatest."""
    before = tvm.prim.GT(a, b) if descending else tvm.prim.LT(a, b)
    if not is_float:
        return before
    first, last = (a, b) if descending else (b, a)
    return tvm.prim.Or(before, tvm.prim.And(isnan(first), tvm.prim.Not(isnan(last))))


def merge_sort(n: Tir, order: Any, before: Callable[[Tir, Tir], Tir]) -> Tir:
    """Stable bottom-up merge sort of the indices 0..n-1 in `order[0:2n]`; returns the offset (0 or n) where they end
    up.

    before(i, j): whether element i goes before element j.
    """
    with loop(0, n) as i:
        T.buffer_store(order, i, [i])
    if isinstance(n, tvm.prim.IntImm) and int(n) <= 1:  # in order already, and TVM trips over loops of one block
        return integer(0)
    width, source = Cell("int64", integer(1)), Cell("int64", integer(0))
    with T.While(width.buffer[0] < n):
        w, src = width.get(), source.get()
        dst = bind(n - src)
        with loop(0, bind(T.floordiv(n + w * 2 - 1, w * 2))) as block:
            start = bind(block * w * 2)
            middle, end = bind(T.min(start + w, n)), bind(T.min(start + w * 2, n))
            left, right = Cell("int64", start), Cell("int64", middle)
            with loop(start, end) as out:
                i, j = left.get(), right.get()
                a, b = (bind(order[src + T.min(k, n - 1)]) for k in (i, j))
                take_right = tvm.prim.Or(tvm.prim.GE(i, middle), tvm.prim.And(tvm.prim.LT(j, end), before(b, a)))
                chosen = Cell("int64", T.Select(take_right, integer(1), integer(0)))
                c = chosen.get()
                T.buffer_store(order, T.Select(eq(c, integer(1)), b, a), [dst + out])
                left.set(i + 1 - c)
                right.set(j + c)
        source.set(dst)
        width.set(w * 2)
    return source.get()


def _rows(
    lowering: Lowering,
    node: Node,
    axis: int,
    body: Callable[[KernelBuilder, dict[Value, Place], tuple[Tir, ...], Any], None],
    scratch_words: Callable[[Dim], Dim],
) -> None:
    """One tile for each row along `axis`; body(kernel, places, index of the row with None at the axis, scratch
    words)."""
    region = as_region(node)
    x = node.operands[0].tensor
    others = [k for k in range(x.rank) if k != axis]
    space = TileSpace(node.results[0].shape, (Cut(tuple(others)),))

    def make(places: dict[Value, Place]) -> tuple[TileSpace, Dim, Any]:
        def emit(kernel: KernelBuilder) -> None:
            at = unravel(kernel.tile, [kernel.dim(x.shape[k]) for k in others])
            index: list[Tir] = [None] * x.rank
            for k, i in zip(others, at, strict=True):
                index[k] = i
            body(kernel, places, tuple(index), words(kernel))

        return space, scratch_words(x.shape[axis]) * 8, emit

    lowering.launch(
        "sort",
        None,
        region,
        tuple(lowering.place(v) for v in node.operands),
        tuple(lowering.result(v) for v in node.results),
        make,
        node,
    )


@lowers(Sort, TopK)
def sort(lowering: Lowering, node: Node) -> None:
    """Sort the indices of a row, then gather; top-k keeps the first of them."""
    op: Any = node.op
    region = as_region(node)
    descending = op.largest if isinstance(op, TopK) else op.descending
    kept = op.k if isinstance(op, TopK) else node.operands[0].shape[op.axis]
    x, (values, where) = region.inputs[0], region.results

    def body(kernel: KernelBuilder, places: dict[Value, Place], index: tuple[Tir, ...], order: Any) -> None:
        def at(i: Tir) -> tuple[Tir, ...]:
            return tuple(i if k == op.axis else v for k, v in enumerate(index))

        def before(i: Tir, j: Tir) -> Tir:
            a, b = (bind(_key(kernel.load(places[x], at(k)))) for k in (i, j))
            return goes_before(a, b, x.dtype.is_float, descending)

        start = merge_sort(kernel.dim(x.shape[op.axis]), order, before)
        with loop(0, kernel.dim(kept)) as i:
            source = bind(order[start + i])
            kernel.store(places[values], at(i), bind(kernel.load(places[x], at(source))))
            kernel.store(places[where], at(i), source)

    # the region inside _rows is built anew, so bind by position
    def positioned(kernel: KernelBuilder, places: dict[Value, Place], index: tuple[Tir, ...], order: Any) -> None:
        own = dict(zip((x, values, where), places.values(), strict=True))
        body(kernel, own, index, order)

    _rows(lowering, node, op.axis, positioned, lambda n: n * 2)


def _key(x: Tir) -> Tir:
    return T.Cast("int32", x) if str(x.ty) == "bool" else x


def _serial(
    lowering: Lowering,
    node: Node,
    operands: list[Place],
    results: list[Place],
    emit: Callable[[KernelBuilder, list[Place]], None],
    what: str,
    scratch: Dim = 0,
) -> None:
    """Launch one tile over places; `emit(kernel, places)` gets operands then results."""
    inputs = tuple(Value(Tensor(p.buffer.dtype, p.shape)) for p in operands)
    outputs = tuple(Value(Tensor(p.buffer.dtype, p.shape)) for p in results)
    from effcc.ir import Graph

    region = Graph(what, inputs, (Node(node.op, node.operands, outputs, node.loc),), outputs)
    lowering.launch_raw(
        "routine",
        (what, node.op),
        region,
        tuple(operands),
        tuple(results),
        scratch,
        lambda kernel: emit(kernel, [*operands, *results]),
        node,
    )


def _count_place(lowering: Lowering) -> Place:
    return lowering.temporary(Tensor(i64, ()))


def _define(lowering: Lowering, symbol: Any, bound: Dim, count: Place) -> None:
    lowering.plan.defined[symbol] = lowering.bound(bound)
    lowering.steps.append(Define(symbol, count.buffer))


@lowers(Nonzero)
def nonzero(lowering: Lowering, node: Node) -> None:
    op: Any = node.op
    x = node.operands[0].tensor
    source = lowering.plain_place(node.operands[0])
    count = _count_place(lowering)

    def nonzero_at(kernel: KernelBuilder, place: Place, flat: Tir) -> Tir:
        value = kernel.load(Place(place.buffer, (x.size,), (1,), place.offset), (flat,))
        differs = unequal if x.dtype.is_float else ne
        return value if x.dtype.is_bool else differs(value, literal(register_dtype(x.dtype), 0))

    def counting(kernel: KernelBuilder, places: list[Place]) -> None:
        total = Cell("int64", integer(0))
        with loop(0, kernel.dim(x.size)) as i:
            total.set(total.get() + T.Select(nonzero_at(kernel, places[0], i), integer(1), integer(0)))
        kernel.store(places[1], (), total.get())

    def writing(kernel: KernelBuilder, places: list[Place]) -> None:
        total = Cell("int64", integer(0))
        with loop(0, kernel.dim(x.size)) as i:
            with when(nonzero_at(kernel, places[0], i)):
                at = total.get()
                for axis, coordinate in enumerate(unravel(i, [kernel.dim(d) for d in x.shape])):
                    kernel.store(places[1], (integer(axis), at), coordinate)
                total.set(at + 1)

    _serial(lowering, node, [source], [count], counting, "count")
    _define(lowering, op.size, x.size, count)
    _serial(lowering, node, [source], [lowering.result(node.result)], writing, "indices")


@lowers(Compress)
def compress(lowering: Lowering, node: Node) -> None:
    op: Any = node.op
    x, keep = (v.tensor for v in node.operands)
    count = _count_place(lowering)
    mask = lowering.place(node.operands[1])

    def counting(kernel: KernelBuilder, places: list[Place]) -> None:
        total = Cell("int64", integer(0))
        with loop(0, kernel.dim(keep.size)) as i:
            total.set(total.get() + T.Select(kernel.load(places[0], (i,)), integer(1), integer(0)))
        kernel.store(places[1], (), total.get())

    def writing(kernel: KernelBuilder, places: list[Place]) -> None:
        others = [k for k in range(x.rank) if k != op.axis]
        total = Cell("int64", integer(0))
        with loop(0, kernel.dim(keep.size)) as i:
            with when(kernel.load(places[1], (i,))):
                to = total.get()
                with loop(0, kernel.dim(product(x.shape[k] for k in others))) as flat:
                    at: list[Tir] = [None] * x.rank
                    for k, j in zip(others, unravel(flat, [kernel.dim(x.shape[k]) for k in others]), strict=True):
                        at[k] = j
                    value = kernel.load(places[0], tuple(i if k == op.axis else j for k, j in enumerate(at)))
                    kernel.store(places[2], tuple(to if k == op.axis else j for k, j in enumerate(at)), bind(value))
                total.set(to + 1)

    _serial(lowering, node, [mask], [count], counting, "count")
    _define(lowering, op.size, keep.size, count)
    _serial(lowering, node, [lowering.place(node.operands[0]), mask], [lowering.result(node.result)], writing, "slices")


@lowers(Unique)
def unique(lowering: Lowering, node: Node) -> None:
    """Sort the slices, number the groups of equal ones, and (unsorted) renumber them by first occurrence."""
    op: Any = node.op
    x = node.operands[0].tensor
    source = lowering.plain_place(node.operands[0])
    if op.axis is None:
        n, inner, step = x.size, (), (1,)
        flat = Place(source.buffer, (n,), step, source.offset)
    else:
        n = x.shape[op.axis]
        others = [k for k in range(x.rank) if k != op.axis]
        inner = tuple(x.shape[k] for k in others)
        flat = Place(
            source.buffer, (n, *inner), (source.strides[op.axis], *(source.strides[k] for k in others)), source.offset
        )
    each = Tensor(i64, (n,))
    first, counts, count = lowering.temporary(each), lowering.temporary(each), _count_place(lowering)
    inverse = lowering.result(node.results[2])
    length = product(inner)

    def element(kernel: KernelBuilder, place: Place, i: Tir, j: Tir) -> Tir:
        return bind(_key(kernel.load(place, (i, *unravel(j, [kernel.dim(d) for d in inner])))))

    def compare(kernel: KernelBuilder, place: Place, i: Tir, j: Tir) -> Tir:
        """-1, 0 or 1: the order of two slices, the first difference deciding."""
        result = Cell("int64", integer(0))
        with loop(0, kernel.dim(length)) as k:
            with when(eq(result.buffer[0], integer(0))):
                a, b = element(kernel, place, i, k), element(kernel, place, j, k)
                less, more = (goes_before(p, q, x.dtype.is_float, False) for p, q in ((a, b), (b, a)))
                other = unequal(a, b) if x.dtype.is_float else ne(a, b)  # two NaNs: neither goes first, and they differ
                result.set(
                    T.Select(less, integer(-1), T.Select(more, integer(1), T.Select(other, integer(2), integer(0))))
                )
        return result.get()

    def grouping(kernel: KernelBuilder, places: list[Place]) -> None:
        data, first_at, counts_at, inverse_at, count_at = places
        size = kernel.dim(n)
        order = words(kernel)
        start = merge_sort(size, order, lambda i, j: eq(compare(kernel, data, i, j), integer(-1)))
        groups = Cell("int64", integer(0))
        with loop(0, size) as i:
            here = bind(order[start + i])
            previous = bind(order[start + T.max(i - 1, integer(0))])
            differs = compare(kernel, data, previous, here)
            with when(tvm.prim.Or(eq(i, integer(0)), ne(differs, integer(0)))):
                g = groups.get()
                kernel.store(first_at, (g,), here)
                kernel.store(counts_at, (g,), integer(0))
                groups.set(g + 1)
            g = bind(groups.get() - 1)
            kernel.store(inverse_at, (here,), g)
            kernel.store(counts_at, (g,), bind(kernel.load(counts_at, (g,))) + 1)
        kernel.store(count_at, (), groups.get())
        if op.sorted:
            return
        total = groups.get()
        saved = bind(size * 2)  # where order keeps old group -> new group
        fresh = Cell("int64", integer(0))
        with loop(0, size) as i:
            g = bind(kernel.load(inverse_at, (i,)))
            with when(eq(kernel.load(first_at, (g,)), i)):
                T.buffer_store(order, fresh.get(), [saved + g])
                fresh.set(fresh.get() + 1)
        with loop(0, total) as g:
            T.buffer_store(order, kernel.load(first_at, (g,)), [g])
            T.buffer_store(order, kernel.load(counts_at, (g,)), [size + g])
        with loop(0, total) as g:
            to = bind(order[saved + g])
            kernel.store(first_at, (to,), bind(order[g]))
            kernel.store(counts_at, (to,), bind(order[size + g]))
        with loop(0, size) as i:
            kernel.store(inverse_at, (i,), bind(order[saved + bind(kernel.load(inverse_at, (i,)))]))

    _serial(lowering, node, [flat], [first, counts, inverse, count], grouping, "groups", n * 24)
    _define(lowering, op.size, node.op.defines(x)[op.size], count)
    values = lowering.result(node.results[0])
    if op.axis is None:
        to = values
    else:
        to = Place(
            values.buffer,
            (op.size, *inner),
            (values.strides[op.axis], *(values.strides[k] for k in others)),
            values.offset,
        )

    def gathering(kernel: KernelBuilder, places: list[Place]) -> None:
        data, first_at, counts_at, values_at, out_first, out_counts = places
        with loop(0, kernel.dim(op.size)) as g:
            here = bind(kernel.load(first_at, (g,)))
            kernel.store(out_first, (g,), here)
            kernel.store(out_counts, (g,), bind(kernel.load(counts_at, (g,))))
            with loop(0, kernel.dim(length)) as j:
                at = unravel(j, [kernel.dim(d) for d in inner])
                kernel.store(values_at, (g, *at), bind(kernel.load(data, (here, *at))))

    _serial(
        lowering,
        node,
        [flat, first, counts],
        [to, lowering.result(node.results[1]), lowering.result(node.results[3])],
        gathering,
        "slices",
    )


@lowers(Nms)
def nms(lowering: Lowering, node: Node) -> None:
    """Take the best box that is left, drop what overlaps it, repeat: for each batch and class."""
    op: Any = node.op
    boxes, scores = (v.tensor for v in node.operands)
    (most,) = node.op.defines(boxes, scores).values()
    kept, count = lowering.temporary(Tensor(i64, (most, 3))), _count_place(lowering)
    n = scores.shape[2]

    def selecting(kernel: KernelBuilder, places: list[Place]) -> None:
        boxes_at, scores_at, kept_at, count_at = places
        gone = words(kernel)
        total = Cell("int64", integer(0))

        def corners(batch: Tir, box: Tir) -> list[Tir]:
            c = [bind(kernel.load(boxes_at, (batch, box, integer(k)))) for k in range(4)]
            if op.center_point_box:
                half = T.float32(0.5)
                x, y, w, h = c
                return [bind(y - h * half), bind(x - w * half), bind(y + h * half), bind(x + w * half)]
            return [bind(T.min(c[0], c[2])), bind(T.min(c[1], c[3])), bind(T.max(c[0], c[2])), bind(T.max(c[1], c[3]))]

        def area(c: list[Tir]) -> Tir:
            return bind((c[2] - c[0]) * (c[3] - c[1]))

        with loop(0, kernel.dim(scores.shape[0])) as batch, loop(0, kernel.dim(scores.shape[1])) as cls:
            with loop(0, kernel.dim(n)) as i:
                low = T.float32(float("-inf") if op.score_threshold is None else op.score_threshold)
                score = kernel.load(scores_at, (batch, cls, i))
                usable = tvm.prim.GE(score, low) if op.score_threshold is None else tvm.prim.GT(score, low)
                T.buffer_store(gone, T.Select(usable, integer(0), integer(1)), [i])
            going = Cell("int64", integer(0))
            with T.While(going.buffer[0] < integer(max(op.max_output, 0))):
                best = Cell("int64", integer(-1))
                with loop(0, kernel.dim(n)) as i:
                    held = best.get()
                    score = bind(kernel.load(scores_at, (batch, cls, i)))
                    top = bind(kernel.load(scores_at, (batch, cls, T.max(held, integer(0)))))
                    with when(tvm.prim.And(eq(gone[i], integer(0)), tvm.prim.Or(held < 0, tvm.prim.GT(score, top)))):
                        best.set(i)
                chosen = best.get()
                with when(chosen < 0):
                    going.set(integer(1 << 60))
                with when(chosen >= 0):
                    at = total.get()
                    for k, value in enumerate((batch, cls, chosen)):
                        kernel.store(kept_at, (at, integer(k)), value)
                    total.set(at + 1)
                    going.set(going.get() + 1)
                    T.buffer_store(gone, integer(1), [chosen])
                    mine = corners(batch, chosen)
                    size = area(mine)
                    with loop(0, kernel.dim(n)) as i:
                        other = corners(batch, i)
                        zero = T.float32(0)
                        height = T.max(zero, T.min(mine[2], other[2]) - T.max(mine[0], other[0]))
                        width = T.max(zero, T.min(mine[3], other[3]) - T.max(mine[1], other[1]))
                        shared = bind(height * width)
                        union = bind(size + area(other) - shared)
                        with when(tvm.prim.And(union > zero, tvm.prim.GT(shared, union * T.float32(op.iou_threshold)))):
                            T.buffer_store(gone, integer(1), [i])
        kernel.store(count_at, (), total.get())

    _serial(lowering, node, [lowering.place(v) for v in node.operands], [kept, count], selecting, "select", n * 8)
    _define(lowering, op.size, most, count)
    target = lowering.result(node.result)
    lowering.copy(Place(kept.buffer, node.result.shape, (3, 1)), target, node.result.tensor)
