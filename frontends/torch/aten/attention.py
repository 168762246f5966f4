"""Scaled dot-product attention, forward and backward."""

from __future__ import annotations

import math

from effcc.errors import UnsupportedError
from effcc.frontends.torch.emitter import Emitter, lowers
from effcc.ir import Value, bool_


def _scale(q: Value, scale: float | None) -> float:
    return 1 / math.sqrt(q.shape[-1]) if scale is None else float(scale)


def _mask(e: Emitter, mask: Value, q: Value) -> Value:
    return mask if mask.dtype == bool_ else e.cast(mask, q.dtype)


@lowers("scaled_dot_product_attention")
def attention(
    e: Emitter,
    q: Value,
    k: Value,
    v: Value,
    attn_mask: Value | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Value:
    """q [B..., H, Lq, D], k and v [B..., Hkv, Lk, D]."""
    if dropout_p:
        raise UnsupportedError(
            "attention with dropout inside is not supported", hint="set its dropout to 0, or use eager attention"
        )
    operands = (q, k, v) if attn_mask is None else (q, k, v, _mask(e, attn_mask, q))
    lone = len(q.shape) == 3
    if lone:
        operands = tuple(e.unsqueeze(x, 0) if len(x.shape) == 3 else x for x in operands)
    y = e.b.attention(*operands, scale=_scale(q, scale), causal=bool(is_causal))
    return e.reshape(y, y.shape[1:]) if lone else y


@lowers("_scaled_dot_product_flash_attention_for_cpu")
def flash_attention(
    e: Emitter,
    q: Value,
    k: Value,
    v: Value,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    attn_mask: Value | None = None,
    scale: float | None = None,
) -> tuple[Value, Value | None]:
    """Results: the output, and for training the log-sum-exp of each row of scores [B, H, Lq]."""
    y = attention(e, q, k, v, attn_mask, dropout_p, is_causal, scale=scale)
    if not e.uses(1):
        return y, None
    scores = _scores(e, q, k, attn_mask, is_causal, _scale(q, scale))
    lse = e.b.logsumexp(e.cast(scores, e.compute_dtype(scores.dtype)), axes=(len(scores.shape) - 1,), keepdims=False)
    return y, e.cast(lse, e.dtype_of(e.meta[1].dtype))


def _scores(e: Emitter, q: Value, k: Value, mask: Value | None, causal: bool, scale: float) -> Value:
    """scale · q kᵀ, masked elements -inf."""
    scores = e.b.mul(e.b.matmul(q, e.swap(k, -1, -2)), e.number(scale, q.dtype))
    hidden = e.number(float("-inf"), q.dtype)
    if causal:
        plane = (q.shape[-2], k.shape[-2])
        scores = e.b.where(e.b.ge(e.iota(plane, 0), e.iota(plane, 1)), scores, hidden)
    if mask is not None:
        mask = _mask(e, mask, q)
        scores = e.b.where(mask, scores, hidden) if mask.dtype == bool_ else e.b.add(scores, mask)
    return scores


@lowers("_scaled_dot_product_flash_attention_for_cpu_backward")
def flash_attention_backward(
    e: Emitter,
    grad: Value,
    q: Value,
    k: Value,
    v: Value,
    out: Value,
    lse: Value,
    dropout_p: float,
    is_causal: bool,
    *,
    attn_mask: Value | None = None,
    scale: float | None = None,
) -> tuple[Value, ...]:
    """FlashAttention's backward pass (Dao et al. 2022, section B.4) with the whole matrix of probabilities:
    P = exp(S - lse), dV = Pᵀ dO, dP = dO Vᵀ, dS = P ∘ (dP - rowsum(dO ∘ O)), dQ = scale dS K, dK = scale dSᵀ Q."""
    factor = _scale(q, scale)
    wide = e.compute_dtype(q.dtype)
    grad, q, k, v, out = (e.cast(x, wide) for x in (grad, q, k, v, out))
    scores = _scores(e, q, k, attn_mask, is_causal, factor)
    lse = e.unsqueeze(e.cast(lse, wide), len(lse.shape))
    p = e.b.exp(e.b.sub(scores, lse))
    p = e.b.where(e.b.eq(lse, e.number(float("-inf"), wide)), e.number(0, wide), p)
    dv = e.b.matmul(e.swap(p, -1, -2), grad)
    dp = e.b.matmul(grad, e.swap(v, -1, -2))
    row = e.b.sum(e.b.mul(grad, out), axes=(len(grad.shape) - 1,), keepdims=True)
    ds = e.b.mul(e.b.mul(p, e.b.sub(dp, row)), e.number(factor, wide))
    dq = e.b.matmul(ds, k)
    dk = e.b.matmul(e.swap(ds, -1, -2), q)
    return tuple(e.cast(x, e.dtype) for x in (dq, dk, dv))
