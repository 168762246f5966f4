"""What type rules take for granted about symbolic sizes: recorded, to be checked when the sizes are known.

A type rule asks `may_equal`, `may_fit` or `may_broadcast`. Where the answer depends on the symbols' values, the rule
goes on, and `recorded` hears of it: backends and the interpreter check it at run time.

>>> N, M = Symbol("N"), Symbol("M")
>>> with recorded() as taken:
...     may_equal(N, M), may_fit(N, N + 1), may_broadcast(N, 1), may_equal(N + 1, N)
(True, True, True, False)
>>> taken
[Assumption(relation='equal', left=N, right=M)]
>>> taken[0].holds({N: 3, M: 4})
False
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from effcc.ir.dims import Dim, Symbol, bounds, evaluate

if TYPE_CHECKING:
    from effcc.ir.graph import Node
    from effcc.ir.op import Op
    from effcc.ir.types import Type

RELATIONS = {
    "equal": "must be equal",
    "fit": "must be in ascending order",
    "broadcast": "must be equal, or one of them 1",
}
"""What `Assumption.relation` may be, and what it says of two sizes."""


@dataclass(frozen=True)
class Assumption:
    """A relation of two sizes that a type rule could not decide."""

    relation: str
    left: Dim
    right: Dim

    def holds(self, sizes: Mapping[Symbol, int]) -> bool:
        """Whether it is so for these sizes; KeyError names one that is missing."""
        return holds(self.relation, evaluate(self.left, sizes), evaluate(self.right, sizes))


def holds(relation: str, a: int, b: int) -> bool:
    """Whether a relation holds between two numbers. An empty axis does not broadcast with one that only happens to be
    1: the size of the result is the greater of the two."""
    match relation:
        case "equal":
            return a == b
        case "fit":
            return a <= b
        case "broadcast":
            return a == b or min(a, b) == 1
    raise ValueError(relation)


_taken: ContextVar[list[Assumption] | None] = ContextVar("taken", default=None)


@contextmanager
def recorded() -> Iterator[list[Assumption]]:
    """Collects what type rules assume inside of the block, each once."""
    taken: list[Assumption] = []
    token = _taken.set(taken)
    try:
        yield taken
    finally:
        _taken.reset(token)


def assumed(node: Node) -> list[Assumption]:
    """What the type rules of a node, and of those of a fused region, assume."""
    nodes = node.op.body.nodes if node.op.name == "fused" else (node,)  # type: ignore[attr-defined]
    return [*dict.fromkeys(a for n in nodes for a in (_known if n.op.is_small else _assumed)(n.op, n.types))]


def _assumed(op: Op, types: tuple[Type, ...]) -> list[Assumption]:
    with recorded() as taken:
        op.infer(*types)
    return taken


_known = lru_cache(maxsize=1 << 12)(_assumed)


def _assume(relation: str, a: Dim, b: Dim) -> None:
    taken = _taken.get()
    if taken is not None and (assumption := Assumption(relation, a, b)) not in taken:
        taken.append(assumption)


def may_equal(a: Dim, b: Dim) -> bool:
    """Whether two dimensions can be equal for some value of their symbols; where not for all, that is assumed.

    >>> may_equal(Symbol("n", 1, 8), 8), may_equal(Symbol("n") + 1, Symbol("n"))
    (True, False)
    """
    if a == b:
        return True
    low, high = bounds(a - b)
    if (low is not None and low > 0) or (high is not None and high < 0):
        return False
    _assume("equal", a, b)
    return True


def may_fit(a: Dim, b: Dim) -> bool:
    """Whether a ≤ b for some value of their symbols; where not for all, that is assumed.

    >>> may_fit(Symbol("n"), 8), may_fit(Symbol("n", 9), 8)
    (True, False)
    """
    low, high = bounds(b - a)
    if high is not None and high < 0:
        return False
    if low is None or low < 0:
        _assume("fit", a, b)
    return True


def may_broadcast(a: Dim, b: Dim) -> bool:
    """Whether two dimensions can be equal, or one of them 1; where not for all their symbols' values, that is assumed.

    >>> may_broadcast(Symbol("n"), 8), may_broadcast(2, 3), may_broadcast(1, 3)
    (True, False, True)
    """
    if a == b or a == 1 or b == 1:
        return True
    if isinstance(a, int) and isinstance(b, int):
        return False
    _assume("broadcast", a, b)
    return True
