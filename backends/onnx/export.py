"""A graph as an ONNX model.

Each op is written by the function that its family's module registers for it (`@exports("matmul")`), else by what the op
says of itself: an elementwise op by its scalar formula, a composite by its `decompose`, anything else by its loop nest.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import onnx

from effcc.backends.onnx.emit import IR_VERSION, Model, Ref, Scope, type_proto, value_info
from effcc.backends.onnx.nests import export_nest
from effcc.backends.onnx.scalars import apply
from effcc.errors import EffccError, UnsupportedError
from effcc.ir import scalar as s
from effcc.ir.builder import OpBuilder, spelled_out
from effcc.ir.graph import Graph, Node, Value
from effcc.ir.location import FusedLoc, Loc, PassLoc
from effcc.ir.op import Op
from effcc.ir.scalar import Apply, Read, walk
from effcc.ir.types import Optional, Sequence, Tensor, Type
from effcc.ops.elementwise import Elementwise

Exporter = Callable[["Writer", Any, tuple[Value, ...]], Any]
EXPORTERS: dict[str, Exporter] = {}
MODULES = ("arithmetic", "movement", "windows", "composites", "control")


def exports(*names: str) -> Callable[[Exporter], Exporter]:
    """Registers how ops are written: f(writer, op, operands) gives their results as Refs, or NotImplemented."""

    def register(f: Exporter) -> Exporter:
        EXPORTERS.update(dict.fromkeys(names, f))
        return f

    return register


def export(graph: Graph) -> onnx.ModelProto:
    """The ONNX model of a graph, with its names of inputs and outputs. UnsupportedError names what ONNX lacks."""
    if not graph.results:
        raise UnsupportedError("the graph has no results, and an ONNX model has outputs", hint="return something")
    for module in MODULES:
        importlib.import_module(f"effcc.backends.onnx.{module}")
    model = Model()
    writer = Writer(Scope(model))
    inputs = [v.name or f"input{k}" for k, v in enumerate(graph.inputs)]
    outputs = [v.name or f"output{k}" for k, v in enumerate(graph.results)]
    for name in (*inputs, *outputs):
        model.names[name] = 1
    infos = []
    for name, v in zip(inputs, graph.inputs, strict=True):
        infos.append(value_info(name, v.type))
        writer.bind(v, Ref(name, dtype_of(v.type)))
    writer.graph(graph)
    results = []
    for name, v in zip(_distinct(outputs, inputs), graph.results, strict=True):
        ref = writer.scope.env[v]
        writer.scope.nodes.append(onnx.helper.make_node("Identity", [ref.name], [name], name=model.name(f"{name}_out")))
        model.need(ref.dtype.name)
        results.append(value_info(name, v.type))
    _without_identities(writer.scope.nodes, {r.name for r in model.constants.values()}, set(inputs))
    body = onnx.helper.make_graph(writer.scope.nodes, graph.name or "main", infos, results, model.initializers)
    return onnx.helper.make_model(
        body,
        opset_imports=[onnx.helper.make_opsetid("", model.opset)],
        ir_version=_ir(model.opset),
        producer_name="effcc",
    )


def _ir(opset: int) -> int:
    """The oldest file format that an operator set belongs to."""
    return max(
        IR_VERSION, onnx.helper.find_min_ir_version_for([onnx.helper.make_opsetid("", opset)], ignore_unknown=True)
    )


def _distinct(names: list[str], taken: list[str]) -> list[str]:
    """Names of their own for outputs: an input that is passed on, or a result that is given twice, gets another."""
    seen: dict[str, int] = dict.fromkeys(taken, 1)
    out = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        out.append(name if seen[name] == 1 else f"{name}_{seen[name]}")
    return out


def _without_identities(nodes: list[onnx.NodeProto], constants: set[str], inputs: set[str]) -> None:
    """Outputs get their names from the nodes that make them, where these have no other readers."""
    reads: dict[str, int] = {}
    for node in nodes:
        for name in _read(node):
            reads[name] = reads.get(name, 0) + 1
    makers = {name: node for node in nodes for name in node.output}
    for node in [n for n in nodes if n.op_type == "Identity"]:
        source = node.input[0]
        if reads[source] == 1 and source in makers and source not in constants | inputs:
            maker = makers[source]
            maker.output[list(maker.output).index(source)] = node.output[0]
            makers[node.output[0]] = maker
            nodes.remove(node)


def _read(node: onnx.NodeProto) -> list[str]:
    """The names that a node reads, those that its branches or bodies capture among them."""
    found = list(node.input)
    for attribute in node.attribute:
        if attribute.type == onnx.AttributeProto.GRAPH:
            found += [name for inner in attribute.g.node for name in _read(inner)]
            found += [v.name for v in attribute.g.output]
    return found


def dtype_of(type_: Type) -> Any:
    """The element dtype of a tensor, or of what a sequence or an optional holds."""
    while isinstance(type_, (Sequence, Optional)):
        type_ = type_.element
    if not isinstance(type_, Tensor):
        raise UnsupportedError(f"ONNX has no values of type {type_}", hint="keep them out of the graph")
    return type_.dtype


class Writer(OpBuilder):
    """Writes ops into a scope. As a builder it writes what an op decomposes into, or what an exporter asks for."""

    def __init__(self, scope: Scope):
        self.scope = scope
        self.naming = ""
        """What the op being written is called in the graph."""

    def bind(self, value: Value, ref: Ref) -> None:
        if not isinstance(value.type, Tensor):
            type_proto(value.type)  # refuses what ONNX has no values of
        self.scope.env[value] = ref
        self.scope.learn(ref, value.type)

    def ref(self, value: Value) -> Ref:
        scope: Scope | None = self.scope
        while scope is not None:
            if value in scope.env:
                return scope.env[value]
            scope = scope.parent
        raise KeyError(value)

    def graph(self, graph: Graph) -> None:
        """All nodes of a graph whose inputs are bound."""
        for node in graph.nodes:
            self.node(node)

    def node(self, node: Node) -> None:
        self.scope.at, self.naming = name_of(node.loc), node.results[0].name if node.results else ""
        try:
            for value, ref in zip(node.results, self.write(node.op, node.operands, node.results), strict=True):
                self.bind(value, ref)
        except EffccError as error:
            if error.where is not None:
                raise
            where = str(node.loc) or f"%{node.results[0].name or node.results[0].id}"
            raise type(error)(f"{node.op.name}: {error.message}", where=where, hint=error.hint) from error

    def emit(self, op: Op, operands: tuple[Value, ...]) -> tuple[Value, ...]:
        results = tuple(Value(t) for t in op.result_types(tuple(v.type for v in operands)))
        for value, ref in zip(results, self.write(op, operands, results), strict=True):
            self.bind(value, ref)
        return results

    def write(self, op: Op, operands: tuple[Value, ...], results: tuple[Value, ...]) -> list[Ref]:
        """The results of an op. One that has none does nothing, and ONNX has no such nodes."""
        if not results:
            return []
        if op.name in EXPORTERS:
            found = EXPORTERS[op.name](self, op, operands)
            if found is not NotImplemented:
                return self.listed(found)
        if isinstance(op, Elementwise):
            return [self.formula(op, operands)]
        types = tuple(v.type for v in operands)
        if type(op).decompose is not Op.decompose:
            found = spelled_out(self, op, operands)
            if found is not None:
                return self.listed(found)
        nest = op.compute(*types)
        if nest is None:
            raise UnsupportedError("ONNX has no operator for it", hint="remove it, or replace it by others")
        refs = [self.ref(v) for v in operands]
        return export_nest(self.scope, nest, refs, [v.tensor for v in operands], [v.tensor for v in results])

    def listed(self, found: Any) -> list[Ref]:
        several = found if isinstance(found, (tuple, list)) and not isinstance(found, Ref) else [found]
        return [self.ref(x) if isinstance(x, Value) else x for x in several]

    def formula(self, op: Elementwise, operands: tuple[Value, ...]) -> Ref:
        """An elementwise op by its scalar formula: ONNX broadcasts as it does."""
        refs = [self.ref(v) for v in operands]
        root = op.scalar(*(Read(v.dtype, k, ()) for k, v in enumerate(operands)))
        known: dict[int, Ref] = {}
        for node in walk(root):
            match node:
                case s.Literal(dtype, value):
                    known[id(node)] = self.scope.number(value, dtype)
                case Read(_, operand, _):
                    known[id(node)] = refs[operand]
                case Apply(dtype, fn, args):
                    known[id(node)] = apply(self.scope, fn, dtype, *(known[id(a)] for a in args))
                case _:
                    raise TypeError(node)
        return known[id(root)]


def name_of(loc: Loc) -> str:
    """A name for the nodes of an op: that of the model's node it came from."""
    while isinstance(loc, (FusedLoc, PassLoc)):
        loc = loc.origin if isinstance(loc, PassLoc) else loc.locs[0]
    return loc.name


__all__ = ["EXPORTERS", "Writer", "dtype_of", "export", "exports"]
