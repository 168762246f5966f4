"""effcc inspect: what a program consists of."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from effcc.cli.options import (
    Inputs,
    Json,
    Pipeline,
    Runnable,
    Shapes,
    Sizes,
    Target,
    Threads,
    Values,
    parse_shapes,
    parse_values,
)
from effcc.errors import InputError

ROUNDS = 20
"""Calls that --time takes the mean of."""


def inspect(
    model: Runnable,
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write one self-contained page.", show_default=False)
    ] = None,
    time: Annotated[
        bool, typer.Option("--time", help="Also run it: the time of each launch, its share of the machine's peaks.")
    ] = False,
    graph: Annotated[bool, typer.Option("--graph", help="Print the compiled graph as text.")] = False,
    log: Annotated[bool, typer.Option("--log", help="Print every rewrite and refusal.")] = False,
    size: Sizes = None,
    target: Target = "cpu",
    shape: Shapes = None,
    value: Values = None,
    passes: Pipeline = None,
    inputs: Inputs = None,
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Show graph, pass log, kernels, memory plan, flops and bytes of a model, compiled or to be compiled."""
    from effcc.cli.models import inputs_of, parse_sizes, program_of
    from effcc.cli.show import print_json, print_launches, print_table, progress
    from effcc.files import beside
    from effcc.inspect import page
    from effcc.machine import available_cores
    from effcc.report import count, facts, render
    from effcc.report import size as bytes_
    from effcc.roofline import profile, sizes_of

    if inputs and not time:
        raise InputError("nothing is run on inputs", where="--input", hint="add --time, or leave them out")
    with progress(quiet=as_json) as tell:
        program = program_of(
            model, parse_shapes(shape), threads, tell, target=target, passes=passes, values=parse_values(value)
        )
        sizes, timed = parse_sizes(size), None
        if time:
            tell("timing")
            given = inputs_of(program, inputs, size, seed=0)
            timed = profile(program, given, threads or available_cores(), ROUNDS)
            sizes = sizes_of(program, given)
        found = {**facts(program, sizes), **({"profile": timed.as_json()} if timed else {})}
        if html is not None:
            tell("writing the page")
            text = page(program, found)
            with beside(html) as file:
                file.write(text.encode())
    if as_json:
        print_json(found)
        return
    if graph:
        print(program.graph)
        return
    print(render(found))
    if timed:
        print_launches(timed)
    rows = [
        (k["label"], k["template"], k["tiles"], f"{count(k['flops'])}flop", bytes_(k["bytes"]), k["at"])
        for k in found["kernels"]
    ]
    numbers = ("tiles", "work", "data")
    print_table("launches", ("ops", "template", *numbers, "from"), rows, right=numbers)
    compiled = {k["symbol"]: k["on"] for k in found["kernels"] if k.get("on")}
    for architecture in dict.fromkeys(name for on in compiled.values() for name in on):
        columns = ("registers", "stack", "spills", "shared")
        rows = [
            (kernel, *(on[architecture][c] for c in columns),
             " ".join(f"{n} {i}" for i, n in (on[architecture]["tensor_core"] or {}).items()))
            for kernel, on in compiled.items()
        ]
        print_table(f"kernels on {architecture}", ("kernel", *columns, "tensor cores"), rows, right=columns)
    if log:
        rows = [(r["number"], r["pass"], r["rule"], r["at"]) for r in found["log"]]
        print_table("rewrites", ("number", "pass", "rule", "at"), rows, right=("number",))
        rows = [(r["pass"], r["rule"], r["at"], r["reason"]) for r in found["refusals"]]
        print_table("refusals", ("pass", "rule", "at", "because"), rows)
    if html is not None:
        print(f"page written to {html}")
