"""Resizing: loop nests against references, references against torch's own and ONNX's reference implementation."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from effcc.errors import TypeRuleError
from effcc.ir import Symbol, Tensor, f32, i32
from effcc.ops.resize import COORDINATES, NEAREST, Resize


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


SIZES = [(4, 4), (4, 7), (4, 8), (5, 3), (7, 2), (3, 1), (1, 4), (6, 12), (9, 6)]


@pytest.mark.parametrize("n,m", SIZES)
@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
def test_resize_all_coordinates(agree, n, m, mode):
    x = draw(2, n, 3)
    for coordinate, exclude in itertools.product(COORDINATES[:5], (False, True)):
        for nearest in NEAREST if mode == "nearest" else NEAREST[:1]:
            agree(Resize((2, m, 3), mode, coordinate, nearest, exclude_outside=exclude), x)
            agree(Resize((2, m, 3), mode, coordinate, nearest, (1.0, m / n, 1.0), exclude_outside=exclude), x)
    agree(Resize((2, m, 3), mode, "tf_crop_and_resize", roi=(0, 0.2, 0, 1, 1.1, 1), extrapolation=7.0), x)


@pytest.mark.parametrize("n,m", SIZES)
@pytest.mark.parametrize("mode", ["linear", "cubic"])
@pytest.mark.parametrize("exclude", [False, True])
def test_resize_antialiased(agree, n, m, mode, exclude):
    agree(Resize((1, m, m), mode, exclude_outside=exclude, antialias=True), draw(1, n, 4))
    agree(Resize((1, m, 4), mode, scales=(1, m / n, 1), exclude_outside=exclude, antialias=True), draw(1, n, 4))


@pytest.mark.parametrize("n,m", SIZES)
def test_resize_is_torchs_interpolate(agree, n, m):
    x = draw(2, 3, n, 4)
    sizes, spatial = (2, 3, m, 6), (m, 6)
    for op, arguments in [
        (Resize(sizes, "nearest", "asymmetric", "floor"), {"mode": "nearest"}),
        (Resize(sizes, "nearest", "half_pixel", "round_prefer_ceil"), {"mode": "nearest-exact"}),
        (Resize(sizes, "linear", "half_pixel"), {"mode": "bilinear"}),
        (Resize(sizes, "linear", "align_corners"), {"mode": "bilinear", "align_corners": True}),
        (Resize(sizes, "cubic", "half_pixel"), {"mode": "bicubic"}),
        (Resize(sizes, "cubic", "align_corners"), {"mode": "bicubic", "align_corners": True}),
        (Resize(sizes, "linear", exclude_outside=True, antialias=True), {"mode": "bilinear", "antialias": True}),
        (
            Resize(sizes, "cubic", cubic_a=-0.5, exclude_outside=True, antialias=True),
            {"mode": "bicubic", "antialias": True},
        ),
    ]:
        torch.testing.assert_close(agree(op, x), F.interpolate(x, spatial, **arguments), rtol=1e-4, atol=1e-4)
    half = agree(Resize((2, 3, m, 4), "linear", scales=(1, 1, 1.5, 1)), draw(2, 3, n, 4)) if m == int(1.5 * n) else None
    if half is not None:
        torch.testing.assert_close(half, F.interpolate(x, scale_factor=(1.5, 1), mode="bilinear"), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("coordinate", ["half_pixel", "align_corners", "asymmetric", "pytorch_half_pixel"])
@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
def test_resize_is_onnxs(agree, onnx_run, mode, coordinate):
    x = draw(1, 1, 4, 5).numpy()
    for sizes in ((1, 1, 7, 8), (1, 1, 3, 2), (1, 1, 1, 10)):
        for antialias, exclude in ((False, False), (False, True), (True, False), (True, True)):
            if mode == "nearest" and (antialias or exclude) or mode == "linear" and exclude:
                continue
            if coordinate == "pytorch_half_pixel" and 1 in sizes[2:]:
                continue  # ONNX's reference implementation has -0.5 there, its specification 0
            got = agree(Resize(sizes, mode, coordinate, antialias=antialias, exclude_outside=exclude), x)
            want = onnx_run(
                "Resize",
                [x, None, None, np.array(sizes)],
                mode=mode,
                coordinate_transformation_mode=coordinate,
                antialias=int(antialias),
                exclude_outside=int(exclude),
            )
            np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)


def test_resize_dtypes_ranks_and_empties(agree):
    agree(Resize((3, 5)), np.arange(6).reshape(3, 2))
    agree(Resize(()), np.float32(2))
    for dtype in (torch.float16, torch.bfloat16, torch.float64):
        agree(Resize((2, 7), "linear"), draw(2, 4).to(dtype))
        agree(Resize((2, 7), "cubic"), draw(2, 4).to(dtype))
    agree(Resize((2, 3, 4, 5), "linear"), draw(1, 2, 3, 4))
    agree(Resize((0, 4), "linear"), draw(0, 3))
    agree(Resize((2, 0), "linear"), draw(2, 3))


def test_resize_refuses():
    x = Tensor(f32, (2, 3))
    for op, type_, message in [
        (Resize((2,)), x, "needs 2 sizes"), (Resize((2, 3), "area"), x, "unknown mode 'area'; one of nearest"),
        (Resize((2, 6), "linear"), Tensor(i32, (2, 3)), "linear resize does not take i32"),
        (Resize((2, 6)), Tensor(f32, (2, 0)), "axis 1 is empty"), (Resize((2, 6), scales=(1.0,)), x, "do not fit"),
    ]:
        with pytest.raises(TypeRuleError, match=message):
            op.result_types((type_,))
    n = Symbol("n")
    assert Resize((n, n * 2)).result_types((Tensor(f32, (n, n)),)) == (Tensor(f32, (n, n * 2)),)
