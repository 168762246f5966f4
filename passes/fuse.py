"""Group ops into regions that a backend compiles as one kernel each.

    add(matmul(x, w), b), gelu --> fused(x, w, b) {body = matmul + add + gelu}

A region has one iteration space. It is made of maps alone, of elementwise ops with reductions over the same trailing
axes ("rows": softmax, norms), or of one anchor (contraction, window, other fold) with elementwise ops behind it. Small
things go into each region that reads them: constants of one element, and the dequantization of a product's constant
weights.
Legality comes from the ops' loop nests; a merge must not close a cycle through ops outside.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from effcc.analysis.quantized_weights import quantized_weights
from effcc.ir import Graph, Node, Value, merge
from effcc.ir.dims import Dim
from effcc.ir.types import DType
from effcc.ops.constant import Const
from effcc.ops.contraction import Matmul
from effcc.ops.elementwise import Add, Cast, Elementwise, Mul, Sub
from effcc.ops.fused import Fused
from effcc.ops.reduction import Reduction
from effcc.ops.view import View
from effcc.ops.window import Conv
from effcc.pipeline import Context, Pass

MAP, ROWS, ANCHOR = "map", "rows", "anchor"
MOST_WIDENING = 4
"""Ops of a dequantization: two casts, the zero point and the scale."""


@dataclass
class Region:
    """A group under construction. `first` and `last` are positions in the graph's order."""

    kind: str
    space: tuple[Dim, ...]
    nodes: list[int]
    axes: tuple[int, ...] = ()
    elementwise: bool = True
    """Whether it holds nothing but elementwise ops (and row reductions)."""
    merged: Region | None = None
    first: int = field(init=False)

    def __post_init__(self):
        self.first = self.nodes[0]

    @property
    def last(self) -> int:
        return self.nodes[-1]


class Fuse(Pass):
    """Greedy, in program order: a node joins the regions of its operands where spaces and kinds allow. Regions of an
    earlier run are opened first: passes that ran in between may have left bodies that are no regions any more."""

    name = "fuse"
    category = "lower"
    contract = "exact"
    choices = {"max_ops": (48, 1, 3)}
    max_ops: int = 48

    def run(self, graph: Graph, ctx: Context) -> Graph:
        nested = _fuse_nested(self, _opened(graph), ctx)
        fused = _Fusion(nested, self.max_ops, ctx).run()
        return graph if fused == graph else fused

    def example(self, d: Any, b: Any) -> Any:
        from effcc.testing.regions import meeting_ops

        return meeting_ops(d, b)


def _opened(graph: Graph) -> Graph:
    """The graph with the bodies of its regions in their place; the same where it has none."""
    if not any(isinstance(node.op, Fused) for node in graph.nodes):
        return graph
    nodes: list[Node] = []
    now: dict[Value, Value] = {v: v for v in graph.inputs}
    for node in graph.nodes:
        if not isinstance(node.op, Fused):
            nodes.append(Node(node.op, tuple(now[v] for v in node.operands), node.results, node.loc))
            now.update(zip(node.results, node.results, strict=True))
            continue
        body = node.op.body
        inside = dict(zip(body.inputs, (now[v] for v in node.operands), strict=True))
        for n in body.nodes:
            results = tuple(Value(r.type, r.name) for r in n.results)
            nodes.append(Node(n.op, tuple(inside[v] for v in n.operands), results, n.loc))
            inside.update(zip(n.results, results, strict=True))
        now.update(zip(node.results, (inside[v] for v in body.results), strict=True))
    return Graph(graph.name, graph.inputs, tuple(nodes), tuple(now[v] for v in graph.results), graph.aliases)


def _fuse_nested(p: Fuse, graph: Graph, ctx: Context) -> Graph:
    """Fuse inside branches and loop bodies first."""
    nodes: list[Node] = []
    for node in graph.nodes:
        changes = {
            k: g
            for k, old in node.op.graphs().items()
            if not isinstance(node.op, Fused) and (g := p.run(old, ctx)) is not old
        }
        nodes.append(Node(node.op.replace(**changes), node.operands, node.results, node.loc) if changes else node)
    return graph if all(a is b for a, b in zip(nodes, graph.nodes, strict=True)) else graph.with_nodes(tuple(nodes))


def _is_short(stored: DType, number: DType) -> bool:
    """Whether memory holds bytes, or floats of 16 bits, of which a cast makes longer numbers."""
    return stored.bits == 8 and not stored.is_float or stored.bits == 16 and stored.is_float and number.bits > 16


class _Fusion:
    def __init__(self, graph: Graph, max_ops: int, ctx: Context):
        self.graph, self.max_ops, self.ctx = graph, max_ops, ctx
        self.nodes = graph.nodes
        self.position = {r: k for k, n in enumerate(graph.nodes) for r in n.results}
        self.region_of: list[Region | None] = [None] * len(graph.nodes)
        self.outputs = set(graph.results)
        self.copied = self._copied()

    def run(self) -> Graph:
        for k, node in enumerate(self.nodes):
            if k not in self.copied:
                self._place(k, node)
        return self._rebuild()

    def _copied(self) -> set[int]:
        """Nodes that are copied into each region that reads them."""
        found = {k for k, node in enumerate(self.nodes) if is_immediate(node)}
        for node in self.nodes:
            weights = quantized_weights(node, self.graph.producer)
            if weights is not None and self._is_for_products(weights.node):
                found.add(self.position[weights.node.result])
        for k in range(len(self.nodes)):
            found.update(self._widening(k))
        return found

    def _widening(self, k: int) -> list[int]:
        """The elementwise nodes from a cast of stored bytes or short floats on that make numbers of them (as a
        dequantization does), where these are combined with other values: loading them and computing again is cheaper
        than storing numbers."""
        stored = self.nodes[k].operands[0] if isinstance(self.nodes[k].op, Cast) else None
        if stored is None or not _is_short(stored.dtype, self.nodes[k].result.dtype) or stored not in self.position:
            return []
        if all(isinstance(u.op, Cast) for u in self.graph.users(stored)) and stored not in self.outputs:
            return []  # they are made for this alone
        chain = [k]
        while len(chain) < MOST_WIDENING:
            users = self.graph.users(self.nodes[chain[-1]].result)
            following = self.position[users[0].result] if len(users) == 1 and len(users[0].results) == 1 else None
            if following is None or not self._widens(self.nodes[following], self.nodes[chain[-1]]):
                break
            chain.append(following)
        last = self.nodes[chain[-1]].result
        readers = self.graph.users(last)
        small = all(v not in self.outputs for v in (self.nodes[i].result for i in chain))
        return chain if small and readers and all(self._combines(u, last) for u in readers) else []

    def _combines(self, node: Node, v: Value) -> bool:
        """Whether an elementwise node reads other values besides one, numbers not counted."""
        others = [self.graph.producer(x) for x in node.operands if x is not v]
        return isinstance(node.op, Elementwise) and any(p is None or not is_immediate(p) for p in others)

    def _widens(self, node: Node, before: Node) -> bool:
        """Whether a node shifts, scales or casts what the one before gives, by numbers."""
        if not isinstance(node.op, (Add, Sub, Mul, Cast)):
            return False
        others = [self.graph.producer(v) for v in node.operands if v is not before.result]
        return all(o is not None and is_immediate(o) for o in others)

    def _is_for_products(self, node: Node) -> bool:
        """Whether a node dequantizes constants, for matmuls alone that take them as their second operands."""
        constant = all(isinstance(p.op, Const) if (p := self.graph.producer(v)) else False for v in node.operands)
        return constant and node.result not in self.outputs and all(
            node.result not in u.operands[:1] and quantized_weights(u, self.graph.producer) is not None
            for u in self.graph.users(node.result)
        )

    # -- growing regions -----------------------------------------------------------------------------------------------
    def _place(self, k: int, node: Node) -> None:
        own = start_region(node, k)
        if own is None:
            return
        for region in self._operand_regions(node):
            joined = self._join(region, own, node)
            if joined is None:
                continue
            kind, space, axes = joined
            if len(region.nodes) + len(own.nodes) > self.max_ops or self._closes_cycle(region, own, node):
                continue
            if not self.ctx.allow("fuse", node.loc):
                break
            elementwise = region.elementwise and own.elementwise
            own = Region(kind, space, sorted(region.nodes + own.nodes), axes, elementwise)
            region.merged = own
            for i in own.nodes:
                self.region_of[i] = own
        for i in own.nodes:
            self.region_of[i] = own

    def _operand_regions(self, node: Node) -> list[Region]:
        """The regions that feed a node, anchors first, then the latest."""
        found: dict[int, Region] = {}
        for v in node.operands:
            k = self.position.get(v)
            region = self.region_of[k] if k is not None else None
            if region is not None:
                found[id(region)] = region
        return sorted(found.values(), key=lambda r: (r.kind != ANCHOR, -r.last))

    def _join(self, region: Region, own: Region, node: Node) -> tuple[str, tuple[Dim, ...], tuple[int, ...]] | None:
        """(kind, space, axes) of the union, or None where the two do not go together."""
        kinds = (region.kind, own.kind)
        if ANCHOR in kinds and not (region.elementwise if own.kind == ANCHOR else own.elementwise):
            return None
        if own.kind == ANCHOR:
            if node is not self.nodes[own.last] or isinstance(node.op, (Matmul, Conv)) or region.kind != MAP:
                return (
                    None
                    if region.kind == ANCHOR or not self._joins_epilogue(region, own, node)
                    else (ANCHOR, own.space, ())
                )
            if len(own.nodes) == 1 and isinstance(
                node.op, Reduction
            ):  # a fold takes what only it reads as its prologue
                only = all(self._only_user(i, node, region) for i in region.nodes)
                return (ANCHOR, own.space, ()) if only else None
            return (ANCHOR, own.space, ()) if len(own.nodes) > 1 and self._joins_epilogue(region, own, node) else None
        if region.kind == ANCHOR:
            return (
                (ANCHOR, region.space, ())
                if own.kind == MAP and own.elementwise and own.space == region.space
                else None
            )
        if kinds == (MAP, MAP):
            return (MAP, own.space, ()) if own.space == region.space else None
        if not (region.elementwise and own.elementwise):
            return None
        rows, other = (region, own) if region.kind == ROWS else (own, region)
        if other.kind == ROWS:
            return (ROWS, rows.space, rows.axes) if (rows.space, rows.axes) == (other.space, other.axes) else None
        if other.space in (rows.space, row_shape(rows.space, rows.axes)):
            return ROWS, rows.space, rows.axes
        return None

    def _joins_epilogue(self, region: Region, own: Region, node: Node) -> bool:
        """Whether a map may be computed behind an anchor: not where the anchor itself reads it."""
        if own.space != region.space or region.kind != MAP or not region.elementwise or len(own.nodes) == 1:
            return False
        anchors = [i for i in own.nodes if not isinstance(self.nodes[i].op, Elementwise)]
        return not any(p in region.nodes for i in anchors for p in self._producers(i))

    def _only_user(self, k: int, user: Node, region: Region) -> bool:
        """Whether a node's results are read by `user` and inside its region alone."""
        inside = {id(self.nodes[i]) for i in region.nodes} | {id(user)}
        return all(
            r not in self.outputs and all(id(u) in inside for u in self.graph.users(r)) for r in self.nodes[k].results
        )

    def _closes_cycle(self, a: Region, b: Region, node: Node) -> bool:
        """Whether a path leads from one to the other through an op outside of both."""
        return self._reaches(a, b) or self._reaches(b, a)

    def _reaches(self, source: Region, target: Region) -> bool:
        """Whether target depends on source by way of something else."""
        both = {*source.nodes, *target.nodes}
        stack = [p for i in target.nodes for p in self._producers(i) if p not in both]
        seen: set[int] = set()
        while stack:
            k = stack.pop()
            region = self.region_of[k]
            members = [k] if region is None else region.nodes
            if k in seen or members[-1] < source.first:
                continue
            seen.update(members)
            producers = [p for i in members for p in self._producers(i)]
            if any(p in source.nodes for p in producers):
                return True
            stack.extend(producers)
        return False

    def _producers(self, k: int) -> list[int]:
        return [p for v in self.nodes[k].operands if (p := self.position.get(v)) is not None]

    # -- the new graph -------------------------------------------------------------------------------------------------
    def _rebuild(self) -> Graph:
        regions = {id(r): r for r in self.region_of if r is not None}
        if all(len(r.nodes) == 1 and not self._has_copied(r) for r in regions.values()):
            return self.graph
        return self.graph.with_nodes(tuple(self._ordered()))

    def _has_copied(self, region: Region) -> bool:
        return any(p in self.copied for i in region.nodes for p in self._producers(i))

    def _copied_into(self, region: Region) -> list[int]:
        """The nodes to copy into a region, with what these read of others, in order."""
        found: set[int] = set()
        stack = [p for i in region.nodes for p in self._producers(i) if p in self.copied]
        while stack:
            p = stack.pop()
            if p not in found:
                found.add(p)
                stack.extend(q for q in self._producers(p) if q in self.copied)
        return sorted(found)

    def _ordered(self) -> list[Node]:
        """Regions and single nodes, each after what it depends on (depth first, in the graph's order)."""
        out: list[Node] = []
        done: set[int] = set()
        for k in range(len(self.nodes)):
            stack = [(k, False)]
            while stack:
                i, ready = stack.pop()
                region = self.region_of[i]
                if i in done:
                    continue
                members = [i] if region is None else region.nodes
                if ready:
                    done.update(members)
                    if region is not None:
                        out.append(self._fused(region))
                    elif i not in self.copied or is_immediate(self.nodes[i]):
                        out.append(self.nodes[i])
                    continue
                stack.append((i, True))
                inside = set(members)
                stack.extend(
                    (p, False)
                    for m in reversed(members)
                    for p in reversed(self._producers(m))
                    if p not in inside and p not in done
                )
        return out

    def _fused(self, region: Region) -> Node:
        members = [self.nodes[i] for i in region.nodes]
        if len(members) == 1 and not self._has_copied(region):
            return members[0]
        body_nodes = [*(self.nodes[p] for p in self._copied_into(region)), *members]
        made = {r for n in body_nodes for r in n.results}
        captured = {v: Value(v.type, v.name) for n in body_nodes for v in n.operands if v not in made}
        inside: dict[Value, Value] = dict(captured)
        nodes: list[Node] = []
        for n in body_nodes:
            results = tuple(Value(r.type, r.name) for r in n.results)
            nodes.append(Node(n.op, tuple(inside[v] for v in n.operands), results, n.loc))
            inside.update(zip(n.results, results, strict=True))
        member_ids = {id(n) for n in members}
        wanted = [
            r
            for n in members
            for r in n.results
            if r in self.outputs or any(id(u) not in member_ids for u in self.graph.users(r))
        ]
        body = Graph("fused", tuple(captured.values()), tuple(nodes), tuple(inside[r] for r in wanted))
        return Node(Fused(body), tuple(captured), tuple(wanted), merge(tuple(n.loc for n in members)))


def is_immediate(node: Node) -> bool:
    """A one-element constant: it is copied into each region that reads it."""
    return isinstance(node.op, Const) and node.op.blob.type.size == 1


def row_shape(space: tuple[Dim, ...], axes: tuple[int, ...]) -> tuple[Dim, ...]:
    return tuple(1 if k in axes else d for k, d in enumerate(space))


def start_region(node: Node, k: int) -> Region | None:
    """The region that a node begins by itself; None for views, control flow, algorithms and scans."""
    op = node.op
    if isinstance(op, Elementwise):
        return Region(MAP, node.results[0].shape, [k])
    if isinstance(op, (Const, Fused, View)) or op.graphs():
        return None
    if isinstance(op, (Matmul, Conv)):
        return Region(ANCHOR, node.results[0].shape, [k])
    nest = op.compute(*node.types)
    if nest is None or len(node.results) != 1:
        return None
    if isinstance(op, Reduction):
        space, axes = node.operands[0].shape, op.axes  # type: ignore[attr-defined]
        if op.keepdims and axes and axes == tuple(range(len(space) - len(axes), len(space))):  # type: ignore[attr-defined]
            return Region(ROWS, space, [k], axes)
        return Region(ANCHOR, node.results[0].shape, [k])
    if nest.is_map:
        return Region(MAP, node.results[0].shape, [k], elementwise=False)
    if set(nest.kinds) <= {"p", "r"} and nest.write is None and nest.initial is None:
        return Region(ANCHOR, node.results[0].shape, [k])
    return None
