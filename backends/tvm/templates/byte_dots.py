"""Products of bytes by one instruction for four of them: vpdpbusd (AVX512-VNNI), int32 += sum of 4 uint8 * int8.

A's rows are staged in scratch as words of four consecutive k, B's panels hold [k / 4][NR][4], so that to the
micro-kernel a step of k is a word. Signed A is staged plus 128 (as unsigned bytes); what that adds, 128 times the sum
of B's column, is taken off ahead: a panel begins with the sums' initial values. Without the instruction the products
run in int32.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from effcc.backends.tvm.templates.emission import Cpu, Expr, bind, cast, constant, load, splat, vector_type
from effcc.ir.lazy import T

GROUP = 4


def applies(cpu: Cpu, a: str, b: str, sum_dtype: str) -> bool:
    return cpu.byte_dots and a in ("uint8", "int8") and b == "int8" and sum_dtype == "int32" and cpu.vector_bits >= 128


def pack(matrix: np.ndarray, width: int, signed: bool) -> np.ndarray:
    """int8 [..., K, N] -> [..., panels, 1 + ceil(K / 4), NR, 4]; `signed` says whether A is."""
    *batch, depth, columns = matrix.shape
    steps, panels = -(-depth // GROUP), -(-columns // width)
    padded = np.zeros((*batch, steps * GROUP, panels * width), np.int8)
    padded[..., :depth, :columns] = matrix
    blocks = padded.reshape(*batch, steps, GROUP, panels, width)
    blocks = np.moveaxis(np.moveaxis(blocks, -2, -4), -2, -1)  # [..., panels, steps, NR, 4]
    offset = -128 * padded.sum(-2, dtype=np.int64) if signed else np.zeros((*batch, panels * width), np.int64)
    initial = np.ascontiguousarray(offset.astype(np.int32).reshape(*batch, panels, 1, width, 1)).view(np.int8)
    return np.ascontiguousarray(np.concatenate([initial, blocks], -3))


def word(value: int, dtype: str) -> int:
    """Four elements of A as they are staged, as an int32."""
    byte = value + 128 if dtype == "int8" else value
    return int.from_bytes(bytes([byte] * GROUP), "little", signed=True)


class ByteDots:
    """The micro-kernel's arithmetic (see micro_kernel.Arithmetic) on words of four bytes."""

    unit = GROUP  # elements of B for each lane

    def __init__(self, lanes: int):
        self.lanes, self.bytes, self.words = lanes, f"int8x{GROUP * lanes}", vector_type("int32", lanes)
        self.instruction = T.llvm_lookup_intrinsic_id(f"llvm.x86.avx512.vpdpbusd.{32 * lanes}")

    def column(self, b: Any, place: Expr) -> Expr:
        return load(b, place, GROUP * self.lanes)

    def value(self, a: Any, place: Expr) -> Expr:
        return T.reinterpret(self.bytes, bind(splat(load(a, place), self.lanes)))

    def add(self, total: Expr, value: Expr, column: Expr) -> Expr:
        return T.call_llvm_pure_intrin(self.instruction, total, value, column, dtype=self.words)

    def initial(self, b: Any, panel: Expr, vector: int, vectors: int) -> Expr:
        """From the row before the panel's first step."""
        place = panel + (vector - vectors) * GROUP * self.lanes
        return T.reinterpret(self.words, load(b, place, GROUP * self.lanes))


def stage(target: Any, place: Expr, count: int, dtype: str, lanes: int, read: Callable[[Expr, int], Expr]) -> None:
    """Write ceil(count / 4) words to the int32 buffer `target` from `place`: read(k, lanes) gives bytes k, k + 1..."""
    wide = GROUP * lanes

    def unsigned(value: Expr, n: int) -> Expr:
        value = T.reinterpret(vector_type("uint8", n), cast(value, dtype, n))
        return T.bitwise_xor(value, constant(128, "uint8", n)) if dtype == "int8" else value

    if count >= wide:
        with T.serial(T.int64(0), T.int64(count // wide)) as block:
            given = bind(unsigned(read(bind(block * wide), wide), wide))
            words = T.reinterpret(vector_type("int32", lanes), given)
            at = place + block * lanes
            T.buffer_store(target, words, [T.ramp(at, T.int64(1), lanes) if lanes > 1 else at])

    def word(first: Expr, parts: int) -> Expr:
        value = T.int32(0)
        for i in range(parts):
            byte = T.Cast("int32", unsigned(read(bind(first + i), 1), 1))
            value = T.bitwise_or(value, T.shift_left(byte, T.int32(8 * i)))
        return value

    done = count // wide * wide
    with T.serial(T.int64(done // GROUP), T.int64(count // GROUP)) as i:
        T.buffer_store(target, word(bind(i * GROUP), GROUP), [place + i])
    if count % GROUP:
        T.buffer_store(target, word(T.int64(count // GROUP * GROUP), count % GROUP), [place + count // GROUP])
