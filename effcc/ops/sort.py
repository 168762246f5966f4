"""Ordering and selection: algorithms, for which each backend has routines; they have no loop nest.

NaN is greater than every number, as in torch and NumPy. Sizes that depend on the data are symbols that the op defines.
"""

from __future__ import annotations

import math
from typing import Any

from effcc.ir.assumptions import may_equal, may_fit
from effcc.ir.dims import Dim, Symbol, dim_min, product
from effcc.ir.domain import FINITE, NUMBER
from effcc.ir.lazy import torch
from effcc.ir.op import Op, require, tensor
from effcc.ir.types import Tensor, Type, f32, i64


class Ordering(Op):
    family = "sort"
    routine = True

    def checked(self, x: Type) -> Tensor:
        t, axis = tensor(x), self.axis  # type: ignore[attr-defined]
        require(0 <= axis < t.rank, f"axis {axis} is not an axis of a rank-{t.rank} tensor")
        return t


def comparisons(x: Tensor, axis: int, kept: Dim) -> Dim:
    """About how many comparisons it takes to keep `kept` of each row in order."""
    most = kept if isinstance(kept, int) else 4096
    return x.size * max(1, math.ceil(math.log2(max(most, 2))))


class Sort(Ordering):
    """Values in order along `axis` and where each was: (values, indices i64). `stable` keeps equal values in their
    order (also when descending); otherwise their order is the backend's. (torch.sort)"""
    name = "sort"
    num_results = 2
    axis: int
    descending: bool = False
    stable: bool = True

    def infer(self, x: Type) -> tuple[Tensor, Tensor]:
        t = self.checked(x)
        return t, Tensor(i64, t.shape)

    def reference(self, x: Any) -> Any:
        return tuple(torch.sort(x, dim=self.axis, descending=self.descending, stable=True))

    def flops(self, x: Tensor) -> Dim:
        return comparisons(x, self.axis, x.shape[self.axis])


class Argsort(Ordering):
    """Where each value of the sorted order was: i64. (torch.argsort)"""
    name = "argsort"
    routine = False
    axis: int
    descending: bool = False
    stable: bool = True

    def infer(self, x: Type) -> Tensor:
        return Tensor(i64, self.checked(x).shape)

    def reference(self, x: Any) -> Any:
        return torch.sort(x, dim=self.axis, descending=self.descending, stable=True)[1]

    def decompose(self, b: Any, x: Any) -> Any:
        return b.sort(x, axis=self.axis, descending=self.descending, stable=self.stable)[1]


class TopK(Ordering):
    """The k greatest (or least) along `axis` and where they are: (values, indices i64), in order where `sorted`. Of
    equal values those with lower indices. (ONNX TopK, torch.topk)"""
    name = "topk"
    num_results = 2
    k: Dim
    axis: int
    largest: bool = True
    sorted: bool = True

    def infer(self, x: Type) -> tuple[Tensor, Tensor]:
        t = self.checked(x)
        size = t.shape[self.axis]
        require(not isinstance(self.k, int) or self.k >= 0, f"k is {self.k}")
        require(
            may_fit(self.k, size),
            f"k is {self.k}, axis {self.axis} has size {size}",
        )
        shape = tuple(self.k if a == self.axis else d for a, d in enumerate(t.shape))
        return t.with_shape(shape), Tensor(i64, shape)

    def reference(self, x: Any) -> Any:
        values, where = torch.sort(x, dim=self.axis, descending=self.largest, stable=True)
        return values.narrow(self.axis, 0, self.k), where.narrow(self.axis, 0, self.k)

    def flops(self, x: Tensor) -> Dim:
        return comparisons(x, self.axis, self.k)


class Unique(Op):
    """The distinct elements (or, along `axis`, slices), the index of each one's first occurrence, for each element
    (slice) which one it is, and how often each occurs: (values, first i64[size], inverse i64, counts i64[size]).
    `sorted`: in ascending order, slices lexicographically; else in order of first occurrence. Without an axis the
    elements are taken in row-major order and `inverse` has rank 1. Each NaN is distinct, and comes after all numbers;
    of slices that agree up to a NaN the one that occurs first comes first. (ONNX Unique)"""
    name = "unique"
    family = "sort"
    routine = True
    num_results = 4
    size: Symbol
    axis: int | None = None
    sorted: bool = True

    def infer(self, x: Type) -> tuple[Tensor, ...]:
        t = tensor(x)
        if self.axis is None:
            values, count = t.with_shape((self.size,)), t.size
        else:
            require(0 <= self.axis < t.rank, f"axis {self.axis} is not an axis of a rank-{t.rank} tensor")
            values = t.with_shape(tuple(self.size if k == self.axis else d for k, d in enumerate(t.shape)))
            count = t.shape[self.axis]
        each = Tensor(i64, (self.size,))
        return values, each, Tensor(i64, (count,)), each

    def defines(self, x: Tensor) -> dict[Symbol, Dim]:
        return {self.size: x.size if self.axis is None else x.shape[self.axis]}

    def reference(self, x: Any) -> Any:
        import numpy as np

        axis = 0 if self.axis is None else self.axis
        rows = x.reshape(-1) if self.axis is None else x
        n = rows.shape[axis]
        if x.numel() == 0:
            distinct = min(n, 1)  # slices without elements are all equal
            each = torch.zeros(distinct, dtype=torch.int64)
            return rows.narrow(axis, 0, distinct).clone(), each, torch.zeros(n, dtype=torch.int64), each + n
        if x.is_floating_point() and x.element_size() < 4:
            values, first, inverse, counts = self.reference(x.float())
            return values.to(x.dtype), first, inverse, counts
        table = rows.movedim(axis, 0).reshape(n, -1)
        if x.is_floating_point():
            after = table.isnan().cumsum(1) - table.isnan().long() > 0
            table = torch.where(after, 0, table)
        order = torch.from_numpy(np.lexsort(table.numpy().T[::-1]))
        differs = (table[order][1:] != table[order][:-1]).any(1)
        inverse = torch.cat([torch.zeros(1, dtype=torch.int64), differs.cumsum(0)])[torch.argsort(order)]
        counts = torch.bincount(inverse)
        first = torch.full_like(counts, n).scatter_reduce(0, inverse, torch.arange(n), "amin")
        if not self.sorted:
            order = torch.argsort(first)
            first, counts, inverse = first[order], counts[order], torch.argsort(order)[inverse]
        return rows.index_select(axis, first), first, inverse, counts

    def flops(self, x: Tensor) -> Dim:
        return comparisons(x, 0, x.size)


class Nms(Op):
    """Non-maximum suppression: for each batch and class, boxes by descending score, each kept unless it overlaps one
    that is kept already by more than `iou_threshold`, at most `max_output` of them: i64[size, 3] of (batch, class,
    box).

    boxes f32[batch, n, 4]: two opposite corners (y1, x1, y2, x2), or (x center, y center, width, height) where
    `center_point_box`; scores f32[batch, classes, n], of which only those greater than `score_threshold` (None: all)
    count. (ONNX NonMaxSuppression; Viola & Jones's greedy merging as in Felzenszwalb et al. 2010)
    """
    name = "nms"
    family = "sort"
    routine = True
    operands = ("boxes", "scores")
    widens = False
    undefined = "scores that are NaN, corners that are infinite"
    domains = {"boxes": FINITE, "scores": NUMBER}
    size: Symbol
    max_output: int = 0
    iou_threshold: float = 0.0
    score_threshold: float | None = None
    center_point_box: bool = False

    def infer(self, boxes: Type, scores: Type) -> Tensor:
        b, c = tensor(boxes), tensor(scores)
        require(b.dtype == c.dtype == f32, f"boxes and scores are {b.dtype} and {c.dtype}, not f32", "insert a cast")
        require(
            b.rank == c.rank == 3 and b.shape[2] == 4,
            f"boxes {b} and scores {c} should have shapes [batch, n, 4] and [batch, classes, n]",
        )
        for d, e in ((b.shape[0], c.shape[0]), (b.shape[1], c.shape[2])):
            require(
                may_equal(d, e), f"boxes {b} and scores {c} differ in size"
            )
        require(0 <= self.iou_threshold <= 1, f"the IoU threshold is {self.iou_threshold}, not between 0 and 1")
        return Tensor(i64, (self.size, 3))

    def defines(self, boxes: Tensor, scores: Tensor) -> dict[Symbol, Dim]:
        kept = dim_min(max(self.max_output, 0), boxes.shape[1])
        return {self.size: product((*scores.shape[:2], kept))}

    def reference(self, boxes: Any, scores: Any) -> Any:
        low, high = corners(boxes, self.center_point_box)
        kept: list[tuple[int, int, int]] = []
        for batch in range(scores.shape[0]):
            sizes = (high[batch] - low[batch]).prod(-1)
            for cls in range(scores.shape[1]):
                order = torch.sort(scores[batch, cls], descending=True, stable=True)[1]
                if self.score_threshold is not None:
                    order = order[scores[batch, cls][order] > self.score_threshold]
                chosen: list[int] = []
                while len(order) and len(chosen) < self.max_output:
                    best, order = order[0], order[1:]
                    chosen.append(int(best))
                    sides = torch.minimum(high[batch][order], high[batch][best]) - torch.maximum(
                        low[batch][order], low[batch][best]
                    )
                    shared = sides.clamp(min=0).prod(-1)
                    union = sizes[order] + sizes[best] - shared
                    order = order[~((union > 0) & (shared > self.iou_threshold * union))]
                kept += [(batch, cls, box) for box in chosen]
        return torch.tensor(kept, dtype=torch.int64).reshape(-1, 3)

    def flops(self, boxes: Tensor, scores: Tensor) -> Dim:
        return scores.size * min(max(self.max_output, 1), 4096) * 16


def corners(boxes: Any, centered: bool) -> tuple[Any, Any]:
    """(lower corners, upper corners) of boxes, [..., 2] each."""
    if centered:
        middle, half = boxes[..., :2], boxes[..., 2:] / 2
        return middle - half, middle + half
    return torch.minimum(boxes[..., :2], boxes[..., 2:]), torch.maximum(boxes[..., :2], boxes[..., 2:])
