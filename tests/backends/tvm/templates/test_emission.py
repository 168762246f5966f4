"""The pieces that templates share."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

pytest.importorskip("tvm")

from tvm.tirx.script import builder as T

from effcc.backends.tvm.standalone import Kernel
from effcc.backends.tvm.templates.emission import Cpu, cast, for_lanes, halves, lane_pieces, load, store


@pytest.mark.parametrize("lanes", [1, 8])
@pytest.mark.parametrize("source,target", [("float32", "bfloat16"), ("bfloat16", "float32"), ("float32", "float16")])
def test_casts_round_as_ml_dtypes(source: str, target: str, lanes: int) -> None:
    types = {"float32": np.float32, "float16": np.float16, "bfloat16": ml_dtypes.bfloat16}
    bits = np.random.default_rng(0).integers(0, 2**32, 4096, dtype=np.uint32)
    bits[:6] = [0x7F800000, 0xFF800000, 0x80000000, 0x7F800001, 0x3F808000, 0x3F818000]  # inf, -inf, -0, NaN, two ties
    with np.errstate(all="ignore"):
        x = bits.view(np.float32).astype(types[source])
        expected = x.astype(types[target])
    y = np.zeros(x.size, types[target])

    def body(buffers, dims, scratch, tile):
        for_lanes(
            T.int64(0), x.size, lanes, lambda i, n: store(buffers[1], cast(load(buffers[0], i, n), target, n), i, n)
        )

    Kernel(body, [source, target], lambda: 1)([x, y])
    np.testing.assert_array_equal(y.astype(np.float32), expected.astype(np.float32))
    numbers = ~np.isnan(expected.astype(np.float32))
    np.testing.assert_array_equal(np.signbit(y)[numbers], np.signbit(expected)[numbers])


@pytest.mark.parametrize("extent", [0, 1, 15, 16, 37])
@pytest.mark.parametrize("symbolic", [False, True])
def test_for_lanes_visits_each_element_once(extent: int, symbolic: bool) -> None:
    counts = np.zeros(64, "f4")

    def body(buffers, dims, scratch, tile):
        def add_one(position, lanes):
            one = T.float32(1) if lanes == 1 else T.broadcast(T.float32(1), lanes)
            store(buffers[0], load(buffers[0], position, lanes) + one, position, lanes)

        for_lanes(T.int64(5), dims[0] if symbolic else extent, 16, add_one)

    Kernel(body, ["float32"], lambda *_: 1, dims=1)([counts], (extent,))
    np.testing.assert_array_equal(counts, (np.arange(64) >= 5) & (np.arange(64) < 5 + extent))


def test_any_remainder_is_a_sum_of_halves() -> None:
    for extent in range(1, 20):
        for rest in range(extent):
            assert sum(piece for piece in halves(extent) if rest & piece) == rest
    assert lane_pieces(11, 16) == [(0, 8), (8, 2), (10, 1)]


def test_half_vectors_where_they_leave_less_unused():
    split = Cpu(512, 32, split_vectors=True)
    assert [split.lanes_over("float32", n) for n in (4, 8, 16, 24, 32, 40, 96, 144)] == [4, 8, 16, 8, 16, 8, 16, 16]
    assert [Cpu(512, 32).lanes_over("float32", n) for n in (4, 24, 40)] == [4, 16, 16]
