"""Attention and rotary embedding."""

from __future__ import annotations

import math
from functools import reduce
from typing import Any

import numpy as np

from effcc.frontends.onnx.node import OnnxNode, onnx_op
from effcc.frontends.onnx.ops_elementwise import cast
from effcc.frontends.onnx.ops_index import size_value
from effcc.ir.dims import Dim
from effcc.ir.graph import Value
from effcc.ir.types import i64


@onnx_op("Attention")
def attention(
    n: OnnxNode,
    q: Value,
    k: Value,
    v: Value,
    mask: Value | None = None,
    past_key: Value | None = None,
    past_value: Value | None = None,
    lengths: Value | None = None,
) -> Any:
    """To the `attention` op; what gives the scores as well is left to the function body."""
    if n.wants(3):
        return NotImplemented
    flat = len(q.shape) == 3
    if any(len(x.shape) != (3 if flat else 4) for x in (q, k, v)):
        n.malformed(f"queries {q.type}, keys {k.type} and values {v.type} are of 3 axes each, or of 4")
    if flat:
        q, k, v = (heads_first(n, x, n.attr(f"{who}_num_heads")) for x, who in ((q, "q"), (k, "kv"), (v, "kv")))
    past: Dim = 0
    if past_key is not None and past_value is not None:
        past = past_key.shape[2]
        k, v = n.b.concat(past_key, k, axis=2), n.b.concat(past_value, v, axis=2)
    present = k, v
    length, keys = q.shape[2], k.shape[2]
    window = n.attr("left_window_size", -1), n.attr("right_window_size", -1)
    causal = bool(n.attr("is_causal", 0))
    plain_causal = causal and past == 0 and lengths is None and window == (-1, -1)
    offset = None if plain_causal else size_value(n, past)
    if lengths is not None and past_key is None:
        offset = n.b.sub(n.b.reshape(cast(n, lengths, i64), shape=(*lengths.shape, 1, 1, 1)), size_value(n, length))
    keep = [] if plain_causal else _allowed(n, offset, length, keys, causal, window)
    if lengths is not None:
        valid = n.b.reshape(cast(n, lengths, i64), shape=(*lengths.shape, 1, 1, 1))
        keep.append(n.b.lt(n.b.iota(shape=(keys,), axis=0, dtype=i64), valid))
    facts: dict[str, Any] = {
        "scale": n.attr("scale", None),
        "causal": plain_causal,
        "softcap": n.attr("softcap", 0.0) or None,
    }
    operands = [q, k, v]
    whole = _mask(n, q, mask, keep, keys)
    y = n.b.attention(*operands, *(() if whole is None else (whole,)), **facts)
    if flat:
        batch, heads, rows, size = y.shape
        y = n.b.reshape(n.b.transpose(y, perm=(0, 2, 1, 3)), shape=(batch, rows, heads * size))
    return y, *present


def heads_first(n: OnnxNode, x: Value, heads: int | None) -> Value:
    """[B, L, H·D] -> [B, H, L, D]"""
    if heads is None:
        n.malformed("inputs of rank 3 need q_num_heads and kv_num_heads")
    batch, length, width = x.shape
    return n.b.transpose(n.b.reshape(x, shape=(batch, length, heads, width // heads)), perm=(0, 2, 1, 3))


def _allowed(
    n: OnnxNode, offset: Value | None, length: Dim, keys: Dim, causal: bool, window: tuple[int, int]
) -> list[Value]:
    """Which keys j a query i at position i + offset may attend to, by causality and the sliding window."""
    if not causal and window == (-1, -1):
        return []
    assert offset is not None
    position = n.b.add(n.b.iota(shape=(length, 1), axis=0, dtype=i64), offset)
    key = n.b.iota(shape=(1, keys), axis=1, dtype=i64)
    out = [n.b.le(key, position)] if causal else []
    if window[0] >= 0:
        out.append(n.b.le(n.b.sub(position, key), n.b.const(np.int64(window[0]))))
    if window[1] >= 0:
        out.append(n.b.le(n.b.sub(key, position), n.b.const(np.int64(window[1]))))
    return out


def _mask(n: OnnxNode, q: Value, mask: Value | None, keep: list[Value], keys: Dim) -> Value | None:
    """One mask from the given one (padded to all keys) and the conditions."""
    allowed = reduce(n.b.and_, keep) if keep else None
    if mask is None:
        return allowed
    n.of_rank(mask, 1)
    if mask.shape[-1] != keys and mask.shape[-1] != 1:
        fill = n.b.const(np.array(False)) if mask.dtype.is_bool else n.b.full_like(mask, -math.inf)
        rank = len(mask.shape)
        mask = n.b.pad(mask, fill, pads=(*[0] * (2 * rank - 1), keys - mask.shape[-1]))
    if allowed is None:
        return mask
    assert mask is not None
    if mask.dtype.is_bool:
        return n.b.and_(mask, allowed)
    return n.b.where(allowed, mask, n.b.full_like(mask, -math.inf))


@onnx_op("RotaryEmbedding", ranks=(3, 2, 2))
def rotary_embedding(n: OnnxNode, x: Value, cos: Value, sin: Value, positions: Value | None = None) -> Value:
    """x is [B, L, H·D] or [B, H, L, D]; the caches are [P, R/2] looked up at positions [B, L], or [B, L, R/2]."""
    flat = len(x.shape) == 3
    y = heads_first(n, x, n.attr("num_heads", 0) or None) if flat else x
    if positions is not None:
        cos, sin = (n.b.gather(c, positions, axis=0) for c in (cos, sin))
    cos, sin = (n.b.reshape(c, shape=(c.shape[0], 1, *c.shape[1:])) for c in (cos, sin))
    y = n.b.rotary_embedding(y, cos, sin, interleaved=bool(n.attr("interleaved", 0)))
    return n.b.reshape(n.b.transpose(y, perm=(0, 2, 1, 3)), shape=x.shape) if flat else y
