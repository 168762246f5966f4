"""Graphs inside of larger ones: patterns meet neighbours, inputs are computed, results are read on.

    graph = surrounded(drawer, graph, size=8)      # `drawer`: an effcc.fuzz.generate.GraphDrawer
"""

from __future__ import annotations

from typing import Any

from effcc.errors import EffccError
from effcc.ir import Builder, Graph, Tensor, Value, load_ops
from effcc.ir.builder import inline

KEEPING = ("neg", "abs", "relu", "not", "sign", "exp", "sqrt")
"""Ops that keep the type of some values."""
ATTEMPTS = 16
"""How many of them are tried on a value."""
TRIES = 4
"""How often an op is drawn for each that is wanted."""


def surrounded(d: Any, *graphs: Graph, size: int = 0) -> Graph:
    """The graphs side by side inside of a larger one of so many ops, constants apart, or some more than they have."""
    b = Builder("fuzzed")
    pool: list[Value] = []
    kept: list[Value] = []
    for k, graph in enumerate(graphs):
        operands = []
        for v in graph.inputs:
            given = b.input(f"{v.name}_{k}" if k else v.name, v.type)
            operands.append(before(d, b, given, pool) if d.chance(40) else given)
        results = inline(b, graph, tuple(operands))
        pool += [v for v in (*operands, *results) if isinstance(v.type, Tensor)]
        kept += results
    after(d, b, pool, kept, max(size, computing(b) + d.integer(0, 3)))
    used = {v for n in b.nodes for v in n.operands}
    last = [v for v in dict.fromkeys((*kept, *pool)) if v not in used and v not in b.inputs]
    ends = list(dict.fromkeys((*last, *(v for v in kept if d.chance(30)))))
    return b.graph(*(v for v in ends if isinstance(v.type, Tensor))) if ends else d.nothing("all results are inputs")


def computing(b: Builder) -> int:
    """How many nodes are no constants."""
    return sum(n.op.name != "const" for n in b.nodes)


def before(d: Any, b: Builder, v: Value, pool: list[Value]) -> Value:
    """A value of an input's type: one that was computed before, or the input through ops that keep its type."""
    same = [x for x in pool if x.type == v.type]
    if same and d.boolean():
        return d.choose(same)
    for _ in range(d.integer(1, 2)):
        v = passed(d, b, v)
    return v


def passed(d: Any, b: Builder, v: Value) -> Value:
    """The value through an op that keeps its type."""
    ops = load_ops()
    for _ in range(ATTEMPTS):
        op = ops[d.choose(KEEPING)]()
        try:
            if op.result_types((v.type,)) == (v.type,):
                return b.emit(op, (v,))[0]
        except EffccError:
            continue
    return v


def after(d: Any, b: Builder, pool: list[Value], results: list[Value], size: int) -> None:
    """More ops, most of which read results, until there are so many."""
    makers = {r: n.op.name for n in b.nodes if n.op.name != "const" for r in n.results}
    for _ in range(TRIES * max(size - computing(b), 0)):
        if computing(b) >= size:
            break
        tensors = [v for v in pool if isinstance(v.type, Tensor)]
        fresh = [v for v in tensors[-6:] if v in makers] or tensors
        if not fresh:
            break
        read, name = d.rare([d.choose(fresh), d.choose(tensors)], makers)
        d.word(b, name, pool, read, makers)
