"""Contractions through tl.dot: matrix products, batched ones, and convolutions as implicit matrix products.

What a contraction is, is read off the loop nest: one state, step = state + x · y. Parallel axes on which only x depends
are rows (M), those on which only y depends are columns (N), those of both are batch; the reduction axes are K.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from effcc.backends.triton.expressions import Emitter, rounded
from effcc.backends.triton.kernel import (
    ZERO,
    Code,
    KernelText,
    block_size,
    delinearize,
    divided,
    name_of,
    remaining,
    scaled,
)
from effcc.backends.triton.region import Point
from effcc.backends.triton.templates.shape import Shape
from effcc.backends.tvm.place import Place
from effcc.ir import DType, Graph, Node, Value
from effcc.ir.dims import Dim, bounds, ceildiv, product
from effcc.ir.scalar import PARALLEL, REDUCTION, Apply, Compute, Index, Literal, Read, Scalar, State, walk
from effcc.ir.types import bf16, f16, f32, i8, i32

DOT_TYPES: dict[DType, DType] = {f32: f32, f16: f32, bf16: f32, i8: i32}
"""What tl.dot multiplies -> what it sums in."""
PROGRAMS = 128
"""Tiles shrink until a launch has about one for each multiprocessor."""


@dataclass(frozen=True)
class Factor:
    """One side of the product: an operand's element, zero where `inside` is false."""

    read: Read
    inside: Scalar | None


@dataclass(frozen=True)
class Contraction:
    """The axes of a nest by role, and its factors."""

    nest: Compute
    x: Factor
    y: Factor
    batch: tuple[int, ...]
    rows: tuple[int, ...]
    columns: tuple[int, ...]
    inner: tuple[int, ...]
    dtype: DType

    def size(self, axes: tuple[int, ...]) -> Dim:
        return product(self.nest.extents[a] for a in axes)


def contraction_of(anchor: Node) -> Contraction | None:
    """How tl.dot computes a node, or None where it does not."""
    nest = anchor.op.compute(*anchor.types)
    if nest is None or len(nest.step) != 1 or nest.write is not None or set(nest.kinds) - {PARALLEL, REDUCTION}:
        return None
    step, start = nest.step[0], nest.init[0]
    if not (isinstance(step, Apply) and step.fn == "add" and isinstance(step.args[0], State)):
        return None
    term = step.args[1]
    if not (isinstance(term, Apply) and term.fn == "mul" and isinstance(start, Literal) and start.value == 0):
        return None
    x, y = (_factor(a) for a in term.args)
    if x is None or y is None:
        return None
    dtypes = {anchor.operands[f.read.operand].dtype for f in (x, y)}
    if len(dtypes) != 1 or DOT_TYPES.get(dtype := dtypes.pop()) != start.dtype:
        return None
    parallel, of_x, of_y = set(nest.axes(PARALLEL)), _axes(x), _axes(y)
    both = of_x & of_y & parallel
    rows, columns = (of_x & parallel) - both, (of_y & parallel) - both
    spare = parallel - of_x - of_y  # of size 1, or repeated: as good as rows
    rows |= spare
    batch, m, n = (tuple(sorted(axes)) for axes in (both, rows, columns))
    made = Contraction(nest, x, y, batch, m, n, nest.axes(REDUCTION), dtype)
    narrow = bounds(made.size(made.columns))[1]
    if narrow is not None and narrow < 2 or any(nest.extents[a] == 0 for a in made.inner):
        return None
    return made


def _factor(s: Scalar) -> Factor | None:
    """A read under casts, maybe with zeros outside of the operand."""
    if isinstance(s, Apply) and s.fn == "select":
        condition, inner, zero = s.args
        found = _factor(inner)
        plain = isinstance(zero, Literal) and zero.value == 0 and found is not None and found.inside is None
        return Factor(found.read, condition) if plain and found is not None else None
    while isinstance(s, Apply) and s.fn == "cast":
        s = s.args[0]
    return Factor(s, None) if isinstance(s, Read) else None


def _axes(f: Factor) -> set[int]:
    roots = (f.read,) if f.inside is None else (f.read, f.inside)
    return {s.axis for s in walk(*roots) if isinstance(s, Index)}


def tiles(c: Contraction) -> tuple[int, int, int, int]:
    """(rows, columns, depth of a tile, warps): the largest that still gives every multiprocessor one."""
    most = 64 if c.dtype == f32 else 128
    m, n, k = (c.size(axes) for axes in (c.rows, c.columns, c.inner))
    bm, bn = block_size(m, most, 16), block_size(n, most, 16)
    bk = block_size(k, 32 if c.dtype == f32 else 64, 32 if c.dtype == i8 else 16)

    def programs() -> int:
        total = bounds(c.size(c.batch) * ceildiv(m, bm) * ceildiv(n, bn))[1]
        return PROGRAMS if total is None else total

    least = 32 if c.dtype == f32 else 64  # rows that a warp group multiplies at once from sm_90 on
    while programs() < PROGRAMS and (bm > least or bn > 32):
        if bm > least and (bm >= bn or bn <= 32):
            bm //= 2
        else:
            bn //= 2
    return bm, bn, bk, 8 if bm * bn >= 128 * 128 else 4 if bm * bn >= 32 * 32 else 2


def contraction(graph: Graph, anchor: Node, c: Contraction, places: Mapping[Value, Place], tf32: bool = False) -> Shape:
    """A product with the elementwise rest of its region behind it, and whatever makes its operands before it."""
    nest, out = c.nest, anchor.result
    m, n, depth = (c.size(axes) for axes in (c.rows, c.columns, c.inner))
    bm, bn, bk, warps = tiles(c)
    sum_dtype = DOT_TYPES[c.dtype]
    order = _inner_order(c, anchor, places)

    def body(k: KernelText) -> None:
        pid = k.program_id()
        across, down = ceildiv(n, bn), ceildiv(m, bm)
        batch = [ZERO] * len(c.batch)
        if c.batch:
            per = k.dim(across * down)
            k.line(f"batch = {divided(pid, per)}")
            k.line(f"tile = {remaining(pid, per)}")
            batch = delinearize(k, Code("batch", k.index_dtype), [nest.extents[a] for a in c.batch], "b")
            pid = "tile"
        down_at, across_at = divided(pid, k.dim(across)), remaining(pid, k.dim(across))
        if down == 1:
            down_at, across_at = "0", "0" if across == 1 else pid
        row = k.axis("m", scaled(down_at, bm), bm, m, "[:, None]")
        column = k.axis("n", scaled(across_at, bn), bn, n, "[None, :]")
        index: dict[int, Code] = dict(zip(c.batch, batch, strict=True))
        index |= dict(zip(c.rows, delinearize(k, row, [nest.extents[a] for a in c.rows], "m"), strict=True))
        index |= dict(zip(c.columns, delinearize(k, column, [nest.extents[a] for a in c.columns], "n"), strict=True))
        point = Point(k, graph, places)
        acc = k.fresh("acc")
        k.line(f"{acc} = tl.full([{bm}, {bn}], 0, {name_of(sum_dtype)})")
        with k.loop("start", k.dim(depth), str(bk)) as start:
            here = point.inside()
            x = _tile(k, here, anchor, c, c.x, index, order, k.axis("kx", start, bk, depth, "[None, :]"), (bm, bk))
            y = _tile(k, here, anchor, c, c.y, index, order, k.axis("ky", start, bk, depth, "[:, None]"), (bk, bn))
            exact = ', input_precision="ieee"' if c.dtype == f32 and not tf32 else ""
            k.line(f"{acc} = tl.dot({x}, {y}, {acc}{exact}{_out(c)})")
        total = Code(acc, sum_dtype, frozenset("mn"))
        at = [index[a] for a in nest.axes(PARALLEL)]
        emit = point.emitter(anchor, [index.get(a, ZERO) for a in range(len(nest.extents))], nest.extents, (total,))
        value = k.bind(anchor.op.name, rounded(emit(nest.results[0]), out.dtype))
        point.given[out] = lambda _: value
        for v in dict.fromkeys(graph.results):
            k.store(places[v], at, point.value(v, tuple(at)))

    programs = c.size(c.batch) * ceildiv(m, bm) * ceildiv(n, bn)
    return Shape(programs, body, warps, 3)


def _out(c: Contraction) -> str:
    return ", out_dtype=tl.int32" if c.dtype == i8 else ""


def _inner_order(c: Contraction, anchor: Node, places: Mapping[Value, Place]) -> tuple[int, ...]:
    """The reduction axes, that along which x lies densest last."""
    v = anchor.operands[c.x.read.operand]
    if v not in places:
        return c.inner

    def stride(axis: int) -> float:
        for at, s in zip(c.x.read.index, places[v].strides, strict=True):
            if any(isinstance(x, Index) and x.axis == axis for x in walk(at)):
                return s if isinstance(s, int) else float("inf")
        return float("inf")

    return tuple(sorted(c.inner, key=lambda a: -stride(a)))


def _tile(
    k: KernelText, point: Point, anchor: Node, c: Contraction, f: Factor, index: Mapping[int, Code],
    order: tuple[int, ...], depth: Code, shape: tuple[int, int],
) -> str:
    """A factor's tile as a variable's name, zero beyond the ends of K and outside of the operand."""
    inner = delinearize(k, depth, [c.nest.extents[a] for a in order], depth.text)
    full = {**index, **dict(zip(order, inner, strict=True))}
    at = [full.get(a, ZERO) for a in range(len(c.nest.extents))]
    emit: Emitter = point.emitter(anchor, at, c.nest.extents)
    where = tuple(emit(i) for i in f.read.index)
    inside = None if f.inside is None else k.bind("inside", emit(f.inside))
    v = anchor.operands[f.read.operand]
    code = point.stored(v, where, inside)
    mask = k.masks[depth.text]
    if not point.is_loaded(v):
        guards = [g for g in (mask, inside.atom if inside is not None else None) if g]
        if guards:
            code = Code(f"tl.where({' & '.join(guards)}, {code.text}, 0)", code.dtype, code.axes)
    name = k.fresh("x" if f is c.x else "y")
    rows = "m" if f is c.x else depth.text
    columns = depth.text if f is c.x else "n"
    spread = code.axes != {rows, columns}
    text = f"tl.broadcast_to({code.text}, [{shape[0]}, {shape[1]}])" if spread else code.text
    k.line(f"{name} = {text}")
    return name


__all__ = ["Contraction", "contraction", "contraction_of", "tiles"]
