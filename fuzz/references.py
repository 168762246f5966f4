"""An independent reference: ONNX Runtime runs the graph as target onnx writes it.

A misreading of an op that the interpreter shares with the compiler shows in no other law. Held are graphs of tensors in
which every op has a meaning for all inputs, on inputs with which every value is finite and has elements: beyond that
runtimes differ among themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from effcc.driver import compile_graph
from effcc.errors import EffccError, UnsupportedError
from effcc.fuzz.case import Case, Finding
from effcc.fuzz.laws import agree, copy, say, tensor_of
from effcc.fuzz.pairs import nested
from effcc.interp import run
from effcc.ir import Graph, Node, Tensor

LEFT_OUT = frozenset({"erfc", "elu", "celu", "selu", "nms", "max_pool_with_indices"})
"""Computed by a formula that is less exact (exp(x) - 1, say); decided by ties; with windows that hold nothing but
padding."""


def hold(case: Case) -> None:
    """Finding where ONNX Runtime is beyond the bounds of rounding around the interpreter's f64 result."""
    graph = case.graph
    held = [p for p in case.inputs if not p.special and is_defined(graph) and is_plain(graph, case.inputs[p])]
    if not held:
        return
    try:
        program = compile_graph(graph, "onnx", passes=[])
    except UnsupportedError:
        return
    except Exception as error:
        raise Finding("reference", f"it cannot be exported: {say(error)}", graph) from error
    program.code.optimized = False  # node by node: its fusions are other code, and crash on some models
    for profile in held:
        inputs = case.inputs[profile]
        try:
            found = [tensor_of(x) for x in program(*map(copy, inputs))]
        except UnsupportedError:
            return
        except EffccError as error:
            raise Finding("reference", f"it does not run: {say(error)}", graph, inputs=inputs) from error
        for k, (w, f) in enumerate(zip(case.run(graph, profile), found, strict=True)):
            if w.shape != f.shape:
                said = f"result {k} has shape {list(f.shape)}, the interpreter says {list(w.shape)}"
                raise Finding("reference", said, graph, inputs=inputs)
        agree("reference", case, graph, profile, found)


def is_defined(graph: Graph) -> bool:
    """Whether all values are tensors, and every op has a meaning for all of them."""
    graphs = nested(graph)
    values = (v for g in graphs for v in g.values)
    return all(isinstance(v.type, Tensor) for v in values) and all(has_meaning(n) for g in graphs for n in g.nodes)


def is_plain(graph: Graph, inputs: Sequence[Any]) -> bool:
    """Whether all values that a graph computes from some inputs are finite and have elements."""
    plain = all(map(_is_plain, inputs))

    def see(node: Node, operands: tuple[Any, ...], results: tuple[Any, ...]) -> None:
        nonlocal plain
        plain = plain and all(map(_is_plain, results))

    run(graph, *inputs, observe=see)
    return plain


def _is_plain(x: Any) -> bool:
    return x.numel() > 0 and (not x.is_floating_point() or bool(x.isfinite().all()))


def has_meaning(node: Node) -> bool:
    if node.op.name in LEFT_OUT or getattr(node.op, "undefined", "") or not node.results:
        return False
    result = node.results[0].tensor.dtype
    if node.op.name in ("pow", "div", "floordiv", "mod", "fmod"):
        return result.is_float  # integers by zero
    if node.op.name == "cast":
        return result.is_float or node.operands[0].tensor.dtype.is_integer  # floats that no integer holds
    return node.op.family != "random"
