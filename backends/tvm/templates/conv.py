"""Convolution in channels-last layout: y[n, p, o] = sum of x[n, p stride + t dilation - pad, c] w[o, c, t].

Up to three spatial dimensions (fewer are seen as depth or height 1). The sum runs over (depth, height, width, channel)
with the micro-kernel of products: rows are output pixels, running on from line to line, columns are output channels in
packed panels [group][panel][taps][C / groups][NR]. Where windows may leave the image, or the input is computed by a
prologue, or pixels would evict each other from L1, a tile first copies the input that it reads to scratch, with zeros
around it: a hundredth of its arithmetic, and the inner loops need no tests. Otherwise the input is read in place.

A tile is `lines` x `columns` output pixels of one image and group x `panel_chunk` panels; images, lines and columns run
fastest, so that neighbouring tiles share weights.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import gcd, prod
from typing import Any

import numpy as np

from effcc.backends.tvm.templates import dots
from effcc.backends.tvm.templates.blocking import register_block
from effcc.backends.tvm.templates.emission import (
    BYTES,
    Cpu,
    Epilogue,
    Expr,
    Index,
    Read,
    bind,
    branch,
    cast,
    ceil_divide,
    constant,
    divide,
    flat,
    for_lanes,
    index,
    is_static,
    load,
    maximum,
    minimum,
    modulo,
    product,
    seen_as,
    store,
    unravel,
)
from effcc.backends.tvm.templates.micro_kernel import (
    Arithmetic,
    Steps,
    SumBlock,
    by_row_blocks,
    hand_over,
    hidden_zero,
    is_one_chain,
    multiply,
)
from effcc.ir.lazy import T

Triple = tuple[Index, Index, Index]
L1_WAYS, LINE_BYTES = 8, 64
COLUMNS = 64  # of a tile, when an image's width is symbolic or large


@dataclass(frozen=True)
class Window:
    """How output positions map to input positions: output * stride + tap * dilation - pad; depth, height, width."""

    kernel: tuple[int, int, int]
    strides: tuple[int, int, int]
    dilations: tuple[int, int, int]
    pads: tuple[int, int, int]  # before; what lies behind follows from the output's size

    @property
    def taps(self) -> int:
        return prod(self.kernel)

    def reach(self, axis: int, outputs: int) -> int:
        """Input positions that `outputs` consecutive outputs read along an axis."""
        return (outputs - 1) * self.strides[axis] + (self.kernel[axis] - 1) * self.dilations[axis] + 1


def window(
    kernel: tuple[int, ...], strides: tuple[int, ...], dilations: tuple[int, ...], pads: tuple[int, ...]
) -> Window:
    """The window over one to three spatial dimensions; `pads` begins with those before (those behind may follow)."""
    fill = 3 - len(kernel)
    ones, rank = (1,) * fill, len(kernel)
    return Window(
        (*ones, *kernel),
        (*ones, *strides),
        (*ones, *dilations),
        (*(0 for _ in ones), *pads[:rank]),  # type: ignore
    )


@dataclass(frozen=True)
class Tiling:
    """Output lines and columns of a tile, panels of a tile, the micro-kernel's rows and vectors; taps' depth and height
    one at a time with the sums waiting in scratch (`cut`), when a whole panel would not fit L2."""

    lines: int
    columns: int
    panel_chunk: int
    rows: int
    vectors: int
    cut: bool


@dataclass(frozen=True)
class Convolution:
    """A convolution to emit. Sizes are Python integers or int64 expressions; channels are integers.

    images, input, output   batch size; spatial extents, (depth, height, width)
    channels, features      of the input and the output, all groups
    x, w, sum               dtypes of input and weights as stored, and of the accumulators
    prologue                the input comes from `read_x`, evaluated about once for each element of a tile
    known                   the weights are packed ahead by `pack`: short numbers may take a layout of dots.py
    pad_value               what x is outside of the image
    """

    images: Index
    input: Triple
    output: Triple
    channels: int
    features: int
    window: Window
    cpu: Cpu
    groups: int = 1
    x: str = "float32"
    w: str = "float32"
    sum: str = "float32"
    prologue: bool = False
    known: bool = False
    pad_value: int = 0
    tiling: Tiling = field(default=None)  # type: ignore[assignment]

    def __post_init__(self) -> None:
        if self.tiling is None:
            object.__setattr__(self, "tiling", choose_tiling(self))

    @property
    def group_channels(self) -> int:
        return self.channels // self.groups

    @property
    def group_features(self) -> int:
        return self.features // self.groups

    @cached_property
    def lanes(self) -> int:
        """Lanes of a vector of features."""
        return self.cpu.lanes_over(self.sum, self.group_features)

    @cached_property
    def dots(self) -> dots.Dots | None:
        """The instruction that adds several products to a lane, if one does."""
        return dots.find(self.cpu, self.x, self.w, self.sum, self.lanes) if self.known else None

    @property
    def steps(self) -> int:
        """Iterations over a group's channels."""
        return -(-self.group_channels // self.dots.group) if self.dots else self.group_channels

    @property
    def width(self) -> int:
        return self.lanes * self.tiling.vectors

    @property
    def panels(self) -> int:
        return -(-self.group_features // self.width)

    @cached_property
    def stays_inside(self) -> bool:
        """Whether every window lies within the image."""
        if not is_static(*self.input, *self.output):
            return prod(self.window.kernel) == 1 and not any(self.window.pads)
        return not any(self.window.pads) and all(
            self.window.reach(axis, self.output[axis]) <= self.input[axis] for axis in range(3) if self.output[axis]
        )

    @cached_property
    def stages(self) -> bool:
        """Whether a tile copies its input to scratch."""
        if self.prologue or not self.stays_inside or (self.dots and not self.reads_words):
            return True
        stride_bytes = self.channels * self.window.strides[2] * BYTES[self.x]
        if stride_bytes % LINE_BYTES:
            return False
        sets = self.cpu.l1_bytes // L1_WAYS // LINE_BYTES
        return self.tiling.rows > L1_WAYS // 2 * (sets // gcd(sets, stride_bytes // LINE_BYTES))

    @property
    def reads_words(self) -> bool:
        """Whether the input in memory holds the words that `dots` reads."""
        return isinstance(self.dots, dots.PairDots) and self.group_channels % self.dots.group == 0

    @property
    def region(self) -> tuple[int, int, int]:
        """The extents of a tile's input."""
        return (
            self.window.kernel[0],
            self.window.reach(1, self.tiling.lines),
            self.window.reach(2, self.tiling.columns),
        )

    @property
    def pixel_stride(self) -> int:
        """Elements between staged pixels: as they come, or padded by one line where they would share cache sets."""
        channels, line = self.steps, LINE_BYTES // BYTES[self.sum]
        return channels + line if channels % (8 * line) == 0 else channels


def line_chunks(spec: Convolution) -> tuple[Index, Index]:
    """Tiles along height and width."""
    return ceil_divide(spec.output[1], spec.tiling.lines), ceil_divide(spec.output[2], spec.tiling.columns)


def _tile_extents(spec: Convolution) -> tuple[Index, ...]:
    chunks = -(-spec.panels // spec.tiling.panel_chunk)
    return (spec.groups, chunks, spec.images, spec.output[0], *line_chunks(spec))


def tiles(spec: Convolution) -> Index:
    """The number of tiles."""
    return product(_tile_extents(spec))


def scratch_bytes(spec: Convolution) -> int:
    """Bytes of scratch that a tile needs: sums, then the staged input."""
    return (_sums(spec) + (prod(spec.region) * spec.pixel_stride if spec.stages else 0)) * BYTES[spec.sum]


def _sums(spec: Convolution) -> int:
    rows = spec.tiling.lines * spec.tiling.columns if spec.tiling.cut else spec.tiling.rows
    return rows * spec.width


def packed_shape(spec: Convolution) -> tuple[int, ...]:
    """(groups, panels, kernel depth, height, width, C / groups, NR); for dots (groups, panels, prefix + steps, NR,
    group)."""
    if spec.dots:
        steps = spec.dots.prefix + spec.window.taps * spec.steps
        return spec.groups, spec.panels, steps, spec.width, spec.dots.group
    return (spec.groups, spec.panels, *spec.window.kernel, spec.group_channels, spec.width)


def pack(spec: Convolution, weights: np.ndarray) -> np.ndarray:
    """[O, C / groups, kernel...] -> packed_shape, the ragged last panel of each group filled with zeros."""
    if spec.dots:
        return _pack_words(spec, spec.dots, weights)
    groups, panels, *kernel, channels, width = packed_shape(spec)
    grouped = weights.reshape(groups, spec.group_features, channels, *kernel)
    padded = np.zeros((groups, panels * width, channels, *kernel), weights.dtype)
    padded[:, : spec.group_features] = grouped
    return np.ascontiguousarray(padded.reshape(groups, panels, width, channels, *kernel).transpose(0, 1, 4, 5, 6, 3, 2))


def _pack_words(spec: Convolution, dots: dots.Dots, weights: np.ndarray) -> np.ndarray:
    """One matrix [taps * channels, features] a group, the channels of each tap filled up to whole words."""
    channels = spec.steps * dots.group
    padded = np.zeros((spec.groups, spec.window.taps, channels, spec.group_features), weights.dtype)
    grouped = weights.reshape(spec.groups, spec.group_features, spec.group_channels, spec.window.taps)
    padded[:, :, : spec.group_channels] = grouped.transpose(0, 3, 2, 1)
    matrices = padded.reshape(spec.groups, spec.window.taps * channels, spec.group_features)
    return dots.pack(matrices, spec.width)


def _divisors(extent: int) -> list[int]:
    return [d for d in range(1, extent + 1) if extent % d == 0] or [1]


def choose_tiling(spec: Convolution) -> Tiling:
    """Tiles whose input takes at most a quarter of L2, whole lines where they fit, enough of them for the threads."""
    depth, height, width = spec.output
    size, cpu = BYTES[spec.sum], spec.cpu
    budget = cpu.l2_bytes // 4

    def staged(lines: int, columns: int) -> int:
        reach = spec.window.reach
        return spec.window.kernel[0] * reach(1, lines) * reach(2, columns) * spec.steps * size

    def fitting(sizes: list[int], fits: Any) -> int:
        return max((s for s in sizes if fits(s)), default=sizes[0])

    columns = COLUMNS
    if isinstance(width, int):
        columns = max(1, width)
        if staged(1, columns) > budget and columns > COLUMNS:
            columns = fitting([d for d in _divisors(columns) if d >= 8] or [COLUMNS], lambda c: staged(1, c) <= budget)
    lines = 1
    if isinstance(height, int) and isinstance(width, int):
        lines = fitting(_divisors(max(1, height)), lambda n: staged(n, columns) <= budget and n * columns <= 1024)
    images = spec.images if isinstance(spec.images, int) else 1
    outer = images * spec.groups * (depth if isinstance(depth, int) else 1)

    def blocks(lines: int) -> tuple[int, int, int]:
        runs_on = spec.window.kernel[2] == 1 and spec.window.strides[1:] == (1, 1) and columns == width
        line = None if runs_on else columns  # (None: the next line's pixels lie behind this one's)
        steps = spec.window.taps * spec.steps
        rows, vectors = register_block(lines * columns, spec.group_features, cpu, spec.lanes, line, steps)
        return rows, vectors, -(-spec.group_features // (spec.lanes * vectors))

    wanted = 4 * cpu.threads if cpu.threads > 1 else 1
    across = -(-width // columns) if isinstance(width, int) else 1
    while lines > 1 and outer * -(-height // lines) * across * blocks(lines)[2] < wanted:
        lines = fitting([n for n in _divisors(height) if n < lines], lambda n: n * columns >= 7)
        if lines * columns < 14:
            break
    rows, vectors, panels = blocks(lines)
    panel_bytes = spec.window.taps * spec.steps * spec.lanes * vectors * size
    cut = panel_bytes > cpu.l2_bytes // 2 and prod(spec.window.kernel[:2]) > 1
    spatial = outer * (-(-height // lines) if isinstance(height, int) else 1) * across
    most = max(1, (cpu.l2_bytes // 2) // max(1, panel_bytes))
    panel_chunk = max(1, min(most, panels, spatial * panels // wanted))
    return Tiling(lines, columns, panel_chunk, rows, vectors, cut)


def emit(
    spec: Convolution,
    tile: Expr,
    scratch: Expr,
    epilogue: Epilogue,
    x: Any = None,
    w: Any = None,
    read_x: Read | None = None,
    light: bool = False,
) -> None:
    """Emit the body of one tile into the current PrimFunc.

    tile      int32 expression in [0, tiles(spec))
    scratch   pointer to scratch_bytes(spec) bytes of this thread
    x, w      flat buffers: input [images, depth, height, width, channels], weights as `pack` leaves them
    read_x    (image, depth, height, width, channel), lanes -> vector along channels: instead of `x`, with spec.prologue
    epilogue  (image, depth, height, width, feature), value vector of `sum` along features, lanes: stores the result
    light     it takes a few instructions: sums go to it from registers, one copy of it for each
    """
    assert (read_x is not None) == spec.prologue and (x is None) == spec.prologue
    _Tile(spec, scratch, epilogue, x, w, read_x, light).emit(tile)


class _Tile:
    def __init__(
        self, spec: Convolution, scratch: Expr, epilogue: Epilogue, x: Any, w: Any, read_x: Read | None, light: bool
    ):
        self.spec, self.x, self.w, self.read_x, self.light = spec, x, w, read_x, light
        self.epilogue = epilogue if spec.groups == 1 else self.of_group(epilogue)
        self.scratch = flat(scratch, spec.sum)
        self.sums = SumBlock(self.scratch, spec.sum, spec.lanes, spec.tiling.vectors)
        self.arithmetic = spec.dots or Arithmetic(spec.sum, spec.lanes)
        self.staged = flat(scratch, "int32") if spec.dots else self.scratch
        by_words = spec.dots and spec.reads_words and x is not None
        self.source = seen_as(x, "int32") if by_words else x
        self.unit = spec.dots.group if by_words else 1

    def emit(self, tile: Expr) -> None:
        with self.spec.dots.definitions() if self.spec.dots else nullcontext():
            self.emit_tile(tile)

    def emit_tile(self, tile: Expr) -> None:
        self.sums = replace(self.sums, zero=hidden_zero(tile))
        spec, tiling = self.spec, self.spec.tiling
        extents = _tile_extents(spec)
        self.group, chunk, self.image, self.plane, line_chunk, column_chunk = unravel(index(tile), extents)
        self.line, self.column = bind(line_chunk * tiling.lines), bind(column_chunk * tiling.columns)
        self.lines = self.extent(spec.output[1], self.line, tiling.lines)
        self.columns = self.extent(spec.output[2], self.column, tiling.columns)
        self.pixels = bind(self.lines * self.columns)
        starts = (self.plane, self.line, self.column)
        window = spec.window
        self.origin = tuple(bind(s * window.strides[a] - window.pads[a]) for a, s in enumerate(starts))
        if spec.stages:
            self.stage()
        first = bind(chunk * tiling.panel_chunk)
        with T.serial(first, bind(minimum(first + tiling.panel_chunk, spec.panels))) as panel:
            self.panel = panel
            if tiling.cut:
                self.sums.begin(self.pixels, self.arithmetic, self.w, bind(self.packed_panel()))
                with T.serial(window.kernel[0]) as kd, T.serial(window.kernel[1]) as kh:
                    self.multiply(bind(index(kd)), bind(index(kh)))
                self.finish(T.int64(0), self.pixels)
            else:
                self.multiply(None, None)

    @staticmethod
    def extent(total: Index, start: Expr, chunk: int) -> Expr:
        """Of `total`, what a chunk from `start` has: a constant, by which LLVM divides fast, where all are equal."""
        even = isinstance(total, int) and total % chunk == 0
        return T.int64(chunk) if even else bind(minimum(index(total) - start, chunk))

    # -- where things are ---------------------------------------------------------------------------------------------

    def steps(self) -> tuple[list[Steps], tuple[Index, Index]]:
        """The loops over (kernel depth, height, width, channel), and the strides of an input pixel and line in A."""
        spec, window = self.spec, self.spec.window
        channels, width = spec.steps, spec.width * self.arithmetic.unit
        if spec.stages:
            pixel: Index = spec.pixel_stride
            line: Index = pixel * spec.region[2]
            plane: Index = line * spec.region[1]
            dilations = (1, window.dilations[1], window.dilations[2])  # planes are staged tap by tap
        else:
            pixel = spec.channels // self.unit
            line = product((pixel, spec.input[2]))
            plane = product((line, spec.input[1]))
            dilations = window.dilations
        across = channels * width
        kernel = window.kernel
        loops = [
            Steps(kernel[0], product((plane, dilations[0])), kernel[1] * kernel[2] * across),
            Steps(kernel[1], product((line, dilations[1])), kernel[2] * across),
        ]
        if dilations[2] == 1 and pixel == channels:
            loops.append(Steps(kernel[2] * channels, 1, width))
        else:
            loops += [Steps(kernel[2], pixel * dilations[2], across), Steps(channels, 1, width)]
        return loops, (pixel, line)

    def packed_panel(self) -> Expr:
        """Where the first step of the current panel lies."""
        spec = self.spec
        size = prod(packed_shape(spec)[2:])
        prefix = spec.dots.prefix * spec.width * spec.dots.group if spec.dots else 0
        return (self.group * spec.panels + self.panel) * size + prefix

    def row_offsets(self, row: Expr, count: int, start: Expr, pixel: Index, line: Index) -> list[Expr]:
        """Where the windows of the tile's output pixels row, row + 1... begin in A."""
        spec, strides = self.spec, self.spec.window.strides
        offsets: list[Expr] = []
        step = pixel * strides[2]
        runs_on = is_static(line) and line * strides[1] == self.spec.tiling.columns * step  # from line to line
        for i in range(count):
            if i and (self.in_lines or runs_on and self.whole_lines):
                offsets.append(bind(offsets[0] + i * step))
                continue
            at = bind(row + i)
            down, across = bind(divide(at, self.columns)), bind(modulo(at, self.columns))
            place = start + down * (index(line) * strides[1]) + across * (index(pixel) * strides[2])
            if not spec.stages:
                plane = index(line) * index(spec.input[1])
                image = plane * index(spec.input[0])
                place = place + self.image * image + self.origin[0] * plane + self.origin[1] * index(line)
                place = place + self.origin[2] * index(pixel) + self.group * spec.steps
            offsets.append(bind(place))
        return offsets

    # -- the work -----------------------------------------------------------------------------------------------------

    def multiply(self, kd: Expr | None, kh: Expr | None) -> None:
        """All the tile's pixels by the current panel; with (kd, kh), that line of taps only, added to the sums."""
        spec, tiling = self.spec, self.spec.tiling
        loops, (pixel, line) = self.steps()
        panel = self.packed_panel()
        start = T.int64(_sums(spec)) if spec.stages else T.int64(0)
        cut = kd is not None and kh is not None
        if cut:
            panel = panel + kd * loops[0].b + kh * loops[1].b
            start = start + kd * index(loops[0].a) + kh * index(loops[1].a)
            loops = loops[2:]
        panel, start = bind(panel), bind(start)
        even = spec.group_features % spec.width == 0
        direct = self.light and even and not cut and is_one_chain(self.sums, loops)

        def kernel(block: Expr, offset: Expr, count: int) -> None:
            first = bind(block + offset)
            offsets = self.row_offsets(first, count, start, pixel, line)
            source = self.staged if spec.stages else self.source
            row = block + offset if cut else offset
            give = self.giver(first, count) if direct else None
            multiply(self.sums, row, source, offsets, self.w, panel, loops, cut, self.arithmetic, give)

        def after(block: Expr, left: Expr) -> None:
            if not cut and not direct:
                self.finish(block, left)

        by_row_blocks(self.pixels, tiling.rows, self.exact_rest(), kernel, after)

    @property
    def whole_lines(self) -> bool:
        """Whether all tiles have the same number of columns."""
        _, _, width = self.spec.output
        return isinstance(width, int) and width % self.spec.tiling.columns == 0

    @property
    def in_lines(self) -> bool:
        """Whether a block of rows never goes on in the next line."""
        return self.whole_lines and self.spec.tiling.columns % self.spec.tiling.rows == 0

    def exact_rest(self) -> int | None:
        """The pixels that a tile's last block has, where all tiles are equal."""
        spec, tiling = self.spec, self.spec.tiling
        _, height, width = spec.output
        if not is_static(height, width) or height % tiling.lines or width % tiling.columns:
            return None
        return tiling.lines * tiling.columns % tiling.rows

    def finish(self, first: Expr, count: Index) -> None:
        """Hand the sums of pixels first, first + 1... to the epilogue."""
        column = bind(self.panel * self.spec.width)
        with T.serial(T.int64(0), index(count)) as i:
            (pixel,) = self.pixels_from(bind(first + i), 1)
            hand_over(self.sums, i, pixel, column, self.spec.group_features, self.epilogue)

    def giver(self, first: Expr, count: int) -> Callable[[int, int, Expr], None]:
        """What hands sums of pixels first, first + 1... to the epilogue."""
        column, lanes = bind(self.panel * self.spec.width), self.spec.lanes
        columns = [bind(column + v * lanes) for v in range(self.spec.tiling.vectors)]
        pixels = self.pixels_from(first, count)
        return lambda i, v, value: self.epilogue((*pixels[i], columns[v]), value, lanes)

    def pixels_from(self, first: Expr, count: int) -> list[tuple[Expr, ...]]:
        """The coordinates of the tile's output pixels first, first + 1..."""

        def pixel(at: Expr) -> tuple[Expr, ...]:
            down, across = divide(at, self.columns), modulo(at, self.columns)
            return (self.image, self.plane, bind(self.line + down), bind(self.column + across))

        if self.in_lines:
            *line, column = pixel(first)
            return [(*line, bind(column + i)) for i in range(count)]
        return [pixel(bind(first + i)) for i in range(count)]

    def of_group(self, epilogue: Epilogue) -> Epilogue:
        """An epilogue on features of all groups, for those of the current one."""

        def store(position: tuple[Expr, ...], value: Expr, lanes: int) -> None:
            *pixel, feature = position
            epilogue((*pixel, bind(self.group * self.spec.group_features + feature)), value, lanes)

        return store

    def stage(self) -> None:
        """Copy the tile's input to scratch, the pad value where it leaves the image."""
        spec, window = self.spec, self.spec.window
        depth, height, width = spec.region
        origin = self.origin
        pixel = spec.pixel_stride
        # the columns of the region that lie in the image
        last = bind(maximum(minimum(T.int64(width), index(spec.input[2]) - origin[2]), 0))
        begin = bind(minimum(maximum(T.int64(0) - origin[2], 0), last))
        with T.serial(T.int64(0), T.int64(depth)) as d, T.serial(T.int64(0), T.int64(height)) as h:
            line = bind(_sums(spec) + (d * height + h) * (width * pixel))
            plane, row = bind(origin[0] + d * window.dilations[0]), bind(origin[1] + h)
            inside = T.And(T.And(plane >= 0, plane < index(spec.input[0])), T.And(row >= 0, row < index(spec.input[1])))
            left, right = bind(T.Select(inside, begin, T.int64(0))), bind(T.Select(inside, last, T.int64(0)))
            self.zero(line, left)
            self.zero(bind(line + right * pixel), bind(T.int64(width) - right))
            with branch(left < right):
                self.copy_line(bind(line + left * pixel), plane, row, bind(origin[2] + left), bind(right - left))

    def zero(self, place: Expr, pixels: Expr) -> None:
        spec = self.spec
        nothing = spec.dots.word(spec.pad_value) if spec.dots else spec.pad_value
        dtype = "int32" if spec.dots else spec.sum

        def put(position: Expr, lanes: int) -> None:
            store(self.staged, constant(nothing, dtype, lanes), position, lanes)

        for_lanes(place, bind(pixels * spec.pixel_stride), spec.cpu.lanes(spec.sum), put)

    def copy_line(self, place: Expr, plane: Expr, row: Expr, column: Expr, pixels: Expr) -> None:
        """`pixels` consecutive pixels of the input to scratch."""
        spec, lanes = self.spec, self.spec.cpu.lanes(self.spec.sum)
        channel = bind(self.group * spec.group_channels)
        position = ((self.image * index(spec.input[0]) + plane) * index(spec.input[1]) + row) * index(spec.input[2])
        source = bind((position + column) * spec.channels + channel)
        channels = spec.channels // self.unit
        if self.source is not None and (not spec.dots or self.unit > 1) and spec.pixel_stride == channels:
            first = bind(divide(source, self.unit))

            def put(offset: Expr, count: int) -> None:
                value = load(self.source, first + offset, count)
                store(self.staged, value if spec.dots else cast(value, spec.sum, count), place + offset, count)

            for_lanes(T.int64(0), bind(pixels * channels), lanes, put)
            return
        with T.serial(T.int64(0), pixels) as pixel:
            target = bind(place + pixel * spec.pixel_stride)
            origin = bind(source + pixel * spec.channels)
            at = bind(column + pixel)

            def read(c: Expr, count: int) -> Expr:
                if self.read_x is not None:
                    return self.read_x((self.image, plane, row, at, bind(channel + c)), count)
                return load(self.x, origin + c, count)

            def put_channels(c: Expr, count: int) -> None:
                store(self.scratch, cast(read(c, count), spec.sum, count), target + c, count)

            if spec.dots:
                spec.dots.stage(self.staged, target, spec.group_channels, read)
            else:
                for_lanes(T.int64(0), spec.group_channels, lanes, put_channels)
