"""Attention and rotary position embedding."""

from __future__ import annotations

import math
from typing import Any

from effcc.ir import scalar as s
from effcc.ir.assumptions import may_equal, may_fit
from effcc.ir.dims import Dim, product
from effcc.ir.lazy import torch
from effcc.ir.op import Op, require, tensor
from effcc.ir.scalar import Compute, Read, Scalar
from effcc.ir.types import Tensor, Type, bool_, i64
from effcc.ops.contraction import accumulate_dtype
from effcc.ops.elementwise import broadcast_index, broadcast_shapes
from effcc.ops.elementwise.family import wide
from effcc.ops.normalization import convert, widen


class Attention(Op):
    """softmax(q kᵀ · scale + mask) v for each head. (Vaswani et al. 2017; torch's scaled_dot_product_attention)

    q [B.., H, Lq, D], k [B.., Hkv, Lk, D], v [B.., Hkv, Lk, Dv] -> [B.., H, Lq, Dv]; H is a multiple of Hkv: query
    heads h · H/Hkv ... share a key head (grouped queries). The mask broadcasts to [B.., H, Lq, Lk]: bool (true: attend)
    or float, added. `scale` None: 1/√D. `causal`: query i attends to keys 0..i. `softcap` c: scores become c ·
    tanh(score / c) before the mask. A query that may attend to nothing gives zeros. f16 and bf16 compute in f32 and
    round once.
    """

    name = "attention"
    kinds = "fb"
    family = "attention"
    operands = ("q", "k", "v", "mask?")
    scale: float | None = None
    causal: bool = False
    softcap: float | None = None

    def infer(self, q: Type, k: Type, v: Type, mask: Type | None = None) -> Tensor:
        tq, tk, tv = tensor(q, "q"), tensor(k, "k"), tensor(v, "v")
        require(
            tq.dtype.is_float and tq.dtype == tk.dtype == tv.dtype,
            f"q, k, v are {tq.dtype}, {tk.dtype}, {tv.dtype}",
            "insert a cast",
        )
        require(tq.rank >= 3 and tq.rank == tk.rank == tv.rank, "q, k and v need axes [B.., H, L, D]", "reshape them")
        for d, e, what in [
            *((a, b, "batch axes") for a, b in zip(tq.shape[:-3], tk.shape[:-3])),
            *((a, b, "batch axes") for a, b in zip(tq.shape[:-3], tv.shape[:-3])),
            (tq.shape[-1], tk.shape[-1], "head sizes of q and k"),
            (tk.shape[-2], tv.shape[-2], "lengths of k and v"), (tk.shape[-3], tv.shape[-3], "heads of k and v"),
        ]:
            require(may_equal(d, e), f"{what} differ: {d} and {e}")
        heads, shared = tq.shape[-3], tk.shape[-3]
        require(
            heads == shared
            or isinstance(heads, int)
            and isinstance(shared, int)
            and shared > 0
            and heads % shared == 0,
            f"{heads} query heads are no multiple of {shared} key heads",
        )
        require(self.scale is not None or isinstance(tq.shape[-1], int), "the head size is symbolic", "give the scale")
        if mask is not None:
            m = tensor(mask, "mask")
            scores = (*tq.shape[:-1], tk.shape[-2])
            require(m.dtype == bool_ or m.dtype.is_float, f"the mask is {m.dtype}, neither bool nor float")
            require(m.rank <= len(scores), f"the mask {m} has more axes than the scores")
            joined = broadcast_shapes(m.shape, scores)
            require(all(map(may_equal, joined, scores)),
                    f"the mask {m} does not broadcast to {list(scores)}")
        return tq.with_shape((*tq.shape[:-1], tv.shape[-1]))

    def factor(self, head_size: Dim) -> float:
        """The scale of the scores."""
        return self.scale if self.scale is not None else 1 / math.sqrt(max(head_size, 1))  # type: ignore[type-var]

    def reference(self, q: Any, k: Any, v: Any, mask: Any = None) -> Any:
        repeat = q.shape[-3] // max(k.shape[-3], 1)
        queries, keys, values = wide(q), *(wide(x).repeat_interleave(repeat, -3) for x in (k, v))
        scores = queries @ keys.mT * self.factor(q.shape[-1])
        if self.softcap is not None:
            scores = self.softcap * torch.tanh(scores / self.softcap)
        if mask is not None:
            hidden = mask.dtype == torch.bool
            scores = scores.masked_fill(~mask, -math.inf) if hidden else scores + mask.to(scores.dtype)
        if self.causal:
            keep = torch.ones(scores.shape[-2:], dtype=torch.bool).tril()
            scores = scores.masked_fill(~keep, -math.inf)
        weights = torch.softmax(scores, -1)
        nothing = (scores == -math.inf).all(-1, keepdim=True)
        return (weights.masked_fill(nothing, 0.0) @ values).to(q.dtype)

    def decompose(self, b: Any, q: Any, k: Any, v: Any, mask: Any = None) -> Any:
        *batch, heads, length, size = q.shape
        shared, keys = k.shape[-3], k.shape[-2]
        queries, k, v = (widen(b, x) for x in (q, k, v))
        grouped = heads != shared
        if grouped:  # [B.., Hkv, group, L, D], so that the key heads broadcast
            queries = b.reshape(queries, shape=(*batch, shared, heads // shared, length, size))
            k, v = (b.reshape(x, shape=(*x.shape[:-2], 1, *x.shape[-2:])) for x in (k, v))
        scores = b.matmul(queries, k, transpose_b=True)
        if grouped:
            scores = b.reshape(scores, shape=(*batch, heads, length, keys))
        scores = b.mul(scores, b.full_like(scores, self.factor(size)))
        if self.softcap is not None:
            cap = b.full_like(scores, self.softcap)
            scores = b.mul(cap, b.tanh(b.div(scores, cap)))
        never = b.full_like(scores, -math.inf)
        if mask is not None:
            scores = (
                b.where(mask, scores, never) if mask.dtype == bool_ else b.add(scores, convert(b, mask, scores.dtype))
            )
        if self.causal:
            row = b.iota(shape=(length, 1), axis=0, dtype=i64)
            column = b.iota(shape=(1, keys), axis=1, dtype=i64)
            scores = b.where(b.ge(row, column), scores, never)
        top = b.amax(scores, axes=(len(q.shape) - 1,), keepdims=True)
        top = b.where(
            b.eq(top, never), b.full_like(top, 0.0), top
        )  # a row that is masked all over: e^-inf = 0, not NaN
        e = b.exp(b.sub(scores, top))
        total = b.sum(e, axes=(len(q.shape) - 1,), keepdims=True)
        weights = b.div(e, b.where(b.eq(total, b.full_like(total, 0.0)), b.full_like(total, 1.0), total))
        if grouped:
            weights = b.reshape(weights, shape=(*batch, shared, heads // shared, length, keys))
        out = b.matmul(weights, v)
        if grouped:
            out = b.reshape(out, shape=(*batch, heads, length, v.shape[-1]))
        return convert(b, out, q.dtype)

    def flops(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Dim:
        scores = product((*q.shape[:-1], k.shape[-2]))
        return scores * (q.shape[-1] + v.shape[-1]) * 2 + scores * 5


class RotaryEmbedding(Op):
    """Rotates pairs of the last axis by position angles. (Su et al. 2021; ONNX RotaryEmbedding)

    x [..., L, D]; cos and sin [..., R/2] broadcast to x's other axes; the first R ≤ D elements rotate, the rest pass.
    Pair i is (x[i], x[i + R/2]), or (x[2i], x[2i + 1]) where `interleaved`:
        (a, b) -> (a cos - b sin, b cos + a sin)
    """

    name = "rotary_embedding"
    kinds = "f"
    family = "attention"
    operands = ("x", "cos", "sin")
    interleaved: bool = False

    def infer(self, x: Type, cos: Type, sin: Type) -> Tensor:
        t, c, n = tensor(x), tensor(cos, "cos"), tensor(sin, "sin")
        require(
            t.dtype.is_float and c.dtype.is_float and n.dtype.is_float, "rotary embedding takes floats", "insert a cast"
        )
        require(t.rank >= 1 and c.rank >= 1, "x, cos and sin need at least one axis")
        require(c == n, f"cos is {c}, sin is {n}")
        size, half = t.shape[-1], c.shape[-1]
        require(
            may_fit(half * 2, size),
            f"{half} angles rotate {half * 2} elements, the last axis has {size}",
            "give one angle for each pair: half of the head size",
        )
        require(c.rank <= t.rank, f"cos {c} has more axes than x")
        joined = broadcast_shapes(c.shape[:-1], t.shape[:-1])
        require(all(map(may_equal, joined, t.shape[:-1])),
                f"cos {c} does not broadcast to {t}")
        return t

    def reference(self, x: Any, cos: Any, sin: Any) -> Any:
        half = cos.shape[-1]
        w, c, n = wide(x), wide(cos).to(wide(x).dtype), wide(sin).to(wide(x).dtype)
        turned, rest = w[..., : 2 * half], w[..., 2 * half:]
        if self.interleaved:
            first, second = turned[..., 0::2], turned[..., 1::2]
        else:
            first, second = turned[..., :half], turned[..., half:]
        one, two = first * c - second * n, second * c + first * n
        turned = torch.stack((one, two), -1).flatten(-2) if self.interleaved else torch.cat((one, two), -1)
        return torch.cat((turned, rest), -1).to(x.dtype)

    def compute(self, x: Tensor, cos: Tensor, sin: Tensor) -> Compute:
        here = tuple(s.index(k) for k in range(x.rank))
        d, half, acc = here[-1], s.size(cos.shape[-1]), accumulate_dtype(x.dtype, None)
        rotated = s.size(cos.shape[-1] * 2)
        if self.interleaved:
            pair, second = d // 2, (d % 2).eq(1)
            partner = s.select(second, d - 1, d + 1)
        else:
            second = d >= half
            pair = s.select(second, d - half, d)
            partner = s.select(second, d - half, d + half)
        top = s.size(x.shape[-1] - 1)
        pair, partner = s.maximum(s.minimum(pair, half - 1), 0), s.minimum(s.maximum(partner, 0), top)

        def angle(operand: int, t: Tensor) -> Scalar:
            at = broadcast_index(t.shape[:-1], x.shape[:-1], here[:-1])
            return s.cast(Read(t.dtype, operand, (*at, pair)), acc)

        own = s.cast(Read(x.dtype, 0, here), acc)
        other = s.cast(Read(x.dtype, 0, (*here[:-1], partner)), acc)
        turned = own * angle(1, cos) + s.select(second, other, -other) * angle(2, sin)
        whole = cos.shape[-1] * 2 == x.shape[-1]
        return Compute(x.shape, (s.cast(turned if whole else s.select(d < rotated, turned, own), x.dtype),))
