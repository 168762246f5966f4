"""Constant data: shared memory, content hashes, dtypes that NumPy or torch lack; constants as keys."""

import numpy as np
import pytest
import torch

from effcc.ir import DTYPES, Blob


def test_equality_is_by_type_and_content():
    a, b = Blob(np.arange(4, dtype="f4")), Blob(np.arange(4, dtype="f4"))
    assert a == b and a.sha256 == b.sha256 and hash(a) == hash(b)
    assert a != Blob(np.arange(4, dtype="f4").reshape(2, 2))
    assert a != Blob(np.arange(4, dtype="i4"))
    assert Blob(np.array([0.0], "f4")) != Blob(np.array([-0.0], "f4"))


def test_the_hash_does_not_depend_on_strides():
    array = np.arange(6, dtype="f4").reshape(2, 3)
    assert Blob(array.T).sha256 == Blob(array.T.copy()).sha256


NARROW = (torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2fnuz)


@pytest.mark.parametrize("dtype", (torch.float32, torch.float16, *NARROW, torch.int8, torch.bool))
def test_torch_round_trip(dtype):
    t = torch.tensor([[0, 1], [2, 3]]).to(dtype)
    back = Blob.from_torch(t).torch()
    assert back.dtype == dtype and torch.equal(back.float(), t.float())


def test_torch_memory_is_shared_both_ways():
    t = torch.zeros(3)
    blob = Blob.from_torch(t)
    t[0] = 5.0
    assert blob.array[0] == 5.0 and blob.torch().data_ptr() == t.data_ptr()


def test_narrow_integers_ride_in_bytes():
    blob = Blob(np.array([-8, 7], "i1"), DTYPES["i4"])
    assert str(blob.type) == "i4[2]" and blob.torch().dtype == torch.int8


def test_read_only_arrays_do_not_warn(recwarn):
    array = np.arange(3, dtype="f4")
    array.flags.writeable = False
    assert Blob(array).torch().tolist() == [0, 1, 2]
    assert not recwarn.list


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
