import numpy as np
import pytest

from effcc.analysis.ranges import Affine, Histogram, ranges
from effcc.ir import Builder, Tensor, f32, i8, u8
from effcc.ir.lazy import torch
from effcc.ir.types import DTYPES


def graph():
    b = Builder()
    x = b.input("x", Tensor(f32, (1000,)))
    return b.graph(b.exp(x)), x


@pytest.mark.parametrize(("low", "high"), [(0, 5), (-3, 1), (2, 9), (-4, -1), (0, 0)])
@pytest.mark.parametrize("dtype", [u8, i8])
def test_zero_is_exact_and_the_range_is_held(low, high, dtype):
    q = Affine.over(low, high, dtype)
    values = torch.tensor([low, high, 0.0])
    assert q.rounded(values)[2] == 0
    assert (q.rounded(values) - values).abs().max() <= float(q.scale)
    assert dtype.min <= q.zero_point <= dtype.max and q.scale > 0


def test_the_range_of_all_that_is_seen():
    g, x = graph()
    batches = [(np.linspace(a, a + 1, 1000, dtype="f4"),) for a in (-2, 1)]
    found = ranges(g, {x, g.results[0]}, batches, u8)
    assert found[x] == (-2, 2)
    assert found[g.results[0]] == (0, pytest.approx(np.exp(2)))


def test_percentiles_leave_the_outermost_out():
    g, x = graph()
    values = np.linspace(-1, 1, 1000, dtype="f4")
    values[0] = 1e4
    low, high = ranges(g, {x}, [(values,)], u8, "percentile", 99.0)[x]
    assert -1 <= low and high < 10


def test_mse_is_no_worse_than_min_max():
    values = np.random.default_rng(0).standard_t(3, 20000)
    counts = np.histogram(values, 2048, (values.min(), values.max()))[0]
    h = Histogram(values.min(), values.max(), counts)
    t = torch.from_numpy(values)

    def error(low, high, dtype):
        return float(((Affine.over(low, high, dtype).rounded(t) - t) ** 2).sum())

    for dtype, part in ((u8, 1.0), (i8, 1.0), (DTYPES["i4"], 0.5)):
        assert error(*h.least_error(dtype), dtype) < part * error(values.min(), values.max(), dtype)


def test_ranges_that_are_not_finite_say_so():
    g, x = graph()
    values = np.zeros(1000, "f4")
    values[3] = np.nan
    assert not np.isfinite(ranges(g, {x}, [(values,)], u8, "mse")[x]).all()


def test_unknown_methods_are_refused():
    g, x = graph()
    with pytest.raises(ValueError, match="none of"):
        ranges(g, {x}, [], u8, "guess")
