"""The tests that reached something new, kept to be mutated: those that reach what few tests do are taken more often.

    corpus = Corpus(path)
    corpus.add(Entry(graph, recipe), reached)     # True, and kept, where something is new
    parent = corpus.pick(random.Random(0))
    corpus.save()                                 # PATH.json and PATH.npz; Corpus(path) goes on from there
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from math import fsum
from pathlib import Path
from typing import Any

import numpy as np

from effcc.errors import EffccError, InputError
from effcc.fuzz.recipe import Recipe
from effcc.ir import Graph
from effcc.ir.blob import Blob
from effcc.text import blobs, parse, parse_type

MOST = 512
"""Entries that are kept; the least rare give way."""
RARE = 8
"""Of what an entry reaches it remembers what so many tests reached at most."""
WEIGHTS = {"branch": 1.0, "fired": 1.0, "refused": 0.5, "template": 1.0, "group": 0.2, "dtypes": 0.05, "pair": 0.02}
"""How much each kind of coverage counts. Fresh draws look for rare pairs of ops and dtypes by themselves."""
LEAST = 0.2
"""What a test must reach that is new to be kept."""


@dataclass(eq=False)
class Entry:
    """A test to mutate."""

    graph: Graph
    recipe: Recipe
    rare: frozenset[str] = frozenset()
    """What it reached that few tests had by then."""
    failures: int = 0
    """Mutations of its graph, one after another, that reached nothing new."""


@dataclass
class Corpus:
    """Entries, and how many tests reached each feature."""

    path: Path | None = None
    counts: Counter[str] = field(default_factory=Counter)
    entries: list[Entry] = field(default_factory=list)
    branches: int = 0
    """How many branches all tests together reached."""

    def __post_init__(self) -> None:
        if self.path is not None and self.path.with_suffix(".json").exists():
            self._load(self.path)

    def add(self, entry: Entry, reached: Iterable[str]) -> bool:
        """Count what a test reached; keep the test where some of it is new."""
        reached = set(reached)
        new = fsum(WEIGHTS[feature.partition(" ")[0]] for feature in reached if feature not in self.counts)
        self.branches += sum(f.startswith("branch ") and f not in self.counts for f in reached)
        self.counts.update(reached)
        if new < LEAST:
            return False
        entry.rare = frozenset(f for f in reached if self.counts[f] <= RARE)
        self.entries.append(entry)
        if len(self.entries) > MOST:
            self.entries.remove(min(self.entries, key=self.energy))
        return True

    def energy(self, entry: Entry) -> float:
        """By the rarest that an entry reaches (Lemieux & Sen 2018, "FairFuzz")."""
        return max((WEIGHTS[f.partition(" ")[0]] / self.counts[f] for f in entry.rare), default=0.0)

    def pick(self, chance: random.Random) -> Entry:
        """An entry, in proportion to its energy."""
        return chance.choices(self.entries, [self.energy(e) + 1e-6 for e in self.entries])[0]

    # -- on disk ---------------------------------------------------------------------------------------------------
    def save(self) -> None:
        assert self.path is not None
        arrays: dict[str, Any] = {}
        for entry in self.entries:
            arrays.update(constants(entry.graph))
        kept = [{"graph": str(e.graph), "recipe": str(e.recipe), "rare": sorted(e.rare), "failures": e.failures}
                for e in self.entries]
        for suffix, write in (
            (".npz", lambda file: np.savez(file, **arrays)),
            (".json", lambda file: file.write(json.dumps({"counts": self.counts, "entries": kept}).encode())),
        ):
            part = self.path.with_suffix(f"{suffix}.part")
            with part.open("wb") as file:
                write(file)
            part.replace(self.path.with_suffix(suffix))

    def _load(self, path: Path) -> None:
        where = path.with_suffix(".json")
        try:
            kept = json.loads(where.read_text())
            with np.load(path.with_suffix(".npz")) as file:
                known = constants_in(file)
            self.counts = Counter(kept["counts"])
            self.branches = sum(feature.startswith("branch ") for feature in self.counts)
            for e in kept["entries"]:
                entry = Entry(parse(e["graph"], known), Recipe.parse(e["recipe"]), frozenset(e["rare"]), e["failures"])
                self.entries.append(entry)
        except (OSError, ValueError, KeyError, EffccError) as error:
            raise InputError(f"the corpus cannot be read: {error}", where=where, hint="delete it") from error


def constants(graph: Graph) -> dict[str, np.ndarray]:
    """What the text of a graph names by hash, as arrays for `np.savez`: bytes, since NumPy's files know no bf16."""
    return {f"{digest} {blob.type}": np.frombuffer(np.ascontiguousarray(blob.array).tobytes(), np.uint8)
            for digest, blob in blobs(graph).items()}


def constants_in(file: Any) -> dict[str, Blob]:
    """The constants in an open .npz file, among other things."""
    found = {}
    for name in file.files:
        digest, _, type_ = name.partition(" ")
        if digest.startswith("sha256:"):
            tensor: Any = parse_type(type_)
            data = np.frombuffer(file[name].tobytes(), tensor.dtype.numpy)
            found[digest] = Blob(data.reshape(tensor.shape), tensor.dtype)
    return found
