"""Normalizations, softmax, attention and rotary embedding as ONNX operators, where these mean the same."""

from __future__ import annotations

from typing import Any

from effcc.backends.onnx.arithmetic import Operands, may_be_zero
from effcc.backends.onnx.emit import Ref
from effcc.backends.onnx.export import Writer, exports
from effcc.ir.graph import Value
from effcc.ir.types import f16, f32


def ones(w: Writer, x: Value, shape: tuple[Any, ...], number: float) -> Ref:
    return w.ref(w.broadcast_to(w.const(number, x.dtype), shape=shape))


@exports("softmax", "log_softmax")
def softmax(w: Writer, op: Any, operands: Operands) -> Ref:
    return w.scope.call("Softmax" if op.name == "softmax" else "LogSoftmax", w.ref(operands[0]), axis=op.axis)


def plain(x: Value, inner: tuple[Any, ...], given: list[Value]) -> bool:
    """Whether x is normalized over axes that are not empty, by parameters of just their shape. (ε is an f32 in ONNX:
    f64 is written out.)"""
    return (
        x.dtype in (f32, f16)
        and not any(map(may_be_zero, x.shape[len(x.shape) - len(inner) :]))
        and all(v.shape == inner and v.dtype == x.dtype for v in given)
    )


@exports("layer_norm")
def layer_norm(w: Writer, op: Any, operands: Operands) -> Any:
    x, *given = operands
    inner = x.shape[op.axis :]
    if not plain(x, inner, given):
        return NotImplemented
    refs = [w.ref(v) for v in given] or [ones(w, x, inner, 1.0)]
    return w.scope.call("LayerNormalization", w.ref(x), *refs, axis=op.axis, epsilon=op.eps)


@exports("rms_norm")
def rms_norm(w: Writer, op: Any, operands: Operands) -> Any:
    x, *given = operands
    inner = x.shape[op.axis :]
    if not plain(x, inner, given):
        return NotImplemented
    scale = w.ref(given[0]) if given else ones(w, x, inner, 1.0)
    return w.scope.call("RMSNormalization", w.ref(x), scale, axis=op.axis, epsilon=op.eps)


@exports("group_norm")
def group_norm(w: Writer, op: Any, operands: Operands) -> Any:
    x, given = operands[0], operands[1:]
    plain = len(x.shape) >= 3 and all(v.dtype == x.dtype for v in given)
    if x.dtype not in (f32, f16) or not plain or any(map(may_be_zero, x.shape)):
        return NotImplemented
    refs = [w.ref(v) for v in given]
    channels = x.shape[1:2]
    refs += [ones(w, x, channels, float(k == 0)) for k in range(len(refs), 2)]
    return w.scope.call("GroupNormalization", w.ref(x), *refs, num_groups=op.groups, epsilon=op.eps)


@exports("batch_norm")
def batch_norm(w: Writer, op: Any, operands: Operands) -> Any:
    if operands[0].dtype not in (f32, f16) or any(v.dtype != operands[0].dtype for v in operands):
        return NotImplemented
    return w.scope.call("BatchNormalization", *(w.ref(v) for v in operands), epsilon=op.eps)


@exports("attention")
def attention(w: Writer, op: Any, operands: Operands) -> Any:
    """ONNX Attention leaves open what a query gets that may attend to nothing: with a mask the op is decomposed."""
    q, k, *rest = operands
    empty = may_be_zero(k.shape[-2]) and not (k.shape[-2] == q.shape[-2])
    if q.dtype not in (f32, f16) or len(q.shape) != 4 or len(rest) > 1 or 0 in q.shape or empty:
        return NotImplemented
    facts = {"scale": op.factor(q.shape[-1]), "is_causal": int(op.causal), "softcap": op.softcap}
    return w.scope.call("Attention", *(w.ref(v) for v in operands), **facts)


@exports("rotary_embedding")
def rotary(w: Writer, op: Any, operands: Operands) -> Any:
    """As elementwise ops on halves: the angles may have any shape that broadcasts, which ONNX's operator lacks."""
    from effcc.ops.reduction import convert, widen

    x, cos, sin = operands
    *outer, size = x.shape
    half, wide = cos.shape[-1], widen(w, x)
    cos, sin = (convert(w, v, wide.dtype) for v in (cos, sin))

    def part(v: Value, start: Any, stop: Any) -> Value:
        lead = len(v.shape) - 1
        return w.slice(v, starts=(*(0,) * lead, start), stops=(*v.shape[:-1], stop), steps=(1,) * (lead + 1))

    turned, rest = part(wide, 0, half * 2), part(wide, half * 2, size)
    if op.interleaved:
        pairs = w.reshape(turned, shape=(*outer, half, 2))
        lanes = [part(pairs, k, k + 1) for k in range(2)]
        first, second = (w.reshape(v, shape=(*outer, half)) for v in lanes)
    else:
        first, second = part(turned, 0, half), part(turned, half, half * 2)
    one = w.sub(w.mul(first, cos), w.mul(second, sin))
    two = w.add(w.mul(second, cos), w.mul(first, sin))
    if op.interleaved:
        stacked = w.concat(*(w.reshape(v, shape=(*outer, half, 1)) for v in (one, two)), axis=len(outer) + 1)
        turned = w.reshape(stacked, shape=(*outer, half * 2))
    else:
        turned = w.concat(one, two, axis=len(outer))
    whole = turned if half * 2 == size else w.concat(turned, rest, axis=len(outer))
    return convert(w, whole, x.dtype)
