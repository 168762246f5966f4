"""The command reaches all of one pass, and fails where it does not."""

import pytest

from effcc.fuzz.case import Finding
from effcc.fuzz.pass_coverage import FileCoverage, main, measured, report
from effcc.ir import Builder, Tensor, f32


def test_all_of_a_pass_is_reached():
    files, tallies, findings = measured(["transposed-convs"], 40, 0)
    (own,) = (f for f in files if f.name == "transposed_convs.py")
    assert own.branches >= 10 and own.percent == 100, own.missing
    assert len(tallies) == 2 and not any(tally.never for tally in tallies.values())
    assert not findings, findings[0]


def test_too_little_is_a_failure(capsys):
    assert main(["--passes", "transposed-convs", "--examples", "1", "--floor", "99"]) == 1
    shown = capsys.readouterr().out
    assert "transposed_convs.py" in shown and "passes/:" in shown and "rules: " in shown


@pytest.mark.parametrize(("missing", "findings", "good"), [(0, False, True), (1, False, False), (0, True, False)])
def test_what_makes_a_report_good(missing, findings, good, capsys):
    b = Builder()
    found = [Finding("law", "differs", b.graph(b.input("x", Tensor(f32, ()))))] if findings else []
    file = FileCoverage("one.py", 10, ((1, 2),) * missing, ())
    assert report([file], {}, found, floor=95) is good
    assert f"{100 - 10 * missing}.0 %" in capsys.readouterr().out
