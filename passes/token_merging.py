"""What the passes that merge tokens share: matching, merging, putting back, and rebuilding a graph with fewer tokens.

A merge of n tokens into `kept` is one index for each token, its `target`. Rows go there as sums (a scatter), and come
back as copies (a gather), so any matching makes a merge. Weights are how much of a token there is: the number of tokens
that it stands for, 0 for padding; the mean of merged rows is weighted by them, and an attention that adds log(weight)
to a key's score sees it as often (Bolya et al. 2023, "Token Merging: Your ViT But Faster", section 3.2).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from effcc.analysis.axes import Place, carried, quotient
from effcc.analysis.transformer import Refused, Sublayer, TokenAxis, leading
from effcc.ir.builder import Builder
from effcc.ir.dims import Dim, product
from effcc.ir.graph import Graph, Node, Value
from effcc.ir.op import Op
from effcc.ir.types import f32, i32, i64

TINY = 1e-30
"""Stands for a weight of zero in a quotient: rows of tokens that are all padding become zero."""


@dataclass(frozen=True)
class Merge:
    """n tokens become `kept`: token i of sequence j becomes part of token target[j, i], i64[batch, n]."""

    target: Value
    n: int
    kept: int


# -- rows --------------------------------------------------------------------------------------------------------------
def flat_index(b: Builder, index: Value, size: int) -> Value:
    """i64[batch, k], counted in each sequence of `size` tokens, as i64[batch · k] counted through all of them."""
    batch, count = index.shape
    if batch != 1:
        first = b.mul(b.iota(shape=(batch, 1), axis=0, dtype=i64), b.const(np.asarray(size, "i8")))
        index = b.add(index, first)
    return b.reshape(index, shape=(batch * count,))


def sum_rows(b: Builder, x: Value, merge: Merge) -> Value:
    """f32[batch, n, c] -> f32[batch, kept, c]: the sum of the rows that go to the same place."""
    batch, n, size = x.shape
    zeros = b.broadcast_to(b.const(np.zeros((1, 1), "f4")), shape=(batch * merge.kept, size))
    index = b.reshape(flat_index(b, merge.target, merge.kept), shape=(batch * n, 1))
    summed = b.scatter_nd(zeros, index, b.reshape(x, shape=(batch * n, size)), reduction="add")
    return b.reshape(summed, shape=(batch, merge.kept, size))


def copy_rows(b: Builder, x: Value, merge: Merge) -> Value:
    """[batch, kept, c] -> [batch, n, c]: to each token the row that it became part of."""
    batch, kept, size = x.shape
    picked = b.gather(b.reshape(x, shape=(batch * kept, size)), flat_index(b, merge.target, merge.kept), axis=0)
    return b.reshape(picked, shape=(batch, merge.n, size))


def mean_rows(b: Builder, x: Value, merge: Merge, weights: Value | None, padded: bool) -> tuple[Value, Value]:
    """([batch, kept, c] means of x weighted by f32[batch, n], f32[batch, kept] sums of the weights); None: ones.

    padded: weights may be zero; rows of tokens that all weigh nothing become zero.
    """
    batch, n, _ = x.shape
    wide = x if x.dtype == f32 else b.cast(x, to=f32)
    if weights is None:
        column = b.broadcast_to(b.const(np.ones((1, 1, 1), "f4")), shape=(batch, n, 1))
    else:
        column = b.reshape(weights, shape=(batch, n, 1))
        wide = b.mul(wide, column)
    total = sum_rows(b, column, merge)
    mean = b.div(sum_rows(b, wide, merge), b.max(total, b.full_like(total, TINY)) if padded else total)
    return mean if x.dtype == f32 else b.cast(mean, to=x.dtype), b.reshape(total, shape=(batch, merge.kept))


# -- matching ----------------------------------------------------------------------------------------------------------
def match(b: Builder, metric: Value, sources: np.ndarray, targets: np.ndarray, r: int, weights: Value | None) -> Merge:
    """Merge the r sources that are most like a target into it, by the cosine of f32[batch, n, d].

    sources, targets: positions of tokens that may go, and that others may go to. The result's order: neither of them,
    then the sources that stay, then the targets, each as they were. Sources of weight 0 go first, and nothing goes to a
    target of weight 0: both would be padding.
    """
    batch, n, _ = metric.shape
    others = np.setdiff1d(np.arange(n), np.concatenate([sources, targets]))
    unit = normalized(b, metric)
    scores = b.matmul(rows_at(b, unit, sources), rows_at(b, unit, targets), transpose_b=True)
    if weights is not None:
        there = b.gt(rows_at(b, weights, targets), b.const(np.zeros((), "f4")))
        there = b.reshape(there, shape=(batch, 1, len(targets)))
        scores = b.where(there, scores, b.full_like(scores, float("-inf")))
    best = b.argmax(scores, axis=2)
    value = b.amax(scores, axes=(2,))
    if weights is not None:
        gone = b.eq(rows_at(b, weights, sources), b.const(np.zeros((), "f4")))
        value = b.where(gone, b.full_like(value, float("inf")), value)
    stays = b.cast(b.ge(rank(b, value), b.const(np.asarray(r, "i4"))), to=i64)
    first = b.const(np.asarray(len(others) - 1, "i8"))
    kept_at = b.add(b.cumsum(stays, axis=1), first)
    merged_at = b.add(best, b.const(np.asarray(len(others) + len(sources) - r, "i8")))
    moved = b.where(b.ne(stays, b.const(np.zeros((), "i8"))), kept_at, merged_at)
    fixed, number, moves = (np.zeros(n, d) for d in ("i8", "i8", bool))  # type: ignore[call-overload]
    fixed[others] = np.arange(len(others))
    fixed[targets] = len(others) + len(sources) - r + np.arange(len(targets))
    number[sources], moves[sources] = np.arange(len(sources)), True
    each = b.gather(moved, b.const(number), axis=1)
    return Merge(b.where(b.const(moves[None]), each, b.const(fixed[None])), n, n - r)  # type: ignore[arg-type]


def normalized(b: Builder, x: Value) -> Value:
    """x / |x| along the last axis; zeros stay zeros."""
    wide = x if x.dtype == f32 else b.cast(x, to=f32)
    squares = b.sum(b.mul(wide, wide), axes=(len(x.shape) - 1,), keepdims=True)
    return b.mul(wide, b.rsqrt(b.max(squares, b.full_like(squares, TINY))))


def rank(b: Builder, value: Value) -> Value:
    """i32[batch, k]: how many values of a row of f32[batch, k] are greater, or equal and in front."""
    batch, k = value.shape
    own, other = b.reshape(value, shape=(batch, k, 1)), b.reshape(value, shape=(batch, 1, k))
    earlier = b.const(np.tri(k, k, -1, dtype=bool)[None])
    beaten = b.or_(b.gt(other, own), b.and_(b.eq(other, own), earlier))
    return b.sum(b.cast(beaten, to=i32), axes=(2,))


def rows_at(b: Builder, x: Value, positions: np.ndarray) -> Value:
    """The tokens of [batch, n, ...] at constant positions: a strided slice where they are evenly spaced."""
    steps = np.diff(positions)
    if len(positions) > 1 and steps.min() == steps.max() > 0:
        starts, stops, stride = [0] * len(x.shape), list(x.shape), [1] * len(x.shape)
        starts[1], stops[1], stride[1] = int(positions[0]), int(positions[-1]) + 1, int(steps[0])
        return b.slice(x, starts=tuple(starts), stops=tuple(stops), steps=tuple(stride))
    return b.gather(x, b.const(positions.astype("i8")), axis=1)


# -- rebuilding --------------------------------------------------------------------------------------------------------
@dataclass
class Rebuild:
    """A graph copied node by node, its tokens becoming fewer on the way.

    A value of the course has an epoch: how many merges came before it. Values of epoch 0 are as they were. What reads
    all tokens at once reads them put back (`restored`), so merging shows nowhere but in values.
    """

    graph: Graph
    axis: TokenAxis
    merges: list[Merge] = field(default_factory=list)
    weights: Value | None = None
    """f32[batch, tokens]: how much of each token there is now; None: one of each."""
    fixed: int = 0
    """How many leading tokens stay where they are and never merge."""
    mask: Value | None = None
    """The mask that the weights began with."""
    bias: Callable[[Rebuild, Node], Value | None] = lambda rebuild, attention: None
    """The mask of an attention whose tokens were merged."""

    def __post_init__(self) -> None:
        self.b = Builder(self.graph.name)
        self.b.inputs = list(self.graph.inputs)
        self.values: dict[Value, Value] = {}
        self.epochs: dict[Value, int] = {}

    def run(self, behind: Callable[[Rebuild, Node], None]) -> Graph:
        """The rebuilt graph; `behind` is called behind each node, and may merge."""
        for node in self.graph.nodes:
            with self.b.at(node.loc):
                self.copy(node)
                behind(self, node)
        results = tuple(self.restored(v) for v in self.graph.results)
        return self.b.graph(*results, aliases=self.graph.aliases)

    def tokens(self, epoch: int) -> int:
        return self.merges[epoch - 1].kept if epoch else self.axis.n

    def now(self, value: Value) -> Value:
        return self.values.get(value, value)

    def epoch(self, value: Value) -> int:
        return self.epochs.get(value, 0)

    def copy(self, node: Node) -> None:
        """Append a node that does what it did, to the tokens that there are."""
        places = self.axis.course.places
        epochs = {self.epoch(v) for v in node.operands if v in places}
        if epochs <= {0}:
            operands, op, epoch = tuple(map(self.now, node.operands)), node.op, 0
        elif len(epochs) == 1 and all(r in places for r in node.results):
            epoch = epochs.pop()
            op, operands = self.resized(node, self.tokens(epoch))
        elif len(epochs) == 1 and self.reads_fixed(node):
            operands, op, epoch = tuple(map(self.now, node.operands)), node.op, 0
        elif len(epochs) == 1 and self.pools(node):
            mask = self.bias(self, node)
            operands, op, epoch = (*map(self.now, node.operands[:3]), *([] if mask is None else [mask])), node.op, 0
        else:
            operands, op, epoch = tuple(map(self.restored, node.operands)), node.op, 0
        if op is node.op and operands == node.operands:
            self.b.nodes.append(node)
            return
        types = op.result_types(tuple(v.type for v in operands))
        results = tuple(r if t == r.type else Value(t, r.name) for t, r in zip(types, node.results, strict=True))
        self.b.nodes.append(Node(op, operands, results, node.loc))
        for old, new in zip(node.results, results, strict=True):
            self.values[old] = new
            if epoch:
                self.epochs[old] = epoch

    def reads_fixed(self, node: Node) -> bool:
        """Whether a reader takes tokens only that stay where they are."""
        place = self.axis.course.places.get(node.operands[0])
        whole = node.op.name == "slice" and place is not None and node.op.stops[place.axis] == self.axis.n  # type: ignore[attr-defined]
        taken = None if whole else leading(self.graph, node, self.axis.course)
        return taken is not None and taken <= self.fixed

    def pools(self, node: Node) -> bool:
        """Whether it is attention of other queries to all tokens, masked as they are: each may stand for several."""
        if node.op.name != "attention" or node.op.causal:  # type: ignore[attr-defined]
            return False
        places, at = self.axis.course.places, Place(len(node.operands[0].shape) - 2)
        mask = node.operands[3] if len(node.operands) > 3 else None
        return (node.operands[0] not in places and mask is self.mask and mask not in places  # type: ignore[misc]
                and all(places.get(v) == at for v in node.operands[1:3]))

    def resized(self, node: Node, count: int) -> tuple[Op, tuple[Value, ...]]:
        """A node that carries the axis, for `count` tokens: the op with its sizes, and its operands."""
        n, places = self.axis.n, self.axis.course.places
        place = places[node.results[0]]
        op = node.op
        if op.name in ("reshape", "broadcast_to"):
            op = op.replace(shape=changed(op.shape, place.axis, place.size(count)))  # type: ignore[attr-defined]
        elif op.name == "slice":
            source = places[node.operands[0]]
            op = op.replace(stops=changed(op.stops, source.axis, source.size(count)))  # type: ignore[attr-defined]
        operands = list(map(self.now, node.operands))
        if op.name == "attention" and node.operands[1] in places:
            mask = self.bias(self, node)
            operands = [*operands[:3], *([] if mask is None else [mask])]
        else:
            for k, v in enumerate(node.operands):
                for axis, size in enumerate(v.shape if v not in places else ()):
                    own = Place(axis, place.outer, place.inner)
                    if size != 1 and size == own.size(n) and carried(node, k, own, n) == place:
                        operands[k] = first_of(self.b, operands[k], axis, own.size(count))  # it repeats one slice
        return op, tuple(operands)

    # -- merging and restoring -----------------------------------------------------------------------------------
    def rows(self, value: Value, count: int) -> Value:
        """What stands for a value of the course now, as [batch, count, c]. Raises Refused where it is no such rows."""
        x, layout = self.now(value), self.axis.rows(value)
        if layout is None:
            raise Refused("tokens are not side by side in this value of the stream")
        x = swapped(self.b, x) if layout == "tokens" else x
        return self.b.reshape(x, shape=(self.axis.batch, count, self.width(value)))

    def width(self, value: Value) -> Dim:
        """How many elements of a value belong to one token."""
        place = self.axis.place(value)
        if self.axis.rows(value) == "tokens":
            return product(value.shape[2:])
        return product(value.shape[place.axis + 1 :]) * place.inner

    def laid_out(self, rows: Value, value: Value, count: int) -> Value:
        """[batch, count, c] as a value of the course is laid out."""
        place = self.axis.place(value)
        shape = changed(value.shape, place.axis, place.size(count))
        if self.axis.rows(value) == "tokens":
            return swapped(self.b, self.b.reshape(rows, shape=(shape[1], shape[0], *shape[2:])))
        return self.b.reshape(rows, shape=shape)

    def merge(self, value: Value, merge: Merge) -> None:
        """All further readers of a value of the stream read its tokens merged, as means weighted by what there is."""
        if self.epoch(value) != len(self.merges):
            raise Refused("the stream goes around a merge here: a long skip connection")
        rows = self.rows(value, merge.n)
        mean, self.weights = mean_rows(self.b, rows, merge, self.weights, padded=self.mask is not None)
        self.merges.append(merge)
        self.values[value] = self.laid_out(mean, value, merge.kept)
        self.epochs[value] = len(self.merges)

    def restored(self, value: Value) -> Value:
        """A value with all its tokens: each has the row of what it became part of."""
        epoch = self.epoch(value)
        if not epoch:
            return self.now(value)
        if self.axis.rows(value) is None:  # heads, channels in front: computed again, from what it was computed from
            node = self.graph.producer(value)
            assert node is not None
            again = self.b.add(node.op, *map(self.restored, node.operands))
            return again if isinstance(again, Value) else again[node.results.index(value)]
        rows = copy_rows(self.b, self.rows(value, self.tokens(epoch)), self.since(epoch))
        return self.laid_out(rows, value, self.axis.n)

    def since(self, epoch: int) -> Merge:
        """The first `epoch` merges as one."""
        whole = self.merges[0]
        for m in self.merges[1:epoch]:
            at = self.b.gather(self.b.reshape(m.target, shape=(self.axis.batch * m.n,)),
                               flat_index(self.b, whole.target, m.n), axis=0)
            whole = Merge(self.b.reshape(at, shape=(self.axis.batch, whole.n)), whole.n, m.kept)
        return whole

    def metric_of_keys(self, sublayer: Sublayer, count: int) -> Value:
        """f32[batch, count, d]: the mean over heads of the keys of an attention."""
        assert sublayer.attention is not None
        keys = self.now(sublayer.attention.operands[1])
        heads = product(sublayer.attention.operands[1].shape[:-2])
        shape: tuple[Dim, ...] = (self.axis.batch, _share(heads, self.axis.batch), count, keys.shape[-1])
        split = self.b.reshape(keys, shape=shape)
        return self.b.mean(split if keys.dtype == f32 else self.b.cast(split, to=f32), axes=(1,))


def _share(heads: Dim, batch: Dim) -> Dim:
    share = quotient(heads, batch)
    if share is None:
        raise Refused("the batch axis of this attention is not that of its input")
    return share


def changed(sizes: tuple[Any, ...], axis: int, size: Dim) -> tuple[Any, ...]:
    return (*sizes[:axis], size, *sizes[axis + 1 :])


def swapped(b: Builder, x: Value) -> Value:
    return b.transpose(x, perm=(1, 0, *range(2, len(x.shape))))


def first_of(b: Builder, x: Value, axis: int, count: Dim) -> Value:
    zeros, ones = (0,) * len(x.shape), (1,) * len(x.shape)
    return b.slice(x, starts=zeros, stops=changed(x.shape, axis, count), steps=ones)


# -- masks -------------------------------------------------------------------------------------------------------------
def key_weights(rebuild: Rebuild, attention: Node) -> Value:
    """exp of an attention's mask, f32[batch, n]: how much of each key there is; 0 where it is masked.

    The mask is the same for all queries and heads (`token_axis` saw to that).
    """
    b, mask = rebuild.b, rebuild.now(attention.operands[3])
    batch, n = rebuild.axis.batch, rebuild.axis.n
    rank_ = len(mask.shape)
    for axis in range(max(rank_ - 3, 0), rank_ - 1):
        mask = first_of(b, mask, axis, 1)
    rows = product(mask.shape[:-1])
    mask = b.broadcast_to(b.reshape(mask, shape=(rows, mask.shape[-1])), shape=(batch, n))
    if mask.tensor.dtype.is_bool:
        return b.cast(mask, to=f32)
    return b.exp(mask if mask.dtype == f32 else b.cast(mask, to=f32))


def log_weights(rebuild: Rebuild, attention: Node, weights: Value) -> Value:
    """log of f32[batch, tokens] as a mask of an attention: the same for its queries and heads."""
    b, batch = rebuild.b, rebuild.axis.batch
    return as_key_mask(rebuild, attention, b.log(b.reshape(weights, shape=(batch, weights.shape[1]))))


def present(rebuild: Rebuild, attention: Node, weights: Value) -> Value:
    """0 for keys of f32[batch, tokens] weights above 0 and -inf for others, as a mask of an attention."""
    b = rebuild.b
    zero = b.const(np.zeros((), "f4"))
    return as_key_mask(rebuild, attention, b.where(b.gt(weights, zero), zero, b.full_like(zero, -np.inf)))


def as_key_mask(rebuild: Rebuild, attention: Node, rows: Value) -> Value:
    """f32[batch, tokens] laid out to broadcast to an attention's scores."""
    b, batch, queries = rebuild.b, rebuild.axis.batch, attention.operands[0]
    ones = len(queries.shape) - 2
    if batch != 1 and len(queries.shape) == 3:  # [batch · heads, tokens, d]
        heads = _share(queries.shape[0], batch)
        each = b.broadcast_to(b.reshape(rows, shape=(batch, 1, rows.shape[1])), shape=(batch, heads, rows.shape[1]))
        return b.reshape(each, shape=(queries.shape[0], 1, rows.shape[1]))
    return b.reshape(rows, shape=(batch, *(1,) * ones, rows.shape[1]))
