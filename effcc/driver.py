"""compile(): frontend -> pipeline -> backend -> Program.

program = effcc.compile("model.onnx")
(logits,) = program(images)
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pkgutil import resolve_name
from typing import Any, Protocol

import numpy as np

from effcc.errors import EffccError, InputError, NeedsValue, UnsupportedError
from effcc.ir.graph import Graph
from effcc.pipeline import Context, Instrument, Pass, PassManager, Time, Verify, parse_pass, parse_pipeline
from effcc.program import Program
from effcc.search.data import Samples
from effcc.search.options import find_hole
from effcc.specialize import Specializing, Unit


class Backend(Protocol):
    """What a target offers the driver."""

    name: str
    machine: Any

    def pipeline(self) -> str: ...

    def compile(self, graph: Graph, ctx: Context, threads: int | None = None, **options: Any) -> Any:
        """`options`: schedule= and tune= for backends that list their `schedules`."""
        ...


def backend_of(target: str) -> Backend:
    """The backend of a target; UnsupportedError lists the targets where there is none."""
    table: Mapping[str, str] = importlib.import_module("effcc.backends").BACKENDS
    name = target.partition("{")[0].strip()
    if name not in table:
        raise UnsupportedError(f"there is no target {name!r}", hint=f"targets: {', '.join(table)}")
    return resolve_name(table[name])(target)


def artifact_suffix(target: str) -> str:
    """How the names of a target's files end."""
    return importlib.import_module("effcc.backends").SUFFIXES.get(target.partition("{")[0].strip(), ".effcc")


CATEGORY_OPTIONS = {"reduce_tokens": "reduce-tokens", "quantize": "quantize", "sparsify": "sparsify", "prune": "prune"}


AUTO_BUDGET = "cosine>=0.999"
"""What precision="auto" keeps where no budget is stated."""


def rounding(precision: str, target: str, quantize: Pass | str | None) -> Pass | str | None:
    """The quantizing pass that a precision stands for, or the one that was asked for."""
    offered: Mapping[str, str] = {"fp32": "", **getattr(backend_of(target), "precisions", {})}
    if precision not in offered:
        one_of = ", ".join(map(repr, offered))
        raise UnsupportedError(f"precision={precision!r} is not offered", hint=f"one of {one_of}")
    if precision == "fp32":
        return quantize
    if quantize is not None:
        hint = "leave out one of them"
        raise UnsupportedError(f"precision={precision!r} and quantize= together are not offered", hint=hint)
    return offered[precision]


def compile(
    model: Any,
    target: str = "cpu",
    inputs: Any = None,
    shapes: Any = None,
    precision: str = "fp32",
    passes: str | list[Pass] | None = None,
    quantize: Pass | str | None = None,
    sparsify: Pass | str | None = None,
    reduce_tokens: Pass | str | None = None,
    prune: Pass | str | None = None,
    schedule: str = "barriers",
    budget: Any = None,
    calibration: Any = None,
    tune: str = "default",
    *,
    values: Mapping[str, Any] | None = None,
    threads: int | None = None,
    check: bool = False,
    progress: Callable[[str], None] | None = None,
    instruments: tuple[Instrument, ...] = (),
    search_minutes: float | None = None,
) -> Program | Specializing:
    """Compile a model for a target.

    model: a path (.onnx, .effir), an onnx ModelProto, an nn.Module (with example `inputs`), an ExportedProgram, or a
    Graph.
    shapes: {input name: sizes}; a size may be a number, a symbol's name, or a (lowest, highest) range.
    precision: what products are multiplied in: "fp32", "bf16" (cpu, cuda) or "fp16" (cuda). Sums stay in fp32. "auto"
        (cpu): bf16 for as much of the arithmetic as keeps the budget ("cosine>=0.999" if none is stated) on the
        calibration data; the most sensitive ops stay.
    passes: a pipeline that replaces the target's default. quantize, sparsify, reduce_tokens, prune: a pass of that
    category
        (an instance, or text such as "tome:r=13") to insert into the default pipeline.
    calibration: samples of the inputs for passes that look at activations: a path to an .npz (arrays named as the
    inputs, first axis samples; "labels" where there are any), such a dict, or an iterable of samples.
    budget: what the model must still do on the calibration data ("top1>=0.99", "kl<=0.01", a Python function):
    searches the option that a pass leaves open, as reduce_tokens="tome:r=?", for at most `search_minutes`
    (docs/budgets.md).
    values: {input name: contents} to compile for, where a model's structure depends on them; calls with others are
    refused.
    threads: how many the program uses by default; all cores of the process if None.
    check: run every pass against the reference interpreter on random inputs.
    schedule: "barriers" between kernels, "tiles" without them (docs/tiles.md), "auto": the faster, as measured.
    Raises EffccError: one line with what is wrong, where, and how to mend it.
    """
    for name, value, known in (
        ("schedule", schedule, ("auto", "barriers", "tiles")),
        ("tune", tune, ("default", "none")),
    ):
        if value not in known:
            raise UnsupportedError(f"{name}={value!r} is not offered", hint=f"one of {', '.join(map(repr, known))}")
    quantize = rounding(precision, target, quantize)
    if precision == "auto":
        if calibration is None:
            hint = "give calibration=, or on the command line --calibration data.npz"
            raise InputError("precision='auto' measures errors on calibration data", hint=hint)
        budget = budget or AUTO_BUDGET
    tell = progress or (lambda message: None)
    extra = {
        c: p
        for option, c in CATEGORY_OPTIONS.items()
        if (p := {"quantize": quantize, "sparsify": sparsify, "reduce_tokens": reduce_tokens, "prune": prune}[option])
        is not None
    }
    options: dict[str, Any] = {
        "target": target,
        "passes": passes,
        "extra": extra,
        "calibration": calibration,
        "threads": threads,
        "check": check,
        "progress": tell,
        "instruments": instruments,
        "tune": tune,
        "schedule": schedule,
        "budget": budget,
        "search_minutes": search_minutes,
    }
    frontend = importlib.import_module("effcc.frontends").find(model)
    if frontend is None:
        raise UnsupportedError(
            f"no frontend takes a {type(model).__name__}" + (f" ({model})" if isinstance(model, str) else ""),
            hint="give a path to a .onnx or .effir file, an onnx ModelProto, an nn.Module with inputs=, or a Graph",
        )
    tell("import")

    promised = {name: np.asarray(value) for name, value in (values or {}).items()}
    if promised and not hasattr(frontend, "imported"):
        raise UnsupportedError("values= is for models that take shapes or choices as inputs", hint="leave it out")

    if isinstance(calibration, Iterator):  # it is read for each of a model's programs
        options["calibration"] = list(calibration)

    def make(fixed: Mapping[str, Any], seen: Mapping[str, Any]) -> Unit:
        fixed = {**promised, **fixed}
        wanted = {**(shapes or {}), **seen} or None
        if not hasattr(frontend, "imported"):
            return Unit(
                compile_graph(frontend.load(model, inputs=inputs, shapes=wanted, fixed=fixed or None), **options)
            )
        source = frontend.imported(model, shapes=wanted, fixed=fixed or None)
        flat = all(port.kind == "tensor" for port in (*source.inputs, *source.outputs))
        samples = None if calibration is None else Samples.load(options["calibration"], source.graph, fixed)
        program = compile_graph(source.graph, **{**options, "calibration": samples})
        program.fixed = promised
        return Unit(program) if flat else Unit(program, source.inputs, source.outputs)

    try:
        unit = make({}, {})
    except NeedsValue as needs:
        if not hasattr(frontend, "signature") or budget is not None:  # a search is for one program
            raise
        return Specializing(make, frontend.signature(model), needs.inputs, needs.shapes)
    if unit.inputs is None:
        return unit.program
    whole = Specializing(make, frontend.signature(model))
    whole.units[(), ()] = unit
    return whole


def compile_graph(
    graph: Graph,
    target: str = "cpu",
    passes: str | list[Pass] | None = None,
    extra: Mapping[str, Pass | str] | None = None,
    calibration: Any = None,
    threads: int | None = None,
    check: bool = False,
    progress: Callable[[str], None] = lambda message: None,
    instruments: tuple[Instrument, ...] = (),
    tune: str = "default",
    schedule: str = "barriers",
    budget: Any = None,
    search_minutes: float | None = None,
) -> Program:
    """Compile a graph: its passes, then the target's backend. calibration: what `Samples.load` takes, or None.

    tune: "none" measures nothing, so that passes which choose by the clock go by their cost models.
    """
    samples = None if calibration is None else Samples.load(calibration, graph)
    if budget is not None or find_hole(passes, extra or {}) is not None:
        from effcc.search.budget import search

        def compiled(passes: Any, extra: Mapping[str, Any], seen: Samples | None) -> Program:
            return compile_graph(graph, target, passes, extra, seen, threads, check, tune=tune, schedule=schedule)

        return search(compiled, budget, samples, passes, extra or {}, progress, search_minutes)
    backend = backend_of(target)
    measure = None if tune == "none" else getattr(backend, "measure", None)
    if measure is not None:
        measure = partial(measure, threads=threads)
    ctx = Context(machine=backend.machine, calibration=samples, measure=measure, progress=progress)
    pipeline = pipeline_of(backend, passes, extra or {})
    times = Time()
    watch: tuple[Instrument, ...] = (times, *instruments)
    if check:
        from effcc.testing import Check

        watch = (*watch, Verify(), Check())
    start = time.perf_counter()
    optimized = PassManager(watch).run(graph, pipeline, ctx)
    progress("code")
    middle = time.perf_counter()
    scheduled: dict[str, Any] = {"schedule": schedule, "tune": tune} if hasattr(backend, "schedules") else {}
    if schedule == "tiles" and not scheduled:
        raise UnsupportedError(f'target {backend.name} has no schedule="tiles"', hint="leave it out")
    code = backend.compile(optimized, ctx, threads, **scheduled)
    seconds = {"passes": middle - start, "code": time.perf_counter() - middle}
    return Program(graph, optimized, code, target, ctx, times, seconds)


def pipeline_of(backend: Backend, passes: str | list[Pass] | None, extra: Mapping[str, Pass | str]) -> list[Pass]:
    """The passes to run: the given ones, or the target's default with the category options at their place (in front
    of the
    first pass of category "lower")."""
    if isinstance(passes, list):
        pipeline = list(passes)
    else:
        pipeline = list(parse_pipeline(backend.pipeline() if passes is None else passes))
    chosen: list[Pass] = []
    for category in ("prune", "reduce-tokens", "sparsify", "quantize"):
        if category not in extra:
            continue
        given = extra[category]
        one = parse_pass(given) if isinstance(given, str) else given
        if one.category != category:
            raise InputError(f"pass {one.name} is of category {one.category!r}, not {category!r}")
        chosen.append(one)
    at = next((k for k, p in enumerate(pipeline) if p.category == "lower"), len(pipeline))
    return pipeline[:at] + chosen + pipeline[at:]


__all__ = ["Backend", "EffccError", "Program", "backend_of", "compile", "compile_graph", "pipeline_of"]
