"""Everything small is drawn, wrong rules are found in it, and the counts tell what was left out."""

import itertools
import math

import pytest

from effcc.errors import InputError, TypeRuleError
from effcc.ir import Tensor, f32, op_class
from effcc.passes.simplify import DivByPowerOfTwo
from effcc.passes.view_algebra import SliceOfSlice, TransposeOfNothing
from effcc.rewrite import Rule
from effcc.testing import Mismatch, exhaust
from effcc.testing.exhaustive import SmallDrawer
from effcc.testing.ways import Ways

SHAPES = [shape for rank in range(4) for shape in itertools.product(range(4), repeat=rank)]


class OneOp(Rule):
    """An op of two values, and nothing else."""

    def __init__(self, op):
        self.op = op

    def pattern(self, p, x, y):
        return p.op(self.op, x, y)


def drawn(rule):
    return list(Ways(lambda choose: SmallDrawer(choose).around(rule)))


@pytest.mark.parametrize("op", ["add", "matmul"])
def test_all_shapes_that_the_type_rule_takes_are_drawn(op):
    pairs = {tuple(v.shape for v in g.inputs) for g in drawn(OneOp(op)) if g.inputs[0].dtype == f32}
    cls, taken = op_class(op), set()
    for pair in itertools.product(SHAPES, SHAPES):
        try:
            cls().result_types(tuple(Tensor(f32, shape) for shape in pair))
        except TypeRuleError:
            continue
        taken.add(pair)
    assert len(taken) > 500
    assert {(y, x) for x, y in pairs} | pairs >= taken and pairs <= taken


def test_all_permutations_of_all_shapes_are_drawn():
    found = exhaust(TransposeOfNothing(), most=2000)
    orders = sum(math.factorial(len(shape)) for shape in SHAPES)
    assert found.complete and found.instances == found.size == 4 * orders, "of four dtypes"
    assert 4 * len(SHAPES) <= found.fired < found.instances
    assert str(found).startswith(f"all {found.instances}: fired {found.fired}")


class SwappedAddNeg(Rule):
    """add(x, neg(y)) --> sub(y, x)"""

    def pattern(self, p, x, y):
        return p.add(x, p.neg(y))

    def rewrite(self, b, m):
        return b.sub(m.y, m.x)


def test_a_wrong_rule_is_found():
    with pytest.raises(Mismatch, match="before:"):
        exhaust(SwappedAddNeg(), most=50)


@pytest.mark.parametrize("rule", [DivByPowerOfTwo(), SliceOfSlice()], ids=lambda r: r.name)
def test_rules_without_their_guards_are_found(rule, monkeypatch):
    assert exhaust(rule, most=100).reasons
    monkeypatch.setattr(type(rule), "check", lambda self, m, ctx: None)
    with pytest.raises(Mismatch):
        exhaust(rule, most=300)


def test_a_sample_says_so():
    found = exhaust(SwappedNothing(), most=10)
    assert found.instances == 10 and not found.complete and found.size > 10
    assert str(found).startswith("10 of about ")


class SwappedNothing(SwappedAddNeg):
    """add(x, neg(y)) --> sub(x, y)"""

    def rewrite(self, b, m):
        return b.sub(m.x, m.y)


def test_a_rule_that_never_fires_is_given_all_of_its_patience():
    class Never(SwappedAddNeg):
        def check(self, m, ctx):
            return "never"

    found = exhaust(Never(), most=5, patience=40)
    assert (found.instances, found.fired, found.reasons) == (40, 0, {"never": 40})


def test_what_has_no_value_is_not_counted_as_held(monkeypatch):
    def nothing(graph, *inputs):
        raise InputError("it has no value")

    monkeypatch.setattr("effcc.testing.exhaustive.run", nothing)
    found = exhaust(SwappedAddNeg(), most=5, patience=10)
    assert (found.instances, found.fired) == (10, 0)
