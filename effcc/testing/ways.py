"""All ways in which something can be drawn, each once: where they are too many, first those that differ most.

What is drawn through one function `choose(options)` is a leaf of a tree, whose branches are the options. Each turn
goes where fewest went before: the first ones are a sample with as many of each option as of any other, stratified by
what is chosen first, then by what is chosen next, and so on; the last one leaves nothing out. The same in every run.

>>> ways = Ways(lambda choose: (choose("ab"), choose(range(2))))
>>> sorted(ways), ways.exhausted, ways.size
([('a', 0), ('a', 1), ('b', 0), ('b', 1)], True, 4)
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Generic, TypeVar

from effcc.testing.draw import NothingDrawn

T = TypeVar("T")


class _Branch:
    """Where a choice is made, or a leaf."""

    __slots__ = ("below", "leaves", "open", "turns")

    def __init__(self) -> None:
        self.below: list[_Branch] = []
        self.open: list[_Branch] = []
        """Those below that may lead to something new."""
        self.turns = 0
        self.leaves: float | None = None
        """How many lie below, once all were met."""

    def size(self) -> float:
        """How many leaves lie below: options that were never taken count as those that were do, on average."""
        if self.leaves is not None:
            return self.leaves
        known = [branch.size() for branch in self.below if branch.turns]
        return len(self.below) * sum(known) / len(known) if known else 1

    def close(self, leaves: float) -> None:
        """Forget what lies below, but for how many there were."""
        self.leaves, self.below, self.open = leaves, [], []


class Ways(Generic[T]):
    """An iterator over all that a function can draw. Ways that end in NothingDrawn are passed over."""

    def __init__(self, draw: Callable[[Callable[[Sequence[Any]], Any]], T]):
        self.draw, self.root, self.random = draw, _Branch(), random.Random(0)
        self.turns = 0

    @property
    def exhausted(self) -> bool:
        return self.root.leaves is not None

    @property
    def size(self) -> int:
        """How many ways there are: estimated until all were met (Knuth 1975, "Estimating the Efficiency of Backtrack
        Programs")."""
        return round(self.root.size())

    def __iter__(self) -> Iterator[T]:
        while not self.exhausted:
            if (drawn := self.turn()) is not None:
                yield drawn

    def turn(self) -> T | None:
        """What the next way leads to; None where that is nothing."""
        path, leaves = [self.root], 0
        self.turns += 1

        def choose(options: Sequence[Any]) -> Any:
            branch, options = path[-1], _distinct(options)
            if not options:
                raise NothingDrawn("nothing to choose from")
            if not branch.below:
                branch.below = [_Branch() for _ in options]
                branch.open = self.random.sample(branch.below, len(options))
            following = min(branch.open, key=lambda below: below.turns)
            following.turns += 1
            path.append(following)
            return options[branch.below.index(following)]

        try:
            drawn = self.draw(choose)
            leaves = 1
            return drawn
        except NothingDrawn:
            return None
        finally:
            path[-1].close(leaves)
            for branch, below in zip(path[-2::-1], path[:0:-1]):
                if below.leaves is None:
                    break
                branch.open.remove(below)
                if not branch.open:
                    branch.close(branch.size())


def _distinct(options: Sequence[Any]) -> tuple[Any, ...]:
    """Each option once, for some are listed twice to be drawn more often. (0.0, -0.0, 0 and False are four.)"""
    try:
        return tuple({(type(o), o, str(o) if isinstance(o, float) else ""): o for o in options}.values())
    except TypeError:  # they have no hash
        return tuple(options)
