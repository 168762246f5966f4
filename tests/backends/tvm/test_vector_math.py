"""The elementary functions against float64, over samples dense in bit patterns and at the special values.

`benchmarks/vector_math.py` runs all 2^32 floats.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tvm.tirx.script import builder as T

from effcc.backends.tvm import vector_math
from effcc.backends.tvm.standalone import Kernel
from effcc.backends.tvm.templates.emission import bind, constant, load, store

BINARY = ("pow", "atan2")
UNARY = [name for name in vector_math.LARGEST_ERROR if name not in BINARY]
SPECIAL = np.array(
    [0.0, -0.0, np.inf, -np.inf, np.nan, 1, -1, 0.5, -0.5, 2, -2, 3, -3, 1.5, 2**-149, -(2**-149), 2**-126, -(2**-126),
     1 - 2**-24, 1 + 2**-23, 3.4028235e38, -3.4028235e38, 88.72283, 88.72284, -103.9, -104, -87.4, 1e-30, 1e30, 71477.0,
     1e5, -1e20, 2**24 + 2, 16777217, 0.9277344, 4.0, 10.0, 10.2], np.float32,
)  # fmt: skip


def evaluate(name: str, *operands: np.ndarray, lanes: int = 8, result: str | None = None) -> np.ndarray:
    """The function over equally long arrays (a multiple of `lanes`)."""
    dtype = str(operands[0].dtype)
    y = np.zeros(operands[0].size, result or dtype)

    def body(buffers, dims, scratch, tile):
        with T.serial(T.int64(0), T.int64(y.size // lanes)) as i:
            value = getattr(vector_math, name)(bind, *(load(x, i * lanes, lanes) for x in buffers[:-1]))
            if result == "int8":
                value = T.Select(value, constant(1, "int8", lanes), constant(0, "int8", lanes))
            store(buffers[-1], value, i * lanes, lanes)

    Kernel(body, [dtype] * len(operands) + [result or dtype], lambda: 1)([*operands, y])
    return y


def sample(count: int = 1 << 16) -> np.ndarray:
    generator = np.random.default_rng(0)
    x = generator.integers(0, 2**32, count, dtype=np.uint32).view(np.float32)
    x[: count // 2] = generator.uniform(-1.5, 1.5, count // 2)
    x[: count // 4] = generator.uniform(-120, 120, count // 4)
    x[: SPECIAL.size] = SPECIAL
    return x


def check(got: np.ndarray, wanted: np.ndarray, largest: float) -> None:
    """Equal NaNs, infinities and signs of zero; elsewhere at most `largest` ulps away."""
    with np.errstate(all="ignore"):
        rounded = wanted.astype(np.float32)
    np.testing.assert_array_equal(np.isnan(got), np.isnan(rounded))
    numbers = ~np.isnan(rounded)
    got, rounded, wanted = got[numbers], rounded[numbers], wanted[numbers]
    np.testing.assert_array_equal(np.signbit(got), np.signbit(rounded))
    finite = np.isfinite(rounded)
    np.testing.assert_array_equal(got[~finite], rounded[~finite])
    assert np.isfinite(got[finite]).all()
    mantissa, exponent = np.frexp(wanted[finite])
    ulp = np.ldexp(1.0, np.maximum(np.where(mantissa == 0, -149, exponent - 24), -149))
    error = np.abs(got[finite].astype(np.float64) - wanted[finite]) / ulp
    assert error.max(initial=0) <= largest


def exact(name: str, *operands: np.ndarray) -> np.ndarray:
    return getattr(torch, name)(*(torch.from_numpy(x).double() for x in operands)).numpy()


@pytest.mark.parametrize("name", UNARY)
def test_unary(name: str) -> None:
    x = sample()
    check(evaluate(name, x), exact(name, x), vector_math.LARGEST_ERROR[name])


@pytest.mark.parametrize("name", BINARY)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_binary(name: str) -> None:
    first, second = (grid.ravel() for grid in np.meshgrid(SPECIAL[:32], SPECIAL[:32]))
    generator = np.random.default_rng(1)
    x = np.concatenate([first, generator.uniform(-3, 3, 4096), generator.uniform(0, 60, 4096), sample(8192)])
    y = np.concatenate(
        [second, generator.uniform(-90, 90, 4096), generator.integers(-9, 9, 4096), sample(16384)[8192:]]
    )
    x, y = x.astype(np.float32), y.astype(np.float32)
    check(evaluate(name, x, y), exact(name, x, y), vector_math.LARGEST_ERROR[name])


@pytest.mark.parametrize("lanes", [1, 4, 16, 32])
@pytest.mark.parametrize("name", ["exp", "log", "erf", "sin", "asinh"])
def test_any_lane_count(name: str, lanes: int) -> None:
    x = sample(1024)
    np.testing.assert_array_equal(evaluate(name, x, lanes=lanes), evaluate(name, x, lanes=8))


@pytest.mark.parametrize("name", [*UNARY, *BINARY])
def test_float64_is_libm(name: str) -> None:
    x = np.concatenate([SPECIAL[:20], np.linspace(-0.9, 0.9, 44)]).astype(np.float64)
    operands = (x,) if name in UNARY else (x, x[::-1].copy())
    np.testing.assert_allclose(evaluate(name, *operands), exact(name, *operands), rtol=1e-14)


@pytest.mark.parametrize(
    "name,reference", [("floor", np.floor), ("ceil", np.ceil), ("trunc", np.trunc), ("rint", np.rint)]
)
def test_rounding(name: str, reference: np.ufunc) -> None:
    x = sample(4096)
    got = evaluate(name, x)
    np.testing.assert_array_equal(got, reference(x))
    np.testing.assert_array_equal(np.signbit(got), np.signbit(reference(x)))


def test_normal_cdf_is_right_in_relation_to_one() -> None:
    x = np.concatenate([sample(), np.linspace(-6, 6, 1 << 16, dtype=np.float32)])
    got = evaluate("normal_cdf", x)
    np.testing.assert_array_equal(np.isnan(got), np.isnan(x))
    assert np.nanmax(np.abs(got - torch.special.ndtr(torch.from_numpy(x).double()).numpy())) <= 3 * 2.0**-24
    assert (got[x <= -5.5] == 0).all() and (got[x >= 5.5] == 1).all()
    wide = np.linspace(-9, 9, 64)  # below: erf's last place and the rounding of 1 + erf, halved, and erf's argument's
    exact = torch.special.ndtr(torch.from_numpy(wide)).numpy()
    np.testing.assert_allclose(evaluate("normal_cdf", wide), exact, rtol=0, atol=2.0**-52)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_isnan(dtype: str) -> None:
    x = sample(1024).astype(dtype)
    np.testing.assert_array_equal(evaluate("isnan", x, result="int8"), np.isnan(x))


def test_softmax_exponential_is_zero_for_what_is_masked() -> None:
    x = -np.abs(sample(4096))
    got, wanted = evaluate("exp_nonpositive", x), np.exp(x.astype(np.float64))
    normal = x >= -87.33654
    check(got[normal], wanted[normal], 1.0)
    assert (got[x < -87.33654] == 0).all()


@pytest.mark.parametrize("operation,reference", [("add", np.sum), ("max", np.max), ("min", np.min)])
@pytest.mark.parametrize("dtype", ["float32", "int32"])
def test_reductions_over_lanes(operation: str, reference, dtype: str) -> None:
    x, y = np.arange(-7, 9).astype(dtype) * 3, np.zeros(1, dtype)

    def body(buffers, dims, scratch, tile):
        store(buffers[1], vector_math.reduce_lanes(operation, bind(load(buffers[0], T.int64(0), 16))), T.int64(0))

    Kernel(body, [dtype, dtype], lambda: 1)([x, y])
    assert y[0] == reference(x)


def test_sums_are_rounded_where_they_stand() -> None:
    """The lowering must not take floats for reals: (x + 1e8) - 1e8 is 0 for x = 1, and NaN differs from itself."""
    x, y = np.array([1, np.nan], np.float32), np.zeros(2, np.float32)

    def body(buffers, dims, scratch, tile):
        first, second = (T.bind(load(buffers[0], T.int64(i))) for i in range(2))
        big = T.bind(first + T.float32(1e8))
        store(buffers[1], big - T.float32(1e8), T.int64(0))
        store(buffers[1], T.Cast("float32", T.Not(second == second)), T.int64(1))

    Kernel(body, ["float32", "float32"], lambda: 1)([x, y])
    assert y[0] == 0
