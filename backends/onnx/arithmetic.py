"""Elementwise ops, products, reductions, sums of prefixes and quantization as ONNX operators."""

from __future__ import annotations

from typing import Any

from effcc.backends.onnx.emit import Ref, onnx_dtype
from effcc.backends.onnx.export import Writer, exports
from effcc.backends.onnx.scalars import cast
from effcc.ir.dims import Dim
from effcc.ir.graph import Value
from effcc.ir.types import bool_, f16, f32, f64, i8, i32, i64, u8

Operands = tuple[Value, ...]

UNARY = {
    "sign": "Sign", "reciprocal": "Reciprocal", "sigmoid": "Sigmoid", "relu": "Relu", "softplus": "Softplus",
    "hard_sigmoid": "HardSigmoid", "hard_swish": "HardSwish", "leaky_relu": "LeakyRelu", "elu": "Elu", "selu": "Selu",
    "celu": "Celu", "thresholded_relu": "ThresholdedRelu", "softsign": "Softsign", "mish": "Mish", "gelu": "Gelu",
}  # fmt: skip
"""Operators of one operand whose attributes are named as ours."""
ONLY_F32 = frozenset(
    "softplus hard_sigmoid hard_swish leaky_relu elu selu celu thresholded_relu softsign mish gelu".split()
)
"""Those that ONNX Runtime computes in f32 alone: in f64 they are written as formulas."""


@exports(*UNARY)
def unary(w: Writer, op: Any, operands: Operands) -> Any:
    x = w.ref(operands[0])
    if not x.dtype.is_float and op.name != "sign" or x.dtype == f64 and op.name in ONLY_F32:
        return NotImplemented
    return w.scope.call(UNARY[op.name], x, **op.attrs)


@exports("silu")
def silu(w: Writer, op: Any, operands: Operands) -> Ref:
    x = w.ref(operands[0])
    return w.scope.call("Mul", x, w.scope.call("Sigmoid", x))


@exports("identity")
def identity(w: Writer, op: Any, operands: Operands) -> Ref:
    return w.ref(operands[0])


@exports("isinf")
def isinf(w: Writer, op: Any, operands: Operands) -> Ref:
    sides = {"detect_positive": int(op.positive), "detect_negative": int(op.negative)}
    return w.scope.call("IsInf", w.ref(operands[0]), out=bool_, **sides)


@exports("cast")
def casts(w: Writer, op: Any, operands: Operands) -> Any:
    x = w.ref(operands[0])
    if op.saturate and op.to.name.startswith("f8"):
        return w.scope.cast(x, op.to, saturate=True)
    return cast(w.scope, x, op.to) if not op.saturate else NotImplemented


@exports("clip")
def clip(w: Writer, op: Any, operands: Operands) -> Any:
    x, low, high = operands
    if low.shape or high.shape or x.dtype not in (f32, f16, f64, i32, i64, i8, u8):
        return NotImplemented
    return w.scope.call("Clip", *(w.ref(v) for v in operands))


@exports("prelu")
def prelu(w: Writer, op: Any, operands: Operands) -> Any:
    x, slope = operands
    fits = (
        x.dtype.is_float
        and x.dtype != f64
        and len(slope.shape) <= len(x.shape)
        and op.infer(x.type, slope.type) == x.type
    )
    return w.scope.call("PRelu", w.ref(x), w.ref(slope)) if fits else NotImplemented


# -- products ----------------------------------------------------------------------------------------------------------
@exports("matmul")
def matmul(w: Writer, op: Any, operands: Operands) -> Ref:
    e = w.scope
    a, b = (
        swapped(w, w.ref(v), len(v.shape)) if turn else w.ref(v)
        for v, turn in zip(operands, (op.transpose_a, op.transpose_b), strict=True)
    )
    if op.accumulate is None:
        return e.call("MatMul", a, b)
    if {a.dtype, b.dtype} <= {i8, u8} and op.accumulate == i32:
        return e.node("MatMulInteger", [a, b], [i32])[0]
    return e.call("MatMul", e.cast(a, op.accumulate), e.cast(b, op.accumulate))


def swapped(w: Writer, x: Ref, rank: int) -> Ref:
    """The last two axes exchanged."""
    return w.scope.call("Transpose", x, perm=[*range(rank - 2), rank - 1, rank - 2])


# -- reductions --------------------------------------------------------------------------------------------------------
REDUCTIONS = {"sum": "ReduceSum", "prod": "ReduceProd", "mean": "ReduceMean", "amax": "ReduceMax", "amin": "ReduceMin",
              "any": "ReduceMax", "all": "ReduceMin"}  # fmt: skip


@exports(*REDUCTIONS)
def reduction(w: Writer, op: Any, operands: Operands) -> Any:
    (x,) = operands
    if not op.axes:
        return w.ref(x)
    if op.name in ("amax", "amin") and any(may_be_zero(x.shape[a]) for a in op.axes):
        x = guarded(w, op, x)
    axes = w.scope.ints(*op.axes)
    return w.scope.call(REDUCTIONS[op.name], w.ref(x), axes, data=1, keepdims=int(op.keepdims))


def may_be_zero(d: Dim) -> bool:
    from effcc.ir.dims import bounds

    low = bounds(d)[0]
    return low is None or low <= 0


def guarded(w: Writer, op: Any, x: Value) -> Value:
    """x with the neutral element in front, on one of the axes that fold: for what may be empty."""
    axis = next(a for a in op.axes if may_be_zero(x.shape[a]))
    neutral = w.const(op.identity(x.dtype), x.dtype)
    for a in op.axes:
        if a != axis and may_be_zero(x.shape[a]):
            x = w.concat(w.broadcast_to(neutral, shape=_one(x.shape, a)), x, axis=a)
    return w.concat(w.broadcast_to(neutral, shape=_one(x.shape, axis)), x, axis=axis)


def _one(shape: tuple[Dim, ...], axis: int) -> tuple[Dim, ...]:
    return tuple(1 if k == axis else d for k, d in enumerate(shape))


@exports("argmax", "argmin")
def position(w: Writer, op: Any, operands: Operands) -> Ref:
    """NaN, which ONNX leaves open, is looked for first."""
    e, x = w.scope, w.ref(operands[0])
    facts = {"axis": op.axis, "keepdims": int(op.keepdims), "select_last_index": int(op.select_last)}
    name = "ArgMax" if op.name == "argmax" else "ArgMin"
    best = e.call(name, x, out=i64, **facts)
    if not x.dtype.is_float:
        return best
    nan = e.cast(e.node("IsNaN", [x if x.dtype.bits >= 16 else e.cast(x, f32)], [bool_])[0], i32)
    where = e.node("ArgMax", [nan], [i64], **facts)[0]
    found = e.node("ReduceMax", [nan, e.ints(op.axis)], [i32], keepdims=int(op.keepdims))[0]
    return e.call("Where", e.cast(found, bool_), where, best)


@exports("cumsum")
def cumsum(w: Writer, op: Any, operands: Operands) -> Ref:
    axis = w.scope.number(op.axis, i64)
    return w.scope.call(
        "CumSum", w.ref(operands[0]), axis, data=1, exclusive=int(op.exclusive), reverse=int(op.reverse)
    )


# -- quantization ------------------------------------------------------------------------------------------------------
@exports("quantize_linear")
def quantize(w: Writer, op: Any, operands: Operands) -> Any:
    e = w.scope
    x, scale, *zero = (w.ref(v) for v in operands)
    if x.dtype == f64 or op.dtype.name == "f4" or op.dtype.name == "u1":
        return NotImplemented
    x, scale = e.cast(x, f32), e.cast(scale, f32)
    vector = len(operands[1].shape)
    facts: dict[str, Any] = {
        "axis": op.axis if vector else None,
        "block_size": op.block_size or None if vector else None,
    }
    if op.dtype.name.startswith("f8"):
        facts["saturate"] = int(op.saturate)
    if not zero:
        facts["output_dtype"] = onnx_dtype(op.dtype)
    return e.node("QuantizeLinear", [x, scale, *zero], [op.dtype], **facts)[0]


@exports("dequantize_linear")
def dequantize(w: Writer, op: Any, operands: Operands) -> Any:
    e = w.scope
    x, scale, *zero = (w.ref(v) for v in operands)
    if scale.dtype == f64 or x.dtype.name in ("f4", "u1") or zero and (x.dtype == i32 or x.dtype.name.startswith("f8")):
        return NotImplemented
    out = op.dtype or scale.dtype
    vector = len(operands[1].shape)
    facts = {"axis": op.axis if vector else None, "block_size": op.block_size or None if vector else None}
    return e.cast(e.node("DequantizeLinear", [x, e.cast(scale, f32), *zero], [f32], **facts)[0], out)
