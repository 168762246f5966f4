"""Scopes: what the names of a graph or function body stand for, and how its nodes become ops.

Functions, the model's own and those that ONNX's schemas give, are inlined; nested graphs get a builder of their own,
and what they use of the enclosing ones becomes captures.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from effcc.errors import EffccError, ParseError, UnsupportedError
from effcc.frontends.onnx.dtypes import check_dtypes
from effcc.frontends.onnx.node import RANKS, Absent, Handler, Items, OnnxNode, handler
from effcc.frontends.onnx.proto import Source, array, element_code, element_dtype, no_text, opsets
from effcc.frontends.onnx.values import Contents
from effcc.ir.builder import Builder
from effcc.ir.graph import Graph, Node, Value
from effcc.ir.location import Loc
from effcc.ir.op import Op
from effcc.ir.types import DType

if TYPE_CHECKING:
    import onnx

    from effcc.frontends.onnx.importer import Importer

Item = Any
"""What an ONNX name stands for: a Value, `Items` (a sequence of known length), `Absent` (an empty optional), or None
for an input that the caller of a function leaves out."""

_MISSING = object()
DEEPEST = 64
"""How deep calls of functions may be nested."""
_CHECK = "check the model with onnx.checker"


class GraphBuilder(Builder):
    """A builder whose nodes the value analysis can look into."""

    def __init__(self, name: str, contents: Contents):
        super().__init__(name)
        self.contents = contents

    def emit(self, op: Op, operands: tuple[Value, ...]) -> tuple[Value, ...]:
        results = super().emit(op, operands)
        self.contents.define(self.nodes[-1])
        return results


class Scope:
    """The names that nodes of one graph (or function body) see, and the builder that they append to."""

    def __init__(
        self,
        importer: Importer,
        builder: GraphBuilder,
        opsets: Mapping[str, int],
        parent: Scope | None = None,
        attributes: Mapping[str, Any] | None = None,
    ):
        self.importer, self.builder, self.opsets, self.parent = importer, builder, opsets, parent
        self.attributes: Mapping[str, Any] = (
            attributes if attributes is not None else parent.attributes if parent else {}
        )
        """What `ref_attr_name` refers to, inside of a function."""
        self.names: dict[str, Item] = {}
        self.captures: dict[Value, Value] = {}
        """Values of the enclosing builder -> the inputs of this one that stand for them."""

    # -- names --
    def lookup(self, name: str, what: str) -> Item:
        item = self._find(name)
        if item is _MISSING:
            raise ParseError(
                f"{what} is not defined before it is used",
                where=self.importer.source.name,
                hint=_CHECK,
            )
        return item

    def _find(self, name: str) -> Item:
        if name not in self.names and self.parent is not None:
            item = self.parent._find(name)
            if item is _MISSING:
                return item
            self.names[name] = self.bring(item)
        return self.names.get(name, _MISSING)

    def bring(self, item: Item) -> Item:
        """Something of the enclosing scope as seen from here: constants are repeated, other values become captures."""
        if isinstance(item, Items):
            return Items(tuple(self.bring(v) for v in item.values))
        if item is None or isinstance(item, Absent) or self.parent is None or self.parent.builder is self.builder:
            return item
        if item not in self.captures:
            node = self.importer.contents.producer(item)
            if node is not None and node.op.name == "const":
                return self.builder.const(node.op.attrs["blob"])
            inner = self.builder.input(item.name, item.type)
            self.importer.contents.alias(inner, item)
            self.captures[item] = inner
        return self.captures[item]

    # -- nodes --
    def run(self, graph: onnx.GraphProto | onnx.FunctionProto) -> None:
        """Import a graph's constants and nodes into this scope."""
        import onnx

        if isinstance(graph, onnx.GraphProto):
            for tensor in graph.initializer:
                refuse_strings(
                    element_dtype(tensor.data_type, tensor.name), f"{self.importer.source.name}:{tensor.name}"
                )
                self.names[tensor.name] = self.builder.const(array(tensor, self.importer.source))
            for sparse in graph.sparse_initializer:
                self.names[sparse.values.name] = self.builder.const(dense(sparse, self.importer.source))
        for proto in graph.node:
            self._run_node(proto)

    def _run_node(self, proto: onnx.NodeProto) -> None:
        self.importer.spend()
        proto = self._resolved(proto)
        domain = "" if proto.domain == "ai.onnx" else proto.domain
        label = proto.name or next((o for o in proto.output if o), proto.op_type)
        for name in (label, proto.op_type, proto.domain):
            if isinstance(name, bytes):
                raise no_text(name, self.importer.source)
        loc = Loc(self.importer.source.name, label)
        inputs = [self.lookup(name, f"input {name!r} of {label!r}") if name else None for name in proto.input]
        with self.builder.at(loc):
            outputs = self._call(proto, domain, inputs, loc)
        wanted = list(proto.output)
        while wanted and not wanted[-1]:
            wanted.pop()
        if len(outputs) < len(wanted):
            raise UnsupportedError(
                f"{proto.op_type}: output {len(outputs)} ({wanted[len(outputs)]!r}) is not supported", where=loc
            )
        for name, item in zip(wanted, outputs, strict=False):
            if name:
                self.names[name] = item

    def _resolved(self, proto: onnx.NodeProto) -> onnx.NodeProto:
        """The node with references to the function's attributes replaced by what the call gives."""
        if not any(a.ref_attr_name for a in proto.attribute):
            return proto
        import onnx

        out = onnx.NodeProto()
        out.CopyFrom(proto)
        del out.attribute[:]
        for a in proto.attribute:
            if not a.ref_attr_name:
                out.attribute.append(a)
            elif a.ref_attr_name in self.attributes:
                bound = out.attribute.add()
                bound.CopyFrom(self.attributes[a.ref_attr_name])
                bound.name = a.name
        return out

    def _call(self, proto: onnx.NodeProto, domain: str, inputs: list[Item], loc: Loc) -> tuple[Item, ...]:
        function = self.importer.functions.get((domain, proto.op_type, proto.overload))
        if function is not None:
            return self._inline(function, proto, inputs, loc, opsets(function))
        import onnx.defs

        if domain not in self.opsets:
            raise ParseError(
                f"{proto.op_type} is of domain {domain!r}, which the model does not import",
                where=loc,
                hint="add it to opset_import",
            )
        schema = _schema(proto.op_type, self.opsets[domain], domain)
        handle = handler(domain, proto.op_type)
        if schema is None and handle is None:
            shown = f"{domain}::{proto.op_type}" if domain else proto.op_type
            raise UnsupportedError(
                f"unknown op {shown} (opset {self.opsets[domain]})",
                where=loc,
                hint="add a handler in frontends/onnx, or a model-local function",
            )
        known = schema or _schema(proto.op_type, onnx.defs.onnx_opset_version(), domain)
        if known is not None and schema is None:
            raise UnsupportedError(
                f"{proto.op_type} is not of opset {self.opsets[domain]}", where=loc, hint="export with a newer opset"
            )
        if schema is not None:
            _check_call(schema, proto, inputs, loc)
        if handle is not None:
            node = OnnxNode(proto, self, schema.since_version if schema else self.opsets[domain], loc)
            if schema is not None:
                check_dtypes(schema, proto.op_type, inputs, loc)
            outputs = _handled(handle, RANKS[domain, proto.op_type], node, schema, inputs)
            if outputs is not NotImplemented:
                return outputs if isinstance(outputs, tuple) else (outputs,)
        if schema is not None:
            check_dtypes(schema, proto.op_type, inputs, loc)
        body = _schema_function(schema, self.opsets[domain], proto, inputs)
        if body is None:
            raise UnsupportedError(
                f"{proto.op_type} (opset {self.opsets[domain]}) is not supported",
                where=loc,
                hint="see the list of supported ops in frontends/onnx/README.md",
            )
        function, version = body
        imported = {**self.opsets, "": version} if domain == "" else self.opsets
        return self._inline(function, proto, inputs, loc, {**imported, **opsets_of(function)})

    def _inline(
        self,
        function: onnx.FunctionProto,
        proto: onnx.NodeProto,
        inputs: list[Item],
        loc: Loc,
        versions: Mapping[str, int],
    ) -> tuple[Item, ...]:
        importer = self.importer
        if function.name in importer.calls and len(importer.calls) > DEEPEST:
            raise ParseError(f"function {function.name} calls itself", where=loc, hint="ONNX functions may not recurse")
        if len(importer.calls) > DEEPEST:
            raise UnsupportedError(f"functions that call each other {DEEPEST} deep", where=loc, hint="inline some")
        schema = _schema(proto.op_type, self.opsets.get(proto.domain, 1), proto.domain)
        defaults = {
            a.name: a.default_value for a in (schema.attributes.values() if schema else ()) if a.default_value.name
        }
        given = {a.name: a for a in proto.attribute}
        attributes = defaults | {a.name: a for a in function.attribute_proto} | given
        inner = Scope(importer, self.builder, versions, attributes=attributes)
        if len(inputs) > len(function.input):
            raise ParseError(f"{function.name} takes {len(function.input)} inputs, got {len(inputs)}", where=loc)
        inner.names = dict(zip(function.input, inputs, strict=False))
        inner.names.update(dict.fromkeys(function.input[len(inputs) :]))
        importer.calls.append(function.name)
        inner.run(function)
        importer.calls.pop()
        wanted = [bool(o) for o in proto.output]
        return tuple(
            inner.lookup(name, f"output {name!r} of {function.name}") if asked else None
            for name, asked in zip(function.output, wanted, strict=False)
        )

    # -- nested graphs --
    def inline_graph(self, graph: onnx.GraphProto, inputs: Sequence[Item] = ()) -> tuple[Item, ...]:
        """Import a nested graph in place, where it is known that and how often it runs."""
        inner = Scope(self.importer, self.builder, self.opsets, self)
        inner.names.update(zip((i.name for i in graph.input), inputs, strict=True))
        inner.run(graph)
        return tuple(inner.lookup(o.name, f"output {o.name!r}") for o in graph.output)

    def nested(self, name: str) -> Scope:
        """A scope with a builder of its own, for a nested graph that an op takes as an attribute."""
        return Scope(self.importer, GraphBuilder(name, self.importer.contents), self.opsets, self)

    def close(
        self, scopes: Sequence[Scope], results: Sequence[Sequence[Value]]
    ) -> tuple[list[Graph], tuple[Value, ...]]:
        """Finish nested scopes whose graphs take the same captures: the graphs, and what they capture, in order."""
        captured = tuple(dict.fromkeys(v for s in scopes for v in s.captures))
        graphs = []
        for scope, outs in zip(scopes, results, strict=True):
            inner = scope.captures
            own = [i for i in scope.builder.inputs if i not in set(inner.values())]
            scope.builder.inputs = own + [inner[v] if v in inner else Value(v.type, v.name) for v in captured]
            graphs.append(finish(scope.builder, outs, {}))
        return graphs, captured


def finish(builder: Builder, results: Sequence[Value], names: Mapping[Value, str]) -> Graph:
    """The graph of what the results need: dead nodes dropped, results named."""
    live: set[Value] = set(results)
    kept: list[Node] = []
    for node in reversed(builder.nodes):
        if any(r in live for r in node.results):
            kept.append(node)
            live.update(node.operands)
    renamed: dict[Value, Value] = {}
    nodes = []
    for node in reversed(kept):
        for r in node.results:
            if r in names:
                renamed[r] = Value(r.type, names[r])
        operands = tuple(renamed.get(v, v) for v in node.operands)
        outs = tuple(renamed.get(v, v) for v in node.results)
        same = operands == node.operands and outs == node.results
        nodes.append(node if same else Node(node.op, operands, outs, node.loc))
    return Graph(builder.name, tuple(builder.inputs), tuple(nodes), tuple(renamed.get(v, v) for v in results))


def dense(sparse: onnx.SparseTensorProto, source: Source) -> np.ndarray:
    """A SparseTensorProto as an ordinary array."""
    values, where = array(sparse.values, source), array(sparse.indices, source)
    out = np.zeros(tuple(sparse.dims), values.dtype)
    if where.ndim == 1:
        out.reshape(-1)[where] = values
    else:
        out[tuple(where.T)] = values
    return out


def type_proto(item: Item) -> onnx.TypeProto:
    """The ONNX type of an item, for context-dependent function bodies."""
    import onnx
    from onnx import helper

    if item is None or isinstance(item, Absent):
        return onnx.TypeProto()
    if isinstance(item, Items):
        element = type_proto(item.values[0]) if item.values else helper.make_tensor_type_proto(1, None)
        return helper.make_sequence_type_proto(element)
    if any(isinstance(d, int) and d >= 1 << 63 for d in item.shape):
        raise UnsupportedError(f"{item.type} has a size beyond 64 bits", hint="no memory holds such a tensor")
    return helper.make_tensor_type_proto(
        element_code(item.dtype), [d if isinstance(d, int) else str(d) for d in item.shape]
    )


def refuse_strings(dtype: DType, where: str) -> None:
    if dtype.kind in "sc":
        raise UnsupportedError(
            f"tensors of {'strings' if dtype.kind == 's' else 'complex numbers'}",
            where=where,
            hint="do that part of the work outside of the model",
        )


def _schema(op_type: str, version: int, domain: str) -> Any:
    import onnx.defs

    if not 0 < version < 1 << 31:
        return None
    try:
        return onnx.defs.get_schema(op_type, version, domain)
    except onnx.defs.SchemaError:
        return None


def _check_call(schema: Any, proto: onnx.NodeProto, inputs: Sequence[Item], loc: Loc) -> None:
    """The number of inputs and outputs and the required attributes are what the schema says."""
    import onnx.defs

    for what, count, low, high in (
        ("inputs", len(proto.input), schema.min_input, schema.max_input),
        ("outputs", len(proto.output), schema.min_output, schema.max_output),
    ):
        if not low <= count <= high:
            raise ParseError(
                f"{proto.op_type} takes {low} to {high} {what}, got {count}",
                where=loc,
                hint=_CHECK,
            )
    for i, formal in enumerate(schema.inputs):
        if (
            formal.option == onnx.defs.OpSchema.FormalParameterOption.Single
            and i < len(inputs)
            and inputs[i] is None
        ):
            raise ParseError(
                f"{proto.op_type}: input {formal.name!r} is missing",
                where=loc,
                hint=_CHECK,
            )
    given = {a.name: a for a in proto.attribute}
    for name, attribute in schema.attributes.items():
        if attribute.required and name not in given:
            raise ParseError(
                f"{proto.op_type}: attribute {name!r} is missing", where=loc, hint=_CHECK
            )
        if name in given and given[name].type and int(attribute.type.value) != given[name].type:
            raise ParseError(
                f"{proto.op_type}: attribute {name!r} is of the wrong kind",
                where=loc,
                hint=_CHECK,
            )


def _handled(handle: Handler, ranks: Sequence[int], node: OnnxNode, schema: Any, inputs: Sequence[Item]) -> Any:
    """What a handler makes of a node. Handlers take nodes to be well formed; where that shows not to be so, ONNX's
    rules say why."""
    try:
        for item, least in zip(inputs, ranks, strict=False):
            if isinstance(item, Value):
                node.of_rank(item, least)
        return handle(node, *inputs)
    except EffccError:
        raise
    except MemoryError:
        node.refuse("its constants do not fit into memory", "are its sizes right?")
    except Exception as e:
        if reason := why_malformed(node, schema, handle, inputs):
            raise ParseError(f"{node.op_type}: {reason}", where=node.loc, hint=_CHECK) from e
        raise ParseError(
            f"{node.op_type} cannot take these inputs ({type(e).__name__}: {e})",
            where=node.loc,
            hint="check the model with onnx.checker; if it is well formed, this is a bug in effcc",
        ) from e


def why_malformed(node: OnnxNode, schema: Any, handle: Handler, inputs: Sequence[Item]) -> str | None:
    """What ONNX's own rules for types and shapes have against a node, or against the number of inputs of one that is
    not ONNX's; None if nothing."""
    import inspect

    import onnx.checker
    import onnx.shape_inference
    from onnx import numpy_helper

    if schema is None:
        try:
            inspect.signature(handle).bind(node, *inputs)
        except TypeError:
            return f"it does not take {len(inputs)} inputs"
        return None
    proto = onnx.NodeProto()
    proto.CopyFrom(node.proto)
    del proto.input[:]
    proto.input.extend("" if item is None else name for name, item in zip(node.proto.input, inputs, strict=True))
    given = [(name, item) for name, item in zip(proto.input, inputs, strict=True) if name]
    whole = {name: a for name, v in given if isinstance(v, Value) and (a := node.constant(v)) is not None}
    small = {name: a for name, a in whole.items() if a.size <= 64 and a.dtype.kind in "iuf"}
    data = {name: numpy_helper.from_array(a, name) for name, a in small.items()}
    types = {name: type_proto(item) for name, item in given}
    opsets = [onnx.helper.make_opsetid(domain, version) for domain, version in node.scope.opsets.items()]
    try:
        onnx.shape_inference.infer_node_outputs(schema, proto, types, data, opset_imports=opsets)
    except (onnx.shape_inference.InferenceError, onnx.checker.ValidationError) as error:
        return re.sub(r"\[\w+\] ", "", str(error))
    return None


def _schema_function(
    schema: Any, opset: int, proto: onnx.NodeProto, inputs: Sequence[Item]
) -> tuple[onnx.FunctionProto, int] | None:
    """The body that the schema gives an op at this opset, and the opset that the body is written in."""
    import onnx

    if schema is None:
        return None
    plain = [v for v in schema.function_opset_versions if v <= opset]
    if plain:
        return onnx.FunctionProto.FromString(schema.get_function_with_opset_version(max(plain))), max(plain)
    dependent = [v for v in schema.context_dependent_function_opset_versions if v <= opset]
    if dependent:
        types = [type_proto(i).SerializeToString() for i in inputs]
        body = schema.get_context_dependent_function_with_opset_version(
            max(dependent), proto.SerializeToString(), types
        )
        return onnx.FunctionProto.FromString(body), max(dependent)
    return None


def opsets_of(function: onnx.FunctionProto) -> dict[str, int]:
    """The opsets that a function states (schema bodies may state none)."""
    return {("" if o.domain == "ai.onnx" else o.domain): o.version for o in function.opset_import}
