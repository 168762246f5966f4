"""The workspace: users stay right under every edit, and freezing gives a valid graph."""

import random

import pytest

from effcc.ir import Builder, Loc, Symbol, Tensor, f32, op_class, verify
from effcc.rewrite import RewriteError, Workspace
from effcc.rewrite.workspace import topological_order

X = Tensor(f32, (Symbol("B", 1, 8), 4))


def diamond():
    b = Builder()
    x = b.input("x", X)
    y = b.neg(x)
    return b.graph(b.add(b.abs(y), b.exp(y))), x, y


def users_by_counting(w, value):
    return {id(i) for i in w.items() if value in i.operands}


def check_users(w):
    values = {v for i in w.items() for v in (*i.operands, *i.results)} | set(w.graph.inputs)
    for v in values:
        assert {id(i) for i in w.readers(v)} == users_by_counting(w, v)
        assert w.is_used(v) == (bool(users_by_counting(w, v)) or v in w.outputs)


def test_nothing_changed_is_the_same_graph():
    g, _, _ = diamond()
    assert Workspace(g).freeze() is g


def test_replacing_by_an_existing_value_erases_what_is_dead():
    g, x, y = diamond()
    w = Workspace(g)
    w.replace(w.producer(y), (x,))
    check_users(w)
    out = w.freeze()
    verify(out)
    assert [n.op.name for n in out.nodes] == ["abs", "exp", "add"]
    assert out.nodes[2] is g.nodes[3]


def test_fresh_nodes_take_over_the_old_values():
    g, x, y = diamond()
    w = Workspace(g)
    old = w.producer(y)
    new = w.insert(op_class("relu")(), (x,), old, Loc("", "here"))
    w.replace(old, (new.result,), [new])
    check_users(w)
    out = w.freeze()
    verify(out)
    assert out.nodes[0].results == (y,) and out.nodes[0].op.name == "relu" and out.nodes[1] is g.nodes[1]


def test_a_fresh_chain_that_uses_its_own_result_twice():
    g, x, y = diamond()
    w = Workspace(g)
    old = w.producer(y)
    first = w.insert(op_class("relu")(), (x,), old)
    second = w.insert(op_class("add")(), (first.result, first.result), old)
    w.replace(old, (second.result,), [first, second])
    check_users(w)
    verify(w.freeze())


def test_graph_results_follow():
    g, x, _ = diamond()
    w = Workspace(g)
    last = list(w.items())[-1]
    w.replace(last, (x,))
    out = w.freeze()
    assert out.results == (x,) and not out.nodes


def test_types_must_stay():
    g, x, y = diamond()
    w = Workspace(g)
    wrong = w.insert(op_class("reshape")((X.size,)), (x,), w.producer(y))
    with pytest.raises(RewriteError, match="would change type"):
        w.replace(w.producer(y), (wrong.result,))
    with pytest.raises(RewriteError, match="still used"):
        w.erase(w.producer(y))


def test_impure_and_used_nodes_survive_dead_code():
    g, x, y = diamond()
    w = Workspace(g)
    w.erase_dead(y)
    assert w.freeze() is g


def test_items_may_be_erased_and_added_while_iterating():
    b = Builder()
    y = b.input("x", X)
    for _ in range(10):
        y = b.neg(y)
    g = b.graph(y)
    w = Workspace(g)
    seen = 0
    for item in w.items():
        seen += 1
        if seen % 2 == 0:
            w.replace(item, item.operands)
    assert seen == 10 and len(w.freeze().nodes) == 5


def test_nodes_out_of_order_are_sorted_on_freezing():
    g, _, _ = diamond()
    w = Workspace(g)
    items = list(w.items())
    w.move(items[0], items[3])
    out = w.freeze()
    verify(out)
    assert out == g


def test_a_cycle_is_an_error():
    g, _, _ = diamond()
    w = Workspace(g)
    items = list(w.items())
    w.set_operands(items[0], (items[3].result,))
    with pytest.raises(RewriteError, match="cycle"):
        w.freeze()


def test_topological_order_keeps_the_given_order_where_it_may():
    g, x, _ = diamond()
    nodes = list(g.nodes)
    assert topological_order((x,), nodes) == nodes
    assert [n.op.name for n in topological_order((x,), nodes[::-1])] == ["neg", "exp", "abs", "add"]


@pytest.mark.parametrize("seed", range(10))
def test_users_stay_right_under_random_edits(seed):
    rng = random.Random(seed)
    b = Builder()
    values = [b.input("x", X), b.input("y", X)]
    for _ in range(20):
        values.append(b.add(rng.choice(values), rng.choice(values)))
    g = b.graph(values[-1], rng.choice(values))
    w = Workspace(g)
    for _ in range(15):
        items = list(w.items())
        if not items:
            break
        item = rng.choice(items)
        earlier = [*g.inputs, *(i.result for i in items[: items.index(item)])]
        if rng.random() < 0.5:
            w.replace(item, (rng.choice(earlier),))
        else:
            new = w.insert(op_class("mul")(), (rng.choice(earlier), rng.choice(earlier)), item)
            w.replace(item, (new.result,), [new])
        check_users(w)
    verify(w.freeze())
