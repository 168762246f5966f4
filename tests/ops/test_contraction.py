"""Contractions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from effcc.errors import TypeRuleError
from effcc.ir import Symbol, Tensor, bool_, f16, f32, f64, i8, i32
from effcc.ops.contraction import Matmul
from effcc.ops.window import Conv


@settings(max_examples=40, deadline=None)
@given(
    batch=st.lists(st.integers(0, 3), max_size=2),
    sizes=st.tuples(*[st.integers(0, 4)] * 3),
    a=st.booleans(),
    b=st.booleans(),
    data=st.data(),
)
def test_matmul(agree, batch, sizes, a, b, data):
    m, n, k = sizes
    rng = np.random.default_rng(0)
    left = [1 if data.draw(st.booleans()) else d for d in batch]
    right = [1 if data.draw(st.booleans()) else d for d in batch][data.draw(st.integers(0, len(batch))):]
    x = rng.normal(size=(*left, *((k, m) if a else (m, k)))).astype("f4")
    y = rng.normal(size=(*right, *((n, k) if b else (k, n)))).astype("f4")
    out = agree(Matmul(a, b), x, y)
    want = (x.swapaxes(-1, -2) if a else x) @ (y.swapaxes(-1, -2) if b else y)
    np.testing.assert_allclose(out.numpy(), want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int32])
def test_dtypes(agree, dtype):
    x = torch.randint(-5, 6, (3, 7)).to(dtype)
    agree(Matmul(), x, x.mT)


def test_integers_accumulate_wider(agree):
    x, y = np.full((2, 9), -128, "i1"), np.full((9, 3), 127, "i1")
    assert agree(Matmul(accumulate=i32), x, y)[0, 0] == -128 * 127 * 9
    agree(Matmul(accumulate=i32), (x.view("u1")), y)
    agree(Matmul(accumulate=i32, transpose_b=True), x, y.T.copy())


def test_refusals():
    m, n = Symbol("m"), Symbol("n")
    for types, message in [
        ((Tensor(f32, (2, 3)), Tensor(f32, (4, 5))), "inner sizes 3 and 4 differ"),
        ((Tensor(f32, (3,)), Tensor(f32, (3, 2))), "reshape vectors"),
        ((Tensor(f32, (2, 3)), Tensor(i8, (3, 2))), "differ in dtype"),
        ((Tensor(f32, (2, 2, 3)), Tensor(f32, (3, 3, 2))), "do not broadcast"),
    ]:
        with pytest.raises(TypeRuleError, match=message):
            Matmul().result_types(types)
    assert Matmul().result_types((Tensor(f32, (m, 3)), Tensor(f32, (n, n, 3, 4)))) == (Tensor(f32, (n, n, m, 4)),)


def test_sums_are_no_bool():
    with pytest.raises(TypeRuleError, match="sums are no bool"):
        Matmul(accumulate=bool_).infer(Tensor(i8, (2, 3)), Tensor(i8, (3, 2)))


@pytest.mark.parametrize("of", [f16, f64])
def test_sums_of_floats_are_no_integers(of):
    with pytest.raises(TypeRuleError, match=f"sums of {of} are no i32; cast the result"):
        Matmul(accumulate=i32).infer(Tensor(of, (2, 3)), Tensor(of, (3, 2)))
    with pytest.raises(TypeRuleError, match=f"sums of {of} are no i32; cast the result"):
        Conv((1,), (0, 0), (1,), accumulate=i32).infer(Tensor(of, (1, 2, 3)), Tensor(of, (1, 2, 1)))
