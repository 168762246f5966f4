"""Affine quantization: real numbers as scaled integers (or narrow floats) and back. (Jacob et al. 2018, section 2.1;
ONNX)

Scale and zero point are one number (rank 0), a vector along `axis`, or blocks: tensors of x's rank whose size on `axis`
is ⌈size / block_size⌉, each for `block_size` neighbours.
"""

from __future__ import annotations

from typing import Any

from effcc.ir import scalar as s
from effcc.ir.assumptions import may_equal
from effcc.ir.dims import Dim, ceildiv
from effcc.ir.domain import DIVISOR, NUMBER
from effcc.ir.lazy import torch
from effcc.ir.op import Op, require, tensor
from effcc.ir.scalar import Compute, Read, Scalar
from effcc.ir.types import DType, Tensor, Type, f32, f64, i8, i32, i64
from effcc.ops.elementwise import NARROW_FLOATS, narrow


def is_quantized(dtype: DType) -> bool:
    return (dtype.is_integer and dtype.bits <= 16) or dtype.name in NARROW_FLOATS


class Quantization(Op):
    family = "quantize"
    kinds = "fiu"
    operands = ("x", "scale", "zero_point?")

    def check_parameters(self, x: Tensor, scale: Tensor, zero_point: Tensor | None) -> None:
        axis, block = self.axis, self.block_size  # type: ignore[attr-defined]
        require(scale.dtype.is_float, f"the scale is {scale.dtype}, not a float")
        require(block >= 0, f"block_size is {block}, below 0")
        if scale.rank:
            require(0 <= axis < x.rank, f"axis {axis} is not an axis of a rank-{x.rank} tensor")
            if block:
                wanted: tuple[Dim, ...] = tuple(ceildiv(d, block) if k == axis else d for k, d in enumerate(x.shape))
            else:
                wanted = (x.shape[axis],)
            fits = scale.rank == len(wanted) and all(
                may_equal(a, b) for a, b in zip(scale.shape, wanted))
            require(fits, f"the scale has shape {list(scale.shape)}, not {list(wanted)} (or [])")
        require(
            zero_point is None
            or zero_point.rank == scale.rank
            and all(may_equal(a, b) for a, b in zip(zero_point.shape, scale.shape)),
            f"the zero point {zero_point} has another shape than the scale {scale}",
        )

    def parameter_index(self, x: Tensor, parameter: Tensor) -> tuple[Scalar, ...]:
        """Where the parameter of the element at the loop indices is."""
        axis, block = self.axis, self.block_size  # type: ignore[attr-defined]
        if parameter.rank == 0:
            return ()
        if not block:
            return (s.index(axis),)
        return tuple(s.index(k) // block if k == axis else s.index(k) for k in range(x.rank))

    def spread(self, x: Any, parameter: Any) -> Any:
        """The parameter in torch, shaped to broadcast against x."""
        axis, block = self.axis, self.block_size  # type: ignore[attr-defined]
        if parameter.dim() == 0:
            return parameter
        if not block:
            return parameter.reshape([-1 if k == axis else 1 for k in range(x.dim())])
        return parameter.repeat_interleave(block, axis).narrow(axis, 0, x.shape[axis])


class QuantizeLinear(Quantization):
    """saturate(round(x / scale) + zero_point), halves to even, in the integer range of `dtype`; for f8 and f4 targets
    x / scale rounded to the dtype, beyond its greatest finite value saturated (or, without `saturate`, as the format
    has it: infinite or NaN). Computed in f32, in f64 for f64. (ONNX QuantizeLinear)"""
    name = "quantize_linear"
    undefined = "NaN quantized to an integer (0 / 0 is one)"
    domains = {"x": NUMBER, "scale": DIVISOR}
    axis: int = 1
    block_size: int = 0
    dtype: DType = i8
    saturate: bool = True

    def infer(self, x: Type, scale: Type, zero_point: Type | None = None) -> Tensor:
        t, zp = tensor(x), None if zero_point is None else tensor(zero_point, "the zero point")
        require(t.dtype.is_float or t.dtype == i32, f"quantize_linear does not take {t.dtype}", "insert a cast")
        require(is_quantized(self.dtype), f"{self.dtype} is no quantized dtype", "integers up to 16 bits, f8 kinds, f4")
        self.check_parameters(t, tensor(scale, "the scale"), zp)
        require(zp is None or zp.dtype == self.dtype, f"the zero point is {zp}, the result {self.dtype}")
        return t.with_dtype(self.dtype)

    def reference(self, x: Any, scale: Any, zero_point: Any = None) -> Any:
        acc = torch.float64 if x.dtype == torch.float64 else torch.float32
        q = x.to(acc) / self.spread(x, scale).to(acc)
        shift = None if zero_point is None else self.spread(x, zero_point).to(acc)
        if self.dtype.is_integer:
            q = q.round() if shift is None else q.round() + shift
            return q.clamp(self.dtype.min, self.dtype.max).to(torch.int64).to(self.dtype.torch)
        q = q if shift is None else q + shift
        if self.saturate or self.dtype.name == "f4":
            q = q.clamp(-NARROW_FLOATS[self.dtype.name], NARROW_FLOATS[self.dtype.name])
        return narrow(q, self.dtype)

    def compute(self, x: Tensor, scale: Tensor, zero_point: Tensor | None = None) -> Compute:
        acc = f64 if x.dtype == f64 else f32
        here, at = tuple(s.index(k) for k in range(x.rank)), self.parameter_index(x, scale)
        q = s.cast(Read(x.dtype, 0, here), acc) / s.cast(Read(scale.dtype, 1, at), acc)
        q = s.round_even(q) if self.dtype.is_integer else q
        if zero_point is not None:
            q = q + s.cast(Read(zero_point.dtype, 2, at), acc)
        if self.dtype.is_integer:
            q = s.minimum(s.maximum(q, self.dtype.min), self.dtype.max)
        elif self.saturate or self.dtype.name == "f4":
            top = NARROW_FLOATS[self.dtype.name]
            q = s.minimum(s.maximum(q, -top), top)
        return Compute(x.shape, (s.cast(q, self.dtype),))


class DequantizeLinear(Quantization):
    """(x - zero_point) · scale in f32 (in f64 for an f64 scale), rounded once to `dtype` (None: the scale's).
    (ONNX DequantizeLinear)"""
    name = "dequantize_linear"
    axis: int = 1
    block_size: int = 0
    dtype: DType | None = None

    def infer(self, x: Type, scale: Type, zero_point: Type | None = None) -> Tensor:
        t, c, zp = (
            tensor(x),
            tensor(scale, "the scale"),
            None if zero_point is None else tensor(zero_point, "the zero point"),
        )
        require(is_quantized(t.dtype) or t.dtype == i32, f"dequantize_linear does not take {t.dtype}")
        self.check_parameters(t, c, zp)
        require(zp is None or zp.dtype == t.dtype, f"the zero point is {zp}, x is {t.dtype}")
        require(self.dtype is None or self.dtype.is_float, f"the result dtype {self.dtype} is not a float")
        return t.with_dtype(self.dtype or c.dtype)

    def reference(self, x: Any, scale: Any, zero_point: Any = None) -> Any:
        acc = torch.float64 if scale.dtype == torch.float64 else torch.float32
        if zero_point is not None:
            wide = acc if x.is_floating_point() else torch.int64
            x = x.to(wide) - self.spread(x, zero_point).to(wide)
        out = scale.dtype if self.dtype is None else self.dtype.torch
        return (x.to(acc) * self.spread(x, scale).to(acc)).to(out)

    def compute(self, x: Tensor, scale: Tensor, zero_point: Tensor | None = None) -> Compute:
        acc = f64 if scale.dtype == f64 else f32
        here, at = tuple(s.index(k) for k in range(x.rank)), self.parameter_index(x, scale)
        value: Scalar = Read(x.dtype, 0, here)
        if zero_point is not None:
            wide = acc if x.dtype.is_float else i64 if x.dtype == i32 else i32
            value = s.cast(value, wide) - s.cast(Read(zero_point.dtype, 2, at), wide)
        out = self.dtype or scale.dtype
        return Compute(x.shape, (s.cast(s.cast(value, acc) * s.cast(Read(scale.dtype, 1, at), acc), out),))
