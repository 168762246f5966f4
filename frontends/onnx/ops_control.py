"""Control flow: If, Loop and Scan.

What is known at import is resolved there: a branch that is always taken is inlined, a loop whose body needs more than a
static body can give (sequences, positions as attributes) is unrolled if its trip count is known.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from effcc.errors import EffccError, NeedsValue, TypeRuleError
from effcc.frontends.onnx.node import Items, OnnxNode, onnx_op
from effcc.frontends.onnx.ops_elementwise import scalar
from effcc.frontends.onnx.ops_index import data_size, size_value
from effcc.frontends.onnx.ops_shape import flip, piece
from effcc.ir.dims import Dim, Symbol
from effcc.ir.graph import Value
from effcc.ir.types import Tensor, Type, bool_, i64

if TYPE_CHECKING:
    import onnx

    from effcc.frontends.onnx.importer import Scope

FOREVER = np.iinfo(np.int64).max
UNROLLED = 1024
"""The most iterations that a loop is unrolled for."""


# --- If ---
@onnx_op("If")
def if_(n: OnnxNode, cond: Value) -> Any:
    content = n.known(cond)
    if content is not None and content.size == 1 and content.item() is not None:
        return n.scope.inline_graph(n.attr("then_branch" if content.item() else "else_branch"))
    scopes, results = [], []
    for name in ("then", "else"):
        graph = n.attr(f"{name}_branch")
        scope = n.scope.nested(name)
        try:
            scope.run(graph)
        except NeedsValue:
            raise
        except EffccError:  # a branch that these shapes never take need not fit them
            n.need(cond, f"the {name} branch does not fit the inputs' types, and the condition")
        scopes.append(scope)
        results.append([scope.lookup(o.name, f"output {o.name!r}") for o in graph.output])
    if not all(isinstance(v, Value) for r in results for v in r) or not _joinable(results):
        n.need(cond, "the condition, on which the types of the results depend,")
    types = tuple(_joined(n, cond, a.type, b.type) for a, b in zip(*results, strict=True))
    (then, orelse), captured = n.scope.close(scopes, results)
    same = all(a.type == b.type for a, b in zip(*results, strict=True))
    out = n.b.if_(scalar(n, cond), *captured, then=then, orelse=orelse, types=None if same else types)
    return out if isinstance(out, tuple) else (out,)


def _joinable(results: Sequence[Sequence[Value]]) -> bool:
    return all(a.dtype == b.dtype and len(a.shape) == len(b.shape) for a, b in zip(*results, strict=True))


def _joined(n: OnnxNode, cond: Value, a: Type, b: Type) -> Type:
    assert isinstance(a, Tensor) and isinstance(b, Tensor)
    return a.with_shape(
        tuple(d if d == e else data_size(n, cond, _greater(d, e)) for d, e in zip(a.shape, b.shape, strict=True))
    )


def _greater(a: Dim, b: Dim) -> Dim:
    from effcc.ir.dims import dim_max

    return dim_max(a, b)


# --- Loop ---
@onnx_op("Loop")
def loop(n: OnnxNode, trip_count: Value | None = None, condition: Value | None = None, *carried: Any) -> Any:
    trip: Value = n.b.const(np.int64(FOREVER)) if trip_count is None else scalar(n, trip_count)
    cond: Value = n.b.const(np.array(True)) if condition is None else scalar(n, condition)
    body = n.attr("body")
    if any(isinstance(c, Items) for c in carried):
        return _unrolled(n, body, trip, cond, carried)
    try:
        return _run_time_loop(n, body, trip, cond, carried)
    except NeedsValue as needs:
        if not needs.inside:
            raise
    return _unrolled(n, body, trip, cond, carried)


def _run_time_loop(
    n: OnnxNode, body: onnx.GraphProto, trip: Value, cond: Value, carried: tuple[Value, ...]
) -> tuple[Value, ...]:
    scope, results = _body(n, body, [c.type for c in carried])
    last = 1 + len(carried)
    if not all(isinstance(r, Value) for r in results) or _change(n, carried, results[1:last]):
        return _unrolled(n, body, trip, cond, carried)
    length = _length(n, scope, trip, cond, results[0]) if len(results) > last else None
    results[0] = scope.builder.reshape(results[0], shape=()) if results[0].shape else results[0]
    (graph,), captured = n.scope.close([scope], [results])
    try:
        out = n.b.loop(trip, cond, *carried, *captured, body=graph, num_carried=len(carried), length=length)
    except TypeRuleError:  # a scanned value changes its size
        return _unrolled(n, body, trip, cond, carried)
    return out if isinstance(out, tuple) else (out,)


def _change(n: OnnxNode, before: Sequence[Value], after: Sequence[Value]) -> bool:
    """Whether carried values change their sizes from one iteration to the next."""
    for a, b in zip(before, after, strict=True):
        if a.dtype != b.dtype or len(a.shape) != len(b.shape):
            n.refuse(f"a carried value is {a.type} at first and {b.type} later")
    return any(a.shape != b.shape for a, b in zip(before, after, strict=True))


def _body(n: OnnxNode, body: onnx.GraphProto, types: Sequence[Type]) -> tuple[Scope, list[Any]]:
    """The body in a scope of its own: (i, cond, carried...) -> (cond, carried..., scanned...)"""
    scope = n.scope.nested("body")
    for info, type_ in zip(body.input, (Tensor(i64, ()), Tensor(bool_, ()), *types), strict=True):
        scope.names[info.name] = scope.builder.input(info.name, type_)
    scope.run(body)
    return scope, [scope.lookup(o.name, f"output {o.name!r}") for o in body.output]


def _length(n: OnnxNode, scope: Scope, trip: Value, cond: Value, going: Value) -> Dim:
    """How often the loop runs: known if nothing stops it early."""
    trips, start, keep = n.known(trip), n.known(cond), n.known(going)
    steady = keep is not None and keep.item() is True or going in scope.builder.inputs[1:2]
    if trips is not None and trips.item() is not None and start is not None and start.item() is not None and steady:
        return trips.item() if start.item() else 0
    bound = trips.item() if trips is not None and trips.item() is not None and trips.item() != FOREVER else None
    if bound is None:
        n.need(trip, "the trip count, which bounds the size of what is scanned,")
    symbol = data_size(n, trip, 0)
    symbol = Symbol(symbol.name, 0, bound if isinstance(bound, int) else None)
    n.scope.importer.defined_sizes[symbol] = trip
    return symbol


def _unrolled(n: OnnxNode, body: onnx.GraphProto, trip: Value, cond: Value, carried: Sequence[Any]) -> tuple[Any, ...]:
    """The iterations one after the other, in the graph that the loop is in."""
    trips = n.integer(trip, "the trip count")
    going = bool(n.array(cond, "the condition").item())
    state = list(carried)
    rows: list[tuple[Any, ...]] = []
    while going and len(rows) < trips:
        if len(rows) >= UNROLLED:
            n.refuse(f"a loop that would be unrolled for more than {UNROLLED} iterations")
        out = n.scope.inline_graph(body, (n.b.const(np.int64(len(rows))), n.b.const(np.array(True)), *state))
        state = list(out[1 : 1 + len(state)])
        rows.append(out[1 + len(state) :])
        last = len(rows) == trips
        going = last or bool(n.array(out[0], "the condition").item())
    return *state, *(
        _stacked(n, [row[k] for row in rows], body.output[1 + len(state) + k])
        for k in range(len(body.output) - 1 - len(state))
    )


def _stacked(n: OnnxNode, values: list[Any], info: onnx.ValueInfoProto) -> Any:
    if not values:
        from effcc.frontends.onnx.proto import element_dtype

        t = info.type.tensor_type
        shape = tuple(d.dim_value for d in t.shape.dim)
        return n.b.const(np.zeros((0, *shape), element_dtype(t.elem_type, str(n.loc)).numpy))
    return n.b.concat(*(n.b.reshape(v, shape=(1, *v.shape)) for v in values), axis=0)


# --- Scan ---
@onnx_op("Scan")
def scan(n: OnnxNode, *inputs: Any) -> Any:
    count = n.attr("num_scan_inputs")
    if n.version >= 9:
        return _scan(n, list(inputs[: len(inputs) - count]), list(inputs[len(inputs) - count :]))
    if inputs[0] is not None:
        n.refuse("sequence_lens", "export with opset 9 or newer")
    states, scanned = list(inputs[1 : len(inputs) - count]), list(inputs[len(inputs) - count :])
    (batch,) = {v.shape[0] for v in (*states, *scanned)}
    n.plain([batch], "the batch size")
    rows = [_scan(n, [_entry(n, s, i) for s in states], [_entry(n, s, i) for s in scanned]) for i in range(batch)]
    return tuple(
        n.b.concat(*(n.b.reshape(r[k], shape=(1, *r[k].shape)) for r in rows), axis=0) for k in range(len(rows[0]))
    )


def _entry(n: OnnxNode, x: Value, i: int) -> Value:
    return n.b.reshape(piece(n, x, 0, i, i + 1), shape=x.shape[1:])


def _scan(n: OnnxNode, states: list[Value], scanned: list[Value]) -> tuple[Value, ...]:
    body = n.attr("body")
    axes = [
        n.axis(a, len(x.shape)) for a, x in zip(n.attr("scan_input_axes", (0,) * len(scanned)), scanned, strict=True)
    ]
    backwards = n.attr("directions" if n.version < 9 else "scan_input_directions", (0,) * len(scanned))
    length = scanned[0].shape[axes[0]]
    scope = n.scope.nested("body")
    b = scope.builder
    i = b.input("i", Tensor(i64, ()))
    b.input("cond", Tensor(bool_, ()))
    names = [info.name for info in body.input]
    for name, state in zip(names, states, strict=False):
        scope.names[name] = b.input(name, state.type)
    last = b.sub(_size_inside(scope, length - 1), i) if any(backwards) else i
    for name, x, axis, backward in zip(names[len(states) :], scanned, axes, backwards, strict=True):
        scope.names[name] = b.gather(scope.bring(x), last if backward else i, axis=axis)
    scope.run(body)
    results = [b.const(np.array(True)), *(scope.lookup(o.name, f"output {o.name!r}") for o in body.output)]
    (graph,), captured = n.scope.close([scope], [results])
    trip, go = size_value(n, length), n.b.const(np.array(True))
    out = n.b.loop(
        trip,
        go,
        *states,
        *captured,
        body=graph,
        num_carried=len(states),
        length=length if len(results) - 1 > len(states) else None,
    )
    out = list(out) if isinstance(out, tuple) else [out]
    count = len(out) - len(states)
    out_axes, out_backwards = n.attr("scan_output_axes", (0,) * count), n.attr("scan_output_directions", (0,) * count)
    for k in range(count):
        y = out[len(states) + k]
        y = flip(n, y, 0) if out_backwards[k] else y
        axis = n.axis(out_axes[k], len(y.shape))
        if axis:
            perm = list(range(1, len(y.shape)))
            perm.insert(axis, 0)
            y = n.b.transpose(y, perm=tuple(perm))
        out[len(states) + k] = y
    return tuple(out)


def _size_inside(scope: Scope, dim: Dim) -> Value:
    return scope.builder.const(np.int64(dim)) if isinstance(dim, int) else scope.builder.dim(value=dim)
