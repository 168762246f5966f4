"""Rules that move quantization up and dequantization down a graph, until only arithmetic stands between them.

quantize(view(x)) --> view(quantize(x))     view(dequantize(x)) --> dequantize(view(x))     also concat, gather, relu

So a kernel stores bytes and the next one reads them, and pairs that undo each other meet and cancel.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from effcc.ir.op import op_class
from effcc.ir.types import Tensor, f32, i8, u8
from effcc.rewrite import Item, Rule

LEAST_SCALE = 2.0**-120
"""Below it a scale's products are no normal numbers."""
DEQUANTIZED = ("reshape", "transpose", "slice", "max_pool")
"""Ops that give some of their operand's elements, whatever these stand for."""


def attributes(p: Any, op: str, prefix: str) -> dict[str, Any]:
    """Holes for all attributes of an op, by prefixed names."""
    return {f.name: p.any(f"{prefix}_{f.name}") for f in op_class(op).attributes()}


def quantize(p: Any, x: Any, prefix: str = "q") -> Any:
    """A pattern: x quantized; `m.<prefix>_parameters` are its scale and zero point."""
    return p.op("quantize_linear", x, p.rest(f"{prefix}_parameters"), **attributes(p, "quantize_linear", prefix))


def dequantize(p: Any, x: Any, prefix: str) -> Any:
    """A pattern: x dequantized."""
    return p.op("dequantize_linear", x, p.rest(f"{prefix}_parameters"), **attributes(p, "dequantize_linear", prefix))


@dataclass(frozen=True)
class Parameters:
    """Scale and zero point as arrays: one number each, or vectors along `axis`."""

    scale: Any
    zero: Any
    axis: int

    @property
    def of_tensor(self) -> bool:
        return self.scale.size == 1

    def along(self, rank: int) -> tuple[Any, Any]:
        """Shaped to broadcast against the quantized tensor."""
        shape = () if self.of_tensor else tuple(-1 if k == self.axis else 1 for k in range(rank))
        return self.scale.reshape(shape), self.zero.reshape(shape)


def parameters(m: Any, prefix: str) -> Parameters | str:
    """Those of a match; a reason where they are not known, or not of a kind that has integer arithmetic."""
    blobs = [m.constant(v) for v in getattr(m, f"{prefix}_parameters")]
    if any(b is None for b in blobs):
        return "scale or zero point are no constants"
    if getattr(m, f"{prefix}_block_size"):
        return "it is quantized by blocks"
    scale = blobs[0].array
    if blobs[0].type.dtype != f32 or not ((scale >= LEAST_SCALE) & np.isfinite(scale)).all():
        return "the scale is no normal positive f32"
    zero = blobs[1].array if len(blobs) > 1 else np.zeros(scale.shape, np.int64)
    return Parameters(scale, zero.astype(np.int64), getattr(m, f"{prefix}_axis"))


def to_integer(m: Any) -> str | None:
    return None if m.q_dtype.is_integer and 8 <= m.q_dtype.bits <= 16 else f"{m.q_dtype} is no integer dtype"


def by_tensor(m: Any, prefix: str) -> str | None:
    found = parameters(m, prefix)
    if isinstance(found, str):
        return found
    return None if found.of_tensor else "channels have scales of their own"


# -- quantization moves up -------------------------------------------------------------------------------------------
@dataclass(frozen=True, eq=False)
class QuantizeOfView(Rule):
    """quantize(view(x)) --> view(quantize(x))     likewise max_pool, which picks elements, and order is kept"""

    special_inputs = False

    op: str

    def pattern(self, p: Any, x: Any) -> Any:
        return quantize(p, p.op(self.op, x, **p.any_attributes(self.op)).bind("view"))

    def check(self, m: Any, ctx: Any) -> str | None:
        if self.op == "slice" and len(m.users(m.x)) > 1:
            return "the rest would be quantized for nothing"
        return to_integer(m) or by_tensor(m, "q")

    def rewrite(self, b: Any, m: Any) -> Any:
        view = m.workspace.producer(m.view).op
        return b.add(view, b.add(m.root.op, m.x, *m.q_parameters))

    def example(self, d: Any, b: Any) -> Any:
        x = b.input("x", Tensor(f32, (2, 3, 4, 6)))
        made = {
            "reshape": lambda: b.reshape(x, shape=(6, 24)),
            "transpose": lambda: b.transpose(x, perm=d.permutation(4)),
            "slice": lambda: b.slice(x, starts=(0, 1, 0, 0), stops=(2, 3, 4, d.integer(1, 6)), steps=(1, 1, 2, 1)),
            "broadcast_to": lambda: b.broadcast_to(x, shape=(d.integer(1, 3), *x.shape)),
            "max_pool": lambda: b.max_pool(
                x, kernel=(2, 2), strides=(1, 2), pads=(d.integer(0, 1), 0, 1, 0), dilations=(1, 1)),
        }  # fmt: skip
        return drawn_quantize(d, b, made[self.op]())

    @property
    def name(self) -> str:
        return f"quantize-of-{self.op.replace('_', '-')}"


class QuantizeOfConcat(Rule):
    """quantize(concat(x, y, ...)) --> concat(quantize(x), quantize(y), ...)"""

    special_inputs = False

    def pattern(self, p: Any) -> Any:
        return quantize(p, p.concat(p.rest("parts"), axis=p.any("axis")))

    def check(self, m: Any, ctx: Any) -> str | None:
        return to_integer(m) or by_tensor(m, "q")

    def rewrite(self, b: Any, m: Any) -> Any:
        return b.concat(*(b.add(m.root.op, v, *m.q_parameters) for v in m.parts), axis=m.axis)

    def example(self, d: Any, b: Any) -> Any:
        parts = [b.input(n, Tensor(f32, (2, d.integer(1, 3)))) for n in ("x", "y")]
        return drawn_quantize(d, b, b.concat(*parts, axis=1))


class QuantizeOfRelu(Rule):
    """quantize(relu(x)) --> quantize(x)     where the zero point is the least integer: what is less saturates there"""

    special_inputs = False

    def pattern(self, p: Any, x: Any) -> Any:
        return quantize(p, p.relu(x))

    def check(self, m: Any, ctx: Any) -> str | None:
        found = to_integer(m) or parameters(m, "q")
        if isinstance(found, str):
            return found
        return None if (found.zero == m.q_dtype.min).all() else "the zero point is not the least integer"

    def rewrite(self, b: Any, m: Any) -> Any:
        return b.add(m.root.op, m.x, *m.q_parameters)

    def example(self, d: Any, b: Any) -> Any:
        return drawn_quantize(d, b, b.relu(b.input("x", Tensor(f32, (3, d.integer(1, 5))))), least=True)


class QuantizeOfDequantize(Rule):
    """quantize(dequantize(q)) --> q     with one scale and zero point"""

    shares = True

    def pattern(self, p: Any, x: Any) -> Any:
        return quantize(p, dequantize(p, x, "x"))

    def check(self, m: Any, ctx: Any) -> str | None:
        inner, outer = parameters(m, "x"), to_integer(m) or parameters(m, "q")
        if isinstance(inner, str) or isinstance(outer, str):
            return inner if isinstance(inner, str) else str(outer)
        same = (inner.scale.shape == outer.scale.shape and (inner.scale == outer.scale).all()
                and (inner.zero == outer.zero).all() and (inner.of_tensor or inner.axis == outer.axis))  # fmt: skip
        if not same or m.x.dtype != m.q_dtype or m.x_dtype not in (None, f32):
            return "the scales, zero points or dtypes differ"
        return None if (inner.scale < 2.0**100).all() else "the scale is too large"

    def rewrite(self, b: Any, m: Any) -> Any:
        return m.x

    def example(self, d: Any, b: Any) -> Any:
        x = b.input("x", Tensor(d.choose((u8, i8)), (3, d.integer(1, 4))))
        scale, zero = b.const(np.float32(d.choose((1.0, 0.3, 7.7e-5)))), b.const(np.zeros((), x.dtype.numpy))
        real = b.dequantize_linear(x, scale, zero, axis=0)
        return b.quantize_linear(real, scale, zero, axis=0, dtype=x.dtype)


# -- dequantization moves down -----------------------------------------------------------------------------------------
@dataclass(frozen=True, eq=False)
class ViewOfDequantize(Rule):
    """view(dequantize(q)) --> dequantize(view(q))     likewise max_pool"""

    shares = True
    op: str

    def pattern(self, p: Any, x: Any) -> Any:
        return p.op(self.op, dequantize(p, x, "x"), **p.any_attributes(self.op))

    def check(self, m: Any, ctx: Any) -> str | None:
        if not m.x.dtype.is_integer or m.x.dtype.bits != 8:
            return f"it is {m.x.dtype}"
        if m.workspace.constant(m.x) is not None:
            return "it is a constant"
        if self.op == "max_pool" and m.root.op.may_see_padding_alone(m.x.tensor):
            return "the greatest of padding alone is -inf, which no byte is"
        return by_tensor(m, "x")

    def rewrite(self, b: Any, m: Any) -> Any:
        real = m.workspace.producer(m.root.operands[0]).op
        return b.add(real, b.add(m.root.op, m.x), *m.x_parameters)

    def example(self, d: Any, b: Any) -> Any:
        x = b.input("x", Tensor(d.choose((u8, i8)), (2, 3, 4, 4)))
        scale, zero = b.const(np.float32(0.5)), b.const(np.asarray(d.integer(0, 3), x.dtype.numpy))
        real = b.dequantize_linear(x, scale, zero, axis=0)
        return {
            "reshape": lambda: b.reshape(real, shape=(6, 16)),
            "transpose": lambda: b.transpose(real, perm=d.permutation(4)),
            "slice": lambda: b.slice(real, starts=(0, 1, 0, 0), stops=(2, 3, 4, 3), steps=(1, 1, 2, 1)),
            "max_pool": lambda: b.max_pool(
                real, kernel=(2, 2), strides=(1, 2), pads=(d.integer(0, 1), 0, 1, 0), dilations=(1, 1)),
        }[self.op]()  # fmt: skip

    @property
    def name(self) -> str:
        return f"{self.op.replace('_', '-')}-of-dequantize"


class GatherOfDequantize(Rule):
    """gather(dequantize(q), i) --> dequantize(gather(q, i))     of tables too: only what is looked up is dequantized"""

    shares = True

    def pattern(self, p: Any, x: Any, i: Any) -> Any:
        return p.gather(dequantize(p, x, "x"), i, **p.any_attributes("gather"))

    def check(self, m: Any, ctx: Any) -> str | None:
        return by_tensor(m, "x") if m.x.dtype.name in ("u8", "i8") else f"it is {m.x.dtype}"

    def rewrite(self, b: Any, m: Any) -> Any:
        real = m.workspace.producer(m.root.operands[0]).op
        return b.add(real, b.add(m.root.op, m.x, m.i), *m.x_parameters)

    def example(self, d: Any, b: Any) -> Any:
        x = b.input("x", Tensor(d.choose((u8, i8)), (d.integer(2, 5), 3)))
        scale, zero = b.const(np.float32(0.5)), b.const(np.asarray(d.integer(0, 3), x.dtype.numpy))
        return b.gather(b.dequantize_linear(x, scale, zero, axis=0), b.const(np.array([1, 0, 1])), axis=d.integer(0, 1))


class ConcatOfDequantize(Rule):
    """concat(dequantize(p), dequantize(q), ...) --> dequantize(concat(p, q, ...))     with one scale and zero point"""

    shares = True

    def pattern(self, p: Any) -> Any:
        return p.concat(p.rest("parts"), axis=p.any("axis"))

    def rewrite(self, b: Any, m: Any) -> Any:
        items = [m.workspace.producer(v) for v in m.parts]
        if any(i is None or i.op.name != "dequantize_linear" for i in items):
            return "an operand is not dequantized"
        first: Item = items[0]
        alike = all(i.op == first.op and _same(m, i.operands[1:], first.operands[1:]) for i in items)
        if not alike or any(i.operands[0].dtype != first.operands[0].dtype for i in items):
            return "the operands have several scales"
        blobs = [m.constant(v) for v in first.operands[1:]]
        if any(blob is None or blob.array.size != 1 for blob in blobs):
            return "the scale is no constant number"
        return b.add(first.op, b.concat(*(i.operands[0] for i in items), axis=m.axis), *first.operands[1:])

    def example(self, d: Any, b: Any) -> Any:
        parts = [b.input(n, Tensor(u8, (2, d.integer(1, 3)))) for n in ("x", "y")]
        scale, zero = b.const(np.float32(0.5)), b.const(np.uint8(d.integer(0, 3)))
        scales = (scale, b.const(np.float32(0.5 if d.boolean() else 0.25)) if d.chance(30) else scale)
        return b.concat(*(b.dequantize_linear(v, s, zero, axis=0) for v, s in zip(parts, scales)), axis=1)


def _same(m: Any, a: tuple, b: tuple) -> bool:
    """Whether operands are the same values, or equal constants."""
    def equal(x: Any, y: Any) -> bool:
        p, q = m.constant(x), m.constant(y)
        return x is y or (p is not None and q is not None and p == q)

    return len(a) == len(b) and all(map(equal, a, b))


def drawn_quantize(d: Any, b: Any, x: Any, least: bool = False) -> Any:
    dtype = d.choose((u8, i8))
    zero = dtype.min if least else d.integer(0, 20)
    scale = b.const(np.float32(d.choose((1.0, 0.5, 0.01))))
    return b.quantize_linear(x, scale, b.const(np.asarray(zero, dtype.numpy)), axis=0, dtype=dtype)
