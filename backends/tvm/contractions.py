"""Matrix products: choose how B is read, merge batch axes into rows, and hand the region's epilogue to the template."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from effcc.backends.tvm.emit import KernelBuilder
from effcc.backends.tvm.place import Place, merge_axes
from effcc.backends.tvm.region import FlatPoint, is_light
from effcc.backends.tvm.templates import contraction
from effcc.backends.tvm.templates.emission import Cpu, seen_as
from effcc.backends.tvm.tiles.space import Cut, TileSpace
from effcc.backends.tvm.values import register_dtype, round_to, splat, template_dtype
from effcc.ir import Graph, Node, Value
from effcc.ir.blob import Blob
from effcc.ir.dims import Dim, mod, product
from effcc.ir.lazy import T
from effcc.ir.types import DType, Encoding, Tensor
from effcc.machine import Machine
from effcc.ops.contraction import accumulate_dtype

Tir = Any


def cpu_of(machine: Machine) -> Cpu:
    """The machine as the templates' blocking sees it."""
    return Cpu(
        machine.vector_bits, machine.vector_registers, machine.l1, machine.l2, machine.cores,
        byte_dots=machine.multiplies_bytes, pair_dots=machine.multiplies_bf16,
        split_vectors=machine.split_vectors and machine.vector_bits == 512,
    )  # fmt: skip


def read_again(graph: Graph, anchor: Node) -> set[Value]:
    """The values that a region's epilogue reads: an anchor's operand may be among them, as in relu(x w) + x."""
    return {v for node in graph.nodes if node is not anchor for v in node.operands}


class Product:
    """A matmul's axes after merging: batch runs, M, N, K, and each place's strides along (batch..., m, n)."""

    def __init__(self, anchor: Node, graph: Graph, places: dict[Value, Place]):
        op: Any = anchor.op
        a, b = (places[v] for v in anchor.operands)
        types = tuple(v.tensor for v in anchor.operands)
        batch, self.m, self.n, self.k = op.dims(*types)
        rank = len(batch)
        a_strides = a.aligned_strides((*batch, *a.shape[-2:]))
        b_strides = b.aligned_strides((*batch, *b.shape[-2:]))
        am, ak = (a_strides[-1], a_strides[-2]) if op.transpose_a else (a_strides[-2], a_strides[-1])
        bk, bn = (b_strides[-1], b_strides[-2]) if op.transpose_b else (b_strides[-2], b_strides[-1])
        space = (*batch, self.m, self.n)
        again = read_again(graph, anchor)
        aligned = {v: p.aligned_strides(space) for v, p in places.items() if v not in anchor.operands or v in again}
        row_lists = [(*a_strides[:rank], am), (*b_strides[:rank], 0), *(x[:-1] for x in aligned.values())]
        runs = merge_axes(space[:-1], row_lists)
        rows = bool(runs) and not (runs[-1][-1] < rank and b_strides[runs[-1][-1]] != 0)
        batch_runs, m_run = (runs[:-1], runs[-1]) if rows else (runs, [])
        self.space, self.batch_runs, self.m_run = space, batch_runs, m_run
        self.batch = tuple(product(space[k] for k in run) for run in batch_runs)
        self.m = product(space[k] for k in m_run)
        heads = [run[-1] for run in batch_runs]
        self.a_strides = (
            *(a_strides[h] if h < rank else am for h in heads),
            row_lists[0][m_run[-1]] if m_run else 0,
            ak,
        )
        self.b_strides = (*(b_strides[h] if h < rank else 0 for h in heads), bk, bn)
        self.strides = {v: (*(x[h] for h in heads), x[m_run[-1]] if m_run else 0, x[-1]) for v, x in aligned.items()}


def lower_matmul(
    lowering: Any, node: Node, body: Graph, anchor: Node, operands: tuple[Place, ...], results: tuple[Place, ...]
) -> None:
    """Launch the product with its epilogue (the elementwise rest of the region)."""
    from effcc.backends.tvm import sparse_contractions, weight_contractions

    if weight_contractions.applies(anchor, body):
        weight_contractions.lower(lowering, node, body, anchor, operands, results)
        return
    bound = dict(zip((*body.inputs, *body.results), (*operands, *results), strict=True))
    if sparse_contractions.applies(anchor, bound):
        sparse_contractions.lower(lowering, node, body, anchor, operands, results)
        return
    a, b = anchor.operands
    shape = Product(anchor, body, bound)
    out: Tensor = anchor.result.tensor
    acc = register_dtype(accumulate_dtype(out.dtype, anchor.op.accumulate))  # type: ignore[attr-defined]
    weights = bound[b]
    fixed = weights.buffer.blob is not None and all(
        isinstance(d, int) for d in (*shape.batch, shape.n, shape.k, *shape.b_strides)
    )
    fixed = fixed and b not in read_again(body, anchor)
    small = isinstance(shape.m, int) and shape.m <= 8
    panels = (
        "packed"
        if fixed
        else "direct"
        if shape.b_strides[-1] == 1 and small and b.dtype.name in AS_STORED
        else "staged"
    )
    pairs = by_pairs(lowering.machine, fixed, a.dtype, b.dtype, acc)
    reads_a, reads_b = a.dtype.name not in AS_STORED and not pairs, b.dtype.name not in AS_STORED and not fixed
    a_dtype = "float32" if reads_a else template_dtype(a.dtype)
    b_dtype = template_dtype(b.dtype) if pairs or b.dtype.name in AS_STORED else register_dtype(b.dtype)
    even = all(mod(d, 2) == 0 for d in (shape.k, bound[a].offset, *shape.a_strides[:-1]))

    def spec(size: Callable[[Dim], Any], b_strides: tuple[Dim, ...]) -> contraction.Contraction:
        return contraction.Contraction(
            m=size(shape.m),
            n=size(shape.n),
            k=size(shape.k),
            cpu=cpu_of(lowering.machine),
            batch=tuple(map(size, shape.batch)),
            a=a_dtype,
            b=b_dtype,
            sum=acc,
            panels=panels,
            prologue=reads_a,
            a_strides=tuple(map(size, shape.a_strides)),
            b_strides=tuple(map(size, b_strides)),
            a_offset=size(bound[a].offset),
            even=even,
            b_offset=0 if fixed else size(bound[b].offset),
        )

    b_strides = shape.b_strides
    if fixed:
        weights, b_strides = pack_weights(lowering, weights, shape, lambda st: spec(lambda d: d, st))
    outline = spec(lambda d: d, b_strides)
    tiles = TileSpace(
        shape.space,
        (
            *(Cut(tuple(run)) for run in shape.batch_runs),
            Cut((len(shape.space) - 1,), outline.width * outline.blocking.panel_chunk),
            Cut(tuple(shape.m_run), outline.blocking.row_chunk),
        ),
    )

    def make(places: dict[Value, Place]) -> tuple[TileSpace, Dim, Any]:
        def emit(kernel: KernelBuilder) -> None:
            chosen = spec(lambda d: d if isinstance(d, int) else kernel.dim(d), b_strides)

            def epilogue(index: tuple[Tir, ...], value: Tir, lanes: int) -> None:
                at = (*index[:-1], ramp(index[-1], lanes))
                point = FlatPoint(kernel, body, places, shape.strides, at, {anchor.result: round_to(value, out.dtype)})
                for v in dict.fromkeys(body.results):
                    kernel.store(places[v], at, point.value(v), shape.strides[v])

            def reader(v: Value, strides: tuple[Dim, ...]) -> Any:
                return lambda at, lanes: splat(kernel.load(places[v], (*at[:-1], ramp(at[-1], lanes)), strides), lanes)

            contraction.emit(
                chosen,
                kernel.tile,
                kernel.scratch,
                epilogue,
                a=None if reads_a else seen_as(kernel.flat(places[a].buffer), a_dtype),
                b=None if reads_b else seen_as(kernel.flat(places[b].buffer), b_dtype),
                read_a=reader(a, shape.a_strides) if reads_a else None,
                read_b=reader(b, shape.b_strides) if reads_b else None,
                light=is_light(body),
            )

        return tiles, contraction.scratch_bytes(outline), emit

    if fixed:
        operands = tuple(weights if v is b else place for v, place in zip(body.inputs, operands, strict=True))
    lowering.launch("contraction", panels, body, operands, results, make, node)


def by_pairs(machine: Machine, known: bool, a: DType, b: DType, total: str) -> bool:
    """Whether products of bf16 are added two by two by one instruction (templates/dots.py)."""
    return machine.multiplies_bf16 and known and a.name == b.name == "bf16" and total == "float32"


AS_STORED = ("f64", "f32", "f16", "i64", "i32", "i16", "i8", "u8", "u16", "u32", "u64")
"""Dtypes that the template reads from memory by itself; others come decoded through its prologues."""


def pack_weights(
    lowering: Any,
    weights: Place,
    shape: Product,
    spec: Callable[[tuple[Dim, ...]], contraction.Contraction],
) -> tuple[Place, tuple[Dim, ...]]:
    """(the constant in panels, its strides counted in whole matrices); packed once for each distinct weight and
    layout."""
    blob = weights.buffer.blob
    assert blob is not None
    matrices = [(d, st) for d, st in zip(shape.batch, shape.b_strides, strict=False) if st != 0]
    strides: list[Dim] = []
    step: Dim = 1
    for d, st in reversed(list(zip(shape.batch, shape.b_strides, strict=False))):
        strides.insert(0, 0 if st == 0 else step)
        step = step if st == 0 else step * d
    b_strides = (*strides, *shape.b_strides[-2:])
    outline = spec(b_strides)
    key = (
        id(blob),
        weights.offset,
        shape.b_strides,
        shape.batch,
        shape.k,
        shape.n,
        outline.blocking,
        outline.dots and outline.a,
    )
    if key not in lowering.packed:
        flat = np.ascontiguousarray(blob.array).reshape(-1)
        as_stored = outline.dots is not None or weights.buffer.dtype.name in AS_STORED
        if not as_stored:
            flat = flat.astype(register_dtype(weights.buffer.dtype))
        item = flat.itemsize
        view = np.lib.stride_tricks.as_strided(
            flat[weights.offset :],
            (*(d for d, _ in matrices), shape.k, shape.n),  # type: ignore[misc]
            tuple(st * item for st in (*(st for _, st in matrices), *shape.b_strides[-2:])),
        )  # type: ignore[operator]
        panels = contraction.pack(outline, view)
        packed = Blob(panels, weights.buffer.dtype if as_stored else None)
        type_ = Tensor(packed.type.dtype, packed.type.shape, Encoding("panels", (("nr", outline.width),)))
        lowering.packed[key] = lowering.buffer("constant", type_, f"p{len(lowering.packed)}", blob=packed), blob
    buffer = lowering.packed[key][0]
    return Place(buffer, (buffer.size,), (1,)), b_strides


def ramp(x: Tir, lanes: int) -> Tir:
    """`lanes` consecutive indices from x on."""
    return x if lanes == 1 else T.ramp(x, T.int64(1), lanes)
