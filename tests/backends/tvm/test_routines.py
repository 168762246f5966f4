"""Sorting and selection at the edges: empty rows, ties, NaN, sizes found at run time, against the interpreter."""

from __future__ import annotations

import pytest
import torch

import effcc
from effcc.interp import run
from effcc.ir import Builder, Symbol, Tensor, f32
from effcc.ir.types import DType

N, S = Symbol("n", 0, 500), Symbol("s", 0, 4000)
NAN, INF = float("nan"), float("inf")
ROWS = [
    torch.zeros(0),
    torch.tensor([2.0]),
    torch.tensor([3.0, NAN, -INF, 3.0, -0.0, 0.0, NAN, INF, 3.0]),
    torch.arange(100).remainder(7).float(),
    torch.arange(300, 0, -1).float(),
]
KINDS = ["f32", "f16", "i8", "u8", "i64"]


def agree(make, *inputs: torch.Tensor) -> None:
    b = Builder("routine")
    values = [
        b.input(f"x{k}", Tensor(DType.of(t.dtype), tuple(Symbol(f"n{d}{k}", 0, 999) for d in range(t.dim()))))
        for k, t in enumerate(inputs)
    ]
    out = make(b, *values)
    graph = b.graph(*(out if isinstance(out, tuple) else (out,)))
    for got, want in zip(effcc.compile(graph)(*inputs), run(graph, *inputs), strict=True):
        torch.testing.assert_close(torch.as_tensor(got), want, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("descending", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_sort_keeps_ties_in_order(kind, descending):
    for row in ROWS:
        x = row.nan_to_num(1.0, 9.0, 0.0) if kind[0] != "f" else row
        agree(lambda b, x: b.sort(x, axis=0, descending=descending), x.to(DType.parse(kind).torch))


@pytest.mark.parametrize("largest", [False, True])
def test_topk_takes_the_first_of_ties(largest):
    for row in ROWS[2:]:
        for k in (0, 1, 5, 9):
            agree(lambda b, x, k=k: b.topk(x, k=k, axis=0, largest=largest), row)


def test_sorting_along_an_outer_axis():
    x = torch.stack([ROWS[3], ROWS[3].flip(0), -ROWS[3]], -1)
    agree(lambda b, x: b.sort(x, axis=0), x)


@pytest.mark.parametrize("sorted_", [False, True])
def test_unique(sorted_):
    for row in ROWS:
        agree(lambda b, x: b.unique(x, size=S, sorted=sorted_), row)
    agree(lambda b, x: b.unique(x, size=S, sorted=sorted_, axis=1), torch.tensor([[1, 0, 1, 0], [2, 3, 2, 1]]))


def test_positions_of_what_is_not_zero():
    for row in ROWS:
        agree(lambda b, x: b.nonzero(x, size=S), row)
    agree(lambda b, x: b.nonzero(x, size=S), torch.eye(5)[:, :3])
    agree(lambda b, x: b.nonzero(x, size=S), torch.zeros(3, 0))


def test_compress_with_a_shorter_mask():
    x = torch.arange(12.0).reshape(3, 4)
    for keep in ([True, False, True], [False, False], []):
        agree(lambda b, x, keep: b.compress(x, keep, axis=0, size=S), x, torch.tensor(keep, dtype=torch.bool))


@pytest.mark.parametrize("attributes", [{}, {"score_threshold": 0.5}, {"center_point_box": True}, {"max_output": 0}])
def test_boxes_that_overlap_are_suppressed(attributes):
    corners = [[0, 0, 1, 1], [0, 0.1, 1, 1.1], [0, 0.1, 1, 0.9], [0, 10, 1, 11], [1, 1, 0, 0], [2, 2, 2, 2]]
    boxes = torch.tensor([corners])
    scores = torch.tensor([[[0.9, 0.75, 0.6, 0.95, 0.5, 0.3], [0.5, 0.5, 0.5, 0.5, 0.5, 0.5]]])
    b = Builder("nms")
    p, q = (b.input(name, Tensor(f32, shape)) for name, shape in (("boxes", (1, N, 4)), ("scores", (1, 2, N))))
    graph = b.graph(b.nms(p, q, **{"size": S, "max_output": 3, "iou_threshold": 0.5, **attributes}))
    for count in (6, 1, 0):
        inputs = boxes[:, :count].contiguous(), scores[..., :count].contiguous()
        (got,), (want,) = effcc.compile(graph)(*inputs), run(graph, *inputs)
        assert torch.equal(torch.as_tensor(got), want)
