"""Resampling: loop nests against references, references against torch's own and ONNX's reference implementation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from effcc.errors import TypeRuleError
from effcc.ir import Tensor, f32, i64
from effcc.ops.resample import GridSample, MaxUnpool, RoiAlign


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("mode", ["linear", "nearest", "cubic"])
@pytest.mark.parametrize("padding", ["zeros", "border", "reflection"])
@pytest.mark.parametrize("align", [False, True])
def test_grid_sample(agree, mode, padding, align):
    op = GridSample(mode, padding, align)
    x, grid = draw(2, 3, 4, 5), draw(2, 3, 2, 2, seed=1) * 1.5
    agree(op, x, grid, known=(2, 4, 5))
    agree(op, x[:, :, :1, :1], grid, known=(2,))
    agree(op, x, torch.tensor([-1.0, 1.0, -1e9, 1e9, 0, 3]).reshape(1, 3, 1, 2).expand(2, 3, 1, 2), with_symbols=False)
    agree(op, x.half(), grid.half(), with_symbols=False)
    agree(op, x[:0], grid[:0], with_symbols=False)
    if mode != "cubic":
        agree(op, draw(1, 2, 3, 4, 2), draw(1, 2, 1, 5, 3, seed=2) * 1.5, with_symbols=False)


def test_grid_sample_refuses():
    for op, types, message in [
        (GridSample("cubic"), ((1, 1, 2, 2, 2), (1, 2, 2, 2, 3)), "two spatial axes"),
        (GridSample(), ((1, 1, 2, 2), (1, 2, 2, 3)), "should have shapes"),
        (GridSample(), ((1, 1, 2, 2), (2, 2, 2, 2)), "batch sizes 1 and 2 differ"),
        (GridSample("area"), ((1, 1, 2, 2), (1, 2, 2, 2)), "unknown mode"),
    ]:
        with pytest.raises(TypeRuleError, match=message):
            op.result_types(tuple(Tensor(f32, t) for t in types))


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 99), ratio=st.integers(0, 3), mode=st.sampled_from(["avg", "max"]), aligned=st.booleans())
def test_roi_align(agree, onnx_run, seed, ratio, mode, aligned):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(2, 2, 5, 6)).astype("f4")
    rois = (rng.uniform(-4, 14, (3, 4)) * [1, 1, 1.5, 1.5]).astype("f4")
    image = rng.integers(0, 2, 3)
    op = RoiAlign((2, 3), 0.7, ratio, mode, aligned)
    got = agree(op, x, rois, image, known=(4,))
    want = onnx_run(
        "RoiAlign",
        [x, rois, image],
        output_height=2,
        output_width=3,
        spatial_scale=0.7,
        sampling_ratio=ratio,
        mode=mode,
        coordinate_transformation_mode="half_pixel" if aligned else "output_half_pixel",
    )
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)


def test_roi_align_without_rois_and_in_halves(agree):
    agree(RoiAlign((2, 2)), draw(1, 2, 4, 4), torch.zeros(0, 4), torch.zeros(0, dtype=torch.int32), known=(4,))
    agree(
        RoiAlign((2, 2)),
        draw(1, 2, 4, 4).half(),
        torch.tensor([[0, 0, 3, 3.0]]).half(),
        torch.zeros(1, dtype=torch.int64),
        known=(4,),
    )
    with pytest.raises(TypeRuleError, match=r"shapes \[R, 4\] and \[R\]"):
        RoiAlign((2, 2)).result_types((Tensor(f32, (1, 1, 2, 2)), Tensor(f32, (3, 5)), Tensor(i64, (3,))))


def test_max_unpool(decomposes):
    x = draw(2, 3, 4, 6)
    pooled, where = F.max_pool2d(x, 2, return_indices=True)
    out = decomposes(MaxUnpool((4, 6)), pooled, where)
    torch.testing.assert_close(out, F.max_unpool2d(pooled, where, 2))
    decomposes(MaxUnpool((5,)), draw(1, 2, 3), torch.tensor([[[0, 4, 2], [1, 0, 3]]], dtype=torch.int32))
    decomposes(MaxUnpool((5,)), draw(0, 2, 3), torch.zeros(0, 2, 3, dtype=torch.int64))
    with pytest.raises(TypeRuleError, match="spatial axes"):
        MaxUnpool((5, 5)).result_types((Tensor(f32, (1, 2, 3)), Tensor(i64, (1, 2, 3))))
