"""Symbolic dimensions: integer expressions over ranged symbols, kept in a normal form so that equality is structural.

    dim  := int | Expr
    Expr := sum of  coefficient * product of atoms
    atom := Symbol | floordiv(Expr, Dim) | mod(Expr, Dim) | min(Dim...) | max(Dim...)

>>> B = Symbol("B", 1, 64)
>>> (B * 2 + 6) // 2
B + 3
>>> (B + 1) * (B - 1) == B * B - 1
True
>>> evaluate((B + 3) // 2, {B: 4})
3
>>> bounds(B * 2 + 1)
(3, 129)
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache


class Expr:
    """A sum of monomials; an operand of arithmetic. Construct through operators, `Symbol`, `dim_min` and `dim_max`."""

    __slots__ = ("_hash", "terms")
    terms: tuple[tuple[tuple[Atom, ...], int], ...]

    def __init__(self, terms: tuple[tuple[tuple[Atom, ...], int], ...]):
        self.terms = terms
        lone = len(terms) == 1 and terms[0][1] == 1 and len(terms[0][0]) == 1
        self._hash = hash(terms[0][0][0]) if lone else hash(terms)  # a lone symbol equals its expression

    def __reduce__(self):
        return (Expr, (self.terms,))

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Symbol):
            other = other.expr
        return self is other or (isinstance(other, Expr) and self._hash == other._hash and self.terms == other.terms)

    def __add__(self, other: Dim) -> Dim:
        return _sum((self, 1), (other, 1))

    __radd__ = __add__

    def __sub__(self, other: Dim) -> Dim:
        return _sum((self, 1), (other, -1))

    def __rsub__(self, other: Dim) -> Dim:
        return _sum((other, 1), (self, -1))

    def __neg__(self) -> Dim:
        return _sum((self, -1))

    def __mul__(self, other: Dim) -> Dim:
        return _product(self, other)

    __rmul__ = __mul__

    def __floordiv__(self, other: Dim) -> Dim:
        return floordiv(self, other)

    def __rfloordiv__(self, other: Dim) -> Dim:
        return floordiv(other, self)

    def __mod__(self, other: Dim) -> Dim:
        return mod(self, other)

    def __rmod__(self, other: Dim) -> Dim:
        return mod(other, self)

    def __bool__(self) -> bool:
        raise TypeError(f"the truth of the symbolic dimension {self} is not known at compile time")

    def __repr__(self) -> str:
        return _show(self)


@dataclass(frozen=True, slots=True)
class Atom:
    """An indivisible factor of a monomial."""

    @property
    def expr(self) -> Expr:
        return Expr((((self,), 1),))


class Arithmetic:
    """Arithmetic of a lone symbol, by way of its expression."""

    __slots__ = ()

    @property
    def expr(self) -> Expr:
        raise NotImplementedError

    def __add__(self, other: Dim) -> Dim:
        return self.expr + other

    def __radd__(self, other: Dim) -> Dim:
        return self.expr + other

    def __sub__(self, other: Dim) -> Dim:
        return self.expr - other

    def __rsub__(self, other: Dim) -> Dim:
        return other - self.expr

    def __neg__(self) -> Dim:
        return -self.expr

    def __mul__(self, other: Dim) -> Dim:
        return self.expr * other

    def __rmul__(self, other: Dim) -> Dim:
        return self.expr * other

    def __floordiv__(self, other: Dim) -> Dim:
        return floordiv(self.expr, other)

    def __rfloordiv__(self, other: Dim) -> Dim:
        return floordiv(other, self.expr)

    def __mod__(self, other: Dim) -> Dim:
        return mod(self.expr, other)

    def __rmod__(self, other: Dim) -> Dim:
        return mod(other, self.expr)


@dataclass(frozen=True, slots=True, eq=False)
class Symbol(Atom, Arithmetic):
    """A named size with an inclusive range, bound by an input's shape or defined by an op (NonZero, NMS, ...)."""

    name: str
    lo: int = 0
    hi: int | None = None

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Symbol):
            return self.name == other.name and self.lo == other.lo and self.hi == other.hi
        return isinstance(other, Expr) and other == self.expr

    def __hash__(self) -> int:
        return hash(("symbol", self.name, self.lo, self.hi))

    def __repr__(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True)
class FloorDiv(Atom):
    a: Dim
    b: Dim

    def __repr__(self) -> str:
        return f"floordiv({self.a}, {self.b})"


@dataclass(frozen=True, slots=True)
class Mod(Atom):
    a: Dim
    b: Dim

    def __repr__(self) -> str:
        return f"mod({self.a}, {self.b})"


@dataclass(frozen=True, slots=True)
class Extremum(Atom):
    """min or max of several dimensions, in a canonical order."""

    which: str
    args: tuple[Dim, ...]

    def __repr__(self) -> str:
        return f"{self.which}({', '.join(map(str, self.args))})"


Dim = int | Expr | Symbol


def _terms(x: Dim) -> tuple[tuple[tuple[Atom, ...], int], ...]:
    if isinstance(x, int):
        return (((), x),) if x else ()
    return x.expr.terms if isinstance(x, Atom) else x.terms


def _build(table: dict[tuple[Atom, ...], int]) -> Dim:
    terms = tuple(sorted(((m, c) for m, c in table.items() if c), key=lambda t: (-len(t[0]), repr(t[0]))))
    if not terms:
        return 0
    if len(terms) == 1 and terms[0][0] == ():
        return terms[0][1]
    return Expr(terms)


def _sum(*parts: tuple[Dim, int]) -> Dim:
    table: dict[tuple[Atom, ...], int] = {}
    for dim, scale in parts:
        if not isinstance(dim, (int, Expr, Symbol)):
            return NotImplemented
        for monomial, c in _terms(dim):
            table[monomial] = table.get(monomial, 0) + c * scale
    return _build(table)


def _product(a: Dim, b: Dim) -> Dim:
    if not isinstance(b, (int, Expr, Symbol)):
        return NotImplemented
    table: dict[tuple[Atom, ...], int] = {}
    for m, c in _terms(a):
        for n, d in _terms(b):
            key = tuple(sorted(m + n, key=repr))
            table[key] = table.get(key, 0) + c * d
    return _build(table)


def floordiv(a: Dim, b: Dim) -> Dim:
    """⌊a / b⌋, with whole multiples taken out: (4B + 3) // 4 -> B, (B*H) // H -> B for H ≥ 1."""
    if isinstance(a, int) and isinstance(b, int):
        return a // b
    if b == 1:
        return a
    if isinstance(a, int) and a == 0:
        return 0
    if isinstance(b, int):
        if b == 0:
            raise ZeroDivisionError("a dimension divided by zero")
        whole, rest = _split(a, b)
        lo, hi = bounds(rest)
        if b > 0 and lo is not None and hi is not None and lo // b == hi // b:
            return whole + lo // b
        if len(_terms(rest)) == 1 and not isinstance(rest, int):  # ⌊⌊x/c⌋ / b⌋ = ⌊x / (b·c)⌋
            ((monomial, c),) = _terms(rest)
            if c == 1 and len(monomial) == 1 and isinstance(monomial[0], FloorDiv) and b > 0:
                inner = monomial[0]
                if isinstance(inner.b, int) and inner.b > 0:
                    return whole + floordiv(inner.a, inner.b * b)
        common = math.gcd(b, *(c for _, c in _terms(rest)))
        if common > 1:
            rest = _build({m: c // common for m, c in _terms(rest)})
            return whole + floordiv(rest, b // common)
        return whole + FloorDiv(rest, b).expr
    exact = _divide_exactly(a, b)
    return FloorDiv(a, b).expr if exact is None else exact


def _split(a: Dim, b: int) -> tuple[Dim, Dim]:
    """a = whole * b + rest, the rest's coefficients in [0, b)."""
    whole: dict[tuple[Atom, ...], int] = {}
    rest: dict[tuple[Atom, ...], int] = {}
    for m, c in _terms(a):
        if c % b:
            rest[m] = c % b
        whole[m] = c // b
    return _build(whole), _build(rest)


def _divide_exactly(a: Dim, b: Dim) -> Dim | None:
    """a / b where b is one monomial that divides each of a's, or a is b; else None."""
    if a == b:
        return 1
    divisor = list(_terms(b))
    if len(divisor) != 1:
        return None
    (factors, d), out = divisor[0], {}
    for m, c in _terms(a):
        left = list(m)
        for f in factors:
            if f not in left:
                return None
            left.remove(f)
        if c % d:
            return None
        out[tuple(left)] = c // d
    return _build(out)


def mod(a: Dim, b: Dim) -> Dim:
    """a - b·⌊a/b⌋."""
    if isinstance(a, int) and isinstance(b, int):
        return a % b
    if isinstance(b, int):
        _, rest = _split(a, b)
        lo, hi = bounds(rest)
        if b > 0 and lo is not None and hi is not None and lo // b == hi // b:
            return rest - (lo // b) * b
        return Mod(rest, b).expr
    return 0 if _divide_exactly(a, b) is not None else Mod(a, b).expr


def ceildiv(a: Dim, b: Dim) -> Dim:
    return floordiv(a + b - 1, b)


def dim_min(*args: Dim) -> Dim:
    return _extremum("min", args)


def dim_max(*args: Dim) -> Dim:
    return _extremum("max", args)


def _extremum(which: str, args: tuple[Dim, ...]) -> Dim:
    flat: list[Dim] = []
    for a in args:
        lone = _lone_atom(a)
        flat += lone.args if isinstance(lone, Extremum) and lone.which == which else (a,)
    kept: list[Dim] = []
    for a in flat:
        if any(_never_beaten(which, k, a) for k in kept):
            continue
        kept = [k for k in kept if not _never_beaten(which, a, k)] + [a]
    if len(kept) == 1:
        return kept[0]
    return Extremum(which, tuple(sorted(kept, key=repr))).expr


def _never_beaten(which: str, a: Dim, b: Dim) -> bool:
    lo, hi = bounds(b - a)
    return (lo is not None and lo >= 0) if which == "min" else (hi is not None and hi <= 0)


def _lone_atom(a: Dim) -> Atom | None:
    if isinstance(a, Symbol):
        return a
    if isinstance(a, Expr) and len(a.terms) == 1 and a.terms[0][1] == 1 and len(a.terms[0][0]) == 1:
        return a.terms[0][0][0]
    return None


def as_symbol(a: Dim) -> Symbol | None:
    """The symbol that a dimension is, or None where it is anything else."""
    lone = _lone_atom(a) if not isinstance(a, int) else None
    return lone if isinstance(lone, Symbol) else None


def evaluate(a: Dim, values: Mapping[Symbol, int]) -> int:
    """The value of a dimension under a binding of its symbols; KeyError names one that is not bound."""
    out = substitute(a, values)
    if not isinstance(out, int):
        raise KeyError(f"{a}: no value for {', '.join(sorted(s.name for s in symbols(out)))}")
    return out


def substitute(a: Dim, values: Mapping[Symbol, Dim]) -> Dim:
    """Replace symbols by dimensions and normalise again."""
    if isinstance(a, int):
        return a
    total: Dim = 0
    for monomial, c in _terms(a):
        product: Dim = c
        for atom in monomial:
            product = product * _substitute_atom(atom, values)
        total = total + product
    return total


def _substitute_atom(atom: Atom, values: Mapping[Symbol, Dim]) -> Dim:
    match atom:
        case Symbol():
            return values.get(atom, atom.expr)
        case FloorDiv(a, b):
            return floordiv(substitute(a, values), substitute(b, values))
        case Mod(a, b):
            return mod(substitute(a, values), substitute(b, values))
        case Extremum(which, args):
            done = tuple(substitute(x, values) for x in args)
            if all(isinstance(x, int) for x in done):
                return (min if which == "min" else max)(done)  # type: ignore[type-var]
            return _extremum(which, done)
    raise TypeError(atom)


def symbols(a: Dim) -> set[Symbol]:
    """Every symbol that occurs in a dimension."""
    return set() if isinstance(a, int) else set(_walk(a))


def _walk(a: Dim) -> Iterator[Symbol]:
    if isinstance(a, int):
        return
    for monomial, _ in _terms(a):
        for atom in monomial:
            match atom:
                case Symbol():
                    yield atom
                case FloorDiv(x, y) | Mod(x, y):
                    yield from _walk(x)
                    yield from _walk(y)
                case Extremum(_, args):
                    for x in args:
                        yield from _walk(x)


Bound = int | None


def bounds(a: Dim) -> tuple[Bound, Bound]:
    """Inclusive bounds by interval arithmetic over the symbols' ranges; None where there is none."""
    return (a, a) if isinstance(a, int) else _bounds(a.expr if isinstance(a, Symbol) else a)


@lru_cache(maxsize=65536)
def _bounds(a: Expr) -> tuple[Bound, Bound]:
    lo: Bound = 0
    hi: Bound = 0
    for monomial, c in a.terms:
        first, last = c, c
        low: Bound = first
        high: Bound = last
        for atom in monomial:
            low, high = _times((low, high), _atom_bounds(atom))
        lo = None if lo is None or low is None else lo + low
        hi = None if hi is None or high is None else hi + high
    return lo, hi


def _times(x: tuple[Bound, Bound], y: tuple[Bound, Bound]) -> tuple[Bound, Bound]:
    inf = math.inf
    xs = (-inf if x[0] is None else x[0], inf if x[1] is None else x[1])
    ys = (-inf if y[0] is None else y[0], inf if y[1] is None else y[1])
    products = [0 if p == 0 or q == 0 else p * q for p in xs for q in ys]
    lo, hi = min(products), max(products)
    return (None if lo == -inf else int(lo)), (None if hi == inf else int(hi))


def _atom_bounds(atom: Atom) -> tuple[Bound, Bound]:
    match atom:
        case Symbol(_, lo, hi):
            return lo, hi
        case FloorDiv(a, b):
            (lo, hi), (blo, bhi) = bounds(a), bounds(b)
            if blo is None or blo <= 0:
                return None, None
            low = None if lo is None else (lo // blo if lo < 0 else (0 if bhi is None else lo // bhi))
            high = None if hi is None else (hi // blo if hi >= 0 else (-1 if bhi is None else hi // bhi))
            return low, high
        case Mod(_, b):
            blo, bhi = bounds(b)
            return (0, None if bhi is None else bhi - 1) if blo is not None and blo > 0 else (None, None)
        case Extremum(which, args):
            los, his = zip(*(bounds(x) for x in args), strict=True)
            if which == "min":
                known = [h for h in his if h is not None]
                return (None if None in los else min(los)), (min(known) if known else None)
            known = [low for low in los if low is not None]
            return (max(known) if known else None), (None if None in his else max(his))
    return None, None


def product(dims: Iterable[Dim]) -> Dim:
    """The number of elements of a shape."""
    total: Dim = 1
    for d in dims:
        total = d * total
    return total


def upper_bound(a: Dim) -> int | None:
    return bounds(a)[1]


def _show(a: Expr) -> str:
    text = ""
    for monomial, c in a.terms:
        factors = [str(atom) for atom in monomial]
        if abs(c) != 1 or not factors:
            factors.insert(0, str(abs(c)))
        body = "*".join(factors)
        text += (f" {'-' if c < 0 else '+'} {body}") if text else (f"-{body}" if c < 0 else body)
    return text
