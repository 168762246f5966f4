"""Building graphs: `b.<op>(*values, **attributes)` for every registered op, types inferred at once.

>>> from effcc.ir import Builder, Symbol, Tensor, f32
>>> b = Builder("mlp")
>>> x = b.input("x", Tensor(f32, (Symbol("B"), 64)))
>>> y = b.gelu(b.matmul(x, b.input("w", Tensor(f32, (64, 128)))), approximate="none")
>>> str(y.type)
'f32[B,128]'
>>> len(b.graph(y).nodes)
2
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator
from typing import Any

from effcc.errors import TypeRuleError
from effcc.ir.blob import Blob
from effcc.ir.graph import Graph, Node, Value
from effcc.ir.location import UNKNOWN, Loc
from effcc.ir.op import Op, op_class, tensor
from effcc.ir.types import DType, Tensor, Type


class OpBuilder:
    """What graphs, rewrites and patterns are written with; subclasses say where a node goes."""

    def emit(self, op: Op, operands: tuple[Value, ...]) -> tuple[Value, ...]:
        raise NotImplementedError

    def add(self, op: Op | Value, *operands: Value) -> Any:
        """Append an op instance; one Value, or a tuple when the op has several results. `b.add(x, y)` on values is
        the sum."""
        if isinstance(op, Value):
            op, operands = op_class("add")(), (op, *operands)
        results = self.emit(op, operands)
        return results[0] if len(results) == 1 and op.num_results == 1 else results

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        cls = op_class({"and_": "and", "or_": "or", "not_": "not", "if_": "if"}.get(name, name))
        return lambda *operands, **attrs: self.add(cls(**attrs), *operands)

    def const(self, array: Any, dtype: DType | None = None) -> Value:
        """A constant from an array, a number or a Blob."""
        import numpy as np

        blob = (
            array if isinstance(array, Blob) else Blob(np.asarray(array, None if dtype is None else dtype.numpy), dtype)
        )
        return self.add(op_class("const")(blob))  # type: ignore[call-arg]

    def full_like(self, x: Value, number: float) -> Value:
        """A rank-0 constant of x's dtype, to broadcast against it."""
        return self.const(number, x.dtype)


class Builder(OpBuilder):
    """Builds one graph from front to back."""

    def __init__(self, name: str = "main"):
        self.name = name
        self.inputs: list[Value] = []
        self.nodes: list[Node] = []
        self.loc: Loc = UNKNOWN

    def input(self, name: str, type_: Type) -> Value:
        """A new input. Programs take theirs by name: one whose name is taken gets a number behind it."""
        taken, wanted = {v.name for v in self.inputs if v.name}, name
        for k in itertools.count(1):
            if name not in taken:
                break
            name = f"{wanted}_{k}"
        self.inputs.append(Value(type_, name))
        return self.inputs[-1]

    @contextlib.contextmanager
    def at(self, loc: Loc) -> Iterator[None]:
        """Give the ops built inside this location."""
        before, self.loc = self.loc, loc
        try:
            yield
        finally:
            self.loc = before

    def emit(self, op: Op, operands: tuple[Value, ...]) -> tuple[Value, ...]:
        for o in operands:
            if not isinstance(o, Value):
                raise TypeRuleError(f"{op.name}: operand {o!r} is not a value", where=self.loc)
        try:
            types = op.result_types(tuple(o.type for o in operands))
        except TypeRuleError as error:
            if error.where is None:
                raise TypeRuleError(error.message, where=self.loc, hint=error.hint) from None
            raise
        results = tuple(Value(t) for t in types)
        self.nodes.append(Node(op, operands, results, self.loc))
        return results

    def graph(self, *results: Value, aliases: tuple[tuple[int, int], ...] = ()) -> Graph:
        return Graph(self.name, tuple(self.inputs), tuple(self.nodes), tuple(results), aliases)


def inline(b: OpBuilder, graph: Graph, operands: tuple[Value, ...]) -> tuple[Value, ...]:
    """Copy a graph's nodes to where b builds, its inputs bound to operands; returns its results there."""
    mapping: dict[Value, Value] = dict(zip(graph.inputs, operands, strict=True))
    for node in graph.nodes:
        results = b.emit(node.op, tuple(mapping[v] for v in node.operands))
        mapping.update(zip(node.results, results, strict=True))
    return tuple(mapping[v] for v in graph.results)


def spelled_out(b: OpBuilder, op: Op, operands: tuple[Value, ...]) -> tuple[Value, ...] | None:
    """The results of an op in smaller ops where b builds, of the types that the op declares; None where it is one of
    the small ones. A part may call a size by another name than the whole does (N and 3, which must be equal)."""
    made = op.decompose(b, *operands)
    if made is NotImplemented:
        return None
    made = made if isinstance(made, (tuple, list)) else (made,)
    types = op.result_types(tuple(v.type for v in operands))
    return tuple(
        v if v.type == t else b.reshape(v, shape=tensor(t).shape) for v, t in zip(made, types, strict=True)
    )


__all__ = ["Builder", "OpBuilder", "Tensor", "inline", "spelled_out"]
