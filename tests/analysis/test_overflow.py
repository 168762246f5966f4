"""Numbers that leave a range: what becomes of them, and who may be excused by it."""

import math

import pytest
import torch

from effcc.analysis.overflow import Range
from effcc.analysis.precision import Rounded
from effcc.ir.types import bf16, f16, f32, f64
from effcc.testing.compare import Mismatch, compare
from effcc.text import parse


def test_a_range_is_that_of_all_its_dtypes():
    assert Range.of(f64, f32).largest == torch.finfo(torch.float32).max
    both = Range.of(f16, bf16)
    assert (both.largest, both.normal, both.step) == (65504.0, 2.0**-14, 2.0**-24)


def test_what_becomes_of_numbers():
    x = torch.tensor([1.0, 0.0, -1e39, 2.0, -1e-50, math.inf], dtype=torch.float64)
    reach = torch.tensor([1.0, 0.0, 1e39, 1e40, 1e-50, math.inf], dtype=torch.float64)
    left = Range.of(f32).leave(x, reach, math.nan, torch.Generator())
    assert left[:3].tolist() == [1.0, 0.0, -math.inf] and left[3].isnan()
    assert left[4] == 0 and torch.signbit(left[4]) and left[5] == math.inf
    assert 0 < abs(Range.of(f32).leave(x, reach, math.inf, torch.Generator().manual_seed(0))[4]) < 2.0**-149


def test_only_sums_that_may_overflow_have_leeway():
    graph = parse("""graph @f(%x: f32[2,3], %y: f32[3,1]) -> f32[2,1] {
      %0: f32[2,1] = matmul(%x, %y)
      return %0
    }""")
    x = torch.tensor([[3e38, 3e38, -3e38], [1.0, 1e38, -1e38]])
    run = Rounded(graph, x, torch.ones(3, 1), dtype=f32)
    assert run.leeway()[0].tolist() == [[math.inf], [0.0]]


def test_sequences_pass_through():
    graph = parse("""graph @f(%x: f32[2], %c: bool[]) -> f32[2] {
      %n: i64[] = const 1
      %0: sequence<f32[2]> = sequence_construct(%x, %x)
      %1: sequence<f32[2]>, %2: f32[2] = loop(%n, %c, %0, %x) {
        body=graph @body(%i: i64[], %g: bool[], %s: sequence<f32[2]>, %y: f32[2])
            -> (bool[], sequence<f32[2]>, f32[2]) {
          %3: f32[2] = add(%y, %y)
          return %g, %s, %3
        }, num_carried=2}
      %4: f32[2] = sequence_at(%1, %n)
      %5: f32[2] = add(%4, %2)
      return %5
    }""")
    run = Rounded(graph, torch.tensor([1.0, 3e38]), torch.tensor(True), dtype=f32)
    run.sample()
    assert run.leeway()[0].tolist() == [0.0, math.inf]


FAR = """graph @f(%x: f32[4]) -> f32[4] {
  %0: f32[] = const 1e+38
  %1: f32[4] = mul(%x, %0)
  %2: f32[4] = div(%1, %0)
  return %2
}"""
NEAR = """graph @f(%x: f32[4]) -> f32[4] {
  %0: f32[] = const 1.0
  %1: f32[4] = mul(%x, %0)
  return %1
}"""


def test_a_pass_must_not_overflow_where_its_input_did_not():
    far, near, x = parse(FAR), parse(NEAR), torch.tensor([1.0, 2.0, 3.0, 100.0])
    compare(far, near, [x], "bounded")
    with pytest.raises(Mismatch, match="in f32: inf after, 100.0 before"):
        compare(near, far, [x], "bounded")


@pytest.mark.parametrize("op", ["prod(%x) {axes=(0,)}", "scatter_elements(%one, %i, %x) {axis=0, reduction=\"mul\"}"])
def test_a_product_with_zero_may_have_overflowed_before(op):
    """In the one order it is 0, in the other infinity times 0."""
    shape = "" if op.startswith("prod") else "1"
    text = f"""graph @f(%x: f16[4], %i: i64[4]) -> f16[{shape}] {{
      %one: f16[1] = const [1.0]
      %0: f16[{shape}] = {op}
      return %0
    }}"""
    zeros = torch.zeros(4, dtype=torch.int64)
    for numbers, most in (([300.0, 300.0, 0.0, 1.0], math.inf), ([300.0, 2.0, 0.0, 1.0], 0.0)):
        run = Rounded(parse(text), torch.tensor(numbers, dtype=torch.float16), zeros)
        run.sample()
        assert run.leeway()[0].reshape(-1).tolist() == [most]
