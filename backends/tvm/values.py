"""Values in registers: their dtypes, literals and comparisons, and how they pass through memory.

Floats shorter than 32 bits are computed in f32 and rounded where an op ends; bool is a predicate in registers and a
byte in memory; sub-byte integers ride in a byte.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import cache
from typing import Any

from effcc.backends.tvm.templates import emission
from effcc.ir.lazy import T, tvm
from effcc.ir.types import DType

Tir = Any
_MEMORY = {"bool": "uint8", "bf16": "uint16", "f16": "float16", "f32": "float32", "f64": "float64"}


def register_dtype(dtype: DType) -> str:
    """The TIR dtype that values are computed in."""
    if dtype.is_float:
        return "float64" if dtype.bits == 64 else "float32"
    if dtype.is_bool:
        return "bool"
    return ("int" if dtype.kind == "i" else "uint") + str(max(8, dtype.bits))


def memory_dtype(dtype: DType) -> str:
    """The TIR dtype of the buffer."""
    if dtype.name in _MEMORY:
        return _MEMORY[dtype.name]
    return "uint8" if dtype.is_float else register_dtype(dtype)


def template_dtype(dtype: DType) -> str:
    """The same as templates/ see it: bf16 by its name (`emission.cast`), not as the bits that it has in memory."""
    return "bfloat16" if dtype.name == "bf16" else memory_dtype(dtype)


def lanes_of(x: Tir) -> int:
    text = str(x.ty)
    return int(text.rsplit("x", 1)[1]) if "x" in text else 1


def with_lanes(dtype: str, lanes: int) -> str:
    return dtype if lanes == 1 else f"{dtype}x{lanes}"


def splat(x: Tir, lanes: int) -> Tir:
    return x if lanes == 1 or lanes_of(x) == lanes else T.broadcast(x, lanes)


def literal(dtype: str, value: float | int | bool, lanes: int = 1) -> Tir:
    if dtype == "bool":
        return splat(tvm.prim.const(bool(value), "bool"), lanes)
    if dtype.startswith("float"):
        return splat(tvm.prim.FloatImm(dtype, float(value)), lanes)
    bits, signed = int(dtype.removeprefix("u").removeprefix("int")), not dtype.startswith("u")
    value = int(value) & ((1 << bits) - 1)
    if bits == 64 and value >= 1 << 63:
        if signed:
            return splat(tvm.prim.IntImm(dtype, value - (1 << 64)), lanes)
        return splat(T.reinterpret("uint64", tvm.prim.IntImm("int64", value - (1 << 64))), lanes)
    if signed and value >= 1 << (bits - 1):
        value -= 1 << bits
    return splat(tvm.prim.IntImm(dtype, value), lanes)


def reinterpreted(dtype: str, x: Tir, lanes: int) -> Tir:
    """The same bits as another dtype. (TVM takes a constant 0 in a reinterpretation for a null pointer.)"""
    value = x.value if isinstance(x, tvm.prim.Broadcast) else x
    if isinstance(value, tvm.prim.IntImm) and int(value) == 0:
        return literal(dtype, 0, lanes)
    return T.reinterpret(with_lanes(dtype, lanes), x)


def eq(a: Tir, b: Tir) -> Tir:
    return tvm.prim.EQ(a, b)


def ne(a: Tir, b: Tir) -> Tir:
    """a ≠ b of integers (TVM's is false for NaN: see `unequal`)."""
    return tvm.prim.NE(a, b)


def isnan(x: Tir) -> Tir:
    from effcc.backends.tvm import vector_math

    return vector_math.isnan(bind, x)


def unequal(a: Tir, b: Tir) -> Tir:
    """a ≠ b of floats, true where either is NaN."""
    a, b = bind(a), bind(b)
    return tvm.prim.Or(tvm.prim.NE(a, b), tvm.prim.Or(isnan(a), isnan(b)))


@cache
def _analyzer() -> Any:
    return tvm.sym.Analyzer()


def simplify(x: Tir) -> Tir:
    return _analyzer().simplify(x)


def bind(x: Tir) -> Tir:
    """Name a value in the current scope, so that using it twice computes it once."""
    if isinstance(x, (tvm.tirx.Var, tvm.prim.IntImm, tvm.prim.FloatImm)) or str(x.ty).startswith("boolx"):
        return x  # TVM's analyzer rejects a bound vector of predicates
    if isinstance(x, (tvm.prim.Broadcast, tvm.prim.Ramp)) and isinstance(
        getattr(x, "value", getattr(x, "base", None)), (tvm.tirx.Var, tvm.prim.IntImm, tvm.prim.FloatImm)
    ):
        return x
    return x if _decoded_bf16(x) is not None else emission.bind(x)


def decode(x: Tir, dtype: DType) -> Tir:
    """Memory -> register."""
    lanes = lanes_of(x)
    if dtype.is_bool:
        return ne(x, literal("uint8", 0, lanes))
    if dtype.name == "f16":
        return T.Cast(with_lanes("float32", lanes), x)
    if dtype.name == "bf16":
        wide = T.Cast(with_lanes("uint32", lanes), bind(x))
        return T.reinterpret(with_lanes("float32", lanes), T.shift_left(wide, literal("uint32", 16, lanes)))
    if dtype.is_float and dtype.bits <= 8:
        from effcc.backends.tvm import small_floats

        return small_floats.decode(x, dtype)
    return wrap(x, dtype)


def encode(x: Tir, dtype: DType) -> Tir:
    """Register -> memory; rounds to nearest even."""
    lanes = lanes_of(x)
    if dtype.is_bool:
        return T.Select(x, literal("uint8", 1, lanes), literal("uint8", 0, lanes))
    if dtype.name == "f16":
        return T.Cast(with_lanes("float16", lanes), x)
    if dtype.name == "bf16":
        bits = _decoded_bf16(x)
        return emission.bf16_bits(x, lanes) if bits is None else bits
    if dtype.is_float and dtype.bits <= 8:
        from effcc.backends.tvm import small_floats

        return small_floats.encode(x, dtype)
    return wrap(x, dtype)


def _decoded_bf16(x: Tir) -> Tir | None:
    """The bits that `decode` made a bf16 of, if it did: rounded again, and stored, they stay as they are."""
    shifted = x.args[0] if isinstance(x, tvm.ir.Call) and len(x.args) == 1 else None
    if not isinstance(shifted, tvm.prim.LShift) or not isinstance(shifted.a, tvm.prim.Cast):
        return None
    bits = shifted.a.value
    return bits if str(x.ty).startswith("float32") and str(bits.ty).startswith("uint16") else None


def wrap(x: Tir, dtype: DType) -> Tir:
    """An integer of less than a byte from its low bits: what the byte's other bits hold differs between NumPy and
    torch."""
    if not dtype.is_integer or dtype.bits >= 8:
        return x
    unused = literal(register_dtype(dtype), 8 - dtype.bits, lanes_of(x))
    return T.shift_right(T.shift_left(x, unused), unused)


def round_to(x: Tir, dtype: DType) -> Tir:
    """What the register value becomes when it passes through memory."""
    if dtype.is_float and dtype.bits < 32:
        return decode(bind(encode(bind(x), dtype)), dtype)
    return wrap(x, dtype)


@contextlib.contextmanager
def loop(start: Tir | int, stop: Tir | int, name: str = "i") -> Iterator[Tir]:
    """for i in [start, stop)"""
    first = T.int64(start) if isinstance(start, int) else start
    last = T.int64(stop) if isinstance(stop, int) else stop
    with T.serial(first, last) as i:
        yield i
