"""Convolutions and pooling of every dtype, constant and computed weights, against the interpreter."""

from __future__ import annotations

import pytest
import torch

import effcc
from effcc.interp import run
from effcc.ir import Blob, Builder, Graph, Tensor
from effcc.ir.types import DType

DTYPES = [
    ("bf16", "bf16", None),
    ("f16", "f16", None),
    ("f64", "f64", None),
    ("f8e5m2", "f8e5m2", None),
    ("i16", "i16", None),
    ("i32", "i32", None),
    ("i8", "i8", None),
    ("i8", "i8", "i32"),
    ("u8", "i8", "i32"),
    ("u4", "i4", "i32"),
]
CASES = [  # groups, channels, features, layout, constant weights and a bias
    (1, 5, 18, "nchw", True),
    (2, 4, 6, "nhwc", False),
    (8, 8, 8, "nhwc", True),
    (8, 8, 16, "nhwc", False),
]
TOLERANCE = {
    torch.float8_e5m2: 0.3,
    torch.float8_e4m3fn: 0.15,
    torch.bfloat16: 3e-2,
    torch.float16: 5e-3,
    torch.float32: 1e-4,
    torch.float64: 1e-10,
}


def draw(dtype: DType, *shape: int) -> torch.Tensor:
    if dtype.is_float:
        return torch.randn(shape).to(dtype.torch)
    return torch.randint(max(int(dtype.min), -60), min(int(dtype.max), 60) + 1, shape).to(dtype.torch)


def check(graph: Graph, *operands: torch.Tensor) -> None:
    (got,), (want,) = effcc.compile(graph)(*operands), run(graph, *operands)
    assert got.dtype == want.dtype
    tolerance = TOLERANCE.get(want.dtype, 0)
    wide = torch.float64 if want.is_floating_point() else torch.int64
    torch.testing.assert_close(got.to(wide), want.to(wide), rtol=tolerance, atol=5 * tolerance)


@pytest.mark.parametrize("x_name,w_name,accumulate", DTYPES)
@pytest.mark.parametrize("groups,channels,features,layout,constant", CASES)
def test_conv(x_name, w_name, accumulate, groups, channels, features, layout, constant):
    x_dtype, w_dtype = DType.parse(x_name), DType.parse(w_name)
    acc = None if accumulate is None else DType.parse(accumulate)
    data = draw(x_dtype, *((2, channels, 9, 8) if layout == "nchw" else (2, 9, 8, channels)))
    weights = draw(w_dtype, features, channels // groups, 3, 2)
    b = Builder()
    operands = [b.input("x", Tensor(x_dtype, tuple(data.shape)))]
    if constant:
        array = weights.numpy().astype(w_dtype.numpy) if w_dtype.bits < 8 else None
        operands += [b.const(Blob.from_torch(weights) if array is None else array)]
        operands += [b.const(Blob.from_torch(draw(acc or x_dtype, features)))]
    else:
        operands += [b.input("w", Tensor(w_dtype, tuple(weights.shape)))]
    attributes = {"strides": (2, 1), "pads": (1, 0, 1, 2), "dilations": (1, 2), "groups": groups, "layout": layout}
    graph = b.graph(b.conv(*operands, accumulate=acc, **attributes))
    check(graph, data, *([] if constant else [weights]))


@pytest.mark.parametrize("name", ["f64", "f32", "bf16", "f16", "f8e4m3"])
@pytest.mark.parametrize("op", ["max_pool", "avg_pool"])
@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
def test_pool(name, op, layout):
    dtype = DType.parse(name)
    data = draw(dtype, *((2, 20, 9, 10) if layout == "nchw" else (2, 9, 10, 20)))
    b = Builder()
    x = b.input("x", Tensor(dtype, tuple(data.shape)))
    pool = getattr(b, op)(x, kernel=(3, 2), strides=(2, 1), pads=(1, 0, 1, 1), dilations=(1, 1), layout=layout)
    check(b.graph(pool), data)
