"""A campaign of broken files: worker processes that a watchdog replaces when they crash or hang, and what they find.

File number k of a seed is always the same one. A folder holds the outcomes so far, a line a file, so that a later call
goes on; and the findings, each the broken file and a .json that says what was done with it, one for each place in effcc
that is to blame.
"""

from __future__ import annotations

import contextlib
import faulthandler
import hashlib
import json
import multiprocessing
import os
import random
import re
import resource
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from effcc.errors import EffccError
from effcc.fuzz.malformed import artifacts, models, octets, texts
from effcc.fuzz.malformed.corpus import Corpus
from effcc.fuzz.malformed.law import Broken, Sandbox, Watch, hold

MEMORY = 4 << 30
STUCK = 60.0
"""Seconds by the clock after which a worker that gives no answer is killed; the law itself counts the CPU's seconds."""
FILES_A_WORKER = 1500
"""What was compiled stays loaded, so a worker's memory grows."""
COMMANDS = ("opt FILE", "inspect FILE", "run FILE --random", "verify FILE --against torch", "compile FILE -o OUT")


@dataclass(frozen=True)
class BrokenFile:
    """suffix: of its name, with the dot.   changes: by which mutators it was made."""

    suffix: str
    data: bytes
    changes: tuple[str, ...]


def make(corpus: Corpus, key: str) -> BrokenFile:
    """The broken file of a key."""
    draw = random.Random(key)
    kind = draw.choices(("onnx", "effir", "effcc"), (60, 25, 15))[0]
    if kind == "onnx":
        data, changes = models.mutate(draw.choice(corpus.onnx), draw, corpus.onnx)
    elif kind == "effir":
        text, changes = texts.mutate(draw.choice(corpus.effir), draw, corpus.effir)
        data = text.encode()
        if draw.random() < 0.1:
            data, changes = octets.mutate(data, draw), [*changes, "octets"]
    else:
        data, changes = artifacts.mutate(draw.choice(corpus.effcc), draw)
    return BrokenFile(f".{kind}", data, tuple(changes))


def actions(file: BrokenFile, draw: random.Random) -> Iterator[tuple[str, Sequence[str]]]:
    """Pairs of (an action, what follows if it is refused): what is refused on import needs no passes.

    Code is generated for few, as that takes a second.
    """
    command = draw.choice(COMMANDS)
    if file.suffix == ".effcc":
        yield "read", ()
        yield "load", ()
        harmless = file.changes == ("octets",)  # else what is run may be code that was cut off
        if draw.random() < 0.4:
            last = "run FILE --random" if harmless else "inspect FILE --graph"
            yield draw.choice(("inspect FILE", "verify FILE", last)), ()
    else:
        yield "import" if file.suffix == ".onnx" else "print", (command,) if draw.random() < 0.2 else ()
        rare = draw.random()
        if rare < 0.2:
            yield "passes", ()
        elif rare < 0.22:
            yield "compile", ()
        elif rare < 0.25:
            yield command, ()
    if draw.random() < 0.005:
        yield f"$ {'inspect FILE' if file.suffix == '.effcc' else command}", ()


@dataclass
class Tally:
    """What was done: files by kind, outcomes of actions, mutators."""

    files: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)
    slowest: float = 0.0
    seconds: float = 0.0

    def add(self, answer: dict[str, Any]) -> None:
        self.files[answer["kind"]] += 1
        self.outcomes.update(answer["outcomes"].values())
        self.slowest = max(self.slowest, answer["seconds"])

    def facts(self) -> dict[str, Any]:
        return {**vars(self), "files": dict(self.files), "outcomes": dict(self.outcomes)}

    def __str__(self) -> str:
        kinds = ", ".join(f"{n} {kind}" for kind, n in self.files.most_common())
        ends = ", ".join(f"{name} {n}" for name, n in self.outcomes.most_common())
        return f"{self.files.total()} files ({kinds}); actions: {ends}; the slowest file took {self.slowest:.1f} s"


# -- the watchdog --
class Worker:
    """A worker process, and the file that it is at."""

    def __init__(self, folder: Path, number: int, seed: int):
        self.folder, self.number, self.seed = folder, number, seed
        self.box = folder / f"sandbox-{number}"
        self.start()

    def start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=work, args=(self.folder, self.number, self.seed, theirs), daemon=True)
        self.process.start()
        theirs.close()
        self.file: int | None = None
        self.at, self.since, self.done = "start", time.monotonic(), 0

    def give(self, file: int) -> None:
        self.file, self.at, self.since = file, "file", time.monotonic()
        self.connection.send(file)

    def stop(self) -> None:
        self.process.kill()
        self.process.join()
        self.connection.close()

    def answer(self) -> dict[str, Any] | None:
        """What it says, None while it works; a dead or stuck worker's file broke the law."""
        try:
            if self.connection.poll():
                said = self.connection.recv()
                if isinstance(said, str):  # what it does next
                    self.at, self.since = said, time.monotonic()
                    return None
                return said
        except (EOFError, ConnectionError):
            self.process.join(5)
            return self._broke("crash", f"the process ended with status {self.process.exitcode}")
        if time.monotonic() - self.since > (STUCK if self.file is not None else 5 * STUCK):
            return self._broke("hang", f"no answer for {STUCK:g} s")
        return None

    def _broke(self, kind: str, message: str) -> dict[str, Any]:
        if self.file is None:
            raise EffccError(f"a worker does not start: {message}", where=self.folder / f"worker-{self.number}.log")
        log = (self.folder / f"worker-{self.number}.log").read_text(errors="replace")[-20_000:]
        found = next(iter(sorted(self.box.glob("model/m.*"))), None)
        trace = log[log.rfind("Fatal Python error") :] if "Fatal Python error" in log else log[log.rfind("Timeout (") :]
        newest_first = "\n".join(reversed(re.sub(r' in (\w+)$', r", in \1", trace, flags=re.M).splitlines()))
        finding = {"kind": kind, "message": f"{self.at}: {message}", "trace": newest_first, "action": self.at}
        suffix = found.suffix if found else ".none"
        return {"number": self.file, "kind": suffix, "changes": [], "outcomes": {self.at: kind}, "seconds": 0.0,
                "finding": finding, "last": True}  # fmt: skip


def run(
    folder: Path, seed: int, jobs: int, files: int, tell: Callable[[str], None] = lambda message: None
) -> tuple[Tally, list[Path]]:
    """Hold files 0 to `files` - 1 of a seed against the law: what was done, and every finding in the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    folder = folder.resolve()
    tell("collecting whole files")
    Corpus.in_folder(folder)
    record = folder / f"done-{seed}.jsonl"
    tally, done = Tally(), set()
    for answer in _recorded(record):
        if answer["number"] < files:
            done.add(answer["number"])
            tally.add(answer)
    todo = [k for k in range(files) if k not in done]
    if record.exists() and not record.read_text().endswith("\n"):  # it was stopped while it wrote
        record.write_text(record.read_text() + "\n")
    start = time.monotonic()
    workers = [Worker(folder, k, seed) for k in range(min(jobs, len(todo)))]
    try:
        with record.open("a") as out:
            while workers:
                wait([w.connection for w in workers], timeout=0.5)
                for w in list(workers):
                    answer = w.answer()
                    if answer is None:
                        continue
                    if answer != {}:  # {}: it is ready
                        if finding := answer.pop("finding", None):
                            _keep(folder, finding, answer, w)
                        last = answer.pop("last", False)
                        tally.add(answer)
                        out.write(json.dumps(answer) + "\n")
                        out.flush()
                        w.done += 1
                        if last or w.done >= FILES_A_WORKER:
                            w.stop()
                            w.start()
                            continue
                    if todo:
                        w.give(todo.pop(0))
                    else:
                        w.stop()
                        workers.remove(w)
                    tally.seconds = time.monotonic() - start
                    tell(str(tally))
    finally:
        for w in workers:
            w.stop()
    return tally, findings(folder)


def findings(folder: Path) -> list[Path]:
    """The broken files that were kept."""
    return sorted(p for p in folder.glob("*-*.*") if p.suffix in (".onnx", ".effir", ".effcc"))


def _recorded(path: Path) -> Iterator[dict[str, Any]]:
    if path.exists():
        for line in path.read_text().splitlines():
            with contextlib.suppress(json.JSONDecodeError):  # it was stopped while it wrote
                yield json.loads(line)


def _keep(folder: Path, finding: dict[str, Any], answer: dict[str, Any], worker: Worker) -> None:
    """Copies the worker's file into the folder, unless its place in effcc is known."""
    site = Broken(finding["kind"], finding["message"], finding["trace"]).site
    digest = hashlib.sha256(f"{finding['kind']} {site}".encode()).hexdigest()[:10]
    path = folder / f"{finding['kind']}-{digest}{answer['kind']}"
    if path.exists():
        return
    path.write_bytes((worker.box / "model" / f"m{answer['kind']}").read_bytes())
    facts = {"site": site, **finding, "seed": worker.seed, "number": answer["number"], "changes": answer["changes"]}
    about(path).write_text(json.dumps(facts, indent=1))


def about(finding: Path) -> Path:
    """The file that says what a finding is."""
    return finding.with_suffix(f"{finding.suffix}.json")


def replay(path: Path) -> None:
    """Do again with a kept file what broke the law; raises Broken where it still does."""
    import tempfile

    action = json.loads(about(path).read_text())["action"]
    here = os.getcwd()
    with tempfile.TemporaryDirectory() as folder:
        box = Sandbox.make(Path(folder))
        copy = box.model / f"m{path.suffix}"
        copy.write_bytes(path.read_bytes())
        os.chdir(box.model)
        try:
            hold(box, Watch(box), copy, action)
        finally:
            os.chdir(here)


# -- in a worker --
def work(folder: Path, number: int, seed: int, connection: Connection) -> None:
    """Make and test the files whose numbers come, until none come any more."""
    log = open(folder / f"worker-{number}.log", "w")  # as long as the process
    os.dup2(log.fileno(), 1)
    os.dup2(log.fileno(), 2)
    faulthandler.enable(log)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    box = Sandbox.make(folder / f"sandbox-{number}")
    os.chdir(box.model)
    corpus = Corpus.in_folder(folder)
    warm(box)
    watch = Watch(box)
    connection.send({})
    while True:
        try:
            file = connection.recv()
        except EOFError:
            return
        faulthandler.dump_traceback_later(STUCK - 5, file=log)
        connection.send(test(box, watch, corpus, seed, file, connection.send))
        faulthandler.cancel_dump_traceback_later()


def warm(box: Sandbox) -> None:
    """Import what compiling imports, and settle in the sandbox what is written once, such as a folder of settings."""
    import warnings

    import numpy as np

    from effcc.ir.lazy import torch

    warnings.simplefilter("ignore")
    np.seterr(all="ignore")
    torch.set_num_threads(1)
    whole = Corpus.small()
    for kind, suffix in ((whole.onnx, ".onnx"), (whole.effir, ".effir"), (whole.effcc, ".effcc")):
        path = box.model / f"m{suffix}"
        path.write_bytes(kind[0] if isinstance(kind[0], bytes) else kind[0].encode())
        hold(box, Watch(box), path, "inspect FILE")
        path.unlink()


def test(
    box: Sandbox, watch: Watch, corpus: Corpus, seed: int, number: int, say: Callable[[str], None] = lambda text: None
) -> dict[str, Any]:
    """One file against the law: its outcomes by action, and a finding if there is one."""
    key = f"{seed} {number}"
    file = make(corpus, key)
    for old in box.model.glob("m.*"):
        old.unlink()
    path = box.model / f"m{file.suffix}"
    path.write_bytes(file.data)
    answer: dict[str, Any] = {"number": number, "kind": file.suffix, "changes": list(file.changes), "outcomes": {}}
    start = time.process_time()
    for action, instead in actions(file, random.Random(f"actions {key}")):
        for one in (action, *instead):
            if one is not action and answer["outcomes"].get(action) != "refused":
                break
            say(one)
            try:
                answer["outcomes"][one] = hold(box, watch, path, one)
            except Broken as broken:
                answer["outcomes"][one] = broken.kind
                answer["finding"] = {
                    "kind": broken.kind, "message": broken.message, "trace": broken.trace, "action": one,
                }  # fmt: skip
                answer["last"] = broken.kind in ("hang", "memory")
                break
        if "refused" in answer["outcomes"].values() and file.suffix != ".effcc" or "finding" in answer:
            break
    answer["seconds"] = time.process_time() - start
    return answer
