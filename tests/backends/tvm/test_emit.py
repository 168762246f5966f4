"""Arithmetic at the edges of integers' ranges."""

from __future__ import annotations

import numpy as np
import pytest

import effcc
from effcc.ir import Builder, Tensor
from effcc.ir.types import DType


@pytest.mark.parametrize("name", ["i8", "u8", "i16", "u16", "i32", "u32", "u64"])
def test_integers_wrap(name):
    """Also where LLVM could tell a wrapped value from the true one: when it is widened, and 0 - x of unsigned x."""
    dtype = DType.parse(name)
    rng = np.random.default_rng(0)
    x, y = (rng.integers(int(dtype.min), int(dtype.max), 40, dtype.numpy, endpoint=True) for _ in "xy")
    b = Builder()
    p, q = (b.input(n, Tensor(dtype, (40,))) for n in "xy")
    results = (b.add(p, q), b.sub(p, q), b.mul(p, q), b.neg(p))
    wide = DType.parse("i64" if name != "u64" else "f64")
    program = effcc.compile(b.graph(*results, *(b.cast(r, to=wide) for r in results)))
    with np.errstate(over="ignore"):
        want = (x + y, x - y, x * y, -x)
    for got, expected in zip(program(x, y), (*want, *(w.astype(wide.numpy) for w in want)), strict=True):
        np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("name", ["u8", "u32", "u64", "u4", "i8"])
def test_comparisons_that_the_range_decides(name):
    dtype = DType.parse(name)
    x = np.arange(8).astype(dtype.numpy)
    b = Builder()
    p = b.input("x", Tensor(dtype, (8,)))
    low, high = (b.const(np.array(v).astype(dtype.numpy)) for v in (dtype.min, dtype.max))
    tests = (b.lt(p, low), b.ge(p, low), b.gt(p, high), b.le(p, high), b.gt(low, p))
    chosen = (b.prelu(p, p), b.where(b.lt(p, low), b.mul(p, p), p))
    got = effcc.compile(b.graph(*tests, *chosen))(x)
    for answer, expected in zip(got, (False, True, False, True, False)):
        assert (answer == expected).all()
    for answer in got[5:]:
        np.testing.assert_array_equal(answer.astype(np.int64), np.arange(8))
