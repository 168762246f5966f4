"""Rules: `before --> after`, a guard that says why it refuses, and the match that both see."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cached_property
from typing import Any, ClassVar

from effcc.ir.blob import Blob
from effcc.ir.builder import OpBuilder
from effcc.ir.graph import Value
from effcc.ir.location import Loc, merge
from effcc.rewrite.pattern import Pattern, State, build, depth, match, needed_ops, root_ops
from effcc.rewrite.workspace import Item, Workspace

EXACT, BOUNDED, REFINES = "exact", "bounded", "refines"
"""Contracts: bit for bit where floats hold small integers; within rounding-error bounds (floats are reassociated); the
same where the original gives a number, anything where it gives NaN."""


class Match:
    """What a rule's pattern met: its holes, attributes and `bind` names are attributes here."""

    def __init__(self, root: Item, state: State, workspace: Workspace):
        self.root, self.workspace = root, workspace
        self.items: tuple[Item, ...] = tuple(dict.fromkeys(state.items.values()))
        self._names = state.names

    def __getattr__(self, name: str) -> Any:
        try:
            return self.__dict__["_names"][name]
        except KeyError:
            raise AttributeError(f"the pattern binds no {name!r}; it binds {', '.join(self._names)}") from None

    @property
    def loc(self) -> Loc:
        return merge(tuple(i.loc for i in self.items))

    def constant(self, value: Value) -> Blob | None:
        """The data of a value, where it is a constant."""
        return self.workspace.constant(value)

    def array(self, name: str) -> Any:
        """The NumPy array of a constant in the pattern."""
        blob = self.workspace.constant(self._names[name])
        assert blob is not None, f"{name} is not a constant"
        return blob.array

    def number(self, name: str) -> float:
        """The one number that a constant in the pattern holds."""
        return self.array(name).reshape(-1)[0].item()

    def users(self, value: Value) -> tuple[Item, ...]:
        return self.workspace.users(value)


class Rule:
    """A local rewrite. Its docstring is `before --> after`.

    pattern: written with `p` as graphs are with a builder; further parameters are holes for values.
    check: None, or the reason why this match must not be rewritten.
    rewrite: the replacement (a value for each result of the pattern's last op), or a reason not to.

    >>> class DoubleNeg(Rule):
    ...     '''neg(neg(x)) --> x'''
    ...     shares = True
    ...     def pattern(self, p, x): return p.neg(p.neg(x))
    ...     def rewrite(self, b, m): return m.x
    >>> from effcc.ir import Builder, Tensor, f32
    >>> from effcc.rewrite import rewrite
    >>> b = Builder()
    >>> x = b.input("x", Tensor(f32, (3,)))
    >>> len(rewrite(b.graph(b.neg(b.neg(x))), [DoubleNeg()]).nodes)
    0
    """

    contract: ClassVar[str] = EXACT
    shares: ClassVar[bool] = False
    """Whether it may fire where inner values have other readers (the inner ops then stay, and are computed as well)."""

    special_inputs: ClassVar[bool] = True
    """Whether the contract covers inputs with NaN and infinities."""

    def pattern(self, p: Any, *holes: Any, **_: Any) -> Pattern:
        raise NotImplementedError(f"{type(self).__name__}.pattern")

    def check(self, m: Match, ctx: Any) -> str | None:
        return None

    def rewrite(self, b: OpBuilder, m: Match) -> Value | Sequence[Value] | str:
        raise NotImplementedError(f"{type(self).__name__}.rewrite")

    def example(self, d: Any, b: Any) -> Any:
        """A graph for `effcc.testing.check` to start from, where drawn instances of the pattern would seldom fire.

        d: an `effcc.testing.draw.Drawer`, to choose types and attributes with. b: a Builder. Returns the results.
        """
        return None

    @property
    def name(self) -> str:
        return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", type(self).__name__).lower()

    @cached_property
    def compiled(self) -> Pattern:
        return build(self.pattern)

    @cached_property
    def roots(self) -> tuple[str, ...]:
        return root_ops(self.compiled)

    @cached_property
    def needs(self) -> frozenset[str]:
        """The ops that a graph must have."""
        return needed_ops(self.compiled)

    @cached_property
    def depth(self) -> int:
        return depth(self.compiled)

    def find(self, item: Item, workspace: Workspace) -> Match | None:
        """The match that ends at a node; None also where an inner value has readers outside of it."""
        state = match(self.compiled, item, workspace)
        if state is None:
            return None
        found = Match(item, state, workspace)
        return found if self.shares or _is_private(found, workspace) else None


def _is_private(m: Match, w: Workspace) -> bool:
    inside = set(m.items)
    return all(
        all(u in inside for u in w.readers(r)) and not w.is_output(r)
        for item in m.items if item is not m.root for r in item.results
    )
