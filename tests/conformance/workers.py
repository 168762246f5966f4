"""Cases in worker processes: a crash or a hang costs its case and a fresh worker; an interrupted run goes on.

A worker prints `ready`, then reads one case a line from stdin and answers each with one JSON line: {"case": ...,
"outcome": ..., "reason": ...}. Before it, it may print any number of {"progress": ...} lines, which give it new time.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

Answer = dict[str, Any]
START = 300
"""Seconds in which a worker has to say `ready`."""


class Worker:
    """A worker process, and what it is at."""

    def __init__(self, command: list[str], limit: float):
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen([sys.executable, *command], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=subprocess.DEVNULL, env=environment)  # fmt: skip
        self.text = ""
        self.limit, self.case, self.deadline = limit, "", time.monotonic() + START

    def give(self, case: str) -> None:
        assert self.process.stdin is not None
        self.case, self.deadline = case, time.monotonic() + self.limit + 30
        self.process.stdin.write(case.encode() + b"\n")
        self.process.stdin.flush()

    def answer(self) -> Answer | str | None:
        """ "ready", an answer, or None if there is none yet; a dead or overdue worker answers with a failure."""
        line = self._line()
        if line == "ready":
            return line
        if line:
            told = json.loads(line)
            if "progress" not in told:
                return told
            self.deadline = time.monotonic() + self.limit + 30
            return None
        code = self.process.poll()
        if line is None and code is not None:
            if not self.case:
                raise RuntimeError(f"a worker ended with status {code} before its first case")
            return self._failure(f"crashed (status {code})", 0)
        if time.monotonic() > self.deadline:
            if not self.case:
                raise RuntimeError("a worker does not start")
            return self._failure("hung (killed)", self.limit)
        return None

    def _line(self) -> str | None:
        """The next whole line, "" where there is none yet, None at the end. (A buffered reader would hold lines back
        that select no longer sees.)"""
        assert self.process.stdout is not None
        if "\n" not in self.text:
            if not select.select([self.process.stdout], [], [], 0.05)[0]:
                return ""
            more = os.read(self.process.stdout.fileno(), 1 << 16)
            if not more:
                self.process.wait()
                return None
            self.text += more.decode()
        line, found, rest = self.text.partition("\n")
        if not found:
            return ""
        self.text = rest
        return line.strip()

    def _failure(self, reason: str, seconds: float) -> Answer:
        return {"case": self.case, "outcome": "fail", "reason": reason, "seconds": seconds}

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()


def run_all(names: list[str], command: list[str], jobs: int, limit: float, record: Path,
            progress: bool = True) -> dict[str, Answer]:  # fmt: skip
    """Run the cases that the record does not hold yet; returns outcomes by case.

    command: a worker's, after the interpreter. limit: seconds until a silent worker counts as hung.
    """
    done = read_record(record)
    todo = [n for n in names if n not in done]
    total = len(todo)
    with record.open("a") as out:

        def note(answer: Answer) -> None:
            done[answer["case"]] = answer
            out.write(json.dumps(answer) + "\n")
            out.flush()

        workers = [Worker(command, limit) for _ in range(min(jobs, max(len(todo), 1)))] if todo else []
        try:
            while workers:
                for w in list(workers):
                    answer = w.answer()
                    if answer is None:
                        continue
                    if not isinstance(answer, str):
                        note(answer)
                        w.case = ""
                    ended = isinstance(answer, dict) and answer["reason"].startswith(("crashed", "hung"))
                    if ended or w.process.poll() is not None:
                        w.stop()
                        workers[workers.index(w)] = Worker(command, limit)
                    elif todo:
                        w.give(todo.pop(0))
                        if progress and len(todo) % 100 == 0:
                            print(f"{total - len(todo)}/{total}", file=sys.stderr, flush=True)
                    else:
                        w.stop()
                        workers.remove(w)
        finally:
            for w in workers:
                w.stop()
    return {n: done[n] for n in names if n in done}


def read_record(path: Path) -> dict[str, Answer]:
    """The outcomes of an earlier, maybe interrupted, run."""
    if not path.exists():
        return {}
    out = {}
    for line in path.read_text().splitlines():
        with contextlib.suppress(json.JSONDecodeError):
            answer = json.loads(line)
            out[answer["case"]] = answer
    return out


def unlisted(outcomes: Mapping[str, Answer], listed: Path) -> list[str]:
    """Cases that do not pass and that a list of known ones ("case: ...", one a line) does not name."""
    known = {line.split(": ")[0] for line in listed.read_text().splitlines()}
    return [n for n, a in outcomes.items() if a["outcome"] != "pass" and n not in known]
