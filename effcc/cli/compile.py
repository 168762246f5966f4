"""effcc compile: a model becomes a .effcc artifact."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from effcc.cli.options import (
    BudgetText,
    Calibration,
    Json,
    Minutes,
    Model,
    Pipeline,
    Precision,
    Prune,
    Quantize,
    ReduceTokens,
    Schedule,
    Shapes,
    Sparsify,
    Target,
    Threads,
    Values,
    parse_shapes,
    parse_values,
)


def compile(
    model: Model,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="Where to write it; by default MODEL.effcc, or for target onnx MODEL.compiled.onnx.",
            show_default=False,
        ),
    ] = None,
    target: Target = "cpu",
    shape: Shapes = None,
    value: Values = None,
    passes: Pipeline = None,
    precision: Precision = None,
    quantize: Quantize = None,
    sparsify: Sparsify = None,
    reduce_tokens: ReduceTokens = None,
    prune: Prune = None,
    calibration: Calibration = None,
    budget: BudgetText = None,
    search_minutes: Minutes = None,
    schedule: Schedule = None,
    threads: Threads = None,
    check: Annotated[bool, typer.Option("--check", help="Check every pass against the reference interpreter.")] = False,
    as_json: Json = False,
) -> None:
    """Compile a model and write a .effcc artifact that runs without the compiler (for target onnx: an .onnx file)."""
    from effcc.cli.models import check_path, program_of
    from effcc.cli.show import print_json, progress
    from effcc.driver import artifact_suffix
    from effcc.errors import InputError
    from effcc.report import facts, render, size

    check_path(model)
    suffix = artifact_suffix(target)
    if output is None:
        output = Path(model.with_suffix(f".compiled{suffix}" if suffix == model.suffix else suffix).name)
    if model.suffix == ".effcc":
        raise InputError("is compiled already", where=model, hint="give a .onnx or .effir file")
    if output.suffix != suffix:
        raise InputError(f"the name of an artifact for target {target} ends in {suffix}", where=output)
    if output.exists() and output.samefile(model):
        raise InputError("is the model itself", where=output, hint="write to another file")
    if not output.absolute().parent.is_dir():
        raise InputError("there is no such folder", where=output.parent, hint="make it first")
    start = time.perf_counter()
    with progress(quiet=as_json) as tell:
        program = program_of(
            model,
            parse_shapes(shape),
            threads,
            tell,
            target=target,
            passes=passes,
            precision=precision,
            values=parse_values(value),
            quantize=quantize,
            sparsify=sparsify,
            reduce_tokens=reduce_tokens,
            prune=prune,
            calibration=calibration,
            budget=budget,
            search_minutes=search_minutes,
            schedule=schedule,
            check=check,
        )
        tell("writing")
        program.save(output)
    seconds, found = time.perf_counter() - start, facts(program)
    if as_json:
        found["seconds"] = {"all": seconds, **found["seconds"]}
        short = {key: value for key, value in found.items() if key not in ("log", "refusals", "kernels")}
        print_json({"artifact": {"path": str(output), "bytes": output.stat().st_size}, **short})
        return
    print(render(found))
    for asked in (prune, reduce_tokens, sparsify, quantize):
        name = (asked or "").partition(":")[0]
        if name and not any(entry["pass"] == name for entry in found["log"]):
            why = next((r for r in found["refusals"] if r["pass"] == name), None)
            print(f"{name} changed nothing" + (f": {why['reason']} (at {why['at']})" if why else ""))
    print(f"{output}: {size(output.stat().st_size)}, compiled in {seconds:.1f} s")
