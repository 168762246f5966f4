"""ToMe: equal to a plain NumPy transcription layer by layer; the duplicate-token oracle both ways; masks; refusals."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from effcc.analysis.cost import node_cost
from effcc.analysis.precision import widen
from effcc.errors import EffccError
from effcc.interp import run
from effcc.ir import Builder, Symbol, Tensor, bool_, f32, i64, verify
from effcc.passes.tome import Tome
from effcc.pipeline import Context, parse_pass
from effcc.testing import check

FOLDER = str(Path(__file__).parents[2] / "benchmarks")


@pytest.fixture
def tome_numpy(monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)
    import tome_numpy

    yield tome_numpy
    sys.modules.pop("tome_numpy", None)


HEADS, WIDTH = 2, 8


def vit(blocks, tokens, batch=1, each=True, eps=1e-12, mask=False, causal=False, index=None):
    """A graph of pre-norm blocks on f32[batch, tokens, WIDTH]; results: the stream behind each block, or token 0."""
    b = Builder("vit")
    x = b.input("x", Tensor(f32, (batch, tokens, WIDTH)))
    masks = [b.input("mask", Tensor(bool_, (batch, 1, 1, tokens)))] if mask else []
    x = x if index is None else b.gather(x, b.const(np.asarray(index, "i8")), axis=1)
    n, outs = x.shape[1], []

    def linear(v, parameters):
        return b.add(b.matmul(v, b.const(parameters[0].astype("f4"))), b.const(parameters[1].astype("f4")))

    def norm(v, parameters):
        return b.layer_norm(v, *(b.const(p.astype("f4")) for p in parameters), axis=2, eps=eps)

    def heads(v):
        return b.transpose(b.reshape(v, shape=(batch, n, HEADS, WIDTH // HEADS)), perm=(0, 2, 1, 3))

    for block in blocks:
        h = norm(x, block.norm1)
        y = b.attention(*(heads(linear(h, w)) for w in (block.q, block.k, block.v)), *masks, causal=causal)
        y = b.reshape(b.transpose(y, perm=(0, 2, 1, 3)), shape=(batch, n, WIDTH))
        x = b.add(x, linear(y, block.o))
        h = b.gelu(linear(norm(x, block.norm2), block.up), approximate="none")
        x = b.add(x, linear(h, block.down))
        outs.append(x)
    if each:
        return b.graph(b.slice(x, starts=(0, 0, 0), stops=(batch, 1, WIDTH), steps=(1, 1, 1)), *outs)
    return b.graph(b.slice(x, starts=(0, 0, 0), stops=(batch, 1, WIDTH), steps=(1, 1, 1)))


def applied(text, graph):
    ctx = Context()
    out = parse_pass(text).run(graph, ctx)
    verify(out)
    return out, ctx


def flops(graph, op):
    return sum(node_cost(n).flops for n in graph.nodes if n.op.name == op)


# -- the transcription ---------------------------------------------------------------------------------------------
@pytest.mark.parametrize("tokens", [12, 13])
@pytest.mark.parametrize("prop_attn", [True, False])
@pytest.mark.parametrize("schedule", [[2, 2, 2], [5, 0, 3], [9, 9, 9]])
def test_equals_the_transcription_behind_each_block(tome_numpy, tokens, prop_attn, schedule):
    blocks = tome_numpy.random_blocks(3, WIDTH, 16, seed=tokens)
    blocks = [type(x)(*(tuple(p.astype("f4").astype("f8") for p in w) for w in vars(x).values())) for x in blocks]
    text = f"tome:r={'+'.join(map(str, schedule))}:prop-attn={str(prop_attn).lower()}"
    graph, ctx = applied(text, vit(blocks, tokens, batch=2))
    assert not ctx.refusals
    x = np.random.default_rng(1).standard_normal((2, tokens, WIDTH))
    _, *results = run(widen(graph), torch.tensor(x))
    for image in range(2):
        wanted = tome_numpy.run(x[image], blocks, HEADS, schedule, prop_attn)
        for layer, (tokens_then, got) in enumerate(zip(wanted, results, strict=True)):
            np.testing.assert_allclose(got[image].numpy(), tokens_then.restored(), rtol=0, atol=1e-9,
                                       err_msg=f"block {layer}")
            assert tokens_then.size.sum() == tokens and tokens_then.size[0] == 1


def test_schedules():
    assert Tome(r=(5,)).schedule(3) == [5, 5, 5]
    assert Tome(r=(8, 4)).schedule(4) == [8, 4, 0, 0]
    assert Tome(r=(13,), inflect=-1.0).schedule(12) == [int(26 - 26 / 11 * k) for k in range(12)]
    assert Tome(r=(6,), inflect=0.5).schedule(3) == [3, 6, 9]
    assert Tome(r=(6,), layers=(0, 2)).schedule(3) == [6, 0, 6]
    assert Tome(r=(6,), skip=(0,)).schedule(3) == [0, 6, 6]


@pytest.mark.parametrize("text", ["tome:r=-1", "tome:r=8+8:inflect=-1", "tome:inflect=2"])
def test_options_that_make_no_sense(text):
    with pytest.raises(EffccError):
        parse_pass(text)


# -- contracts -----------------------------------------------------------------------------------------------------
def test_contract():
    assert check(Tome(), examples=24, must_fire=True).fired
    assert check(Tome(r=(2, 1), protect=2), examples=20).fired


def test_r_0_is_the_identity(tome_numpy):
    graph = vit(tome_numpy.random_blocks(2, WIDTH, 16), 9)
    assert applied("tome:r=0", graph)[0] is graph


def duplicated(tome_numpy, text):
    """How far the class token gets from where it was, where every token but it is there twice."""
    index = [0, *np.repeat(np.arange(1, 7), 2)]
    graph = vit(tome_numpy.random_blocks(3, WIDTH, 16, seed=4), 7, each=False, index=index)
    x = torch.randn(1, 7, WIDTH, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    changed, ctx = applied(text, graph)
    assert ctx.log and not ctx.refusals
    return (run(widen(graph), x)[0] - run(widen(changed), x)[0]).abs().max().item()


@pytest.mark.parametrize("r", [1, 3, 6])
def test_merging_duplicates_is_exact(tome_numpy, r):
    assert duplicated(tome_numpy, f"tome:r={r}+0+0") < 1e-12


def test_merging_duplicates_is_not_exact_without_proportional_attention(tome_numpy):
    assert duplicated(tome_numpy, "tome:r=3+0+0:prop-attn=false") > 1e-3


# -- cost ----------------------------------------------------------------------------------------------------------
def test_flops_by_the_formula(tome_numpy):
    d, hidden, n, r = WIDTH, 16, 13, 2
    graph, _ = applied(f"tome:r={r}", vit(tome_numpy.random_blocks(3, d, hidden), n, each=False))
    made = {v for node in graph.nodes if node.op.name != "const" for v in node.results} | set(graph.inputs)
    linear = sum(node_cost(m).flops for m in graph.nodes if m.op.name == "matmul" and m.operands[1] not in made)
    expected = attended = 0
    for _ in range(3):
        after = n - r
        expected += 2 * (4 * n * d * d + 2 * after * d * hidden)
        attended += HEADS * n * n * (2 * 2 * (d // HEADS) + 5)
        n = after
    assert linear == expected
    assert flops(graph, "attention") == attended


# -- masks, layouts, readers ------------------------------------------------------------------------------------------
def test_padding_merges_first_and_changes_nothing(tome_numpy):
    """Padding of weight 0 goes away before any token does, so the result is that without padding."""
    blocks, n, pads = tome_numpy.random_blocks(3, WIDTH, 16, seed=2), 12, 6
    masked, ctx = applied("tome:r=2+1+0", vit(blocks, n, each=False, mask=True))
    assert len(ctx.log) == 2
    x = torch.randn(1, n, WIDTH, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    keep = (torch.arange(n) < n - pads).reshape(1, 1, 1, n)
    (got,) = run(widen(masked), x, keep)
    (wanted,) = run(widen(vit(blocks, n - pads, each=False)), x[:, : n - pads])
    assert (got - wanted).abs().max() < 1e-12


def test_real_tokens_never_merge_with_padding(tome_numpy):
    """Whatever padding holds, it does not show."""
    blocks, n = tome_numpy.random_blocks(3, WIDTH, 16, seed=2), 12
    masked, _ = applied("tome:r=3", vit(blocks, n, each=False, mask=True))
    keep = (torch.arange(n) < 8).reshape(1, 1, 1, n)
    x = torch.randn(1, n, WIDTH, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    other = torch.where(keep.reshape(1, n, 1), x, torch.flip(x, (1,)) * 3)
    assert torch.equal(run(widen(masked), x, keep)[0], run(widen(masked), other, keep)[0])


def test_a_symbolic_batch(tome_numpy):
    blocks = tome_numpy.random_blocks(2, WIDTH, 16)
    graph, ctx = applied("tome:r=3", vit(blocks, 11, batch=Symbol("B", 1, 8)))
    assert len(ctx.log) == 2
    x = torch.randn(3, 11, WIDTH)
    together, alone = run(graph, x)[0], torch.cat([run(graph, row[None])[0] for row in x])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-5)


@pytest.mark.parametrize("protect", [0, 1, 3])
def test_a_head_reads_its_token_wherever_it_is(tome_numpy, protect):
    """Result 0 is token 0 of the last result, whether it merged or not."""
    graph, ctx = applied(f"tome:r=3:protect={protect}", vit(tome_numpy.random_blocks(3, WIDTH, 16), 12))
    assert len(ctx.log) == 3
    first, *_, last = run(graph, torch.randn(1, 12, WIDTH))
    assert torch.equal(first, last[:, :1])


def test_fuel_stops_merging(tome_numpy):
    graph = vit(tome_numpy.random_blocks(3, WIDTH, 16), 11)
    ctx = Context(fuel=1)
    out = Tome(r=(2,)).run(graph, ctx)
    assert len(ctx.log) == 1
    x = torch.randn(1, 11, WIDTH, dtype=torch.float64)
    torch.testing.assert_close(run(widen(out), x), run(widen(applied("tome:r=2+0+0", graph)[0]), x), rtol=0, atol=1e-12)


def refusal(graph, text="tome:r=2"):
    out, ctx = applied(text, graph)
    assert out is graph and not ctx.log
    (reason,) = {r.reason for r in ctx.refusals}
    return reason


def test_refusals(tome_numpy):
    blocks = tome_numpy.random_blocks(2, WIDTH, 16)
    assert "attention is causal" in refusal(vit(blocks, 9, causal=True))
    assert "is not fixed: fix it by shapes=" in refusal(vit(blocks, Symbol("N", 4, 64)))
    assert "no layer has tokens to merge" in refusal(vit(blocks, 9), "tome:r=2:protect=9")
    b = Builder()
    x = b.input("x", Tensor(f32, (2, 8)))
    assert "no attention sublayer" in refusal(b.graph(b.add(x, b.matmul(x, b.input("w", Tensor(f32, (8, 8)))))))


def test_relative_positions_are_refused():
    b = Builder()
    x, bias = b.input("x", Tensor(f32, (1, 9, 8))), b.input("bias", Tensor(f32, (1, 2, 9, 9)))
    w = b.input("w", Tensor(f32, (8, 8)))
    q = b.transpose(b.reshape(b.matmul(x, w), shape=(1, 9, 2, 4)), perm=(0, 2, 1, 3))
    y = b.reshape(b.transpose(b.attention(q, q, q, bias), perm=(0, 2, 1, 3)), shape=(1, 9, 8))
    assert "differs from query to query" in refusal(b.graph(b.add(x, b.matmul(y, w))))


def test_positions_added_in_each_layer_are_refused():
    b = Builder()
    x, w = b.input("x", Tensor(f32, (1, 9, 8))), b.input("w", Tensor(f32, (8, 8)))
    place = b.input("place", Tensor(f32, (1, 9, 8)))

    def heads(v):
        return b.transpose(b.reshape(b.matmul(v, w), shape=(1, 9, 2, 4)), perm=(0, 2, 1, 3))

    y = b.attention(heads(b.add(x, place)), heads(x), heads(x))
    y = b.reshape(b.transpose(y, perm=(0, 2, 1, 3)), shape=(1, 9, 8))
    assert "add combines its elements with values of their own" in refusal(b.graph(b.add(x, b.matmul(y, w))))


def test_an_embedding_in_front_does_not_disturb(tome_numpy):
    """Tokens from a look-up, as in BERT: the stream begins behind it."""
    b = Builder()
    draw = np.random.default_rng(0)
    ids = b.input("ids", Tensor(i64, (2, 9)))
    table, w = (b.const(draw.standard_normal((rows, 8)).astype("f4")) for rows in (30, 8))
    x = b.layer_norm(b.gather(table, ids), axis=2)
    for _ in range(2):
        q = b.transpose(b.reshape(b.matmul(x, w), shape=(2, 9, 2, 4)), perm=(0, 2, 1, 3))
        y = b.reshape(b.transpose(b.attention(q, q, q), perm=(0, 2, 1, 3)), shape=(2, 9, 8))
        x = b.layer_norm(b.add(x, b.matmul(y, w)), axis=2)
        x = b.layer_norm(b.add(x, b.matmul(b.gelu(b.matmul(x, w)), w)), axis=2)
    graph, ctx = applied("tome:r=2", b.graph(b.mean(x, axes=(1,))))
    assert len(ctx.log) == 2
    assert run(graph, torch.randint(0, 30, (2, 9)))[0].shape == (2, 8)
