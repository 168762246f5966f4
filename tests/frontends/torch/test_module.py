"""Modules and exported programs as graphs: names of sizes, weights in place, state, what export keeps whole."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from effcc.errors import EffccError
from effcc.frontends.torch import accepts, load
from effcc.interp import run
from effcc.ir import Symbol


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


class Function(nn.Module):
    def __init__(self, function: Any) -> None:
        super().__init__()
        self.function = function

    def forward(self, *x: torch.Tensor) -> Any:
        return self.function(*x)


def test_what_is_accepted() -> None:
    module = nn.Linear(2, 2)
    assert accepts(module) and accepts(torch.export.export(module, (torch.ones(1, 2),)))
    assert not accepts("model.onnx") and not accepts(torch.ones(1))


def test_a_module_with_dynamic_sizes_and_shared_weights() -> None:
    module = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(2)).eval()
    graph = load(module, inputs=(torch.randn(2, 3, 8, 8),), shapes={"input": ("B", 3, Symbol("H", 4, 64), 8)})
    assert [str(v.type) for v in graph.inputs] == ["f32[B,3,H,8]"]
    pointers = {n.op.attrs["blob"].array.__array_interface__["data"][0] for n in graph.nodes if n.op.name == "const"}
    assert module[0].weight.data_ptr() in pointers
    for batch, height in ((1, 8), (3, 11)):
        x = torch.randn(batch, 3, height, 8)
        torch.testing.assert_close(run(graph, x)[0], module(x), rtol=1e-5, atol=1e-5)


def test_ranges_of_sizes() -> None:
    graph = load(nn.Linear(4, 2), torch.randn(3, 4), {"input": (Symbol("N", 2, 64), 4)})
    (symbol,) = graph.symbols
    assert (symbol.name, symbol.lo, symbol.hi) == ("N", 2, 64)
    graph = load(nn.Linear(4, 2), torch.randn(3, 4), {"input": ((2, 16), 4)})
    (symbol,) = graph.symbols
    assert (symbol.lo, symbol.hi) == (2, 16)


def test_arguments_by_name_and_several_results() -> None:
    class Two(nn.Module):
        def forward(self, x: torch.Tensor, *, y: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"sum": x + y, "product": x * y}

    x, y = torch.randn(3), torch.randn(3)
    graph = load(Two(), {"x": x, "y": y})
    assert [v.name for v in graph.inputs] == ["x", "y"]
    ours = run(graph, x, y)
    torch.testing.assert_close(ours[0], x + y)
    torch.testing.assert_close(ours[1], x * y)


def test_updated_buffers_are_further_inputs() -> None:
    class Counter(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("total", torch.zeros(3))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.total.add_(x)
            return self.total * 2

    graph = load(Counter(), torch.ones(3))
    assert [v.name for v in graph.inputs] == ["x", "total"] and graph.aliases == ((1, 1),)
    y, total = run(graph, torch.ones(3), torch.full((3,), 4.0))
    assert y.tolist() == [10.0] * 3 and total.tolist() == [5.0] * 3


WHOLE = {
    "linear": (F.linear, torch.randn(2, 3, 4), torch.randn(5, 4), torch.randn(5)),
    "matmul": (lambda x, y: (x @ y, x[0] @ y[0], x[0, 0] @ y[0]), torch.randn(2, 3, 4), torch.randn(2, 4, 5)),
    "attention": (F.scaled_dot_product_attention, *(torch.randn(2, 4, 5, 8) for _ in range(3))),
    "attention without batch": (F.scaled_dot_product_attention, *(torch.randn(4, 5, 8) for _ in range(3))),
    "layer_norm": (lambda x: (F.layer_norm(x, (4,)), F.rms_norm(x, (4,)), F.group_norm(x, 3)), torch.randn(2, 3, 4)),
    "views": (
        lambda x: (x.movedim(0, 1), x.narrow(1, 1, 2), x.argsort(1), x.square(), *x.chunk(2, 2)),
        torch.randn(2, 3, 4),
    ),
    "pads": (
        lambda x: [F.pad(x, (1, 2), mode=m) for m in ("constant", "reflect", "replicate", "circular")],
        torch.randn(2, 3, 4),
    ),
    "activations": (lambda x: (F.selu(x), F.silu(x), x.isfinite(), torch.special.expit(x), F.relu6(x)), torch.randn(9)),
    "pool": (lambda x: (F.max_pool2d(x, 2), F.adaptive_avg_pool2d(x, 1), F.avg_pool2d(x, 2)), torch.randn(1, 2, 6, 6)),
    "recurrent": (nn.LSTM(3, 4, batch_first=True).eval(), torch.randn(2, 5, 3)),
}


@pytest.mark.parametrize("name", WHOLE)
def test_what_export_keeps_whole(name: str) -> None:
    function, *tensors = WHOLE[name]
    module = Function(function)
    with torch.no_grad():
        wanted = torch.utils._pytree.tree_leaves(module(*tensors))
    for ours, theirs in zip(run(load(module, tuple(tensors)), *tensors), wanted, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_a_trained_module_through_the_compiler() -> None:
    import effcc

    module = nn.Sequential(nn.Linear(8, 32), nn.GELU(), nn.LayerNorm(32), nn.Linear(32, 3)).eval()
    program = effcc.compile(module, inputs=torch.randn(2, 8), shapes={"input": ("B", 8)})
    for batch in (1, 5):
        x = torch.randn(batch, 8)
        torch.testing.assert_close(program(x)[0], module(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "a module needs example inputs"),
        ({"inputs": torch.ones(2, 4), "shapes": {"y": ("B", 4)}}, "shapes names no argument 'y'"),
        ({"inputs": torch.ones(2, 4), "shapes": {"input": ("B",)}}, "gives input 1 axes, the example has 2"),
        ({"inputs": torch.ones(2, 4), "shapes": {"input": ("B", 5)}}, "says 5 for axis 1 of input, the example has 4"),
        ({"inputs": torch.ones(2, 3)}, "torch.export cannot trace Linear"),
    ],
)
def test_mistakes_are_named(arguments: Any, message: str) -> None:
    with pytest.raises(EffccError, match=message):
        load(nn.Linear(4, 2), **arguments)


def test_exported_programs_keep_their_sizes() -> None:
    program = torch.export.export(nn.Linear(4, 2), (torch.randn(3, 4),))
    with pytest.raises(EffccError, match="has its dynamic sizes already"):
        load(program, shapes={"input": ("B", 4)})
