"""What code is made of against what an op means: each op's loop nest, evaluated point by point, and the interpreter.

Compiled code shows the same, at a hundred times the price: so every graph can be held against this law.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from effcc.errors import EffccError
from effcc.fuzz.case import Case, Finding, Profile
from effcc.fuzz.laws import agree, say
from effcc.interp import observed, run
from effcc.ir import Builder, Graph, Node, Symbol, Tensor
from effcc.ir.dims import evaluate
from effcc.ir.evaluator import NestError, carrier, evaluate_nest
from effcc.ir.lazy import torch
from effcc.ir.scalar import PARALLEL, Compute
from effcc.ir.types import DType
from effcc.testing.compare import same_bits

MOST_ROUNDS, MOST_POINTS = 128, 1 << 14
"""Rounds of reductions, and points of a nest, that are worth the time: rounds go one by one."""
FREE = ("constant", "control", "view", "random", "sequence")
"""Families of ops whose meaning no loop nest says, or by moving elements alone."""


def hold(case: Case) -> None:
    """Finding where an op, on what it gets in the graph, says one thing as a loop nest and another as its meaning."""
    for profile, inputs in case.inputs.items():
        for node, operands, results in steps(case.graph, inputs):
            if node.op.family not in FREE and not node.op.graphs() and all(map(is_plain, node.types)):
                check(case, profile, node, operands, results)


def steps(graph: Graph, inputs: Sequence[Any]) -> list[tuple[Node, tuple[Any, ...], tuple[Any, ...]]]:
    """What each node of a graph, and of those inside of it, gets and gives."""
    met: list[tuple[Node, tuple[Any, ...], tuple[Any, ...]]] = []
    with observed(lambda node, operands, results: met.append((node, operands, results))):
        run(graph, *inputs)
    return met


def check(case: Case, profile: Profile, node: Node, operands: tuple[Any, ...], results: tuple[Any, ...]) -> None:
    """Evaluate a node's nest on its operands, where it is small."""
    nest = node.op.compute(*node.types)
    sizes = bound(node, operands, results)
    try:
        if nest is None or not is_small(nest, sizes):
            return
        types = [Tensor(v.tensor.dtype, tuple(r.shape)) for v, r in zip(node.results, results, strict=True)]
        arrays = [array_of(x, v.tensor.dtype) for x, v in zip(operands, node.operands, strict=True)]
        found = evaluate_nest(nest, arrays, types, sizes)
    except KeyError:  # a size that no shape tells
        return
    except NestError as error:
        if "undefined" in str(error):  # an integer divided by zero, a float that no integer holds
            return
        raise Finding("definitions", f"{node.op.name}: {error}", case.graph, inputs=case.inputs[profile]) from error
    tensors = [torch.from_numpy(x).to(v.tensor.dtype.torch) for x, v in zip(found, node.results, strict=True)]
    if all(same_bits(r, x, signed_zeros=False) for r, x in zip(results, tensors, strict=True)):
        return
    alone = graph_of(node)
    try:
        agree("definitions", Case(alone, {profile: list(operands)}), alone, profile, tensors)
    except Finding as finding:
        said = f"{node.op.name}, as a nest, {finding.message}"
        raise Finding("definitions", said, case.graph, inputs=case.inputs[profile]) from finding
    except EffccError as error:
        raise Finding("definitions", f"{node.op.name}: {say(error)}", case.graph) from error


def is_plain(type_: Any) -> bool:
    return isinstance(type_, Tensor) and type_.encoding is None


def bound(node: Node, operands: tuple[Any, ...], results: tuple[Any, ...]) -> dict[Symbol, int]:
    """The symbols in a node's types, as the tensors' shapes tell them."""
    pairs = zip((*node.operands, *node.results), (*operands, *results), strict=True)
    return {s: n for v, x in pairs for s, n in zip(v.tensor.shape, x.shape, strict=True) if isinstance(s, Symbol)}


def is_small(nest: Compute, sizes: dict[Symbol, int]) -> bool:
    extents = [evaluate(e, sizes) for e in nest.extents]
    rounds = math.prod(n for n, kind in zip(extents, nest.kinds, strict=True) if kind != PARALLEL)
    return rounds <= MOST_ROUNDS and math.prod(extents) <= MOST_POINTS


def graph_of(node: Node) -> Graph:
    """The node alone."""
    b = Builder(node.op.name)
    given = tuple(b.input(f"x{k}", v.type) for k, v in enumerate(node.operands))
    return b.graph(*b.emit(node.op, given))


def array_of(x: Any, dtype: DType) -> Any:
    """A torch tensor as the evaluator holds it."""
    wide = x.float() if dtype.is_float and dtype.bits < 32 else x
    return wide.detach().numpy().astype(carrier(dtype))
