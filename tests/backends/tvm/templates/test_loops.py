"""Loops over iteration spaces: how they are cut into tiles, and that every element is computed once."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import effcc
from effcc.backends.tvm.lower import lower
from effcc.backends.tvm.templates.loops import CHAIN, TILE_ELEMENTS, Rows
from effcc.interp import run
from effcc.ir import Builder, Symbol, Tensor, f32, i32
from effcc.ir.dims import evaluate
from effcc.machine import host

N, M = Symbol("n", 0, 1 << 20), Symbol("m", 0, 1 << 20)


def compiled(make, *shapes, dtype=f32):
    b = Builder("loops")
    graph = b.graph(make(b, *(b.input(f"x{k}", Tensor(dtype, shape)) for k, shape in enumerate(shapes))))
    return graph, effcc.compile(graph)


@pytest.mark.parametrize("shape", [(), (1,), (7, 3), (5, TILE_ELEMENTS // 2), (2, 5 * TILE_ELEMENTS), (3, 0)])
def test_tiles_cover_a_static_space(shape):
    rows = Rows.cut(shape)
    outer, columns = int(np.prod(shape[:-1])), shape[-1] if shape else 1
    width = rows.columns_per_tile or columns
    assert rows.rows_per_tile * width <= 2 * TILE_ELEMENTS
    graph, program = compiled(lambda b, x: b.add(x, x), shape)
    for launch in lower(graph, host()).launches():
        assert evaluate(launch.tiles, {}) * rows.rows_per_tile * width >= outer * columns
    x = torch.arange(float(np.prod(shape))).reshape(shape)
    assert torch.equal(program(x)[0], x + x)


@pytest.mark.parametrize("sizes", [(0, 5), (1, 1), (3, 17), (40, 1000), (2, 3 * TILE_ELEMENTS + 5), (70_000, 1)])
def test_tiles_cover_a_symbolic_space(sizes):
    _, program = compiled(lambda b, x, y: b.add(x, b.transpose(y, perm=(1, 0))), (N, M), (M, N))
    x, y = torch.randn(sizes), torch.randn(sizes[::-1])
    assert torch.equal(program(x, y)[0], x + y.T)


def test_cheap_work_is_cut_into_larger_tiles():
    assert Rows.cut((1 << 20,), cost=1).columns_per_tile > Rows.cut((1 << 20,), cost=8).columns_per_tile


@pytest.mark.parametrize("shape", [(3, 200, 7), (1, 1, 1), (2, 300, 40), (4, 0, 3)])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_folds_along_each_axis(shape, axis):
    """Sums that keep the last axis run across vectors of columns; of integers they are exact."""
    graph, program = compiled(lambda b, x: b.sum(x, axes=(axis,)), shape, dtype=i32)
    x = torch.arange(int(np.prod(shape)), dtype=torch.int32).reshape(shape)
    assert torch.equal(program(x)[0], run(graph, x)[0])


def test_a_long_fold_is_precise():
    """Relative error of a chain of n additions of positive numbers: up to n half ulps (Higham, Accuracy and Stability
    of Numerical Algorithms, 4.2). Here chains of CHAIN are added, then their sums; 2^20 in one chain would err by 1 %.
    """
    n = 1 << 20
    _, program = compiled(lambda b, x: b.sum(x, axes=(0,)), (n, 2))
    x = torch.full((n, 2), 0.1)
    exact = x.double().sum(0)
    assert ((program(x)[0].double() - exact).abs() / exact).max() < (CHAIN + n / CHAIN) * 2**-24


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("shape", [(0, 3), (1, 3), (50, 3), (3, 50)])
def test_scans_keep_every_prefix(shape, reverse):
    graph, program = compiled(lambda b, x: b.cumsum(x, axis=0, reverse=reverse), shape, dtype=i32)
    x = torch.arange(int(np.prod(shape)), dtype=torch.int32).reshape(shape)
    assert torch.equal(program(x)[0], run(graph, x)[0])
