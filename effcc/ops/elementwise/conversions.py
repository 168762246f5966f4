"""The same value in another dtype, or in the same."""

from __future__ import annotations

from typing import Any

from effcc.ir import scalar as s
from effcc.ir.domain import NUMBER
from effcc.ir.lazy import torch
from effcc.ir.op import require, tensor
from effcc.ir.scalar import Scalar
from effcc.ir.types import DType, Tensor, Type, f32, u8
from effcc.ops.elementwise.family import BOOL, FLOAT, INTEGER, NARROW_FLOATS, Unary, narrow


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
    widens = False
    undefined = "the bits of NaN"
    domains = {"x": NUMBER}
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
