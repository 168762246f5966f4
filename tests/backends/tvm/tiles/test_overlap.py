"""Projected boxes against all addresses, one by one."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from effcc.backends.tvm.place import Buffer, Place, row_major
from effcc.backends.tvm.tiles.overlap import project
from effcc.backends.tvm.tiles.regions import Box
from effcc.ir import f32

SIZE = 720
BUFFER = Buffer("b", "temporary", f32, SIZE)
SHAPES = [(720,), (8, 90), (2, 4, 90), (8, 3, 30), (6, 4, 5, 6), (720, 1), (1, 45, 16), (9, 80), (36, 20)]


@st.composite
def places(draw):
    shape = list(draw(st.sampled_from(SHAPES)))
    strides, offset = list(row_major(tuple(shape))), 0
    for axis in range(len(shape)):
        first = draw(st.integers(0, shape[axis] - 1))
        last = draw(st.integers(first, shape[axis] - 1))
        step = draw(st.sampled_from([1, 1, 1, 2, 3]))
        offset += first * strides[axis]
        shape[axis] = (last - first) // step + 1
        strides[axis] *= step
        if draw(st.sampled_from([False, False, True])):
            offset += (shape[axis] - 1) * strides[axis]
            strides[axis] *= -1
    order = draw(st.permutations(range(len(shape))))
    return Place(BUFFER, tuple(shape[k] for k in order), tuple(strides[k] for k in order), offset)


def addresses(place, box):
    ranges = [range(a, b + 1) for a, b in zip(box.low[:, 0].tolist(), box.high[:, 0].tolist())]
    return {place.offset + sum(i * s for i, s in zip(at, place.strides)): at for at in itertools.product(*ranges)}


@settings(max_examples=300, deadline=None)
@given(reader=places(), writer=places(), data=st.data())
def test_what_is_read_lies_in_the_projected_box(reader, writer, data):
    low = [data.draw(st.integers(0, d - 1)) for d in reader.shape]
    high = [data.draw(st.integers(a, d - 1)) for a, d in zip(low, reader.shape)]
    box = Box(np.array(low).reshape(-1, 1), np.array(high).reshape(-1, 1))
    found, meets = project(box, reader, writer)
    read = addresses(reader, box)
    everything = Box(np.zeros_like(found.low), np.array(writer.shape).reshape(-1, 1) - 1)
    for address, at in addresses(writer, everything).items():
        if address in read:
            assert meets[0]
            assert all(a <= i <= b for a, i, b in zip(found.low[:, 0], at, found.high[:, 0]))


def box(*intervals):
    return Box(*(np.array(side).reshape(-1, 1) for side in zip(*intervals)))


@pytest.mark.parametrize(
    "reader,writer,given,expected",
    [
        # a head of [heads, rows, elements] is some columns of [rows, columns]
        (
            Place(BUFFER, (3, 8, 30), (30, 90, 1)),
            Place(BUFFER, (8, 90), (90, 1)),
            box((1, 1), (2, 5), (0, 29)),
            ((2, 5), (30, 59)),
        ),
        # part of a concatenation along the columns
        (Place(BUFFER, (8, 90), (90, 1)), Place(BUFFER, (8, 9), (90, 1), 50), box((1, 2), (30, 55)), ((1, 2), (0, 5))),
        (Place(BUFFER, (8, 90), (90, 1)), Place(BUFFER, (8, 9), (90, 1), 50), box((1, 2), (30, 49)), None),
        # merged axes
        (Place(BUFFER, (8, 90), (90, 1)), Place(BUFFER, (720,), (1,)), box((2, 3), (0, 89)), ((180, 359),)),
        (Place(BUFFER, (720,), (1,)), Place(BUFFER, (8, 90), (90, 1)), box((100, 150)), ((1, 1), (10, 60))),
        # even and odd elements
        (Place(BUFFER, (360,), (2,)), Place(BUFFER, (360,), (2,), 1), box((0, 359)), None),
    ],
)
def test_views_are_exact(reader, writer, given, expected):
    found, meets = project(given, reader, writer)
    assert bool(meets[0]) == (expected is not None)
    if expected is not None:
        assert tuple(zip(found.low[:, 0], found.high[:, 0])) == expected
