"""Random numbers: Philox's known answers, bit-for-bit agreement, and the distributions' moments."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from effcc.errors import TypeRuleError
from effcc.ir import DType, Symbol, Tensor, bf16, bool_, f16, f32, f64, i8, i32, i64, u8
from effcc.ops.random import Bernoulli, RandomInt, RandomNormal, RandomUniform, philox_torch

STATE = (np.array(-(2**62) + 12345), np.array(2**40 + 7))


def test_philox_known_answers():
    """From Random123's kat_vectors, those whose counter's upper half is 0."""
    words = philox_torch(torch.tensor(0), torch.tensor(0))
    assert [hex(int(w)) for w in words] == ["0x6627e8d5", "0xe169c58d", "0xbc57ac4c", "0x9b00dbd8"]


@pytest.mark.parametrize("dtype", [f64, f32, f16, bf16])
@pytest.mark.parametrize("shape", [(), (7,), (2, 3, 2), (0, 4)])
def test_uniform_bit_for_bit(agree, dtype, shape):
    out = agree(RandomUniform(shape, dtype), *STATE, rtol=0)
    assert out.dtype == dtype.torch and ((out >= 0) & (out < 1)).all()


def test_an_offset_is_a_position(agree):
    seed = np.array(5)
    whole = agree(RandomUniform((2, 4)), seed, np.array(100))
    assert torch.equal(agree(RandomUniform((4,)), seed, np.array(104)), whole[1])
    assert not torch.equal(agree(RandomUniform((4,)), np.array(6), np.array(104)), whole[1])


@pytest.mark.parametrize("dtype", [f64, f32, f16, bf16])
def test_normal(agree, dtype):
    agree(RandomNormal((3, 5), dtype), *STATE)


def test_roundings_of_the_angle_are_within_the_magnitude():
    """Box and Muller's formula in f32, one rounding after the other, against f64: some units of the magnitude, where
    the result itself is many times smaller."""
    op, state = RandomNormal((100_000,)), (torch.tensor(5), torch.tensor(7))
    words = [w.reshape(-1) for w in philox_torch(state[0], state[1] + torch.arange(100_000))]
    u = ((words[0] >> 8) + 1).float() * 2.0**-24
    v = (words[2] >> 8).float() * 2.0**-24
    narrow = torch.sqrt(torch.log(u) * -2.0) * torch.cos(v * (2 * math.pi))
    wide = torch.sqrt(torch.log(u.double()) * -2.0) * torch.cos(v.double() * (2 * math.pi))
    error = (narrow.double() - wide).abs() * 2.0**24
    assert (error <= 4 * op.magnitude(*state)).all() and (error > 100 * wide.abs()).any()


def test_moments(agree):
    normal = agree(RandomNormal((20000,)), *STATE)
    assert abs(normal.mean()) < 0.03 and abs(normal.std() - 1) < 0.03 and abs((normal**3).mean()) < 0.1
    uniform = agree(RandomUniform((20000,)), *STATE)
    assert abs(uniform.mean() - 0.5) < 0.01 and abs(uniform.var() - 1 / 12) < 0.003


@pytest.mark.parametrize(
    "dtype,low,high", [(i64, -5, 6), (i32, 0, 2**31), (u8, 0, 256), (i8, -128, 128), (i64, -(2**62), 2**61)]
)
def test_integers(agree, dtype, low, high):
    out = agree(RandomInt(low, high, (50,), dtype), *STATE)
    assert low <= int(out.min()) and int(out.max()) < high and len(out.unique()) > 5


@pytest.mark.parametrize("dtype", [None, bool_, i64, f16])
def test_bernoulli(agree, dtype):
    p = np.linspace(0, 1, 60, dtype="f4").reshape(3, 20)
    out = agree(Bernoulli(dtype), p, *STATE)
    assert out[0, 0] == 0 and out[2, 19] == 1
    agree(Bernoulli(dtype), torch.from_numpy(p).half(), *STATE)
    agree(Bernoulli(dtype), torch.from_numpy(p).double(), *STATE)
    agree(Bernoulli(dtype), torch.tensor(0.5).bfloat16(), *STATE)


def test_refusals():
    state = Tensor(i64, ())
    for op, types, message in [
        (RandomUniform((2,), i32), (state, state), "i32 is not a float"),
        (RandomUniform((2,), DType.parse("f8e4m3")), (state, state), "draw f32 and cast"),
        (RandomNormal((2,)), (Tensor(i32, ()), state), "the seed is i32"),
        (RandomInt(3, 3, (2,)), (state, state), "no range of i64"),
        (RandomInt(0, 300, (2,), u8), (state, state), "no range of u8"),
        (Bernoulli(), (Tensor(i32, (2,)), state, state), "the probability is i32"),
    ]:
        with pytest.raises(TypeRuleError, match=message):
            op.result_types(types)
    n = Symbol("n")
    assert RandomUniform((n, 2)).result_types((state, state)) == (Tensor(f32, (n, 2)),)
