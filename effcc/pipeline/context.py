"""What a pass is given besides the graph, and what it reports: fuel, rewrites, refusals."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from effcc.ir.location import Loc


@dataclass(frozen=True)
class Rewrite:
    """A rewrite that happened: the `number`-th of the whole pipeline, from 1."""

    number: int
    pass_name: str
    rule: str
    loc: Loc


@dataclass(frozen=True)
class Refusal:
    """A rewrite that did not happen, and why."""

    pass_name: str
    rule: str
    loc: Loc
    reason: str


@dataclass(frozen=True)
class Note:
    """Figures that a pass found at a place, such as a layer's error; `report` shows those of a pass as one table."""

    pass_name: str
    loc: Loc
    figures: Mapping[str, Any]


@dataclass
class Context:
    """The surroundings of a run of passes.

    machine: the target (effcc.machine), None where unknown.
    calibration: sample inputs, for passes that look at activations.
    measure: graph -> seconds, for passes that try; None where nothing may be measured.
    progress: called with a short message during long work.
    fuel: how many rewrites may still happen; None: any number. Bisection sets it.

    >>> ctx = Context(fuel=1)
    >>> ctx.allow("r", Loc()), ctx.allow("r", Loc())
    (True, False)
    >>> ctx.log[0].rule
    'r'
    """

    machine: Any = None
    calibration: Any = None
    measure: Callable[[Any], float] | None = None
    progress: Callable[[str], None] = lambda message: None
    fuel: int | None = None
    log: list[Rewrite] = field(default_factory=list)
    refusals: dict[Refusal, None] = field(default_factory=dict)
    notes: list[Note] = field(default_factory=list)
    current_pass: str = ""

    def allow(self, rule: Any, loc: Loc) -> bool:
        """Ask before a rewrite; it is logged where it may happen. `rule`: a Rule or a name."""
        if self.fuel is not None and len(self.log) >= self.fuel:
            return False
        self.log.append(Rewrite(len(self.log) + 1, self.current_pass, rule_name(rule), loc))
        return True

    def refused(self, rule: Any, loc: Loc, reason: str) -> None:
        """Tell why a rule did not fire at a place."""
        self.refusals[Refusal(self.current_pass, rule_name(rule), loc, reason)] = None

    def note(self, loc: Loc, **figures: Any) -> None:
        """Tell figures (numbers or short texts, by name) about a place."""
        self.notes.append(Note(self.current_pass, loc, figures))

    def count(self, pass_name: str) -> dict[str, int]:
        """How often each rule of a pass fired."""
        out: dict[str, int] = {}
        for entry in self.log:
            if entry.pass_name == pass_name:
                out[entry.rule] = out.get(entry.rule, 0) + 1
        return out


def rule_name(rule: Any) -> str:
    return rule if isinstance(rule, str) else rule.name
