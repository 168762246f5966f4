"""References are differentiable: sensitivity analysis takes gradients through them by autograd."""

from __future__ import annotations

import pytest
import torch

from effcc.interp import run
from effcc.ir import Builder, Op, Tensor, f64, op_class
from effcc.ir.types import DType


def draw(*shape: int) -> torch.Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(sum(shape)))


INDEX = torch.tensor([[0, -1], [1, 1]])
CASES = [
    ("matmul", {}, (draw(2, 3), draw(3, 4))),
    ("conv", {"strides": (1,), "pads": (1, 0), "dilations": (2,)}, (draw(1, 2, 6), draw(3, 2, 2), draw(3))),
    ("avg_pool", {"kernel": (2,), "strides": (1,), "pads": (1, 0), "dilations": (1,)}, (draw(1, 2, 5),)),
    ("max_pool", {"kernel": (2,), "strides": (1,), "pads": (1, 0), "dilations": (1,)}, (draw(1, 2, 5),)),
    ("gelu", {}, (draw(5),)),
    ("silu", {}, (draw(5),)),
    ("clip", {}, (draw(5), torch.tensor(-1.0, dtype=torch.float64), torch.tensor(1.0, dtype=torch.float64))),
    ("softmax", {"axis": 1}, (draw(2, 3),)),
    ("log_softmax", {"axis": 0}, (draw(2, 3),)),
    ("layer_norm", {"axis": 1}, (draw(2, 5), draw(5), draw(5))),
    ("rms_norm", {"axis": 1}, (draw(2, 5), draw(5))),
    ("group_norm", {"groups": 2}, (draw(2, 4, 3), draw(4), draw(4))),
    ("attention", {"causal": True, "softcap": 3.0}, (draw(2, 3, 4), draw(1, 5, 4), draw(1, 5, 2))),
    ("rotary_embedding", {}, (draw(2, 3, 4), draw(3, 2), draw(3, 2))),
    ("resize", {"sizes": (2, 5), "mode": "linear"}, (draw(2, 3),)),
    ("resize", {"sizes": (2, 5), "mode": "cubic", "antialias": True}, (draw(2, 7),)),
    ("grid_sample", {}, (draw(1, 1, 3, 3), 0.3 * draw(1, 2, 2, 2))),
    ("gather", {"axis": 0}, (draw(2, 3), INDEX)),
    ("gather_elements", {"axis": 0}, (draw(2, 2), INDEX)),
    ("scatter_elements", {"axis": 0, "reduction": "add"}, (draw(3, 2), INDEX, draw(2, 2))),
    ("scatter_elements", {"axis": 0}, (draw(3, 2), INDEX, draw(2, 2))),
    ("scatter_nd", {"reduction": "add"}, (draw(2, 3), INDEX, draw(2))),
    ("cumsum", {"axis": 0, "reverse": True}, (draw(4),)),
    ("logsumexp", {"axes": (0,)}, (draw(4),)),
    ("var", {"axes": (0,)}, (draw(4),)),
    ("pad", {"pads": (1, 2), "mode": "reflect"}, (draw(4),)),
    ("concat", {"axis": 0}, (draw(2), draw(3))),
]


@pytest.mark.parametrize("name,attributes,operands", CASES, ids=[c[0] for c in CASES])
def test_gradients_are_those_of_finite_differences(name, attributes, operands):
    op: Op = op_class(name)(**attributes)
    b = Builder()
    inputs = tuple(b.input(f"x{k}", Tensor(DType.of(t.dtype), tuple(t.shape))) for k, t in enumerate(operands))
    graph = b.graph(*b.emit(op, inputs))
    operands = tuple(t.clone().requires_grad_(t.is_floating_point()) for t in operands)
    assert graph.results[0].dtype == f64
    assert torch.autograd.gradcheck(lambda *xs: run(graph, *xs), operands, atol=1e-5)


def test_quantization_stops_gradients():
    """What passes that train through rounding have to replace by a straight-through estimate."""
    op = op_class("quantize_linear")()
    (out,) = op.run(torch.ones(2, requires_grad=True), torch.tensor(0.5))
    assert not out.requires_grad
