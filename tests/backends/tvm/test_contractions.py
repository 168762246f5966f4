"""Matrix products of every dtype, constant and computed operands, against the interpreter."""

from __future__ import annotations

import pytest
import torch

import effcc
from effcc.interp import run
from effcc.ir import Blob, Builder, Tensor, f32
from effcc.ir.types import DType

DTYPES = [
    ("bf16", "bf16", None),
    ("bf16", "bf16", "f32"),
    ("f16", "f16", None),
    ("f64", "f64", None),
    ("i16", "i16", None),
    ("i32", "i32", None),
    ("i64", "i64", None),
    ("i8", "i8", None),
    ("i8", "i8", "i32"),
    ("u8", "i8", "i32"),
    ("u8", "u8", "i32"),
]
SHAPES = [  # m, k, n, transpose_a, transpose_b, constant
    (1, 33, 50, False, False, True),
    (5, 40, 37, False, True, False),
    (70, 65, 20, False, False, True),
    (9, 33, 17, True, False, False),
    (2, 7, 128, False, False, False),
]
TOLERANCE = {torch.bfloat16: 3e-2, torch.float16: 5e-3, torch.float32: 1e-4, torch.float64: 1e-10}


def draw(dtype: DType, *shape: int) -> torch.Tensor:
    if dtype.is_float:
        return torch.randn(shape).to(dtype.torch)
    return torch.randint(max(int(dtype.min), -60), min(int(dtype.max), 60), shape).to(dtype.torch)


@pytest.mark.parametrize("a_name,b_name,accumulate", DTYPES)
@pytest.mark.parametrize("m,k,n,transpose_a,transpose_b,constant", SHAPES)
def test_matmul(a_name, b_name, accumulate, m, k, n, transpose_a, transpose_b, constant):
    left = draw(DType.parse(a_name), *((k, m) if transpose_a else (m, k)))
    right = draw(DType.parse(b_name), *((n, k) if transpose_b else (k, n)))
    b = Builder()
    x = b.input("a", Tensor(DType.parse(a_name), tuple(left.shape)))
    y = b.const(Blob.from_torch(right)) if constant else b.input("b", Tensor(DType.parse(b_name), tuple(right.shape)))
    graph = b.graph(
        b.matmul(
            x,
            y,
            transpose_a=transpose_a,
            transpose_b=transpose_b,
            accumulate=None if accumulate is None else DType.parse(accumulate),
        )
    )
    operands = (left,) if constant else (left, right)
    (got,), (want,) = effcc.compile(graph)(*operands), run(graph, *operands)
    tolerance = TOLERANCE.get(want.dtype, 0)
    torch.testing.assert_close(got, want, rtol=tolerance, atol=5 * tolerance)


@pytest.mark.parametrize("which", [0, 1])
def test_an_epilogue_may_read_an_operand_of_the_product(which):
    """relu(x w) + x, and relu(x w) + w with constant weights, as one region."""
    b = Builder()
    x = b.input("x", Tensor(f32, (40, 40)))
    w = b.const(Blob.from_torch(torch.randn(40, 40)))
    graph = b.graph(b.add(b.relu(b.matmul(x, w)), (x, w)[which]))
    given = torch.randn(40, 40)
    (got,), (want,) = effcc.compile(graph)(given), run(graph, given)
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)
