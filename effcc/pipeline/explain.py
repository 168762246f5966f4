"""Where the rules of a pipeline came near and did not fire: what `effcc explain` adds to the log and the refusals."""

from __future__ import annotations

from typing import Any

from effcc.ir.graph import Graph
from effcc.pipeline.context import Context
from effcc.pipeline.manager import Instrument
from effcc.pipeline.passes import Pass, RulePass

NEAREST = 5
"""How many near misses of one rule are told."""


class Remains(Instrument):
    """Keeps what each pass of rules left behind the last time it ran: there its rules fire no more."""

    def __init__(self) -> None:
        self.graphs: dict[str, tuple[RulePass, Graph]] = {}

    def after(self, p: Pass, old: Graph, new: Graph, seconds: float, ctx: Context) -> None:
        if isinstance(p, RulePass):
            self.graphs[p.name] = p, new


def near_misses(remains: Remains, rule: str | None = None, at: str | None = None) -> list[dict[str, Any]]:
    """For each rule with `rule` in its name, the places (with `at` in theirs) where it came nearest to matching.

    As {"pass", "rule", "at", "matched", "reason"}, those where most ops fit first.
    """
    from effcc.rewrite.near_miss import near_misses as find

    out: list[dict[str, Any]] = []
    for p, graph in remains.graphs.values():
        for one in p.rules:
            if rule is not None and rule not in one.name:
                continue
            here = [m for m in find(one, graph) if at is None or at in str(m.loc)]
            near = [{"at": str(m.loc), "matched": m.matched, "reason": m.reason} for m in here[:NEAREST]]
            out += [{"pass": p.name, "rule": one.name, **m} for m in near]
    return sorted(out, key=lambda m: -m["matched"])
