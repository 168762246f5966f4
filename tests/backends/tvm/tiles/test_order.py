import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from effcc.backends.tvm.tiles.graph import TileGraph
from effcc.backends.tvm.tiles.order import Arena, ancestors, launches_before, pack


def graph(launches, edges):
    """Tasks as the numbers of their launches; edges as (before, after)."""
    edges = sorted(edges)
    n = len(launches)
    starts = np.concatenate(([0], np.cumsum(np.bincount([a for a, _ in edges], minlength=n))))
    zeros = np.zeros(n, np.int32)
    steps = (None,) * (max(launches) + 1)
    return TileGraph(steps, np.array(launches), zeros, zeros, starts, np.array([b for _, b in edges], np.int32))


def test_ancestors_go_all_the_way_back():
    g = graph([0, 0, -1, 1, 2], [(0, 2), (1, 2), (2, 3), (3, 4)])
    bits = np.unpackbits(ancestors(g), axis=1, count=5).tolist()
    assert bits == [[0, 0, 0, 0, 0], [0, 0, 0, 0, 0], [1, 1, 0, 0, 0], [1, 1, 1, 0, 0], [1, 1, 1, 1, 0]]


def test_a_launch_precedes_another_only_if_all_its_tasks_precede_all_of_the_others():
    g = graph([0, 0, 1, 1, 2], [(0, 2), (1, 2), (1, 3), (2, 4), (3, 4)])
    assert launches_before(g).tolist() == [[False, False, True], [False, False, True], [False, False, False]]


@given(st.data())
def test_buffers_that_meet_do_not_overlap(data):
    count = data.draw(st.integers(0, 12))
    sizes = data.draw(st.lists(st.integers(0, 700), min_size=count, max_size=count))
    meets = np.zeros((count, count), bool)
    for i in range(count):
        for j in range(i):
            meets[i, j] = meets[j, i] = data.draw(st.booleans())
    offsets, arena = pack(sizes, meets)
    for i in range(count):
        assert offsets[i] % 64 == 0 and offsets[i] + sizes[i] <= arena
        for j in range(i):
            if meets[i, j]:
                low, high = max(offsets[i], offsets[j]), min(offsets[i] + sizes[i], offsets[j] + sizes[j])
                assert high <= low


def test_where_both_begin_together_buffers_in_step_share_bytes():
    meets = ~np.eye(3, dtype=bool)
    assert pack([640, 640, 320], meets)[1] == 1600
    offsets, arena = pack([640, 640, 320], meets, lambda i, j: {i, j} == {0, 2})
    assert (offsets, arena) == ([0, 640, 0], 1280)


@pytest.mark.parametrize("family", ["conv_chain"], indirect=True)
def test_lines_follow_lines(family):
    """A chain of convolutions reuses memory line by line, which whole buffers' order would not allow."""
    graph = family.tiled.graph
    arena = Arena(graph, list(family.tiled.offsets))
    assert family.tiled.arena < pack(arena.sizes, arena.meets())[1]
