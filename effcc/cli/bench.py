"""effcc bench: how long a run takes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from effcc.cli.options import (
    Calibration,
    Inputs,
    Json,
    Pipeline,
    Runnable,
    Schedule,
    Seed,
    Shapes,
    Sizes,
    Source,
    Target,
    Threads,
    Values,
    parse_shapes,
    parse_values,
)
from effcc.errors import EffccError, InputError


def bench(
    model: Runnable,
    against: Annotated[
        str | None,
        typer.Option(help="Engines to take turns with: onnxruntime, openvino, torch.", show_default=False),
    ] = None,
    source: Source = None,
    kernels: Annotated[
        bool, typer.Option("--kernels", help="Also each launch: its time, its share of the machine's peaks.")
    ] = False,
    rounds: Annotated[int, typer.Option(min=1, help="Turns of each engine.")] = 50,
    inputs: Inputs = None,
    size: Sizes = None,
    seed: Seed = 0,
    target: Target = "cpu",
    shape: Shapes = None,
    value: Values = None,
    passes: Pipeline = None,
    calibration: Calibration = None,
    schedule: Schedule = None,
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Time a model. Engines take turns, each in a process of its own, so that all meet the machine in the same
    state."""
    from effcc.cli.models import inputs_of, program_of
    from effcc.cli.show import print_json, print_launches, print_table, progress
    from effcc.machine import available_cores
    from effcc.program import by_name
    from effcc.roofline import profile

    origin = source or model
    engines = parse_engines(against, origin)
    threads = threads or available_cores()
    with progress(quiet=as_json) as tell:
        program = program_of(
            model,
            parse_shapes(shape),
            threads,
            tell,
            target=target,
            passes=passes,
            calibration=calibration,
            schedule=schedule,
            values=parse_values(value),
        )
        given = inputs_of(program, inputs, size, seed)
        arrays = by_name(given, program.input_names)
        tell("timing")
        if engines:
            times = beside(program, model, origin, arrays, engines, threads, rounds)
        else:
            times = {"effcc": alone(lambda: program(*arrays), rounds)}
        launches = profile(program, given, threads, rounds) if kernels else None
    found = {name: _statistics(taken) for name, taken in times.items()}
    if as_json:
        timed = launches.as_json() if launches else {"launches": []}
        print_json({"threads": threads, "rounds": rounds, "milliseconds": found, **timed})
        return
    rows = [(name, *(f"{t[k]:.3f}" for k in ("median", "least", "p90"))) for name, t in found.items()]
    shown = ", ".join(f"{name} {list(a.shape)}" for name, a in zip(program.input_names, arrays, strict=True))
    print_table(f"{shown}; {threads} threads, {rounds} runs, ms", ("engine", "median", "least", "90 %"), rows,
                          right=("median", "least", "90 %"))  # fmt: skip
    if launches:
        print_launches(launches)
    for name in engines:
        print(f"effcc takes {found['effcc']['median'] / found[name]['median']:.2f} of the time of {name}")


def parse_engines(against: str | None, origin: Path) -> list[str]:
    """The engines of --against, which all read the model's file. Raises InputError."""
    from effcc.engines import ENGINES

    names = [name.strip() for name in against.split(",")] if against else []
    for name in names:
        if name not in ENGINES:
            raise InputError(f"there is no engine {name!r}", where="--against", hint=f"one of {', '.join(ENGINES)}")
        if origin.suffix != ENGINES[name].suffix:
            message = f"{name} needs the {ENGINES[name].suffix} model"
            raise InputError(message, where=origin, hint="give it by --source, or instead")
    return names


def beside(
    program: Any, model: Path, origin: Path, arrays: Sequence[Any], engines: Sequence[str], threads: int, rounds: int
) -> dict[str, list[float]]:
    """Milliseconds of runs of the program and of other engines: in each round the median of three."""
    import tempfile

    import numpy as np

    from effcc.engines import ENGINES, effcc
    from effcc.turns import Contestant, take_turns

    names = list(program.input_names)
    with tempfile.TemporaryDirectory() as folder:
        artifact, inputs = Path(folder, "model.effcc"), Path(folder, "inputs.npz")
        np.savez(inputs, **dict(zip(names, arrays, strict=True)))
        if program.saved_facts is None:
            program.save(artifact)
        else:
            artifact = model
        playing = [Contestant("effcc", effcc, (artifact, names, inputs, threads))]
        playing += [Contestant(name, ENGINES[name].setup, (origin, names, inputs, threads)) for name in engines]
        take_turns(playing, rounds, 0.0, answers=False)
    for engine in playing:
        if engine.failure is not None:
            raise EffccError(f"{engine.name} fails: {engine.failure}", where=origin, hint="leave it out of --against")
    return {engine.name: [1e3 * seconds for seconds in engine.rounds] for engine in playing}


def alone(run: Callable[[], Any], rounds: int, warmup: int = 3) -> list[float]:
    """Milliseconds of each run."""
    import time

    for _ in range(warmup):
        run()
    taken = []
    for _ in range(rounds):
        start = time.perf_counter()
        run()
        taken.append(1e3 * (time.perf_counter() - start))
    return taken


def _statistics(taken: list[float]) -> dict[str, float]:
    import statistics

    ordered = sorted(taken)
    return {"median": statistics.median(taken), "least": ordered[0], "p90": ordered[int(0.9 * (len(ordered) - 1))]}
