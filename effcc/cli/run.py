"""effcc run: one run of a program on inputs from files, or on random ones."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

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
    Target,
    Threads,
    Values,
    parse_shapes,
    parse_values,
)


def run(
    model: Runnable,
    inputs: Inputs = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE.npz", help="Save the outputs.", show_default=False)
    ] = None,
    random: Annotated[bool, typer.Option("--random", help="Run on random inputs.")] = False,
    size: Sizes = None,
    seed: Seed = 0,
    target: Target = "cpu",
    shape: Shapes = None,
    value: Values = None,
    passes: Pipeline = None,
    calibration: Calibration = None,
    schedule: Schedule = None,
    threads: Threads = None,
    trace: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.json",
            help="Write a timeline of the run's tiles, for ui.perfetto.dev.",
            show_default=False,
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Run a model once and print, or save, what it answers."""
    from effcc.cli.models import inputs_of, program_of, save_arrays
    from effcc.cli.show import print_json, print_table, progress
    from effcc.errors import InputError

    if bool(inputs) == random:
        raise InputError("where do the inputs come from?", hint="give --input FILE.npz, or --random")
    with progress(quiet=as_json) as tell:
        program = program_of(
            model,
            parse_shapes(shape),
            threads,
            tell,
            target=target,
            passes=passes,
            calibration=calibration,
            schedule=schedule if schedule is not None or trace is None or model.suffix == ".effcc" else "tiles",
            values=parse_values(value),
        )
        given = inputs_of(program, inputs, size, seed)
        tell("running")
        start = time.perf_counter()
        results = program(given)
        seconds = time.perf_counter() - start
        if trace is not None:
            program.trace(given, trace, threads)
    named = dict(zip(program.output_names, results, strict=True))
    if output is not None:
        save_arrays(output, named)
    if as_json:
        print_json({"seconds": seconds, "outputs": {name: _facts(array) for name, array in named.items()}})
        return
    rows = [
        (name, f"{x['dtype']}{x['shape']}", *(_number(x[k]) for k in ("min", "mean", "max")), x["values"])
        for name, x in ((name, _facts(array)) for name, array in named.items())
    ]
    print_table(
        f"outputs, {1e3 * seconds:.2f} ms",
        ("name", "type", "min", "mean", "max", "first values"),
        rows,
        right=("min", "mean", "max"),
    )
    if output is not None:
        print(f"saved to {output}")


def _facts(array: object) -> dict[str, object]:
    import numpy as np

    a = np.asarray(array)
    wide = a.astype("f8") if a.size else np.zeros(0)
    numbers = {k: float(getattr(wide, k)()) if a.size else None for k in ("min", "mean", "max")}
    return {
        "dtype": str(a.dtype),
        "shape": list(a.shape),
        **numbers,
        "values": " ".join(f"{x:.5g}" for x in wide.reshape(-1)[:6]),
    }


def _number(x: object) -> str:
    return "" if x is None else f"{x:.5g}"
