"""effcc bench: how long a run takes."""

from __future__ import annotations

from collections.abc import Callable
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


def bench(
    model: Runnable,
    against: Annotated[
        str | None, typer.Option(help="Another engine to take turns with: onnxruntime.", show_default=False)
    ] = None,
    source: Source = None,
    kernels: Annotated[bool, typer.Option("--kernels", help="Also the time of each launch.")] = False,
    rounds: Annotated[int, typer.Option(min=1, help="Timed runs of each engine.")] = 50,
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
    """Time a model. Engines take turns, so that all meet the machine in the same state."""
    from effcc.cli.models import inputs_of, program_of
    from effcc.cli.show import print_json, print_table, progress
    from effcc.errors import InputError
    from effcc.machine import available_cores
    from effcc.program import by_name

    if against not in (None, "onnxruntime"):
        raise InputError(f"there is no engine {against!r}", hint="onnxruntime is the one that bench knows")
    origin = source or model
    if against and origin.suffix != ".onnx":
        raise InputError("ONNX Runtime needs the .onnx model", where=model, hint="give it by --source, or instead")
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
        engines: dict[str, Callable[[], Any]] = {"effcc": lambda: program(*arrays)}
        if against:
            from effcc.verification import onnxruntime

            session = onnxruntime(origin, program.input_names, threads)
            engines["onnxruntime"] = lambda: session(arrays)
        tell("timing")
        times = turns(list(engines.values()), rounds)
        profile = program.code.profile(*arrays, threads=threads, repeat=rounds) if kernels else []
    found = {name: _statistics(taken) for name, taken in zip(engines, times, strict=True)}
    if as_json:
        timed = [{"label": label, "milliseconds": 1e3 * seconds} for label, seconds in profile]
        print_json({"threads": threads, "rounds": rounds, "milliseconds": found, "launches": timed})
        return
    rows = [(name, *(f"{t[k]:.3f}" for k in ("median", "least", "p90"))) for name, t in found.items()]
    shown = ", ".join(f"{name} {list(a.shape)}" for name, a in zip(program.input_names, arrays, strict=True))
    print_table(f"{shown}; {threads} threads, {rounds} runs, ms", ("engine", "median", "least", "90 %"), rows,
                          right=("median", "least", "90 %"))  # fmt: skip
    if kernels:
        print_launches(program, profile)
    if against:
        print(f"effcc takes {found['effcc']['median'] / found[against]['median']:.2f} of the time of {against}")


def print_launches(program: Any, profile: list[tuple[str, float]]) -> None:
    """The table of launches, in order: their times, and what work they did in them."""
    from effcc.cli.show import print_table
    from effcc.report import count, facts

    whole = sum(seconds for _, seconds in profile) or 1.0
    rows = [
        (label, k["template"], f"{1e6 * s:.1f}", f"{100 * s / whole:.1f}", f"{count(k['flops'] / s if s else 0)}flop/s")
        for (label, s), k in zip(profile, facts(program)["kernels"], strict=True)
    ]
    numbers = ("us", "%", "rate")
    print_table("launches", ("ops", "template", *numbers), rows, right=numbers)


def turns(engines: list[Callable[[], Any]], rounds: int, warmup: int = 3) -> list[list[float]]:
    """Milliseconds of each run of each engine. A turn begins with an untimed run that wakes code, data and threads."""
    import time

    for engine in engines:
        for _ in range(warmup):
            engine()
    times: list[list[float]] = [[] for _ in engines]
    for _ in range(rounds):
        for engine, taken in zip(engines, times, strict=True):
            engine()
            start = time.perf_counter()
            engine()
            taken.append(1e3 * (time.perf_counter() - start))
    return times


def _statistics(taken: list[float]) -> dict[str, float]:
    import statistics

    ordered = sorted(taken)
    return {"median": statistics.median(taken), "least": ordered[0], "p90": ordered[int(0.9 * (len(ordered) - 1))]}
