"""The Gradient op (ai.onnx.preview.training): reverse-mode differentiation of the ops built so far.

Source: Griewank & Walther 2008, "Evaluating Derivatives", chapter 3.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from effcc.frontends.onnx.node import OnnxNode, onnx_op
from effcc.ir.graph import Value

Rule = Callable[[Any, Any, Value], tuple[Value | None, ...]]
"""(builder, node, adjoint of its result) -> adjoints of its operands, not yet summed to the operands' shapes"""


def _one(b: Any, x: Value) -> Value:
    return b.full_like(x, 1)


def _div(b: Any, node: Any, g: Value) -> tuple[Value, Value]:
    x, y = node.operands
    return b.div(g, y), b.neg(b.div(b.mul(g, x), b.mul(y, y)))


def _matmul(b: Any, node: Any, g: Value) -> tuple[Value, Value]:
    x, y = node.operands
    op = node.op
    to_x = b.matmul(y, g, transpose_a=op.transpose_b, transpose_b=True) if op.transpose_a else \
        b.matmul(g, y, transpose_b=not op.transpose_b)  # fmt: skip
    to_y = b.matmul(g, x, transpose_a=True, transpose_b=op.transpose_a) if op.transpose_b else \
        b.matmul(x, g, transpose_a=not op.transpose_a)  # fmt: skip
    return to_x, to_y


def _sum(b: Any, node: Any, g: Value) -> tuple[Value]:
    (x,) = node.operands
    kept = tuple(1 if k in node.op.axes else d for k, d in enumerate(x.shape))
    return (b.broadcast_to(b.reshape(g, shape=kept), shape=x.shape),)


def _transpose(b: Any, node: Any, g: Value) -> tuple[Value]:
    perm = node.op.perm
    return (b.transpose(g, perm=tuple(perm.index(k) for k in range(len(perm)))),)


RULES: dict[str, Rule] = {
    "add": lambda b, n, g: (g, g),
    "sub": lambda b, n, g: (g, b.neg(g)),
    "mul": lambda b, n, g: (b.mul(g, n.operands[1]), b.mul(g, n.operands[0])),
    "div": _div,
    "neg": lambda b, n, g: (b.neg(g),),
    "identity": lambda b, n, g: (g,),
    "exp": lambda b, n, g: (b.mul(g, n.result),),
    "log": lambda b, n, g: (b.div(g, n.operands[0]),),
    "sqrt": lambda b, n, g: (b.div(g, b.add(n.result, n.result)),),
    "tanh": lambda b, n, g: (b.mul(g, b.sub(_one(b, g), b.mul(n.result, n.result))),),
    "sigmoid": lambda b, n, g: (b.mul(g, b.mul(n.result, b.sub(_one(b, g), n.result))),),
    "relu": lambda b, n, g: (b.where(b.gt(n.operands[0], b.full_like(g, 0)), g, b.full_like(g, 0)),),
    "reshape": lambda b, n, g: (b.reshape(g, shape=n.operands[0].shape),),
    "broadcast_to": lambda b, n, g: (g,),
    "transpose": _transpose,
    "matmul": _matmul,
    "sum": _sum,
}


def summed_to(b: Any, g: Value, x: Value) -> Value:
    """An adjoint summed over the axes along which x was broadcast."""
    extra = len(g.shape) - len(x.shape)
    axes = tuple(k for k, d in enumerate(g.shape) if k < extra or x.shape[k - extra] != d)
    return b.reshape(b.sum(g, axes=axes), shape=x.shape) if axes else g


@onnx_op("Gradient", domain="ai.onnx.preview.training")
def gradient(n: OnnxNode, *inputs: Value) -> tuple[Value, ...]:
    b = n.b
    xs = [n.scope.lookup(name, f"variable {name!r}") for name in n.attr("xs")]
    y = n.scope.lookup(n.attr("y"), f"target {n.attr('y')!r}")
    if list(inputs[: len(xs)]) != xs:
        n.refuse("a gradient at another point than where the target was computed")
    adjoints: dict[Value, Value] = {y: b.broadcast_to(_one(b, y), shape=y.shape)}
    for node in reversed(tuple(b.nodes)):
        if len(node.results) != 1 or node.result not in adjoints or node.result in xs:
            continue
        if not any(v in xs or b.contents.producer(v) is not None for v in node.operands):
            continue
        if node.op.name not in RULES:
            n.refuse(f"the derivative of {node.op.name}")
        for v, g in zip(node.operands, RULES[node.op.name](b, node, adjoints[node.result]), strict=True):
            if g is not None and v.dtype.is_float:
                g = summed_to(b, g, v)
                adjoints[v] = b.add(adjoints[v], g) if v in adjoints else g
    return tuple(adjoints[x] if x in adjoints else b.broadcast_to(b.full_like(x, 0), shape=x.shape) for x in xs)
