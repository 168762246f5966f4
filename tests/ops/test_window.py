"""Convolutions and pooling against torch's own."""

from __future__ import annotations

from itertools import product

import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from effcc.errors import TypeRuleError
from effcc.ir import Symbol, Tensor, bool_, evaluate, f32, i8, i32
from effcc.ops.window import AvgPool, Conv, ConvTranspose, MaxPool, MaxPoolWithIndices, window_size


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def last(x: torch.Tensor) -> torch.Tensor:
    return x.movedim(1, -1).contiguous()


geometry = st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(1, 2), st.integers(0, 2), st.integers(0, 2))
"""kernel, stride, dilation, pads of one spatial axis"""


@settings(max_examples=100, deadline=None)
@given(
    axes=st.lists(geometry, min_size=1, max_size=3),
    sizes=st.lists(st.integers(1, 6), min_size=3, max_size=3),
    groups=st.sampled_from([1, 2]),
    inputs=st.integers(1, 2),
    outputs=st.integers(1, 2),
    batch=st.integers(0, 2),
    layout=st.sampled_from(["nchw", "nhwc"]),
    with_bias=st.booleans(),
)
def test_conv(agree, axes, sizes, groups, inputs, outputs, batch, layout, with_bias):
    kernel, strides, dilations, before, after = (tuple(t) for t in zip(*axes))
    spatial = sizes[: len(axes)]
    assume(all(n + a + z > d * (k - 1) for n, k, d, a, z in zip(spatial, kernel, dilations, before, after)))
    x, w = draw(batch, groups * inputs, *spatial), draw(groups * outputs, inputs, *kernel)
    bias = (draw(groups * outputs),) if with_bias else ()
    op = Conv(strides, before + after, dilations, groups, layout)
    out = agree(
        op, last(x) if layout == "nhwc" else x, w, *bias, known=kernel + (inputs, groups * inputs, groups * outputs)
    )
    if before == after and batch:
        want = getattr(F, f"conv{len(axes)}d")(
            x, w, *bias, stride=strides, padding=before, dilation=dilations, groups=groups
        )
        torch.testing.assert_close(out, last(want) if layout == "nhwc" else want, rtol=1e-4, atol=1e-4)


def test_conv_dtypes(agree):
    x, w = draw(1, 2, 5), draw(3, 2, 3)
    for dtype in (torch.float16, torch.bfloat16, torch.float64):
        agree(Conv((1,), (1, 1), (1,)), x.to(dtype), w.to(dtype), with_symbols=False)
    x, w = (torch.randint(-128, 128, t.shape, dtype=torch.int8) for t in (x, w))
    agree(
        Conv((2,), (1, 0), (1,), accumulate=i32), x, w, torch.tensor([1, -2, 3], dtype=torch.int32), with_symbols=False
    )


@settings(max_examples=100, deadline=None)
@given(
    axes=st.lists(geometry, min_size=1, max_size=2),
    sizes=st.lists(st.integers(1, 4), min_size=2, max_size=2),
    groups=st.sampled_from([1, 2]),
    extra=st.integers(0, 1),
    batch=st.integers(0, 2),
    with_bias=st.booleans(),
)
def test_conv_transpose(agree, axes, sizes, groups, extra, batch, with_bias):
    kernel, strides, dilations, before, after = (tuple(t) for t in zip(*axes))
    n = len(axes)
    output_pads = tuple(min(extra, s - 1) for s in strides)
    assume(all((m - 1) * s + d * (k - 1) + 1 + e > a + z for m, k, s, d, a, z, e in
               zip(sizes, kernel, strides, dilations, before, after, output_pads)))
    x, w = draw(batch, groups * 2, *sizes[:n]), draw(groups * 2, 3, *kernel)
    bias = (draw(groups * 3),) if with_bias else ()
    op = ConvTranspose(strides, before + after, output_pads, dilations, groups)
    out = agree(op, x, w, *bias, known=kernel + (groups * 2, groups * 3, 3))
    if before == after and batch and all(e < max(s, d) for e, s, d in zip(output_pads, strides, dilations)):
        want = getattr(F, f"conv_transpose{n}d")(
            x, w, *bias, stride=strides, padding=before, output_padding=output_pads, groups=groups, dilation=dilations
        )
        torch.testing.assert_close(out, want, rtol=1e-4, atol=1e-4)


pools = st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(1, 2), st.integers(0, 1), st.integers(0, 1))


@settings(max_examples=150, deadline=None)
@given(
    axes=st.lists(pools, min_size=1, max_size=2),
    sizes=st.lists(st.integers(1, 6), min_size=2, max_size=2),
    ceil=st.booleans(),
    include=st.booleans(),
    layout=st.sampled_from(["nchw", "nhwc"]),
)
def test_pools(agree, axes, sizes, ceil, include, layout):
    kernel, strides, dilations, before, after = (tuple(t) for t in zip(*axes))
    before, after = (tuple(min(p, k // 2) for p, k in zip(pads, kernel)) for pads in (before, after))
    spatial = sizes[: len(axes)]
    assume(all(n + a + z > d * (k - 1) for n, k, d, a, z in zip(spatial, kernel, dilations, before, after)))
    x, pads = draw(2, 3, *spatial), before + after
    place = last if layout == "nhwc" else lambda t: t
    known = (2, 3)
    out = agree(MaxPool(kernel, strides, pads, dilations, ceil, layout), place(x), known=known)
    if before == after:
        want = getattr(F, f"max_pool{len(axes)}d")(x, kernel, strides, before, dilations, ceil)
        torch.testing.assert_close(out, place(want))
    values, where = agree(MaxPoolWithIndices(kernel, strides, pads, dilations, ceil), x, known=known)
    if before == after and (where >= 0).all():  # a window that is wholly padding has no index
        want = getattr(F, f"max_pool{len(axes)}d")(x, kernel, strides, before, dilations, ceil, return_indices=True)
        torch.testing.assert_close((values, where), want)
    plain = dilations == (1,) * len(axes)
    covered = all(
        (int(window_size(n, k, s, d, a, z, ceil)) - 1) * s - a < n and a < d * (k - 1) + 1
        for n, k, s, d, a, z in zip(spatial, kernel, strides, dilations, before, after)
    )
    if plain and covered:
        out = agree(AvgPool(kernel, strides, pads, dilations, ceil, include, layout), place(x), known=known)
        if before == after:
            want = getattr(F, f"avg_pool{len(axes)}d")(x, kernel, strides, before, ceil, include)
            torch.testing.assert_close(out, place(want))


def test_windows_of_padding_alone():
    """Those of each geometry of one axis, for known sizes and for a size that is known at run time."""
    found = []
    for k, stride, dilation, before, after, ceil in product((1, 2, 3), (1, 2), (1, 2), (0, 1, 2), (0, 1, 2), (0, 1)):
        op = MaxPool((k,), (stride,), (before, after), (dilation,), bool(ceil))
        alone = []
        for n in range(1, 5):
            seen = bool(op.unfold(torch.zeros(1, 1, n), 0)[1].any(-1).all())
            assert op.may_see_padding_alone(Tensor(f32, (1, 1, n))) is not seen, op
            alone.append(not seen)
        assert op.may_see_padding_alone(Tensor(f32, (1, 1, Symbol("n", 1)))) or not any(alone), op
        found += alone
    assert set(found) == {False, True}


def test_pools_of_special_values_and_dtypes(agree):
    x = torch.tensor([[[1.0, float("nan"), -3, -torch.inf, -torch.inf, -5]]])
    geometry_ = ((2,), (1,), (1, 0), (1,))
    agree(MaxPool(*geometry_), x)
    agree(MaxPoolWithIndices(*geometry_), x)
    agree(MaxPoolWithIndices(*geometry_), torch.full((1, 1, 4), -torch.inf))
    for dtype in (torch.int8, torch.uint8, torch.float16, torch.bfloat16, torch.float64):
        y = torch.arange(-3, 5).to(dtype).reshape(1, 2, 4)
        agree(MaxPool(*geometry_), y)
        agree(MaxPoolWithIndices(*geometry_), y)
        if dtype.is_floating_point:
            agree(AvgPool(*geometry_), y)
            agree(AvgPool(*geometry_, count_include_pad=True), y)
    agree(MaxPool((1, 1), (1, 1), (0,) * 4, (1, 1)), draw(0, 2, 3, 3))


def test_avg_pool_with_dilation_and_symbols(agree):
    x = draw(1, 2, 9, 8)
    for ceil in (False, True):
        for include in (False, True):
            agree(AvgPool((2, 3), (2, 1), (1, 0, 0, 2), (2, 1), ceil, include), x)


def test_refusals():
    x, n = Tensor(f32, (1, 4, 8)), Symbol("n", 1)
    for op, types, message in [
        (Conv((1,), (0, 0), (1,)), (x, Tensor(f32, (2, 3, 3))), "4 channels do not fit"),
        (Conv((1,), (0, 0), (1,)), (x, Tensor(i8, (2, 4, 3))), "differ in dtype"),
        (Conv((1,), (0, 0), (1,)), (x, Tensor(f32, (2, 4, 3, 3))), "rank"),
        (Conv((1, 1), (0, 0), (1,)), (x, Tensor(f32, (2, 4, 3))), "1 spatial axes need"),
        (Conv((0,), (0, 0), (1,)), (x, Tensor(f32, (2, 4, 3))), "must be positive"),
        (Conv((1,), (0, 0), (1,)), (x, Tensor(f32, (2, 4, 3)), Tensor(f32, (3,))), r"bias must be \[2\]"),
        (AvgPool((2,), (1,), (0, 0), (1,)), (Tensor(i8, (1, 4, 8)),), "takes floats"),
    ]:
        with pytest.raises(TypeRuleError, match=message):
            op.result_types(types)
    (out,) = Conv((2,), (1, 1), (1,)).result_types((Tensor(f32, (n, 4, n)), Tensor(f32, (2, 4, 3))))
    assert [evaluate(d, {n: 7}) for d in out.shape] == [7, 2, 4]


@pytest.mark.parametrize("groups", [0, -1])
@pytest.mark.parametrize("cls", [Conv, ConvTranspose])
def test_groups_count_from_one(cls, groups):
    x, w = Tensor(f32, (1, 0, 4)), Tensor(f32, (0, 1, 1))
    output = {"output_pads": (0,)} if cls is ConvTranspose else {}
    with pytest.raises(TypeRuleError, match="groups count from 1"):
        cls(strides=(1,), pads=(0, 0), dilations=(1,), groups=groups, **output).infer(x, w)


@pytest.mark.parametrize("cls", [Conv, ConvTranspose])
def test_convolutions_have_at_most_three_spatial_axes(cls):
    output = {"output_pads": (0,) * 4} if cls is ConvTranspose else {}
    with pytest.raises(TypeRuleError, match="at most 3 spatial axes, not 4"):
        cls(strides=(1,) * 4, pads=(0,) * 8, dilations=(1,) * 4, **output).infer(
            Tensor(f32, (1, 1, 1, 1, 1, 1)), Tensor(f32, (1, 1, 1, 1, 1, 1)))


def test_sums_of_convolutions_are_no_bool():
    with pytest.raises(TypeRuleError, match="sums are no bool"):
        Conv(strides=(1,), pads=(0, 0), dilations=(1,), accumulate=bool_).infer(
            Tensor(f32, (1, 1, 4)), Tensor(f32, (1, 1, 1)))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_infinities_are_summed_in_short_floats_too(dtype):
    """1 - inf, which torch's own convolutions of bf16 take for NaN."""
    row, column = torch.tensor([[[1, torch.inf]]], dtype=dtype), torch.tensor([[[1], [torch.inf]]], dtype=dtype)
    found = Conv(strides=(1,), pads=(0, 0), dilations=(1,)).run(row, torch.tensor([[[1, -1]]], dtype=dtype))
    turned = ConvTranspose(strides=(1,), pads=(0, 0), dilations=(1,), output_pads=(0,))
    assert found[0].item() == -torch.inf and found[0].dtype == dtype
    assert turned.run(column, torch.tensor([[[1]], [[-1]]], dtype=dtype))[0].item() == -torch.inf
