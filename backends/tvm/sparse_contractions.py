"""Matrix products by weights in block_csr layout: which panels and rows, and the lists of kept blocks as constants."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from effcc.analysis.cost import bytes_of, total
from effcc.backends.tvm import contractions
from effcc.backends.tvm.emit import KernelBuilder, memory_dtype, register_dtype, round_to
from effcc.backends.tvm.place import Place
from effcc.backends.tvm.region import FlatPoint
from effcc.backends.tvm.templates import block_sparse, contraction
from effcc.backends.tvm.templates.block_sparse import BlockSparse
from effcc.backends.tvm.tiles.space import Cut, TileSpace
from effcc.ir import Graph, Node, Value
from effcc.ir.blob import Blob
from effcc.ir.dims import Dim
from effcc.ir.encodings import is_compressed, parameter
from effcc.ir.types import Encoding, Tensor
from effcc.ops.contraction import accumulate_dtype

Tir = Any


def applies(anchor: Node, operands: dict[Value, Place]) -> bool:
    """Whether a matmul multiplies by a floating-point matrix in block_csr layout."""
    b: Tensor = anchor.operands[1].tensor
    here = operands[anchor.operands[1]]
    return (
        is_compressed(b)
        and b.encoding is not None
        and b.encoding.name == "block_csr"
        and b.dtype.is_float
        and here.buffer.blob is not None
        and here.buffer.blob.type == b
        and anchor.op.accumulate is None  # type: ignore[attr-defined]
    )


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
    acc = register_dtype(accumulate_dtype(out.dtype, None))
    reads_a = a.dtype.name not in contractions.AS_STORED
    cpu = contractions.cpu_of(lowering.machine)
    turned: bool = anchor.op.transpose_b  # type: ignore[attr-defined]
    key = ("block_sparse", id(bound[b].buffer.blob), turned, shape.m, shape.batch, acc)
    if key not in lowering.packed:
        matrix = bound[b].buffer.blob.array.astype(acc)  # type: ignore[union-attr]
        block = parameter(encoding, "block")
        matrix, block = (matrix.T, block[::-1]) if turned else (matrix, block)
        chosen = block_sparse.choose(shape.m, matrix, block, shape.batch, cpu, acc)
        lowering.packed[key] = (*_packed(lowering, matrix, chosen, acc), chosen), bound[b].buffer.blob
    (*parts, (blocking, height, _)), _ = lowering.packed[key]
    values, starts, depths = parts

    def spec(size: Any) -> BlockSparse:
        return BlockSparse(
            m=size(shape.m),
            n=size(shape.n),
            k=size(shape.k),
            cpu=cpu,
            batch=tuple(map(size, shape.batch)),
            a="float32" if reads_a else memory_dtype(a.dtype),
            b=acc,
            sum=acc,
            prologue=reads_a,
            a_strides=tuple(map(size, shape.a_strides)),
            a_offset=size(bound[a].offset),
            b_strides=(0,) * (len(shape.batch) + 2),
            blocking=blocking,
            block=height,
        )

    outline = spec(lambda d: d)
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

            block_sparse.emit(
                spec(lambda d: d if isinstance(d, int) else kernel.dim(d)),
                kernel.tile,
                kernel.scratch,
                epilogue,
                None if reads_a else kernel.flat(places[a].buffer),
                *(kernel.flat(part.buffer) for part in (values, starts, depths)),
                read_a=read_a if reads_a else None,
            )

        return tiles, contraction.scratch_bytes(outline), emit

    operands = tuple(values if v is b else place for v, place in zip(body.inputs, operands, strict=True))
    lowering.launch("block_sparse", (blocking, height), body, operands, results, make, node, more=(starts, depths))
    flops = total(n.op.flops(*n.types) for n in encoded.nodes)
    lowering.steps[-1] = replace(
        lowering.steps[-1], flops=flops, nbytes=bytes_of((*encoded.inputs, *encoded.results))
    )


def _without_layout(body: Graph, anchor: Node) -> tuple[Graph, Node]:
    """The region and its product with the weight as a plain tensor: the code does not depend on the pattern."""
    b = anchor.operands[1]
    plain = Value(Tensor(b.dtype, b.shape), b.name)
    product = Node(anchor.op, (anchor.operands[0], plain), anchor.results, anchor.loc)
    inputs = tuple(plain if v is b else v for v in body.inputs)
    nodes = tuple(product if n is anchor else n for n in body.nodes)
    return Graph(body.name, inputs, nodes, body.results), product


def _packed(lowering: Any, matrix: np.ndarray, chosen: Any, acc: str) -> list[Place]:
    """Places of the values, starts and depths. Their sizes depend on the pattern and are kept out of the kernel's key:
    it serves every weight of this shape."""
    blocking, height, _ = chosen
    k, n = matrix.shape
    cpu = contractions.cpu_of(lowering.machine)
    outline = BlockSparse(1, n, k, cpu, b=acc, sum=acc, blocking=blocking, block=height)
    places = []
    for part in block_sparse.pack(outline, matrix):
        blob = Blob(part)
        type_ = Tensor(blob.type.dtype, blob.type.shape, Encoding("panels", (("nr", outline.width),)))
        buffer = lowering.buffer("constant", type_, f"s{len(lowering.plan.buffers)}", blob=blob)
        places.append(Place(buffer, (1,), (1,)))
    return places
