"""Softmax and normalizations: composites of reductions and elementwise ops.

Statistics of f16 and bf16 are computed in f32 and the result is rounded once. Backends compile the `decompose`d form,
fused into one kernel; passes see the whole.
"""

from __future__ import annotations

from typing import Any

from effcc.ir.assumptions import may_equal
from effcc.ir.dims import Dim, product
from effcc.ir.domain import VARIANCE
from effcc.ir.lazy import F, torch
from effcc.ir.op import Op, require, tensor
from effcc.ir.types import Tensor, Type
from effcc.ops.elementwise import broadcast_shapes
from effcc.ops.elementwise.family import wide
from effcc.ops.reduction import convert, widen


class Normalization(Op):
    family = "normalization"
    kinds = "f"

    def checked(self, x: Type) -> Tensor:
        t = tensor(x)
        require(t.dtype.kind in self.kinds, f"{self.name} does not take {t.dtype}", "insert a cast")
        return t

    def checked_axis(self, x: Type) -> Tensor:
        t, axis = self.checked(x), self.axis  # type: ignore[attr-defined]
        require(0 <= axis < t.rank, f"axis {axis} is not an axis of a rank-{t.rank} tensor")
        return t


class Softmax(Normalization):
    """e^(x - max) / Σ e^(x - max) along `axis`. (ONNX Softmax from opset 13, torch.softmax)"""
    name = "softmax"
    axis: int

    def infer(self, x: Type) -> Tensor:
        return self.checked_axis(x)

    def reference(self, x: Any) -> Any:
        return torch.softmax(wide(x), self.axis).to(x.dtype)

    def decompose(self, b: Any, x: Any) -> Any:
        w, axes = widen(b, x), (self.axis,)
        e = b.exp(b.sub(w, b.amax(w, axes=axes, keepdims=True)))
        return convert(b, b.div(e, b.sum(e, axes=axes, keepdims=True)), x.dtype)


class LogSoftmax(Normalization):
    """x - max - ln Σ e^(x - max) along `axis`. (ONNX LogSoftmax from opset 13, torch.log_softmax)"""
    name = "log_softmax"
    axis: int

    def infer(self, x: Type) -> Tensor:
        return self.checked_axis(x)

    def reference(self, x: Any) -> Any:
        return torch.log_softmax(wide(x), self.axis).to(x.dtype)

    def decompose(self, b: Any, x: Any) -> Any:
        w, axes = widen(b, x), (self.axis,)
        shifted = b.sub(w, b.amax(w, axes=axes, keepdims=True))
        total = b.sum(b.exp(shifted), axes=axes, keepdims=True)
        return convert(b, b.sub(shifted, b.log(total)), x.dtype)


def check_parameter(t: Type | None, shape: tuple[Dim, ...], what: str) -> None:
    """A scale or bias: floats that broadcast to `shape`."""
    if t is None:
        return
    p = tensor(t, what)
    require(p.dtype.is_float, f"the {what} is {p.dtype}, not a float")
    joined = broadcast_shapes(p.shape, shape)
    fits = p.rank <= len(shape) and all(map(may_equal, joined, shape))
    require(fits, f"the {what} {p} does not broadcast to {list(shape)}")


def affine(b: Any, y: Any, scale: Any, bias: Any) -> Any:
    """y · scale + bias, of which either may be absent, in y's dtype."""
    if scale is not None:
        y = b.mul(y, convert(b, scale, y.dtype))
    return y if bias is None else b.add(y, convert(b, bias, y.dtype))


def standardize(b: Any, x: Any, axes: tuple[int, ...], eps: float) -> Any:
    """(x - mean) / √(variance + eps) over axes."""
    centered = b.sub(x, b.mean(x, axes=axes, keepdims=True))
    variance = b.mean(b.mul(centered, centered), axes=axes, keepdims=True)
    return b.mul(centered, b.rsqrt(b.add(variance, b.full_like(x, eps))))


def standardized(x: Any, axes: tuple[int, ...], eps: float) -> Any:
    """The same on a torch tensor."""
    centered = x - x.mean(axes, keepdim=True)
    return centered / torch.sqrt(centered.square().mean(axes, keepdim=True) + eps)


class LayerNorm(Normalization):
    """(x - mean) / √(variance + eps) · scale + bias over the axes from `axis` on. (Ba et al. 2016; ONNX
    LayerNormalization)"""
    name = "layer_norm"
    operands = ("x", "scale?", "bias?")
    axis: int
    eps: float = 1e-5

    def infer(self, x: Type, scale: Type | None = None, bias: Type | None = None) -> Tensor:
        t = self.checked_axis(x)
        check_parameter(scale, t.shape[self.axis:], "scale")
        check_parameter(bias, t.shape[self.axis:], "bias")
        return t

    def reference(self, x: Any, scale: Any = None, bias: Any = None) -> Any:
        w = wide(x)
        y = standardized(w, tuple(range(self.axis, x.dim())), self.eps)
        y = y if scale is None else y * scale.to(w.dtype)
        return (y if bias is None else y + bias.to(w.dtype)).to(x.dtype)

    def decompose(self, b: Any, x: Any, scale: Any = None, bias: Any = None) -> Any:
        y = standardize(b, widen(b, x), tuple(range(self.axis, len(x.shape))), self.eps)
        return convert(b, affine(b, y, scale, bias), x.dtype)


class RmsNorm(Normalization):
    """x / √(mean x² + eps) · scale over the axes from `axis` on. (Zhang & Sennrich 2019; ONNX RMSNormalization)"""
    name = "rms_norm"
    operands = ("x", "scale?")
    axis: int
    eps: float = 1e-6

    def infer(self, x: Type, scale: Type | None = None) -> Tensor:
        t = self.checked_axis(x)
        check_parameter(scale, t.shape[self.axis:], "scale")
        return t

    def reference(self, x: Any, scale: Any = None) -> Any:
        w = wide(x)
        y = w / torch.sqrt(w.square().mean(tuple(range(self.axis, x.dim())), keepdim=True) + self.eps)
        return (y if scale is None else y * scale.to(w.dtype)).to(x.dtype)

    def decompose(self, b: Any, x: Any, scale: Any = None) -> Any:
        w = widen(b, x)
        square = b.mean(b.mul(w, w), axes=tuple(range(self.axis, len(x.shape))), keepdims=True)
        y = b.mul(w, b.rsqrt(b.add(square, b.full_like(w, self.eps))))
        return convert(b, affine(b, y, scale, None), x.dtype)


def per_channel(b: Any, v: Any, rank: int) -> Any:
    """A vector over channels, shaped to broadcast against [N, C, ...]."""
    return None if v is None else b.reshape(v, shape=(*v.shape, *[1] * (rank - 2)))


def check_channels(channels: Dim, **given: Type | None) -> None:
    """Parameters: floats, one for each channel. As many in all of them, where `channels` does not tell."""
    for what, t in given.items():
        if t is None:
            continue
        p = tensor(t, what)
        require(p.dtype.is_float, f"the {what} is {p.dtype}, not a float")
        fits = p.rank == 1 and may_equal(p.shape[0], channels)
        require(fits, f"the {what} is {p}, not one number for each of {channels} channels")
        channels = p.shape[0] if isinstance(p.shape[0], int) else channels


class GroupNorm(Normalization):
    """Standardizes each of `groups` groups of channels of x [N, C, ...], then scale and bias a channel. With groups = C
    this is instance normalization. (Wu & He 2018; ONNX GroupNormalization from opset 21)"""
    name = "group_norm"
    operands = ("x", "scale?", "bias?")
    groups: int
    eps: float = 1e-5

    def infer(self, x: Type, scale: Type | None = None, bias: Type | None = None) -> Tensor:
        t = self.checked(x)
        require(t.rank >= 2, "x needs axes [N, C, ...]")
        channels = t.shape[1]
        require(self.groups > 0 and may_equal(channels % self.groups, 0),
                f"{channels} channels do not divide into {self.groups} groups")
        check_channels(channels, scale=scale, bias=bias)
        return t

    def reference(self, x: Any, scale: Any = None, bias: Any = None) -> Any:
        w, lanes = wide(x), (1, -1, *[1] * (x.dim() - 2))
        members = w.numel() // max(x.shape[0] * self.groups, 1)
        y = standardized(w.reshape(x.shape[0], self.groups, members), (2,), self.eps).reshape(x.shape)
        y = y if scale is None else y * scale.to(w.dtype).reshape(lanes)
        return (y if bias is None else y + bias.to(w.dtype).reshape(lanes)).to(x.dtype)

    def decompose(self, b: Any, x: Any, scale: Any = None, bias: Any = None) -> Any:
        w, rank = widen(b, x), len(x.shape)
        members = product((x.shape[1] // self.groups, *x.shape[2:]))
        y = standardize(b, b.reshape(w, shape=(x.shape[0], self.groups, members)), (2,), self.eps)
        y = affine(b, b.reshape(y, shape=x.shape), per_channel(b, scale, rank), per_channel(b, bias, rank))
        return convert(b, y, x.dtype)


class BatchNorm(Normalization):
    """(x - mean) / √(variance + eps) · scale + bias with given statistics a channel (axis 1). (Ioffe & Szegedy 2015,
    inference)"""
    name = "batch_norm"
    operands = ("x", "scale", "bias", "mean", "var")
    undefined = "a variance below 0"
    domains = {"var": VARIANCE}
    eps: float = 1e-5

    def infer(self, x: Type, scale: Type, bias: Type, mean: Type, var: Type) -> Tensor:
        t = self.checked(x)
        require(t.rank >= 2, "x needs axes [N, C, ...]")
        check_channels(t.shape[1], scale=scale, bias=bias, mean=mean, variance=var)
        require(self.eps >= 0, f"eps is {self.eps}: it keeps from dividing by zero")
        return t

    def reference(self, x: Any, scale: Any, bias: Any, mean: Any, var: Any) -> Any:
        w = wide(x)
        scale, bias, mean, var = (v.to(w.dtype) for v in (scale, bias, mean, var))
        return F.batch_norm(w, mean, var, scale, bias, False, 0.0, self.eps).to(x.dtype) if x.numel() else x.clone()

    def decompose(self, b: Any, x: Any, scale: Any, bias: Any, mean: Any, var: Any) -> Any:
        w, rank = widen(b, x), len(x.shape)
        scale, bias, mean, var = (convert(b, v, w.dtype) for v in (scale, bias, mean, var))
        factor = b.mul(scale, b.rsqrt(b.add(var, b.full_like(w, self.eps))))
        shift = b.sub(bias, b.mul(mean, factor))  # of constants: folded, so that one multiply-add an element is left
        return convert(b, affine(b, w, per_channel(b, factor, rank), per_channel(b, shift, rank)), x.dtype)
