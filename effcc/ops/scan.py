"""Scans: folds along one axis that keep every prefix: result[i] = fold(x[0], ..., x[i])."""

from __future__ import annotations

from typing import Any, ClassVar

from effcc.ir import scalar as s
from effcc.ir.lazy import torch
from effcc.ir.op import Op, require, tensor
from effcc.ir.scalar import PARALLEL, SCAN, Compute, Read, Scalar, State
from effcc.ir.types import Tensor, Type, i64
from effcc.ops.contraction import accumulate_dtype


def scan_space(x: Tensor, axis: int, reverse: bool) -> tuple[str, tuple[Scalar, ...]]:
    """(kinds of the axes, where x is read and the results are stored at each point)."""
    kinds = "".join(SCAN if k == axis else PARALLEL for k in range(x.rank))
    at = tuple(s.size(d - 1) - s.index(k) if k == axis and reverse else s.index(k) for k, d in enumerate(x.shape))
    return kinds, at


class Scan(Op):
    """A fold along `axis`. `reverse` folds from the end; `exclusive` leaves the element itself out."""

    family = "scan"
    kinds: ClassVar[str] = "fiu"

    def infer(self, x: Type) -> Tensor | tuple[Tensor, Tensor]:
        return self.checked(x)

    def checked(self, x: Type) -> Tensor:
        t, axis = tensor(x), self.axis  # type: ignore[attr-defined]
        require(0 <= axis < t.rank, f"axis {axis} is not an axis of a rank-{t.rank} tensor")
        require(t.dtype.kind in self.kinds, f"{self.name} does not take {t.dtype}", "insert a cast")
        return t

    def fold(self, state: Scalar, x: Scalar) -> Scalar:
        raise NotImplementedError(f"{type(self).__name__}.fold")

    def compute(self, x: Tensor) -> Compute:
        kinds, at = scan_space(x, self.axis, self.reverse)  # type: ignore[attr-defined]
        acc = accumulate_dtype(x.dtype, None)
        start = s.const(acc, self.identity)  # type: ignore[attr-defined]
        now, before = State(acc, 0), State(acc, 1)
        step = self.fold(now, s.cast(Read(x.dtype, 0, at), acc))
        exclusive: bool = self.exclusive  # type: ignore[attr-defined]
        states = ((start, start), (step, now)) if exclusive else ((start,), (step,))
        return Compute(x.shape, (s.cast(before if exclusive else now, x.dtype),), kinds, *states, write=(at,))

    def reference(self, x: Any) -> Any:
        axis: int = self.axis  # type: ignore[attr-defined]
        wide = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
        wide = wide.flip(axis) if self.reverse else wide  # type: ignore[attr-defined]
        if self.exclusive:  # type: ignore[attr-defined]
            first = torch.full_like(wide.narrow(axis, 0, min(1, x.shape[axis])), self.identity)  # type: ignore[attr-defined]
            wide = torch.cat([first, wide.narrow(axis, 0, max(x.shape[axis] - 1, 0))], axis)
        out = getattr(torch, self.name)(wide, axis, dtype=wide.dtype)
        return (out.flip(axis) if self.reverse else out).to(x.dtype)  # type: ignore[attr-defined]


class Cumsum(Scan):
    """Σ of the elements so far; integers wrap, f16 and bf16 sum in f32. (ONNX CumSum)"""
    name = "cumsum"
    identity: ClassVar[int] = 0
    axis: int
    exclusive: bool = False
    reverse: bool = False

    def fold(self, state: Scalar, x: Scalar) -> Scalar:
        return state + x


class Cumprod(Scan):
    """Π of the elements so far; integers wrap, f16 and bf16 multiply in f32. (ONNX CumProd)"""
    name = "cumprod"
    identity: ClassVar[int] = 1
    axis: int
    exclusive: bool = False
    reverse: bool = False

    def fold(self, state: Scalar, x: Scalar) -> Scalar:
        return state * x


class RunningExtremum(Scan):
    """The extreme element so far and its index along `axis` (of equal ones the latest); NaN is extreme.
    (torch.cummax)"""

    kinds = "fiub"
    num_results = 2

    def infer(self, x: Type) -> tuple[Tensor, Tensor]:
        t = self.checked(x)
        return t, Tensor(i64, t.shape)

    def better(self, x: Scalar, best: Scalar) -> Scalar:
        raise NotImplementedError(f"{type(self).__name__}.better")

    def compute(self, x: Tensor) -> Compute:
        axis: int = self.axis  # type: ignore[attr-defined]
        kinds, at = scan_space(x, axis, False)
        here, value, best, where = s.index(axis), Read(x.dtype, 0, at), State(x.dtype, 0), State(i64, 1)
        take = (here <= 0) | self.better(value, best)
        if x.dtype.is_float:
            take = take | s.isnan(value)
        step = (s.select(take, value, best), s.select(take, here, where))
        zero = s.const(x.dtype, False if x.dtype.is_bool else 0)
        return Compute(x.shape, (best, where), kinds, (zero, s.size(0)), step)

    def reference(self, x: Any) -> Any:
        if x.dtype == torch.bool:
            values, where = getattr(torch, self.name)(x.to(torch.uint8), self.axis)  # type: ignore[attr-defined]
            return values.bool(), where
        return tuple(getattr(torch, self.name)(x, self.axis))  # type: ignore[attr-defined]


class Cummax(RunningExtremum):
    """The greatest element so far and its index along `axis`; of equal ones the latest, NaN counts as the greatest."""
    name = "cummax"
    axis: int

    def better(self, x: Scalar, best: Scalar) -> Scalar:
        return x >= best


class Cummin(RunningExtremum):
    """The least element so far and its index along `axis`; of equal ones the latest, NaN counts as the least."""
    name = "cummin"
    axis: int

    def better(self, x: Scalar, best: Scalar) -> Scalar:
        return x <= best
