"""Quantization against ONNX's reference implementation and by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from effcc.errors import TypeRuleError
from effcc.ir import DType, Tensor, f32, i8, i32, i64, u8
from effcc.ops.quantize import NARROW_FLOATS, DequantizeLinear, QuantizeLinear

INTEGERS = ["i8", "u8", "i16", "u16", "i4", "u4", "i2", "u2"]
X = np.array([[-1000, -2.5, -1.5, -0.5, 0, 0.5], [1.5, 2.5, 3, 7.49, 127.5, np.inf]], "f4")


def zero(dtype: DType, value: int, shape: tuple[int, ...] = ()) -> torch.Tensor:
    return torch.full(shape, value).to(dtype.torch)


@pytest.mark.parametrize("name", INTEGERS)
def test_integers_round_half_to_even_and_saturate(agree, name):
    dtype = DType.parse(name)
    for float_ in (torch.float32, torch.float16, torch.bfloat16, torch.float64):
        x = torch.from_numpy(X).to(float_)
        out = agree(QuantizeLinear(dtype=dtype), x, np.float32(1.0))
        assert out[0, 1:].tolist() == [max(v, dtype.min) for v in (-2, -2, 0, 0, 0)]
        assert out[1, 5] == dtype.max and out[0, 0] == max(dtype.min, -1000)
        agree(QuantizeLinear(dtype=dtype), x, np.float32(0.3), zero(dtype, 1), dtypes=(DType.of(x.dtype), f32, dtype))


@pytest.mark.parametrize("name", INTEGERS)
def test_dequantize(agree, name):
    dtype = DType.parse(name)
    x = torch.arange(dtype.min, min(dtype.max, dtype.min + 11) + 1).to(dtype.torch)
    for scale in (
        torch.tensor(0.5),
        torch.tensor(0.5).half(),
        torch.tensor(0.3).bfloat16(),
        torch.tensor(0.3).double(),
    ):
        types = (dtype, DType.of(scale.dtype))
        assert agree(DequantizeLinear(), x, scale, dtypes=types).dtype == scale.dtype
        agree(DequantizeLinear(), x, scale, zero(dtype, 1), dtypes=(*types, dtype))
        agree(DequantizeLinear(dtype=f32), x, scale, dtypes=types)


@pytest.mark.parametrize("name", sorted(NARROW_FLOATS))
@pytest.mark.parametrize("saturate", [True, False])
def test_narrow_floats(agree, name, saturate):
    dtype = DType.parse(name)
    x = torch.tensor([0.0, -0.0, 0.3, -1.7, 2.5, 3.5, 1e-3, NARROW_FLOATS[name], -1e9, torch.inf])
    out = agree(QuantizeLinear(dtype=dtype, saturate=saturate), x, np.float32(1), rtol=0)
    if saturate:
        assert out.float()[-1] == NARROW_FLOATS[name]
    agree(DequantizeLinear(), out[:8], np.float32(0.5), dtypes=(dtype, f32))


@settings(max_examples=40, deadline=None)
@given(
    shape=st.lists(st.integers(0, 5), min_size=1, max_size=3),
    data=st.data(),
    block=st.integers(0, 3),
    with_zero=st.booleans(),
)
def test_axes_and_blocks(agree, shape, data, block, with_zero):
    axis = data.draw(st.integers(0, len(shape) - 1))
    parameter = [-(-d // block) if k == axis else d for k, d in enumerate(shape)] if block else [shape[axis]]
    rng = np.random.default_rng(1)
    scale, zp = rng.uniform(0.1, 2, parameter).astype("f4"), rng.integers(-9, 9, parameter).astype("i1")
    parameters = (scale, zp) if with_zero else (scale,)
    agree(QuantizeLinear(axis, block), rng.normal(size=shape).astype("f4") * 20, *parameters, with_symbols=not block)
    agree(
        DequantizeLinear(axis, block), rng.integers(-128, 128, shape).astype("i1"), *parameters, with_symbols=not block
    )


def test_blocks_with_symbols(agree):
    scale = np.array([[0.5], [2.0]], "f4")
    agree(QuantizeLinear(1, 8), np.arange(14, dtype="f4").reshape(2, 7), scale)


def test_i32(agree):
    agree(DequantizeLinear(), np.array([-(2**31), 5, 2**30 + 1], "i4"), np.float32(0.1))
    agree(QuantizeLinear(dtype=u8), np.array([-5, 100, 700], "i4"), np.float32(2))


def test_refusals():
    x, scale = Tensor(f32, (2, 6)), Tensor(f32, ())
    for op, types, message in [
        (QuantizeLinear(dtype=i64), (x, scale), "i64 is no quantized dtype"),
        (QuantizeLinear(dtype=u8), (x, scale, Tensor(i8, ())), "the result u8"),
        (QuantizeLinear(axis=1), (x, Tensor(f32, (2,))), r"shape \[2\], not \[6\]"),
        (QuantizeLinear(axis=1, block_size=4), (x, Tensor(f32, (2, 3))), r"not \[2, 2\]"),
        (QuantizeLinear(axis=1, block_size=-1), (x, Tensor(f32, (2, 3))), "block_size is -1, below 0"),
        (DequantizeLinear(), (x, scale), "does not take f32"),
        (DequantizeLinear(), (Tensor(i32, (2,)), Tensor(i32, ())), "the scale is i32"),
    ]:
        with pytest.raises(TypeRuleError, match=message):
            op.result_types(types)
