import itertools

import pytest
import torch

from effcc import interp
from effcc.errors import InputError, TypeRuleError
from effcc.ir import Builder, Symbol, Tensor, f32
from effcc.ir.assumptions import Assumption, assumed, may_broadcast, may_equal, may_fit, recorded

N, M = Symbol("N"), Symbol("M")


def taken(make, *shapes):
    b = Builder("taken")
    graph = b.graph(make(b, *(b.input(f"x{k}", Tensor(f32, shape)) for k, shape in enumerate(shapes))))
    return graph, [a for node in graph.nodes for a in assumed(node)]


@pytest.mark.parametrize(
    ("make", "shapes", "expected"),
    [
        (lambda b, x, y: b.add(x, y), [(N, 4), (M, 4)], [Assumption("broadcast", N, M)]),
        (lambda b, x, y: b.add(x, y), [(N, 4), (1, 4)], []),
        (lambda b, x, y: b.add(x, y), [(N, 4), (8, 4)], [Assumption("broadcast", N, 8)]),
        (lambda b, x, y: b.matmul(x, y), [(2, N), (M, 3)], [Assumption("equal", N, M)]),
        (lambda b, x, y: b.concat(x, y, axis=0), [(2, N), (3, M)], [Assumption("equal", N, M)]),
        (lambda b, x: b.reshape(x, shape=(M, 2)), [(N,)], [Assumption("equal", N.expr, M * 2)]),
        (lambda b, x: b.slice(x, starts=(2,), stops=(N,), steps=(1,)), [(N,)], [Assumption("fit", 2, N)]),
        (lambda b, x: b.broadcast_to(x, shape=(M,)), [(1,)], []),
        (lambda b, x: b.topk(x, k=5, axis=0)[0], [(N,)], [Assumption("fit", 5, N)]),
    ],
)
def test_type_rules_tell_what_they_assume(make, shapes, expected):
    graph, found = taken(make, *shapes)
    assert found == expected
    assert all(recorded_again(node) == assumed(node) for node in graph.nodes)


def recorded_again(node):
    with recorded() as found:
        node.op.infer(*node.types)
    return found


def test_what_can_never_hold_is_refused_at_once():
    with pytest.raises(TypeRuleError, match="inner sizes"):
        taken(lambda b, x, y: b.matmul(x, y), (2, N), (N + 1, 3))


@pytest.mark.parametrize(("a", "b"), list(itertools.product(range(4), repeat=2)))
def test_relations_agree_with_the_questions_on_numbers(a, b):
    for relation, ask in (("equal", may_equal), ("fit", may_fit)):
        assert Assumption(relation, a, b).holds({}) == ask(a, b)
    if 0 not in (a, b):  # an empty axis is refused beside one that turns out to be 1
        assert Assumption("broadcast", a, b).holds({}) == may_broadcast(a, b)


def test_the_interpreter_names_the_sizes():
    graph, _ = taken(lambda b, x, y: b.add(x, y), (N,), (M,))
    with pytest.raises(InputError, match="add: sizes N = 3 and M = 5 must be equal, or one of them 1"):
        interp.run(graph, torch.ones(3), torch.ones(5))
