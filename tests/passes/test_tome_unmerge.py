"""tome-unmerge: shapes stay, ratio 0 is the identity, copies of their destinations lose nothing; cells, masks."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from effcc.analysis.precision import widen
from effcc.analysis.transformer import streams, token_axis
from effcc.errors import EffccError
from effcc.interp import run
from effcc.ir import Builder, Tensor, bool_, f32, verify
from effcc.passes.token_merging import Merge, copy_rows, match, mean_rows
from effcc.passes.tome_unmerge import TomeUnmerge
from effcc.pipeline import Context, parse_pass
from effcc.testing import check

WIDTH = 8


def bert(tokens, mask=False, index=None, shared=False):
    """Two post-norm blocks; the result is every token. shared: the second's keys are what the first attends to."""
    b = Builder("bert")
    draw = np.random.default_rng(0)
    x = b.input("x", Tensor(f32, (1, tokens, WIDTH)))
    masks = [b.input("mask", Tensor(bool_, (1, 1, 1, tokens)))] if mask else []
    x = x if index is None else b.gather(x, b.const(np.asarray(index, "i8")), axis=1)
    n = x.shape[1]

    def linear(v):
        return b.matmul(v, b.const((draw.standard_normal((v.shape[-1], WIDTH)) / 3).astype("f4")))

    def heads(v):
        return b.transpose(b.reshape(v, shape=(1, n, 2, WIDTH // 2)), perm=(0, 2, 1, 3))

    y = None
    for _ in range(2):
        keys = y if shared and y is not None else heads(linear(x))
        y = b.attention(heads(linear(x)), keys, heads(linear(x)), *masks)
        x = b.layer_norm(b.add(x, linear(b.reshape(b.transpose(y, perm=(0, 2, 1, 3)), shape=(1, n, WIDTH)))), axis=2)
        x = b.layer_norm(b.add(x, linear(b.gelu(linear(x), approximate="none"))), axis=2)
    return b.graph(x)


def applied(text, graph):
    ctx = Context()
    out = parse_pass(text).run(graph, ctx)
    verify(out)
    return out, ctx


def random(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_contract():
    assert check(TomeUnmerge(), examples=24, must_fire=True).fired
    assert check(TomeUnmerge(sublayers=("attention", "mlp"), seed=1, ratio=0.9), examples=12).fired


def test_ratio_0_is_the_identity():
    graph = bert(8)
    assert applied("tome-unmerge:ratio=0", graph)[0] is graph


def test_the_output_keeps_its_shape_and_merged_tokens_are_copies():
    graph, ctx = applied("tome-unmerge:ratio=0.5:height=1:sublayers=attention+mlp", bert(8))
    assert len(ctx.log) == 4
    (out,) = run(widen(graph), random(1, 8, WIDTH))
    assert out.shape == (1, 8, WIDTH)
    inside = {v.shape for n in graph.nodes for v in n.results if n.op.name == "matmul"}
    assert (1, 4, WIDTH) in inside and (1, 8, WIDTH) not in inside


@pytest.mark.parametrize("sublayers", ["mlp", "attention+mlp"])
def test_copies_of_their_destinations_lose_nothing(sublayers):
    """Every token is there twice, so that every key is merged alike and the softmax stays what it was."""
    graph = bert(6, index=np.repeat(np.arange(6), 2))
    x = random(1, 6, WIDTH)
    changed, ctx = applied(f"tome-unmerge:ratio=0.5:height=1:sublayers={sublayers}", graph)
    assert ctx.log
    assert (run(widen(graph), x)[0] - run(widen(changed), x)[0]).abs().max() < 1e-12


def test_attention_to_what_is_not_merged_gives_all_tokens():
    """Its keys come from another layer, whole: what reads them has its own tokens put back, and nothing to restore."""
    graph = bert(8, shared=True)
    changed, ctx = applied("tome-unmerge:ratio=0.5:height=1:sublayers=attention", graph)
    assert ctx.log and any("reads tokens inside" in refusal.reason for refusal in ctx.refusals)
    assert run(widen(changed), random(1, 8, WIDTH))[0].shape == (1, 8, WIDTH)


def test_other_tokens_do():
    graph, x = bert(12), random(1, 12, WIDTH)
    changed, _ = applied("tome-unmerge:ratio=0.5:height=1", graph)
    assert (run(widen(graph), x)[0] - run(widen(changed), x)[0]).abs().max() > 1e-3


def test_the_block_s_input_is_the_metric_and_means_include_the_destination():
    """One merge by hand: cosine of rows, the best sources go, all of a group count alike."""
    b = Builder()
    x = b.input("x", Tensor(f32, (1, 6, WIDTH)))
    sources, targets = np.array([1, 3, 5]), np.array([0, 2, 4])
    merge = match(b, x, sources, targets, 2, None)
    mean, size = mean_rows(b, x, merge, None, padded=False)
    graph = b.graph(merge.target, mean, size, copy_rows(b, mean, Merge(merge.target, 6, 4)))
    rows = random(1, 6, WIDTH, seed=3)
    target, mean, size, back = (t[0].numpy() for t in run(widen(graph), rows))
    row = rows[0].numpy()
    unit = row / np.linalg.norm(row, axis=1, keepdims=True)
    scores = unit[sources] @ unit[targets].T
    gone = np.argsort(-scores.max(1))[:2]
    groups = [[s] for k, s in enumerate(sources) if k not in gone] + [[t] for t in targets]
    for k in gone:
        groups[1 + scores[k].argmax()].append(sources[k])
    for place, group in enumerate(groups):
        np.testing.assert_allclose(mean[place], row[group].mean(0), rtol=1e-12)
        assert size[place] == len(group) and (target[group] == place).all()
        np.testing.assert_allclose(back[group], np.broadcast_to(row[group].mean(0), (len(group), WIDTH)), rtol=1e-12)


def cells(text, tokens):
    graph = bert(tokens)
    (stream,) = streams(graph)
    return [list(x) for x in parse_pass(text).cells(token_axis(graph, stream))]  # type: ignore[attr-defined]


def test_cells():
    sources, targets = cells("tome-unmerge", 16)  # a square of 4 x 4
    assert targets == [0, 2, 8, 10] and sorted(sources + targets) == list(range(16))
    assert cells("tome-unmerge:sx=4:sy=1", 16)[1] == [0, 4, 8, 12]
    assert cells("tome-unmerge:height=2", 12)[1] == [0, 2, 4]
    assert cells("tome-unmerge", 7)[1] == [0, 2, 4]  # no square: one row
    assert cells("tome-unmerge:protect=1:height=1", 7) == [[2, 4, 6], [1, 3, 5]]
    drawn = cells("tome-unmerge:seed=5", 16)[1]
    assert drawn == cells("tome-unmerge:seed=5", 16)[1] and len(drawn) == 4
    assert {(t // 4 // 2, t % 4 // 2) for t in drawn} == {(0, 0), (0, 1), (1, 0), (1, 1)}


def test_padding_does_not_show():
    graph, ctx = applied("tome-unmerge:ratio=0.4:height=1:sublayers=attention", bert(12, mask=True))
    assert ctx.log
    keep = (torch.arange(12) < 8).reshape(1, 1, 1, 12)
    x = random(1, 12, WIDTH)
    other = torch.where(keep.reshape(1, 12, 1), x, -3 * x)
    a, b = (run(widen(graph), rows, keep)[0][:, :8] for rows in (x, other))
    # padding is a part of the stream's own metric, but never of a token's mean: only its own rows may differ
    assert (a - b).abs().max() < 1e-12


@pytest.mark.parametrize("text", ["tome-unmerge:ratio=2", "tome-unmerge:sx=0", "tome-unmerge:sublayers=all"])
def test_options_that_make_no_sense(text):
    with pytest.raises(EffccError):
        parse_pass(text)


def test_a_grid_that_does_not_fit_is_refused():
    graph = bert(8)
    out, ctx = applied("tome-unmerge:height=3", graph)
    assert out is graph
    assert [r.reason for r in ctx.refusals] == ["8 tokens do not fill a grid of 3 rows: give another height="]


def test_nothing_merges_where_all_tokens_are_protected():
    graph, ctx = bert(5), Context()
    assert TomeUnmerge(protect=5).run(graph, ctx) is graph
    assert "no tokens to merge" in next(iter(ctx.refusals)).reason
