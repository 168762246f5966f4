"""Optimizer steps (ai.onnx.preview.training). Inputs: rate, step, then the weights, their gradients and states."""

from __future__ import annotations

import numpy as np

from effcc.frontends.onnx.node import OnnxNode, onnx_op
from effcc.frontends.onnx.ops_elementwise import cast, scalar
from effcc.ir.graph import Value
from effcc.ir.types import f32

TRAINING = "ai.onnx.preview.training"


def _groups(values: tuple[Value, ...], kinds: int) -> list[tuple[Value, ...]]:
    """For each weight: the weight, its gradient, its states."""
    count = len(values) // kinds
    return [tuple(values[k * count + i] for k in range(kinds)) for i in range(count)]


def _flat(rows: list[tuple[Value, ...]]) -> tuple[Value, ...]:
    """The outputs: all weights, then all of each state."""
    return tuple(row[k] for k in range(len(rows[0])) for row in rows)


def _like(n: OnnxNode, x: Value, number: float) -> Value:
    return n.b.full_like(x, number)


def _regularized(n: OnnxNode, w: Value, g: Value) -> Value:
    factor = n.attr("norm_coefficient", 0.0)
    return n.b.add(n.b.mul(w, _like(n, w, factor)), g) if factor else g


@onnx_op("Adagrad", domain=TRAINING)
def adagrad(n: OnnxNode, rate: Value, step: Value, *values: Value) -> tuple[Value, ...]:
    b, rows = n.b, []
    decay = b.mul(cast(n, scalar(n, step), rate.dtype), _like(n, rate, n.attr("decay_factor", 0.0)))
    rate = b.div(scalar(n, rate), b.add(decay, _like(n, rate, 1.0)))
    for w, g, h in _groups(values, 3):
        g = _regularized(n, w, g)
        h = b.add(h, b.mul(g, g))
        w = b.sub(w, b.div(b.mul(cast(n, rate, w.dtype), g), b.add(b.sqrt(h), _like(n, w, n.attr("epsilon", 1e-6)))))
        rows.append((w, h))
    return _flat(rows)


@onnx_op("Momentum", domain=TRAINING)
def momentum(n: OnnxNode, rate: Value, step: Value, *values: Value) -> tuple[Value, ...]:
    b, rows = n.b, []
    alpha, beta = n.attr("alpha"), n.attr("beta")
    first = b.eq(scalar(n, step), b.const(np.int64(0)))
    rate = scalar(n, rate)
    for w, g, v in _groups(values, 3):
        g = _regularized(n, w, g)
        share = b.where(first, _like(n, w, 1.0), _like(n, w, beta))
        v = b.add(b.mul(v, _like(n, w, alpha)), b.mul(g, share))
        move = b.add(g, b.mul(v, _like(n, w, alpha))) if n.attr("mode") == "nesterov" else v
        rows.append((b.sub(w, b.mul(cast(n, rate, w.dtype), move)), v))
    return _flat(rows)


@onnx_op("Adam", domain=TRAINING)
def adam(n: OnnxNode, rate: Value, step: Value, *values: Value) -> tuple[Value, ...]:
    b, rows = n.b, []
    alpha, beta = n.attr("alpha", 0.9), n.attr("beta", 0.999)
    count = cast(n, scalar(n, step), f32)
    one = b.const(np.float32(1))
    unbiased = b.div(
        b.sqrt(b.sub(one, b.pow(b.const(np.float32(beta)), count))),
        b.sub(one, b.pow(b.const(np.float32(alpha)), count)),
    )
    rate = cast(n, scalar(n, rate), f32)
    rate = b.where(b.gt(scalar(n, step), b.const(np.zeros((), step.dtype.numpy))), b.mul(rate, unbiased), rate)
    after = n.attr("norm_coefficient_post", 0.0)
    for w, g, v, h in _groups(values, 4):
        g = _regularized(n, w, g)
        v = b.add(b.mul(v, _like(n, w, alpha)), b.mul(g, _like(n, w, 1 - alpha)))
        h = b.add(b.mul(h, _like(n, w, beta)), b.mul(b.mul(g, g), _like(n, w, 1 - beta)))
        w = b.sub(w, b.div(b.mul(cast(n, rate, w.dtype), v), b.add(b.sqrt(h), _like(n, w, n.attr("epsilon", 1e-6)))))
        rows.append((b.mul(w, _like(n, w, 1 - after)) if after else w, v, h))
    return _flat(rows)
