"""Block pruning: whole blocks of weight matrices become zero, which a kernel can skip."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from effcc.analysis.weights import Moments, Weight, gradients
from effcc.ir import Graph
from effcc.ir.encodings import as_blocks
from effcc.passes.pruning import SCOPES, Mask, Pruning, check_density, example_layers, largest
from effcc.pipeline import Context, Range

SCORES = ("auto", "magnitude", "saliency")
LARGEST_BLOCK = 32


class BlockSparse(Pruning):
    """w --> w in the ⌈density · blocks⌉ blocks of the largest score, else 0

    block: "rows x columns" of the matrix [K, N], at most 32x32, such as 16x16 or 1x32. score: "magnitude", Σ|w|;
    "saliency", mean |w · g| with g the gradient of the mean square of the outputs over the calibration samples (first
    order, no labels); "auto": saliency where there is calibration data. scope: of each weight, or of all together.
    """

    name = "block-sparse"
    contract = "approximate; exact when density=1.0; idempotent"
    source = "Xu et al. 2024, LPViT (arXiv:2407.02068)"
    searchable = {"density": Range(1.0, 0.0, 0.05)}
    choices = {
        **Pruning.choices, "block": ("16x16", "4x1", "1x32", "3x5"), "score": SCORES, "scope": SCOPES,
    }  # fmt: skip
    density: float = 0.5
    block: str = "16x16"
    score: str = "auto"
    scope: str = "local"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_density(self.density, self.scope)
        if self.score not in SCORES:
            raise ValueError(f"score={self.score!r} is none of {', '.join(SCORES)}")
        _ = self.sizes

    @property
    def sizes(self) -> tuple[int, int]:
        """(rows, columns) of a block. Raises ValueError where `block` says none."""
        parts = self.block.split("x")
        if len(parts) != 2 or not all(p.isdigit() and 1 <= int(p) <= LARGEST_BLOCK for p in parts):
            raise ValueError(f"block={self.block!r} is not two sizes from 1 to {LARGEST_BLOCK}, such as 16x16")
        return int(parts[0]), int(parts[1])

    def takes(self, w: Weight) -> str | None:
        return None if w.is_matrix else "it is no matrix: blocks are of [K, N]"

    def masks(
        self, graph: Graph, chosen: Sequence[Weight], known: dict[Any, Moments], ctx: Context
    ) -> list[Mask | None]:
        if self.score == "saliency" and ctx.calibration is None:
            for w in chosen:
                ctx.refused(self.name, w.loc, "score=saliency needs calibration data (calibration=)")
            return [None] * len(chosen)
        elements = [np.abs(w.array.astype(np.float64)) for w in chosen]
        if self.score != "magnitude" and ctx.calibration is not None:
            salient = self._saliency(graph, chosen, ctx)
            if not any(e.any() for e in salient):
                ctx.refused(f"{self.name} saliency", chosen[0].loc, "no result has a gradient: magnitudes decide")
            else:
                elements = salient
        blocks = [as_blocks(w.as_matrix(e), self.sizes).sum((2, 3)) for w, e in zip(chosen, elements, strict=True)]
        held = [as_blocks(w.as_matrix(w.array), self.sizes).any(axis=(2, 3)) for w in chosen]
        ranked = [np.where(h, s, -1.0) for h, s in zip(held, blocks, strict=True)]
        kept = largest(ranked, self.density, self.scope)
        return [w.from_matrix(self._spread(k, w)) for w, k in zip(chosen, kept, strict=True)]

    def _saliency(self, graph: Graph, chosen: Sequence[Weight], ctx: Context) -> list[np.ndarray[Any, Any]]:
        """The mean over batches of |w · g|, for each weight."""
        ctx.progress(f"{self.name}: gradients of {len(chosen)} weights")
        total = [np.zeros(w.array.shape) for w in chosen]
        for found in gradients(graph, chosen, ctx.calibration):
            for t, w in zip(total, chosen, strict=True):
                t += np.abs(w.array.astype(np.float64) * found[w.value])
        return total

    def _spread(self, kept: np.ndarray[Any, Any], w: Weight) -> np.ndarray[Any, Any]:
        """A mask of blocks as one of [K, N]."""
        rows, columns = w.as_matrix(w.array).shape
        return np.repeat(np.repeat(kept, self.sizes[0], 0), self.sizes[1], 1)[:rows, :columns]

    def example(self, d: Any, b: Any) -> Any:
        return example_layers(d, b)
