"""effcc opt: passes on a graph, text out. For people who write passes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from effcc.cli.options import Calibration, Pipeline, Shapes, Target, Values, parse_shapes, parse_values


def opt(
    model: Annotated[
        Path, typer.Argument(metavar="MODEL", help="IR text (.effir; - reads stdin) or a model.", show_default=False)
    ],
    passes: Pipeline = None,
    calibration: Calibration = None,
    target: Target = "cpu",
    shape: Shapes = None,
    value: Values = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write the text here.", show_default=False)
    ] = None,
    print_after: Annotated[
        str | None,
        typer.Option(metavar="PASSES", show_default=False, help="Print after these passes (a,b or all) to stderr."),
    ] = None,
    verify_each: Annotated[bool, typer.Option("--verify-each", help="Verify the graph after each pass.")] = False,
    fuel: Annotated[int | None, typer.Option(min=0, help="Stop after so many rewrites.", show_default=False)] = None,
    locations: Annotated[bool, typer.Option(help="Print where each op came from.")] = True,
) -> None:
    """Run passes on a graph and print the resulting text.

    Without --passes nothing is changed: a model is printed as it was imported.
    """
    import sys

    from effcc.cli.models import graph_of, samples_of
    from effcc.driver import backend_of
    from effcc.files import beside
    from effcc.ir.verify import verify
    from effcc.pipeline import Context, PassManager, PrintAfter, Verify, parse_pipeline
    from effcc.text import parse, print_graph

    pipeline = parse_pipeline(passes or "")
    graph = parse(sys.stdin.read()) if str(model) == "-" else graph_of(model, parse_shapes(shape), parse_values(value))
    instruments = []
    if verify_each:
        verify(graph)
        instruments.append(Verify())
    if print_after:
        named = None if print_after == "all" else frozenset(print_after.split(","))
        instruments.append(PrintAfter(named, sys.stderr))
    context = Context(machine=backend_of(target).machine, calibration=samples_of(calibration, graph), fuel=fuel)
    text = print_graph(PassManager(instruments).run(graph, pipeline, context), locations=locations)
    if output is None:
        print(text)
        return
    with beside(output) as file:
        file.write(f"{text}\n".encode())
