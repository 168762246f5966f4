"""Graphs for every op, and what it takes to hold an export against the interpreter and ONNX Runtime."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from effcc.analysis.precision import bounded_run
from effcc.backends.onnx.backend import OnnxCode
from effcc.backends.onnx.export import export
from effcc.frontends.onnx import load
from effcc.interp import run
from effcc.ir.blob import Blob
from effcc.testing import compare, random_inputs
from effcc.testing.compare import same_bits

onnxruntime.set_default_logger_severity(4)


class Held:
    """held(graph, inputs): the exported model is valid, means the same when imported again, and runs the same."""

    def __call__(self, graph, inputs, runs=True, again=True):
        model = export(graph)
        onnx.checker.check_model(model, full_check=True)
        back = load(model)
        if again == "values":
            pairs = zip(run(graph, *inputs), run(back, *inputs), strict=True)
            assert all(same_bits(a, b) for a, b in pairs)
        elif again:
            compare(graph, back, inputs, "bounded")
        if runs:
            self.in_runtime(graph, model, inputs)
        return model

    def in_runtime(self, graph, model, inputs):
        code = OnnxCode(graph, model)
        found = code(*(Blob.from_torch(t).array for t in inputs))
        expected = run(graph, *inputs)
        if all(same_bits(Blob(a, v.dtype).torch(), x) for a, v, x in zip(found, graph.results, expected, strict=True)):
            return
        for v, array, exact in zip(graph.results, found, bounded_run(graph, *inputs), strict=True):
            assert array.dtype == v.dtype.numpy and array.shape == tuple(exact.exact.shape)
            got, wanted = Blob(array, v.dtype).torch().double(), exact.exact.double()
            far = (got - wanted).abs() > exact.bound
            far &= wanted.isfinite() & exact.bound.isfinite()
            far |= got.isnan() & wanted.isfinite() & exact.bound.isfinite()
            assert not far.any(), f"{got[far]} should be {wanted[far]}\n{graph}"


@pytest.fixture(scope="session")
def held():
    return Held()


@pytest.fixture(scope="session")
def drawn():
    """drawn(graph, seed): inputs of small whole numbers; with special=True also NaN, infinities, extremes."""

    def inputs(graph, seed=0, special=False):
        return random_inputs([v.type for v in graph.inputs], torch.Generator().manual_seed(seed), special, not special)

    return inputs


@pytest.fixture
def run_file():
    """run_file(path, *arrays): a file in ONNX Runtime."""

    def run(path, *arrays):
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        names = [i.name for i in session.get_inputs()]
        return session.run(None, dict(zip(names, map(np.asarray, arrays), strict=True)))

    return run
