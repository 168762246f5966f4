"""Products of short numbers, several to a lane by one instruction, on constant B.

vpdpbusd (AVX512-VNNI)    int32 += sum of 4 uint8 * int8
vdpbf16ps (AVX512-BF16)   float32 += sum of 2 bf16 * bf16; subnormal numbers count as zero

To the micro-kernel a step of k is a word of 32 bits: of `group` consecutive k. A's rows are words, staged in scratch or
read in place, B's panels hold [k / group][NR][group]. Without the instructions the products run in the sums' dtype.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from effcc.backends.tvm.templates.emission import (
    Cpu,
    Expr,
    bind,
    cast,
    constant,
    divide,
    dtype_of,
    for_lanes,
    load,
    splat,
    store,
    vector_type,
)
from effcc.ir.lazy import T

Reader = Callable[[Expr, int], Expr]


def find(cpu: Cpu, a: str, b: str, sum_dtype: str, lanes: int) -> Dots | None:
    """The instruction for sums of a * b in vectors of `lanes`, if there is one."""
    if lanes not in (4, 8, 16):
        return None
    if cpu.byte_dots and a in ("uint8", "int8") and b == "int8" and sum_dtype == "int32":
        return ByteDots(a, lanes)
    if cpu.pair_dots and a == b == "bfloat16" and sum_dtype == "float32":
        return PairDots(lanes)
    return None


class Dots:
    """An instruction: the layouts that it asks for, and the micro-kernel's arithmetic (see micro_kernel.Arithmetic)."""

    group: int
    """Elements in a word."""
    prefix = 0
    """Rows of a panel before its first step."""

    def __init__(self, a: str, lanes: int):
        self.a, self.lanes, self.words = a, lanes, vector_type("int32", lanes)

    @property
    def unit(self) -> int:
        """Elements of B's buffer for each lane."""
        return self.group

    def panels(self, matrix: np.ndarray, width: int) -> np.ndarray:
        """[..., K, N] -> [..., panels, ceil(K / group), NR, group], zeros where k or n end early."""
        *batch, depth, columns = matrix.shape
        steps, panels = -(-depth // self.group), -(-columns // width)
        padded = np.zeros((*batch, steps * self.group, panels * width), matrix.dtype)
        padded[..., :depth, :columns] = matrix
        blocks = padded.reshape(*batch, steps, self.group, panels, width)
        return np.ascontiguousarray(np.moveaxis(np.moveaxis(blocks, -2, -4), -2, -1))

    def pack(self, matrix: np.ndarray, width: int) -> np.ndarray:
        """`panels`, the prefix before each."""
        return self.panels(matrix, width)

    def bits(self, value: Expr, lanes: int) -> Expr:
        """Elements of A as unsigned integers, as they lie in words."""
        raise NotImplementedError

    def word(self, value: int) -> int:
        """A word all of whose elements are `value`, as an int32."""
        raise NotImplementedError

    def value(self, a: Any, place: Expr) -> Expr:
        """A word of A in all lanes."""
        return splat(load(a, place), self.lanes)

    def column(self, b: Any, place: Expr) -> Expr:
        """A step of a panel's vector."""
        return load(b, place, self.group * self.lanes)

    def initial(self, b: Any, panel: Expr, vector: int, vectors: int) -> Expr:
        """What the sums of a panel's vector begin with."""
        raise NotImplementedError

    def add(self, total: Expr, value: Expr, column: Expr) -> Expr:
        raise NotImplementedError

    @contextmanager
    def definitions(self) -> Iterator[None]:
        """Around the code that uses the instruction."""
        yield

    def stage(self, target: Any, place: Expr, count: int, read: Reader) -> None:
        """Write ceil(count / group) words to the int32 buffer `target`: read(k, lanes) gives elements k, k + 1..."""
        group, wide = self.group, self.group * self.lanes
        width = 32 // group

        def vector(first: Expr, n: int) -> None:
            given = bind(self.bits(read(first, n), n))
            words = T.reinterpret(vector_type("int32", n // group), given)
            store(target, words, bind(place + divide(first, group)), n // group)

        def word(first: Expr, parts: int) -> Expr:
            value = T.int32(0)
            for i in range(parts):
                element = T.Cast("int32", self.bits(read(bind(first + i), 1), 1))
                value = T.bitwise_or(value, T.shift_left(element, T.int32(width * i)))
            return value

        whole = count // group * group
        for_lanes(T.int64(0), whole, wide, vector)
        if count % group:
            T.buffer_store(target, word(T.int64(whole), count % group), [place + whole // group])


class ByteDots(Dots):
    """Signed A is staged plus 128 (as unsigned bytes); what that adds, 128 times the sum of B's column, is taken off
    ahead: a panel begins with the sums' initial values."""

    group, prefix = 4, 1

    def __init__(self, a: str, lanes: int):
        super().__init__(a, lanes)
        self.bytes = f"int8x{4 * lanes}"
        self.instruction = T.llvm_lookup_intrinsic_id(f"llvm.x86.avx512.vpdpbusd.{32 * lanes}")

    def pack(self, matrix: np.ndarray, width: int) -> np.ndarray:
        blocks = self.panels(matrix, width)
        *batch, panels, _, _, _ = blocks.shape
        sums = blocks.sum((-3, -1), dtype=np.int64)
        offset = (-128 * sums if self.a == "int8" else 0 * sums).astype(np.int32)
        initial = np.ascontiguousarray(offset.reshape(*batch, panels, 1, width, 1)).view(np.int8)
        return np.ascontiguousarray(np.concatenate([initial, blocks], -3))

    def word(self, value: int) -> int:
        byte = value + 128 if self.a == "int8" else value
        return int.from_bytes(bytes([byte] * 4), "little", signed=True)

    def bits(self, value: Expr, lanes: int) -> Expr:
        value = T.reinterpret(vector_type("uint8", lanes), cast(value, self.a, lanes))
        return T.bitwise_xor(value, constant(128, "uint8", lanes)) if self.a == "int8" else value

    def value(self, a: Any, place: Expr) -> Expr:
        return T.reinterpret(self.bytes, bind(super().value(a, place)))

    def add(self, total: Expr, value: Expr, column: Expr) -> Expr:
        return T.call_llvm_pure_intrin(self.instruction, total, value, column, dtype=self.words)

    def initial(self, b: Any, panel: Expr, vector: int, vectors: int) -> Expr:
        """From the row before the panel's first step."""
        return T.reinterpret(self.words, self.column(b, panel + (vector - vectors) * 4 * self.lanes))


class PairDots(Dots):
    """TVM knows no vectors of bf16: the instruction is in a function of LLVM IR, which LLVM puts in line."""

    group = 2

    def __init__(self, lanes: int, words: bool = False):
        """words: B's panels are given as int32, too."""
        super().__init__("bfloat16", lanes)
        self.given_words = words

    @property
    def unit(self) -> int:
        return 1 if self.given_words else 2

    @property
    def function(self) -> str:
        return f"effcc_pair_dots_{self.lanes}"

    @contextmanager
    def definitions(self) -> Iterator[None]:
        n = self.lanes
        sums, words, pairs = f"<{n} x float>", f"<{n} x i32>", f"<{2 * n} x bfloat>"
        intrinsic = f"{sums} @llvm.x86.avx512bf16.dpbf16ps.{32 * n}"
        text = f"""define {sums} @{self.function}({sums} %total, {words} %value, {words} %column) {{
  %a = bitcast {words} %value to {pairs}
  %b = bitcast {words} %column to {pairs}
  %sum = call {intrinsic}({sums} %total, {pairs} %a, {pairs} %b)
  ret {sums} %sum
}}
declare {intrinsic}({sums}, {pairs}, {pairs})
"""
        with T.attr(T.int32(0), "pragma_import_llvm", text):
            yield

    def word(self, value: int) -> int:
        bits = int(np.float32(value).view(np.uint32)) >> 16
        return int.from_bytes(2 * bits.to_bytes(2, "little"), "little", signed=True)

    def bits(self, value: Expr, lanes: int) -> Expr:
        if dtype_of(value).startswith("uint16"):
            return value
        return T.reinterpret(vector_type("uint16", lanes), cast(value, "bfloat16", lanes))

    def column(self, b: Any, place: Expr) -> Expr:
        if self.given_words:
            return load(b, place, self.lanes)
        return T.reinterpret(self.words, bind(self.bits(super().column(b, place), 2 * self.lanes)))

    def add(self, total: Expr, value: Expr, column: Expr) -> Expr:
        return T.call_extern(vector_type("float32", self.lanes), self.function, total, value, column)

    def initial(self, b: Any, panel: Expr, vector: int, vectors: int) -> Expr:
        return constant(0, "float32", self.lanes)
