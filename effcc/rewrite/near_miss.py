"""Why a rule did not match at a place: how far its pattern got, and what stood where it wanted something else.

>>> from effcc.ir import Builder, Tensor, f32
>>> from effcc.rewrite import Rule
>>> class DoubleNeg(Rule):
...     '''neg(neg(x)) --> x'''
...     def pattern(self, p, x): return p.neg(p.neg(x))
...     def rewrite(self, b, m): return m.x
>>> b = Builder()
>>> x = b.input("x", Tensor(f32, (3,)))
>>> miss, = near_misses(DoubleNeg(), b.graph(b.neg(b.exp(x))))
>>> miss.matched, miss.reason
(1, 'operand 0 of neg comes from exp, the pattern has neg')
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from effcc.ir.graph import Graph, Value
from effcc.ir.location import Loc
from effcc.rewrite.pattern import (
    Attribute,
    Bound,
    Constant,
    Either,
    Goal,
    OpPattern,
    Pattern,
    Rest,
    ResultPattern,
    State,
    Variable,
    _enter,
    _step,
)
from effcc.rewrite.rule import Match, Rule
from effcc.rewrite.workspace import Item, Workspace


@dataclass(frozen=True)
class NearMiss:
    """A place where the last op of a rule's pattern stands, and the rest does not fit.

    matched: how many ops of the pattern did fit.
    """

    loc: Loc
    matched: int
    reason: str


def near_misses(rule: Rule, graph: Graph) -> list[NearMiss]:
    """Every place in a graph (nested ones included) where a rule could end and does not match; the nearest first."""
    found = []
    for g in (graph, *(n for node in graph.walk() for n in node.op.graphs().values())):
        workspace = Workspace(g)
        for item in workspace.items():
            if item.op.name in rule.roots and rule.find(item, workspace) is None:
                matched, reason = _Diagnosis(workspace).of(rule, item)
                found.append(NearMiss(item.loc, matched, reason))
    return sorted(found, key=lambda miss: -miss.matched)


def _operand(item: Item, value: Value) -> str:
    return f"operand {item.operands.index(value)} of {item.op.name}"


class _Diagnosis:
    """Matches like effcc.rewrite.pattern, and remembers where the attempt that got farthest ended."""

    def __init__(self, workspace: Workspace):
        self.workspace = workspace
        self.matched, self.reason = 0, "its attributes or operands are others"
        self.farthest = (-1, -1)

    def of(self, rule: Rule, item: Item) -> tuple[int, str]:
        state = self.root(rule.compiled, item)
        if state is not None:
            self.matched, self.reason = len(state.items), self.shared(Match(item, state, self.workspace))
        return self.matched, self.reason

    def root(self, pattern: Pattern, item: Item) -> State | None:
        while isinstance(pattern, Bound):
            pattern = pattern.inner
        if isinstance(pattern, Either):
            return next((s for c in pattern.choices if (s := self.root(c, item)) is not None), None)
        if isinstance(pattern, ResultPattern):
            pattern = pattern.of
        assert isinstance(pattern, OpPattern)
        start = State({}, {})
        entered = False
        for state, goals in _enter(pattern, item, start):
            entered = True
            found = self.solve(tuple((*goal, _operand(item, goal[1])) for goal in goals), state)
            if found is not None:
                return found
        if not entered and item.op.__class__ is pattern.op:
            self.note(start, 0, self.entering(pattern, item))
        return None

    def solve(self, goals: tuple[tuple[Pattern, Value, str], ...], state: State, met: int = 0) -> State | None:
        if not goals:
            return state
        (pattern, value, where), rest = goals[0], goals[1:]
        stepped = False
        for following, more in _step(pattern, value, state, self.workspace):
            stepped = True
            found = self.solve((*self.placed(pattern, value, where, more), *rest), following, met + 1)
            if found is not None:
                return found
        if not stepped:
            self.note(state, met, self.missing(pattern, value, where))
        return None

    def placed(
        self, pattern: Pattern, value: Value, where: str, goals: tuple[Goal, ...]
    ) -> Iterator[tuple[Pattern, Value, str]]:
        """The goals that a step leads to, each with the place of its value."""
        producer = self.workspace.producer(value)
        inside = isinstance(pattern, OpPattern | ResultPattern) and producer is not None
        for inner, operand in goals:
            yield inner, operand, _operand(producer, operand) if inside and producer else where

    def note(self, state: State, met: int, reason: str) -> None:
        """An attempt that ended after so many ops and goals. Of equals the first counts: operands as written."""
        if (len(state.items), met) > self.farthest:
            self.farthest = len(state.items), met
            self.matched, self.reason = len(state.items), reason

    def missing(self, pattern: Pattern, value: Value, where: str) -> str:
        """What stands at a value in place of a pattern."""
        producer = self.workspace.producer(value)
        came = "is an input" if producer is None else f"comes from {producer.op.name}"
        match pattern:
            case Variable(name) | Bound(name):
                return f"{where} is another value than {name} elsewhere"
            case Constant():
                blob = self.workspace.constant(value)
                if blob is None:
                    return f"{where} {came}, the pattern has a constant"
                if pattern.value is None:
                    return f"{where} is a constant of unequal elements"
                shown = f"{float(blob.array.reshape(-1)[0]):.6g}" if blob.array.size else "empty"
                return f"{where} is {shown}, the pattern has {pattern.value:.6g}"
            case OpPattern() | ResultPattern():
                wanted = pattern if isinstance(pattern, OpPattern) else pattern.of
                if producer is not None and producer.op.__class__ is wanted.op:
                    return self.entering(wanted, producer)
                return f"{where} {came}, the pattern has {wanted.op.name}"
        return f"{where} does not fit"

    def entering(self, pattern: OpPattern, item: Item) -> str:
        """Why an op of the right kind does not fit: attributes, number of operands, or another place in the pattern."""
        name = item.op.name
        for attribute, wanted in pattern.attributes.items():
            actual = getattr(item.op, attribute)
            if isinstance(wanted, Attribute):
                if wanted.where is not None and not wanted.where(actual):
                    return f"{attribute} = {actual} of {name} is not one that the pattern takes"
            elif type(wanted) is not type(actual) or wanted != actual:
                return f"{attribute} = {actual} of {name}, the pattern has {wanted}"
        fixed = [o for o in pattern.operands if not isinstance(o, Rest)]
        if len(fixed) > len(item.operands) or (len(fixed) == len(pattern.operands) != len(item.operands)):
            return f"{name} has {len(item.operands)} operands, the pattern {len(fixed)}"
        return f"{name} has attributes, or is an op, that the pattern has differently elsewhere"

    def shared(self, m: Match) -> str:
        """Which inner value of a complete match has readers outside of it."""
        inside = set(m.items)
        for item in m.items:
            for r in item.results if item is not m.root else ():
                if self.workspace.is_output(r):
                    return f"all of the pattern is there, but its {item.op.name} is a result of the graph as well"
                for user in self.workspace.readers(r):
                    if user not in inside:
                        return f"all of the pattern is there, but {user.op.name} reads its {item.op.name} as well"
        return "all of the pattern is there"
