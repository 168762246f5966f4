"""Bits and truth: logic, shifts, comparisons, and choice by a condition."""

from __future__ import annotations

import math
from typing import Any

from effcc.ir import scalar as s
from effcc.ir.lazy import torch
from effcc.ir.op import require, tensor
from effcc.ir.scalar import Scalar
from effcc.ir.types import DType, Tensor, Type, bool_
from effcc.ops.elementwise.family import BOOL, FLOAT, INTEGER, Binary, Elementwise, Unary, broadcast_shapes


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
