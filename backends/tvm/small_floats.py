"""Floats of 8 bits and less as a byte in memory and f32 in registers, by integer arithmetic alone: no CPU has
instructions
for all of them, and selects of vectors need no branches.

The formats: OCP 8-bit Floating Point 1.0 (f8e4m3, f8e5m2), Noune et al. 2022 (the fnuz kinds: no infinities, no
negative
zero, one NaN in its place), OCP Microscaling Formats 1.0 (f4 = e2m1, f8e8m0 = powers of two). Rounding is to nearest
even.
Beyond the greatest finite value: f8e5m2 gives infinity; f8e4m3, the fnuz kinds and f8e8m0, which have none, give NaN;
f4
saturates. A NaN becomes NaN, in f4, which has none, ±6.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from effcc.backends.tvm.values import bind, eq, isnan, lanes_of, literal, with_lanes
from effcc.ir.lazy import T
from effcc.ir.types import DType

Tir = Any


@dataclass(frozen=True)
class Format:
    """sign, exponent and mantissa bits; an exponent field e ≥ 1 stands for 2^(e - bias), 0 for the subnormals."""

    exponent: int
    mantissa: int
    bias: int
    infinity: int | None = None
    """The magnitude bits of ∞, if there is one; what is greater is NaN."""
    nan: int | None = None
    """The magnitude bits of the NaN that is made, if there is one."""
    unsigned_zero: bool = False
    """The bits of -0 are NaN."""

    @property
    def magnitude(self) -> int:
        """A mask of all bits but the sign."""
        return (1 << (self.exponent + self.mantissa)) - 1


FORMATS = {
    "f8e4m3": Format(4, 3, 7, nan=0x7F),
    "f8e5m2": Format(5, 2, 15, infinity=0x7C, nan=0x7F),
    "f8e4m3fnuz": Format(4, 3, 8, unsigned_zero=True),
    "f8e5m2fnuz": Format(5, 2, 16, unsigned_zero=True),
    "f4": Format(2, 1, 1),
}


class _Words:
    """Vectors of 32-bit words and the floats that they spell."""

    def __init__(self, lanes: int):
        self.lanes = lanes

    def word(self, value: int) -> Tir:
        return literal("uint32", value, self.lanes)

    def number(self, value: float) -> Tir:
        return literal("float32", value, self.lanes)

    def as_float(self, bits: Tir) -> Tir:
        return T.reinterpret(with_lanes("float32", self.lanes), bits)

    def as_word(self, x: Tir) -> Tir:
        return T.reinterpret(with_lanes("uint32", self.lanes), x)

    def byte(self, bits: Tir) -> Tir:
        return T.Cast(with_lanes("uint8", self.lanes), bits)

    def left(self, bits: Tir, count: int) -> Tir:
        return T.shift_left(bits, self.word(count))

    def right(self, bits: Tir, count: int) -> Tir:
        return T.shift_right(bits, self.word(count))

    def mask(self, bits: Tir, mask: int) -> Tir:
        return T.bitwise_and(bits, self.word(mask))


NAN = 0x7FC00000
INFINITY = 0x7F800000


def decode(x: Tir, dtype: DType) -> Tir:
    """uint8 -> float32, exactly."""
    w = _Words(lanes_of(x))
    bits = bind(T.Cast(with_lanes("uint32", w.lanes), x))
    if dtype.name == "f8e8m0":
        power = T.Select(eq(bits, w.word(0)), w.word(1 << 22), w.left(bits, 23))  # 2^-127 is subnormal in f32
        return w.as_float(T.Select(eq(bits, w.word(0xFF)), w.word(NAN), power))
    f = FORMATS[dtype.name]
    magnitude = bind(w.mask(bits, f.magnitude))
    normal = w.left(magnitude, 23 - f.mantissa) + w.word((127 - f.bias) << 23)
    whole = T.Cast(with_lanes("float32", w.lanes), T.Cast(with_lanes("int32", w.lanes), magnitude))
    subnormal = w.as_word(whole * w.number(2.0 ** (1 - f.bias - f.mantissa)))
    out = T.Select(magnitude < w.word(1 << f.mantissa), subnormal, normal)
    if f.infinity is not None:
        special = T.Select(eq(magnitude, w.word(f.infinity)), w.word(INFINITY), w.word(NAN))
        out = T.Select(magnitude >= w.word(f.infinity), special, out)
    elif f.nan is not None:
        out = T.Select(eq(magnitude, w.word(f.nan)), w.word(NAN), out)
    sign_bit = f.magnitude + 1
    sign = w.left(w.mask(bits, sign_bit), 32 - sign_bit.bit_length())
    out = T.bitwise_or(out, sign)
    if f.unsigned_zero:
        out = T.Select(eq(bits, w.word(sign_bit)), w.word(NAN), out)
    return w.as_float(out)


def encode(x: Tir, dtype: DType) -> Tir:
    """float32 -> uint8, to nearest even."""
    w = _Words(lanes_of(x))
    x = bind(x)
    bits = bind(w.as_word(x))
    magnitude = bind(w.mask(bits, 0x7FFFFFFF))
    if dtype.name == "f8e8m0":
        return w.byte(_nearest_power(w, magnitude))
    f = FORMATS[dtype.name]
    drop = 23 - f.mantissa
    parity = w.mask(w.right(magnitude, drop), 1)
    normal = w.right(magnitude + parity + w.word((1 << (drop - 1)) - 1), drop) - w.word((127 - f.bias) << f.mantissa)
    # A number whose last place is the format's least: adding it leaves the subnormal's count of places in the low bits.
    unit = 2.0 ** (23 + 1 - f.bias - f.mantissa)
    places = w.as_word(w.as_float(magnitude) + w.number(unit)) - w.as_word(w.number(unit))
    code = bind(T.Select(magnitude < w.word((128 - f.bias) << 23), places, normal))
    sign_bit = f.magnitude + 1
    sign = w.mask(w.right(bits, 32 - sign_bit.bit_length()), sign_bit)
    if f.unsigned_zero:
        finite = T.Select(eq(code, w.word(0)), w.word(0), T.bitwise_or(code, sign))
        return w.byte(T.Select(code > w.word(f.magnitude), w.word(sign_bit), finite))
    top = f.magnitude if f.infinity is None else f.infinity
    code = T.min(code, w.word(top))
    if f.infinity is not None:
        code = T.Select(isnan(x), w.word(f.nan), code)
    return w.byte(T.bitwise_or(code, sign))


def _nearest_power(w: _Words, magnitude: Tir) -> Tir:
    """The exponent field of the nearest power of two: ties go up, but in the subnormals down to 2^-127, as torch has
    it; ∞
    and NaN become NaN."""
    is_normal = T.min(w.right(magnitude, 23), w.word(1))
    return T.min(w.right(magnitude + w.word(0x3FFFFF) + is_normal, 23), w.word(0xFF))
