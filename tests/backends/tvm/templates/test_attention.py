"""Attention against fp64, for lengths, strides, masks and dtypes; a query without keys gives zeros."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from tvm.tirx.script import builder as T

from effcc.backends.tvm.standalone import CPU, Kernel
from effcc.backends.tvm.templates import attention
from effcc.backends.tvm.templates.attention import Attention
from effcc.backends.tvm.templates.emission import Cpu, cast, constant, dot, dtype_of, store

SMALL = Cpu(128, 16, l1_bytes=2 << 10, threads=2)
TYPES = {"float32": torch.float32, "float64": torch.float64, "bfloat16": torch.bfloat16, "float16": torch.float16}


def reference(q, k, v, scale, softcap, causal, mask) -> torch.Tensor:
    """[B, H, L, D] in fp64."""
    repeat = q.shape[1] // k.shape[1]
    k, v = (x.double().repeat_interleave(repeat, 1) for x in (k, v))
    scores = q.double() @ k.mT * scale
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    if mask is not None:
        scores = scores.masked_fill(~mask, -math.inf) if mask.dtype == torch.bool else scores + mask
    if causal is not None:
        ahead = torch.arange(k.shape[2])[None, :] - torch.arange(q.shape[2])[:, None]
        scores = scores.masked_fill(ahead > causal, -math.inf)
    weights = torch.softmax(scores, -1)
    return weights.masked_fill((scores == -math.inf).all(-1, keepdim=True), 0) @ v


def check(
    batch=1, heads=2, key_heads=None, queries=16, keys=16, size=16, value_size=None, dtype="float32", causal=None,
    softcap=None, mask=None, cpu=CPU, symbolic=False, strided=False, big=1.0,
) -> None:  # fmt: skip
    """`mask`: the shape of a mask, "bool" or "float" prepended; `strided`: elements of a head lie apart."""
    key_heads, value_size = key_heads or heads, value_size or size
    generator = torch.Generator().manual_seed(0)

    def tensor(length: int, heads: int, size: int) -> torch.Tensor:
        shape = (batch, size, length, heads) if strided else (batch, length, heads, size)
        x = torch.randn(shape, generator=generator) * big
        x = x.to(TYPES[dtype])
        return x.permute(0, 3, 2, 1) if strided else x.permute(0, 2, 1, 3)

    q, k, v = tensor(queries, heads, size), tensor(keys, key_heads, size), tensor(keys, key_heads, value_size)
    given = None
    if mask is not None:
        kind, *shape = mask
        noise = torch.randn(shape, generator=generator)
        given = noise > 0 if kind == "bool" else torch.where(noise > 1, -math.inf, noise)
    total = "float64" if dtype == "float64" else "float32"
    out = np.full((batch, queries, heads, value_size), 77, total)

    def spec_of(batch: Any, queries: Any, keys: Any) -> Attention:
        return Attention(
            heads, key_heads, queries, keys, size, value_size, q.stride(), k.stride(), v.stride(), size**-0.5, cpu,
            (batch,), softcap, causal, dtype, dtype, dtype, total,
        )  # fmt: skip

    def body(buffers, dims, scratch, tile):
        def epilogue(position, value, lanes):
            b, h, i, d = position
            store(buffers[-1], value, dot((b, i, h, d), [s // out.itemsize for s in out.strides]), lanes)

        def read_mask(position, lanes):
            strides = [s if e > 1 else 0 for s, e in zip(given.stride(), given.shape)]
            place = sum((p * s for p, s in zip(position, strides) if s), T.int64(0))
            value = buffers[3][place]
            if lanes > 1 and "x" not in dtype_of(value):
                value = T.broadcast(value, lanes)
            if given.dtype == torch.bool:
                return cast(value, "int32", lanes) > constant(0, "int32", lanes)
            return value

        spec = spec_of(*dims) if symbolic else spec_of(batch, queries, keys)
        attention.emit(spec, tile, scratch, epilogue, *buffers[:3], mask=None if mask is None else read_mask)

    dims = (batch, queries, keys) if symbolic else ()
    masks = [] if given is None else [given.to(torch.int8 if given.dtype == torch.bool else torch.float32).numpy()]
    dtypes = [dtype] * 3 + [str(m.dtype) for m in masks] + [total]
    spec = spec_of(*((T.int64(1),) * 3 if symbolic else (batch, queries, keys)))
    kernel = Kernel(
        body, dtypes, lambda *d: attention.tiles(spec_of(*d) if symbolic else spec), len(dims),
        attention.scratch_bytes(spec),
    )  # fmt: skip

    def memory(x: torch.Tensor) -> np.ndarray:
        flat = x.as_strided((x.numel(),), (1,))
        return flat.view(torch.int16).numpy() if dtype == "bfloat16" else flat.numpy()

    kernel([memory(q), memory(k), memory(v), *masks, out], dims)
    expected = reference(q, k, v, size**-0.5, softcap, causal, given).transpose(1, 2).numpy()
    unit = 1e-13 if dtype == "float64" else 4e-6
    if spec.by_pairs and queries > 4:  # weights are rounded to bf16: half of a unit in the last of 8 bits
        unit += 2.0**-9
    tolerance = unit * max(1.0, float(v.abs().max()) if v.numel() else 1.0) * big**2
    np.testing.assert_allclose(out, expected, rtol=0, atol=tolerance)


SHAPES = [
    (1, 1, 1),
    (1, 40, 64),
    (3, 33, 33),
    (16, 16, 16),
    (33, 50, 20),
    (70, 129, 64),
    (5, 0, 8),
    (0, 5, 8),
    (49, 7, 40),
]


@pytest.mark.parametrize("cpu", [CPU, SMALL], ids=["machine", "small"])
@pytest.mark.parametrize("queries,keys,size", SHAPES)
def test_shapes(queries: int, keys: int, size: int, cpu: Cpu) -> None:
    check(queries=queries, keys=keys, size=size, cpu=cpu)


@pytest.mark.parametrize("queries", [1, 37])
@pytest.mark.parametrize("causal", [None, 0, 3, -2, 1000])
def test_causal(queries: int, causal: int | None) -> None:
    """A negative offset leaves the first queries without keys."""
    check(queries=queries, keys=45, causal=causal)


@pytest.mark.parametrize("queries", [2, 37])
@pytest.mark.parametrize("kind", ["bool", "float"])
@pytest.mark.parametrize("broadcast", ["full", "keys", "queries"])
def test_masks(queries: int, kind: str, broadcast: str) -> None:
    shape = {"full": (2, 3, queries, 40), "keys": (2, 1, 1, 40), "queries": (1, 1, queries, 1)}[broadcast]
    check(batch=2, heads=3, queries=queries, keys=40, mask=(kind, *shape))


@pytest.mark.parametrize("queries", [1, 20])
def test_grouped_queries_and_value_size(queries: int) -> None:
    check(batch=2, heads=6, key_heads=2, queries=queries, keys=30, size=24, value_size=40)


@pytest.mark.parametrize("queries", [1, 20])
def test_elements_apart(queries: int) -> None:
    check(queries=queries, keys=30, size=24, strided=True)


@pytest.mark.parametrize("queries", [1, 20])
def test_softcap(queries: int) -> None:
    check(queries=queries, keys=30, softcap=2.0, causal=0)


@pytest.mark.parametrize("queries", [1, 20])
@pytest.mark.parametrize("dtype", ["float64", "bfloat16", "float16"])
def test_dtypes(queries: int, dtype: str) -> None:
    check(queries=queries, keys=30, dtype=dtype, causal=0)


@pytest.mark.parametrize("queries,keys,size", [*SHAPES, (40, 45, 24)])
def test_pairs_of_bf16(queries: int, keys: int, size: int) -> None:
    check(queries=queries, keys=keys, size=size, dtype="bfloat16")
    check(queries=queries, keys=keys, size=size, dtype="bfloat16", causal=keys - queries, symbolic=True)
    mask = ("bool", 1, 2, queries, keys)
    check(queries=queries, keys=keys, size=size, value_size=size + 3, dtype="bfloat16", mask=mask)


@pytest.mark.parametrize("queries,keys", [(1, 1), (1, 300), (3, 5), (16, 16), (50, 300), (64, 64)])
def test_symbolic_lengths(queries: int, keys: int) -> None:
    check(queries=queries, keys=keys, size=20, symbolic=True, causal=keys - queries)


def test_large_scores_do_not_overflow() -> None:
    check(queries=20, keys=30, big=10.0)
    check(queries=1, keys=30, big=10.0)


def test_not_a_number_stays_in_its_query() -> None:
    q, k, v = (np.random.default_rng(i).standard_normal((1, 1, 20, 16)).astype("f4") for i in range(3))
    q[0, 0, 7, 3] = np.nan
    spec = Attention(1, 1, 20, 20, 16, 16, *((320, 320, 16, 1),) * 3, 0.25, CPU, (1,))
    out = np.zeros_like(q)

    def body(buffers, dims, scratch, tile):
        def epilogue(position, value, lanes):
            store(buffers[3], value, dot(position, (320, 320, 16, 1)), lanes)

        attention.emit(spec, tile, scratch, epilogue, *buffers[:3])

    Kernel(body, ["float32"] * 4, lambda: attention.tiles(spec), 0, attention.scratch_bytes(spec))([q, k, v, out])
    np.testing.assert_array_equal(np.isnan(out).all(-1)[0, 0], np.arange(20) == 7)
    assert np.isfinite(out[0, 0, np.arange(20) != 7]).all()
