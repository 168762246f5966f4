"""Constants."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from effcc.interp import run
from effcc.ir import DTYPES, Builder, Tensor, bf16, f32


@pytest.mark.parametrize("name", ["f64", "f32", "f16", "bf16", "i64", "i8", "u8", "u16", "bool", "f8e4m3", "i4"])
def test_constants_hold_any_dtype(name):
    b = Builder()
    dtype = DTYPES[name]
    value = b.const(np.array([[0, 1], [1, 0]]), dtype)
    assert value.type == Tensor(dtype, (2, 2))
    (out,) = run(b.graph(value))
    assert out.dtype == dtype.torch and out.to(torch.float32).tolist() == [[0, 1], [1, 0]]


def test_constants_are_equal_by_content():
    b = Builder()
    ones = [b.const(np.ones(2, "f4")), b.const(1.0, f32), b.const(1.0, bf16)]
    graph = b.graph(*ones)
    again = Builder()
    assert graph == again.graph(again.const(np.ones(2, "f4")), again.const(1.0, f32), again.const(1.0, bf16))
    assert graph.nodes[1].op != graph.nodes[2].op
