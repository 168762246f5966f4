"""What must hold for every graph: each law is a function from a case to nothing, or a Finding. Cheapest first.

    hold("each-pass", Case.of(graph, seed=0))

That each rule alone keeps its contract on all small graphs is held without drawn cases, by `effcc.fuzz.exhaustive`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from effcc.analysis.precision import NARROW, Rounded, expand, sampled, unit_roundoff
from effcc.driver import compile_graph
from effcc.errors import EffccError, InputError, UnsupportedError
from effcc.fuzz.case import Case, Finding, Profile
from effcc.fuzz.transform import embellish
from effcc.interp import run
from effcc.ir import Graph, verify
from effcc.ir.blob import Blob
from effcc.ir.encodings import stores_zeros
from effcc.ir.lazy import torch
from effcc.ir.types import bf16, f16, f32, f64
from effcc.pipeline import Pass, parse_pipeline
from effcc.testing.compare import Fairness, cone, same_bits, same_elements
from effcc.testing.contracts import covers_special, holds
from effcc.text import parse

Law = Callable[[Case], None]


def text(case: Case) -> None:
    """print -> parse -> print is a fixpoint, and the parsed graph is equal, hash included."""
    graph = case.graph
    printed = str(graph)
    from effcc.text import blobs

    try:
        again = parse(printed, blobs(graph))
    except EffccError as error:
        raise Finding("text", f"its own text is refused: {error.message}", graph) from error
    if again != graph or hash(again) != hash(graph):
        raise Finding("text", "the parsed graph is another", graph)
    if str(again) != printed:
        raise Finding("text", "the text changes when it is parsed and printed", graph)


def each_pass(case: Case) -> None:
    """Every pass of the pipeline keeps its promise."""
    run_passes(case, "each-pass", case.subject.pipeline())


def pass_orders(case: Case) -> None:
    """So do the recipe's: in orders that no pipeline has, some of them several times, with other options."""
    run_passes(case, "pass-orders", case.recipe.passes)


def embellished(case: Case) -> None:
    """A graph to which ops were added that do nothing (split and concatenated, transposed there and back, ...) means
    the same, before and after the passes."""
    changed = embellish(case.graph, case.chance("embellished"))
    try:
        case.equal("embellished", case.graph, changed)
    except EffccError as error:
        raise Finding("embellished", f"embellished: {error.message}", case.graph) from error
    run_passes(replace(case, coverage=None), "embellished", case.subject.pipeline(), changed)


def run_passes(case: Case, law: str, passes: Sequence[Pass], graph: Graph | None = None) -> Graph:
    """Run passes one by one; a Finding tells which one broke its contract. A pass that is no part of a target's
    pipeline may refuse a graph (InputError), and is passed over."""
    graph, done, ctx = graph or case.graph, [], case.context()
    for p in passes:
        done.append(p)
        before = len(ctx.log)
        try:
            new = case.run_pass(p, graph, ctx)
            if new is not graph:
                verify(new, known=frozenset(graph.nodes))
        except Exception as error:
            if isinstance(error, InputError) and p.category not in ("exact", "lower"):
                continue
            raise Finding(law, f"pass {p}: {say(error)}", case.graph, done) from error
        if new is not graph:
            try:
                special = covers_special(p, {rewrite.rule for rewrite in ctx.log[before:]})
                case.equal(law, graph, new, holds(p), done, special)
            except EffccError as error:  # the changed graph has no value where the original has one
                raise Finding(law, f"after pass {p}: {error.message}", case.graph, done) from error
        graph = new
    return graph


def compiled(case: Case) -> None:
    """The program for the target agrees with the interpreter, writes to no input, and gives the same bits twice, its
    memory poisoned in between."""
    check_compiled("compiled", case)


def schedules(case: Case) -> None:
    """The same under the schedule without barriers."""
    if "tiles" in case.subject.schedules:
        check_compiled("schedules", case, schedule="tiles")


def recipes(case: Case) -> None:
    """What the recipe's passes leave is compiled by its schedule, for its threads, and agrees as well."""
    recipe = case.recipe
    left = run_passes(case, "recipes", recipe.passes)
    try:
        check_compiled("recipes", replace(case, graph=left), schedule=recipe.schedule, threads=recipe.threads)
    except Finding as finding:
        passes = [str(p) for p in recipe.passes]
        raise Finding("recipes", finding.message, case.graph, passes, finding.inputs) from finding


def check_compiled(law: str, case: Case, **options: Any) -> None:
    """The compiled graph of a case agrees with the interpreter; `options` are compile_graph's."""
    graph, subject = case.graph, case.subject
    if subject.schedules == ("barriers",):
        options.pop("schedule", None)
    try:
        program = compile_graph(graph, subject.target, **options)
    except UnsupportedError:
        return
    except Exception as error:
        raise Finding(law, f"it does not compile: {say(error)}", graph) from error
    if case.coverage is not None:
        case.coverage.compiled(program.code)
    covered = all(
        covers_special(p, {done.rule for done in program.context.log if done.pass_name == p.name})
        for p in parse_pipeline(subject.backend.pipeline())
    ) and all(stores_zeros(v.type) for v in graph.values)
    for profile, inputs in case.inputs.items():
        given = [copy(x) for x in inputs]
        try:
            first = tuple(map(tensor_of, program(*given)))
            kept = [copy(x) for x in first]
            getattr(program.code, "poison", _nothing)()
            second = tuple(map(tensor_of, program(*[copy(x) for x in inputs])))
        except Exception as error:
            raise Finding(law, f"it does not run: {say(error)}", graph, inputs=inputs) from error
        donated = {j for _, j in graph.aliases}
        for k, (before, after) in enumerate(zip(inputs, given, strict=True)):
            if k not in donated and not same_bits(before, after):
                raise Finding(law, f"input {k} was written to", graph, inputs=inputs)
        for k, (a, b) in enumerate(zip(kept, second, strict=True)):
            if not same_bits(a, b):
                raise Finding(law, f"result {k} differs between two calls", graph, inputs=inputs)
        if subject.backend.name == "cpu":
            same_as_interpreted(law, case, program.graph, profile, kept)
        if covered or case.is_ordinary(graph, profile):
            agree(law, case, program.graph, profile, kept)


def same_as_interpreted(law: str, case: Case, optimized: Graph, profile: Profile, found: Sequence[Any]) -> None:
    """Code gives the bits that the interpreter makes of the optimized graph, where these can be asked, signs of zeros
    among them: what a fused kernel does not round, or rounds twice, shows nowhere else."""
    inputs, wanted = case.inputs[profile], case.run(case.graph, profile)
    differing = [k for k, (w, f) in enumerate(zip(wanted, found, strict=True)) if not same_bits(w, f)]
    plain = expand(optimized) if differing else optimized
    for k in differing:
        made = cone(plain, k)
        if not is_exact(made, inputs):
            continue
        (own,) = run(made, *inputs)
        if not same_bits(own, found[k], Fairness.of(made, inputs).signed_zeros):
            said = f"{profile.name}: result {k} differs in bits from what the interpreter makes of the optimized graph"
            raise Finding(law, said, case.graph, inputs=inputs)


def agree(law: str, case: Case, optimized: Graph, profile: Profile, found: Sequence[Any]) -> None:
    """What a backend computed lies within the bounds of rounding around the interpreter's f64 result. On special inputs
    elements that are not finite must agree in kind where what makes them is bitwise, and are not compared elsewhere,
    nor is what was made of them: torch's own functions differ on them between their vector and their scalar forms."""
    graph, inputs, wanted = case.graph, case.inputs[profile], case.run(case.graph, profile)
    differing = [k for k, (w, f) in enumerate(zip(wanted, found, strict=True)) if not same_bits(w, f, False)]
    if not differing:
        return
    unit = max(map(unit_roundoff, (graph, optimized)))
    dtype = next(d for d in (bf16, f16, f32, f64) if NARROW[d.name] == unit)
    bitwise = {k: case.fair(profile, cone(graph, k)).bitwise for k in differing}
    runs = [Rounded(g, *inputs, dtype=dtype) for g in (graph, optimized)]

    def first_beyond(leeway: Mapping[int, Any]) -> str | None:
        said = (_beyond(wanted[k], found[k], *limits[k], leeway[k], bitwise[k]) for k in differing)
        return next((f"result {k}{message}" for k, message in zip(differing, said, strict=True) if message), None)

    for wide in sampled(*runs):
        limits = [(a.exact.double(), a.bound + b.bound if a.bound.shape == b.bound.shape else _anything(a.bound))
                  for a, b in zip(*wide, strict=True)]
        if first_beyond(dict.fromkeys(differing, 0.0)) is None:
            return
    leeway = {b: runs[0].leeway(strange=not b) for b in set(bitwise.values())}
    message = first_beyond({k: leeway[bitwise[k]][k] for k in differing})
    if message is not None:
        raise Finding(law, f"{profile.name}: {message}", graph, inputs=inputs)


def _anything(bound: Any) -> Any:
    """The bound of what rounding makes more or fewer elements of."""
    return torch.full_like(bound, float("inf"))


def _beyond(wanted: Any, found: Any, exact: Any, limit: Any, leeway: Any, bitwise: bool) -> str | None:
    """The first element that a backend found beyond its limit, and the leeway."""
    f, limit = found.double(), limit + leeway
    if exact.shape != f.shape:  # how many elements there are is a matter of rounding, unless bits may be asked
        return " has another shape" if bitwise else None
    same = same_elements(exact, f) | ((exact - f).abs() <= limit) | limit.isinf() | limit.isnan()
    far = ~same if bitwise else ~same & exact.isfinite()
    if found.is_floating_point():  # (nobody can hold more)
        far &= ~(exact.abs() > torch.finfo(found.dtype).max) | exact.isinf()
    if found.shape == wanted.shape:  # what the interpreter gives in the same dtypes is right
        far &= ~same_elements(found, wanted)
    if not far.any():
        return None
    at = tuple(int(i) for i in far.nonzero()[0])
    values = (found[at].item(), wanted[at].item(), exact[at].item(), limit[at].item())
    return f"{list(at)} " + "is {}, the interpreter says {}, in f64 {} (allowed: {:.3g})".format(*values)


def is_exact(graph: Graph, inputs: Sequence[Any]) -> bool:
    """Whether code must give the interpreter's very bits: elements are moved and computed one by one, each op rounds
    once, by a function that is rounded right, and no product of wide floats meets a sum, with which it may contract."""
    wide: set[str] = set()
    for node in graph.walk():
        nest = None if node.op.graphs() or node.op.family == "constant" else node.op.compute(*node.types)
        if node.op.family not in ("elementwise", "view", "constant") or nest is None and node.op.family != "constant":
            return False
        rounded = [s for s in nest.applied() if s.dtype.is_float] if nest else []
        if sum(s.fn not in ("select", "cast", "max", "min", "neg", "abs") for s in rounded) > 1:
            return False
        wide |= {s.fn for s in rounded if s.dtype.bits >= 32}
    return not ("mul" in wide and wide & {"add", "sub"}) and Fairness.of(graph, inputs).bitwise


def definitions(case: Case) -> None:
    """The loop nest of each op, of which code is made, computes what the op means: see effcc.fuzz.definitions."""
    from effcc.fuzz.definitions import hold

    hold(case)


def reference(case: Case) -> None:
    """ONNX Runtime, which shares no misreading of an op with us, agrees: see effcc.fuzz.references."""
    from effcc.fuzz.references import hold

    hold(case)


def _nothing() -> None:
    """Where a target's programs have no memory of their own."""


def tensor_of(x: Any) -> Any:
    """A result for torch: where nothing was given, NumPy's arrays come back."""
    return Blob(x).torch() if isinstance(x, np.ndarray) else x


def copy(x: Any) -> Any:
    return x.clone() if isinstance(x, torch.Tensor) else x


def say(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else ''}"[:300]


LAWS: dict[str, Law] = {
    "text": text,
    "definitions": definitions,
    "each-pass": each_pass,
    "pass-orders": pass_orders,
    "embellished": embellished,
    "compiled": compiled,
    "schedules": schedules,
    "recipes": recipes,
    "reference": reference,
}


def hold(name: str, case: Case) -> None:
    """Hold a case against a law; Finding where it does not hold, or dies."""
    try:
        LAWS[name](case)
    except Finding:
        raise
    except Exception as error:
        raise Finding(name, f"the law itself dies: {say(error)}", case.graph) from error
