"""Boxes from one place of a buffer to another: which indices of a writer's place a reader's box falls on.

Two places see the same memory by other axes: [128, 768] is also [12, 128, 64] with strides 64, 768, 1. All the strides
of both, each of which divides the next greater one, make a number system: an address has one digit for each. A box
gives an interval for each digit, and the intervals of the digits between two strides of the writer bound its index
along that axis. An axis that is cut across digits keeps the upper one exact and takes all of the lower ones. Where
strides do not divide each other, the interval of addresses is all that is known.

The answer always contains the true one; it may contain more.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from effcc.backends.tvm.place import Place
from effcc.backends.tvm.tiles.regions import Box, whole

Array = np.ndarray[Any, Any]
Digits = dict[int, tuple[Array, Array]]
"""The interval of the digit of each unit"""


@dataclass(frozen=True)
class _Axis:
    """One axis of a place: its stride, made positive, its extent, and the digit that the place's offset gives it."""

    axis: int
    stride: int
    extent: int
    start: int
    flipped: bool


def project(box: Box, reader: Place, writer: Place) -> tuple[Box, Array]:
    """(the indices of `writer` at which the reader's box lies, [T] whether it meets the writer's place at all)."""
    if reader.shape == writer.shape and reader.offset == writer.offset and reader.strides == writer.strides:
        return box, np.ones(box.tiles, bool)
    everywhere = whole(writer.shape, box.tiles)  # type: ignore[arg-type]
    axes, theirs = _axes(writer), _axes(reader)
    if axes is None:
        return everywhere, np.ones(box.tiles, bool)
    units = sorted({a.stride for a in (*axes, *(theirs or ()))}, reverse=True)
    if theirs is None or any(high % low for high, low in pairwise(units)):
        digits, below = _split(*addresses(box, reader), [a.stride for a in axes])
    else:
        digits, below = _digits(box, reader, theirs, units)
    meets = _indices(digits, below, writer, axes, everywhere)
    return everywhere, meets


def _axes(place: Place) -> list[_Axis] | None:
    """The axes of a place by falling stride; None where two elements might share an address, or strides do not divide
    each other."""
    used = [(abs(s), d, k, s < 0) for k, (d, s) in enumerate(zip(place.shape, place.strides)) if d != 1 and s != 0]  # type: ignore
    first = _first(place)
    above, axes = None, []
    for stride, extent, axis, flipped in sorted(used, reverse=True):
        start = first // stride if above is None else first % above // stride
        if above is not None and (above % stride or start + extent > above // stride):
            return None
        axes.append(_Axis(axis, stride, extent, start, flipped))
        above = stride
    return axes


def _first(place: Place) -> int:
    """The least address of a place."""
    back: Any = sum(s * (d - 1) for d, s in zip(place.shape, place.strides) if s < 0)  # type: ignore[operator,misc]
    return place.offset + back  # type: ignore[return-value]


def _along(box: Box, a: _Axis) -> tuple[Array, Array]:
    """A box's interval along an axis of positive stride."""
    low, high = box.low[a.axis], box.high[a.axis]
    return (a.extent - 1 - high, a.extent - 1 - low) if a.flipped else (low, high)


def addresses(box: Box, place: Place) -> tuple[Array, Array]:
    """The least and the greatest address of each tile's box."""
    low = high = np.full(box.tiles, place.offset, np.int64)
    for axis, stride in enumerate(place.strides):
        a, b = box.low[axis] * stride, box.high[axis] * stride
        low, high = low + np.minimum(a, b), high + np.maximum(a, b)
    return low, high


def _split(low: Array, high: Array, units: list[int]) -> tuple[Digits, tuple[Array, Array]]:
    """Intervals of numbers as intervals of their digits in `units` (falling), and of what lies below the least unit."""
    digits = {}
    for unit in units:
        digits[unit] = first, last = low // unit, high // unit
        one = first == last
        low, high = np.where(one, low - first * unit, 0), np.where(one, high - first * unit, unit - 1)
    return digits, (low, high)


def _digits(box: Box, place: Place, axes: list[_Axis], units: list[int]) -> tuple[Digits, tuple[Array, Array]]:
    """The digits of a box's addresses, where the strides of its axes are among the units."""
    digits: Digits = {}
    above: int | None = None
    for a in axes:
        own = [u // a.stride for u in units if u >= a.stride and (above is None or u < above)]
        low, high = _along(box, a)
        found, _ = _split(low + a.start, high + a.start, own)
        digits.update({u * a.stride: interval for u, interval in found.items()})
        above = a.stride
    rest = np.full(box.tiles, _first(place) if above is None else _first(place) % above, np.int64)
    fine, below = _split(rest, rest, [u for u in units if above is None or u < above])
    return {**digits, **fine}, below


def _indices(digits: Digits, below: tuple[Array, Array], writer: Place, axes: list[_Axis], box: Box) -> Array:
    """Digits as indices along the writer's axes, written into `box`; [T] whether there are any."""
    meets = np.ones(box.tiles, bool)
    above, rest = None, _first(writer)
    for a in axes:
        units = [u for u in digits if u >= a.stride and (above is None or u < above)]
        mine = {u // a.stride: digits[u] for u in units}
        low = np.maximum(sum(u * first for u, (first, _) in mine.items()) - a.start, 0)
        high = np.minimum(sum(u * last for u, (_, last) in mine.items()) - a.start, a.extent - 1)
        meets = meets & (low <= high)
        box.low[a.axis], box.high[a.axis] = (a.extent - 1 - high, a.extent - 1 - low) if a.flipped else (low, high)
        above, rest = a.stride, rest % a.stride
    for unit in sorted(u for u in digits if above is None or u < above)[::-1]:  # there it has one digit only
        meets = meets & (digits[unit][0] <= rest // unit) & (rest // unit <= digits[unit][1])
        rest = rest % unit
    return meets & (below[0] <= rest) & (rest <= below[1])
