"""effcc verify: is the compiled program right?"""

from __future__ import annotations

from typing import Annotated, Any

import typer

from effcc.cli.options import (
    Inputs,
    Json,
    Pipeline,
    Runnable,
    Seed,
    Shapes,
    Sizes,
    Source,
    Target,
    Values,
    parse_shapes,
    parse_values,
)


def verify(
    model: Runnable,
    source: Source = None,
    against: Annotated[
        str, typer.Option(help="The reference: onnxruntime, torch (the interpreter), or auto.")
    ] = "auto",
    inputs: Inputs = None,
    size: Sizes = None,
    seed: Seed = 0,
    target: Target = "cpu",
    shape: Shapes = None,
    value: Values = None,
    passes: Pipeline = None,
    as_json: Json = False,
) -> None:
    """Compare a program with a run in f64, and with a reference; name the op that first diverges.

    An element agrees if it is no farther from the f64 run than rounding may move it. Exit status 1 if any does not.
    Of an artifact every weight is checked by its hash; with --source also what it computes.
    """
    from effcc import verification
    from effcc.cli.models import check_path, graph_of, inputs_of, program_of
    from effcc.cli.show import print_json, progress
    from effcc.driver import compile_graph
    from effcc.errors import InputError
    from effcc.program import by_name

    if against not in ("auto", "onnxruntime", "torch"):
        raise InputError(f"there is no reference {against!r}", hint="one of auto, onnxruntime, torch")
    check_path(model)
    saved = model.suffix == ".effcc"
    if saved:
        from effcc import artifact

        weights = len(artifact.verify(model).constants)
        if source is None:
            found = {"artifact": str(model), "weights": weights, "intact": True}
            print_json(found) if as_json else print(f"{model}: code, texts and {weights} weights are intact")
            return
    elif source is not None:
        raise InputError("--source is for artifacts", hint="leave it out")
    origin = source or model
    shapes = parse_shapes(shape)
    with progress(quiet=as_json) as tell:
        options = {} if saved else {"target": target, "passes": passes, "values": parse_values(value)}
        program = program_of(model, None if saved else shapes, None, tell, **options)
        graph = graph_of(origin, shapes, program.fixed)
        given = inputs_of(program, inputs, size, seed, graph)
        arrays = by_name(given, program.input_names)
        reference = None
        if against == "onnxruntime" or (against == "auto" and origin.suffix == ".onnx" and _installed("onnxruntime")):
            against = "onnxruntime"
            reference = verification.onnxruntime(origin, program.input_names)
        verdict = verification.verify(
            program, graph, arrays, reference, lambda part: compile_graph(part, target, passes), tell
        )
    if as_json:
        print_json({"reference_engine": "torch" if reference is None else against, **verification.as_json(verdict)})
    else:
        _print(verdict, "torch" if reference is None else "ONNX Runtime")
    if not verdict.agrees:
        raise typer.Exit(1)


def _installed(package: str) -> bool:
    from importlib.util import find_spec

    return find_spec(package) is not None


def _print(verdict: Any, reference: str) -> None:
    from effcc.cli.show import print_table

    rows = []
    for ours, theirs in zip(verdict.program, verdict.reference, strict=True):
        rows.append((ours.name, ours.type, f"{ours.largest:.2e}", f"{ours.ulp:.1f}", f"{ours.allowed:.2f}",
                     f"{theirs.largest:.2e}", f"{theirs.ulp:.1f}", "agrees" if ours.agrees else "DIFFERS"))  # fmt: skip
    columns = ("output", "type", "error", "in ulp", "of bound", reference, "in ulp", "")
    print_table("largest error against an f64 run", columns, rows, right=columns[2:7])
    if verdict.agrees:
        return
    if verdict.fresh_agrees:
        print("a fresh compilation agrees: this was not compiled from this model, or by another version of effcc")
        return
    if verdict.passes_agree is not None:
        blame = "the passes are right, the generated code is not" if verdict.passes_agree else "the passes are wrong"
        print(f"{blame}{'' if verdict.passes_agree else ': effcc bisect names the rewrite'}")
    if (d := verdict.divergence) is None:
        print("no single op diverges: only the whole graph does")
        return
    e = d.error
    print(f"first diverging op: {d.op}" + (f"  at {d.loc}" if d.loc else ""))
    print(f"  element {list(e.at)} is {e.got:.9g}, should be {e.exact:.9g} ({e.allowed:.3g} times its bound)")
