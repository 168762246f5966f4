"""Evaluating the values of a fused region at points of an iteration space: prologues and epilogues of every
template."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from effcc.backends.tvm.emit import Emitter, KernelBuilder
from effcc.backends.tvm.place import Place
from effcc.backends.tvm.templates import emission
from effcc.backends.tvm.values import bind, literal, register_dtype, round_to
from effcc.ir import Graph, Node, Value
from effcc.ir.dims import Dim
from effcc.ir.lazy import tvm
from effcc.ir.scalar import Read
from effcc.ops.constant import Const
from effcc.ops.elementwise import Elementwise

Tir = Any


LIGHT = frozenset({"add", "sub", "mul", "max", "min", "neg", "abs", "relu", "clip", "cast"})
"""Ops of about one instruction a vector."""
MOST_LIGHT = 4


def is_light(body: Graph) -> bool:
    """Whether what a region does beside one window or product, if it has one, takes so few instructions that it may be
    repeated for each register."""
    rest = [n for n in body.nodes if n.op.family not in ("window", "contraction") and not isinstance(n.op, Const)]
    return len(rest) <= MOST_LIGHT and all(n.op.name in LIGHT for n in rest)


class Point:
    """Values at indices of their own shapes, within one scope of generated code. Each is loaded or computed once.

    given: values that the template supplies (an anchor's accumulator, a finished reduction), by index.
    """

    def __init__(
        self,
        kernel: KernelBuilder,
        graph: Graph,
        places: dict[Value, Place],
        given: dict[Value, Callable[[tuple[Tir, ...]], Tir]] | None = None,
    ):
        self.kernel, self.graph, self.places, self.given = kernel, graph, places, given or {}
        self.memo: dict[Any, tuple[Tir, tuple[Tir, ...]]] = {}
        self.data = integer_data(graph)

    def value(self, v: Value, index: tuple[Tir, ...]) -> Tir:
        """v[index...] as a register value; a vector where an index is one."""
        key = (v, tuple(_key(i) for i in index))
        if key not in self.memo:
            self.memo[key] = (named(self._value(v, index), v in self.data), index)
        return self.memo[key][0]

    def _value(self, v: Value, index: tuple[Tir, ...]) -> Tir:
        if v in self.given:
            return self.given[v](index)
        node = self.graph.producer(v)
        if node is None:
            return self.kernel.load(self.places[v], index)
        if isinstance(node.op, Const):
            return constant(node.op)
        nest = node.op.compute(*node.types)
        assert nest is not None and nest.is_map, f"{node.op.name} is no map"
        emit = Emitter(self.kernel, index, lambda k, at: self.value(node.operands[k], at))
        return round_to(emit(nest.results[node.results.index(v)]), v.dtype)


def named(x: Tir, data: bool) -> Tir:
    """A register value, computed once. Integers that are data are no variables: TVM would write what they are made of
    out at each use, and what that is made of (see emission.bind). Those that tell positions are, for its analyzer."""
    return emission.hold(x) if data else bind(x)


def integer_data(graph: Graph) -> set[Value]:
    """The integers that elementwise ops of a region make of what it reads: not of positions and numbers alone."""
    read = set(graph.inputs)
    for node in graph.nodes:
        if any(v in read for v in node.operands):
            read.update(node.results)
    made = (n.result for n in graph.nodes if isinstance(n.op, Elementwise))
    return {v for v in made if v in read and v.dtype.is_integer}


def _key(i: Tir) -> Any:
    return ("literal", int(i)) if isinstance(i, tvm.prim.IntImm) else id(i)


def constant(op: Const) -> Tir:
    """A one-element constant as an immediate."""
    element = op.blob.array.reshape(-1)[0]
    dtype = op.blob.type.dtype
    number = bool(element) if dtype.is_bool else float(element) if dtype.is_float else int(element)
    return literal(register_dtype(dtype), number)


def is_immediate(op: object) -> bool:
    """Whether a constant goes into the code rather than into memory."""
    return isinstance(op, Const) and op.blob.type.size == 1


class FlatPoint:
    """One point of a space that a region of elementwise ops is broadcast to: indices are the space's (merged) ones,
    so each
    value is just its formula of its operands at the same point.

    strides: for each placed value, its strides along the space's merged axes.
    """

    def __init__(
        self,
        kernel: KernelBuilder,
        graph: Graph,
        places: dict[Value, Place],
        strides: dict[Value, tuple[Dim, ...]],
        index: tuple[Tir, ...],
        given: dict[Value, Tir] | None = None,
    ):
        self.kernel, self.graph, self.places, self.strides, self.index = kernel, graph, places, strides, index
        self.memo: dict[Value, Tir] = dict(given or {})
        self.data = integer_data(graph)

    def value(self, v: Value) -> Tir:
        if v not in self.memo:
            self.memo[v] = named(self._value(v), v in self.data)
        return self.memo[v]

    def _value(self, v: Value) -> Tir:
        node = self.graph.producer(v)
        if node is None:
            return self.kernel.load(self.places[v], self.index, self.strides[v])
        if isinstance(node.op, Const):
            return constant(node.op)
        return self.formula(node)

    def formula(self, node: Node) -> Tir:
        assert isinstance(node.op, Elementwise)
        reads = tuple(Read(o.dtype, k, ()) for k, o in enumerate(node.operands))
        emit = Emitter(self.kernel, (), lambda k, _: self.value(node.operands[k]))
        return round_to(emit(node.op.scalar(*reads)), node.result.dtype)


def is_elementwise(graph: Graph) -> bool:
    """Whether a region holds nothing but elementwise ops and immediates."""
    return all(isinstance(n.op, Elementwise) or is_immediate(n.op) for n in graph.nodes)
