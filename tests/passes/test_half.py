"""Products in 16 bits: which ops, where values are rounded, and what is left alone."""

from __future__ import annotations

import numpy as np
import pytest

from effcc.errors import InputError
from effcc.ir import Blob, Builder, Tensor, f16, f32
from effcc.ir.location import Loc
from effcc.ir.types import f64
from effcc.passes.half import Half
from effcc.pipeline import Context, parse_pass
from effcc.search.data import Samples
from effcc.testing import check


def test_contract():
    assert check(Half(), examples=20).fired > 0
    assert check(Half(dtype="bf16"), examples=20).fired > 0


def test_sums_stay_in_f32_and_values_are_rounded_once():
    b = Builder("g")
    x = b.input("x", Tensor(f32, (2, 3, 4)))
    w = b.const(Blob(np.ones((4, 4), np.float32)))
    graph = Half().run(b.graph(b.matmul(x, w), b.matmul(b.neg(x), w), b.matmul(x, w, transpose_b=True)), Context())
    products = [n for n in graph.nodes if n.op.name == "matmul"]
    assert all(n.op.accumulate == f32 and n.result.dtype == f32 for n in products)
    assert all(v.dtype == f16 for n in products for v in n.operands)
    assert sum(n.op.name == "cast" for n in graph.nodes) == 3  # x, -x, w


def test_values_are_rounded_in_front_of_views():
    b = Builder("g")
    x = b.exp(b.input("x", Tensor(f32, (6, 4))))
    graph = Half().run(b.graph(b.matmul(b.transpose(x, perm=(1, 0)), x)), Context())
    assert [n.op.name for n in graph.nodes if n.op.name in ("exp", "cast", "matmul")] == ["exp", "cast", "matmul"]


def test_what_a_convolution_multiplies_is_stored_in_short_alone():
    """The sum behind it reads the rounded value too; the greatest of windows is that of the rounded values."""
    b = Builder("g")
    w = b.const(Blob(np.ones((4, 4, 1, 1), np.float32)))
    conv = {"strides": (1, 1), "pads": (0, 0, 0, 0), "dilations": (1, 1)}
    image = b.input("x", Tensor(f32, (1, 4, 6, 6)))
    x = b.max_pool(image, kernel=(2, 2), strides=(2, 2), pads=(0,) * 4, dilations=(1, 1))
    y = b.relu(b.conv(x, w, **conv))
    graph = Half().run(b.graph(b.add(b.conv(y, w, **conv), y)), Context())
    pool, relu = (next(n for n in graph.nodes if n.op.name == name) for name in ("max_pool", "relu"))
    assert pool.result.dtype == f16
    assert [(u.op.name, u.result.dtype) for u in graph.users(relu.result)] == [("cast", f16)]
    (rounded,) = (u.result for u in graph.users(relu.result))
    assert [(u.op.name, u.result.dtype) for u in graph.users(rounded)] == [("conv", f32), ("cast", f32)]


def test_what_an_attention_gives_is_rounded_already():
    b = Builder("g")
    q = b.input("q", Tensor(f32, (1, 2, 3, 4)))
    heads = b.transpose(b.attention(q, q, q), perm=(0, 2, 1, 3))
    y = b.matmul(b.reshape(heads, shape=(3, 8)), b.const(Blob(np.ones((8, 4), np.float32))))
    graph = Half().run(b.graph(y), Context())
    assert sum(n.op.name == "cast" and n.result.dtype == f16 for n in graph.nodes) == 2  # q, the weights


def test_the_most_sensitive_stay():
    """A product whose terms cancel loses its digits; by half of the arithmetic, the other one is rounded."""
    b = Builder("g")
    x = b.input("x", Tensor(f32, (4, 16)))
    w = np.random.default_rng(0).standard_normal((16, 8)).astype(np.float32)
    cancels = np.repeat(w[:8] * 1000, 2, 0) * np.array([1, -1] * 8, np.float32)[:, None] + w / 8
    plain, close = b.matmul(x, b.const(Blob(w))), b.matmul(x, b.const(Blob(cancels)))
    graph = b.graph(plain, close)
    inputs = np.repeat(np.random.default_rng(1).standard_normal((3, 4, 8)).astype(np.float32), 2, -1)
    context = Context(calibration=Samples.load({"x": inputs.reshape(12, 16)}, graph))
    rounded = Half(share=0.5).run(graph, context)
    dtypes = [n.operands[0].dtype for n in rounded.nodes if n.op.name == "matmul"]
    assert dtypes == [f16, f32] and [r.reason for r in context.refusals] == ["it is among the most sensitive"]
    assert Half(share=0.0).run(graph, context) is graph
    with pytest.raises(InputError, match="has to see activations"):
        Half(share=0.5).run(graph, Context())
    with pytest.raises(InputError, match="share=1.5 is no share"):
        Half(share=1.5)


def test_what_stays():
    b = Builder("g")
    x, y = b.input("x", Tensor(f64, (4, 4))), b.input("y", Tensor(f32, (4, 4)))
    b.loc = Loc(name="head")
    graph, ctx = b.graph(b.matmul(x, x), b.matmul(y, y)), Context()
    assert Half(skip=("head",)).run(graph, ctx) is graph
    assert {r.reason for r in ctx.refusals} == {"it multiplies f64, f64, not f32", "skip= names it"}


def test_options():
    assert parse_pass("half:dtype=bf16") == Half(dtype="bf16")
    with pytest.raises(InputError, match="half:dtype=f8 is not offered"):
        Half(dtype="f8").run(Builder("g").graph(), Context())
