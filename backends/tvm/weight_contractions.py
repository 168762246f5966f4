"""Matrix products with constant weights of 2, 4 or 8 bits: their words, scales and zero points packed for the template,
their dequantization left to it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from effcc.analysis.quantized_weights import Weights, quantized_weights
from effcc.backends.tvm.contractions import Product, cpu_of, ramp
from effcc.backends.tvm.emit import KernelBuilder
from effcc.backends.tvm.place import Place, row_major
from effcc.backends.tvm.region import FlatPoint
from effcc.backends.tvm.templates import weight_only
from effcc.backends.tvm.tiles.space import Cut, TileSpace
from effcc.ir import Graph, Node, Value
from effcc.ir.blob import Blob
from effcc.ir.dims import Dim
from effcc.ir.types import Encoding, Tensor
from effcc.ops.constant import Const

Tir = Any


def applies(anchor: Node, body: Graph) -> bool:
    """Whether the region dequantizes its product's weights itself."""
    return quantized_weights(anchor, body.producer) is not None


def lower(
    lowering: Any, node: Node, body: Graph, anchor: Node, operands: tuple[Place, ...], results: tuple[Place, ...]
) -> None:
    """Launch the product with its epilogue (the elementwise rest of the region)."""
    weights = quantized_weights(anchor, body.producer)
    assert weights is not None
    bound = dict(zip((*body.inputs, *body.results), (*operands, *results), strict=True))
    a, b = anchor.operands
    stored = {v for v in (weights.q, weights.scale, weights.zero) if v is not None}
    whole = Place(bound[weights.q].buffer, b.shape, row_major(b.shape))
    shape = Product(anchor, body, {b: whole, **{v: p for v, p in bound.items() if v not in stored}})
    k, n = weights.shape
    data = {v: stored_data(v, bound, body) for v in stored}
    zeros = weights.zeros(None if weights.zero is None else data[weights.zero].array)

    def spec(size: Callable[[Dim], Any]) -> weight_only.WeightOnly:
        return weight_only.product(
            size(shape.m),
            n,
            k,
            weights.bits,
            weights.group,
            zeros=zeros is not None,
            scale=weights.scale.dtype.numpy.name,
            cpu=cpu_of(lowering.machine),
            batch=tuple(map(size, shape.batch)),
            a_strides=tuple(map(size, shape.a_strides)),
            b_strides=(0,) * (len(shape.batch) + 2),
            a_offset=size(bound[a].offset),
        )

    outline = spec(lambda d: d)
    panels = pack(lowering, weights, data, outline, zeros)
    dense = outline.dense
    tiles = TileSpace(
        shape.space,
        (
            *(Cut(tuple(run)) for run in shape.batch_runs),
            Cut((len(shape.space) - 1,), dense.width * dense.blocking.panel_chunk),
            Cut(tuple(shape.m_run), dense.blocking.row_chunk),
        ),
    )

    def make(places: dict[Value, Place]) -> tuple[TileSpace, Dim, Any]:
        def emit(kernel: KernelBuilder) -> None:
            def epilogue(index: tuple[Tir, ...], value: Tir, lanes: int) -> None:
                at = (*index[:-1], ramp(index[-1], lanes))
                point = FlatPoint(kernel, body, places, shape.strides, at, {anchor.result: value})
                for v in dict.fromkeys(body.results):
                    kernel.store(places[v], at, point.value(v), shape.strides[v])

            weight_only.emit(
                spec(lambda d: d if isinstance(d, int) else kernel.dim(d)),
                kernel.tile,
                kernel.scratch,
                epilogue,
                kernel.flat(places[a].buffer),
                *(kernel.flat(p.buffer) for p in panels),
            )

        return tiles, weight_only.scratch_bytes(outline), emit

    replaced = {weights.q: panels[0], weights.scale: panels[1], weights.zero: panels[-1]}
    operands = tuple(replaced.get(v, place) for v, place in zip(body.inputs, operands, strict=True))
    lowering.launch("weight_only", zeros is not None, body, operands, results, make, node, panels)


def pack(
    lowering: Any, weights: Weights, data: dict[Value, Blob], spec: weight_only.WeightOnly, zeros: np.ndarray | None
) -> tuple[Place, ...]:
    """The words, the scales and, where there are any, the zero points in panels; packed once for each constant."""
    q, scale = data[weights.q], data[weights.scale]
    layout = (spec.dense.width, weights.bits, weights.group, weights.transposed)
    made = [
        panel(lowering, q, ("words", *layout), lambda: weight_only.pack_words(spec, weights.matrix(q.array))),
        panel(lowering, scale, ("scales", *layout, weights.shape),
              lambda: weight_only.pack_groups(spec, weights.parameters(scale.array))),
    ]  # fmt: skip
    if zeros is not None:
        source = q if weights.zero is None else data[weights.zero]
        made.append(
            panel(lowering, source, ("zeros", *layout, weights.shape), lambda: weight_only.pack_groups(spec, zeros))
        )
    return tuple(made)


def panel(lowering: Any, source: Blob, layout: tuple[Any, ...], build: Callable[[], np.ndarray]) -> Place:
    """A constant's buffer in a layout."""
    key = (id(source), *layout)
    if key not in lowering.packed:
        packed = Blob(build())
        type_ = Tensor(packed.type.dtype, packed.type.shape, Encoding("panels", (("nr", packed.array.shape[-1]),)))
        lowering.packed[key] = lowering.buffer("constant", type_, f"p{len(lowering.packed)}", blob=packed), source
    buffer = lowering.packed[key][0]
    return Place(buffer, (buffer.size,), (1,))


def stored_data(v: Value, bound: dict[Value, Place], body: Graph) -> Blob:
    """A constant that a region reads, or holds: one scale for all weights is a number inside of it."""
    made = body.producer(v)
    return made.op.blob if made is not None and isinstance(made.op, Const) else blob_of(bound[v])


def blob_of(place: Place) -> Blob:
    assert place.buffer.blob is not None and place.is_plain, "only whole constants are packed"
    return place.buffer.blob
