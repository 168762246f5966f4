"""Scalar functions where languages differ: integer division, widths of indices, bits, short floats."""

from __future__ import annotations

import pytest
import torch

import effcc
from effcc.ir.types import f16, f32, i16, i32, i64

pytest.importorskip("triton")


@pytest.mark.parametrize("op", ["div", "floordiv", "mod", "fmod"])
@pytest.mark.parametrize("dtype", [torch.int32, torch.int8])
def test_division_of_negative_integers(op, dtype, agreement):
    a = torch.tensor([7, -7, 7, -7, 6, -6, 0, -1], dtype=dtype)
    b = torch.tensor([2, 2, -2, -2, 3, 3, -5, 9], dtype=dtype)
    agreement(lambda g, x, y: getattr(g, op)(x, y), a, b)


@pytest.mark.parametrize("op", ["div", "floordiv", "mod", "fmod"])
@pytest.mark.parametrize("dtype", [torch.int64, torch.int8, torch.uint8])
def test_division_by_zero_is_by_one(op, dtype, agreement):
    """As on the CPU: the result is undefined, but the same everywhere."""
    a, b = torch.tensor([7, 0, 5, 3], dtype=dtype), torch.tensor([0, 0, 2, 0], dtype=dtype)
    agreement(lambda g, x, y: getattr(g, op)(x, y), a, b)


def test_integers_wrap(agreement):
    x = torch.tensor([127, -128, 100], dtype=torch.int8)
    agreement(lambda g, v: (g.add(v, v), g.mul(v, v), g.neg(v), g.abs(v)), x)


def test_shifts_keep_signs(agreement):
    x, by = torch.tensor([-9, 9, -1, 5], dtype=torch.int32), torch.tensor([1, 2, 31, 40], dtype=torch.int32)
    agreement(lambda g, v, n: (g.shl(v, n), g.shr(v, n)), x, by)


def test_indices_as_data_are_64_bits_wide(agreement):
    """A product of loop variables and a number that does not fit 32 bits."""
    big = torch.tensor(3_000_000_000)
    program = agreement(lambda g, c: g.mul(g.iota(shape=(5, 7), axis=1, dtype=i64), c), big)
    agreement(lambda g, c: g.cast(g.add(g.iota(shape=(9,), axis=0, dtype=i64), c), to=f32), big)
    assert program.code.built.sources


def test_addresses_are_32_bits_wide_where_they_fit(make):
    graph = make(lambda g, x: g.roll(x, shifts=(2, 1)), torch.zeros(5, 6))
    program = effcc.compile(graph, target="cuda{run=interpreter}")
    assert all("int64" not in s.text for s in program.code.built.sources.values())


def test_bits(agreement):
    agreement(lambda g, x: g.bitcast(x, to=i32), torch.tensor([1.0, -0.0, float("inf")]))
    agreement(lambda g, x: g.bitcast(x, to=i16), torch.tensor([1.0, -2.5], dtype=torch.float16))
    agreement(lambda g, x: g.bitcast(x, to=f16), torch.tensor([0x3C00, 0x7BFF], dtype=torch.int16))


def test_short_floats_are_rounded_after_each_op(agreement):
    """(1 + 2⁻¹¹) + 2⁻¹¹ is 1 in f16 where each sum is rounded, 1 + 2⁻¹⁰ where not."""
    one, tiny = torch.ones(4, dtype=torch.float16), torch.full((4,), 2.0**-11, dtype=torch.float16)
    program = agreement(lambda g, x, y: g.add(g.add(x, y), y), one, tiny)
    assert torch.equal(program(one, tiny)[0], one)
