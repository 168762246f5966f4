"""The planted bugs: each patch still fits the tree, says what it breaks and has a graph; campaigns find them.

That each bug shows on its graph takes a process a bug: `python -m effcc.fuzz.planted --verify`.
"""

import json
import re

import pytest

from effcc.errors import EffccError
from effcc.fuzz import planted
from effcc.fuzz.laws import LAWS
from effcc.ir import verify
from effcc.text import parse

BUGS = planted.bugs()
ROOT = planted.HERE.parent
CHECKLIST = {str(k) for k in range(1, 26)}
"""What compilers really get wrong: zero sizes, 0-d tensors, reductions over nothing, wrapping, ..."""


def read(name):
    return (ROOT / name).read_text()


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_a_bug_fits_the_tree(bug):
    changed = planted.patched(bug.text, read)
    assert changed and all(text != read(name) for name, text in changed.items())
    for name, text in changed.items():
        compile(text, name, "exec")
    law, after = bug.fact("law"), bug.fact("after")
    assert bug.what and law in LAWS and (bug.fact("checklist") or bug.fact("guard"))
    assert after is None or re.fullmatch(r"[\w.-]+/[\w.-]+#\d+", after)
    verify(parse(bug.trigger.read_text()))


def test_the_bugs_cover_the_checklist_and_the_passes():
    assert len(BUGS) >= 60
    assert sum(bug.fact("after") is not None for bug in BUGS) >= len(BUGS) / 3
    assert {bug.fact("checklist") for bug in BUGS} >= CHECKLIST - {"6", "14"}  # what is undefined is no bug
    guards = {bug.fact("guard") for bug in BUGS} - {None}
    assert guards <= {path.stem for path in (ROOT / "passes").glob("*.py")} and len(guards) >= 10
    triggers = {path.stem for path in planted.FOLDER.glob("*.effir")}
    assert triggers == {bug.name for bug in BUGS}


def test_a_patch_fits_exactly_once():
    patch = "# what\n--- a/f\n+++ b/f\n@@ -1,2 +1,2 @@\n a\n-b\n+c\n"
    assert planted.patched(patch, lambda name: "x\na\nb\n") == {"f": "x\na\nc\n"}
    for text in ("a\n", "a\nb\na\nb\n"):
        with pytest.raises(EffccError, match="fits"):
            planted.patched(patch, lambda name, text=text: text)


def test_a_planted_bug_is_found_and_kept(tmp_path):
    bug = next(bug for bug in BUGS if bug.name == "fused-results-forgotten")
    report = planted.run([bug], 1, 300, 1, planted.Fuzzer(), tmp_path)
    assert "1 of 1 bugs found (100%)" in report and "0 false alarms" in report
    (line,) = (tmp_path / "outcomes.jsonl").read_text().splitlines()
    assert json.loads(line)["bug"] == bug.name
    assert planted.run([bug], 1, 300, 1, planted.Fuzzer(), tmp_path) == report
    assert len((tmp_path / "outcomes.jsonl").read_text().splitlines()) == 1


def test_further_seeds_are_spent_on_what_no_earlier_one_found(tmp_path, monkeypatch):
    def measure(bug, seed, seconds, fuzzer, cache):
        return planted.Outcome(bug.name, seed, (), "text" if bug is BUGS[0] or seed else None, "", 1.0, 1)

    monkeypatch.setattr(planted, "measure", measure)
    planted.run(BUGS[:2], 3, 60, 1, planted.Fuzzer(), tmp_path / "found", until_found=True)
    seeds = [(o.bug, o.seed) for o in planted.kept(tmp_path / "found" / "outcomes.jsonl")]
    assert seeds == [(BUGS[0].name, 0), (BUGS[1].name, 0), (BUGS[1].name, 1)]
    planted.run(BUGS[:2], 3, 60, 1, planted.Fuzzer(), tmp_path / "every")
    assert len(planted.kept(tmp_path / "every" / "outcomes.jsonl")) == 6


def test_the_report_counts_false_alarms_and_misses():
    def outcome(bug, law, seconds, alarms=0):
        return planted.Outcome(bug, 0, (), law, "", seconds, 1, alarms)

    found = [outcome("a", "each-pass", 2.0), outcome("b", None, 60.0), outcome("c", "text", 3.0, alarms=1)]
    report = planted.report(found, 60)
    assert "2 of 3 bugs found (67%), median 3.0 s" in report and "1 false alarms" in report
    assert report.endswith("missed: b")
