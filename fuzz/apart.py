"""Ops side by side, to be compiled at once: what each gets is drawn for it, and what each makes is a result.

    graph = apart(drawer, 8)       # `drawer`: an effcc.fuzz.generate.GraphDrawer

In a chain an op gets what others have made of the inputs: seldom the values at which it differs from another. Behind
the first op that rounds, nobody may ask for bits any more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from effcc.fuzz.domains import meaningful
from effcc.ir import Builder, Graph, Tensor, Value, verify

if TYPE_CHECKING:
    from effcc.fuzz.generate import GraphDrawer

COMPARED = 8
"""Of how many words the one that was drawn so the least often is taken."""
READ = 30
"""In how many cases of a hundred another op reads the result."""


def apart(d: GraphDrawer, size: int) -> Graph:
    """Up to `size` words on inputs of their own, some with a reader."""
    b, makers = Builder("fuzzed"), dict[Value, str]()
    results: list[Value] = []
    for _ in range(size):
        d.base_shape, d.base_dtype = d.shape(), d.choose(d.dtypes)
        node = d.word(b, rare(d), [], None, makers)
        if node is None:
            continue
        results += node.results
        read = d.choose(node.results)
        if d.chance(READ) and (names := d.vocabulary.readers(read)):
            after = d.word(b, d.choose(names), [*node.operands, read], read, makers)
            results += after.results if after is not None else ()
    graph = meaningful(b.graph(*(r for r in results if isinstance(r.type, Tensor))))
    verify(graph)
    return graph


def rare(d: GraphDrawer) -> str:
    """A word that was drawn so seldom."""
    if d.tried is None:
        return d.choose(d.vocabulary.names)
    sought = d.tried.sought
    name = min((d.choose(d.vocabulary.names) for _ in range(COMPARED)), key=lambda n: sought["", n])
    sought["", name] += 1
    return name
