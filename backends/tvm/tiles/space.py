"""Tile spaces: which part of its results each tile of a kernel writes. Each template says it once, where it cuts.

A result's axes are grouped into cuts. A cut flattens its axes row-major and divides them into pieces of `step`
elements; a tile is one piece of each cut, and all of the axes that no cut names:

    matmul [M, N], tiles of 64 rows x 128 columns, rows fastest:
        TileSpace((M, N), (Cut((1,), 128), Cut((0,), 64)))
    softmax over the last axis of [B, H, L, L], 8 rows a tile:
        TileSpace((B, H, L, L), (Cut((0, 1, 2), 8),))
"""

from __future__ import annotations

from dataclasses import dataclass

from effcc.ir.dims import Dim, ceildiv, floordiv, product


@dataclass(frozen=True)
class Cut:
    """`axes` of the results' shape, flattened, in `parts` equal parts, each in pieces of `step` (its last one may be
    shorter)."""

    axes: tuple[int, ...]
    step: Dim = 1
    parts: int = 1


@dataclass(frozen=True)
class TileSpace:
    """How the index of a tile finds its elements: `cuts` are the digits of the index, slowest first.

    `shape` is that to which every result is broadcast.
    """

    shape: tuple[Dim, ...]
    cuts: tuple[Cut, ...]

    def extent(self, cut: Cut) -> Dim:
        """Elements along a cut."""
        return product(self.shape[a] for a in cut.axes)

    def count(self, cut: Cut) -> Dim:
        """Pieces of a cut."""
        extent = self.extent(cut)
        part = extent if cut.parts == 1 else floordiv(extent, cut.parts)
        return ceildiv(part, cut.step) * cut.parts

    @property
    def tiles(self) -> Dim:
        """
        >>> TileSpace((100, 300), (Cut((1,), 128), Cut((0,), 64))).tiles
        6
        """
        return product(self.count(cut) for cut in self.cuts)
