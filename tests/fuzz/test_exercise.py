"""A rule without its guard, and a pass that is wrong for one option, are found on graphs drawn for them."""

import pytest

from effcc.fuzz.case import Finding
from effcc.fuzz.exercise import RuleTally, exercise_pass, exercise_rule, wrong_options
from effcc.ir.blob import Blob
from effcc.ops.constant import Const
from effcc.passes.magnitude import Magnitude
from effcc.passes.simplify import DivByPowerOfTwo, NeutralOperand, Simplify
from effcc.passes.transposed_convs import TransposedConvs
from effcc.passes.view_algebra import SliceOfSlice
from effcc.pipeline import Pass, find_pass, pass_table
from effcc.rewrite import Workspace


@pytest.mark.parametrize("rule", [DivByPowerOfTwo(), SliceOfSlice(), NeutralOperand("add", -0.0)], ids=lambda r: r.name)
def test_a_rule_without_its_guard_is_found(rule, monkeypatch):
    tally = RuleTally()
    for k in range(30):
        exercise_rule(rule, [Simplify()], f"guarded {k}", tally)
    assert tally.never is None
    monkeypatch.setattr(type(rule), "check", lambda self, m, ctx: None)
    with pytest.raises(Finding):
        for k in range(200):
            exercise_rule(rule, [], f"unguarded {k}", tally)


def test_what_a_rule_says_is_counted():
    tally = RuleTally()
    assert tally.never == "never fired"
    tally.fired = 1
    assert tally.never == "never refused"
    tally.unmatched = 1
    assert tally.never is None


class Shifts(Pass):
    """Every constant is shifted, off or not."""

    name = "shifts"
    contract = "approximate; exact when off=true"
    off: bool = False

    def run(self, graph, ctx):
        w = Workspace(graph)
        for item in w.items():
            if item.op.name == "const" and item.result.dtype.is_float:
                array = item.op.blob.array
                w.set_op(item, Const(Blob((array + 0.5).astype(array.dtype), item.op.blob.type.dtype)))
        return w.freeze()

    def example(self, d, b):
        x = b.const(d.blob(d.like(None)))
        return b.add(x, x)


def test_a_pass_that_is_wrong_for_one_option_is_found():
    with pytest.raises(Finding, match="shifts:off=true"):
        for k in range(100):
            exercise_pass(Shifts, f"shifts {k}")


@pytest.mark.parametrize("cls", [Magnitude, TransposedConvs], ids=lambda cls: cls.name)
def test_passes_keep_what_they_promise(cls):
    for k in range(25):
        exercise_pass(cls, f"kept {k}")


@pytest.mark.parametrize("name", sorted(pass_table()))
def test_options_are_taken_or_refused(name):
    wrong_options(find_pass(name))
