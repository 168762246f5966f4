"""Rounding with compensation: what rounding one row of a weight does to the products is made up for by those behind it.

GPTQ (Frantar et al. 2022, algorithm 1): with H = 2/n XᵀX over calibration inputs X and U the upper Cholesky factor of
H⁻¹, row k of w [K, N] is rounded, and its error over U[k, k] times U[k, k + 1:] is taken off the rows behind it.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np

from effcc.interp import run
from effcc.ir.graph import Graph, Node, Value
from effcc.ir.lazy import torch
from effcc.passes.weight_rounding import Grid, Rounded, nearest, scales_of

DAMPING = 0.01
"""What is added to the diagonal of H, as a part of its mean."""
BLOCK = 128
"""Rows whose errors reach the rows behind them together."""


def second_moments(graph: Graph, weights: Collection[Value], samples: Any) -> dict[Value, np.ndarray]:
    """2/n XᵀX, f64[K, K], of what calibration multiplies with each weight of a matmul."""
    sums: dict[Value, Any] = {}
    counts: dict[Value, int] = {}

    def observe(node: Node, operands: tuple[Any, ...], results: tuple[Any, ...]) -> None:
        if node.op.name != "matmul" or node.operands[1] not in weights:
            return
        x = operands[0].mT if node.op.transpose_a else operands[0]  # type: ignore[attr-defined]
        x, weight = x.reshape(-1, x.shape[-1]).float(), node.operands[1]
        sums[weight] = sums.get(weight, 0) + x.T @ x
        counts[weight] = counts.get(weight, 0) + len(x)

    with torch.no_grad():
        for inputs in samples.batches():
            run(graph, *inputs, observe=observe)
    return {v: (2 / max(1, counts[v]) * total).double().numpy() for v, total in sums.items()}


def round_compensated(w: np.ndarray, grid: Grid, moments: np.ndarray) -> Rounded:
    """w [K, N] on the grid; `moments` as `second_moments` gives them. A group's scales are chosen when its first row is
    reached, for what the rows before have made of it."""
    (depth, columns), group = w.shape, grid.group or len(w)
    upper = inverse_factor(moments)
    left = w.astype(np.float64)
    q = np.empty(w.shape, np.uint8 if grid.asymmetric else np.int8)
    scales, zeros = [], []
    scale = zero = np.zeros((1, columns), np.float32)
    for start in range(0, depth, BLOCK):
        stop = min(start + BLOCK, depth)
        errors = np.empty((stop - start, columns))
        for k in range(start, stop):
            if k % group == 0:
                scale, zero = scales_of(left[None, k : k + group].astype(np.float32), grid)
                scales.append(scale[0])
                zeros.append(zero[0] if grid.asymmetric else None)
            q[k] = nearest(left[k][None, None].astype(np.float32), scale, zero, grid)[0, 0]
            restored = (q[k] - (zero[0] if grid.asymmetric else 0.0)) * scale[0].astype(np.float64)
            errors[k - start] = (left[k] - restored) / upper[k, k]
            left[k + 1 : stop] -= np.outer(upper[k, k + 1 : stop], errors[k - start])
        left[stop:] -= upper[start:stop, stop:].T @ errors
    zero_points = np.stack(zeros).astype(np.uint8) if grid.asymmetric else None
    return Rounded(q, np.stack(scales).astype(grid.scales), zero_points, grid)


def inverse_factor(moments: np.ndarray) -> np.ndarray:
    """U, upper triangular, with UᵀU = H⁻¹; inputs that are always 0 count as if they were 1 now and then."""
    h = moments.copy()
    diagonal = np.einsum("ii->i", h)
    diagonal[diagonal == 0] = 1
    diagonal += DAMPING * diagonal.mean()
    return np.linalg.cholesky(np.linalg.inv(h)).T
