"""Windows that keep channels apart, channels last: depthwise convolution, max and average pooling.

    y[n, p, c] = fold over taps t of x[n, p * stride + t * dilation - pad, c // multiplier] (times w[t, c])

Taps that leave the image are left out by the bounds of the loops, never by tests: a line's bounds are the same for all
of its pixels, and only the pixels at its left and right ends have bounds of their own. Inner pixels go by fours, so
that neighbours share loads.

A tile is one output line of one image (and a part of its channels, where lines are few).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from effcc.backends.tvm import vector_math
from effcc.backends.tvm.templates.conv import Triple, Window
from effcc.backends.tvm.templates.emission import (
    Accumulators,
    Cpu,
    Epilogue,
    Expr,
    Index,
    Read,
    bind,
    cast,
    ceil_divide,
    constant,
    divide,
    dot,
    for_lanes,
    index,
    load,
    maximum,
    minimum,
    product,
    splat,
    unravel,
    wrapped,
)
from effcc.backends.tvm.templates.micro_kernel import by_row_blocks
from effcc.ir.lazy import T

PIXELS = 4
MOST_UNROLLED_TAPS = 8
LOWEST = {
    "float32": float("-inf"), "float64": float("-inf"),
    "int64": -(2**63), "int32": -(2**31), "int16": -(2**15), "int8": -128, "uint8": 0,
}  # fmt: skip


@dataclass(frozen=True)
class WindowFold:
    """What to emit. Sizes are Python integers or int64 expressions.

    kind            "depthwise", "max" (NaN wins) or "average"
    images, input, output, window   as for a convolution; `channels` counts the output's
    multiplier      depthwise: output channels for each input channel
    pads_after      average that counts its pads: how far windows may reach beyond the end
    count_pads      average: whether pads are counted
    x, w, sum       dtypes of the input and the weights as stored, and of the sums
    result          dtype of what the epilogue is handed, if not `sum`: float32 sums integers where that is exact
    pad_value       depthwise: what x is outside of the image; the weights then carry what that adds (see `pack`)
    """

    kind: str
    images: Index
    input: Triple
    output: Triple
    channels: Index
    window: Window
    cpu: Cpu
    multiplier: int = 1
    pads_after: tuple[int, int, int] = (0, 0, 0)
    count_pads: bool = False
    x: str = "float32"
    w: str = "float32"
    sum: str = "float32"
    result: str = ""
    pad_value: int = 0

    @property
    def lanes(self) -> int:
        return self.cpu.lanes(self.sum)

    @cached_property
    def channel_chunk(self) -> Index:
        """Channels of a tile: all, or whole vectors of them where there are too few lines for the threads."""
        counts = (self.images, *self.output[:2])
        if not all(isinstance(n, int) for n in (*counts, self.channels)):
            return self.channels
        lines, wanted = product(counts), 4 * self.cpu.threads if self.cpu.threads > 1 else 1
        if lines >= wanted:
            return self.channels
        vectors = -(-self.channels // self.lanes)
        parts = min(vectors, -(-wanted // max(1, lines)))
        return min(self.channels, -(-vectors // max(1, parts)) * self.lanes)

    @property
    def channel_chunks(self) -> Index:
        chunk = self.channel_chunk
        return ceil_divide(self.channels, max(1, chunk)) if isinstance(chunk, int) else 1


def tiles(spec: WindowFold) -> Index:
    """The number of tiles; they need no scratch."""
    if isinstance(spec.channels, int) and spec.channels == 0:
        return 0
    return product((spec.images, *spec.output[:2], spec.channel_chunks))


def pack(weights: np.ndarray) -> np.ndarray:
    """Depthwise weights [O, 1, kernel...] -> [kernel..., O]."""
    return np.ascontiguousarray(np.moveaxis(weights[:, 0], 0, -1))


def pack_integers(weights: np.ndarray, pad_value: int) -> np.ndarray:
    """Weights of bytes as f32 [taps + 1, O]: behind the taps what sums begin with, so that taps inside the image add
    (x - pad_value) w and those outside nothing."""
    taps = pack(weights).reshape(-1, len(weights)).astype(np.float32)
    return np.concatenate([taps, pad_value * taps.sum(0, keepdims=True)])


def exact_in_f32(taps: int) -> bool:
    """Whether sums of so many products of bytes, their pad value taken off, are whole numbers that f32 holds."""
    return taps * 255 * 128 <= 2**24


def emit(
    spec: WindowFold, tile: Expr, epilogue: Epilogue, x: Any = None, w: Any = None, read_x: Read | None = None
) -> None:
    """Emit the body of one tile into the current PrimFunc.

    tile      int32 expression in [0, tiles(spec))
    x, w      flat buffers: input [images, depth, height, width, input channels], weights as `pack` leaves them
    read_x    (image, depth, height, width, channel), lanes -> vector of `sum` along channels: instead of `x`;
              evaluated once for each tap
    epilogue  (image, depth, height, width, channel), value vector of `sum` along channels, lanes: stores the result
    """
    assert (read_x is None) != (x is None) and (w is None) == (spec.kind != "depthwise")
    _Tile(spec, epilogue, x, w, read_x).emit(tile)


class _Tile:
    def __init__(self, spec: WindowFold, epilogue: Epilogue, x: Any, w: Any, read_x: Read | None):
        self.spec, self.epilogue, self.x, self.w, self.read_x = spec, epilogue, x, w, read_x

    def emit(self, tile: Expr) -> None:
        spec, window = self.spec, self.spec.window
        extents = (spec.images, *spec.output[:2], spec.channel_chunks)
        self.image, self.plane, self.line, chunk = unravel(index(tile), extents)
        self.channel = bind(chunk * index(spec.channel_chunk))
        ragged = not isinstance(spec.channels, int) or spec.channels % max(1, int(spec.channel_chunk))
        left = index(spec.channels) - self.channel
        self.channel_count = bind(minimum(left, spec.channel_chunk)) if ragged else spec.channel_chunk
        self.taps = [self.tap_range(0, self.plane), self.tap_range(1, self.line)]
        self.first_inner, self.last_inner = self.inner_columns()

        def block(first: Expr, offset: Expr, pixels: int) -> None:
            column = bind(self.first_inner + first + offset)
            self.pixels(column, pixels, (T.int64(0), T.int64(window.kernel[2])))

        by_row_blocks(bind(self.last_inner - self.first_inner), PIXELS, None, block, lambda first, left: None)
        ends = bind(index(spec.output[2]) - (self.last_inner - self.first_inner))
        with T.serial(T.int64(0), ends) as i:
            after = self.last_inner + (i - self.first_inner)
            column = bind(T.Select(i < self.first_inner, i, after))
            self.pixels(column, 1, self.tap_range(2, column))

    def tap_range(self, axis: int, position: Expr) -> tuple[Expr, Expr]:
        """The taps of output `position` that fall into the image, [first, last)."""
        window, extent = self.spec.window, self.spec.input[axis]
        start = bind(position * window.strides[axis] - window.pads[axis])
        dilation = window.dilations[axis]
        first = bind(divide(maximum(T.int64(0) - start, 0) + (dilation - 1), dilation))
        last = divide(maximum(index(extent) - start, 0) + (dilation - 1), dilation)
        last = bind(maximum(minimum(last, window.kernel[axis]), first))
        return first, last

    def inner_columns(self) -> tuple[Expr, Expr]:
        """The columns [first, last) whose taps all fall into the image."""
        spec, window = self.spec, self.spec.window
        stride, pad = window.strides[2], window.pads[2]
        width = index(spec.output[2])
        room = index(spec.input[2]) + (pad - (window.kernel[2] - 1) * window.dilations[2] - 1)
        last = bind(minimum(divide(maximum(room + stride, 0), stride), width))
        first = bind(minimum(T.int64(-(-pad // stride)), last))
        return first, last

    def pixels(self, column: Expr, pixels: int, across: tuple[Expr, Expr]) -> None:
        """`pixels` consecutive output pixels of the line from `column` on, all channels of the tile."""
        spec, window = self.spec, self.spec.window
        origin = [bind((column + i) * window.strides[2] - window.pads[2]) for i in range(pixels)]

        def channels(channel: Expr, lanes: int) -> None:
            sums = Accumulators(1, pixels, spec.sum, lanes)
            if spec.pad_value:
                initial = bind(load(self.w, spec.window.taps * index(spec.channels) + channel, lanes))
                for i in range(pixels):
                    sums[0, i] = initial
            else:
                sums.fill(LOWEST[spec.sum] if spec.kind == "max" else 0)
            self.fold(sums, bind(channel), lanes, origin, across)
            for i in range(pixels):
                position = (self.image, self.plane, self.line, bind(column + i), channel)
                value = sums[0, i]
                if spec.kind == "average":
                    value = self.average(value, lanes, position[3], across)
                self.epilogue(position, bind(cast(value, spec.result or spec.sum, lanes)), lanes)

        lanes = 1 if spec.multiplier > 1 and self.read_x is not None else spec.lanes
        for_lanes(self.channel, self.channel_count, lanes, channels)

    def fold(
        self, sums: Accumulators, channel: Expr, lanes: int, origin: list[Expr], across: tuple[Expr, Expr]
    ) -> None:
        spec, window = self.spec, self.spec.window
        _, height, width = window.kernel

        def tap(plane: Expr, row: Expr, weights: Expr, kw: Index) -> None:
            weight = None
            if self.w is not None:
                place = (weights + index(kw)) * index(spec.channels) + channel
                weight = bind(cast(load(self.w, place, lanes), spec.sum, lanes))
            for i, start in enumerate(origin):
                x = self.read((self.image, plane, row, start + index(kw) * window.dilations[2]), channel, lanes)
                sums[0, i] = self.combine(sums[0, i], x, weight, lanes)

        (first_d, last_d), (first_h, last_h) = self.taps
        with T.serial(first_d, last_d) as kd, T.serial(first_h, last_h) as kh:
            plane = bind(self.plane * window.strides[0] - window.pads[0] + kd * window.dilations[0])
            row = bind(self.line * window.strides[1] - window.pads[1] + kh * window.dilations[1])
            weights = bind((kd * height + kh) * width)
            if len(origin) > 1 and width <= MOST_UNROLLED_TAPS:
                for kw in range(width):
                    tap(plane, row, weights, kw)
            else:
                with T.serial(*across) as kw:
                    tap(plane, row, weights, kw)

    def combine(self, total: Expr, x: Expr, weight: Expr | None, lanes: int) -> Expr:
        if self.spec.kind == "max":
            x = bind(x)
            if not self.spec.sum.startswith("float"):
                return T.max(total, x)
            return T.Select(T.Or(x > total, vector_math.isnan(bind, x)), x, total)
        if self.spec.pad_value:
            x = x - constant(self.spec.pad_value, self.spec.sum, lanes)
        return wrapped("add", total, x if weight is None else wrapped("mul", x, weight))

    def read(self, pixel: tuple[Expr, ...], channel: Expr, lanes: int) -> Expr:
        """The input at a pixel, for output channels channel, channel + 1..."""
        spec, multiplier = self.spec, self.spec.multiplier
        if self.read_x is not None:
            source = channel if multiplier == 1 else bind(divide(channel, multiplier))
            return cast(self.read_x((*map(bind, pixel), source), lanes), spec.sum, lanes)
        inputs = divide(spec.channels, multiplier)
        _, height, width = spec.input
        line = product((width, inputs))
        plane = product((height, line))
        place = dot(pixel, (product((spec.input[0], plane)), plane, line, inputs))
        if multiplier == 1:
            return cast(load(self.x, bind(place + channel), lanes), spec.sum, lanes)
        if lanes == 1:
            return cast(load(self.x, bind(place + divide(channel, multiplier))), spec.sum, 1)
        each = [load(self.x, place + divide(channel + lane, multiplier)) for lane in range(lanes)]
        return cast(T.Shuffle(each, list(range(lanes))), spec.sum, lanes)

    def average(self, total: Expr, lanes: int, column: Expr, across: tuple[Expr, Expr]) -> Expr:
        spec, window = self.spec, self.spec.window
        count = T.int64(1)
        positions = (self.plane, self.line, column)
        for axis, (first, last) in enumerate((*self.taps, across)):
            taps = last - first
            if spec.count_pads:
                start = positions[axis] * window.strides[axis] - window.pads[axis]
                room = index(spec.input[axis]) + spec.pads_after[axis] - start
                taps = minimum(divide(room + (window.dilations[axis] - 1), window.dilations[axis]), window.kernel[axis])
            count = count * taps
        divisor = splat(T.Cast(spec.sum, count), lanes)
        return total / divisor
