"""Memory that lives on: inputs of which a part is written anew in place, values that a loop carries, sizes that data
tells. Changes to graphs, for those that are drawn:

    graph = carried(drawer, graph)       # `drawer`: an effcc.fuzz.generate.GraphDrawer

What chains of ops read is new memory, so that no chain shows what goes wrong here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from effcc.ir import Builder, Graph, Symbol, Tensor, Value
from effcc.ir.builder import inline
from effcc.ir.op import op_class
from effcc.ir.types import bool_, i64, type_symbols

if TYPE_CHECKING:
    from effcc.fuzz.generate import GraphDrawer


def rebuilt(graph: Graph) -> tuple[Builder, list[Value]]:
    """(a builder with the graph's nodes, its results there)"""
    b = Builder(graph.name)
    return b, list(inline(b, graph, tuple(b.input(v.name, v.type) for v in graph.inputs)))


def fixed(values: list[Value]) -> list[Value]:
    """The tensors of known sizes."""
    return [v for v in values if isinstance(v.type, Tensor) and v.type.is_static]


def carried(d: GraphDrawer, graph: Graph) -> Graph:
    """A loop of up to three rounds carries inputs or results: each round they change places, or some of them."""
    b, results = rebuilt(graph)
    pool = fixed([*b.inputs, *results])
    first = d.choose(pool or d.nothing("no value has a known size"))
    same = [v for v in pool if v.type == first.type]
    begun = [first, *(d.choose(same) for _ in range(d.integer(1, 2)))]
    body = Builder("body")
    body.input("i", Tensor(i64, ()))
    going = body.input("going", Tensor(bool_, ()))
    held = [body.input(f"x{k}", v.type) for k, v in enumerate(begun)]
    after = [d.choose(held) for _ in held]
    if d.boolean():
        after[0] = (body.xor if first.dtype.is_bool else body.add)(d.choose(held), d.choose(held))
    loop = op_class("loop")(body=body.graph(going, *after), num_carried=len(held))  # type: ignore[call-arg]
    ends = b.emit(loop, (b.const(d.integer(0, 3), i64), b.const(True, bool_), *begun))
    return b.graph(*results, *ends)


def updated(d: GraphDrawer, graph: Graph) -> Graph:
    """A part of a donated input is written anew, in its memory; others read the old value, or the new one."""
    b, results = rebuilt(graph)
    able = [v for v in fixed(b.inputs) if v.tensor.rank and v.tensor.size and v not in results]
    x = d.choose(able or d.nothing("no input has parts"))
    part = b.input("part", x.tensor.with_shape(tuple(d.integer(1, n) for n in x.shape)))
    starts = [b.const(d.integer(0, n - 1), i64) for n in x.shape]
    new = b.update_slice(x, part, *starts)
    pool, reads = [x, new, *fixed(results)], []
    for _ in range(d.integer(0, 3)):
        read = d.choose((x, x, new, pool[-1]))
        made = d.apply(b, d.vocabulary[d.choose(d.vocabulary.readers(read))], pool, read).results
        reads += fixed(list(made))
        pool += fixed(list(made))
    return b.graph(*results, new, *reads, aliases=((len(results), b.inputs.index(x)),))


def counted(d: GraphDrawer, graph: Graph) -> Graph:
    """A size that an input, or an op by its data, tells is a result; what else depends on it may be none."""
    b, results = rebuilt(graph)
    told = [s for v in b.inputs for s in type_symbols(v.type)] + [s for n in b.nodes for s in n.op.defines(*n.types)]
    if not told or d.boolean():
        x = d.choose(fixed([*b.inputs, *results]) or d.nothing("no value has a known size"))
        told = [Symbol("count", 0, None)]
        b.nonzero(x, size=told[0])
    size = b.dim(value=d.choose(told))
    return b.graph(*(r for r in results if d.boolean()), size)
