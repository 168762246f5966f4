"""effcc explain: why a rule did, or did not, fire at a place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

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
    Values,
    parse_shapes,
    parse_values,
)

if TYPE_CHECKING:
    from effcc.ir.graph import Graph
    from effcc.pipeline import Pass, Refusal, Rewrite


def explain(
    model: Model,
    rule: Annotated[
        str | None, typer.Option(help="Only rules (or passes) with this in their name.", show_default=False)
    ] = None,
    at: Annotated[
        str | None, typer.Option(metavar="LOC", help="Only places with this in their name.", show_default=False)
    ] = None,
    passes: Pipeline = None,
    quantize: Quantize = None,
    sparsify: Sparsify = None,
    reduce_tokens: ReduceTokens = None,
    prune: Prune = None,
    calibration: Calibration = None,
    target: Target = "cpu",
    shape: Shapes = None,
    value: Values = None,
    as_json: Json = False,
) -> None:
    """Run the passes and tell which rules fired where, and which were refused, and why.

    With --rule or --at also near misses: places where a rule's last op stands and the rest of its pattern does not fit.
    """
    from effcc.cli.models import graph_of, samples_of
    from effcc.cli.show import print_json, print_table, progress
    from effcc.driver import CATEGORY_OPTIONS, backend_of, pipeline_of
    from effcc.pipeline import Context, PassManager
    from effcc.pipeline.explain import Remains, near_misses
    from effcc.report import note_facts, note_lines

    with progress(quiet=as_json) as tell:
        tell("importing")
        graph = graph_of(model, parse_shapes(shape), parse_values(value))
        backend = backend_of(target)
        given = {"quantize": quantize, "sparsify": sparsify, "reduce_tokens": reduce_tokens, "prune": prune}
        extra = {CATEGORY_OPTIONS[option]: one for option, one in given.items() if one is not None}
        pipeline = pipeline_of(backend, passes, extra)
        context = Context(machine=backend.machine, calibration=samples_of(calibration, graph), progress=tell)
        remains = Remains()
        PassManager([remains]).run(graph, pipeline, context)
        tell("looking for near misses")
        missed = near_misses(remains, rule, at) if rule is not None or at is not None else []

    def wanted(entry: Rewrite | Refusal) -> bool:
        named = rule is None or rule in entry.rule or rule in entry.pass_name
        return named and (at is None or at in str(entry.loc))

    fired = [r for r in context.log if wanted(r)]
    refused = [r for r in context.refusals if wanted(r)]
    told = note_facts(
        n for n in context.notes if (rule is None or rule in n.pass_name) and (at is None or at in str(n.loc))
    )
    if as_json:
        places = [{"number": r.number, "pass": r.pass_name, "rule": r.rule, "at": str(r.loc)} for r in fired]
        reasons = [{"pass": r.pass_name, "rule": r.rule, "at": str(r.loc), "reason": r.reason} for r in refused]
        print_json({"fired": places, "refused": reasons, "missed": missed, "notes": told})
        return
    if fired:
        rows = [(r.number, r.pass_name, r.rule, r.loc) for r in fired]
        print_table(f"fired {len(rows)} times", ("number", "pass", "rule", "at"), rows, right=("number",))
    if refused:
        rows = [(r.pass_name, r.rule, r.loc, r.reason) for r in refused]
        print_table(f"refused {len(rows)} times", ("pass", "rule", "at", "because"), rows)
    if missed:
        rows = [(m["pass"], m["rule"], m["at"], m["matched"], m["reason"]) for m in missed]
        print_table("near misses", ("pass", "rule", "at", "ops that fit", "but"), rows, right=("ops that fit",))
    for line in note_lines(told):
        print(line)
    if not fired and not refused and not missed and not told:
        print(nothing(rule, at, pipeline, graph))


def nothing(rule: str | None, at: str | None, pipeline: Sequence[Pass], graph: Graph) -> str:
    """Why there is nothing to tell."""
    import difflib

    names = {r.name for p in pipeline for r in getattr(p, "rules", ())} | {p.name for p in pipeline}
    if rule is not None and not any(rule in name for name in names):
        near = difflib.get_close_matches(rule, names, 1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        return f"no rule or pass of this pipeline has {rule!r} in its name (passes may log other names){hint}"
    places = {str(node.loc) for node in graph.walk() if str(node.loc)}
    if at is not None and not any(at in place for place in places):
        near = difflib.get_close_matches(at, places, 1, cutoff=0.3)
        return f"no op of the model is at {at!r}" + (f"; did you mean {near[0]!r}?" if near else "")
    what = f"rule {rule!r}" if rule else "no rule"
    where = f" at {at!r}" if at else ""
    return f"{what} met nothing like its pattern{where}: it neither fired nor was refused"
