"""Windows: convolutions and pooling over any number of spatial axes.

Layouts: "nchw" (batch, channels, spatial...) or "nhwc" (batch, spatial..., channels). Pads are (begin..., end...).
Output size (Dumoulin & Visin 2016): ⌊(n + p₀ + p₁ - d(k-1) - 1) / s⌋ + 1.
"""

from __future__ import annotations

import math
from typing import Any, cast

from effcc.ir import scalar as s
from effcc.ir.assumptions import may_equal, may_fit
from effcc.ir.dims import Dim, ceildiv, dim_max, dim_min, floordiv
from effcc.ir.lazy import F, torch
from effcc.ir.op import Op, require, tensor
from effcc.ir.scalar import PARALLEL, REDUCTION, Compute, Read, Scalar, State
from effcc.ir.types import DType, Tensor, Type, i64
from effcc.ops.contraction import accumulate_dtype, exact_carrier, from_zero, require_sums


class Window(Op):
    """Shared shape arithmetic; subclasses have strides, pads and maybe dilations, layout."""

    family = "window"
    kinds = "fiu"

    def spatial(self, t: Tensor) -> tuple[int, ...]:
        """The axes of the spatial dimensions."""
        return tuple(range(1, t.rank - 1)) if getattr(self, "layout", "nchw") == "nhwc" else tuple(range(2, t.rank))

    def channel_axis(self, t: Tensor) -> int:
        return t.rank - 1 if getattr(self, "layout", "nchw") == "nhwc" else 1

    def check_geometry(self, n: int, kernel: tuple[int, ...]) -> None:
        strides, pads = self.strides, self.pads  # type: ignore[attr-defined]
        dilations, layout = getattr(self, "dilations", (1,) * n), getattr(self, "layout", "nchw")
        require(layout in ("nchw", "nhwc"), f"unknown layout {layout!r}", "nchw or nhwc")
        require(n >= 1, "a window op needs at least one spatial axis")
        require(getattr(self, "groups", 1) >= 1, "groups count from 1")
        require(
            len(kernel) == n and len(strides) == n and len(pads) == 2 * n and len(dilations) == n,
            f"{n} spatial axes need {n} kernel sizes, strides and dilations, and {2 * n} pads",
        )
        require(all(x >= 1 for x in (*strides, *dilations)), "strides and dilations must be positive")
        require(all(not isinstance(k, int) or k >= 1 for k in kernel), "a kernel needs at least one tap")
        require(getattr(self, "groups", 1) >= 1, "there is at least one group")

    def with_layout(self, batch: Dim, channels: Dim, spatial: tuple[Dim, ...]) -> tuple[Dim, ...]:
        return (batch, *spatial, channels) if getattr(self, "layout", "nchw") == "nhwc" else (batch, channels, *spatial)

    def degenerate(self, *tensors: Any) -> Any:
        """The results where nothing is summed or nothing computed, which torch refuses; None where something is."""
        types = tuple(Tensor(DType.of(t.dtype), tuple(t.shape)) for t in tensors)
        results = self.result_types(types)
        if all(t.size for t in (*types[:2], results[0])):  # type: ignore[union-attr]
            return None
        empty = tuple(torch.zeros(t.shape, dtype=t.dtype.torch) for t in results)  # type: ignore[union-attr]
        return empty[0] if len(empty) == 1 else empty

    def place(self, n: Scalar, c: Scalar, spatial: tuple[Scalar, ...]) -> tuple[Scalar, ...]:
        return (n, *spatial, c) if getattr(self, "layout", "nchw") == "nhwc" else (n, c, *spatial)


def window_size(n: Dim, k: int, stride: int, dilation: int, before: int, after: int, ceil_mode: bool = False) -> Dim:
    """The number of windows; with ceil_mode a last partial one counts if it starts inside the input or the left
    padding."""
    span = n + before + after - dilation * (k - 1) - 1
    if not ceil_mode:
        return dim_max(floordiv(span, stride) + 1, 0)
    return dim_max(dim_min(ceildiv(span, stride) + 1, ceildiv(n + before, stride)), 0)


def _inside(i: Scalar, n: Dim) -> Scalar:
    return (i >= 0) & (i < s.size(n))


def _clamped(i: Scalar, n: Dim) -> Scalar:
    return s.maximum(s.minimum(i, s.size(n - 1)), 0)


def _all(conditions: list[Scalar]) -> Scalar | None:
    out = None
    for c in conditions:
        out = c if out is None else out & c
    return out


def by_rows(x: Any) -> Any:
    """x, its strides those of its shape. A lone channel may have any stride: one of 1 torch takes for channels that
    come last, and gives wrong sums (docs/upstream)."""
    return x.clone(memory_format=torch.contiguous_format)


class Conv(Window):
    """y[n, o, p...] = bias[o] + Σ_{i, k...} x[n, g·I/G + i, s·p + d·k - pad...] · w[o, i, k...], g = ⌊o·G/O⌋. w is
    [O, I/G, k...];
    f16 and bf16 sum in f32. Integer operands need `accumulate`. Outside of the image x is `pad_value`; products of that
    with weights that are not finite may be left out, or be NaN."""

    name = "conv"
    operands = ("x", "w", "bias?")
    strides: tuple[int, ...]
    pads: tuple[int, ...]
    dilations: tuple[int, ...]
    groups: int = 1
    layout: str = "nchw"
    accumulate: DType | None = None
    pad_value: int = 0

    def infer(self, x: Type, w: Type, bias: Type | None = None) -> Tensor:
        t, k = tensor(x), tensor(w)
        n = t.rank - 2
        require(k.rank == t.rank, f"the weights' rank {k.rank} is not the input's {t.rank}")
        require(
            self.pad_value == 0 or (t.dtype.is_integer and t.dtype.min <= self.pad_value <= t.dtype.max),
            f"pad value {self.pad_value} is no integer of the operand's dtype {t.dtype}",
        )
        kernel: Any = k.shape[2:]
        require(n <= 3, f"conv takes at most 3 spatial axes, not {n}")
        require(not t.dtype.is_bool and not k.dtype.is_bool, "conv does not take bool", "insert a cast")
        require_sums(self.accumulate, t.dtype)
        require(all(isinstance(d, int) for d in kernel), "kernel sizes must be static")
        self.check_geometry(n, kernel)
        require(
            t.dtype == k.dtype or (self.accumulate is not None and t.dtype.is_integer and k.dtype.is_integer),
            f"operands differ in dtype ({t.dtype} and {k.dtype})",
            "insert a cast",
        )
        channels = t.shape[self.channel_axis(t)]
        require(
            may_equal(channels, k.shape[1] * self.groups),
            f"{channels} channels do not fit weights for {k.shape[1]} x {self.groups} groups",
        )
        require(
            not isinstance(k.shape[0], int) or k.shape[0] % self.groups == 0,
            f"{k.shape[0]} outputs in {self.groups} groups",
        )
        out_dtype = self.accumulate or t.dtype
        if bias is not None:
            fits = tensor(bias).rank == 1 and may_equal(tensor(bias).shape[0], k.shape[0])
            require(fits, f"bias must be [{k.shape[0]}]")
            require(tensor(bias).dtype == out_dtype, f"bias must be {out_dtype}", "insert a cast")
        spatial = tuple(
            window_size(t.shape[a], kernel[i], self.strides[i], self.dilations[i], self.pads[i], self.pads[n + i])
            for i, a in enumerate(self.spatial(t))
        )
        return Tensor(out_dtype, self.with_layout(t.shape[0], k.shape[0], spatial))

    def reference(self, x: Any, w: Any, bias: Any = None) -> Any:
        n = x.dim() - 2
        nothing = self.degenerate(x, w)
        zero = not self.pad_value and (self.accumulate is not None or bool(w.float().isfinite().all()))
        if nothing is not None and (zero or not w.numel() or not nothing.numel()):  # else it sums the padding
            if bias is None:
                return nothing
            return nothing + bias.reshape(-1, *[1] * (0 if self.layout == "nhwc" else n)).to(nothing.dtype)
        if self.layout == "nhwc":
            x = x.movedim(-1, 1)
        if self.accumulate is not None:
            wide = exact_carrier(x, w)
            x, w, bias = x.to(wide), w.to(wide), None if bias is None else bias.to(wide)
        dtype = x.dtype
        if not x.is_floating_point():  # torch convolves no narrower integers
            x, w, bias = x.long(), w.long(), None if bias is None else bias.long()
        elif x.dtype in (torch.float16, torch.bfloat16):  # (torch's bf16 makes NaN of infinities that never meet)
            x, w, bias = x.float(), w.float(), None if bias is None else bias.float()
        flat = [p for i in reversed(range(n)) for p in (self.pads[i], self.pads[n + i])]
        padded = by_rows(F.pad(x, flat, value=self.pad_value))
        y = getattr(F, f"conv{n}d")(padded, by_rows(w), bias, self.strides, 0, self.dilations, self.groups)
        if self.accumulate is not None:
            y = (
                y.round().to(torch.int64).to(self.accumulate.torch)
                if self.accumulate.is_integer
                else y.to(self.accumulate.torch)
            )
        elif y.dtype != dtype:
            y = y.to(dtype)
        y = from_zero(y) if y.is_floating_point() else y
        return y.movedim(1, -1) if self.layout == "nhwc" else y

    def leaves_open(self, *tensors: Any, **_: Any) -> bool:
        w = tensors[1]
        return any(self.pads) and w.is_floating_point() and not bool(w.isfinite().all())

    def compute(self, x: Tensor, w: Tensor, bias: Tensor | None = None) -> Compute:
        types = (x, w) if bias is None else (x, w, bias)
        out = self.infer(*types)
        n, rank = x.rank - 2, x.rank
        acc = accumulate_dtype(x.dtype, self.accumulate)
        batch, o = s.index(0), s.index(self.channel_axis(x))
        spatial = self.spatial(x)
        ic, taps = s.index(rank), tuple(s.index(rank + 1 + i) for i in range(n))
        at, conditions = [], []
        for i, a in enumerate(spatial):
            pos = s.index(a) * self.strides[i] + taps[i] * self.dilations[i] - self.pads[i]
            if self.pads[i] > 0 or self.pads[n + i] > 0:
                conditions.append(_inside(pos, x.shape[a]))
                pos = _clamped(pos, x.shape[a])
            at.append(pos)
        per_in, per_out = w.shape[1], floordiv(w.shape[0], self.groups)
        c = ic if self.groups == 1 else (o // s.size(per_out)) * s.size(per_in) + ic
        value = s.cast(Read(x.dtype, 0, self.place(batch, c, tuple(at))), acc)
        inside = _all(conditions)
        if inside is not None:
            value = s.select(inside, value, self.pad_value)
        weight = s.cast(Read(w.dtype, 1, (o, ic, *taps)), acc)
        total: Scalar = State(acc, 0)
        start: Scalar = s.const(acc, 0)
        if bias is not None:
            total = total + s.cast(Read(bias.dtype, 2, (o,)), acc)
        return Compute(
            (*out.shape, per_in, *w.shape[2:]),
            (s.cast(total, out.dtype),),
            PARALLEL * rank + REDUCTION * (n + 1),
            (start,),
            (State(acc, 0) + value * weight,),
        )


class ConvTranspose(Window):
    """The gradient of conv with respect to its input: y[n, o, s·p + d·k - pad...] += x[n, i, p...] · w[i, o, k...]. w
    is
    [I, O/G, k...]. Output size (n-1)s - p₀ - p₁ + d(k-1) + 1 + output_pad."""

    name = "conv_transpose"
    kinds = "f"
    operands = ("x", "w", "bias?")
    strides: tuple[int, ...]
    pads: tuple[int, ...]
    output_pads: tuple[int, ...]
    dilations: tuple[int, ...]
    groups: int = 1

    def infer(self, x: Type, w: Type, bias: Type | None = None) -> Tensor:
        t, k = tensor(x), tensor(w)
        n = t.rank - 2
        require(k.rank == t.rank, f"the weights' rank {k.rank} is not the input's {t.rank}")
        kernel: Any = k.shape[2:]
        require(n <= 3, f"conv_transpose takes at most 3 spatial axes, not {n}")
        self.check_geometry(n, kernel)
        require(t.dtype == k.dtype and t.dtype.is_float, "operands must be of one float dtype", "insert a cast")
        require(
            may_equal(t.shape[1], k.shape[0]),
            f"{t.shape[1]} channels do not fit weights for {k.shape[0]}",
        )
        require(may_equal(t.shape[1] % self.groups, 0), f"{t.shape[1]} channels in {self.groups} groups")
        if bias is not None:
            require(
                tensor(bias) == Tensor(t.dtype, (k.shape[1] * self.groups,)),
                f"bias must be {t.dtype}[{k.shape[1] * self.groups}]",
            )
        spatial = tuple(
            (t.shape[2 + i] - 1) * self.strides[i]
            - self.pads[i]
            - self.pads[n + i]
            + self.dilations[i] * (k.shape[2 + i] - 1)
            + 1
            + self.output_pads[i]
            for i in range(n)
        )
        require(all(may_fit(0, d) for d in spatial), f"pads {self.pads} crop more than there is")
        return Tensor(t.dtype, (t.shape[0], k.shape[1] * self.groups, *spatial))

    def reference(self, x: Any, w: Any, bias: Any = None) -> Any:
        n = x.dim() - 2
        if (nothing := self.degenerate(x, w)) is not None:
            return nothing if bias is None else nothing + bias.reshape(-1, *[1] * n)
        dtype = x.dtype
        if dtype in (torch.float16, torch.bfloat16):  # (torch's bf16 makes NaN of infinities that never meet)
            x, w, bias = x.float(), w.float(), None if bias is None else bias.float()
        whole = getattr(F, f"conv_transpose{n}d")(x, w, None, self.strides, 0, 0, self.groups, self.dilations)
        grow = [p for i in reversed(range(n)) for p in (-self.pads[i], self.output_pads[i] - self.pads[n + i])]
        y = F.pad(whole, grow)
        return from_zero(y if bias is None else y + bias.reshape(-1, *[1] * n)).to(dtype)

    def compute(self, x: Tensor, w: Tensor, bias: Tensor | None = None) -> Compute:
        types = (x, w) if bias is None else (x, w, bias)
        out = self.infer(*types)
        n, rank = x.rank - 2, x.rank
        acc = accumulate_dtype(x.dtype, None)
        o = s.index(1)
        ic, taps = s.index(rank), tuple(s.index(rank + 1 + i) for i in range(n))
        at, conditions = [], []
        for i in range(n):
            shifted = s.index(2 + i) + self.pads[i] - taps[i] * self.dilations[i]
            pos = shifted // self.strides[i] if self.strides[i] > 1 else shifted
            if self.strides[i] > 1:
                conditions.append((shifted % self.strides[i]).eq(0))
            conditions.append(_inside(pos, x.shape[2 + i]))
            at.append(_clamped(pos, x.shape[2 + i]))
        per_in, per_out = floordiv(x.shape[1], self.groups), w.shape[1]
        group = o // s.size(per_out)
        c = ic if self.groups == 1 else group * s.size(per_in) + ic
        value = s.cast(Read(x.dtype, 0, (s.index(0), c, *at)), acc)
        inside = _all(conditions)
        assert inside is not None
        weight = s.cast(Read(w.dtype, 1, (c, o if self.groups == 1 else o % s.size(per_out), *taps)), acc)
        total: Scalar = State(acc, 0)
        if bias is not None:
            total = total + s.cast(Read(bias.dtype, 2, (o,)), acc)
        return Compute(
            (*out.shape, per_in, *w.shape[2:]),
            (s.cast(total, out.dtype),),
            PARALLEL * rank + REDUCTION * (n + 1),
            (s.const(acc, 0),),
            (State(acc, 0) + s.select(inside, value * weight, 0),),
        )


class Pool(Window):
    operands = ("x",)

    def infer(self, x: Type) -> Tensor:
        t = tensor(x)
        n = t.rank - 2
        kernel: tuple[int, ...] = self.kernel  # type: ignore[attr-defined]
        self.check_geometry(n, kernel)
        require(t.dtype.is_float or t.dtype.is_integer, f"{self.name} does not take {t.dtype}", "insert a cast")
        require(all(t.shape[a] != 0 for a in self.spatial(t)), f"{self.name} over an empty axis")
        return t.with_shape(self.with_layout(t.shape[0], t.shape[self.channel_axis(t)], self.windows(t)))

    def windows(self, t: Tensor) -> tuple[Dim, ...]:
        n, op = t.rank - 2, cast(Any, self)  # subclasses have the attributes
        return tuple(
            window_size(
                t.shape[a],
                op.kernel[i],
                op.strides[i],
                op.dilations[i],
                op.pads[i],
                op.pads[n + i],
                op.ceil_mode,
            )
            for i, a in enumerate(self.spatial(t))
        )

    def may_see_padding_alone(self, t: Tensor) -> bool:
        """Whether a window may lie wholly in the padding, so that its greatest element is none of the tensor's."""
        n, op = t.rank - 2, cast(Any, self)
        for i, (a, windows) in enumerate(zip(self.spatial(t), self.windows(t), strict=True)):
            size, taps, before, after = t.shape[a], op.kernel[i], op.pads[i], op.pads[n + i]
            if max(before, after) < (taps if op.dilations[i] == 1 else 1):  # too little for a whole window
                continue
            if not isinstance(size, int) or not isinstance(windows, int):
                return True
            starts = (w * op.strides[i] - before for w in range(windows))
            if not all(any(0 <= at + k * op.dilations[i] < size for k in range(taps)) for at in starts):
                return True
        return False

    def taps(self, x: Tensor) -> tuple[tuple[Scalar, ...], Scalar | None, list[Scalar]]:
        """(where x is read, whether that is inside, the positions before clamping)"""
        n = x.rank - 2
        at, conditions, positions = [], [], []
        for i, a in enumerate(self.spatial(x)):
            pos = s.index(a) * self.strides[i] + s.index(x.rank + i) * self.dilations[i] - self.pads[i]  # type: ignore[attr-defined]
            positions.append(pos)
            if self.pads[i] > 0 or self.pads[n + i] > 0 or self.ceil_mode:  # type: ignore[attr-defined]
                conditions.append(_inside(pos, x.shape[a]))
                pos = _clamped(pos, x.shape[a])
            at.append(pos)
        return self.place(s.index(0), s.index(self.channel_axis(x)), tuple(at)), _all(conditions), positions

    def unfold(self, x: Any, fill: float) -> tuple[Any, Any]:
        """(windows [N, C, out..., taps], whether a tap is inside the input [out..., taps]) in torch, channels first."""
        n = x.dim() - 2
        sizes = self.windows(Tensor(DType.of(x.dtype), self.with_layout(x.shape[0], x.shape[1], tuple(x.shape[2:]))))
        inside = torch.ones((), dtype=torch.bool)
        for i in range(n):
            base = torch.arange(sizes[i]) * self.strides[i] - self.pads[i]  # type: ignore[attr-defined]
            pos = base[:, None] + torch.arange(self.kernel[i]) * self.dilations[i]  # type: ignore[attr-defined]
            axis = 2 + 2 * i
            ok = (pos >= 0) & (pos < x.shape[axis])
            if x.shape[axis]:
                x = x.index_select(axis, pos.clamp(0, x.shape[axis] - 1).reshape(-1))
            else:
                x = torch.full((*x.shape[:axis], pos.numel(), *x.shape[axis + 1 :]), fill, dtype=x.dtype)
            x = x.unflatten(axis, (int(sizes[i]), self.kernel[i]))  # type: ignore[attr-defined]
            inside = inside[..., None, None] & ok
        order = [0, 1, *range(2, 2 + 2 * n, 2), *range(3, 3 + 2 * n, 2)]
        x = x.permute(order).flatten(2 + n)
        inside = inside.permute([*range(0, 2 * n, 2), *range(1, 2 * n, 2)]).flatten(n)
        return torch.where(inside, x, torch.tensor(fill, dtype=x.dtype)), inside

    def reference(self, x: Any) -> Any:
        if (nothing := self.degenerate(x)) is not None:
            return nothing
        channels_last = getattr(self, "layout", "nchw") == "nhwc"
        out = self.pool(x.movedim(-1, 1) if channels_last else x)
        return out.movedim(1, -1) if channels_last else out

    def pool(self, x: Any) -> Any:
        """The reference with channels first."""
        raise NotImplementedError


class MaxPool(Pool):
    """The greatest of each window; NaN if any is; a window wholly in the padding: the least value"""

    name = "max_pool"
    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    pads: tuple[int, ...]
    dilations: tuple[int, ...]
    ceil_mode: bool = False
    layout: str = "nchw"

    def pool(self, x: Any) -> Any:
        return self.unfold(x, DType.of(x.dtype).min)[0].amax(-1)

    def compute(self, x: Tensor) -> Compute:
        at, inside, _ = self.taps(x)
        value: Scalar = Read(x.dtype, 0, at)
        if inside is not None:
            value = s.select(inside, value, x.dtype.min)
        return Compute(
            (*self.infer(x).shape, *self.kernel),
            (State(x.dtype, 0),),
            PARALLEL * x.rank + REDUCTION * len(self.kernel),
            (s.const(x.dtype, x.dtype.min),),
            (s.maximum(State(x.dtype, 0), value),),
        )


class MaxPoolWithIndices(Pool):
    """max_pool, and where in the input's spatial plane (row-major) each maximum is: the first of equals, NaN the
    greatest"""

    name = "max_pool_with_indices"
    num_results = 2
    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    pads: tuple[int, ...]
    dilations: tuple[int, ...]
    ceil_mode: bool = False

    def infer(self, x: Type) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        out = super().infer(x)
        return out, out.with_dtype(i64)

    def reference(self, x: Any) -> tuple[Any, Any]:
        if (nothing := self.degenerate(x)) is not None:
            return nothing
        windows, inside = self.unfold(x, DType.of(x.dtype).min)
        plane = torch.arange(math.prod(x.shape[2:])).reshape(1, 1, *x.shape[2:])
        where, _ = self.unfold(plane, -1)
        greatest = (windows == windows.amax(-1, keepdim=True)) | (windows != windows)  # or NaN
        best = (greatest & inside).to(torch.uint8).argmax(-1, keepdim=True)
        return windows.gather(-1, best)[..., 0], where.expand(windows.shape).gather(-1, best)[..., 0]

    def compute(self, x: Tensor) -> Compute:
        at, inside, positions = self.taps(x)
        value: Scalar = Read(x.dtype, 0, at)
        best, where = State(x.dtype, 0), State(i64, 1)
        flat: Scalar = s.size(0)
        for p, a in zip(positions, self.spatial(x), strict=True):
            flat = flat * s.size(x.shape[a]) + p
        take = (value > best) | where.eq(-1)
        if x.dtype.is_float:
            take = take | (s.isnan(value) & ~s.isnan(best))
        if inside is not None:
            take = take & inside
        return Compute(
            (*self.infer(x)[0].shape, *self.kernel),
            (best, where),
            PARALLEL * x.rank + REDUCTION * len(self.kernel),
            (s.const(x.dtype, x.dtype.min), s.const(i64, -1)),
            (s.select(take, value, best), s.select(take, flat, where)),
        )


class AvgPool(Pool):
    """The mean of each window, over its taps inside the input, or with `count_include_pad` inside the padded input"""

    name = "avg_pool"
    kinds = "f"
    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    pads: tuple[int, ...]
    dilations: tuple[int, ...]
    ceil_mode: bool = False
    count_include_pad: bool = False
    layout: str = "nchw"

    def infer(self, x: Type) -> Tensor:
        require(tensor(x).dtype.is_float, "avg_pool takes floats", "insert a cast")
        return super().infer(x)

    def pool(self, x: Any) -> Any:
        n = x.dim() - 2
        windows, inside = self.unfold(x.float() if x.dtype in (torch.float16, torch.bfloat16) else x, 0.0)
        if self.count_include_pad:
            padded = AvgPool(
                kernel=self.kernel,
                strides=self.strides,
                pads=(0,) * 2 * n,
                dilations=self.dilations,
                ceil_mode=self.ceil_mode,
            )
            grown = torch.zeros((1, 1, *(d + self.pads[i] + self.pads[n + i] for i, d in enumerate(x.shape[2:]))))
            inside = padded.unfold(grown, 0.0)[1][tuple(slice(0, int(d)) for d in inside.shape[:-1])]
        return (windows.sum(-1) / inside.sum(-1)).to(x.dtype)

    def compute(self, x: Tensor) -> Compute:
        n = x.rank - 2
        acc = accumulate_dtype(x.dtype, None)
        at, inside, _ = self.taps(x)
        value = s.cast(Read(x.dtype, 0, at), acc)
        if inside is not None:
            value = s.select(inside, value, 0)
        count: Scalar = s.size(1)
        for i, a in enumerate(self.spatial(x)):
            d = self.dilations[i]
            start = s.index(a) * self.strides[i] - self.pads[i]
            low, high = (-self.pads[i], x.shape[a] + self.pads[n + i]) if self.count_include_pad else (0, x.shape[a])
            # taps t with low <= start + t*d < high
            first = s.maximum((s.size(low + d - 1) - start) // d, 0)
            last = s.minimum((s.size(high + d - 1) - start) // d, self.kernel[i])
            count = count * (last - first)
        return Compute(
            (*self.infer(x).shape, *self.kernel),
            (s.cast(State(acc, 0) / s.cast(count, acc), x.dtype),),
            PARALLEL * x.rank + REDUCTION * n,
            (s.const(acc, 0),),
            (State(acc, 0) + value,),
        )
