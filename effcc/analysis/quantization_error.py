"""What quantizing does to a graph's values, layer by layer, on sample inputs.

Figures: SQNR, the signal-to-quantization-noise ratio 10 log₁₀(Σ y² / Σ (y - y_q)²) in dB, and the largest |y - y_q|.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from effcc.interp import as_tensor, bind_inputs, evaluate_node, run
from effcc.ir.graph import Graph, Node, Value
from effcc.ir.lazy import torch
from effcc.ir.location import Loc

MOST_DB = 300.0


class Error:
    """Sums over pairs of tensors: signal, noise and the largest difference."""

    def __init__(self) -> None:
        self.signal = self.noise = self.largest = 0.0

    def add(self, exact: Any, approximate: Any) -> None:
        if not exact.numel() or not exact.is_floating_point():
            return
        if exact.shape != approximate.shape:  # how many elements there are was decided otherwise: all is lost
            approximate = torch.zeros_like(exact)
        exact, difference = exact.double(), (approximate.double() - exact.double())
        self.signal += float((exact**2).sum())
        self.noise += float((difference**2).sum())
        self.largest = max(self.largest, float(difference.abs().max()))

    @property
    def sqnr(self) -> float:
        """In dB, at most MOST_DB: where nothing differs."""
        if self.noise == 0 or self.signal / self.noise >= 10 ** (MOST_DB / 10):
            return MOST_DB
        return 10 * math.log10(max(self.signal / self.noise, 1e-30))


def output_errors(
    before: Graph, after: Graph, layers: Mapping[Node, Any], batches: Iterable[tuple[Any, ...]]
) -> Iterator[tuple[Loc, dict[str, Any]]]:
    """For each of `layers` (nodes of `before`; `after` computes the same values with quantized operands): the error of
    its own output where only its operands are quantized ("sqnr dB", "max error"), and what that alone does to the
    graph's results ("results dB").
    """
    mirrored = {r: n for n in after.nodes for r in n.results}
    own = {n: Error() for n in layers}
    final = {n: Error() for n in layers}
    for inputs in batches:
        tensors = tuple(map(as_tensor, inputs))
        values = all_values(before, tensors)
        bound = bind_inputs(before.inputs, tensors)
        for node in layers:
            changed = quantized_alone(mirrored[node.results[0]], mirrored, values, bound)
            own[node].add(values[node.results[0]], changed)
            results = with_value(before, values, {node.results[0]: changed}, bound)
            for exact, approximate in zip((values[v] for v in before.results), results, strict=True):
                final[node].add(exact, approximate)
    for node in layers:
        figures = {"sqnr dB": own[node].sqnr, "max error": own[node].largest, "results dB": final[node].sqnr}
        yield node.loc, figures


def mean_errors(
    graph: Graph, layers: Mapping[Node, tuple[Any, Any, int]], batches: Iterable[tuple[Any, ...]]
) -> dict[Node, Any]:
    """How much quantization shifts each layer's channels on average, so that adding it undoes the shift: f64 vectors.

    layers: for each matmul or conv a function that rounds its first operand, its rounded weights, and the axis of
    channels of its result.
    """
    sums: dict[Node, Any] = {}
    counts: dict[Node, int] = {}

    def observe(node: Node, operands: tuple[Any, ...], results: tuple[Any, ...]) -> None:
        if node not in layers:
            return
        rounds, weights, axis = layers[node]
        (quantized,) = node.op.run(rounds(operands[0]), weights, *operands[2:])
        difference = (results[0].double() - quantized.double()).movedim(axis, -1).flatten(0, -2)
        sums[node] = sums.get(node, 0) + difference.sum(0)
        counts[node] = counts.get(node, 0) + len(difference)

    for inputs in batches:
        run(graph, *inputs, observe=observe)
    return {n: (total / max(1, counts[n])).numpy() for n, total in sums.items()}


def all_values(graph: Graph, tensors: tuple[Any, ...]) -> dict[Value, Any]:
    """Every value of a run."""
    values: dict[Value, Any] = dict(zip(graph.inputs, tensors, strict=True))

    def observe(node: Node, operands: tuple[Any, ...], results: tuple[Any, ...]) -> None:
        values.update(zip(node.results, results, strict=True))

    run(graph, *tensors, observe=observe)
    return values


def quantized_alone(node: Node, producers: Mapping[Value, Node], values: Mapping[Value, Any], bound: Any) -> Any:
    """The result of a node of the quantized graph on the exact graph's values: only what is new, the (de)quantization
    of its operands, is computed."""
    fresh: dict[Value, Any] = {}

    def value(v: Value) -> Any:
        if v in values:
            return values[v]
        if v not in fresh:
            made = producers[v]
            fresh.update(zip(made.results, evaluate_node(made, tuple(map(value, made.operands)), bound), strict=True))
        return fresh[v]

    return evaluate_node(node, tuple(map(value, node.operands)), bound)[0]


def with_value(
    graph: Graph, values: Mapping[Value, Any], changes: Mapping[Value, Any], bound: Any
) -> tuple[Any, ...]:
    """A run's results with other tensors for some values: only what depends on them is computed again, with the sizes
    that ops find in it."""
    fresh, bound, found = dict(changes), dict(bound), set()
    for node in graph.nodes:
        again = any(v in fresh for v in node.operands) or not found.isdisjoint(node.sizes)
        if any(r in changes for r in node.results) or not again:
            if node.op.defines(*node.types):
                bound = bind_inputs(node.results, [values[r] for r in node.results], bound)
            continue
        found |= set(node.op.defines(*node.types))
        operands = tuple(fresh.get(v, values[v]) for v in node.operands)
        fresh.update(zip(node.results, evaluate_node(node, operands, bound), strict=True))
    return tuple(fresh.get(v, values[v]) for v in graph.results)
