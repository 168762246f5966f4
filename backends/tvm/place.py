"""Where a value lies: a buffer, an element offset and a stride for each axis. Views cost nothing: they only change
this."""

from __future__ import annotations

from dataclasses import dataclass, field

from effcc.ir import DType, Tensor
from effcc.ir.blob import Blob
from effcc.ir.dims import Dim, bounds, dim_max, dim_min, product
from effcc.ir.encodings import NIBBLES
from effcc.ops.view import BroadcastTo, Reshape, Slice, Transpose


@dataclass(eq=False)
class Buffer:
    """Contiguous memory. `kind`: "input", "constant", "temporary" or "output"; `size` counts elements of `dtype`."""

    name: str
    kind: str
    dtype: DType
    size: Dim
    blob: Blob | None = None
    position: int = -1
    """Which input or output it is."""
    donated: bool = field(default=False)

    @property
    def in_nibbles(self) -> bool:
        """Whether two elements lie in a byte (effcc.ir.encodings.Nibbles): only maps read such constants."""
        return self.blob is not None and self.blob.type.encoding == NIBBLES

    @property
    def element(self) -> tuple[DType, bool]:
        """How an element is stored."""
        return self.dtype, self.in_nibbles

    @property
    def nbytes(self) -> Dim:
        return -(-self.size // 2) if self.in_nibbles else self.size * self.dtype.bytes

    def __repr__(self) -> str:
        return f"{self.kind} {self.name}: {self.dtype}[{self.size}]"


@dataclass(frozen=True)
class Place:
    """Element [i...] lies at `offset` + Σ i·strides of the buffer."""

    buffer: Buffer
    shape: tuple[Dim, ...]
    strides: tuple[Dim, ...]
    offset: Dim = 0

    @property
    def is_plain(self) -> bool:
        """Row-major, from the buffer's start, and all of it."""
        return self.offset == 0 and self.is_dense and product(self.shape) == self.buffer.size

    @property
    def is_dense(self) -> bool:
        """Row-major without gaps."""
        return all(d == 1 or s == r for d, s, r in zip(self.shape, self.strides, row_major(self.shape), strict=True))

    def aligned_strides(self, space: tuple[Dim, ...]) -> tuple[Dim, ...]:
        """The strides along each axis of a space that this value is broadcast to."""
        lead = len(space) - len(self.shape)
        axes = zip(self.shape, space[lead:], self.strides, strict=True)
        return (0,) * lead + tuple(broadcast_stride(d, whole, s) for d, whole, s in axes)


def broadcast_stride(size: Dim, whole: Dim, stride: Dim) -> Dim:
    """The stride along an axis that is broadcast to size `whole`: 0 where its own size is 1, if only at run time."""
    if size == 1:
        return 0
    if size == whole or isinstance(size, int) or (bounds(size)[0] or 0) > 1:
        return stride
    return stride * dim_min(dim_max(size - 1, 0), 1)


def row_major(shape: tuple[Dim, ...]) -> tuple[Dim, ...]:
    out: list[Dim] = []
    stride: Dim = 1
    for d in reversed(shape):
        out.append(stride)
        stride = stride * d
    return tuple(reversed(out))


def plain(buffer: Buffer, type_: Tensor) -> Place:
    return Place(buffer, type_.shape, row_major(type_.shape))


def view(op: object, place: Place, result: Tensor) -> Place | None:
    """The place of a view op's result in its operand's memory, or None where only a copy will do."""
    match op:
        case Transpose(perm):
            return Place(place.buffer, result.shape, tuple(place.strides[p] for p in perm), place.offset)
        case Slice(starts, _, steps):
            if any(not isinstance(d, int) for d in (*starts,)):
                if any(st < 0 for st in steps):
                    return None
            offset = place.offset
            for a, s in zip(starts, place.strides, strict=True):
                offset = offset + s * a
            return Place(
                place.buffer, result.shape, tuple(s * st for s, st in zip(place.strides, steps, strict=True)), offset
            )
        case BroadcastTo(shape):
            lead = len(shape) - len(place.shape)
            for have, want in zip(place.shape, shape[lead:], strict=True):
                if have != want and have != 1:
                    return None
            strides = tuple(0 if d == 1 else s for d, s in zip(place.shape, place.strides, strict=True))
            return Place(place.buffer, shape, (0,) * lead + strides, place.offset)
        case Reshape(shape):
            strides = reshaped_strides(place, shape)
            return None if strides is None else Place(place.buffer, shape, strides, place.offset)
    return None


def reshaped_strides(place: Place, shape: tuple[Dim, ...]) -> tuple[Dim, ...] | None:
    """Strides of the same elements under another shape, if there are any: groups of axes with equal products are
    matched;
    several source axes must lie without gaps to be merged."""
    if any(d == 0 for d in (*place.shape, *shape)):
        return row_major(shape)
    source = [(d, s) for d, s in zip(place.shape, place.strides, strict=True) if d != 1]
    out: list[Dim] = [0] * len(shape)
    targets = [k for k, d in enumerate(shape) if d != 1]
    if not targets and source or not source and targets:
        return None if source or targets else tuple(out)
    i = j = 0
    while i < len(source) or j < len(targets):
        if i == len(source) or j == len(targets):
            return None
        first_i, first_j = i, j
        a, b = source[i][0], shape[targets[j]]
        i, j = i + 1, j + 1
        while a != b:
            if i == len(source) and j == len(targets):
                return None
            grow_b = j < len(targets) and (i == len(source) or _fewer(b, a))
            if grow_b:
                b, j = b * shape[targets[j]], j + 1
            elif i < len(source):
                a, i = a * source[i][0], i + 1
            else:
                return None
        for k in range(first_i, i - 1):  # merged source axes must be contiguous
            if source[k][1] != source[k + 1][1] * source[k + 1][0]:
                return None
        stride = source[i - 1][1]
        for k in reversed(range(first_j, j)):
            out[targets[k]] = stride
            stride = stride * shape[targets[k]]
    return tuple(out)


def _fewer(a: Dim, b: Dim) -> bool:
    if isinstance(a, int) and isinstance(b, int):
        return a < b
    return isinstance(a, int) or (not isinstance(b, int) and len(str(a)) < len(str(b)))


def merge_axes(space: tuple[Dim, ...], strides: list[tuple[Dim, ...]]) -> list[list[int]]:
    """Runs of adjacent axes of a space that every stride list walks as one axis; axes of size 1 drop out."""
    runs: list[list[int]] = []
    for k, d in enumerate(space):
        if d == 1:
            continue
        if runs and all(s[runs[-1][-1]] == s[k] * d for s in strides):
            runs[-1].append(k)
        else:
            runs.append([k])
    return runs
