"""Which branches of passes/, and which rules, generated graphs reach; every graph is held against the contracts.

    python -m effcc.fuzz.pass_coverage --examples 40 --seed 0
    python -m effcc.fuzz.pass_coverage --passes simplify,raise

For each rule of each pass as many instances and near misses of its pattern are drawn (`effcc.fuzz.near_miss`), as many
small graphs are chosen evenly (`effcc.testing.exhaust`), and for each pass as many of its own examples are drawn, with
options, machines, calibration data and fuel (`effcc.fuzz.exercise`). The
status is 1 where a contract is broken, branches covered are fewer than `--floor` percent, or a rule never fired or was
never refused. A rule that has no reason to give was refused where a near miss of its pattern did not match it.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from effcc.ir import Builder
from effcc.ir.lazy import torch
from effcc.pipeline import find_pass, pass_table

if TYPE_CHECKING:
    from effcc.fuzz.case import Finding
    from effcc.fuzz.exercise import RuleTally

ROOM = Path(__file__).resolve().parent.parent / "passes"
PATIENCE = 20
"""How many times as many examples a rule gets at most, while it never fired or was never refused."""
PASS_SHARE, OWN_SHARE = 20, 3
"""How many times as many examples as another rule a pass gets, whose options take many values, and a rule with an
example of its own, which takes more forms than a pattern tells."""


@dataclass(frozen=True)
class FileCoverage:
    """The branches of one file: how many there are, and those that nobody took, as (from line, to line)."""

    name: str
    branches: int
    missing: tuple[tuple[int, int], ...]
    lines: tuple[int, ...]
    """Lines that were not reached."""

    @property
    def percent(self) -> float:
        return 100.0 * (1 - len(self.missing) / self.branches) if self.branches else 100.0


def measured(
    names: Sequence[str], examples: int, seed: int
) -> tuple[list[FileCoverage], Mapping[str, RuleTally], list[Finding]]:
    """(coverage of passes/, tallies by rule, findings) after exercising passes and their rules."""
    import coverage

    with warnings.catch_warnings(), tempfile.TemporaryDirectory() as folder:
        warnings.simplefilter("ignore")
        watch = coverage.Coverage(branch=True, data_file=None, include=[f"{ROOM}/*"])
        watch.start()  # before any pass is imported
        try:
            tallies, findings = exercise(names, examples, seed)
        finally:
            watch.stop()
        report = Path(folder, "coverage.json")
        watch.json_report(outfile=str(report))
        files = json.loads(report.read_text())["files"]
    return [_of(name, facts) for name, facts in sorted(files.items())], tallies, findings


def _of(name: str, facts: Mapping[str, Any]) -> FileCoverage:
    missing = tuple((a, b) for a, b in facts["missing_branches"])
    return FileCoverage(Path(name).name, facts["summary"]["num_branches"], missing, tuple(facts["missing_lines"]))


def exercise(names: Sequence[str], examples: int, seed: int) -> tuple[dict[str, RuleTally], list[Finding]]:
    """(tallies by rule, findings): rules first, then passes."""
    from effcc.fuzz.case import Finding
    from effcc.fuzz.exercise import RuleTally, exercise_pass, exercise_rule, wrong_options
    from effcc.fuzz.near_miss import rules
    from effcc.rewrite import Rule
    from effcc.testing import exhaust

    torch.set_num_threads(1)
    tallies: dict[str, RuleTally] = {}
    findings: list[Finding] = []
    classes = [find_pass(name) for name in names]
    owned = {rule: [cls() for cls in classes if rule_in(rule, cls)] for rule in rules()}

    def tasks() -> Iterator[tuple[Any, ...]]:
        for number, (rule, owners) in enumerate(owned.items()):
            if owners:
                tally = tallies[f"{owners[0].name}/{number} {rule.name}"] = RuleTally()
                count = examples * (OWN_SHARE if type(rule).example is not Rule.example else 1)
                for k in range(PATIENCE * count):
                    if k >= count and tally.never is None:
                        break
                    yield exercise_rule, rule, owners, f"{seed} {k}", tally
                yield exhaust, rule, count
        for cls in classes:
            yield wrong_options, cls
            yield from ((exercise_pass, cls, f"{seed} {k}") for k in range(PASS_SHARE * examples))

    for task, *arguments in tasks():
        try:
            task(*arguments)
        except Finding as finding:
            findings.append(finding)
        except Exception as error:  # a bug in what draws, too
            what = " ".join(getattr(a, "name", str(a)) for a in arguments[:1])
            findings.append(Finding("exercise", f"{task.__name__} {what}: {error!r}", Builder("none").graph()))
    return tallies, findings


def rule_in(rule: Any, cls: Any) -> bool:
    from effcc.fuzz.near_miss import identity

    return any(identity(own) == identity(rule) for own in cls.rules)


def report(
    files: Sequence[FileCoverage], tallies: Mapping[str, RuleTally], findings: Sequence[Finding], floor: float
) -> bool:
    """Print the tables; whether all that was asked for holds."""
    for f in files:
        uncovered = " ".join(f"{a}->{b if b > 0 else 'exit'}" for a, b in f.missing)
        print(f"{f.name:28} {f.branches - len(f.missing):4} of {f.branches:4} {f.percent:5.1f} %  {uncovered}")
    branches = sum(f.branches for f in files)
    share = 100.0 * (1 - sum(len(f.missing) for f in files) / branches) if branches else 100.0
    print(f"passes/: {share:.2f} % of {branches} branches (floor: {floor:g} %)\n")
    for name, tally in tallies.items():
        reasons = ", ".join(f"{why[:60]} ({count})" for why, count in tally.refused.most_common(3))
        print(f"{name:48} fired {tally.fired:4}  refused {sum(tally.refused.values()):4}  "
              f"no match {tally.unmatched:4}  {reasons or '(has no reasons: what did not match counts)'}")
    lacking = {name: never for name, tally in tallies.items() if (never := tally.never)}
    print(f"\n{len(tallies)} rules: {len(tallies) - len(lacking)} fired and were refused")
    for name, never in lacking.items():
        print(f"{name}: {never}")
    for finding in findings:
        print(f"\n{finding}\n{finding.graph}")
    return share >= floor and not lacking and not findings


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--examples", type=int, default=40, help="graphs for each rule")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--floor", type=float, default=95.0, help="least share of branches, in percent")
    parser.add_argument("--passes", help="only these, separated by commas; files of the others are measured as well")
    given = parser.parse_args(arguments)
    names = given.passes.split(",") if given.passes else sorted(pass_table())
    start = time.monotonic()
    good = report(*measured(names, given.examples, given.seed), given.floor)
    print(f"{time.monotonic() - start:.0f} s")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
