"""Attention and MLP sublayers that matter least to the outputs leave the model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from effcc.analysis.transformer import ATTENTION, MLP, Sublayer, sublayers
from effcc.errors import InputError
from effcc.interp import run
from effcc.ir import Graph
from effcc.ir.lazy import torch
from effcc.ir.location import UNKNOWN
from effcc.pipeline import Context, Pass, Range
from effcc.rewrite import Workspace


# -- distances ---------------------------------------------------------------------------------------------------------
def _distance(distance: Callable[[Any, Any], Any], wanted: tuple[Any, ...], got: tuple[Any, ...]) -> float:
    """The sum over floating-point results of the mean distance of their rows (last axes); infinite where one is NaN."""
    total = 0.0
    for a, b in zip(wanted, got, strict=True):
        if a.is_floating_point() and a.numel():
            rows = [t.double().reshape(-1, t.shape[-1] if t.dim() else 1) for t in (a, b)]
            total += float(distance(*rows).mean())
    return total if total == total else float("inf")


def kullback_leibler(a: Any, b: Any) -> Any:
    """Σ p (ln p - ln q) of the softmaxes p of a and q of b."""
    p, q = torch.log_softmax(a, -1), torch.log_softmax(b, -1)
    return (p.exp() * (p - q)).sum(-1)


def jensen_shannon(a: Any, b: Any) -> Any:
    """The mean divergence of both softmaxes from their mean (Lin 1991)."""
    p, q = torch.log_softmax(a, -1), torch.log_softmax(b, -1)
    m = torch.logaddexp(p, q) - torch.log(torch.tensor(2.0, dtype=p.dtype))
    return ((p.exp() * (p - m)).sum(-1) + (q.exp() * (q - m)).sum(-1)) / 2


def euclidean(a: Any, b: Any) -> Any:
    return (a - b).norm(dim=-1)


def angular(a: Any, b: Any) -> Any:
    """The angle between rows, as a share of a half turn."""
    return torch.arccos(torch.nn.functional.cosine_similarity(a, b, dim=-1).clamp(-1, 1)) / torch.pi


DISTANCES: dict[str, Callable[[Any, Any], Any]] = {
    "js": jensen_shannon,
    "kl": kullback_leibler,
    "l2": euclidean,
    "angular": angular,
}


# -- the pass ----------------------------------------------------------------------------------------------------------
class FinerCut(Pass):
    """x + f(x) --> x, for the sublayers f without which the outputs on calibration data change least (FinerCut).

    Greedy: remove the sublayer whose loss brings the outputs least far from those of the original model, and again.

    n: how many sublayers to remove. fraction: this share of all of them, besides.
    distance: of outputs: js (Jensen-Shannon), kl (both of the softmax over the last axis), l2, angular.
    front: the first share of sublayers stays until as many others and one more are gone.
    sublayers: candidates: attention, mlp or both (attention+mlp).
    samples: of the calibration data, as many are looked at.
    """

    name = "finercut"
    category = "prune"
    contract = "approximate; exact when n=0 and fraction=0"
    source = "Zhang et al. 2024, FinerCut: Finer-grained Interpretable Layer Pruning for LLMs (arXiv:2405.18218)"
    searchable = {"n": Range(0, None)}
    choices = {
        "fraction": (0.0, 0.5, 1.0), "distance": tuple(DISTANCES), "front": (0.0, 0.5, 1.0),
        "sublayers": ((ATTENTION, MLP), (ATTENTION,), (MLP,)), "samples": (10, 1),
    }  # fmt: skip
    n: int = 1
    fraction: float = 0.0
    distance: str = "js"
    front: float = 0.0
    sublayers: tuple[str, ...] = (ATTENTION, MLP)
    samples: int = 10

    def __post_init__(self) -> None:
        if self.n < 0 or not 0 <= self.fraction <= 1 or not 0 <= self.front <= 1:
            raise ValueError("n counts from 0, fraction and front lie between 0 and 1")
        if self.distance not in DISTANCES:
            raise ValueError(f"distance={self.distance}: there are {', '.join(DISTANCES)}")
        if unknown := set(self.sublayers) - {ATTENTION, MLP}:
            raise ValueError(f"sublayers={'+'.join(sorted(unknown))}: write attention, mlp or attention+mlp")
        if self.samples < 1:
            raise ValueError("samples counts from 1")

    def run(self, graph: Graph, ctx: Context) -> Graph:
        candidates = [s for s in sublayers(graph) if s.kind in self.sublayers]
        count = min(self.n + int(self.fraction * len(candidates)), len(candidates))
        if not candidates and (self.n or self.fraction):
            ctx.refused(self.name, UNKNOWN, "no sublayer found: x + f(x) with attention or a matmul in f")
        if not count:
            return graph
        if ctx.calibration is None:
            hint = "give calibration data: --calibration data.npz, or calibration= in Python"
            raise InputError(f"{self.name} chooses by the outputs on sample inputs, and there are none", hint=hint)
        removed: list[Sublayer] = []
        for chosen, far in self.ranking(graph, candidates, count, ctx):
            if ctx.allow(self.name, chosen.loc):
                removed.append(chosen)
                ctx.progress(f"{self.name}: {chosen.kind} at {chosen.loc} goes, {self.distance} {far:.3g}")
        return without(graph, removed)

    def ranking(self, graph: Graph, candidates: list[Sublayer], count: int, ctx: Context,
                ) -> list[tuple[Sublayer, float]]:
        """The first `count` sublayers to remove, in order, each with how far the outputs are then."""
        batches = list(ctx.calibration[: self.samples].batches())
        wanted = [run(graph, *batch) for batch in batches]
        distance = DISTANCES[self.distance]

        def far(removed: list[Sublayer]) -> float:
            cut = without(graph, removed)
            return sum(_distance(distance, w, run(cut, *batch)) for w, batch in zip(wanted, batches, strict=True))

        guarded = int(self.front * len(candidates))
        chosen: list[tuple[Sublayer, float]] = []
        while len(chosen) < count:
            gone = [s for s, _ in chosen]
            left = [s for k, s in enumerate(candidates)
                    if s not in gone and (k >= guarded or len(gone) > guarded)]
            if not left:
                ctx.refused(self.name, candidates[0].loc, f"front={self.front} protects all that is left")
                break
            ctx.progress(f"{self.name}: {len(chosen)} of {count} chosen, {len(left)} to try")
            distances = [far([*gone, s]) for s in left]
            least = min(range(len(left)), key=distances.__getitem__)
            chosen.append((left[least], distances[least] / len(batches)))
        return chosen

    def example(self, d: Any, b: Any) -> Any:
        from effcc.testing.transformer import small_transformer

        return small_transformer(d, b)


def without(graph: Graph, removed: list[Sublayer]) -> Graph:
    """The graph in which residual sums of some sublayers are the stream itself; what only they used is gone."""
    w = Workspace(graph)
    for s in removed:
        item = w.producer(s.out)
        assert item is not None
        w.replace(item, (item.operands[s.add.operands.index(s.skip)],))
    return w.freeze()
