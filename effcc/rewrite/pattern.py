"""Patterns: small graphs with holes, written like graphs, matched from the last op backward.

    def pattern(self, p, x):
        return p.transpose(p.transpose(x, perm=p.any("first")), perm=p.any("second"))

A parameter after `p` is a hole for any value; the same hole twice must be the same value. An attribute that is left out
must have its default. Commutative ops match both ways round.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator
from dataclasses import MISSING, dataclass, field
from functools import partial
from typing import Any

from effcc.ir.graph import Value
from effcc.ir.op import Op, op_class
from effcc.rewrite.workspace import Item, Workspace

COMMUTATIVE = frozenset({"add", "mul", "max", "min", "and", "or", "xor", "eq", "ne"})


ROUNDINGS = 4
"""How often exporters round a number that they compute: √(2/π) as √2 · (1/√π), say."""


def unit(dtype: Any) -> float:
    """The relative distance of neighbouring numbers; 0 for integers."""
    import ml_dtypes

    return float(ml_dtypes.finfo(dtype).eps) if dtype.kind in "fV" else 0.0


class Pattern:
    """A description of values."""

    def bind(self, name: str) -> Pattern:
        """The same, remembered as `m.<name>`."""
        return Bound(name, self)


@dataclass(frozen=True, eq=False)
class Variable(Pattern):
    """Any value."""

    name: str


@dataclass(frozen=True, eq=False)
class Bound(Pattern):
    name: str
    inner: Pattern


@dataclass(frozen=True, eq=False)
class Constant(Pattern):
    """The result of a const. `number`: its elements are all equal, to `value` if given (`rounded`: or to what a few
    roundings in the constant's own dtype make of it)."""

    name: str | None = None
    number: bool = False
    value: float | None = None
    rounded: bool = False

    def accepts(self, array: Any) -> bool:
        if not self.number:
            return True
        if array.size == 0 or array.dtype.kind == "c":
            return False
        flat = array.reshape(-1)
        if flat[0] != flat[-1] or not (array.size <= 2 or (array == flat[0]).all()):
            return False
        got = float(flat[0])
        if self.value is None:
            return True
        same_sign = math.copysign(1.0, got) == math.copysign(1.0, self.value)
        if not same_sign or got == self.value:
            return same_sign
        return self.rounded and abs(got - self.value) <= ROUNDINGS * unit(array.dtype) * abs(self.value)


@dataclass(frozen=True, eq=False)
class Rest(Pattern):
    """All remaining operands, bound as a tuple."""

    name: str


@dataclass(frozen=True, eq=False)
class Either(Pattern):
    """The first alternative that matches."""

    choices: tuple[Pattern, ...]


@dataclass(frozen=True)
class Attribute:
    """Any value of an attribute, remembered by name; `where` limits it."""

    name: str
    where: Callable[[Any], bool] | None = None


@dataclass(frozen=True, eq=False)
class OpPattern(Pattern):
    """An op applied to patterns; attributes that are left out have their defaults."""

    op: type[Op]
    operands: tuple[Pattern, ...]
    attributes: dict[str, Any] = field(default_factory=dict)

    def __getitem__(self, k: int) -> Pattern:
        return ResultPattern(self, k)

    def __iter__(self) -> Iterator[Pattern]:
        return iter([ResultPattern(self, k) for k in range(self.op.num_results or 1)])


@dataclass(frozen=True, eq=False)
class ResultPattern(Pattern):
    """One of an op's several results."""

    of: OpPattern
    which: int


class PatternBuilder:
    """`p.<op>(*patterns, **attributes)`, and the holes."""

    def any(self, name: str, where: Callable[[Any], bool] | None = None) -> Attribute:
        """Any value of an attribute."""
        return Attribute(name, where)

    def constant(self, name: str) -> Pattern:
        """A constant; `m.array(name)` is its data."""
        return Bound(name, Constant(name))

    def number(self, what: str | float, rounded: bool = False) -> Pattern:
        """A constant whose elements are all one number: any (`m.number(name)`) or this one."""
        if isinstance(what, str):
            return Bound(what, Constant(what, number=True))
        return Constant(number=True, value=float(what), rounded=rounded)

    def rest(self, name: str) -> Pattern:
        return Rest(name)

    def either(self, *choices: Pattern) -> Pattern:
        return Either(choices)

    def op(self, name: str, *operands: Pattern, **attributes: Any) -> OpPattern:
        """An op by its name, for names that are computed, or taken here (`any`)."""
        cls = op_class(name)
        fields = {f.name: f for f in cls.attributes()}
        for given in attributes:
            if given not in fields:
                raise TypeError(f"{cls.name} has no attribute {given!r}; it has {', '.join(fields) or 'none'}")
        for f in fields.values():
            if f.name not in attributes and f.default is MISSING:
                raise TypeError(f'a pattern of {cls.name} must say {f.name}: a value, or p.any("{f.name}")')
        defaults = {n: f.default for n, f in fields.items() if n not in attributes}
        return OpPattern(cls, operands, {**defaults, **attributes})

    def any_attributes(self, op: str) -> dict[str, Attribute]:
        """Holes for all attributes of an op, by their names."""
        return {f.name: self.any(f.name) for f in op_class(op).attributes()}

    def __getattr__(self, name: str) -> Callable[..., OpPattern]:
        if name.startswith("__"):
            raise AttributeError(name)
        return partial(self.op, {"and_": "and", "or_": "or", "not_": "not", "if_": "if"}.get(name, name))


def build(pattern: Callable[..., Pattern]) -> Pattern:
    """Call a rule's `pattern` with a builder and a hole for each further parameter."""
    names = list(inspect.signature(pattern).parameters)[1:]
    return pattern(PatternBuilder(), *(Variable(n) for n in names))


def root_ops(pattern: Pattern) -> tuple[str, ...]:
    """The names of ops that a pattern's last node may be: what the driver indexes rules by."""
    match pattern:
        case OpPattern(op=op):
            return (op.name,)
        case Bound(inner=inner):
            return root_ops(inner)
        case ResultPattern(of=of):
            return root_ops(of)
        case Either(choices=choices):
            return tuple(dict.fromkeys(name for c in choices for name in root_ops(c)))
    raise TypeError("the last thing in a pattern must be an op")


def needed_ops(pattern: Pattern) -> frozenset[str]:
    """The names of ops without which nothing matches: those in every alternative."""
    match pattern:
        case OpPattern(op=op, operands=operands):
            return frozenset({op.name}).union(*map(needed_ops, operands))
        case Bound(inner=inner):
            return needed_ops(inner)
        case Constant():
            return frozenset({"const"})
        case ResultPattern(of=of):
            return needed_ops(of)
        case Either(choices=choices):
            return frozenset.intersection(*map(needed_ops, choices))
    return frozenset()


def depth(pattern: Pattern) -> int:
    """How many ops lie on the longest path: how far a change can wake up a match."""
    match pattern:
        case OpPattern(operands=operands):
            return 1 + max((depth(o) for o in operands), default=0)
        case Bound(inner=inner):
            return depth(inner)
        case ResultPattern(of=of):
            return depth(of)
        case Either(choices=choices):
            return max(map(depth, choices))
    return 0


@dataclass
class State:
    """What a partial match has bound: holes and attributes by name, ops by pattern."""

    names: dict[str, Any]
    items: dict[int, Item]

    def with_name(self, name: str, value: Any) -> State | None:
        """None where the name is bound to something else."""
        if name in self.names:
            old = self.names[name]
            same = old is value if isinstance(value, Value) else type(old) is type(value) and old == value
            return self if same else None
        return State({**self.names, name: value}, self.items)


Goal = tuple[Pattern, Value]


def match(pattern: Pattern, item: Item, workspace: Workspace) -> State | None:
    """The first way in which a pattern ends at this node."""
    while isinstance(pattern, Bound):
        pattern = pattern.inner
    if isinstance(pattern, Either):
        return next((s for c in pattern.choices if (s := match(c, item, workspace)) is not None), None)
    if isinstance(pattern, ResultPattern):
        pattern = pattern.of
    assert isinstance(pattern, OpPattern)
    for state, goals in _enter(pattern, item, State({}, {})):
        found = _solve(goals, state, workspace)
        if found is not None:
            return found
    return None


def _solve(goals: tuple[Goal, ...], state: State, w: Workspace) -> State | None:
    """Meet all goals, trying the alternatives of the first one in turn (backtracking)."""
    if not goals:
        return state
    (pattern, value), rest = goals[0], goals[1:]
    for next_state, more in _step(pattern, value, state, w):
        found = _solve((*more, *rest), next_state, w)
        if found is not None:
            return found
    return None


def _step(pattern: Pattern, value: Value, state: State, w: Workspace) -> Iterator[tuple[State, tuple[Goal, ...]]]:
    match pattern:
        case Variable(name):
            bound = state.with_name(name, value)
            if bound is not None:
                yield bound, ()
        case Bound(name, inner):
            bound = state.with_name(name, value)
            if bound is not None:
                yield bound, ((inner, value),)
        case Constant():
            blob = w.constant(value)
            if blob is not None and pattern.accepts(blob.array):
                yield state, ()
        case Either(choices):
            for choice in choices:
                yield state, ((choice, value),)
        case OpPattern() | ResultPattern():
            op, which = (pattern, 0) if isinstance(pattern, OpPattern) else (pattern.of, pattern.which)
            producer = w.producer(value)
            if producer is not None and which < len(producer.results) and producer.results[which] is value:
                yield from _enter(op, producer, state)


def _enter(pattern: OpPattern, item: Item, state: State) -> Iterator[tuple[State, tuple[Goal, ...]]]:
    """Match op and attributes; the operands become goals, in each order that commutativity allows."""
    if item.op.__class__ is not pattern.op:
        return
    before = state.items.get(id(pattern))
    if before is not None:
        if before is item:
            yield state, ()
        return
    bound: State | None = State(state.names, {**state.items, id(pattern): item})
    for name, wanted in pattern.attributes.items():
        actual = getattr(item.op, name)
        if isinstance(wanted, Attribute):
            bound = bound.with_name(wanted.name, actual) if wanted.where is None or wanted.where(actual) else None
            if bound is None:
                return
        elif type(wanted) is not type(actual) or wanted != actual:
            return
    operands = pattern.operands
    if operands and isinstance(operands[-1], Rest):
        fixed = len(operands) - 1
        if len(item.operands) < fixed:
            return
        bound = bound.with_name(operands[-1].name, item.operands[fixed:])
        if bound is not None:
            yield bound, tuple(zip(operands[:fixed], item.operands))
        return
    if len(operands) != len(item.operands):
        return
    yield bound, tuple(zip(operands, item.operands))
    if item.op.name in COMMUTATIVE and len(operands) == 2:
        yield bound, tuple(zip(operands, reversed(item.operands)))
