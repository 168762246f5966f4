"""Control flow that torch captures: branches, loops, scans, wrapped subgraphs."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch._higher_order_ops import scan, while_loop

from effcc.frontends.torch import backend, load
from effcc.interp import run


def compiled(function: Any) -> Any:
    torch._dynamo.reset()
    return torch.compile(function, backend=backend, fullgraph=True, options={"target": "interpreter"})


@pytest.mark.parametrize("sign", [1, -1])
def test_cond(sign: int) -> None:
    def function(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        return torch.cond(x.sum() > 0, lambda x: (x @ w).relu(), lambda x: (x * 2) @ w, (x,))

    x, w = sign * torch.rand(3, 4), torch.randn(4, 4)
    with torch.no_grad():
        torch.testing.assert_close(compiled(function)(x, w), function(x, w))


def test_while_loop_with_captures() -> None:
    w = torch.randn(4)

    def function(n: torch.Tensor, x: torch.Tensor) -> Any:
        start = torch.zeros((), dtype=torch.int64)
        return while_loop(lambda i, x: i < n, lambda i, x: (i + 1, x * 1.5 + w.sum()), (start, x))

    fast, x = compiled(function), torch.randn(3, 4)
    for n in (0, 1, 5):
        with torch.no_grad():
            for ours, theirs in zip(fast(torch.tensor(n), x), function(torch.tensor(n), x), strict=True):
                torch.testing.assert_close(ours, theirs)


def test_scan() -> None:
    def function(start: torch.Tensor, xs: torch.Tensor, w: torch.Tensor) -> Any:
        return scan(lambda c, x: (torch.tanh(c @ w + x), c.sin() + x), start, xs)

    arguments = torch.zeros(4), torch.randn(5, 4), torch.randn(4, 4)
    with torch.no_grad():
        for ours, theirs in zip(compiled(function)(*arguments), function(*arguments), strict=True):
            torch.testing.assert_close(ours, theirs)


def test_wrapped_subgraphs_are_inlined() -> None:
    class Module(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            with torch.no_grad():
                y = x * 2
            with torch.autocast("cpu", enabled=False):
                return y.relu() + 1

    with torch.enable_grad():
        program = torch.export.export(Module(), (torch.randn(3),))
    x = torch.randn(3)
    (ours,) = run(load(program), x)
    torch.testing.assert_close(ours, Module()(x))
