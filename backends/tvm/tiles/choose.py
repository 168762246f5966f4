"""Which schedule a program gets: the one asked for, or the faster of the two as measured on this machine."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from effcc.backends.tvm import entry, memory
from effcc.backends.tvm import plan as p
from effcc.backends.tvm.runtime.arrays import numpy_dtype
from effcc.backends.tvm.runtime.executable import Executable
from effcc.backends.tvm.tiles.program import Tiled, refusal, tiled
from effcc.errors import EffccError, UnsupportedError
from effcc.machine import Machine

if TYPE_CHECKING:
    from effcc.backends.tvm.build import Built

WORTH_NS = 200_000
"""Programs with less work than this (on one core, roughly) are not measured: barriers cost them little."""
SECONDS = 0.3
"""What measuring may take, but for the first runs and one round; programs that take longer are not measured."""
ROUNDS = 9
MARGIN = 0.97
"""Tiles are chosen where they take less than this part of the barriers' time."""


@dataclass(frozen=True)
class Schedule:
    """What was chosen, why, and what is known of both: bytes of temporaries, milliseconds where they were measured."""

    asked: str
    used: str
    reason: str
    tasks: int = 0
    joins: int = 0
    edges: int = 0
    arena: int = 0
    arena_under_barriers: int = 0
    milliseconds: tuple[float, float] | None = None
    """With tiles, under barriers"""

    def facts(self) -> dict[str, Any]:
        """As JSON."""
        measured = None
        if self.milliseconds is not None:
            measured = dict(zip(("tiles", "barriers"), self.milliseconds))
        return {**self.__dict__, "milliseconds": measured}


@dataclass(frozen=True, eq=False)
class Chosen:
    """What to run, by which schedule; the tile graph if one was made, and what runs it here if that is loaded."""

    built: Built
    machine: Machine
    schedule: Schedule
    tiled: Tiled | None = None
    loaded: Executable | None = None


def choose(
    plan: p.Plan,
    built: Built,
    machine: Machine,
    schedule: str,
    tune: str,
    threads: int | None,
    load: Callable[[entry.Program], Executable] | None,
    samples: Any = None,
) -> Chosen:
    """A schedule for what was built.

    `load` makes a program callable; None where this machine cannot run it. `samples`: calibration data to measure with.
    Raises UnsupportedError where tiles are asked for and the sizes vary.
    """

    def barriers(reason: str, **more: Any) -> Chosen:
        return Chosen(built, machine, Schedule(schedule, "barriers", reason, **more))

    if schedule == "barriers":
        return barriers("asked for")
    reason = refusal(plan)
    if reason is not None:
        if schedule == "tiles" and "sizes vary" in reason:
            hint = 'fix them with shapes=, or leave schedule="auto"'
            raise UnsupportedError(f'schedule="tiles" cannot be made: {reason}', where=where(plan), hint=hint)
        return barriers(reason)
    if schedule == "auto":
        if tune == "none":
            return barriers('tune="none" measures nothing')
        if load is None:
            return barriers("the code cannot be measured on this machine")
        if work(plan) < WORTH_NS or len(plan.launches()) < 2:
            return barriers("it is too small for barriers to matter")
    made = tiled(plan, built.program, built.names, machine, threads or machine.cores)
    known = {
        "tasks": made.graph.tasks - made.graph.joins,
        "joins": made.graph.joins,
        "edges": made.graph.edges,
        "arena": made.arena,
        "arena_under_barriers": memory.usage(built.program, {}).peak,
    }
    tiles = replace(built, program=made.program)
    if schedule == "tiles":
        return Chosen(tiles, machine, Schedule(schedule, "tiles", "asked for", **known), made)
    assert load is not None
    under_barriers = load(built.program)
    without = under_barriers.sharing(made.program)
    try:
        times = measure((under_barriers, without), inputs_for(built.program, samples))
    except EffccError as error:
        return barriers(f"it cannot be measured: {error.message}", **known)
    if times is None:
        return barriers(f"a run takes more than the {SECONDS} s that measuring may", **known)
    known["milliseconds"] = times = times[::-1]
    if times[0] < MARGIN * times[1]:
        return Chosen(tiles, machine, Schedule(schedule, "tiles", "measured faster", **known), made, without)
    measured = Schedule(schedule, "barriers", "tiles measured no faster", **known)
    return Chosen(built, machine, measured, made, under_barriers)


def where(plan: p.Plan) -> str:
    """The inputs whose sizes vary."""
    return ", ".join(f"input {name!r}" for name, type_, _ in plan.inputs if not type_.is_static)


def work(plan: p.Plan) -> int:
    """Nanoseconds of a plan of fixed sizes on one core, roughly."""
    from effcc.backends.tvm.build import work

    return sum(int(work(launch)) for launch in plan.launches())  # type: ignore[call-overload]


def measure(engines: Sequence[Executable], inputs: Sequence[Any]) -> tuple[float, ...] | None:
    """Median milliseconds of each, taking turns; None where the first alone takes too long."""
    times: list[list[float]] = [[] for _ in engines]
    for engine in engines:
        start = time.perf_counter()
        engine(*inputs)
        if time.perf_counter() - start > SECONDS:
            return None
    end = time.perf_counter() + SECONDS
    while len(times[0]) < ROUNDS and (not times[0] or time.perf_counter() < end):
        for engine, taken in zip(engines, times):
            start = time.perf_counter()
            engine(*inputs)
            taken.append(1e3 * (time.perf_counter() - start))
    return tuple(map(statistics.median, times))


def inputs_for(program: entry.Program, samples: Any = None) -> list[Any]:
    """A calibration sample, or random arrays: floats are normal, integers 0 (an index that is valid everywhere)."""
    if samples is not None:
        given = next(iter(samples.batches()), None)
        if given is not None:
            return list(given)
    random = np.random.default_rng(0)
    arrays = []
    for x in program.inputs:
        shape = tuple(entry.evaluate(d, {}) for d in x.shape)
        if x.dtype in ("f16", "f32", "f64", "bf16"):
            arrays.append(random.standard_normal(shape).astype(numpy_dtype(x.dtype)))
        else:
            arrays.append(np.zeros(prod(shape), numpy_dtype(x.dtype)).reshape(shape))
    return arrays
