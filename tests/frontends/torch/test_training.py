"""Training through torch.compile: forward and backward graphs compiled, loss and gradients equal eager's."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from effcc.frontends.torch import backend

INTERPRETER = {"target": "interpreter"}


def gradients(function: Any, inputs: list[torch.Tensor]) -> list[torch.Tensor]:
    """The value of function(*inputs) and its gradients, weighted so that no two outputs cancel."""
    leaves = [x.detach().clone().requires_grad_(x.is_floating_point()) for x in inputs]
    y = function(*leaves)
    weights = torch.linspace(0.5, 1.5, y.numel()).reshape(y.shape)
    (y * weights).sum().backward()
    return [y.detach(), *(x.grad for x in leaves if x.grad is not None)]


def r(*shape: int) -> torch.Tensor:
    return torch.randn(*shape)


CASES = {
    "linear": (F.linear, r(2, 3, 4), r(5, 4), r(5)),
    "layer_norm": (lambda x, w, c: F.layer_norm(x, (4,), w, c), r(2, 3, 4), r(4), r(4)),
    "rms_norm": (lambda x, w: F.rms_norm(x, (4,), w), r(2, 3, 4), r(4)),
    "group_norm": (lambda x, w, c: F.group_norm(x, 2, w, c), r(2, 4, 3, 3), r(4), r(4)),
    "batch_norm": (lambda x, w, c: F.batch_norm(x, None, None, w, c, True), r(3, 4, 5, 5), r(4), r(4)),
    "softmax": (lambda x: x.softmax(-1), r(3, 4)),
    "cross_entropy": (lambda x: F.cross_entropy(x, torch.tensor([0, 3, 1])), r(3, 4)),
    "gelu": (lambda x: F.gelu(x) + F.gelu(x, approximate="tanh"), r(3, 4)),
    "activations": (
        lambda x: F.silu(x) + F.softplus(x) + F.elu(x) + F.leaky_relu(x) + F.hardswish(x) + F.mish(x),
        r(20),
    ),
    "more activations": (
        lambda x: F.hardsigmoid(x) + F.relu6(x) + F.glu(x.repeat(2)) + F.logsigmoid(x) + x.tanh(),
        r(20),
    ),
    "embedding": (lambda w: F.embedding(torch.tensor([[1, 2, 2], [0, 5, 1]]), w, padding_idx=0), r(6, 3)),
    "embedding by frequency": (lambda w: F.embedding(torch.tensor([1, 2, 2]), w, scale_grad_by_freq=True), r(6, 3)),
    "attention": (lambda q, k, v: F.scaled_dot_product_attention(q, k, v), r(2, 4, 5, 8), r(2, 4, 7, 8), r(2, 4, 7, 8)),
    "causal attention": (
        lambda q, k: F.scaled_dot_product_attention(q, k, k, is_causal=True),
        r(2, 4, 5, 8),
        r(2, 4, 5, 8),
    ),
    "masked attention": (
        lambda q, k: F.scaled_dot_product_attention(q, k, k, torch.tensor([[True, False, True, True, False]])),
        r(2, 4, 5, 8),
        r(2, 4, 5, 8),
    ),
    "conv1d": (lambda x, w, c: F.conv1d(x, w, c, 2, 1, 2), r(2, 3, 12), r(4, 3, 3), r(4)),
    "conv2d": (lambda x, w, c: F.conv2d(x, w, c, 2, 1), r(2, 3, 8, 7), r(4, 3, 3, 3), r(4)),
    "conv2d groups": (lambda x, w, c: F.conv2d(x, w, c, 1, 1, groups=2), r(3, 4, 6, 6), r(6, 2, 3, 3), r(6)),
    "conv2d depthwise": (lambda x, w: F.conv2d(x, w, None, 2, 2, groups=4), r(2, 4, 9, 9), r(4, 1, 5, 5)),
    "conv2d uneven": (lambda x, w: F.conv2d(x, w, None, 3, 0), r(2, 3, 10, 9), r(4, 3, 2, 2)),
    "conv3d": (lambda x, w: F.conv3d(x, w, padding=1), r(1, 2, 4, 5, 6), r(3, 2, 3, 3, 3)),
    "conv_transpose": (lambda x, w, c: F.conv_transpose2d(x, w, c, 2, 1, 1), r(2, 3, 5, 5), r(3, 4, 3, 3), r(4)),
    "conv_transpose groups": (lambda x, w: F.conv_transpose1d(x, w, stride=2, groups=2), r(2, 4, 5), r(4, 3, 3)),
    "max_pool": (lambda x: F.max_pool2d(x, 3, 2, 1), r(2, 3, 8, 8)),
    "avg_pool": (lambda x: F.avg_pool2d(x, 3, 2, 1) + F.avg_pool2d(x, 3, 2, 1, count_include_pad=False), r(2, 3, 8, 8)),
    "avg_pool ceil": (lambda x: F.avg_pool2d(x, 3, 2, ceil_mode=True), r(2, 3, 8, 8)),
    "avg_pool divisor": (lambda x: F.avg_pool2d(x, 2, divisor_override=3), r(2, 3, 8, 8)),
    "adaptive_avg_pool": (
        lambda x: F.adaptive_avg_pool2d(x, 3).sum() + F.adaptive_avg_pool2d(x, 1).sum(),
        r(2, 3, 8, 7),
    ),
    "adaptive_max_pool": (lambda x: F.adaptive_max_pool2d(x, 3), r(2, 3, 8, 7)),
    "upsample": (
        lambda x: F.interpolate(x, (7, 9), mode="bilinear") + F.interpolate(x, (7, 9), mode="bicubic"),
        r(1, 2, 5, 6),
    ),
    "upsample nearest": (
        lambda x: F.interpolate(x, scale_factor=2) + F.interpolate(x, scale_factor=2, mode="nearest-exact"),
        r(1, 2, 3, 4),
    ),
    "indexing": (
        lambda x: x[[0, 2, 2]] + x[:, [1, 1, 0, 2]].sum() + x.gather(1, torch.zeros(3, 4, dtype=torch.long)),
        r(3, 4),
    ),
    "scatter": (
        lambda x, y: x.index_put((torch.tensor([0, 2]),), y) + x.scatter_add(0, torch.zeros(2, 4, dtype=torch.long), y),
        r(3, 4),
        r(2, 4),
    ),
    "slices": (lambda x: x[1:, ::2].sum() + x[-1] * x[:, 1:].mean() + x.flip(1)[0], r(3, 4)),
    "reductions": (
        lambda x: x.amax(1) + x.max(1)[0] + x.var(1) + x.std(1) + x.logsumexp(1) + x.norm(dim=1) + x.prod(1),
        r(3, 4),
    ),
    "order": (lambda x: x.sort(1)[0] + x.topk(2)[0].sum() + x.cumsum(1) + x.cumprod(1), r(3, 4)),
    "pads": (
        lambda x: F.pad(x, (1, 2, 1, 1), mode="reflect").sum(1) + F.pad(x, (1, 2), value=1).sum(1).sum(),
        r(2, 3, 5, 6),
    ),
    "recurrent": (lambda x, w: _gru(x, w), r(2, 5, 3), r(12, 7)),
}


def _gru(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    h = x.new_zeros(x.shape[0], 4)
    for k in range(x.shape[1]):
        z, n, c = torch.cat([x[:, k], h], 1) @ w[:4].T, torch.cat([x[:, k], h], 1) @ w[4:8].T, x[:, k] @ w[8:, :3].T
        h = z.sigmoid() * h + (1 - z.sigmoid()) * (n.sigmoid() * c).tanh()
    return h


@pytest.mark.parametrize("name", CASES)
def test_gradients(name: str) -> None:
    function, *inputs = CASES[name]
    torch._dynamo.reset()
    compiled = torch.compile(function, backend=backend, fullgraph=True, options=INTERPRETER)
    for ours, theirs in zip(gradients(compiled, inputs), gradients(function, inputs), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=2e-4, atol=2e-5)


class Convolutional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(3, 2, 1)
        )
        self.block = nn.Sequential(
            nn.Conv2d(8, 8, 3, 1, 1, groups=8), nn.BatchNorm2d(8), nn.Hardswish(), nn.Conv2d(8, 16, 1)
        )
        self.head = nn.Linear(16, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.block(self.stem(x)).mean((2, 3)))


class Encoder(nn.Module):
    """BERT-like: embeddings, attention, feed-forward, post-norm."""

    def __init__(self, width: int = 16, heads: int = 2) -> None:
        super().__init__()
        self.heads = heads
        self.words, self.places = nn.Embedding(20, width), nn.Embedding(8, width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.first, self.second, self.head = nn.LayerNorm(width), nn.LayerNorm(width), nn.Linear(width, 5)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.words(ids) + self.places(torch.arange(ids.shape[1]))
        q, k, v = (t.unflatten(-1, (self.heads, -1)).transpose(1, 2) for t in self.qkv(x).chunk(3, -1))
        x = self.first(x + self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)))
        x = self.second(x + self.down(F.gelu(self.up(x))))
        return self.head(x.mean(1))


def step(module: Any, x: torch.Tensor, labels: torch.Tensor, optimizer: Any) -> float:
    optimizer.zero_grad()
    loss = F.cross_entropy(module(x), labels)
    loss.backward()
    optimizer.step()
    return loss.item()


@pytest.mark.parametrize("target", ["interpreter", "cpu"])
@pytest.mark.parametrize("make", [Convolutional, Encoder])
def test_training_steps_equal_eager(make: Any, target: str) -> None:
    torch.manual_seed(0)
    torch._dynamo.reset()
    eager = make().train()
    module = copy.deepcopy(eager)
    compiled = torch.compile(module, backend=backend, fullgraph=True, options={"target": target})
    x = torch.randn(4, 3, 16, 16) if make is Convolutional else torch.randint(0, 20, (4, 8))
    labels = torch.tensor([0, 1, 2, 3])
    ours, theirs = (torch.optim.SGD(m.parameters(), 0.1, momentum=0.9) for m in (module, eager))
    for _ in range(3):
        assert step(compiled, x, labels, ours) == pytest.approx(step(eager, x, labels, theirs), rel=1e-4)
    for (name, a), b in zip(module.named_parameters(), eager.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=2e-3, atol=2e-5, msg=lambda m, n=name: f"gradient of {n}: {m}")
    for a, b in zip(module.buffers(), eager.buffers(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_dropout_keeps_the_mask_for_the_backward_pass() -> None:
    compiled = torch.compile(lambda x: F.dropout(x, 0.4), backend=backend, fullgraph=True, options=INTERPRETER)
    x = torch.ones(5000, requires_grad=True)
    y = compiled(x)
    y.sum().backward()
    assert x.grad is not None
    torch.testing.assert_close(x.grad, y.detach())
    assert 0.35 < (y == 0).float().mean() < 0.45
    assert y.unique().tolist() == pytest.approx([0.0, 1 / 0.6])
