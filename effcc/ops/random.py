"""Random numbers from a counter: Philox 4x32-10. (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3")

Every op takes (seed, offset), two i64[]. The element at row-major position p is a function of the key `seed` and the
counter `offset` + p alone, so a draw of n numbers is followed by one with an offset greater by n, and it does not
matter which thread or tile computes an element. The random bits, and so uniform numbers, integers and bernoulli trials,
agree bit for bit between the compiled code and the reference; normal numbers agree up to the rounding of log and cos.
"""

from __future__ import annotations

import math
from typing import Any

from effcc.ir import scalar as s
from effcc.ir.dims import Dim
from effcc.ir.lazy import torch
from effcc.ir.op import Op, require, tensor
from effcc.ir.scalar import Compute, Read, Scalar
from effcc.ir.types import DType, Tensor, Type, f32, f64, i32, i64, u64
from effcc.ops.view import linear_index

ROUNDS = 10
MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
WEYL = (0x9E3779B9, 0xBB67AE85)
LOW = 0xFFFFFFFF


def philox(seed: Scalar, counter: Scalar) -> tuple[Scalar, Scalar, Scalar, Scalar]:
    """Four random 32-bit words, as u64, for a key and a counter of 64 bits (the counter's upper half is 0)."""
    xor, shr = s.fn("xor"), s.fn("shr")
    half = s.const(u64, 32)
    k0, k1 = seed & LOW, shr(seed, half)
    zero = s.const(u64, 0)
    c0, c1, c2, c3 = counter & LOW, shr(counter, half), zero, zero
    for i in range(ROUNDS):
        if i:
            k0, k1 = (k0 + WEYL[0]) & LOW, (k1 + WEYL[1]) & LOW
        a, b = c0 * MULTIPLIERS[0], c2 * MULTIPLIERS[1]
        c0, c1, c2, c3 = xor(xor(shr(b, half), c1), k0), b & LOW, xor(xor(shr(a, half), c3), k1), a & LOW
    return c0, c1, c2, c3


def philox_torch(seed: Any, counter: Any) -> tuple[Any, Any, Any, Any]:
    """The same in torch, each word in an int64 (whose products wrap as unsigned ones do)."""
    k0, k1 = seed & LOW, (seed >> 32) & LOW
    c0, c1, c2, c3 = counter & LOW, (counter >> 32) & LOW, torch.zeros_like(counter), torch.zeros_like(counter)
    for i in range(ROUNDS):
        if i:
            k0, k1 = (k0 + WEYL[0]) & LOW, (k1 + WEYL[1]) & LOW
        a, b = c0 * MULTIPLIERS[0], c2 * MULTIPLIERS[1]
        c0, c1, c2, c3 = ((b >> 32) & LOW) ^ c1 ^ k0, b & LOW, ((a >> 32) & LOW) ^ c3 ^ k1, a & LOW
    return c0, c1, c2, c3


def fraction_bits(dtype: DType) -> int:
    """How many random bits a number in [0, 1) of a dtype holds: all such multiples of 2**-bits are exact."""
    return {"f64": 53, "f32": 24, "f16": 11, "bf16": 8}[dtype.name]


def random_integer(high: Scalar, low: Scalar, bits: int) -> Scalar:
    """The top `bits` of two words, as a signed integer."""
    if bits <= 32:
        return s.cast(s.fn("shr")(high, s.const(u64, 32 - bits)), i32)
    return s.cast(
        s.fn("or")(s.fn("shl")(high, s.const(u64, bits - 32)), s.fn("shr")(low, s.const(u64, 64 - bits))), i64
    )


def random_integer_torch(high: Any, low: Any, bits: int) -> Any:
    return high >> (32 - bits) if bits <= 32 else (high << (bits - 32)) | (low >> (64 - bits))


class Random(Op):
    """Numbers of a shape, each drawn from the words of its own counter."""

    family = "random"
    widens = False
    kinds = "fi"
    operands = ("seed", "offset")

    def check_state(self, seed: Type, offset: Type) -> None:
        for t, what in ((seed, "seed"), (offset, "offset")):
            require(t == Tensor(i64, ()), f"the {what} is {t}, not i64[]")

    def infer(self, *state: Any, **_: Any) -> Tensor:
        self.check_state(*state)
        return Tensor(self.dtype, self.shape)  # type: ignore[attr-defined]

    def draw(self, words: tuple[Scalar, ...]) -> Scalar:
        raise NotImplementedError(f"{type(self).__name__}.draw")

    def draw_torch(self, words: tuple[Any, ...]) -> Any:
        raise NotImplementedError(f"{type(self).__name__}.draw_torch")

    def compute(self, *state: Any, **_: Any) -> Compute:
        shape: tuple[Dim, ...] = self.shape  # type: ignore[attr-defined]
        return Compute(shape, (self.draw(words_at(shape, 0)),))

    def reference(self, *state: Any, **_: Any) -> Any:
        return self.draw_torch(words_of(self.shape, *state))  # type: ignore[attr-defined]


def words_at(shape: tuple[Dim, ...], first: int) -> tuple[Scalar, ...]:
    """The words of the element at the loop indices; `first` is the operand that is the seed."""
    seed, offset = (s.cast(Read(i64, first + k, ()), u64) for k in (0, 1))
    position = linear_index(tuple(s.index(k) for k in range(len(shape))), shape)
    return philox(seed, offset + s.cast(position, u64))


def words_of(shape: tuple[int, ...], seed: Any, offset: Any) -> tuple[Any, ...]:
    return philox_torch(seed, offset + torch.arange(math.prod(shape)).reshape(shape))


def require_float(dtype: DType) -> None:
    require(dtype.is_float and dtype.bits >= 16, f"{dtype} is not a float of 16 bits or more", "draw f32 and cast")


class RandomUniform(Random):
    """Uniform in [0, 1): multiples of 2⁻²⁴ (f64: 2⁻⁵³, f16: 2⁻¹¹, bf16: 2⁻⁸)."""
    name = "random_uniform"
    shape: tuple[Dim, ...]
    dtype: DType = f32

    def infer(self, seed: Type, offset: Type) -> Tensor:
        require_float(self.dtype)
        return super().infer(seed, offset)

    def draw(self, words: tuple[Scalar, ...]) -> Scalar:
        bits, acc = fraction_bits(self.dtype), f64 if self.dtype == f64 else f32
        return s.cast(s.cast(random_integer(words[0], words[1], bits), acc) * 2.0**-bits, self.dtype)

    def draw_torch(self, words: tuple[Any, ...]) -> Any:
        bits = fraction_bits(self.dtype)
        return (random_integer_torch(words[0], words[1], bits).double() * 2.0**-bits).to(self.dtype.torch)


class RandomNormal(Random):
    """Standard normal: √(-2 ln u) cos 2πv for u in (0, 1], v in [0, 1). (Box & Muller 1958)"""
    name = "random_normal"
    shape: tuple[Dim, ...]
    dtype: DType = f32

    def infer(self, seed: Type, offset: Type) -> Tensor:
        require_float(self.dtype)
        return super().infer(seed, offset)

    def draw(self, words: tuple[Scalar, ...]) -> Scalar:
        bits, acc = (53, f64) if self.dtype == f64 else (24, f32)
        u = s.cast(random_integer(words[0], words[1], bits) + 1, acc) * 2.0**-bits
        v = s.cast(random_integer(words[2], words[3], bits), acc) * 2.0**-bits
        return s.cast(s.sqrt(s.log(u) * -2.0) * s.fn("cos")(v * (2 * math.pi)), self.dtype)

    def draw_torch(self, words: tuple[Any, ...]) -> Any:
        bits = 53 if self.dtype == f64 else 24
        u = (random_integer_torch(words[0], words[1], bits) + 1).double() * 2.0**-bits
        v = random_integer_torch(words[2], words[3], bits).double() * 2.0**-bits
        return (torch.sqrt(-2 * torch.log(u)) * torch.cos(2 * math.pi * v)).to(self.dtype.torch)

    def magnitude(self, *state: Any, **_: Any) -> Any:
        """What a result's rounding is relative to. r = √(-2 ln u) and cos θ err by some units of themselves. θ = 2πv,
        of two roundings, errs by 2θ units, and cos θ by 2θ |sin θ| more: where it is near 0 that is all there is."""
        bits = 53 if self.dtype == f64 else 24
        words = words_of(self.shape, *state)  # type: ignore[arg-type]
        u = (random_integer_torch(words[0], words[1], bits) + 1).double() * 2.0**-bits
        turn = 2 * math.pi * random_integer_torch(words[2], words[3], bits).double() * 2.0**-bits
        return torch.sqrt(-2 * torch.log(u)) * (turn.cos().abs() + 2 * turn * turn.sin().abs())


class RandomInt(Random):
    """Integers uniform in [low, high): 63 random bits modulo the range."""
    name = "random_int"
    low: int
    high: int
    shape: tuple[Dim, ...]
    dtype: DType = i64

    def infer(self, seed: Type, offset: Type) -> Tensor:
        require(self.dtype.is_integer, f"{self.dtype} is not an integer")
        require(self.dtype.min <= self.low < self.high <= self.dtype.max + 1 and self.high - self.low < 2**63,
                f"[{self.low}, {self.high}) is no range of {self.dtype}")
        return super().infer(seed, offset)

    def draw(self, words: tuple[Scalar, ...]) -> Scalar:
        return s.cast(random_integer(words[0], words[1], 63) % (self.high - self.low) + self.low, self.dtype)

    def draw_torch(self, words: tuple[Any, ...]) -> Any:
        return (random_integer_torch(words[0], words[1], 63).remainder(self.high - self.low) + self.low).to(
            self.dtype.torch
        )


class Bernoulli(Random):
    """1 with probability p, else 0, for each element of p: u < p for u uniform in [0, 1). `dtype` None: p's."""
    name = "bernoulli"
    operands = ("p", "seed", "offset")
    dtype: DType | None = None

    def infer(self, p: Type, seed: Type, offset: Type) -> Tensor:
        self.check_state(seed, offset)
        require(tensor(p).dtype.is_float, f"the probability is {tensor(p).dtype}, not a float", "insert a cast")
        return tensor(p).with_dtype(self.dtype or tensor(p).dtype)

    def compute(self, p: Tensor, seed: Tensor, offset: Tensor) -> Compute:
        bits, acc = (53, f64) if p.dtype == f64 else (24, f32)
        words = words_at(p.shape, 1)
        u = s.cast(random_integer(words[0], words[1], bits), acc) * 2.0**-bits
        hit = u < s.cast(Read(p.dtype, 0, tuple(s.index(k) for k in range(p.rank))), acc)
        out = self.dtype or p.dtype
        return Compute(p.shape, (hit if out.is_bool else s.select(hit, s.const(out, 1), 0),))

    def reference(self, p: Any, seed: Any, offset: Any) -> Any:
        words, bits = words_of(tuple(p.shape), seed, offset), 53 if p.dtype == torch.float64 else 24
        u = random_integer_torch(words[0], words[1], bits).double() * 2.0**-bits
        return (u < p.double()).to(p.dtype if self.dtype is None else self.dtype.torch)
