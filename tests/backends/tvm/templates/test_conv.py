"""Convolutions against torch in fp64: |error| <= (terms + 2) u sum |x| |w|."""

from __future__ import annotations

from dataclasses import replace
from math import prod

import ml_dtypes  # noqa: F401 (NumPy learns of bfloat16)
import numpy as np
import pytest
import torch
from tvm.tirx.script import builder as T

from effcc.backends.tvm.standalone import CPU, Kernel
from effcc.backends.tvm.templates import conv
from effcc.backends.tvm.templates.conv import Convolution, window
from effcc.backends.tvm.templates.emission import Cpu, cast, constant, dot, load, store

SMALL = Cpu(128, 16, l2_bytes=16 << 10, threads=2)
FUNCTIONS = {1: torch.nn.functional.conv1d, 2: torch.nn.functional.conv2d, 3: torch.nn.functional.conv3d}


def strides_of(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(prod(shape[i + 1 :]) for i in range(len(shape)))


def reference(x: torch.Tensor, w: torch.Tensor, strides, pads, dilations, groups) -> tuple[np.ndarray, np.ndarray]:
    """(exact result, error bound), channels last, pads as (before..., after...)."""
    rank = x.ndim - 2
    around = [pads[side * rank + axis] for axis in reversed(range(rank)) for side in (0, 1)]

    def run(x: torch.Tensor, w: torch.Tensor) -> np.ndarray:
        padded = torch.nn.functional.pad(x.double(), around)
        return FUNCTIONS[rank](padded, w.double(), None, strides, 0, dilations, groups).movedim(1, -1).numpy()

    return run(x, w), run(x.abs(), w.abs()) * (w[0].numel() + 2) * 2.0**-24


def check(
    images=1, channels=3, features=5, size=(7, 7), kernel=(3, 3), strides=1, pads=0, dilations=1, groups=1,
    cpu=CPU, prologue=False, symbolic=False, dtype="float32", known=False,
) -> Convolution:  # fmt: skip
    """Build, run and compare; returns the spec."""
    rank = len(size)
    strides, dilations = ((v,) * rank if isinstance(v, int) else v for v in (strides, dilations))
    pads = (pads,) * (2 * rank) if isinstance(pads, int) else pads
    generator = torch.Generator().manual_seed(0)
    if dtype in ("float32", "bfloat16"):
        x = torch.randn(images, channels, *size, generator=generator)
        w = torch.randn(features, channels // groups, *kernel, generator=generator)
    else:
        low, high = (0, 256) if dtype == "uint8" else (-128, 128)
        x = torch.randint(low, high, (images, channels, *size), generator=generator)
        w = torch.randint(-128, 128, (features, channels // groups, *kernel), generator=generator)
    if dtype == "bfloat16":
        x, w = (t.bfloat16().float() for t in (x, w))
    expected, bound = reference(torch.relu(x + x) if prologue else x, w, strides, pads, dilations, groups)
    ones = (1,) * (3 - rank)
    output = (*ones, *expected.shape[1:-1])
    total, w_dtype = ("float32", dtype) if dtype in ("float32", "bfloat16") else ("int32", "int8")

    def spec_of(images, *sizes) -> Convolution:
        in_size, out_size = (sizes[:3], sizes[3:]) if symbolic else ((*ones, *size), output)
        return Convolution(
            images, in_size, out_size, channels, features, window(kernel, strides, dilations, pads), cpu, groups,
            x=dtype, w=w_dtype, sum=total, prologue=prologue, known=known,
        )  # fmt: skip

    def body(buffers, dims, scratch, tile):
        x, w, y = buffers
        spec = spec_of(*dims) if symbolic else spec_of(images)
        x_strides = strides_of((images, *ones, *size, channels))

        def epilogue(position, value, lanes):
            store(y, value, dot(position, strides_of((images, *output, features))), lanes)

        def read_x(position, lanes):
            value = cast(load(x, dot(position, x_strides), lanes), "float32", lanes)
            return T.max(value + value, constant(0, "float32", lanes))

        if prologue:
            conv.emit(spec, tile, scratch, epilogue, w=w, read_x=read_x)
        else:
            conv.emit(spec, tile, scratch, epilogue, x, w)

    dims = (images, *ones, *size, *output) if symbolic else ()
    spec = spec_of(*((T.int64(d) for d in dims) if symbolic else (images,)))
    kernel_ = Kernel(
        body, [dtype, w_dtype, total], lambda *d: conv.tiles(spec_of(*d) if symbolic else spec), len(dims),
        conv.scratch_bytes(spec),
    )  # fmt: skip
    y = np.full(expected.shape, 77, total)
    source = np.ascontiguousarray(x.movedim(1, -1).numpy().astype(np.dtype(dtype)))
    kernel_([source, conv.pack(spec, w.numpy().astype(np.dtype(w_dtype))), y], dims)
    if total == "float32":
        assert (np.abs(y - expected) <= bound).all()
    else:
        np.testing.assert_array_equal(y, expected.astype("i4"))
    return spec


def case(**options: object) -> dict:
    return options


CASES = [
    case(),
    case(pads=1),
    case(images=2, channels=4, features=20, size=(9, 8), strides=2, pads=1),
    case(channels=5, features=33, pads=2, dilations=2),
    case(pads=(0, 1, 2, 3), strides=(2, 1), dilations=(1, 2), size=(8, 11)),
    case(channels=6, features=10, groups=2, pads=1),
    case(channels=8, features=8, groups=8, pads=1, size=(5, 6)),
    case(channels=1, features=1, kernel=(1, 1), size=(1, 1)),
    case(channels=17, features=40, kernel=(1, 1)),
    case(channels=16, features=16, kernel=(1, 1), strides=2),
    case(size=(4, 4), kernel=(5, 5), pads=3),
    case(size=(19,), kernel=(4,), pads=(1, 2), strides=2),
    case(size=(6, 5, 7), kernel=(3, 3, 3), pads=1, features=18),
    case(size=(6, 5, 7), kernel=(2, 1, 3), strides=(2, 1, 1), dilations=(2, 1, 1), channels=4, groups=2, features=6),
    case(size=(3, 200), kernel=(1, 7), pads=(0, 3, 0, 3), channels=2),
    case(images=0, pads=1),
]


@pytest.mark.parametrize("cpu", [CPU, SMALL], ids=["machine", "small"])
@pytest.mark.parametrize(
    "options", CASES, ids=lambda options: "-".join(f"{k}{v}" for k, v in options.items()) or "plain"
)
def test_shapes(options: dict, cpu: Cpu) -> None:
    check(**options, cpu=cpu)


def test_large_weights_are_cut_by_lines_of_taps() -> None:
    assert check(channels=64, features=24, pads=1, cpu=SMALL).tiling.cut


def test_pixels_in_the_same_cache_sets_are_staged() -> None:
    spec = check(channels=1024, features=16, kernel=(1, 1), size=(6, 6))
    assert spec.stages and spec.pixel_stride > spec.channels


@pytest.mark.parametrize("groups", [1, 2])
def test_prologue(groups: int) -> None:
    """relu(2x) on the way in; what lies outside the image stays 0."""
    check(channels=6, features=8, pads=1, prologue=True, groups=groups)


@pytest.mark.parametrize("kernel,pads", [((3, 3), 1), ((1, 1), 0), ((2, 3), (0, 0, 1, 0))])
def test_symbolic_sizes(kernel: tuple[int, int], pads) -> None:
    check(images=2, channels=5, features=18, kernel=kernel, pads=pads, size=(6, 70), symbolic=True)


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize(
    "options",
    [
        case(channels=6, features=9, pads=1, groups=3),
        case(channels=70, features=20, pads=1),
        case(channels=3, features=33, pads=2, strides=2, kernel=(5, 5)),
        case(channels=64, features=64, kernel=(1, 1)),
        case(channels=16, features=12, groups=2, pads=1, dilations=2, dtype="uint8"),
    ],
    ids=str,
)
def test_integers_are_exact(options: dict, known: bool) -> None:
    """Signed input staged plus 128 must not show at the borders."""
    check(**{"dtype": "int8", **options}, known=known)


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize(
    "options",
    [
        case(channels=6, features=9, pads=1, groups=3),
        case(channels=6, features=16, pads=1, groups=2),
        case(channels=70, features=20, pads=1, prologue=True),
        case(channels=3, features=33, pads=2, strides=2, kernel=(5, 5)),
        case(channels=64, features=64, kernel=(1, 1)),
        case(channels=24, features=17, kernel=(2, 2), images=2),
        case(channels=24, features=17, kernel=(3, 3), pads=1, images=2),
        case(channels=16, features=12, groups=2, pads=1, dilations=2),
        case(channels=10, features=18, pads=1, size=(6, 70), symbolic=True),
    ],
    ids=str,
)
def test_bf16_accumulates_in_float32(options: dict, known: bool) -> None:
    """By pairs where weights are known and there is an instruction."""
    check(**options, dtype="bfloat16", known=known)


@pytest.mark.skipif(not CPU.byte_dots, reason="no vpdpbusd here")
def test_large_weights_of_bytes_are_cut() -> None:
    cpu = replace(CPU, l2_bytes=8 << 10)
    spec = check(channels=64, features=24, pads=1, cpu=cpu, dtype="int8", known=True)
    assert spec.tiling.cut and spec.dots
