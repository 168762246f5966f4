"""Drawing graphs whose ops fusion may join, or must not: what the pass `fuse` starts from in `effcc.testing.check`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from effcc.ir.graph import Value
from effcc.ir.types import Tensor, f32, i8, i32, u8


def meeting_ops(d: Any, b: Any) -> Any:
    """One of `KINDS` over a small input.

    d: an effcc.testing.draw.Drawer. b: a Builder.
    """
    x = b.input("x", Tensor(f32, (d.choose((2, 1)), 3, 4)))
    return d.choose(KINDS)(d, b, x)


def rows(d: Any, b: Any, x: Value) -> Any:
    """A softmax over trailing axes, with another reduction of the same rows, or of others."""
    axes = d.choose(((2,), (1, 2)))
    e = b.exp(b.sub(x, b.amax(x, axes=axes, keepdims=True)))
    other = b.sum(b.abs(x), axes=d.choose(((2,), (1, 2), axes)), keepdims=True)
    row = b.sqrt(b.add(b.sum(e, axes=axes, keepdims=True), other))
    out = b.div(e, row)
    return [out, row] if d.boolean() else b.mul(out, b.matmul(x, b.input("w", Tensor(f32, (4, 4)))))


def stored_bytes(d: Any, b: Any, x: Value) -> Any:
    """Bytes that several read, one of them as numbers."""
    q = b.cast(b.clip(x, b.const(0.0, f32), b.const(200.0, f32)), to=u8)
    wide = b.cast(q, to=d.choose((f32, i32)))
    for _ in range(d.integer(0, 3)):
        wide = b.sub(wide, b.const(3, wide.dtype))
    real = b.mul(b.cast(wide, to=f32), b.const(0.5, f32) if d.boolean() else x)
    out = b.add(real, b.relu(x)) if d.chance(70) else b.neg(real)
    others = (lambda: b.transpose(q, perm=(1, 0, 2)), lambda: real, lambda: b.max(q, b.const(7, u8)))
    return [out, *(make() for make in others if d.boolean())]


def quantized_weights(d: Any, b: Any, x: Value) -> Any:
    """Two products by one dequantized constant, which something else may read as well."""
    w = b.const(d.blob(Tensor(i8, (4, 4))))
    restored = b.dequantize_linear(w, b.const(np.linspace(0.5, 2, 4, dtype="f4")), axis=1)
    products = [b.relu(b.matmul(v, restored)) for v in (x, b.neg(x))]
    kind = d.choose(("alone", "alone", "a result", "read"))
    return [*products, *([restored] if kind == "a result" else [b.exp(restored)] if kind == "read" else [])]


def around(d: Any, b: Any, x: Value) -> Any:
    """Maps on both sides of ops that no region takes in, so that joining them would close a cycle."""
    pool = [b.relu(x)]
    steps: tuple[Callable[[Value, Value], Value], ...] = (
        lambda v, u: b.add(v, u),
        lambda v, u: b.exp(v),
        lambda v, u: b.cumsum(v, axis=2),
        lambda v, u: b.mul(b.sum(v, axes=(2,), keepdims=True), u),
        lambda v, u: b.matmul(v, b.const(np.eye(4, dtype="f4"))),
        lambda v, u: b.transpose(v, perm=(0, 1, 2)),
    )
    for _ in range(d.integer(4, 12)):
        pool.append(d.choose(steps)(d.choose(pool[-4:]), d.choose(pool)))
    return pool[-d.integer(1, 3):]


KINDS: tuple[Callable[[Any, Any, Value], Any], ...] = (rows, stored_bytes, quantized_weights, around)
