"""What to draw for an op's attributes, by name, or by OP.NAME where one op means something else by it.

These are suggestions, the simplest first: the op's own type rule decides (effcc.testing.draw tries again).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from effcc.ir.dims import Symbol
from effcc.ir.types import DType, Tensor, bool_, i8, i32, u8
from effcc.testing.operands import DTYPES_DRAWN, smaller

if TYPE_CHECKING:
    from effcc.testing.draw import Drawer


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
    """A dtype to convert to: the same, the one before a conversion, one of the same kind (conversions that are easily
    taken for nothing), or any."""
    if d.base_dtype not in (dtype, bool_) and d.chance(30):
        return d.base_dtype
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
    "alpha": lambda d, x, _: d.choose((0.5, 0.25, 1.0, 1 / 3)),
    "eps": lambda d, x, _: d.choose((1e-5, 1e-6)),
    "reduction": lambda d, x, _: "none" if x.dtype.is_bool else d.choose(("none", "add", "mul", "min", "max")),
    "scale": lambda d, x, _: d.choose((None, 0.5)),
    "accumulate": lambda d, x, _: None if x.dtype.is_float else d.choose((None, i32)),
    "k": lambda d, x, _: d.integer(1, 3),
    "sizes": _sizes, "dynamic_slice.sizes": lambda d, x, _: smaller(d, x.shape),
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
    "correction": lambda d, x, _: d.choose((0, 1, 0.5)),
    "value": lambda d, x, _: d.dim(),
}
