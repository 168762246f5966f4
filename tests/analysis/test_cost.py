import pytest

from effcc.analysis.cost import Cost, bytes_of, cost, live_ranges, node_cost, peak_bytes
from effcc.ir import Builder, Symbol, Tensor, f32

B = Symbol("B", 1, 8)


def two_layers():
    b = Builder()
    x, w = b.input("x", Tensor(f32, (B, 4))), b.input("w", Tensor(f32, (4, 4)))
    y = b.matmul(x, w)
    z = b.relu(b.transpose(y, perm=(1, 0)))
    return b.graph(z), x, y, z


def test_costs_are_expressions_until_sizes_are_known():
    g, *_ = two_layers()
    whole = cost(g)
    assert whole.flops == B * 36 and whole.bytes == B * 32 + 64 + B * 32
    assert cost(g, {B: 2}) == Cost(72, 192)
    assert cost(g, {B: 2}).intensity == pytest.approx(0.375)
    assert node_cost(g.nodes[1]) == Cost(0, 0)


def test_an_operand_read_twice_is_read_once():
    b = Builder()
    x = b.input("x", Tensor(f32, (8,)))
    g = b.graph(b.add(x, x))
    assert node_cost(g.nodes[0]) == Cost(8, 64) and bytes_of(g.values) == 64


def test_live_ranges_and_their_peak():
    g, x, y, z = two_layers()
    ranges = live_ranges(g)
    assert (ranges[x].start, ranges[x].end) == (-1, 0)
    assert (ranges[y].start, ranges[y].end) == (0, 1)
    assert (ranges[z].start, ranges[z].end) == (2, 3)
    assert peak_bytes(g, {B: 2}) == 32 and peak_bytes(g) == 128


def test_values_that_live_together_add_up():
    b = Builder()
    x = b.input("x", Tensor(f32, (4,)))
    y, z = b.exp(x), b.neg(x)
    assert peak_bytes(b.graph(b.add(y, z))) == 48
