"""Every op, compiled for the CPU, against its meaning: with static shapes, and with symbols in their place."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import effcc
from effcc.interp import run
from effcc.ir import Builder, Op, Symbol, Tensor, f16, i32, load_ops, op_class, u8
from effcc.ir.types import DType
from effcc.ops.elementwise import BOOL, FLOAT, Elementwise

RNG = torch.Generator().manual_seed(0)
N = Symbol("count", 0, 2000)
TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-9, torch.float16: 1e-2, torch.bfloat16: 5e-2}


def draw(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=RNG)


def whole(high: int, *shape: int, low: int = 0) -> torch.Tensor:
    return torch.randint(low, high, shape, generator=RNG)


def unit(*shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=RNG)


BOXES = torch.tensor([[0.0, 0, 4, 4], [1, 1, 5, 3], [-3, 2, 9, 30]])
STATE = (torch.tensor(-3), torch.tensor(5))
WINDOW: dict[str, Any] = {"strides": (2, 1), "pads": (1, 0, 1, 2), "dilations": (1, 2)}
POOL = {"kernel": (3, 2), **WINDOW}

CASES: list[tuple[str, dict[str, Any], tuple[torch.Tensor, ...]]] = [
    ("cast", {"to": f16}, (draw(3, 5),)),
    ("cast", {"to": u8}, (whole(900, 3, 5),)),
    ("bitcast", {"to": i32}, (draw(3, 5),)),
    ("matmul", {}, (draw(2, 1, 9, 33), draw(3, 33, 17))),
    (
        "matmul",
        {"transpose_b": True, "accumulate": i32},
        (whole(99, 9, 33).to(torch.int8), whole(99, 17, 33).to(torch.int8)),
    ),
    ("conv", {**WINDOW, "groups": 2}, (draw(2, 4, 9, 10), draw(6, 2, 3, 2), draw(6))),
    ("conv", {**WINDOW, "layout": "nhwc"}, (draw(2, 9, 10, 4), draw(6, 4, 3, 2))),
    ("conv_transpose", {**WINDOW, "output_pads": (1, 0)}, (draw(2, 4, 5, 6), draw(4, 3, 3, 2), draw(3))),
    ("max_pool", POOL, (draw(2, 3, 9, 10),)),
    ("max_pool_with_indices", POOL, (draw(2, 3, 9, 10),)),
    ("avg_pool", {**POOL, "count_include_pad": True}, (draw(2, 3, 9, 10),)),
    *(
        (name, {"axes": (0, 2)}, (draw(3, 40, 7),))
        for name in ("sum", "prod", "mean", "amax", "amin", "logsumexp", "var")
    ),
    *((name, {"axes": (1,), "keepdims": True}, (draw(30, 700),)) for name in ("sum", "amax", "logsumexp", "var")),
    *((name, {"axes": (1,)}, (draw(3, 5) > 0,)) for name in ("any", "all")),
    *(
        (name, {"axis": 1, "select_last": last}, (whole(9, 30, 70),))
        for name in ("argmax", "argmin")
        for last in (False, True)
    ),
    ("softmax", {"axis": 1}, (draw(30, 700),)),
    ("softmax", {"axis": 0}, (draw(30, 7).bfloat16(),)),
    ("log_softmax", {"axis": 1}, (draw(3, 5, 7),)),
    ("layer_norm", {"axis": 1}, (draw(3, 5, 70), draw(5, 70), draw(5, 70))),
    ("rms_norm", {"axis": 2}, (draw(3, 5, 70), draw(70))),
    ("group_norm", {"groups": 2}, (draw(2, 4, 3, 5), draw(4), draw(4))),
    ("batch_norm", {}, (draw(2, 4, 3, 5), draw(4), draw(4), draw(4), unit(4) + 0.1)),
    ("reshape", {"shape": (6, 35)}, (draw(7, 30),)),
    ("transpose", {"perm": (2, 0, 1)}, (draw(3, 17, 33),)),
    ("broadcast_to", {"shape": (2, 3, 5)}, (draw(3, 1),)),
    ("slice", {"starts": (1, 5), "stops": (4, -1), "steps": (1, -2)}, (draw(4, 6),)),
    ("concat", {"axis": 1}, (draw(3, 5), draw(3, 2), draw(3, 9))),
    *(("pad", {"pads": (1, 2, 0, 3), "mode": mode}, (draw(5, 6),)) for mode in ("constant", "reflect", "edge", "wrap")),
    ("repeat", {"counts": (2, 3)}, (draw(3, 5),)),
    ("gather", {"axis": 1}, (draw(3, 50, 40), whole(50, 2, 30, low=-50))),
    ("gather", {"axis": 0}, (draw(70, 9), whole(70, 5).int())),
    ("gather_elements", {"axis": 1}, (draw(30, 50), whole(50, 30, 20))),
    ("gather_nd", {}, (draw(3, 5, 4), torch.stack([whole(3, 6), whole(5, 6)], -1))),
    *(
        ("scatter_elements", {"axis": 1, "reduction": how}, (draw(30, 50), whole(50, 30, 40), draw(30, 40)))
        for how in ("none", "add", "min")
    ),
    *(
        ("scatter_nd", {"reduction": how}, (draw(3, 5, 4), torch.stack([whole(3, 9), whole(5, 9)], -1), draw(9, 4)))
        for how in ("none", "max")
    ),
    ("update_slice", {}, (draw(30, 50), draw(2, 20), torch.tensor(9), torch.tensor(99))),
    ("dynamic_slice", {"sizes": (2, 20)}, (draw(30, 50), torch.tensor(9), torch.tensor(99))),
    ("iota", {"shape": (3, 50), "axis": 1}, ()),
    ("dim", {"value": 7}, ()),
    ("trilu", {"upper": False}, (draw(2, 40, 50), torch.tensor(-3))),
    ("roll", {"shifts": (1, -20)}, (draw(4, 50),)),
    ("searchsorted", {"right": True}, (torch.sort(draw(500))[0], draw(30, 4))),
    ("nonzero", {"size": N}, ((draw(30, 50) > 0).float(),)),
    ("compress", {"axis": 1, "size": N}, (draw(4, 30), draw(30) > 0)),
    ("resize", {"sizes": (2, 3, 8, 9)}, (draw(2, 3, 4, 5),)),
    ("resize", {"sizes": (2, 3, 8, 9), "mode": "linear"}, (draw(2, 3, 4, 5),)),
    ("resize", {"sizes": (2, 3, 3, 2), "mode": "cubic", "antialias": True}, (draw(2, 3, 7, 8),)),
    ("grid_sample", {}, (draw(2, 3, 7, 8), draw(2, 5, 6, 2))),
    ("grid_sample", {"mode": "cubic", "padding": "reflection"}, (draw(2, 3, 7, 8), draw(2, 5, 6, 2))),
    ("roi_align", {"output_size": (3, 2), "sampling_ratio": 2}, (draw(2, 3, 8, 9), BOXES, torch.tensor([0, 1, 1]))),
    ("roi_align", {"output_size": (3, 2), "mode": "max"}, (draw(2, 3, 8, 9), BOXES, torch.tensor([0, 1, 1]))),
    ("max_unpool", {"sizes": (4, 6)}, torch.nn.functional.max_pool2d(draw(2, 3, 4, 6), 2, return_indices=True)),
    ("sort", {"axis": 1}, (draw(3, 70),)),
    ("sort", {"axis": 0, "descending": True}, (whole(9, 70, 3),)),
    ("argsort", {"axis": 1}, (draw(3, 70),)),
    ("topk", {"axis": 1, "k": 9}, (draw(3, 70),)),
    ("unique", {"size": N}, (whole(40, 90),)),
    ("unique", {"size": N, "axis": 0, "sorted": False}, (whole(2, 90, 3),)),
    ("nms", {"size": N, "max_output": 5, "iou_threshold": 0.5}, (unit(2, 40, 4), unit(2, 3, 40))),
    *((name, {"axis": axis}, (draw(30, 70),)) for name in ("cumsum", "cumprod", "cummax", "cummin") for axis in (0, 1)),
    ("cumsum", {"axis": 1, "exclusive": True, "reverse": True}, (draw(3, 70),)),
    ("quantize_linear", {"dtype": u8}, (40 * draw(3, 40), torch.tensor(0.5), torch.tensor(9, dtype=torch.uint8))),
    ("quantize_linear", {"axis": 0}, (40 * draw(3, 40), unit(3) + 0.1)),
    (
        "dequantize_linear",
        {"axis": 1, "block_size": 20},
        (whole(255, 3, 50).to(torch.uint8), unit(3, 3), whole(9, 3, 3).to(torch.uint8)),
    ),
    ("random_uniform", {"shape": (5, 70)}, STATE),
    ("random_normal", {"shape": (5, 70)}, STATE),
    ("random_int", {"low": -4, "high": 9, "shape": (200,)}, STATE),
    ("bernoulli", {}, (unit(4, 50), *STATE)),
    ("attention", {"causal": True}, (draw(2, 4, 50, 8), draw(2, 2, 70, 8), draw(2, 2, 70, 8))),
    ("attention", {"softcap": 5.0}, (draw(2, 50, 8), draw(2, 70, 8), draw(2, 70, 6), draw(50, 70) > 0)),
    ("rotary_embedding", {}, (draw(2, 3, 50, 16), draw(50, 8), draw(50, 8))),
    ("rotary_embedding", {"interleaved": True}, (draw(2, 3, 50, 16), draw(50, 6), draw(50, 6))),
]
STATIC = frozenset("reshape broadcast_to slice resize max_unpool dynamic_slice dim iota".split())
"""Ops whose attributes have to be symbols where their operands' sizes are."""
NESTED = frozenset({"if", "loop", "fused", "const"})
LAYOUTS = frozenset({"pack", "unpack"})  # test_sparse_contractions.py
"""Ops with tests of their own: they need graphs or data."""


def build(op: Op, types: tuple[Tensor, ...]) -> effcc.ir.Graph:
    b = Builder()
    return b.graph(*b.emit(op, tuple(b.input(f"x{k}", t) for k, t in enumerate(types))))


def check(op: Op, operands: tuple[torch.Tensor, ...], types: tuple[Tensor, ...]) -> None:
    graph = build(op, types)
    expected, actual = run(graph, *operands), effcc.compile(graph)(*operands)
    assert len(actual) == len(expected)
    for got, want in zip(actual, expected):
        tolerance = TOLERANCE.get(want.dtype, 0)
        torch.testing.assert_close(torch.as_tensor(got), want, rtol=tolerance, atol=tolerance, equal_nan=True)


def static_types(operands: tuple[torch.Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(Tensor(DType.of(t.dtype), tuple(t.shape)) for t in operands)


def label(case: tuple[str, dict[str, Any], Any]) -> str:
    return "-".join([case[0], *(str(v) for v in case[1].values() if isinstance(v, (str, bool)))])


@pytest.mark.parametrize("name,attributes,operands", CASES, ids=map(label, CASES))
def test_op(name, attributes, operands):
    check(op_class(name)(**attributes), operands, static_types(operands))


SYMBOLIC = [c for c in CASES if c[0] not in STATIC and c[2]]


@pytest.mark.parametrize("name,attributes,operands", SYMBOLIC, ids=map(label, SYMBOLIC))
def test_op_with_symbols(name, attributes, operands):
    """Sizes of 9 and more become symbols: the smaller ones here are channels, kernels and the like."""
    types = tuple(
        t.with_shape(tuple(Symbol(f"n{d}", 0, 999) if d > 8 else d for d in t.shape)) for t in static_types(operands)
    )
    check(op_class(name)(**attributes), operands, types)


def operand_for(cls: type[Elementwise], kind: str, shape: tuple[int, ...]) -> torch.Tensor:
    if kind == BOOL:
        return draw(*shape) > 0
    if kind == FLOAT:
        return unit(*shape) * 0.8 + (1.1 if cls.name == "acosh" else 0.1)
    return whole(9, *shape, low=1)


ELEMENTWISE = [
    (n, k)
    for n, c in load_ops().items()
    if issubclass(c, Elementwise) and n not in ("cast", "bitcast")
    for k in (FLOAT, "i", BOOL)
    if k in c.kinds
]


@pytest.mark.parametrize("name,kind", ELEMENTWISE)
def test_elementwise(name, kind):
    cls = op_class(name)
    shapes = [(3, 37), (3, 1), (37,)]
    operands = tuple(operand_for(cls, BOOL if o == "cond" else kind, shape) for o, shape in zip(cls.operands, shapes))
    check(cls(), operands, static_types(operands))


def test_every_op_is_here():
    tested = {c[0] for c in CASES} | {n for n, _ in ELEMENTWISE} | NESTED | LAYOUTS
    missing = {n for n, c in load_ops().items() if c.family != "sequence"} - tested
    assert not missing
