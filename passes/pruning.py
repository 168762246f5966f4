"""What the passes that prune weights share: which weights, masks put to them, and the mean shift made up for.

A pass says which elements stay (`masks`); the others become zeros of the same tensor. What stores and skips them is
decided later, by `compress-weights`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from effcc.analysis.weights import Moments, Weight, moments, weights
from effcc.ir import Graph, Tensor
from effcc.ir.blob import Blob
from effcc.ir.op import op_class
from effcc.ir.types import f32
from effcc.ops.constant import Const
from effcc.pipeline import Context, Pass
from effcc.rewrite import Item, Workspace

Mask = np.ndarray[Any, Any]


SCOPES = ("local", "global")
CORRECTIONS = ("auto", "none", "shift", "refit")
REFIT_FLOPS = 5e11
"""What "auto" spends on refitting one weight at most: some ten seconds."""


class Pruning(Pass):
    """Zeros for elements of constant weights of matmuls and convolutions.

    min_size: weights of fewer elements are left alone. skip: and those whose location contains one of these.
    correct: what calibration data mends. "shift" adds what was lost on average, E[x] · (w - pruned w), behind the
    product (Nagel et al. 2019, "Data-Free Quantization Through Weight Equalization and Bias Correction", section 4.2,
    for another error of w). "refit" also moves the weights that stay to where the outputs' squared error is least (see
    `refitted`); "auto" does so where that takes seconds. "none" does neither.
    """

    category = "sparsify"
    contract = "approximate; idempotent"
    choices = {"min_size": (1024, 1), "skip": ((), ("op1",)), "correct": CORRECTIONS}
    min_size: int = 1024
    skip: tuple[str, ...] = ()
    correct: str = "auto"

    def __post_init__(self) -> None:
        if self.correct not in CORRECTIONS:
            raise ValueError(f"correct={self.correct!r} is none of {', '.join(CORRECTIONS)}")

    def masks(
        self, graph: Graph, chosen: Sequence[Weight], known: dict[Any, Moments], ctx: Context
    ) -> list[Mask | None]:
        """For each weight, which elements stay (None: it is left alone, as `ctx.refused` was told)."""
        raise NotImplementedError(f"{type(self).__name__}.masks")

    def takes(self, w: Weight) -> str | None:
        """Why a weight cannot be pruned this way; None where it can."""
        return None

    def run(self, graph: Graph, ctx: Context) -> Graph:
        chosen = [w for w in weights(graph) if self._wanted(w, ctx)]
        if not chosen:
            return graph
        known: dict[Any, Moments] = {}
        if ctx.calibration is not None:
            ctx.progress(f"{self.name}: activations of {len(ctx.calibration)} samples")
            known = moments(graph, chosen, ctx.calibration, products=self.correct in ("auto", "refit"))
        edited = Workspace(graph)
        for w, mask in zip(chosen, self.masks(graph, chosen, known, ctx), strict=True):
            if mask is None or not (w.array[~mask] != 0).any() or not ctx.allow(self.name, w.loc):
                continue
            zeroed = np.where(mask, w.array, np.zeros((), w.array.dtype))
            if self.correct in ("auto", "refit") and w.value in known:
                ctx.progress(f"{self.name}: refit {w.blob.type}")
                zeroed = self._refitted(w, mask, zeroed, known[w.value], ctx)
            pruned = Blob(zeroed, w.blob.type.dtype)
            item = edited.producer(w.value)
            assert item is not None
            edited.set_op(item, Const(pruned))
            if self.correct != "none" and w.value in known:
                self._correct(edited, w, pruned, known[w.value], ctx)
        return edited.freeze()

    def _wanted(self, w: Weight, ctx: Context) -> bool:
        if any(part in str(w.loc) for part in self.skip):
            reason: str | None = "skip= names its location"
        elif w.size < self.min_size:
            reason = f"it has {w.size} elements, fewer than min-size={self.min_size}"
        else:
            reason = self.takes(w)
        if reason is not None:
            ctx.refused(self.name, w.loc, reason)
        return reason is None

    def _refitted(self, w: Weight, mask: Mask, zeroed: Mask, known: Moments, ctx: Context) -> Mask:
        if known.products is None or not w.is_matrix:
            ctx.refused(f"{self.name} refit", w.loc, "only matrices are refitted: of matmuls, convolutions of 1x1")
            return zeroed
        covariance = known.products - np.outer(known.mean, known.mean)
        if not np.isfinite(covariance).all() or not np.isfinite(w.array.astype(np.float64)).all():
            ctx.refused(f"{self.name} refit", w.loc, "activations or weights are not finite")
            return zeroed
        if self.correct == "auto" and (work := refit_flops(w.as_matrix(mask))) > REFIT_FLOPS:
            ctx.refused(f"{self.name} refit", w.loc, f"it would take {work:.0e} operations: ask by correct=refit")
            return zeroed
        matrix = refitted(w.as_matrix(w.array).astype(np.float64), w.as_matrix(mask), covariance)
        return w.from_matrix(matrix).astype(w.array.dtype)

    def _correct(self, edited: Workspace, w: Weight, pruned: Blob, known: Moments, ctx: Context) -> None:
        """matmul(x, w) --> matmul(x, pruned) + E[x] · (w - pruned)"""
        lost = w.array.astype(np.float64) - pruned.array.astype(np.float64)
        weighed = lost * w.along_contracted(known.mean)
        for user in w.users:
            conv = user.op.name == "conv"
            shift = weighed.sum(tuple(k for k in range(lost.ndim) if k == w.contracted or (conv and k != w.free)))
            item = edited.producer(user.result)
            assert item is not None
            if shift.ndim != 1 or getattr(user.op, "groups", 1) != 1 or not np.isfinite(shift).all():
                ctx.refused(f"{self.name} correct", user.loc, "the mean shift is not one number for each output")
                continue
            channels_first = conv and user.op.layout != "nhwc"  # type: ignore[attr-defined]
            spread = shift.reshape(-1, *(1,) * (user.result.tensor.rank - 2)) if channels_first else shift
            _add_behind(edited, item, Blob(spread.astype(user.result.dtype.numpy), user.result.dtype))


def _add_behind(edited: Workspace, item: Item, constant: Blob) -> None:
    """y --> y + constant, for all who read y."""
    made = edited.insert(Const(constant), (), item.next, item.loc)
    total = edited.insert(op_class("add")(), (item.result, made.result), item.next.next, item.loc)
    edited.replace_all_uses(item.result, total.result)
    edited.set_operands(total, (item.result, made.result))


DAMPING = 0.01
"""Of the mean diagonal, added to the diagonal: what the samples do not tell stays near the original (GPTQ, Frantar et
al. 2023, section 3)."""


def refitted(matrix: Mask, mask: Mask, covariance: Mask) -> Mask:
    """[K, N] with zeros outside of `mask`, inside where E|x (w - refitted)|² is least, the means apart.

    For each column with kept rows S and pruned rows P: (C_SS + λ I)⁻¹ C_SP w_P is added to w_S (Hassibi and Stork 1993,
    "Optimal Brain Surgeon", for several weights at once). Columns of one mask share the factorization.
    """
    out = np.where(mask, matrix, 0.0)
    damped = covariance + DAMPING * max(float(np.mean(np.diag(covariance))), 1e-12) * np.eye(len(covariance))
    masks, which = _distinct(mask)
    for k, kept in enumerate(masks):
        columns = np.flatnonzero(which == k)
        if kept.any() and not kept.all():
            lost = covariance[np.ix_(kept, ~kept)] @ matrix[np.ix_(~kept, columns)]
            out[np.ix_(kept, columns)] += np.linalg.solve(damped[np.ix_(kept, kept)], lost)
    return out


def refit_flops(mask: Mask) -> float:
    """Operations of `refitted`: a factorization for each distinct column of a mask."""
    masks, _ = _distinct(mask)
    return float((masks.sum(1).astype(float) ** 3).sum() * 2 / 3)


def _distinct(mask: Mask) -> tuple[Mask, Mask]:
    """(the distinct columns of a mask, which of them each column is)"""
    rows = np.packbits(mask.T, axis=1)
    _, first, which = np.unique(rows, axis=0, return_index=True, return_inverse=True)
    return mask.T[first], which.reshape(-1)


def largest(scores: Sequence[np.ndarray[Any, Any]], density: float, scope: str) -> list[Mask]:
    """For each array of scores, which ⌈density · size⌉ are the largest: of each array, or of all together.

    Ties go to the earlier one. NaN counts as larger than any number. Zero scores are never needed to fill up.
    """
    flat = [np.where(np.isnan(s), np.inf, s).astype(np.float64).reshape(-1) for s in scores]
    if scope == "global":
        kept = _top(np.concatenate(flat), density) if flat else np.zeros(0, bool)
        parts = np.split(kept, np.cumsum([len(f) for f in flat])[:-1])
    else:
        parts = [_top(f, density) for f in flat]
    return [part.reshape(s.shape) for part, s in zip(parts, scores, strict=True)]


def _top(scores: np.ndarray[Any, Any], density: float) -> np.ndarray[Any, Any]:
    count = int(np.ceil(density * scores.size - 1e-9))
    if count in (0, scores.size):
        return np.full(scores.size, count > 0)
    least = np.partition(scores, scores.size - count)[scores.size - count]
    kept = scores > least
    kept[np.flatnonzero(scores == least)[: count - int(kept.sum())]] = True
    return kept


def check_density(density: float, scope: str) -> None:
    """Raises ValueError, which names the option, where one has no such value."""
    if not 0.0 <= density <= 1.0:
        raise ValueError(f"density={density} is not between 0 and 1")
    if scope not in SCOPES:
        raise ValueError(f"scope={scope!r} is neither local nor global")


def example_layers(d: Any, b: Any) -> Any:
    """Two layers of weights that the passes take, for `effcc.testing.check` to start from."""
    random = np.random.default_rng(d.integer(0, 99))
    if d.chance(20):
        x, w = b.input("x", Tensor(f32, (1, 16, 4, 4))), random.integers(-3, 4, (16, 16, 2, 2)).astype("f4")
        layout = d.choose(("nchw", "nhwc"))
        x = b.transpose(x, perm=(0, 2, 3, 1)) if layout == "nhwc" else x
        return b.conv(x, b.const(Blob(w)), strides=(1, 1), pads=(0,) * 4, dilations=(1, 1), layout=layout)
    x = b.input("x", Tensor(f32, (d.integer(1, 3), 32)))
    w = random.integers(-3, 4, (32, 32)).astype(np.float32)
    if d.boolean():  # the form of each pass, so that it finds nothing to do
        w[16:, :] = 0
        w[:, 16:] = 0
        w[2::4, :] = w[3::4, :] = 0
    first = b.relu(b.matmul(x, b.const(Blob(w)), transpose_b=d.boolean()))
    return b.matmul(first, b.const(Blob(random.integers(-3, 4, (32, 48)).astype(np.float32))))
