import numpy as np
import pytest

from effcc.backends.tvm.tiles import reference
from effcc.backends.tvm.tiles.verify import verify


def equal(got, expected):
    return all(np.array_equal(a, b, equal_nan=True) for a, b in zip(got, expected, strict=True))


def test_each_family_without_barriers_gives_the_same_bits(family):
    """By the scheduler on fewer and on more threads than cores, and task by task in random legal orders."""
    expected = family.under(*family.inputs, threads=1)
    verify(family.tiled.graph, family.tiled.offsets)
    assert family.tiled.graph.tasks - family.tiled.graph.joins > len(family.tiled.graph.steps)
    for seed in range(5):
        family.without.poison()
        assert equal(reference.run(family.without, family.inputs, seed), expected), seed
    for threads in (1, 2, 3, 4, 8):
        for _ in range(3):
            family.without.poison()
            assert equal(family.without(*family.inputs, threads=threads), expected), threads


@pytest.mark.parametrize("family", ["residual_convs"], indirect=True)
def test_a_line_of_a_convolution_waits_for_the_lines_it_reads(family):
    graph = family.tiled.graph
    second = graph.of(1)
    starts, parents = graph.parents
    waits = [set(parents[starts[t] : starts[t + 1]].tolist()) for t in second]
    assert all(waits) and len(set().union(*waits)) > max(map(len, waits)), "every task waits for all"


@pytest.mark.parametrize("family", ["batched_products"], indirect=True)
def test_a_head_waits_for_its_head(family):
    graph = family.tiled.graph
    starts, parents = graph.parents
    last = graph.of(len(graph.steps) - 1)
    assert max(starts[t + 1] - starts[t] for t in last) < graph.tasks / 2
