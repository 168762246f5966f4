import itertools
import random

import pytest

from effcc.analysis.structure import SINK, SOURCE, critical_path, dominators, is_convex, post_dominators
from effcc.ir import Builder, Tensor, f32


def diamond():
    b = Builder()
    x = b.input("x", Tensor(f32, (4,)))
    top = b.neg(x)
    left, right = b.exp(top), b.sqrt(b.abs(top))
    g = b.graph(b.relu(b.add(left, right)))
    return g, {n.op.name: n for n in g.nodes}


def test_dominators():
    g, n = diamond()
    before, behind = dominators(g), post_dominators(g)
    assert before[n["neg"]] == SOURCE and before[n["add"]] is n["neg"] and before[n["sqrt"]] is n["abs"]
    assert behind[n["neg"]] is n["add"] and behind[n["exp"]] is n["add"] and behind[n["relu"]] == SINK


def test_critical_path():
    g, n = diamond()
    assert [x.op.name for x in critical_path(g)] == ["neg", "abs", "sqrt", "add", "relu"]
    heavy = critical_path(g, lambda node: 10.0 if node.op.name == "exp" else 1.0)
    assert [x.op.name for x in heavy] == ["neg", "exp", "add", "relu"]


@pytest.mark.parametrize("seed", range(5))
def test_convexity_against_reachability(seed):
    import networkx as nx

    from effcc.analysis.structure import dataflow

    rng = random.Random(seed)
    b = Builder()
    values = [b.input("x", Tensor(f32, (4,)))]
    for _ in range(7):
        values.append(b.add(rng.choice(values), rng.choice(values)))
    g = b.graph(values[-1])
    reach = nx.transitive_closure_dag(dataflow(g))
    for size in (2, 3):
        for region in itertools.combinations(g.nodes, size):
            leaves = any(reach.has_edge(a, out) and reach.has_edge(out, z)
                         for a in region for z in region for out in g.nodes if out not in region)
            assert is_convex(g, region) == (not leaves)
