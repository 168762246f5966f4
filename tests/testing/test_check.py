"""The check of rules and passes: it must find planted bugs, and must not cry wolf."""

import math
import random

import numpy as np
import pytest
import torch

from effcc.errors import EffccError, VerifyError
from effcc.interp import run
from effcc.ir import Builder, Graph, Symbol, Tensor, f32, op_class, verify
from effcc.ir.blob import Blob
from effcc.pipeline import Context, Pass, PassManager
from effcc.rewrite import BOUNDED, Rule, Workspace
from effcc.testing import Check, Mismatch, check, compare
from effcc.testing.compare import Fairness, cone
from effcc.testing.draw import Drawer, drawable_ops
from effcc.text import parse


def rule(pattern, rewrite, **facts):
    """A rule from two functions."""
    body = {"pattern": lambda self, p, x, y: pattern(p, x, y), "rewrite": lambda self, b, m: rewrite(b, m), **facts}
    return type("Planted", (Rule,), body)()


def transposes(order):
    return rule(
        lambda p, x, y: p.transpose(p.transpose(x, perm=p.any("first")), perm=p.any("second")),
        lambda b, m: b.transpose(m.x, perm=order(m)))


PLANTED = {
    "double neg is abs": rule(lambda p, x, y: p.neg(p.neg(x)), lambda b, m: b.abs(m.x)),
    "x + 0.0 loses the sign of zero": rule(
        lambda p, x, y: p.add(x, p.number("c")), lambda b, m: m.x if m.number("c") == 0.0 else "no"),
    "x * 0 loses NaN": rule(
        lambda p, x, y: p.mul(x, p.number(0.0)),
        lambda b, m: b.broadcast_to(b.const(0, m.x.dtype), shape=m.root.result.shape)),
    "perms compose the wrong way round": transposes(lambda m: tuple(m.second[k] for k in m.first)),
    "min and max swapped": rule(
        lambda p, x, y: p.min(p.max(x, p.number("lo")), p.number("hi")),
        lambda b, m: b.max(b.min(m.x, m.hi), m.lo)),
    "a - b is b + a": rule(lambda p, x, y: p.sub(x, y), lambda b, m: b.add(m.y, m.x)),
    "sum over the wrong axes": rule(
        lambda p, x, y: p.neg(p.sum(x, axes=p.any("axes"))),
        lambda b, m: b.sum(b.neg(m.x), axes=tuple(sorted(len(m.x.shape) - 1 - a for a in m.axes)))),
    "truncated division is floored": rule(lambda p, x, y: p.div(x, y), lambda b, m: b.floordiv(m.x, m.y)
                                          if not m.x.dtype.is_float else "floats divide"),
    "slices compose without the offset": rule(
        lambda p, x, y: p.slice(p.slice(x, starts=p.any("a"), stops=p.any("z"), steps=p.any("s")),
                                starts=p.any("c"), stops=p.any("d"), steps=p.any("t")),
        lambda b, m: b.slice(m.x, starts=m.c, stops=m.d, steps=m.t) if set(m.s) == {1} else "steps"),
    "gelu by tanh is not gelu": rule(
        lambda p, x, y: p.gelu(x), lambda b, m: b.gelu(m.x, approximate="tanh"), contract=BOUNDED),
    "a constant that is slightly off": rule(
        lambda p, x, y: p.mul(x, p.number(2.0)),
        lambda b, m: b.mul(m.x, b.const(2.00001, m.x.dtype)) if m.x.dtype == f32 else "f32 only", contract=BOUNDED),
    "silu without its x": rule(lambda p, x, y: p.mul(x, p.sigmoid(x)), lambda b, m: b.sigmoid(m.x), contract=BOUNDED),
    "relu of NaN is 0": rule(
        lambda p, x, y: p.relu(x), lambda b, m: b.where(b.gt(m.x, b.const(0, m.x.dtype)), m.x, b.const(0, m.x.dtype))),
}


@pytest.fixture(autouse=True)
def shrink_little(monkeypatch):
    monkeypatch.setattr("effcc.testing.SHRINK_SECONDS", 0.5)


@pytest.mark.parametrize("name", PLANTED)
def test_planted_bugs_are_found(name):
    with pytest.raises(Mismatch, match="before:\ngraph"):
        check(PLANTED[name], examples=150)


RIGHT = {
    "sub as add of neg": rule(lambda p, x, y: p.sub(x, y), lambda b, m: b.add(m.x, b.neg(m.y))),
    "perms compose": transposes(lambda m: tuple(m.first[k] for k in m.second)),
    "sums in another order": rule(
        lambda p, x, y: p.sum(x, axes=p.any("axes"), keepdims=p.any("keep")),
        lambda b, m: _sum_one_by_one(b, m), contract=BOUNDED),
    "sigmoid by its formula": rule(
        lambda p, x, y: p.sigmoid(x),
        lambda b, m: b.reciprocal(b.add(b.const(1.0, m.x.dtype), b.exp(b.neg(m.x)))), contract=BOUNDED),
}


def _sum_one_by_one(b, m):
    out = m.x
    for a in reversed(m.axes):
        out = b.sum(out, axes=(a,), keepdims=m.keep)
    return out if len(m.axes) > 1 else "one axis has one order"


@pytest.mark.parametrize("name", RIGHT)
def test_right_rules_pass(name):
    tally = check(RIGHT[name], examples=40)
    assert tally.fired >= 5


def test_a_rule_that_never_fires_fails_and_says_why():
    shy = rule(lambda p, x, y: p.neg(x), lambda b, m: "never on a Monday")
    with pytest.raises(AssertionError, match="never fired.*never on a Monday"):
        check(shy, examples=10)
    assert check(shy, examples=10, must_fire=False).fired == 0


class DropsLast(Pass):
    """A wrong pass: the last op's result is replaced by one of its operands, where the types allow."""

    name = "drops-last"

    def run(self, graph: Graph, ctx: Context) -> Graph:
        for k, result in enumerate(graph.results):
            node = graph.producer(result)
            operands = node.operands if node and node.op.name != "identity" else ()
            same = [v for v in operands if v.type == result.type]
            if same:
                results = (*graph.results[:k], same[0], *graph.results[k + 1 :])
                return Graph(graph.name, graph.inputs, graph.nodes, results)
        return graph


class BreaksTypes(Pass):
    name = "breaks-types"

    def run(self, graph: Graph, ctx: Context) -> Graph:
        return Graph(graph.name, graph.inputs, graph.nodes[1:], graph.results) if graph.nodes else graph


class Nothing(Pass):
    name = "nothing"

    def run(self, graph: Graph, ctx: Context) -> Graph:
        return graph


def test_wrong_passes_are_found():
    with pytest.raises(Mismatch):
        check(DropsLast(), examples=60)
    with pytest.raises(Mismatch, match="is not defined|before it is defined"):
        check(BreaksTypes(), examples=60)


def test_a_pass_that_changes_nothing():
    assert check(Nothing(), examples=10).fired == 0
    with pytest.raises(AssertionError, match="proves nothing"):
        check(Nothing(), examples=10, must_fire=True)


@pytest.mark.parametrize("seed", range(30))
def test_random_graphs_are_valid_and_run(seed):
    graph = Drawer(random.Random(seed).choice).random_graph(drawable_ops(), 6)
    verify(graph)
    assert len(graph.nodes) >= 1


def test_drawing_reaches_the_corners():
    """Empty tensors, scalars, several readers, dead code and most ops turn up without being asked for."""
    graphs = [Drawer(random.Random(seed).choice).random_graph(drawable_ops(), 8) for seed in range(150)]
    values = [v.type for g in graphs for v in g.values if isinstance(v.type, Tensor)]
    assert sum(0 in t.shape for t in values) > len(values) * 0.03
    assert any(t.shape == () for t in values)
    assert any(len(g.users(v)) > 1 for g in graphs for v in g.values)
    assert any(not g.users(v) and v not in g.results for g in graphs for v in g.values)
    seen = {n.op.name for g in graphs for n in g.nodes}
    missing = {c.name for c in drawable_ops()} - seen
    assert len(missing) <= len(drawable_ops()) * 0.15, sorted(missing)


# -- the instrument -----------------------------------------------------------------------------------------------
def small_model():
    b = Builder()
    x = b.input("x", Tensor(f32, (Symbol("B", 1, 8), 4)))
    return b.graph(b.exp(b.neg(x)))


def test_the_instrument_names_the_pass_that_changed_the_meaning():
    with pytest.raises(VerifyError, match="pass drops-last changed the meaning: result 0"):
        PassManager([Check()]).run(small_model(), [DropsLast()])


def test_the_instrument_notes_what_it_cannot_check():
    class Approximate(DropsLast):
        name = "approximate"
        contract = "approximate; exact when r=0"
        r: int = 1

    ctx = Context()
    PassManager([Check()]).run(small_model(), [Approximate()], ctx)
    assert "is not checked: its contract" in next(iter(ctx.refusals)).reason
    with pytest.raises(VerifyError, match="approximate:r=0 changed the meaning"):
        PassManager([Check()]).run(small_model(), [Approximate(r=0)])


# -- contracts ----------------------------------------------------------------------------------------------------
class Rounds(Pass):
    """Constants become multiples of 2^-bits: the identity on those that are already, or for bits=40 (of f32)."""

    name = "rounds"
    contract = "approximate; exact when bits=40; idempotent"
    bits: int = 1
    nudge: float = 0.0

    def run(self, graph, ctx):
        w = Workspace(graph)
        for item in w.items():
            if item.op.name == "const" and item.op.blob.type.dtype == f32:
                old = item.op.blob.array
                new = (np.round(old * 2.0**self.bits) / 2.0**self.bits + self.nudge).astype("f4")
                if not np.array_equal(old, new):
                    w.set_op(item, item.op.replace(blob=Blob(new)))
        return w.freeze()

    def example(self, d, b):
        x = b.input("x", Tensor(f32, (2,)))
        return b.add(x, b.const(np.array([d.choose((0.3, 1.0)), 0.7], "f4")))


def test_each_promise_of_a_contract_is_checked():
    assert check(Rounds(), examples=20).fired
    with pytest.raises(Mismatch, match="a second run changed the result again"):
        check(Rounds(nudge=1.0), examples=20)
    once = type("Once", (Rounds,), {"contract": "approximate; exact when bits=40"})
    assert check(once(nudge=0.0), examples=20).fired
    with pytest.raises(Mismatch):
        check(once(nudge=1.0), examples=20)
    with pytest.raises(EffccError, match="cannot say 'mostly right'"):
        check(type("Vague", (Rounds,), {"contract": "mostly right"})(), examples=1)


# -- comparing ----------------------------------------------------------------------------------------------------
def test_exact_means_bits_where_that_is_fair():
    b = Builder()
    x = b.input("x", Tensor(f32, (3,)))
    plain = b.graph(b.neg(b.neg(x)))
    c = Builder()
    y = c.input("x", Tensor(f32, (3,)))
    added = c.graph(c.add(y, c.const(0.0, f32)))
    compare(plain, added, [torch.tensor([1.0, math.nan, math.inf])])
    with pytest.raises(Mismatch, match=r"element \[1\] was -0.0, is 0.0"):
        compare(plain, added, [torch.tensor([1.0, -0.0, 2.0])])
    compare(plain, added, [torch.tensor([1.0, -0.0, 2.0])], "bounded")


def test_refining_lets_nan_become_anything():
    b = Builder()
    x = b.input("x", Tensor(f32, (2,)))
    before = b.graph(b.sqrt(x))
    c = Builder()
    y = c.input("x", Tensor(f32, (2,)))
    after = c.graph(c.sqrt(c.abs(y)))
    inputs = [torch.tensor([4.0, -4.0])]
    assert run(after, *inputs)[0].tolist() == [2, 2]
    compare(before, after, inputs, "refines")
    with pytest.raises(Mismatch):
        compare(before, after, inputs, "bounded")


class DropsDuplicates(Pass):
    """add(x, y) --> x + x: right where y is x."""

    name = "drops-duplicates"
    contract = "approximate; bounded on duplicates when scale=1.0"
    scale: float = 2.0

    def run(self, graph, ctx):
        w = Workspace(graph)
        for item in w.items():
            if item.op.name == "add" and graph.name == "example" and item.operands[0] is not item.operands[1]:
                factor = w.insert(op_class("const")(Blob(np.float32(self.scale))), (), before=item).result
                scaled = w.insert(op_class("mul")(), (item.operands[0], factor), before=item).result
                w.set_operands(item, (scaled, item.operands[0]))
        return w.freeze()

    def duplicates(self, d, b):
        x = b.input("x", Tensor(f32, (d.integer(1, 4),)))
        return b.add(x, b.add(x, b.const(np.float32(0))))


def test_a_contract_may_name_the_graphs_on_which_a_pass_is_exact():
    assert check(DropsDuplicates(), examples=20).fired
    always = type("Always", (DropsDuplicates,), {"contract": "approximate; bounded on duplicates"})
    with pytest.raises(Mismatch):
        check(always(), examples=20)


def test_either_sign_of_a_maximum_of_zeros_is_right():
    """max(-0, 0) is either: 1 / max(x, 0) may be either infinity there; without -0 the same bits are asked."""
    def inverse(turned):
        b = Builder()
        x, zero = b.input("x", Tensor(f32, (2,))), b.const(0.0, f32)
        return b.graph(b.div(b.const(1.0, f32), b.max(*((zero, x) if turned else (x, zero)))))

    compare(inverse(False), inverse(True), [torch.tensor([-0.0, 3.0])])
    b = Builder()
    x = b.input("x", Tensor(f32, (2,)))
    slightly = b.graph(b.div(b.const(1.0000001, f32), b.max(x, b.const(0.0, f32))))
    with pytest.raises(Mismatch):
        compare(inverse(False), slightly, [torch.tensor([2.0, 3.0])])


def test_what_is_asked_of_a_result_is_no_matter_of_others():
    """A result that is moved is asked for its bits beside one that is rounded; what tells a size stays."""
    graph = parse("""graph @f<n>(%x: f32[4], %y: f32[4]) -> (f32[4], f32[4], i64[]) {
      %0: f32[4] = exp(%x)
      %1: f32[4] = neg(%y)
      %2: i64[1,n] = nonzero(%y) {size=n}
      %3: i64[] = dim() {value=n}
      return %0, %1, %3
    }""")
    inputs = [torch.randn(4), torch.randn(4)]
    assert [Fairness.of(cone(graph, k), inputs).bitwise for k in range(3)] == [False, True, True]
    assert [[n.op.name for n in cone(graph, k).nodes] for k in (1, 2)] == [["neg", "nonzero"], ["nonzero", "dim"]]
    assert not Fairness.of(graph, inputs).bitwise


def test_what_overflows_before_and_after_is_no_difference():
    """torch's sinh of many numbers overflows in f32 where its result would not: beside what a pass does change, too."""
    def graph(turned):
        b = Builder()
        x = b.input("x", Tensor(f32, (64,)))
        other = b.reciprocal(b.exp(b.neg(x))) if turned else b.exp(x)
        return b.graph(b.sinh(b.add(b.mul(x, b.const(0.0, f32)), b.const(89.0, f32))), other)

    inputs = [torch.linspace(-1, 1, 64)]
    assert run(graph(False), *inputs)[0].isinf().all()
    compare(graph(False), graph(True), inputs)
    wrong = Builder()
    x = wrong.input("x", Tensor(f32, (64,)))
    far = wrong.graph(wrong.sinh(wrong.add(x, wrong.const(89.0, f32))), wrong.exp(x))
    with pytest.raises(Mismatch):
        compare(graph(False), far, inputs)
