"""Magnitude pruning: which elements stay, which weights are left alone, and what calibration data mends."""

import numpy as np
import pytest

from effcc.analysis.weights import weights
from effcc.errors import ParseError
from effcc.interp import run
from effcc.ir import Builder, Tensor, f32
from effcc.ir.blob import Blob
from effcc.ir.location import Loc
from effcc.passes.magnitude import Magnitude
from effcc.passes.pruning import refitted
from effcc.pipeline import Context, parse_pass
from effcc.search.data import Samples
from effcc.testing import check


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def layers(*arrays: np.ndarray):
    b = Builder("layers")
    y = b.input("x", Tensor(f32, (4, arrays[0].shape[0])))
    for k, array in enumerate(arrays):
        b.loc = Loc(name=f"layer{k}")
        y = b.matmul(y, b.const(Blob(array)))
    return b.graph(y)


def pruned(p, graph, ctx=None):
    return [w.array for w in weights(p.run(graph, ctx or Context()))]


def test_the_largest_stay():
    w = normal(40, 50)
    (found,) = pruned(Magnitude(density=0.3), layers(w))
    kept = found != 0
    assert kept.sum() == 600 and np.array_equal(found[kept], w[kept])
    assert np.abs(w[kept]).min() >= np.abs(w[~kept]).max()


def test_ties_give_the_number_asked_for():
    (found,) = pruned(Magnitude(density=0.25), layers(np.ones((32, 32), np.float32)))
    assert (found != 0).sum() == 256


def test_one_threshold_for_all_keeps_more_of_larger_layers():
    small, large = normal(32, 32), 10 * normal(32, 32, seed=1)
    a, b = pruned(Magnitude(density=0.5, scope="global"), layers(small, large))
    assert (a != 0).sum() + (b != 0).sum() == 1024 and (b != 0).sum() > 850
    a, b = pruned(Magnitude(density=0.5), layers(small, large))
    assert (a != 0).sum() == (b != 0).sum() == 512


def test_what_is_left_alone_is_told():
    graph, ctx = layers(normal(32, 32), normal(32, 40), normal(40, 3)), Context()
    out = Magnitude(density=0.1, skip=("layer1",)).run(graph, ctx)
    counts = [(w.array != 0).sum() for w in weights(out)]
    assert counts == [103, 32 * 40, 40 * 3]
    assert sorted(r.reason for r in ctx.refusals) == [
        "it has 120 elements, fewer than min-size=1024", "skip= names its location"]


def test_everything_kept_is_the_same_graph():
    graph = layers(normal(32, 32))
    assert Magnitude(density=1.0).run(graph, Context()) is graph
    once = Magnitude(density=0.4).run(graph, Context())
    assert Magnitude(density=0.4).run(once, Context()) is once


def test_the_mean_of_the_outputs_is_kept():
    w = normal(64, 48)
    graph = layers(w)
    x = (normal(40, 64, seed=1) + 2).astype(np.float32)
    ctx = Context(calibration=Samples.load({"x": x}, graph))
    before, after = graph, Magnitude(density=0.2).run(graph, ctx)
    uncorrected = Magnitude(density=0.2, correct="none").run(graph, ctx)
    shifted = Magnitude(density=0.2, correct="shift").run(graph, ctx)
    np.testing.assert_array_equal(weights(shifted)[0].array, weights(uncorrected)[0].array)

    def mean(g):
        return np.concatenate([run(g, part)[0].numpy() for part in np.split(x, 10)]).mean(0)

    for corrected in (after, shifted):
        np.testing.assert_allclose(mean(corrected), mean(before), atol=1e-3)
    assert np.abs(mean(uncorrected) - mean(before)).max() > 1


@pytest.mark.parametrize("form", ["KN", "NK", "conv"])
def test_refitted_weights_lose_less(form):
    """Inputs that lie in a space of few dimensions: what the pruned weights did, those that stay can do."""
    w = normal(64, 48)
    b = Builder("refit")
    x = b.input("x", Tensor(f32, (100, 64)))
    stored = b.const(Blob(w if form == "KN" else np.ascontiguousarray(w.T)))
    if form == "conv":
        point = {"strides": (1, 1), "pads": (0,) * 4, "dilations": (1, 1)}
        kernel = b.const(Blob(np.ascontiguousarray(w.T).reshape(48, 64, 1, 1)))
        y = b.reshape(b.conv(b.reshape(x, shape=(100, 64, 1, 1)), kernel, **point), shape=(100, 48))
    else:
        y = b.matmul(x, stored, transpose_b=form == "NK")
    graph = b.graph(y)
    samples = normal(400, 8, seed=1) @ normal(8, 64, seed=2) + 1
    ctx = Context(calibration=Samples.load({"x": samples}, graph))
    wanted = samples[:100] @ w
    errors = {}
    for correct in ("none", "shift", "refit"):
        out = Magnitude(density=0.3, correct=correct).run(graph, ctx)
        (found,) = weights(out)
        assert (found.array != 0).sum() <= np.ceil(0.3 * w.size)
        errors[correct] = float(np.square(run(out, samples[:100])[0].numpy() - wanted).mean())
    assert errors["refit"] < 0.05 * errors["shift"] < 0.05 * errors["none"]


def test_auto_refits_where_that_takes_seconds(monkeypatch):
    graph = layers(normal(64, 48))
    ctx = Context(calibration=Samples.load({"x": normal(40, 64, seed=1)}, graph))
    refit, auto = (Magnitude(density=0.2, correct=c).run(graph, ctx) for c in ("refit", "auto"))
    assert auto == refit and not ctx.refusals
    monkeypatch.setattr("effcc.passes.pruning.REFIT_FLOPS", 1e3)
    assert Magnitude(density=0.2).run(graph, ctx) == Magnitude(density=0.2, correct="shift").run(graph, ctx)
    assert "ask by correct=refit" in next(iter(ctx.refusals)).reason


def test_refitting_is_the_least_squares_solution():
    matrix, mask, x = normal(12, 5).astype(float), normal(12, 5, seed=1) > 0, normal(200, 12, seed=2).astype(float)
    x -= x.mean(0)
    found = refitted(matrix, mask, x.T @ x / len(x))
    for j in range(5):
        best = np.linalg.lstsq(x[:, mask[:, j]], x @ matrix[:, j], rcond=None)[0]
        np.testing.assert_allclose(found[mask[:, j], j], best, atol=0.05)
        assert not found[~mask[:, j], j].any()


@pytest.mark.parametrize("stride", [1, 2])
def test_convolutions_are_pruned_and_corrected(stride):
    b = Builder("conv")
    image = b.input("x", Tensor(f32, (2, 16, 8, 8)))
    w = normal(32, 16, 3, 3)
    y = b.conv(image, b.const(Blob(w)), strides=(stride, stride), pads=(0, 0, 0, 0), dilations=(1, 1))
    graph = b.graph(y)
    x = np.broadcast_to(normal(2, 16, 1, 1, seed=1), (2, 16, 8, 8)) + 0  # constant planes: the shift is exact
    x[1] = x[0]
    ctx = Context(calibration=Samples.load({"x": x}, graph))
    after = Magnitude(density=0.1).run(graph, ctx)
    assert (weights(after)[0].array != 0).sum() == np.ceil(w.size * 0.1)
    np.testing.assert_allclose(run(after, x)[0], run(graph, x)[0], atol=1e-3)


def test_options_are_checked():
    assert parse_pass("magnitude:density=0.3:scope=global:skip=head+embed") == Magnitude(
        density=0.3, scope="global", skip=("head", "embed"))
    with pytest.raises(ParseError, match="density=1.5 is not between 0 and 1"):
        parse_pass("magnitude:density=1.5")
    with pytest.raises(ParseError, match="none of auto, none, shift, refit"):
        parse_pass("magnitude:correct=true")
    with pytest.raises(ParseError, match="neither local nor global"):
        parse_pass("magnitude:scope=all")


def test_its_contract():
    assert check(Magnitude(), examples=30, must_fire=True).fired
