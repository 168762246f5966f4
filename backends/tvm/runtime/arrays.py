"""The caller's arrays as addresses, and fresh arrays of the caller's kind, importing only what the caller uses.

NumPy arrays, torch tensors on the CPU, and whatever else speaks DLPack (given back as NumPy arrays).
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import cache
from math import prod
from typing import Any

import numpy as np

from effcc.errors import InputError

_NUMPY = {
    "f64": "float64", "f32": "float32", "f16": "float16", "bool": "bool",
    "i64": "int64", "i32": "int32", "i16": "int16", "i8": "int8",
    "u64": "uint64", "u32": "uint32", "u16": "uint16", "u8": "uint8",
}  # fmt: skip
_ML_DTYPES = {
    "bf16": "bfloat16", "f8e4m3": "float8_e4m3fn", "f8e5m2": "float8_e5m2", "f8e4m3fnuz": "float8_e4m3fnuz",
    "f8e5m2fnuz": "float8_e5m2fnuz", "f8e8m0": "float8_e8m0fnu", "f4": "float4_e2m1fn",
    "i4": "int4", "i2": "int2", "u4": "uint4", "u2": "uint2",
}  # fmt: skip
CARRIERS = {"i4": "i8", "i2": "i8", "u4": "u8", "u2": "u8", "u1": "u8"}
"""Integers of less than a byte: each takes one, so arrays of the carrier's dtype will do for them."""
_TORCH = {
    **_NUMPY,
    **{name: foreign for name, foreign in _ML_DTYPES.items() if name == "bf16" or name.startswith("f8")},
    **{name: _NUMPY[carrier] for name, carrier in CARRIERS.items()},
}
_NAMES = {foreign: name for name, foreign in {**_NUMPY, **_ML_DTYPES}.items()}
ITEM_BYTES = {name: {"64": 8, "32": 4, "16": 2}.get(name.lstrip("bfiu"), 1) for name in (*_NUMPY, *_ML_DTYPES, "u1")}

ALIGNMENT = 64
"""Bytes: what kernels may assume of every buffer."""


class Numpy:
    """NumPy's arrays. The methods of an array kind: see also `Torch`."""

    @staticmethod
    def dtype(array: Any) -> str:
        kind = array.dtype
        return _NAMES.get(kind.name, kind.name) if kind.isnative else kind.str

    @staticmethod
    def address(array: Any) -> int:
        """Of its first element, or 0 if its elements do not lie in row-major order without gaps."""
        return array.ctypes.data if array.flags.c_contiguous else 0

    @staticmethod
    def writable(array: Any) -> bool:
        return array.flags.writeable

    @staticmethod
    def copy_to(array: Any, memory: memoryview) -> None:
        """Copies all elements in row-major order to the memory's beginning."""
        if array.size:
            np.frombuffer(memory, array.dtype, array.size).reshape(array.shape)[...] = array

    @staticmethod
    def copy_from(array: Any, memory: memoryview) -> None:
        if array.size:
            array[...] = np.frombuffer(memory, array.dtype, array.size).reshape(array.shape)

    @staticmethod
    def empty(shape: Sequence[int], dtype: str) -> tuple[Any, int]:
        """A fresh array and its address, a multiple of 64."""
        kind = numpy_dtype(dtype)
        size = prod(shape) * kind.itemsize
        memory = np.empty(size + ALIGNMENT, np.uint8)
        address = memory.__array_interface__["data"][0]
        start = -address % ALIGNMENT
        return np.ndarray(shape, kind, memory, start), address + start

    @staticmethod
    def cut(array: Any, shape: Sequence[int]) -> Any:
        """The array of `shape` at the beginning of a larger one's memory."""
        return np.ndarray(shape, array.dtype, array)


class Torch:
    """torch's tensors, on the CPU."""

    @staticmethod
    def dtype(tensor: Any) -> str:
        name = str(tensor.dtype)[6:]
        return _NAMES.get(name, name)

    @staticmethod
    def address(tensor: Any) -> int:
        if tensor.device.type != "cpu":
            raise InputError(f"the tensor is on {tensor.device}, the program on the CPU", hint="call .cpu() first")
        if not tensor.is_contiguous() or tensor.is_neg():
            return 0
        return tensor.data_ptr()

    @staticmethod
    def writable(tensor: Any) -> bool:
        return not (tensor.requires_grad and sys.modules["torch"].is_grad_enabled())

    @staticmethod
    def copy_to(tensor: Any, memory: memoryview) -> None:
        torch = sys.modules["torch"]
        if tensor.numel():
            torch.frombuffer(memory, dtype=tensor.dtype, count=tensor.numel()).view(tensor.shape).copy_(tensor.detach())

    @staticmethod
    def copy_from(tensor: Any, memory: memoryview) -> None:
        torch = sys.modules["torch"]
        if tensor.numel():
            tensor.detach().copy_(torch.frombuffer(memory, dtype=tensor.dtype, count=tensor.numel()).view(tensor.shape))

    @staticmethod
    def empty(shape: Sequence[int], dtype: str) -> tuple[Any, int]:
        tensor = _torch_empty(shape, dtype)
        address = tensor.data_ptr()
        if address % ALIGNMENT == 0:
            return tensor, address
        size = tensor.element_size()
        memory = _torch_empty((prod(shape) + ALIGNMENT // size,), dtype)
        start = -memory.data_ptr() % ALIGNMENT // size
        tensor = memory[start : start + prod(shape)].view(tuple(shape))
        return tensor, tensor.data_ptr()

    @staticmethod
    def cut(tensor: Any, shape: Sequence[int]) -> Any:
        return tensor.view(-1)[: prod(shape)].view(tuple(shape))


Kind = type[Numpy] | type[Torch]


def _torch_empty(shape: Sequence[int], dtype: str) -> Any:
    torch = sys.modules["torch"]
    if dtype not in _TORCH:
        raise InputError(f"torch has no tensors of {dtype}", hint="call the program with NumPy arrays")
    return torch.empty(shape, dtype=getattr(torch, _TORCH[dtype]))


def fits(given: str, wanted: str) -> bool:
    """Whether an array of dtype `given` may stand for one of dtype `wanted`."""
    return given in (wanted, CARRIERS.get(wanted))


def adopt(array: Any) -> tuple[Any, Kind]:
    """An array and its kind; objects that only speak DLPack, and Python numbers and lists, become NumPy arrays."""
    if isinstance(array, np.ndarray):
        return array, Numpy
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(array, torch.Tensor):
        return array, Torch
    if hasattr(array, "__dlpack__"):
        return np.from_dlpack(array), Numpy
    return np.asarray(array), Numpy


@cache
def numpy_dtype(name: str) -> np.dtype[Any]:
    if name in _ML_DTYPES:
        import ml_dtypes

        return np.dtype(getattr(ml_dtypes, _ML_DTYPES[name]))
    return np.dtype(_NUMPY[CARRIERS[name] if name == "u1" else name])


def aligned_memory(size: int) -> np.ndarray:
    """Bytes whose address is a multiple of a page, or of 64 for little."""
    alignment = 4096 if size >= 1 << 16 else ALIGNMENT
    memory = np.empty(size + alignment, np.uint8)
    start = -memory.__array_interface__["data"][0] % alignment
    return memory[start : start + size]
