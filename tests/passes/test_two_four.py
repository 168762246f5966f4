"""2:4 pruning: two of each four along K stay, by magnitude or by what the weights are multiplied with."""

import numpy as np
import pytest

from effcc.analysis.weights import weights
from effcc.ir import Builder, Tensor, f32
from effcc.ir.blob import Blob
from effcc.ir.encodings import as_fours, encode, two_four
from effcc.passes.two_four import TwoFour
from effcc.pipeline import Context
from effcc.search.data import Samples
from effcc.testing import check


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def layer(w: np.ndarray, turned: bool = False):
    b = Builder("layer")
    x = b.input("x", Tensor(f32, (4, w.shape[1 if turned else 0])))
    return b.graph(b.matmul(x, b.const(Blob(w)), transpose_b=turned))


def after(graph, ctx=None, **options):
    return weights(TwoFour(**options).run(graph, ctx or Context()))[0].array


@pytest.mark.parametrize("turned", [False, True])
def test_two_of_four_along_k(turned):
    w = normal(64, 32)
    found = after(layer(w, turned))
    axis = 1 if turned else 0
    fours, old = as_fours(found, axis), as_fours(w, axis)
    assert ((fours != 0).sum(2) == 2).all()
    assert (np.where(fours != 0, np.abs(old), np.inf).min(2) >= np.where(fours == 0, np.abs(old), 0).max(2)).all()
    encode(found, two_four(axis))


def test_calibration_weighs_by_the_norm_of_the_activations():
    w = np.tile(np.array([[4.0], [3.0], [2.0], [1.0]], np.float32), (16, 32))
    x = np.tile(np.array([1, 1, 4, 8], np.float32), (8, 16))  # |w| * norm: 4, 3, 8, 8
    graph = layer(w)
    ctx = Context(calibration=Samples.load({"x": x}, graph))
    kept = as_fours(after(graph, ctx), 0) != 0
    assert kept[0, :, :, 0].tolist() == [[False, False, True, True]] * 16
    kept = as_fours(after(graph, ctx, score="magnitude"), 0) != 0
    assert kept[0, :, :, 0].tolist() == [[True, True, False, False]] * 16


def test_refusals():
    ctx = Context()
    graph = layer(normal(33, 40))
    assert TwoFour().run(graph, ctx) is graph
    graph = layer(normal(32, 40))
    assert TwoFour(score="wanda").run(graph, ctx) is graph
    assert [r.reason for r in ctx.refusals] == [
        "K = 33 is no multiple of 4", "score=wanda needs calibration data (calibration=)"]
    with pytest.raises(ValueError, match="score='best'"):
        TwoFour(score="best")


def test_weights_that_have_the_pattern_stay():
    graph = TwoFour().run(layer(normal(64, 32)), Context())
    assert TwoFour().run(graph, Context()) is graph


def test_its_contract():
    assert check(TwoFour(), examples=30, must_fire=True).fired
