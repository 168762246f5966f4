"""2:4 sparsity: of each four neighbours along the contracted axis the two that matter most stay."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from effcc.analysis.weights import Moments, Weight
from effcc.ir import Graph
from effcc.ir.encodings import as_fours
from effcc.passes.pruning import Mask, Pruning, example_layers
from effcc.pipeline import Context

SCORES = ("auto", "magnitude", "wanda")


class TwoFour(Pruning):
    """w --> w where its score is among the two largest of its four neighbours along K, else 0

    score: "magnitude", |w|; "wanda", |w_kn| · ‖x_k‖, the norm over the calibration samples of what it is multiplied
    with; "auto": wanda where there is calibration data.
    """

    name = "two-four"
    source = "Mishra et al. 2021 (arXiv:2104.08378); Wanda: Sun et al. 2023 (arXiv:2306.11695)"
    choices = {**Pruning.choices, "score": SCORES}
    score: str = "auto"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.score not in SCORES:
            raise ValueError(f"score={self.score!r} is none of {', '.join(SCORES)}")

    def takes(self, w: Weight) -> str | None:
        k = w.blob.type.shape[w.contracted]
        return f"K = {k} is no multiple of 4" if k % 4 else None

    def masks(
        self, graph: Graph, chosen: Sequence[Weight], known: dict[Any, Moments], ctx: Context
    ) -> list[Mask | None]:
        return [self._mask(w, known, ctx) for w in chosen]

    def _mask(self, w: Weight, known: dict[Any, Moments], ctx: Context) -> Mask | None:
        scores = np.abs(w.array.astype(np.float64))
        if self.score == "wanda" and w.value not in known:
            ctx.refused(self.name, w.loc, "score=wanda needs calibration data (calibration=)")
            return None
        if self.score != "magnitude" and w.value in known:
            norm = np.sqrt(known[w.value].square)
            scores = np.where(scores != 0, scores * w.along_contracted(np.where(np.isfinite(norm), norm, 1.0)), -1.0)
        fours = as_fours(np.where(np.isnan(scores), np.inf, scores), w.contracted)
        rank = np.argsort(np.argsort(-fours, axis=2, kind="stable"), axis=2, kind="stable")
        return (rank < 2).reshape(w.array.shape)

    def example(self, d: Any, b: Any) -> Any:
        return example_layers(d, b)
