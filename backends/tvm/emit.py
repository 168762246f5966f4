"""Scalar expressions -> TIR, for one element or a vector of lanes: the one function that every template's code goes
through."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

from effcc.backends.tvm.functions import divide, function
from effcc.backends.tvm.place import Buffer, Place
from effcc.backends.tvm.templates import emission
from effcc.backends.tvm.values import (
    Tir,
    bind,
    decode,
    encode,
    lanes_of,
    literal,
    memory_dtype,
    register_dtype,
    simplify,
    splat,
    with_lanes,
)
from effcc.ir import scalar as s
from effcc.ir.dims import Dim, Expr, Extremum, FloorDiv, Mod, Symbol, as_symbol
from effcc.ir.lazy import T, tvm
from effcc.ir.types import bf16, i64


class KernelBuilder:
    """One serial tile function under construction: `(pointers..., dims..., scratch, tile) -> i32`.

    `build` declares the buffers and size symbols that the caller names as parameters, then lets `body` emit.
    """

    def __init__(self, name: str, vector_bits: int, bf16_instruction: bool = False):
        self.name, self.vector_bits, self.bf16_instruction = name, vector_bits, bf16_instruction
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
                stores_bf16 = self.bf16_instruction and any(b.dtype == bf16 for b in buffers)
                with emission.bf16_instruction() if stores_bf16 else nullcontext():
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
                return divide("floordiv", "int64", self.dim(a), self.dim(b), 1)
            case Mod(a, b):
                return divide("mod", "int64", self.dim(a), self.dim(b), 1)
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
