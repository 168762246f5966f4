"""Maps: one lane for each element of the results' shape."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from effcc.backends.triton.expressions import Emitter, rounded, widened
from effcc.backends.triton.kernel import Code, KernelText, block_size, delinearize
from effcc.backends.triton.region import Point, constant
from effcc.backends.triton.templates.shape import Shape
from effcc.backends.tvm.place import Place, merge_axes
from effcc.ir import Graph, Value
from effcc.ir.dims import Dim, ceildiv, product
from effcc.ir.scalar import Read
from effcc.ops.constant import Const
from effcc.ops.elementwise import Elementwise

BLOCK = 1024


def pointwise(graph: Graph, places: Mapping[Value, Place]) -> Shape:
    """A region of maps over one space."""
    space = graph.results[0].shape
    total = product(space)
    block = block_size(total, BLOCK, 32)
    elementwise = all(isinstance(n.op, (Elementwise, Const)) for n in graph.nodes)

    def body(k: KernelText) -> None:
        i = k.axis("i", f"{k.program_id()} * {block}", block, total)
        if elementwise:
            flat = Flat(k, graph, places, space, i)
            for v in dict.fromkeys(graph.results):
                k.store(places[v], flat.index, flat.value(v), flat.strides[v])
            return
        at = tuple(delinearize(k, i, space, "i"))
        point = Point(k, graph, places)
        for v in dict.fromkeys(graph.results):
            k.store(places[v], at, point.value(v, at))

    return Shape(ceildiv(total, block), body, 4 if block >= 512 else 1)


class Flat:
    """One point of a space that elementwise ops are broadcast to; adjacent axes that every value walks as one are
    merged, so that most regions need no division."""

    def __init__(
        self, kernel: KernelText, graph: Graph, places: Mapping[Value, Place], space: tuple[Dim, ...], linear: Code
    ):
        self.kernel, self.graph, self.places = kernel, graph, places
        placed = [v for v in dict.fromkeys((*graph.inputs, *graph.results)) if v in places]
        aligned = {v: places[v].aligned_strides(space) for v in placed}
        runs = merge_axes(space, list(aligned.values()))
        self.strides = {v: tuple(x[run[-1]] for run in runs) for v, x in aligned.items()}
        self.index = tuple(delinearize(kernel, linear, [product(space[a] for a in run) for run in runs], "i"))
        self.memo: dict[Value, Code] = {}

    def value(self, v: Value) -> Code:
        if v not in self.memo:
            node = self.graph.producer(v)
            stem = "x" if node is None else node.op.name if len(node.op.name) < 12 else "v"
            self.memo[v] = self.kernel.bind(stem, self._value(v, node))
        return self.memo[v]

    def _value(self, v: Value, node: Any) -> Code:
        if node is None:
            return widened(self.kernel.load(self.places[v], self.index, self.strides[v]))
        if isinstance(node.op, Const):
            return constant(node.op)
        reads = tuple(Read(o.dtype, k, ()) for k, o in enumerate(node.operands))
        emit = Emitter(self.kernel, (), (), lambda k, _: self.value(node.operands[k]))
        return rounded(emit(node.op.scalar(*reads)), v.dtype)
