"""Compressed layouts of constants: what a sparse weight keeps, and how its elements come back.

An encoded tensor means the same elements as a plain one; only how they lie in memory differs. So any op may read it,
the interpreter runs it as it stands, and a backend that has code for a layout reads the compressed parts.

    >>> import numpy as np
    >>> w = np.zeros((8, 4), "f4"); w[2:4, 0:2] = 1.0
    >>> blob = encode(w, block_csr((2, 2)))
    >>> str(blob.type), [p.shape for p in blob.parts], bool((blob.array == w).all())
    ('f32[8,4]@block_csr(block=(2, 2), kept=1)', [(1, 2, 2), (5,), (1,)], True)
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any, ClassVar

from effcc.errors import InputError
from effcc.ir.blob import Blob
from effcc.ir.types import DType, Encoding, Tensor


@dataclass(frozen=True)
class Codec:
    """How the elements of a layout are stored. Subclasses say so; `params` are the encoding's own."""

    name: str
    stores_zeros: ClassVar[bool] = False
    """Whether each element is stored. Else products leave zeros out, and what they make with infinity: NaN."""

    def encode(self, array: Any, encoding: Encoding) -> tuple[Encoding, tuple[Any, ...]]:
        """(the encoding with what it learned from the data, the parts to store). Raises InputError where the elements
        do not have the pattern."""
        raise NotImplementedError

    def decode(self, parts: tuple[Any, ...], type_: Tensor) -> Any:
        """The plain array."""
        raise NotImplementedError

    def kept(self, type_: Tensor) -> int:
        """How many elements are stored."""
        raise NotImplementedError

    def nbytes(self, type_: Tensor) -> int:
        """Bytes of all parts."""
        raise NotImplementedError


class BlockCsr(Codec):
    """The blocks that are not zero of a matrix [rows, columns], row of blocks by row of blocks, each block row-major.

    block=(r, c): sizes along the stored axes; blocks at the lower and right edges are filled up with zeros.
    kept: blocks stored. Parts: values [kept, r, c]; starts i32[⌈rows / r⌉ + 1], where each row of blocks begins among
    them; columns i32[kept], the column of blocks that each lies in (rising within a row).
    """

    def encode(self, array: Any, encoding: Encoding) -> tuple[Encoding, tuple[Any, ...]]:
        import numpy as np

        block = parameter(encoding, "block")
        if array.ndim != 2:
            raise InputError(f"block_csr holds matrices, not rank {array.ndim}")
        blocks = as_blocks(array, block)
        full = blocks.any(axis=(2, 3))
        if parameter(encoding, "kept", None) not in (None, int(full.sum())):
            raise InputError(f"the data has {full.sum()} blocks, the type says {parameter(encoding, 'kept')}")
        starts = np.concatenate([[0], np.cumsum(full.sum(1))]).astype(np.int32)
        _, columns = np.nonzero(full)
        parts = (np.ascontiguousarray(blocks[full]), starts, columns.astype(np.int32))
        return block_csr(block, int(full.sum())), parts

    def decode(self, parts: tuple[Any, ...], type_: Tensor) -> Any:
        import numpy as np

        values, starts, columns = parts
        height, width = parameter(type_.encoding, "block")
        rows, count = (int(d) for d in type_.shape)  # type: ignore[arg-type]
        grid = np.zeros((len(starts) - 1, -(-count // width), height, width), values.dtype)
        grid[np.repeat(np.arange(len(starts) - 1), np.diff(starts)), columns] = values
        whole = grid.swapaxes(1, 2).reshape(grid.shape[0] * height, grid.shape[1] * width)
        return np.ascontiguousarray(whole[:rows, :count])

    def kept(self, type_: Tensor) -> int:
        height, width = parameter(type_.encoding, "block")
        return parameter(type_.encoding, "kept") * height * width

    def nbytes(self, type_: Tensor) -> int:
        height, _ = parameter(type_.encoding, "block")
        rows = -(-int(type_.shape[0]) // height)  # type: ignore[arg-type]
        return self.kept(type_) * type_.dtype.bytes + 4 * (rows + 1 + parameter(type_.encoding, "kept"))


class TwoFour(Codec):
    """At most two elements of each four neighbours along `axis`: the two, and where they were in two bits each.

    (NVIDIA's structured sparsity; Mishra et al. 2021.) With the array as [left, K, right] around `axis`, parts are
    values [left, K / 2, right] and positions u8[left, ⌈K / 8⌉, right]: a nibble for each four, the first one's two bits
    lowest; the even fours in the low nibble. The first position is below the second.
    """

    def encode(self, array: Any, encoding: Encoding) -> tuple[Encoding, tuple[Any, ...]]:
        import numpy as np

        axis = parameter(encoding, "axis")
        fours = as_fours(array, axis)
        full = fours != 0
        if (full.sum(2) > 2).any():
            raise InputError("some four neighbours hold more than two elements that are not zero")
        order = np.argsort(~full, axis=2, kind="stable")[:, :, :2]  # the full ones first, in their order
        order = np.sort(order, axis=2)
        values = np.take_along_axis(fours, order, axis=2)
        left, groups, _, right = values.shape
        nibbles = (order[:, :, 0] | order[:, :, 1] << 2).astype(np.uint8)
        nibbles = np.concatenate([nibbles, np.zeros((left, groups % 2, right), np.uint8)], axis=1)
        positions = nibbles[:, 0::2] | nibbles[:, 1::2] << 4
        return two_four(axis), (np.ascontiguousarray(values.reshape(left, 2 * groups, right)), positions)

    def decode(self, parts: tuple[Any, ...], type_: Tensor) -> Any:
        import numpy as np

        values, order = self.places(parts)
        left, groups, _, right = values.shape
        fours = np.zeros((left, groups, 4, right), values.dtype)
        np.put_along_axis(fours, order, values, axis=2)
        return fours.reshape(tuple(int(d) for d in type_.shape))  # type: ignore[arg-type]

    def places(self, parts: tuple[Any, ...]) -> tuple[Any, Any]:
        """(values, their places 0..3 among their four), each [left, K / 4, 2, right]."""
        import numpy as np

        values, positions = parts
        left, half, right = values.shape
        groups = half // 2
        nibbles = np.stack([positions & 15, positions >> 4], axis=2).reshape(left, -1, right)[:, :groups]
        return values.reshape(left, groups, 2, right), np.stack([nibbles & 3, nibbles >> 2], axis=2).astype(np.int64)

    def kept(self, type_: Tensor) -> int:
        assert isinstance(type_.size, int)
        return type_.size // 2

    def nbytes(self, type_: Tensor) -> int:
        axis = parameter(type_.encoding, "axis")
        k = int(type_.shape[axis])  # type: ignore[arg-type]
        assert isinstance(type_.size, int)
        return self.kept(type_) * type_.dtype.bytes + type_.size // k * -(-k // 8)


class Nibbles(Codec):
    """4-bit integers, two a byte: u8[⌈size / 2⌉], the elements in row-major order, the first of two in the low nibble.
    (ONNX, TensorProto.int32_data of INT4)"""

    stores_zeros = True

    def encode(self, array: Any, encoding: Encoding) -> tuple[Encoding, tuple[Any, ...]]:
        import numpy as np

        flat = np.ascontiguousarray(array).reshape(-1).astype(np.int8)
        if flat.size and (flat.min() < -8 or flat.max() > 15 or flat.min() < 0 and flat.max() > 7):
            raise InputError("some elements have more than 4 bits")
        even = np.concatenate([flat, np.zeros(flat.size % 2, np.int8)]).view(np.uint8)
        return NIBBLES, (even[0::2] & 15 | even[1::2] << 4,)

    def decode(self, parts: tuple[Any, ...], type_: Tensor) -> Any:
        import numpy as np

        (packed,) = parts
        size = int(type_.size)  # type: ignore[arg-type]
        elements = np.stack([packed & 15, packed >> 4], axis=1).reshape(-1)[:size]
        if type_.dtype.kind == "i":
            elements = (elements << 4).view(np.int8) >> 4
        return elements.reshape(tuple(int(d) for d in type_.shape))  # type: ignore[arg-type]

    def kept(self, type_: Tensor) -> int:
        return int(type_.size)  # type: ignore[arg-type]

    def nbytes(self, type_: Tensor) -> int:
        return -(-self.kept(type_) // 2)


NIBBLES = Encoding("nibbles")
CODECS: dict[str, Codec] = {c.name: c for c in (BlockCsr("block_csr"), TwoFour("two_four"), Nibbles("nibbles"))}
"""The compressed layouts by the encoding's name; others (panels, channel blocks) belong to one backend alone."""


class EncodedBlob(Blob):
    """A constant in a compressed layout. `parts` is what is stored; `array` is decoded anew each time."""

    def __init__(self, parts: tuple[Any, ...], type_: Tensor):
        assert type_.encoding is not None
        self.parts, self.type, self.owner = parts, type_, None

    @property
    def array(self) -> Any:  # type: ignore[override]
        return codec(self.type).decode(self.parts, self.type)

    @property
    def memory(self) -> tuple[Any, ...]:
        return tuple(part.__array_interface__["data"][0] for part in self.parts)

    @property
    def sha256(self) -> str:  # type: ignore[override]
        import numpy as np

        if "digest" not in self.__dict__:
            digest = hashlib.sha256(f"{self.type}".encode())
            for part in self.parts:
                digest.update(np.ascontiguousarray(part).reshape(-1).view(np.uint8).data)
            self.__dict__["digest"] = digest.hexdigest()
        return self.__dict__["digest"]

    def torch(self) -> Any:
        return Blob(self.array, self.type.dtype).torch()

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, Blob) and self.type == other.type and self.sha256 == other.sha256)

    def __hash__(self) -> int:
        return hash(self.sha256)


def encode(array: Any, encoding: Encoding, dtype: DType | None = None) -> EncodedBlob:
    """An array in a compressed layout. Raises InputError where its elements do not have the layout's pattern."""
    plain = Blob(array, dtype)
    if encoding.name not in CODECS:
        raise InputError(f"constants cannot be stored as {encoding}", hint=f"as {', '.join(CODECS)}")
    encoding, parts = CODECS[encoding.name].encode(plain.array, encoding)
    return EncodedBlob(parts, Tensor(plain.type.dtype, plain.type.shape, encoding))


def codec(type_: Tensor) -> Codec:
    """The layout of a tensor's elements; it must have a compressed one."""
    assert type_.encoding is not None
    return CODECS[type_.encoding.name]


def stores_zeros(type_: Any) -> bool:
    """Whether an infinite number times each element of such a tensor is what it would be with a plain one."""
    return not is_compressed(type_) or codec(type_).stores_zeros


def is_compressed(type_: Any) -> bool:
    return isinstance(type_, Tensor) and type_.encoding is not None and type_.encoding.name in CODECS


def block_csr(block: tuple[int, int], kept: int | None = None) -> Encoding:
    params: tuple[tuple[str, Any], ...] = (("block", tuple(block)),)
    return Encoding("block_csr", params if kept is None else (*params, ("kept", kept)))


def two_four(axis: int) -> Encoding:
    return Encoding("two_four", (("axis", axis),))


REQUIRED = object()


def parameter(encoding: Encoding | None, name: str, default: Any = REQUIRED) -> Any:
    """One of an encoding's parameters."""
    found = dict(() if encoding is None else encoding.params)
    if name not in found and default is REQUIRED:
        raise InputError(f"the encoding {encoding} lacks {name}")
    return found.get(name, default)


def as_blocks(array: Any, block: tuple[int, int]) -> Any:
    """[rows, columns] -> [rows of blocks, columns of blocks, r, c], the edges filled up with zeros."""
    import numpy as np

    (rows, columns), (height, width) = array.shape, block
    down, across = -(-rows // height), -(-columns // width)
    if (rows, columns) != (down * height, across * width):
        array = np.pad(array, ((0, down * height - rows), (0, across * width - columns)))
    return array.reshape(down, height, across, width).swapaxes(1, 2)


def as_fours(array: Any, axis: int) -> Any:
    """[..., K, ...] -> [left, K / 4, 4, right]. Raises InputError where K is no multiple of 4."""
    import numpy as np

    shape = array.shape
    if shape[axis] % 4:
        raise InputError(f"axis {axis} has {shape[axis]} elements, which is no multiple of 4")
    left, right = int(np.prod(shape[:axis])), int(np.prod(shape[axis + 1 :]))
    return np.ascontiguousarray(array).reshape(left, shape[axis] // 4, 4, right)
