"""Constant data: an array with a content hash, often memory-mapped from the model file, never copied twice."""

from __future__ import annotations

import hashlib
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

from effcc.ir.types import DType, Tensor

if TYPE_CHECKING:
    import numpy as np


class Blob:
    """The elements of a constant. Equality is by type and content; the hash is computed when first asked for.

    >>> import numpy as np
    >>> a = Blob(np.arange(3, dtype="f4"))
    >>> a == Blob(np.arange(3, dtype="f4")), str(a.type)
    (True, 'f32[3]')
    """

    at_hand: ClassVar[bool] = True
    """Whether the elements can be asked for; else only type and hash can (graphs of artifacts)."""

    def __init__(self, array: Any, dtype: DType | None = None, owner: object = None):
        """`array`: anything NumPy takes; `dtype` where NumPy's carrier is wider than the element (i4 in int8, bf16 in
        uint16
        is not accepted: use ml_dtypes); `owner` is kept alive with the array (a torch tensor, a file mapping)."""
        import numpy as np

        self.array: np.ndarray[Any, Any] = np.asarray(array)
        self.owner = owner
        self.type = Tensor(dtype or DType.of(self.array.dtype), tuple(int(d) for d in self.array.shape))

    @staticmethod
    def from_torch(t: Any) -> Blob:
        """Share a torch tensor's memory (bf16 and f8 by reinterpretation, without a copy)."""
        import torch

        t = t.detach()
        t = t if t.is_contiguous() else t.contiguous()
        dtype = DType.of(t.dtype)
        if dtype.name == "bf16" or (dtype.is_float and dtype.bits == 8):
            raw = t.view(torch.int16 if dtype.bits == 16 else torch.int8).numpy().view(dtype.numpy)
            return Blob(raw, dtype, owner=t)
        return Blob(t.numpy(), dtype, owner=t)

    def torch(self) -> Any:
        """The data as a torch tensor (shared where it can be)."""
        import numpy as np
        import torch

        array = self.array
        if self.type.dtype.name in ("bf16", "f8e4m3", "f8e5m2", "f8e4m3fnuz", "f8e5m2fnuz", "f8e8m0"):
            raw = np.ascontiguousarray(array).view(np.int16 if self.type.dtype.bits == 16 else np.uint8)
            return torch.from_numpy(raw.copy()).view(self.type.dtype.torch).reshape(array.shape)
        if array.dtype.kind not in "biufc":
            array = array.astype(np.float32 if self.type.dtype.is_float else np.int8)
        if not array.flags.writeable or not array.flags.c_contiguous or any(s < 0 for s in array.strides):
            import warnings

            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                array = np.ascontiguousarray(array).reshape(array.shape)  # it makes rank 0 rank 1
                return torch.from_numpy(array).to(self.type.dtype.torch)
        return torch.from_numpy(array).to(self.type.dtype.torch)

    @cached_property
    def sha256(self) -> str:
        import numpy as np

        digest = hashlib.sha256(f"{self.type}".encode())
        digest.update(np.ascontiguousarray(self.array).reshape(-1).view(np.uint8).data)
        return digest.hexdigest()

    @property
    def memory(self) -> tuple[Any, ...]:
        """Where the elements lie: equal for two blobs of one type, both alive, that share their memory."""
        return self.array.__array_interface__["data"][0], self.array.strides

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        return (
            isinstance(other, Blob)
            and self.type == other.type
            and (self.memory == other.memory or self.sha256 == other.sha256)
        )

    def __hash__(self) -> int:
        return self._hash

    @cached_property
    def _hash(self) -> int:
        """Of the type and a few elements spread over the data: a mapped file is not read as a whole."""
        import numpy as np

        size = self.array.size
        some = np.linspace(0, size - 1, min(size, 16)).astype(np.int64)
        return hash((self.type, self.array.flat[some].tobytes()))

    def __repr__(self) -> str:
        return f"blob({self.type})"
