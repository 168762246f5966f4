"""A pass in a package of its own: where an op ignores its operand's sign, what only changes the sign goes away."""

from __future__ import annotations

from typing import Any

from effcc.ir.builder import OpBuilder
from effcc.ir.graph import Graph, Value
from effcc.pipeline import Context, Pass
from effcc.rewrite import Match, Pattern, Rule, rewrite


class AbsOfNeg(Rule):
    """abs(neg(x)) --> abs(x)"""

    shares = True  # neg(x) may have other readers: it stays for them

    def pattern(self, p: Any, x: Pattern) -> Pattern:
        return p.abs(p.neg(x))

    def rewrite(self, b: OpBuilder, m: Match) -> Value:
        return b.abs(m.x)


class ReluOfAbs(Rule):
    """relu(abs(x)) --> abs(x)"""

    shares = True

    def pattern(self, p: Any, x: Pattern) -> Pattern:
        return p.relu(p.abs(x).bind("positive"))

    def rewrite(self, b: OpBuilder, m: Match) -> Value:
        return m.positive


class CosOfNeg(Rule):
    """cos(neg(x)) --> cos(x)"""

    shares = True

    def pattern(self, p: Any, x: Pattern) -> Pattern:
        return p.cos(p.neg(x))

    def rewrite(self, b: OpBuilder, m: Match) -> Value:
        return b.cos(m.x)


class DropSigns(Pass):
    """Its fields are its options: `drop-signs:cosine=true` in a pipeline or on the command line."""

    name = "drop-signs"
    category = "exact"
    cosine: bool = False  # also cos(-x); off, because it is exact only where the cosine is computed evenly

    def run(self, graph: Graph, ctx: Context) -> Graph:
        rules: list[Rule] = [AbsOfNeg(), ReluOfAbs()]
        if self.cosine:
            rules.append(CosOfNeg())
        return rewrite(graph, rules, ctx)
