"""Block-sparse products against fp64, with the bound of a sum of K rounded products, as for the dense ones."""

from __future__ import annotations

from math import prod

import numpy as np
import pytest

pytest.importorskip("tvm")

from effcc.backends.tvm.standalone import CPU, Kernel
from effcc.backends.tvm.templates import block_sparse, contraction
from effcc.backends.tvm.templates.block_sparse import BlockSparse
from effcc.backends.tvm.templates.emission import Cpu, constant, dot, load, store

SMALL = Cpu(128, 16, l2_bytes=16 << 10, threads=2)


def blocky(k: int, n: int, block: tuple[int, int], density: float) -> np.ndarray:
    random = np.random.default_rng(k + n)
    kept = random.random((-(-k // block[0]), -(-n // block[1]))) < density
    mask = np.kron(kept, np.ones(block))[:k, :n]
    return (random.standard_normal((k, n)) * mask).astype("f4")


def check(c: np.ndarray, a: np.ndarray, b: np.ndarray) -> None:
    exact = a.astype("f8") @ b.astype("f8")
    bound = (a.shape[-1] + 2) * 2.0**-24 * (np.abs(a).astype("f8") @ np.abs(b).astype("f8"))
    assert c.shape == exact.shape
    assert (np.abs(c - exact) <= bound).all()


def run(cpu: Cpu, a: np.ndarray, b: np.ndarray, block: tuple[int, int], symbolic: bool = False, prologue: bool = False):
    *batch, m, k = a.shape
    n = b.shape[1]
    blocking, height, _ = block_sparse.choose("m" if symbolic else m, b, block, tuple(batch), cpu, "float32")
    strides = tuple(prod(a.shape[i + 1 :]) for i in range(a.ndim))

    def spec(m):
        return BlockSparse(m, n, k, cpu, tuple(batch), a_strides=strides, b_strides=(0,) * a.ndim, prologue=prologue,
                           blocking=blocking, block=height)

    c = np.full((*batch, m, n), 77, "f4")
    steps = tuple(prod(c.shape[i + 1 :]) for i in range(c.ndim))

    def body(buffers, dims, scratch, tile):
        def read(at, lanes):
            return load(buffers[0], dot(at, strides), lanes) * constant(2, "float32", lanes)

        block_sparse.emit(
            spec(dims[0] if symbolic else m), tile, scratch,
            lambda at, value, lanes: store(buffers[4], value, dot(at, steps), lanes),
            None if prologue else buffers[0], *buffers[1:4], read_a=read if prologue else None)

    kernel = Kernel(
        body, ["float32", "float32", "int32", "int32", "float32"],
        lambda *dims: contraction.tiles(spec(dims[0] if symbolic else m)), int(symbolic),
        contraction.scratch_bytes(spec(m)))
    kernel([a, *block_sparse.pack(spec(m), b), c], (m,) if symbolic else ())
    return c


def random(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype("f4")


SHAPES = [
    (1, 16, 16, (16, 16)), (1, 100, 96, (16, 16)), (7, 37, 48, (16, 16)), (33, 64, 70, (7, 3)),
    (130, 80, 600, (32, 32)), (16, 64, 1024, (1, 16)), (5, 20, 0, (4, 4)), (0, 20, 8, (4, 4)), (3, 1, 33, (8, 8)),
]  # fmt: skip


@pytest.mark.parametrize("cpu", [CPU, SMALL], ids=["machine", "small"])
@pytest.mark.parametrize("m,n,k,block", SHAPES)
def test_static_shapes(cpu, m, n, k, block):
    a, b = random(m, k), blocky(k, n, block, 0.4)
    check(run(cpu, a, b, block), a, b)


@pytest.mark.parametrize("density", [0.0, 1.0])
def test_nothing_and_everything_kept(density):
    a, b = random(19, 64), blocky(64, 48, (16, 16), density)
    check(run(CPU, a, b, (16, 16)), a, b)


def test_rows_known_at_run_time():
    for m in (1, 5, 128, 301):
        a, b = random(m, 96), blocky(96, 64, (32, 16), 0.3)
        check(run(CPU, a, b, (32, 16), symbolic=True), a, b)


def test_batches_and_a_prologue():
    a, b = random(3, 9, 64), blocky(64, 40, (8, 8), 0.3)
    check(run(CPU, a, b, (8, 8)), a, b)
    check(run(CPU, a, b, (8, 8), prologue=True), 2 * a, b)


def test_no_zero_block_is_read_or_multiplied():
    """What meets no kept block is not multiplied: NaN there does not reach the result."""
    a, b = random(4, 64), blocky(64, 32, (16, 16), 1.0)
    b[16:32] = 0
    a[:, 16:32] = np.nan
    b_kept = np.delete(b, slice(16, 32), 0)
    check(run(CPU, a, b, (16, 16)), np.delete(a, slice(16, 32), 1), b_kept)


def test_the_work_is_that_of_the_kept_blocks():
    dense = blocky(768, 768, (16, 16), 1.0)
    sparse = blocky(768, 768, (16, 16), 0.3)
    _, _, all_kept = block_sparse.choose(128, dense, (16, 16), (), CPU, "float32")
    blocking, height, some = block_sparse.choose(128, sparse, (16, 16), (), CPU, "float32")
    kept = block_sparse.kept_blocks(sparse, height, CPU.lanes("float32") * blocking.vectors)
    assert kept.mean() < 0.56 and some < 0.6 * all_kept
    spec = BlockSparse(128, 768, 768, CPU, a_strides=(768, 1), blocking=blocking, block=height)
    values, starts, depths = block_sparse.pack(spec, sparse)
    assert len(values) == len(depths) == starts[-1] == kept.sum()


def test_one_row_reads_little_more_than_the_kept_blocks():
    """Many columns in flight would need wide panels, in which nearly every block is kept; copies of sums do not."""
    sparse = blocky(768, 768, (16, 16), 0.3)
    blocking, height, _ = block_sparse.choose(1, sparse, (16, 16), (), CPU, "float32")
    kept = block_sparse.kept_blocks(sparse, height, CPU.lanes("float32") * blocking.vectors)
    assert kept.mean() < 0.35 and block_sparse.in_flight(blocking.vectors, height) * blocking.vectors >= 4
