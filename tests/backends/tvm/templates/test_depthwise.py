"""Depthwise convolution and pooling against torch in fp64."""

from __future__ import annotations

from math import prod

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tvm.tirx.script import builder as T

from effcc.backends.tvm.standalone import CPU, Kernel
from effcc.backends.tvm.templates import depthwise
from effcc.backends.tvm.templates.conv import window
from effcc.backends.tvm.templates.depthwise import WindowFold
from effcc.backends.tvm.templates.emission import constant, dot, load, store


def strides_of(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(prod(shape[i + 1 :]) for i in range(len(shape)))


def run(
    kind: str, x: np.ndarray, output: tuple[int, ...], kernel, strides, dilations, pads, weights=None, multiplier=1,
    symbolic=False, prologue=False, **options,
) -> np.ndarray:  # fmt: skip
    """x is [images, size..., channels]; `output` the spatial extents of the result."""
    images, *size, channels = x.shape
    ones = (1,) * (3 - len(size))
    channels *= multiplier
    dtype = str(x.dtype)
    y = np.full((images, *output, channels), 77, dtype)
    names = [dtype, dtype, dtype] if weights is not None else [dtype, dtype]

    def spec_of(*sizes) -> WindowFold:
        images_, in_size, out_size = sizes[0], tuple(sizes[1:4]), tuple(sizes[4:7])
        return WindowFold(
            kind, images_, in_size, out_size, channels, window(kernel, strides, dilations, pads), CPU, multiplier,
            x=dtype, w=dtype, sum=dtype, **options,
        )  # fmt: skip

    static = (images, *ones, *size, *ones, *output)

    def body(buffers, dims, scratch, tile):
        def epilogue(position, value, lanes):
            store(buffers[-1], value, dot(position, strides_of((images, *ones, *output, channels))), lanes)

        def read_x(position, lanes):
            value = load(buffers[0], dot(position, strides_of((images, *ones, *size, channels // multiplier))), lanes)
            return T.max(value, constant(0, dtype, lanes))

        source = {"read_x": read_x} if prologue else {"x": buffers[0]}
        w = buffers[1] if weights is not None else None
        depthwise.emit(spec_of(*(dims if symbolic else static)), tile, epilogue, w=w, **source)

    dims = static if symbolic else ()
    kernel_ = Kernel(body, names, lambda *d: depthwise.tiles(spec_of(*(d if symbolic else static))), len(dims))
    kernel_([x, *([] if weights is None else [depthwise.pack(weights)]), y], dims)
    return y


def data(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape).astype("f4")


def channels_last(x: torch.Tensor) -> np.ndarray:
    return x.movedim(1, -1).numpy()


CONVOLUTIONS = [
    # channels, size, kernel, stride, dilation, pad, multiplier
    (16, (7, 7), (3, 3), 1, 1, 1, 1),
    (13, (9, 14), (3, 3), 2, 1, 1, 1),
    (35, (6, 5), (5, 5), 1, 1, 2, 1),
    (3, (12, 11), (3, 3), 1, 2, 2, 1),
    (4, (6, 7), (3, 3), 1, 1, 1, 2),
    (6, (5, 5), (1, 1), 1, 1, 0, 3),
    (20, (30,), (9,), 1, 1, 4, 1),
    (8, (4, 5, 6), (3, 3, 3), 1, 1, 1, 1),
    (8, (2, 2), (5, 5), 1, 1, 2, 1),
    (8, (40, 1), (3, 1), 3, 1, 0, 1),
]


@pytest.mark.parametrize("prologue", [False, True])
@pytest.mark.parametrize("symbolic", [False, True])
@pytest.mark.parametrize("channels,size,kernel,stride,dilation,pad,multiplier", CONVOLUTIONS)
def test_depthwise(channels, size, kernel, stride, dilation, pad, multiplier, symbolic, prologue) -> None:
    rank = len(size)
    pads = tuple(pad if k > 1 else 0 for k in kernel)
    x, w = data(2, *size, channels), data(channels * multiplier, 1, *kernel)
    convolve = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}[rank]

    def exact(x: np.ndarray, w: np.ndarray) -> np.ndarray:
        given = torch.from_numpy(x).double().movedim(-1, 1)
        weights = torch.from_numpy(w).double()
        return channels_last(convolve(given, weights, None, stride, pads, dilation, channels))

    seen = np.maximum(x, 0) if prologue else x
    expected, bound = exact(seen, w), exact(np.abs(seen), np.abs(w)) * (prod(kernel) + 2) * 2.0**-24
    y = run(
        "depthwise", x, expected.shape[1:-1], kernel, (stride,) * rank, (dilation,) * rank, pads, w, multiplier,
        symbolic, prologue,
    )  # fmt: skip
    assert (np.abs(y - expected) <= bound).all()


POOLS = [
    # channels, size, kernel, stride, pad, ceil
    (16, (8, 8), (2, 2), 2, 0, False),
    (13, (9, 7), (3, 3), 2, 1, False),
    (5, (10, 10), (3, 3), 2, 1, True),
    (40, (7, 7), (7, 7), 1, 0, False),
    (7, (16, 17), (12, 11), 1, 5, False),
    (24, (6, 5, 4), (2, 2, 2), 2, 1, False),
]


@pytest.mark.parametrize("channels,size,kernel,stride,pad,ceil", POOLS)
def test_max(channels, size, kernel, stride, pad, ceil) -> None:
    x = data(2, *size, channels)
    x.ravel()[5::97] = np.nan
    x.ravel()[7::31] = -np.inf
    pool = {2: F.max_pool2d, 3: F.max_pool3d}[len(size)]
    expected = channels_last(pool(torch.from_numpy(x).movedim(-1, 1), kernel, stride, pad, ceil_mode=ceil))
    rank = len(size)
    y = run("max", x, expected.shape[1:-1], kernel, (stride,) * rank, (1,) * rank, (pad,) * rank)
    np.testing.assert_array_equal(y, expected)


def test_max_of_integers() -> None:
    x = np.random.default_rng(0).integers(-128, 127, (1, 6, 6, 9)).astype("i1")
    y = run("max", x, (3, 3), (2, 2), (2, 2), (1, 1), (0, 0))
    np.testing.assert_array_equal(y, x.reshape(1, 3, 2, 3, 2, 9).max((2, 4)))


@pytest.mark.parametrize("count_pads", [False, True])
@pytest.mark.parametrize("channels,size,kernel,stride,pad,ceil", POOLS)
def test_average(channels, size, kernel, stride, pad, ceil, count_pads) -> None:
    x = data(2, *size, channels)
    pool = {2: F.avg_pool2d, 3: F.avg_pool3d}[len(size)]
    given = torch.from_numpy(x).double().movedim(-1, 1)
    expected = channels_last(pool(given, kernel, stride, pad, ceil, count_pads))
    bound = channels_last(pool(given.abs(), kernel, stride, pad, ceil, count_pads)) * (prod(kernel) + 3) * 2.0**-24
    rank = len(size)
    pads = (pad,) * rank
    y = run(
        "average", x, expected.shape[1:-1], kernel, (stride,) * rank, (1,) * rank, pads,
        count_pads=count_pads, pads_after=(*(0,) * (3 - rank), *pads),
    )  # fmt: skip
    assert (np.abs(y - expected) <= bound).all()


def test_few_lines_are_split_by_channels() -> None:
    spec = WindowFold("average", 1, (1, 7, 7), (1, 1, 1), 512, window((7, 7), (1, 1), (1, 1), (0, 0)), CPU)
    assert depthwise.tiles(spec) >= CPU.threads
