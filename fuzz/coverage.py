"""What a test reaches: branches of the passes' code, rules that fire or refuse, pairs of ops and dtypes, groups.

    coverage = Coverage()
    new = coverage.run(a_pass, graph, ctx)        # watched
    coverage.take()                               # {"branch passes/fuse.py 85", "fired simplify double-neg", ...}

Branches are told by probes in the code of the passes: see `effcc.fuzz.probes`.
"""

from __future__ import annotations

import itertools
import re
from typing import Any

from effcc.fuzz.pairs import nested, pairs
from effcc.fuzz.probes import probed
from effcc.ir import Graph, Tensor
from effcc.pipeline import Context, Pass


class Coverage:
    """Collects what the passes and graphs of one test reach; `total` is what all tests reached."""

    def __init__(self) -> None:
        self.branches = probed("effcc.passes")
        self.reached: set[str] = set()

    def run(self, p: Pass, graph: Graph, ctx: Context) -> Graph:
        """A pass, watched."""
        logged, refused = len(ctx.log), len(ctx.refusals)
        self.branches.clear()
        new = p.run(graph, ctx)
        self.reached |= self.branches
        self.reached.update(f"fired {p.name} {entry.rule}" for entry in ctx.log[logged:])
        for refusal in itertools.islice(ctx.refusals, refused, None):
            self.reached.add(f"refused {p.name} {refusal.rule} {general(refusal.reason)}")
        if new is not graph:
            self.reached.update(groups(new))
        return new

    def compiled(self, code: Any) -> None:
        """What a backend made: the templates of its kernels."""
        self.reached.update(f"template {launch.kernel.template}" for launch in code.launches
                            if hasattr(launch.kernel, "template"))

    def graph(self, graph: Graph) -> None:
        """What a graph is made of."""
        self.reached.update(f"pair {maker} {reader}" for maker, reader in pairs(graph))
        for g in nested(graph):
            for node in g.nodes:
                types = [v.type for v in (*node.operands[:2], *node.results[:1])]
                dtypes = " ".join(t.dtype.name for t in types if isinstance(t, Tensor))
                self.reached.add(f"dtypes {node.op.name} {dtypes}")

    def take(self) -> set[str]:
        """What was reached since the last call."""
        reached, self.reached = self.reached, set()
        return reached


def groups(graph: Graph) -> set[str]:
    """The kinds of fused regions in a graph: the families of their ops, and roughly how many ops and results."""
    found = set()
    for node in graph.walk():
        if node.op.name == "fused":
            body = node.op.graphs()["body"]
            families = sorted({n.op.family for n in body.nodes})
            found.add(f"group {'+'.join(families)} {len(body.nodes).bit_length()} {min(len(node.results), 3)}")
    return found


def general(reason: str) -> str:
    """A reason without the numbers, types and names in it."""
    return re.sub(r"%?\S*\d\S*", "#", reason.partition(":")[0])[:80]
