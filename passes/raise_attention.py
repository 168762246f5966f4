"""Raising attention and rotary embedding.

Attention is found from its last matmul backward: softmax, then whatever scales and masks the scores, then q kᵀ.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Any

from effcc.ir.graph import Value
from effcc.ir.types import DType, f32, f64
from effcc.passes.fold_scales import MOST_OF_RANGE
from effcc.passes.raise_activations import Bounded
from effcc.rewrite import BOUNDED, REFINES, Item, Rule, Workspace


@dataclass
class Scores:
    """softmax's operand taken apart: factor * q kᵀ + masks; `bool_masks` are True where a query may attend."""

    product: Item
    factor: float
    added: list[Value]
    kept: list[Value]


def take_apart(scores: Value, w: Workspace) -> Scores | str:
    """Peel numbers and masks off the scores, down to a matmul."""
    factor, added, kept = 1.0, [], []
    scaled = False  # a mask below a factor would have to be scaled too
    while True:
        item = w.producer(scores)
        if item is None or len(w.readers(scores)) != 1 or w.is_output(scores):
            return "the scores are an input, or are read elsewhere too"
        name = item.op.name
        if name == "matmul":
            return Scores(item, factor, added, kept)
        if name in ("mul", "div"):
            found = _number(item, w)
            if found is None:
                return f"the scores are made by a {name} that is no scaling"
            scores, number = found
            factor *= number
            scaled = True
        elif name == "add" and not scaled:
            found_mask = _mask(item, w)
            if found_mask is None:
                return "no operand of the add leads to q kᵀ"
            scores, mask = found_mask
            added.append(mask)
        elif name == "where" and not scaled:
            cond, a, c = item.operands
            fill = w.constant(c)
            if fill is None or fill.array.size != 1 or fill.array.reshape(-1)[0] != -math.inf:
                return "the mask does not fill with -inf"
            kept.append(cond)
            scores = a
        else:
            return f"the scores are made by {name}"


def _number(item: Item, w: Workspace) -> tuple[Value, float] | None:
    """(the scores, what they are multiplied by) of a product or quotient by a number."""
    for k in (1, 0) if item.op.name == "mul" else (1,):
        blob = w.constant(item.operands[k])
        if blob is not None and blob.array.size == 1:
            number = float(blob.array.reshape(-1)[0])
            factor = number if item.op.name == "mul" else 1 / number if number else math.inf
            if math.isfinite(factor) and factor != 0 and item.operands[1 - k].type == item.result.type:
                return item.operands[1 - k], factor
    return None


def _mask(item: Item, w: Workspace) -> tuple[Value, Value] | None:
    """(the scores, the mask) of a sum: the scores are the operand that comes from a matmul."""
    for k in (0, 1):
        scores, mask = item.operands[k], item.operands[1 - k]
        if scores.type == item.result.type and len(w.readers(scores)) == 1 and _leads_to_matmul(scores, w):
            return scores, mask
    return None


def _leads_to_matmul(v: Value, w: Workspace) -> bool:
    for _ in range(6):
        item = w.producer(v)
        if item is None:
            return False
        if item.op.name == "matmul":
            return True
        if item.op.name not in ("add", "mul", "div", "where"):
            return False
        inner = item.operands[1] if item.op.name == "where" else item.operands[0]
        if w.constant(inner) is not None:
            inner = item.operands[1]
        v = inner
    return False


class Attention(Bounded):
    """softmax(c * matmul(q, kᵀ) + mask) @ v --> attention(q, k, v, mask) {scale=c}

    A query that may attend to nothing gives zeros, not NaN.
    """

    contract = REFINES

    def pattern(self, p: Any, scores: Any, v: Any) -> Any:
        return p.matmul(self.weights(p, scores), v, transpose_b=p.any("turned"))

    def weights(self, p: Any, scores: Any) -> Any:
        return p.softmax(scores, axis=p.any("axis"))

    def check(self, m: Any, ctx: Any) -> str | None:
        rank = len(m.scores.shape)
        if m.axis != rank - 1:
            return "softmax is not over the last axis"
        return None if rank >= 3 else "the scores have no axis of heads"

    def rewrite(self, b: Any, m: Any) -> Any:
        parts = take_apart(m.scores, m.workspace)
        if isinstance(parts, str):
            return parts
        if (reason := no_scale(parts.factor, m.scores.dtype)) is not None:
            return reason
        if parts.kept and parts.added and self.special_inputs:
            return "scores that one mask leaves out would meet the other: infinite ones give NaN"
        matmul = parts.product.op
        q, k = parts.product.operands
        if matmul.transpose_a:  # type: ignore[attr-defined]
            q = swap_last_two(b, q)
        if not matmul.transpose_b:  # type: ignore[attr-defined]
            k = swap_last_two(b, k)
        v = swap_last_two(b, m.v) if m.turned else m.v
        if not len(q.shape) == len(k.shape) == len(v.shape):
            return "q, k and v differ in rank"
        if q.shape[:-2] != k.shape[:-2] or q.shape[:-2] != v.shape[:-2]:
            return "the batch and head axes of q, k and v differ"
        mask = _joined_mask(b, parts, m.scores)
        causal = mask is not None and _is_causal(m.workspace, mask)
        operands = (q, k, v) if mask is None or causal else (q, k, v, mask)
        return b.attention(*operands, scale=parts.factor, causal=causal)

    def example(self, d: Any, b: Any) -> Any:
        from effcc.testing.attention import weighted_values

        return weighted_values(d, b, self.example_weights)

    def example_weights(self, b: Any, scores: Any) -> Any:
        return b.softmax(scores, axis=2)


class MaskedTwice(Attention):
    """softmax(where(keep, c * matmul(q, kᵀ) + m, -inf)) @ v --> attention(q, k, v, where(keep, m, -inf)) {scale=c}

    Scores that are left out are added to -inf there: that this hides NaN and infinities of q and k is not kept.
    """

    special_inputs = False


class GuardedAttention(Attention):
    """w = softmax(scores);  where(isnan(w), 0, w) @ v --> attention(...)     as torch exports masked attention

    The guard means rows that are masked all over; that it also hides NaN of q and k is not kept.
    """

    special_inputs = False

    def weights(self, p: Any, scores: Any) -> Any:
        weights = p.softmax(scores, axis=p.any("axis"))
        return p.where(p.isnan(weights), p.number(0.0), weights)

    def example_weights(self, b: Any, scores: Any) -> Any:
        weights = b.softmax(scores, axis=2)
        return b.where(b.isnan(weights), b.const(0.0, weights.dtype), weights)


def swap_last_two(b: Any, x: Value) -> Value:
    rank = len(x.shape)
    return b.transpose(x, perm=(*range(rank - 2), rank - 1, rank - 2))


def _joined_mask(b: Any, parts: Scores, scores: Value) -> Value | None:
    """All masks as one: bool where there is no added one, else float."""
    keep = functools.reduce(b.and_, parts.kept) if parts.kept else None
    total = functools.reduce(b.add, parts.added) if parts.added else None
    if keep is None or total is None:
        return keep if total is None else total
    return b.where(keep, total, b.const(-math.inf, scores.dtype))  # chosen, not added: what is masked may be anything


FORBIDS = -1e4
"""An added mask of this or less makes a weight of 0 (e⁻¹⁰⁰⁰⁰ underflows in every dtype)."""


def _is_causal(w: Workspace, mask: Value) -> bool:
    """Whether a mask is a constant that lets query i attend to keys 0..i, of as many queries as keys."""
    import numpy as np

    blob = w.constant(mask)
    if blob is None or blob.array.ndim < 2 or blob.array.size == 0:
        return False
    n, k = blob.array.shape[-2:]
    if n != k:
        return False
    tables, lower = blob.array.reshape(-1, n, k), np.tril(np.ones((n, k), bool))
    if tables.dtype == bool:
        return bool((tables == lower).all())
    values = tables.astype("f8")
    return bool((values[:, lower] == 0).all() and (values[:, ~lower] <= FORBIDS).all())


class NoMask(Bounded):
    """attention(q, k, v, 0) --> attention(q, k, v);  attention(q, k, v, true) --> attention(q, k, v)"""

    def pattern(self, p: Any, q: Any, k: Any, v: Any) -> Any:
        return p.attention(q, k, v, p.number("mask"), **p.any_attributes("attention"))

    def check(self, m: Any, ctx: Any) -> str | None:
        neutral = True if m.mask.dtype.is_bool else 0
        return None if m.number("mask") == neutral else "the mask forbids or adds something"

    def rewrite(self, b: Any, m: Any) -> Any:
        return b.add(m.root.op, m.q, m.k, m.v)

    def example(self, d: Any, b: Any) -> Any:
        from effcc.testing.attention import queries_keys_values

        q, k, v = queries_keys_values(d, b)
        mask = b.const(d.choose((0.0, -0.0, 1.0)), q.dtype) if d.boolean() else b.const(d.boolean())
        return b.attention(q, k, v, b.broadcast_to(mask, shape=(2, 3)) if d.chance(10) else mask)


class GroupedQueries(Rule):
    """attention(q, repeat(k), repeat(v)) --> attention(q, k, v)     where each key head was repeated for its queries

    repeat(x) = reshape(broadcast_to(reshape(x, [B, H, 1, L, D]), [B, H, G, L, D]), [B, H·G, L, D])
    """

    contract = BOUNDED

    def pattern(self, p: Any, q: Any, k: Any, v: Any) -> Any:
        def repeated(x: Any, name: str) -> Any:
            one = p.reshape(x, shape=p.any(f"{name}1"))
            return p.reshape(p.broadcast_to(one, shape=p.any(f"{name}2")), shape=p.any(f"{name}3"))

        return p.attention(q, repeated(k, "k"), repeated(v, "v"), p.rest("mask"), **p.any_attributes("attention"))

    def check(self, m: Any, ctx: Any) -> str | None:
        for x, one, wide, flat in ((m.k, m.k1, m.k2, m.k3), (m.v, m.v1, m.v2, m.v3)):
            if len(x.shape) < 3:
                return "no axis of heads"
            *batch, heads, length, size = x.shape
            if one != (*batch, heads, 1, length, size) or len(wide) != len(one):
                return "no axis for the group is put in"
            group = wide[-3]
            if wide != (*batch, heads, group, length, size) or flat != (*batch, heads * group, length, size):
                return "the heads are not repeated"
        return None

    def rewrite(self, b: Any, m: Any) -> Any:
        return b.add(m.root.op, m.q, m.k, m.v, *m.mask)

    def example(self, d: Any, b: Any) -> Any:
        from effcc.testing.attention import repeated_heads

        return repeated_heads(d, b)


class ScaleOfQuery(Bounded):
    """attention(q * c, k, v) --> attention(q, k, v) {scale = scale * c}"""

    def pattern(self, p: Any, q: Any, k: Any) -> Any:
        attributes = {n: p.any(n) for n in ("scale", "causal", "softcap")}
        return p.attention(p.mul(q, p.number("c")).bind("scaled"), k, p.rest("others"), **attributes)

    def check(self, m: Any, ctx: Any) -> str | None:
        return _scaled(m, m.q)

    def rewrite(self, b: Any, m: Any) -> Any:
        op = m.root.op.replace(scale=m.root.op.factor(m.root.operands[0].shape[-1]) * m.number("c"))
        return b.add(op, m.q, m.k, *m.others)

    def example(self, d: Any, b: Any) -> Any:
        from effcc.testing.attention import queries_keys_values

        q, k, v = queries_keys_values(d, b)
        return b.attention(b.mul(q, b.const(d.choose((0.5, -2.0, 0.0)), q.dtype)), k, v, causal=d.boolean())


class ScaleOfKey(Bounded):
    """attention(q, k * c, v) --> attention(q, k, v) {scale = scale * c}, also where k * c is transposed in between"""

    def pattern(self, p: Any, q: Any, k: Any) -> Any:
        attributes = {n: p.any(n) for n in ("scale", "causal", "softcap")}
        product = p.mul(k, p.number("c")).bind("scaled")
        keys = p.either(product, p.transpose(product, perm=p.any("perm")))
        return p.attention(q, keys, p.rest("others"), **attributes)

    def check(self, m: Any, ctx: Any) -> str | None:
        return _scaled(m, m.k)

    def rewrite(self, b: Any, m: Any) -> Any:
        op = m.root.op.replace(scale=m.root.op.factor(m.q.shape[-1]) * m.number("c"))
        k = b.transpose(m.k, perm=m.perm) if hasattr(m, "perm") else m.k
        return b.add(op, m.q, k, *m.others)

    def example(self, d: Any, b: Any) -> Any:
        from effcc.testing.attention import queries_keys_values

        q, k, v = queries_keys_values(d, b)
        if d.boolean():
            k = swap_last_two(b, b.mul(swap_last_two(b, k), b.const(0.5, k.dtype)))
        else:
            k = b.mul(k, b.const(d.choose((0.5, 2.0)), k.dtype))
        return b.attention(q, k, v, scale=d.choose((None, 0.25)))


def _scaled(m: Any, x: Value) -> str | None:
    if x.type != m.scaled.type:
        return "the factor broadcasts what it scales"
    q = m.root.operands[0]
    if m.scale is None and not isinstance(q.shape[-1], int):
        return "the head size is symbolic"
    c = m.number("c")
    return no_scale(c, q.dtype) or no_scale(m.root.op.factor(q.shape[-1]) * c, q.dtype)


def no_scale(factor: float, dtype: DType) -> str | None:
    """Why a number is no scale of attention, which multiplies in f32 at least: 0 makes NaN of infinite scores, below
    the normal numbers digits are lost, near the largest one products are infinite before scores are summed or after."""
    least, greatest = (f64 if dtype == f64 else f32).normal
    return None if least <= abs(factor) <= MOST_OF_RANGE * greatest else f"{factor} is no scale: no moderate number"


class Rotary(Bounded):
    """x * cos + concat(-x[d/2:], x[:d/2]) * sin --> rotary_embedding(x, cos[:d/2], sin[:d/2])

    where the halves of cos, and of sin, are equal: they come from concat(f, f), or are constants that show it.
    """

    def pattern(self, p: Any, x: Any, cos: Any, sin: Any) -> Any:
        low = p.slice(x, starts=p.any("starts1"), stops=p.any("stops1"), steps=p.any("ones1"))
        high = p.slice(x, starts=p.any("starts2"), stops=p.any("stops2"), steps=p.any("ones2"))
        turned = p.concat(p.neg(high), low, axis=p.any("axis"))
        return p.add(p.mul(x, cos), p.mul(turned, sin))

    def check(self, m: Any, ctx: Any) -> str | None:
        shape, last = m.x.shape, len(m.x.shape) - 1
        size = shape[last]
        if m.axis != last or not isinstance(size, int) or size % 2:
            return "the halves are not of the last axis"
        half = size // 2
        zeros, ones = (0,) * len(shape), (1,) * len(shape)
        first = (m.starts1, m.stops1) == (zeros, (*shape[:last], half))
        second = (m.starts2, m.stops2) == ((*zeros[:last], half), shape)
        if not (first and second) or m.ones1 != ones or m.ones2 != ones:
            return "the slices are not the two halves"
        for v, what in ((m.cos, "cos"), (m.sin, "sin")):
            if v.shape[-1:] != (size,) or not halves_are_equal(v, m.workspace):
                return f"the halves of {what} may differ"
        return None if m.cos.type == m.sin.type else "cos and sin differ in type"

    def rewrite(self, b: Any, m: Any) -> Any:
        cos, sin = (_first_half(b, v) for v in (m.cos, m.sin))
        return b.rotary_embedding(m.x, cos, sin)

    def example(self, d: Any, b: Any) -> Any:
        from effcc.testing.attention import rotated

        return rotated(d, b)


def _first_half(b: Any, v: Value) -> Value:
    stops = (*v.shape[:-1], v.shape[-1] // 2)
    return b.slice(v, starts=(0,) * len(stops), stops=stops, steps=(1,) * len(stops))


def halves_are_equal(v: Value, w: Workspace) -> bool:
    """Whether v[..., :n/2] and v[..., n/2:] are the same, as far as its producers show."""
    for _ in range(12):
        item = w.producer(v)
        if item is None:
            return False
        name, operands, last = item.op.name, item.operands, len(v.shape) - 1
        if name == "const":
            array = item.op.blob.array  # type: ignore[attr-defined]
            half = array.shape[-1] // 2
            return bool((array[..., :half] == array[..., half:]).all())
        if name == "concat":
            return len(operands) == 2 and operands[0] is operands[1] and item.op.axis == last  # type: ignore[attr-defined]
        keeps_last = bool(operands and operands[0].shape[-1:] == v.shape[-1:])
        if name in ("mul", "add", "div") and len(operands) == 2:
            numbers = [_is_number(x, w) for x in operands]
            if not any(numbers):
                return False
            v = operands[1] if numbers[0] else operands[0]
        elif _moves_rows(item, last, keeps_last) or (item.op.family == "elementwise" and len(operands) == 1):
            v = operands[0]
        else:
            return False
    return False


def _is_number(v: Value, w: Workspace) -> bool:
    blob = w.constant(v)
    return blob is not None and blob.array.size == 1


def _moves_rows(item: Item, last: int, keeps_last: bool) -> bool:
    """Whether an op only rearranges or repeats whole rows of the last axis."""
    match item.op.name:
        case "reshape" | "broadcast_to" | "slice":
            return keeps_last
        case "gather":
            return keeps_last and item.op.axis < len(item.operands[0].shape) - 1  # type: ignore[attr-defined]
        case "transpose":
            return item.op.perm[-1] == last  # type: ignore[attr-defined]
    return False


ATTENTION_RULES: tuple[Rule, ...] = (
    Attention(), MaskedTwice(), GuardedAttention(), GroupedQueries(), NoMask(), ScaleOfQuery(), ScaleOfKey(), Rotary(),
)
