"""How good the fuzzer is, measured: campaigns on copies of this tree in each of which one bug was planted.

    python -m effcc.fuzz.planted --seeds 3 --seconds 120 --folder planted
    python -m effcc.fuzz.planted --verify            # each bug shows on the graph beside it, and only there
    python -m effcc.fuzz.planted --without pairs --seconds 120 --count 20
    python -m effcc.fuzz.planted --nnsmith PYTHON --seconds 120 --count 20   # NNSmith's models instead of our tests

The bugs are patches in `bugs/`, each with a graph on which it shows. A finding counts only if the tree without the bug
holds on the same graph. What was run is kept as JSON lines in the folder, so that a later call goes on; the report
says which share of the bugs was found by at least one seed, how soon, and by which law. --until-found spends further
seeds on the bugs alone that no earlier one found. --nnsmith takes a Python that has NNSmith and what effcc needs.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from effcc.errors import EffccError
from effcc.fuzz.limit import GRAPH_SECONDS, limit_memory, limited, too_long

HERE = Path(__file__).resolve().parent
FOLDER = HERE / "bugs"
ROOMS = ("effcc", "passes", "backends", "frontends", "fuzz")
"""The folders of a tree that a campaign runs on."""
PARTS = ("pairs", "special", "orders", "coverage", "near-misses")
"""What a campaign can do without, to see what it is good for."""
NNSMITH = HERE.parent / "tests" / "conformance" / "nnsmith.py"
"""Runs NNSmith's models through effcc."""
VERIFIED_SEEDS = 8
REPLAY_SECONDS = 300.0
START_SECONDS = 60.0
"""How long a process may take beyond its campaign, to start and to finish the graph that it has begun."""


@dataclass(frozen=True)
class Bug:
    """One fault: the patch that plants it, and what its header says."""

    name: str
    text: str

    @cached_property
    def header(self) -> list[str]:
        return [line.removeprefix("# ") for line in self.text.splitlines() if line.startswith("# ")]

    @property
    def what(self) -> str:
        """What it breaks."""
        return self.header[0]

    def fact(self, name: str) -> str | None:
        """A line of the header: checklist, guard, law or after."""
        return next((line.partition(": ")[2] for line in self.header[1:] if line.startswith(f"{name}: ")), None)

    @property
    def trigger(self) -> Path:
        """A graph on which it shows."""
        return FOLDER / f"{self.name}.effir"


def bugs() -> list[Bug]:
    """All of them, by name."""
    return [Bug(path.stem, path.read_text()) for path in sorted(FOLDER.glob("*.patch"))]


# -- planting ----------------------------------------------------------------------------------------------------------
def patched(patch: str, read: Callable[[str], str]) -> dict[str, str]:
    """The texts of the files that a unified diff changes. EffccError where what a hunk replaces is not in a file
    exactly once: line numbers may move, the code may not."""
    out: dict[str, str] = {}
    for part in patch.split("\n--- a/")[1:]:
        name, _, rest = part.partition("\n")
        text = out.get(name) or read(name)
        for hunk in f"\n{rest}".split("\n@@ ")[1:]:
            lines = hunk.splitlines()[1:]
            before, after = ("".join(f"{line[1:]}\n" for line in lines if line[:1] in keep) for keep in (" -", " +"))
            if text.count(before) != 1:
                hint = "the code has moved: write the patch anew"
                raise EffccError(f"a hunk fits {text.count(before)} times, not once", where=name, hint=hint)
            text = text.replace(before, after)
        out[name] = text
    return out


def plant(bug: Bug | None, root: Path, target: Path) -> None:
    """Copy the tree and plant the bug in it."""
    for room in ROOMS:
        shutil.copytree(root / room, target / room, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    for name, text in patched(bug.text, lambda name: (root / name).read_text()).items() if bug else ():
        (target / name).write_text(text)


@contextlib.contextmanager
def planted(bug: Bug) -> Iterator[Path]:
    """The root of a tree with the bug, as long as it is needed."""
    with tempfile.TemporaryDirectory(prefix="effcc-planted-") as folder:
        try:
            plant(bug, HERE.parent, Path(folder))
        except EffccError as error:
            raise EffccError(f"{bug.name}: {error.message}", where=error.where, hint=error.hint) from None
        yield Path(folder)


def run_in(root: Path, command: Sequence[str], seconds: float, cache: Path) -> subprocess.CompletedProcess[str]:
    """Run a command in a tree. Kernels are kept by the hash of the sources that make them: trees may share a folder."""
    environment = {**os.environ, "PYTHONPATH": str(root), "EFFCC_CACHE_DIR": str(cache), "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, timeout=seconds)


@dataclass(frozen=True)
class Fuzzer:
    """What hunts: this one, without some parts, or NNSmith's models. nnsmith: a Python that has NNSmith and what effcc
    needs."""

    without: tuple[str, ...] = ()
    nnsmith: str | None = None

    @property
    def label(self) -> tuple[str, ...]:
        """What tells its outcomes from others."""
        return self.without if self.nnsmith is None else ("nnsmith",)

    def hunting(self, folder: Path, seed: int, seconds: float, known: Sequence[str], cache: Path) -> list[str]:
        """The command that ends with the first finding, unless that is known, and tells it as JSON."""
        options = ["--seed", str(seed), *(f"--known={one}" for one in known)]
        if self.nnsmith is not None:
            dtypes = ["--folder", str(folder), "--dtypes", str(cache / "nnsmith.yaml")]
            return [self.nnsmith, str(NNSMITH), "--until-found", str(seconds), *dtypes, *options]
        parts = [f"--without={part}" for part in self.without]
        return [sys.executable, "-m", "effcc.fuzz.planted", "--hunt", str(folder), "--seconds", str(seconds), *options,
                *parts]

    def replaying(self, found: Path) -> list[str]:
        """The command whose status is 0 where what was found holds."""
        if self.nnsmith is not None and found.is_dir():
            return [self.nnsmith, str(NNSMITH), "--replay", str(found)]
        return [sys.executable, "-m", "effcc", "fuzz", "--replay", str(found)]


# -- a campaign until the first finding: what runs in the tree with the bug --------------------------------------------
def hunt(
    folder: Path, seed: int, seconds: float, without: Sequence[str] = (), known: Sequence[str] = ()
) -> dict[str, Any]:
    """Test until something is found or the time is over. The graph at hand is in the folder before it is tested, for
    bugs that end the process. known: what was found before on the tree without the bug, too, by its signature."""
    from effcc.fuzz.campaign import Job, save, signature
    from effcc.fuzz.case import Finding
    from effcc.fuzz.corpus import Entry
    from effcc.fuzz.laws import LAWS
    from effcc.fuzz.recipe import Recipe

    class Found(Exception):
        pass

    class Hunt(Job):
        def drawn(self, key: str, mutated: bool) -> tuple[Entry, Entry | None]:
            entry, parent = super().drawn(key, mutated)
            save(Finding("compiled", "the process died", entry.graph), folder, key, entry.recipe, "last")
            return entry, parent

        def report(self, finding: Finding, key: str, law: str | None, recipe: Recipe) -> None:
            if signature(finding) not in known:
                raise Found(finding, save(finding, folder, key, recipe, "found"))

    limit_memory()
    job = Hunt(folder, seed, len(known), tuple(LAWS), coverage="coverage" not in without, without=without)
    start = time.monotonic()
    try:
        job.run(seconds)
    except Found as found:
        finding, path = found.args
        return {"law": finding.law, "message": finding.message[:200], "graph": str(path), "tests": job.tally.tests,
                "signature": signature(finding), "seconds": time.monotonic() - start}  # fmt: skip
    return {"law": None, "tests": job.tally.tests, "seconds": time.monotonic() - start}


def shows(trigger: Path, laws: Sequence[str] = ()) -> str | None:
    """What the first law says that does not hold on a graph, with any of some seeds; None where all hold."""
    from effcc.fuzz.case import Case, Finding
    from effcc.fuzz.laws import LAWS
    from effcc.text import parse

    graph = parse(trigger.read_text())
    for law in laws or LAWS:
        for seed in range(VERIFIED_SEEDS):
            try:
                with limited(GRAPH_SECONDS, too_long):
                    LAWS[law](Case.of(graph, seed))
            except Finding as finding:
                return str(finding)
    return None


# -- measuring: what runs in the tree without -------------------------------------------------------------------------
@dataclass(frozen=True)
class Outcome:
    """One campaign: which law saw the bug, if any, and after how long."""

    bug: str
    seed: int
    without: tuple[str, ...]
    law: str | None
    message: str
    seconds: float
    tests: int
    false_alarms: int = 0
    """Findings on graphs on which the tree without the bug fails, too."""


def measure(bug: Bug, seed: int, seconds: float, fuzzer: Fuzzer, cache: Path) -> Outcome:
    """A campaign on a tree with the bug. What it finds on the tree without, too, is a false alarm: it goes on."""
    known: list[str] = []
    tests, spent = 0, 0.0
    with planted(bug) as root:
        while True:
            told = campaign(bug, root, seed, seconds - spent, fuzzer, known, cache)
            tests, spent = tests + told["tests"], spent + told["seconds"]
            if told["law"] is None or holds(fuzzer, Path(told["graph"]), cache):
                break
            known.append(told["signature"])
    return Outcome(bug.name, seed, fuzzer.label, told["law"], told.get("message", ""), round(spent, 1), tests,
                   len(known))


def campaign(
    bug: Bug, root: Path, seed: int, seconds: float, fuzzer: Fuzzer, known: Sequence[str], cache: Path
) -> dict[str, Any]:
    """What `hunt` tells from a process of its own, or how that ended."""
    folder, start = root / "hunt", time.monotonic()
    folder.mkdir(exist_ok=True)
    hunting = fuzzer.hunting(folder, seed, seconds, known, cache)
    try:
        done = run_in(root, hunting, seconds + START_SECONDS, cache)
    except subprocess.TimeoutExpired:
        ended = "the process does not end"
    else:
        if done.returncode > 0:
            told = done.stderr.strip()[-800:]
            raise EffccError(f"the campaign ended with status {done.returncode}: {told}", where=bug.name)
        if done.returncode == 0:
            return json.loads(done.stdout.splitlines()[-1])
        ended = f"the process died ({signal.Signals(-done.returncode).name})"
    return {"law": "compiled", "message": ended, "graph": str(folder / "last.effir"), "tests": 0, "signature": ended,
            "seconds": time.monotonic() - start}  # fmt: skip


def holds(fuzzer: Fuzzer, found: Path, cache: Path) -> bool:
    """Whether this tree holds the law that another tree breaks."""
    return run_in(HERE.parent, fuzzer.replaying(found), REPLAY_SECONDS, cache).returncode == 0


def verify(bug: Bug, cache: Path) -> str:
    """What its graph shows in a tree with the bug. EffccError where it shows nothing."""
    with planted(bug) as root:
        law = bug.fact("law") or ""
        showing = [sys.executable, "-m", "effcc.fuzz.planted", "--shows", str(bug.trigger), "--law", law]
        done = run_in(root, showing, REPLAY_SECONDS, cache)
    if done.returncode < 0:
        return f"the process died ({done.returncode})"
    if done.returncode:
        raise EffccError(f"{bug.name}: {done.stderr.strip()[-800:]}", where=bug.trigger)
    said = done.stdout.strip()
    if not said:
        raise EffccError(f"{bug.name} does not show", where=bug.trigger, hint="mend the graph, or drop the bug")
    return said


def chosen(count: int | None) -> list[Bug]:
    """All bugs, or some drawn with a fixed seed: the same for each ablation."""
    every = bugs()
    if not every:
        raise EffccError("the planted bugs are not installed", hint="run it in a checkout")
    return every if count is None else sorted(random.Random(0).sample(every, count), key=lambda bug: bug.name)


def kept(path: Path) -> list[Outcome]:
    lines = path.read_text().splitlines() if path.exists() else []
    return [Outcome(**{**facts, "without": tuple(facts["without"])}) for facts in map(json.loads, lines)]


def report(outcomes: Sequence[Outcome], seconds: float) -> str:
    """Share found by at least one seed, time to detection over all campaigns (one that found nothing counts as its
    whole time), and the matrix of laws and bugs."""
    if not outcomes:
        return "nothing was run"
    found = {o.bug for o in outcomes if o.law is not None}
    every = {o.bug for o in outcomes}
    times = [o.seconds if o.law is not None else seconds for o in outcomes]
    ninth = quantiles(times, n=10)[8] if len(times) > 1 else times[0]
    saw = Counter((o.bug, o.law) for o in outcomes if o.law is not None)
    laws = sorted({law for _, law in saw if law})
    width = max(len("seen by"), *map(len, every))

    def row(name: str, counts: Callable[[str], int]) -> str:
        return f"{name:{width}}  " + "  ".join(f"{counts(law) or '.':>{len(law)}}" for law in laws)

    lines = [
        f"{len(outcomes)} campaigns of at most {seconds:g} s: {len(found)} of {len(every)} bugs found "
        f"({len(found) / len(every):.0%}), median {median(times):.1f} s, p90 {ninth:.1f} s, "
        f"{sum(o.false_alarms for o in outcomes)} false alarms",
        f"{'':{width}}  {'  '.join(laws)}",
        *(row(bug, lambda law, bug=bug: saw[bug, law]) for bug in sorted(every)),
        row("seen by", lambda law: sum(n for (_, w), n in saw.items() if w == law)),
    ]
    if missed := sorted(every - found):
        lines.append(f"missed: {', '.join(missed)}")
    return "\n".join(lines)


def run(
    bugs: Sequence[Bug], seeds: int, seconds: float, jobs: int, fuzzer: Fuzzer, folder: Path,
    until_found: bool = False,
) -> str:
    """Campaigns for each bug and seed that the folder does not hold yet, then the report over them. until_found: a bug
    that a seed has found takes no more: the share of bugs found is the same, the times are of fewer campaigns."""
    from concurrent.futures import ThreadPoolExecutor, as_completed

    folder.mkdir(parents=True, exist_ok=True)
    path, cache = folder / "outcomes.jsonl", folder / "cache"
    names = {bug.name for bug in bugs}

    def known() -> dict[tuple[str, int], Outcome]:
        return {(o.bug, o.seed): o for o in kept(path) if o.without == fuzzer.label and o.bug in names}

    for seed in range(seeds):
        done = known()
        found = {o.bug for o in done.values() if o.law is not None} if until_found else set()
        due = [bug for bug in bugs if (bug.name, seed) not in done and bug.name not in found]
        with ThreadPoolExecutor(jobs) as pool:
            futures = [pool.submit(measure, bug, seed, seconds, fuzzer, cache) for bug in due]
            for k, future in enumerate(as_completed(futures)):
                if future.exception() is not None:
                    pool.shutdown(cancel_futures=True)
                outcome = future.result()
                with path.open("a") as file:
                    file.write(json.dumps(asdict(outcome)) + "\n")
                saw = f"{outcome.law or 'missed'}, {outcome.seconds:.1f} s, {outcome.tests} tests"
                print(f"[{k + 1}/{len(due)}] {outcome.bug} seed {outcome.seed}: {saw}", flush=True)
    return report([o for o in known().values() if o.seed < seeds], seconds)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m effcc.fuzz.planted", description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--seeds", type=int, default=3, help="campaigns for each bug")
    parser.add_argument("--seconds", type=float, default=120, help="of a campaign, at most")
    parser.add_argument("--jobs", type=int, default=1, help="campaigns side by side")
    parser.add_argument("--folder", type=Path, default=Path("planted"), help="where outcomes are kept")
    parser.add_argument("--without", action="append", default=[], choices=PARTS, help="a part to leave out")
    parser.add_argument("--nnsmith", metavar="PYTHON", help="run NNSmith's models, by a Python that has it")
    parser.add_argument("--count", type=int, help="only so many bugs, drawn with a fixed seed")
    parser.add_argument("--until-found", action="store_true", help="no further seeds for a bug that one has found")
    parser.add_argument("--bug", action="append", help="only this one")
    parser.add_argument("--verify", action="store_true", help="only see that each bug shows on its graph")
    parser.add_argument("--hunt", type=Path, metavar="FOLDER", help=argparse.SUPPRESS)
    parser.add_argument("--seed", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--known", action="append", default=[], help=argparse.SUPPRESS)
    parser.add_argument("--shows", type=Path, metavar="FILE", help=argparse.SUPPRESS)
    parser.add_argument("--law", help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.hunt:
        print(json.dumps(hunt(given.hunt, given.seed, given.seconds, given.without, given.known)))
        return
    if given.shows:
        print(shows(given.shows, [given.law]) or "")
        return
    some = [bug for bug in chosen(given.count) if not given.bug or bug.name in given.bug]
    if given.verify:
        cache = given.folder / "cache"
        for bug in some:
            if said := shows(bug.trigger):
                raise EffccError(f"the tree without {bug.name} fails on its graph: {said}", where=bug.trigger)
            print(f"{bug.name}: {verify(bug, cache)}", flush=True)
        return
    fuzzer = Fuzzer(tuple(given.without), given.nnsmith)
    print(run(some, given.seeds, given.seconds, given.jobs, fuzzer, given.folder.resolve(), given.until_found))


if __name__ == "__main__":
    try:
        main()
    except EffccError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
