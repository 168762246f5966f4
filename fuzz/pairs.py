"""Pairs of ops, one reading the other's result: which a graph holds, and which were drawn so far.

Fuzzers whose graphs hold more of these find more (Liu et al., NNSmith, ASPLOS 2023), so those that no graph held go
first.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from effcc.ir import Graph

Pair = tuple[str, str]
"""An op and one that reads its result."""

DRAWN = 3
"""How many failures weigh as much as a pair that was drawn."""


@dataclass
class Tried:
    """How often pairs were drawn, could not be where they were wanted, and were looked for on purpose."""

    drawn: Counter[Pair] = field(default_factory=Counter)
    refused: Counter[Pair] = field(default_factory=Counter)
    sought: Counter[Pair] = field(default_factory=Counter)
    ways: Counter[Pair] = field(default_factory=Counter)
    """How often an op was compiled in a way: of a dtype, say."""

    def weight(self, pair: Pair) -> int:
        """How little a pair is worth, as a value's reader."""
        return DRAWN * self.drawn[pair] + self.refused[pair]

    def rank(self, pair: Pair) -> tuple[int, int]:
        """The order in which pairs are looked for: those that no graph held before all others."""
        return self.drawn[pair], self.sought[pair]

    def facts(self) -> dict[str, dict[str, int]]:
        return {name: {" ".join(pair): n for pair, n in counter.items()} for name, counter in vars(self).items()}

    @staticmethod
    def of(facts: dict[str, dict[str, int]]) -> Tried:
        """What `facts` told."""
        return Tried(**{name: Counter(_split(counts.items())) for name, counts in facts.items()})


def _split(counts: Iterable[tuple[str, int]]) -> dict[Any, int]:
    return {tuple(names.split(" ")): n for names, n in counts}


def pairs(graph: Graph) -> list[Pair]:
    """The pairs of ops in a graph, those of nested graphs included."""
    found = []
    for g in nested(graph):
        for node in g.nodes:
            makers = (g.producer(v) for v in node.operands)
            found += [(m.op.name, node.op.name) for m in makers if m is not None and m.op.name != "const"]
    return found


def nested(graph: Graph) -> list[Graph]:
    """The graph and all graphs inside of it."""
    return [graph, *(g for node in graph.walk() for g in node.op.graphs().values())]
