"""Every kind of kernel in every dtype that it takes, through Triton's interpreter; what is refused, by name."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import effcc
from effcc.backends.triton.lower import lower
from effcc.errors import UnsupportedError
from effcc.ir import Builder, Symbol, Tensor, f32, load_ops, op_class
from effcc.ir.types import DTYPES, DType, Encoding, i4, i32
from effcc.ops.elementwise import BOOL, FLOAT, Elementwise

pytest.importorskip("triton")

FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
INTEGERS = (torch.int8, torch.uint8, torch.int16, torch.int32, torch.int64)
WINDOW: dict[str, Any] = {"strides": (2, 1), "pads": (1, 0, 1, 2), "dilations": (1, 2)}
N = Symbol("N", 0, 999)

# (kind of kernel, what to build, shapes of the inputs, dtypes)
KINDS: list[tuple[str, Any, list[tuple[int, ...]], tuple[torch.dtype, ...]]] = [
    ("pointwise", lambda b, x, y: b.mul(b.add(x, y), x), [(3, 1, 5), (4, 5)], FLOATS + INTEGERS),
    ("pointwise", lambda b, x: b.gelu(x), [(37,)], FLOATS),
    ("pointwise", lambda b, x: b.pad(b.neg(x), pads=(1, 0, 0, 2), mode="reflect"), [(5, 6)], FLOATS + INTEGERS),
    ("pointwise", lambda b, x: b.roll(b.transpose(x, perm=(1, 0)), shifts=(2, 0)), [(5, 6)], (*INTEGERS, torch.bool)),
    ("pointwise", lambda b, x: b.repeat(x, counts=(2, 3)), [(3, 4)], FLOATS),
    ("reduction", lambda b, x: b.softmax(x, axis=1), [(3, 65)], FLOATS),
    ("reduction", lambda b, x: b.layer_norm(x, axis=2), [(2, 3, 70)], FLOATS),
    ("reduction", lambda b, x: b.sum(b.mul(x, x), axes=(0, 2)), [(9, 3, 11)], FLOATS + INTEGERS),
    ("reduction", lambda b, x: (b.amax(x, axes=(1,)), b.amin(x, axes=(1,))), [(3, 70)], FLOATS + INTEGERS),
    ("reduction", lambda b, x: b.prod(x, axes=(0,)), [(66, 3)], (torch.float32, torch.int32)),
    ("reduction", lambda b, x: (b.any(x, axes=(1,)), b.all(x, axes=(1,))), [(3, 70)], (torch.bool,)),
    ("contraction", lambda b, x, y: b.relu(b.matmul(x, y)), [(2, 1, 9, 33), (3, 33, 17)], FLOATS[:3]),
    ("contraction", lambda b, x, y: b.matmul(x, y, transpose_a=True, transpose_b=True), [(33, 9), (17, 33)],
     FLOATS[:3]),
    ("contraction", lambda b, x, y: b.matmul(x, y, accumulate=i32), [(9, 33), (33, 17)], (torch.int8,)),
    ("contraction", lambda b, x, w, c: b.conv(x, w, c, **WINDOW), [(2, 4, 9, 10), (6, 4, 3, 2), (6,)], FLOATS[:3]),
    ("contraction", lambda b, x, w: b.conv(x, w, **WINDOW, layout="nhwc"), [(2, 9, 10, 4), (6, 4, 3, 2)], FLOATS[:3]),
    ("fold", lambda b, x, y: b.matmul(x, y), [(5, 7), (7, 6)], (torch.float64, torch.int32, torch.uint8)),
    ("fold", lambda b, x, w: b.conv(x, w, **WINDOW, groups=4), [(2, 4, 9, 10), (4, 1, 3, 2)], FLOATS),
    ("fold", lambda b, x: b.max_pool(x, kernel=(3, 2), **WINDOW), [(2, 3, 9, 10)], FLOATS + INTEGERS),
    ("fold", lambda b, x: b.avg_pool(x, kernel=(3, 2), **WINDOW), [(2, 3, 9, 10)], FLOATS),
    ("fold", lambda b, x: b.argmax(x, axis=1), [(3, 20)], FLOATS + INTEGERS),
    ("scan", lambda b, x: b.cumsum(x, axis=1), [(3, 20)], FLOATS + INTEGERS),
    ("scan", lambda b, x: b.cumsum(x, axis=1, exclusive=True, reverse=True), [(3, 9)], FLOATS),
    ("scan", lambda b, x: b.emit(op_class("cummax")(axis=0), (x,)), [(9, 3)], FLOATS[:1] + INTEGERS),
    ("sort", lambda b, x: b.sort(x, axis=1), [(3, 70)], FLOATS + INTEGERS),
    ("sort", lambda b, x: b.topk(x, axis=0, k=4), [(20, 3)], FLOATS + INTEGERS),
    ("attention", lambda b, q, k, v: b.attention(q, k, v, causal=True), [(2, 4, 20, 8), (2, 2, 24, 8), (2, 2, 24, 5)],
     FLOATS[:3]),
    ("attention", lambda b, q, k, v, m: b.attention(q, k, v, m, softcap=5.0),
     [(2, 20, 8), (2, 24, 8), (2, 24, 8), (20, 24)], FLOATS[:3]),
]  # fmt: skip
CASES = [
    pytest.param(kind, build, shapes, dtype, id=f"{n}-{kind}-{str(dtype).removeprefix('torch.')}")
    for n, (kind, build, shapes, dtypes) in enumerate(KINDS)
    for dtype in dtypes
]


@pytest.mark.parametrize("kind,build,shapes,dtype", CASES)
def test_every_kind_of_kernel_in_every_dtype(kind, build, shapes, dtype, agreement, draw):
    program = agreement(build, *(draw(dtype, *shape) for shape in shapes))
    assert kind in {launch.template for launch in program.launches}


@pytest.mark.parametrize("build,shapes", [
    (lambda b, x, y: b.gelu(b.add(x, y)), [(17, 5), (5,)]),
    (lambda b, x: b.softmax(x, axis=1), [(17, 19)]),
    (lambda b, x: b.mean(x, axes=(0,)), [(17, 19)]),
    (lambda b, x, y: b.matmul(x, y), [(17, 19), (19, 23)]),
    (lambda b, x, w: b.conv(x, w, **WINDOW), [(2, 4, 17, 19), (6, 4, 3, 2)]),
    (lambda b, x: b.max_pool(x, kernel=(3, 2), **WINDOW), [(2, 3, 17, 19)]),
    (lambda b, x: b.cumsum(x, axis=1), [(17, 19)]),
    (lambda b, q, k, v: b.attention(q, k, v, causal=True), [(2, 17, 8), (2, 19, 8), (2, 19, 8)]),
])  # fmt: skip
def test_sizes_that_vary(build, shapes, agreement, draw):
    """Each distinct size above 16 is a symbol; one program runs at two bindings of them."""
    def symbolic(shape):
        return tuple(Symbol(f"n{d}", 0, 999) if d > 16 else d for d in shape)

    types = tuple(Tensor(f32, symbolic(shape)) for shape in shapes)
    program = agreement(build, *(draw(torch.float32, *shape) for shape in shapes), types=types)
    smaller = [tuple(d - 9 if d > 16 else d for d in shape) for shape in shapes]
    inputs = tuple(draw(torch.float32, *shape) for shape in smaller)
    torch.testing.assert_close(program(*inputs), effcc.interp.run(program.source, *inputs), rtol=1e-4, atol=1e-5)


def test_rows_that_do_not_fit_a_block(agreement, draw):
    program = agreement(lambda b, x: b.layer_norm(x, axis=1), draw(torch.float32, 2, 4100))
    (source,) = program.code.built.sources.values()
    assert source.text.count("for start") == 3  # mean, variance, results


def operand(cls: type[Elementwise], kind: str, shape: tuple[int, ...], draw: Any) -> torch.Tensor:
    if kind == BOOL:
        return draw(torch.bool, *shape)
    if kind == FLOAT:
        least = 1.1 if cls.name == "acosh" else 0.1
        return torch.rand(shape, generator=torch.Generator().manual_seed(1)) * 0.8 + least
    return draw(torch.int64, *shape).abs() + 1


ELEMENTWISE = [
    (n, k)
    for n, c in load_ops().items()
    if issubclass(c, Elementwise) and n not in ("cast", "bitcast")
    for k in (FLOAT, "i", BOOL)
    if k in c.kinds and (n, k) != ("pow", "i")
]


@pytest.mark.parametrize("name,kind", ELEMENTWISE)
def test_elementwise(name, kind, agreement, draw):
    cls = op_class(name)
    shapes = [(3, 37), (3, 1), (37,)]
    inputs = tuple(operand(cls, BOOL if o == "cond" else kind, s, draw) for o, s in zip(cls.operands, shapes))
    agreement(lambda b, *xs: b.emit(cls(), xs), *inputs)


@pytest.mark.parametrize("source", [*FLOATS, *INTEGERS, torch.bool])
def test_cast(source, agreement, draw):
    x = draw(source, 5, 7)
    targets = [DType.of(t) for t in (*FLOATS, torch.int8, torch.int64, torch.bool)]
    agreement(lambda b, v: tuple(b.cast(v, to=to) for to in targets), x)


def test_special_numbers_go_through(agreement):
    x = torch.tensor([[float("nan"), float("inf"), -float("inf"), -0.0, 0.0, 1e-40, 3e38]])
    agreement(lambda b, v: (b.relu(v), b.max(v, b.neg(v)), b.isnan(v), b.softmax(v, axis=1), b.amax(v, axes=(1,))), x)


def test_indexing(agreement, draw):
    x, at = draw(torch.float32, 9, 11), torch.tensor([[0, -1], [8, 3]])
    agreement(lambda b, v, i: b.gather(v, i, axis=0), x, at)
    updates = draw(torch.float32, 2, 2)
    agreement(lambda b, v, i, u: b.scatter_elements(v, i, u, axis=0, reduction="add"), x, at, updates)
    agreement(lambda b, v, i, u: b.scatter_nd(v, i, u, reduction="none"), x, at.abs(), updates[:, 0])
    block = draw(torch.float32, 2, 3)
    agreement(lambda b, v, u, i, j: b.update_slice(v, u, i, j), x, block, torch.tensor(3), torch.tensor(99))


def test_concatenations_are_written_in_place(agreement, draw):
    parts = [draw(torch.float32, 3, n) for n in (2, 5, 1)]
    program = agreement(lambda b, *xs: b.concat(*(b.neg(x) for x in xs), axis=1), *parts)
    assert len(program.launches) == 3


def test_views_cost_no_kernel(make, draw):
    graph = make(lambda b, v: b.neg(b.slice(b.transpose(v, perm=(1, 0)), starts=(1, 0), stops=(6, 4), steps=(2, 1))),
                 draw(torch.float32, 4, 6))
    (launch,) = lower(graph).launches
    assert "strides (2, 6) from 1" in launch.kernel.text


def test_resampling(draw):
    """A weighted mean of neighbours: a few roundings of the largest input."""
    x = draw(torch.float32, 1, 2, 3, 4)
    b = Builder("g")
    graph = b.graph(b.resize(b.input("x", Tensor(f32, x.shape)), sizes=(1, 2, 5, 6), mode="linear"))
    (y,), (want,) = effcc.compile(graph, target="cuda{run=interpreter}")(x), effcc.interp.run(graph, x)
    assert (y - want).abs().max() <= 16 * 2**-24 * x.abs().max()


def test_equal_kernels_are_written_once(agreement, draw):
    x = draw(torch.float32, 8, 8)
    program = agreement(lambda b, v: b.matmul(b.matmul(b.matmul(v, v), v), v), x)
    assert len(program.launches) == 3 and len(program.code.built.sources) == 2  # x·x reads one buffer, the others two


def test_a_kernel_says_where_it_came_from():
    b = Builder("g")
    b.loc = effcc.ir.Loc("model.onnx", "/layer/Gelu")
    graph = b.graph(b.gelu(b.input("x", Tensor(f32, (8,)))))
    (source,) = effcc.compile(graph, target="cuda{run=interpreter}").code.built.sources.values()
    assert "# gelu    model.onnx:/layer/Gelu" in source.text and "# ptr0: f32[8]" in source.text


def test_empty_tensors(agreement):
    agreement(lambda b, x: b.neg(x), torch.zeros(0, 3))
    agreement(lambda b, x: b.sum(x, axes=(0,)), torch.zeros(0, 3))
    agreement(lambda b, x, y: b.matmul(x, y), torch.zeros(4, 0), torch.zeros(0, 3))


@pytest.mark.parametrize("build,said", [
    (lambda b: b.nonzero(b.input("x", Tensor(f32, (9,))), size=N), "nonzero"),
    (lambda b: b.neg(b.input("x", Tensor(i4, (9,)))), "dtype i4"),
    (lambda b: b.add(*(b.input(n, Tensor(DTYPES["f8e4m3"], (9,))) for n in "xy")), "dtype f8e4m3"),
    (lambda b: b.neg(b.input("x", Tensor(f32, (9,), Encoding("panels")))), "laid out as panels"),
])  # fmt: skip
def test_what_has_no_code_is_refused_by_name(build, said):
    b = Builder("g")
    with pytest.raises(UnsupportedError, match=said):
        effcc.compile(b.graph(build(b)), target="cuda{run=interpreter}")
