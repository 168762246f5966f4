"""The default pipeline takes time in proportion to the graph."""

import time

import numpy as np
import pytest

from effcc.ir import Builder, Loc, Symbol, Tensor, f32
from effcc.passes import EXACT
from effcc.pipeline import PassManager, parse_pipeline


def transformer_soup(size):
    """About `size` ops as exporters write them: matmul, bias, GELU and layer norm in pieces, transposes that cancel."""
    b = Builder()
    y = b.input("x", Tensor(f32, (Symbol("B", 1, 64), 16, 32)))
    rng = np.random.default_rng(0)

    def weight(*shape):
        return b.const(rng.normal(size=shape).astype("f4"))

    while len(b.nodes) < size:
        with b.at(Loc("model.onnx", f"layer{len(b.nodes)}")):
            h = b.add(b.matmul(y, weight(32, 32)), weight(32))
            e = b.add(b.erf(b.div(h, b.const(2**0.5, f32))), b.const(1.0, f32))
            h = b.transpose(b.mul(b.mul(h, e), b.const(0.5, f32)), perm=(0, 2, 1))
            h = b.transpose(b.mul(h, b.const(1.0, f32)), perm=(0, 2, 1))
            d = b.sub(h, b.mean(h, axes=(2,), keepdims=True))
            v = b.mean(b.pow(d, b.const(2.0, f32)), axes=(2,), keepdims=True)
            d = b.div(d, b.sqrt(b.add(v, b.const(1e-5, f32))))
            y = b.add(y, b.add(b.mul(d, weight(32)), weight(32)))
    return b.graph(y)


def seconds(graph, pipeline):
    start = time.process_time()
    PassManager().run(graph, pipeline)
    return time.process_time() - start


@pytest.mark.slow
def test_ten_times_the_ops_take_at_most_fifteen_times_as_long():
    pipeline = parse_pipeline(EXACT)
    seconds(transformer_soup(100), pipeline)  # imports
    few, many = (min(seconds(transformer_soup(size), pipeline) for _ in range(3)) for size in (1_000, 10_000))
    assert many <= 15 * few, f"{few:.2f} s for 1,000 ops, {many:.2f} s for 10,000"


def test_what_is_left_of_it():
    out = PassManager().run(transformer_soup(200), parse_pipeline(EXACT))
    names = {n.op.name for n in out.nodes}
    assert names == {"const", "matmul", "add", "gelu", "layer_norm"}
