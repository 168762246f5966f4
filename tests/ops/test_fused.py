"""Fused regions."""

from __future__ import annotations

import pytest
import torch

from effcc.errors import TypeRuleError
from effcc.interp import run
from effcc.ir import Builder, Symbol, Tensor, f32


def test_fused_means_its_body():
    t = Tensor(f32, (Symbol("n"), 3))
    inner = Builder("body")
    x, y = inner.input("x", t), inner.input("y", t)
    total = inner.add(x, y)
    body = inner.graph(inner.relu(total), inner.neg(total))
    b = Builder()
    p, q = b.input("p", t), b.input("q", t)
    graph = b.graph(*b.fused(p, q, body=body))
    assert [v.type for v in graph.results] == [t, t]
    positive, negative = run(graph, torch.ones(2, 3), -2 * torch.ones(2, 3))
    assert positive.sum() == 0 and negative.sum() == 6
    assert graph.nodes[0].op.flops(t, t) == Symbol("n") * 9
    with pytest.raises(TypeRuleError, match="the body takes"):
        b.fused(p, body=body)
