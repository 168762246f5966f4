"""Elementwise ops: result[i] = f(operands[i]...), operands broadcast as in NumPy, all of one dtype.

An op gives its formula once, as `scalar`; the loop nest, access maps, flops and each backend's code follow. Its torch
reference is a second, independent spelling: the tests hold the two against each other.
"""

from __future__ import annotations

from typing import Any, ClassVar

from effcc.ir import scalar as s
from effcc.ir.assumptions import may_broadcast
from effcc.ir.dims import Dim, dim_max
from effcc.ir.lazy import torch
from effcc.ir.op import Op, require, tensor
from effcc.ir.scalar import Compute, Read, Scalar
from effcc.ir.types import DType, Tensor

FLOAT, INTEGER, BOOL = "f", "iu", "b"
NARROW_FLOATS = {"f8e4m3": 448.0, "f8e5m2": 57344.0, "f8e4m3fnuz": 240.0, "f8e5m2fnuz": 57344.0, "f4": 6.0}
"""The narrow floating-point dtypes and their greatest finite values (OCP 8-bit Floating Point 1.0; Microscaling
1.0)."""


def wide(x: Any) -> Any:
    """A torch tensor in the dtype that it is computed in: f32 for the short floats."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


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

    def infer(self, *types: Any, **_: Any) -> Tensor:
        first = tensor(types[0])
        for t in types:
            require(
                tensor(t).dtype == first.dtype,
                f"operands differ in dtype ({first.dtype} and {tensor(t).dtype})",
                "insert a cast",
            )
        require(first.dtype.kind in self.kinds, f"{self.name} does not take {first.dtype}", "insert a cast")
        return Tensor(self.result_dtype(first.dtype), broadcast_shapes(*(tensor(t).shape for t in types)))

    def scalar(self, *args: Any, **_: Any) -> Scalar:
        """The formula on scalars."""
        raise NotImplementedError(f"{type(self).__name__}.scalar")

    def reference(self, *tensors: Any, **_: Any) -> Any:
        return getattr(torch, self.torch_name or self.name)(*tensors)

    def compute(self, *types: Any, **_: Any) -> Compute:
        out = self.infer(*types)
        reads = tuple(Read(t.dtype, k, broadcast_index(t.shape, out.shape)) for k, t in enumerate(types))
        return Compute(out.shape, (self.scalar(*reads),))


class Unary(Elementwise):
    operands = ("x",)


class UnaryFunction(Unary):
    """A function that backends know by the op's name."""

    kinds = FLOAT

    def scalar(self, x: Scalar) -> Scalar:
        return s.apply(self.name, x)


class Binary(Elementwise):
    operands = ("a", "b")

    def scalar(self, *args: Any, **_: Any) -> Scalar:
        return s.apply(self.name, *args)
