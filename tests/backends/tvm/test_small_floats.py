"""Floats of 8 bits and less and integers of less than a byte on the CPU: every code, roundings at every place, arrays
of every kind that can hold them."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
import torch

import effcc
from effcc.errors import InputError
from effcc.interp import run
from effcc.ir import Blob, Builder, Graph, Tensor, bf16, f32, i8, i32, u8
from effcc.ir.types import DType

FLOATS = ["f8e4m3", "f8e5m2", "f8e4m3fnuz", "f8e5m2fnuz", "f8e8m0"]
INTEGERS = ["i4", "i2", "u4", "u2", "u1"]


def conversion(source: DType, to: DType, size: int, saturate: bool = False) -> Graph:
    b = Builder()
    return b.graph(b.cast(b.input("x", Tensor(source, (size,))), to=to, saturate=saturate))


def patterns() -> torch.Tensor:
    """Floats with every upper half, and lower halves beside and on each tie."""
    high = np.arange(1 << 16, dtype=np.uint32)[:, None] << 16
    bits = (high | np.array([0, 1, 0x7FFF, 0x8000, 0xFFFF], np.uint32)).reshape(-1)
    return torch.from_numpy(bits.view(np.float32))


def bits(x: torch.Tensor) -> torch.Tensor:
    return x.view(torch.uint8)


@pytest.mark.parametrize("name", FLOATS)
def test_every_code_decodes(name):
    codes = torch.arange(256, dtype=torch.uint8).view(DType.parse(name).torch)
    (got,) = effcc.compile(conversion(DType.parse(name), f32, 256))(codes)
    torch.testing.assert_close(got, codes.float(), rtol=0, atol=0, equal_nan=True)
    assert torch.equal(got.signbit() & ~got.isnan(), codes.float().signbit() & ~got.isnan())


@pytest.mark.parametrize("name", FLOATS)
def test_encodes_to_nearest_even(name):
    x = patterns()
    graph = conversion(f32, DType.parse(name), x.numel())
    (got,), (want,) = effcc.compile(graph)(x), run(graph, x)
    nan = got.float().isnan()
    assert torch.equal(nan, want.float().isnan())
    assert torch.equal(bits(got)[~nan], bits(want)[~nan])


@pytest.mark.parametrize("name", ["f8e4m3", "f8e5m2", "f8e4m3fnuz", "f8e5m2fnuz"])
def test_saturates_when_asked(name):
    x = torch.tensor([1e9, -1e9, torch.inf, 3.0, torch.nan])
    graph = conversion(f32, DType.parse(name), 5, saturate=True)
    (got,), (want,) = effcc.compile(graph)(x), run(graph, x)
    assert torch.equal(bits(got), bits(want))


def test_f4():
    codes = np.arange(16, dtype=np.uint8).view(ml_dtypes.float4_e2m1fn)
    values = np.float32([0, 0.5, 1, 1.5, 2, 3, 4, 6])
    (decoded,) = effcc.compile(conversion(DType.parse("f4"), f32, 16))(codes)
    assert decoded.tobytes() == np.concatenate([values, -values]).tobytes()
    x = patterns()
    graph = conversion(f32, DType.parse("f4"), x.numel())
    (got,), (want,) = effcc.compile(graph)(x.numpy()), run(graph, x)
    known = ~x.isnan().numpy()
    assert got.dtype == ml_dtypes.float4_e2m1fn
    np.testing.assert_array_equal(got.astype(np.float32)[known], want.numpy()[known])
    with pytest.raises(InputError, match="f4"):
        effcc.compile(graph)(x)


@pytest.mark.parametrize("name", INTEGERS)
def test_integers_of_less_than_a_byte(name):
    """They wrap at their width, whatever the rest of a byte holds; signed bytes, their NumPy arrays, torch's bytes."""
    dtype = DType.parse(name)
    b = Builder()
    x = b.input("x", Tensor(i32, (40,)))
    y = b.input("y", Tensor(dtype, (40,)))
    z = b.add(b.cast(x, to=dtype), y)
    graph = b.graph(z, b.cast(b.mul(z, z), to=i32), b.lt(y, z))
    first = torch.randint(-99, 99, (40,), dtype=torch.int32)
    second = torch.randint(int(dtype.min), int(dtype.max) + 1, (40,)).to(dtype.torch)
    program, want = effcc.compile(graph), run(graph, first, second)
    for got, expected in zip(program(first, second), want, strict=True):
        assert torch.equal(got, expected)
    if name != "u1":
        narrow = second.numpy().astype(dtype.numpy)
        got = program(first.numpy(), narrow)
        assert got[0].dtype == dtype.numpy
        np.testing.assert_array_equal(got[0].astype(np.int32), want[0].numpy())
        np.testing.assert_array_equal(got[1], want[1].numpy())


@pytest.mark.parametrize("name", ["bf16", *FLOATS[:4], "i4", "u4"])
def test_constants_and_artifacts(name, tmp_path):
    dtype = DType.parse(name)
    weights = np.arange(-4 if dtype.kind != "u" else 0, 4).astype(np.float32).astype(dtype.numpy)
    b = Builder()
    x = b.input("x", Tensor(dtype, (3, len(weights))))
    graph = b.graph(b.add(x, b.const(weights)))
    path = tmp_path / "program.effcc"
    effcc.compile(graph).save(path)
    data = np.ones((3, len(weights)), np.float32).astype(dtype.numpy)
    (got,) = effcc.load(path)(data)
    assert got.dtype == dtype.numpy
    np.testing.assert_array_equal(got.astype(np.float32), np.broadcast_to(1 + weights.astype(np.float32), got.shape))


@pytest.mark.parametrize("name", ["f8e4m3", "f8e5m2", "bf16"])
def test_contraction(name):
    dtype = DType.parse(name)
    a, w = (torch.randn(shape).to(dtype.torch) for shape in ((5, 40), (40, 33)))
    for constant in (False, True):
        b = Builder()
        x = b.input("a", Tensor(dtype, (5, 40)))
        y = b.const(Blob.from_torch(w)) if constant else b.input("b", Tensor(dtype, (40, 33)))
        graph = b.graph(b.matmul(x, y), b.matmul(b.cast(x, to=bf16), b.cast(y, to=bf16)))
        operands = (a,) if constant else (a, w)
        for got, want in zip(effcc.compile(graph)(*operands), run(graph, *operands), strict=True):
            tolerance = 2e-2 if got.dtype == torch.bfloat16 else 0.25
            torch.testing.assert_close(got.float(), want.float(), rtol=tolerance, atol=2e-2)


def test_quantized_to_four_bits():
    b = Builder()
    x = b.input("x", Tensor(f32, (6, 40)))
    scale = b.const(np.float32(0.25))
    q = b.quantize_linear(x, scale, dtype=DType.parse("i4"))
    graph = b.graph(q, b.dequantize_linear(q, scale))
    data = torch.randn(6, 40)
    for got, want in zip(effcc.compile(graph)(data), run(graph, data), strict=True):
        assert torch.equal(got, want)


@pytest.mark.parametrize("a_dtype,b_dtype", [("i4", "i4"), ("u4", "i4"), ("u8", "i8"), ("i8", "i8"), ("i8", "i4")])
@pytest.mark.parametrize("constant", [False, True])
def test_integer_contraction(a_dtype, b_dtype, constant):
    left, right = DType.parse(a_dtype), DType.parse(b_dtype)
    a = torch.randint(int(left.min), int(left.max) + 1, (9, 70)).to(left.torch)
    w = torch.randint(int(right.min), int(right.max) + 1, (70, 35)).to(right.torch)
    b = Builder()
    x = b.input("a", Tensor(left, (9, 70)))
    y = b.const(w.numpy().astype(right.numpy)) if constant else b.input("b", Tensor(right, (70, 35)))
    graph = b.graph(b.matmul(x, y, accumulate=i32))
    operands = (a,) if constant else (a, w)
    assert torch.equal(effcc.compile(graph)(*operands)[0], run(graph, *operands)[0])


def test_bytes_are_not_their_neighbours():
    with pytest.raises(InputError, match="i8"):
        effcc.compile(conversion(i8, i32, 3))(torch.zeros(3, dtype=torch.uint8))
    with pytest.raises(InputError, match="u4"):
        effcc.compile(conversion(DType.parse("u4"), u8, 3))(torch.zeros(3, dtype=torch.int8))
