"""Scales and shifts by constants disappear into the weights of convolutions and matmuls.

Weights are multiplied in f64 and rounded once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from effcc.analysis.jumps import reaches_jump
from effcc.ir.dims import Dim
from effcc.ir.op import op_class
from effcc.ir.types import Tensor, f32
from effcc.passes.raise_activations import Bounded
from effcc.pipeline import RulePass
from effcc.rewrite import Rule

SHARED_BYTES = 1 << 16
"""A weight with other readers is copied only up to this size."""
MOST_OF_RANGE = 2.0**-10
"""Weights that a scale makes larger stay below this share of their dtype's range: sums of products stay within it."""


MATRIX = 130
"""As many rows and columns of f32 are more than that."""


def wide(array: Any) -> Any:
    return array.astype("f8")


def narrow(b: Any, array: Any, like: Any) -> Any:
    """A constant of `like`'s dtype, or None where rounding overflows."""
    import numpy as np

    with np.errstate(over="ignore"):
        rounded = array.astype(like.dtype.numpy)
    return b.const(rounded, like.dtype) if np.isfinite(rounded.astype("f8")).all() else None


def product(b: Any, w: Any, c: Any, like: Any, summed: tuple[int, ...] = ()) -> Any:
    """The constant w * c, or None where it, or parts of a sum along the axes `summed`, may overflow, or where it loses
    digits: where all those of a sum lie below the normal numbers. One that would vanish becomes the least number:
    infinity times it stays infinite."""
    import ml_dtypes
    import numpy as np

    info = ml_dtypes.finfo(like.dtype.numpy)
    with np.errstate(all="ignore"):
        joined = wide(w) * wide(c)
    some = np.broadcast_to((w != 0) & (c != 0), joined.shape)
    reach = abs(joined).max(axis=summed, initial=0.0) if summed else abs(joined)
    if (some.any(axis=summed) & (reach < float(info.smallest_normal))).any():
        return None
    if summed and joined.size and abs(joined).max() > max(MOST_OF_RANGE * float(info.max), abs(wide(w)).max()):
        return None
    vanished = some & (abs(joined) < float(info.smallest_subnormal))
    return narrow(b, np.where(vanished, np.copysign(float(info.smallest_subnormal), joined), joined), like)


def finite(*arrays: Any) -> bool:
    import numpy as np

    return all(np.isfinite(a.astype("f8")).all() for a in arrays)


def vector(array: Any, rank: int, axis: int, size: Dim) -> Any | None:
    """A constant that varies along one axis only of a rank-`rank` result, as a vector of `size`; else None."""
    import numpy as np

    if not isinstance(size, int) or array.ndim > rank:
        return None
    shape = (1,) * (rank - array.ndim) + array.shape
    if any(d != 1 for k, d in enumerate(shape) if k != axis) or shape[axis] not in (1, size):
        return None
    return np.broadcast_to(wide(array).reshape(-1), (size,))


def copies_too_much(m: Any, name: str) -> str | None:
    value = getattr(m, name)
    if len(m.users(value)) > 1 and m.array(name).nbytes > SHARED_BYTES:
        return "the weight is shared: scaling would copy it"
    return None


class BatchNorm(Bounded):
    """batch_norm(x, constants) --> x * f + s     with f = scale / √(var + eps), s = bias - mean * f"""

    def pattern(self, p: Any, x: Any) -> Any:
        parameters = (p.constant(name) for name in ("scale", "bias", "mean", "var"))
        return p.batch_norm(x, *parameters, eps=p.any("eps"))

    def rewrite(self, b: Any, m: Any) -> Any:
        import numpy as np

        scale, bias, mean, var = (wide(m.array(n)) for n in ("scale", "bias", "mean", "var"))
        with np.errstate(all="ignore"):
            factor = scale / np.sqrt(var + m.eps)
        if not finite(factor, bias, mean):
            return "the statistics are not finite"
        column = (-1, *[1] * (len(m.x.shape) - 2))
        factors = narrow(b, factor.reshape(column), m.x)
        if factors is None:
            return "the factors overflow"
        rounded = wide(factor.astype(m.x.dtype.numpy))  # its rounding then errs around the mean: not always to one side
        shifts = narrow(b, (bias - mean * rounded).reshape(column), m.x)
        if shifts is None:
            return "the shifts overflow"
        return b.add(b.mul(m.x, factors), shifts)

    def example(self, d: Any, b: Any) -> Any:
        x = b.input("x", Tensor(f32, (2, d.integer(1, 3), *d.choose(((), (2,), (2, 1))))))
        large = d.chance(20)
        numbers = (LARGE, None, None, 0.0) if large else (None, None, None, d.choose((1.0, 0.0, 2.0)))
        return b.batch_norm(x, *(b.const(d.blob(Tensor(f32, x.shape[1:2]), n)) for n in numbers))


class SubConstant(Rule):
    """x - c --> x + (-c)"""

    def pattern(self, p: Any, x: Any) -> Any:
        return p.sub(x, p.constant("c"))

    def check(self, m: Any, ctx: Any) -> str | None:
        return None if m.x.dtype.is_float else "only floats have both signs of everything"

    def rewrite(self, b: Any, m: Any) -> Any:
        return b.add(m.x, b.const(-m.array("c"), m.x.dtype))


class DivConstant(Bounded):
    """x / c --> x * (1 / c)     where nobody asks whether x is a multiple of c"""

    def pattern(self, p: Any, x: Any) -> Any:
        return p.div(x, p.constant("c"))

    def check(self, m: Any, ctx: Any) -> str | None:
        if not m.x.dtype.is_float or m.x.dtype.bits < 16:
            return "only wide floats have reciprocals"
        size = abs(wide(m.array("c")))
        if not ((size > 1e-30) & (size < 1e30)).all():
            return "a divisor is zero, huge or tiny"
        return "its last bit decides" if reaches_jump(m.root.result, m.users) else None

    def rewrite(self, b: Any, m: Any) -> Any:
        import numpy as np

        inverse = product(b, 1.0 / wide(m.array("c")), np.ones(()), m.x)
        return "the reciprocal is no normal number" if inverse is None else b.mul(m.x, inverse)


class AddZero(Bounded):
    """x + 0 --> x     (the sign of a zero is not kept)"""

    shares = True

    def pattern(self, p: Any, x: Any) -> Any:
        return p.add(x, p.number(0.0))

    def rewrite(self, b: Any, m: Any) -> Any:
        return m.x if m.x.type == m.root.result.type else "zero broadcasts x"


@dataclass(frozen=True, eq=False)
class TwoConstants(Bounded):
    """(x + c) + d --> x + (c + d);  (x * c) * d --> x * (c * d)"""

    op: str

    def pattern(self, p: Any, x: Any) -> Any:
        return p.op(self.op, p.op(self.op, x, p.constant("c")), p.constant("d"))

    def check(self, m: Any, ctx: Any) -> str | None:
        if not m.x.dtype.is_float:
            return None
        return None if finite(m.array("c"), m.array("d")) else "a constant is not finite"

    def rewrite(self, b: Any, m: Any) -> Any:
        import numpy as np

        c, d = m.array("c"), m.array("d")
        both = max(c.nbytes, d.nbytes)
        if m.x.dtype.is_float:
            c, d = wide(c), wide(d)
        with np.errstate(all="ignore"):
            joined = c + d if self.op == "add" else c * d
        if joined.size * m.x.dtype.bytes > max(both, SHARED_BYTES):
            return "the joined constant would be larger than both"
        if not m.x.dtype.is_float:
            return b.add(m.root.op, m.x, b.const(joined.astype(m.x.dtype.numpy), m.x.dtype))
        constant = narrow(b, joined, m.x) if self.op == "add" else product(b, c, d, m.x)
        if constant is None:
            return "the joined constant overflows, or loses digits"
        return b.add(m.root.op, m.x, constant)

    def example(self, d: Any, b: Any) -> Any:
        """Constants alike, or such that only together they are a large matrix."""
        d.kinds = "fi"
        dtype, n = d.dtype(), d.choose((3, 3, 3, MATRIX))
        shapes = d.choose((((n, 1), (1, n)), ((3,), (3,)), ((), (3,)), ((2, 3), ())))
        x = b.input("x", Tensor(dtype, d.choose(((), shapes[0]))))
        for shape in shapes:
            c = b.const(d.blob(Tensor(dtype, shape)))
            x = b.add(op_class(self.op)(), *((x, c) if d.boolean() else (c, x)))
        return x

    @property
    def name(self) -> str:
        return f"two-constants-{self.op}"


LARGE = 3e38
"""Times or plus itself it is infinite."""


def drawn_conv(d: Any, b: Any, has_bias: bool, scaled: bool, transposed: bool = False) -> tuple[Any, Any]:
    """A convolution, and a constant that scales or shifts it: along its channels, or not; now and then too far."""
    number = LARGE if d.chance(20) else None
    x, features = b.input("x", Tensor(f32, (1, d.integer(1, 2), 3))), d.integer(1, 3)
    shape = (x.shape[1], features, 2) if transposed else (features, x.shape[1], 2)
    w = b.const(d.blob(Tensor(f32, shape), number if scaled else None))
    bias = [b.const(d.blob(Tensor(f32, (features,)), number))] if has_bias else []
    c = b.const(d.blob(Tensor(f32, d.choose(((), (features, 1), (1, features, 1), (2,)))), number))
    geometry = {"strides": (1,), "pads": (0, d.integer(0, 1)), "dilations": (1,)}
    if transposed:
        return b.conv_transpose(x, w, *bias, **geometry, output_pads=(0,)), c
    return b.conv(x, w, *bias, **geometry), c


def conv(p: Any, *operands: Any, transposed: bool = False) -> Any:
    if transposed:
        attributes = ("strides", "pads", "output_pads", "dilations")
        return p.conv_transpose(*operands, groups=1, **{a: p.any(a) for a in attributes})
    attributes = ("strides", "pads", "dilations", "groups", "accumulate")
    return p.conv(*operands, layout="nchw", **{a: p.any(a) for a in attributes})


@dataclass(frozen=True, eq=False)
class ConvThenScale(Bounded):
    """conv(x, w, bias) * c --> conv(x, w * c, bias * c)     for constants; c varies along channels at most

    Likewise conv_transpose."""

    has_bias: bool
    transposed: bool = False

    def pattern(self, p: Any, x: Any) -> Any:
        operands = (x, p.constant("w"), p.constant("bias")) if self.has_bias else (x, p.constant("w"))
        return p.mul(conv(p, *operands, transposed=self.transposed).bind("y"), p.constant("c"))

    def check(self, m: Any, ctx: Any) -> str | None:
        if not m.y.dtype.is_float or not finite(m.array("c"), m.array("w")):
            return "the weights are not finite floats"
        return copies_too_much(m, "w")

    def rewrite(self, b: Any, m: Any) -> Any:
        rank = len(m.y.shape)
        c = vector(m.array("c"), rank, 1, m.y.shape[1])
        if c is None:
            return "the factor varies along other axes than channels"
        at = 1 if self.transposed else 0  # the weights' axis of output channels
        along = [-1 if k == at else 1 for k in range(rank)]
        w = product(b, m.array("w"), c.reshape(along), m.y, tuple(k for k in range(rank) if k != at))
        operands = [m.x, w]
        if self.has_bias:
            operands.append(product(b, m.array("bias"), c, m.y))
        if any(o is None for o in operands):
            return "the scaled weights overflow, or lose digits"
        return b.add(m.workspace.producer(m.y).op, *operands)

    def example(self, d: Any, b: Any) -> Any:
        return b.mul(*drawn_conv(d, b, self.has_bias, scaled=True, transposed=self.transposed))


@dataclass(frozen=True, eq=False)
class ConvThenShift(Bounded):
    """conv(x, w, bias) + c --> conv(x, w, bias + c)     for constants; c varies along channels at most

    Likewise conv_transpose."""

    has_bias: bool
    transposed: bool = False

    def pattern(self, p: Any, x: Any, w: Any) -> Any:
        operands = (x, w, p.constant("bias")) if self.has_bias else (x, w)
        return p.add(conv(p, *operands, transposed=self.transposed).bind("y"), p.constant("c"))

    def rewrite(self, b: Any, m: Any) -> Any:
        c = vector(m.array("c"), len(m.y.shape), 1, m.y.shape[1]) if m.y.dtype.is_float else None
        if c is None:
            return "the shift varies along other axes than channels"
        bias = narrow(b, c + (wide(m.array("bias")) if self.has_bias else 0.0), m.y)
        if bias is None:
            return "the bias is not finite"
        return b.add(m.workspace.producer(m.y).op, m.x, m.w, bias)

    def example(self, d: Any, b: Any) -> Any:
        return b.add(*drawn_conv(d, b, self.has_bias, scaled=False, transposed=self.transposed))


class ScaleThenConv(Bounded):
    """conv(x * c, w) --> conv(x, w * c)     for constants; c varies along channels at most (padding stays zero)"""

    def pattern(self, p: Any, x: Any) -> Any:
        return conv(p, p.mul(x, p.constant("c")), p.constant("w"), p.rest("bias"))

    def check(self, m: Any, ctx: Any) -> str | None:
        if not m.x.dtype.is_float or not finite(m.array("c"), m.array("w")):
            return "the weights are not finite floats"
        if m.x.type != m.root.operands[0].type:
            return "the factor broadcasts x"
        return copies_too_much(m, "w")

    def rewrite(self, b: Any, m: Any) -> Any:
        rank, w = len(m.x.shape), m.array("w")
        c = vector(m.array("c"), rank, 1, m.x.shape[1])
        if c is None:
            return "the factor varies along other axes than channels"
        out, inner = w.shape[:2]
        by_output = c.reshape(m.groups, inner).repeat(out // m.groups, axis=0).reshape(out, inner, *[1] * (rank - 2))
        weights = product(b, w, by_output, m.x, tuple(range(1, rank)))
        if weights is None:
            return "the scaled weights overflow, or lose digits"
        return b.add(m.root.op, m.x, weights, *m.bias)

    def example(self, d: Any, b: Any) -> Any:
        groups, per_group = d.integer(1, 2), d.integer(1, 3)
        x = b.input("x", Tensor(f32, (d.integer(1, 2), groups * per_group, 4, 3)))
        c = b.const(
            d.blob(Tensor(f32, d.choose(((groups * per_group, 1, 1), (), (1, groups * per_group, 1, 1), (3,)))))
        )
        w = b.const(d.blob(Tensor(f32, (groups * d.integer(1, 2), per_group, 2, 1))))
        pads = (d.integer(0, 1),) * 4
        return b.conv(b.mul(x, c), w, strides=(1, 1), pads=pads, dilations=(1, 1), groups=groups)


class MatmulThenScale(Bounded):
    """(x @ w) * c --> x @ (w * c)     for constants; c varies along columns at most"""

    def pattern(self, p: Any, x: Any) -> Any:
        product = p.matmul(x, p.constant("w"), transpose_a=p.any("ta"), transpose_b=p.any("tb"))
        return p.mul(product.bind("y"), p.constant("c"))

    def check(self, m: Any, ctx: Any) -> str | None:
        if not m.y.dtype.is_float or not finite(m.array("c"), m.array("w")):
            return "the weights are not finite floats"
        return copies_too_much(m, "w")

    def rewrite(self, b: Any, m: Any) -> Any:
        rank = len(m.y.shape)
        c = vector(m.array("c"), rank, rank - 1, m.y.shape[-1])
        if c is None:
            return "the factor varies along other axes than columns"
        w = product(b, m.array("w"), c.reshape(-1, 1) if m.tb else c, m.y, (-1 if m.tb else -2,))
        if w is None:
            return "the scaled weights overflow, or lose digits"
        return b.matmul(m.x, w, transpose_a=m.ta, transpose_b=m.tb)

    def example(self, d: Any, b: Any) -> Any:
        x, w, c, turned, others = drawn_product(d, b)
        return [b.mul(b.matmul(x, w, transpose_b=turned), c), *others]


class ScaleThenMatmul(Bounded):
    """(x * c) @ w --> x @ (w * c)     for constants; c varies along the summed axis at most"""

    def pattern(self, p: Any, x: Any) -> Any:
        scaled = p.mul(x, p.constant("c"))
        return p.matmul(scaled, p.constant("w"), transpose_b=p.any("tb"))

    def check(self, m: Any, ctx: Any) -> str | None:
        if not m.x.dtype.is_float or not finite(m.array("c"), m.array("w")):
            return "the weights are not finite floats"
        if m.x.type != m.root.operands[0].type:
            return "the factor broadcasts x"
        return copies_too_much(m, "w")

    def rewrite(self, b: Any, m: Any) -> Any:
        rank = len(m.x.shape)
        c = vector(m.array("c"), rank, rank - 1, m.x.shape[-1])
        if c is None:
            return "the factor varies along other axes than the summed one"
        w = product(b, m.array("w"), c if m.tb else c.reshape(-1, 1), m.x, (-1 if m.tb else -2,))
        if w is None:
            return "the scaled weights overflow, or lose digits"
        return b.matmul(m.x, w, transpose_b=m.tb)

    def example(self, d: Any, b: Any) -> Any:
        x, w, c, turned, others = drawn_product(d, b)
        return [b.matmul(b.mul(x, c), w, transpose_b=turned), *others]


def drawn_product(d: Any, b: Any) -> tuple[Any, Any, Any, bool, list[Any]]:
    """(x, square constant weights, a constant to scale by, whether w is transposed, what else reads w)"""
    d.kinds = "f"
    dtype, n = d.dtype(), d.choose((3,) * 6 + (MATRIX,))
    x = b.input("x", Tensor(dtype, d.choose(((n, n), (2, n, n)))))
    w = b.const(d.blob(Tensor(dtype, (n, n))))
    c = b.const(d.blob(Tensor(dtype, d.choose(((n,), (), (1, n), (n, 1), (2, 1, 1))))))
    return x, w, c, d.boolean(), [b.neg(w)] if n == MATRIX or d.chance(20) else []


class FoldScales(RulePass):
    """Batch norm and other constant scales and shifts go into neighbouring weights. Floats are reassociated."""

    name = "fold-scales"
    contract = "bounded"
    rules = (
        BatchNorm(),
        SubConstant(),
        DivConstant(),
        AddZero(),
        TwoConstants("add"),
        TwoConstants("mul"),
        *(rule(has_bias, transposed) for rule in (ConvThenScale, ConvThenShift) for has_bias in (True, False)
          for transposed in (False, True)),
        ScaleThenConv(),
        MatmulThenScale(),
        ScaleThenMatmul(),
    )
