"""Views and data movement: every result element is one operand element (or padding), found by index arithmetic."""

from __future__ import annotations

from typing import Any

from effcc.ir import scalar as s
from effcc.ir.assumptions import may_equal, may_fit
from effcc.ir.dims import Dim, ceildiv, dim_max, product
from effcc.ir.lazy import torch
from effcc.ir.op import Op, require, tensor
from effcc.ir.scalar import Compute, Read, Scalar
from effcc.ir.types import Tensor, Type
from effcc.ops.elementwise import broadcast_index, broadcast_shapes


class View(Op):
    family = "view"


def linear_index(index: tuple[Scalar, ...], shape: tuple[Dim, ...]) -> Scalar:
    """The row-major position of an index."""
    flat: Scalar = s.size(0)
    for i, d in zip(index, shape, strict=True):
        flat = flat * s.size(d) + i if not (isinstance(flat, s.Literal) and flat.value == 0) else i
    return flat


def reshape_index(shape: tuple[Dim, ...], result: tuple[Dim, ...]) -> tuple[Scalar, ...]:
    """Where x of `shape` is read for the element of the reshaped result at the loop indices.

    Axes are matched in groups of equal products, so that most of them need no division.
    """
    at: list[Scalar] = []
    i = j = 0
    while i < len(shape) or j < len(result):
        start_i, start_j = i, j
        a: Dim = 1
        b: Dim = 1
        if i < len(shape):
            a, i = shape[i], i + 1
        if j < len(result):
            b, j = result[j], j + 1
        while a != b and (i < len(shape) or j < len(result)):
            if j < len(result) and (i == len(shape) or _smaller(b, a)):
                b, j = b * result[j], j + 1
            else:
                a, i = a * shape[i], i + 1
        at += _delinearize(tuple(shape[start_i:i]), tuple(result[start_j:j]), start_j)
    return tuple(at)


def _smaller(a: Dim, b: Dim) -> bool:
    if isinstance(a, int) and isinstance(b, int):
        return a < b
    return isinstance(a, int) or (not isinstance(b, int) and len(str(a)) < len(str(b)))


def _delinearize(shape: tuple[Dim, ...], result: tuple[Dim, ...], first: int) -> list[Scalar]:
    significant = [k for k, d in enumerate(shape) if d != 1]
    flat = linear_index(
        tuple(s.index(first + k) for k, d in enumerate(result) if d != 1), tuple(d for d in result if d != 1)
    )
    out: list[Scalar] = [s.size(0)] * len(shape)
    stride: Dim = 1
    for k in reversed(significant):
        part = flat if stride == 1 else flat // s.size(stride)
        out[k] = part if k == significant[0] else part % s.size(shape[k])
        stride = stride * shape[k]
    return out


class Reshape(View):
    """The same elements in row-major order under another shape."""

    name = "reshape"
    shape: tuple[Dim, ...]

    def infer(self, x: Type) -> Tensor:
        t = tensor(x)
        before, after = t.size, product(self.shape)
        require(
            may_equal(before, after),
            f"{before} elements do not fit shape {list(self.shape)} ({after} elements)",
        )
        return t.with_shape(self.shape)

    def reference(self, x: Any) -> Any:
        return x.reshape(self.shape)

    def compute(self, x: Tensor) -> Compute:
        return Compute(self.shape, (Read(x.dtype, 0, reshape_index(x.shape, self.shape)),))


class Transpose(View):
    """Permute the axes: result axis k is x's axis perm[k]."""

    name = "transpose"
    perm: tuple[int, ...]

    def infer(self, x: Type) -> Tensor:
        t = tensor(x)
        require(sorted(self.perm) == list(range(t.rank)), f"{self.perm} is no permutation of {t.rank} axes")
        return t.with_shape(tuple(t.shape[p] for p in self.perm))

    def reference(self, x: Any) -> Any:
        return x.permute(self.perm)

    def compute(self, x: Tensor) -> Compute:
        at = tuple(s.index(self.perm.index(k)) for k in range(x.rank))
        return Compute(self.infer(x).shape, (Read(x.dtype, 0, at),))


class BroadcastTo(View):
    """Repeat axes of size 1 (and new leading axes) to a shape."""

    name = "broadcast_to"
    shape: tuple[Dim, ...]

    def infer(self, x: Type) -> Tensor:
        t = tensor(x)
        require(t.rank <= len(self.shape), f"rank {t.rank} is greater than that of {list(self.shape)}")
        joined = broadcast_shapes(t.shape, self.shape)
        require(all(map(may_equal, joined, self.shape)), f"{t} does not broadcast to {list(self.shape)}")
        return t.with_shape(self.shape)

    def reference(self, x: Any) -> Any:
        return x.broadcast_to(self.shape)

    def compute(self, x: Tensor) -> Compute:
        return Compute(self.shape, (Read(x.dtype, 0, broadcast_index(x.shape, self.shape)),))


class Slice(View):
    """x[start:stop:step] on every axis; bounds already clamped. With a negative step, stop -1 means "through index
    0"."""

    name = "slice"
    starts: tuple[Dim, ...]
    stops: tuple[Dim, ...]
    steps: tuple[int, ...]

    def infer(self, x: Type) -> Tensor:
        t = tensor(x)
        require(
            len(self.starts) == len(self.stops) == len(self.steps) == t.rank,
            f"slice needs a start, stop and step for each of {t.rank} axes",
        )
        require(all(step != 0 for step in self.steps), "a step is 0")
        for k, (a, d) in enumerate(zip(self.starts, t.shape, strict=True)):
            require(may_fit(0, a) and may_fit(a, d), f"start {a} of axis {k} is outside of size {d}")
        for k, (z, d) in enumerate(zip(self.stops, t.shape, strict=True)):
            require(may_fit(-1, z) and may_fit(z, d), f"stop {z} of axis {k} is outside of size {d}")
        return t.with_shape(
            tuple(self._length(a, z, st) for a, z, st in zip(self.starts, self.stops, self.steps, strict=True))
        )

    @staticmethod
    def _length(start: Dim, stop: Dim, step: int) -> Dim:
        return dim_max(ceildiv(stop - start, step) if step > 0 else ceildiv(start - stop, -step), 0)

    def reference(self, x: Any) -> Any:
        for axis, (a, z, st) in enumerate(zip(self.starts, self.stops, self.steps, strict=True)):
            if st > 0:
                x = x[(slice(None),) * axis + (slice(a, max(a, z), st),)]  # type: ignore[type-var]
            else:
                x = x.index_select(axis, torch.arange(a, min(a, z), st))  # type: ignore[arg-type]
        return x.clone()

    def compute(self, x: Tensor) -> Compute:
        at = tuple(
            s.index(k) * st + s.size(a) if (st, a) != (1, 0) else s.index(k)
            for k, (a, st) in enumerate(zip(self.starts, self.steps, strict=True))
        )
        return Compute(self.infer(x).shape, (Read(x.dtype, 0, at),))


class Concat(View):
    """Join along an axis."""

    name = "concat"
    operands = ("*xs",)
    axis: int

    def infer(self, *xs: Type) -> Tensor:
        require(len(xs) > 0, "nothing to join")
        first = tensor(xs[0])
        require(0 <= self.axis < first.rank, f"axis {self.axis} is not an axis of a rank-{first.rank} tensor")
        total: Dim = 0
        shape = list(first.shape)
        for x in xs:
            t = tensor(x)
            require(t.dtype == first.dtype, f"operands differ in dtype ({first.dtype} and {t.dtype})", "insert a cast")
            require(t.rank == first.rank, "operands differ in rank")
            for k, (d, e) in enumerate(zip(shape, t.shape, strict=True)):
                if k != self.axis and d != e:
                    require(may_equal(d, e), f"operands differ in size on axis {k}: {d} and {e}")
                    shape[k] = e if isinstance(e, int) else d
            total = total + t.shape[self.axis]
        shape[self.axis] = total
        return first.with_shape(tuple(shape))

    def reference(self, *xs: Any) -> Any:
        return torch.cat(xs, self.axis)

    def compute(self, *xs: Tensor) -> Compute:
        out = self.infer(*xs)
        here = s.index(self.axis)
        offsets: list[Dim] = [0]
        for x in xs:
            offsets.append(offsets[-1] + x.shape[self.axis])
        pieces: list[Scalar] = []
        for k, x in enumerate(xs):
            top = s.size(dim_max(x.shape[self.axis] - 1, 0))
            inside = here if len(xs) == 1 else s.maximum(s.minimum(here - s.size(offsets[k]), top), 0)
            at = tuple(inside if a == self.axis else s.index(a) for a in range(x.rank))
            pieces.append(Read(x.dtype, k, at))
        chosen = pieces[-1]
        for k in reversed(range(len(xs) - 1)):
            chosen = s.select(here < s.size(offsets[k + 1]), pieces[k], chosen)
        return Compute(out.shape, (chosen,))


class Pad(View):
    """Grow each axis at both ends (a negative amount crops): by a constant (operand `value`, default 0), by
    reflection without
    the edge, by the edge, or cyclically ("wrap")."""

    name = "pad"
    operands = ("x", "value?")
    pads: tuple[Dim, ...]
    """Amounts before each axis, then after each."""
    mode: str = "constant"

    def infer(self, x: Type, value: Type | None = None) -> Tensor:
        t = tensor(x)
        require(len(self.pads) == 2 * t.rank, f"pad needs {2 * t.rank} amounts, got {len(self.pads)}")
        require(
            self.mode in ("constant", "reflect", "edge", "wrap"),
            f"unknown mode {self.mode!r}",
            "constant, reflect, edge or wrap",
        )
        if value is not None:
            require(
                tensor(value).dtype == t.dtype and tensor(value).rank == 0, f"the padding value must be {t.dtype}[]"
            )
        ends = tuple(zip(self.pads[: t.rank], self.pads[t.rank :], strict=True))
        shape = tuple(d + a + z for d, (a, z) in zip(t.shape, ends, strict=True))
        require(all(may_fit(0, d) for d in shape), f"pads {self.pads} crop more than there is")
        require(
            self.mode == "constant" or all(d != 0 or n == 0 for d, n in zip(t.shape, shape, strict=True)),
            f"an empty axis has no elements for mode {self.mode!r}",
        )
        return t.with_shape(shape)

    def reference(self, x: Any, value: Any = None) -> Any:
        rank = x.dim()
        for axis in range(rank):
            before, n = self.pads[axis], x.shape[axis]
            i = torch.arange(n + before + self.pads[rank + axis]) - before  # type: ignore[operator]
            inside = (i >= 0) & (i < n)
            if self.mode == "reflect":
                period = max(2 * (n - 1), 1)
                i = i.remainder(period)
                i = torch.where(i >= n, period - i, i)
            elif self.mode == "wrap":
                i = i.remainder(max(n, 1))
            i = i.clamp(0, max(n - 1, 0))
            if self.mode == "constant":
                fill = torch.zeros((), dtype=x.dtype) if value is None else value
                shape = list(x.shape)
                shape[axis] = len(i)
                picked = x.index_select(axis, i) if n else torch.zeros(shape, dtype=x.dtype)
                x = torch.where(inside.reshape([-1 if a == axis else 1 for a in range(rank)]), picked, fill)
            else:
                x = x.index_select(axis, i)
        return x.clone()

    def compute(self, x: Tensor, value: Tensor | None = None) -> Compute:
        at: list[Scalar] = []
        inside: Scalar | None = None
        for k, d in enumerate(x.shape):
            i = s.index(k)
            before, after = self.pads[k], self.pads[x.rank + k]
            if before == 0 and after == 0:
                at.append(i)
                continue
            i = i - s.size(before)
            if self.mode == "constant":
                here = (i >= 0) & (i < s.size(d))
                inside = here if inside is None else inside & here
            elif self.mode == "reflect":
                period = dim_max((d - 1) * 2, 1)
                i = i % s.size(period)
                i = s.select(i >= s.size(d), s.size(period) - i, i)
            elif self.mode == "wrap":
                i = i % s.size(d)
            at.append(s.maximum(s.minimum(i, s.size(d - 1)), 0))
        element: Scalar = Read(x.dtype, 0, tuple(at))
        if inside is not None:
            fill = Read(x.dtype, 1, ()) if value is not None else s.const(x.dtype, 0)
            element = s.select(inside, element, fill)
        return Compute(self.infer(x, *(() if value is None else (value,))).shape, (element,))


class Repeat(View):
    """Tile: axis k holds x `counts[k]` times over."""

    name = "repeat"
    counts: tuple[Dim, ...]

    def infer(self, x: Type) -> Tensor:
        t = tensor(x)
        require(len(self.counts) == t.rank, f"repeat needs {t.rank} counts")
        require(all(not isinstance(n, int) or n >= 0 for n in self.counts), f"repeat counts from 0, not {self.counts}")
        return t.with_shape(tuple(d * n for d, n in zip(t.shape, self.counts, strict=True)))

    def reference(self, x: Any) -> Any:
        return x.repeat(self.counts) if x.dim() else x.clone()

    def compute(self, x: Tensor) -> Compute:
        at = tuple(
            s.index(k) if n == 1 else s.index(k) % s.size(d)
            for k, (d, n) in enumerate(zip(x.shape, self.counts, strict=True))
        )
        return Compute(self.infer(x).shape, (Read(x.dtype, 0, at),))
