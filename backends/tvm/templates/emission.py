"""What every template needs: 64-bit index arithmetic, vectors, accumulators in registers, and what the CPU can hold."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from effcc.ir.lazy import T, tvm

Expr = Any  # a tirx PrimExpr: TVM's Python classes are not typed
Index = int | Any  # a Python integer or an int64 expression
Epilogue = Callable[[tuple[Expr, ...], Expr, int], None]
Read = Callable[[tuple[Expr, ...], int], Expr]

BYTES = {
    "float64": 8,
    "float32": 4,
    "float16": 2,
    "bfloat16": 2,
    "int64": 8,
    "int32": 4,
    "int16": 2,
    "int8": 1,
    "uint64": 8,
    "uint32": 4,
    "uint16": 2,
    "uint8": 1,
    "bool": 1,
}
LESS_UNUSED = 1.2
"""Elements of whole vectors by those of half vectors, from which on these are taken: there are more of them."""
UNBOUNDED = 1 << 40
"""The extent declared for flat buffers whose size only the caller knows."""


@dataclass(frozen=True)
class Cpu:
    """What the blocking of a kernel depends on. `vector_bits` may be any power of two from 64; caches are per core."""

    vector_bits: int = 256
    vector_registers: int = 16
    l1_bytes: int = 32 << 10
    l2_bytes: int = 1 << 20
    threads: int = 1
    byte_dots: bool = False  # vpdpbusd on whole vectors
    pair_dots: bool = False  # vdpbf16ps
    split_vectors: bool = False  # half a vector takes half the time

    def lanes(self, dtype: str) -> int:
        return max(1, self.vector_bits // (8 * BYTES[dtype]))

    def lanes_over(self, dtype: str, count: int) -> int:
        """Lanes of the vectors that cover `count` elements: fewer where there are fewer, or where halves cost half and
        leave less unused."""
        lanes = self.lanes(dtype)
        while lanes > 1 and lanes // 2 >= count:
            lanes //= 2
        half = lanes // 2
        unused = self.split_vectors and lanes == self.lanes(dtype) and -(-count // lanes) * lanes
        return half if unused and unused >= LESS_UNUSED * -(-count // half) * half else lanes


def is_static(*values: Index) -> bool:
    return all(isinstance(value, int) for value in values)


def dtype_of(value: Expr) -> str:
    """ "float32", or "float32x16" for a vector."""
    return str(value.ty.dtype)


def are_even(*values: Index) -> bool:
    """Whether all are known, and even."""
    return is_static(*values) and all(value % 2 == 0 for value in values)


def index(value: Index) -> Expr:
    """An int64 expression."""
    if isinstance(value, int):
        return T.int64(value)
    return value if dtype_of(value) == "int64" else T.Cast("int64", value)


def multiply(a: Index, b: Index) -> Index:
    return a * b if is_static(a, b) else index(a) * index(b)


def product(values: Sequence[Index]) -> Index:
    result: Index = 1
    for value in values:
        result = multiply(result, value)
    return result


def is_zero(b: Index) -> bool:
    return int(getattr(b, "value", 1) if not isinstance(b, int) else b) == 0


def divide(a: Index, b: Index) -> Index:
    """a // b of non-negative numbers; an extent of 0 divides as 1 does: nothing runs then, and TVM refuses the 0."""
    b = 1 if is_zero(b) else b
    return a // b if is_static(a, b) else T.truncdiv(index(a), index(b))


def modulo(a: Index, b: Index) -> Index:
    """a % b of non-negative numbers; see `divide`."""
    b = 1 if is_zero(b) else b
    return a % b if is_static(a, b) else T.truncmod(index(a), index(b))


def ceil_divide(a: Index, b: int) -> Index:
    return -(-a // b) if isinstance(a, int) else divide(index(a) + (b - 1), b)


def minimum(a: Index, b: Index) -> Index:
    return min(a, b) if is_static(a, b) else T.min(index(a), index(b))


def maximum(a: Index, b: Index) -> Index:
    return max(a, b) if is_static(a, b) else T.max(index(a), index(b))


def bind(value: Expr) -> Expr:
    """`value`, computed once here.

    An integer that was computed becomes a variable. A float, a vector or what was read from memory goes through a small
    buffer, which LLVM turns into a register again: TVM's analyzer, fed with all variables by passes and the code
    generator, substitutes them into each other, in time exponential in the depth of shared subexpressions (20 s for one
    pow, minutes for an index that was read at an index that was read).
    """
    if isinstance(value, (int, float, tvm.tirx.Var, tvm.tirx.IntImm, tvm.tirx.FloatImm)):
        return value
    dtype, _, lanes = dtype_of(value).partition("x")
    if dtype == "bool" or not lanes and "int" in dtype and not isinstance(value, tvm.ir.TensorLoad):
        return T.bind(value)
    return hold(value)


def hold(value: Expr) -> Expr:
    """`value` by way of a small buffer, whatever it is: never substituted into what uses it."""
    dtype, _, lanes = dtype_of(value).partition("x")
    buffer = T.alloc_buffer((int(lanes or 1),), dtype, layout=None)  # as TVM finds out, slowly, for functions like ours
    place = at(T.int32(0), int(lanes or 1))
    T.buffer_store(buffer, value, [place])
    return buffer[place]


def unravel(flat: Index, extents: Sequence[Index]) -> tuple[Expr, ...]:
    """The coordinates of a flat row-major position, each bound to a variable; the leading one is not reduced.

    An extent of 0 is taken for 1: code that never runs must still be emitted.
    """
    coordinates: list[Expr] = []
    rest = flat
    for extent in reversed(extents[1:]):
        extent = max(1, extent) if isinstance(extent, int) else extent
        coordinates.append(bind(index(modulo(rest, extent))))
        rest = bind(index(divide(rest, extent)))
    coordinates.append(bind(index(rest)))
    return tuple(reversed(coordinates)) if extents else ()


def dot(coordinates: Sequence[Index], strides: Sequence[Index]) -> Expr:
    """The element offset of `coordinates`; a stride of 0 broadcasts."""
    offset = T.int64(0)
    for coordinate, stride in zip(coordinates, strides, strict=True):
        if not (isinstance(stride, int) and stride == 0):
            offset = offset + index(coordinate) * index(stride)
    return offset


def vector_type(dtype: str, lanes: int) -> str:
    return dtype if lanes == 1 else f"{dtype}x{lanes}"


def splat(value: Expr, lanes: int) -> Expr:
    return value if lanes == 1 else T.broadcast(value, lanes)


def constant(value: float, dtype: str, lanes: int = 1) -> Expr:
    literal = tvm.tirx.const(value, dtype)
    return splat(literal, lanes)


def at(offset: Expr, lanes: int, stride: int = 1) -> Expr:
    """The index expression of `lanes` consecutive elements (or `stride` apart)."""
    return offset if lanes == 1 else T.ramp(offset, index(stride), lanes)


def load(buffer: Any, offset: Expr, lanes: int = 1, stride: int = 1) -> Expr:
    return buffer[at(offset, lanes, stride)]


def store(buffer: Any, value: Expr, offset: Expr, lanes: int = 1, stride: int = 1) -> None:
    T.buffer_store(buffer, value, [at(offset, lanes, stride)])


def cast(value: Expr, dtype: str, lanes: int) -> Expr:
    """`value` as `dtype`, whatever it is now. bfloat16 goes through its bits: TVM would take them for an integer."""
    source = dtype_of(value).split("x")[0]
    if source == dtype:
        return value
    if source == "bfloat16":
        bits = T.Cast(vector_type("uint32", lanes), T.reinterpret(vector_type("uint16", lanes), value))
        wide = T.reinterpret(vector_type("float32", lanes), T.shift_left(bits, constant(16, "uint32", lanes)))
        return cast(wide, dtype, lanes)
    if dtype == "bfloat16":
        return T.reinterpret(vector_type("bfloat16", lanes), bf16_bits(cast(value, "float32", lanes), lanes))
    return T.Cast(vector_type(dtype, lanes), value)


def bf16_bits(value: Expr, lanes: int) -> Expr:
    """float32 rounded to bfloat16's bits (uint16): to nearest, ties to even; NaN becomes a quiet NaN."""
    if _by_instruction.get() and lanes in _VECTORS:
        return T.call_extern(vector_type("uint16", lanes), f"effcc_bf16_{lanes}", value)

    def literal(bits: int) -> Expr:
        return constant(bits, "uint32", lanes)

    bits = bind(T.reinterpret(vector_type("uint32", lanes), bind(value)))
    odd = T.bitwise_and(T.shift_right(bits, literal(16)), literal(1))
    rounded = T.shift_right(bits + odd + literal(0x7FFF), literal(16))
    nan = T.bitwise_and(bits, literal(0x7FFFFFFF)) > literal(0x7F800000)  # TVM would fold value != value to false
    return T.Cast(vector_type("uint16", lanes), T.Select(nan, literal(0x7FC0), rounded))


_by_instruction: ContextVar[bool] = ContextVar("by instruction", default=False)
_VECTORS = (4, 8, 16)


@contextmanager
def bf16_instruction() -> Iterator[None]:
    """Vectors are rounded to bfloat16 by AVX512-BF16's vcvtneps2bf16 in the code emitted inside. It takes subnormal
    numbers for 0: a vector that has some (seldom, and so behind a branch) is rounded by integer arithmetic.

    TVM has no vectors of bfloat16: this is a function of LLVM IR, which LLVM puts in line.
    """
    token = _by_instruction.set(True)
    try:
        with T.attr(T.int32(0), "pragma_import_llvm", "\n".join(map(_rounding, _VECTORS))):
            yield
    finally:
        _by_instruction.reset(token)


def _rounding(n: int) -> str:
    floats, words, halves_, flags = f"<{n} x float>", f"<{n} x i32>", f"<{n} x i16>", f"<{n} x i1>"
    return f"""define {halves_} @effcc_bf16_{n}({floats} %x) {{
  %subnormal = call {flags} @llvm.is.fpclass.v{n}f32({floats} %x, i32 144)
  %some = call i1 @llvm.vector.reduce.or.v{n}i1({flags} %subnormal)
  br i1 %some, label %slow, label %fast, !prof !{{!"branch_weights", i32 1, i32 1000000}}
slow:
  %bits = bitcast {floats} %x to {words}
  %high = lshr {words} %bits, splat (i32 16)
  %odd = and {words} %high, splat (i32 1)
  %half = add {words} %bits, splat (i32 32767)
  %sum = add {words} %half, %odd
  %rounded = lshr {words} %sum, splat (i32 16)
  %nan = fcmp uno {floats} %x, zeroinitializer
  %chosen = select {flags} %nan, {words} splat (i32 32704), {words} %rounded
  %a = trunc {words} %chosen to {halves_}
  br label %done
fast:
  %short = fptrunc {floats} %x to <{n} x bfloat>
  %b = bitcast <{n} x bfloat> %short to {halves_}
  br label %done
done:
  %result = phi {halves_} [ %a, %slow ], [ %b, %fast ]
  ret {halves_} %result
}}
declare {flags} @llvm.is.fpclass.v{n}f32({floats}, i32 immarg)
declare i1 @llvm.vector.reduce.or.v{n}i1({flags})
"""


def transpose(rows: Sequence[Expr]) -> list[Expr]:
    """A square of vectors (as many as they have lanes, a power of two) turned: result[i][j] = rows[j][i].

    Butterflies: in step s = 1, 2, 4... vectors i and i + s exchange the lanes whose bit s differs.
    """
    lanes, rows = len(rows), list(rows)
    step = 1
    while step < lanes:
        low = [lane if not lane & step else lanes + lane - step for lane in range(lanes)]
        high = [lane + step if not lane & step else lanes + lane for lane in range(lanes)]
        for i in range(lanes):
            if not i & step:
                pair = [rows[i], rows[i + step]]
                rows[i], rows[i + step] = bind(T.Shuffle(pair, low)), bind(T.Shuffle(pair, high))
        step *= 2
    return rows


def flat(pointer: Any, dtype: str) -> Any:
    """A flat view of raw memory, with no assumption about its alignment beyond the element's."""
    return T.decl_buffer((UNBOUNDED,), dtype, data=pointer, align=BYTES[dtype])


def seen_as(buffer: Any, dtype: str) -> Any:
    """A flat buffer, its memory read as another dtype."""
    return flat(buffer.data, dtype)


def wrapped(fn: str, *args: Expr) -> Expr:
    """a + b, a - b, a * b or -a ("add", "sub", "mul", "neg"); of integers modulo 2^bits.

    TVM tells LLVM that integers of 32 bits and more never overflow (nsw, nuw); a detour through twice the bits says
    otherwise, and LLVM makes plain instructions of it. Floats and narrower integers take none.
    """
    dtype, _, lanes = dtype_of(args[0]).partition("x")
    wide = {"int32": "int64", "uint32": "int64", "int64": "int128", "uint64": "int128"}.get(dtype)
    if fn in ("neg", "sub"):  # TVM refuses to subtract unsigned constants below zero
        wide = {"uint8": "int16", "uint16": "int32"}.get(dtype, wide)
    if wide is not None and fn == "mul" and dtype.startswith("u"):
        wide = f"u{wide}"
    operands = args if wide is None else tuple(T.Cast(vector_type(wide, int(lanes or 1)), x) for x in args)
    a, b = (constant(0, wide or dtype, int(lanes or 1)), operands[0]) if fn == "neg" else operands
    out = a * b if fn == "mul" else a + b if fn == "add" else a - b
    if wide in ("int16", "int32"):
        out = T.bitwise_and(out, constant(0xFF if dtype == "uint8" else 0xFFFF, wide, int(lanes or 1)))
    return out if wide is None else T.Cast(dtype_of(args[0]), out)


class Accumulators:
    """rows x vectors registers: one small buffer each, which LLVM promotes (big ones become workspace calls)."""

    def __init__(self, rows: int, vectors: int, dtype: str, lanes: int):
        self.rows, self.vectors, self.dtype, self.lanes = rows, vectors, dtype, lanes
        self.buffers = [[T.alloc_buffer((lanes,), dtype, layout=None) for _ in range(vectors)] for _ in range(rows)]
        self.whole = at(T.int32(0), 1) if lanes == 1 else T.ramp(0, 1, lanes)

    def __getitem__(self, at: tuple[int, int]) -> Expr:
        return self.buffers[at[0]][at[1]][self.whole]

    def __setitem__(self, at: tuple[int, int], value: Expr) -> None:
        T.buffer_store(self.buffers[at[0]][at[1]], value, [self.whole])

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return ((row, vector) for row in range(self.rows) for vector in range(self.vectors))

    def fill(self, value: float = 0) -> None:
        for at in self:
            self[at] = constant(value, self.dtype, self.lanes)


def halves(extent: int) -> list[int]:
    """The powers of two below `extent`, largest first: any remainder below it is a sum of some of them."""
    power = 1
    while power * 2 < extent:
        power *= 2
    return [] if extent <= 1 else [1 << bit for bit in reversed(range(power.bit_length()))]


def lane_pieces(extent: int, lanes: int) -> list[tuple[int, int]]:
    """(first lane, lanes) pieces that cover `extent` < `lanes` elements, each a power of two."""
    pieces, start = [], 0
    for size in halves(lanes):
        if extent & size:
            pieces.append((start, size))
            start += size
    return pieces


@contextmanager
def branch(condition: Expr) -> Iterator[None]:
    """`if condition:`"""
    with T.If(condition), T.Then():
        yield


def for_lanes(start: Expr, count: Index, lanes: int, body: Callable[[Expr, int], None]) -> None:
    """Call body(position, lanes) over [start, start + count): whole vectors, then pieces (static) or elements."""
    if isinstance(count, int):
        if count >= lanes:
            with T.serial(T.int64(0), T.int64(count // lanes)) as vector:
                body(bind(start + vector * lanes), lanes)
        for first, size in lane_pieces(count % lanes, lanes):
            body(bind(start + (count // lanes * lanes + first)), size)
        return
    whole = bind(divide(count, lanes))
    with T.serial(T.int64(0), whole) as vector:
        body(bind(start + vector * lanes), lanes)
    if lanes > 1:
        with T.serial(whole * lanes, index(count)) as element:
            body(bind(start + element), 1)
