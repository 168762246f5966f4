"""A slice of `python -m effcc.fuzz.exhaustive`: every rule fires on small graphs, which then mean the same."""

from effcc.fuzz.exhaustive import LARGER, held, main, never_fired
from effcc.fuzz.near_miss import rules
from effcc.passes.simplify import SubNeg
from effcc.testing import Mismatch


def test_rules_hold_on_small_graphs():
    found = dict(held(rules(), most=10))
    assert len(found) == len(rules()), "names tell rules apart"
    broken = {name: done for name, done in found.items() if isinstance(done, Mismatch)}
    assert not broken, next(iter(broken.values()))
    assert never_fired(found) == set(LARGER)


def test_the_command_tells_what_was_held(capsys):
    assert main(["--rule", "sub-neg", "--most", "20"]) == 0
    shown = capsys.readouterr().out
    assert "simplify/sub-neg" in shown and "20 of about" in shown and "1 rules: 0 held on all small graphs" in shown


def test_a_broken_rule_is_a_failure(monkeypatch, capsys):
    monkeypatch.setattr(SubNeg, "rewrite", lambda self, b, m: b.sub(m.x, m.y))
    assert main(["--rule", "SubNeg", "--most", "20"]) == 1
    assert "breaks its contract" in capsys.readouterr().out


def test_a_rule_that_never_fires_is_a_failure(monkeypatch, capsys):
    monkeypatch.setattr(SubNeg, "check", lambda self, m, ctx: "never")
    assert main(["--rule", "sub-neg", "--most", "20"]) == 1
    assert "simplify/sub-neg: never fired" in capsys.readouterr().out
