"""Transformers inside of a graph: residual streams, their attention and MLP sublayers, and the axis of tokens.

Works on any graph after raising (the pass `raise` and its fellows in effcc.passes.EXACT), whatever exporter it came
from: sublayers are found by the shape of the dataflow, axes by the ops' loop nests; no names, no fixed layout.

    stream      x0 --> x1 = x0 + f0(x0) --> x2 = x1 + f1(x1) ...      pre-norm: f normalises its own input (ViT, GPT)
                x0 --> x1 = norm(x0 + f0(x0)) ...                     post-norm (BERT)

`streams(graph)` finds them; `token_axis(graph, stream)` follows the tokens of one, or says why it cannot: a Refused
with the place and a reason that a user understands.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from effcc.analysis.axes import Course, Place, carried, follow, quotient, varies
from effcc.ir.dims import Dim, product
from effcc.ir.graph import Graph, Node, Value
from effcc.ir.location import UNKNOWN, Loc

ATTENTION, MLP = "attention", "mlp"
LONGEST = 400
"""A sublayer has no more nodes than this: the search for its beginning ends there."""
CHAIN = 4
"""How many earlier values of the stream a sublayer may read (parallel attention and MLP read the one before)."""
MOST_SPECIAL = 16
"""A read of single tokens further behind than this is not taken for one of special tokens."""


class Refused(Exception):
    """Why a graph, or a part of it, is not what an analysis looks for."""

    def __init__(self, reason: str, loc: Loc = UNKNOWN):
        super().__init__(reason)
        self.reason, self.loc = reason, loc


@dataclass(frozen=True, eq=False)
class Sublayer:
    """out = skip + branch, where branch is computed from source.

    kind: ATTENTION or MLP. source: the value of the stream that it reads: skip itself, or one further back. nodes: what
    computes branch from source. attention: its attention op; None in an MLP, or where attention was not raised.
    """

    kind: str
    add: Node
    skip: Value
    source: Value
    branch: Value
    nodes: frozenset[Node]
    attention: Node | None

    @property
    def out(self) -> Value:
        return self.add.result

    @property
    def loc(self) -> Loc:
        return self.attention.loc if self.attention is not None else self.add.loc


@dataclass(frozen=True, eq=False)
class Stream:
    """The sublayers that add to one residual stream, in order."""

    graph: Graph
    sublayers: tuple[Sublayer, ...]

    @cached_property
    def attentions(self) -> tuple[Sublayer, ...]:
        return tuple(s for s in self.sublayers if s.kind == ATTENTION)

    def after(self, sublayer: Sublayer) -> Value:
        """The value that all further sublayers read, directly or not: what the stream is behind a sublayer.

        Pre-norm: its sum; post-norm: the norm of it; where MLP and attention run in parallel: their common sum.
        """
        order = {v: k for k, v in enumerate(self.graph.values)}
        at = self.sublayers.index(sublayer)
        for s in self.sublayers[at + 1 :]:
            if order[s.source] >= order[sublayer.out]:
                return s.skip
        return self.sublayers[-1].out


# -- sublayers ---------------------------------------------------------------------------------------------------------
def sublayers(graph: Graph) -> tuple[Sublayer, ...]:
    """Every sum of a value and of something computed from it by attention or by a matmul, in order."""
    order = {v: k for k, v in enumerate(graph.values)}
    chains: dict[Value, tuple[Value, ...]] = {}
    found: list[Sublayer] = []
    sums: set[Node] = set()
    for node in graph.nodes:
        if node.op.name != "add" or any(v.type != node.result.type for v in node.operands):
            continue
        for skip, branch in (node.operands, node.operands[::-1]):
            region = _region(graph, chains.get(skip, (skip,)), branch, order)
            kind = _kind(graph, region[1]) if region is not None else None
            if region is None or kind is None or sums & region[1]:
                continue
            source, nodes = region
            attentions = [n for n in nodes if n.op.name == "attention"]
            only = attentions[0] if len(attentions) == 1 else None
            found.append(Sublayer(kind, node, skip, source, branch, nodes, only))
            chains[node.result] = (node.result, *chains.get(skip, (skip,)))[:CHAIN]
            sums.add(node)
            break
    return tuple(found)


def _region(graph: Graph, roots: Sequence[Value], branch: Value, order: Mapping[Value, int],
            ) -> tuple[Value, frozenset[Node]] | None:
    """The oldest of `roots` from which a value is computed, and the nodes between; None where it is from none."""
    oldest = min(order[r] for r in roots)
    reached: set[Value] = set()
    visited: set[Node] = set()
    stack = [branch]
    while stack:
        v = stack.pop()
        if v in roots:
            reached.add(v)
            continue
        node = graph.producer(v)
        if node is None or node in visited or order[v] < oldest:
            continue
        visited.add(node)
        if len(visited) > LONGEST:
            return None
        stack.extend(node.operands)
    if not reached or branch in reached:
        return None
    behind, nodes = set(reached), set()
    for node in sorted(visited, key=lambda n: order[n.results[0]]):
        if any(v in behind for v in node.operands):
            behind.update(node.results)
            nodes.add(node)
    return min(reached, key=order.__getitem__), frozenset(nodes)


def _kind(graph: Graph, nodes: frozenset[Node]) -> str | None:
    names = [n.op.name for n in nodes]
    products = [n for n in nodes if n.op.name == "matmul"]
    mixing = [n for n in products if all(graph.producer(v) in nodes for v in n.operands)]
    if "attention" in names or ("softmax" in names and len(mixing) >= 2):
        return ATTENTION
    return MLP if products and not any(n.op.family == "window" for n in nodes) else None


def streams(graph: Graph) -> tuple[Stream, ...]:
    """The residual streams, each with its sublayers; those without attention too."""
    chains: list[list[Sublayer]] = []
    of: dict[Value, list[Sublayer]] = {}
    for s in sublayers(graph):
        chain = next((of[v] for v in _normalized_from(graph, s.skip) if v in of), None)
        if chain is None:
            chain = []
            chains.append(chain)
        chain.append(s)
        of[s.out] = chain
    return tuple(Stream(graph, tuple(c)) for c in chains)


def _normalized_from(graph: Graph, value: Value) -> Iterator[Value]:
    """A value, and those that it is a norm, a cast or a view of, backwards."""
    yield value
    node = graph.producer(value)
    while node is not None and (node.op.family in ("normalization", "view") or node.op.name in ("cast", "mul", "add")):
        made = [v for v in node.operands if not is_constant(graph, v)]
        if len(made) != 1:
            return
        yield made[0]
        node = graph.producer(made[0])


def is_constant(graph: Graph, value: Value) -> bool:
    """Whether a value is computed from constants alone."""
    stack, seen = [value], set()
    while stack:
        v = stack.pop()
        node = graph.producer(v)
        if node is None or not node.op.pure or len(seen) > LONGEST:
            return False
        if node not in seen:
            seen.add(node)
            stack.extend(node.operands)
    return True


# -- tokens ------------------------------------------------------------------------------------------------------------
@dataclass(frozen=True, eq=False)
class TokenAxis:
    """The axis of a stream's n tokens.

    batch: how many sequences there are side by side; sequences: where these lie in values, None where there is one.
    course: where it lies in every value behind the stream's beginning, and who ends it: pooling, the head.
    special: how many tokens at the front are not like the others: class and distillation tokens, registers; those that
    are put in front of the others by a concatenation, or that a head reads by itself.
    """

    stream: Stream
    n: int
    batch: Dim
    sequences: Course | None
    course: Course
    special: int

    def place(self, value: Value) -> Place:
        return self.course.places[value]

    def rows(self, value: Value) -> str | None:
        """How a value is to be seen as rows of tokens: "batch" first, "tokens" first; None: in neither way."""
        place = self.place(value)
        front = product(value.shape[: place.axis]) * place.outer
        if self.sequences is None:
            return "batch" if front == 1 else None
        batch = self.sequences.places.get(value)
        if batch is None or batch.outer != 1:
            return None
        if batch.axis == 0 and front == self.batch:
            return "batch"
        return "tokens" if place == Place(0) and batch == Place(1) else None


def token_axis(graph: Graph, stream: Stream) -> TokenAxis:
    """The token axis of a stream. Raises Refused where there is none on which tokens could be merged."""
    if not stream.attentions:
        raise Refused("no attention in this residual stream")
    first = stream.attentions[0]
    for s in stream.attentions:
        if s.attention is None:
            raise Refused("attention was not recognised as one op here", s.loc)
    assert first.attention is not None
    n = first.attention.operands[1].shape[-2]
    if not isinstance(n, int):
        raise Refused(f"the number of tokens, {n}, is not fixed: fix it by shapes=", first.loc)
    place = _place_in(graph, first, first.source, n)
    start = stream.sublayers[0].source
    if start is not first.source:
        raise Refused("an MLP comes before the first attention", first.loc)
    batch, at = _batch(graph, first, start, place, n)
    sequences = None if at is None else follow(
        graph, start, at, batch, lambda node, places: side_by_side(graph, node, places))
    course = follow(graph, start, place, n, lambda node, places: attended(graph, node, places))
    for s in stream.sublayers:
        if s.branch not in course.places or s.skip not in course.places:
            reader = next((r for r in course.readers if r.node in s.nodes), None)
            why = reader.reason if reader is not None else "it reads tokens that are not those of the stream"
            raise Refused(f"tokens cannot be followed: {why}", reader.node.loc if reader is not None else s.loc)
    special = max(_prepended(graph, start, place, n), _read_alone(graph, course))
    return TokenAxis(stream, n, batch, sequences, course, special)


def attended(graph: Graph, node: Node, places: Mapping[Value, Place]) -> Place | str | None:
    """A mixer for `follow`: self-attention keeps the axis of tokens where every query sees the same keys."""
    if node.op.name != "attention":
        return None
    q, k, v = node.operands[:3]
    at = Place(len(q.shape) - 2)
    if not all(places.get(x) == at for x in (q, k, v)):
        if places.get(q) == at and k not in places and v not in places and len(node.operands) == 3:
            return at  # each query by itself reads keys that are not tokens
        return "it is not the axis of the queries, the keys and the values of this attention alike"
    return _uneven(graph, node) or at


def _uneven(graph: Graph, attention: Node) -> str | None:
    """Why queries see different keys; None where all see the same."""
    if attention.op.causal:  # type: ignore[attr-defined]
        return "attention is causal: a merged token would show a query what comes after it"
    if len(attention.operands) < 4:
        return None
    mask = attention.operands[3]
    rank = len(mask.shape)
    if rank >= 2 and varies(graph, mask, rank - 2):
        return "the mask differs from query to query: causal, or relative positions"
    if rank >= 3 and varies(graph, mask, rank - 3):
        return "the mask differs from head to head"
    return None


def _place_in(graph: Graph, sublayer: Sublayer, source: Value, n: Dim) -> Place:
    """Where a source has the tokens that its attention's queries, keys and values have on their last axis but one."""
    attention = sublayer.attention
    assert attention is not None
    before = frozenset(sublayer.nodes - {attention})
    at = Place(len(attention.operands[0].shape) - 2)
    furthest = Course(n)
    for axis, size in enumerate(source.shape):
        rest = quotient(size, n)
        for place in dict.fromkeys((Place(axis, rest, 1), Place(axis, 1, rest)) if rest else ()):
            course = follow(graph, source, place, n, within=before)
            if all(course.places.get(v) == at for v in attention.operands[:3]):
                return place
            furthest = max(furthest, course, key=lambda c: len(c.places))
    if furthest.readers:
        ended = furthest.readers[0]
        raise Refused(f"tokens cannot be followed to this attention: {ended.reason}", ended.node.loc)
    raise Refused("attention does not run over one axis of its input: windows, or keys from elsewhere", sublayer.loc)


def side_by_side(graph: Graph, node: Node, places: Mapping[Value, Place]) -> Place | None:
    """A mixer for `follow`: attention keeps the axis of sequences, or of sequences and heads."""
    if node.op.name != "attention":
        return None
    found = {places.get(v) for v in node.operands[:3]}
    place = found.pop() if len(found) == 1 else None
    return place if place is not None and place.axis < len(node.result.shape) - 2 else None


def _batch(graph: Graph, sublayer: Sublayer, source: Value, place: Place, n: Dim) -> tuple[Dim, Place | None]:
    """How many sequences of tokens a source holds, and where: the same that attention sees. None where it is one."""
    attention = sublayer.attention
    assert attention is not None
    keys, front = attention.operands[1], product(source.shape[: place.axis]) * place.outer
    behind = source.shape[1] if place.axis == 0 and len(source.shape) == 3 else 1
    if front == 1 and behind == 1:
        return 1, None
    tries = [(front, Place(0, 1, quotient(source.shape[0], front) or 1))] if front != 1 else [(behind, Place(1))]
    for batch, start in tries:
        found = follow(graph, source, start, batch, within=sublayer.nodes - {attention}).places.get(keys)
        if found is not None and found.axis == 0 and found.outer == 1:
            return batch, start
    if product(keys.shape[:-3]) == 1 and front == 1:
        return 1, None
    raise Refused("the batch axis of this attention is not that of its input", sublayer.loc)


def _prepended(graph: Graph, value: Value, place: Place, n: Dim) -> int:
    """How many constant tokens a concatenation puts in front of the others."""
    for _ in range(LONGEST):
        node = graph.producer(value)
        if node is None:
            return 0
        if node.op.name == "concat" and node.op.axis == place.axis:  # type: ignore[attr-defined]
            count = 0
            for v in node.operands:
                if not is_constant(graph, v):
                    break
                count += v.shape[place.axis]
            return count if count < n else 0  # type: ignore[operator]
        step = next(_backward(node, place, n, graph), None)
        if step is None:
            return 0
        value, place = step
    return 0


def _backward(node: Node, place: Place, n: Dim, graph: Graph) -> Iterator[tuple[Value, Place]]:
    """The operands of a node that carry the axis to its result, and where they have it."""
    for k, v in enumerate(node.operands):
        if is_constant(graph, v) or not hasattr(v.type, "shape"):
            continue
        for axis, size in enumerate(v.shape):
            rest = quotient(size, n)
            for source in dict.fromkeys((Place(axis, rest, 1), Place(axis, 1, rest)) if rest not in (None, 0) else ()):
                if carried(node, k, source, n) == place:
                    yield v, source


def _read_alone(graph: Graph, course: Course) -> int:
    """The last of the leading tokens that somebody reads alone, or leaves out; counted from 1."""
    last = 0
    for r in course.readers:
        stop = leading(graph, r.node, course)
        if stop is not None:
            last = max(last, stop)
    return last


def leading(graph: Graph, node: Node, course: Course) -> int | None:
    """Where a reader takes leading tokens only, or all but leading ones: how many of them it tells apart."""
    place = course.places.get(node.operands[0]) if node.operands else None
    if place is None or place.outer != 1 or place.inner != 1:
        return None
    most: int = min(MOST_SPECIAL, course.n // 2)  # type: ignore
    if node.op.name == "slice":
        start, stop, step = (x[place.axis] for x in (node.op.starts, node.op.stops, node.op.steps))  # type: ignore[attr-defined]
        told = start if stop == course.n else stop
        return told if step == 1 and isinstance(told, int) and 0 < told <= most else None
    if node.op.name == "gather" and node.op.axis == place.axis:  # type: ignore[attr-defined]
        index = graph.producer(node.operands[1])
        if index is None or index.op.name != "const":
            return None
        taken = index.op.blob.array  # type: ignore[attr-defined]
        return int(taken.max()) + 1 if taken.size and 0 <= taken.min() and taken.max() < most else None
    return None
