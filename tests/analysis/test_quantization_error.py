import numpy as np
import pytest

from effcc.analysis.quantization_error import MOST_DB, Error, mean_errors, output_errors
from effcc.ir import Builder, Symbol, Tensor, f32
from effcc.ir.blob import Blob
from effcc.ir.lazy import torch
from effcc.ir.op import op_class
from effcc.rewrite import Workspace


def test_sqnr():
    error = Error()
    assert error.sqnr == MOST_DB
    error.add(torch.tensor([3.0, 4.0]), torch.tensor([3.0, 4.5]))
    assert error.sqnr == pytest.approx(20.0)
    assert error.largest == 0.5


def pair(offset, counted=False):
    """Two layers, and the same with one that is off by a constant and one that is scaled. counted: the results are
    which elements are positive, and these, as many as there are."""
    b = Builder("exact")
    x = b.input("x", Tensor(f32, (2, 3)))
    w, v = (b.const(np.random.default_rng(k).standard_normal((3, 3)).astype("f4")) for k in (0, 1))
    y = b.matmul(x, w)
    z = b.matmul(b.relu(y), v)
    if counted:
        found = b.nonzero(b.relu(z), size=Symbol("n", 0))
        spread = b.broadcast_to(b.const(1.0, f32), shape=(Symbol("n", 0),))
        before = b.graph(found, b.add(spread, b.gather(b.reshape(z, shape=(6,)), b.slice(
            found, starts=(0, 0), stops=(1, Symbol("n", 0)), steps=(1, 1)), axis=0)))
    else:
        before = b.graph(z)
    edited = Workspace(before)
    for item in edited.items():
        if item.op.name == "matmul":
            shifted = edited.insert(op_class("const")(Blob(np.float32(offset))), (), item)
            moved = edited.insert(op_class("add")(), (item.operands[0], shifted.result), item)
            edited.set_operands(item, (moved.result, item.operands[1]))
    return before, edited.freeze(), [n for n in before.nodes if n.op.name == "matmul"]


def samples():
    return [(np.random.default_rng(k).standard_normal((2, 3)).astype("f4"),) for k in range(4)]


def test_mean_errors_undo_a_shift():
    """Activations rounded to x + 0.5 shift x @ w by 0.5 Σ w."""
    before, _, layers = pair(0.5)
    weights = {n: torch.from_numpy(before.producer(n.operands[1]).op.blob.array) for n in layers}
    found = mean_errors(before, {n: (lambda x: x + 0.5, weights[n], 1) for n in layers}, samples())
    for n in layers:
        np.testing.assert_allclose(found[n], -0.5 * weights[n].sum(0), atol=1e-5)


def test_errors_of_each_layer_alone():
    before, after, (first, last) = pair(0.25)
    found = [figures for _, figures in output_errors(before, after, dict.fromkeys((first, last)), samples())]
    w = before.producer(last.operands[1]).op.blob.array
    assert found[1]["max error"] == pytest.approx(np.abs(0.25 * w.sum(0)).max(), rel=1e-4)
    assert found[1]["results dB"] == pytest.approx(found[1]["sqnr dB"])
    assert found[0]["results dB"] < MOST_DB


def test_sizes_that_data_decide_may_be_others_in_each_run():
    before, after, layers = pair(1.0, counted=True)
    found = [figures for _, figures in output_errors(before, after, dict.fromkeys(layers), samples())]
    assert all(figures["results dB"] < MOST_DB for figures in found)
