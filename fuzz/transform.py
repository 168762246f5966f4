"""Changes to graphs: those that keep the meaning (for metamorphic laws)."""

from __future__ import annotations

import random
from collections.abc import Callable

from effcc.ir import Builder, Graph, Tensor, Value
from effcc.ir.types import i64


def embellish(graph: Graph, chance: random.Random, times: int = 2) -> Graph:
    """The graph with some values passed through ops that together do nothing."""
    b = Builder(graph.name)
    values: dict[Value, Value] = {}
    spots = set(chance.sample(range(len(graph.values)), min(times, len(graph.values))))
    count = 0

    def passed(v: Value, new: Value) -> Value:
        nonlocal count
        count += 1
        able = [f for f in NOTHINGS if isinstance(v.type, Tensor) and v.type.is_static and v.type.encoding is None]
        return chance.choice(able)(b, new, chance) if count - 1 in spots and able else new

    for v in graph.inputs:
        values[v] = b.input(v.name, v.type)
    for v in graph.inputs:
        values[v] = passed(v, values[v])
    for node in graph.nodes:
        results = b.emit(node.op, tuple(values[v] for v in node.operands))
        for old, new in zip(node.results, results, strict=True):
            values[old] = passed(old, new)
    return b.graph(*(values[v] for v in graph.results))


def split_and_concat(b: Builder, v: Value, chance: random.Random) -> Value:
    rank = len(v.shape)
    if not rank:
        return there_and_back(b, v, chance)
    axis = chance.randrange(rank)
    cut = chance.randint(0, v.shape[axis])
    ones, zeros = (1,) * rank, (0,) * rank
    stop = tuple(cut if k == axis else d for k, d in enumerate(v.shape))
    start = tuple(cut if k == axis else 0 for k in range(rank))
    first = b.slice(v, starts=zeros, stops=stop, steps=ones)
    return b.concat(first, b.slice(v, starts=start, stops=v.shape, steps=ones), axis=axis)


def there_and_back(b: Builder, v: Value, chance: random.Random) -> Value:
    """Transposed by a permutation, and by its inverse."""
    perm = list(range(len(v.shape)))
    chance.shuffle(perm)
    back = tuple(perm.index(k) for k in range(len(perm)))
    return b.transpose(b.transpose(v, perm=tuple(perm)), perm=back)


def flattened(b: Builder, v: Value, chance: random.Random) -> Value:
    return b.reshape(b.reshape(v, shape=(v.tensor.size,)), shape=v.shape)


def padded(b: Builder, v: Value, chance: random.Random) -> Value:
    """Padded, and cropped again."""
    rank = len(v.shape)
    before, after = ([chance.randint(0, 2) for _ in range(rank)] for _ in range(2))
    wide = b.pad(v, b.const(1, v.dtype), pads=(*before, *after), mode="constant")
    stops = tuple(p + d for p, d in zip(before, v.shape, strict=True))
    return b.slice(wide, starts=tuple(before), stops=stops, steps=(1,) * rank)


def gathered(b: Builder, v: Value, chance: random.Random) -> Value:
    """Every row, by its number."""
    if not v.shape:
        return flattened(b, v, chance)
    axis = chance.randrange(len(v.shape))
    return b.gather(v, b.iota(shape=(v.shape[axis],), axis=0, dtype=i64), axis=axis)


def reversed_twice(b: Builder, v: Value, chance: random.Random) -> Value:
    def flip(x: Value) -> Value:
        starts = tuple(d - 1 for d in x.shape)
        return b.slice(x, starts=starts, stops=(-1,) * len(x.shape), steps=(-1,) * len(x.shape))

    return flip(flip(v)) if all(v.shape) else flattened(b, v, chance)


def chosen(b: Builder, v: Value, chance: random.Random) -> Value:
    """Itself, whichever of both a condition picks."""
    return b.where(b.eq(v, v), v, v)


NOTHINGS: tuple[Callable[[Builder, Value, random.Random], Value], ...] = (
    split_and_concat, there_and_back, flattened, padded, gathered, reversed_twice, chosen,
)  # fmt: skip
