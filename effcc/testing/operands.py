"""What to draw for an op: the types of operands that are still open, by family or op, and attributes, by name.

These are suggestions, the simplest first: the op's own type rule decides (effcc.testing.draw tries again).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from effcc.ir.dims import Symbol
from effcc.ir.types import DTYPES, DType, Sequence, Tensor, Type, bool_, f32, f64, i8, i32, i64, u8

if TYPE_CHECKING:
    from effcc.testing.draw import Drawer

DTYPES_DRAWN = (f32, f32, i32, bool_, f64, i64, DTYPES["f16"], DTYPES["bf16"], i8, u8)


# -- operands, by family or op -------------------------------------------------------------------
def _elementwise(d: Drawer, types: list[Type | None], k: int, name: str) -> Tensor:
    other = next((t for t in types if isinstance(t, Tensor)), None)
    return Tensor(other.dtype, d.variant(other.shape)) if other else d.like(None)


def _where(d: Drawer, types: list[Type | None], k: int, name: str) -> Tensor:
    if k == 0:
        shapes = [t.shape for t in types[1:] if isinstance(t, Tensor)]
        return Tensor(bool_, d.variant(shapes[0] if shapes else d.base_shape))
    branch = next((t for t in types[1:] if isinstance(t, Tensor)), None)
    shape = next((t.shape for t in types if isinstance(t, Tensor)), d.base_shape)
    return Tensor(branch.dtype if branch else d.dtype(), d.variant(shape))


def _matmul(d: Drawer, types: list[Type | None], k: int, name: str) -> Tensor:
    other = types[1 - k]
    if not isinstance(other, Tensor):
        shape = d.base_shape if len(d.base_shape) >= 2 else (*d.base_shape, 3, 2)[-2:]
        return Tensor(d.base_dtype if d.base_dtype.kind != "b" else f32, shape)
    inner = other.shape[d.choose((-1, -2))]
    pair = (inner, d.dim())
    batch = d.variant(other.shape[:-2]) if other.rank > 2 else ()
    return Tensor(other.dtype, (*batch, *(pair if d.boolean() else pair[::-1])))


def _window(d: Drawer, types: list[Type | None], k: int, name: str) -> Tensor:
    x = types[0] if isinstance(types[0], Tensor) else None
    if name == "x" or x is None:
        spatial = d.integer(1, 2)
        channels = d.choose((2, 4, 1, 3))
        return Tensor(d.choose((f32, f64)), (d.integer(1, 2), channels, *(d.choose((5, 4, 7)),) * spatial))
    if name == "w":
        groups = d.choose([g for g in (1, 2, x.shape[1]) if g and x.shape[1] % g == 0])
        kernel = tuple(d.choose((1, 3, 2)) for _ in x.shape[2:])
        return Tensor(x.dtype, (groups * d.integer(1, 2), x.shape[1] // groups, *kernel))
    w = types[1] if isinstance(types[1], Tensor) else d.nothing("a bias goes with weights")
    return Tensor(x.dtype, (w.shape[0],))


def _normalization(d: Drawer, types: list[Type | None], k: int, name: str) -> Tensor:
    x = types[0] if isinstance(types[0], Tensor) else None
    if name == "x" or x is None:
        return Tensor(d.choose((f32, f64)), d.base_shape if d.base_shape else (3, 4))
    return Tensor(x.dtype, (x.shape[1],) if d.boolean() else x.shape[d.integer(0, x.rank):])


def _batch_norm(d: Drawer, types: list[Type | None], k: int, name: str) -> Tensor:
    x = types[0] if isinstance(types[0], Tensor) else None
    if x is None:
        channels = next((t.shape[0] for t in types if isinstance(t, Tensor) and t.rank == 1), d.choose((2, 4, 1, 3)))
        return Tensor(d.choose((f32, f64)), (d.integer(1, 2), channels, *d.shape(0, 2)))
    return x if k == 0 else Tensor(x.dtype, (x.shape[1],))


def _image(d: Drawer) -> Tensor:
    return Tensor(d.choose((f32, f64)), (d.integer(1, 2), d.choose((2, 4, 1, 3)), *((d.choose((5, 4, 7)),) * 2)))


def _grid_sample(d: Drawer, types: list[Type | None], k: int, name: str) -> Tensor:
    x = types[0] if isinstance(types[0], Tensor) else None
    if k == 0 or x is None:
        return _image(d)
    return Tensor(x.dtype, (x.shape[0], *(d.choose((2, 3, 1, 5)) for _ in x.shape[2:]), x.rank - 2))


def _roi_align(d: Drawer, types: list[Type | None], k: int, name: str) -> Tensor:
    x = types[0] if isinstance(types[0], Tensor) else None
    if k == 0 or x is None:
        return _image(d)
    rois = types[1].shape[0] if isinstance(types[1], Tensor) and types[1].rank else d.choose((2, 1, 0, 3))
    return Tensor(x.dtype, (rois, 4)) if k == 1 else Tensor(i64, (rois,))


def _nms(d: Drawer, types: list[Type | None], k: int, name: str) -> Tensor:
    other = types[1 - k]
    batch, boxes = (other.shape[0], other.shape[2 if k == 0 else 1]) if isinstance(other, Tensor) and other.rank == 3 \
        else (d.integer(1, 2), d.choose((3, 5, 1, 0)))
    return Tensor(f32, (batch, boxes, 4) if k == 0 else (batch, d.integer(1, 2), boxes))


def _quantize(d: Drawer, types: list[Type | None], k: int, name: str) -> Tensor:
    x, scale = (t if isinstance(t, Tensor) else None for t in (*types, None)[:2])
    if k == 0 or x is None:
        return Tensor(f32, d.base_shape)
    if k == 1:
        return Tensor(f32, () if d.boolean() or not x.rank else (x.shape[min(1, x.rank - 1)],))
    return Tensor(x.dtype if x.dtype.is_integer else i8, scale.shape if scale else ())


def _rotary(d: Drawer, types: list[Type | None], k: int, name: str) -> Tensor:
    x, cos = (t if isinstance(t, Tensor) else None for t in types[:2])
    if k == 0 or x is None:
        return Tensor(d.choose((f32, f64)), (*d.shape(0, 2), d.choose((2, 3, 5)), d.choose((4, 2, 6))))
    if k == 2 and cos is not None:
        return cos
    half = x.shape[-1] // 2 if isinstance(x.shape[-1], int) else 1
    return Tensor(x.dtype, (*(x.shape[-2:-1] if d.boolean() else ()), d.choose((half, 1))))


def _random(d: Drawer, types: list[Type | None], k: int, name: str) -> Tensor:
    return Tensor(f32, d.base_shape) if name == "p" else Tensor(i64, ())


def _compress(d: Drawer, types: list[Type | None], k: int, name: str) -> Tensor:
    x = d.like(types[0] if isinstance(types[0], Tensor) else None)
    return x if k == 0 else Tensor(bool_, (d.choose(x.shape) if x.rank else 1,))


def _sequence(d: Drawer, types: list[Type | None], k: int, name: str) -> Type:
    if name == "at":
        return Tensor(i64, ())
    if name == "xs" and k == 0 and len(types) > 1:
        return d.nothing("sequences are drawn by their own op")
    sequence = types[0]
    return sequence.element if isinstance(sequence, Sequence) else d.like(next(
        (t for t in types if isinstance(t, Tensor)), None))


def _concat(d: Drawer, types: list[Type | None], k: int, name: str) -> Tensor:
    other = d.like(next((t for t in types if isinstance(t, Tensor)), None))
    if d.boolean():
        return other
    axis = d.integer(0, max(other.rank - 1, 0))
    return other.with_shape(tuple(d.dim() if j == axis else s for j, s in enumerate(other.shape)))


def _index(d: Drawer, types: list[Type | None], k: int, name: str) -> Tensor:
    if name in ("idx", "starts", "k"):
        return Tensor(i64, d.shape(0, 2) if name == "idx" else ())
    return d.like(next((t for t in types if isinstance(t, Tensor)), None))


def _attention(d: Drawer, types: list[Type | None], k: int, name: str) -> Tensor:
    q = types[0] if isinstance(types[0], Tensor) else None
    if name == "q" or q is None:
        return Tensor(d.choose((f32, f64)), (d.integer(1, 2), d.choose((2, 4)), d.dim(), 4))
    return Tensor(q.dtype, (q.shape[0], q.shape[1], d.choose((q.shape[2], 3)), 4))


OPERANDS: dict[str, Callable[[Drawer, list[Type | None], int, str], Type]] = {
    "elementwise": _elementwise, "where": _where, "contraction": _matmul, "window": _window,
    "normalization": _normalization, "concat": _concat, "index": _index, "attention": _attention,
    "batch_norm": _batch_norm, "grid_sample": _grid_sample, "roi_align": _roi_align,
    "nms": _nms, "quantize": _quantize, "rotary_embedding": _rotary, "random": _random, "compress": _compress,
    "sequence": _sequence,
}


# -- attributes, by name or op.name --------------------------------------------------------------
def _slice_starts(d: Drawer, x: Tensor, out: dict[str, Any]) -> tuple[int, ...]:
    whole = d.chance(30)
    return tuple(0 if whole or d.boolean() else d.integer(0, s) for s in x.shape)


def _slice_stops(d: Drawer, x: Tensor, out: dict[str, Any]) -> tuple[int, ...]:
    starts = out.get("starts", (0,) * x.rank)
    return tuple(s if d.chance(60) else d.integer(min(a, s), s) for a, s in zip(starts, x.shape))


def _pads(d: Drawer, x: Tensor, out: dict[str, Any]) -> tuple[int, ...]:
    return (0,) * (2 * x.rank) if d.chance(40) else tuple(d.integer(-1, 2) for _ in range(2 * x.rank))


def _window_pads(d: Drawer, x: Tensor, out: dict[str, Any]) -> tuple[int, ...]:
    return tuple(d.choose((0, 1)) for _ in range(2 * (x.rank - 2)))


def _broadcast_shape(d: Drawer, x: Tensor, out: dict[str, Any]) -> tuple[int, ...]:
    lead = tuple(d.choose((2, 3, 1)) for _ in range(d.choose((0, 1, 0, 2))))
    return (*lead, *(d.choose((1, 3)) if s == 1 else s for s in x.shape))


def _sizes(d: Drawer, x: Tensor, out: dict[str, Any]) -> tuple[int, ...]:
    kept = d.choose((2, 0))  # images and their channels are seldom resampled
    return tuple(s if k < kept or d.boolean() else d.choose((1, 2, 3, 5)) for k, s in enumerate(x.shape))


def _reshaped(d: Drawer, x: Tensor, out: dict[str, Any]) -> tuple[int, ...]:
    """The same shape, without or with an axis of one element, or any of as many elements."""
    shape: tuple[int, ...] = x.shape  # type: ignore[assignment]
    ones = [k for k, size in enumerate(shape) if size == 1]
    kind = d.choose(("any", "any", "less" if ones else "flat", "more", "flat", "same"))
    if kind == "less":
        k = d.choose(ones)
        return (*shape[:k], *shape[k + 1:])
    if kind == "more":
        k = d.integer(0, len(shape))
        return (*shape[:k], 1, *shape[k:])
    if kind == "flat":
        return (math.prod(shape),)
    return shape if kind == "same" else d.refactor(math.prod(shape))


def _size(d: Drawer, x: Tensor, out: dict[str, Any]) -> Symbol:
    """A size that the op defines: a symbol of its own."""
    return Symbol(f"n{len(d.bounds)}", 0)


def _converted(d: Drawer, dtype: DType) -> DType:
    """A dtype to convert to: the same, one of the same kind (conversions that are easily taken for nothing), or any."""
    alike = [t for t in DTYPES_DRAWN if t != dtype and t.is_float == dtype.is_float and not t.is_bool]
    return dtype if d.chance(20) else d.choose((*DTYPES_DRAWN, *alike, *alike))


def _axes(d: Drawer, x: Tensor, out: dict[str, Any]) -> tuple[int, ...]:
    return tuple(k for k in range(x.rank) if d.boolean())


Draw = Callable[["Drawer", Tensor, dict[str, Any]], Any]
ATTRIBUTES: dict[str, Draw] = {
    "perm": lambda d, x, _: d.permutation(x.rank),
    "reshape.shape": _reshaped,
    "broadcast_to.shape": _broadcast_shape,
    "shape": lambda d, x, _: d.shape(),
    "starts": _slice_starts, "stops": _slice_stops,
    "steps": lambda d, x, _: tuple(1 if d.chance(75) else 2 for _ in x.shape),
    "axes": _axes,
    "axis": lambda d, x, _: d.integer(0, x.rank - 1),
    "conv.pad_value": lambda d, x, _: d.choose((0, 3)) if x.dtype.is_integer else 0,
    "pad.pads": _pads, "pads": _window_pads,
    "pad.mode": lambda d, x, _: d.choose(("constant", "reflect", "edge", "wrap")),
    "counts": lambda d, x, _: (1,) * x.rank if d.chance(40) else tuple(d.choose((1, 2, 0)) for _ in x.shape),
    "kernel": lambda d, x, _: tuple(d.choose((1, 2, 3)) for _ in x.shape[2:]),
    "strides": lambda d, x, _: tuple(d.choose((1, 2)) for _ in x.shape[2:]),
    "dilations": lambda d, x, _: tuple(d.choose((1, 2)) for _ in x.shape[2:]),
    "output_pads": lambda d, x, _: (0,) * (x.rank - 2),
    "groups": lambda d, x, _: d.choose([g for g in (1, 2, x.shape[1]) if g and x.shape[1] % g == 0]),
    "to": lambda d, x, _: _converted(d, x.dtype),
    "approximate": lambda d, x, _: d.choose(("none", "tanh")),
    "alpha": lambda d, x, _: d.choose((0.5, 0.25, 1.0)),
    "eps": lambda d, x, _: d.choose((1e-5, 1e-6)),
    "reduction": lambda d, x, _: d.choose(("none", "add", "mul", "min", "max")),
    "scale": lambda d, x, _: d.choose((None, 0.5)),
    "accumulate": lambda d, x, _: None if x.dtype.is_float else d.choose((None, i32)),
    "k": lambda d, x, _: d.integer(1, 3),
    "sizes": _sizes,
    "output_size": lambda d, x, _: (d.choose((2, 1, 3)), d.choose((2, 1, 3))),
    "grid_sample.padding": lambda d, x, _: d.choose(("zeros", "border", "reflection")),
    "roi_align.mode": lambda d, x, _: d.choose(("avg", "max")),
    "sampling_ratio": lambda d, x, _: d.choose((0, 1, 2)),
    "compress.size": _size, "nonzero.size": _size, "unique.size": _size, "nms.size": _size,
    "max_output": lambda d, x, _: d.choose((3, 1, 0)), "iou_threshold": lambda d, x, _: d.choose((0.5, 0.0, 1.0)),
    "topk.k": lambda d, x, _: d.integer(0, max(x.shape, default=0)),
    "unique.axis": lambda d, x, _: d.choose((None, *range(x.rank))),
    "quantize_linear.dtype": lambda d, x, _: d.choose((i8, u8)),
    "quantize_linear.axis": lambda d, x, _: min(1, max(x.rank - 1, 0)),
    "dequantize_linear.axis": lambda d, x, _: min(1, max(x.rank - 1, 0)),
    "low": lambda d, x, _: d.choose((0, -3)), "high": lambda d, x, _: d.choose((1, 5, 256)),
    "softcap": lambda d, x, _: d.choose((None, None, 5.0)),
    "mode": lambda d, x, _: d.choose(("nearest", "linear", "cubic")),
    "coordinate": lambda d, x, _: d.choose(("half_pixel", "asymmetric", "align_corners")),
    "nearest_mode": lambda d, x, _: d.choose(("round_prefer_floor", "floor", "ceil")),
    "shifts": lambda d, x, _: tuple(d.integer(-2, 2) for _ in x.shape),
    "correction": lambda d, x, _: d.choose((0, 1)),
    "value": lambda d, x, _: d.dim(),
}
