"""Every op of the registry, exported: valid, the same when imported again, the same in ONNX Runtime."""

import random

import numpy as np
import pytest
import torch

from effcc.errors import EffccError, UnsupportedError
from effcc.ir import Builder, Symbol, Tensor, bool_, f32, i64
from effcc.ir.encodings import two_four
from effcc.ir.op import load_ops
from effcc.ir.types import DTYPES, DType, f64, i8, i32, u8
from effcc.testing.draw import Drawer, NothingDrawn, drawable_ops
from effcc.testing.operands import arity
from effcc.testing.search import Choices

EXAMPLES = 3
WITHOUT_F64 = frozenset(
    "acos asin atan acosh asinh atanh cosh sinh tan erf erfc atan2 gelu conv conv_transpose".split()
)
"""Ops that ONNX Runtime's CPU kernels lack in f64."""
NO_SPECIALS = frozenset("attention max_pool max_pool_with_indices gather gather_elements gather_nd scatter_elements "
                        "scatter_nd quantize_linear cast pow update_slice".split())  # fmt: skip
"""Ops for which NaN and extremes are undefined, or left open by ONNX."""


# -- ops that are not drawn: graphs on which they mean something -------------------------------------------------------
def built(types, make):
    b = Builder("g")
    out = make(b, *(b.input(f"x{k}", t) for k, t in enumerate(types)))
    return b.graph(*(out if isinstance(out, tuple) else (out,)))


def T(dtype: DType, *shape):
    return Tensor(dtype, shape)


def body(make, *types):
    b = Builder("body")
    out = make(b, *(b.input(f"b{k}", t) for k, t in enumerate(types)))
    return b.graph(*(out if isinstance(out, tuple) else (out,)))


def counting(b, x):
    """Doubles x three times; also gives each step's value."""
    one = body(lambda b, i, c, x: (c, b.add(x, x), x), T(i64), T(bool_), x.type)
    return b.loop(b.const(3), b.const(True), x, body=one, num_carried=1, length=3)


def state(b):
    return b.const(7), b.const(11)


def sparse(b, x):
    w = np.zeros((4, 8), "f4")
    w[:, ::4], w[:, 1::4] = 1.5, -2
    packed = b.pack(b.const(w), encoding=two_four(1))
    return b.matmul(b.unpack(packed), x)


def weighed(b, *values):
    """What is of a size that the data tell, summed up (by position), so that results have sizes of their own."""
    outs = []
    for v in values:
        axis = next((k for k, d in enumerate(v.shape) if not isinstance(d, int)), None)
        if axis is not None:
            v = b.sum(b.mul(v, b.iota(shape=v.shape, axis=axis, dtype=v.dtype)), axes=(axis,))
        outs.append(v)
    return tuple(outs)


F = T(f32, 3, 4)
GRAPHS = {
    "const": [built([F], lambda b, x: b.add(x, b.const(np.ones((4,), "f4"))))],
    "fused": [built([F], lambda b, x: b.fused(x, body=body(lambda b, x: b.neg(b.exp(x)), F)))],
    "if": [built([T(bool_), F], lambda b, c, x: b.if_(c, x, then=body(lambda b, x: b.neg(x), F),
                                                      orelse=body(lambda b, x: x, F)))],
    "loop": [built([F], counting)],
    "sort": [built([T(d, 5, 3)], lambda b, x, down=down: b.sort(x, axis=0, descending=down))
             for d, down in ((f32, False), (i64, True), (i8, False), (bool_, True), (DTYPES["bf16"], False))],
    "argsort": [built([F], lambda b, x: b.argsort(x, axis=1))],
    "topk": [built([F], lambda b, x: b.topk(x, k=2, axis=1, largest=False))],
    "unique": [built([T(d, 3, 4)], lambda b, x, axis=axis, order=order: weighed(
                  b, *b.unique(x, size=Symbol("S"), axis=axis, sorted=order)))
               for d, axis, order in ((f32, None, True), (i64, 0, True), (i32, 1, True))],
    "nms": [built([T(f32, 1, 6, 4), T(f32, 1, 2, 6)],
                  lambda b, x, y: weighed(b, b.nms(
                      b.abs(x), y, size=Symbol("S"), max_output=3, iou_threshold=0.5)))],
    "nonzero": [built([T(d, 3, 4)], lambda b, x: weighed(b, b.nonzero(x, size=Symbol("S"))))
                for d in (f32, f64, bool_, u8)],
    "compress": [built([F, T(bool_, 4)], lambda b, x, k: weighed(b, b.compress(x, k, axis=1, size=Symbol("S"))))],
    "searchsorted": [built([T(f32, 5), F], lambda b, x, v, right=right: b.searchsorted(
        b.sort(x, axis=0)[0], v, right=right)) for right in (False, True)],
    "grid_sample": [built([T(f32, 1, 2, 4, 5), T(f32, 1, 3, 2, 2)],
                          lambda b, x, g, p=p, m=m: b.grid_sample(x, b.tanh(g), padding=p, mode=m))
                    for p in ("zeros", "border") for m in ("linear", "nearest")],
    "resize": [built([T(f32, 1, 2, 3, 4)], lambda b, x, m=mode, s=sizes, k=kind: b.resize(
        x, sizes=(1, 2, *s), mode=m, coordinate=k)) for mode, sizes, kind in (
            ("nearest", (6, 8), "half_pixel"), ("nearest", (9, 4), "asymmetric"), ("nearest", (5, 7), "half_pixel"),
            ("linear", (6, 8), "half_pixel"), ("linear", (3, 16), "half_pixel"), ("cubic", (6, 8), "half_pixel"))],
    "roi_align": [built([T(f32, 2, 3, 8, 8)], lambda b, x: b.roi_align(
        x, b.const(np.float32([[0, 0, 4, 4], [1, 2, 5, 6]])), b.const([0, 1]), output_size=(2, 2), sampling_ratio=2))],
    "max_unpool": [built([T(f32, 1, 2, 4, 4)], lambda b, x: b.max_unpool(*b.max_pool_with_indices(
        x, kernel=(2, 2), strides=(2, 2), pads=(0,) * 4, dilations=(1, 1)), sizes=(4, 4)))],
    "quantize_linear": [
        built([T(f32, 3, 4)], lambda b, x, d=d: b.quantize_linear(x, b.const(np.float32(0.5)), dtype=d))
        for d in (i8, u8, DTYPES["i16"], DTYPES["f8e4m3"])
    ] + [
        built([T(f32, 3, 4)], lambda b, x: b.quantize_linear(
            x, b.const(np.float32([1, 0.5, 2, 1])), b.const(np.int8([1, -2, 0, 3])), axis=1))
    ],
    "dequantize_linear": [
        built([T(d, 3, 4)], lambda b, x: b.dequantize_linear(x, b.const(np.float32(0.5)))) for d in (i8, u8, i32)
    ] + [
        built([F], lambda b, x: b.matmul(x, b.dequantize_linear(  # blocks of 4-bit weights
            b.const((np.arange(20) % 15 - 7).reshape(4, 5).astype(DTYPES["i4"].numpy), DTYPES["i4"]),
            b.const(np.linspace(0.5, 2, 10, dtype="f4").reshape(2, 5)), axis=0, block_size=2))),
        built([T(i32, 3, 4)], lambda b, x: b.dequantize_linear(
            x, b.const(np.float32([1, 0.5, 2])), b.const(np.int32([1, -2, 0])), axis=0, dtype=DTYPES["f16"])),
    ],
    "pack": [built([T(f32, 8, 3)], sparse)],
    "unpack": [built([T(f32, 8, 3)], sparse)],
    "random_uniform": [built([F], lambda b, x: b.add(x, b.random_uniform(*state(b), shape=(3, 4))))],
    "random_normal": [built([F], lambda b, x: b.add(x, b.random_normal(*state(b), shape=(3, 4))))],
    "random_int": [built([T(i64)], lambda b, x: b.add(x, b.random_int(*state(b), low=-3, high=9, shape=(3, 4))))],
    "bernoulli": [built([F], lambda b, x: b.bernoulli(b.sigmoid(x), *state(b)))],
    "rotary_embedding": [built([T(f32, 2, 3, 8), T(f32, 3, n), T(f32, 3, n)], lambda b, x, c, s, i=i:
                               b.rotary_embedding(x, c, s, interleaved=i)) for n, i in ((4, False), (3, True))],
    "scatter_elements": [built([F, F], lambda b, x, u, how=how: b.scatter_elements(
        x, b.const(np.int64([[0, 2, 1, 1]] * 3)), u, axis=0, reduction=how)) for how in ("none", "add", "max")],
    "scatter_nd": [built([F, T(f32, 2, 4)], lambda b, x, u, how=how: b.scatter_nd(
        x, b.const(np.int64([[0], [-1]])), u, reduction=how)) for how in ("none", "mul")]
        + [built([F, T(f32, 2, 3, 4)], lambda b, x, u, how=how: b.scatter_nd(
            x, b.const(np.zeros((2, 0), np.int64)), u, reduction=how)) for how in ("none", "min")],
    "gather": [built([F, T(i64, 2)], lambda b, x, i: b.gather(x, b.clip(i, b.const(-3), b.const(2)), axis=0))],
    "gather_elements": [built([F], lambda b, x: b.gather_elements(x, b.const(np.int64([[2, -1, 0]])), axis=1))],
    "gather_nd": [built([F], lambda b, x: b.gather_nd(x, b.const(np.int64([[2, -1], [0, 0]]))))],
    "pow": [built([T(d, 4)], lambda b, x: b.pow(x, b.abs(x))) for d in (i32, i64, i8)],
    "sequence_construct": [built([F, F], lambda b, x, y: b.sequence_at(b.sequence_construct(x, y), b.const(1)))],
    "sequence_at": [built([F, F], lambda b, x, y: b.sequence_at(b.sequence_construct(x, y), b.const(-2)))],
    "sequence_insert": [built([F, F], lambda b, x, y: b.sequence_at(
        b.sequence_insert(b.sequence_construct(element=F), x), b.const(0)))],
    "sequence_erase": [built([F, F], lambda b, x, y: b.sequence_at(
        b.sequence_erase(b.sequence_construct(x, y), b.const(0)), b.const(0)))],
    "sequence_length": [built([F, F], lambda b, x, y: b.sequence_length(b.sequence_construct(x, y)))],
    "sequence_concat": [built([F, F], lambda b, x, y, new=new: b.sequence_concat(
        b.sequence_construct(x, y), axis=0, size=2 if new else 6, new_axis=new)) for new in (False, True)],
    "optional": [built([F], lambda b, x: b.optional_get_element(b.optional(x)))],
    "optional_get_element": [built([F], lambda b, x: b.optional_get_element(b.optional(x)))],
    "optional_has_element": [built([F], lambda b, x: b.optional_has_element(b.optional(x)))],
}  # fmt: skip


PHILOX = ("random_uniform", "random_normal", "random_int", "bernoulli")
"""Written out in products of 64 bits without sign, of which the interpreter has 63: compared in ONNX Runtime alone."""


@pytest.mark.parametrize("name", sorted(GRAPHS))
def test_built_graphs(name, held, drawn):
    for k, graph in enumerate(GRAPHS[name]):
        assert any(n.op.name == name for n in graph.walk())
        held(graph, drawn(graph, k), again=name not in PHILOX)


DRAWN = sorted(load_ops().keys() - GRAPHS.keys())
assert DRAWN


def draw(name, seed):
    """A graph of one drawn op, or None."""
    cls, d = load_ops()[name], Drawer(Choices(rest=random.Random(f"{name} {seed}")))
    try:
        op, types = d.application(cls, [None] * arity(d, cls), {})
    except NothingDrawn:
        return None
    return built(types, lambda b, *xs: b.add(op, *xs))


@pytest.mark.parametrize("name", DRAWN)
def test_drawn_ops(name, held, drawn):
    graphs = [g for k in range(EXAMPLES) if (g := draw(name, k)) is not None]
    assert graphs or name in ("if", "loop"), "nothing was drawn: put a graph into GRAPHS"
    for k, graph in enumerate(graphs):
        special = k % 2 == 1 and name not in NO_SPECIALS
        wide = any(v.dtype == f64 for v in (*graph.inputs, *graph.results))
        try:
            inputs = drawn(graph, k, special)
            held(graph, inputs, runs=not (wide and name in WITHOUT_F64))
        except EffccError as error:
            assert "its meaning fails" in str(error)  # the op itself has none for these inputs


@pytest.mark.parametrize("dtype", [i8, i32, i64])
def test_the_least_integer_divided_by_minus_one_wraps(dtype, held):
    a = torch.tensor([dtype.min, dtype.min, 7, -7, -7, 7], dtype=dtype.torch)
    b = torch.tensor([-1, 3, -1, -1, 2, -2], dtype=dtype.torch)
    for name in ("div", "floordiv", "mod", "fmod"):
        graph = built([T(dtype, 6)] * 2, lambda b, x, y, name=name: getattr(b, name)(x, y))
        held(graph, [a, b], again=dtype != i64 or name == "div")


def test_scans_from_the_end(held, drawn):
    for shape in ((0,), (4, 3, 0, 2), (2, 5)):
        for dtype in (f32, u8, DTYPES["bf16"]):
            axis = min(2, len(shape) - 1)
            graph = built([T(dtype, *shape)], lambda b, x, a=axis: b.cumprod(x, axis=a, reverse=True, exclusive=True))
            held(graph, drawn(graph))


def test_random_graphs(held, drawn):
    """Ops that read each other's results; negative exponents and indices beyond the end have no meaning."""
    names_sizes = {c.name for c in drawable_ops() if any(f.name == "size" for f in c.attributes())}  # anew on import
    classes = [c for c in drawable_ops() if c.name not in NO_SPECIALS | WITHOUT_F64 | names_sizes]
    tried = 0
    for k in range(20):
        try:
            graph = Drawer(Choices(rest=random.Random(f"graphs {k}"))).random_graph(classes, 6)
            held(graph, drawn(graph, k))
            tried += 1
        except NothingDrawn:
            continue
        except EffccError as error:
            assert "its meaning fails" in str(error)
    assert tried > 10


def test_what_onnx_runtime_lacks_in_f64_is_still_lacking(held, drawn):
    """The list shrinks as runtimes grow."""
    for name in sorted(WITHOUT_F64 - {"conv", "conv_transpose", "atan2", "erfc", "gelu"}):
        graph = built([T(f64, 2)], lambda b, x, name=name: getattr(b, name)(x))
        with pytest.raises(UnsupportedError, match="ONNX Runtime does not run this model"):
            held(graph, drawn(graph))


@pytest.mark.parametrize("dtype", ["i4", "u4", "i2", "u2", "f4", "f8e4m3", "f8e5m2", "bf16", "u16", "u32", "u64"])
def test_dtypes_inside_of_a_graph(dtype, held):
    graph = built([T(i32, 4, 4)], lambda b, x: b.cast(b.cast(b.add(x, x), to=DTYPES[dtype]), to=f32))
    held(graph, [torch.arange(16, dtype=torch.int32).reshape(4, 4)], runs=dtype != "f4")


def test_what_onnx_has_no_dtype_for_is_refused_by_name(held):
    for dtype, what in (("u1", "no dtype u1"), ("i4", "no sequences of i4")):
        graph = built([T(DTYPES[dtype], 3)], lambda b, x: b.sequence_construct(x))
        with pytest.raises(UnsupportedError, match=what):
            held(graph, [])
