"""What a matrix with zeros could be stored as, and what a kernel that skips the zeros would cost beside a dense one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from effcc.ir.encodings import as_blocks

HEIGHTS, WIDTHS = (32, 16, 8, 4, 2, 1), (32, 16, 8)
"""Sizes along K and N of the blocks that are looked for."""
ROWS = 16
"""Rows of A that a kernel multiplies a block with at once, about."""
BLOCK_CYCLES = 4.0
"""What a block costs beside its products: its place is read, and the loop goes on."""
NARROW = 1.1
"""A kernel for blocks reads A more often than one with wide panels."""
SAMPLE = 1 << 12
"""Elements that are looked at before a whole weight is."""


@dataclass(frozen=True)
class Blocks:
    """block: sizes along (K, N). kept: the part of the blocks that hold something. cost: modelled time beside dense."""

    block: tuple[int, int]
    kept: float
    cost: float


def zeros(array: np.ndarray[Any, Any]) -> float:
    """The part of the elements that are zero, by a sample of them."""
    flat = array.reshape(-1)
    some = flat[:: max(1, flat.size // SAMPLE)]
    return 1.0 - np.count_nonzero(some) / max(1, some.size)


def best_blocks(matrix: np.ndarray[Any, Any], lanes: int) -> Blocks:
    """The blocks of [K, N] by which a kernel of `lanes`-wide vectors would take least time.

    Vectors lie along N: blocks narrower than one share it, and are computed where any of them is kept.
    """
    full = matrix != 0
    found = []
    for width in WIDTHS:
        for height in HEIGHTS:
            kept = float(as_blocks(full, (height, width)).any(axis=(2, 3)).mean()) if full.size else 1.0
            wide = max(width, lanes)
            computed = kept if wide == width else float(as_blocks(full, (height, wide)).any(axis=(2, 3)).mean())
            cost = NARROW * computed * (1.0 + BLOCK_CYCLES / (height * ROWS * wide / lanes))
            found.append(Blocks((height, width), kept, cost))
    return min(found, key=lambda b: (round(b.cost, 2), b.kept, -b.block[0] * b.block[1]))
