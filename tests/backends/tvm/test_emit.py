"""Arithmetic at the edges of integers' ranges."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import effcc
from effcc.interp import run
from effcc.ir import Builder, Tensor
from effcc.ir.types import DType, bf16, f32


@pytest.mark.parametrize("name", ["i8", "u8", "i16", "u16", "i32", "u32", "i64", "u64"])
def test_integers_wrap(name):
    """Also where LLVM could tell a wrapped value from the true one: when it is widened, and 0 - x of unsigned x."""
    dtype = DType.parse(name)
    rng = np.random.default_rng(0)
    x, y = (rng.integers(int(dtype.min), int(dtype.max), 40, dtype.numpy, endpoint=True) for _ in "xy")
    b = Builder()
    p, q = (b.input(n, Tensor(dtype, (40,))) for n in "xy")
    results = (b.add(p, q), b.sub(p, q), b.mul(p, q), b.neg(p))
    wide = DType.parse("f64" if dtype.bits == 64 else "i64")
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


@pytest.mark.parametrize("name", ["i8", "i16", "i32", "i64", "u8", "u32", "u64"])
def test_sums_and_products_of_integers_wrap(name):
    """Contractions, convolutions, reductions and scans, where every partial sum leaves the dtype's range."""
    dtype = DType.parse(name)
    rng = np.random.default_rng(1)

    def draw(*shape):
        return rng.integers(int(dtype.max) - 3, int(dtype.max), shape, dtype.numpy, endpoint=True)

    x, w, image, kernel = draw(5, 37), draw(37, 19), draw(1, 6, 9, 10), draw(8, 6, 3, 3)
    b = Builder("wrapping")
    p, q, r, t = (b.input(n, Tensor(dtype, a.shape)) for n, a in zip("pqrt", (x, w, image, kernel)))
    window = {"strides": (1, 1), "pads": (1, 1, 1, 1), "dilations": (1, 1)}
    one = b.slice(t, starts=(0,) * 4, stops=(6, 1, 3, 3), steps=(1,) * 4)
    graph = b.graph(
        *(b.matmul(p, q), b.conv(r, t, **window), b.conv(r, one, groups=6, **window)),
        *(b.sum(p, axes=(1,)), b.prod(p, axes=(1,)), b.sum(p, axes=(0,)), b.cumsum(p, axis=1)),
    )
    for got, want in zip(effcc.compile(graph)(x, w, image, kernel), run(graph, x, w, image, kernel), strict=True):
        np.testing.assert_array_equal(got, want.numpy())


def test_what_overflows_is_not_cancelled():
    """2a / 2 is a for numbers that never overflow; these do."""
    for name in ("i32", "i64"):
        dtype = DType.parse(name)
        x = np.array([dtype.max, dtype.min, 5], dtype.numpy)
        b = Builder("cancelled")
        p = b.input("p", Tensor(dtype, (3,)))
        two, one = (b.const(np.array(v, dtype.numpy)) for v in (2, 1))
        graph = b.graph(b.div(b.mul(p, two), two), b.gt(b.add(p, one), p))
        for got, want in zip(effcc.compile(graph)(x), run(graph, x), strict=True):
            np.testing.assert_array_equal(got, want.numpy())


@pytest.mark.parametrize("name", ["i8", "i32", "i64", "u8", "u32"])
def test_quotients_and_remainders(name):
    """By any number, and by numbers that are known, of either sign: rounded down and toward zero, at the ends too."""
    dtype = DType.parse(name)
    edges = [int(dtype.min), int(dtype.min) + 1, 0, 1, 2, 3, 7, int(dtype.max)]
    edges += [-1, -2, -3, -7] if dtype.min < 0 else []
    x, y = (v.reshape(-1) for v in np.meshgrid(*[np.array(edges, dtype.numpy)] * 2))
    b = Builder()
    p, q = (b.input(n, Tensor(dtype, x.shape)) for n in "xy")
    known = [b.const(np.array(v, dtype.numpy)) for v in edges]
    graph = b.graph(*(f(p, d) for f in (b.div, b.floordiv, b.mod, b.fmod) for d in (q, *known)))
    for got, want in zip(effcc.compile(graph)(x, y), run(graph, x, y), strict=True):
        np.testing.assert_array_equal(got, want.numpy())


def test_floats_are_rounded_to_bf16_to_even_subnormal_ones_too():
    """By an instruction where the CPU has one, which takes subnormal numbers for 0."""
    rng = np.random.default_rng(0)
    bits = np.concatenate([rng.integers(0, 1 << 32, 4096, np.uint32), rng.integers(0, 1 << 23, 4096, np.uint32)])
    ties = rng.integers(0, 1 << 16, 512, np.uint32) << 16 | 0x8000
    special = [0, 1 << 31, 0x7F800000, 0x7FC00000]
    x = torch.from_numpy(np.concatenate([bits, ties, special]).astype(np.uint32).view("f4"))
    b = Builder()
    program = effcc.compile(b.graph(b.cast(b.input("x", Tensor(f32, x.shape)), to=bf16)))
    (got,), want = program(x), x.to(torch.bfloat16)
    assert torch.equal(got.isnan(), want.isnan())
    kept = ~want.isnan()
    assert torch.equal(got.view(torch.int16)[kept], want.view(torch.int16)[kept])


def test_a_clip_between_constants_keeps_nan():
    b = Builder()
    low, high = b.const(np.float32(-1)), b.const(np.float32(2))
    program = effcc.compile(b.graph(b.clip(b.input("x", Tensor(f32, (5,))), low, high)))
    (got,) = program(np.array([-np.inf, np.nan, 0.5, 3, np.inf], "f4"))
    np.testing.assert_array_equal(got, [-1, np.nan, 0.5, 2, 2])
