"""Transposed convolutions as plain ones, which have a fast kernel.

conv_transpose(x, w) {strides=kernel} --> blocks of a 1x1 conv: each input pixel makes its own block of output
conv_transpose(x, w) {strides=1}      --> conv(x, w turned around) {pads=dilation·(kernel-1) - pads}
"""

from __future__ import annotations

import math
from typing import Any

from effcc.ir.types import Tensor, f32
from effcc.passes.channels_last import inward, outward
from effcc.passes.fold_scales import finite
from effcc.pipeline import RulePass
from effcc.rewrite import Rule


class Blocks(Rule):
    """conv_transpose(x, w) {strides=kernel, pads=0} --> reshape(transpose(conv(x, w as kernel·O features)))"""

    def pattern(self, p: Any) -> Any:
        return p.conv_transpose(p.rest("parts"), **p.any_attributes("conv_transpose"))

    def check(self, m: Any, ctx: Any) -> str | None:
        op, kernel = m.root.op, m.parts[1].shape[2:]
        if tuple(op.strides) != tuple(kernel):
            return "windows overlap or leave gaps"
        if any(op.pads) or any(op.output_pads) or op.groups != 1:
            return "it has pads or groups"
        return None

    def rewrite(self, b: Any, m: Any) -> Any:
        x, w, *bias = m.parts
        rank, n = x.tensor.rank, x.tensor.rank - 2
        channels, features, *kernel = w.shape
        taps = 1
        for k in kernel:
            taps *= k
        weights = b.reshape(b.transpose(w, perm=(*range(2, rank), 1, 0)), shape=(taps * features, channels, *(1,) * n))
        shift = (b.reshape(b.broadcast_to(v, shape=(taps, features)), shape=(taps * features,)) for v in bias)
        y = b.conv(b.transpose(x, perm=inward(rank)), weights, *shift, strides=(1,) * n, pads=(0,) * 2 * n,
                   dilations=(1,) * n, layout="nhwc")
        batch, *space = x.shape[:1] + x.shape[2:]
        y = b.reshape(y, shape=(batch, *space, *kernel, features))
        y = b.transpose(y, perm=(0, *(a for i in range(n) for a in (1 + i, 1 + n + i)), 1 + 2 * n))
        y = b.reshape(y, shape=(batch, *(d * k for d, k in zip(space, kernel, strict=True)), features))
        return b.transpose(y, perm=outward(rank))

    def example(self, d: Any, b: Any) -> Any:
        return drawn(d, b, blocks=d.chance(80))


class Turned(Rule):
    """conv_transpose(x, w) {strides=1} --> conv(x, flip(transpose(w)))

    The padding multiplies weights by zero, so for infinite ones NaN stands where nothing was added before: constants
    are looked at.
    """

    special_inputs = False

    def pattern(self, p: Any) -> Any:
        return p.conv_transpose(p.rest("parts"), **p.any_attributes("conv_transpose"))

    def check(self, m: Any, ctx: Any) -> str | None:
        op = m.root.op
        if any(s != 1 for s in op.strides):
            return "it has strides"
        if not all(isinstance(k, int) for k in m.parts[1].shape[2:]):
            return "the size of its windows is symbolic"
        weights = m.workspace.constant(m.parts[1])
        if weights is not None and not finite(weights.array):
            return "the weights are not finite"
        return "it has groups" if op.groups != 1 else None

    def rewrite(self, b: Any, m: Any) -> Any:
        op, (x, w, *bias) = m.root.op, m.parts
        n = x.tensor.rank - 2
        _, _, *kernel = w.shape
        reach = [d * (k - 1) for d, k in zip(op.dilations, kernel, strict=True)]
        before = tuple(r - p for r, p in zip(reach, op.pads[:n], strict=True))
        after = tuple(r - p + more for r, p, more in zip(reach, op.pads[n:], op.output_pads, strict=True))
        if min((*before, *after), default=0) < 0:
            return "its pads crop the result"
        turned = b.slice(w, starts=(0, 0, *(k - 1 for k in kernel)), stops=(*w.shape[:2], *(-1,) * n),
                         steps=(1, 1, *(-1,) * n))
        weights = b.transpose(turned, perm=(1, 0, *range(2, n + 2)))
        return b.conv(x, weights, *bias, strides=op.strides, pads=(*before, *after), dilations=op.dilations)

    def example(self, d: Any, b: Any) -> Any:
        return drawn(d, b, blocks=d.chance(20))


def drawn(d: Any, b: Any, blocks: bool) -> Any:
    """A transposed convolution in one or two dimensions, each pixel a block of its own, or windows that overlap."""
    n, channels, features = d.integer(1, 2), d.integer(1, 3), d.integer(1, 3)
    x = b.input("x", Tensor(f32, (d.integer(1, 2), channels, *(d.integer(1, 4) for _ in range(n)))))
    kernel = tuple(d.integer(1, 3) for _ in range(n))
    weights = Tensor(f32, (channels, features, *kernel))
    w = b.const(d.blob(weights, d.choose((1.0, math.inf)))) if d.chance(20) else b.input("w", weights)
    bias = [b.input("bias", Tensor(f32, (features,)))] if d.boolean() else []
    dilations = (1,) * n if blocks else tuple(d.integer(1, 2) for _ in range(n))
    pads = tuple(0 if blocks else d.integer(0, 1) for _ in range(2 * n))
    strides = kernel if blocks else (1,) * n
    none = (0,) * n
    return b.conv_transpose(x, w, *bias, strides=strides, pads=pads, dilations=dilations, output_pads=none, groups=1)


class TransposedConvs(RulePass):
    """Turn transposed convolutions into plain ones where that costs no more arithmetic."""

    name = "transposed-convs"
    category = "lower"
    special_inputs = False
    contract = "bounded"
    rules = (Blocks(), Turned())
