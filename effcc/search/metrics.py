"""How well a changed model answers: metrics by name, and budgets that bound one of them.

    Budget.parse("top1>=0.99")          # accuracy on the labels
    Budget.parse("top1>=ref-0.01")      # at most one point below that of the unmodified model
    Budget(my_metric, ">=", 0.9)        # my_metric(outputs, reference, labels) -> float

A metric sees, for each output of the model, an array whose first axis is samples: of the changed model, and of the
unmodified one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from effcc.errors import InputError

Arrays = Sequence[np.ndarray]
Metric = Callable[[Arrays, Arrays, "np.ndarray | None"], float]


def top1(outputs: Arrays, reference: Arrays, labels: np.ndarray | None) -> float:
    """The share of samples whose greatest score (last axis of the first output) is that of their label."""
    assert labels is not None
    return float((_classes(outputs[0]).reshape(-1) == labels).mean())


def agree(outputs: Arrays, reference: Arrays, labels: np.ndarray | None = None) -> float:
    """The share of samples that get the unmodified model's class."""
    return float((_classes(outputs[0]) == _classes(reference[0])).mean())


def cosine(outputs: Arrays, reference: Arrays, labels: np.ndarray | None = None) -> float:
    """The cosine between an output and the unmodified model's, mean over samples; of several outputs the least."""

    def one(a: np.ndarray, b: np.ndarray) -> float:
        a, b = (x.reshape(len(x), -1).astype("f8") for x in (a, b))
        lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
        equal = (a == b).all(1)
        return float(np.where(equal, 1.0, (a * b).sum(1) / np.where(lengths == 0, 1.0, lengths)).mean())

    return min(map(one, outputs, reference))


def kl(outputs: Arrays, reference: Arrays, labels: np.ndarray | None = None) -> float:
    """Σ p ln(p / q) in nats, p and q the softmax over the last axis of the first output, of the unmodified model and of
    the changed one; mean over samples. (Kullback & Leibler 1951)"""
    p, q = (_log_softmax(x[0].astype("f8")) for x in (reference, outputs))
    return float((np.exp(p) * (p - q)).sum(-1).mean())


def max_error(outputs: Arrays, reference: Arrays, labels: np.ndarray | None = None) -> float:
    """The greatest difference of any element of any output."""
    pairs = zip(outputs, reference, strict=True)
    return max(float(np.abs(a.astype("f8") - b.astype("f8")).max(initial=0.0)) for a, b in pairs)


METRICS: dict[str, Metric] = {"top1": top1, "agree": agree, "cosine": cosine, "kl": kl, "max_error": max_error}

_BUDGET = re.compile(r"\s*([a-z_0-9]+)\s*(>=|<=)\s*(ref)?\s*([+-]?\s*[0-9.]+(?:e[+-]?[0-9]+)?)?\s*", re.IGNORECASE)


@dataclass(frozen=True)
class Budget:
    """What a metric must be: at least, or at most, a bound; `relative`: counted from the unmodified model's value."""

    metric: Metric
    relation: str
    bound: float
    relative: bool = False

    def __post_init__(self) -> None:
        if self.relation not in (">=", "<="):
            raise InputError(f"a budget asks >= or <=, not {self.relation!r}", where="budget")

    @staticmethod
    def parse(given: Any) -> Budget:
        """From text ("top1>=0.99", "kl<=0.01", "top1>=ref-0.01"), a (function, relation, bound), or a Budget."""
        if isinstance(given, Budget):
            return given
        if isinstance(given, tuple) and len(given) == 3 and callable(given[0]):
            metric: Any = given[0]
            return Budget(metric, given[1], float(given[2]))
        hint = 'write it as "top1>=0.99", "top1>=ref-0.01" or "kl<=0.01"'
        found = _BUDGET.fullmatch(given) if isinstance(given, str) else None
        if found is None or not (found[3] or found[4]):
            raise InputError(f"cannot read {given!r}", where="budget", hint=hint)
        if found[1] not in METRICS:
            raise InputError(f"there is no metric {found[1]!r}", where="budget", hint=f"one of {', '.join(METRICS)}")
        try:
            bound = float((found[4] or "0").replace(" ", ""))
        except ValueError:
            raise InputError(f"cannot read {given!r}", where="budget", hint=hint) from None
        return Budget(METRICS[found[1]], found[2], bound, found[3] is not None)

    @property
    def name(self) -> str:
        return getattr(self.metric, "__name__", "metric")

    @property
    def needs_labels(self) -> bool:
        return self.metric is top1

    def limit(self, unmodified: float) -> float:
        return unmodified + self.bound if self.relative else self.bound

    def holds(self, value: float, unmodified: float) -> bool:
        """Whether a value is within the budget; NaN is not."""
        limit = self.limit(unmodified)
        return value >= limit if self.relation == ">=" else value <= limit

    def __str__(self) -> str:
        bound = f"{self.bound:g}" if not self.relative else f"ref{self.bound:+g}" if self.bound else "ref"
        return f"{self.name}{self.relation}{bound}"


def _classes(scores: np.ndarray) -> np.ndarray:
    return scores.argmax(-1)


def _log_softmax(x: np.ndarray) -> np.ndarray:
    shifted = x - x.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
