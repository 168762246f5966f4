"""Graphs, the builder and the verifier."""

import pickle

import pytest

from effcc.errors import TypeRuleError, UnsupportedError, VerifyError
from effcc.ir import Builder, Graph, Loc, Node, Symbol, Tensor, Value, f32, inline, op_class, verify

X = Tensor(f32, (Symbol("B", 1, 8), 4))


def chain(length, op="neg"):
    b = Builder()
    y = x = b.input("x", X)
    for _ in range(length):
        y = getattr(b, op)(y)
    return b.graph(y), x


def test_structure_counts_and_names_do_not():
    a, _ = chain(3)
    b, _ = chain(3)
    c, _ = chain(3, "abs")
    assert a == b and hash(a) == hash(b) and a != c


def test_deep_graphs_hash_compare_pickle_and_print_without_recursion():
    deep, _ = chain(5_000)
    copy = pickle.loads(pickle.dumps(deep))
    assert copy == deep and hash(copy) == hash(deep) and len(str(deep).splitlines()) == 5_003


def test_producers_and_users():
    b = Builder()
    x = b.input("x", X)
    y = b.neg(x)
    z = b.add(y, y)
    g = b.graph(z)
    assert g.producer(x) is None and g.producer(y).op.name == "neg"
    assert [n.op.name for n in g.users(y)] == ["add"]
    assert [s.name for s in g.symbols] == ["B"]


def test_builder_errors_name_the_location():
    b = Builder()
    x = b.input("x", X)
    with b.at(Loc("m.onnx", "/fc")), pytest.raises(TypeRuleError, match="m.onnx:/fc.*transpose"):
        b.transpose(x, perm=(0, 2))
    with pytest.raises(TypeRuleError, match="not a value"):
        b.neg(3)
    with pytest.raises(UnsupportedError, match="did you mean 'neg'"):
        b.negg(x)
    with pytest.raises(TypeRuleError, match="takes 2 operands"):
        b.sub(x)


def test_inline_copies():
    inner, _ = chain(2)
    b = Builder()
    x = b.input("x", X)
    (y,) = inline(b, inner, (x,))
    assert b.graph(y) == inner


def node(op, operands, results):
    return Node(op_class(op)(), operands, results)


def test_verify_finds_each_broken_invariant():
    x, y, z = Value(X, "x"), Value(X, "y"), Value(Tensor(f32, (3,)), "z")
    verify(Graph("g", (x,), (node("neg", (x,), (y,)),), (y,)))
    sized = tuple(Value(Tensor(f32, (n,)), "n") for n in (Symbol("N", 1, 64), Symbol("N", 2)))
    broken = {
        "used before it is defined": Graph("g", (x,), (node("neg", (y,), (y,)),), (y,)),
        "the type rule gives": Graph("g", (x,), (node("neg", (x,), (z,)),), (z,)),
        "defined twice": Graph("g", (x,), (node("neg", (x,), (y,)), node("abs", (x,), (y,))), (y,)),
        "is not defined": Graph("g", (x,), (), (y,)),
        "listed twice": Graph("g", (x, x), (), (x,)),
        "takes 1 operands": Graph("g", (x,), (node("neg", (x, x), (y,)),), (y,)),
        "their types differ": Graph("g", (x, z), (), (x,), aliases=((0, 1),)),
        "aliased by two": Graph("g", (x,), (), (x, x), aliases=((0, 0), (1, 0))),
        "out of range": Graph("g", (x,), (), (x,), aliases=((0, 5),)),
        "two sizes have one name, of N in 1..64, N in 2..": Graph("g", sized, (), sized),
    }
    for message, graph in broken.items():
        with pytest.raises(VerifyError, match=message):
            verify(graph)


def test_walk_visits_nested_graphs():
    body, _ = chain(2)
    b = Builder()
    x = b.input("x", X)
    (y,) = b.fused(x, body=body)
    assert sorted(n.op.name for n in b.graph(y).walk()) == ["fused", "neg", "neg"]


def test_inputs_have_names_of_their_own():
    b = Builder()
    names = [b.input(name, Tensor(f32, ())).name for name in ("x", "x", "", "x_1", "", "x")]
    assert names == ["x", "x_1", "", "x_1_1", "", "x_2"]
