"""Folds of any kind, and scans: one lane for each point of the parallel axes, the other axes in loops, in order.

It is right for every loop nest: windows (pools, depthwise convolutions), argmax, integer products, scatters, prefix
sums.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

from effcc.backends.triton.expressions import filled, rounded, widened
from effcc.backends.triton.kernel import ZERO, Code, KernelText, block_size, delinearize, name_of, register_dtype
from effcc.backends.triton.region import Point
from effcc.backends.triton.templates.shape import Shape
from effcc.backends.tvm.place import Place
from effcc.ir import Graph, Node, Value
from effcc.ir.dims import bounds, ceildiv, product
from effcc.ir.scalar import PARALLEL
from effcc.ir.types import i64

BLOCK = 256
UNROLLED = 32
"""Loops of at most so many rounds together are unrolled."""


def fold(graph: Graph, anchor: Node, places: Mapping[Value, Place]) -> Shape:
    """A region with one fold, the maps before it and the elementwise ops behind it."""
    nest: Any = anchor.op.compute(*anchor.types)
    outer, inner = nest.axes(PARALLEL), [a for a, kind in enumerate(nest.kinds) if kind != PARALLEL]
    space = tuple(nest.extents[a] for a in outer)
    total, block = product(space), block_size(product(space), BLOCK, 32)
    rounds = bounds(product(nest.extents[a] for a in inner))[1]
    unroll = rounds is not None and rounds <= UNROLLED

    def body(k: KernelText) -> None:
        i = k.axis("i", f"{k.program_id()} * {block}", block, total)
        at = tuple(delinearize(k, i, space, "i"))
        index: list[Code] = [ZERO] * len(nest.extents)
        for a, here in zip(outer, at, strict=True):
            index[a] = here
        point = Point(k, graph, places)
        states = _start(k, point, anchor, nest, index, block)
        with ExitStack() as loops:
            for a in inner:
                index[a] = _loop(k, loops, nest.extents[a], unroll)
            _step(k, point.inside(), anchor, nest, index, states)
        here = [index[a] if a in outer else ZERO for a in range(len(index))]
        results = point.emitter(anchor, here, nest.extents, states)
        for v, scalar in zip(anchor.results, nest.results, strict=True):
            value = k.bind(anchor.op.name, rounded(results(scalar), v.dtype))
            point.given[v] = lambda _, value=value: value
        for v in dict.fromkeys(graph.results):
            k.store(places[v], at, point.value(v, at))

    return Shape(ceildiv(total, block), body, max(1, block // 64))


def scan(anchor: Node, places: Mapping[Value, Place]) -> Shape:
    """One node with sequential axes or its own write index. A scatter finds its result holding what it starts as."""
    nest: Any = anchor.op.compute(*anchor.types)
    graph = Graph("scan", tuple(dict.fromkeys(anchor.operands)), (anchor,), anchor.results)
    inputs = {v: places[v] for v in graph.inputs}
    outer, inner = nest.axes(PARALLEL), [a for a, kind in enumerate(nest.kinds) if kind != PARALLEL]
    space = tuple(nest.extents[a] for a in outer)
    total, block = product(space), block_size(product(space), BLOCK, 32)

    def body(k: KernelText) -> None:
        i = k.axis("i", f"{k.program_id()} * {block}", block, total)
        index: list[Code] = [ZERO] * len(nest.extents)
        for a, here in zip(outer, delinearize(k, i, space, "i"), strict=True):
            index[a] = here
        point = Point(k, graph, inputs)
        states = _start(k, point, anchor, nest, index, block)
        with ExitStack() as loops:
            for a in inner:
                index[a] = _loop(k, loops, nest.extents[a], False)
            here = point.inside()
            _step(k, here, anchor, nest, index, states)
            emit = here.emitter(anchor, index, nest.extents, states)
            targets = [tuple(map(emit, nest.write[r])) if nest.write is not None else tuple(index)
                       for r in range(len(nest.results))]
            if nest.initial is not None:
                emit.old = tuple(
                    k.bind("old", widened(k.load(places[r], t))) for r, t in zip(anchor.results, targets, strict=True)
                )
            values = [k.bind("v", rounded(emit(x), r.dtype)) for x, r in zip(nest.results, anchor.results, strict=True)]
            for r, t, value in zip(anchor.results, targets, values, strict=True):
                k.store(places[r], t, value)
            if nest.initial is not None and inner:
                k.line("tl.debug_barrier()")  # the next round may read what this one wrote

    return Shape(ceildiv(total, block), body, max(1, block // 64))


def _start(
    k: KernelText, point: Point, anchor: Node, nest: Any, index: list[Code], block: int
) -> list[Code]:
    """The states as variables, at their initial values."""
    emit = point.emitter(anchor, index, nest.extents)
    states = []
    for x in nest.init:
        name, dtype = k.fresh("state"), register_dtype(x.dtype)
        k.line(f"{name} = {filled(f'[{block}]', emit(x), dtype)}")
        states.append(Code(name, dtype, frozenset("i")))
    return states


def _loop(k: KernelText, loops: ExitStack, extent: Any, unroll: bool) -> Code:
    if extent == 1:
        return ZERO
    name = loops.enter_context(k.loop("r", k.dim(extent), unroll=unroll))
    return Code(name, k.index_dtype)


def _step(k: KernelText, point: Point, anchor: Node, nest: Any, index: list[Code], states: list[Code]) -> None:
    """Update the states, all from their old values."""
    if not nest.step:
        return
    emit = point.emitter(anchor, index, nest.extents, tuple(states))
    new = [emit(x) for x in nest.step]
    if len(new) > 1:  # one may be another's old value
        names = [k.fresh("next") for _ in new]
        for name, x in zip(names, new, strict=True):
            k.line(f"{name} = {x.text}")
        new = [Code(name, x.dtype, x.axes, x.literal) for name, x in zip(names, new, strict=True)]
    for state, x in zip(states, new, strict=True):
        text = x.text
        if state.dtype == i64 and x.dtype != i64 and not x.literal:
            text = f"{x.atom}.to(tl.int64)"
        if x.literal or not x.axes:
            text = f"tl.full({state.text}.shape, {text}, {name_of(state.dtype)})" if x.literal else (
                f"tl.broadcast_to({text}, {state.text}.shape)")
        k.line(f"{state.text} = {text}")
