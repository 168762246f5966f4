"""Drawing well-typed things: types, attributes, applications of ops, instances of patterns, whole graphs.

Driven by the op registry: attributes are drawn by the meaning of their names, operands by the op's family
(effcc.testing.operands), and the op's own type rule decides.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from effcc.errors import EffccError, TypeRuleError
from effcc.ir.blob import Blob
from effcc.ir.builder import Builder
from effcc.ir.dims import Symbol, substitute
from effcc.ir.graph import Graph, Value
from effcc.ir.lazy import torch
from effcc.ir.op import Op, load_ops
from effcc.ir.types import DType, Tensor, Type, bool_, f32, i32
from effcc.pipeline import Pass
from effcc.rewrite import Rule
from effcc.rewrite.pattern import (
    Attribute,
    Bound,
    Constant,
    Either,
    OpPattern,
    Pattern,
    Rest,
    ResultPattern,
    Variable,
)
from effcc.testing.attributes import ATTRIBUTES
from effcc.testing.operands import DTYPES_DRAWN, OPERANDS, arity

DIMS = (2, 3, 1, 5, 4, 0, 7, 16, 17, 33)
"""Sizes; the first are the likeliest after shrinking. Broadcasts, empty tensors and tile tails come of themselves."""
MAX_ELEMENTS = 4096
ATTEMPTS = 60
LOOSE = 30
"""In how many cases of a hundred a loose instance of a pattern does not hold to what the pattern says."""


class NothingDrawn(Exception):
    """No choice of types and attributes satisfied the type rule."""


class Drawer:
    """Draws through one function `choose(options)`, which lists the simplest option first."""

    operands: Mapping[str, Callable[[Any, list[Type | None], int, str], Type]] = OPERANDS
    """The types of an op's open operands, by family or op."""
    attempts = ATTEMPTS
    """How often attributes are drawn that a pattern may refuse."""

    def __init__(self, choose: Callable[[Sequence[Any]], Any], dtypes: Sequence[DType] = DTYPES_DRAWN):
        self.choose, self.dtypes = choose, dtypes
        self.base_shape: tuple[int, ...] = self.shape()
        self.base_dtype: DType = choose(dtypes)
        self.bounds: dict[Symbol, int] = {}
        """The sizes that ops define, each with its greatest value."""
        self.kinds = "fiub"
        """The kinds of dtype that the op being drawn takes."""

    def nothing(self, why: str) -> Any:
        """Give this drawing up."""
        raise NothingDrawn(why)

    def some(self, options: Iterable[Any]) -> Any:
        """One of the options, if there are any."""
        listed = list(options)
        return self.choose(listed) if listed else self.nothing("there is nothing to choose from")

    # -- small things ------------------------------------------------------------------------------------------------
    def integer(self, low: int, high: int) -> int:
        return self.choose(range(low, high + 1))

    def boolean(self) -> bool:
        return self.choose((False, True))

    def chance(self, percent: int) -> bool:
        return self.choose(range(100)) < percent

    def dim(self) -> int:
        return self.choose(DIMS) if self.chance(60) else self.choose((2, 3, 4, 1))

    def shape(self, low: int = 0, high: int = 5) -> tuple[int, ...]:
        rank = self.choose([r for r in (2, 3, 1, 4, 0, 4, 2, 3, 5) if low <= r <= high])
        shape = (self.dim(),) * rank if self.chance(25) else tuple(self.dim() for _ in range(rank))
        while math.prod(shape) > MAX_ELEMENTS:
            shape = tuple(min(d, 5) for d in shape)
        return shape

    def variant(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """A shape that broadcasts with `shape`."""
        kind = self.choose(("same", "same", "ones", "short", "scalar"))
        if kind == "ones":
            return tuple(1 if self.boolean() else d for d in shape)
        if kind == "short":
            return shape[self.integer(0, len(shape)):]
        return () if kind == "scalar" else shape

    def permutation(self, rank: int) -> tuple[int, ...]:
        rest, out = list(range(rank)), []
        if self.chance(15):
            return tuple(rest)
        if rank >= 2 and self.chance(25):
            return (*rest[:-2], rank - 1, rank - 2)
        while rest:
            out.append(rest.pop(self.integer(0, len(rest) - 1)))
        return tuple(out)

    def refactor(self, size: int) -> tuple[int, ...]:
        """A shape of `size` elements."""
        if size == 0:
            return self.choose(((0,), (0, 3), (2, 0)))
        out = []
        while size > 1 and len(out) < 3:
            d = self.choose([d for d in range(1, size + 1) if size % d == 0])
            out.append(d)
            size //= d
        return tuple(out) if size == 1 else (*out, size)

    # -- applications ------------------------------------------------------------------------------------------------
    def application(
        self, cls: type[Op], known: Sequence[Type | None], given: dict[str, Any], attempts: int = ATTEMPTS,
    ) -> tuple[Op, tuple[Type, ...]]:
        """An op and operand types that its type rule accepts; None in `known` stands for a type to draw."""
        for attempt in range(attempts):
            if attempt and attempt % 10 == 0:
                self.base_shape = self.shape()
            try:
                types = self.operand_types(cls, list(known))
                attributes = {**self.attributes(cls, types, given), **given}
                op = cls(**attributes)
                results = op.result_types(tuple(types))
                defined = {s: bound for s, bound in op.defines(*types).items() if isinstance(bound, int)}
                if all(self.small(t, {**self.bounds, **defined}) for t in (*types, *results)):
                    if any(isinstance(t, Tensor) and 0 in t.shape for t in types) and not has_value(op, types):
                        continue
                    self.bounds.update(defined)
                    return op, tuple(types)
            except (TypeRuleError, NothingDrawn, IndexError, ValueError, TypeError, AttributeError, KeyError):
                continue  # the type rule refused: draw again
        raise NothingDrawn(f"{cls.name} of {', '.join(map(str, known))}")

    @staticmethod
    def small(type_: Type, bounds: Mapping[Symbol, int]) -> bool:
        """Whether a value has few elements; sizes that ops define count as their bounds."""
        if not isinstance(type_, Tensor):
            return True
        most = substitute(type_.size, bounds)
        return isinstance(most, int) and most <= 4 * MAX_ELEMENTS

    def operand_types(self, cls: type[Op], known: list[Type | None]) -> list[Type]:
        """Types for the unknown operands, by family."""
        anchor = next((t for t in known if isinstance(t, Tensor)), None)
        names = [*(n.strip("?*") for n in cls.operands), *[cls.operands[-1].strip("?*")] * len(known)] if known else []
        family = self.operands.get(cls.name) or self.operands.get(cls.family)
        out = list(known)
        self.kinds = getattr(cls, "kinds", "fiub")
        for k, t in enumerate(known):
            if t is None:
                out[k] = family(self, out, k, names[k]) if family else self.like(anchor)
        return out  # type: ignore[return-value]

    def like(self, anchor: Tensor | None) -> Tensor:
        """The anchor's type, or one of the drawing's base shape and dtype."""
        return anchor or Tensor(self.dtype(), self.base_shape)

    def dtype(self) -> DType:
        """The drawing's base dtype, or another where the op does not take it."""
        if self.base_dtype.kind in self.kinds:
            return self.base_dtype
        return self.choose([d for d in self.dtypes if d.kind in self.kinds])

    def attributes(self, cls: type[Op], types: list[Type], given: dict[str, Any]) -> dict[str, Any]:
        first = next((t for t in types if isinstance(t, Tensor)), None) or Tensor(f32, self.base_shape)
        out: dict[str, Any] = {}
        for f in cls.attributes():
            if f.name not in given:
                draw = ATTRIBUTES.get(f"{cls.name}.{f.name}") or ATTRIBUTES.get(f.name)
                if draw is not None:
                    out[f.name] = draw(self, first, out)
                elif "bool" in str(f.type):
                    out[f.name] = self.boolean()
        return out

    # -- pattern instances -------------------------------------------------------------------------------------------
    def instance(self, pattern: Pattern, loose: bool = False) -> Graph:
        """A graph that the pattern matches: its holes become inputs, its attribute holes are drawn. loose: some of what
        the pattern says of attributes and numbers does not hold."""
        for dtype in (f32, i32, bool_):
            try:
                return self.instance_once(pattern, loose)
            except NothingDrawn:  # the pattern takes other dtypes: floats, most of them
                self.base_dtype, self.base_shape = dtype, self.shape(1)
        return self.instance_once(pattern, loose)

    def instance_once(self, pattern: Pattern, loose: bool = False) -> Graph:
        """The same; NothingDrawn where the types drawn first do not fit the pattern."""
        b = Builder("instance")
        out = _Instance(self, b, loose).value(pattern)
        results = out if isinstance(out, tuple) else (out,)
        inner = [r for n in b.nodes[:-1] for r in n.results if n.op.name != "const"]
        return b.graph(*results, *self.read_again(inner))

    def hole(self, b: Builder, name: str, type_: Type) -> Value:
        """What stands for any value in a pattern."""
        return b.input(name, type_)

    def read_again(self, inner: list[Value]) -> list[Value]:
        """Which of a pattern's inner values have another reader."""
        return [self.choose(inner)] if self.chance(20) and inner else []

    # -- graphs ------------------------------------------------------------------------------------------------------
    def random_graph(self, classes: Sequence[type[Op]], size: int) -> Graph:
        """Ops on earlier values, new inputs and constants, some results dead, some read several times."""
        b = Builder("random")
        pool: list[Value] = [b.input("x0", Tensor(self.base_dtype, self.base_shape))]
        for _ in range(3 * size):
            if len([n for n in b.nodes if n.op.name != "const"]) >= size:
                break
            if b.nodes and self.chance(8):  # once more the same
                again = self.choose(b.nodes)
                pool.extend(b.emit(again.op, again.operands))
                continue
            cls = self.choose(classes)
            reused = [self.choose(pool[-6:]) if self.chance(75) else None for _ in range(arity(self, cls))]
            try:
                op, types = self.application(cls, [v and v.type for v in reused], {})
                operands = [v or self.leaf(b, t) for v, t in zip(reused, types)]
            except NothingDrawn:
                continue
            out = b.add(op, *operands)
            pool.extend([out] if isinstance(out, Value) else out)
        used = {v for n in b.nodes for v in n.operands}
        tensors = [v for v in pool if isinstance(v.type, Tensor)]
        ends = [v for v in tensors if v not in used and v not in b.inputs] or tensors[-1:]
        kept = [v for v in ends if not self.chance(15)] or ends[:1]
        if self.chance(30):
            kept.append(self.choose(tensors))
        return b.graph(*kept)

    def leaf(self, b: Builder, type_: Type) -> Value:
        if not isinstance(type_, Tensor) or not type_.is_static:
            raise NothingDrawn(f"{type_} is no type of an input")
        if self.chance(35):
            return b.const(self.blob(type_))
        return b.input(f"x{len(b.inputs)}", type_)

    def number(self, dtype: DType) -> float:
        """A number that a dtype holds: a plain one, or one at the edges."""
        if self.chance(20):
            return self.choose(edges(dtype))
        value = self.choose((1.0, 0.0, -0.0, 2.0, 0.5, -1.0, 3.0, -math.inf, math.inf))
        if not dtype.is_float:
            value = 0.0 if not math.isfinite(value) else float(int(value))
            value = abs(value) if dtype.kind in "ub" else value
        return value

    def blob(self, type_: Tensor, number: float | None = None) -> Blob:
        """Constant data: small numbers, often all the same, often a neutral one."""
        import numpy as np

        shape: tuple[int, ...] = type_.shape  # type: ignore[assignment]
        if number is None and self.chance(50):
            number = self.choose((1.0, 0.0, 2.0, -1.0, -0.0, 0.5, 4.0, 3.0))
        count = math.prod(shape)
        if number is not None:
            values: Any = np.full(shape, number if type_.dtype.is_float else int(number))
        else:
            seed = np.random.default_rng(self.integer(0, 999))
            values = seed.integers(0 if type_.dtype.kind in "ub" else -3, 4, count).reshape(shape)
        return Blob(values.astype(type_.dtype.numpy), type_.dtype)


def edges(dtype: DType) -> tuple[float, ...]:
    """The least and greatest finite numbers of a dtype; of floats the smallest too, and NaN."""
    import ml_dtypes

    if not dtype.is_float:
        return (dtype.min, dtype.max)
    info = ml_dtypes.finfo(dtype.numpy)
    return (float(info.min), float(info.max), float(info.smallest_subnormal), math.nan)


def has_value(op: Op, types: Sequence[Type]) -> bool:
    """Whether an op has a meaning on zeros: the greatest of no elements has none, nor has a row of an empty table."""
    if not all(isinstance(t, Tensor) and t.is_static for t in types):
        return True
    try:
        op.run(*(torch.zeros(t.shape, dtype=t.dtype.torch) for t in types))  # type: ignore[attr-defined]
        return True
    except (RuntimeError, IndexError, ValueError):
        return False


def instance(rule: Rule, d: Drawer) -> Graph:
    """A graph on which the rule may fire: the rule's own example, or an instance of its pattern."""
    own = type(rule).example is not Rule.example
    return example(rule, d) if own else d.instance(rule.compiled)


def example(target: Rule | Pass, d: Drawer, method: str = "example") -> Graph:
    """The graph that one of a rule's or pass's own methods draws. Raises NothingDrawn."""
    b = Builder("example")
    try:
        out = getattr(target, method)(d, b)
    except TypeRuleError as error:
        raise NothingDrawn(str(error)) from None
    return b.graph(*((out,) if isinstance(out, Value) else out))


class _Instance:
    def __init__(self, drawer: Drawer, b: Builder, loose: bool = False):
        self.drawer, self.b, self.loose = drawer, b, loose
        self.values: dict[int, Any] = {}
        self.by_name: dict[str, Value] = {}
        self.attributes: dict[str, Any] = {}

    def lets_go(self) -> bool:
        """Whether something that the pattern says is not to hold."""
        return self.loose and self.drawer.chance(LOOSE)

    def value(self, pattern: Pattern) -> Any:
        """The value of a pattern whose type follows from its operands."""
        if id(pattern) not in self.values:
            self.values[id(pattern)] = self.make(pattern)
        return self.values[id(pattern)]

    def make(self, pattern: Pattern) -> Any:
        match pattern:
            case Bound(inner=inner):
                return self.value(inner)
            case Either(choices=choices):
                return self.value(self.drawer.choose(choices))
            case ResultPattern(of=of, which=which):
                return self.value(of)[which]
            case OpPattern():
                return self.apply(pattern)
        return self.leaf(pattern, self.drawer.like(None))

    def known(self, pattern: Pattern) -> Value | None:
        """A value whose type is already settled; None for holes that are still free."""
        match pattern:
            case Variable(name):
                return self.by_name.get(name)
            case Bound(inner=inner):
                return self.known(inner)
            case Constant():
                return self.values.get(id(pattern))
            case Either(choices=choices):
                if id(pattern) not in self.values:
                    choice = self.drawer.choose(choices)
                    known = self.known(choice)
                    if known is None:
                        return None
                    self.values[id(pattern)] = known
                return self.values[id(pattern)]
        return self.value(pattern)

    def apply(self, pattern: OpPattern) -> Any:
        d = self.drawer
        patterns = list(pattern.operands)
        rest = patterns.pop() if patterns and isinstance(patterns[-1], Rest) else None
        if rest is not None:
            patterns += [Variable(f"{rest.name}{k}") for k in range(d.integer(1, 3))]
        for p in patterns:
            self.known(p)  # draws what is inside, where holes may get types that the other operands have too
        values = [self.known(p) for p in patterns]
        given = {k: self.attributes[v.name] if isinstance(v, Attribute) else v for k, v in pattern.attributes.items()
                 if (not isinstance(v, Attribute) or v.name in self.attributes) and not self.lets_go()}
        wheres = {k: v for k, v in pattern.attributes.items() if isinstance(v, Attribute) and not self.lets_go()}
        for attempt in range(d.attempts):
            if attempt and attempt % 5 == 0:
                d.base_shape = d.shape(2)
            op, types = d.application(pattern.op, [v and v.type for v in values], given)
            if all(w.where is None or w.where(getattr(op, k)) for k, w in wheres.items()):
                break
        else:
            raise NothingDrawn(f"{pattern.op.name}: no attribute satisfies the pattern")
        self.attributes |= {w.name: getattr(op, k) for k, w in wheres.items()}
        operands = [v if v is not None else self.leaf(p, t) for p, v, t in zip(patterns, values, types)]
        return self.b.add(op, *operands)

    def leaf(self, pattern: Pattern, type_: Type) -> Value:
        match pattern:
            case Bound(inner=inner):
                return self.leaf(inner, type_)
            case Variable(name):
                if name not in self.by_name:
                    self.by_name[name] = self.drawer.hole(self.b, name, type_)
                return self.by_name[name]
            case Constant(number=number, value=value):
                if id(pattern) not in self.values:
                    assert isinstance(type_, Tensor)
                    if number and (value is None or self.lets_go()):
                        value = self.drawer.number(type_.dtype)
                    self.values[id(pattern)] = self.b.const(self.drawer.blob(type_, value))
                return self.values[id(pattern)]
            case Either(choices=choices):
                return self.leaf(self.drawer.choose(choices), type_)
        return self.value(pattern)


DRAWN_FAMILIES = frozenset(
    "elementwise contraction window reduction normalization view index scan sort quantize attention random sequence"
    .split())
UNDRAWN = frozenset({"searchsorted", "max_unpool", "sequence_concat"})
"""Ops of operands that few values are: sorted ones, positions of maxima, elements that add up to a size."""


def drawable_ops() -> list[type[Op]]:
    """The ops that random graphs are made of."""
    found = [c for c in load_ops().values() if c.family in DRAWN_FAMILIES and c.pure and c.name not in UNDRAWN]
    return sorted(found, key=lambda c: c.name)


__all__ = ["DIMS", "Drawer", "EffccError", "NothingDrawn", "drawable_ops", "example", "instance"]
