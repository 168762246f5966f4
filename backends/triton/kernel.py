"""Writing one Triton kernel: parameters, lines, names, loads and stores.

A value in a kernel is `Code`: an expression, the block axes along which it varies, and its dtype in registers.
Templates declare block axes (`axis`) as variables of compatible shapes, so that NumPy broadcasting does the rest; where
a block reaches over the end of an axis, loads and stores that vary along it are masked.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from effcc.backends.triton.device import FUNCTIONS, needed
from effcc.backends.tvm.place import Buffer, Place
from effcc.errors import UnsupportedError
from effcc.ir import DType
from effcc.ir.dims import Atom, Dim, Expr, Extremum, FloorDiv, Mod, Symbol, bounds
from effcc.ir.types import bf16, bool_, f16, f32, f64, i8, i16, i32, i64, u8, u16, u32, u64

TYPES: dict[DType, tuple[str, str]] = {
    f64: ("fp64", "tl.float64"), f32: ("fp32", "tl.float32"), f16: ("fp16", "tl.float16"),
    bf16: ("bf16", "tl.bfloat16"), bool_: ("i1", "tl.int1"),
    i64: ("i64", "tl.int64"), i32: ("i32", "tl.int32"), i16: ("i16", "tl.int16"), i8: ("i8", "tl.int8"),
    u64: ("u64", "tl.uint64"), u32: ("u32", "tl.uint32"), u16: ("u16", "tl.uint16"), u8: ("u8", "tl.uint8"),
}  # fmt: skip
"""dtype -> (its name in signatures, its name in source)"""

INDEX_LIMIT = 1 << 31
ATOM = re.compile(r"[\w.]+(\([^()]*\))?(\.\w+\([^()]*\))*")
"""Names, numbers, calls and chains of calls: what needs no parentheses."""


def register_dtype(dtype: DType) -> DType:
    """What values of a dtype are computed in: f32 for the short floats."""
    return f32 if dtype.is_float and dtype.bits < 32 else dtype


def name_of(dtype: DType) -> str:
    """Triton's name of a dtype; UnsupportedError where kernels cannot hold it."""
    if dtype not in TYPES:
        raise UnsupportedError(f"target cuda has no code for dtype {dtype}", hint="cast to one of " + " ".join(
            d.name for d in TYPES))
    return TYPES[dtype][1]


@dataclass(frozen=True)
class Code:
    """An expression. `axes`: the block axes along which it varies; `literal`: a number that takes its dtype from what
    it meets."""

    text: str
    dtype: DType
    axes: frozenset[str] = frozenset()
    literal: bool = False
    holds: DType | None = None
    """A narrower dtype that has the value, too: it was rounded to that."""

    @property
    def atom(self) -> str:
        """The text as an operand."""
        plain = self.literal and not self.text.startswith("-")
        return self.text if plain or ATOM.fullmatch(self.text) else f"({self.text})"


class KernelText:
    """The text of one kernel under construction.

    buffers: its pointer parameters, in order. sizes: its integer parameters, in order, after them.
    """

    def __init__(self, buffers: Sequence[Buffer], sizes: Sequence[Symbol]):
        self.buffers = {b: f"ptr{k}" for k, b in enumerate(buffers)}
        self.sizes = {s: f"size_{s.name}" for s in sizes}
        highs = [bounds(b.size)[1] for b in buffers]
        self.wide = any(h is None or h >= INDEX_LIMIT for h in highs)
        """Whether indices need 64 bits."""
        self.lines: list[str] = []
        self.indent = 1
        self.count: dict[str, int] = {}
        self.used: set[str] = set()
        self.masks: dict[str, str | None] = {}

    # -- lines ---------------------------------------------------------------------------------------------------------
    @property
    def index_dtype(self) -> DType:
        return i64 if self.wide else i32

    def line(self, text: str) -> None:
        self.lines.append("    " * self.indent + text)

    def comment(self, text: str) -> None:
        self.line(f"# {text}")

    def fresh(self, stem: str) -> str:
        """A name that is not used yet."""
        n = self.count[stem] = self.count.get(stem, -1) + 1
        return f"{stem}{n}"

    def bind(self, stem: str, code: Code) -> Code:
        """The value as a variable, unless it is one or a number."""
        if code.literal or re.fullmatch(r"\w+", code.text):
            return code
        name = self.fresh(stem)
        self.line(f"{name} = {code.text}")
        return Code(name, code.dtype, code.axes, holds=code.holds)

    @contextmanager
    def loop(self, stem: str, extent: str, step: str = "", unroll: bool = False) -> Iterator[str]:
        """`for name in range(0, extent, step)`, as a context; gives the name."""
        name = self.fresh(stem)
        kind = "tl.static_range" if unroll else "range"
        self.line(f"for {name} in {kind}(0, {extent}{f', {step}' if step else ''}):")
        self.indent += 1
        yield name
        self.indent -= 1

    def function(self, name: str) -> str:
        """A helper function, which the text then contains."""
        assert name in FUNCTIONS, name
        self.used.add(name)
        return name

    # -- sizes and axes ------------------------------------------------------------------------------------------------
    def dim(self, d: Dim) -> str:
        """A dimension as an expression of the kernel's size parameters."""
        if isinstance(d, int):
            return str(d)
        if isinstance(d, Symbol):
            return self.sizes[d]
        assert isinstance(d, Expr)
        terms = []
        for monomial, c in d.terms:
            factors = [self._atom(a) for a in monomial]
            terms.append(" * ".join([*factors, *([str(c)] if c != 1 or not factors else [])]))
        text = " + ".join(terms)
        return text if re.fullmatch(r"\w+(\([^()]*\))?", text) else f"({text})"

    def _atom(self, a: Atom) -> str:
        match a:
            case Symbol():
                return self.sizes[a]
            case FloorDiv(x, int(y)) if y > 0 and (bounds(x)[0] or 0) >= 0 and bounds(x)[0] is not None:
                return f"({self.dim(x)} // {y})"
            case FloorDiv(x, y):
                return f"{self.function('floor_divide')}({self.dim(x)}, {self.dim(y)})"
            case Mod(x, y):
                return f"{self.function('modulo')}({self.dim(x)}, {self.dim(y)})"
            case Extremum(which, args):
                out = self.dim(args[0])
                for x in args[1:]:
                    out = f"tl.{which}imum({out}, {self.dim(x)})"
                return out
        raise TypeError(a)

    def program_id(self) -> str:
        pid = "tl.program_id(0)"
        self.line(f"pid = {pid}.to(tl.int64)" if self.wide else f"pid = {pid}")
        return "pid"

    def axis(self, name: str, start: str, block: int, extent: Dim, shape: str = "", reach: int | None = None) -> Code:
        """Declare a block axis: `name = start + tl.arange(0, block)`, spread to `shape` ("[:, None]"), within `extent`.

        reach: how far the blocks go together; where that is the extent, nothing is masked.
        """
        span = f"tl.arange(0, {block}){shape}"
        self.line(f"{name} = {span}" if start == "0" else f"{name} = {start} + {span}")
        whole = isinstance(extent, int) and extent == (block if reach is None else reach)
        if not whole and isinstance(extent, int) and reach is None:
            whole = extent % block == 0
        self.masks[name] = None
        if not whole:
            self.line(f"{name}_in = {name} < {self.dim(extent)}")
            self.masks[name] = f"{name}_in"
        return Code(name, self.index_dtype, frozenset((name,)))

    def mask(self, axes: Iterable[str], *more: str) -> str:
        """The condition under which a point along these axes exists; "" where it always does."""
        parts = [m for a in sorted(axes) if (m := self.masks[a]) is not None] + [m for m in more if m]
        return " & ".join(parts)

    # -- memory --------------------------------------------------------------------------------------------------------
    def offset(self, place: Place, index: Sequence[Code], strides: Sequence[Dim] | None = None) -> Code:
        """The element's distance from the buffer's start."""
        strides = place.strides if strides is None else strides
        terms = [] if place.offset == 0 else [self.dim(place.offset)]
        axes: frozenset[str] = frozenset()
        for i, s, d in zip(index, strides, place.shape if len(strides) == len(place.shape) else strides, strict=True):
            if s == 0 or i.text == "0" or (strides is place.strides and d == 1):
                continue
            axes |= i.axes
            terms.append(i.text if s == 1 else f"{i.atom} * {self.dim(s)}")
        return Code(" + ".join(terms) or "0", self.index_dtype, axes)

    def load(
        self, place: Place, index: Sequence[Code], strides: Sequence[Dim] | None = None, condition: Code | None = None
    ) -> Code:
        """The element at an index, as it is stored; 0 where the point does not exist or `condition` is false."""
        at = self.offset(place, index, strides)
        axes = at.axes if condition is None else at.axes | condition.axes
        mask = self.mask(axes, condition.atom if condition is not None else "")
        pointer = self._pointer(place, at, axes)
        return Code(f"tl.load({pointer}{f', {mask}, 0' if mask else ''})", place.buffer.dtype, axes)

    def store(
        self, place: Place, index: Sequence[Code], value: Code, strides: Sequence[Dim] | None = None,
        condition: str = "",
    ) -> None:
        """Store a value. Where it varies along an axis that the address does not, that axis has size 1."""
        at = self.offset(place, index, strides)
        axes = at.axes | value.axes
        mask = self.mask(axes, condition)
        self.line(f"tl.store({self._pointer(place, at, axes)}, {value.text}{f', {mask}' if mask else ''})")

    def _pointer(self, place: Place, at: Code, axes: frozenset[str]) -> str:
        """The address, spread over block axes along which it does not vary."""
        terms = [self.buffers[place.buffer], *([] if at.text == "0" else [at.text])]
        return " + ".join([*terms, *(f"{a} * 0" for a in sorted(axes - at.axes))])

    # -- the whole -----------------------------------------------------------------------------------------------------
    def finish(self, stem: str, warps: int, stages: int, about: Sequence[str] = ()) -> KernelSource:
        """The kernel's source. Its name and key do not depend on `about`, which is for people."""
        parameters = ", ".join((*self.buffers.values(), *self.sizes.values()))
        for b in self.buffers:
            name_of(b.dtype)
        signature = {p: f"*{TYPES[b.dtype][0]}" for b, p in self.buffers.items()}
        signature |= dict.fromkeys(self.sizes.values(), "i64" if self.wide else "i32")
        functions = needed(self.used)
        body = "\n".join(self.lines) or "    pass"
        helpers = "".join(f"@triton.jit\n{FUNCTIONS[name].strip()}\n\n\n" for name in functions)
        content = f"{helpers}{parameters}{signature}{body}{warps}{stages}"
        name = f"{stem}_{hashlib.sha256(content.encode()).hexdigest()[:12]}"
        heading = "".join(f"    # {line}\n" for line in about)
        uses = "from triton.language.extra import libdevice\n" if "libdevice." in helpers + body else ""
        text = (
            f"import triton\nimport triton.language as tl\n{uses}\n\n{helpers}"
            f"@triton.jit\ndef {name}({parameters}):\n{heading}{body}\n"
        )
        return KernelSource(name, text, signature, warps, stages)


@dataclass(frozen=True)
class KernelSource:
    """A kernel's text and how to compile it. `signature`: the type of each parameter by name."""

    name: str
    text: str
    signature: dict[str, str]
    warps: int
    stages: int


def divided(a: str, b: str) -> str:
    """a // b as text, without the division by 1."""
    return a if b == "1" else f"{a} // {b}"


def scaled(a: str, b: int) -> str:
    """a * b as text."""
    return "0" if a == "0" else f"{a} * {b}"


def remaining(a: str, b: str) -> str:
    """a % b as text."""
    return "0" if b == "1" else f"{a} % {b}"


ZERO = Code("0", i32, literal=True)


def delinearize(kernel: KernelText, linear: Code, extents: Sequence[Dim], stem: str) -> list[Code]:
    """The index along each axis of a row-major position."""
    out: list[Code] = [ZERO] * len(extents)
    stride: Dim = 1
    axes = [k for k, d in enumerate(extents) if d != 1]
    for k in reversed(axes):
        part = linear.text if stride == 1 else f"{linear.atom} // {kernel.dim(stride)}"
        if k != axes[0]:
            part = f"{part} % {kernel.dim(extents[k])}"
        out[k] = kernel.bind(stem, Code(part, linear.dtype, linear.axes))
        stride = stride * extents[k]
    return out


def block_size(extent: Dim, most: int, least: int = 1) -> int:
    """The least power of two that covers an extent, between two limits (powers of two)."""
    high = bounds(extent)[1]
    if high is None:
        return most
    return max(least, min(most, 1 << max(high - 1, 0).bit_length()))
