"""Types of values: an open union of tensors, sequences, optionals, symbolic integers and random-number state.

type     := dtype "[" dim, ... "]" [encoding]  |  sequence<type>  |  optional<type>  |  symint  |  rng
dtype    := f64 f32 f16 bf16 f8e4m3 f8e5m2 f4 | i64 i32 i16 i8 i4 i2 | u64 u32 u16 u8 u4 u2 u1 | bool | complex64/128
str
encoding := how a constant or an internal value is laid out: plain (none), panels, nhwc-blocked, int4 groups, 2:4, ...
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any

from effcc.errors import ParseError
from effcc.ir.dims import Dim, product, symbols

if TYPE_CHECKING:
    import numpy as np
    import torch


@dataclass(frozen=True, slots=True, eq=False)
class DType:
    """An element type. `kind`: f float, i signed, u unsigned, b bool, c complex (reserved), s string (reserved).

    There is one object for each: see DTYPES."""

    name: str
    bits: int
    kind: str

    def __reduce__(self) -> tuple[Any, ...]:
        return DType.parse, (self.name,)

    def __repr__(self) -> str:
        return self.name

    @property
    def is_float(self) -> bool:
        return self.kind == "f"

    @property
    def is_integer(self) -> bool:
        return self.kind in "iu"

    @property
    def is_bool(self) -> bool:
        return self.kind == "b"

    @property
    def bytes(self) -> int:
        """Bytes that one element takes in memory (sub-byte types rounded up: packing them is an encoding)."""
        return max(1, self.bits // 8)

    @property
    def min(self) -> int | float:
        if self.kind == "i":
            return -(1 << (self.bits - 1))
        return float("-inf") if self.kind == "f" else 0

    @property
    def max(self) -> int | float:
        if self.kind == "f":
            return float("inf")
        return 1 if self.kind == "b" else (1 << (self.bits - (self.kind == "i"))) - 1

    @property
    def normal(self) -> tuple[float, float]:
        """The least and the greatest size of a float's normal numbers: those with all their digits."""
        import ml_dtypes

        info = ml_dtypes.finfo(self.numpy)
        return float(info.smallest_normal), float(info.max)

    @property
    def numpy(self) -> np.dtype[Any]:
        """The NumPy dtype that carries it (ml_dtypes for bf16, the f8 kinds and what is shorter; bytes for u1)."""
        return _numpy(self)

    @property
    def torch(self) -> torch.dtype:
        """The torch dtype that carries it; sub-byte integers ride in 8 bits."""
        return _torch(self)

    @staticmethod
    def parse(text: str) -> DType:
        if text not in DTYPES:
            raise ParseError(f"unknown dtype {text!r}", hint=f"one of {', '.join(DTYPES)}")
        return DTYPES[text]

    @staticmethod
    def of(dtype: Any) -> DType:
        """From a NumPy or torch dtype."""
        name = str(dtype).removeprefix("torch.")
        if name not in _FOREIGN:
            import numpy as np

            name = np.dtype(dtype).name if not str(dtype).startswith("torch.") else name
        if name.startswith(("str", "object", "bytes")):
            return string
        if name not in _FOREIGN:
            raise ParseError(f"no effcc dtype for {dtype}", hint="cast the tensor to one of " + ", ".join(DTYPES))
        return DTYPES[_FOREIGN[name]]


f64, f32, f16, bf16 = DType("f64", 64, "f"), DType("f32", 32, "f"), DType("f16", 16, "f"), DType("bf16", 16, "f")
f8e4m3, f8e5m2, f4 = DType("f8e4m3", 8, "f"), DType("f8e5m2", 8, "f"), DType("f4", 4, "f")
f8e4m3fnuz, f8e5m2fnuz, f8e8m0 = DType("f8e4m3fnuz", 8, "f"), DType("f8e5m2fnuz", 8, "f"), DType("f8e8m0", 8, "f")
i64, i32, i16, i8 = (DType(f"i{n}", n, "i") for n in (64, 32, 16, 8))
i4, i2 = DType("i4", 4, "i"), DType("i2", 2, "i")
u64, u32, u16, u8 = (DType(f"u{n}", n, "u") for n in (64, 32, 16, 8))
u4, u2, u1 = DType("u4", 4, "u"), DType("u2", 2, "u"), DType("u1", 1, "u")
bool_ = DType("bool", 8, "b")
complex64, complex128, string = DType("complex64", 64, "c"), DType("complex128", 128, "c"), DType("str", 0, "s")

DTYPES: dict[str, DType] = {
    d.name: d
    for d in (
        f64,
        f32,
        f16,
        bf16,
        f8e4m3,
        f8e5m2,
        f8e4m3fnuz,
        f8e5m2fnuz,
        f8e8m0,
        f4,
        i64,
        i32,
        i16,
        i8,
        i4,
        i2,
        u64,
        u32,
        u16,
        u8,
        u4,
        u2,
        u1,
        bool_,
        complex64,
        complex128,
        string,
    )
}

_FOREIGN = {
    "float64": "f64",
    "float32": "f32",
    "float16": "f16",
    "bfloat16": "bf16",
    "float8_e4m3fn": "f8e4m3",
    "float8_e5m2": "f8e5m2",
    "float8_e4m3fnuz": "f8e4m3fnuz",
    "float8_e5m2fnuz": "f8e5m2fnuz",
    "float8_e8m0fnu": "f8e8m0",
    "float4_e2m1fn": "f4",
    "int64": "i64",
    "int32": "i32",
    "int16": "i16",
    "int8": "i8",
    "int4": "i4",
    "int2": "i2",
    "uint64": "u64",
    "uint32": "u32",
    "uint16": "u16",
    "uint8": "u8",
    "uint4": "u4",
    "uint2": "u2",
    "bool": "bool",
    "complex64": "complex64",
    "complex128": "complex128",
}
_TO_FOREIGN = {ours: theirs for theirs, ours in _FOREIGN.items()}


@cache
def _numpy(dtype: DType) -> np.dtype[Any]:
    import numpy as np

    name = "uint8" if dtype.name == "u1" else _TO_FOREIGN.get(dtype.name)
    if name is None:
        raise ParseError(f"NumPy cannot hold {dtype.name}")
    if dtype.kind in "iub" and dtype.bits >= 8 or dtype.name in ("u1", "f64", "f32", "f16", "complex64", "complex128"):
        return np.dtype(name)
    import ml_dtypes

    return np.dtype(getattr(ml_dtypes, name))


@cache
def _torch(dtype: DType) -> torch.dtype:
    import torch

    carrier = {"i4": "int8", "i2": "int8", "u4": "uint8", "u2": "uint8", "u1": "uint8", "f4": "float32"}
    name = carrier.get(dtype.name) or _TO_FOREIGN.get(dtype.name)
    if name is None or not hasattr(torch, name):
        raise ParseError(f"torch cannot hold {dtype.name}")
    return getattr(torch, name)


@dataclass(frozen=True, slots=True)
class Encoding:
    """How the elements of a logical shape lie in memory, e.g. `panels(nr=48)`; `None` on a Tensor means plain
    row-major."""

    name: str
    params: tuple[tuple[str, Any], ...] = ()

    def __str__(self) -> str:
        inner = ", ".join(f"{k}={v}" for k, v in self.params)
        return f"{self.name}({inner})" if inner else self.name


class Type:
    """Base of the union."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Tensor(Type):
    """A dense array: element type, shape (outermost dimension first), and an encoding where it is not row-major."""

    dtype: DType
    shape: tuple[Dim, ...] = ()
    encoding: Encoding | None = field(default=None)

    @property
    def rank(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> Dim:
        """The number of elements."""
        return product(self.shape)

    @property
    def nbytes(self) -> Dim:
        """Bytes in memory; of a compressed layout, what it stores."""
        if self.encoding is not None:
            from effcc.ir import encodings

            if encodings.is_compressed(self):
                return encodings.codec(self).nbytes(self)
        return self.size * self.dtype.bytes

    @property
    def is_static(self) -> bool:
        return all(isinstance(d, int) for d in self.shape)

    def with_shape(self, shape: tuple[Dim, ...]) -> Tensor:
        return Tensor(self.dtype, tuple(shape))

    def with_dtype(self, dtype: DType) -> Tensor:
        return Tensor(dtype, self.shape)

    def __str__(self) -> str:
        suffix = f"@{self.encoding}" if self.encoding else ""
        return f"{self.dtype.name}[{','.join(str(d).replace(' ', '') for d in self.shape)}]{suffix}"


@dataclass(frozen=True, slots=True)
class Sequence(Type):
    """A list of values of one type whose length is known at run time."""

    element: Type

    def __str__(self) -> str:
        return f"sequence<{self.element}>"


@dataclass(frozen=True, slots=True)
class Optional(Type):
    """A value that may be absent."""

    element: Type

    def __str__(self) -> str:
        return f"optional<{self.element}>"


@dataclass(frozen=True, slots=True)
class SymInt(Type):
    """A run-time integer outside of any tensor."""

    def __str__(self) -> str:
        return "symint"


@dataclass(frozen=True, slots=True)
class RngState(Type):
    """The state of a counter-based random-number generator: a seed and an offset."""

    def __str__(self) -> str:
        return "rng"


def type_symbols(type_: Type) -> set[Any]:
    """Every symbol in a type's dimensions."""
    if isinstance(type_, Tensor):
        return {s for d in type_.shape if not isinstance(d, int) for s in symbols(d)}
    return type_symbols(type_.element) if isinstance(type_, (Sequence, Optional)) else set()
