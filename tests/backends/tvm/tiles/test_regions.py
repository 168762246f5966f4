"""Boxes of operands against every single read, evaluated point by point."""

import itertools

import numpy as np
import pytest

from effcc.backends.tvm.tiles.regions import Box, needed
from effcc.ir import Builder, Tensor, f32, i64
from effcc.ir import scalar as s
from effcc.ir.graph import Graph

WINDOW = {"strides": (2, 1), "pads": (1, 0, 1, 2), "dilations": (1, 2)}


def x(b, *shape, dtype=f32):
    return b.input(f"x{len(b.inputs)}", Tensor(dtype, shape))


CASES = {
    "add": lambda b: b.add(x(b, 5, 6), x(b, 5, 1)),
    "matmul": lambda b: b.matmul(x(b, 2, 5, 3), x(b, 2, 4, 3), transpose_b=True),
    "conv": lambda b: b.conv(x(b, 1, 4, 7, 8), x(b, 6, 2, 3, 2), groups=2, **WINDOW),
    "max_pool": lambda b: b.max_pool(x(b, 1, 2, 9, 10), kernel=(3, 2), **WINDOW),
    "sum": lambda b: b.sum(x(b, 4, 5, 3), axes=(1,)),
    "softmaxed": lambda b: b.div(v := x(b, 4, 5), b.sum(v, axes=(1,), keepdims=True)),
    "reshape": lambda b: b.reshape(x(b, 6, 10), shape=(3, 4, 5)),
    "transpose": lambda b: b.transpose(x(b, 2, 3, 4), perm=(2, 0, 1)),
    "slice": lambda b: b.slice(x(b, 9, 6), starts=(1, 5), stops=(8, -1), steps=(3, -2)),
    "concat": lambda b: b.concat(x(b, 3, 2), x(b, 3, 4), axis=1),
    "pad": lambda b: b.pad(x(b, 5, 6), pads=(1, 2, 0, 3), mode="reflect"),
    "wrap": lambda b: b.pad(x(b, 5, 6), pads=(1, 2, 0, 3), mode="wrap"),
    "repeat": lambda b: b.repeat(x(b, 3, 5), counts=(2, 3)),
    "gather": lambda b: b.gather(x(b, 6, 4), x(b, 5, dtype=i64), axis=0),
    "resize": lambda b: b.resize(x(b, 1, 1, 4, 5), sizes=(1, 1, 7, 8), mode="linear"),
    "rotary": lambda b: b.rotary_embedding(x(b, 2, 5, 8), x(b, 5, 4), x(b, 5, 4)),
    "flipped chain": lambda b: b.sum(b.mul(b.transpose(x(b, 4, 6), perm=(1, 0)), x(b, 6, 4)), axes=(1,)),
    "cumsum": lambda b: b.cumsum(x(b, 4, 6), axis=1),
}


def evaluate(root, index):
    """An index expression at one point of the iteration space."""
    known = {}
    functions = {
        "add": lambda a, b: a + b, "sub": lambda a, b: a - b, "mul": lambda a, b: a * b, "min": min, "max": max,
        "floordiv": lambda a, b: a // b, "mod": lambda a, b: a % b, "neg": lambda a: -a, "cast": lambda a: a,
        "div": lambda a, b: int(a / b) if isinstance(a, int) else a / b,
        "lt": lambda a, b: a < b, "le": lambda a, b: a <= b, "gt": lambda a, b: a > b, "ge": lambda a, b: a >= b,
        "eq": lambda a, b: a == b, "select": lambda c, a, b: a if c else b, "floor": np.floor, "round": np.rint,
        "and": lambda a, b: a and b, "or": lambda a, b: a or b, "not": lambda a: not a,
    }  # fmt: skip
    for n in s.walk(root):
        match n:
            case s.Literal(_, value):
                known[id(n)] = value
            case s.Size(_, dim):
                known[id(n)] = dim
            case s.Index(_, axis):
                known[id(n)] = index[axis]
            case s.Apply(dtype, fn, args):
                value = functions[fn](*(known[id(a)] for a in args))
                known[id(n)] = int(value) if fn == "cast" and dtype.is_integer else value
            case _:
                return None  # data: any index
    return known[id(root)]


def reads_at(graph: Graph, point):
    """{input: indices} that one element of the first result needs, node by node; None: any."""
    wanted = {graph.results[0]: {point}}
    for node in reversed(graph.nodes):
        points = wanted.get(node.results[0], set())
        nest = node.op.compute(*node.types)
        folded = [range(e) if k != s.PARALLEL else None for e, k in zip(nest.extents, nest.kinds)]
        for at in points:
            kept = iter(at if None not in at else (0,) * len(at))
            full = []
            for kind, every in zip(nest.kinds, folded):
                here = next(kept) if kind != s.REDUCTION else None
                full.append(every if every is not None else (here,))
            for index in itertools.product(*full):
                for read in nest.reads():
                    v = node.operands[read.operand]
                    places = [evaluate(i, index) for i in read.index]
                    options = [range(d) if i is None else (i,) for i, d in zip(places, v.shape)]
                    wanted.setdefault(v, set()).update(itertools.product(*options))
    return {v: wanted.get(v, set()) for v in graph.inputs}


@pytest.mark.parametrize("name", CASES)
def test_a_box_contains_every_read(name):
    b = Builder()
    graph = b.graph(CASES[name](b))
    shape = graph.results[0].shape
    random = np.random.default_rng(0)
    for _ in range(6):
        low = np.array([random.integers(0, d) for d in shape])
        high = np.array([random.integers(a, min(a + 3, d)) for a, d in zip(low, shape)])
        boxes = needed(graph, {graph.results[0]: Box(low.reshape(-1, 1), high.reshape(-1, 1))})
        points = list(itertools.product(*(range(a, c + 1) for a, c in zip(low, high))))
        for point in [points[k] for k in random.choice(len(points), min(3, len(points)), replace=False)]:
            for v, indices in reads_at(graph, point).items():
                for at in indices:
                    inside = [a <= i <= c for a, i, c in zip(boxes[v].low[:, 0], at, boxes[v].high[:, 0])]
                    assert all(inside), f"{name}: {at} of {v} for {point}"


@pytest.mark.parametrize(
    "name,box,expected",
    [
        ("matmul", ((1, 1), (2, 3), (0, 1)), [((1, 1), (2, 3), (0, 2)), ((1, 1), (0, 1), (0, 2))]),
        ("conv", ((0, 0), (0, 2), (1, 2), (2, 3)), [((0, 0), (0, 1), (1, 5), (2, 5))]),
        ("softmaxed", ((1, 2), (3, 3)), [((1, 2), (0, 4))]),
        ("reshape", ((1, 1), (0, 1), (0, 4)), [((2, 2), (0, 9))]),
    ],
)
def test_boxes_are_tight(name, box, expected):
    b = Builder()
    graph = b.graph(CASES[name](b))
    low, high = (np.array(side).reshape(-1, 1) for side in zip(*box))
    boxes = needed(graph, {graph.results[0]: Box(low, high)})
    for v, wanted in zip(graph.inputs, expected):
        assert tuple(zip(boxes[v].low[:, 0], boxes[v].high[:, 0])) == wanted


def test_an_attention_needs_its_own_head_of_keys():
    b = Builder()
    q, k, v = x(b, 2, 4, 6, 8), x(b, 2, 2, 7, 8), x(b, 2, 2, 7, 8)
    graph = b.graph(b.attention(q, k, v))
    low, high = (np.array(side).reshape(-1, 1) for side in zip((1, 1), (3, 3), (2, 4), (0, 7)))
    boxes = needed(graph, {graph.results[0]: Box(low, high)})
    assert tuple(zip(boxes[q].low[:, 0], boxes[q].high[:, 0])) == ((1, 1), (3, 3), (2, 4), (0, 7))
    assert tuple(zip(boxes[k].low[:, 0], boxes[k].high[:, 0])) == ((1, 1), (1, 1), (0, 6), (0, 7))
