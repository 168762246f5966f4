"""Scalar expressions and loop nests: the one description of an op from which access maps, cost and code are derived.

An op's `compute` is a loop nest over an iteration space. At each point it evaluates scalar expressions that read
operands
at index expressions:

    scalar := literal | size(dim) | index(axis) | read(operand, index...) | state(k) | old(k) | fn(scalar...)

Backends translate the few functions in `FUNCTIONS`; everything else that an op means is spelled in them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from effcc.ir.dims import Dim, product
from effcc.ir.types import DType, bool_, i64

FUNCTIONS = frozenset(
    "add sub mul div floordiv mod fmod neg abs min max pow exp expm1 log log1p sqrt rsqrt sin cos tan "
    "asin acos atan sinh cosh asinh acosh atanh tanh erf erfc normal_cdf atan2 floor ceil round trunc isnan "
    "eq ne lt le gt ge and or xor not shl shr select cast bitcast".split()
)
"""What a backend must translate. `div` is true division on floats and truncates toward zero on integers; `floordiv` and
`mod` round toward minus infinity, `fmod` has the dividend's sign; `min` and `max` propagate NaN; `round` is half to
even; `normal_cdf` is (1 + erf(x / √2)) / 2; `shr` is arithmetic on signed integers; `and or xor not` are logical on
bool and bitwise on integers; `cast` from float to integer truncates; `bitcast` keeps the bits."""

Number = int | float | bool


@dataclass(frozen=True, slots=True, eq=False)
class Scalar:
    """A typed expression; Python operators build bigger ones, numbers become literals of the same dtype."""

    dtype: DType

    def _bin(self, fn: str, other: Scalar | Number, flip: bool = False) -> Scalar:
        other = lift(other, self.dtype)
        return apply(fn, other, self) if flip else apply(fn, self, other)

    def __add__(self, o: Scalar | Number) -> Scalar:
        return self._bin("add", o)

    def __radd__(self, o: Scalar | Number) -> Scalar:
        return self._bin("add", o, True)

    def __sub__(self, o: Scalar | Number) -> Scalar:
        return self._bin("sub", o)

    def __rsub__(self, o: Scalar | Number) -> Scalar:
        return self._bin("sub", o, True)

    def __mul__(self, o: Scalar | Number) -> Scalar:
        return self._bin("mul", o)

    def __rmul__(self, o: Scalar | Number) -> Scalar:
        return self._bin("mul", o, True)

    def __truediv__(self, o: Scalar | Number) -> Scalar:
        return self._bin("div", o)

    def __rtruediv__(self, o: Scalar | Number) -> Scalar:
        return self._bin("div", o, True)

    def __floordiv__(self, o: Scalar | Number) -> Scalar:
        return self._bin("floordiv", o)

    def __mod__(self, o: Scalar | Number) -> Scalar:
        return self._bin("mod", o)

    def __neg__(self) -> Scalar:
        return apply("neg", self)

    def __lt__(self, o: Scalar | Number) -> Scalar:
        return self._bin("lt", o)

    def __le__(self, o: Scalar | Number) -> Scalar:
        return self._bin("le", o)

    def __gt__(self, o: Scalar | Number) -> Scalar:
        return self._bin("gt", o)

    def __ge__(self, o: Scalar | Number) -> Scalar:
        return self._bin("ge", o)

    def __and__(self, o: Scalar | Number) -> Scalar:
        return self._bin("and", o)

    def __or__(self, o: Scalar | Number) -> Scalar:
        return self._bin("or", o)

    def __invert__(self) -> Scalar:
        return apply("not", self)

    def eq(self, o: Scalar | Number) -> Scalar:
        return self._bin("eq", o)

    def ne(self, o: Scalar | Number) -> Scalar:
        return self._bin("ne", o)

    def __bool__(self) -> bool:
        raise TypeError("a scalar expression has no truth value at compile time; use select(cond, a, b)")

    @property
    def children(self) -> tuple[Scalar, ...]:
        return ()


@dataclass(frozen=True, slots=True, eq=False)
class Literal(Scalar):
    value: Number


@dataclass(frozen=True, slots=True, eq=False)
class Size(Scalar):
    """A dimension as an i64."""

    dim: Dim


@dataclass(frozen=True, slots=True, eq=False)
class Index(Scalar):
    """The loop variable of one axis of the iteration space, as an i64."""

    axis: int


@dataclass(frozen=True, slots=True, eq=False)
class Read(Scalar):
    """An element of an operand."""

    operand: int
    index: tuple[Scalar, ...]

    @property
    def children(self) -> tuple[Scalar, ...]:
        return self.index


@dataclass(frozen=True, slots=True, eq=False)
class State(Scalar):
    """What a fold has accumulated so far."""

    which: int


@dataclass(frozen=True, slots=True, eq=False)
class Old(Scalar):
    """The element of result `which` that is about to be overwritten (scatters)."""

    which: int


@dataclass(frozen=True, slots=True, eq=False)
class Apply(Scalar):
    fn: str
    args: tuple[Scalar, ...]

    @property
    def children(self) -> tuple[Scalar, ...]:
        return self.args


FREE = frozenset("cast bitcast select".split())
COMPARISONS = frozenset("eq ne lt le gt ge isnan".split())


def lift(x: Scalar | Number, dtype: DType) -> Scalar:
    if isinstance(x, Scalar):
        return x
    if dtype.is_float:
        x = float(x)
    return Literal(dtype, x)


def apply(fn: str, *args: Scalar) -> Scalar:
    """Apply a function of `FUNCTIONS`; the result has the operands' dtype (bool for comparisons)."""
    if fn not in FUNCTIONS:
        raise ValueError(f"{fn} is not a scalar function")
    dtype = bool_ if fn in COMPARISONS else args[-1].dtype
    operands = args[1:] if fn == "select" else args
    if any(a.dtype != operands[0].dtype for a in operands):
        raise TypeError(f"{fn} of mixed dtypes: {', '.join(a.dtype.name for a in args)}")
    return Apply(dtype, fn, args)


def fn(name: str) -> Callable[..., Scalar]:
    return lambda *args: apply(name, *args)


exp, expm1, log, log1p, sqrt, rsqrt = map(fn, ("exp", "expm1", "log", "log1p", "sqrt", "rsqrt"))
tanh, normal_cdf, floor, ceil, trunc, isnan = map(fn, ("tanh", "normal_cdf", "floor", "ceil", "trunc", "isnan"))
absolute, round_even, power = fn("abs"), fn("round"), fn("pow")


def minimum(a: Scalar, b: Scalar | Number) -> Scalar:
    return a._bin("min", b)


def maximum(a: Scalar, b: Scalar | Number) -> Scalar:
    return a._bin("max", b)


def select(cond: Scalar, a: Scalar | Number, b: Scalar | Number) -> Scalar:
    """a where cond, else b; at least one of them is a Scalar."""
    dtype = a.dtype if isinstance(a, Scalar) else b.dtype  # type: ignore[union-attr]
    return apply("select", cond, lift(a, dtype), lift(b, dtype))


def cast(x: Scalar, dtype: DType) -> Scalar:
    return x if x.dtype == dtype else Apply(dtype, "cast", (x,))


def bitcast(x: Scalar, dtype: DType) -> Scalar:
    return Apply(dtype, "bitcast", (x,))


def size(dim: Dim) -> Scalar:
    """A dimension as an index expression."""
    return Literal(i64, dim) if isinstance(dim, int) else Size(i64, dim)


def index(axis: int) -> Scalar:
    return Index(i64, axis)


def const(dtype: DType, value: Number) -> Scalar:
    return lift(value, dtype)


def walk(*roots: Scalar) -> Iterator[Scalar]:
    """Each node once, children before parents, without recursion."""
    seen: set[int] = set()
    stack: list[tuple[Scalar, bool]] = [(r, False) for r in reversed(roots)]
    while stack:
        node, done = stack.pop()
        if done:
            yield node
        elif id(node) not in seen:
            seen.add(id(node))
            stack.append((node, True))
            stack.extend((c, False) for c in reversed(node.children))


def rebuild(root: Scalar, replace: Callable[[Scalar, tuple[Scalar, ...]], Scalar | None]) -> Scalar:
    """Rewrite bottom-up: `replace(node, new children)` gives the new node, or None to keep it with the new children."""
    done: dict[int, Scalar] = {}
    for node in walk(root):
        children = tuple(done[id(c)] for c in node.children)
        out = replace(node, children)
        if out is None:
            out = node
            if any(a is not b for a, b in zip(children, node.children, strict=True)):
                if isinstance(node, Read):
                    out = Read(node.dtype, node.operand, children)
                else:
                    out = Apply(node.dtype, node.fn, children)  # type: ignore[attr-defined]
        done[id(node)] = out
    return done[id(root)]


PARALLEL, REDUCTION, SCAN = "p", "r", "s"


@dataclass(frozen=True)
class Compute:
    """A loop nest: an iteration space and what happens at its points.

    extents: the size of each axis.        kinds: for each axis, PARALLEL, REDUCTION or SCAN.
    results: what is stored for each point of the parallel and scan axes, once the reduction axes are folded.
    init, step: the fold's states and their update at each point of the reduction (or scan) axes; `State(k)` is the
    k-th.
        States restart for each point of the parallel axes.
    write: where each result is stored; by default at the parallel and scan indices in order.
    initial: the operand that result 0 starts as a copy of; points then overwrite or combine with `Old(0)` (scatters).
    A SCAN axis runs in order; with `init` its states carry over.
    """

    extents: tuple[Dim, ...]
    results: tuple[Scalar, ...]
    kinds: str = ""
    init: tuple[Scalar, ...] = ()
    step: tuple[Scalar, ...] = ()
    write: tuple[tuple[Scalar, ...], ...] | None = None
    initial: int | None = None

    def __post_init__(self):
        object.__setattr__(self, "kinds", self.kinds or PARALLEL * len(self.extents))
        assert len(self.kinds) == len(self.extents) and len(self.init) == len(self.step)

    @property
    def is_map(self) -> bool:
        """Whether each result element is a function of operands alone, stored at its own index."""
        return not self.init and self.write is None and self.initial is None and set(self.kinds) <= {PARALLEL}

    def axes(self, kind: str) -> tuple[int, ...]:
        return tuple(i for i, k in enumerate(self.kinds) if k == kind)

    @property
    def scalars(self) -> tuple[Scalar, ...]:
        writes = tuple(s for w in self.write or () for s in w)
        return (*self.init, *self.step, *self.results, *writes)

    def reads(self) -> Iterable[Read]:
        """Every operand access, with its index map."""
        return (s for s in walk(*self.scalars) if isinstance(s, Read))

    def applied(self) -> Iterable[Apply]:
        """The functions that points apply, to indices as well."""
        return (s for s in walk(*self.scalars) if isinstance(s, Apply))

    @property
    def flops(self) -> Dim:
        """Arithmetic on values, one for each function applied (index arithmetic, selections and conversions are
        free)."""

        def count(roots: tuple[Scalar, ...]) -> int:
            return sum(
                1 for s in walk(*roots) if isinstance(s, Apply) and s.dtype not in (i64, bool_) and s.fn not in FREE
            )

        outer = product(e for e, k in zip(self.extents, self.kinds, strict=True) if k != REDUCTION)
        inner = product(self.extents)
        return outer * count(self.results) + inner * count(self.step)
