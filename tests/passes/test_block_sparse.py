"""Block pruning: which blocks stay, by magnitude and by first-order saliency."""

import numpy as np
import pytest

from effcc.analysis.weights import weights
from effcc.interp import run
from effcc.ir import Builder, Tensor, f32
from effcc.ir.blob import Blob
from effcc.ir.encodings import as_blocks
from effcc.passes.block_sparse import BlockSparse
from effcc.pipeline import Context
from effcc.search.data import Samples
from effcc.testing import check


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def layer(w: np.ndarray, turned: bool = False):
    b = Builder("layer")
    x = b.input("x", Tensor(f32, (4, w.shape[1 if turned else 0])))
    return b.graph(b.matmul(x, b.const(Blob(w)), transpose_b=turned))


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("block", [(16, 16), (32, 8), (1, 32), (5, 7)])
def test_the_blocks_of_the_largest_sums_stay(block, turned):
    matrix = normal(64, 96)
    graph = layer(np.ascontiguousarray(matrix.T) if turned else matrix, turned)
    p = BlockSparse(density=0.3, block="x".join(map(str, block)))
    (w,) = weights(p.run(graph, Context()))
    after = as_blocks(w.as_matrix(w.array), block)
    kept = after.any(axis=(2, 3))
    sums = np.abs(as_blocks(matrix, block)).sum((2, 3))
    assert kept.sum() == np.ceil(kept.size * 0.3) and sums[kept].min() >= sums[~kept].max()
    assert np.array_equal(after[kept], as_blocks(matrix, block)[kept])


def test_saliency_keeps_what_moves_the_outputs():
    """The second half of K meets inputs a hundred times as large: its weights matter more, small as they are."""
    w = normal(64, 32)
    w[32:] *= 0.1
    x = normal(16, 64, seed=1)
    x[:, 32:] *= 100
    graph = layer(w)
    ctx = Context(calibration=Samples.load({"x": x}, graph))
    held = {}
    for score in ("auto", "magnitude"):
        out = BlockSparse(density=0.5, block="16x32", score=score).run(graph, ctx)
        held[score] = weights(out)[0].array.reshape(4, -1).any(axis=1).tolist()
        error = np.abs(run(out, x[:4])[0].numpy() - run(graph, x[:4])[0].numpy()).max()
        assert (error < 20) == (score == "auto")
    assert held == {"auto": [False, False, True, True], "magnitude": [True, True, False, False]}


def test_point_convolutions_are_matrices_and_others_are_refused():
    b = Builder("convs")
    x = b.input("x", Tensor(f32, (1, 32, 6, 6)))
    options = {"strides": (1, 1), "pads": (0, 0, 0, 0), "dilations": (1, 1)}
    y = b.conv(b.conv(x, b.const(Blob(normal(64, 32, 1, 1))), **options), b.const(Blob(normal(8, 64, 3, 3))), **options)
    ctx = Context()
    first, second = weights(BlockSparse(density=0.25).run(b.graph(y), ctx))
    assert as_blocks(first.as_matrix(first.array), (16, 16)).any(axis=(2, 3)).sum() == 2
    assert second.array.all() and [r.reason for r in ctx.refusals] == ["it is no matrix: blocks are of [K, N]"]


def test_options_are_checked():
    for wrong in ("16", "16x64", "0x4", "axb"):
        with pytest.raises(ValueError, match="is not two sizes from 1 to 32"):
            BlockSparse(block=wrong)
    with pytest.raises(ValueError, match="score="):
        BlockSparse(score="loud")
    ctx, graph = Context(), layer(normal(32, 32))
    assert BlockSparse(score="saliency").run(graph, ctx) is graph
    assert "needs calibration data" in next(iter(ctx.refusals)).reason


def test_its_contract():
    assert check(BlockSparse(), examples=30, must_fire=True).fired


def test_without_gradients_magnitudes_decide():
    w = normal(64, 96)
    b = Builder("classes")
    graph = b.graph(b.argmax(b.matmul(b.input("x", Tensor(f32, (4, 64))), b.const(Blob(w))), axis=1))
    ctx = Context(calibration=Samples.load({"x": normal(8, 64, seed=1)}, graph))
    after = BlockSparse(density=0.3, correct="none").run(graph, ctx)
    wanted = BlockSparse(density=0.3, correct="none", score="magnitude").run(graph, Context())
    assert after == wanted and after != graph
    assert any("no result has a gradient" in refusal.reason for refusal in ctx.refusals)
