"""Elementwise ops: result[i] = f(operands[i]...), operands broadcast as in NumPy, all of one dtype.

An op gives its formula once, as `scalar`; the loop nest, access maps, flops and each backend's code follow. Its torch
reference is a second, independent spelling: the tests hold the two against each other.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

from effcc.ir import scalar as s
from effcc.ir.assumptions import may_broadcast
from effcc.ir.dims import Dim, dim_max
from effcc.ir.lazy import F, torch
from effcc.ir.op import Op, require, tensor
from effcc.ir.scalar import Compute, Read, Scalar
from effcc.ir.types import DType, Tensor, Type, bool_, f32, u8


def broadcast_dim(a: Dim, b: Dim) -> Dim:
    """One axis of NumPy broadcasting; symbols that may be 1 at run time stay possible."""
    if a == b or b == 1:
        return a
    if a == 1:
        return b
    require(may_broadcast(a, b), f"sizes {a} and {b} do not broadcast", "sizes must be equal, or one of them 1")
    if isinstance(a, int):
        return a
    if isinstance(b, int):
        return b
    return dim_max(a, b)


def broadcast_shapes(*shapes: tuple[Dim, ...]) -> tuple[Dim, ...]:
    """The common shape of several, aligned at the last axis."""
    rank = max((len(x) for x in shapes), default=0)
    out: tuple[Dim, ...] = (1,) * rank
    for shape in shapes:
        padded = (1,) * (rank - len(shape)) + tuple(shape)
        out = tuple(broadcast_dim(a, b) for a, b in zip(out, padded, strict=True))
    return out


def broadcast_index(
    shape: tuple[Dim, ...], result: tuple[Dim, ...], at: tuple[Scalar, ...] | None = None
) -> tuple[Scalar, ...]:
    """Where an operand of `shape` is read for the result's element at index `at` (by default the loop indices)."""
    at = at if at is not None else tuple(s.index(k) for k in range(len(result)))
    offset = len(result) - len(shape)
    out = []
    for k, d in enumerate(shape):
        i, whole = at[offset + k], result[offset + k]
        if d == whole:
            out.append(i)
        elif d == 1:
            out.append(s.size(0))
        else:  # may be 1 at run time: both cases read min(i, d - 1)
            out.append(s.minimum(i, s.size(d - 1)))
    return tuple(out)


FLOAT, INTEGER, BOOL = "f", "iu", "b"
NARROW_FLOATS = {"f8e4m3": 448.0, "f8e5m2": 57344.0, "f8e4m3fnuz": 240.0, "f8e5m2fnuz": 57344.0, "f4": 6.0}
"""The narrow floating-point dtypes and their greatest finite values (OCP 8-bit Floating Point 1.0; Microscaling
1.0)."""


def narrow(x: Any, dtype: DType) -> Any:
    """A torch tensor in a narrow float dtype. f8e4m3 has no infinities: beyond its last rounding interval lies NaN,
    where newer
    versions of torch saturate."""
    if dtype.name == "f8e4m3":
        x = x.float()
        x = torch.where(x.abs() > 464, torch.nan, x)
    return x.to(dtype.torch)


class Elementwise(Op):
    """result[i] = scalar(operands[i]...)"""

    family = "elementwise"
    kinds: ClassVar[str] = FLOAT + INTEGER
    """The kinds of dtype that the op takes."""
    torch_name: ClassVar[str] = ""

    def result_dtype(self, dtype: DType) -> DType:
        return dtype

    def infer(self, *types: Type) -> Tensor:
        first = tensor(types[0])
        for t in types:
            require(
                tensor(t).dtype == first.dtype,
                f"operands differ in dtype ({first.dtype} and {tensor(t).dtype})",
                "insert a cast",
            )
        require(first.dtype.kind in self.kinds, f"{self.name} does not take {first.dtype}", "insert a cast")
        return Tensor(self.result_dtype(first.dtype), broadcast_shapes(*(tensor(t).shape for t in types)))

    def scalar(self, *args: Scalar) -> Scalar:
        """The formula on scalars."""
        raise NotImplementedError(f"{type(self).__name__}.scalar")

    def reference(self, *tensors: Any) -> Any:
        return getattr(torch, self.torch_name or self.name)(*tensors)

    def compute(self, *types: Tensor) -> Compute:
        out = self.infer(*types)
        reads = tuple(Read(t.dtype, k, broadcast_index(t.shape, out.shape)) for k, t in enumerate(types))
        return Compute(out.shape, (self.scalar(*reads),))


# -- unary -------------------------------------------------------------------------------------------------------------
class Unary(Elementwise):
    operands = ("x",)


class UnaryFunction(Unary):
    """A function that backends know by the op's name."""

    kinds = FLOAT

    def scalar(self, x: Scalar) -> Scalar:
        return s.apply(self.name, x)


class Neg(Unary):
    """-x; integers wrap."""

    name = "neg"

    def scalar(self, x: Scalar) -> Scalar:
        return -x


class Abs(Unary):
    """|x|; the least integer stays itself."""

    name = "abs"

    def scalar(self, x: Scalar) -> Scalar:
        return x if x.dtype.kind == "u" else s.absolute(x)

    def reference(self, x: Any) -> Any:
        return x if x.dtype == torch.uint8 else x.abs()


class Sign(Unary):
    """-1, 0 or 1; NaN stays NaN."""

    name = "sign"

    def scalar(self, x: Scalar) -> Scalar:
        positive = s.select(x > 0, s.const(x.dtype, 1), x * 0 if x.dtype.is_float else s.const(x.dtype, 0))
        if x.dtype.kind == "u":
            return positive
        if x.dtype.is_float:
            return s.select(x > 0, 1, s.select(x < 0, -1, s.select(s.isnan(x), x, s.const(x.dtype, 0))))
        return s.select(x > 0, 1, s.select(x < 0, s.const(x.dtype, -1), 0))

    def reference(self, x: Any) -> Any:
        return torch.where(x.isnan(), x, x.sign()) if x.is_floating_point() else x.sign()


class Exp(UnaryFunction):
    """eˣ"""

    name = "exp"


class Expm1(UnaryFunction):
    """eˣ - 1, accurate near 0"""

    name = "expm1"


class Log(UnaryFunction):
    """ln x"""

    name = "log"


class Log1p(UnaryFunction):
    """ln(1 + x), accurate near 0"""

    name = "log1p"


class Sqrt(UnaryFunction):
    """√x, correctly rounded"""

    name = "sqrt"


class Rsqrt(UnaryFunction):
    """1 / √x"""

    name = "rsqrt"


class Sin(UnaryFunction):
    """sin x"""

    name = "sin"


class Cos(UnaryFunction):
    """cos x"""

    name = "cos"


class Tan(UnaryFunction):
    """tan x"""

    name = "tan"


class Asin(UnaryFunction):
    """arcsin x"""

    name = "asin"


class Acos(UnaryFunction):
    """arccos x"""

    name = "acos"


class Atan(UnaryFunction):
    """arctan x"""

    name = "atan"


class Sinh(UnaryFunction):
    """sinh x"""

    name = "sinh"


class Cosh(UnaryFunction):
    """cosh x"""

    name = "cosh"


class Asinh(UnaryFunction):
    """arsinh x"""

    name = "asinh"


class Acosh(UnaryFunction):
    """arcosh x"""

    name = "acosh"


class Atanh(UnaryFunction):
    """artanh x"""

    name = "atanh"


class Tanh(UnaryFunction):
    """tanh x"""

    name = "tanh"


class Erf(UnaryFunction):
    """The error function, 2/√π ∫₀ˣ e^(-t²) dt"""

    name = "erf"


class Erfc(Unary):
    """1 - erf x"""

    name = "erfc"
    kinds = FLOAT

    def scalar(self, x: Scalar) -> Scalar:
        return 1.0 - s.erf(x)


class Rounding(Unary):
    """Rounding of floats; the identity on integers."""

    def scalar(self, x: Scalar) -> Scalar:
        return s.apply(self.name, x) if x.dtype.is_float else x

    def reference(self, x: Any) -> Any:
        return getattr(torch, self.name)(x) if x.is_floating_point() else x.clone()


class Floor(Rounding):
    """⌊x⌋"""

    name = "floor"


class Ceil(Rounding):
    """⌈x⌉"""

    name = "ceil"


class Round(Rounding):
    """To the nearest integer, halves to even"""

    name = "round"


class Trunc(Rounding):
    """Toward zero"""

    name = "trunc"


class Reciprocal(Unary):
    """1 / x"""

    name = "reciprocal"
    kinds = FLOAT

    def scalar(self, x: Scalar) -> Scalar:
        return 1.0 / x


class Sigmoid(Unary):
    """1 / (1 + e⁻ˣ)"""

    name = "sigmoid"
    kinds = FLOAT

    def scalar(self, x: Scalar) -> Scalar:
        return 1.0 / (1.0 + s.exp(-x))


class Relu(Unary):
    """max(x, 0); NaN stays NaN"""

    name = "relu"

    def scalar(self, x: Scalar) -> Scalar:
        return s.maximum(x, 0)


class Gelu(Unary):
    """x Φ(x), exact ("none") or by tanh (Hendrycks & Gimpel 2016)"""

    name = "gelu"
    kinds = FLOAT
    approximate: str = "none"

    def scalar(self, x: Scalar) -> Scalar:
        if self.approximate == "tanh":
            return 0.5 * x * (1.0 + s.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x)))
        return 0.5 * x * (1.0 + s.erf(x * math.sqrt(0.5)))

    def reference(self, x: Any) -> Any:
        return F.gelu(x, approximate=self.approximate)


class Silu(Unary):
    """x · sigmoid(x)"""

    name = "silu"
    kinds = FLOAT

    def scalar(self, x: Scalar) -> Scalar:
        return x / (1.0 + s.exp(-x))

    def reference(self, x: Any) -> Any:
        return F.silu(x)


class Softplus(Unary):
    """ln(1 + eˣ), without overflow"""

    name = "softplus"
    kinds = FLOAT

    def scalar(self, x: Scalar) -> Scalar:
        return s.maximum(x, 0.0) + s.log1p(s.exp(-s.absolute(x)))

    def reference(self, x: Any) -> Any:
        return torch.logaddexp(x, torch.zeros_like(x))


class HardSigmoid(Unary):
    """max(0, min(1, αx + β))"""

    name = "hard_sigmoid"
    kinds = FLOAT
    alpha: float = 0.2
    beta: float = 0.5

    def scalar(self, x: Scalar) -> Scalar:
        return s.maximum(s.minimum(self.alpha * x + self.beta, 1.0), 0.0)

    def reference(self, x: Any) -> Any:
        return (self.alpha * x + self.beta).clamp(0, 1)


class HardSwish(Unary):
    """x · max(0, min(1, x/6 + 1/2)) (Howard et al. 2019)"""

    name = "hard_swish"
    kinds = FLOAT

    def scalar(self, x: Scalar) -> Scalar:
        return x * s.maximum(s.minimum(x * (1 / 6) + 0.5, 1.0), 0.0)

    def reference(self, x: Any) -> Any:
        return F.hardswish(x)


class LeakyRelu(Unary):
    """x where x ≥ 0, else αx"""

    name = "leaky_relu"
    kinds = FLOAT
    alpha: float = 0.01

    def scalar(self, x: Scalar) -> Scalar:
        return s.select(x < 0.0, x * self.alpha, x)

    def reference(self, x: Any) -> Any:
        return F.leaky_relu(x, self.alpha)


class Elu(Unary):
    """x where x > 0, else α(eˣ - 1)"""

    name = "elu"
    kinds = FLOAT
    alpha: float = 1.0

    def scalar(self, x: Scalar) -> Scalar:
        return s.select(x > 0.0, x, self.alpha * s.expm1(x))

    def reference(self, x: Any) -> Any:
        return F.elu(x, self.alpha)


class Selu(Unary):
    """γx where x > 0, else γα(eˣ - 1) (Klambauer et al. 2017)"""

    name = "selu"
    kinds = FLOAT
    alpha: float = 1.67326319217681884765625
    gamma: float = 1.05070102214813232421875

    def scalar(self, x: Scalar) -> Scalar:
        return s.select(x > 0.0, self.gamma * x, self.gamma * self.alpha * s.expm1(x))

    def reference(self, x: Any) -> Any:
        return torch.where(x > 0, self.gamma * x, self.gamma * self.alpha * torch.expm1(x))


class Celu(Unary):
    """max(0, x) + min(0, α(e^(x/α) - 1))"""

    name = "celu"
    kinds = FLOAT
    alpha: float = 1.0

    def scalar(self, x: Scalar) -> Scalar:
        return s.select(x > 0.0, x, self.alpha * s.expm1(x / self.alpha))

    def reference(self, x: Any) -> Any:
        return F.celu(x, self.alpha)


class ThresholdedRelu(Unary):
    """x where x > α, else 0"""

    name = "thresholded_relu"
    kinds = FLOAT
    alpha: float = 1.0

    def scalar(self, x: Scalar) -> Scalar:
        return s.select(x > self.alpha, x, 0.0)

    def reference(self, x: Any) -> Any:
        return torch.where(x > self.alpha, x, torch.zeros_like(x))


class Softsign(Unary):
    """x / (1 + |x|)"""

    name = "softsign"
    kinds = FLOAT

    def scalar(self, x: Scalar) -> Scalar:
        return x / (1.0 + s.absolute(x))

    def reference(self, x: Any) -> Any:
        return F.softsign(x)


class Mish(Unary):
    """x · tanh(softplus(x)) = x · n / (n + 2) with n = eˣ(eˣ + 2) (Misra 2019)"""

    name = "mish"
    kinds = FLOAT

    def scalar(self, x: Scalar) -> Scalar:
        e = s.exp(s.minimum(x, 20.0))
        n = e * (e + 2.0)
        return s.select(x > 20.0, x, x * (n / (n + 2.0)))

    def reference(self, x: Any) -> Any:
        return F.mish(x)


class Not(Unary):
    """Logical not of bool, bitwise not of integers"""

    name = "not"
    kinds = BOOL + INTEGER

    def scalar(self, x: Scalar) -> Scalar:
        return ~x

    def reference(self, x: Any) -> Any:
        return torch.bitwise_not(x)


class Isnan(Unary):
    """Whether x is not a number"""

    name = "isnan"
    kinds = FLOAT

    def result_dtype(self, dtype: DType) -> DType:
        return bool_

    def scalar(self, x: Scalar) -> Scalar:
        return s.isnan(x)


class Isinf(Unary):
    """Whether x is infinite, of the signs asked for"""

    name = "isinf"
    kinds = FLOAT
    positive: bool = True
    negative: bool = True

    def result_dtype(self, dtype: DType) -> DType:
        return bool_

    def scalar(self, x: Scalar) -> Scalar:
        up, down = x.eq(math.inf), x.eq(-math.inf)
        if self.positive and self.negative:
            return up | down
        return up if self.positive else down if self.negative else s.apply("and", up, down)

    def reference(self, x: Any) -> Any:
        return (x.isposinf() & self.positive) | (x.isneginf() & self.negative)


class Identity(Unary):
    """x"""

    name = "identity"
    kinds = FLOAT + INTEGER + BOOL

    def scalar(self, x: Scalar) -> Scalar:
        return x

    def reference(self, x: Any) -> Any:
        return x.clone()


class Cast(Unary):
    """Conversion of dtype: floats round to nearest even; float to integer truncates (out of range: undefined); to
    bool: x ≠ 0;
    integers wrap. With `saturate`, conversion to an f8 kind clamps to its largest finite value."""

    name = "cast"
    kinds = FLOAT + INTEGER + BOOL
    to: DType
    saturate: bool = False

    def result_dtype(self, dtype: DType) -> DType:
        return self.to

    def scalar(self, x: Scalar) -> Scalar:
        if self.to == x.dtype:
            return x
        if self.to.is_bool:
            return x.ne(0)
        if self.saturate and self.to.name in NARROW_FLOATS:
            top = NARROW_FLOATS[self.to.name]
            x = s.minimum(s.maximum(x if x.dtype.is_float else s.cast(x, f32), -top), top)
        return s.cast(x, self.to)

    def reference(self, x: Any) -> Any:
        if self.to.is_bool:
            return x != 0
        if self.to.is_integer and self.to.bits < 8:
            wide = x.to(torch.int64)
            wide = wide & ((1 << self.to.bits) - 1)
            if self.to.kind == "i":
                wide = torch.where(wide > self.to.max, wide - (1 << self.to.bits), wide)
            return wide.to(self.to.torch)
        if self.saturate and self.to.name in NARROW_FLOATS:
            top = NARROW_FLOATS[self.to.name]
            return torch.where(x.isnan(), x, x.clamp(-top, top)).to(self.to.torch)
        return narrow(x, self.to)


class Bitcast(Unary):
    """The same bits as another dtype of the same width"""

    name = "bitcast"
    kinds = FLOAT + INTEGER + BOOL
    to: DType

    def infer(self, x: Type) -> Tensor:
        bits = tensor(x).dtype.bits
        require(bits == self.to.bits and bits >= 8, f"{tensor(x).dtype} and {self.to} differ in width, or are packed")
        return super().infer(x)

    def result_dtype(self, dtype: DType) -> DType:
        return self.to

    def scalar(self, x: Scalar) -> Scalar:
        if x.dtype.is_bool:
            x = s.cast(x, u8)
        if self.to.is_bool:
            return s.bitcast(x, u8).ne(0)
        return x if x.dtype == self.to else s.bitcast(x, self.to)

    def reference(self, x: Any) -> Any:
        signed = getattr(torch, f"int{self.to.bits}")
        bits = x.to(signed) if x.dtype == torch.bool else x.view(signed)
        return bits != 0 if self.to.is_bool else bits.view(self.to.torch)


# -- binary ------------------------------------------------------------------------------------------------------------
class Binary(Elementwise):
    operands = ("a", "b")

    def scalar(self, a: Scalar, b: Scalar) -> Scalar:
        return s.apply(self.name, a, b)


class Add(Binary):
    """a + b; integers wrap"""

    name = "add"


class Sub(Binary):
    """a - b; integers wrap"""

    name = "sub"


class Mul(Binary):
    """a · b; integers wrap"""

    name = "mul"


class Div(Binary):
    """a / b; integers truncate toward zero (by zero: undefined)"""

    name = "div"

    def reference(self, a: Any, b: Any) -> Any:
        if a.is_floating_point():
            return a / b
        flips = (b == -1) & b.dtype.is_signed  # the least integer / -1 wraps; dividing would trap
        safe = torch.where((b == 0) | flips, 1, b)
        return torch.where(flips, -a, torch.div(a, safe, rounding_mode="trunc"))


class Floordiv(Binary):
    """⌊a / b⌋ (integers by zero: undefined)"""

    name = "floordiv"

    def scalar(self, a: Scalar, b: Scalar) -> Scalar:
        if not a.dtype.is_float:
            return s.apply("floordiv", a, b)
        m = s.apply("fmod", a, b)  # torch's: exact where a/b would round up to an integer
        q = (a - m) / b
        q = s.select(m.ne(0.0) & ((b < 0.0).ne(m < 0.0)), q - 1.0, q)
        near = s.floor(q)
        near = s.select(q - near > 0.5, near + 1.0, near)
        return s.select(b.eq(0.0), a / b, s.select(q.eq(0.0), a / b * 0.0, near))

    def reference(self, a: Any, b: Any) -> Any:
        return torch.floor_divide(a, b if a.is_floating_point() else torch.where(b == 0, 1, b))


class Mod(Binary):
    """a - b⌊a / b⌋: the divisor's sign (integers by zero: undefined)"""

    name = "mod"

    def scalar(self, a: Scalar, b: Scalar) -> Scalar:
        if not a.dtype.is_float:
            return s.apply("mod", a, b)
        m = s.apply("fmod", a, b)
        return s.select(m.ne(0.0) & ((b < 0.0).ne(m < 0.0)), m + b, m)

    def reference(self, a: Any, b: Any) -> Any:
        return torch.remainder(a, b if a.is_floating_point() else torch.where(b == 0, 1, b))


class Fmod(Binary):
    """The remainder of truncated division: the dividend's sign (integers by zero: undefined)"""

    name = "fmod"

    def reference(self, a: Any, b: Any) -> Any:
        return torch.fmod(a, b if a.is_floating_point() else torch.where(b == 0, 1, b))


class Pow(Binary):
    """aᵇ; integers wrap, with exponents of 0 and more"""

    name = "pow"


class Max(Binary):
    """The greater; NaN if either is"""

    name = "max"
    torch_name = "maximum"


class Min(Binary):
    """The lesser; NaN if either is"""

    name = "min"
    torch_name = "minimum"


class Atan2(Binary):
    """The angle of the point (b, a)"""

    name = "atan2"
    kinds = FLOAT


class Bitwise(Binary):
    kinds = BOOL + INTEGER


class And(Bitwise):
    """Logical on bool, bitwise on integers"""

    name = "and"
    torch_name = "bitwise_and"


class Or(Bitwise):
    """Logical on bool, bitwise on integers"""

    name = "or"
    torch_name = "bitwise_or"


class Xor(Bitwise):
    """Logical on bool, bitwise on integers"""

    name = "xor"
    torch_name = "bitwise_xor"


class Shl(Binary):
    """a · 2ᵇ; by the width or more: 0"""

    name = "shl"
    kinds = INTEGER

    def scalar(self, a: Scalar, b: Scalar) -> Scalar:
        over = (b >= a.dtype.bits) | (b < 0)
        return s.select(over, 0, s.apply("shl", a, s.select(over, 0, b)))

    def reference(self, a: Any, b: Any) -> Any:
        over = (b >= 8 * a.element_size()) | (b < 0)
        return torch.where(over, 0, torch.bitwise_left_shift(a, torch.where(over, 0, b)))


class Shr(Binary):
    """⌊a / 2ᵇ⌋, arithmetic on signed integers; by the width or more: 0, or -1 for negatives"""

    name = "shr"
    kinds = INTEGER

    def scalar(self, a: Scalar, b: Scalar) -> Scalar:
        over = (b >= a.dtype.bits) | (b < 0)
        last = a.dtype.bits - 1
        if a.dtype.kind == "i":
            return s.apply("shr", a, s.select(over, last, b))
        return s.select(over, 0, s.apply("shr", a, s.select(over, 0, b)))

    def reference(self, a: Any, b: Any) -> Any:
        over = (b >= 8 * a.element_size()) | (b < 0)
        if a.dtype == torch.uint8:
            return torch.where(over, 0, torch.bitwise_right_shift(a, torch.where(over, 0, b)))
        return torch.bitwise_right_shift(a, torch.where(over, 8 * a.element_size() - 1, b))


class Comparison(Binary):
    kinds = FLOAT + INTEGER + BOOL

    def result_dtype(self, dtype: DType) -> DType:
        return bool_


class Eq(Comparison):
    """a = b"""

    name = "eq"


class Ne(Comparison):
    """a ≠ b"""

    name = "ne"


class Lt(Comparison):
    """a < b"""

    name = "lt"


class Le(Comparison):
    """a ≤ b"""

    name = "le"


class Gt(Comparison):
    """a > b"""

    name = "gt"


class Ge(Comparison):
    """a ≥ b"""

    name = "ge"


class Prelu(Binary):
    """x where x ≥ 0, else slope · x (slope broadcasts against x by NumPy's rule: frontends reshape a channel vector)"""

    name = "prelu"
    operands = ("x", "slope")

    def scalar(self, x: Scalar, slope: Scalar) -> Scalar:
        return s.select(x < 0, x * slope, x)

    def reference(self, x: Any, slope: Any) -> Any:
        return torch.where(x < 0, x * slope, x)


# -- ternary -----------------------------------------------------------------------------------------------------------
class Where(Elementwise):
    """a where cond, else b"""

    name = "where"
    operands = ("cond", "a", "b")
    kinds = FLOAT + INTEGER + BOOL

    def infer(self, cond: Type, a: Type, b: Type) -> Tensor:
        require(tensor(cond).dtype.is_bool, f"the condition is {tensor(cond).dtype}, not bool", "insert a cast")
        out = super().infer(a, b)
        return out.with_shape(broadcast_shapes(tensor(cond).shape, out.shape))

    def scalar(self, cond: Scalar, a: Scalar, b: Scalar) -> Scalar:
        return s.select(cond, a, b)

    def reference(self, cond: Any, a: Any, b: Any) -> Any:
        return torch.where(cond, a, b)


class Clip(Elementwise):
    """min(max(x, lo), hi); NaN in any operand gives NaN"""

    name = "clip"
    operands = ("x", "lo", "hi")

    def scalar(self, x: Scalar, lo: Scalar, hi: Scalar) -> Scalar:
        return s.minimum(s.maximum(x, lo), hi)

    def reference(self, x: Any, lo: Any, hi: Any) -> Any:
        return torch.minimum(torch.maximum(x, lo), hi)
