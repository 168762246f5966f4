"""Integer kernels for quantized graphs: what stands between dequantize and quantize computes on the integers.

matmul(dequantize(x₈), dequantize(w₈)) --> scale · (x₈ w₈ - zero point · Σ w₈) in i32      likewise conv

First quantization moves up to where values are made, through whatever only moves or picks elements, so that a kernel
stores bytes and the next one reads them; then products become integer products with exact i32 sums; then what is left
of (de)quantization becomes elementwise arithmetic, for fusion to put into the kernels' epilogues. It serves graphs of
`static-int8` and quantized ONNX files alike. (Jacob et al. 2018, section 2.2)
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from effcc.ir import Graph
from effcc.ir.types import DType, Tensor, f16, f32, i8, i32, u8
from effcc.passes.fold_scales import Bounded
from effcc.passes.quantized_movement import (
    DEQUANTIZED,
    ConcatOfDequantize,
    GatherOfDequantize,
    Parameters,
    QuantizeOfConcat,
    QuantizeOfDequantize,
    QuantizeOfRelu,
    QuantizeOfView,
    ViewOfDequantize,
    attributes,
    dequantize,
    drawn_quantize,
    parameters,
    quantize,
    to_integer,
)
from effcc.pipeline import Context, Pass
from effcc.rewrite import Rule, rewrite

MOST_PRODUCTS = (2**31 - 1) // (255 * 128)
"""As many products of bytes surely add up to an i32."""
RARELY = 8
"""How often examples are large, in percent."""


# -- products of integers ----------------------------------------------------------------------------------------------
def signed_weights(m: Any, axis: int) -> tuple[Any, Any] | str:
    """(s8 array, f32 scales: one number or a vector along `axis`) of the constant `m.w`, its zero point taken off."""
    blob = m.constant(m.w)
    found = parameters(m, "w")
    if blob is None or isinstance(found, str):
        return "the weights are no constant" if blob is None else str(found)
    if not found.of_tensor and found.axis != axis:
        return "the weights' scales lie along another axis than the output's channels"
    array = blob.array.astype(np.int64) - found.along(blob.array.ndim)[1]
    if array.size and (array.min() < -128 or array.max() > 127):
        return "less their zero point the weights are no signed bytes"
    return array.astype(np.int8), found.scale.reshape(() if found.scale.size == 1 else -1)


def activation(m: Any) -> Parameters | str:
    if m.x.dtype.name not in ("u8", "i8"):
        return f"the activation is {m.x.dtype}"
    if m.x_dtype not in (None, f32) or m.w_dtype not in (None, f32):
        return "it is dequantized to another dtype than f32"
    found = parameters(m, "x")
    if isinstance(found, str):
        return found
    return found if found.of_tensor else "the activation has several scales"


def scaled(b: Any, sums: Any, x: Parameters, scale: Any, offset: Any, shape: tuple[int, ...]) -> Any:
    """f32 of i32 sums: (sums - zero point · offset) · scales, or why not; `offset`, `scale`: vectors of channels."""
    product = x.scale.astype("f8").reshape(()) * scale.astype("f8")
    normal = np.finfo("f4")
    if not ((normal.tiny <= product) & (product <= normal.max)).all():
        return "the product of the scales is no normal f32"
    correction = (-int(x.zero.reshape(())) * offset).astype(np.int64)
    if correction.any():
        sums = b.add(sums, b.const(correction.astype(np.int32).reshape(shape)))
    factor = product.astype("f4")
    return b.mul(b.cast(sums, to=f32), b.const(factor.reshape(shape if factor.ndim else ())))


class MatmulOfDequantized(Bounded):
    """matmul(dequantize(x₈), dequantize(w₈)) --> (matmul(x₈, w₈) {accumulate=i32} - z Σ w₈) · scales"""

    shares = True

    def pattern(self, p: Any, x: Any, w: Any) -> Any:
        return p.op("matmul", dequantize(p, x, "x"), dequantize(p, w, "w"), **attributes(p, "matmul", "op"))

    def rewrite(self, b: Any, m: Any) -> Any:
        rank = m.w.tensor.rank
        if any(d != 1 for d in m.w.shape[:-2]):
            return "it multiplies by several matrices"
        inner, outer = (rank - 1, rank - 2) if m.op_transpose_b else (rank - 2, rank - 1)
        x, weights = activation(m), signed_weights(m, outer)
        if isinstance(x, str) or isinstance(weights, str):
            return x if isinstance(x, str) else str(weights)
        array, scale = weights
        if array.shape[inner] > MOST_PRODUCTS:
            return "the sums may not fit i32"
        op = m.root.op.replace(accumulate=i32)
        sums = b.add(op, m.x, b.const(array, i8))
        offset = array.astype(np.int64).sum(inner).reshape(-1)
        return scaled(b, sums, x, scale, offset, (-1,))

    def example(self, d: Any, b: Any) -> Any:
        to = d.choose((None,) * 9 + (f16,))
        x = drawn_activation(d, b, (d.integer(1, 3), MOST_PRODUCTS + 1 if d.chance(RARELY) else d.integer(1, 9)), to)
        turned = d.boolean()
        shape = (d.integer(1, 5), x.shape[1])[:: 1 if turned else -1]
        batch = d.choose(((),) * 9 + ((1,), (2,)))
        w = drawn_weights(d, b, (*batch, *shape), len(batch) + (0 if turned else 1), to)
        return b.matmul(x, w, transpose_b=turned)


def widened(m: Any, v: Any) -> tuple[Any, int] | None:
    """(x₈, zero point) where an i32 value is x₈ less a number."""
    item, zero = m.workspace.producer(v), 0
    if item is not None and item.op.name == "sub":
        blob = m.constant(item.operands[1])
        if blob is None or blob.array.size != 1 or blob.array.ndim:
            return None
        item, zero = m.workspace.producer(item.operands[0]), int(blob.array)
    if item is None or item.op.name != "cast" or item.results[0].dtype != i32:
        return None
    x = item.operands[0]
    if x.dtype.name not in ("u8", "i8"):
        return None
    return (x, zero) if x.dtype.min <= zero <= x.dtype.max else None


def narrow_weights(m: Any, v: Any) -> Any | None:
    """An i32 constant (or bytes made i32) that signed bytes hold."""
    blob, found = m.constant(v), None
    if blob is None and (found := widened(m, v)) is not None:
        blob = m.constant(found[0])
    if blob is None:
        return None
    array = blob.array.astype(np.int64) - (found[1] if found else 0)
    return array.astype(np.int8) if array.size and -128 <= array.min() and array.max() <= 127 else None


class MatmulOfWidened(Rule):
    """matmul(i32(x₈) - z, w) --> matmul(x₈, w₈) {accumulate=i32} - z Σ w₈     for i32 constants w that are bytes"""

    shares = True

    def pattern(self, p: Any, x: Any, w: Any) -> Any:
        return p.op("matmul", x, w, **(p.any_attributes("matmul") | {"accumulate": i32}))

    def rewrite(self, b: Any, m: Any) -> Any:
        x, w = widened(m, m.x), narrow_weights(m, m.w)
        if x is None or w is None or w.ndim != 2:
            return "the operands are no bytes made i32, or the weights no constant matrix"
        sums = b.add(m.root.op, x[0], b.const(w, i8))
        offset = -x[1] * w.astype(np.int64).sum(1 if m.transpose_b else 0)
        return b.add(sums, b.const(offset.astype(np.int32))) if offset.any() else sums

    def example(self, d: Any, b: Any) -> Any:
        x = b.input("x", Tensor(d.choose((u8, i8)), (3, d.integer(1, 9))))
        w = b.const(d.blob(Tensor(i8, (x.shape[1], d.integer(1, 5)))))
        return b.matmul(drawn_widened(d, b, x), b.cast(w, to=i32), accumulate=i32)


class ConvOfWidened(Rule):
    """conv(i32(x₈) - z, w) --> conv(x₈, w₈) {accumulate=i32} - z Σ w₈     for i32 constants w that are bytes"""

    shares = True

    def pattern(self, p: Any, x: Any, w: Any) -> Any:
        return p.op("conv", x, w, **p.any_attributes("conv"))

    def rewrite(self, b: Any, m: Any) -> Any:
        x, w = widened(m, m.x), narrow_weights(m, m.w)
        if x is None or w is None or m.pad_value or m.root.result.dtype != i32:
            return "the operands are no bytes made i32, or the weights no constant"
        sums = b.add(m.root.op.replace(accumulate=i32, pad_value=x[1]), x[0], b.const(w, i8))
        offset = -x[1] * w.sum(tuple(range(1, w.ndim)), np.int64)
        shape = (-1,) if m.layout == "nhwc" else (-1, *[1] * (w.ndim - 2))
        return b.add(sums, b.const(offset.astype(np.int32).reshape(shape))) if offset.any() else sums

    def example(self, d: Any, b: Any) -> Any:
        x = b.input("x", Tensor(d.choose((u8, i8)), (1, d.integer(1, 5), 4, 3)))
        w = b.const(d.blob(Tensor(i8, (d.integer(1, 3), x.shape[1], d.integer(1, 2), 2))))
        pads, strides = (d.integer(0, 1), 1, 0, 1), (d.integer(1, 2), 1)
        wide = drawn_widened(d, b, x)
        return b.conv(wide, b.cast(w, to=i32), strides=strides, pads=pads, dilations=(1, 1))


def drawn_widened(d: Any, b: Any, x: Any) -> Any:
    wide = b.cast(x, to=i32)
    return b.sub(wide, b.const(np.int32(d.choose((3, 100))))) if d.boolean() else wide


class ConvOfDequantized(Bounded):
    """conv(dequantize(x₈), dequantize(w₈), bias) --> (conv(x₈, w₈) {accumulate=i32} - z Σ w₈) · scales + bias

    x₈ is padded with the zero point. A bias that is quantized with the product of the scales is added to the sums.
    """

    shares = True

    def pattern(self, p: Any, x: Any, w: Any) -> Any:
        operands = (dequantize(p, x, "x"), dequantize(p, w, "w"), p.rest("bias"))
        return p.op("conv", *operands, **attributes(p, "conv", "op"))

    def rewrite(self, b: Any, m: Any) -> Any:
        x, weights = activation(m), signed_weights(m, 0)
        if isinstance(x, str) or isinstance(weights, str):
            return x if isinstance(x, str) else str(weights)
        array, scale = weights
        if math.prod(array.shape[1:]) > MOST_PRODUCTS:
            return "the sums may not fit i32"
        zero = int(x.zero.reshape(()))
        op = m.root.op.replace(accumulate=i32, pad_value=zero)
        sums = b.add(op, m.x, b.const(array, i8))
        spatial = array.ndim - 2
        shape = (*[1] * (1 + spatial), -1) if m.op_layout == "nhwc" else (-1, *[1] * spatial)
        offset = array.sum(tuple(range(1, array.ndim)), np.int64)
        integers = self.integer_bias(m, x, scale)
        if integers is not None:
            sums = b.add(sums, b.const(integers.astype(np.int32).reshape(shape)))
        out = scaled(b, sums, x, scale, offset, shape)
        if isinstance(out, str) or not m.bias or integers is not None:
            return out
        bias = m.bias[0]
        blob = m.constant(bias)
        if blob is not None:
            return b.add(out, b.const(blob.array.reshape(shape)))
        return b.add(out, b.reshape(bias, shape=tuple(bias.shape[0] if k == -1 else 1 for k in shape)))

    @staticmethod
    def integer_bias(m: Any, x: Parameters, scale: Any) -> Any | None:
        """A bias of i32 constants with the scale of the sums."""
        made = m.workspace.producer(m.bias[0]) if m.bias else None
        if made is None or made.op.name != "dequantize_linear" or made.operands[0].dtype != i32:
            return None
        q, s, *zero = (m.constant(v) for v in made.operands)
        if q is None or s is None or any(z is None or z.array.any() for z in zero):
            return None
        wanted = np.broadcast_to(x.scale.reshape(()) * scale, q.array.shape)
        same = np.allclose(np.broadcast_to(s.array, q.array.shape), wanted, rtol=1e-6, atol=0)
        return q.array if same and np.abs(q.array.astype(np.int64)).max(initial=0) < 2**30 else None

    def example(self, d: Any, b: Any) -> Any:
        groups, inner = d.integer(1, 2), d.integer(1, 5)
        outputs = groups * d.integer(1, 3)
        channels_last = d.boolean()
        spatial = (4, 3)
        shape = (1, *spatial, groups * inner) if channels_last else (1, groups * inner, *spatial)
        if d.chance(RARELY):  # too many products
            groups, inner, outputs, spatial = 1, MOST_PRODUCTS // 2 + 1, 1, (2, 2)
            shape = (1, *spatial, inner) if channels_last else (1, inner, *spatial)
        x = drawn_activation(d, b, shape)
        w = drawn_weights(d, b, (outputs, inner, d.integer(1, 2), 2), 0)
        bias = self.example_bias(d, b, outputs, scale_of(b, x) * scale_of(b, w))
        pads, strides = (d.integer(0, 1), 1, 0, 1), (d.integer(1, 2), 1)
        layout = "nhwc" if channels_last else "nchw"
        return b.conv(x, w, *bias, strides=strides, pads=pads, dilations=(1, 1), groups=groups, layout=layout)


    @staticmethod
    def example_bias(d: Any, b: Any, outputs: int, scales: Any) -> list[Any]:
        """None, floats, or integers with the scales of the sums or others."""
        kind = d.choose(("none", "floats", "integers"))
        if kind == "none":
            return []
        if kind == "floats":
            return [b.const(d.blob(Tensor(f32, (outputs,))))]
        zero = [b.const(np.int32(d.choose((0, 0, 1))))] if scales.size == 1 and d.boolean() else []
        wrong = np.float32(1 if d.chance(80) else 2)
        return [b.dequantize_linear(b.const(d.blob(Tensor(i32, (outputs,)))), b.const(scales * wrong), *zero, axis=0)]


def scale_of(b: Any, dequantized: Any) -> Any:
    made = {r: n for n in b.nodes for r in n.results}
    return made[made[dequantized].operands[1]].op.blob.array


def drawn_activation(d: Any, b: Any, shape: tuple[int, ...], to: DType | None = None) -> Any:
    x = b.input("x", Tensor(d.choose((u8, i8)), shape))
    zero = b.const(np.asarray(d.choose((0, 3, 100)), x.dtype.numpy))
    return b.dequantize_linear(x, b.const(np.float32(d.choose((1.0, 0.5, 0.01)))), zero, axis=0, dtype=to)


def drawn_weights(d: Any, b: Any, shape: tuple[int, ...], axis: int, to: DType | None = None) -> Any:
    """Constants in bytes with one scale or one for each of the axis (seldom of another), seldom with zero points."""
    w = b.const(d.blob(Tensor(i8, shape)))
    axis = len(shape) - 1 - axis if len(shape) == 2 and d.chance(20) else axis
    scale = np.float32(0.5) if d.boolean() else np.linspace(0.5, 2, shape[axis], dtype=np.float32)
    zero = [b.const(np.full(scale.shape, d.choose((5, -127)), np.int8))] if d.chance(15) else []
    return b.dequantize_linear(w, b.const(scale), *zero, axis=axis, dtype=to)


# -- the rest in elementwise arithmetic --------------------------------------------------------------------------------
class ExpandQuantize(Bounded):
    """quantize(x) --> cast(clip(round(x / scale) + zero point))    where x = y · c + d: round(y · c/scale + d/scale)"""

    shares = True
    special_inputs = False

    def pattern(self, p: Any, x: Any) -> Any:
        return quantize(p, x)

    def rewrite(self, b: Any, m: Any) -> Any:
        found = to_integer(m) or parameters(m, "q")
        if isinstance(found, str):
            return found
        dtype: DType = m.q_dtype
        scale, zero = found.along(m.x.tensor.rank)
        y = self.divided(b, m, scale)
        y = b.round(y)
        if zero.any():
            y = b.add(y, b.const(zero.astype("f4")))
        y = b.min(b.max(y, b.const(np.float32(dtype.min))), b.const(np.float32(dtype.max)))
        return b.cast(b.cast(y, to=i32), to=dtype)

    @staticmethod
    def divided(b: Any, m: Any, scale: Any) -> Any:
        """x / scale; where x is y · c or y · c + d by constants that nobody else needs, c and d are divided."""
        def private(v: Any, op: str) -> tuple[Any, Any] | None:
            item = m.workspace.producer(v)
            if item is None or item.op.name != op or len(m.users(v)) > 1 or m.workspace.is_output(v):
                return None
            for y, c in (item.operands, item.operands[::-1]):
                blob = m.constant(c)
                if blob is not None and y.type == v.type:
                    return y, blob.array.astype("f8")
            return None

        x = m.x if m.x.dtype == f32 else b.cast(m.x, to=f32)
        shifted = private(m.x, "add")
        product = private(shifted[0] if shifted else m.x, "mul")
        if x is not m.x or product is None:
            return b.div(x, b.const(scale))
        with np.errstate(over="ignore"):
            factor = (product[1] / scale.astype("f8")).astype("f4")
            shift = (shifted[1] / scale.astype("f8")).astype("f4") if shifted else np.float32(0)
        if not (np.isfinite(factor).all() and np.isfinite(shift).all()):
            return b.div(x, b.const(scale))
        y = b.mul(product[0], b.const(factor))
        return b.add(y, b.const(shift)) if shifted else y

    def example(self, d: Any, b: Any) -> Any:
        x = b.input("x", Tensor(f32, (2, 3)))
        if d.boolean():
            x = b.mul(x, b.const(np.float32(d.choose((2.0, 0.25, 3e38)))))
            x = b.add(x, b.const(np.array([1, 2, 4], "f4"))) if d.boolean() else x
        if d.boolean():
            scale = b.const(np.array([0.5, 1, 2], "f4"))
            return b.quantize_linear(x, scale, axis=1, dtype=i8)
        return drawn_quantize(d, b, x)


class ExpandDequantize(Rule):
    """dequantize(q) --> cast(q - zero point) · scale     but for constants, which stay as small as they are"""

    shares = True

    def pattern(self, p: Any, x: Any) -> Any:
        return dequantize(p, x, "x")

    def check(self, m: Any, ctx: Any) -> str | None:
        if m.constant(m.x) is not None and m.x.tensor.rank > 1:
            return "it is a constant"
        if not m.x.dtype.is_integer or m.x.dtype.bits < 8 or m.x_dtype not in (None, f32):
            return f"{m.x.dtype} to {m.x_dtype or 'f32'}"
        found = parameters(m, "x")
        if isinstance(found, str):
            return found
        return "less its zero point i32 may wrap" if m.x.dtype == i32 and found.zero.any() else None

    def rewrite(self, b: Any, m: Any) -> Any:
        found: Any = parameters(m, "x")
        scale, zero = found.along(m.x.tensor.rank)
        y = b.cast(m.x, to=i32) if m.x.dtype != i32 else m.x
        if zero.any():
            y = b.sub(y, b.const(zero.astype(np.int32)))
        return b.mul(b.cast(y, to=f32), b.const(scale))

    def example(self, d: Any, b: Any) -> Any:
        x = b.input("x", Tensor(d.choose((u8, i8, i32)), (2, 3)))
        if d.boolean():
            return b.dequantize_linear(x, b.const(np.array([0.5, 1, 2], "f4")), axis=1)
        zero = b.const(np.asarray(d.choose((0, 3, 100)), x.dtype.numpy))
        return b.dequantize_linear(x, b.const(np.float32(0.5)), zero, axis=0)


MOVES = (
    *map(QuantizeOfView, ("reshape", "transpose", "slice", "broadcast_to", "max_pool")),
    QuantizeOfConcat(), QuantizeOfRelu(), QuantizeOfDequantize(),
    *map(ViewOfDequantize, DEQUANTIZED), GatherOfDequantize(), ConcatOfDequantize(),
)  # fmt: skip
PRODUCTS = (MatmulOfDequantized(), ConvOfDequantized(), MatmulOfWidened(), ConvOfWidened())
EXPANSIONS = (ExpandQuantize(), ExpandDequantize())


class IntegerArithmetic(Pass):
    """Compute on the integers of a quantized graph; one without (de)quantization is left alone."""

    name = "integer-arithmetic"
    category = "lower"
    contract = "bounded"
    source = "Jacob et al. 2018 (arXiv 1712.05877)"
    special_inputs = False
    rules = (*MOVES, *PRODUCTS, *EXPANSIONS)

    def run(self, graph: Graph, ctx: Context) -> Graph:
        if not any(v.type.dtype.name in ("u8", "i8") for v in graph.values if isinstance(v.type, Tensor)):
            return graph
        moved = rewrite(graph, MOVES, ctx)
        multiplied = rewrite(moved, PRODUCTS, ctx)
        return rewrite(multiplied, EXPANSIONS, ctx)

    def example(self, d: Any, b: Any) -> Any:
        y = d.choose((*PRODUCTS[:2], EXPANSIONS[1])).example(d, b)
        y = b.transpose(y, perm=d.permutation(y.tensor.rank)) if d.boolean() else y
        return drawn_quantize(d, b, b.relu(y) if d.boolean() else y)
