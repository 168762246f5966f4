"""Ranges of values on calibration data, and the affine quantization that they ask for.

Methods: "min-max" takes all that was seen; "percentile" leaves out the outermost values; "mse" clips where the mean
squared quantization error of the histogram is least (Krishnamoorthi 2018, section 3; Nagel et al. 2021, section 3.1).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from effcc.interp import as_tensor, run
from effcc.ir.graph import Graph, Node, Value
from effcc.ir.lazy import torch
from effcc.ir.types import DType

METHODS = ("min-max", "percentile", "mse")
BINS = 2048
CLIPS = np.linspace(0.2, 1.0, 81)
"""The parts of the whole range that "mse" tries."""
LEAST_SCALE = 2.0**-100
"""Scales of values that are all but zero stay normal numbers."""


@dataclass(frozen=True)
class Affine:
    """x is about (q - zero_point) · scale, for integers q of `dtype`. (Jacob et al. 2018, equation 1)"""

    scale: np.float32
    zero_point: int
    dtype: DType

    def rounded(self, x: Any) -> Any:
        """A torch tensor through the integers and back."""
        q = torch.round(x / float(self.scale)) + self.zero_point
        return (q.clamp(self.dtype.min, self.dtype.max) - self.zero_point) * float(self.scale)

    @staticmethod
    def over(low: float, high: float, dtype: DType, symmetric: bool | None = None) -> Affine:
        """The finest one that holds [low, high] and, exactly, 0. Signed ones are symmetric, from -(2^(b-1) - 1) on,
        unless told otherwise."""
        low, high = min(low, 0.0), max(high, 0.0)
        if dtype.kind == "i" if symmetric is None else symmetric:
            return Affine(np.float32(max(high, -low, dtype.max * LEAST_SCALE) / dtype.max), 0, dtype)
        steps = int(dtype.max - dtype.min)
        scale = np.float32(max(high - low, steps * LEAST_SCALE) / steps)
        return Affine(scale, int(np.clip(dtype.min - np.rint(low / scale), dtype.min, dtype.max)), dtype)


@dataclass
class Histogram:
    """Counts in equal bins over [low, high]."""

    low: float
    high: float
    counts: np.ndarray

    @property
    def centres(self) -> np.ndarray:
        edges = np.linspace(self.low, self.high, len(self.counts) + 1)
        return (edges[1:] + edges[:-1]) / 2

    def percentile(self, percent: float) -> tuple[float, float]:
        """The range that leaves (100 - percent)/2 percent of the values out at each end; 0 belongs to it."""
        part = np.cumsum(self.counts) / max(1, self.counts.sum())
        out = (1 - percent / 100) / 2
        centres = self.centres
        low = centres[min(np.searchsorted(part, out), len(centres) - 1)] if self.low < 0 else self.low
        high = centres[min(np.searchsorted(part, 1 - out), len(centres) - 1)] if self.high > 0 else self.high
        return float(low), float(high)

    def least_error(self, dtype: DType) -> tuple[float, float]:
        """The part of the range that `dtype` holds with the least mean squared error, clipping counted."""
        values, weights = torch.from_numpy(self.centres), torch.from_numpy(self.counts.astype(np.float64))

        def error(ends: tuple[float, float]) -> float:
            q = Affine.over(*ends, dtype).rounded(values)
            return float((weights * (q - values) ** 2).sum())

        low, high = min(((part * self.low, part * self.high) for part in reversed(CLIPS)), key=error)
        return float(low), float(high)


def ranges(
    graph: Graph,
    values: Collection[Value],
    batches: Iterable[tuple[Any, ...]],
    dtype: DType,
    method: str = "min-max",
    percent: float = 99.99,
) -> dict[Value, tuple[float, float]]:
    """[low, high] of each of `values` on the inputs in `batches`, which is gone through twice unless by "min-max".

    A range that is not finite tells of NaN or infinite values.
    """
    if method not in METHODS:
        raise ValueError(f"method {method!r} is none of {', '.join(METHODS)}")
    batches = list(batches)
    seen: dict[Value, tuple[float, float]] = {}

    def extend(v: Value, x: Any) -> None:
        low, high = (float(e) for e in torch.aminmax(x.float())) if x.numel() else (0.0, 0.0)
        a, b = seen.get(v, (0.0, 0.0))
        seen[v] = (_least(a, low), -_least(-b, -high))

    _watch(graph, values, batches, extend)
    if method == "min-max":
        return seen
    histograms = {
        v: Histogram(low, high, np.zeros(BINS, np.int64)) for v, (low, high) in seen.items() if low < high < np.inf
        and low > -np.inf
    }

    def count(v: Value, x: Any) -> None:
        h = histograms[v]
        h.counts += np.histogram(x.float().numpy(), BINS, (h.low, h.high))[0]

    _watch(graph, histograms, batches, count)
    for v, h in histograms.items():
        seen[v] = h.percentile(percent) if method == "percentile" else h.least_error(dtype)
    return seen


def _least(a: float, b: float) -> float:
    """The smaller one; NaN where either is."""
    return a if a != a or a < b else b


def _watch(graph: Graph, values: Collection[Value], batches: Iterable[tuple[Any, ...]], look: Any) -> None:
    """Call look(value, tensor) for each of `values` in each run."""

    def observe(node: Node, operands: tuple[Any, ...], results: tuple[Any, ...]) -> None:
        for v, x in zip(node.results, results, strict=True):
            if v in values:
                look(v, x)

    for inputs in batches:
        tensors = [*map(as_tensor, inputs)]
        for v, x in zip(graph.inputs, tensors, strict=True):
            if v in values:
                look(v, x)
        run(graph, *tensors, observe=observe)
