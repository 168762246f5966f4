"""The greedy driver: applies rules until none fires, in time linear in ops and rewrites."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from effcc.errors import EffccError, TypeRuleError
from effcc.ir.graph import Graph, Value
from effcc.ir.op import Op, graph_attributes
from effcc.rewrite.rule import Match, Rule
from effcc.rewrite.workspace import Item, ItemBuilder, RewriteError, Workspace

WAKE_LIMIT = 64
"""How many readers, at most, look again after a rewrite below them."""


def rewrite(graph: Graph, rules: Sequence[Rule], ctx: Any = None) -> Graph:
    """Apply rules to a graph and the graphs nested in it; the same graph where nothing changed.

    ctx: `effcc.pipeline.Context`, asked before each rewrite (fuel) and told of refusals.
    """
    if ctx is None:
        from effcc.pipeline.context import Context

        ctx = Context()
    return _rewrite(graph, _index(tuple(rules)), ctx)


def map_nested(op: Op, change: Any) -> Op:
    """An op with a function of graphs applied to its nested graphs; the same op where none changed."""
    if not graph_attributes(type(op)):
        return op
    nested = {name: new for name, g in op.graphs().items() if (new := change(g)) is not g}
    return op.replace(**nested) if nested else op


@dataclass(frozen=True)
class _Index:
    """Rules by the name of the op at which their pattern ends, and how deep the deepest pattern is."""

    by_root: dict[str, list[Rule]]
    reach: int

    def possible(self, ops: frozenset[str]) -> dict[str, list[Rule]]:
        """Those that may match in a graph of these ops."""
        found = {op: [r for r in self.by_root[op] if r.needs <= ops] for op in ops & self.by_root.keys()}
        return {op: rules for op, rules in found.items() if rules}


@cache
def _index(rules: tuple[Rule, ...]) -> _Index:
    found: dict[str, list[Rule]] = {}
    for rule in rules:
        for op in rule.roots:
            found.setdefault(op, []).append(rule)
    return _Index(found, max((r.depth for r in rules), default=0))


def _rewrite(graph: Graph, index: _Index, ctx: Any) -> Graph:
    rules = index.possible(graph.op_names)
    return _Greedy(graph, index, rules, ctx).run() if rules else graph


class _Greedy:
    """`rules`, by their roots, are those that may match until one of them fires, which may bring ops of any kind."""

    def __init__(self, graph: Graph, index: _Index, rules: dict[str, list[Rule]], ctx: Any):
        self.index, self.rules, self.ctx = index, rules, ctx
        self.workspace = Workspace(graph)
        self.workspace.lost_use = self._woken_by_lost_use
        self.queue: deque[Item] = deque()
        self.queued: set[int] = set()
        self.fired: dict[str, int] = {}

    def run(self) -> Graph:
        w = self.workspace
        count = 0
        for item in w.items():
            count += 1
            self._nested(item)
            self._push(item)
        limit = 50 * count + 1000
        while self.queue:
            item = self.queue.popleft()
            self.queued.discard(id(item))
            if item.alive and self._apply_one(item):
                limit -= 1
                if limit < 0:
                    busy = sorted(self.fired, key=self.fired.__getitem__, reverse=True)[:2]
                    raise EffccError(f"rewriting does not end: {' and '.join(busy)} keep firing",
                                     where=f"graph @{w.graph.name}", hint="one of them undoes the other")
        return w.freeze()

    def _nested(self, item: Item) -> None:
        if item.op.graphs():
            op = map_nested(item.op, lambda g: _rewrite(g, self.index, self.ctx))
            if op is not item.op:
                self.workspace.set_op(item, op)

    def _apply_one(self, item: Item) -> bool:
        for rule in self.rules[item.op.name]:
            m = rule.find(item, self.workspace)
            if m is not None and self._apply(rule, m):
                return True
        return False

    def _apply(self, rule: Rule, m: Match) -> bool:
        loc = m.loc
        reason = rule.check(m, self.ctx)
        if reason is not None:
            self.ctx.refused(rule, loc, reason)
            return False
        b = ItemBuilder(loc)
        try:
            out = rule.rewrite(b, m)
            if isinstance(out, str):
                self.ctx.refused(rule, loc, out)
                return False
            values: tuple[Value, ...] = (out,) if isinstance(out, Value) else tuple(out)
            self._check_types(values, m)
        except (TypeRuleError, RewriteError) as error:
            self.ctx.refused(rule, loc, f"the replacement does not fit: {error}")
            return False
        if not self.ctx.allow(rule, loc):
            return False
        self._commit(b.made, values, m)
        if not self.fired:
            self.rules = self.index.by_root
            for other in self.workspace.items():
                self._push(other)
        self.fired[rule.name] = self.fired.get(rule.name, 0) + 1
        return True

    @staticmethod
    def _check_types(values: tuple[Value, ...], m: Match) -> None:
        wanted = tuple(r.type for r in m.root.results)
        got = tuple(v.type for v in values)
        if got != wanted:
            raise RewriteError(f"it gives {', '.join(map(str, got))}, not {', '.join(map(str, wanted))}")

    def _commit(self, made: list[Item], values: tuple[Value, ...], m: Match) -> None:
        w = self.workspace
        for item in made:
            w.place(item, m.root)
        kept = set(values)
        readers = [u for r in m.root.results for u in w.users(r)]
        w.replace(m.root, values, made)
        for item in reversed(made):
            for r in item.results:
                if r not in kept:
                    w.erase_dead(r)
        for item in made:
            if item.alive:
                self._push(item)
        self._wake([*readers, *(i for i in made if i.alive)])

    def _wake(self, start: list[Item]) -> None:
        """Readers within the longest pattern's reach look again."""
        layer, seen = start, {id(i) for i in start}
        for i in start[:WAKE_LIMIT]:
            self._push(i)
        for _ in range(self.index.reach - 1):
            following: list[Item] = []
            for item in layer:
                for r in item.results:
                    for user in self.workspace.readers(r):
                        if len(seen) >= WAKE_LIMIT:
                            return
                        if id(user) not in seen:
                            seen.add(id(user))
                            following.append(user)
                            self._push(user)
            layer = following

    def _woken_by_lost_use(self, value: Value) -> None:
        """A value that now has few readers may be inside a match that a further reader forbade."""
        readers = self.workspace.readers(value)
        if len(readers) <= 2:
            self._wake(list(readers))

    def _push(self, item: Item) -> None:
        if item.alive and id(item) not in self.queued and item.op.name in self.rules:
            self.queued.add(id(item))
            self.queue.append(item)
