"""int8-weights, and what it shares with int4-weights: which constants are rounded, what is refused, how far results
move."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from effcc.errors import InputError
from effcc.interp import run
from effcc.ir import Builder, Graph, Tensor
from effcc.ir.types import f32, i64
from effcc.passes.int8_weights import Int8Weights
from effcc.passes.weight_rounding import Grid, deviation, round_weights
from effcc.pipeline import Context, parse_pass
from effcc.testing import check

GRIDS = [
    Grid(8), Grid(8, 32), Grid(8, asymmetric=True), Grid(4, 32), Grid(4, 64, True), Grid(4, 32, search=True),
    Grid(4, 128, True, True, "float16"), Grid(4, 32, scales="float16"),
]  # fmt: skip


def weights(k: int, n: int) -> np.ndarray:
    """With a column of zeros, and one of large numbers."""
    w = np.random.default_rng(k).standard_normal((k, n)).astype("f4")
    w[:, 1], w[:, 2] = 0, 100 * w[:, 2]
    return w


def product(w: np.ndarray, transposed: bool = False) -> Graph:
    b = Builder()
    x = b.input("x", Tensor(f32, (5, w.shape[0])))
    return b.graph(b.matmul(x, b.const(np.ascontiguousarray(w.T) if transposed else w), transpose_b=transposed))


def reasons(graph: Graph, options: str = "") -> list[str]:
    """Why nothing is rounded."""
    ctx = Context()
    assert parse_pass(f"int8-weights{options}").run(graph, ctx) is graph
    return [refusal.reason for refusal in ctx.refusals]


def test_its_contract() -> None:
    assert check(Int8Weights(gathers=True), examples=30, must_fire=True).fired
    assert check(Int8Weights(group=32, asymmetric=True, scales="f16"), examples=15, must_fire=True).fired


@pytest.mark.parametrize("grid", GRIDS, ids=str)
@pytest.mark.parametrize("k,n", [(64, 8), (100, 70)])
def test_weights_move_by_half_of_their_scale(grid: Grid, k: int, n: int) -> None:
    w = weights(k, n)
    rounded = round_weights(w, grid)
    scale = np.repeat(rounded.scale.astype("f8"), rounded.group, 0)[:k]
    zero = 0 if rounded.zero is None else np.repeat(rounded.zero.astype("f8"), rounded.group, 0)[:k]
    moved = np.abs((rounded.q - zero) * scale - w)
    assert (moved <= deviation(w, rounded) * (1 + 1e-6)).all()
    assert grid.search or (moved <= scale / 2 * (1 + 1e-6)).all()
    np.testing.assert_allclose(rounded.restored(), (rounded.q - zero) * scale, rtol=1e-6)


@pytest.mark.parametrize("bits,group", [(4, 32), (4, 128), (2, 0)])
def test_the_search_lessens_the_squared_error(bits: int, group: int) -> None:
    w = weights(128, 40)
    plain, searched = (
        np.square(round_weights(w, Grid(bits, group, search=s)).restored() - w).sum() for s in (False, True)
    )
    assert searched < plain


@pytest.mark.parametrize("options", ["", ":group=64", ":asymmetric=true", ":group=32:search=mse:scales=f16"])
@pytest.mark.parametrize("transposed", [False, True])
def test_a_product_moves_by_no_more_than_derived(options: str, transposed: bool) -> None:
    """|y - y_fp| <= |x| @ dW, in f64."""
    p = parse_pass(f"int8-weights{options}")
    w = weights(96, 50)
    graph = product(w, transposed)
    after = p.run(graph, Context())
    x = np.random.default_rng(1).standard_normal((5, 96)).astype("f4")
    node = after.producer(after.results[0])
    assert node is not None
    rounded = run(Graph("w", (), after.nodes[:-1], (node.operands[1],)))[0].double().numpy()
    moved = np.abs(x.astype("f8") @ (rounded.T if transposed else rounded) - x.astype("f8") @ w)
    bound = np.abs(x).astype("f8") @ deviation(w, round_weights(w, p.grid))  # type: ignore[attr-defined]
    assert (moved <= bound * (1 + 1e-6)).all() and moved.max() > 0
    np.testing.assert_allclose(run(after, x)[0], x @ (rounded.T if transposed else rounded), rtol=1e-4, atol=1e-3)


def test_weights_on_the_grid_stay() -> None:
    generator = np.random.default_rng(0)
    q = generator.integers(-127, 128, (64, 32))
    q[0] = 127
    w = (q * 2.0 ** generator.integers(-9, 3, 32)).astype("f4")
    graph = product(w)
    x = generator.standard_normal((5, 64)).astype("f4")
    after = Int8Weights().run(graph, Context())
    assert after is not graph
    torch.testing.assert_close(run(after, x)[0], run(graph, x)[0], rtol=0, atol=0)


def test_a_tied_embedding_is_one_constant_of_integers() -> None:
    b = Builder()
    table = b.const(weights(100, 64))
    rows = b.gather(table, b.input("i", Tensor(i64, (1, 3))), axis=0)
    graph = b.graph(b.matmul(rows, table, transpose_b=True))
    after = parse_pass("cse").run(Int8Weights(gathers=True).run(graph, Context()), Context())
    sizes = [n.op.blob.type for n in after.nodes if n.op.name == "const" and n.op.blob.type.size > 100]  # type: ignore
    assert [str(t) for t in sizes] == ["i8[100,64]"]
    index = np.array([[0, 99, 5]])
    near, exact = run(after, index)[0], run(graph, index)[0]
    assert (near - exact).norm() < 0.02 * exact.norm()
    untouched = Int8Weights().run(graph, Context())
    assert [n.operands[0].dtype for n in untouched.nodes if n.op.name == "gather"] == [f32]


def test_what_is_refused_and_why() -> None:
    w = weights(64, 32)
    assert reasons(product(w[:, :4])) == ["the weight has only 256 elements (min_elements=1024)"]
    assert reasons(product(weights(8, 200))) == [
        "only 8 products are summed, and a scale for fewer than 16 saves nothing"]
    assert reasons(product(w[:40].copy()), ":group=64") == [
        "only 40 products are summed, and a scale for fewer than 64 saves nothing"]
    assert reasons(product(np.where(w > 2, np.inf, w).astype("f4"))) == ["the weight is not finite"]
    assert reasons(product(w.astype("f8").astype("f2").astype("f4") * 1000), ":scales=f16") == [
        "the weight is too large for scales in f16 (scales=f32)"]
    b = Builder()
    c = b.const(w)
    shared = b.graph(b.add(b.matmul(b.input("x", Tensor(f32, (64, 64))), c), c))
    assert reasons(shared) == ["the weight is also read by add"]


@pytest.mark.parametrize("text,message", [
    ("int8-weights:group=48", "group=48"), ("int8-weights:search=best", "search=best"),
    ("int8-weights:scales=bf16", "scales=bf16"),
])  # fmt: skip
def test_options_are_checked(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_pass(text)


def test_fuel_counts_each_weight() -> None:
    b = Builder()
    x: Any = b.input("x", Tensor(f32, (1, 64)))
    for k in range(3):
        x = b.matmul(x, b.const(weights(64, 64) + k))
    ctx = Context(fuel=2)
    after = Int8Weights().run(b.graph(x), ctx)
    assert [n.op.name for n in after.nodes].count("dequantize_linear") == 2 == len(ctx.log)
