"""Searching one option of one pass: the strongest value with which the model keeps within a budget.

Quality is taken to fall from the option's gentlest value to its strongest. A value is tried by compiling the model with
it and running the program on calibration data. Bisection looks for the strongest value that keeps within the budget on
one half of the data (which passes may look at too); it must then keep within it on the other half, which nothing else
has seen. What was found is measured once more on all samples, and timed beside the unmodified model.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from effcc.errors import InputError
from effcc.search.data import Samples
from effcc.search.metrics import Budget
from effcc.search.options import Hole, find_hole

if TYPE_CHECKING:
    from effcc.program import Program

EVALUATIONS = 24
"""The most values that are tried."""
ROUNDS = 15
"""Timed runs of each program in the last measurement."""
MEASURING = 20.0

Compiled = Callable[[Any, Mapping[str, Any], Samples | None], "Program"]


@dataclass(frozen=True)
class Trial:
    """A value that was tried: the metric on the half that is searched and on the half that accepts (None: not looked
    at), whether it was within the budget on both, and the time of a run over that of the unmodified model's."""

    value: float
    search: float
    accept: float | None
    kept: bool
    time: float


@dataclass(frozen=True)
class Outcome:
    """What a search found. `chosen` None: nothing stronger than the unmodified model, which was returned.

    unmodified, quality: the metric of the unmodified model and of the program that was returned, on all samples.
    milliseconds: medians of runs that took turns, of both.  stopped: why no more values were tried.
    """

    budget: str
    option: str
    samples: tuple[int, int]
    trials: tuple[Trial, ...]
    chosen: float | None
    unmodified: float
    quality: float
    milliseconds: Mapping[str, float]
    stopped: str

    @property
    def slower(self) -> bool:
        return self.chosen is not None and self.milliseconds["chosen"] > self.milliseconds["unmodified"]

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "slower": self.slower}


@dataclass
class Search:
    """One search. `compiled(passes, extra, samples)` makes a program."""

    hole: Hole
    budget: Budget
    samples: Samples
    compiled: Compiled
    passes: Any
    extra: Mapping[str, Any]
    tell: Callable[[str], None] = lambda message: None
    minutes: float | None = None
    trials: dict[int, Trial] = field(default_factory=dict)
    best: tuple[int, Any] | None = None
    stopped: str = "bisected"

    def run(self) -> Program:
        """The program of the strongest value that keeps the budget, else that of the unmodified model."""
        self.check()
        self.deadline = None if self.minutes is None else time.monotonic() + 60 * self.minutes
        self.tell("budget: the unmodified model")
        self.reference = self.compiled(None, {}, None)
        self.outputs = outputs_of(self.reference, self.samples)
        order = np.random.default_rng(0).permutation(len(self.samples))
        half = len(order) // 2
        self.halves = np.sort(order[:half]), np.sort(order[half:])
        every = np.arange(len(self.samples))
        unmodified = self.measure(self.outputs, every)
        if not self.budget.holds(unmodified, unmodified):
            told = f"the unmodified model has {self.budget.name} {unmodified:.6g}, the budget asks {self.budget}"
            raise InputError(told, where="budget", hint="ask for less, or relative to it: ref-0.01")
        self.unmodified = [self.measure(self.outputs, part) for part in self.halves]
        try:
            self.bisect()
        except KeyboardInterrupt:
            self.stopped = "interrupted"
        except _Over as over:
            self.stopped = str(over)
        return self.finished(unmodified)

    def check(self) -> None:
        if len(self.samples) < 4:
            raise InputError(f"{len(self.samples)} samples are too few to search on one half and accept on the other",
                             where="calibration")  # fmt: skip
        if self.budget.needs_labels and self.samples.labels is None:
            hint = 'add an array "labels" of class indices, or ask for agree, cosine, kl or max_error'
            raise InputError("top1 needs labels, and there are none", where="calibration", hint=hint)

    # -- the search ------------------------------------------------------------------------------
    def bisect(self) -> None:
        last = self.hole.range.last
        good, bad = self.gallop() if last is None else (0, last + 1)
        while bad - good > 1:
            middle = (good + bad) // 2
            good, bad = (middle, bad) if self.keeps(middle) else (good, middle)

    def gallop(self) -> tuple[int, int]:
        """(a number that keeps the budget, a greater one that does not) of an option without a strongest value: doubles
        it until it breaks the budget or changes nothing more."""
        good, number, before = 0, 1, None
        while True:
            kept = self.keeps(number)
            if not kept:
                return good, number
            if before is not None and self.best is not None and self.best[1].graph == before:
                return number, number + 1
            good, before = number, self.best[1].graph if self.best else None
            number *= 2

    def keeps(self, number: int) -> bool:
        """Try a value: whether it is within the budget on both halves."""
        if len(self.trials) >= EVALUATIONS:
            raise _Over(f"{EVALUATIONS} values tried")
        if self.deadline is not None and time.monotonic() > self.deadline:
            raise _Over(f"{self.minutes:g} minutes were over")
        value = self.hole.range.value(number)
        self.tell(f"budget: trying {self.hole.shown(value)}{self.standing()}")
        program = self.candidate(value)
        found, accept = outputs_of(program, self.samples), None
        search = self.measure(found, self.halves[0])
        kept = self.budget.holds(search, self.unmodified[0])
        if kept:
            accept = self.measure(found, self.halves[1])
            kept = self.budget.holds(accept, self.unmodified[1])
        taken = timed([self.reference, program], self.samples, 3)
        self.trials[number] = Trial(value, search, accept, kept, taken[1] / taken[0])
        if kept and (self.best is None or number > self.best[0]):
            self.best = number, program
        return kept

    def candidate(self, value: float) -> Program:
        text, extra = self.hole.filled(value), dict(self.extra)
        seen = self.samples[self.halves[0]]
        if self.hole.place == "passes":
            return self.compiled(text, extra, seen)
        return self.compiled(self.passes, {**extra, self.hole.place: text}, seen)

    def standing(self) -> str:
        if self.best is None:
            return ""
        trial = self.trials[self.best[0]]
        return f" (so far {self.hole.shown(trial.value)}: {self.budget.name} {trial.search:.4g})"

    def measure(self, outputs: Sequence[np.ndarray], part: np.ndarray) -> float:
        labels = None if self.samples.labels is None else self.samples.labels[part]
        return float(self.budget.metric([o[part] for o in outputs], [o[part] for o in self.outputs], labels))

    # -- the end ---------------------------------------------------------------------------------
    def finished(self, unmodified: float) -> Program:
        program = self.reference if self.best is None else self.best[1]
        chosen = None if self.best is None else self.trials[self.best[0]].value
        self.tell("budget: measuring what was found")
        quality = self.measure(outputs_of(program, self.samples), np.arange(len(self.samples)))
        other = [] if self.best is None else [program]
        taken = timed([self.reference, *other], self.samples, ROUNDS)
        trials = tuple(self.trials[k] for k in sorted(self.trials))
        program.search = Outcome(
            budget=str(self.budget),
            option=f"{self.hole.pass_name}:{self.hole.option}",
            samples=(len(self.halves[0]), len(self.halves[1])),
            trials=trials,
            chosen=chosen,
            unmodified=unmodified,
            quality=quality,
            milliseconds={"unmodified": 1e3 * taken[0], "chosen": 1e3 * taken[-1]},
            stopped=self.stopped,
        )
        return program


def search(
    compiled: Compiled,
    budget: Any,
    samples: Samples | None,
    passes: Any,
    extra: Mapping[str, Any],
    tell: Callable[[str], None],
    minutes: float | None = None,
) -> Program:
    """What `effcc.compile(budget=...)` does. InputError where budget, open option or samples are missing."""
    hole = find_hole(passes, extra)
    if hole is None:
        raise InputError("which option shall be searched?", where="budget",
                         hint='leave one open, as reduce_tokens="tome:r=?" or --reduce-tokens tome:r=?')  # fmt: skip
    if budget is None:
        raise InputError("is to be searched within a budget, and there is none", where=hole.text,
                         hint='state one, as budget="top1>=0.99" or --budget "top1>=0.99"')  # fmt: skip
    if samples is None:
        raise InputError("a budget is measured on calibration data, and there are none", where="budget",
                         hint="give calibration=, or --calibration FILE.npz")  # fmt: skip
    return Search(hole, Budget.parse(budget), samples, compiled, passes, extra, tell, minutes).run()


class _Over(Exception):
    """The search has used what it was given."""


def outputs_of(program: Program, samples: Samples) -> list[np.ndarray]:
    """A program's outputs for all samples, the first axis samples."""
    parts: list[list[np.ndarray]] = []
    for inputs in samples.batches():
        parts.append([np.asarray(y) for y in program(*inputs)])
    stacked = samples.batch == 1 and any(a.ndim > t.rank for a, t in zip(samples.arrays, samples.types, strict=True))
    join = np.stack if stacked else np.concatenate
    outputs = [join(column) for column in zip(*parts, strict=True)]
    if any(len(o) < len(samples) for o in outputs):
        raise InputError("an output has no axis of samples in front", where="budget",
                         hint="give samples with an axis in front of the inputs' own")  # fmt: skip
    return [o[: len(samples)] for o in outputs]


def timed(programs: Sequence[Program], samples: Samples, rounds: int) -> list[float]:
    """Median seconds of a run of each program on the first batch; they take turns, so that all meet the machine in the
    same state. Fewer rounds where they would take longer than MEASURING seconds."""
    inputs, begin = next(samples.batches()), time.perf_counter()
    taken: list[list[float]] = [[] for _ in programs]
    for program in programs:  # code and data wake up
        program(*inputs)
    while len(taken[0]) < rounds and (not taken[0] or time.perf_counter() - begin < MEASURING):
        for program, times in zip(programs, taken, strict=True):
            start = time.perf_counter()
            program(*inputs)
            times.append(time.perf_counter() - start)
    return [statistics.median(times) for times in taken]


def text(found: Mapping[str, Any]) -> list[str]:
    """The lines of a report about an outcome (as JSON)."""
    budget, option, (first, second) = found["budget"], found["option"], found["samples"]
    name = budget.partition(">")[0].partition("<")[0]
    lines = [f"budget {budget}, {option} searched on {first} samples, accepted on {second}: {found['stopped']}"]
    for trial in found["trials"]:
        accept = "" if trial["accept"] is None else f", accepting half {trial['accept']:.4g}"
        verdict = "kept" if trial["kept"] else "too much"
        lines.append(f"  {option}={trial['value']:g}: {name} {trial['search']:.4g}{accept}, "
                     f"{1 / trial['time']:.2f} x as fast: {verdict}")  # fmt: skip
    took = found["milliseconds"]
    chosen = found["chosen"]
    what = "the unmodified model: no value keeps the budget" if chosen is None else f"{option}={chosen:g}"
    lines.append(f"  chosen: {what}; {name} {found['quality']:.4g} (unmodified {found['unmodified']:.4g}), "
                 f"{took['chosen']:.3f} ms (unmodified {took['unmodified']:.3f})")  # fmt: skip
    if found["slower"]:
        lines.append(f"  it is SLOWER than the unmodified model here, by {took['chosen'] / took['unmodified'] - 1:.0%}")
    return lines


__all__ = ["Outcome", "Search", "Trial", "outputs_of", "search", "text", "timed"]
