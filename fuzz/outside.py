"""Do our frontends accept what an outside API accepts, with the same result types, and refuse what it refuses?

    python -m effcc.fuzz.outside --calls 2000 --api onnx     # or torch

NeuRI (Liu et al. 2023) learns an operator's rules from valid and invalid calls. Here the rules are ours, and calls are
what they are held against: the API's own examples, and the same with a size, rank, dtype, argument or attribute
changed. Nothing is compiled: an importer and its type rules answer in milliseconds.

An API is a source of `Call`s (`outside_onnx`, `outside_torch`), each with the original's judgement and ours.
"""

from __future__ import annotations

import random
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from effcc.errors import EffccError, UnsupportedError

Types = tuple[tuple[str, tuple[int | None, ...] | None], ...]
"""Of results: dtype and sizes; None for a size, or for all of them, that is not known before running."""


@dataclass(frozen=True)
class Verdict:
    """accepted: None where a judge has no opinion (it does not support the call, or cannot know)."""

    accepted: bool | None
    types: Types = ()
    reason: str = ""


@dataclass(frozen=True)
class Call:
    """One call: a name to report it by, the original's judgement and ours. change: what was done to an example."""

    name: str
    change: str
    theirs: Callable[[], Verdict]
    ours: Callable[[], Verdict]


@dataclass(frozen=True)
class Disagreement:
    call: Call
    kind: str
    detail: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.call.name} ({self.call.change}): {self.detail}"


KINDS = ("agree: accepted", "agree: refused", "unsupported", "no opinion", "too strict", "too lax", "other types",
         "crash")  # fmt: skip
BAD = KINDS[4:]


@dataclass
class Tally:
    """counts: how many calls of each kind, in all and of those that were changed."""

    counts: Counter[str] = field(default_factory=Counter)
    found: list[Disagreement] = field(default_factory=list)
    seconds: float = 0.0

    def __str__(self) -> str:
        total = sum(self.counts.values())
        rows = [f"{kind:16} {self.counts[kind]:7}" for kind in KINDS]
        judged = total - self.counts["unsupported"] - self.counts["no opinion"]
        agreed = self.counts["agree: accepted"] + self.counts["agree: refused"]
        rate = 60 * total / self.seconds if self.seconds else 0.0
        share = agreed / max(judged, 1)
        rows.append(f"{total} calls, {rate:.0f} a minute; agreement {agreed} of {judged} = {share:.2%}")
        return "\n".join(rows)


def judged(import_types: Callable[[], Types]) -> Verdict:
    """Our verdict: an importer's result types, or its refusal. What we do not support is no opinion on the call."""
    try:
        return Verdict(True, import_types())
    except UnsupportedError as error:
        return Verdict(None, reason=str(error))
    except EffccError as error:
        return Verdict(False, reason=str(error))


def compare(call: Call) -> tuple[str, str]:
    """The kind of a call's outcome, and a line of detail where it is a disagreement."""
    theirs = call.theirs()
    if theirs.accepted is None:
        return "no opinion", ""
    try:
        ours = call.ours()
    except Exception as error:  # what is no EffccError is a bug of ours, whatever the call
        return "crash", re.sub(r"\s+", " ", f"{type(error).__name__}: {error}")[:200]
    if ours.accepted is None:
        return ("unsupported", "") if theirs.accepted else ("agree: refused", "")
    if ours.accepted != theirs.accepted:
        return ("too strict", ours.reason[:200]) if theirs.accepted else ("too lax", f"{ours.types}; {theirs.reason}")
    if not ours.accepted:
        return "agree: refused", ""
    if same_types(ours.types, theirs.types):
        return "agree: accepted", ""
    return "other types", f"ours {ours.types}, theirs {theirs.types}"


def same_types(a: Types, b: Types) -> bool:
    """Equal where both know."""
    def same(x: Any, y: Any) -> bool:
        if x[0] != y[0]:
            return False
        if x[1] is None or y[1] is None:
            return True
        return len(x[1]) == len(y[1]) and all(p is None or q is None or p == q for p, q in zip(x[1], y[1], strict=True))

    return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))


def run(calls: Iterator[Call], count: int, tell: Callable[[str], None] = lambda line: None) -> Tally:
    tally, start = Tally(), time.perf_counter()
    for _, call in zip(range(count), calls, strict=False):
        kind, detail = compare(call)
        tally.counts[kind] += 1
        if kind in BAD:
            tally.found.append(Disagreement(call, kind, detail))
            tell(str(tally.found[-1]))
        tally.seconds = time.perf_counter() - start
    return tally


def calls_of(api: str, seed: int) -> Iterator[Call]:
    """Calls without end, first each example as it is."""
    if api == "onnx":
        from effcc.fuzz.outside_onnx import calls
    else:
        from effcc.fuzz.outside_torch import calls
    return calls(random.Random(seed))


def main() -> None:
    import argparse
    import logging
    import sys
    import warnings

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--api", choices=("onnx", "torch"), default="onnx")
    parser.add_argument("--calls", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--report", action="store_true", help="disagreements do not fail the command")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    tally = run(calls_of(options.api, options.seed), options.calls, lambda line: print(line, flush=True))
    print(tally)
    sys.exit(int(bool(tally.found) and not options.report))


if __name__ == "__main__":
    main()
