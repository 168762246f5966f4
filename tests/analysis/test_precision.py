"""Bounds on rounding errors hold for real f32 runs, and are not absurdly wide."""

import contextlib
import random

import pytest
import torch

from effcc.analysis.precision import bounded_run, expand, unit_roundoff, widen
from effcc.interp import run
from effcc.ir import DTYPES, Builder, Symbol, Tensor, f32, verify
from effcc.testing.draw import Drawer, NothingDrawn, drawable_ops
from effcc.text import parse


def mlp(dtype):
    b = Builder()
    x = b.input("x", Tensor(dtype, (Symbol("B", 1, 64), 64)))
    w = b.const(torch.randn(64, 32, generator=torch.Generator().manual_seed(0)).to(dtype.torch).float().numpy(), None)
    w = b.cast(w, to=dtype)
    y = b.layer_norm(b.gelu(b.matmul(x, w), approximate="tanh"), axis=1)
    return b.graph(b.softmax(y, axis=1))


@pytest.mark.parametrize("name", ["f32", "f16", "bf16"])
def test_bounds_hold_and_are_useful(name):
    dtype = DTYPES[name]
    g = mlp(dtype)
    x = torch.randn(8, 64, generator=torch.Generator().manual_seed(1)).to(dtype.torch)
    (out,) = run(g, x)
    (b,) = bounded_run(g, x)
    error = (out.double() - b.exact).abs()
    assert (error <= b.bound).all()
    assert b.bound.median() < 4000 * unit_roundoff(g) * b.exact.abs().median()


@pytest.mark.parametrize("name", ["f8e4m3", "f8e4m3fnuz", "f8e5m2"])
def test_results_in_floats_of_a_byte(name):
    """torch only stores these: it has neither abs nor random numbers for them."""
    b = Builder()
    x = b.input("x", Tensor(f32, (4,)))
    bounded_run(b.graph(b.cast(b.exp(x), to=DTYPES[name])), torch.rand(4, generator=torch.Generator().manual_seed(1)))


def test_cancellation_widens_the_bound():
    b = Builder()
    x, y = (b.input(n, Tensor(f32, (1,))) for n in "xy")
    g = b.graph(b.sub(b.add(x, y), x))
    (near,) = bounded_run(g, torch.tensor([1.0]), torch.tensor([1.0]))
    (far,) = bounded_run(g, torch.tensor([1e6]), torch.tensor([1.0]))
    assert far.bound > 1e4 * near.bound and abs(float(run(g, torch.tensor([1e6]), torch.tensor([0.1]))[0]) - 0.1) > 1e-3


def test_widening_is_everywhere():
    wide = widen(mlp(f32))
    verify(wide)
    assert {v.type.dtype.name for v in wide.values} == {"f64"}


@pytest.mark.parametrize("cls", drawable_ops(), ids=lambda cls: cls.name)
def test_every_op_can_be_widened(cls):
    """An op that takes floats of one dtype only, or depends on their bits, says so: Op.widens."""
    for seed in range(30):
        drawer = Drawer(random.Random(f"{cls.name} {seed}").choice)
        with contextlib.suppress(NothingDrawn):
            verify(widen(drawer.random_graph([cls], 1)))


def test_expanding_keeps_the_meaning():
    g = mlp(f32)
    big = expand(g)
    verify(big)
    assert "softmax" not in {n.op.name for n in big.nodes} and len(big.nodes) > len(g.nodes)
    x = torch.randn(2, 64)
    assert torch.allclose(run(g, x)[0], run(big, x)[0], atol=1e-6)


@pytest.mark.parametrize("text", [
    """graph @f(%x: f32[1,2,4,4], %g: f32[1,3,3,2]) -> f32[1,2,3,3] {
      %0: f32[1,2,3,3] = grid_sample(%x, %g) {mode="linear", padding="zeros", align_corners=false}
      return %0
    }""",
    """graph @f(%x: f32[4], %i: i64[64], %u: f32[64]) -> f32[4] {
      %0: f32[4] = scatter_elements(%x, %i, %u) {axis=0, reduction="add"}
      return %0
    }""",
])  # fmt: skip
def test_ops_that_mix_what_they_move_are_rounded(text: str) -> None:
    """A weighted mean of neighbours and a sum by scattering move by more than their result's own rounding."""
    graph = parse(text)
    torch.manual_seed(0)
    given = [torch.randint(0, 4, (64,)) if v.tensor.dtype.is_integer else torch.rand(v.shape) * 2 - 1
             for v in graph.inputs]  # fmt: skip
    (bounded,) = bounded_run(graph, *given)
    assert bool((bounded.bound > 8 * 2.0**-24 * bounded.exact.abs()).any())


def test_zeros_of_sums_have_either_sign():
    """0 · -2 is -0 where torch multiplies, and 0 where code adds it to 0: what is made of it may be either infinity."""
    text = "graph @f(%x: f32[3,1], %w: f32[1,4]) -> f32[3,4] {{ %0: f32[3,4] = {} %1: f32[3,4] = rsqrt(%0) return %1 }}"
    inputs = torch.zeros(3, 1), torch.full((1, 4), -2.0)
    summed, product = (parse(text.format(op)) for op in ("matmul(%x, %w)", "mul(%x, %w)"))
    assert bounded_run(summed, *inputs)[0].bound.isinf().all()
    assert not bounded_run(product, *inputs)[0].bound.isinf().any()


def test_integers_that_rounding_decides_may_be_others_and_only_these():
    """Which of equal sums comes first is a matter of rounding; that those far apart come last is not."""
    graph = parse("""graph @f(%x: f16[8,8]) -> i64[8] {
      %0: f16[8] = sum(%x) {axes=(1,)}
      %1: f16[8], %2: i64[8] = sort(%0) {axis=0}
      return %2
    }""")
    x = torch.full((8, 8), 0.1, dtype=torch.float16)
    x[6:] += torch.tensor([[1.0], [2.0]], dtype=torch.float16)
    (bounded,) = bounded_run(graph, x)
    assert (bounded.bound[:6] >= 16).all() and (bounded.bound[6:] == 0).all()


def test_quantization_errors_of_equal_codes_add_up():
    graph = parse("""graph @f(%x: i8[4096]) -> f32[] {
      %s: f32[] = const 0.5
      %0: f32[4096] = dequantize_linear(%x, %s) {axis=0}
      %1: f32[] = sum(%0) {axes=(0,)}
      return %1
    }""")
    (bounded,) = bounded_run(graph, torch.full((4096,), 3, dtype=torch.int8), quanta=True)
    assert bounded.exact == 6144 and bounded.bound >= 4096 * 0.25
