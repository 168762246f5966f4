"""What the default pipeline leaves of a deep network in pieces (its time: benchmarks/pipeline_scaling.py)."""

import numpy as np

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


def test_what_is_left_of_it():
    out = PassManager().run(transformer_soup(200), parse_pipeline(EXACT))
    names = {n.op.name for n in out.nodes}
    assert names == {"const", "matmul", "add", "gelu", "layer_norm"}
