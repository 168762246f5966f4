"""Compressed layouts are taken where they are faster, by measurement or by the cost model, and told why where not."""

import numpy as np
import pytest

from effcc.interp import run
from effcc.ir import Builder, Symbol, Tensor, f32
from effcc.ir.blob import Blob
from effcc.ir.encodings import is_compressed
from effcc.passes.compress_weights import CompressWeights
from effcc.pipeline import Context
from effcc.testing import check
from effcc.text import parse


def blocky(density: float = 0.3, block: tuple[int, int] = (16, 16)) -> np.ndarray:
    random = np.random.default_rng(0)
    kept = random.random((256 // block[0], 128 // block[1])) < density
    return (np.kron(kept, np.ones(block)) * random.standard_normal((256, 128))).astype(np.float32)


def layer(w: np.ndarray, turned: bool = False):
    b = Builder("layer")
    x = b.input("x", Tensor(f32, (Symbol("B", 1, 512), w.shape[1 if turned else 0])))
    return b.graph(b.relu(b.matmul(x, b.const(Blob(np.ascontiguousarray(w))), transpose_b=turned)))


def layouts(graph):
    return [str(n.op.blob.type.encoding) for n in graph.nodes if n.op.name == "const"]


@pytest.mark.parametrize("turned", [False, True])
def test_the_cost_model_takes_blocks(turned):
    w = blocky(block=(32, 16)).T if turned else blocky(block=(32, 16))
    graph = layer(w, turned)
    out = CompressWeights().run(graph, Context())
    (layout,) = layouts(out)
    assert layout.startswith(f"block_csr(block=({'16, 32' if turned else '32, 16'})")
    x = np.random.default_rng(1).standard_normal((3, 256)).astype(np.float32)
    assert np.array_equal(run(out, x)[0], run(graph, x)[0])
    assert CompressWeights().run(out, Context()) is out
    assert parse(str(out), {n.op.blob.sha256: n.op.blob for n in out.nodes if n.op.name == "const"}) == out


def test_a_measurement_decides():
    graph, asked = layer(blocky()), []

    def measure(seconds):
        def of(g):
            asked.append(g)
            return seconds[is_compressed(g.nodes[0].result.type)]
        return of

    ctx = Context(measure=measure({False: 2e-5, True: 1e-5}))
    assert "block_csr" in layouts(CompressWeights().run(graph, ctx))[0]
    assert asked[0].inputs[0].shape == (128, 256)  # the symbol's typical size
    assert [is_compressed(g.nodes[0].result.type) for g in asked] == [False, True] * 3  # in turns
    (note,) = ctx.notes
    assert note.figures["dense us"] == 20.0 and note.figures["compressed us"] == 10.0
    ctx = Context(measure=measure({False: 1e-5, True: 2e-5}))
    assert CompressWeights().run(graph, ctx) is graph
    assert "dense is faster: 10 us, 20 us as block_csr" in next(iter(ctx.refusals)).reason


def test_one_lucky_time_does_not_decide():
    times = iter([2e-5, 1e-6, 2e-5, 3e-5, 2e-5, 3e-5])
    graph, ctx = layer(blocky()), Context(measure=lambda g: next(times))
    assert CompressWeights().run(graph, ctx) is graph
    assert "dense is faster: 20 us, 30 us" in next(iter(ctx.refusals)).reason


def test_zeros_without_a_pattern_are_told_of():
    scattered = np.where(np.random.default_rng(0).random((256, 128)) < 0.3, 1, 0).astype(np.float32)
    graph, ctx = layer(scattered), Context()
    assert CompressWeights().run(graph, ctx) is graph
    assert "its zeros are no pattern" in next(iter(ctx.refusals)).reason
    dense, ctx = layer(np.ones((256, 128), np.float32)), Context()
    assert CompressWeights().run(dense, ctx) is dense and not ctx.refusals


def test_two_of_four_need_a_measurement_or_a_wish_for_less_memory():
    random = np.random.default_rng(0)
    w = random.standard_normal((256, 128)).astype(np.float32)
    w.reshape(64, 4, 128)[random.permuted(np.tile(np.arange(4)[:, None], (64, 1, 128)), axis=1) < 2] = 0
    graph, ctx = layer(w), Context()
    assert CompressWeights().run(graph, ctx) is graph
    assert "no cost model for two_four" in next(iter(ctx.refusals)).reason
    out = CompressWeights(goal="size").run(graph, Context())
    assert layouts(out) == ["two_four(axis=0)"]
    constant = next(n for n in out.nodes if n.op.name == "const")
    assert constant.result.type.nbytes == 256 * 128 * 4 // 2 + 256 * 128 // 8


def convolution(layout: str, kernel: int = 1, bias: bool = True):
    b = Builder("conv")
    w = np.broadcast_to(blocky().reshape(256, 128, 1, 1), (256, 128, kernel, kernel)) + np.float32(0)
    shape = (1, 4, 5, 128) if layout == "nhwc" else (1, 128, 4, 5)
    x, others = b.input("x", Tensor(f32, shape)), [b.input("bias", Tensor(f32, (256,)))] if bias else []
    return b.graph(b.conv(x, b.const(Blob(w)), *others, strides=(1, 1), pads=(0,) * 4, dilations=(1, 1), layout=layout))


@pytest.mark.parametrize("bias", [False, True])
def test_convolutions_of_1x1_become_products(bias):
    graph = convolution("nhwc", bias=bias)
    out = CompressWeights().run(graph, Context())
    assert [n.op.name for n in out.nodes] == ["const", "matmul", "add"][: 2 + bias]
    assert layouts(out)[0].startswith("block_csr(block=(16, 16)")
    random = np.random.default_rng(1)
    given = [random.standard_normal(v.shape).astype(np.float32) for v in graph.inputs]
    np.testing.assert_allclose(run(out, *given)[0], run(graph, *given)[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("layout,kernel", [("nchw", 1), ("nhwc", 3)])
def test_other_convolutions_stay_dense(layout, kernel):
    ctx, graph = Context(), convolution(layout, kernel)
    assert CompressWeights().run(graph, ctx) is graph
    assert "only matmuls and convolutions of 1x1" in next(iter(ctx.refusals)).reason


def test_its_contract():
    assert check(CompressWeights(), examples=30, must_fire=True).fired


def test_a_symbolic_size_that_must_be_the_weights_is_measured_as_theirs():
    w = blocky()
    b = Builder("layer")
    graph = b.graph(b.matmul(b.input("x", Tensor(f32, (4, Symbol("K", 1)))), b.const(Blob(w))))
    seen = []

    def measure(graph):
        seen.append(graph.inputs[0].shape)
        return 1.0

    CompressWeights().run(graph, Context(measure=measure))
    assert set(seen) == {(4, 256)}
