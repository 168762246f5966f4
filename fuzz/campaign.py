"""A campaign: graphs are drawn and held against the laws until the time is over; what fails is reduced and saved.

    effcc fuzz --minutes 30 --jobs 2 --seed 7

A folder holds its findings, each a `.effir` file with the inputs beside it, and how far every job got, so that a later
call goes on. Findings are told apart by their law, what it says without the numbers, and the ops of the reduced graph.
"""

from __future__ import annotations

import contextlib
import gc
import json
import multiprocessing
import random
import re
import time
import warnings
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from queue import Empty
from typing import Any

from effcc.errors import EffccError
from effcc.fuzz.apart import apart
from effcc.fuzz.case import NUMERIC, PROFILES, SPECIAL, STRICT, Case, Finding, Profile
from effcc.fuzz.corpus import Corpus, Entry, constants, constants_in
from effcc.fuzz.coverage import Coverage
from effcc.fuzz.domains import meaningful
from effcc.fuzz.generate import NEAR_MISSES, GraphDrawer
from effcc.fuzz.laws import LAWS, hold, run_passes
from effcc.fuzz.limit import GRAPH_SECONDS, limit_memory, limited, too_long
from effcc.fuzz.mutate import GraphMutator
from effcc.fuzz.pairs import Tried
from effcc.fuzz.recipe import Recipe, Subject, drawn_pass, written_in
from effcc.fuzz.reduce import reduce_graph, reduce_list
from effcc.fuzz.seeds import examples, patterns, written
from effcc.fuzz.surround import surrounded
from effcc.ir import Graph, Tensor
from effcc.ir.lazy import torch
from effcc.pipeline import parse_pipeline
from effcc.testing.draw import NothingDrawn
from effcc.testing.search import Choices

SHRINK_SECONDS = 20.0
LAW_EVERY = {"text": 8, "embellished": 8, "compiled": 2, "schedules": 24, "recipes": 24, "reference": 4}
"""Dear laws are held against one graph in so many."""
RECIPE_LAWS = ("pass-orders", "recipes")
"""Those that say something new where only a recipe is."""
PROFILES_DRAWN = (STRICT, SPECIAL, NUMERIC)
"""Which inputs a test has, as often as they stand here: one kind a test, for more graphs in the same time, but all
where the graph is compiled, or is a rule's alone, which takes longer than to run it."""
WATCHED = 3
"""What one test in so many reaches is kept where it is new; the mutated are among these."""
ALONE = 24
"""So many tests between two are one rule's pattern, or nearly, held against a pass that has the rule and nothing else:
together they take as long as what is compiled."""
ALONE_EVERY = {"pass-orders": 1, "text": 9}
"""The laws that are held against these, each against one in so many."""
APART_EVERY = 6
"""Of the graphs that are compiled only those with such a number are like others; the rest are ops side by side."""
MUTATED, SEEDED = 0.7, 0.2
"""Shares of watched tests that are mutated, and of all that are examples of rules and passes; the others are drawn."""
ATTEMPTS = 4
"""How many patterns are tried until one can be drawn."""
FAILURES = 5
"""After so many mutations of a graph that reached nothing new, its recipe is mutated once (Tzer)."""
WARM = 20
"""After so many tests nearly all is loaded that stays, and the garbage collector is told to look at it no more, and to
look less often: a test makes thousands of small objects, few of them in cycles."""
GARBAGE = 20_000
"""Objects that are made before the collector looks for cycles among them."""
CI_TESTS = 76 * (ALONE + 1)
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
    mutated: int = 0
    """Tests made of others that had reached something new."""
    corpus: int = 0
    """Of those there are so many."""
    branches: int = 0
    """Of passes/, that tests reached (in the job that reached the most)."""

    def __add__(self, other: Tally) -> Tally:
        return Tally(self.tests + other.tests, max(self.seconds, other.seconds), self.laws + other.laws,
                     self.empty + other.empty, self.special + other.special, self.rejected + other.rejected,
                     self.symbolic + other.symbolic, self.findings + other.findings, self.mutated + other.mutated,
                     self.corpus + other.corpus, max(self.branches, other.branches))

    @property
    def rate(self) -> float:
        """Tests a second, all jobs together."""
        return self.tests / self.seconds if self.seconds else 0.0

    def facts(self) -> dict[str, Any]:
        return {**vars(self), "laws": dict(self.laws), "rate": self.rate}

    def __str__(self) -> str:
        share = {name: f"{getattr(self, name) / max(self.tests, 1):.1%}" for name in SHARES}
        kept = f"{self.mutated / max(self.tests, 1):.0%} mutated from {self.corpus} kept, {self.branches} branches"
        held = ", ".join(f"{law} {count}" for law, count in self.laws.items())
        return (
            f"{self.tests} tests, {self.rate:.0f} a second; {share['empty']} with empty tensors, {share['special']} "
            f"with special values, {share['symbolic']} with symbolic sizes, {share['rejected']} without a value; "
            f"{f'{kept}; ' if self.corpus else ''}"
            f"{held}; {self.findings} findings"
        )


class Job:
    """One process's share of a campaign. `number` tells its random draws from the other jobs'. coverage: whether tests
    that reach something new are kept, and mutated. without: further parts of the fuzzer to leave out ("pairs",
    "special", "orders", "near-misses": effcc.fuzz.planted measures what each is good for)."""

    def __init__(
        self, folder: Path, seed: int, number: int, laws: Sequence[str], size: tuple[int, int] = (4, 12),
        subject: Subject | None = None, coverage: bool = True, without: Collection[str] = (),
    ):
        self.folder, self.seed, self.number, self.size, self.without = folder, seed, number, size, without
        self.laws = tuple(law for law in laws if not ("orders" in without and law in RECIPE_LAWS))
        self.subject = subject or Subject()
        self.state = folder / f"job-{seed}-{number}.json"
        self.tally, self.tried = Tally(), Tried()
        self.begun = 0
        """Tests in this process."""
        self.coverage = Coverage() if coverage else None
        self.corpus = Corpus(folder / f"corpus-{seed}-{number}") if coverage else None
        self.parent: Entry | None = None
        """What is being mutated, until its recipe has been as well."""
        if self.state.exists():
            kept = json.loads(self.state.read_text())
            self.tally = Tally(**{**kept["tally"], "laws": Counter(kept["tally"]["laws"])})
            self.tried = Tried.of(kept.get("tried", {}))

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

    @torch.no_grad()
    def test(self, key: str) -> None:
        """One graph and recipe against the laws."""
        self.begun += 1
        if self.begun == WARM:
            gc.collect()
            gc.freeze()
            gc.set_threshold(GARBAGE)
        if self.coverage is not None:
            self.coverage.take()  # (what a test reached that failed is not kept)
        number, between = divmod(self.tally.tests, 1 if "near-misses" in self.without else ALONE + 1)
        alone = self.alone(key) if between else None
        coverage = None if number % WATCHED or between else self.coverage
        compiles = alone is None and "compiled" in self.laws and number % LAW_EVERY["compiled"] == 0
        small = alone or (self.beside(key) if compiles and number % APART_EVERY else None)
        entry, parent = (small, None) if small else self.drawn(key, coverage is not None)
        graph = entry.graph
        self.tally.tests += 1
        self.tally.empty += any(0 in v.shape for v in graph.values if isinstance(v.type, Tensor))
        self.tally.symbolic += bool(graph.symbols)
        self.tally.mutated += parent is not None
        try:
            with limited(GRAPH_SECONDS, too_long):
                case = Case.of(graph, key, self.profiles(key), len(PROFILES) if small or compiles else 1, self.subject,
                               entry.recipe, coverage)  # fmt: skip
        except (Finding, TimeoutError) as error:
            finding = error if isinstance(error, Finding) else Finding("meaning", str(error), graph)
            self.report(finding, key, None, entry.recipe)
            return
        self.tally.rejected += not case.inputs
        self.tally.special += any(profile.special for profile in case.inputs)
        same_graph = parent is not None and parent.graph is graph
        for law in self.laws:
            if alone and (law not in ALONE_EVERY or between % ALONE_EVERY[law]):
                continue
            if not alone and number % LAW_EVERY.get(law, 1) or same_graph and law not in RECIPE_LAWS:
                continue
            self.tally.laws[law] += 1
            try:
                with limited(GRAPH_SECONDS, too_long):
                    hold(law, case)
            except Finding as finding:
                self.report(finding, key, law, entry.recipe)
                return
        if coverage is not None:
            self.keep(entry, parent, coverage)

    def profiles(self, key: str) -> list[Profile]:
        """Kinds of inputs in the order in which a test tries them."""
        first = random.Random(f"profile {key}").choice(PROFILES_DRAWN)
        every = (first, *(p for p in PROFILES if p is not first))
        return [p for p in every if not ("special" in self.without and p.special)]

    def drawn(self, key: str, mutated: bool) -> tuple[Entry, Entry | None]:
        """A test, and the one that it is a mutation of (mutated: it may be one)."""
        chance, choose = random.Random(f"recipe {key}"), Choices(rest=random.Random(key))
        recipe, kind = self.subject.draw(chance), chance.random()
        with contextlib.suppress(NothingDrawn):
            if self.corpus is not None and mutated and kind < MUTATED and self.corpus.entries:
                parent = self.parent = self.parent or self.corpus.pick(chance)
                if parent.failures >= FAILURES:
                    parent.failures, self.parent = 0, None
                    return Entry(parent.graph, self.subject.change(parent.recipe, chance)), parent
                parent.failures += 1  # (until something new is reached)
                mutator = GraphMutator(choose, self.tried, [e.graph for e in self.corpus.entries])
                together = self.subject.change(parent.recipe, chance) if chance.random() < 0.5 else parent.recipe
                return Entry(mutator.mutate(parent.graph, chance.randint(1, 3)), together), parent
            if self.corpus is not None and kind > 1 - SEEDED and "near-misses" not in self.without:
                return Entry(self.example(chance, choose), recipe), None
        tried = None if "pairs" in self.without else self.tried
        share = 0 if "near-misses" in self.without else NEAR_MISSES
        drawer = GraphDrawer(Choices(rest=random.Random(key)), tried, near_misses=share)
        return Entry(drawer.graph(*self.size), recipe), None

    def beside(self, key: str) -> Entry | None:
        """Ops side by side, each on inputs of its own; None where none could be drawn."""
        tried = None if "pairs" in self.without else self.tried
        drawer = GraphDrawer(Choices(rest=random.Random(key)), tried)
        with contextlib.suppress(EffccError, NothingDrawn):
            return Entry(apart(drawer, sum(self.size) // 2), self.subject.draw(random.Random(f"recipe {key}")))
        return None

    def alone(self, key: str) -> Entry | None:
        """A rule's pattern, or nearly, for a pass that has the rule; None where none was found."""
        chance = random.Random(f"alone {key}")
        found = patterns(self.subject.pool())
        drawer = GraphDrawer(Choices(rest=random.Random(key)))
        for _ in range(ATTEMPTS if found else 0):
            pattern, owners = chance.choice(chance.choice(found))
            with contextlib.suppress(EffccError, NothingDrawn):
                graph = meaningful(drawer.around(pattern))
                return Entry(graph, Recipe((drawn_pass(chance.choice(owners), chance),)))
        return None

    def example(self, chance: random.Random, choose: Choices) -> Graph:
        """An example of a rule or a pass, or (seldom: there are few) a graph that someone wrote."""
        sources, texts = examples(self.subject.pool()), written()
        if texts and (not sources or chance.random() < 0.2):
            return chance.choice(texts)
        if not sources:
            raise NothingDrawn("no pass has examples")
        drawer = GraphDrawer(choose, self.tried)
        graph = chance.choice(sources)(drawer)
        return drawer.or_same(lambda d, g: surrounded(d, g, size=d.integer(*self.size)), graph)

    def keep(self, entry: Entry, parent: Entry | None, coverage: Coverage) -> None:
        """Keep a test that reached something new."""
        assert self.corpus is not None
        coverage.graph(entry.graph)
        if self.corpus.add(entry, coverage.take()) and parent is not None:
            parent.failures = 0
        self.tally.corpus, self.tally.branches = len(self.corpus.entries), self.corpus.branches

    def report(self, finding: Finding, key: str, law: str | None, recipe: Recipe) -> None:
        """Reduce a finding and save it, unless one like it is known."""
        if (self.folder / f"{signature(finding)}.seen").exists():
            return
        (self.folder / f"{signature(finding)}.seen").touch()
        smallest = [finding]
        seen_on = [p for p in PROFILES if re.search(rf"\b{p.name}\b", finding.message)]
        profiles = seen_on or self.profiles(key)

        def fails(graph: Graph) -> bool:
            try:
                with limited(GRAPH_SECONDS, too_long):
                    case = Case.of(graph, key, profiles, subject=self.subject, recipe=recipe, most=1)
                    if law is not None:
                        hold(law, case)
            except Finding as again:
                if alike(again, finding):
                    smallest[0] = again
                    return True
            except Exception:
                return False
            return False

        reduce_graph(finding.graph, fails, SHRINK_SECONDS)
        fewest = with_fewer_passes(smallest[0], key, self.subject, profiles)
        save(fewest, self.folder, key, recipe)
        self.tally.findings += 1

    def save(self) -> None:
        if self.corpus is not None:
            self.corpus.save()
        tally = {**vars(self.tally), "laws": dict(self.tally.laws)}
        temporary = self.state.with_suffix(".part")
        temporary.write_text(json.dumps({"tally": tally, "tried": self.tried.facts()}))
        temporary.replace(self.state)


def with_fewer_passes(finding: Finding, key: str, subject: Subject, profiles: Sequence[Profile]) -> Finding:
    """The finding with no more passes than it takes, where passes on the graph itself are what fails."""
    smallest = [finding]

    def fails(passes: Sequence[str]) -> bool:
        try:
            case = Case.of(finding.graph, key, profiles, subject=subject, most=1)
            run_passes(case, finding.law, parse_pipeline(",".join(passes)))
        except Finding as again:
            if alike(again, finding):
                smallest[0] = again
                return True
        return False

    if finding.law in ("each-pass", "pass-orders") and fails(finding.passes):
        reduce_list(finding.passes, fails)
    return smallest[0]


def run(
    folder: Path, seed: int, jobs: int, laws: Sequence[str], seconds: float, tell: Callable[[str], None],
    subject: Subject | None = None, coverage: bool = True,
) -> tuple[Tally, list[Path]]:
    """Run jobs side by side until the time is over: what they did, and every finding in the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    workers = [context.Process(target=_work, args=(folder, seed, k, laws, seconds, queue, subject, coverage))
               for k in range(jobs)]
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


def ci(
    folder: Path, laws: Sequence[str], subject: Subject | None = None, coverage: bool = True
) -> tuple[Tally, list[Path]]:
    """As many tests as `make test` runs, the same each time."""
    folder.mkdir(parents=True, exist_ok=True)
    job = Job(folder, 0, 0, laws, subject=subject, coverage=coverage)
    start = time.monotonic()
    for k in range(CI_TESTS):
        job.test(f"ci {k}")
    job.tally.seconds = time.monotonic() - start
    return job.tally, sorted(folder.glob("*.effir"))


def _work(
    folder: Path, seed: int, number: int, laws: Sequence[str], seconds: float, queue: Any, subject: Subject | None,
    coverage: bool,
) -> None:
    last = 0.0
    limit_memory()

    def progress(tally: Tally) -> None:
        nonlocal last
        if time.monotonic() - last > 2:
            last = time.monotonic()
            queue.put((number, tally))

    queue.put((number, Job(folder, seed, number, laws, subject=subject, coverage=coverage).run(seconds, progress)))


def kind(finding: Finding) -> str:
    """What a finding says, without numbers, names of values and positions."""
    return f"{finding.law}: {re.sub(r'[-+0-9.e,x]+|inf|nan', '#', finding.message)[:80]}"


def alike(one: Finding, other: Finding) -> bool:
    """Whether two findings say the same of graphs of which one may be a part of the other: results differ in bits where
    all is exact, and beyond the bounds of rounding where something else in the graph is not."""
    differing = re.compile(r"differs in bits|before \(allowed")
    both = all(differing.search(finding.message) for finding in (one, other))
    return kind(one) == kind(other) or one.law == other.law and both


def signature(finding: Finding) -> str:
    return sha256(kind(finding).encode()).hexdigest()[:12]


def save(finding: Finding, folder: Path, key: str, recipe: Recipe, name: str | None = None) -> Path:
    """Writes NAME.effir, the inputs, and what failed; returns the first. By default the name tells what failed."""
    import numpy as np

    from effcc.ir.blob import Blob

    ops = "-".join(dict.fromkeys(n.op.name for n in finding.graph.walk() if n.op.name != "const"))[:60]
    path = folder / f"{name or f'{finding.law}-{ops}-{signature(finding)}'}.effir"
    about = [f"# {finding.law}: {finding.message}"]
    about += [f"# passes: {','.join(finding.passes)}"] if finding.passes else []
    if finding.law in RECIPE_LAWS:
        about.append(f"# recipe: {replace(recipe, passes=parse_pipeline(','.join(finding.passes)))}")
    path.write_text("\n".join([*about, f"# seed: {key}", str(finding.graph), ""]))
    arrays: dict[str, Any] = {**constants(finding.graph)}
    for k, tensor in enumerate(finding.inputs or ()):
        arrays[f"input {k}"] = Blob.from_torch(tensor).array
    np.savez(path.with_suffix(".npz"), **arrays)
    return path


def replay(path: Path) -> None:
    """Hold a saved finding's graph against its law again (against all, where its file names none); raises Finding where
    it still fails. Its constants are read from the arrays beside it, where there are any."""
    import numpy as np

    from effcc.text import parse

    text = path.read_text()
    law = text.split(":", 1)[0].removeprefix("# ")
    key = next((line.removeprefix("# seed: ") for line in text.splitlines() if line.startswith("# seed: ")), "0")
    known, arrays = {}, path.with_suffix(".npz")
    if arrays.exists():
        with np.load(arrays) as file:
            known = constants_in(file)
    case = Case.of(parse(text, known), key, recipe=written_in(text))
    for name in (law,) if law in LAWS else LAWS:
        hold(name, case)
