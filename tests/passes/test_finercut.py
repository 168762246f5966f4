"""finercut: a planted zero sublayer goes first; a zeroed sublayer is its removal; distances; calibration is needed."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from effcc.analysis.precision import widen
from effcc.analysis.transformer import ATTENTION, sublayers
from effcc.errors import EffccError, InputError
from effcc.interp import run
from effcc.ir import Builder, Tensor, f32, verify
from effcc.passes.finercut import DISTANCES, FinerCut, without
from effcc.pipeline import Context, parse_pass
from effcc.search.data import Samples
from effcc.testing import check

WIDTH, TOKENS = 8, 5


def gpt(depth=3, zero=(), post=False):
    """Causal blocks (pre-norm unless `post`); sublayers in `zero` give nothing."""
    b = Builder("gpt")
    draw = np.random.default_rng(0)
    x = b.input("x", Tensor(f32, (2, TOKENS, WIDTH)))

    def linear(v, factor=1.0):
        return b.matmul(v, b.const((factor * draw.standard_normal((WIDTH, WIDTH)) / 3).astype("f4")))

    def heads(v):
        return b.transpose(b.reshape(linear(v), shape=(2, TOKENS, 2, WIDTH // 2)), perm=(0, 2, 1, 3))

    for k in range(2 * depth):
        h = x if post else b.layer_norm(x, axis=2)
        factor = 0.0 if k in zero else 1.0
        if k % 2 == 0:
            y = b.transpose(b.attention(heads(h), heads(h), heads(h), causal=True), perm=(0, 2, 1, 3))
            y = linear(b.reshape(y, shape=(2, TOKENS, WIDTH)), factor)
        else:
            y = linear(b.gelu(linear(h), approximate="none"), factor)
        x = b.add(x, y)
        x = b.layer_norm(x, axis=2) if post else x
    return b.graph(linear(x))


def samples(graph, count=4):
    array = np.random.default_rng(1).standard_normal((count, TOKENS, WIDTH)).astype("f4")
    return Samples.load({"x": array}, graph)


def cut(text, graph, **context):
    ctx = Context(calibration=samples(graph), **context)
    out = parse_pass(text).run(graph, ctx)
    verify(out)
    return out, ctx


def test_contract():
    assert check(FinerCut(), examples=20, must_fire=True).fired


def test_n_0_is_the_identity():
    graph = gpt()
    assert FinerCut(n=0).run(graph, Context()) is graph


@pytest.mark.parametrize("post", [False, True])
@pytest.mark.parametrize("distance", sorted(DISTANCES))
@pytest.mark.parametrize("planted", [0, 3, 5])
def test_a_planted_zero_sublayer_goes_first(planted, distance, post):
    graph = gpt(zero=(planted,), post=post)
    chosen = sublayers(graph)[planted]
    ctx = Context(calibration=samples(graph))
    ((first, far), *_) = FinerCut(distance=distance).ranking(graph, list(sublayers(graph)), 2, ctx)
    assert first is not None and first.add is chosen.add
    assert far < 1e-6


def test_a_zeroed_sublayer_is_its_removal():
    x = torch.randn(2, TOKENS, WIDTH, dtype=torch.float64)
    for post in (False, True):
        zeroed, whole = gpt(zero=(2,), post=post), gpt(post=post)
        removed = without(whole, [sublayers(whole)[2]])
        assert torch.equal(run(widen(zeroed), x)[0], run(widen(removed), x)[0])
        gone = len(whole.nodes) - len(removed.nodes)
        assert gone > 8 and not any(n.op.name == "attention" for n in removed.nodes[7:12])


def test_what_is_removed_is_dead():
    graph = gpt()
    assert [s.kind for s in sublayers(graph)] == ["attention", "mlp"] * 3
    out, ctx = cut("finercut:n=3:sublayers=attention", graph)
    assert len(ctx.log) == 3 and not any(n.op.name == "attention" for n in out.nodes)
    out, _ = cut("finercut:n=0:fraction=1", graph)
    assert [n.op.name for n in out.nodes] == ["const", "matmul"]


def test_the_greedy_choice_is_the_best_of_each_step():
    """Against trying all pairs of a first and a second removal by hand."""
    graph = gpt()
    data, candidates = samples(graph), list(sublayers(graph))
    ranked = FinerCut(distance="l2").ranking(graph, candidates, 2, Context(calibration=data))
    batches = list(data.batches())

    def far(removed):
        return sum((run(graph, *b)[0].double() - run(without(graph, removed), *b)[0].double()).norm(dim=-1).mean()
                   for b in batches) / len(batches)

    first = min(candidates, key=lambda s: far([s]))
    second = min((s for s in candidates if s is not first), key=lambda s: far([first, s]))
    assert [s for s, _ in ranked] == [first, second]
    assert ranked[1][1] == pytest.approx(float(far([first, second])), rel=1e-6)


def test_the_front_is_protected_until_as_many_others_are_gone():
    graph = gpt()
    candidates = list(sublayers(graph))
    ctx = Context(calibration=samples(graph))
    ranked = [candidates.index(s) for s, _ in FinerCut(front=0.34).ranking(graph, candidates, 5, ctx)]
    assert set(ranked[:3]).isdisjoint({0, 1}) and len(ranked) == 5


def test_distances():
    a = torch.tensor([[0.0, 0.0], [1.0, 0.0]], dtype=torch.float64)
    b = torch.tensor([[0.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    p, q = a.softmax(-1)[1], b.softmax(-1)[1]
    m = (p + q) / 2
    kl = float((p * (p / q).log()).sum())
    js = float(((p * (p / m).log()).sum() + (q * (q / m).log()).sum()) / 2)
    assert DISTANCES["kl"](a, b).tolist() == pytest.approx([0, kl])
    assert DISTANCES["js"](a, b).tolist() == pytest.approx([0, js])
    assert DISTANCES["l2"](a, b).tolist() == pytest.approx([0, 2**0.5])
    assert DISTANCES["angular"](a[1:], b[1:]).tolist() == pytest.approx([0.5])


def test_calibration_is_needed():
    with pytest.raises(InputError, match="calibration"):
        FinerCut().run(gpt(), Context())


def test_fuel():
    graph = gpt()
    _, ctx = cut("finercut:n=3", graph, fuel=1)
    assert len(ctx.log) == 1


def test_a_graph_without_sublayers_is_refused():
    b = Builder()
    graph = b.graph(b.neg(b.input("x", Tensor(f32, (2, 3)))))
    ctx = Context()
    assert FinerCut().run(graph, ctx) is graph
    assert [r.reason for r in ctx.refusals] == ["no sublayer found: x + f(x) with attention or a matmul in f"]


@pytest.mark.parametrize("text", ["finercut:n=-1", "finercut:distance=cosine", "finercut:sublayers=conv"])
def test_options_that_make_no_sense(text):
    with pytest.raises(EffccError):
        parse_pass(text)


def test_only_attention():
    graph = gpt()
    _, ctx = cut(f"finercut:n=2:sublayers={ATTENTION}", graph)
    assert len(ctx.log) == 2
