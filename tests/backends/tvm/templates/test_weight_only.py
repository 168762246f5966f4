"""Products with weights of few bits against fp64, within the bound of a sum of K rounded products: |error| <=
(K + 3) u |A| |W|."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("tvm")

from effcc.backends.tvm.standalone import CPU, Kernel
from effcc.backends.tvm.templates import weight_only
from effcc.backends.tvm.templates.emission import Cpu, dot, load, store

SMALL = Cpu(128, 16, l2_bytes=16 << 10, threads=2)
SHAPES = [(1, 1, 1), (0, 5, 8), (1, 100, 96), (3, 33, 64), (8, 20, 70), (9, 50, 131), (21, 70, 1000), (5, 7, 3)]


def draw(spec: weight_only.WeightOnly, m: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """A, q, scales, zeros."""
    generator = np.random.default_rng(spec.bits + m)
    k, n, top = spec.dense.k, spec.dense.n, 1 << spec.bits - 1
    scales = (generator.random((spec.groups, n)) + 0.5).astype(spec.scale)
    zeros = generator.integers(-top, top, (spec.groups, n)).astype("i1")
    q = generator.integers(-top, top, (k, n)).astype("i1")
    return generator.standard_normal((m, k)).astype("f4"), q, scales, zeros if spec.zeros else 0 * zeros


def weights(spec: weight_only.WeightOnly, q: np.ndarray, scales: np.ndarray, zeros: np.ndarray) -> np.ndarray:
    """What the integers stand for."""
    s, z = (np.repeat(x.astype("f8"), max(1, spec.group), 0)[: len(q)] for x in (scales, zeros))
    return (q - z) * s


def check(c: np.ndarray, a: np.ndarray, w: np.ndarray) -> None:
    exact = a.astype("f8") @ w
    bound = (a.shape[-1] + 3) * 2.0**-24 * (np.abs(a).astype("f8") @ np.abs(w))
    assert (np.abs(c - exact) <= bound).all()


def packed(spec: weight_only.WeightOnly, q: np.ndarray, scales: np.ndarray, zeros: np.ndarray) -> list[np.ndarray]:
    parameters = [scales, zeros] if spec.zeros else [scales]
    return [weight_only.pack_words(spec, q), *(weight_only.pack_groups(spec, p) for p in parameters)]


@pytest.mark.parametrize("cpu", [CPU, SMALL], ids=["machine", "small"])
@pytest.mark.parametrize("bits,group,zeros,scale", [
    (8, 0, False, "float32"), (8, 32, True, "float32"), (4, 32, False, "float16"), (4, 64, True, "float16"),
    (4, 0, True, "float32"), (2, 32, False, "float32"),
])  # fmt: skip
@pytest.mark.parametrize("m,n,k", SHAPES)
def test_static_shapes(m: int, n: int, k: int, bits: int, group: int, zeros: bool, scale: str, cpu: Cpu) -> None:
    spec = weight_only.product(m, n, k, bits, group or k, zeros=zeros, scale=scale, cpu=cpu, a_strides=(k, 1))
    a, *parts = draw(spec, m)
    arrays = [a, *packed(spec, *parts), np.full((m, n), 77, "f4")]

    def body(buffers: Any, dims: Any, scratch: Any, tile: Any) -> None:
        def epilogue(position: Any, value: Any, lanes: int) -> None:
            store(buffers[-1], value, dot(position, (n, 1)), lanes)

        weight_only.emit(spec, tile, scratch, epilogue, *buffers[:-1])

    dtypes = [str(x.dtype) for x in arrays]
    Kernel(body, dtypes, lambda: weight_only.tiles(spec), 0, weight_only.scratch_bytes(spec))(arrays)
    check(arrays[-1], a, weights(spec, *parts))


@pytest.mark.parametrize("prologue", [False, True])
def test_one_kernel_for_any_number_of_rows(prologue: bool) -> None:
    """Few rows and many, and row chunks with a short last one: with a bias in the epilogue, A computed or read."""
    n, k = 45, 70
    specs = []

    def spec_of(m: Any) -> weight_only.WeightOnly:
        specs.append(weight_only.product(m, n, k, 4, 32, cpu=CPU, a_strides=(k, 1), prologue=prologue))
        return specs[-1]

    def body(buffers: Any, dims: Any, scratch: Any, tile: Any) -> None:
        a, words, scales, bias, c = buffers

        def epilogue(position: Any, value: Any, lanes: int) -> None:
            store(c, value + load(bias, position[1], lanes), dot(position, (n, 1)), lanes)

        def read_a(position: Any, lanes: int) -> Any:
            value = load(a, position[0] * k + position[1], lanes)
            return value + value

        spec = spec_of(dims[0])
        read = {"read_a": read_a} if prologue else {}
        weight_only.emit(spec, tile, scratch, epilogue, None if prologue else a, words, scales, **read)

    kernel = Kernel(body, ["float32", "int32", *["float32"] * 3], lambda m: weight_only.tiles(spec_of(m)), 1, 1 << 20)
    assert weight_only.scratch_bytes(specs[0]) <= 1 << 20
    for m in (0, 1, 2, 7, 8, 9, 130, 517):
        a, *parts = draw(specs[0], m)
        bias, c = np.zeros(n, "f4"), np.full((m, n), np.nan, "f4")
        kernel([a, *packed(specs[0], *parts), bias, c], (m,))
        check(c, 2 * a if prologue else a, weights(specs[0], *parts))


def test_two_nibbles_a_byte() -> None:
    spec = weight_only.product(1, 64, 128, 4, 32, cpu=CPU, a_strides=(128, 1))
    _, q, scales, _ = draw(spec, 1)
    words = weight_only.pack_words(spec, q)
    padded = -(-64 // spec.dense.width) * spec.dense.width
    assert words.nbytes == 128 * padded // 2 and weight_only.pack_groups(spec, scales).nbytes == 4 * 4 * padded
    lowest = (words[0, 0].astype("i4") << 28) >> 28  # the first k of each column
    np.testing.assert_array_equal(lowest[:64], q[0, : len(lowest[:64])])
