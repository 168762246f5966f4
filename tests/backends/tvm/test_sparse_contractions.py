"""Programs with compressed weights: equal to the dense kernel on the same weights, within a dot product's bound."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("tvm")

import effcc
from effcc.backends.tvm.backend import CpuBackend
from effcc.interp import run
from effcc.ir import Builder, Symbol, Tensor, f16, f32
from effcc.ir.blob import Blob
from effcc.ir.encodings import block_csr, encode, two_four
from effcc.passes.block_sparse import BlockSparse
from effcc.pipeline import Context


def normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32)


def blocky(k: int, n: int, block: tuple[int, int], density: float = 0.3) -> np.ndarray:
    kept = np.random.default_rng(k).random((-(-k // block[0]), -(-n // block[1]))) < density
    return normal(k, n) * np.kron(kept, np.ones(block, np.float32))[:k, :n]


def layer(w: Blob, x: Tensor, bias: np.ndarray, turned: bool = False):
    b = Builder("layer")
    y = b.add(b.matmul(b.input("x", x), b.const(w), transpose_b=turned), b.const(Blob(bias)))
    return b.graph(b.relu(y))


def templates(program, **sizes: int) -> list[str]:
    return [k["template"] for k in program.code.kernels(sizes)]


@pytest.mark.parametrize("turned", [False, True], ids=["KN", "NK"])
@pytest.mark.parametrize("rows", [1, 33, Symbol("M", 1, 300)], ids=["1", "33", "M"])
@pytest.mark.parametrize("k,n,block", [(128, 96, (16, 16)), (70, 45, (16, 16)), (64, 64, (1, 32)), (64, 64, (32, 1))])
def test_equal_to_the_dense_kernel_on_the_same_weights(k, n, block, rows, turned):
    w, bias = blocky(k, n, block), normal(n)
    stored, block = (np.ascontiguousarray(w.T), block[::-1]) if turned else (w, block)
    type_ = Tensor(f32, (2, rows, k))
    sparse = effcc.compile(layer(encode(stored, block_csr(block)), type_, bias, turned))
    dense = effcc.compile(layer(Blob(stored), type_, bias, turned), tune="none", passes="fuse")
    m = rows if isinstance(rows, int) else 21
    assert templates(sparse, M=m) == ["block_sparse"] and templates(dense, M=m) == ["contraction"]
    x = normal(2, m, k)
    exact = np.maximum(x.astype("f8") @ w.astype("f8") + bias, 0)
    bound = (k + 3) * 2.0**-24 * (np.abs(x).astype("f8") @ np.abs(w).astype("f8") + np.abs(bias))
    for program in (sparse, dense):
        assert (np.abs(program(x)[0] - exact) <= bound).all()


@pytest.mark.parametrize("turned", [False, True], ids=["KN", "NK"])
@pytest.mark.parametrize("rows", [1, 33, Symbol("M", 1, 300)], ids=["1", "33", "M"])
def test_two_of_four_equal_the_dense_kernel(rows, turned):
    k, n = 100, 45
    w, bias = normal(k, n), normal(n)
    w.reshape(25, 4, n)[np.random.default_rng(0).permuted(np.tile(np.arange(4)[:, None], (25, 1, n)), axis=1) < 2] = 0
    stored = np.ascontiguousarray(w.T) if turned else w
    graph = layer(encode(stored, two_four(1 if turned else 0)), Tensor(f32, (2, rows, k)), bias, turned)
    program = effcc.compile(graph)
    m = rows if isinstance(rows, int) else 21
    assert templates(program, M=m) == ["two_four"]
    assert program.code.memory({"M": m})["constants"] < 0.8 * w.nbytes
    x = normal(2, m, k)
    exact = np.maximum(x.astype("f8") @ w.astype("f8") + bias, 0)
    bound = (k + 3) * 2.0**-24 * (np.abs(x).astype("f8") @ np.abs(w).astype("f8") + np.abs(bias))
    assert (np.abs(program(x)[0] - exact) <= bound).all()


def test_one_kernel_serves_all_weights_of_a_shape():
    b = Builder("deep")
    x = b.input("x", Tensor(f32, (64, 128)))
    for k in range(3):
        w = blocky(128, 128, (16, 16), 0.2 + 0.1 * k)
        x = b.relu(b.matmul(x, b.const(encode(w, block_csr((16, 16))))))
    program = effcc.compile(b.graph(x))
    kernels = program.code.kernels({})
    assert [k["template"] for k in kernels] == ["block_sparse"] * 3
    assert len({k["symbol"] for k in kernels}) == 1


def test_short_floats_are_summed_in_f32():
    w = blocky(64, 48, (16, 16)).astype(np.float16)
    b = Builder("half")
    y = b.matmul(b.input("x", Tensor(f16, (5, 64))), b.const(encode(w, block_csr((16, 16)))))
    program = effcc.compile(b.graph(y))
    assert templates(program) == ["block_sparse"]
    x = normal(5, 64).astype(np.float16)
    wanted = (x.astype("f4") @ w.astype("f4")).astype(np.float16)
    np.testing.assert_allclose(program(x)[0].astype("f4"), wanted.astype("f4"), rtol=2e-3, atol=1e-3)


def test_an_artifact_holds_the_compressed_form(tmp_path):
    w = blocky(512, 512, (16, 16), 0.25)
    graph = layer(encode(w, block_csr((16, 16))), Tensor(f32, (8, 512)), normal(512))
    program = effcc.compile(graph)
    program.save(tmp_path / "sparse.effcc")
    again = effcc.load(tmp_path / "sparse.effcc")
    x = normal(8, 512)
    assert np.array_equal(again(x)[0], program(x)[0])
    kept = (w != 0).sum() * 4
    assert kept <= program.code.memory({})["constants"] < 1.2 * kept
    assert (tmp_path / "sparse.effcc").stat().st_size < 0.5 * w.nbytes
    constant = next(n for n in again.graph.nodes if n.op.name == "const" and n.result.type.size == 512 * 512)
    assert constant.result.type == program.graph.nodes[0].result.type
    assert str(constant.result.type).startswith("f32[512,512]@block_csr(block=(16, 16), kept=")


@pytest.mark.parametrize("name", ["block_csr", "two_four"])
def test_other_readers_see_the_plain_elements(name):
    w = blocky(64, 32, (16, 16))
    w[0::4] = w[1::4] = 0
    encoding = block_csr((16, 16)) if name == "block_csr" else two_four(0)
    b = Builder("read")
    c = b.const(encode(w, encoding))
    graph = b.graph(b.relu(b.unpack(c)), b.matmul(b.input("x", Tensor(f32, (3, 64))), c))
    program = effcc.compile(graph)
    x = normal(3, 64)
    plain, product = program(x)
    assert np.array_equal(plain, np.maximum(w, 0))
    np.testing.assert_allclose(product, run(graph, x)[1], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("tune", ["default", "none"])
def test_a_pruned_model_is_compiled_and_tells_what_was_chosen(tune):
    b = Builder("model")
    x = b.input("x", Tensor(f32, (64, 256)))
    y = b.relu(b.add(b.matmul(x, b.const(Blob(normal(256, 128)))), b.const(Blob(normal(128)))))
    graph = b.graph(b.matmul(y, b.const(Blob(normal(10, 128))), transpose_b=True))
    program = effcc.compile(graph, sparsify="block-sparse:density=0.25:min-size=4096", tune=tune)
    wanted = BlockSparse(density=0.25, min_size=4096).run(graph, Context())
    given = normal(64, 256)
    np.testing.assert_allclose(program(given)[0], run(wanted, given)[0], rtol=1e-3, atol=1e-3)
    notes = [n.figures for n in program.context.notes if n.pass_name == "compress-weights"]
    assert len(notes) == (tune == "default")
    faster = all(n["compressed us"] < 0.9 * n["dense us"] for n in notes)
    assert ("block_sparse" in templates(program)) == faster
    reasons = [r.reason for r in program.context.refusals if r.pass_name == "compress-weights"]
    assert any("dense is faster" in r for r in reasons) != faster


def test_pruned_convolutions_of_1x1_run_as_sparse_products():
    b = Builder("convs")
    x = b.input("x", Tensor(f32, (1, 64, 8, 8)))
    w = Blob(normal(96, 64, 1, 1))
    y = b.conv(x, b.const(w), b.const(Blob(normal(96))), strides=(1, 1), pads=(0,) * 4, dilations=(1, 1))
    graph = b.graph(b.relu(y))
    program = effcc.compile(graph, sparsify="block-sparse:density=0.25", tune="none")
    assert "block_sparse" in templates(program)
    given = normal(1, 64, 8, 8)
    wanted = run(BlockSparse(density=0.25).run(graph, Context()), given)[0]
    np.testing.assert_allclose(program(given)[0], wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("layout", ["block_csr", "two_four"])
def test_tiles_without_barriers_give_the_same_bits(layout):
    w = [blocky(64, 96, (16, 16), 0.5), blocky(96, 64, (16, 16), 0.5)]
    for x in w:
        x[0::4] = x[1::4] = 0
    b = Builder("two")
    y = b.input("x", Tensor(f32, (40, 64)))
    for x in w:
        y = b.relu(b.matmul(y, b.const(encode(x, block_csr((16, 16)) if layout == "block_csr" else two_four(0)))))
    graph, given = b.graph(y), normal(40, 64)
    barriers, tiles = (effcc.compile(graph, schedule=s) for s in ("barriers", "tiles"))
    assert templates(tiles) == ["block_sparse" if layout == "block_csr" else "two_four"] * 2
    for threads in (1, 2):
        assert np.array_equal(tiles(given, threads=threads)[0], barriers(given)[0])


def test_the_backend_measures_only_its_own_machine():
    graph = layer(Blob(normal(16, 16)), Tensor(f32, (4, 16)), normal(16))
    here = CpuBackend().measure
    assert here is not None and here(graph) > 0
    assert CpuBackend("cpu{mcpu=neoverse-n1}").measure is None
