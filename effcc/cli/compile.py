"""effcc compile: a model becomes a .effcc artifact."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from effcc.cli.options import (
    Calibration,
    Json,
    Model,
    Pipeline,
    Prune,
    Quantize,
    ReduceTokens,
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
        typer.Option("--output", "-o", help="Where to write it; MODEL.effcc by default.", show_default=False),
    ] = None,
    target: Target = "cpu",
    shape: Shapes = None,
    value: Values = None,
    passes: Pipeline = None,
    quantize: Quantize = None,
    sparsify: Sparsify = None,
    reduce_tokens: ReduceTokens = None,
    prune: Prune = None,
    calibration: Calibration = None,
    threads: Threads = None,
    check: Annotated[bool, typer.Option("--check", help="Check every pass against the reference interpreter.")] = False,
    as_json: Json = False,
) -> None:
    """Compile a model and write a .effcc artifact that runs without the compiler."""
    from effcc.cli.models import check_path, program_of
    from effcc.cli.show import print_json, progress
    from effcc.errors import InputError
    from effcc.report import facts, render, size

    check_path(model)
    output = output or Path(model.with_suffix(".effcc").name)
    if model.suffix == ".effcc":
        raise InputError("is compiled already", where=model, hint="give a .onnx or .effir file")
    if output.suffix != ".effcc":
        raise InputError("an artifact's name ends in .effcc", where=output)
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
            values=parse_values(value),
            quantize=quantize,
            sparsify=sparsify,
            reduce_tokens=reduce_tokens,
            prune=prune,
            calibration=calibration,
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
    print(f"{output}: {size(output.stat().st_size)}, compiled in {seconds:.1f} s")
