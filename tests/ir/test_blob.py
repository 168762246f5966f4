"""Constants as keys: equal by content however they lie in memory, and told apart without reading all of them."""

from __future__ import annotations

import numpy as np
import pytest

from effcc.ir.blob import Blob


@pytest.mark.parametrize("shape", [(), (0,), (0, 3), (1,), (5, 7), (40, 3)])
def test_equal_contents_are_one_key_in_any_layout(shape):
    array = np.random.default_rng(0).standard_normal(shape).astype(np.float32).reshape(shape)
    other = np.array(array.T, order="C").T
    assert Blob(array) == Blob(other) and len({Blob(array), Blob(other)}) == 1
    assert Blob(array) != Blob(array.astype(np.float64))


def test_weights_of_one_shape_hash_apart():
    """Else a table of n weights takes n^2 comparisons, each of which reads them."""
    random = np.random.default_rng(0)
    blobs = [Blob(random.standard_normal((64, 64)).astype(np.float32)) for _ in range(100)]
    assert len({hash(blob) for blob in blobs}) == 100


def test_a_zero_and_a_negative_zero_are_two_constants():
    assert Blob(np.zeros(3)) != Blob(-np.zeros(3))
