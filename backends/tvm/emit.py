"""Scalar expressions -> TIR, for one element or a vector of lanes: the one function that every template's code goes
through.

Floats shorter than 32 bits are computed in f32 and rounded where an op ends; bool is a predicate in registers and a
byte in
memory; sub-byte integers ride in a byte.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

from effcc.backends.tvm.place import Buffer, Place
from effcc.backends.tvm.templates import emission
from effcc.ir import scalar as s
from effcc.ir.dims import Dim, Expr, Extremum, FloorDiv, Mod, Symbol, as_symbol
from effcc.ir.lazy import T, tvm
from effcc.ir.types import DType, f32, i64

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
    return emission.bind(x)


class KernelBuilder:
    """One serial tile function under construction: `(pointers..., dims..., scratch, tile) -> i32`.

    `build` declares the buffers and size symbols that the caller names as parameters, then lets `body` emit.
    """

    def __init__(self, name: str, vector_bits: int):
        self.name, self.vector_bits = name, vector_bits
        self.buffers: list[Buffer] = []
        self.symbols: list[Symbol] = []
        self._flat: dict[Buffer, Tir] = {}
        self._dims: dict[Symbol, Tir] = {}
        self.scratch: Tir = None
        self.tile: Tir = None

    def build(self, buffers: list[Buffer], sizes: list[Symbol], body: Callable[[KernelBuilder], None]) -> Any:
        """The PrimFunc; `body` emits into its scope."""
        self.buffers = buffers
        self.symbols = sorted(sizes, key=lambda x: x.name)
        from tvm.script.ir_builder import IRBuilder

        with IRBuilder() as builder:
            with T.prim_func(s_tir=True):
                T.func_name(self.name)
                T.func_attr({"global_symbol": self.name, "calling_conv": 1, "tirx.noalias": True})
                pointers = [T.arg(f"p{k}", T.handle(memory_dtype(b.dtype))) for k, b in enumerate(buffers)]
                dims = [T.arg(f"d{k}", T.int64()) for k in range(len(self.symbols))]
                self.scratch = T.arg("scratch", T.handle("uint8"))
                tile = T.arg("tile", T.int32())
                T.func_ret(tvm.ir.PrimType("int32"))
                for b, p in zip(buffers, pointers, strict=True):
                    name = memory_dtype(b.dtype)
                    self._flat[b] = T.decl_buffer((1 << 40,), name, data=p, align=b.dtype.bytes)
                self._dims = dict(zip(self.symbols, dims, strict=True))
                self.tile = bind(T.Cast("int64", tile))
                body(self)
                T.Return(T.int32(0))
        return builder.get()

    # -- sizes ---------------------------------------------------------------------------------------------------------
    def dim(self, d: Dim) -> Tir:
        """A dimension as an int64 expression."""
        if isinstance(d, int):
            return T.int64(d)
        symbol = as_symbol(d)
        if symbol is not None:
            return self._dims[symbol]
        total: Tir = None
        assert isinstance(d, Expr)
        for monomial, c in d.terms:
            part: Tir = None
            for atom in monomial:
                x = self._atom(atom)
                part = x if part is None else part * x
            part = T.int64(c) if part is None else (part if c == 1 else part * T.int64(c))
            total = part if total is None else total + part
        return total

    def _atom(self, atom: Any) -> Tir:
        match atom:
            case Symbol():
                return self._dims[atom]
            case FloorDiv(a, b):
                return _divide("floordiv", "int64", self.dim(a), self.dim(b), 1)
            case Mod(a, b):
                return _divide("mod", "int64", self.dim(a), self.dim(b), 1)
            case Extremum(which, args):
                out = self.dim(args[0])
                for x in args[1:]:
                    out = (T.min if which == "min" else T.max)(out, self.dim(x))
                return out
        raise TypeError(atom)

    # -- memory --------------------------------------------------------------------------------------------------------
    def flat(self, buffer: Buffer) -> Tir:
        return self._flat[buffer]

    def offset(self, place: Place, index: tuple[Tir, ...], strides: tuple[Dim, ...] | None = None) -> Tir:
        total = self.dim(place.offset)
        for i, st in zip(index, place.strides if strides is None else strides, strict=True):
            if st != 0:
                step = self.dim(st)
                total = total + (i if st == 1 else i * splat(step, lanes_of(i)))
        return simplify(total)

    def load(self, place: Place, index: tuple[Tir, ...], strides: tuple[Dim, ...] | None = None) -> Tir:
        """The element (or vector) at an index, as a register value."""
        at = self.offset(place, index, strides)
        if isinstance(at, tvm.prim.Broadcast):
            return splat(self._element(place.buffer, at.value), lanes_of(at))
        return self._element(place.buffer, at)

    def _element(self, buffer: Buffer, at: Tir) -> Tir:
        memory = self._flat[buffer]
        if buffer.in_nibbles:
            lanes = lanes_of(at)
            odd = T.Cast(with_lanes(memory_dtype(buffer.dtype), lanes), T.bitwise_and(at, literal("int64", 1, lanes)))
            down = T.shift_left(odd, literal(memory_dtype(buffer.dtype), 2, lanes))
            return decode(T.shift_right(memory[T.shift_right(at, literal("int64", 1, lanes))], down), buffer.dtype)
        return decode(memory[at], buffer.dtype)

    def store(self, place: Place, index: tuple[Tir, ...], value: Tir, strides: tuple[Dim, ...] | None = None) -> None:
        at = self.offset(place, index, strides)
        value = splat(value, lanes_of(at))
        T.buffer_store(self._flat[place.buffer], encode(value, place.buffer.dtype), [at])


def decode(x: Tir, dtype: DType) -> Tir:
    """Memory -> register."""
    lanes = lanes_of(x)
    if dtype.is_bool:
        return ne(x, literal("uint8", 0, lanes))
    if dtype.name == "f16":
        return T.Cast(with_lanes("float32", lanes), x)
    if dtype.name == "bf16":
        wide = T.Cast(with_lanes("uint32", lanes), x)
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
        return bf16_bits(x)
    if dtype.is_float and dtype.bits <= 8:
        from effcc.backends.tvm import small_floats

        return small_floats.encode(x, dtype)
    return wrap(x, dtype)


def wrap(x: Tir, dtype: DType) -> Tir:
    """An integer of less than a byte from its low bits: what the byte's other bits hold differs between NumPy and
    torch."""
    if not dtype.is_integer or dtype.bits >= 8:
        return x
    unused = literal(register_dtype(dtype), 8 - dtype.bits, lanes_of(x))
    return T.shift_right(T.shift_left(x, unused), unused)


def bf16_bits(x: Tir) -> Tir:
    """f32 -> bf16 by integer arithmetic: add half of the last place and the parity; NaN becomes the quiet NaN."""
    lanes = lanes_of(x)
    x = bind(x)
    bits = bind(T.reinterpret(with_lanes("uint32", lanes), x))
    parity = T.bitwise_and(T.shift_right(bits, literal("uint32", 16, lanes)), literal("uint32", 1, lanes))
    rounded = T.shift_right(bits + parity + literal("uint32", 0x7FFF, lanes), literal("uint32", 16, lanes))
    chosen = T.Select(isnan(x), literal("uint32", 0x7FC0, lanes), rounded)
    return T.Cast(with_lanes("uint16", lanes), chosen)


def round_to(x: Tir, dtype: DType) -> Tir:
    """What the register value becomes when it passes through memory."""
    if dtype.is_float and dtype.bits < 32:
        return decode(bind(encode(bind(x), dtype)), dtype)
    return wrap(x, dtype)


Reader = Callable[[int, tuple[Tir, ...]], Tir]


class Emitter:
    """Translates scalar expressions at one point of an iteration space; shared subexpressions are computed once."""

    def __init__(
        self,
        kernel: KernelBuilder,
        index: tuple[Tir, ...],
        read: Reader,
        state: tuple[Tir, ...] = (),
        old: tuple[Tir, ...] = (),
    ):
        self.kernel, self.index, self.read, self.state, self.old = kernel, index, read, state, old
        self.memo: dict[int, Tir] = {}
        self.positions: set[int] = set()
        """Expressions (by id) that tell where elements are, not what they are: they never overflow."""

    def __call__(self, root: s.Scalar) -> Tir:
        uses: dict[int, int] = {}
        nodes = [n for n in s.walk(root) if id(n) not in self.memo]
        self.positions |= _positions(nodes)
        for n in nodes:
            for c in n.children:
                uses[id(c)] = uses.get(id(c), 0) + 1
        for n in nodes:
            out = self.node(n)
            self.memo[id(n)] = bind(out) if uses.get(id(n), 0) > 1 or isinstance(n, s.Read) else out
        return self.memo[id(root)]

    def node(self, n: s.Scalar) -> Tir:
        match n:
            case s.Literal():
                return literal(register_dtype(n.dtype), n.value)
            case s.Size():
                return self.kernel.dim(n.dim)
            case s.Index():
                return self.index[n.axis]
            case s.Read():
                return self.read(n.operand, tuple(self.memo[id(c)] for c in n.index))
            case s.State():
                return self.state[n.which]
            case s.Old():
                return self.old[n.which]
            case s.Apply():
                args = [self.memo[id(c)] for c in n.args]
                lanes = max(lanes_of(a) for a in args)
                args = [splat(a, lanes) for a in args]
                if n.fn in ("add", "sub", "mul") and n.dtype == i64 and id(n) in self.positions:
                    a, b = args
                    return a + b if n.fn == "add" else a - b if n.fn == "sub" else a * b
                return function(n.fn, n.dtype, n.args, args, lanes)
        raise TypeError(n)


def _positions(nodes: list[s.Scalar]) -> set[int]:
    """Of expressions (children before parents) those made of indices, sizes and numbers below 2^31 alone, and those
    that elements are read at."""
    found: set[int] = set()
    for n in nodes:
        match n:
            case s.Size() | s.Index():
                found.add(id(n))
            case s.Literal(value=value) if abs(value) < 1 << 31:
                found.add(id(n))
            case s.Apply() if all(id(c) in found for c in n.args):
                found.add(id(n))
            case _:
                pass
    for n in reversed(nodes):
        if isinstance(n, s.Read) or id(n) in found:
            found |= {id(c) for c in n.children}
    return found


def function(fn: str, dtype: DType, operands: tuple[s.Scalar, ...], args: list[Tir], lanes: int) -> Tir:
    """One of `scalar.FUNCTIONS` on register values of equal lanes."""
    kind = operands[-1].dtype
    if fn == "cast":
        return cast(args[0], operands[0].dtype, dtype, lanes)
    if fn == "bitcast":
        bits = encode(bind(args[0]), operands[0].dtype)  # narrow floats are wider in registers than in memory
        return decode(bind(reinterpreted(memory_dtype(dtype), bits, lanes)), dtype)
    if fn == "select":
        return T.Select(*args)
    if fn in ("eq", "ne", "lt", "le", "gt", "ge"):
        known = _decided(fn, kind, *args)
        if known is not None:
            return literal("bool", known, lanes)
        if kind.is_bool:
            args = [T.Cast(with_lanes("int8", lanes), a) for a in args]
        if fn == "ne" and kind.is_float:
            return unequal(*args)
        return getattr(tvm.prim, fn.upper())(*args)
    if kind.is_bool:
        return _logical(fn, args)
    if kind.is_float:
        return _float(fn, args, operands, lanes)
    return _integer(fn, kind, args, lanes)


def _decided(fn: str, kind: DType, a: Tir, b: Tir) -> bool | None:
    """What a comparison of an integer with a number at or beyond its range's end always gives (x < 0 of unsigned x):
    TVM's analyzer dies of a condition that cannot hold."""
    if _number(a) is not None:
        a, b, fn = b, a, {"lt": "gt", "gt": "lt", "le": "ge", "ge": "le"}.get(fn, fn)
    value = _number(b)
    if not kind.is_integer or value is None:
        return None
    if fn in ("lt", "ge") and (value <= kind.min or value > kind.max):
        return (value > kind.max) == (fn == "lt")
    if fn in ("gt", "le") and (value < kind.min or value >= kind.max):
        return (value < kind.min) == (fn == "gt")
    if fn in ("eq", "ne") and not kind.min <= value <= kind.max:
        return fn == "ne"
    return None


def _number(x: Tir) -> int | None:
    x = x.value if isinstance(x, tvm.prim.Broadcast) else x
    return int(x.value) if isinstance(x, tvm.prim.IntImm) else None


def _logical(fn: str, args: list[Tir]) -> Tir:
    match fn:
        case "and" | "mul" | "min":
            return tvm.prim.And(*args)
        case "or" | "add" | "max":
            return tvm.prim.Or(*args)
        case "xor":
            lanes = lanes_of(args[0])
            a, b = (T.Cast(with_lanes("int8", lanes), x) for x in args)
            return ne(a, b)
        case "not":
            return tvm.prim.Not(args[0])
    raise ValueError(f"{fn} of bool")


def _opaque_zero(x: Tir) -> Tir:
    """A number 0 through its bits: TVM would fold x · 0 and 0 / x to 0 and x + 0 to x, where IEEE 754 has NaN, or a
    zero of the other sign."""
    number = x.value if isinstance(x, tvm.prim.Broadcast) else x
    if not isinstance(number, tvm.prim.FloatImm) or float(number.value) != 0:
        return x
    bits = 64 if str(number.ty) == "float64" else 32
    zero = T.reinterpret(str(number.ty), literal(f"int{bits}", 1 << (bits - 1)))  # -0 (the bits 0 mean a pointer)
    return splat(zero if str(float(number.value)).startswith("-") else _intrinsic("llvm.fabs", zero), lanes_of(x))


def _float(fn: str, args: list[Tir], operands: tuple[s.Scalar, ...], lanes: int) -> Tir:
    if fn in ("add", "mul", "div"):
        args = [_opaque_zero(x) for x in args]
    a = args[0]
    b = args[1] if len(args) > 1 else None
    match fn:
        case "add":
            return a + b
        case "sub":
            return a - b
        case "mul":
            return a * b
        case "div":
            return tvm.prim.Div(a, b)
        case "neg":
            return negate(a)
        case "abs":
            return _intrinsic("llvm.fabs", a)
        case "isnan":
            return isnan(bind(a))
        case "max" | "min":
            which = T.max if fn == "max" else T.min
            for x, y, operand in ((a, b, operands[0]), (b, a, operands[1])):
                if isinstance(operand, s.Literal) and operand.value == operand.value:
                    return which(
                        x, y
                    )  # an ordered comparison with a number on the left gives the right operand for NaN
            a, b = bind(a), bind(b)
            return T.Select(isnan(a), a, which(a, b))
        case "sqrt" | "floor" | "ceil" | "trunc":
            return _intrinsic(f"llvm.{fn}", a)
        case "round":
            return _intrinsic("llvm.rint", a)
        case "rsqrt":
            return tvm.prim.Div(literal(str(a.ty).split("x")[0], 1.0, lanes), _intrinsic("llvm.sqrt", a))
        case "mod":
            raise ValueError("mod of floats is spelled with fmod")
        case "fmod":
            return per_lane(
                lambda x, y: tvm.tirx.call_pure_extern(str(x.ty), "fmodf" if str(x.ty) == "float32" else "fmod", x, y),
                args,
                lanes,
            )
        case _:
            from effcc.backends.tvm import vector_math

            return getattr(vector_math, fn)(bind, *args)


def negate(a: Tir) -> Tir:
    """-a; a multiplication, because 0 - a loses the sign of zero."""
    return a * literal(str(a.ty).split("x")[0], -1.0, lanes_of(a))


def _intrinsic(name: str, a: Tir) -> Tir:
    return T.call_llvm_pure_intrin(T.llvm_lookup_intrinsic_id(name), a, dtype=str(a.ty))


def per_lane(f: Callable[..., Tir], args: list[Tir], lanes: int) -> Tir:
    """Apply a scalar function to each lane: through a small buffer."""
    if lanes == 1:
        return f(*args)
    inputs = []
    for a in args:
        buffer = T.alloc_buffer((lanes,), str(a.ty).split("x")[0])
        T.buffer_store(buffer, a, [T.ramp(0, 1, lanes)])
        inputs.append(buffer)
    out = None
    for k in range(lanes):
        value = f(*(buffer[k] for buffer in inputs))
        if out is None:
            out = T.alloc_buffer((lanes,), str(value.ty))
        T.buffer_store(out, value, [k])
    assert out is not None
    return out[T.ramp(0, 1, lanes)]


def _integer(fn: str, kind: DType, args: list[Tir], lanes: int) -> Tir:
    a = args[0]
    b = args[1] if len(args) > 1 else None
    name = register_dtype(kind)
    match fn:
        case "add" | "sub" | "mul" | "neg":
            return emission.wrapped(fn, *args)
        case "abs":
            a = bind(a)
            return T.Select(a < literal(name, 0, lanes), emission.wrapped("neg", a), a)
        case "max":
            return T.max(a, b)
        case "min":
            return T.min(a, b)
        case "and":
            return T.bitwise_and(a, b)
        case "or":
            return T.bitwise_or(a, b)
        case "xor":
            return T.bitwise_xor(a, b)
        case "not":
            return T.bitwise_not(a)
        case "shl":
            return T.shift_left(a, b)
        case "shr":
            return T.shift_right(a, b)
        case "div" | "floordiv" | "mod" | "fmod":
            return _divide(fn, name, a, b, lanes)
        case "pow":
            return _integer_power(name, a, b, lanes)
    raise ValueError(f"{fn} of integers")


def _divide(fn: str, name: str, a: Tir, b: Tir, lanes: int) -> Tir:
    """Integer division that never traps: by 0 it divides by 1, by -1 it negates (the least integer wraps).

    Rounding down is spelled out: TVM makes a variable of the remainder by what may be negative, and refuses its own
    code where it learns the value afterwards (docs/upstream/tvm-floormod-of-zero.md).
    """
    divisor = _number(b)
    if divisor is not None and divisor > 0:
        return {"div": T.truncdiv, "fmod": T.truncmod, "floordiv": T.floordiv, "mod": T.floormod}[fn](a, b)
    a, b = bind(a), bind(b)
    zero, one, minus = (literal(name, v, lanes) for v in (0, 1, -1))
    signed, divides = not name.startswith("u"), fn in ("div", "floordiv")
    unsafe = tvm.prim.Or(eq(b, zero), eq(b, minus)) if signed else eq(b, zero)
    safe = bind(T.Select(unsafe, one, b))
    out = bind((T.truncdiv if divides else T.truncmod)(a, safe))
    if signed and fn in ("floordiv", "mod"):
        remainder = bind(T.truncmod(a, safe)) if divides else out
        above = tvm.prim.And(ne(remainder, zero), T.bitwise_xor(remainder, safe) < zero)  # of other signs
        out = T.Select(above, out - one if divides else out + safe, out)
    return T.Select(eq(b, minus), zero - a, out) if signed and divides else out


def _integer_power(name: str, a: Tir, b: Tir, lanes: int) -> Tir:
    """By squaring, wrapping; a negative exponent gives 0, or ±1 for a base of ±1."""
    bits = int(name.removeprefix("u").removeprefix("int"))
    zero, one = literal(name, 0, lanes), literal(name, 1, lanes)
    a, b = emission.hold(a), emission.hold(b)
    states = emission.Accumulators(3, 1, name, lanes)  # result, base, exponent
    states[0, 0], states[1, 0], states[2, 0] = one, a, b
    with T.serial(T.int64(0), T.int64(bits)):
        result, base, exponent = (bind(states[k, 0]) for k in range(3))
        states[0, 0] = T.Select(
            ne(T.bitwise_and(exponent, one), zero), emission.wrapped("mul", result, base), result)
        states[1, 0] = emission.wrapped("mul", base, base)
        states[2, 0] = T.shift_right(exponent, one)
    result = bind(states[0, 0])
    if name.startswith("u"):
        return result
    alternate = T.Select(ne(T.bitwise_and(b, one), zero), literal(name, -1, lanes), one)
    small = T.Select(eq(a, one), one, T.Select(eq(a, literal(name, -1, lanes)), alternate, zero))
    return T.Select(b < zero, small, result)


def cast(x: Tir, source: DType, to: DType, lanes: int) -> Tir:
    """Conversion between register values, as torch converts on this CPU."""
    target = register_dtype(to)
    if to.is_bool:
        zero = literal(register_dtype(source), 0, lanes)
        return unequal(x, zero) if source.is_float else ne(x, zero)
    if source.is_bool:
        return T.Select(x, literal(target, 1, lanes), literal(target, 0, lanes))
    if to.is_float:
        out = x if register_dtype(source) == target else T.Cast(with_lanes(target, lanes), x)
        return round_to(out, to) if source != f32 or to.bits < 32 else out
    if source.is_float and target != "int64":  # wrap through a wide signed integer
        through = "int32" if to.bits < 32 or target == "int32" else "int64"
        x = T.Cast(with_lanes(through, lanes), x)
        x = x if through == target else T.Cast(with_lanes(target, lanes), x)
    elif register_dtype(source) != target:
        number = x.value if isinstance(x, tvm.prim.Broadcast) else x
        if target.startswith("u") and isinstance(number, tvm.tirx.IntImm):  # TVM makes no unsigned of negative ones
            x = literal(target, int(number) % 2 ** int(target.removeprefix("uint")), lanes)
        else:
            x = T.Cast(with_lanes(target, lanes), x)
    return wrap(x, to)


@contextlib.contextmanager
def loop(start: Tir | int, stop: Tir | int, name: str = "i") -> Iterator[Tir]:
    """for i in [start, stop)"""
    first = T.int64(start) if isinstance(start, int) else start
    last = T.int64(stop) if isinstance(stop, int) else stop
    with T.serial(first, last) as i:
        yield i
