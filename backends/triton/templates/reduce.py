"""Reductions: a block of rows by a block of what is reduced.

A region has one or more reductions over the same axes, and maps before, between and behind them (softmax, norms, sums
with a prologue). Rows that fit one block are read once; longer ones are read once for each reduction that depends on
the last, and once for the results.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from effcc.backends.triton.expressions import filled, literal, rounded, typed
from effcc.backends.triton.kernel import ZERO, Code, KernelText, block_size, delinearize, register_dtype
from effcc.backends.triton.region import Point
from effcc.backends.triton.templates.shape import Shape
from effcc.backends.tvm.place import Place
from effcc.ir import Graph, Node, Value
from effcc.ir.dims import ceildiv, product
from effcc.ir.scalar import PARALLEL, REDUCTION, Apply, Compute, Literal, Scalar, State

WHOLE = 4096
"""The longest row that is held in registers."""
CHUNK = 1024
ELEMENTS = 4096
"""How many elements a block should have."""
COMBINE = {"add": "add", "mul": "multiply", "max": "greater", "min": "lesser", "and": "both", "or": "either"}
OPERATORS = {"add": "+", "mul": "*", "and": "&", "or": "|"}


@dataclass(frozen=True)
class Fold:
    """state = fn(state, x), fn associative and commutative, from `start`."""

    fn: str
    x: Scalar
    start: Literal


def folded(nest: Compute) -> Fold | None:
    """The fold of a nest that has one such state; else None."""
    if len(nest.step) != 1 or nest.write is not None or REDUCTION not in nest.kinds or "s" in nest.kinds:
        return None
    step, start = nest.step[0], nest.init[0]
    if not isinstance(step, Apply) or step.fn not in COMBINE or not isinstance(start, Literal):
        return None
    a, b = step.args
    if isinstance(a, State) == isinstance(b, State):
        return None
    return Fold(step.fn, b if isinstance(a, State) else a, start)


def reduction(graph: Graph, anchors: list[Node], places: Mapping[Value, Place]) -> Shape:
    """A region whose anchors all reduce the same axes of the same space; `folded` takes each."""
    nest: Any = anchors[0].op.compute(*anchors[0].types)
    rows = product(nest.extents[a] for a in nest.axes(PARALLEL))
    length = product(nest.extents[a] for a in nest.axes(REDUCTION))
    whole = isinstance(length, int) and length <= WHOLE
    columns = block_size(length, WHOLE) if whole else CHUNK
    lanes = block_size(rows, max(1, min(64, ELEMENTS // columns)))

    def body(k: KernelText) -> None:
        block = Block(k, graph, anchors, places, nest, lanes, columns)
        (block.emit_whole if whole else block.emit_chunks)()

    warps = 8 if lanes * columns >= 4096 else 4 if lanes * columns >= 256 else 1
    return Shape(ceildiv(rows, lanes), body, warps, 1 if whole else 2)


@dataclass
class Block:
    """The kernel of a region under construction."""

    k: KernelText
    graph: Graph
    anchors: list[Node]
    places: Mapping[Value, Place]
    nest: Compute
    lanes: int
    columns: int
    row: dict[int, Code] = field(default_factory=dict)
    """The rows' part of the index, by the nest's axes."""

    @cached_property
    def point(self) -> Point:
        return Point(self.k, self.graph, self.places)

    @property
    def results(self) -> list[Value]:
        return list(dict.fromkeys(self.graph.results))

    def emit_whole(self) -> None:
        """Each element is computed once and kept."""
        self._rows()
        full = self._columns("0")
        for node in self.anchors:
            self._supply(node, self._element(node, self.point, full))
        self._store(self.point, self.results, full)

    def emit_chunks(self) -> None:
        """Rounds of reductions, each a loop over the row; then the results."""
        self._rows()
        for group in rounds(self.graph, self.anchors):
            sums = [self._running(node) for node in group]
            with self._chunks() as (here, full):
                for node, total in zip(group, sums, strict=True):
                    x = self._element(node, here, full)
                    self.k.line(f"{total.text} = {self._combined(self._fold(node).fn, total, x)}")
            for node, total in zip(group, sums, strict=True):
                self._supply(node, total)
        row = tuple(self.nest.extents[a] for a in self.nest.axes(PARALLEL))
        once = [v for v in self.results if v.shape == row]
        self._store(self.point, once, self.row)
        rest = [v for v in self.results if v.shape != row]
        if rest:
            with self._chunks() as (here, full):
                self._store(here, rest, full)

    # -- index ---------------------------------------------------------------------------------------------------------
    def _rows(self) -> None:
        outer = self.nest.axes(PARALLEL)
        extents = [self.nest.extents[a] for a in outer]
        p = self.k.axis("p", f"{self.k.program_id()} * {self.lanes}", self.lanes, product(extents), "[:, None]")
        self.row = dict(zip(outer, delinearize(self.k, p, extents, "p"), strict=True))

    def _columns(self, start: str) -> dict[int, Code]:
        """Declares a chunk's columns; the whole index, by the nest's axes."""
        inner = self.nest.axes(REDUCTION)
        extents = [self.nest.extents[a] for a in inner]
        r = self.k.axis("r", start, self.columns, product(extents), "[None, :]")
        return {**self.row, **dict(zip(inner, delinearize(self.k, r, extents, "r"), strict=True))}

    def _chunks(self) -> Any:
        return _Chunks(self)

    # -- folds ---------------------------------------------------------------------------------------------------------
    def _fold(self, node: Node) -> Fold:
        own: Any = node.op.compute(*node.types)
        found = folded(own)
        assert found is not None and (own.extents, own.kinds) == (self.nest.extents, self.nest.kinds), (
            "reductions over different axes in one region")
        return found

    def _element(self, node: Node, point: Point, full: Mapping[int, Code]) -> Code:
        """What a reduction folds, at the block; columns beyond the row are neutral."""
        fold = self._fold(node)
        x = point.emitter(node, _in_order(full, self.nest), self.nest.extents)(fold.x)
        x = typed(x, fold.start.dtype)
        text = x.text if x.axes == {"p", "r"} else f"tl.broadcast_to({x.text}, [{self.lanes}, {self.columns}])"
        if self.k.masks["r"] is not None:
            text = f"tl.where({self.k.masks['r']}, {text}, {literal(fold.start.value, fold.start.dtype).text})"
        return Code(text, register_dtype(fold.start.dtype), frozenset("pr"))

    def _running(self, node: Node) -> Code:
        start = self._fold(node).start
        name = self.k.fresh("sum")
        number = literal(start.value, start.dtype)
        self.k.line(f"{name} = {filled(f'[{self.lanes}, {self.columns}]', number, start.dtype)}")
        return Code(name, register_dtype(start.dtype), frozenset("pr"))

    def _combined(self, fn: str, a: Code, b: Code) -> str:
        if fn in OPERATORS:
            return f"{a.atom} {OPERATORS[fn]} {b.atom}"
        return f"{self.k.function(COMBINE[fn])}({a.text}, {b.text})"

    def _supply(self, node: Node, x: Code) -> None:
        """Reduce along the rows, finish (a mean divides), and let the region read it."""
        helper = self.k.function(COMBINE[self._fold(node).fn])
        total = Code(f"tl.reduce({x.text}, 1, {helper}, keep_dims=True)", x.dtype, frozenset("p"))
        own: Any = node.op.compute(*node.types)
        states = (self.k.bind("total", total),)
        emit = self.point.emitter(node, _in_order(self.row, self.nest), self.nest.extents, states)
        value = self.k.bind(node.op.name, rounded(emit(own.results[0]), node.result.dtype))
        self.point.given[node.result] = lambda _: value

    # -- results -------------------------------------------------------------------------------------------------------
    def _store(self, point: Point, values: Sequence[Value], full: Mapping[int, Code]) -> None:
        """Store values at the rows, or at each element of the rows (whose reduced axes are then the trailing ones)."""
        outer, inner = self.nest.axes(PARALLEL), self.nest.axes(REDUCTION)
        row = tuple(self.nest.extents[a] for a in outer)
        for v in values:
            at = tuple(full[a] for a in outer)
            if v.shape != row:  # axes that were kept with size 1 make room for the reduced ones
                at = (*at[: len(v.shape) - len(inner)], *(full[a] for a in inner))
            self.k.store(self.places[v], at, point.value(v, at))


class _Chunks:
    """A loop over the row's chunks, as a context: (the values inside, the index)."""

    def __init__(self, block: Block):
        self.block = block

    def __enter__(self) -> tuple[Point, dict[int, Code]]:
        k, nest = self.block.k, self.block.nest
        length = product(nest.extents[a] for a in nest.axes(REDUCTION))
        self.loop = k.loop("start", k.dim(length), str(self.block.columns))
        start = self.loop.__enter__()
        return self.block.point.inside(), self.block._columns(start)

    def __exit__(self, *error: Any) -> None:
        self.loop.__exit__(*error)


def _in_order(index: Mapping[int, Code], nest: Compute) -> list[Code]:
    return [index.get(a, ZERO) for a in range(len(nest.extents))]


def rounds(graph: Graph, anchors: list[Node]) -> list[list[Node]]:
    """Reductions in rounds: each depends on those of earlier rounds alone."""
    depth: dict[Value, int] = {}
    out: list[list[Node]] = []
    for node in graph.nodes:
        below = max((depth.get(v, 0) for v in node.operands), default=0)
        if node in anchors:
            while len(out) <= below:
                out.append([])
            out[below].append(node)
            below += 1
        depth.update(dict.fromkeys(node.results, below))
    return out
