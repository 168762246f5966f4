"""Drawing small transformers: what passes over tokens and sublayers start from in `effcc.testing.check`."""

from __future__ import annotations

from typing import Any

import numpy as np

from effcc.ir.graph import Value
from effcc.ir.types import Tensor, bool_, f32

WIDTH, HEADS = 8, 2


def small_transformer(d: Any, b: Any, twice: bool = False) -> Any:
    """Two or three blocks on a few tokens: with or without class token and mask (bool or added, of all layers or some),
    pre- or post-norm, batch or tokens in front, rows flattened or not, heads beside batches or on an axis of their own,
    one projection for q, k, v or three, positions added again, a long skip connection; read by class token, mean,
    attention of other queries, or token by token.

    d: an effcc.testing.draw.Drawer. b: a Builder. twice: each token but the first is there twice, side by side.
    """
    weights = np.random.default_rng(d.integer(0, 99))

    def weight(*shape: int) -> Value:
        return b.const((weights.standard_normal(shape) / np.sqrt(shape[0])).astype("f4"))

    batch = 1 if twice else d.choose((1, 2))
    tokens, prepended, masked = d.integer(3, 7), d.boolean(), not twice and d.chance(30)
    odd = not twice and d.chance(30)  # with what few models have, and what does not keep equal tokens equal
    x = b.input("x", Tensor(f32, (batch, tokens, WIDTH)))
    if prepended:
        x = b.concat(b.broadcast_to(weight(1, 1, WIDTH), shape=(batch, 1, WIDTH)), x, axis=1)
    count = tokens + prepended
    if twice:
        index = np.r_[0, np.repeat(np.arange(1, count), 2)]
        x, count = b.gather(x, b.const(index.astype("i8")), axis=1), len(index)
    first, flat, joined = d.chance(25), d.chance(25), d.chance(20)
    mask = None
    if masked:
        ranks = (batch if not joined else batch * HEADS, *(() if joined else (1,)), 1, count)
        shape = tuple(d.choose((1, s)) for s in ranks[:-1]) + (count,)
        mask = b.input("mask", Tensor(d.choose((bool_, bool_, f32)), shape))
    layout = (count, batch, WIDTH) if first else (batch, count, WIDTH)
    x = b.transpose(x, perm=(1, 0, 2)) if first else x
    post, merged = d.boolean(), d.boolean()

    def norm(v: Value) -> Value:
        return b.layer_norm(v, axis=2)

    def linear(v: Value, wide: int) -> Value:
        if not flat:
            return b.matmul(v, weight(v.shape[-1], wide))
        rows = b.reshape(v, shape=(batch * count, v.shape[-1]))
        return b.reshape(b.matmul(rows, weight(v.shape[-1], wide)), shape=(*v.shape[:-1], wide))

    def heads(v: Value) -> Value:
        split = b.reshape(v, shape=(*v.shape[:2], HEADS, WIDTH // HEADS))
        out = b.transpose(split, perm=(1, 2, 0, 3) if first else (0, 2, 1, 3))
        return b.reshape(out, shape=(batch * HEADS, *out.shape[2:])) if joined else out

    def rows(out: Value) -> Value:
        count = out.shape[-2]
        out = b.reshape(out, shape=(batch, HEADS, count, WIDTH // HEADS)) if joined else out
        out = b.transpose(out, perm=(2, 0, 1, 3) if first else (0, 2, 1, 3))
        return b.reshape(out, shape=(*out.shape[:2], WIDTH))

    def attention(v: Value, mask: Value | None) -> Value:
        if merged:
            whole = linear(v, 3 * WIDTH)
            parts = [b.slice(whole, starts=(0, 0, k * WIDTH), stops=(*layout[:2], (k + 1) * WIDTH), steps=(1, 1, 1))
                     for k in range(3)]
        else:
            parts = [linear(v, WIDTH) for _ in range(3)]
        return linear(rows(b.attention(*map(heads, parts), *([mask] if mask is not None else []))), WIDTH)

    def mlp(v: Value) -> Value:
        return linear(b.gelu(linear(v, 2 * WIDTH), approximate="none"), WIDTH)

    begin = x
    for _ in range(d.integer(2, 3)):
        seen = None if odd and d.chance(30) else mask
        for f in (lambda v, seen=seen: attention(v, seen), mlp):
            x = norm(b.add(x, f(x))) if post else b.add(x, f(norm(x)))
            if odd and d.chance(20):
                x = b.add(x, begin if d.boolean() else weight(*layout))
    x = norm(x)
    if odd and d.chance(40):
        asked = b.broadcast_to(weight(1, 1, WIDTH), shape=(1, batch, WIDTH) if first else (batch, 1, WIDTH))
        given = [mask] if mask is not None and d.boolean() else []
        return rows(b.attention(heads(asked), heads(linear(x, WIDTH)), heads(x), *given))
    x = b.transpose(x, perm=(1, 0, 2)) if first else x
    kind = d.choose(("class", "mean", "all"))
    if kind == "class":
        return b.slice(x, starts=(0, 0, 0), stops=(batch, 1, WIDTH), steps=(1, 1, 1))
    return b.mean(x, axes=(1,)) if kind == "mean" else x
