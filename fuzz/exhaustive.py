"""Every rule of every pass, held to its contract on all small graphs around its pattern (`effcc.testing.exhaust`).

    python -m effcc.fuzz.exhaustive                               # as many as 2000 graphs for each rule
    python -m effcc.fuzz.exhaustive --rule square --most 100000   # all that there are for one

The table tells for each rule how many graphs it was held on, whether these were all or a sample of about how many, and
on how many it fired or was refused. The status is 1 where a contract is broken or a rule fired on no small graph.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence

from effcc.fuzz.near_miss import rules
from effcc.ir.lazy import torch
from effcc.rewrite import Rule
from effcc.testing import Mismatch
from effcc.testing.exhaustive import PATIENCE, Exhausted, exhaust

LARGER: Mapping[str, str] = {}
"""Rules that fire on no small graph, and why."""


def label(rule: Rule) -> str:
    """pass/rule, and what tells a rule from others of its name."""
    fields = dataclasses.fields(rule) if dataclasses.is_dataclass(rule) else ()
    told = [f"{f.name}={getattr(rule, f.name)}" for f in fields if str(getattr(rule, f.name)) not in rule.name]
    return f"{type(rule).__module__.rpartition('.')[2]}/{' '.join((rule.name, *told))}"


def held(chosen: Sequence[Rule], most: int) -> Iterator[tuple[str, Exhausted | Mismatch]]:
    """(label, what became of it) for each rule."""
    torch.set_num_threads(1)
    for rule in chosen:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                yield label(rule), exhaust(rule, most)
            except Mismatch as mismatch:
                yield label(rule), mismatch


def never_fired(found: Mapping[str, Exhausted | Mismatch]) -> set[str]:
    return {name for name, done in found.items() if isinstance(done, Exhausted) and not done.fired}


def report(found: Mapping[str, Exhausted | Mismatch]) -> bool:
    """Print what is wrong, and the sums; whether all is as it should be."""
    done = [d for d in found.values() if isinstance(d, Exhausted)]
    broken = {name: d for name, d in found.items() if isinstance(d, Mismatch)}
    for name, mismatch in broken.items():
        print(f"\n{name}: {mismatch}")
    never = never_fired(found)
    for name in sorted(never):
        print(f"{name}: never fired{f' ({LARGER[name]})' if name in LARGER else ''}")
    print(f"\n{len(found)} rules: {sum(d.complete for d in done)} held on all small graphs, "
          f"{sum(not d.complete for d in done)} on a sample, {len(broken)} broke their contract, "
          f"{len(never)} never fired")
    print(f"{sum(d.instances for d in done)} graphs: {sum(d.fired for d in done)} where the rule fired")
    return not broken and not never - set(LARGER)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rule", help="only rules of this name, or whose class has it")
    parser.add_argument("--most", type=int, default=PATIENCE, help="graphs for each rule")
    given = parser.parse_args(arguments)
    chosen = [r for r in rules() if given.rule in (None, r.name, type(r).__name__)]
    if not chosen:
        parser.error(f"no rule is called {given.rule}; effcc passes lists those that there are")
    start, found = time.monotonic(), {}
    for name, done in held(chosen, given.most):
        found[name] = done
        print(f"{name:48} {done if isinstance(done, Exhausted) else 'breaks its contract'}", flush=True)
    good = report(found)
    print(f"{time.monotonic() - start:.0f} s")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
