"""Constants, control flow, sequences and optionals as ONNX operators."""

from __future__ import annotations

from typing import Any

import onnx

from effcc.backends.onnx.arithmetic import Operands
from effcc.backends.onnx.emit import Ref, Scope, type_proto, value_info
from effcc.backends.onnx.export import Writer, dtype_of, exports
from effcc.ir.blob import Blob
from effcc.ir.graph import Graph
from effcc.ir.types import Type, bool_, i64


@exports("const")
def const(w: Writer, op: Any, operands: Operands) -> Ref:
    """A compressed layout is written out: ONNX knows plain tensors."""
    blob = op.blob if op.blob.type.encoding is None else Blob(op.blob.array, op.blob.type.dtype)
    return w.scope.model.constant(blob, w.naming or ("weight" if blob.array.ndim else "number"))


@exports("pack", "unpack")
def layout(w: Writer, op: Any, operands: Operands) -> Ref:
    return w.ref(operands[0])


# -- control flow ------------------------------------------------------------------------------------------------------
def nested(
    w: Writer, graph: Graph, bound: list[Ref], infos: list[onnx.ValueInfoProto], wanted: tuple[Type, ...]
) -> Any:
    """A branch or body: an ONNX graph with its own names for its results."""
    inner = Writer(Scope(w.scope.model, w.scope))
    for value, ref in zip(graph.inputs, bound, strict=True):
        inner.bind(value, ref)
    inner.graph(graph)
    outputs = []
    for v, type_ in zip(graph.results, wanted, strict=True):
        name = w.scope.model.name("result")
        inner.scope.nodes.append(
            onnx.helper.make_node("Identity", [inner.ref(v).name], [name], name=w.scope.model.name("result"))
        )
        outputs.append(value_info(name, type_))
    return onnx.helper.make_graph(inner.scope.nodes, w.scope.model.name(graph.name or "body"), infos, outputs)


def emitted(w: Writer, name: str, inputs: list[Ref | None], types: tuple[Type, ...], **facts: Any) -> list[Ref]:
    return w.scope.node(name, inputs, [dtype_of(t) for t in types], **facts)


@exports("if")
def branch(w: Writer, op: Any, operands: Operands) -> list[Ref]:
    cond, *captures = map(w.ref, operands)
    types = op.infer(*(v.type for v in operands))
    graphs = {
        name: nested(w, graph, captures, [], tuple(v.type for v in graph.results))
        for name, graph in (("then_branch", op.then), ("else_branch", op.orelse))
    }
    return emitted(w, "If", [cond], types, **graphs)


@exports("loop")
def loop(w: Writer, op: Any, operands: Operands) -> list[Ref]:
    trip, cond, *rest = map(w.ref, operands)
    carried, captures = rest[: op.num_carried], rest[op.num_carried :]
    model, own = w.scope.model, op.body.inputs[: 2 + op.num_carried]
    bound = [Ref(model.name(v.name or "carried"), dtype_of(v.type)) for v in own]
    infos = [value_info(ref.name, v.type) for ref, v in zip(bound, own, strict=True)]
    wanted = tuple(v.type for v in op.body.results)
    body = nested(w, op.body, [*bound, *captures], infos, wanted)
    types = op.infer(*(v.type for v in operands))
    return emitted(w, "Loop", [trip, cond, *carried], types, body=body)


@exports("fused")
def fused(w: Writer, op: Any, operands: Operands) -> list[Ref]:
    """A region for other targets: its ops."""
    for inner, outer in zip(op.body.inputs, operands, strict=True):
        w.scope.env[inner] = w.ref(outer)
    w.graph(op.body)
    return [w.ref(v) for v in op.body.results]


# -- sequences and optionals -------------------------------------------------------------------------------------------
@exports("sequence_construct")
def sequence_construct(w: Writer, op: Any, operands: Operands) -> Ref:
    from effcc.backends.onnx.emit import onnx_dtype

    if not operands:
        dtype = dtype_of(op.element)
        return w.scope.node("SequenceEmpty", [], [dtype], dtype=onnx_dtype(dtype))[0]
    refs = [w.ref(v) for v in operands]
    return w.scope.node("SequenceConstruct", list(refs), [refs[0].dtype])[0]


SEQUENCES = {"sequence_at": "SequenceAt", "sequence_insert": "SequenceInsert", "sequence_erase": "SequenceErase",
             "sequence_length": "SequenceLength", "optional_has_element": "OptionalHasElement",
             "optional_get_element": "OptionalGetElement"}  # fmt: skip


@exports(*SEQUENCES)
def sequence(w: Writer, op: Any, operands: Operands) -> Ref:
    refs = [w.ref(v) for v in operands]
    dtype = {"sequence_length": i64, "optional_has_element": bool_}.get(op.name, refs[0].dtype)
    return w.scope.node(SEQUENCES[op.name], list(refs), [dtype])[0]


@exports("sequence_concat")
def sequence_concat(w: Writer, op: Any, operands: Operands) -> Ref:
    x = w.ref(operands[0])
    return w.scope.node("ConcatFromSequence", [x], [x.dtype], axis=op.axis, new_axis=int(op.new_axis))[0]


@exports("optional")
def optional(w: Writer, op: Any, operands: Operands) -> Ref:
    refs = [w.ref(v) for v in operands]
    element = op.element if op.element is not None else operands[0].type
    facts = {} if refs else {"type": type_proto(element)}
    return w.scope.node("Optional", list(refs), [dtype_of(element)], **facts)[0]
