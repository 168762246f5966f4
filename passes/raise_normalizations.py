"""Raising softmax, layer norm, RMS norm and group norm, with their scale and bias."""

from __future__ import annotations

from typing import Any

import numpy as np

from effcc.ir.dims import product
from effcc.passes.raise_activations import Bounded
from effcc.rewrite import Rule


def trailing_axis(axes: tuple[int, ...], rank: int) -> int | None:
    """The first axis, where axes are all from there to the end."""
    return axes[0] if axes and axes == tuple(range(axes[0], rank)) else None


class Rsqrt(Bounded):
    """1 / sqrt(x) --> rsqrt(x)"""

    def pattern(self, p: Any, x: Any) -> Any:
        return p.either(p.reciprocal(p.sqrt(x)), p.div(p.number(1.0), p.sqrt(x)))

    def check(self, m: Any, ctx: Any) -> str | None:
        return None if m.x.dtype.is_float else "rsqrt is of floats"

    def rewrite(self, b: Any, m: Any) -> Any:
        return b.rsqrt(m.x)


def over_deviation(p: Any, x: Any, square: Any) -> Any:
    """x / sqrt(square + eps) as exporters write it."""
    shifted = p.add(square, p.number("eps"))
    deviation = p.either(p.sqrt(shifted), p.pow(shifted, p.number(0.5)))
    inverse = p.either(p.rsqrt(shifted), p.reciprocal(deviation), p.pow(shifted, p.number(-0.5)))
    return p.either(p.div(x, deviation), p.mul(x, inverse))


def mean_square(p: Any, x: Any) -> Any:
    square = p.either(p.mul(x, x), p.pow(x, p.number(2.0)))
    return p.mean(square, axes=p.any("axes"), keepdims=True)


def positive(eps: float) -> str | None:
    return None if 0 < eps < 1 else f"eps = {eps} is not a small positive number"


class LayerNorm(Bounded):
    """d = x - mean(x);  d / sqrt(mean(d²) + eps) --> layer_norm(x)     over trailing axes"""

    def pattern(self, p: Any, x: Any) -> Any:
        d = p.sub(x, p.mean(x, axes=p.any("axes"), keepdims=True))
        return over_deviation(p, d, mean_square(p, d))

    def check(self, m: Any, ctx: Any) -> str | None:
        if trailing_axis(m.axes, len(m.x.shape)) is None:
            return f"axes {m.axes} are not the last ones"
        return positive(m.number("eps"))

    def rewrite(self, b: Any, m: Any) -> Any:
        return b.layer_norm(m.x, axis=m.axes[0], eps=m.number("eps"))

    def example(self, d: Any, b: Any) -> Any:
        return normalized(d, b, centered=True)


class RmsNorm(Bounded):
    """x / sqrt(mean(x²) + eps) --> rms_norm(x)     over trailing axes"""

    def pattern(self, p: Any, x: Any) -> Any:
        return over_deviation(p, x, mean_square(p, x))

    def check(self, m: Any, ctx: Any) -> str | None:
        if trailing_axis(m.axes, len(m.x.shape)) is None:
            return f"axes {m.axes} are not the last ones"
        return positive(m.number("eps"))

    def rewrite(self, b: Any, m: Any) -> Any:
        return b.rms_norm(m.x, axis=m.axes[0], eps=m.number("eps"))

    def example(self, d: Any, b: Any) -> Any:
        return normalized(d, b, centered=False)


def normalized(d: Any, b: Any, centered: bool) -> Any:
    """One of the spellings, over trailing axes with small eps."""
    d.kinds = "f"
    d.base_shape = d.shape(1)
    x = b.input("x", d.like(None))
    rank = len(x.shape)
    axes = tuple(range(d.integer(0, rank - 1), rank)) if d.chance(90) else (0,)
    if centered:
        x = b.sub(x, b.mean(x, axes=axes, keepdims=True))
    square = b.mul(x, x) if d.boolean() else b.pow(x, b.const(2.0, x.dtype))
    shifted = b.add(b.mean(square, axes=axes, keepdims=True), b.const(d.choose((1e-3, 1e-5, 2.0)), x.dtype))
    kind = d.integer(0, 3)
    if kind == 0:
        return b.mul(x, b.rsqrt(shifted))
    root = b.sqrt(shifted) if kind < 3 else b.pow(shifted, b.const(0.5, x.dtype))
    return b.mul(b.reciprocal(root), x) if kind == 1 else b.div(x, root)


def parameter(b: Any, v: Any, x: Any, axis: int) -> Any | None:
    """A value that may serve as scale or bias over x's axes from `axis` on: leading axes of size 1 dropped."""
    shape = v.shape
    while len(shape) > len(x.shape) - axis and shape and shape[0] == 1:
        shape = shape[1:]
    tail = x.shape[axis:]
    if shape != tail[len(tail) - len(shape):] or not shape:
        return None
    return v if shape == v.shape else b.reshape(v, shape=shape)


def normalized_input(d: Any, b: Any) -> tuple[Any, int, Any]:
    """(something to normalize, an axis, a parameter with or without leading axes of size 1)"""
    d.kinds = "f"
    d.base_shape = d.shape(1)
    x = b.input("x", d.like(None))
    axis = d.integer(0, len(x.shape) - 1)
    ones = (1,) * d.integer(0, axis) if d.boolean() else ()
    shape = d.choose(((*ones, *x.shape[axis:]), (*ones, *x.shape[axis:]), x.shape[axis + 1 :]))
    return x, axis, b.input("p", x.tensor.with_shape(shape))


class ScaleOfNorm(Bounded):
    """layer_norm(x) * g --> layer_norm(x, g);  rms_norm(x) * g --> rms_norm(x, g)"""

    def pattern(self, p: Any, x: Any, g: Any) -> Any:
        attributes = {"axis": p.any("axis"), "eps": p.any("eps")}
        return p.mul(p.either(p.layer_norm(x, **attributes), p.rms_norm(x, **attributes)).bind("norm"), g)

    def rewrite(self, b: Any, m: Any) -> Any:
        scale = parameter(b, m.g, m.x, m.axis)
        if scale is None:
            return f"{m.g.type} is no scale of {m.x.type} from axis {m.axis} on"
        return b.add(m.workspace.producer(m.norm).op, m.x, scale)

    def example(self, d: Any, b: Any) -> Any:
        x, axis, g = normalized_input(d, b)
        norm = b.layer_norm(x, axis=axis) if d.boolean() else b.rms_norm(x, axis=axis)
        return b.mul(norm, g) if d.boolean() else b.mul(g, norm)


class BiasOfNorm(Bounded):
    """layer_norm(x, g) + c --> layer_norm(x, g, c)"""

    def pattern(self, p: Any, x: Any, g: Any, c: Any) -> Any:
        return p.add(p.layer_norm(x, g, axis=p.any("axis"), eps=p.any("eps")), c)

    def rewrite(self, b: Any, m: Any) -> Any:
        bias = parameter(b, m.c, m.x, m.axis)
        if bias is None:
            return f"{m.c.type} is no bias of {m.x.type} from axis {m.axis} on"
        return b.layer_norm(m.x, m.g, bias, axis=m.axis, eps=m.eps)

    def example(self, d: Any, b: Any) -> Any:
        x, axis, c = normalized_input(d, b)
        return b.add(b.layer_norm(x, b.input("g", x.tensor.with_shape(x.shape[axis:])), axis=axis), c)


class GroupNormOfReshape(Bounded):
    """reshape(group_norm(reshape(x, [N, G, ...]), groups=G), [N, C, ...]) --> group_norm(x, groups=G)

    ONNX has no group norm before opset 18: exporters write an instance norm of the groups."""

    def pattern(self, p: Any, x: Any) -> Any:
        inner = p.reshape(x, shape=p.any("grouped"))
        norm = p.group_norm(inner, p.constant("scale"), p.constant("bias"), groups=p.any("groups"), eps=p.any("eps"))
        return p.reshape(norm, shape=p.any("whole"))

    def check(self, m: Any, ctx: Any) -> str | None:
        before, inside = m.x.shape, m.grouped
        if len(before) < 2 or m.whole != before:
            return f"shape {m.whole} is not that of {m.x.type}"
        if inside[0] != before[0] or inside[1] != m.groups:
            return f"{m.groups} groups of {inside} are not the axes after the first"
        if not isinstance(before[1], int) or before[1] % m.groups:
            return f"{before[1]} channels do not divide into {m.groups} groups"
        return None

    def rewrite(self, b: Any, m: Any) -> Any:
        scale, bias = m.array("scale"), m.array("bias")
        members = m.x.shape[1] // m.groups
        affine = () if (scale == 1).all() and not bias.any() else (scale, bias)
        parameters = (b.const(a.repeat(members), v.dtype) for a, v in zip(affine, (m.scale, m.bias)))
        return b.group_norm(m.x, *parameters, groups=m.groups, eps=m.eps)

    def example(self, d: Any, b: Any) -> Any:
        d.kinds = "f"
        d.base_shape = (d.integer(1, 3), 4, *(d.integer(1, 3) for _ in range(d.integer(0, 2))))
        x = b.input("x", d.like(None))
        groups = d.choose((1, 2, 4))
        plain = d.boolean()
        parameters = (b.const(np.full(groups, one) if plain else np.arange(groups) + one, x.dtype) for one in (1, 0))
        grouped = b.reshape(x, shape=(x.shape[0], groups, product(x.shape[1:]) // groups))
        return b.reshape(b.group_norm(grouped, *parameters, groups=groups), shape=x.shape)


def channel_parameter(b: Any, v: Any, x: Any) -> Any | None:
    """A value that may serve as scale or bias of x's channels, [C, 1...] or [1, C, 1...], as [C]."""
    shape = v.shape[1:] if len(v.shape) == len(x.shape) and v.shape[0] == 1 else v.shape
    if shape != (x.shape[1], *(1,) * (len(x.shape) - 2)):
        return None
    return b.reshape(v, shape=shape[:1])


def channels(d: Any, b: Any) -> tuple[Any, Any]:
    """(something to normalize, a parameter of its channels, or of its last axis)"""
    d.kinds = "f"
    d.base_shape = (d.integer(1, 2), 4, *(d.integer(1, 3) for _ in range(d.integer(0, 2))))
    x = b.input("x", d.like(None))
    ones = (1,) * (len(x.shape) - 2)
    shape = d.choose(((4, *ones), (1, 4, *ones), x.shape[-1:]))
    return x, b.input("p", x.tensor.with_shape(shape))


class ScaleOfGroupNorm(Bounded):
    """group_norm(x) * g --> group_norm(x, g)"""

    def pattern(self, p: Any, x: Any, g: Any) -> Any:
        return p.mul(p.group_norm(x, groups=p.any("groups"), eps=p.any("eps")), g)

    def rewrite(self, b: Any, m: Any) -> Any:
        scale = channel_parameter(b, m.g, m.x)
        if scale is None:
            return f"{m.g.type} is no scale of the channels of {m.x.type}"
        return b.group_norm(m.x, scale, groups=m.groups, eps=m.eps)

    def example(self, d: Any, b: Any) -> Any:
        x, g = channels(d, b)
        return b.mul(b.group_norm(x, groups=d.choose((1, 2, 4))), g)


class BiasOfGroupNorm(Bounded):
    """group_norm(x, g) + c --> group_norm(x, g, c)"""

    def pattern(self, p: Any, x: Any, g: Any, c: Any) -> Any:
        return p.add(p.group_norm(x, g, groups=p.any("groups"), eps=p.any("eps")), c)

    def rewrite(self, b: Any, m: Any) -> Any:
        bias = channel_parameter(b, m.c, m.x)
        if bias is None:
            return f"{m.c.type} is no bias of the channels of {m.x.type}"
        return b.group_norm(m.x, m.g, bias, groups=m.groups, eps=m.eps)

    def example(self, d: Any, b: Any) -> Any:
        x, c = channels(d, b)
        g = b.input("g", x.tensor.with_shape(x.shape[1:2]))
        return b.add(b.group_norm(x, g, groups=d.choose((1, 2, 4))), c)


class Softmax(Bounded):
    """e = exp(x - max(x));  e / sum(e) --> softmax(x)"""

    def pattern(self, p: Any, x: Any) -> Any:
        only = p.any("axes", where=lambda axes: len(axes) == 1)
        e = p.exp(p.sub(x, p.amax(x, axes=only, keepdims=True)))
        total = p.sum(e, axes=only, keepdims=True)
        return p.either(p.div(e, total), p.mul(e, p.reciprocal(total)))

    def rewrite(self, b: Any, m: Any) -> Any:
        return b.softmax(m.x, axis=m.axes[0])


class LogSoftmax(Bounded):
    """log(softmax(x)) --> log_softmax(x)"""

    def pattern(self, p: Any, x: Any) -> Any:
        return p.log(p.softmax(x, axis=p.any("axis")))

    def rewrite(self, b: Any, m: Any) -> Any:
        return b.log_softmax(m.x, axis=m.axis)


NORMALIZATION_RULES: tuple[Rule, ...] = (
    Rsqrt(), LayerNorm(), RmsNorm(), ScaleOfNorm(), BiasOfNorm(), GroupNormOfReshape(), ScaleOfGroupNorm(),
    BiasOfGroupNorm(), Softmax(), LogSoftmax(),
)
