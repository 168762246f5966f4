"""Ops side by side, to be compiled at once: what each gets is drawn for it, and what each makes is a result.

    graph = apart(drawer, 8)       # `drawer`: an effcc.fuzz.generate.GraphDrawer

In a chain an op gets what others have made of the inputs: seldom the values at which it differs from another. Behind
the first op that rounds, nobody may ask for bits any more. To compile is dear: so of many ops that are drawn those are
taken that were compiled in such ways (of these dtypes and ranks, with these attributes) the least often.
"""

from __future__ import annotations

from collections.abc import Sequence

from effcc.fuzz import state
from effcc.fuzz.domains import meaningful
from effcc.fuzz.generate import GraphDrawer, donated, in_branch, in_loop, symbolic
from effcc.fuzz.pairs import Pair
from effcc.ir import Builder, Graph, Node, Tensor, Value, verify
from effcc.ir.types import DType

COMPARED = 8
"""Of how many words the one that was drawn so the least often is drawn."""
CANDIDATES = 3
"""How many are drawn for one that is taken."""
READ = 30
"""In how many cases of a hundred another op reads the result."""
CHANGED = 50
"""In how many cases of a hundred the graph is put into a branch or a loop, say, or something beside it is."""
CHANGES = (symbolic, in_branch, in_loop, donated, state.counted, *(state.carried, state.updated) * 2)


def apart(d: GraphDrawer, size: int) -> Graph:
    """Up to `size` words on inputs of their own, some with a reader."""
    b, makers, groups = Builder("fuzzed"), dict[Value, str](), list[list[Node]]()
    for _ in range(CANDIDATES * size if d.tried is not None else size):
        d.base_shape, d.base_dtype = d.shape(), d.choose(d.dtypes)
        node = d.word(b, rare(d), [], None, makers)
        if node is None:
            continue
        read = d.choose(node.results)
        after = None
        if d.chance(READ) and (names := d.vocabulary.readers(read)):
            after = d.word(b, d.choose(names), [*node.operands, read], read, makers)
        groups.append([node, after] if after is not None else [node])
    taken = [node for group in novel(d, groups, size) for node in group]
    results = tuple(r for node in taken for r in node.results if isinstance(r.type, Tensor))
    graph = meaningful(needed(b.graph(*results)))
    verify(graph)
    return d.or_same(d.choose(CHANGES), graph) if d.chance(CHANGED) else graph


def rare(d: GraphDrawer) -> str:
    """A word that was drawn so seldom."""
    if d.tried is None:
        return d.choose(d.vocabulary.names)
    sought = d.tried.sought
    name = min((d.choose(d.vocabulary.names) for _ in range(COMPARED)), key=lambda n: sought["", n])
    sought["", name] += 1
    return name


def novel(d: GraphDrawer, groups: list[list[Node]], size: int) -> list[list[Node]]:
    """Those of some groups of nodes that are the rarest, one by one."""
    if d.tried is None:
        return groups
    seen, rest, taken = d.tried.ways, groups, list[list[Node]]()
    while rest and len(taken) < size:
        best = max(rest, key=lambda group: sum(1 / (1 + seen[way]) for way in ways(group)))
        seen.update(ways(best))
        taken.append(best)
        rest = [group for group in rest if group is not best]
    return taken


def ways(nodes: Sequence[Node]) -> list[Pair]:
    """(op, what tells one use of it from another), for the first of some nodes: dtypes, ranks, axes of one element,
    attributes that have few values."""
    op, types = nodes[0].op, [v.type for v in (*nodes[0].operands[:2], *nodes[0].results[:1])]
    told = [",".join(t.dtype.name for t in types if isinstance(t, Tensor))]
    told += ["".join("1" if n == 1 else "n" for n in t.shape) + f"#{k}" for k, t in enumerate(types[:-1])
             if isinstance(t, Tensor)]
    told += [f"{name}={value}" for name, value in op.attrs.items() if isinstance(value, bool | str | DType | None)]
    return [(op.name, way) for way in told]


def needed(graph: Graph) -> Graph:
    """The graph without what no result is made of."""
    wanted, nodes = set(graph.results), list[Node]()
    for node in reversed(graph.nodes):
        if not wanted.isdisjoint(node.results):
            nodes.append(node)
            wanted.update(node.operands)
    inputs = tuple(v for v in graph.inputs if v in wanted)
    return Graph(graph.name, inputs, tuple(reversed(nodes)), graph.results)
