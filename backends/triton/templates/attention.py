"""Attention in one kernel: a block of queries against blocks of keys, the softmax kept up to date on the way.

(Dao et al., "FlashAttention", 2022; Milakov & Gimelshein, "Online normalizer calculation for softmax", 2018.) Scores
and sums are f32; the weights are rounded to v's dtype for the second product, as they are in memory where it is
unfused.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from effcc.backends.triton.expressions import widened
from effcc.backends.triton.kernel import Code, KernelText, block_size, delinearize, divided, name_of, remaining, scaled
from effcc.backends.triton.templates.shape import Shape
from effcc.backends.tvm.place import Place
from effcc.ir import Node, Value
from effcc.ir.dims import ceildiv, product
from effcc.ir.types import bf16, f16, f32

LARGEST_HEAD = 256


def has_template(node: Node) -> bool:
    """Whether the template takes this attention; the others are decomposed."""
    q, k, v = (o.tensor for o in node.operands[:3])
    sizes = (q.shape[-1], v.shape[-1], q.shape[-3], k.shape[-3])
    return (
        q.dtype in (f32, f16, bf16)
        and all(isinstance(d, int) for d in sizes)
        and all(isinstance(d, int) and 0 < d <= LARGEST_HEAD for d in sizes[:2])
        and 0 not in sizes
    )


def attention(node: Node, places: Mapping[Value, Place], tf32: bool = False) -> Shape:
    """One attention over strided q, k, v and mask."""
    op: Any = node.op
    q, keys, values, *mask = node.operands
    out = node.result
    *batch, heads, length, head = q.shape
    shared, count, width = keys.shape[-3], keys.shape[-2], values.shape[-1]
    rows = block_size(length, 32 if q.dtype == f32 else 64, 16)
    columns = block_size(count, 32 if q.dtype == f32 else 64, 16)
    bd, bw = block_size(head, LARGEST_HEAD, 16), block_size(width, LARGEST_HEAD, 16)
    blocks = ceildiv(length, rows)
    exact = ', input_precision="ieee"' if q.dtype == f32 and not tf32 else ""

    def aligned(v: Value) -> tuple[Any, ...]:
        return places[v].aligned_strides((*batch, *v.shape[-3:]))

    def body(k: KernelText) -> None:
        pid = k.program_id()
        block = remaining(pid, k.dim(blocks))
        k.line(f"head = {divided(pid, k.dim(blocks))}")
        *outer, h = delinearize(k, Code("head", k.index_dtype), (*batch, heads), "b")
        group = heads // shared
        kv = h if group == 1 else k.bind("h", Code(f"{h.atom} // {group}", h.dtype))
        i = k.axis("i", scaled(block, rows), rows, length, "[:, None]")
        d = k.axis("d", "0", bd, head, "[None, :]")
        e = k.axis("e", "0", bw, width, "[None, :]")
        dk = k.axis("dk", "0", bd, head, "[:, None]")
        k.line(f"q = {k.load(places[q], (*outer, h, i, d), aligned(q)).text}")
        k.line(f'top = tl.full([{rows}, 1], float("-inf"), tl.float32)')
        k.line(f"total = tl.full([{rows}, 1], 0.0, tl.float32)")
        k.line(f"acc = tl.full([{rows}, {bw}], 0.0, tl.float32)")
        last = k.dim(count)
        if op.causal:  # keys behind the block's last query weigh nothing
            last = f"tl.minimum({last}, {scaled(block, rows)} + {rows})"
        with k.loop("start", last, str(columns)) as start:
            jk = k.axis("j", start, columns, count, "[None, :]")
            jv = k.axis("jv", start, columns, count, "[:, None]")
            k.line(f"keys = {k.load(places[keys], (*outer, kv, jk, dk), aligned(keys)).text}")
            k.line(f"score = tl.dot(q, keys{exact}) * {op.factor(head)!r}")
            if op.softcap is not None:
                k.line(f"score = {op.softcap!r} * libdevice.tanh(score / {op.softcap!r})")
            if mask:
                at = (*outer, h, i, jk)
                read = k.load(places[mask[0]], at, places[mask[0]].aligned_strides((*batch, heads, length, count)))
                if mask[0].dtype.is_bool:
                    k.line(f'score = tl.where({read.text}, score, float("-inf"))')
                else:
                    k.line(f"score = score + {widened(read).text}.to(tl.float32)")
            keep = " & ".join(x for x in (k.masks["j"], f"({i.text} >= {jk.text})" if op.causal else None) if x)
            if keep:
                k.line(f'score = tl.where({keep}, score, float("-inf"))')
            k.line(f"new = tl.maximum(top, tl.reduce(score, 1, {k.function('greater')}, keep_dims=True),"
                   " propagate_nan=tl.PropagateNan.ALL)")
            k.line('base = tl.where(new == float("-inf"), 0.0, new)  # a query that may attend to nothing: no NaN')
            k.line("weight = tl.exp(score - base)")
            k.line("decay = tl.exp(top - base)")
            k.line(f"total = total * decay + tl.reduce(weight, 1, {k.function('add')}, keep_dims=True)")
            k.line(f"values = {k.load(places[values], (*outer, kv, jv, e), aligned(values)).text}")
            weight = "weight" if q.dtype == f32 else f"weight.to({name_of(q.dtype)})"
            k.line(f"acc = tl.dot({weight}, values, acc * decay{exact})")
            k.line("top = new")
        k.line("acc = acc / tl.where(total == 0.0, 1.0, total)")
        stored = Code("acc", f32, frozenset(("i", "e")))
        k.store(places[out], (*outer, h, i, e), stored, places[out].strides)

    warps = 4 if rows * columns >= 1024 else 2
    return Shape(product((*batch, heads)) * blocks, body, warps, 2)


__all__ = ["attention", "has_template"]
