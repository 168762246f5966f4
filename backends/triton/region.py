"""The values of a fused region at points of a kernel: the prologue and the epilogue of every template."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from effcc.backends.triton.expressions import Emitter, literal, rounded, widened
from effcc.backends.triton.kernel import Code, KernelText, name_of, register_dtype
from effcc.backends.tvm.place import Place
from effcc.ir import Graph, Node, Value
from effcc.ir.scalar import Scalar
from effcc.ops.constant import Const

Given = Callable[[tuple[Code, ...]], Code]


class Point:
    """Values at indices of their own shapes, each loaded or computed once within a scope of the kernel's text.

    given: values that the template supplies (an accumulator, a finished reduction), by index.
    """

    def __init__(
        self, kernel: KernelText, graph: Graph, places: Mapping[Value, Place],
        given: Mapping[Value, Given] | None = None, memo: ChainMap[Any, Code] | None = None,
    ):
        self.kernel, self.graph, self.places = kernel, graph, places
        self.given = dict(given or {})
        self.memo: ChainMap[Any, Code] = ChainMap() if memo is None else memo

    def inside(self, given: Mapping[Value, Given] | None = None) -> Point:
        """For the body of a loop: sees what was computed before it, and leaves nothing behind."""
        return Point(self.kernel, self.graph, self.places, {**self.given, **(given or {})}, self.memo.new_child())

    def value(self, v: Value, index: tuple[Code, ...]) -> Code:
        """v[index...] in a register, rounded to v's dtype."""
        key = (v, tuple(i.text for i in index))
        if key not in self.memo:
            self.memo[key] = self.kernel.bind(_stem(self.graph, v), self._value(v, index))
        return self.memo[key]

    def stored(self, v: Value, index: tuple[Code, ...], condition: Code | None = None) -> Code:
        """v[index...] as memory holds it: without a conversion where it lies there; 0 where `condition` is false."""
        if self.is_loaded(v):
            return self.kernel.load(self.places[v], index, condition=condition)
        code = self.value(v, index)
        if register_dtype(v.dtype) == v.dtype:
            return code
        return Code(f"{code.atom}.to({name_of(v.dtype)})", v.dtype, code.axes)

    def is_loaded(self, v: Value) -> bool:
        return v not in self.given and self.graph.producer(v) is None

    def emitter(
        self, node: Node, index: Sequence[Code], extents: Sequence[Any], states: Sequence[Code] = (),
        old: Sequence[Code] = (),
    ) -> Emitter:
        """Emits scalars of a node's loop nest at a point of its iteration space."""
        return Emitter(self.kernel, index, extents, lambda k, at: self.value(node.operands[k], at), states, old)

    def _value(self, v: Value, index: tuple[Code, ...]) -> Code:
        if v in self.given:
            return self.given[v](index)
        node = self.graph.producer(v)
        if node is None:
            return widened(self.kernel.load(self.places[v], index))
        if isinstance(node.op, Const):
            return constant(node.op)
        nest = node.op.compute(*node.types)
        assert nest is not None and nest.is_map, f"{node.op.name} is no map"
        result: Scalar = nest.results[node.results.index(v)]
        return rounded(self.emitter(node, index, nest.extents)(result), v.dtype)


def constant(op: Const) -> Code:
    """A one-element constant as a number in the code."""
    element = op.blob.array.reshape(-1)[0]
    dtype = op.blob.type.dtype
    number = bool(element) if dtype.is_bool else float(element) if dtype.is_float else int(element)
    return literal(number, dtype)


def _stem(graph: Graph, v: Value) -> str:
    node = graph.producer(v)
    if node is None:
        return "x"
    return node.op.name if node.op.name.isidentifier() and len(node.op.name) < 12 else "v"
