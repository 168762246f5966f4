from effcc.ir import Builder, Tensor, f32
from effcc.rewrite import Rule
from effcc.rewrite.near_miss import near_misses


class Scaled(Rule):
    """exp(mul(transpose(x, (1, 0)), 2)) --> x"""

    def pattern(self, p, x):
        return p.exp(p.mul(p.transpose(x, perm=(1, 0)), p.number(2.0)))

    def rewrite(self, b, m):
        return m.x


class Square(Rule):
    """mul(neg(x), neg(x)) --> mul(x, x)"""

    def pattern(self, p, x):
        return p.sub(p.neg(x), p.neg(x))

    def rewrite(self, b, m):
        return b.mul(m.x, m.x)


def miss(rule, build):
    b = Builder()
    x, y = b.input("x", Tensor(f32, (3, 3))), b.input("y", Tensor(f32, (3, 3)))
    out = build(b, x, y)
    found = near_misses(rule, b.graph(*(out if isinstance(out, tuple) else (out,))))
    return [(m.matched, m.reason) for m in found]


def scalar(b, value):
    import numpy as np

    return b.const(np.array(value, "f4"))


def test_another_op():
    assert miss(Scaled(), lambda b, x, y: b.exp(x)) == [(1, "operand 0 of exp is an input, the pattern has mul")]
    assert miss(Scaled(), lambda b, x, y: b.exp(b.mul(b.neg(x), scalar(b, 2)))) == [
        (2, "operand 0 of mul comes from neg, the pattern has transpose")
    ]


def test_another_constant():
    def build(b, x, y, value=3.0):
        return b.exp(b.mul(b.transpose(x, perm=(1, 0)), scalar(b, value)))

    assert miss(Scaled(), build) == [(3, "operand 1 of mul is 3, the pattern has 2")]
    assert miss(Scaled(), lambda b, x, y: build(b, x, y, 2.0)) == []  # it matches
    variable = miss(Scaled(), lambda b, x, y: b.exp(b.mul(b.transpose(x, perm=(1, 0)), y)))
    assert variable == [(3, "operand 1 of mul is an input, the pattern has a constant")]


def test_another_attribute():
    found = miss(Scaled(), lambda b, x, y: b.exp(b.mul(b.transpose(x, perm=(0, 1)), scalar(b, 2))))
    assert found == [(2, "perm = (0, 1) of transpose, the pattern has (1, 0)")]


def test_a_hole_that_is_two_values():
    assert miss(Square(), lambda b, x, y: b.sub(b.neg(x), b.neg(y))) == [
        (3, "operand 0 of neg is another value than x elsewhere")
    ]


def test_inner_values_with_other_readers():
    def build(b, x, y):
        inner = b.mul(b.transpose(x, perm=(1, 0)), scalar(b, 2))
        return b.exp(inner), b.neg(inner)

    assert miss(Scaled(), build) == [(3, "all of the pattern is there, but neg reads its mul as well")]

    def result(b, x, y):
        inner = b.mul(b.transpose(x, perm=(1, 0)), scalar(b, 2))
        return b.exp(inner), inner

    assert miss(Scaled(), result) == [(3, "all of the pattern is there, but its mul is a result of the graph as well")]


def test_the_nearest_comes_first():
    found = miss(Scaled(), lambda b, x, y: (b.exp(x), b.exp(b.mul(x, y))))
    assert [matched for matched, _ in found] == [2, 1]
