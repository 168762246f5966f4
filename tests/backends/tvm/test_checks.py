"""Sizes that an op takes to be equal are checked before its kernels run: a call that breaks it is refused by name."""

import numpy as np
import pytest

import effcc
from effcc.errors import InputError
from effcc.ir import Builder, Symbol, Tensor, bool_, f32
from effcc.passes.fuse import Fuse
from effcc.pipeline import Context

N, M, S = Symbol("N"), Symbol("M"), Symbol("S")


def program(make, *shapes):
    b = Builder("checked")
    return effcc.compile(b.graph(make(b, *(b.input(f"x{k}", Tensor(f32, shape)) for k, shape in enumerate(shapes)))))


def positive(b, x, y):
    """y added to the numbers of x's elements that are not 0"""
    where = b.reshape(b.nonzero(x, size=S), shape=(S,))
    return b.add(b.cast(where, to=f32), y)


@pytest.mark.parametrize(
    ("make", "shapes", "right", "wrong", "message"),
    [
        (lambda b, x, y: b.add(x, y), [(N,), (M,)], [(3,), (3,)], [(3,), (5,)], "N = 3 and M = 5 must be equal, or"),
        (lambda b, x, y: b.add(x, y), [(N,), (M,)], [(3,), (1,)], [(3,), (2,)], "M is axis 0 of input 'x1'"),
        (lambda b, x, y: b.add(x, y), [(N,), (M,)], [(0,), (0,)], [(0,), (1,)], "N = 0 and M = 1"),
        (lambda b, x, y: b.matmul(x, y), [(4, N), (M, 8)], [(4, 3), (3, 8)], [(4, 3), (5, 8)], "must be equal;"),
        (lambda b, x, y: b.concat(x, y, axis=0), [(4, N), (2, M)], [(4, 3), (2, 3)], [(4, 3), (2, 4)], "N = 3"),
        (positive, [(N,), (M,)], [(3,), (3,)], [(3,), (4,)], "S = 3 and M = 4"),
        (lambda b, x, y: b.sum(b.mul(b.tanh(x), y), axes=(1,)), [(N, 4), (M, 4)], [(3, 4)] * 2, [(3, 4), (2, 4)], "N"),
    ],
    ids=["add", "broadcast", "empty", "matmul", "concat", "found at run time", "fused"],
)
def test_sizes_that_do_not_fit_together_are_refused(make, shapes, right, wrong, message, tmp_path):
    made = program(make, *shapes)
    made.save(tmp_path / "checked.effcc")
    for each in (made, effcc.load(tmp_path / "checked.effcc")):
        for _ in range(2):  # what is refused once is not remembered as right
            with pytest.raises(InputError, match=message):
                each(*(np.ones(shape, np.float32) for shape in wrong))
            assert len(each(*(np.ones(shape, np.float32) for shape in right))) == 1


def test_a_branch_checks_its_own_sizes_only_when_it_runs():
    def side(name, make):
        b = Builder(name)
        x, y = b.input("x", Tensor(f32, (N,))), b.input("y", Tensor(f32, (M,)))
        return b.graph(make(b, x, y))

    b = Builder("branch")
    c, x, y = b.input("c", Tensor(bool_, ())), b.input("x", Tensor(f32, (N,))), b.input("y", Tensor(f32, (M,)))
    joined = side("joined", lambda b, x, y: b.sum(b.add(x, y), axes=(0,)))
    alone = side("alone", lambda b, x, y: b.sum(x, axes=(0,)))
    made = effcc.compile(b.graph(*b.if_(c, x, y, then=joined, orelse=alone)))
    three, five = np.ones(3, np.float32), np.ones(5, np.float32)
    assert made(np.array(False), three, five)[0] == 3
    assert made(np.array(True), three, three)[0] == 6
    with pytest.raises(InputError, match="N = 3 and M = 5"):
        made(np.array(True), three, five)


def test_assumptions_inside_of_fused_regions_are_found():
    from effcc.ir.assumptions import assumed

    b = Builder("fused")
    x, y = b.input("x", Tensor(f32, (N,))), b.input("y", Tensor(f32, (M,)))
    graph = Fuse().run(b.graph(b.tanh(b.add(x, y))), Context())
    (node,) = graph.nodes
    assert node.op.name == "fused" and [(a.left, a.right) for a in assumed(node)] == [(N, M)]
