"""Drawing attention and rotary embedding as exporters write them, or nearly so: examples for rules that raise it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from effcc.ir.graph import Value
from effcc.ir.types import DType, Tensor, bool_


def queries_keys_values(d: Any, b: Any) -> tuple[Value, Value, Value]:
    d.kinds = "f"
    dtype, heads, size = d.dtype(), d.integer(1, 2), d.choose((2, 4))
    q, k, v = (b.input(name, Tensor(dtype, (heads, n, size))) for name, n in (("q", 2), ("k", 3), ("v", 3)))
    return q, k, v


def weighted_values(d: Any, b: Any, weights: Callable[[Any, Value], Value]) -> Value:
    """weights(scores) @ v: scores scaled and masked in several ways; q, k, v transposed or not, of equal heads or not.

    d: an effcc.testing.draw.Drawer. b: a Builder. weights: of scores, by a builder.
    """
    d.kinds = "f"
    heads, n, k, size = d.integer(1, 2), d.choose((2, 3)), d.choose((3, 2)), d.choose((2, 4))
    dtype = d.dtype()
    ta, tb, turned = (d.chance(30) for _ in range(3))
    few = d.choose(((heads,) * 3,) * 8 + ((heads, 1, heads), (heads, heads, 1)))  # heads of q, k, v
    q, key, v = (
        b.input(name, Tensor(dtype, (count, *(shape[::-1] if swap else shape))))
        for name, count, shape, swap in zip("qkv", few, ((n, size), (size, k), (k, size)), (ta, tb, turned))
    )
    v = b.reshape(v, shape=v.shape[1:]) if few[2] == 1 and d.boolean() else v
    if d.chance(5):
        scores = b.input("scores", Tensor(dtype, (heads, n, k)))
    else:
        scores = b.matmul(q, key, transpose_a=ta, transpose_b=tb)
    scores = scaled(d, b, scores)
    for number in range(d.choose((0, 1, 2, 0, 1, 2, 7))):
        scores = masked(d, b, scores, number)
    scores = scaled(d, b, scores) if d.chance(20) else scores
    return b.matmul(weights(b, scores), v, transpose_b=turned)


def scaled(d: Any, b: Any, scores: Value) -> Value:
    half, two = b.const(d.choose((0.5, 0.5, 0.5, 0.0)), scores.dtype), b.const(2.0, scores.dtype)
    kinds = (lambda: scores, lambda: b.mul(scores, half), lambda: b.mul(half, scores), lambda: b.div(scores, two))
    return d.choose(kinds)()


def masked(d: Any, b: Any, scores: Value, number: int) -> Value:
    """By a sum or a choice, with an input or a table; or multiplied by an input, which is no mask."""
    dtype, (n, k) = scores.dtype, scores.shape[-2:]
    table = causal_table(n, k, dtype)
    match d.choose(("added input", "added table", "chosen input", "chosen table", "turned", "scaled")):
        case "added input":
            return b.add(scores, b.input(f"mask{number}", Tensor(dtype, (1, n, k))))
        case "added table":
            return b.add(scores, b.const(table + d.choose((0, distances(n, k))), dtype))
        case "chosen input":
            keep = b.input(f"keep{number}", Tensor(bool_, (1, n, k)))
            return b.where(keep, scores, b.const(d.choose((-math.inf, -math.inf, -1e4)), dtype))
        case "chosen table":
            return b.where(b.const(table == 0), scores, b.const(-math.inf, dtype))
        case "turned":
            return b.add(b.input(f"mask{number}", Tensor(dtype, (1, n, k))), scores)
    return b.mul(scores, b.input(f"factor{number}", Tensor(dtype, ())))


def causal_table(n: int, k: int, dtype: DType) -> Any:
    return np.triu(np.full((n, k), -np.inf), 1).astype(dtype.numpy)


def distances(n: int, k: int) -> Any:
    """How far each key lies behind a query, as models without positions add it (ALiBi, Press et al. 2022)."""
    return np.arange(k) - np.arange(n)[:, None]


def repeated_heads(d: Any, b: Any) -> Value:
    """Attention with each key head repeated for its queries; or with all of them one after the other, and again."""
    d.kinds = "f"
    dtype, heads, group, size = d.dtype(), d.integer(1, 2), d.integer(1, 3), d.choose((2, 4))
    kind = d.choose(("repeated",) * 6 + ("tiled", "without batch", "one head"))
    heads = 1 if kind == "one head" else heads
    shape = {"without batch": (heads, 3, size), "one head": (3, size)}.get(kind, (1, heads, 3, size))
    one, wide = (1, heads, 1, 3, size), (1, heads, group, 3, size)
    if kind == "tiled":
        one, wide = (1, 1, heads, 3, size), (1, group, heads, 3, size)

    def repeated(name: str) -> Value:
        parts = b.broadcast_to(b.reshape(b.input(name, Tensor(dtype, shape)), shape=one), shape=wide)
        return b.reshape(parts, shape=(1, heads * group, 3, size))

    q = b.input("q", Tensor(dtype, (1, heads * group, 2, size)))
    return b.attention(q, repeated("k"), repeated("v"), causal=d.boolean())


def rotated(d: Any, b: Any) -> Value:
    """x * cos + concat(-x[d/2:], x[:d/2]) * sin, with halves of the angles that are equal, or not."""
    d.kinds = "f"
    dtype, length, half = d.dtype(), d.choose((2, 3)), d.choose((1, 2, 4))
    x = b.input("x", Tensor(dtype, (d.integer(1, 2), length, 2 * half)))
    both = angles(d, b, b.input("f", Tensor(dtype, (length, half))))
    low, high = (b.slice(x, starts=(0, 0, a), stops=(*x.shape[:2], a + half), steps=(1, 1, 1)) for a in (0, half))
    turned = b.concat(b.neg(high), low, axis=2)
    return b.add(b.mul(x, b.cos(both)), b.mul(turned, b.sin(both)))


def angles(d: Any, b: Any, half: Value) -> Value:
    """[n, 2·d] of halves [n, d]: joined, or a table of constants; looked up, scaled or moved on the way."""
    (n, size), dtype = half.shape, half.dtype
    if d.chance(10):
        both = b.input("both", Tensor(dtype, (n, 2 * size)))
    elif d.chance(70):
        both = b.concat(half, half if d.chance(80) else b.neg(half), axis=1)
    else:
        table = np.arange(n * size).reshape(n, size) % 3
        both = b.const(np.concatenate([table, table + (0 if d.boolean() else 1)], 1), dtype)
    steps: tuple[Callable[[Value], Value], ...] = (
        lambda v: b.mul(v, b.const(0.5, dtype)),
        lambda v: b.add(b.const(1.0, dtype), v),
        lambda v: b.abs(v),
        lambda v: b.add(v, v),
        lambda v: b.gather(v, b.const(np.arange(v.shape[0])), axis=0),
        lambda v: b.gather(v, b.const(np.arange(v.shape[-1])), axis=len(v.shape) - 1),
        lambda v: b.reshape(v, shape=(1, *v.shape)),
        lambda v: b.cumsum(v, axis=0),
        lambda v: b.transpose(v, perm=(1, 0, *range(2, len(v.shape)))) if len(v.shape) > 2 else v,
    )
    for _ in range(d.choose((0, 1, 2, 3, 4, 13))):
        both = d.choose(steps)(both)
    return b.reshape(both, shape=(n, 2 * size))
