"""Convolutions and pooling, channels last: geometry and weights for the templates, and the region's epilogue."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from effcc.backends.tvm.contractions import by_pairs, cpu_of, ramp, read_again
from effcc.backends.tvm.emit import KernelBuilder
from effcc.backends.tvm.place import Place
from effcc.backends.tvm.region import FlatPoint, constant, is_light
from effcc.backends.tvm.templates import conv, depthwise
from effcc.backends.tvm.templates.emission import seen_as
from effcc.backends.tvm.tiles.space import Cut, TileSpace
from effcc.backends.tvm.values import lanes_of, register_dtype, round_to, splat, template_dtype
from effcc.ir import Builder, Graph, Node, Value
from effcc.ir.blob import Blob
from effcc.ir.dims import Dim
from effcc.ir.types import DType, i8, i32
from effcc.ops.contraction import accumulate_dtype
from effcc.ops.window import AvgPool, Conv, MaxPool

Tir = Any
Size = Callable[[Dim], Any]
_AS_STORED = ("f32", "f64", "f16", "i8", "u8", "i32")
"""Dtypes that the templates read from memory by themselves; other floats, and i4 and the like, come decoded."""


def element(dtype: DType, pairs: bool = False) -> str:
    """The TIR dtype that a template sees; pairs: of bf16 that one instruction multiplies."""
    return template_dtype(dtype) if pairs or dtype.name in _AS_STORED else register_dtype(dtype)


def _takes(dtype: DType) -> bool:
    return dtype.is_float or dtype.bits < 8 or dtype.name in _AS_STORED


def has_template(node: Node) -> bool:
    """Whether a template takes this window op: channels last, up to three spatial axes, static channels."""
    x = node.operands[0].tensor
    op: Any = node.op
    if op.layout != "nhwc" or x.rank > 5 or not _takes(x.dtype):
        return False
    if isinstance(op, Conv):
        w = node.operands[1].tensor
        return (
            w.is_static
            and isinstance(x.shape[-1], int)
            and _takes(w.dtype)
            and w.size != 0
            and (x.dtype.is_float or op.accumulate is not None)
        )
    if isinstance(op, MaxPool) and x.dtype.name in ("u8", "i8", "i32"):
        return True
    return x.dtype.is_float and not (isinstance(op, AvgPool) and op.ceil_mode)


def spatial(shape: tuple[Dim, ...]) -> tuple[Dim, Dim, Dim]:
    """(depth, height, width) of a channels-last shape."""
    inner = shape[1:-1]
    return (*(1,) * (3 - len(inner)), *inner)  # type: ignore[return-value]


def lower_window(
    lowering: Any, node: Node, body: Graph, anchor: Node, operands: tuple[Place, ...], results: tuple[Place, ...]
) -> None:
    """Launch a convolution or pooling with its epilogue."""
    op: Any = anchor.op
    if isinstance(op, Conv):
        o, per_group = anchor.operands[1].shape[:2]
        single = per_group == 1 and op.groups > 1 and o % op.groups == 0
        depthwise_template = _all_floats(anchor) or _bytes_by_known(body, anchor, operands)
        kind = "depthwise" if single and depthwise_template else "conv"
    else:
        kind = "max" if isinstance(op, MaxPool) else "average"
    launch = _Launch(lowering, node, body, anchor, operands, results, kind)
    launch.convolution() if kind == "conv" else launch.fold()


def _all_floats(anchor: Node) -> bool:
    return all(v.dtype.is_float and v.dtype.bits <= 32 for v in anchor.operands)


def _bytes_by_known(body: Graph, anchor: Node, operands: tuple[Place, ...]) -> bool:
    """Whether bytes are multiplied by constant bytes, so few that f32 sums are exact."""
    x, w = anchor.operands[:2]
    place = dict(zip(body.inputs, operands, strict=True)).get(w)
    few = depthwise.exact_in_f32(int(np.prod(w.shape[2:])))
    known = place is not None and place.buffer.blob is not None
    return known and few and x.dtype.name in ("u8", "i8") and w.dtype == i8 and anchor.result.dtype == i32


class _Launch:
    def __init__(
        self,
        lowering: Any,
        node: Node,
        body: Graph,
        anchor: Node,
        operands: tuple[Place, ...],
        results: tuple[Place, ...],
        kind: str,
    ):
        self.lowering, self.node, self.body, self.anchor, self.kind = lowering, node, body, anchor, kind
        self.operands, self.results = operands, results
        self.op: Any = anchor.op
        self.x, self.out = anchor.operands[0], anchor.result
        self.bound = dict(zip((*body.inputs, *body.results), (*operands, *results), strict=True))
        self.sum = register_dtype(accumulate_dtype(self.out.dtype, getattr(self.op, "accumulate", None)))
        self.pairs = False
        if kind == "conv":
            w = anchor.operands[1]
            known = self.bound[w].buffer.blob is not None
            several = w.shape[1] != 1  # (a lone channel would be half of a pair)
            self.pairs = several and by_pairs(lowering.machine, known, self.x.dtype, w.dtype, self.sum)
        x = self.bound[self.x]
        self.in_place = x.is_dense and x.offset == 0 and (self.pairs or self.x.dtype.name in _AS_STORED)
        kernel = self.anchor.operands[1].shape[2:] if isinstance(self.op, Conv) else self.op.kernel
        dilations = self.op.dilations
        self.window = conv.window(kernel, self.op.strides, dilations, self.op.pads)

    # -- the two templates ---------------------------------------------------------------------------------------------
    def convolution(self) -> None:
        w = self.anchor.operands[1]

        def spec(size: Size) -> conv.Convolution:
            return conv.Convolution(
                images=size(self.x.shape[0]),
                input=tuple(map(size, spatial(self.x.shape))),
                output=tuple(map(size, spatial(self.out.shape))),
                channels=self.x.shape[-1],
                features=self.out.shape[-1],
                window=self.window,
                cpu=cpu_of(self.lowering.machine),
                groups=self.op.groups,
                x=element(self.x.dtype, self.pairs),
                w=element(w.dtype, self.pairs),
                sum=self.sum,
                prologue=not self.in_place,
                known=self.bound[w].buffer.blob is not None,
                pad_value=self.op.pad_value,
            )

        outline = spec(lambda d: d)
        weights = self.weights(
            lambda array: conv.pack(outline, array),
            ("conv", outline.tiling, outline.width, outline.dots and outline.x),
            lambda b, v: _packed(b, v, outline),
        )
        rank = self.out.tensor.rank
        steps = (1, outline.tiling.lines, outline.tiling.columns)[5 - rank :]
        features = Cut((rank - 1,), outline.width * outline.tiling.panel_chunk, outline.groups)
        lines = (Cut((1 + k,), step) for k, step in enumerate(steps))
        tiles = TileSpace(self.out.shape, (features, Cut((0,)), *lines))

        def emit(kernel: KernelBuilder, places: dict[Value, Place]) -> None:
            conv.emit(
                spec(_sizes(kernel)),
                kernel.tile,
                kernel.scratch,
                self.epilogue(kernel, places),
                **self.sources(kernel, places, w),
                light=is_light(self.body),
            )

        self.launch(tiles, conv.scratch_bytes(outline), emit, w, weights)

    def fold(self) -> None:
        w = self.anchor.operands[1] if self.kind == "depthwise" else None
        multiplier = self.out.shape[-1] // self.x.shape[-1] if self.kind == "depthwise" else 1
        n = self.x.tensor.rank - 2
        whole = w is not None and not w.dtype.is_float

        def spec(size: Size) -> depthwise.WindowFold:
            return depthwise.WindowFold(
                kind=self.kind,
                images=size(self.x.shape[0]),
                input=tuple(map(size, spatial(self.x.shape))),
                output=tuple(map(size, spatial(self.out.shape))),
                channels=size(self.out.shape[-1]),
                window=self.window,
                cpu=cpu_of(self.lowering.machine),
                multiplier=multiplier,
                pads_after=(*(0,) * (3 - n), *self.op.pads[n:]),  # type: ignore[arg-type]
                count_pads=getattr(self.op, "count_include_pad", False),
                x=element(self.x.dtype),
                sum="float32" if whole else self.sum,
                result=self.sum,
                pad_value=self.op.pad_value if whole else 0,
            )

        depth, height, _ = spatial(self.out.shape)
        known = all(isinstance(d, int) for d in (self.x.shape[0], depth, height, self.out.shape[-1]))
        chunk = spec(lambda d: d).channel_chunk if known else self.out.shape[-1]
        weights = None
        if w is not None:
            rank = w.tensor.rank
            pad_value = self.op.pad_value
            weights = self.weights(
                (lambda array: depthwise.pack_integers(array, pad_value)) if whole else depthwise.pack,
                ("depthwise", pad_value),
                lambda b, v: b.transpose(b.reshape(v, shape=(v.shape[0], *v.shape[2:])), perm=(*range(1, rank - 1), 0)),
            )
        lines = (Cut((k,)) for k in range(n))  # images, planes and lines; a tile has whole lines
        channels = (Cut((n + 1,), max(1, chunk)),) if isinstance(chunk, int) else ()
        tiles = TileSpace(self.out.shape, (*lines, *channels))

        def emit(kernel: KernelBuilder, places: dict[Value, Place]) -> None:
            depthwise.emit(
                spec(_sizes(kernel)), kernel.tile, self.epilogue(kernel, places), **self.sources(kernel, places, w)
            )

        self.launch(tiles, 0, emit, w, weights)

    # -- what they share -----------------------------------------------------------------------------------------------
    def launch(self, tiles: TileSpace, scratch: Dim, emit: Any, w: Value | None, weights: Place | None) -> None:
        operands = self.operands
        if w is not None:
            operands = tuple(weights if v is w else p for v, p in zip(self.body.inputs, operands, strict=True))

        def make(places: dict[Value, Place]) -> tuple[TileSpace, Dim, Any]:
            return tiles, scratch, lambda kernel: emit(kernel, places)

        template = "conv" if self.kind == "conv" else "window"
        self.lowering.launch(template, self.in_place, self.body, operands, self.results, make, self.node)

    def sources(self, kernel: KernelBuilder, places: dict[Value, Place], w: Value | None) -> dict[str, Any]:
        def memory(v: Value) -> Tir:
            buffer = kernel.flat(places[v].buffer)
            return seen_as(buffer, "bfloat16") if self.pairs else buffer

        out: dict[str, Any] = {} if w is None else {"w": memory(w)}
        if self.in_place:
            return {**out, "x": memory(self.x)}
        return {**out, "read_x": lambda at, lanes: splat(kernel.load(places[self.x], self._axes(at, lanes)), lanes)}

    def _axes(self, at: tuple[Tir, ...], lanes: int) -> tuple[Tir, ...]:
        """The template's (image, depth, height, width, channel) as this op's axes, the last one a vector."""
        n = self.x.tensor.rank - 2
        return (at[0], *at[4 - n : 4], ramp(at[4], lanes))

    def epilogue(self, kernel: KernelBuilder, places: dict[Value, Place]) -> Any:
        ours = set(self.anchor.operands[:2]) - ({self.x} & read_again(self.body, self.anchor))
        strides = {v: p.aligned_strides(self.out.shape) for v, p in places.items() if v not in ours}
        bias = self.anchor.operands[2] if len(self.anchor.operands) > 2 else None

        def store(at: tuple[Tir, ...], value: Tir, lanes: int) -> None:
            index = self._axes(at, lanes)
            if bias in places:
                value = value + kernel.load(places[bias], index[-1:])
            elif bias is not None:  # of one element: it is in the code
                value = value + splat(constant(self.body.producer(bias).op), lanes_of(value))
            point = FlatPoint(kernel, self.body, places, strides, index, {self.out: round_to(value, self.out.dtype)})
            for v in dict.fromkeys(self.body.results):
                kernel.store(places[v], index, point.value(v), strides[v])

        return store

    def weights(self, pack: Callable[[Any], Any], key: Any, ops: Callable[[Builder, Value], Value]) -> Place:
        """The weights as the template wants them: packed ahead where they are constant, else by a copy at run time."""
        w = self.anchor.operands[1]
        place, lowering = self.bound[w], self.lowering
        wide = w.dtype if self.pairs else DType.of(element(w.dtype))
        if place.buffer.blob is None:
            decode = ops if wide == w.dtype else lambda b, v: ops(b, b.cast(v, to=wide))
            return packed_at_run_time(lowering, w, place, decode)
        full = (id(place.buffer.blob), place.offset, place.strides, place.shape, key)
        if full not in lowering.packed:
            flat = np.ascontiguousarray(place.buffer.blob.array).reshape(-1).astype(wide.numpy, copy=False)
            array = np.lib.stride_tricks.as_strided(
                flat[place.offset :], place.shape, tuple(st * flat.itemsize for st in place.strides)
            )  # type: ignore[operator]
            blob = Blob(np.ascontiguousarray(pack(array)))
            lowering.packed[full] = (
                lowering.buffer("constant", blob.type, f"p{len(lowering.packed)}", blob=blob),
                place.buffer.blob,
            )
        buffer = lowering.packed[full][0]
        return Place(buffer, (buffer.size,), (1,))


def packed_at_run_time(lowering: Any, w: Value, place: Place, ops: Callable[[Builder, Value], Value]) -> Place:
    """Apply view ops to the weights and copy the result to plain memory."""
    from effcc.backends.tvm.lower import Lowering

    b = Builder("pack")
    v = b.input("w", w.type)
    out = ops(b, v)
    child = Lowering(lowering.machine, lowering)
    child.places[v] = place
    child.run(b.graph(out))
    target = child.temporary(out.tensor)
    child.copy(child.places[out], target, out.tensor)
    lowering.steps += child.steps
    return Place(target.buffer, (target.buffer.size,), (1,))


def _packed(b: Builder, w: Value, spec: conv.Convolution) -> Value:
    """[O, I/G, kernel...] -> [group][panel][taps][I/G][NR], zeros beyond the last feature of a group."""
    features, channels, *kernel = w.shape
    group, width, panels = spec.groups, spec.width, spec.panels
    taps = int(np.prod(kernel))
    y = b.reshape(w, shape=(group, features // group, channels, taps))
    more = panels * width - features // group
    if more:
        y = b.pad(y, pads=(0, 0, 0, 0, 0, more, 0, 0))
    return b.transpose(b.reshape(y, shape=(group, panels, width, channels, taps)), perm=(0, 1, 4, 3, 2))


def _sizes(kernel: KernelBuilder) -> Size:
    return lambda d: d if isinstance(d, int) else kernel.dim(d)
