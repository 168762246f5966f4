"""Whether two graphs mean the same on given inputs: bit for bit where that can be asked, else within derived bounds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from effcc.analysis.precision import NARROW, SUMS, Bounded, Rounded, interpolates, sampled, unit_roundoff
from effcc.interp import observed, run
from effcc.ir.graph import Graph, Node
from effcc.ir.lazy import torch
from effcc.ir.types import DType, Tensor, Type, bf16, f16, f32, f64

INEXACT = frozenset(
    "exp expm1 log log1p rsqrt sin cos tan asin acos atan sinh cosh asinh acosh atanh tanh erf erfc normal_cdf atan2 "
    "pow".split())  # fmt: skip
"""Functions that a vector unit and a scalar unit may round differently."""


class Mismatch(AssertionError):
    """Two graphs that differ, with the element and both texts."""


def random_inputs(
    types: list[Type], generator: Any, special: bool = True, whole: bool = True, large: bool = False
) -> list[Any]:
    """Tensors for input types.

    whole: floats hold small integers, so sums are exact in any order (the `strict` profile); else they are normal.
    special: some elements are NaN, infinite, -0.0 or extreme; large: some of these floats are finite, but not in f16,
    which matters where they are converted, and elsewhere would overflow in one order of operations only.
    """
    return [random_tensor(t, generator, special, whole, large) for t in types]


def random_tensor(type_: Type, generator: Any, special: bool, whole: bool, large: bool = False) -> Any:
    assert isinstance(type_, Tensor)
    dtype, shape = type_.dtype, tuple(int(d) for d in type_.shape)  # type: ignore[arg-type]
    if dtype.is_bool:
        return torch.rand(shape, generator=generator) < 0.5
    if dtype.is_float and not whole:
        x = torch.randn(shape, generator=generator, dtype=torch.float64)
    else:
        low = 0 if dtype.kind == "u" else -3
        x = torch.randint(low, 4, shape, generator=generator).double()
    if special:
        extremes: tuple[float, ...] = (float("nan"), float("inf"), float("-inf"), -0.0, *((1e5,) if large else ()))
        if not dtype.is_float:
            extremes = (dtype.min, min(dtype.max, 2**53), *((2**24 + 1,) if dtype.max > 2**24 else ()))  # no f32
        pick = torch.tensor(extremes, dtype=torch.float64)[torch.randint(0, len(extremes), shape, generator=generator)]
        x = torch.where(torch.rand(shape, generator=generator) < 0.25, pick, x)
    return x.to(dtype.torch)


def compare(before: Graph, after: Graph, inputs: list[Any], contract: str = "exact") -> None:
    """Raise Mismatch where `after` does not do what `before` does.

    contract "exact": equal bits; where sums of non-integers or transcendental functions make that unfair, and for any
    other contract, within the bounds of rounding errors, in f64 as well as in the graph's own dtypes. With "refines",
    anything may stand where `before` gives NaN. With "quantized", the bounds also hold what half a quantum of each
    dequantized element in `after` may do. With "approximate", `after` must have a value, of the same types.
    """
    if tuple(v.type for v in before.results) != tuple(v.type for v in after.results):
        raise Mismatch(_say("the result types differ", before, after))
    if contract == "approximate":
        run(after, *inputs)
        return
    expected, actual = run(before, *inputs), run(after, *inputs)
    differing = [k for k, (e, a) in enumerate(zip(expected, actual, strict=True)) if not same_bits(e, a)]
    if not differing:
        return
    fair = Fairness.of(before, inputs) & Fairness.of(after, inputs)
    wrong = next((k for k in differing if not same_bits(expected[k], actual[k], fair.signed_zeros)), None)
    if wrong is None:
        return
    if contract == "exact" and fair.bitwise:
        raise Mismatch(_say(f"result {wrong}: {_difference(expected[wrong], actual[wrong])}", before, after))
    compare_bounded(before, after, inputs, expected, actual, contract)


def compare_bounded(
    before: Graph, after: Graph, inputs: list[Any], expected: tuple, actual: tuple, contract: str
) -> None:
    """Raise Mismatch where `after`, in f64 or as `actual`, lies beyond the bounds of rounding around `before`. What
    is as `expected`, which `before` gives in its own dtypes, is right in these: torch's sinh overflows too early."""
    unit = max(unit_roundoff(before), unit_roundoff(after))
    dtype = next(d for d in (bf16, f16, f32, f64) if unit == NARROW[d.name])
    runs = (
        Rounded(before, *inputs, dtype=dtype, beside=after),
        Rounded(after, *inputs, dtype=dtype, quanta=contract == "quantized"),
    )
    for wanted, own in sampled(*runs):
        results = tuple(zip(wanted, own, expected, actual, strict=True))
        if _first_beyond(results, [0.0] * len(results), dtype, contract) is None:
            return
    leeway = runs[0].leeway()  # of `before` alone: where that keeps in range, so must `after`
    message = _first_beyond(results, leeway, dtype, contract)
    if message is not None:
        raise Mismatch(_say(message, before, after))


def _first_beyond(results: tuple, leeway: Sequence[Any], dtype: DType, contract: str) -> str | None:
    each = enumerate(zip(results, leeway))
    return next(filter(None, (_beyond(f"result {k}", *r, more, dtype, contract) for k, (r, more) in each)), None)


def _beyond(
    name: str, wanted: Bounded, own: Bounded, expected: Any, actual: Any, leeway: Any, dtype: DType, contract: str
) -> str | None:
    """The first element of a result, in f64 or as it was computed, beyond both runs' bounds. leeway: how much further
    it may lie as it was computed."""
    if wanted.exact.shape != own.exact.shape:
        decided = any(not bool(b.bound.isfinite().all()) or not b.bound.numel() for b in (wanted, own))
        return None if decided else f"{name} in f64: {list(own.exact.shape)} after, {list(wanted.exact.shape)} before"
    exact, limit = wanted.exact, wanted.bound + own.bound
    overflow = torch.where(exact.isinf(), leeway, 0.0)
    for kind, got, more in (("in f64", own.exact, overflow), (f"in {dtype}", actual, leeway)):
        far = _outside(got, exact, limit + more)
        if contract == "refines":
            far &= ~exact.isnan()
        if kind != "in f64" and exact.is_floating_point():  # infinities are NaN to some functions, or overflow
            far &= exact.abs() <= torch.finfo(dtype.torch).max
        if kind != "in f64" and got.shape == expected.shape == exact.shape:
            far &= ~same_elements(got, expected)
        if far.any():
            at = tuple(int(i) for i in far.nonzero()[0])
            return (f"{name}{list(at)} {kind}: {got[at].item()} after, {exact[at].item()} before "
                    f"(allowed: {limit[at].item():.3g})")
    return None


def _outside(got: Any, exact: Any, limit: Any) -> Any:
    got, exact = got.double(), exact.double()
    if got.shape != exact.shape:  # how many elements there are is a matter of rounding
        return torch.zeros_like(exact, dtype=torch.bool)
    return ~(same_elements(got, exact) | ((got - exact).abs() <= limit) | limit.isinf() | limit.isnan())


def same_elements(a: Any, b: Any) -> Any:
    """Where two tensors of one shape and dtype are equal; any NaN equals any other."""
    a, b = a.double(), b.double()
    return (a == b) | (a.isnan() & b.isnan())


BITS = {1: "uint8", 2: "int16", 4: "int32", 8: "int64"}
"""Integers of as many bytes."""


def same_bits(a: Any, b: Any, signed_zeros: bool = True) -> bool:
    """Equal elements; any NaN equals any other, zeros must agree in sign where asked."""
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    if not a.is_floating_point():
        return bool((a == b).all()) if a.dtype not in (torch.uint16, torch.uint32, torch.uint64) else torch.equal(a, b)
    if torch.equal(*(x.view(getattr(torch, BITS[x.element_size()])) for x in (a, b))):
        return True
    a, b = a.double(), b.double()
    equal = (a == b) & (torch.signbit(a) == torch.signbit(b)) if signed_zeros else a == b
    return bool((equal | (a.isnan() & b.isnan())).all())


def cone(graph: Graph, k: int) -> Graph:
    """What a graph's result k is made of, and what tells sizes: what is asked of one result is no matter of others."""
    wanted, nodes = {graph.results[k]}, []
    for node in reversed(graph.nodes):
        if not wanted.isdisjoint(node.results) or node.op.defines(*node.types):
            nodes.append(node)
            wanted.update(node.operands)
    return Graph(graph.name, graph.inputs, tuple(reversed(nodes)), (graph.results[k],))


@dataclass(frozen=True)
class Fairness:
    """What may be asked of two runs of a graph: equal bits, and equal signs of zeros (which max and min leave open:
    where they meet -0, even bits are not asked, for behind a division either sign may become infinite)."""

    bitwise: bool = True
    signed_zeros: bool = True

    @staticmethod
    def of(graph: Graph, inputs: Sequence[Any]) -> Fairness:
        """Watches a run on these inputs. Asked only where results differ: most do not."""
        bitwise = signed_zeros = True

        def see(node: Node, operands: tuple[Any, ...], results: tuple[Any, ...]) -> None:
            nonlocal bitwise, signed_zeros
            nest = node.op.compute(*node.types) if not node.op.graphs() and node.op.family != "constant" else None
            functions = {s.fn for s in nest.applied()} if nest else set()
            composite = nest is None and node.op.family not in ("constant", "control", "sort", "view", "index")
            sums = interpolates(node.op) or node.op.family in SUMS and not all(map(_is_whole, operands))
            if composite or sums or functions & INEXACT or node.op.leaves_open(*operands):
                bitwise = False
            if functions & {"max", "min"}:
                signed_zeros = False
                bitwise &= not any(map(_has_negative_zero, operands))

        with observed(see):
            run(graph, *inputs)
        return Fairness(bitwise, signed_zeros)

    def __and__(self, other: Fairness) -> Fairness:
        return Fairness(self.bitwise and other.bitwise, self.signed_zeros and other.signed_zeros)


def _has_negative_zero(x: Any) -> bool:
    return isinstance(x, torch.Tensor) and x.is_floating_point() and bool(((x == 0) & torch.signbit(x)).any())


def _is_whole(x: Any) -> bool:
    if not isinstance(x, torch.Tensor) or not x.is_floating_point():
        return True
    finite = x[torch.isfinite(x)].double()
    return bool((finite == finite.round()).all()) and (finite.numel() == 0 or float(finite.abs().max()) < 2**10)


def _difference(expected: Any, actual: Any) -> str:
    if expected.shape != actual.shape or expected.dtype != actual.dtype:
        return f"{expected.dtype}{list(expected.shape)} became {actual.dtype}{list(actual.shape)}"
    for at in torch.cartesian_prod(*(torch.arange(d) for d in expected.shape)).reshape(-1, max(expected.dim(), 1)) \
            if expected.dim() else [()]:
        index = tuple(int(i) for i in at)
        if not same_bits(expected[index], actual[index]):
            return f"element {list(index)} was {expected[index].item()}, is {actual[index].item()}"
    return "they differ"


def _say(message: str, before: Graph, after: Graph) -> str:
    return f"{message}\nbefore:\n{before}\nafter:\n{after}"


__all__ = ["Fairness", "Mismatch", "compare", "compare_bounded", "cone", "random_inputs", "random_tensor", "same_bits",
           "same_elements"]
