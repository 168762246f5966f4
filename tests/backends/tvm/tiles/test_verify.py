"""Planted faults: each must be found, and the graph without it be clean."""

from dataclasses import replace

import numpy as np
import pytest

from effcc.backends.tvm.memory import place
from effcc.backends.tvm.tiles.space import Cut, TileSpace
from effcc.backends.tvm.tiles.verify import faults, verify
from effcc.errors import VerifyError

pytestmark = pytest.mark.parametrize("family", ["residual_convs"], indirect=True)


def edges(graph):
    return np.repeat(np.arange(graph.tasks), np.diff(graph.starts)), graph.children


def with_edges(graph, sources, targets):
    order = np.argsort(sources, kind="stable")
    counts = np.bincount(sources, minlength=graph.tasks)
    starts = np.concatenate(([0], np.cumsum(counts))).astype(np.int32)
    return replace(graph, starts=starts, children=targets[order].astype(np.int32))


def first_fault(graph, offsets):
    return next(iter(faults(graph, offsets)), None)


def test_clean(family):
    verify(family.tiled.graph, family.tiled.offsets)


def test_every_edge_is_needed_or_implied(family):
    """Without any one of them there is a race, but for those that a longer path implies."""
    graph = family.tiled.graph
    sources, targets = edges(graph)
    random = np.random.default_rng(0)
    found = 0
    for k in random.choice(len(sources), 12, replace=False):
        less = with_edges(graph, np.delete(sources, k), np.delete(targets, k))
        fault = first_fault(less, family.tiled.offsets)
        found += fault is not None and "in any order" in fault
    assert found >= 6


def test_a_launch_that_waits_for_nothing(family):
    graph = family.tiled.graph
    sources, targets = edges(graph)
    keep = graph.launch[targets] != len(graph.steps) - 1
    assert "in any order" in first_fault(with_edges(graph, sources[keep], targets[keep]), family.tiled.offsets)


def test_a_cycle(family):
    graph = family.tiled.graph
    sources, targets = edges(graph)
    turned = with_edges(graph, np.append(sources, targets[0]), np.append(targets, sources[0]))
    assert "comes after it" in first_fault(turned, family.tiled.offsets)


def test_tiles_that_are_left_out_or_run_twice(family):
    graph = family.tiled.graph
    last = graph.tasks - 1
    shorter = replace(graph, end=np.append(graph.end[:-1], graph.begin[-1]))
    assert "is in 0 tasks" in first_fault(shorter, family.tiled.offsets)
    longer = replace(graph, begin=np.append(graph.begin[:-1], graph.begin[last] - 1))
    assert "is in 2 tasks" in first_fault(longer, family.tiled.offsets)


def test_a_tile_space_that_does_not_fit_its_kernel(family):
    graph = family.tiled.graph
    steps = [s for s in graph.steps if s.kernel.touched.space.cuts[-2].step > 1 and s.tiles > 1]
    kernel = steps[0].kernel
    space = kernel.touched.space
    *before, cut, last = space.cuts
    wrong = TileSpace(space.shape, (*before, Cut(cut.axes, cut.step - 1), last))
    held, kernel.touched = kernel.touched, replace(kernel.touched, space=wrong)
    try:
        assert "does not write each element" in first_fault(graph, family.tiled.offsets)
    finally:
        kernel.touched = held


def test_an_arena_planned_for_barriers(family):
    """Liveness by the order of launches lets a tile overwrite what its neighbours still read."""
    temporaries = family.built.program.temporaries
    by_name = dict(zip((t.name for t in temporaries), place(temporaries, {})[0]))
    offsets = {b: by_name[family.built.names(b)] for b in family.tiled.offsets}
    assert "in any order" in first_fault(family.tiled.graph, offsets)
    with pytest.raises(VerifyError, match="tile graph: tasks .* touch byte"):
        verify(family.tiled.graph, offsets)
