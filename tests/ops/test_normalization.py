"""Softmax and normalizations: each decomposition against its reference, each reference against torch's own."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from effcc.errors import TypeRuleError
from effcc.ir import Symbol, Tensor, f32, i32
from effcc.ops.normalization import BatchNorm, GroupNorm, LayerNorm, LogSoftmax, RmsNorm, Softmax

DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16]


def draw(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed + len(shape))).to(dtype)


@settings(max_examples=30, deadline=None)
@given(shape=st.lists(st.integers(0, 5), min_size=1, max_size=3), data=st.data(), dtype=st.sampled_from(DTYPES))
def test_softmax(decomposes, shape, data, dtype):
    axis = data.draw(st.integers(0, len(shape) - 1))
    x = 10 * draw(*shape, dtype=dtype)
    decomposes(Softmax(axis), x)
    decomposes(LogSoftmax(axis), x)


def test_softmax_of_extremes(decomposes):
    inf = float("inf")
    out = decomposes(Softmax(1), torch.tensor([[1e30, 0, -inf], [-inf, -inf, -inf], [1, float("nan"), 0]]))
    assert out[0].tolist() == [1, 0, 0] and out[1:].isnan().all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_layer_and_rms_norm(decomposes, dtype, axis):
    x = 3 * draw(2, 3, 4, dtype=dtype) + 1
    scale, bias = draw(*x.shape[axis:], seed=1), draw(*x.shape[axis:], seed=2)
    out = decomposes(LayerNorm(axis, 1e-3), x, scale, bias)
    want = F.layer_norm(x.double(), x.shape[axis:], scale.double(), bias.double(), 1e-3)
    torch.testing.assert_close(out.double(), want, rtol=2e-2, atol=2e-2)
    decomposes(LayerNorm(axis), x)
    decomposes(LayerNorm(axis), x, scale.to(dtype))
    out = decomposes(RmsNorm(axis, 1e-3), x, scale)
    torch.testing.assert_close(
        out.double(), F.rms_norm(x.double(), x.shape[axis:], scale.double(), 1e-3), rtol=2e-2, atol=2e-2
    )
    decomposes(RmsNorm(axis), x)


@pytest.mark.parametrize("groups", [1, 2, 6])
@pytest.mark.parametrize("spatial", [(), (5,), (2, 3), (0,)])
def test_group_norm(decomposes, groups, spatial):
    x, scale, bias = draw(2, 6, *spatial), draw(6), draw(6, seed=4)
    out = decomposes(GroupNorm(groups, 1e-4), x, scale, bias, known=(6,))
    if 0 not in spatial and (groups < 6 or spatial):
        torch.testing.assert_close(out, F.group_norm(x, groups, scale, bias, 1e-4), rtol=1e-4, atol=1e-5)
    decomposes(GroupNorm(groups), x.bfloat16(), known=(6,))


def test_batch_norm(decomposes):
    x, scale, bias, mean, var = draw(2, 3, 4), draw(3), draw(3, seed=1), draw(3, seed=2), draw(3, seed=3).abs()
    out = decomposes(BatchNorm(1e-3), x, scale, bias, mean, var)
    torch.testing.assert_close(out, F.batch_norm(x, mean, var, scale, bias, eps=1e-3))
    decomposes(BatchNorm(), x.half(), scale, bias, mean, var)
    decomposes(BatchNorm(), draw(0, 3), scale, bias, mean, var)


def test_refusals():
    x = Tensor(f32, (2, 6, 4))
    for op, types, message in [
        (Softmax(3), (x,), "axis 3 is not an axis"),
        (Softmax(0), (Tensor(i32, (2,)),), "does not take i32"),
        (LayerNorm(1), (x, Tensor(f32, (5,))), "do not broadcast"),
        (LayerNorm(2), (x, Tensor(f32, (6, 4))), r"does not broadcast to \[4\]"),
        (GroupNorm(4), (x,), "6 channels do not divide into 4 groups"),
        (GroupNorm(2), (x, Tensor(f32, (4,))), "not one number for each of 6 channels"),
        (BatchNorm(), (Tensor(f32, (3,)), *[Tensor(f32, (3,))] * 4), r"\[N, C, ...\]"),
    ]:
        with pytest.raises(TypeRuleError, match=message):
            op.result_types(types)


def test_symbolic_shapes():
    x = Tensor(f32, (Symbol("B"), 6, Symbol("L")))
    assert LayerNorm(1).result_types((x, Tensor(f32, (Symbol("L"),)))) == (x,)
    assert GroupNorm(3).result_types((x,)) == (x,)


def test_parameters_have_as_many_channels_as_each_other():
    n, two, many = Symbol("N"), Tensor(f32, (2,)), Tensor(f32, (16,))
    with pytest.raises(TypeRuleError, match=r"the mean is f32\[16\], not one number for each of 2 channels"):
        BatchNorm().result_types((Tensor(f32, (n, n)), two, two, many, two))


def test_batch_norm_divides_by_no_less_than_the_deviation():
    channels = Tensor(f32, (3,))
    with pytest.raises(TypeRuleError, match="eps is -1e-06"):
        BatchNorm(eps=-1e-6).infer(Tensor(f32, (2, 3)), *[channels] * 4)
