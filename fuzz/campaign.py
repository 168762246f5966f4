"""A campaign: graphs are drawn and held against the laws until the time is over; what fails is reduced and saved.

    effcc fuzz --minutes 30 --jobs 2 --seed 7

A folder holds its findings, each a `.effir` file with the inputs beside it, and how far every job got, so that a later
call goes on. Findings are told apart by their law, what it says without the numbers, and the ops of the reduced graph.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import random
import re
import time
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from queue import Empty
from typing import Any

from effcc.errors import EffccError
from effcc.fuzz.case import NUMERIC, PROFILES, SPECIAL, STRICT, Case, Finding, Profile
from effcc.fuzz.generate import GraphDrawer
from effcc.fuzz.laws import LAWS, run_passes
from effcc.fuzz.reduce import reduce_graph, reduce_list
from effcc.ir import Graph, Tensor
from effcc.ir.lazy import torch
from effcc.pipeline import parse_pipeline
from effcc.testing.search import Choices

SHRINK_SECONDS = 20.0
LAW_EVERY = {"text": 4, "embellished": 4, "compiled": 12, "schedules": 24}
"""Dear laws are held against one graph in so many."""
PROFILES_DRAWN = (STRICT, SPECIAL, STRICT, SPECIAL, SPECIAL, NUMERIC)
"""Which inputs a test has, as often as they stand here: one kind a test, for more graphs in the same time."""


SHARES = ("empty", "special", "symbolic", "rejected")


@dataclass
class Tally:
    """What a job did."""

    tests: int = 0
    seconds: float = 0.0
    laws: Counter[str] = field(default_factory=Counter)
    empty: int = 0
    """Tests with a zero-size dimension."""
    special: int = 0
    rejected: int = 0
    """Graphs without inputs on which they have a value."""
    symbolic: int = 0
    findings: int = 0

    def __add__(self, other: Tally) -> Tally:
        return Tally(self.tests + other.tests, max(self.seconds, other.seconds), self.laws + other.laws,
                     self.empty + other.empty, self.special + other.special, self.rejected + other.rejected,
                     self.symbolic + other.symbolic, self.findings + other.findings)

    @property
    def rate(self) -> float:
        """Tests a second, all jobs together."""
        return self.tests / self.seconds if self.seconds else 0.0

    def facts(self) -> dict[str, Any]:
        return {**vars(self), "laws": dict(self.laws), "rate": self.rate}

    def __str__(self) -> str:
        share = {name: f"{getattr(self, name) / max(self.tests, 1):.1%}" for name in SHARES}
        held = ", ".join(f"{law} {count}" for law, count in self.laws.items())
        return (
            f"{self.tests} tests, {self.rate:.0f} a second; {share['empty']} with empty tensors, {share['special']} "
            f"with special values, {share['symbolic']} with symbolic sizes, {share['rejected']} without a value; "
            f"{held}; {self.findings} findings"
        )


class Job:
    """One process's share of a campaign. `number` tells its random draws from the other jobs'."""

    def __init__(self, folder: Path, seed: int, number: int, laws: Sequence[str], size: tuple[int, int] = (4, 12)):
        self.folder, self.seed, self.number, self.laws, self.size = folder, seed, number, tuple(laws), size
        self.state = folder / f"job-{seed}-{number}.json"
        self.tally, self.tried = Tally(), Counter()
        if self.state.exists():
            kept = json.loads(self.state.read_text())
            self.tally = Tally(**{**kept["tally"], "laws": Counter(kept["tally"]["laws"])})
            self.tried = Counter({tuple(k.split(" ")): n for k, n in kept["pairs"].items()})

    def run(self, seconds: float, progress: Callable[[Tally], None] = lambda tally: None) -> Tally:
        """Test until the time is over, then note how far it got."""
        torch.set_num_threads(1)
        warnings.simplefilter("ignore")
        start, before = time.monotonic(), self.tally.seconds
        while time.monotonic() - start < seconds:
            self.test(f"{self.seed} {self.number} {self.tally.tests}")
            self.tally.seconds = before + time.monotonic() - start
            progress(self.tally)
        self.save()
        return self.tally

    def test(self, key: str) -> None:
        """One graph against the laws."""
        graph = GraphDrawer(Choices(rest=random.Random(key)), self.tried).graph(*self.size)
        number = self.tally.tests
        self.tally.tests += 1
        self.tally.empty += any(0 in v.shape for v in graph.values if isinstance(v.type, Tensor))
        self.tally.symbolic += bool(graph.symbols)
        try:
            case = Case.of(graph, key, self.profiles(key), most=1)
        except Finding as finding:
            self.report(finding, key, None)
            return
        self.tally.rejected += not case.inputs
        self.tally.special += any(profile.special for profile in case.inputs)
        for law in self.laws:
            if number % LAW_EVERY.get(law, 1):
                continue
            self.tally.laws[law] += 1
            try:
                LAWS[law](case)
            except Finding as finding:
                self.report(finding, key, law)
                return

    @staticmethod
    def profiles(key: str) -> tuple[Profile, ...]:
        """Kinds of inputs in the order in which a test tries them."""
        first = random.Random(f"profile {key}").choice(PROFILES_DRAWN)
        return (first, *(p for p in PROFILES if p is not first))

    def report(self, finding: Finding, key: str, law: str | None) -> None:
        """Reduce a finding and save it, unless one like it is known."""
        if (self.folder / f"{signature(finding)}.seen").exists():
            return
        (self.folder / f"{signature(finding)}.seen").touch()
        smallest = [finding]

        def fails(graph: Graph) -> bool:
            try:
                case = Case.of(graph, key)
                if law is not None:
                    LAWS[law](case)
            except Finding as again:
                if kind(again) == kind(finding):
                    smallest[0] = again
                    return True
            except Exception:
                return False
            return False

        reduce_graph(finding.graph, fails, SHRINK_SECONDS)
        save(with_fewer_passes(smallest[0], key), self.folder, key)
        self.tally.findings += 1

    def save(self) -> None:
        tally = {**vars(self.tally), "laws": dict(self.tally.laws)}
        known = {" ".join(pair): n for pair, n in self.tried.items()}
        temporary = self.state.with_suffix(".part")
        temporary.write_text(json.dumps({"tally": tally, "pairs": known}))
        temporary.replace(self.state)


def with_fewer_passes(finding: Finding, key: str) -> Finding:
    """The finding with no more passes than it takes, where passes on the graph itself are what fails."""
    smallest = [finding]

    def fails(passes: Sequence[str]) -> bool:
        try:
            run_passes(Case.of(finding.graph, key), finding.law, parse_pipeline(",".join(passes)))
        except Finding as again:
            if kind(again) == kind(finding):
                smallest[0] = again
                return True
        return False

    if finding.law in ("each-pass", "pass-orders") and fails(finding.passes):
        reduce_list(finding.passes, fails)
    return smallest[0]


def run(
    folder: Path, seed: int, jobs: int, laws: Sequence[str], seconds: float, tell: Callable[[str], None]
) -> tuple[Tally, list[Path]]:
    """Run jobs side by side until the time is over: what they did, and every finding in the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    workers = [context.Process(target=_work, args=(folder, seed, k, laws, seconds, queue)) for k in range(jobs)]
    for worker in workers:
        worker.start()
    tallies: dict[int, Tally] = {}
    while any(worker.is_alive() for worker in workers) or not queue.empty():
        with contextlib.suppress(Empty):
            number, tally = queue.get(timeout=0.5)
            tallies[number] = tally
            tell(str(sum(tallies.values(), Tally())))
    if failed := [worker.exitcode for worker in workers if worker.exitcode]:
        raise EffccError(f"a job of the campaign ended with status {failed[0]}", hint="its traceback is above")
    return sum(tallies.values(), Tally()), sorted(folder.glob("*.effir"))


def _work(folder: Path, seed: int, number: int, laws: Sequence[str], seconds: float, queue: Any) -> None:
    last = 0.0

    def progress(tally: Tally) -> None:
        nonlocal last
        if time.monotonic() - last > 2:
            last = time.monotonic()
            queue.put((number, tally))

    queue.put((number, Job(folder, seed, number, laws).run(seconds, progress)))


def kind(finding: Finding) -> str:
    """What a finding says, without numbers, names of values and positions."""
    return f"{finding.law}: {re.sub(r'[-+0-9.e,x]+|inf|nan', '#', finding.message)[:80]}"


def signature(finding: Finding) -> str:
    return sha256(kind(finding).encode()).hexdigest()[:12]


def save(finding: Finding, folder: Path, key: str) -> Path:
    """Writes NAME.effir, the inputs, and what failed; returns the first."""
    import numpy as np

    from effcc.ir.blob import Blob
    from effcc.text import blobs

    ops = "-".join(dict.fromkeys(n.op.name for n in finding.graph.walk() if n.op.name != "const"))[:60]
    path = folder / f"{finding.law}-{ops}-{signature(finding)}.effir"
    about = [f"# {finding.law}: {finding.message}"]
    about += [f"# passes: {','.join(finding.passes)}"] if finding.passes else []
    path.write_text("\n".join([*about, f"# seed: {key}", str(finding.graph), ""]))
    arrays: dict[str, Any] = {f"blob {name}": blob.array for name, blob in blobs(finding.graph).items()}
    for k, tensor in enumerate(finding.inputs or ()):
        arrays[f"input {k}"] = Blob.from_torch(tensor).array
    np.savez(path.with_suffix(".npz"), **arrays)
    return path


def replay(path: Path) -> None:
    """Hold a saved finding's graph against its law again; raises Finding where it still fails."""
    import numpy as np

    from effcc.text import parse

    text = path.read_text()
    law = text.split(":", 1)[0].removeprefix("# ")
    key = next(line.removeprefix("# seed: ") for line in text.splitlines() if line.startswith("# seed: "))
    with np.load(path.with_suffix(".npz")) as file:
        known = {name.removeprefix("blob "): file[name] for name in file.files if name.startswith("blob ")}
    case = Case.of(parse(text, known), key)
    if law in LAWS:
        LAWS[law](case)
