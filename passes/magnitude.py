"""Magnitude pruning: the smallest elements of weights become zero."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from effcc.analysis.weights import Moments, Weight
from effcc.ir import Graph
from effcc.passes.pruning import SCOPES, Mask, Pruning, check_density, example_layers, largest
from effcc.pipeline import Context, Range


class Magnitude(Pruning):
    """w --> w where |w| is among the largest ⌈density · size⌉, else 0

    density: the part that stays. scope: "local" (that part of each weight) or "global" (of all weights together, so
    that layers of large weights keep more).
    """

    name = "magnitude"
    contract = "approximate; exact when density=1.0; idempotent"
    source = "Zhu and Gupta 2017, To prune, or not to prune (arXiv:1710.01878)"
    searchable = {"density": Range(1.0, 0.0, 0.05)}
    choices = {**Pruning.choices, "scope": SCOPES}
    density: float = 0.5
    scope: str = "local"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_density(self.density, self.scope)

    def masks(
        self, graph: Graph, chosen: Sequence[Weight], known: dict[Any, Moments], ctx: Context
    ) -> list[Mask | None]:
        scores = [np.abs(w.array.astype(np.float64)) for w in chosen]
        return list(largest(scores, self.density, self.scope))

    def example(self, d: Any, b: Any) -> Any:
        return example_layers(d, b)
