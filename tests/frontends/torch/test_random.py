"""Random ops: distributions, and seeds that torch.manual_seed governs."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F

from effcc.frontends.torch import backend

N = 20000


def compiled(function: Any) -> Any:
    torch._dynamo.reset()
    return torch.compile(function, backend=backend, fullgraph=True, options={"target": "interpreter"})


MOMENTS = {
    "rand": (lambda x: torch.rand(N) + 0 * x, 1 / 2, 1 / 12),
    "rand_like": (torch.rand_like, 1 / 2, 1 / 12),
    "randn": (lambda x: torch.randn(N) + 0 * x, 0, 1),
    "randn_like": (torch.randn_like, 0, 1),
    "uniform": (lambda x: x.clone().uniform_(-1, 3), 1, 16 / 12),
    "normal": (lambda x: x.clone().normal_(2, 3), 2, 9),
    "exponential": (lambda x: x.clone().exponential_(2.0), 1 / 2, 1 / 4),
    "bernoulli": (lambda x: torch.bernoulli(x * 0 + 0.3), 0.3, 0.21),
    "bernoulli p": (lambda x: x.clone().bernoulli_(0.3), 0.3, 0.21),
    "dropout": (lambda x: F.dropout(x * 0 + 1, 0.2), 1, 0.25),
    "randint": (lambda x: torch.randint(2, 7, (N,)) + 0 * x, 4, 2),
    "randint_like": (lambda x: torch.randint_like(x, 5), 2, 2),
    "geometric": (lambda x: x.clone().geometric_(0.25), 4, 12),
    "normal of tensors": (lambda x: torch.normal(x + 2, x + 3), 2, 9),
    "rrelu": (lambda x: F.rrelu(x - 1, 0.1, 0.5, training=True), -0.3, 0.4**2 / 12),
    "log_normal": (lambda x: x.clone().log_normal_(0, 0.5).log(), 0, 0.25),
    "cauchy": (lambda x: x.clone().cauchy_().atan(), 0, torch.pi**2 / 12),
}


@pytest.mark.parametrize("name", MOMENTS)
def test_moments(name: str) -> None:
    function, mean, variance = MOMENTS[name]
    torch.manual_seed(0)
    y = compiled(function)(torch.zeros(N))
    assert y.shape == (N,)
    error = (variance / N) ** 0.5
    assert abs(y.mean().item() - mean) < 5 * error
    assert y.var().item() == pytest.approx(variance, rel=0.15)


def test_seeds_follow_torch_and_draws_differ() -> None:
    fast = compiled(lambda x: (torch.rand_like(x), torch.rand_like(x)))
    x = torch.zeros(50)
    torch.manual_seed(3)
    first, second = fast(x), fast(x)
    torch.manual_seed(3)
    again = fast(x)
    assert torch.equal(first[0], again[0]) and torch.equal(first[1], again[1])
    different = [first[0], first[1], second[0], second[1]]
    assert all(not torch.equal(a, b) for k, a in enumerate(different) for b in different[:k])


def test_permutations_and_samples() -> None:
    def function(p: torch.Tensor) -> Any:
        return torch.randperm(20), p.multinomial(3), p.multinomial(4000, replacement=True)

    torch.manual_seed(0)
    order, few, many = compiled(function)(torch.tensor([[0.0, 1.0, 2.0, 5.0], [3.0, 1.0, 0.0, 1.0]]))
    assert order.sort()[0].tolist() == list(range(20)) and order.tolist() != list(range(20))
    assert few[0].sort()[0].tolist() == [1, 2, 3] and few[1].sort()[0].tolist() == [0, 1, 3]
    shares = F.one_hot(many, 4).float().mean(1)
    torch.testing.assert_close(
        shares, torch.tensor([[0.0, 0.125, 0.25, 0.625], [0.6, 0.2, 0.0, 0.2]]), atol=0.03, rtol=0
    )
