"""Calibration data: samples of a model's inputs, with labels where there are any.

    samples = Samples.load("digits.npz", graph)     # arrays named as the inputs, first axis samples, and "labels"
    for inputs in samples.batches():                # arrays in the graph's input order, of shapes that the graph takes
        ...
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from effcc.errors import InputError
from effcc.ir import Graph, Symbol, Tensor

LABELS = ("labels", "label", "y")
BATCH = 32
"""Samples of a batch where the graph takes any number."""


@dataclass(frozen=True)
class Samples:
    """n samples of a graph's inputs.

    arrays: one for each input, in order. Its first axis is samples: the batch axis of the input where it has as many
    axes as the input, else an axis in front of the input's own.
    labels: n class indices, or None.
    """

    types: tuple[Tensor, ...]
    arrays: tuple[np.ndarray, ...]
    labels: np.ndarray | None = None

    def __post_init__(self) -> None:
        counts = {len(a) for a in (*self.arrays, *([] if self.labels is None else [self.labels]))}
        if len(counts) > 1:
            raise InputError(f"the arrays hold different numbers of samples: {', '.join(map(str, sorted(counts)))}")

    def __len__(self) -> int:
        return len(self.arrays[0]) if self.arrays else 0

    @staticmethod
    def load(source: Any, graph: Graph) -> Samples:
        """Samples from a .npz path, {input name: array}, or an iterable of one sample each: a dict by name, a tuple in
        input order, or the array of a single input.

        Raises InputError where a name, a dtype or a shape does not fit the graph's inputs.
        """
        if isinstance(source, Samples):
            return source
        names = [v.name or f"input{k}" for k, v in enumerate(graph.inputs)]
        where = str(source) if isinstance(source, (str, Path)) else "calibration"
        given = _arrays(source, names, where)
        labels = next((given.pop(name) for name in LABELS if name in given and name not in names), None)
        missing = [n for n in names if n not in given]
        if missing:
            held = f"it holds {', '.join(given)}" if given else "it is empty"
            raise InputError(f"has no array for input {missing[0]!r}", where=where, hint=held)
        types = tuple(v.type for v in graph.inputs)
        arrays = tuple(_fitting(given[n], t, n, where) for n, t in zip(names, types, strict=True))  # type: ignore
        return Samples(types, arrays, None if labels is None else np.asarray(labels).reshape(-1))  # type: ignore

    def __getitem__(self, which: Any) -> Samples:
        """The samples of a slice or of an array of indices."""
        labels = None if self.labels is None else self.labels[which]
        return replace(self, arrays=tuple(a[which] for a in self.arrays), labels=labels)

    def split(self, fraction: float = 0.5, seed: int = 0) -> tuple[Samples, Samples]:
        """Two disjoint sets, the first with `fraction` of the samples, drawn at random."""
        order = np.random.default_rng(seed).permutation(len(self))
        cut = round(fraction * len(self))
        return self[np.sort(order[:cut])], self[np.sort(order[cut:])]

    @property
    def batch(self) -> int:
        """Samples of a call: the inputs' batch size, or as many as a symbolic one allows up to BATCH; 1 without one."""
        size = BATCH
        for t, a in zip(self.types, self.arrays, strict=True):
            if a.ndim > t.rank:
                return 1
            first = t.shape[0] if t.rank else 1
            if isinstance(first, int):
                return first
            if isinstance(first, Symbol) and first.hi is not None:
                size = min(size, first.hi)
        return size

    def batches(self) -> Iterator[tuple[np.ndarray, ...]]:
        """The inputs of one call after the other. A last batch that a fixed batch size does not take whole is filled up
        with its own last sample; `len(self)` results in all belong to samples."""
        size = self.batch
        fixed = any(t.rank and isinstance(t.shape[0], int) for t in self.types)
        for start in range(0, len(self), size):
            parts = [a[start : start + size] for a in self.arrays]
            if fixed and len(parts[0]) < size:
                parts = [np.concatenate([p, np.repeat(p[-1:], size - len(p), 0)]) for p in parts]
            stacked = (a.ndim > t.rank for t, a in zip(self.types, self.arrays, strict=True))
            yield tuple(np.ascontiguousarray(p[0] if alone else p) for p, alone in zip(parts, stacked, strict=True))


def _arrays(source: Any, names: list[str], where: str) -> dict[str, np.ndarray]:
    if isinstance(source, (str, Path)):
        try:
            with np.load(source, allow_pickle=False) as file:
                return {name: file[name] for name in file.files}
        except FileNotFoundError as error:
            raise InputError("there is no such file", where=where) from error
        except (OSError, ValueError, EOFError) as error:
            raise InputError(f"is no .npz file: {error}", where=where, hint="write it with numpy.savez") from error
    if isinstance(source, Mapping):
        return {name: np.asarray(a) for name, a in source.items()}
    if not isinstance(source, Iterable):
        raise InputError(f"a {type(source).__name__} holds no samples", where=where,
                         hint="give an .npz path, a dict of arrays, or an iterator of samples")
    rows: list[Mapping[str, Any]] = []
    for sample in source:
        if isinstance(sample, Mapping):
            rows.append(sample)
        else:
            listed = sample if isinstance(sample, (tuple, list)) else (sample,)
            rows.append(dict(zip(names, listed, strict=False)))
    keys = rows[0].keys() if rows else ()
    if any(r.keys() != keys for r in rows):
        raise InputError("samples differ in which inputs they hold", where=where)
    return {k: np.stack([np.asarray(r[k]) for r in rows]) for k in keys}


def _fitting(array: np.ndarray, type_: Tensor, name: str, where: str) -> np.ndarray:
    wanted = type_.dtype.numpy
    if not np.can_cast(array.dtype, wanted, "same_kind"):
        raise InputError(f"input {name!r} is {type_.dtype}, the samples are {array.dtype}", where=where)
    array = array.astype(wanted, copy=False)
    inner = array.shape[1:] if array.ndim == type_.rank + 1 else array.shape
    free = 0 if array.ndim == type_.rank + 1 else 1
    fits = len(inner) == type_.rank and all(
        not isinstance(d, int) or d == n for d, n in zip(type_.shape[free:], inner[free:], strict=True))
    if not fits:
        shape = "x".join(map(str, array.shape))
        raise InputError(f"input {name!r} is {type_}, the samples are {shape}", where=where,
                         hint="the first axis is samples; the others are the input's")
    return array
