"""Control flow: torch.cond, while_loop, scan; subgraphs that torch only wraps are inlined."""

from __future__ import annotations

from typing import Any

import torch

from effcc.errors import UnsupportedError
from effcc.frontends.torch.emitter import Emitter, lowers
from effcc.ir import Graph, Tensor, Value, bool_, i64


def _subgraph(e: Emitter, module: torch.fx.GraphModule, operands: Any, name: str) -> tuple[Any, list[Value]]:
    """An importer over the builder of a nested graph, and that graph's results (numbers become rank-0 tensors)."""
    from effcc.frontends.torch.importer import nested

    inner, output = nested(e, module, operands, name)  # type: ignore[arg-type]
    if inner.seed is not None or inner.mutations:
        raise UnsupportedError(f"{name}: random numbers and in-place updates inside control flow are not supported")
    results = list(output) if isinstance(output, (list, tuple)) else [output]
    return inner, [r if isinstance(r, Value) else inner.index(r) for r in results]


def _values(operands: Any) -> list[Value]:
    return [o for o in operands if isinstance(o, Value)]


@lowers("higher_order::cond")
def cond(e: Emitter, predicate: Any, then: Any, orelse: Any, operands: Any = ()) -> tuple[Value, ...]:
    graphs: list[Graph] = []
    for name, module in (("then", then), ("orelse", orelse)):
        inner, results = _subgraph(e, module, operands, name)
        graphs.append(inner.b.graph(*results))
    test = e.reshape(e.tensor(predicate, bool_), ())
    out = e.b.if_(test, *_values(operands), then=graphs[0], orelse=graphs[1])
    return tuple(out) if isinstance(out, (tuple, list)) else (out,)


@lowers("higher_order::while_loop")
def while_loop(e: Emitter, test: Any, body: Any, carried: Any, captured: Any = ()) -> tuple[Value, ...]:
    """The test runs once before the loop, then at the end of each iteration."""
    carried = [c if isinstance(c, Value) else e.index(c) for c in carried]
    before, first = _subgraph(e, test, (*carried, *captured), "test")
    from effcc.ir import inline

    start = e.b.reshape(inline(e.b, before.b.graph(*first), (*carried, *_values(captured)))[0], shape=())
    inner, updated = _subgraph(e, body, (*carried, *captured), "body")
    again, more = _subgraph(e, test, (*carried, *captured), "test")
    captures = list(inner.b.inputs[len(carried) :])
    going = inline(inner.b, again.b.graph(*more), (*updated, *captures))[0]
    return _loop(e, e.index(2**63 - 1), start, inner, [inner.reshape(going, ()), *updated], carried, _values(captured))


def _loop(
    e: Emitter,
    trip: Value,
    start: Value,
    inner: Any,
    results: list[Value],
    carried: list[Value],
    captured: list[Value],
    length: Any = None,
) -> tuple[Value, ...]:
    """Close a body over (i, cond) and emit the loop; `results` are (cond, carried..., scanned...)."""
    body = inner.b.graph(*results)
    heads = (
        ()
        if body.inputs and body.inputs[0].name == "i"
        else (Value(Tensor(i64, ()), "i"), Value(Tensor(bool_, ()), "going"))
    )
    body = Graph(body.name, (*heads, *body.inputs), body.nodes, body.results)
    out = e.b.loop(trip, start, *carried, *captured, body=body, num_carried=len(carried), length=length)
    return tuple(out) if isinstance(out, (tuple, list)) else (out,)


@lowers("higher_order::scan")
def scan(e: Emitter, combine: Any, init: Any, xs: Any, additional: Any = ()) -> tuple[Value, ...]:
    """Folds along axis 0: (carry, x[i]) -> (carry, y[i]); the body takes its slice by the loop's counter."""
    from effcc.frontends.torch.importer import Importer
    from effcc.ir import Builder

    length = xs[0].shape[0]
    inner = Importer(Builder("body"), combine, e.sizes)
    i = inner.b.input("i", Tensor(i64, ()))
    going = inner.b.input("going", Tensor(bool_, ()))
    state = [inner.b.input(f"carry{k}", v.type) for k, v in enumerate(init)]
    whole = [inner.b.input(f"xs{k}", v.type) for k, v in enumerate(xs)]
    rest = [inner.b.input(f"capture{k}", v.type) if isinstance(v, Value) else v for k, v in enumerate(additional)]
    rows = [inner.b.gather(x, i, axis=0) for x in whole]
    placeholders = [n for n in combine.graph.nodes if n.op == "placeholder"]
    out = inner.run(dict(zip(placeholders, (*state, *rows, *rest), strict=True)))
    carried, scanned = list(out[: len(init)]), list(out[len(init) :])
    return _loop(
        e,
        e.index(length),
        e.number(True, bool_),
        inner,
        [going, *carried, *scanned],
        list(init),
        [*xs, *_values(additional)],
        length,
    )


@lowers(
    "higher_order::invoke_subgraph",
    "higher_order::wrap_with_set_grad_enabled",
    "higher_order::wrap_with_autocast",
    "higher_order::hints_wrapper",
)
def wrapped(e: Emitter, *args: Any, **_: Any) -> Any:
    """Run the wrapped subgraph in place."""
    from effcc.frontends.torch.importer import Importer

    at = next(k for k, a in enumerate(args) if isinstance(a, torch.fx.GraphModule))
    module, operands = args[at], args[at + 1 :]
    if "invoke_subgraph" in e.target:
        operands = operands[1:]
    if "hints_wrapper" in e.target:
        operands = operands[0]
    inner = Importer(e.b, module, e.sizes)  # type: ignore[arg-type]
    placeholders = [n for n in module.graph.nodes if n.op == "placeholder"]
    return inner.run(dict(zip(placeholders, operands, strict=True)))
