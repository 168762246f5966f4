"""Reductions over axes: folds with an identity for empty ranges."""

from __future__ import annotations

from typing import Any, ClassVar

from effcc.ir import scalar as s
from effcc.ir.dims import Dim, product
from effcc.ir.lazy import torch
from effcc.ir.op import Op, require, tensor
from effcc.ir.scalar import PARALLEL, REDUCTION, Compute, Read, Scalar, State
from effcc.ir.types import DType, Tensor, Type, i64
from effcc.ops.contraction import accumulate_dtype


def convert(b: Any, x: Any, dtype: DType) -> Any:
    """A cast, or nothing where x has the dtype."""
    return x if x.dtype == dtype else b.cast(x, to=dtype)


def widen(b: Any, x: Any) -> Any:
    """f32 for the short floats, in which statistics are computed."""
    return convert(b, x, accumulate_dtype(x.dtype, None))


def reduced_shape(shape: tuple[Dim, ...], axes: tuple[int, ...], keepdims: bool) -> tuple[Dim, ...]:
    return tuple(1 if k in axes else d for k, d in enumerate(shape) if keepdims or k not in axes)


def reduction_space(
    shape: tuple[Dim, ...], axes: tuple[int, ...], keepdims: bool
) -> tuple[tuple[Dim, ...], str, tuple[Scalar, ...]]:
    """(extents, kinds, where x is read): the result's axes in order, then the reduced ones."""
    outer = reduced_shape(shape, axes, keepdims)
    at: list[Scalar] = []
    place, inner = 0, len(outer)
    for k in range(len(shape)):
        if k in axes:
            at.append(s.index(inner))
            inner += 1
            place += keepdims
        else:
            at.append(s.index(place))
            place += 1
    return (*outer, *(shape[k] for k in sorted(axes))), PARALLEL * len(outer) + REDUCTION * len(axes), tuple(at)


class Reduction(Op):
    """Folds `axes` (sorted, not negative); `keepdims` leaves axes of size 1."""

    family = "reduction"
    kinds: ClassVar[str] = "fiu"

    def result_dtype(self, dtype: DType) -> DType:
        return dtype

    def infer(self, x: Type) -> Tensor:
        t = tensor(x)
        axes: tuple[int, ...] = self.axes  # type: ignore[attr-defined]
        require(t.dtype.kind in self.kinds, f"{self.name} does not take {t.dtype}", "insert a cast")
        require(
            all(0 <= a < t.rank for a in axes) and list(axes) == sorted(set(axes)),
            f"axes {axes} are not distinct, sorted axes of a rank-{t.rank} tensor",
        )
        return Tensor(self.result_dtype(t.dtype), reduced_shape(t.shape, axes, self.keepdims))  # type: ignore[attr-defined]

    def fold(self, x: Scalar, state: Scalar) -> Scalar:
        raise NotImplementedError

    def identity(self, dtype: DType) -> float | int | bool:
        raise NotImplementedError

    def finish(self, state: Scalar, count: Dim) -> Scalar:
        return state

    def compute(self, x: Tensor) -> Compute | None:
        axes: tuple[int, ...] = self.axes  # type: ignore[attr-defined]
        extents, kinds, at = reduction_space(x.shape, axes, self.keepdims)  # type: ignore[attr-defined]
        acc = accumulate_dtype(x.dtype, None)
        state = State(acc, 0)
        step = self.fold(s.cast(Read(x.dtype, 0, at), acc), state)
        done = self.finish(state, product(x.shape[a] for a in axes))
        out = self.result_dtype(x.dtype)
        return Compute(
            extents, (done if out.is_bool else s.cast(done, out),), kinds, (s.const(acc, self.identity(acc)),), (step,)
        )


def over_axes(x: Any, axes: tuple[int, ...], keepdims: bool, one: Any) -> Any:
    """Apply a one-axis torch reduction over several axes, last first."""
    for a in reversed(axes):
        x = one(x, a, keepdims)
    return x


class Sum(Reduction):
    """Σ x; integers wrap; empty: 0"""

    name = "sum"
    axes: tuple[int, ...]
    keepdims: bool = False

    def fold(self, x: Scalar, state: Scalar) -> Scalar:
        return state + x

    def identity(self, dtype: DType) -> int:
        return 0

    def reference(self, x: Any) -> Any:
        return x.sum(self.axes, keepdim=self.keepdims, dtype=x.dtype) if self.axes else x.clone()


class Prod(Reduction):
    """Π x; integers wrap; empty: 1"""

    name = "prod"
    axes: tuple[int, ...]
    keepdims: bool = False

    def fold(self, x: Scalar, state: Scalar) -> Scalar:
        return state * x

    def identity(self, dtype: DType) -> int:
        return 1

    def reference(self, x: Any) -> Any:
        if x.dtype in (torch.float16, torch.bfloat16):
            return self.reference(x.float()).to(x.dtype)
        return (
            over_axes(x, self.axes, self.keepdims, lambda t, a, k: t.prod(a, keepdim=k, dtype=x.dtype))
            if self.axes
            else x.clone()
        )


class Mean(Reduction):
    """Σ x / count; empty: NaN"""

    name = "mean"
    kinds = "f"
    axes: tuple[int, ...]
    keepdims: bool = False

    def fold(self, x: Scalar, state: Scalar) -> Scalar:
        return state + x

    def identity(self, dtype: DType) -> int:
        return 0

    def finish(self, state: Scalar, count: Dim) -> Scalar:
        return state / s.cast(s.size(count), state.dtype)

    def reference(self, x: Any) -> Any:
        return x.mean(self.axes, keepdim=self.keepdims) if self.axes else x.clone()


class Amax(Reduction):
    """The greatest; NaN if any is; empty: the least value of the dtype"""

    name = "amax"
    kinds = "fiub"
    axes: tuple[int, ...]
    keepdims: bool = False

    def fold(self, x: Scalar, state: Scalar) -> Scalar:
        return (state | x) if x.dtype.is_bool else s.maximum(state, x)

    def identity(self, dtype: DType) -> float | int | bool:
        return False if dtype.is_bool else dtype.min

    def reference(self, x: Any) -> Any:
        return _extremum(x, self.axes, self.keepdims, torch.amax, DType.of(x.dtype).min)


class Amin(Reduction):
    """The least; NaN if any is; empty: the greatest value of the dtype"""

    name = "amin"
    kinds = "fiub"
    axes: tuple[int, ...]
    keepdims: bool = False

    def fold(self, x: Scalar, state: Scalar) -> Scalar:
        return (state & x) if x.dtype.is_bool else s.minimum(state, x)

    def identity(self, dtype: DType) -> float | int | bool:
        return True if dtype.is_bool else dtype.max

    def reference(self, x: Any) -> Any:
        return _extremum(x, self.axes, self.keepdims, torch.amin, DType.of(x.dtype).max)


def _extremum(x: Any, axes: tuple[int, ...], keepdims: bool, reduce: Any, empty: Any) -> Any:
    if not axes:
        return x.clone()
    if any(x.shape[a] == 0 for a in axes):
        return torch.full(reduced_shape(tuple(x.shape), axes, keepdims), empty, dtype=x.dtype)  # type: ignore[arg-type]
    return reduce(x, axes, keepdim=keepdims)


class Any_(Reduction):
    """Whether any is true; empty: false"""

    name = "any"
    kinds = "b"
    axes: tuple[int, ...]
    keepdims: bool = False

    def fold(self, x: Scalar, state: Scalar) -> Scalar:
        return state | x

    def identity(self, dtype: DType) -> bool:
        return False

    def reference(self, x: Any) -> Any:
        return x.any(self.axes, keepdim=self.keepdims) if self.axes else x.clone()


class All(Reduction):
    """Whether all are true; empty: true"""

    name = "all"
    kinds = "b"
    axes: tuple[int, ...]
    keepdims: bool = False

    def fold(self, x: Scalar, state: Scalar) -> Scalar:
        return state & x

    def identity(self, dtype: DType) -> bool:
        return True

    def reference(self, x: Any) -> Any:
        return x.all(self.axes, keepdim=self.keepdims) if self.axes else x.clone()


class Logsumexp(Reduction):
    """max + ln Σ e^(x - max); empty: -inf"""

    name = "logsumexp"
    kinds = "f"
    axes: tuple[int, ...]
    keepdims: bool = False

    def compute(self, x: Tensor) -> None:
        return None

    def decompose(self, b: Any, x: Any) -> Any:
        w = widen(b, x)
        top = b.amax(w, axes=self.axes, keepdims=True)
        top = b.where(b.isinf(top), b.full_like(w, 0.0), top)
        total = b.sum(b.exp(b.sub(w, top)), axes=self.axes, keepdims=self.keepdims)
        shape = self.infer(x.type).shape
        return convert(b, b.add(b.log(total), top if self.keepdims else b.reshape(top, shape=shape)), x.dtype)

    def reference(self, x: Any) -> Any:
        return x.logsumexp(self.axes, keepdim=self.keepdims) if self.axes else x.clone()


class Var(Reduction):
    """Σ (x - mean)² / (count - correction)"""

    name = "var"
    kinds = "f"
    axes: tuple[int, ...]
    correction: int | float = 1
    keepdims: bool = False

    def compute(self, x: Tensor) -> None:
        return None

    def decompose(self, b: Any, x: Any) -> Any:
        w = widen(b, x)
        d = b.sub(w, b.mean(w, axes=self.axes, keepdims=True))
        total = b.sum(b.mul(d, d), axes=self.axes, keepdims=self.keepdims)
        count = product(x.shape[a] for a in self.axes)
        if isinstance(count, int):
            divisor = b.full_like(w, float(max(count - self.correction, 0)))
        else:
            known = b.sub(b.cast(b.dim(value=count), to=w.dtype), b.full_like(w, float(self.correction)))
            divisor = b.max(known, b.full_like(w, 0.0))
        return convert(b, b.div(total, divisor), x.dtype)

    def reference(self, x: Any) -> Any:
        if not self.axes:  # torch takes that for all axes
            return (x - x) / max(1 - self.correction, 0)
        return x.var(self.axes, correction=self.correction, keepdim=self.keepdims)


class Position(Op):
    """The index of an extreme element along one axis; NaN counts as the extreme; ties: the first, or the last."""

    family = "reduction"

    def infer(self, x: Type) -> Tensor:
        t = tensor(x)
        axis: int = self.axis  # type: ignore[attr-defined]
        require(0 <= axis < t.rank, f"axis {axis} is not an axis of a rank-{t.rank} tensor")
        require(t.shape[axis] != 0, f"{self.name} of an empty axis")
        return Tensor(i64, reduced_shape(t.shape, (axis,), self.keepdims))  # type: ignore[attr-defined]

    def better(self, x: Scalar, best: Scalar) -> Scalar:
        raise NotImplementedError

    def compute(self, x: Tensor) -> Compute:
        axis: int = self.axis  # type: ignore[attr-defined]
        extents, kinds, at = reduction_space(x.shape, (axis,), self.keepdims)  # type: ignore[attr-defined]
        here, value = s.index(len(extents) - 1), Read(x.dtype, 0, at)
        best, where = State(x.dtype, 0), State(i64, 1)
        take = self.better(value, best)
        if self.select_last:  # type: ignore[attr-defined]
            take = take | value.eq(best)
        if x.dtype.is_float:
            both = s.isnan(value) & s.isnan(best)
            fresh = both if self.select_last else both & where.eq(-1)  # type: ignore[attr-defined]
            take = s.select(s.isnan(best), fresh, take | s.isnan(value))
        take = take | where.eq(-1)
        init = Read(x.dtype, 0, tuple(s.size(0) if k == axis else i for k, i in enumerate(at)))
        return Compute(
            extents,
            (where,),
            kinds,
            (init, s.const(i64, -1)),
            (s.select(take, value, best), s.select(take, here, where)),
        )

    def reference(self, x: Any) -> Any:
        axis, keep = self.axis, self.keepdims  # type: ignore[attr-defined]
        pick = getattr(torch, self.name)
        if x.dtype == torch.bool:
            x = x.to(torch.uint8)
        if not self.select_last:  # type: ignore[attr-defined]
            return pick(x, axis, keepdim=keep)
        return x.shape[axis] - 1 - pick(x.flip(axis), axis, keepdim=keep)


class Argmax(Position):
    """Where the greatest is"""

    name = "argmax"
    axis: int
    keepdims: bool = False
    select_last: bool = False

    def better(self, x: Scalar, best: Scalar) -> Scalar:
        return x > best


class Argmin(Position):
    """Where the least is"""

    name = "argmin"
    axis: int
    keepdims: bool = False
    select_last: bool = False

    def better(self, x: Scalar, best: Scalar) -> Scalar:
        return x < best
