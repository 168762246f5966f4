"""Is a program right? Its results beside an f64 run of the interpreter, and the op that first diverges.

The yardstick is the imported graph run in f64 (`effcc.analysis.precision`), with bounds on what rounding in the graph's
own dtypes may do to each element. A program agrees where no element is farther off than its bound.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from effcc.ir.graph import Graph, Node, Value
from effcc.ir.lazy import torch
from effcc.ir.types import Tensor

if TYPE_CHECKING:
    from effcc.analysis.precision import Bounded
    from effcc.program import Program

Arrays = Sequence[Any]
Run = Callable[[Arrays], Arrays]


@dataclass(frozen=True)
class Error:
    """How far a result is off.

    ulp: the largest error in units in the last place of the result's largest element.
    allowed: the largest error divided by its element's bound; at most 1 where the result agrees.
    at: the element that is off most, as measured by its bound; got and exact are its values.
    """

    name: str
    type: str
    largest: float
    ulp: float
    allowed: float
    at: tuple[int, ...]
    got: float
    exact: float

    @property
    def agrees(self) -> bool:
        return self.allowed <= 1


@dataclass(frozen=True)
class Divergence:
    """The first op, in the order of the imported graph, whose result a program gets wrong."""

    op: str
    loc: str
    error: Error


@dataclass(frozen=True)
class Verdict:
    """What verification found: errors of the program, of the reference, and of the passes alone (by interpreter)."""

    program: tuple[Error, ...]
    reference: tuple[Error, ...]
    divergence: Divergence | None = None
    passes_agree: bool | None = None
    fresh_agrees: bool | None = None
    """Whether a fresh compilation of the graph agrees (asked where the program does not)."""

    @property
    def agrees(self) -> bool:
        return all(error.agrees for error in self.program)


def verify(program: Program, graph: Graph, inputs: Arrays, reference: Run | None, compile: Callable[[Graph], Program],
           tell: Callable[[str], None] = lambda message: None) -> Verdict:  # fmt: skip
    """Hold a program of `graph` against an f64 run on NumPy `inputs`.

    reference: another implementation, for scale; None: torch, in the graph's own dtypes.
    compile: makes a program of a part of the graph, in the way in which `program` was made.
    """
    from effcc.analysis.precision import bounded_run
    from effcc.interp import run

    tell("running in f64")
    exact = bounded_run(graph, *tensors(inputs))
    tell("comparing")
    ours = errors(program.output_names, graph.results, program(*inputs), exact)
    other = run(graph, *tensors(inputs)) if reference is None else reference(inputs)
    verdict = Verdict(ours, errors(program.output_names, graph.results, other, exact))
    if verdict.agrees:
        return verdict
    tell("looking for the op that diverges first")
    fresh = compile(graph)
    if all(e.agrees for e in errors(program.output_names, graph.results, fresh(*inputs), exact)):
        return Verdict(ours, verdict.reference, fresh_agrees=True)
    optimized = run(fresh.graph, *tensors(inputs))
    passes_agree = all(e.agrees for e in errors(program.output_names, graph.results, optimized, exact))
    divergence = first_divergence(graph, inputs, compile)
    return Verdict(ours, verdict.reference, divergence, passes_agree, fresh_agrees=False)


def tensors(inputs: Arrays) -> list[Any]:
    """NumPy arrays as torch tensors."""
    from effcc.ir.blob import Blob

    return [x if isinstance(x, torch.Tensor) else Blob(x).torch() for x in inputs]


def errors(names: Sequence[str], values: Sequence[Value], got: Arrays, exact: Sequence[Bounded]) -> tuple[Error, ...]:
    """The error of each result."""
    return tuple(
        error(name, value, tensors([x])[0], bounded)
        for name, value, x, bounded in zip(names, values, got, exact, strict=True)
    )


def error(name: str, value: Value, got: Any, bounded: Bounded) -> Error:
    """How far `got` is from `bounded`. A wrong shape, or NaN for a number, is infinitely far."""
    type_, exact = value.tensor, bounded.exact.double()
    if tuple(got.shape) != tuple(exact.shape):
        return Error(name, str(type_), float("inf"), float("inf"), float("inf"), (), float("nan"), float("nan"))
    if exact.numel() == 0:
        return Error(name, str(type_), 0.0, 0.0, 0.0, (), 0.0, 0.0)
    wide = got.double()
    same = (wide == exact) | (wide.isnan() & exact.isnan())
    off = torch.where(same, 0.0, (wide - exact).abs().nan_to_num(nan=float("inf")))
    ratio = torch.where(same, 0.0, off / bounded.bound.clamp(min=1e-300)).nan_to_num(nan=0.0, posinf=float("inf"))
    worst = int(ratio.argmax())
    at = tuple(int(i) for i in torch.unravel_index(torch.tensor(worst), exact.shape)) if exact.dim() else ()
    finite = exact[exact.isfinite()].abs()
    scale = float(finite.max()) if finite.numel() else 0.0
    return Error(name, str(type_), float(off.max()), float(off.max()) / ulp(type_, scale), float(ratio.max()), at,
                 float(wide.reshape(-1)[worst]), float(exact.reshape(-1)[worst]))  # fmt: skip


def ulp(type_: Tensor, scale: float) -> float:
    """The unit in the last place of a number of size `scale`; 1 for integers."""
    if not type_.dtype.is_float:
        return 1.0
    import math

    eps = float(torch.finfo(type_.dtype.torch).eps)
    return eps * 2.0 ** math.floor(math.log2(scale)) if scale > 0 else eps


def first_divergence(graph: Graph, inputs: Arrays, compile: Callable[[Graph], Program]) -> Divergence | None:
    """The first op whose result is out of bounds.

    First with every value of the graph a result. Where that hides the fault (fusion changes), the graph's prefixes are
    bisected: each ends in one value, and the first wrong one is looked for as if all after it were wrong.
    """
    from effcc.analysis.precision import bounded_run

    places = [(node, value) for node in graph.nodes for value in node.results if _comparable(node, value)]
    if not places:
        return None
    values = tuple(value for _, value in places)
    whole = prefix(graph, values)
    exact = bounded_run(whole, *tensors(inputs))

    def wrong(k: int, got: Any) -> Error | None:
        node, value = places[k]
        found = error(value.name or node.op.name, value, tensors([got])[0], exact[k])
        return None if found.agrees else found

    def named(k: int, found: Error) -> Divergence:
        return Divergence(repr(places[k][0]), str(places[k][0].loc), found)

    for k, got in enumerate(compile(whole)(*inputs)):
        if (found := wrong(k, got)) is not None:
            return named(k, found)

    def probe(k: int) -> Error | None:
        (got,) = compile(prefix(graph, (places[k][1],)))(*inputs)
        return wrong(k, got)

    low, high, culprit = -1, None, None
    for k in (i for i, (_, value) in enumerate(places) if value in graph.results):
        if (culprit := probe(k)) is not None:
            high = k
            break
    if high is None:
        return None
    while high - low > 1:
        middle = (low + high) // 2
        found = probe(middle)
        if found is None:
            low = middle
        else:
            high, culprit = middle, found
    assert culprit is not None
    return named(high, culprit)


def prefix(graph: Graph, results: tuple[Value, ...]) -> Graph:
    """The part of a graph that the given values need, with them as its results and with all of its inputs."""
    needed, nodes = set(results), []
    for node in reversed(graph.nodes):
        if not needed.isdisjoint(node.results):
            nodes.append(node)
            needed.update(node.operands)
    return Graph(graph.name, graph.inputs, tuple(reversed(nodes)), results)


def _comparable(node: Node, value: Value) -> bool:
    return isinstance(value.type, Tensor) and node.op.family != "constant"


def onnxruntime(model: Any, names: Sequence[str], threads: int | None = None) -> Run:
    """ONNX Runtime as a reference: arrays in the order of `names` in, the model's outputs out."""
    import onnxruntime as ort

    from effcc.errors import UnsupportedError

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads or 0
    options.log_severity_level = 4
    try:
        session = ort.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    except Exception as failure:
        reason = str(failure).strip().splitlines()[-1]
        raise UnsupportedError(
            f"ONNX Runtime refuses it: {reason}", where=model, hint="use --against torch"
        ) from failure
    return lambda inputs: session.run(None, dict(zip(names, inputs, strict=True)))


def as_json(verdict: Verdict) -> Mapping[str, Any]:
    """A verdict as JSON."""

    def plain(e: Error) -> dict[str, Any]:
        return {**{k: getattr(e, k) for k in ("name", "type", "largest", "ulp", "allowed", "at", "got", "exact")},
                "agrees": e.agrees}  # fmt: skip

    d = verdict.divergence
    return {"agrees": verdict.agrees, "program": [plain(e) for e in verdict.program],
            "reference": [plain(e) for e in verdict.reference], "passes_agree": verdict.passes_agree,
            "fresh_agrees": verdict.fresh_agrees,
            "divergence": None if d is None else {"op": d.op, "at": d.loc, "error": plain(d.error)}}  # fmt: skip
