"""Calibration data: samples of a model's inputs, with labels where there are any.

    samples = Samples.load("digits.npz", graph)  # arrays named as the inputs, first axis samples, and "labels"
    for inputs in samples.batches():  # arrays in the graph's input order, of shapes that the graph takes
        ...
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from effcc.errors import InputError
from effcc.ir import Graph, Symbol, Tensor

LABELS = ("labels", "label", "y")
"""Names under which labels are looked for, but for those that are inputs."""
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
        sizes = {t.shape[0] for t, a in zip(self.types, self.arrays, strict=True) if a.ndim == t.rank}
        fixed = {d for d in sizes if isinstance(d, int)}
        if len(fixed) > 1:
            raise InputError(
                f"the inputs' first axes are of sizes {', '.join(map(str, sorted(fixed)))}: not all are batch axes",
                hint="put an axis of samples in front of the inputs' own",
            )

    def __len__(self) -> int:
        return len(self.arrays[0]) if self.arrays else 0

    @staticmethod
    def load(source: Any, graph: Graph, fixed: Mapping[str, np.ndarray] | None = None) -> Samples:
        """Samples from a .npz path, {input name: array}, or an iterable of samples or batches of them.

        An item of an iterable is a dict by name, a tuple in input order (with one more element: the labels), or the
        array of a single input. Items that have all the axes of the inputs are joined along the first as batches are,
        others are stacked.
        fixed: contents of inputs that need not be in the source.
        Raises InputError where a name, a dtype or a shape does not fit the graph's inputs, or there is no sample.
        """
        if isinstance(source, Samples):
            return source
        names = [v.name or f"input{k}" for k, v in enumerate(graph.inputs)]
        types = _tensors(graph, names)
        where = str(source) if isinstance(source, (str, Path)) else "calibration"
        if not names:
            raise InputError(f"graph @{graph.name} takes no inputs", where=where, hint="leave the calibration out")
        given = _arrays(source, dict(zip(names, types, strict=True)), where)
        labels = next((given.pop(name) for name in LABELS if name in given and name not in names), None)
        count = len(next(iter(given.values()))) if given and next(iter(given.values())).ndim else 0
        for name, value in (fixed or {}).items():
            if name in names and name not in given:
                given[name] = np.repeat(np.asarray(value)[None], count, 0)
        missing = [n for n in names if n not in given]
        if missing:
            held = f"it holds {', '.join(given)}" if given else "it is empty"
            raise InputError(f"has no array for input {missing[0]!r}", where=where, hint=held)
        arrays = tuple(_fitting(given[n], t, n, where) for n, t in zip(names, types, strict=True))
        if not len(arrays[0]):
            raise InputError("holds no samples", where=where)
        try:
            return Samples(types, arrays, None if labels is None else _indices(labels, where))
        except InputError as error:
            raise InputError(error.message, where=where, hint=error.hint) from None

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
        return self._sizes()[0]

    def batches(self) -> Iterator[tuple[np.ndarray, ...]]:
        """The inputs of one call after the other. A last batch that is smaller than the inputs' batch axis may be is
        filled up with its own last sample; `len(self)` results in all belong to samples."""
        size, least = self._sizes()
        for start in range(0, len(self), size):
            parts = [a[start : start + size] for a in self.arrays]
            if (lacking := least - len(parts[0])) > 0:
                parts = [np.concatenate([p, np.repeat(p[-1:], lacking, 0)]) for p in parts]
            stacked = (a.ndim > t.rank for t, a in zip(self.types, self.arrays, strict=True))
            yield tuple(np.asarray(p[0] if alone else p, order="C") for p, alone in zip(parts, stacked, strict=True))

    def _sizes(self) -> tuple[int, int]:
        """Samples of a call, and how many there must be at least."""
        most, least = BATCH, 1
        for t, a in zip(self.types, self.arrays, strict=True):
            first = t.shape[0] if a.ndim == t.rank else 1
            if isinstance(first, int):
                return first, first
            if isinstance(first, Symbol):
                most, least = min(most, first.hi or most), max(least, first.lo)
        return max(most, least), least


def _tensors(graph: Graph, names: Sequence[str]) -> tuple[Tensor, ...]:
    types = tuple(v.type for v in graph.inputs)
    for name, t in zip(names, types, strict=True):
        if not isinstance(t, Tensor):
            raise InputError(f"input {name!r} is a {t}: there are no samples of that", where="calibration")
    return types  # type: ignore[return-value]


def _arrays(source: Any, inputs: Mapping[str, Tensor], where: str) -> dict[str, np.ndarray]:
    """The arrays of a source by name."""
    if isinstance(source, (str, Path)):
        try:
            with np.load(source, allow_pickle=False) as file:
                return {name: file[name] for name in file.files}
        except FileNotFoundError as error:
            raise InputError("there is no such file", where=where) from error
        except (OSError, ValueError, EOFError, AttributeError, TypeError) as error:
            raise InputError("is no .npz file of plain arrays", where=where, hint="write it by numpy.savez") from error
    if isinstance(source, Mapping):
        return {name: np.asarray(a) for name, a in source.items()}
    if not isinstance(source, Iterable):
        raise InputError(
            f"a {type(source).__name__} holds no samples",
            where=where,
            hint="give an .npz path, a dict of arrays, or an iterator of samples",
        )
    rows = [_row(item, list(inputs), where) for item in source]
    keys = rows[0].keys() if rows else {}
    if any(r.keys() != keys for r in rows):
        raise InputError("samples differ in which inputs they hold", where=where)
    in_batches = _in_batches(rows, inputs)
    out = {}
    for key in keys:
        try:
            out[key] = (np.concatenate if in_batches else np.stack)([r[key] for r in rows])
        except ValueError as error:
            shapes = " and ".join(sorted({"x".join(map(str, r[key].shape)) or "()" for r in rows})[:2])
            hint = "bring them to one shape, by padding or by cutting"
            raise InputError(f"samples of {key!r} have shapes {shapes}", where=where, hint=hint) from error
    return out


def _row(item: Any, names: Sequence[str], where: str) -> dict[str, np.ndarray]:
    if isinstance(item, Mapping):
        return {name: np.asarray(a) for name, a in item.items()}
    listed = item if isinstance(item, (tuple, list)) else (item,)
    if len(listed) not in (len(names), len(names) + 1):
        message = f"a sample holds {len(listed)} arrays, the model takes {len(names)} inputs"
        raise InputError(message, where=where, hint=", ".join(names))
    return {name: np.asarray(a) for name, a in zip((*names, LABELS[0]), listed, strict=False)}


def _in_batches(rows: Sequence[Mapping[str, np.ndarray]], inputs: Mapping[str, Tensor]) -> bool:
    """Whether the rows are batches: all their arrays have the inputs' axes (two or more), or one in front of them,
    and equal first sizes."""

    def batch(row: Mapping[str, np.ndarray]) -> bool:
        held = [(row[name], t) for name, t in inputs.items() if name in row]
        whole = all(a.ndim > t.rank or a.ndim == t.rank >= 2 for a, t in held)
        return whole and all(a.ndim for a in row.values()) and len({len(a) for a in row.values()}) == 1

    return all(map(batch, rows))


def _indices(labels: np.ndarray, where: str) -> np.ndarray:
    if labels.dtype.kind not in "iu":
        raise InputError(f"labels are class indices, these are {labels.dtype}", where=where)
    return labels.reshape(-1).astype("int64")


def _fitting(array: np.ndarray, type_: Tensor, name: str, where: str) -> np.ndarray:
    """An input's array in the input's dtype."""
    wanted = type_.dtype.numpy
    if not np.can_cast(array.dtype, wanted, "same_kind"):
        raise InputError(f"input {name!r} is {type_.dtype}, the samples are {array.dtype}", where=where)
    in_front = array.ndim == type_.rank + 1
    inner, dims = (array.shape[1:], type_.shape) if in_front else (array.shape[1:], type_.shape[1:])
    fits = array.ndim > 0 and len(inner) == len(dims) and all(map(_takes, dims, inner))
    if not fits:
        shape = "x".join(map(str, array.shape)) or "scalars"
        hint = "the first axis is samples; the others are the input's"
        raise InputError(f"input {name!r} is {type_}, the samples are {shape}", where=where, hint=hint)
    return array.astype(wanted, copy=False)


def _takes(dim: Any, size: int) -> bool:
    """Whether a dimension may be of a size; what an expression gives is left to the call."""
    if isinstance(dim, int):
        return dim == size
    return not isinstance(dim, Symbol) or dim.lo <= size and (dim.hi is None or size <= dim.hi)
