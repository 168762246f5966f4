"""What to draw for an op's operands: the types of those that are still open, by family or op.

Whichever operands are known, the others follow from them as far as the op lets them: any op may so be asked to read any
value. These are suggestions, the simplest first: the op's own type rule decides (effcc.testing.draw tries again).
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence as Listed
from typing import TYPE_CHECKING

from effcc.ir.dims import Dim
from effcc.ir.op import Op
from effcc.ir.types import DTYPES, DType, Sequence, Tensor, Type, bool_, f32, f64, i8, i32, i64, u8

if TYPE_CHECKING:
    from effcc.testing.draw import Drawer

DTYPES_DRAWN = (f32, f32, i32, bool_, f64, i64, DTYPES["f16"], DTYPES["bf16"], i8, u8)
PER_AXIS = frozenset({"*starts"})
"""Operands of which there is one for each axis of the first."""


def arity(d: Drawer, cls: type[Op], read: Type | None = None) -> int:
    """How many operands an op has, at least one of those that it may have; `read`: the type that one of them has."""
    low, high = cls.arity()
    if cls.operands and cls.operands[-1] in PER_AXIS:
        return low + (len(read.shape) if isinstance(read, Tensor) and read.shape else len(d.base_shape))
    low = max(low, 1) if cls.operands else low
    return d.integer(low, low + 2 if high is None else min(high, low + 2))


def tensors(types: Listed[Type | None], count: int) -> list[Tensor | None]:
    """The first `count` types, None in place of those that are not known, or no tensors."""
    return [t if isinstance(t, Tensor) else None for t in (*types, *[None] * count)[:count]]


# -- operands, by family or op -------------------------------------------------------------------
def _elementwise(d: Drawer, types: list[Type | None], k: int, name: str) -> Tensor:
    other = next((t for t in types if isinstance(t, Tensor)), None)
    return Tensor(other.dtype, d.variant(other.shape)) if other else d.like(None)


def _where(d: Drawer, types: list[Type | None], k: int, name: str) -> Tensor:
    if k == 0:
        shapes = [t.shape for t in types[1:] if isinstance(t, Tensor)]
        return Tensor(bool_, d.variant(shapes[0] if shapes else d.base_shape))
    branch = next((t for t in types[1:] if isinstance(t, Tensor)), None)
    shape = next((t.shape for t in types if isinstance(t, Tensor)), None)
    return Tensor(branch.dtype if branch else d.dtype(), d.variant(d.base_shape if shape is None else shape))


def _matmul(d: Drawer, types: list[Type | None], k: int, name: str) -> Tensor:
    other = types[1 - k]
    if not isinstance(other, Tensor):
        shape = d.base_shape if len(d.base_shape) >= 2 else (*d.base_shape, 3, 2)[-2:]
        return Tensor(d.base_dtype if d.base_dtype.kind != "b" else f32, shape)
    inner = other.shape[d.choose((-1, -2))]
    pair = (inner, d.dim())
    batch = d.variant(other.shape[:-2]) if other.rank > 2 else ()
    return Tensor(other.dtype, (*batch, *(pair if d.boolean() else pair[::-1])))


def _image(d: Drawer, dtype: DType | None = None, batch: Dim | None = None, channels: Dim | None = None, axes: int = 2,
           ) -> Tensor:
    """[N, C, spatial...] with elements on every spatial axis."""
    n = d.integer(1, 2) if batch is None else batch
    c = d.choose((2, 4, 1, 3)) if channels is None else channels
    return Tensor(dtype or d.choose((f32, f64)), (n, c, *(d.choose((5, 4, 7)),) * axes))


def _window(d: Drawer, types: list[Type | None], k: int, name: str) -> Tensor:
    x, w, bias = tensors(types, 3)
    if k == 0:
        if w is None:
            return _image(d, bias and bias.dtype, axes=d.integer(1, 2))
        return _image(d, w.dtype, channels=w.shape[1] * d.choose((1, 2)), axes=max(w.rank - 2, 1))
    x = x or _image(d)
    if name == "w":
        groups = d.choose([g for g in (1, 2, x.shape[1]) if g and x.shape[1] % g == 0])
        out = groups * d.integer(1, 2) if bias is None else bias.shape[0]
        return Tensor(x.dtype, (out, x.shape[1] // groups, *(d.choose((1, 3, 2)) for _ in x.shape[2:])))
    return Tensor(x.dtype, (w.shape[0],)) if w else d.nothing("a bias goes with weights")


def _conv_transpose(d: Drawer, types: list[Type | None], k: int, name: str) -> Tensor:
    x, w, bias = tensors(types, 3)
    if k == 0:
        axes = max(w.rank - 2, 1) if w else d.integer(1, 2)
        return _image(d, w.dtype if w else bias and bias.dtype, channels=w.shape[0] if w else None, axes=axes)
    x = x or _image(d)
    if name == "w":
        out = d.integer(1, 2) if bias is None else bias.shape[0]
        return Tensor(x.dtype, (x.shape[1], out, *(d.choose((1, 3, 2)) for _ in x.shape[2:])))
    return Tensor(x.dtype, (w.shape[1],)) if w else d.nothing("a bias goes with weights")


def _normalization(d: Drawer, types: list[Type | None], k: int, name: str) -> Tensor:
    x = types[0] if isinstance(types[0], Tensor) else None
    if name == "x" or x is None:
        return Tensor(d.choose((f32, f64)), d.base_shape if d.base_shape else (3, 4))
    return Tensor(x.dtype, (x.shape[1],) if d.boolean() else x.shape[d.integer(0, x.rank):])


def _batch_norm(d: Drawer, types: list[Type | None], k: int, name: str) -> Tensor:
    x = types[0] if isinstance(types[0], Tensor) else None
    if x is None:
        channels = next((t for t in types if isinstance(t, Tensor) and t.rank == 1), None)
        return _image(d, channels and channels.dtype, channels=channels and channels.shape[0], axes=d.integer(0, 2))
    return Tensor(x.dtype, (x.shape[1],))


def _grid_sample(d: Drawer, types: list[Type | None], k: int, name: str) -> Tensor:
    x, grid = tensors(types, 2)
    if k == 0:
        return _image(d, grid.dtype, grid.shape[0], axes=max(grid.rank - 2, 0)) if grid and grid.rank else _image(d)
    x = x or _image(d)
    return Tensor(x.dtype, (x.shape[0], *(d.choose((2, 3, 1, 5)) for _ in x.shape[2:]), x.rank - 2))


def _roi_align(d: Drawer, types: list[Type | None], k: int, name: str) -> Tensor:
    x, rois, images = tensors(types, 3)
    if k == 0:
        return _image(d, rois and rois.dtype)
    same = images if k == 1 else rois
    count = same.shape[0] if same and same.rank else d.choose((2, 1, 0, 3))
    return Tensor(x.dtype if x else f32, (count, 4)) if k == 1 else Tensor(i64, (count,))


def _nms(d: Drawer, types: list[Type | None], k: int, name: str) -> Tensor:
    other = types[1 - k]
    batch, boxes = (other.shape[0], other.shape[2 if k == 0 else 1]) if isinstance(other, Tensor) and other.rank == 3 \
        else (d.integer(1, 2), d.choose((3, 5, 1, 0)))
    return Tensor(f32, (batch, boxes, 4) if k == 0 else (batch, d.integer(1, 2), boxes))


def _quantize(d: Drawer, types: list[Type | None], k: int, name: str) -> Tensor:
    return _scaled(d, types, k, f32)


def _dequantize(d: Drawer, types: list[Type | None], k: int, name: str) -> Tensor:
    return _scaled(d, types, k, d.choose((i8, u8, i32)))


def _scaled(d: Drawer, types: list[Type | None], k: int, dtype: DType) -> Tensor:
    """x, its scale and zero point: of one element, or of one for each of axis 1 (of axis 0 where x has no other)."""
    x, scale, zero = tensors(types, 3)
    if k == 0:
        parameters = scale or zero
        dtype = zero.dtype if zero and not dtype.is_float else dtype
        if parameters is None or not parameters.rank:
            return Tensor(dtype, d.base_shape)
        return Tensor(dtype, (*d.shape(0, 1), *parameters.shape, *d.shape(0, 1))[-3:])
    x = x or Tensor(dtype, d.base_shape)
    same = zero if k == 1 else scale
    shape = same.shape if same else () if d.boolean() or not x.rank else (x.shape[min(1, x.rank - 1)],)
    return Tensor(f32 if k == 1 else x.dtype if x.dtype.is_integer else i8, shape)


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
    if name == "idx":
        return Tensor(i64, d.shape(0, 2))
    return d.like(next((t for t in types if isinstance(t, Tensor)), None))


def _trilu(d: Drawer, types: list[Type | None], k: int, name: str) -> Tensor:
    return Tensor(i64, ()) if name == "k" else Tensor(d.dtype(), d.base_shape if len(d.base_shape) > 1 else d.shape(2))


def _at_elements(d: Drawer, types: list[Type | None], k: int, name: str) -> Tensor:
    """An index for each element of the updates, and no more of them on any axis than x has."""
    x, idx, updates = tensors(types, 3)
    parts = idx or updates
    if k == 0:
        shape = larger(d, parts.shape) if parts else d.base_shape or d.shape(1)
        return Tensor(updates.dtype if updates else d.dtype(), shape)
    x = x or d.like(None)
    same = updates if k == 1 else idx
    return Tensor(d.choose((i64, i64, i32)) if k == 1 else x.dtype, same.shape if same else smaller(d, x.shape))


def _at_tuples(d: Drawer, types: list[Type | None], k: int, name: str) -> Tensor:
    """x, tuples of indices of its first axes, and slices of its other axes for each tuple."""
    x, idx, updates = tensors(types, 3)
    if k == 0:
        length = idx.shape[-1] if idx and idx.rank else d.integer(0, 2)
        if not isinstance(length, int) or length > 5:
            return d.nothing("there are no tensors of so many axes")
        rest = updates.shape[max(idx.rank - 1, 0) if idx else min(1, updates.rank):] if updates else d.shape(0, 2)
        return Tensor(updates.dtype if updates else d.dtype(), (*(d.dim() for _ in range(length)), *rest))
    x = x or d.like(None)
    if k == 2:
        return Tensor(x.dtype, (*idx.shape[:-1], *x.shape[idx.shape[-1]:])) if idx and idx.rank else d.like(None)
    if updates is None:
        return Tensor(d.choose((i64, i64, i32)), (*d.shape(0, 2), d.integer(0, min(x.rank, 3))))
    lengths = [n for n in range(x.rank + 1) if x.rank - n <= updates.rank
               and updates.shape[updates.rank - (x.rank - n):] == x.shape[n:]]
    length = d.choose(lengths or d.nothing("the updates are no slices of x"))
    return Tensor(i64, (*updates.shape[:updates.rank - (x.rank - length)], length))


def _block(d: Drawer, types: list[Type | None], k: int, name: str) -> Tensor:
    """x, a block that fits into it, and where it begins on each axis."""
    x, block = tensors(types, 2)
    if name == "starts":
        return Tensor(i64, ())
    if k == 0:
        return block.with_shape(larger(d, block.shape)) if block and name == "updates" else d.like(None)
    x = x or d.like(None)
    return x.with_shape(smaller(d, x.shape))


def smaller(d: Drawer, shape: tuple[Dim, ...]) -> tuple[Dim, ...]:
    """A shape that is no larger on any axis."""
    return tuple(n if d.boolean() else min(n, d.choose((1, 2, n, 0))) for n in shape)  # type: ignore[type-var]


def larger(d: Drawer, shape: tuple[Dim, ...]) -> tuple[Dim, ...]:
    """A shape that is no smaller on any axis."""
    return tuple(n + (0 if d.boolean() else d.choose((1, 2))) for n in shape)


def _attention(d: Drawer, types: list[Type | None], k: int, name: str) -> Tensor:
    q, keys, values, mask = tensors(types, 4)
    if k == 3 and q and keys:
        return Tensor(bool_ if d.boolean() else q.dtype, d.variant((*q.shape[:-1], keys.shape[-2])))
    other = q or keys or values or Tensor(mask.dtype if mask and mask.dtype.is_float else d.choose((f32, f64)),
                                          (d.integer(1, 2), d.choose((2, 4)), d.dim(), 4))
    if other.rank < 3:
        return d.nothing("attention is over [batch..., heads, length, head size]")
    *batch, heads, length, size = other.shape
    if k == 0:
        if mask and mask.rank >= 2 and not (keys or values):
            heads, length = mask.shape[-3] if mask.rank > 2 else heads, mask.shape[-2]
        return other.with_shape((*batch, heads * d.choose((1, 1, 2)), length, size if keys or q is None else 4))
    if k == 1:
        heads, length = (values.shape[-3], values.shape[-2]) if values else (heads, d.choose((length, 3)))
        length = mask.shape[-1] if mask and mask.rank and values is None else length
        return other.with_shape((*batch, heads, length, size))
    return keys.with_shape((*keys.shape[:-1], d.choose((keys.shape[-1], 3)))) if keys else other


OPERANDS: dict[str, Callable[[Drawer, list[Type | None], int, str], Type]] = {
    "elementwise": _elementwise, "where": _where, "contraction": _matmul, "window": _window,
    "normalization": _normalization, "concat": _concat, "index": _index, "attention": _attention,
    "batch_norm": _batch_norm, "grid_sample": _grid_sample, "roi_align": _roi_align, "conv_transpose": _conv_transpose,
    "nms": _nms, "quantize": _quantize, "dequantize_linear": _dequantize,
    "gather_elements": _at_elements, "scatter_elements": _at_elements, "gather_nd": _at_tuples,
    "scatter_nd": _at_tuples, "update_slice": _block, "dynamic_slice": _block, "trilu": _trilu,
    "rotary_embedding": _rotary, "random": _random, "compress": _compress,
    "sequence": _sequence,
}


