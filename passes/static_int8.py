"""Static quantization to 8 bits: activations by ranges seen on calibration data, weights by channel.

matmul(x, w) --> matmul(dequantize(quantize(x)), dequantize(w₈))      likewise conv

Activations are u8 with a zero point (or s8 without), one scale a tensor; weights s8, symmetric, one scale an output
channel. `integer-arithmetic` then makes integer kernels of such pairs, whether this pass or an ONNX file has put them
there. A layer is quantized only where the machine is faster at it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from effcc.analysis.quantization_error import mean_errors, output_errors
from effcc.analysis.ranges import LEAST_SCALE, METHODS, Affine, ranges
from effcc.errors import InputError
from effcc.interp import as_tensor, bind_graph, bind_inputs
from effcc.ir import Graph, Node, Symbol, Value
from effcc.ir.blob import Blob
from effcc.ir.dims import product
from effcc.ir.lazy import torch
from effcc.ir.op import Op, op_class
from effcc.ir.types import DTYPES, DType, Tensor, bool_, f32, f64, i8
from effcc.pipeline import Context, Pass
from effcc.rewrite import Item, Workspace

WEIGHT_MAX = 127
FLOOR_SAMPLES = 4
"""Samples that errors are measured on where no report, but a floor is asked for."""
ROUNDS = 2
"""How often fp32 and int8 are measured in turns; the least time of each counts."""
QUANTIZE_COST, EPILOGUE_COST = 8, 4
"""Vector instructions for as many elements as a vector has lanes: to quantize f32, and to scale a sum."""


@dataclass(frozen=True)
class Layer:
    """A matmul or conv to quantize: its activation, its weights, and the weights' axis of output channels."""

    node: Node
    x: Value
    weights: Value
    array: Any
    axis: int

    def channels(self, rank: int) -> int:
        """The result's axis of channels."""
        channels_first = self.node.op.name == "conv" and self.node.op.layout == "nchw"  # type: ignore[attr-defined]
        return 1 if channels_first else rank - 1

    def reach(self, activation: float) -> float:
        """How large sums may become of activations up to a magnitude."""
        weights = np.moveaxis(np.abs(self.array.astype("f8")), self.axis, 0)
        return activation * float(weights.reshape(len(weights), -1).sum(1).max())


class StaticInt8(Pass):
    """Quantize matmuls and convs with constant weights, by ranges on `ctx.calibration`.

    A layer is quantized where the cost model says that it pays, and all of them where the graph measures faster
    (`ctx.measure`). method: "min-max", "percentile" (leaving out 100 - `percent`), or "mse". activations: "u8" (with a
    zero point) or "s8". skip: layers with one of these in their location stay. first, last: whether the layers nearest
    to the inputs and to the results are quantized. always: quantize even what is no faster. correct: shift each channel
    by what quantization shifts it on average (Nagel et al. 2019, section 4.2). floor: layers stay that alone bring the
    results' signal-to-noise ratio below so many dB. report: how many samples each layer's error is measured on (0:
    none).
    """

    name = "static-int8"
    category = "quantize"
    contract = (  # (a smaller percentile cuts off what it leaves out by more than a quantum)
        "approximate; quantized when method=min-max; quantized when method=mse; "
        "quantized when method=percentile and percent=99.99"
    )
    source = "Jacob et al. 2018 (arXiv 1712.05877); Nagel et al. 2019 (arXiv 1906.04721)"
    special_inputs = False
    choices = {
        "method": METHODS, "percent": (99.99, 50.0), "activations": ("u8", "s8"), "skip": ((), ("op1",)),
        "floor": (0.0, 30.0, 200.0), "report": (4, 0),
    }  # fmt: skip

    method: str = "mse"
    percent: float = 99.99
    activations: str = "u8"
    skip: tuple[str, ...] = ()
    first: bool = True
    last: bool = True
    always: bool = False
    correct: bool = True
    floor: float = 0.0
    report: int = 4

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise ValueError(f"method {self.method!r} is none of {', '.join(METHODS)}")
        if self.activations not in ("u8", "s8"):
            raise ValueError(f"activations are u8 or s8, not {self.activations!r}")
        if not 0 < self.percent <= 100:
            raise ValueError(f"percent is {self.percent}, not in (0, 100]")

    @property
    def dtype(self) -> DType:
        return DTYPES["i8" if self.activations == "s8" else "u8"]

    def run(self, graph: Graph, ctx: Context) -> Graph:
        layers = self.layers(graph, ctx)
        if not layers:
            return graph
        if ctx.calibration is None:
            hint = "give calibration data: --calibration data.npz, or calibration= in Python"
            raise InputError(f"{self.name} has to see activations", where=f"graph @{graph.name}", hint=hint)
        ctx.progress("calibrating")
        values = {layer.x for layer in layers}
        found = ranges(graph, values, ctx.calibration.batches(), self.dtype, self.method, self.percent)
        plans: dict[Node, tuple[Layer, Affine]] = {}
        for layer in layers:
            low, high = found[layer.x]
            if not np.isfinite([low, high]).all():
                ctx.refused(self.name, layer.node.loc, "activations are not finite on the calibration data")
            elif layer.reach(max(abs(low), abs(high))) > float(np.finfo("f4").max):
                ctx.refused(self.name, layer.node.loc, "its sums may leave the range of f32")
            else:
                plans[layer.node] = layer, Affine.over(low, high, self.dtype)
        plans = {n: p for n, p in self.faster(graph, plans, ctx).items() if ctx.allow(self.name, n.loc)}
        if not plans:
            return graph
        shifts: Mapping[Node, Any] = {}
        if self.correct:
            ctx.progress("correcting biases")
            shifts = mean_errors(graph, {n: rounded(*plan) for n, plan in plans.items()}, ctx.calibration.batches())
        quantized = insert(graph, plans, shifts)
        if not self.report and not self.floor:
            return quantized
        ctx.progress("measuring the layers' errors")
        samples = ctx.calibration[: self.report or FLOOR_SAMPLES]
        errors = dict(zip(plans, output_errors(graph, quantized, plans, samples.batches()), strict=True))
        for loc, figures in errors.values():
            ctx.note(loc, **figures)
            if figures["results dB"] < self.floor:
                reason = f"alone it brings the results to {figures['results dB']:.1f} dB, below {self.floor:g}"
                ctx.refused(self.name, loc, reason)
        kept = {n: p for n, p in plans.items() if errors[n][1]["results dB"] >= self.floor}
        return quantized if len(kept) == len(plans) else insert(graph, kept, shifts) if kept else graph

    # -- which layers --------------------------------------------------------------------------------------------------
    def layers(self, graph: Graph, ctx: Context) -> list[Layer]:
        """The layers to quantize, in order; why the others are not is told."""
        found: list[Layer] = []
        for node in graph.nodes:
            if node.op.name not in ("matmul", "conv"):
                continue
            layer = self.layer(graph, node)
            if isinstance(layer, str):
                ctx.refused(self.name, node.loc, layer)
            else:
                found.append(layer)
        ends = ({0} if not self.first else set()) | ({len(found) - 1} if not self.last else set())
        for k in ends & set(range(len(found))):
            ctx.refused(self.name, found[k].node.loc, f"it is the {'first' if k == 0 else 'last'} layer")
        kept = [layer for k, layer in enumerate(found) if k not in ends]
        return [layer for layer in kept if self.pays(layer, ctx)]

    def layer(self, graph: Graph, node: Node) -> Layer | str:
        """A node as a layer, or why it is none."""
        where = str(node.loc)
        named = next((s for s in self.skip if s in where), None)
        if named is not None:
            return f"skip={named}"
        x, w = node.operands[:2]
        producer = graph.producer(w)
        if producer is None or producer.op.name != "const":
            return "its weights are no constant"
        if x.dtype != f32 or w.dtype != f32:
            return f"it computes in {x.dtype}, not f32"
        if node.result.dtype != f32:
            return f"it gives {node.result.dtype}, not f32"
        if graph.producer(x) is not None and graph.producer(x).op.name == "const":  # type: ignore[union-attr]
            return "its activation is a constant"
        op: Any = node.op
        if op.name == "conv":
            axis = 0
        else:
            axis = w.tensor.rank - (2 if op.transpose_b else 1)
            if product(w.shape[:-2]) != 1:
                return "it multiplies by several matrices"
        array = producer.op.blob.array  # type: ignore[attr-defined]
        if not np.isfinite(array).all() or array.size == 0:
            return "its weights are empty, or not finite"
        return Layer(node, x, w, array, axis)

    def pays(self, layer: Layer, ctx: Context) -> bool:
        """Whether the cost model says that integers are faster."""
        machine = ctx.machine
        if self.always or machine is None:
            return True
        if not getattr(machine, "multiplies_bytes", True):
            reason = "the machine multiplies bytes no faster than floats"
        else:
            before, after = instructions(layer)
            if after < before:
                return True
            reason = f"the cost model says that fp32 is no slower ({before:.0f} and {after:.0f} vector steps a row)"
        ctx.refused(self.name, layer.node.loc, reason)
        return False

    def faster(
        self, graph: Graph, plans: dict[Node, tuple[Layer, Affine]], ctx: Context
    ) -> dict[Node, tuple[Layer, Affine]]:
        """Those layers with which the whole graph measures faster than in fp32; where it does not with all of them, the
        half that gains least by the cost model drops out, and so on. Sizes are those of one sample."""
        if self.always or ctx.measure is None:
            return plans
        sizes = bind_inputs(graph.inputs, map(as_tensor, next(ctx.calibration[:1].batches())))
        if not sizes.keys() >= set(graph.symbols):
            return plans  # some sizes are known at run time only
        while plans:
            ctx.progress(f"measuring {len(plans)} layers in int8")
            versions = [bind_graph(g, sizes) for g in (graph, insert(graph, plans, {}))]
            rounds = [[ctx.measure(g) for g in versions] for _ in range(ROUNDS)]
            exact, fast = (min(times) for times in zip(*rounds, strict=True))
            if fast < exact:
                return plans
            order = sorted(plans, key=lambda n: -gain(plans[n][0]))
            kept = order[: len(order) // 2]
            for node in order[len(kept) :]:
                reason = f"int8 measures {1e3 * fast:.3f} ms, fp32 {1e3 * exact:.3f} ms"
                ctx.refused(self.name, node.loc, reason)
            plans = {n: p for n, p in plans.items() if n in kept}
        return plans

    def example(self, d: Any, b: Any) -> Any:
        """Products of one input, with a bias or without; a convolution, with or without one."""
        if d.boolean():
            wide = d.chance(25)  # where integers pay by the cost model
            x = b.input("x", Tensor(f32, (d.integer(1, 3), 96 if wide else d.choose((4, 7, 1)))))
            if d.chance(20):  # as many rows as the data say
                at = b.nonzero(b.input("kept", Tensor(bool_, (x.shape[0],))), size=Symbol("kept", 0, None))
                x = b.gather(x, b.reshape(at, shape=(at.shape[-1],)), axis=0)
            x = b.log(b.sub(x, x)) if d.chance(5) else x  # not finite
            batch = (2,) if d.chance(10) else ()
            w = b.const(d.blob(Tensor(f32, (*batch, x.shape[1], 96 if wide else d.choose((3, 5, 17))))))
            y = b.matmul(x, w, accumulate=f64 if d.chance(5) else None)
            y = b.cast(y, to=f32) if y.dtype == f64 else y
            if d.boolean():
                y = b.add(y, b.const(d.blob(Tensor(f32, d.choose((w.shape[-1:], (), (1, w.shape[-1])))))))
            return [b.relu(y), b.matmul(x, w)] if d.chance(30) else b.relu(y)
        groups, inner = d.integer(1, 2), d.integer(1, 4)
        x = b.input("x", Tensor(f32, (1, groups * inner, 4, 3)))
        w = b.const(d.blob(Tensor(f32, (groups * d.integer(1, 5), inner, d.integer(1, 2), 2))))
        bias = Tensor(f32, (w.shape[0],))
        given = d.choose((lambda: [], lambda: [b.const(d.blob(bias))], lambda: [b.input("bias", bias)]))()
        pads, strides = (d.integer(0, 1), 1, 0, 1), (d.integer(1, 2), 1)
        return b.conv(x, w, *given, strides=strides, pads=pads, dilations=(1, 1), groups=groups)


def instructions(layer: Layer) -> tuple[float, float]:
    """Vector instructions for one row of the result in f32, and with integers: products by fours, the input's
    quantization, and each sum's scaling. Sizes that are not known do not matter: they count in both."""
    op: Any = layer.node.op
    w = layer.weights.shape
    if op.name == "conv":
        features, inner = w[0], w[1]
        per_group, depth = features // op.groups, product(w[1:])
        products, words = features * depth, features * -(-depth // 4)
        inputs = inner * op.groups * int(np.prod(op.strides))
        if per_group < 4:  # a vector holds one channel's sum
            words = 4 * products
    else:
        (depth, features) = (w[-1], w[-2]) if op.transpose_b else (w[-2], w[-1])
        products, words, inputs = features * depth, features * -(-depth // 4), depth
    return products, words + QUANTIZE_COST * inputs + EPILOGUE_COST * features


def gain(layer: Layer) -> float:
    """How many times as fast integers are by the cost model."""
    before, after = instructions(layer)
    return before / after


# -- the new graph -----------------------------------------------------------------------------------------------------
def quantized_weights(array: Any, axis: int) -> tuple[Any, Any]:
    """(s8 weights, f32 scales along the axis): symmetric, the largest magnitude of each channel is 127 (0
    where all of it is next to nothing)."""
    others = tuple(k for k in range(array.ndim) if k != axis)
    top = np.abs(array.astype("f8")).max(others)
    scale = np.where(top > WEIGHT_MAX * LEAST_SCALE, top / WEIGHT_MAX, 1.0).astype("f4")
    shape = [-1 if k == axis else 1 for k in range(array.ndim)]
    q = np.rint(array.astype("f8") / scale.reshape(shape).astype("f8"))
    return np.clip(q, -WEIGHT_MAX, WEIGHT_MAX).astype("i1"), scale


def rounded(layer: Layer, affine: Affine) -> tuple[Any, Any, int]:
    """For `mean_errors`: what rounds the activation, the rounded weights, and the result's axis of channels."""
    node = layer.node
    q, scale = quantized_weights(layer.array, layer.axis)
    shape = [-1 if k == layer.axis else 1 for k in range(q.ndim)]
    weights = torch.from_numpy(q.astype("f4") * scale.reshape(shape))
    return affine.rounded, weights, layer.channels(node.result.tensor.rank)


def insert(graph: Graph, plans: dict[Node, tuple[Layer, Affine]], shifts: Mapping[Node, Any]) -> Graph:
    """The graph with (de)quantization around the layers' operands (an activation is quantized once), and `shifts`, a
    vector of channels for each layer, added to its result."""
    w = Workspace(graph)
    activations: dict[Value, Value] = {}
    for item in w.items():
        planned = plans.get(item.origin) if item.origin is not None else None
        if planned is None:
            continue
        layer, affine = planned

        def add(op: Op, *operands: Value, item: Item = item) -> Value:
            return w.insert(op, operands, item, item.loc).result

        def const(array: Any, dtype: DType | None = None, add: Any = add) -> Value:
            return add(op_class("const")(Blob(np.asarray(array), dtype)))  # type: ignore[call-arg]

        quantize, dequantize = op_class("quantize_linear"), op_class("dequantize_linear")
        if layer.x not in activations:
            scale = const(affine.scale)
            zero = const(np.asarray(affine.zero_point, affine.dtype.numpy))
            q = add(quantize(axis=0, dtype=affine.dtype), layer.x, scale, zero)  # type: ignore[call-arg]
            activations[layer.x] = add(dequantize(axis=0), q, scale, zero)  # type: ignore[call-arg]
        q, scales = quantized_weights(layer.array, layer.axis)
        weights = add(dequantize(axis=layer.axis), const(q, i8), const(scales))  # type: ignore[call-arg]
        w.set_operands(item, (activations[layer.x], weights, *item.operands[2:]))
        w.erase_dead(layer.weights)
        shift = shifts.get(layer.node)
        if shift is not None and shift.any():
            add_shift(w, item, layer, shift)
    return w.freeze()


def add_shift(w: Workspace, item: Item, layer: Layer, shift: Any) -> None:
    """Add a vector of channels to a layer's result: to the bias that is added already, if one is."""
    rank = item.result.tensor.rank
    shape = [-1 if k == layer.channels(rank) else 1 for k in range(rank)]

    def const(array: Any, before: Item) -> Value:
        return w.insert(op_class("const")(Blob(array.astype("f4"))), (), before, item.loc).result  # type: ignore[call-arg]

    if item.op.name == "conv":
        bias = w.constant(item.operands[2]) if len(item.operands) > 2 else None
        if len(item.operands) == 2 or bias is not None:
            total = shift if bias is None else bias.array.astype("f8") + shift
            w.set_operands(item, (*item.operands[:2], const(total, item)))
            return
    readers = w.users(item.result)
    if len(readers) == 1 and readers[0].op.name == "add" and not w.is_output(item.result):
        reader = readers[0]
        for k, v in enumerate(reader.operands):
            blob = w.constant(v)
            if blob is not None and blob.array.ndim <= 1 and layer.channels(rank) == rank - 1:
                total = const(blob.array.astype("f8") + shift, reader)
                w.set_operands(reader, tuple(total if j == k else x for j, x in enumerate(reader.operands)))
                return
    behind = item.next
    added = w.insert(op_class("add")(), (item.result, const(shift.reshape(shape), behind)), behind, item.loc)
    w.replace_all_uses(item.result, added.result)
    w.set_operands(added, (item.result, added.operands[1]))


