"""Arithmetic of two numbers."""

from __future__ import annotations

from typing import Any

from effcc.ir import scalar as s
from effcc.ir.lazy import torch
from effcc.ir.scalar import Scalar
from effcc.ops.elementwise.family import FLOAT, Binary, Elementwise, wide


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


def exact_fmod(a: Any, b: Any) -> Any:
    """a - b trunc(a / b), in f32 at least: NumPy's. (torch's of vectors is NaN where the quotient overflows:
    docs/upstream.)"""
    import numpy as np

    with np.errstate(all="ignore"):
        return torch.as_tensor(np.fmod(wide(a).numpy(), wide(b).numpy()))


class Mod(Binary):
    """a - b⌊a / b⌋: the divisor's sign (integers by zero: undefined)"""

    name = "mod"

    def scalar(self, a: Scalar, b: Scalar) -> Scalar:
        if not a.dtype.is_float:
            return s.apply("mod", a, b)
        m = s.apply("fmod", a, b)
        return s.select(m.ne(0.0) & ((b < 0.0).ne(m < 0.0)), m + b, m)

    def reference(self, a: Any, b: Any) -> Any:
        if not a.is_floating_point():
            return torch.remainder(a, torch.where(b == 0, 1, b))
        m = exact_fmod(a, b)
        return torch.where((m != 0) & ((b < 0) != (m < 0)), m + wide(b), m).to(a.dtype)


class Fmod(Binary):
    """The remainder of truncated division: the dividend's sign (integers by zero: undefined)"""

    name = "fmod"

    def reference(self, a: Any, b: Any) -> Any:
        return exact_fmod(a, b).to(a.dtype) if a.is_floating_point() else torch.fmod(a, torch.where(b == 0, 1, b))


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


class Clip(Elementwise):
    """min(max(x, lo), hi); NaN in any operand gives NaN"""

    name = "clip"
    operands = ("x", "lo", "hi")

    def scalar(self, x: Scalar, lo: Scalar, hi: Scalar) -> Scalar:
        return s.minimum(s.maximum(x, lo), hi)

    def reference(self, x: Any, lo: Any, hi: Any) -> Any:
        return torch.minimum(torch.maximum(x, lo), hi)
