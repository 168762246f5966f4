"""Products against fp64, with the bound of a sum of K rounded products: |error| <= (K + 2) u |A| |B|."""

from __future__ import annotations

from dataclasses import replace
from math import prod

import ml_dtypes
import numpy as np
import pytest

pytest.importorskip("tvm")

from effcc.backends.tvm.standalone import CPU, Kernel
from effcc.backends.tvm.templates import contraction
from effcc.backends.tvm.templates.blocking import Blocking
from effcc.backends.tvm.templates.contraction import Contraction
from effcc.backends.tvm.templates.emission import Cpu, cast, constant, dot, load, store

UNIT = {"float32": 2.0**-24, "float64": 2.0**-53}
SHAPES = [
    (1, 1, 1), (0, 5, 3), (5, 0, 3), (5, 7, 0), (1, 16, 16), (1, 100, 33), (3, 48, 17), (7, 37, 19), (16, 64, 64),
    (33, 1, 40), (50, 129, 65), (130, 33, 7),
]  # fmt: skip
SMALL = Cpu(128, 16, l2_bytes=16 << 10, threads=2)


def strides(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(prod(shape[i + 1 :]) for i in range(len(shape)))


def check(c: np.ndarray, a: np.ndarray, b: np.ndarray, dtype: str = "float32") -> None:
    exact = a.astype("f8") @ b.astype("f8")
    bound = (a.shape[-1] + 2) * UNIT[dtype] * (np.abs(a).astype("f8") @ np.abs(b).astype("f8"))
    assert c.shape == exact.shape
    assert (np.abs(c - exact) <= bound).all()


def run(
    spec: Contraction, a: np.ndarray, b: np.ndarray, out: str = "float32", dims: tuple[int, ...] = ()
) -> np.ndarray:
    """The static product, stored plainly."""
    m, n = a.shape[-2], b.shape[-1]
    batch = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    c = np.full((*batch, m, n), 77, out)

    def body(buffers, dims, scratch, tile):
        def epilogue(position, value, lanes):
            store(buffers[2], cast(value, out, lanes), dot(position, strides(c.shape)), lanes)

        contraction.emit(spec, tile, scratch, epilogue, buffers[0], buffers[1])

    kernel = Kernel(body, [spec.a, spec.b, out], lambda: contraction.tiles(spec), 0, contraction.scratch_bytes(spec))
    kernel([a, contraction.pack(spec, b) if spec.panels == "packed" else b, c])
    return c


def random(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype("f4")


@pytest.mark.parametrize("cpu", [CPU, SMALL], ids=["machine", "small"])
@pytest.mark.parametrize("panels", ["packed", "staged", "direct"])
@pytest.mark.parametrize("m,n,k", SHAPES)
def test_static_shapes(m: int, n: int, k: int, panels: str, cpu: Cpu) -> None:
    a, b = random(m, k), random(k, n)
    spec = Contraction(m, n, k, cpu, panels=panels, a_strides=(k, 1), b_strides=() if panels == "packed" else (n, 1))
    check(run(spec, a, b), a, b)


@pytest.mark.parametrize("panels", ["packed", "staged", "direct"])
def test_deep_products_are_cut_along_k(panels: str) -> None:
    m, n, k = 21, 70, 1000
    a, b = random(m, k), random(k, n)
    spec = Contraction(m, n, k, SMALL, panels=panels, a_strides=(k, 1), b_strides=() if panels == "packed" else (n, 1))
    assert spec.blocking.depth is not None and spec.depth_chunks > 2
    check(run(spec, a, b), a, b)


def test_rows_in_the_same_cache_sets_are_staged() -> None:
    a, b = random(40, 1024), random(1024, 48)
    spec = Contraction(40, 48, 1024, CPU, a_strides=(1024, 1), blocking=Blocking(8, 1, 40, 3, None))
    assert spec.stages_rows
    check(run(spec, a, b), a, b)


@pytest.mark.parametrize("panels", ["packed", "staged"])
def test_batches_broadcast(panels: str) -> None:
    a, b = random(2, 1, 9, 11), random(3, 11, 20)
    spec = Contraction(
        9,
        20,
        11,
        CPU,
        batch=(2, 3),
        panels=panels,
        a_strides=(99, 0, 11, 1),
        b_strides=(0, 1) if panels == "packed" else (0, 220, 20, 1),
    )
    check(run(spec, a, b), a, b)


@pytest.mark.parametrize("n,k", [(25, 30), (64, 32), (3, 100), (100, 3)])
def test_transposed_operands(n: int, k: int) -> None:
    a, b = random(3, k, 17), random(3, n, k)
    spec = Contraction(17, n, k, CPU, batch=(3,), panels="staged", a_strides=(17 * k, 1, 17), b_strides=(n * k, 1, k))
    left, right = a.transpose(0, 2, 1), b.transpose(0, 2, 1)
    check(run(spec, left, right), left, right)


def test_float64() -> None:
    a, b = random(13, 21).astype("f8"), random(21, 19).astype("f8")
    spec = Contraction(13, 19, 21, CPU, a="float64", b="float64", sum="float64", a_strides=(21, 1))
    check(run(spec, a, b, "float64"), a, b, "float64")


@pytest.mark.parametrize("dots", [True, False])
@pytest.mark.parametrize("left,right", [("int8", "int8"), ("uint8", "int8"), ("int32", "int32")])
@pytest.mark.parametrize("m,n,k", [(14, 33, 70), (1, 16, 64), (9, 50, 131), (5, 20, 3), (3, 4, 0), (40, 64, 256)])
def test_integers_are_exact(m: int, n: int, k: int, left: str, right: str, dots: bool) -> None:
    generator = np.random.default_rng(0)
    a = generator.integers(0 if left == "uint8" else -128, 255 if left == "uint8" else 127, (m, k), endpoint=True)
    b = generator.integers(-128, 127, (k, n), endpoint=True).astype(right)
    cpu = replace(CPU, byte_dots=dots and CPU.byte_dots)
    spec = Contraction(m, n, k, cpu, a=left, b=right, sum="int32", a_strides=(k, 1))
    np.testing.assert_array_equal(run(spec, a.astype(left), b, "int32"), a.astype("i4") @ b.astype("i4"))


@pytest.mark.skipif(not CPU.byte_dots, reason="no vpdpbusd here")
@pytest.mark.parametrize("left", ["int8", "uint8"])
def test_deep_products_of_bytes_are_cut(left: str) -> None:
    generator = np.random.default_rng(0)
    a, b = generator.integers(0, 127, (20, 4001)).astype(left), generator.integers(-128, 127, (4001, 50)).astype("i1")
    spec = Contraction(
        20, 50, 4001, replace(CPU, l2_bytes=64 << 10), a=left, b="int8", sum="int32", a_strides=(4001, 1)
    )
    assert spec.dots and spec.depth_chunks > 2
    np.testing.assert_array_equal(run(spec, a, b, "int32"), a.astype("i4") @ b.astype("i4"))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_accumulates_in_float32(dtype: str) -> None:
    numpy_dtype = {"float16": np.float16, "bfloat16": ml_dtypes.bfloat16}[dtype]
    a, b = random(10, 40).astype(numpy_dtype), random(40, 33).astype(numpy_dtype)
    spec = Contraction(10, 33, 40, CPU, a=dtype, b=dtype, a_strides=(40, 1))
    check(run(spec, a, b), a.astype("f4"), b.astype("f4"))


@pytest.mark.parametrize("pair_dots", [True, False])
@pytest.mark.parametrize("m,n,k", [(14, 33, 70), (1, 16, 64), (9, 50, 131), (5, 20, 3), (3, 4, 0), (40, 64, 256)])
def test_bf16_accumulates_in_float32(m: int, n: int, k: int, pair_dots: bool) -> None:
    """By pairs where there is an instruction: read in place, with an odd K through scratch."""
    a, b = (x.astype(ml_dtypes.bfloat16) for x in (random(m, k), random(k, n)))
    cpu = replace(CPU, pair_dots=pair_dots and CPU.pair_dots)
    spec = Contraction(m, n, k, cpu, a="bfloat16", b="bfloat16", a_strides=(k, 1))
    assert (spec.dots is not None) == cpu.pair_dots and spec.reads_words == (cpu.pair_dots and k % 2 == 0)
    check(run(spec, a, b), a.astype("f4"), b.astype("f4"))


@pytest.mark.skipif(not CPU.pair_dots, reason="no vdpbf16ps here")
def test_pairs_in_lesser_vectors_cut_and_through_columns() -> None:
    a, b = random(21, 1001).astype(ml_dtypes.bfloat16), random(1001, 70).astype(ml_dtypes.bfloat16)
    small = replace(CPU, vector_bits=256, l2_bytes=16 << 10)
    spec = Contraction(21, 70, 1001, small, a="bfloat16", b="bfloat16", a_strides=(1, 21))
    assert spec.lanes == 8 and spec.depth_chunks > 2 and spec.stages_rows
    check(run(spec, np.ascontiguousarray(a.T).T, b), a.astype("f4"), b.astype("f4"))


@pytest.mark.parametrize("prologue", [False, True])
@pytest.mark.parametrize("panels", ["staged", "direct", "packed"])
def test_symbolic_extents(panels: str, prologue: bool) -> None:
    """One kernel for all M, N, K (all M when B is packed): prologue relu(2a), + bias[n] in the epilogue."""
    fixed_n, fixed_k = 45, 30
    specs = []

    def spec_of(m, n, k):
        if panels == "packed":
            n, k = fixed_n, fixed_k
        spec = Contraction(
            m,
            n,
            k,
            CPU,
            panels=panels,
            prologue=prologue,
            a_strides=(k, 1),
            b_strides=() if panels == "packed" else (n, 1),
        )
        specs.append(spec)
        return spec

    def body(buffers, dims, scratch, tile):
        a, b, bias, c = buffers
        spec = spec_of(*dims)

        def epilogue(position, value, lanes):
            m, n = position
            store(c, value + load(bias, n, lanes), m * spec.n + n, lanes)

        def read_a(position, lanes):
            from tvm.tirx.script import builder as T

            value = load(a, position[0] * spec.k + position[1], lanes)
            return T.max(value + value, constant(0, "float32", lanes))

        if prologue:
            contraction.emit(spec, tile, scratch, epilogue, b=b, read_a=read_a)
        else:
            contraction.emit(spec, tile, scratch, epilogue, a, b)

    kernel = Kernel(body, ["float32"] * 4, lambda *dims: contraction.tiles(spec_of(*dims)), 3, 1 << 20)
    assert contraction.scratch_bytes(specs[0]) <= 1 << 20
    shapes = [(m, n, k) for m, n, k in [*SHAPES, (300, 40, 1100)] if panels != "packed" or n]
    for m, n, k in shapes:
        if panels == "packed":
            n, k = fixed_n, fixed_k
        a, b, bias, c = random(m, k), random(k, n), np.zeros(n, "f4"), np.full((m, n), np.nan, "f4")
        kernel([a, contraction.pack(specs[0], b) if panels == "packed" else b, bias, c], (m, n, k))
        check(c, np.maximum(2 * a, 0) if prologue else a, b)


def test_a_staged_operand_may_be_computed() -> None:
    """B dequantised on the way into its panel: int8 times a scale for each column."""
    a, q, scale = random(20, 30), np.random.default_rng(1).integers(-128, 127, (30, 50)).astype("i1"), random(50)
    spec = Contraction(20, 50, 30, CPU, panels="staged", a_strides=(30, 1))
    c = np.zeros((20, 50), "f4")

    def body(buffers, dims, scratch, tile):
        def read_b(position, lanes):
            k, n = position
            return cast(load(buffers[1], k * 50 + n, lanes), "float32", lanes) * load(buffers[2], n, lanes)

        def epilogue(position, value, lanes):
            store(buffers[3], value, dot(position, (50, 1)), lanes)

        contraction.emit(spec, tile, scratch, epilogue, buffers[0], read_b=read_b)

    kernel = Kernel(
        body,
        ["float32", "int8", "float32", "float32"],
        lambda: contraction.tiles(spec),
        0,
        contraction.scratch_bytes(spec),
    )
    kernel([a, q, scale, c])
    check(c, a, (q * scale).astype("f4"))


def test_operands_need_only_their_elements_alignment() -> None:
    a, b = np.zeros(13 * 40 + 1, "f4")[1:].reshape(13, 40), random(40, 64)
    a[:] = random(13, 40)
    assert a.ctypes.data % 16
    spec = Contraction(13, 64, 40, CPU, a_strides=(40, 1))
    check(run(spec, a, b), a, b)


def test_blocks_fit_the_registers() -> None:
    for registers, bits in ((16, 128), (16, 256), (32, 512)):
        for m in (1, 7, 128, 1000):
            blocking = Contraction(m, 768, 768, Cpu(bits, registers, threads=4), a_strides=(768, 1)).blocking
            assert blocking.rows * blocking.vectors + blocking.vectors <= registers
            assert isinstance(blocking, Blocking) and blocking.row_chunk % blocking.rows == 0
