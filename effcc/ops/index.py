"""Indexing: gathers, scatters and coordinates: which element is read or written depends on data or on positions.

Index operands are i64 or i32. A negative index counts from the end; an index outside [-n, n) is undefined in value, but
never reads or writes outside of the tensor. Scatters run in the updates' row-major order: of equal indices the last one
wins.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

from effcc.ir import scalar as s
from effcc.ir.assumptions import may_equal, may_fit
from effcc.ir.dims import Dim, Symbol, dim_min, upper_bound
from effcc.ir.lazy import torch
from effcc.ir.op import Op, require, tensor
from effcc.ir.scalar import PARALLEL, REDUCTION, SCAN, Compute, Old, Read, Scalar, State
from effcc.ir.types import DType, Tensor, Type, i32, i64

REDUCTIONS = ("none", "add", "mul", "min", "max")


class Indexing(Op):
    family = "index"
    undefined: ClassVar[str] = "an index outside [-n, n) of an axis of size n"


def index_tensor(type_: Type, what: str = "the index") -> Tensor:
    """An operand that holds indices, or a refusal."""
    t = tensor(type_, what)
    require(t.dtype in (i64, i32), f"{what} is {t.dtype}, not i64 or i32", "insert a cast")
    return t


def require_axis(axis: int, t: Tensor) -> None:
    require(0 <= axis < t.rank, f"axis {axis} is not an axis of a rank-{t.rank} tensor")


def require_elements(idx: Tensor, size: Dim) -> None:
    """An index is of an axis that has elements."""
    require(may_fit(dim_min(idx.size, 1), size), "there is nothing to index: the axis is empty")


def wrap_index(i: Scalar, size: Dim) -> Scalar:
    """An index from data as a position in [0, size): negative ones count from the end, the rest is clamped."""
    i = s.cast(i, i64)
    i = s.select(i < 0, i + s.size(size), i)
    return s.maximum(s.minimum(i, s.size(size - 1)), 0)


def wrap(idx: Any, size: int) -> Any:
    """The same on a torch index tensor."""
    idx = idx.to(torch.int64)
    return torch.where(idx < 0, idx + size, idx).clamp(0, max(size - 1, 0))


def loop_indices(rank: int, first: int = 0) -> tuple[Scalar, ...]:
    return tuple(s.index(first + k) for k in range(rank))


# -- gathers -----------------------------------------------------------------------------------------------------------
class Gather(Indexing):
    """Slices of x: result[a..., i..., b...] = x[a..., idx[i...], b...], `idx` in place of axis `axis`. An embedding
    look-up is a gather on axis 0. (ONNX Gather, numpy.take)"""
    name = "gather"
    operands = ("x", "idx")
    axis: int = 0

    def infer(self, x: Type, idx: Type) -> Tensor:
        t, i = tensor(x), index_tensor(idx)
        require_axis(self.axis, t)
        require_elements(i, t.shape[self.axis])
        return t.with_shape((*t.shape[: self.axis], *i.shape, *t.shape[self.axis + 1:]))

    def reference(self, x: Any, idx: Any) -> Any:
        picked = x.index_select(self.axis, wrap(idx, x.shape[self.axis]).reshape(-1))
        return picked.reshape((*x.shape[: self.axis], *idx.shape, *x.shape[self.axis + 1:]))

    def compute(self, x: Tensor, idx: Tensor) -> Compute:
        a, out = self.axis, self.infer(x, idx)
        chosen = wrap_index(Read(idx.dtype, 1, loop_indices(idx.rank, a)), x.shape[a])
        at = (*loop_indices(a), chosen, *loop_indices(x.rank - a - 1, a + idx.rank))
        return Compute(out.shape, (Read(x.dtype, 0, at),))


class GatherElements(Indexing):
    """result[..., i, ...] = x[..., idx[..., i, ...], ...]: an index for each element; `idx` is no larger than x on the
    other axes. (ONNX GatherElements, torch.gather)"""
    name = "gather_elements"
    operands = ("x", "idx")
    axis: int = 0

    def infer(self, x: Type, idx: Type) -> Tensor:
        t, i = tensor(x), index_tensor(idx)
        require(t.rank == i.rank, f"the index has rank {i.rank}, the data {t.rank}")
        require_axis(self.axis, t)
        for k, (d, n) in enumerate(zip(i.shape, t.shape, strict=True)):
            require(k == self.axis or may_fit(d, n),
                    f"the index has {d} elements on axis {k}, the data {n}")
        require_elements(i, t.shape[self.axis])
        return t.with_shape(i.shape)

    def reference(self, x: Any, idx: Any) -> Any:
        return x.gather(self.axis, wrap(idx, x.shape[self.axis]))

    def compute(self, x: Tensor, idx: Tensor) -> Compute:
        here = loop_indices(x.rank)
        chosen = wrap_index(Read(idx.dtype, 1, here), x.shape[self.axis])
        at = tuple(chosen if k == self.axis else i for k, i in enumerate(here))
        return Compute(idx.shape, (Read(x.dtype, 0, at),))


class GatherNd(Indexing):
    """Slices at index tuples: result[b..., i..., t...] = x[b..., idx[b..., i..., 0], ..., idx[b..., i..., k-1], t...]
    with `batch_dims` leading axes b in common. (ONNX GatherND)"""
    name = "gather_nd"
    operands = ("x", "idx")
    batch_dims: int = 0

    def infer(self, x: Type, idx: Type) -> Tensor:
        t, i, b = tensor(x), index_tensor(idx), self.batch_dims
        k = tuple_length(i)
        require(0 <= b < i.rank and b + k <= t.rank, f"{b} batch axes and index tuples of {k} do not fit {t} and {i}")
        require(all(may_equal(d, e) for d, e in zip(t.shape[:b], i.shape[:b])), "the batch axes differ in size")
        for size in t.shape[b:b + k]:
            require_elements(i, size)
        return t.with_shape((*i.shape[:-1], *t.shape[b + k:]))

    def reference(self, x: Any, idx: Any) -> Any:
        b, k = self.batch_dims, idx.shape[-1]
        at = [torch.arange(n).reshape([-1] + [1] * (idx.dim() - 2 - a)) for a, n in enumerate(x.shape[:b])]
        at += [wrap(idx[..., j], x.shape[b + j]) for j in range(k)]
        if not at:
            return x.broadcast_to((*idx.shape[:-1], *x.shape)).clone()
        at = torch.broadcast_tensors(*at, torch.empty(idx.shape[:-1]))[:-1]
        return x[tuple(at)]

    def compute(self, x: Tensor, idx: Tensor) -> Compute:
        b, k, outer = self.batch_dims, tuple_length(idx), loop_indices(idx.rank - 1)
        picks = tuple(wrap_index(Read(idx.dtype, 1, (*outer, s.size(j))), x.shape[b + j]) for j in range(k))
        at = (*outer[:b], *picks, *loop_indices(x.rank - b - k, idx.rank - 1))
        return Compute(self.infer(x, idx).shape, (Read(x.dtype, 0, at),))


def tuple_length(idx: Tensor) -> int:
    """The length of the index tuples on the last axis, which has to be known."""
    require(
        idx.rank >= 1 and isinstance(idx.shape[-1], int),
        "the index needs a last axis of known size: the length of its tuples",
    )
    return idx.shape[-1]  # type: ignore[return-value]


# -- scatters ----------------------------------------------------------------------------------------------------------
class Scatter(Indexing):
    """A copy of x with some elements replaced by updates, or combined with them (`reduction`: none, add, mul, min,
    max)."""

    operands = ("x", "idx", "updates")

    def check(self, x: Tensor, updates: Tensor) -> None:
        how: str = self.reduction  # type: ignore[attr-defined]
        require(how in REDUCTIONS, f"unknown reduction {how!r}", "one of " + ", ".join(REDUCTIONS))
        require(x.dtype == updates.dtype, f"the updates are {updates.dtype}, the data {x.dtype}", "insert a cast")
        require(how == "none" or not x.dtype.is_bool, f"{how} does not take bool", "insert a cast")

    def combined(self, update: Scalar) -> Scalar:
        how: str = self.reduction  # type: ignore[attr-defined]
        return update if how == "none" else s.apply(how, Old(update.dtype, 0), update)

    def scatter(self, x: Any, axis: int, idx: Any, updates: Any) -> Any:
        """Along one axis, in torch; `idx` is in range."""
        how: str = self.reduction  # type: ignore[attr-defined]
        if how != "none":
            return x.scatter_reduce(
                axis, idx, updates, {"add": "sum", "mul": "prod", "min": "amin", "max": "amax"}[how]
            )
        region = tuple(slice(0, d if k == axis else n) for k, (d, n) in enumerate(zip(x.shape, idx.shape)))
        position = (
            torch.arange(idx.shape[axis]).reshape([-1 if k == axis else 1 for k in range(x.dim())]).expand_as(idx)
        )
        last = torch.full(x[region].shape, -1).scatter_reduce(axis, idx, position, "amax")  # of equal indices
        out = x.clone()
        if idx.numel():
            out[region] = torch.where(last >= 0, updates.gather(axis, last.clamp(min=0)), x[region])
        return out


class ScatterElements(Scatter):
    """x with, for each element of the updates in order, x[..., idx[..., i, ...], ...] = updates[..., i, ...].
    (ONNX ScatterElements, torch.scatter_reduce with include_self)"""
    name = "scatter_elements"
    axis: int = 0
    reduction: str = "none"

    def infer(self, x: Type, idx: Type, updates: Type) -> Tensor:
        t, i, u = tensor(x), index_tensor(idx), tensor(updates)
        require(t.rank == i.rank, f"the index has rank {i.rank}, the data {t.rank}")
        require_axis(self.axis, t)
        self.check(t, u)
        require(
            i.rank == u.rank and all(map(may_equal, i.shape, u.shape)),
            f"the updates {u} have another shape than the index {i}",
        )
        for k, (d, n) in enumerate(zip(i.shape, t.shape, strict=True)):
            require(k == self.axis or may_fit(d, n),
                    f"the index has {d} elements on axis {k}, the data {n}")
        require_elements(i, t.shape[self.axis])
        return t

    def reference(self, x: Any, idx: Any, updates: Any) -> Any:
        return self.scatter(x, self.axis, wrap(idx, x.shape[self.axis]), updates)

    def compute(self, x: Tensor, idx: Tensor, updates: Tensor) -> Compute:
        here = loop_indices(x.rank)
        place = wrap_index(Read(idx.dtype, 1, here), x.shape[self.axis])
        kinds = "".join(SCAN if k == self.axis else PARALLEL for k in range(x.rank))
        write = tuple(place if k == self.axis else i for k, i in enumerate(here))
        return Compute(idx.shape, (self.combined(Read(x.dtype, 2, here)),), kinds, write=(write,), initial=0)


class ScatterNd(Scatter):
    """x with, for each index tuple in order, x[idx[i..., 0], ..., idx[i..., k-1], t...] = updates[i..., t...].
    (ONNX ScatterND; torch's index_put, with `add` for accumulate)"""
    name = "scatter_nd"
    reduction: str = "none"

    def infer(self, x: Type, idx: Type, updates: Type) -> Tensor:
        t, i, u = tensor(x), index_tensor(idx), tensor(updates)
        k = tuple_length(i)
        self.check(t, u)
        require(k <= t.rank, f"index tuples of {k} are longer than the rank {t.rank}")
        shape = (*i.shape[:-1], *t.shape[k:])
        require(
            u.rank == len(shape) and all(map(may_equal, u.shape, shape)),
            f"the updates {u} should have shape {list(shape)}",
        )
        for size in t.shape[:k]:
            require_elements(i, size)
        return t

    def reference(self, x: Any, idx: Any, updates: Any) -> Any:
        k = idx.shape[-1]
        rows, inner = math.prod(x.shape[:k]), math.prod(x.shape[k:])
        flat = torch.zeros(idx.shape[:-1], dtype=torch.int64)
        for j in range(k):
            flat = flat * x.shape[j] + wrap(idx[..., j], x.shape[j])
        flat = flat.reshape(-1, 1).expand(-1, inner)
        return self.scatter(x.reshape(rows, inner), 0, flat, updates.reshape(flat.shape)).reshape(x.shape)

    def compute(self, x: Tensor, idx: Tensor, updates: Tensor) -> Compute:
        k, outer = tuple_length(idx), idx.rank - 1
        inner = loop_indices(x.rank - k, outer)
        places = tuple(wrap_index(Read(idx.dtype, 1, (*loop_indices(outer), s.size(j))), x.shape[j]) for j in range(k))
        return Compute((*idx.shape[:-1], *x.shape[k:]), (self.combined(Read(x.dtype, 2, loop_indices(updates.rank))),),
                       SCAN * outer + PARALLEL * (x.rank - k), write=((*places, *inner),), initial=0)


class UpdateSlice(Indexing):
    """x with the block at `starts` (one i64[] for each axis) replaced: result[starts + i] = updates[i]. Starts are
    clamped so that the block fits. The memory planner writes it in place where x is not needed any more: the KV cache.
    (XLA DynamicUpdateSlice)"""
    name = "update_slice"
    operands = ("x", "updates", "*starts")
    undefined = ""

    def infer(self, x: Type, updates: Type, *starts: Type) -> Tensor:
        t, u = tensor(x), tensor(updates)
        require(t.dtype == u.dtype, f"the updates are {u.dtype}, the data {t.dtype}", "insert a cast")
        require(t.rank == u.rank, f"the updates have rank {u.rank}, the data {t.rank}")
        require_block(t, u.shape, starts)
        return t

    def reference(self, x: Any, updates: Any, *starts: Any) -> Any:
        out = x.clone()
        out[block(x, updates.shape, starts)] = updates
        return out

    def compute(self, x: Tensor, updates: Tensor, *starts: Tensor) -> Compute:
        here = loop_indices(x.rank)
        write = tuple(i + block_start(Read(t.dtype, 2 + k, ()), x.shape[k], updates.shape[k])
                      for k, (i, t) in enumerate(zip(here, starts, strict=True)))
        return Compute(updates.shape, (Read(x.dtype, 1, here),), write=(write,), initial=0)


class DynamicSlice(Indexing):
    """The block of x of `sizes` at `starts` (one i64[] for each axis): result[i] = x[starts + i]. Starts are clamped so
    that the block fits. (XLA DynamicSlice)"""
    name = "dynamic_slice"
    operands = ("x", "*starts")
    undefined = ""
    sizes: tuple[Dim, ...]

    def infer(self, x: Type, *starts: Type) -> Tensor:
        t = tensor(x)
        require(len(self.sizes) == t.rank, f"a rank-{t.rank} tensor needs {t.rank} sizes, got {len(self.sizes)}")
        require_block(t, self.sizes, starts)
        return t.with_shape(self.sizes)

    def reference(self, x: Any, *starts: Any) -> Any:
        return x[block(x, self.sizes, starts)].clone()

    def compute(self, x: Tensor, *starts: Tensor) -> Compute:
        at = tuple(i + block_start(Read(t.dtype, 1 + k, ()), x.shape[k], self.sizes[k])
                   for k, (i, t) in enumerate(zip(loop_indices(x.rank), starts, strict=True)))
        return Compute(self.sizes, (Read(x.dtype, 0, at),))


def require_block(x: Tensor, sizes: tuple[Dim, ...], starts: tuple[Type, ...]) -> None:
    require(len(starts) == x.rank, f"a rank-{x.rank} tensor needs {x.rank} starts, got {len(starts)}")
    for start in starts:
        require(index_tensor(start, "a start").rank == 0, "a start is not of rank 0")
    for k, (n, d) in enumerate(zip(sizes, x.shape, strict=True)):
        require(
            may_fit(n, d),
            f"a block of {n} is larger than axis {k} of size {d}",
        )


def block_start(start: Scalar, size: Dim, length: Dim) -> Scalar:
    return s.maximum(s.minimum(s.cast(start, i64), s.size(size - length)), 0)


def block(x: Any, sizes: tuple[Any, ...], starts: tuple[Any, ...]) -> tuple[slice, ...]:
    firsts = [max(min(int(a), d - n), 0) for a, d, n in zip(starts, x.shape, sizes)]
    return tuple(slice(a, a + n) for a, n in zip(firsts, sizes))


# -- coordinates -------------------------------------------------------------------------------------------------------
class Iota(Indexing):
    """Each element is its own index on `axis`, in the dtype: result[..., i, ...] = i. (XLA Iota)"""
    name = "iota"
    operands = ()
    undefined = ""
    shape: tuple[Dim, ...]
    axis: int = 0
    dtype: DType = i64

    def infer(self) -> Tensor:
        t = Tensor(self.dtype, self.shape)
        require_axis(self.axis, t)
        require(self.dtype.is_float or self.dtype.is_integer, f"iota does not give {self.dtype}")
        return t

    def reference(self) -> Any:
        lanes = [1] * len(self.shape)
        lanes[self.axis] = -1
        return torch.arange(self.shape[self.axis]).to(self.dtype.torch).reshape(lanes).broadcast_to(self.shape).clone()

    def compute(self) -> Compute:
        return Compute(self.shape, (s.cast(s.index(self.axis), self.dtype),))


class DimValue(Indexing):
    """A dimension as data."""
    name = "dim"
    operands = ()
    undefined = ""
    value: Dim

    def infer(self) -> Tensor:
        return Tensor(i64, ())

    def reference(self) -> Any:
        return torch.tensor(self.value, dtype=torch.int64)

    def compute(self) -> Compute:
        return Compute((), (s.size(self.value),))


class Trilu(Indexing):
    """The upper or lower triangle of the last two axes, zeros elsewhere: result[..., i, j] = x[..., i, j] where j - i ≥
    k (upper) or ≤ k (lower), k = 0 unless given. (ONNX Trilu, torch.triu and tril)"""
    name = "trilu"
    operands = ("x", "k?")
    undefined = ""
    upper: bool = True

    def infer(self, x: Type, k: Type | None = None) -> Tensor:
        require(tensor(x).rank >= 2, "trilu needs at least two axes")
        require(k is None or index_tensor(k, "k").rank == 0, "k is not of rank 0")
        return tensor(x)

    def reference(self, x: Any, k: Any = None) -> Any:
        return (torch.triu if self.upper else torch.tril)(x, 0 if k is None else max(min(int(k), 2**40), -(2**40)))

    def compute(self, x: Tensor, k: Tensor | None = None) -> Compute:
        here = loop_indices(x.rank)
        diagonal: Scalar = s.size(0) if k is None else s.cast(Read(k.dtype, 1, ()), i64)
        above = here[-1] - here[-2]
        keep = above >= diagonal if self.upper else above <= diagonal
        zero = False if x.dtype.is_bool else 0
        return Compute(x.shape, (s.select(keep, Read(x.dtype, 0, here), zero),))


class Roll(Indexing):
    """Cyclic shift: result[..., i, ...] = x[..., (i - shift) mod n, ...], one shift for each axis. (torch.roll)"""
    name = "roll"
    undefined = ""
    shifts: tuple[Dim, ...]

    def infer(self, x: Type) -> Tensor:
        require(
            len(self.shifts) == tensor(x).rank,
            f"roll needs {tensor(x).rank} shifts, got {len(self.shifts)}",
            "0 for axes that stay",
        )
        return tensor(x)

    def reference(self, x: Any) -> Any:
        return torch.roll(x, self.shifts, tuple(range(x.dim()))) if x.dim() else x.clone()

    def compute(self, x: Tensor) -> Compute:
        at = tuple(
            i if n == 0 else (i - s.size(n)) % s.size(d)
            for i, n, d in zip(loop_indices(x.rank), self.shifts, x.shape, strict=True)
        )
        return Compute(x.shape, (Read(x.dtype, 0, at),))


class SearchSorted(Indexing):
    """Where each value belongs in a sorted last axis: the first position whose boundary is not less than it (with
    `right`: is greater). `boundaries` is one vector, or one for each row of `values`. Bucketize is searchsorted in one
    vector; NaN comes last. (torch.searchsorted)"""
    name = "searchsorted"
    operands = ("boundaries", "values")
    undefined = "boundaries that are not sorted"
    right: bool = False

    def infer(self, boundaries: Type, values: Type) -> Tensor:
        t, v = tensor(boundaries), tensor(values)
        require(
            t.dtype == v.dtype and not t.dtype.is_bool,
            f"boundaries of {t.dtype} and values of {v.dtype}",
            "insert a cast",
        )
        require(t.rank >= 1, "the boundaries need an axis")
        require(t.rank == 1 or (t.rank == v.rank and all(map(may_equal, t.shape[:-1], v.shape[:-1]))),
                "the leading axes of boundaries and values differ")
        return Tensor(i64, v.shape)

    def reference(self, boundaries: Any, values: Any) -> Any:
        if boundaries.dtype in (torch.float16, torch.bfloat16):
            boundaries, values = boundaries.float(), values.float()
        return torch.searchsorted(boundaries.contiguous(), values.contiguous(), right=self.right)

    def compute(self, boundaries: Tensor, values: Tensor) -> Compute:
        n = boundaries.shape[-1]
        if n == 0:
            return Compute(values.shape, (s.size(0),))
        most = upper_bound(n)
        halvings = (2**62 if most is None else most).bit_length()  # of an interval of n + 1 positions
        here = loop_indices(values.rank)
        low, high = State(i64, 0), State(i64, 1)
        middle = (low + high) // 2
        row = () if boundaries.rank == 1 else here[:-1]
        boundary = Read(boundaries.dtype, 0, (*row, s.maximum(s.minimum(middle, s.size(n - 1)), 0)))
        value = Read(values.dtype, 1, here)
        before = ~(boundary > value if self.right else boundary >= value)
        open_ = low < high
        step = (s.select(open_ & before, middle + 1, low), s.select(open_ & ~before, middle, high))
        return Compute(
            (*values.shape, halvings), (low,), PARALLEL * values.rank + REDUCTION, (s.size(0), s.size(n)), step
        )


# -- sizes that depend on data -----------------------------------------------------------------------------------------
class Nonzero(Indexing):
    """The indices of the elements that are not zero, in row-major order: i64[rank, size]. (ONNX NonZero,
    torch.nonzero().T)"""
    name = "nonzero"
    undefined = ""
    routine = True
    size: Symbol

    def infer(self, x: Type) -> Tensor:
        return Tensor(i64, (tensor(x).rank, self.size))

    def defines(self, x: Tensor) -> dict[Symbol, Dim]:
        return {self.size: x.size}

    def reference(self, x: Any) -> Any:
        return torch.nonzero(x).T.contiguous()


class Compress(Indexing):
    """The slices of `axis` whose `keep` is true, in order. (ONNX Compress; masked_select on flattened operands)"""
    name = "compress"
    undefined = ""
    routine = True
    operands = ("x", "keep")
    axis: int
    size: Symbol

    def infer(self, x: Type, keep: Type) -> Tensor:
        t, k = tensor(x), tensor(keep)
        require_axis(self.axis, t)
        require(k.dtype.is_bool and k.rank == 1, f"the mask is {k}, not bool of rank 1")
        require(
            may_fit(k.shape[0], t.shape[self.axis]),
            f"the mask {k} is longer than axis {self.axis} of {t}",
        )
        return t.with_shape((*t.shape[: self.axis], self.size, *t.shape[self.axis + 1:]))

    def defines(self, x: Tensor, keep: Tensor) -> dict[Symbol, Dim]:
        return {self.size: keep.shape[0]}

    def reference(self, x: Any, keep: Any) -> Any:
        return x.index_select(self.axis, keep.nonzero().reshape(-1))

