"""Compressed layouts: what they keep comes back, bit for bit, and what has no pattern is refused."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from effcc.errors import InputError
from effcc.interp import run
from effcc.ir import Builder, Tensor, f16, f32, verify
from effcc.ir.encodings import as_fours, block_csr, codec, encode, is_compressed, two_four
from effcc.ir.types import Encoding
from effcc.text import parse


def blocky(rows: int, columns: int, block: tuple[int, int], density: float, seed: int = 0) -> np.ndarray:
    """A matrix whose blocks are kept with probability `density`; whole numbers without zeros inside."""
    random = np.random.default_rng(seed)
    kept = random.random((-(-rows // block[0]), -(-columns // block[1]))) < density
    mask = np.kron(kept, np.ones(block))[:rows, :columns]
    return (random.integers(1, 9, (rows, columns)) * mask).astype(np.float32)


def two_of_four(shape: tuple[int, ...], axis: int, seed: int = 0) -> np.ndarray:
    """An array with at most two elements in each four along an axis."""
    array = np.random.default_rng(seed).integers(-4, 5, shape).astype(np.float32)
    fours = as_fours(array, axis)
    order = np.random.default_rng(seed + 1).permuted(np.broadcast_to(np.arange(4)[:, None], fours.shape), axis=2)
    return np.where(order < 2, fours, 0).reshape(shape).astype(np.float32)


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 8), st.integers(1, 8), st.sampled_from((0, 0.3, 1)))
def test_block_csr_brings_every_element_back(rows, columns, height, width, density):
    matrix = blocky(rows, columns, (height, width), density, rows + columns)
    blob = encode(matrix, block_csr((height, width)))
    assert np.array_equal(blob.array, matrix) and blob.array.dtype == matrix.dtype
    assert sum(p.nbytes for p in blob.parts) == blob.type.nbytes
    assert len(blob.parts[0]) == dict(blob.type.encoding.params)["kept"]


@given(st.integers(1, 3), st.integers(1, 6), st.integers(1, 5), st.integers(0, 2))
def test_two_four_brings_every_element_back(left, groups, right, axis):
    shape = [left, 3, right]
    shape[axis] = 4 * groups
    array = two_of_four(tuple(shape), axis, groups)
    blob = encode(array, two_four(axis))
    assert np.array_equal(blob.array, array)
    assert sum(p.nbytes for p in blob.parts) == blob.type.nbytes
    assert blob.parts[0].size == array.size // 2


def test_values_and_two_bits_each():
    w = np.array([[0, 5, 0, 7, 1, 0, 0, 2]], np.float32)
    values, positions = encode(w, two_four(1)).parts
    assert values.reshape(-1).tolist() == [5, 7, 1, 2]
    assert positions.reshape(-1).tolist() == [(1 | 3 << 2) | (0 | 3 << 2) << 4]


def test_elements_without_the_pattern_are_refused():
    with pytest.raises(InputError, match="more than two"):
        encode(np.ones((4, 4), np.float32), two_four(0))
    with pytest.raises(InputError, match="no multiple of 4"):
        encode(np.zeros((6, 4), np.float32), two_four(0))
    with pytest.raises(InputError, match="rank 3"):
        encode(np.zeros((2, 2, 2), np.float32), block_csr((1, 1)))
    with pytest.raises(InputError, match="the data has 4 blocks, the type says 3"):
        encode(np.ones((4, 4), np.float32), block_csr((2, 2), 3))
    with pytest.raises(InputError, match="cannot be stored as panels"):
        encode(np.ones((4, 4), np.float32), Encoding("panels"))


def test_blobs_are_equal_by_what_they_hold():
    w = blocky(8, 8, (2, 2), 0.5)
    a, b = encode(w, block_csr((2, 2))), encode(w.copy(), block_csr((2, 2)))
    assert a == b and hash(a) == hash(b) and a.sha256 == b.sha256
    assert a != encode(w, block_csr((4, 2))) and a != encode(2 * w, block_csr((2, 2)))


def test_text_brings_them_back():
    random = np.random.default_rng(0)
    for w, encoding in ((blocky(40, 48, (16, 16), 0.4), block_csr((16, 16))),
                        (two_of_four((16, 40), 0), two_four(0)), (blocky(4, 4, (2, 2), 0.5, 3), block_csr((2, 2)))):
        b = Builder("sparse")
        blob = encode(w, encoding)
        graph = b.graph(b.matmul(b.input("x", Tensor(f32, (3, len(w)))), b.const(blob)))
        verify(graph)
        text = str(graph)
        again = parse(text, {blob.sha256: blob})
        assert again == graph and str(again) == text and is_compressed(again.nodes[0].result.type)
        x = random.integers(-3, 4, (3, len(w))).astype(np.float32)
        assert np.array_equal(run(again, x)[0].numpy(), x @ w)


def test_small_constants_are_written_out():
    b = Builder("small")
    w = np.array([[0, 0, 1, 2], [0, 0, 3, 4]], np.float32)
    graph = b.graph(b.matmul(b.input("x", Tensor(f32, (1, 2))), b.const(encode(w, block_csr((2, 2))))))
    assert "f32[2,4]@block_csr(block=(2, 2), kept=1) = const [" in str(graph)
    assert parse(str(graph)) == graph


def test_products_count_what_is_kept():
    b = Builder("counted")
    w = np.zeros((64, 64), np.float32)
    w[:16, :32] = 1
    y = b.matmul(b.input("x", Tensor(f32, (8, 64))), b.const(encode(w, block_csr((16, 16)))))
    node = b.graph(y).nodes[-1]
    assert node.op.flops(*node.types) == 2 * 8 * 64 * 64 // 8
    assert codec(node.types[1]).kept(node.types[1]) == 2 * 256


def test_short_floats_keep_their_dtype():
    w = two_of_four((8, 3), 0).astype(np.float16)
    blob = encode(w, two_four(0))
    assert blob.type.dtype == f16 and np.array_equal(blob.array, w) and blob.parts[0].dtype == np.float16
