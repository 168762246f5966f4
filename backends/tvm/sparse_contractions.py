"""Matrix products by compressed weights: the template of their layout, its blocking, and the parts as constants."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from effcc.analysis.cost import bytes_of, total
from effcc.backends.tvm import contractions
from effcc.backends.tvm.emit import KernelBuilder
from effcc.backends.tvm.place import Place
from effcc.backends.tvm.region import FlatPoint
from effcc.backends.tvm.templates import block_sparse, contraction, two_four
from effcc.backends.tvm.templates.block_sparse import BlockSparse
from effcc.backends.tvm.templates.blocking import Blocking
from effcc.backends.tvm.tiles.space import Cut, TileSpace
from effcc.backends.tvm.values import memory_dtype, register_dtype, round_to
from effcc.ir import Graph, Node, Value
from effcc.ir.blob import Blob
from effcc.ir.dims import Dim
from effcc.ir.encodings import EncodedBlob, TwoFour, codec, parameter
from effcc.ir.types import Encoding, Tensor, f32
from effcc.ops.contraction import accumulate_dtype

Tir = Any
LAYOUTS = ("block_csr", "two_four")


@dataclass(frozen=True)
class Sparse:
    """How a weight is multiplied by. key: what the kernel's code depends on. parts: constants that it reads.
    spec: (how a size is written) -> the template's product. emit: its emitter, which takes the parts' flat buffers."""

    template: str
    key: Any
    parts: tuple[Place, ...]
    spec: Callable[[Callable[[Dim], Any]], Any]
    emit: Callable[..., None]
    dense: Callable[[Any], contraction.Contraction]
    """The template's product as the dense template sees it: its tiles and scratch."""


def applies(anchor: Node, operands: dict[Value, Place]) -> bool:
    """Whether a matmul multiplies by a matrix in a layout that there is a template for."""
    a, b = (v.tensor for v in anchor.operands)
    here = operands[anchor.operands[1]].buffer.blob
    if not isinstance(here, EncodedBlob) or here.type != b or b.encoding is None or b.encoding.name not in LAYOUTS:
        return False
    if anchor.op.accumulate is not None or not b.dtype.is_float or b.rank != 2:  # type: ignore[attr-defined]
        return False
    return b.encoding.name == "block_csr" or (a.dtype == f32 and b.dtype == f32)


def lower(
    lowering: Any, node: Node, body: Graph, anchor: Node, operands: tuple[Place, ...], results: tuple[Place, ...]
) -> None:
    """Launch the product with its epilogue, as contractions.lower_matmul does for dense weights."""
    encoding, encoded = anchor.operands[1].tensor.encoding, body
    body, anchor = _without_layout(body, anchor)
    bound = dict(zip((*body.inputs, *body.results), (*operands, *results), strict=True))
    a, b = anchor.operands
    shape = contractions.Product(anchor, body, bound)
    out: Tensor = anchor.result.tensor
    assert encoding is not None
    choose = _block_sparse if encoding.name == "block_csr" else _two_four
    sparse = choose(lowering, anchor, bound[b], encoding, shape, bound[a])
    outline = sparse.dense(sparse.spec(lambda d: d))
    blocking = outline.blocking
    tiles = TileSpace(
        shape.space,
        (
            *(Cut(tuple(run)) for run in shape.batch_runs),
            Cut((len(shape.space) - 1,), outline.width * blocking.panel_chunk),
            Cut(tuple(shape.m_run), blocking.row_chunk),
        ),
    )

    def make(places: dict[Value, Place]) -> tuple[TileSpace, Dim, Any]:
        def emit(kernel: KernelBuilder) -> None:
            def epilogue(index: tuple[Tir, ...], value: Tir, lanes: int) -> None:
                at = (*index[:-1], contractions.ramp(index[-1], lanes))
                made = {anchor.result: round_to(value, out.dtype)}
                point = FlatPoint(kernel, body, places, shape.strides, at, made)
                for v in dict.fromkeys(body.results):
                    kernel.store(places[v], at, point.value(v), shape.strides[v])

            def read_a(at: tuple[Tir, ...], lanes: int) -> Tir:
                return kernel.load(places[a], (*at[:-1], contractions.ramp(at[-1], lanes)), shape.a_strides)

            sparse.emit(
                sparse.spec(lambda d: d if isinstance(d, int) else kernel.dim(d)),
                kernel.tile,
                kernel.scratch,
                epilogue,
                None if outline.prologue else kernel.flat(places[a].buffer),
                *(kernel.flat(part.buffer) for part in sparse.parts),
                read_a=read_a if outline.prologue else None,
            )

        return tiles, contraction.scratch_bytes(outline), emit

    first, *more = sparse.parts
    operands = tuple(first if v is b else place for v, place in zip(body.inputs, operands, strict=True))
    lowering.launch(sparse.template, sparse.key, body, operands, results, make, node, more=tuple(more))
    lowering.steps[-1] = replace(
        lowering.steps[-1],
        flops=total(n.op.flops(*n.types) for n in encoded.nodes),
        nbytes=bytes_of((*encoded.inputs, *encoded.results)),
    )


def _without_layout(body: Graph, anchor: Node) -> tuple[Graph, Node]:
    """The region and its product with the weight as a plain tensor: the code does not depend on the pattern."""
    b = anchor.operands[1]
    plain = Value(Tensor(b.dtype, b.shape), b.name)
    product = Node(anchor.op, (anchor.operands[0], plain), anchor.results, anchor.loc)
    inputs = tuple(plain if v is b else v for v in body.inputs)
    nodes = tuple(product if n is anchor else n for n in body.nodes)
    return Graph(body.name, inputs, nodes, body.results), product


def _block_sparse(
    lowering: Any, anchor: Node, weight: Place, encoding: Encoding, shape: contractions.Product, a: Place
) -> Sparse:
    blob = weight.buffer.blob
    assert isinstance(blob, EncodedBlob)
    acc = register_dtype(accumulate_dtype(anchor.result.dtype, None))
    cpu, turned = contractions.cpu_of(lowering.machine), anchor.op.transpose_b  # type: ignore[attr-defined]
    reads_a = a.buffer.dtype.name not in contractions.AS_STORED

    def spec(size: Callable[[Dim], Any], blocking: Blocking, height: int) -> BlockSparse:
        return BlockSparse(
            m=size(shape.m),
            n=size(shape.n),
            k=size(shape.k),
            cpu=cpu,
            batch=tuple(map(size, shape.batch)),
            a="float32" if reads_a else memory_dtype(a.buffer.dtype),
            b=acc,
            sum=acc,
            prologue=reads_a,
            a_strides=tuple(map(size, shape.a_strides)),
            a_offset=size(a.offset),
            b_strides=(0,) * (len(shape.batch) + 2),
            blocking=blocking,
            block=height,
        )

    def build() -> tuple[tuple[np.ndarray, ...], Any]:
        matrix, block = blob.array.astype(acc), parameter(encoding, "block")
        matrix, block = (matrix.T, block[::-1]) if turned else (matrix, block)
        blocking, height, _ = block_sparse.choose(shape.m, matrix, block, shape.batch, cpu, acc)
        return block_sparse.pack(spec(lambda d: d, blocking, height), matrix), (blocking, height)

    parts, chosen = _constants(lowering, ("block_sparse", blob, turned, shape.m, shape.batch, acc), build)
    return Sparse(
        "block_sparse", chosen, parts, lambda size: spec(size, *chosen), block_sparse.emit, lambda made: made
    )


def _two_four(
    lowering: Any, anchor: Node, weight: Place, encoding: Encoding, shape: contractions.Product, a: Place
) -> Sparse:
    blob = weight.buffer.blob
    assert isinstance(blob, EncodedBlob)

    def spec(size: Callable[[Dim], Any]) -> two_four.TwoFour:
        return two_four.product(
            m=size(shape.m),
            n=size(shape.n),
            k=size(shape.k),
            cpu=contractions.cpu_of(lowering.machine),
            batch=tuple(map(size, shape.batch)),
            a_strides=tuple(map(size, shape.a_strides)),
            a_offset=size(a.offset),
            b_strides=(0,) * (len(shape.batch) + 2),
        )

    outline = spec(lambda d: d)

    def build() -> tuple[tuple[np.ndarray, ...], Any]:
        layout = codec(blob.type)
        assert isinstance(layout, TwoFour)
        both = (np.moveaxis(x, 0, -1) if anchor.op.transpose_b else x[0] for x in layout.places(blob.parts))  # type: ignore
        values, places = (x.reshape(x.shape[0], 2, -1) for x in both)
        return two_four.pack(outline, values, places), None

    parts, _ = _constants(lowering, ("two_four", blob, outline.dense.width), build)
    return Sparse("two_four", None, parts, spec, two_four.emit, lambda made: made.dense)


def _constants(
    lowering: Any, key: tuple[Any, ...], build: Callable[[], tuple[tuple[np.ndarray, ...], Any]]
) -> tuple[tuple[Place, ...], Any]:
    """(places of the parts, what was chosen), built once for each weight. The parts' sizes may depend on the pattern
    and are kept out of the kernel's key: it serves every weight of this shape."""
    if key not in lowering.packed:
        arrays, chosen = build()
        places = []
        for part in arrays:
            blob = Blob(part)
            type_ = Tensor(blob.type.dtype, blob.type.shape, Encoding("panels", (("nr", part.shape[-1]),)))
            buffer = lowering.buffer("constant", type_, f"s{len(lowering.plan.buffers)}", blob=blob)
            places.append(Place(buffer, (1,), (1,)))
        lowering.packed[key] = tuple(places), chosen
    return lowering.packed[key]
