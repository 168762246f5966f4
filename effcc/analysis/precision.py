"""How exact a result is: the same graph in f64, and bounds on rounding errors.

Bounds come from Monte Carlo arithmetic (Parker 1997): the f64 graph is run again with each op's result perturbed by one
rounding of the narrow dtype, sums by one of their accumulated magnitude; what that moves a result by is what rounding
may do to it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import islice
from typing import Any

from effcc.analysis.overflow import OVERFLOWS, Range
from effcc.interp import observed, run
from effcc.ir.blob import Blob
from effcc.ir.builder import Builder, inline, spelled_out
from effcc.ir.dims import evaluate, product
from effcc.ir.graph import Graph, Node, Value
from effcc.ir.lazy import torch
from effcc.ir.op import Op, op_class
from effcc.ir.scalar import REDUCTION, SCAN, Apply, walk
from effcc.ir.types import DTYPES, DType, Optional, Sequence, Tensor, Type, f64

NARROW = {"f32": 2.0**-24, "f16": 2.0**-11, "bf16": 2.0**-8, "f64": 2.0**-53}
"""Dtypes that widening turns into f64, with their unit roundoff."""
SUMS = frozenset({"contraction", "reduction", "scan", "window"})
MOVES = frozenset({"view", "index", "constant"})
SAMPLES, RARE = 6, 24
"""How many runs tell how far rounding moves a number, and how many find out that it decides one: that two elements are
equal, say, or whether a number is whole."""
STEPS = frozenset({"ceil", "floor", "floordiv", "fmod", "mod", "round", "sign", "trunc"})
"""Ops that make floats of others with jumps."""


CUBIC = 15.0
"""The largest term of a cubic kernel's weight a(t³ - 5t² + 8t - 4), t ≤ 2, |a| ≤ 0.75: its rounding is relative to its
terms (Keys 1981)."""


def interpolates(op: Op) -> bool:
    """Whether an op adds up neighbours with fractional weights, axis by axis."""
    return op.name == "roi_align" or getattr(op, "mode", None) in ("linear", "cubic")


def widen(graph: Graph) -> Graph:
    """The same graph with every f32, f16 and bf16 made f64: in types, attributes, constants and nested graphs."""
    fresh = {v: Value(_wide_type(v.type), v.name) for v in graph.values}

    def renew(values: tuple[Value, ...]) -> tuple[Value, ...]:
        return tuple(fresh[v] for v in values)

    nodes = (w for n in graph.nodes for w in _wide_nodes(n, renew(n.operands), renew(n.results)))
    return Graph(graph.name, renew(graph.inputs), tuple(nodes), renew(graph.results), graph.aliases)


def _wide_nodes(node: Node, operands: tuple[Value, ...], results: tuple[Value, ...]) -> list[Node]:
    """The node widened; what does not widen still gets, and gives, numbers of the narrow dtype."""
    if node.op.widens:
        return [Node(_wide_op(node.op), operands, results, node.loc)]
    cast: Any = op_class("cast")
    given = [v if v.type == old.type else Value(old.type) for v, old in zip(operands, node.operands, strict=True)]
    made = [v if v.type == old.type else Value(old.type) for v, old in zip(results, node.results, strict=True)]
    before = [Node(cast(to=n.dtype), (v,), (n,), node.loc) for v, n in zip(operands, given) if n is not v]
    after = [Node(cast(to=v.dtype), (n,), (v,), node.loc) for v, n in zip(results, made) if n is not v]
    return [*before, Node(node.op, tuple(given), tuple(made), node.loc), *after]


def widen_tensor(t: Any) -> Any:
    """A tensor (or list of tensors) as the widened graph takes it."""
    if isinstance(t, (list, tuple)):
        return [widen_tensor(x) for x in t]
    narrow = isinstance(t, torch.Tensor) and t.dtype in (torch.float32, torch.float16, torch.bfloat16)
    return t.double() if narrow else t


def _wide_dtype(dtype: DType) -> DType:
    return f64 if dtype.name in NARROW else dtype


def _wide_type(type_: Type) -> Type:
    match type_:
        case Tensor(dtype, shape, encoding):
            return Tensor(_wide_dtype(dtype), shape, encoding)
        case Sequence(element):
            return Sequence(_wide_type(element))
        case Optional(element):
            return Optional(_wide_type(element))
    return type_


def _wide_op(op: Op) -> Op:
    changes = {name: new for name, v in op.attrs.items() if (new := _wide_value(v)) is not v}
    return op.replace(**changes) if changes else op


def _wide_value(value: Any) -> Any:
    match value:
        case DType():
            return _wide_dtype(value)
        case Type():
            return _wide_type(value)
        case Graph():
            return widen(value)
        case Blob() if value.type.dtype.name in NARROW and value.type.dtype != f64:
            return Blob(value.array.astype("f8"))
    return value


def expand(graph: Graph) -> Graph:
    """The graph with composite ops (no loop nest of their own, but a decomposition) spelled out; itself, if it has
    none."""
    if not any(n.op.name == "fused" or type(n.op).decompose is not Op.decompose for n in graph.nodes):
        return graph
    b = Builder(graph.name)
    b.inputs = list(graph.inputs)
    values: dict[Value, Value] = {v: v for v in graph.inputs}
    changed = False
    for node in graph.nodes:
        operands = tuple(values[v] for v in node.operands)
        with b.at(node.loc):
            out = None
            if not node.op.graphs() and node.op.compute(*node.types) is None:
                out = spelled_out(b, node.op, operands)
            if out is not None and node.op.family == "normalization":  # (its zeros are those of sums: of either sign)
                out = tuple(b.add(v, b.full_like(v, 0.0)) for v in out)
            changed |= out is not None or node.op.name == "fused"
            if out is None:
                out = inline(b, node.op.body, operands) if node.op.name == "fused" else b.emit(node.op, operands)  # type: ignore[attr-defined]
        values.update(zip(node.results, out, strict=True))
    return expand(b.graph(*(values[v] for v in graph.results), aliases=graph.aliases)) if changed else graph


@dataclass(frozen=True)
class Bounded:
    """A result in f64, and by how much a run in the narrow dtype may differ, element by element."""

    exact: Any
    bound: Any


class Rounded:
    """A graph's results in f64, and how far roundings in `dtype` (default: the narrowest float in the graph) moved them
    in the runs sampled so far.

    quanta: a dequantized element is known to half its scale only, as where quantization stands for a real number.
    beside: a graph that computes the same; numbers may leave the range of its dtypes too.
    """

    def __init__(
        self, graph: Graph, *tensors: Any, dtype: DType | None = None, seed: int = 0, quanta: bool = False,
        beside: Graph | None = None,
    ):
        self.unit, self.quanta = NARROW[dtype.name] if dtype else unit_roundoff(graph), quanta
        floats = _floats(graph) | (_floats(beside) if beside else set())
        self.range = Range.of(f64, *(DTYPES[name] for name in floats), *((dtype,) if dtype else ()))
        expanded = expand(graph)
        self.wide, self.inputs = widen(expanded), [widen_tensor(t) for t in tensors]
        self.tested: dict[int, Any] = {}
        """What is asked whether it is 0, unmoved, by node; None where a node runs more than once."""
        self.steps = any(map(_is_step, self.wide.walk()))
        with observed(self._note) if self.steps else nullcontext():
            self.unmoved = run(self.wide, *self.inputs)
        self.exact = self.unmoved if expanded is graph else run(widen(graph), *self.inputs)  # composites as they mean
        self.generator, self.runs = torch.Generator().manual_seed(seed), 0
        self.spread = [_distance(a, b) for a, b in zip(self.unmoved, self.exact)]  # (0 but for what f64 itself decides)

    def sample(self) -> tuple[Bounded, ...]:
        """The results after one run more, which moves nothing where there were enough and nothing jumps."""
        self.runs += 1
        with observed(lambda n, xs, rs: self._crossed(n, xs, rs)
                      or _perturb(n, xs, rs, self.unit, self.generator, self.quanta)):  # fmt: skip
            moved = run(self.wide, *self.inputs)
        for s, a, b in zip(self.spread, moved, self.unmoved):
            if self.runs <= SAMPLES or self.steps:
                s.copy_(torch.maximum(s, _distance(a, b)))
        return self.bounds()

    def bounds(self) -> tuple[Bounded, ...]:
        """The results, and how far the runs so far moved them."""
        return tuple(Bounded(x, _bound(x, s, self.unit)) for x, s in zip(self.exact, self.spread))

    def _note(self, node: Node, operands: tuple, results: tuple) -> None:
        if _asks_for_zero(node):
            self.tested[id(node)] = None if id(node) in self.tested else _number_tested(operands)

    def _crossed(self, node: Node, operands: tuple, results: tuple) -> tuple | None:
        """Whether a number is 0, or two are equal, where 0 lies between what it (or their difference) is and what it
        was moved to: no draw would hit it."""
        before = self.tested.get(id(node))
        if before is None or before.shape != (now := _number_tested(operands)).shape:
            return None
        crossed = before * now < 0
        return (results[0] | crossed if node.op.name == "eq" else results[0] & ~crossed,)

    def leeway(self, strange: bool = False) -> tuple[Any, ...]:
        """By how much more results of a run in the narrow dtype may differ: numbers on the way may leave its range.
        strange: those that are not finite may differ as well, and what is made of them."""
        most = [torch.zeros_like(s) for s in self.spread]
        for overflow in OVERFLOWS * (2 if strange else 1):  # (which element becomes what is drawn)
            inputs = [self._leave(x, x, overflow) for x in self.inputs]
            with observed(lambda n, xs, rs, overflow=overflow: self._left(n, xs, rs, overflow, strange)):
                moved = run(self.wide, *inputs)
            for m, a, b in zip(most, moved, self.unmoved):
                m.copy_(torch.maximum(m, _distance(a, b)))
        return tuple(16 * m for m in most)

    def _left(self, node: Node, operands: tuple, results: tuple, overflow: float, strange: bool) -> tuple | None:
        if strange and node.op.name in ("eq", "ne") and node.operands[0].dtype.is_float:
            a, b = operands  # (no draw would hit the other number)
            return (results[0] ^ ~(a.isfinite() & b.isfinite()),)
        if _moves(node.op) and node.op.family != "constant" or not any(map(_has_sums, results)):
            return None
        reach = _farthest(node, operands, _summed(node, operands, results)[0])
        made: Any = all(x.numel() and bool(x.isfinite().all()) for x in operands if _has_sums(x))
        if not made and node.op.family == "elementwise":  # each element of its own
            made = torch.ones((), dtype=torch.bool)
            for x in operands:
                made = made & x.isfinite() if _has_sums(x) else made
        elif strange and not made and interpolates(node.op):  # what has a share in an element, rounding decides
            results = tuple(torch.full_like(x, float("nan")) if _has_sums(x) else x for x in results)
        return tuple(self._leave(x, r, overflow, strange, made) for x, r in zip(results, reach))

    def _leave(self, x: Any, reach: Any, overflow: float, strange: bool = False, made: Any = False) -> Any:
        """A value of the widened graph, as it may become; what is no f64 tensor stays."""
        wide = isinstance(x, torch.Tensor) and x.dtype == torch.float64
        return self.range.leave(x, reach.abs(), overflow, self.generator, strange, made) if wide else x


def sampled(*runs: Rounded) -> Iterator[tuple[tuple[Bounded, ...], ...]]:
    """The bounds of some runs before any sample, and after each. They only grow: what lies within need not wait for the
    last."""
    yield tuple(each.bounds() for each in runs)
    for _ in range(RARE if any(each.steps for each in runs) else SAMPLES):
        yield tuple(each.sample() for each in runs)


def _asks_for_zero(node: Node) -> bool:
    """Whether a node asks if a float is 0, or if two are equal."""
    asks = node.op.name in ("eq", "ne") or node.op.name == "cast" and node.result.dtype.is_bool
    return asks and node.operands[0].dtype.is_float


def _number_tested(operands: tuple[Any, ...]) -> Any:
    first, *second = operands
    return first - second[0] if second else first


def _is_step(node: Node) -> bool:
    """Whether an op makes integers of floats (comparisons, positions), or floats with jumps."""
    floats, others = ([isinstance(v.type, Tensor) and v.type.dtype.is_float for v in vs]
                      for vs in (node.operands, node.results))  # fmt: skip
    return any(floats) and (not all(others) or node.op.name in STEPS)


def bounded_run(
    graph: Graph, *tensors: Any, dtype: DType | None = None, seed: int = 0, quanta: bool = False
) -> tuple[Bounded, ...]:
    """Results in f64 with rounding-error bounds for a run in `dtype`: see Rounded."""
    *_, (bounded,) = islice(sampled(Rounded(graph, *tensors, dtype=dtype, seed=seed, quanta=quanta)), SAMPLES + 1)
    return bounded


def unit_roundoff(graph: Graph) -> float:
    """That of the narrowest float in a graph."""
    return max((NARROW[name] for name in _floats(graph)), default=NARROW["f64"])


def _floats(graph: Graph) -> set[str]:
    return {v.type.dtype.name for v in graph.values if isinstance(v.type, Tensor) and v.type.dtype.name in NARROW}


def _bound(exact: Any, spread: Any, unit: float) -> Any:
    if not exact.is_floating_point():  # (where rounding decides at all, a few samples are not all that it may do)
        return 16 * spread
    typical = spread[torch.isfinite(spread)].mean() if torch.isfinite(spread).any() else 0.0
    return 16 * spread + 2 * typical + 4 * unit * exact.double().abs().nan_to_num(0.0, 0.0, 0.0) + 1e-40


def _distance(a: Any, b: Any) -> Any:
    """|a - b|, 0 where both are the same NaN or infinity, inf where only one is."""
    if a.shape != b.shape:
        return torch.full(b.shape, float("inf"), dtype=torch.float64)
    a, b = a.double(), b.double()
    same = (a == b) | (a.isnan() & b.isnan())
    return torch.where(same, 0.0, (a - b).abs().nan_to_num(float("inf")))


def _perturb(
    node: Node, operands: tuple, results: tuple, unit: float, generator: Any, quanta: bool = False
) -> tuple | None:
    """Each float element moved by up to one rounding of what was added up to make it."""
    if _moves(node.op) or not any(map(_has_sums, results)):
        return None
    magnitude = _magnitude(node, operands, results)
    if quanta and node.op.name == "dequantize_linear":
        x, scale = operands[:2]
        half = 0.5 * node.op.spread(x, scale).abs().to(results[0].dtype).expand_as(x)  # type: ignore[attr-defined]
        return (_moved(results[0], half * _alike(x, generator)),)
    moved = (
        _moved(r, unit * m * (torch.rand(r.shape, generator=generator, dtype=r.dtype) * 2 - 1)) if _has_sums(r) else r
        for r, m in zip(results, magnitude)
    )
    either = node.op.family in SUMS | {"normalization"} or node.op.name in ("add", "sub", "max", "min", "relu", "clip")
    return tuple(_signed(r, generator) if either and _has_sums(r) else r for r in moved)


def _alike(codes: Any, generator: Any) -> Any:
    """Random numbers in [-1, 1], equal for equal integers: what is rounded alike adds up."""
    _, which = torch.unique(codes, return_inverse=True)
    return (torch.rand(codes.numel(), generator=generator, dtype=torch.float64) * 2 - 1)[which]


def _has_sums(x: Any) -> bool:
    """Whether torch computes in the dtype: floats of a byte are only stored, so they move no finer than they are."""
    return isinstance(x, torch.Tensor) and x.is_floating_point() and x.element_size() > 1


def _moves(op: Op) -> bool:
    """Whether an op only moves numbers: no view or index op that mixes or adds elements."""
    mixes = hasattr(op, "magnitude") or op.attrs.get("reduction", "none") in ("add", "mul")
    return op.family in MOVES and not mixes


def _signed(x: Any, generator: Any) -> Any:
    """The zeros of sums with either sign: that of a sum of negative zeros depends on what it begins with; so are those
    of max and min, which say nothing of their signs."""
    return torch.where(x == 0, torch.where(torch.rand(x.shape, generator=generator) < 0.5, 0.0, -0.0).to(x.dtype), x)


def _moved(x: Any, by: Any) -> Any:
    """x + by; zeros that are not moved keep their sign."""
    return torch.where(by == 0, x, x + by)


def _magnitude(node: Node, operands: tuple, results: tuple) -> tuple:
    """What the rounding of results is relative to: of what was added up, √terms times as much."""
    reach, grown = _summed(node, operands, results)
    return tuple(torch.maximum(r.abs().nan_to_num(0.0, 0.0, 0.0), grown * m) if _has_sums(r) else r
                 for r, m in zip(results, reach))  # fmt: skip


def _summed(node: Node, operands: tuple, results: tuple) -> tuple[tuple, Any]:
    """(what the results are added up of, √terms): |result|; for formulas of several functions (gelu: cancellation
    inside) also the operands' magnitudes; for sums the same sum of absolute values."""
    plain = tuple(r.abs().nan_to_num(0.0, 0.0, 0.0) if _has_sums(r) else r for r in results)
    if node.op.family == "elementwise" and _is_formula(node.op, node.types):
        return tuple(_with_operands(p, operands) if _has_sums(p) else p for p in plain), 1.0
    if getattr(node.op, "mode", None) == "cubic":
        given = (x.abs().nan_to_num(0.0, 0.0, 0.0) for x in operands if _has_sums(x) and x.numel())
        most = max((float(x.max()) for x in given), default=0.0)
        return tuple(torch.full_like(p, CUBIC * most) if _has_sums(p) else p for p in plain), 1.0
    if hasattr(node.op, "magnitude"):
        return tuple(node.op.magnitude(*operands).expand_as(p) if _has_sums(p) else p for p in plain), 1.0  # type: ignore[attr-defined]
    if node.op.attrs.get("reduction") == "add":
        return _scattered(node, operands, plain)
    if node.op.family not in SUMS:
        return plain, 1.0
    try:
        sums = node.op.run(*(x.abs() if _has_sums(x) else x for x in operands))
        nest = node.op.compute(*(Tensor(DTYPES["f64"] if _has_sums(x) else DType.of(x.dtype), tuple(x.shape))
                                 for x in operands))
    except (TypeError, RuntimeError):
        return plain, 1.0
    terms = evaluate(product(e for e, k in zip(nest.extents, nest.kinds) if k in (REDUCTION, SCAN)), {}) if nest else 1
    reach = tuple(s.abs().nan_to_num(0.0, 0.0, 0.0) if _has_sums(s) else p for p, s in zip(plain, sums))
    return reach, max(terms, 1) ** 0.5


def _farthest(node: Node, operands: tuple, reach: tuple) -> tuple:
    """How far partial results may reach, in whichever order: of a product that is the product of what exceeds 1."""
    if node.op.name != "prod" and node.op.attrs.get("reduction") != "mul":
        return reach
    (most,) = node.op.run(*(x.abs().clamp(min=1.0) if _has_sums(x) else x for x in operands))
    return (most.nan_to_num(0.0) if _has_sums(most) else most,)


def _scattered(node: Node, operands: tuple, plain: tuple) -> tuple[tuple, Any]:
    """For a scatter that adds: the same sum of absolute values; terms counted by scattering ones."""
    (total,) = node.op.run(*(x.abs() if x.is_floating_point() else x for x in operands))
    (terms,) = node.op.run(*(torch.ones_like(x) if x.is_floating_point() else x for x in operands))
    if not plain[0].is_floating_point():
        return plain, 1.0
    return (total.nan_to_num(0.0, 0.0, 0.0),), terms.sqrt()


def _is_formula(op: Op, types: tuple[Type, ...]) -> bool:
    nest = op.compute(*types)
    return nest is not None and sum(isinstance(s, Apply) for s in walk(*nest.results)) > 2


def _with_operands(magnitude: Any, operands: tuple) -> Any:
    for x in operands:
        if _has_sums(x):
            magnitude = torch.maximum(magnitude, x.abs().nan_to_num(0.0, 0.0, 0.0))
    return magnitude
