"""Windows of bytes: depthwise convolutions and pools by vectors, pads that are not zero, without VNNI too."""

from __future__ import annotations

import numpy as np
import pytest

import effcc
from effcc.interp import run
from effcc.ir import Builder, Tensor, f32, i8, i32, u8
from effcc.ir.types import DTYPES

TARGETS = ("cpu", "cpu{mcpu=haswell}")


def bytes_of(dtype, *shape, seed=0):
    low, high = max(dtype.min, -1000), min(dtype.max, 1000)
    return np.random.default_rng(seed).integers(low, high + 1, shape).astype(dtype.numpy)


def check(graph, x, target, template):
    program = effcc.compile(graph, target=target)
    assert [launch.kernel.template for launch in program.launches] == [template]
    for ours, wanted in zip(program(x), run(graph, x), strict=True):
        np.testing.assert_array_equal(ours, wanted)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(("dtype", "pad_value"), [(u8, 0), (u8, 7), (i8, 0), (i8, -9)])
@pytest.mark.parametrize(("channels", "multiplier", "kernel"), [(16, 1, 3), (20, 2, 3), (48, 1, 5)])
def test_depthwise(target, dtype, pad_value, channels, multiplier, kernel):
    b = Builder("depthwise")
    x = b.input("x", Tensor(dtype, (2, 9, 11, channels)))
    w = b.const(bytes_of(i8, channels * multiplier, 1, kernel, kernel))
    sums = b.conv(x, w, strides=(2, 1), pads=(1, 0, 1, 2), dilations=(1, 1), groups=channels, layout="nhwc",
                  accumulate=i32, pad_value=pad_value)  # fmt: skip
    graph = b.graph(sums, b.relu(b.cast(sums, to=f32)))
    check(graph, bytes_of(dtype, 2, 9, 11, channels, seed=1), target, "window")


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(("dtype", "pad_value"), [(u8, 0), (u8, 130), (i8, -9)])
@pytest.mark.parametrize("groups", [1, 2])
def test_convolution_pads(target, dtype, pad_value, groups):
    b = Builder("padded")
    x = b.input("x", Tensor(dtype, (1, 7, 6, 10)))
    w = b.const(bytes_of(i8, 24, 10 // groups, 3, 2))
    graph = b.graph(b.conv(x, w, strides=(1, 2), pads=(1, 1, 2, 0), dilations=(1, 1), groups=groups, layout="nhwc",
                           accumulate=i32, pad_value=pad_value))  # fmt: skip
    check(graph, bytes_of(dtype, 1, 7, 6, 10, seed=1), target, "conv")


@pytest.mark.parametrize("dtype", ["u8", "i8", "i32"])
@pytest.mark.parametrize("channels", [3, 16, 70])
def test_max_pool(dtype, channels):
    b = Builder("pool")
    x = b.input("x", Tensor(DTYPES[dtype], (2, 9, 11, channels)))
    turned = b.transpose(x, perm=(0, 3, 1, 2))
    graph = b.graph(b.max_pool(turned, kernel=(3, 2), strides=(2, 1), pads=(1, 0, 1, 1), dilations=(1, 1)))
    check(graph, bytes_of(DTYPES[dtype], 2, 9, 11, channels), "cpu", "window")
