"""Which part of each operand a part of the results needs: interval arithmetic over access maps, for all tiles at once.

A box has an interval of indices for each axis of a value, for each of T tiles. Boxes go backwards through a region,
node by node: the box of a node's results bounds its loop variables (reduction and scan axes run over all of their
extents), and evaluating the index expressions of its reads on intervals gives the boxes of its operands. What depends
on data, or on arithmetic without a rule here, is the whole axis.

    conv:     [o0 s - p, (o1 - 1) s + (k - 1) d - p + 1), cut off at the image's edge
    matmul:   the same rows, all of K
    softmax:  the whole of the reduced axis
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from effcc.ir import Builder, Graph, Node, Value, i64
from effcc.ir.builder import spelled_out
from effcc.ir.scalar import PARALLEL, REDUCTION, Apply, Index, Literal, Scalar, Size, walk
from effcc.ops.constant import Const

Bounds = tuple[Any, Any]
"""The least and the greatest value: integers, or arrays [T] of int64."""


@dataclass(frozen=True, eq=False)
class Box:
    """The indices low..high (inclusive) of each axis, for each tile: int64 arrays [rank, T]."""

    low: np.ndarray[Any, Any]
    high: np.ndarray[Any, Any]

    @property
    def tiles(self) -> int:
        return self.low.shape[1]

    def hull(self, other: Box) -> Box:
        """The least box that contains both."""
        return Box(np.minimum(self.low, other.low), np.maximum(self.high, other.high))


def whole(shape: tuple[int, ...], tiles: int) -> Box:
    """All of a value."""
    extents = np.array(shape, np.int64).reshape(-1, 1)
    return Box(np.zeros((len(shape), tiles), np.int64), np.repeat(extents - 1, tiles, axis=1))


def needed(graph: Graph, results: Mapping[Value, Box]) -> dict[Value, Box]:
    """The boxes of a region's inputs that these boxes of its results need. All sizes are integers."""
    boxes = dict(results)
    for node in reversed(graph.nodes):
        wanted = [(v, boxes[v]) for v in node.results if v in boxes]
        if not wanted or isinstance(node.op, Const):
            continue
        for v, box in _operands(node, dict(wanted)).items():
            boxes[v] = boxes[v].hull(box) if v in boxes else box
    return {v: boxes[v] for v in graph.inputs if v in boxes}


def _operands(node: Node, wanted: dict[Value, Box]) -> dict[Value, Box]:
    """The boxes of a node's operands for boxes of its results."""
    tiles = next(iter(wanted.values())).tiles
    everything = {v: whole(v.shape, tiles) for v in node.operands}
    nest = node.op.compute(*node.types)
    if nest is None:
        return _of_composite(node, wanted) or everything
    if nest.write is not None or nest.initial is not None:
        return everything
    points = wanted[min(wanted, key=node.results.index)]
    for box in wanted.values():
        if box.low.shape != points.low.shape:
            return everything
        points = points.hull(box)
    axes: list[Bounds] = []
    stored = 0
    for extent, kind in zip(nest.extents, nest.kinds, strict=True):
        axes.append((points.low[stored], points.high[stored]) if kind == PARALLEL else (0, extent - 1))
        stored += kind != REDUCTION
    reads = list(nest.reads())
    known = _evaluate([i for read in reads for i in read.index], axes)
    boxes: dict[Value, Box] = {}
    for read in reads:
        v = node.operands[read.operand]
        box = whole(v.shape, tiles)
        for axis, (i, extent) in enumerate(zip(read.index, v.shape, strict=True)):
            bounds = known[id(i)]
            if bounds is not None:
                box.low[axis] = np.clip(bounds[0], 0, extent - 1)
                box.high[axis] = np.clip(bounds[1], 0, extent - 1)
        boxes[v] = boxes[v].hull(box) if v in boxes else box
    return boxes


def _of_composite(node: Node, wanted: dict[Value, Box]) -> dict[Value, Box] | None:
    """Through the smaller ops that an op consists of; None where there are none."""
    b = Builder(node.op.name)
    inputs = {v: b.input(f"x{k}", v.type) for k, v in enumerate(dict.fromkeys(node.operands))}
    made = spelled_out(b, node.op, tuple(inputs[v] for v in node.operands))
    if made is None:
        return None
    inner = dict(zip(node.results, made, strict=True))
    boxes = needed(b.graph(*made), {inner[v]: box for v, box in wanted.items()})
    return {v: boxes[x] for v, x in inputs.items() if x in boxes}


def _evaluate(roots: list[Scalar], axes: list[Bounds]) -> dict[int, Bounds | None]:
    """The bounds of each expression by id; None where unknown."""
    known: dict[int, Bounds | None] = {}
    for x in walk(*roots):
        match x:
            case Scalar(dtype) if dtype != i64:
                known[id(x)] = None
            case Literal(_, value):
                known[id(x)] = (int(value), int(value))
            case Size(_, dim):
                known[id(x)] = (dim, dim) if isinstance(dim, int) else None
            case Index(_, axis):
                known[id(x)] = axes[axis]
            case Apply(_, fn, args):
                given = [known[id(a)] for a in (args[1:] if fn == "select" else args)]
                known[id(x)] = _apply(fn, given) if all(g is not None for g in given) else None  # type: ignore[arg-type]
            case _:
                known[id(x)] = None
    return known


def _apply(fn: str, given: list[Bounds]) -> Bounds | None:
    """A function of intervals; None without a rule."""
    if fn in ("cast", "neg", "abs") or len(given) != 2:
        return given[0] if fn == "cast" else (-given[0][1], -given[0][0]) if fn == "neg" else None
    (a, b), (c, d) = given
    match fn:
        case "add":
            return a + c, b + d
        case "sub":
            return a - d, b - c
        case "mul":
            corners = (a * c, a * d, b * c, b * d)
            return _least(*corners), _greatest(*corners)
        case "min":
            return np.minimum(a, c), np.minimum(b, d)
        case "max":
            return np.maximum(a, c), np.maximum(b, d)
        case "select":
            return np.minimum(a, c), np.maximum(b, d)
        case "floordiv" | "div" | "mod" | "fmod":
            return _divided(fn, a, b, c, d)
    return None


def _divided(fn: str, a: Any, b: Any, c: Any, d: Any) -> Bounds | None:
    """By a positive constant; those that round toward zero only of what is not negative."""
    if not (isinstance(c, int) and c == d and c > 0):
        return None
    if fn in ("div", "fmod") and np.any(np.less(a, 0)):
        return None
    if fn in ("floordiv", "div"):
        return a // c, b // c
    one_period = np.equal(a // c, b // c)
    return np.where(one_period, a % c, 0), np.where(one_period, b % c, c - 1)


def _least(*values: Any) -> Any:
    return np.minimum(np.minimum(values[0], values[1]), np.minimum(values[2], values[3]))


def _greatest(*values: Any) -> Any:
    return np.maximum(np.maximum(values[0], values[1]), np.maximum(values[2], values[3]))
