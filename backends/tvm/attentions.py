"""Attention through its template, in the layouts of the projections; what the template does not take is decomposed."""

from __future__ import annotations

from typing import Any

from effcc.backends.tvm.contractions import cpu_of, ramp
from effcc.backends.tvm.emit import KernelBuilder
from effcc.backends.tvm.lower import ANCHORS, Lowering
from effcc.backends.tvm.place import Place
from effcc.backends.tvm.templates import attention
from effcc.backends.tvm.templates.emission import seen_as
from effcc.backends.tvm.tiles.space import Cut, TileSpace
from effcc.backends.tvm.values import register_dtype, round_to, splat, template_dtype
from effcc.ir import Builder, Graph, Node, Value
from effcc.ir.builder import spelled_out
from effcc.ir.dims import Dim, mod
from effcc.ops.attention import Attention

Tir = Any


FLOATS = ("f64", "f32", "f16", "bf16")
"""What the template reads."""


def has_template(node: Node) -> bool:
    """Whether the template takes this attention: static heads and head sizes, floats of 16 bits or more."""
    q, k, v = (o.tensor for o in node.operands[:3])
    static = all(isinstance(d, int) for d in (q.shape[-1], v.shape[-1], q.shape[-3], k.shape[-3]))
    return q.dtype.name in FLOATS and static and 0 not in (q.shape[-1], v.shape[-1], q.shape[-3], k.shape[-3])


def lower_attention(
    lowering: Lowering, node: Node, body: Graph, anchor: Node, operands: tuple[Place, ...], results: tuple[Place, ...]
) -> None:
    """Launch one attention."""
    if not has_template(anchor):
        decomposed(lowering, anchor, dict(zip(body.inputs, operands, strict=True)), results[0])
        return
    op: Any = anchor.op
    bound = dict(zip((*body.inputs, *body.results), (*operands, *results), strict=True))
    q, k, v, *rest = anchor.operands
    out = anchor.result
    batch = out.shape[:-3]
    sum_dtype = register_dtype(q.dtype)

    def strides(x: Value) -> tuple[Dim, ...]:
        return bound[x].aligned_strides((*batch, *x.shape[-3:]))

    even = all(mod(d, 2) == 0 for x in (q, k) for d in (bound[x].offset, *strides(x)[:-1]))

    def spec(size: Any) -> attention.Attention:
        return attention.Attention(
            heads=q.shape[-3],
            key_heads=k.shape[-3],
            queries=size(q.shape[-2]),
            keys=size(k.shape[-2]),
            size=q.shape[-1],
            value_size=v.shape[-1],
            q_strides=tuple(map(size, strides(q))),
            k_strides=tuple(map(size, strides(k))),
            v_strides=tuple(map(size, strides(v))),
            scale=op.factor(q.shape[-1]),
            cpu=cpu_of(lowering.machine),
            batch=tuple(map(size, batch)),
            softcap=op.softcap,
            causal=0 if op.causal else None,
            q=template_dtype(q.dtype),
            k=template_dtype(k.dtype),
            v=template_dtype(v.dtype),
            sum=sum_dtype,
            q_offset=size(bound[q].offset),
            k_offset=size(bound[k].offset),
            v_offset=size(bound[v].offset),
            even=even,
        )

    outline = spec(lambda d: d)
    ahead = len(batch) + 1
    tiles = TileSpace(out.shape, (*(Cut((k,)) for k in range(ahead)), Cut((ahead,), outline.width)))

    def make(places: dict[Value, Place]) -> tuple[TileSpace, Dim, Any]:
        def emit(kernel: KernelBuilder) -> None:
            def store(at: tuple[Tir, ...], value: Tir, lanes: int) -> None:
                kernel.store(places[out], (*at[:-1], ramp(at[-1], lanes)), round_to(value, out.dtype))

            mask = None
            if rest:
                scores = (*q.shape[:-1], k.shape[-2])
                mask_strides = places[rest[0]].aligned_strides((*batch, *scores[-3:]))

                def mask(at: tuple[Tir, ...], lanes: int) -> Tir:
                    return splat(kernel.load(places[rest[0]], at, mask_strides), lanes)

            chosen = spec(lambda d: d if isinstance(d, int) else kernel.dim(d))
            attention.emit(
                chosen,
                kernel.tile,
                kernel.scratch,
                store,
                *(seen_as(kernel.flat(places[x].buffer), template_dtype(x.dtype)) for x in (q, k, v)),
                mask=mask,
            )

        return tiles, attention.scratch_bytes(outline), emit

    lowering.launch("attention", None, body, operands, results, make, node)


def decomposed(lowering: Lowering, anchor: Node, places: dict[Value, Place], target: Place) -> None:
    """Lower an attention as smaller ops."""
    b = Builder("attention")
    inputs = {v: b.input(f"x{i}", v.type) for i, v in enumerate(dict.fromkeys(anchor.operands))}
    parts = spelled_out(b, anchor.op, tuple(inputs[v] for v in anchor.operands))
    assert parts is not None
    (result,) = parts
    child = Lowering(lowering.machine, lowering)
    for outer, inner in inputs.items():
        child.places[inner] = places[outer]
    child.places[result] = target
    graph = b.graph(result)
    child.run(graph)
    if child.places[result] != target:
        child.copy(child.places[result], target, result.tensor)
    lowering.steps += child.steps


ANCHORS[Attention] = lower_attention
