"""Scalar expressions as Triton text: the one place where the IR's functions become code, for every template.

Arithmetic happens in registers: f16 and bf16 are computed in f32 and rounded where the IR rounds. Indices are 32-bit
where interval arithmetic shows that they fit.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace

from effcc.backends.triton.kernel import Code, KernelText, name_of, register_dtype
from effcc.errors import UnsupportedError
from effcc.ir import DType
from effcc.ir.dims import Dim, bounds
from effcc.ir.scalar import COMPARISONS, Apply, Index, Literal, Old, Read, Scalar, Size, State, walk
from effcc.ir.types import bool_, f32, f64, i32, i64

OPERATORS = {
    "add": "+", "sub": "-", "mul": "*", "eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">=",
    "and": "&", "or": "|", "xor": "^", "shl": "<<", "shr": ">>",
}  # fmt: skip
LIBRARY = frozenset(
    "pow exp expm1 log log1p sin cos tan asin acos atan sinh cosh asinh acosh atanh tanh erf erfc atan2 fmod trunc "
    "rsqrt".split()
)
"""Functions of libdevice by the IR's own names: within an ulp or two, unlike the hardware's approximations."""

INT32 = (-(1 << 31), (1 << 31) - 1)
Interval = tuple[int, int]
Reader = Callable[[int, tuple[Code, ...]], Code]


def literal(value: int | float | bool, dtype: DType) -> Code:
    """A number. Floats that have no literal are spelled `float("inf")`."""
    if dtype.is_bool:
        return Code(str(bool(value)), dtype, literal=True)
    if dtype.is_float:
        x = float(value)
        return Code(repr(x) if math.isfinite(x) else f'float("{x}")', dtype, literal=True)
    return Code(str(int(value)), dtype, literal=True)


def typed(code: Code, dtype: DType) -> Code:
    """A number as a value of its own dtype."""
    if not code.literal:
        return code
    return Code(f"tl.full([], {code.text}, {name_of(register_dtype(dtype))})", register_dtype(dtype))


def filled(shape: str, value: Code, dtype: DType) -> str:
    """A block of a shape that holds one number, or a value spread over it."""
    name = name_of(register_dtype(dtype))
    if value.literal:
        return f"tl.full({shape}, {value.text}, {name})"
    return f"tl.broadcast_to({value.text}, {shape}).to({name})"


def converted(code: Code, dtype: DType) -> Code:
    """A value in another dtype. (Loop counters are Python's numbers in the interpreter, and have no methods.)"""
    name = name_of(dtype)
    text = f"{code.atom}.to({name})" if code.axes else f"tl.cast({code.text}, {name})"
    return Code(text, dtype, code.axes, holds=code.dtype if dtype == register_dtype(code.dtype) != code.dtype else None)


def rounded(code: Code, dtype: DType) -> Code:
    """A register value rounded to a dtype, still in a register."""
    if code.literal or register_dtype(dtype) == dtype or code.holds == dtype:
        return code
    return converted(converted(code, dtype), f32)


def widened(code: Code) -> Code:
    """A value as it is stored, in a register of the dtype that it is computed in."""
    wide = register_dtype(code.dtype)
    return code if wide == code.dtype else converted(code, wide)


class Emitter:
    """Emits scalars of one loop nest at one point.

    index: the loop variables, by axis. extents: how far each goes (for the width of index arithmetic).
    read: (operand, index) -> the operand's element in a register. states, old: what `State` and `Old` mean.
    """

    def __init__(
        self, kernel: KernelText, index: Sequence[Code], extents: Sequence[Dim], read: Reader,
        states: Sequence[Code] = (), old: Sequence[Code] = (),
    ):
        self.kernel, self.index, self.extents, self.read = kernel, index, extents, read
        self.states, self.old = states, old
        self.memo: dict[int, Code] = {}
        self.ranges: dict[int, Interval | None] = {}
        self.alive: list[Scalar] = []  # ids are keys: what they name must not be collected

    def __call__(self, root: Scalar) -> Code:
        self.alive.append(root)
        uses = Counter(id(c) for node in walk(root) for c in node.children)
        return self._emit(root, uses)

    def _emit(self, node: Scalar, uses: Counter[int]) -> Code:
        if id(node) not in self.memo:
            code = self._code(node, uses)
            if isinstance(node, Apply) and (uses[id(node)] > 1 or len(code.text) > 96):
                code = self.kernel.bind("t", code)
            self.memo[id(node)] = code
        return self.memo[id(node)]

    def _code(self, node: Scalar, uses: Counter[int]) -> Code:
        match node:
            case Literal():
                return literal(node.value, node.dtype)
            case Size(dim=dim):
                return Code(self.kernel.dim(dim), self.kernel.index_dtype)
            case Index(axis=axis):
                return self.index[axis]
            case State(which=which):
                return self.states[which]
            case Old(which=which):
                return self.old[which]
            case Read(operand=operand, index=index):
                return self.read(operand, tuple(self._emit(i, uses) for i in index))
            case Apply():
                return self._apply(node, [self._emit(a, uses) for a in node.args])
        raise TypeError(node)

    # -- functions -----------------------------------------------------------------------------------------------------
    def _apply(self, node: Apply, args: list[Code]) -> Code:
        fn, dtype = node.fn, node.dtype
        axes = frozenset[str]().union(*(a.axes for a in args))
        if fn == "cast":
            return self._cast(args[0], node.args[0].dtype, dtype)
        if fn == "bitcast":
            return self._bitcast(typed(args[0], node.args[0].dtype), node.args[0].dtype, dtype)
        of = node.args[-1].dtype  # what is computed in (for comparisons not the result's dtype)
        if of == i64:
            args, out = self._indices(node, args)
        else:
            out = register_dtype(dtype)
            values = args[1:] if fn == "select" else args
            if all(a.literal for a in values) and of != f32:
                args = [*args[: len(args) - len(values)], typed(values[0], of), *values[1:]]
        return Code(self._text(node, fn, of, args), bool_ if fn in COMPARISONS else out, axes)

    def _indices(self, node: Apply, args: list[Code]) -> tuple[list[Code], DType]:
        """64-bit arithmetic, in 32 bits where operands are that narrow and the result is known to fit."""
        values = args[1:] if node.fn == "select" else args
        known = self.range(node) if node.fn not in COMPARISONS else (0, 1)
        if any(a.dtype == i64 and not a.literal for a in values):
            return args, i64
        fits = known is not None and INT32[0] <= known[0] and known[1] <= INT32[1]
        if fits and all(not a.literal or INT32[0] <= int(a.text) <= INT32[1] for a in values):
            return args, i32
        wide = [a if a.literal else converted(a, i64) for a in values]
        if all(a.literal for a in wide):
            wide[0] = typed(wide[0], i64)
        return [*args[: len(args) - len(values)], *wide], i64

    def _text(self, node: Apply, fn: str, of: DType, args: list[Code]) -> str:
        a = args[0]
        b = args[1] if len(args) > 1 else a
        name = self.kernel.function
        if fn in OPERATORS:
            if not of.is_float and b.literal and (fn, b.text) in (("add", "0"), ("sub", "0"), ("mul", "1")):
                return a.text
            return f"{a.atom} {OPERATORS[fn]} {b.atom}"
        match fn:
            case "neg":
                return f"-{a.atom}"
            case "not":
                return f"{a.atom} == 0" if of.is_bool else f"~{a.atom}"
            case "abs":
                return f"tl.abs({a.text})"
            case "isnan":
                x = self.kernel.bind("t", a)
                return f"{x.text} != {x.text}"
            case "select":
                return f"tl.where({a.text}, {b.text}, {args[2].text})"
            case "min" | "max" if of.is_float:
                return f"{name('lesser' if fn == 'min' else 'greater')}({a.text}, {b.text})"
            case "min" | "max" if of.is_bool:
                return f"{a.atom} {'&' if fn == 'min' else '|'} {b.atom}"
            case "min" | "max":
                return f"tl.{fn}imum({a.text}, {b.text})"
            case "floor" | "ceil":
                return f"tl.{fn}({a.text})"
            case "round":
                return f"libdevice.rint({a.text})"
            case "normal_cdf":
                return f"0.5 * (1.0 + libdevice.erf({a.atom} * {math.sqrt(0.5)!r}))"
            case "sqrt":
                return f"tl.sqrt({a.text})" if of == f64 else f"tl.sqrt_rn({a.text})"
            case "div" if of.is_float:
                return f"{a.atom} / {b.atom}" if of == f64 else f"tl.div_rn({a.text}, {b.text})"
            case "floordiv" if of.is_float:
                return f"tl.floor({a.atom} / {b.atom})"
            case "div" | "floordiv" | "mod" | "fmod" if not of.is_float:
                return self._divide(node, fn, of, a, b)
        if fn in LIBRARY and of.is_float:
            return f"libdevice.{fn}({', '.join(x.text for x in args)})"
        if fn == "pow":
            return self._power(node, of, a, b)
        raise UnsupportedError(f"target cuda has no code for {fn} of {of}")

    def _divide(self, node: Apply, fn: str, of: DType, a: Code, b: Code) -> str:
        ranges = [self.range(x) for x in node.args]
        known = isinstance(node.args[1], Literal) and node.args[1].value or ranges[1] is not None and ranges[1][0] > 0
        if not known:  # by 0 it divides by 1, as the CPU does
            b = self.kernel.bind("t", replace(b, text=f"{self.kernel.function('divisor')}({b.text})"))
        if of.kind == "u" or (all(r is not None and r[0] >= 0 for r in ranges) and of == i64):
            return f"{a.atom} {'//' if fn in ('div', 'floordiv') else '%'} {b.atom}"
        helper = {"div": "truncating_divide", "floordiv": "floor_divide", "mod": "modulo", "fmod": "remainder"}[fn]
        if a.literal:
            a = typed(a, of)
        return f"{self.kernel.function(helper)}({a.text}, {b.text})"

    def _power(self, node: Apply, of: DType, a: Code, b: Code) -> str:
        if isinstance(node.args[1], Literal) and isinstance(node.args[1].value, int) and 0 < node.args[1].value <= 8:
            return " * ".join([self.kernel.bind("t", a).atom] * node.args[1].value)
        raise UnsupportedError(f"target cuda has no code for pow of {of} with a variable exponent",
                               hint="cast to a float")

    # -- conversions ---------------------------------------------------------------------------------------------------
    def _cast(self, x: Code, source: DType, target: DType) -> Code:
        if x.literal:
            value = {"True": 1, "False": 0}.get(x.text)
            number = value if value is not None else float(x.text.removeprefix('float("').removesuffix('")'))
            if target.is_float or math.isfinite(number):
                return literal(number if target.is_float or target.is_bool else int(number), target)
        wide = register_dtype(target)
        if target.is_bool:
            return Code(f"{x.atom} != 0", bool_, x.axes)
        if target == i64 and x.dtype == i32 and source == i64:
            return x
        code = converted(x, target) if x.dtype != target else x
        return code if wide == target else converted(code, wide)

    def _bitcast(self, x: Code, source: DType, target: DType) -> Code:
        narrow = x.text if register_dtype(source) == source else f"{x.atom}.to({name_of(source)})"
        if source == i64 and x.dtype != i64:
            narrow = f"{x.atom}.to(tl.int64)"
        inner = narrow if narrow is not x.text else x.atom
        text = f"{inner}.to({name_of(target)}, bitcast=True)"
        return widened(Code(text, target, x.axes))

    # -- ranges --------------------------------------------------------------------------------------------------------
    def range(self, node: Scalar) -> Interval | None:
        """Inclusive bounds of an index expression; None where they are not known."""
        if id(node) not in self.ranges:
            self.ranges[id(node)] = self._range(node)
        return self.ranges[id(node)]

    def _range(self, node: Scalar) -> Interval | None:
        match node:
            case Literal(value=value):
                return (int(value), int(value)) if node.dtype == i64 else None
            case Size(dim=dim):
                low, high = bounds(dim)
                return None if low is None or high is None else (low, high)
            case Index(axis=axis):
                high = bounds(self.extents[axis])[1]
                return None if high is None else (0, max(high - 1, 0))
            case Apply(fn=fn, args=args) if node.dtype == i64:
                parts = [self.range(a) for a in (args[1:] if fn == "select" else args)]
                return None if any(p is None for p in parts) else _combined(fn, parts)  # type: ignore[arg-type]
        return None


def _combined(fn: str, parts: list[Interval]) -> Interval | None:
    (a, b), (c, d) = parts[0], parts[-1]
    match fn:
        case "add":
            return a + c, b + d
        case "sub":
            return a - d, b - c
        case "mul":
            products = [a * c, a * d, b * c, b * d]
            return min(products), max(products)
        case "neg":
            return -b, -a
        case "min":
            return min(a, c), min(b, d)
        case "max":
            return max(a, c), max(b, d)
        case "select":
            return min(a, c), max(b, d)
        case "floordiv" if c > 0:
            return min(a // c, a // d), max(b // c, b // d)
        case "mod" if c > 0:
            return 0, d - 1
    return None


__all__ = ["Emitter", "filled", "literal", "rounded", "typed", "widened"]
