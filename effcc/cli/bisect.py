"""effcc bisect: the first pass, and the first rewrite, after which a model answers something else."""

from __future__ import annotations

from typing import Any

import typer

from effcc.cli.options import (
    Inputs,
    Json,
    Model,
    Pipeline,
    Seed,
    Shapes,
    Sizes,
    Target,
    Values,
    parse_shapes,
    parse_values,
)


def bisect(
    model: Model,
    passes: Pipeline = None,
    inputs: Inputs = None,
    size: Sizes = None,
    seed: Seed = 0,
    target: Target = "cpu",
    shape: Shapes = None,
    value: Values = None,
    as_json: Json = False,
) -> None:
    """Find the pass and the rewrite that break a model. Exit status 1 if there is one.

    Graphs are run by the interpreter. Where all passes agree but the program does not, see effcc verify.
    """
    from effcc.analysis.precision import bounded_run
    from effcc.cli.models import graph_of, parse_sizes, random_inputs, read_inputs
    from effcc.cli.show import print_json, progress
    from effcc.driver import backend_of, pipeline_of
    from effcc.interp import run
    from effcc.pipeline import bisect as find
    from effcc.program import by_name
    from effcc.verification import errors, tensors

    with progress(quiet=as_json) as tell:
        tell("importing")
        graph = graph_of(model, parse_shapes(shape), parse_values(value))
        names = [v.name or f"input{k}" for k, v in enumerate(graph.inputs)]
        given = read_inputs(inputs, names) if inputs else random_inputs(graph, names, parse_sizes(size), seed)
        arrays = tensors(by_name(given, names))
        tell("running in f64")
        exact = bounded_run(graph, *arrays)
        labels = [v.name or f"output{k}" for k, v in enumerate(graph.results)]
        tried = 0

        def is_bad(candidate: Any) -> bool:
            nonlocal tried
            tried += 1
            tell(f"trying: {tried}")
            return not all(e.agrees for e in errors(labels, graph.results, run(candidate, *arrays), exact))

        culprit = find(graph, pipeline_of(backend_of(target), passes, {}), is_bad)
    if culprit is None:
        found = {"agrees": True}
        print_json(found) if as_json else print(f"all passes agree with the imported model ({tried} graphs tried)")
        return
    if as_json:
        place = {
            "pass": culprit.pass_name,
            "rule": culprit.rule,
            "number": culprit.number,
            "at": str(culprit.loc or ""),
        }
        print_json({"agrees": False, **place, "before": str(culprit.before), "after": str(culprit.after)})
    else:
        which = "as a whole (it logs no rewrite)"
        if culprit.rule:
            which = f"rewrite {culprit.number} of it, by rule {culprit.rule}"
        place = f", at {culprit.loc}" if culprit.loc else ""
        print(f"first wrong after pass {culprit.pass_name}: {which}{place}")
        print(difference(str(culprit.before), str(culprit.after)))
    raise typer.Exit(1)


def difference(before: str, after: str) -> str:
    """The lines that a rewrite changed, with three around them."""
    from difflib import unified_diff

    return "\n".join(unified_diff(before.splitlines(), after.splitlines(), "before", "after", lineterm="", n=3))
