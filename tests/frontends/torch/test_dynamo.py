"""Where torch.compile sends a graph."""

from __future__ import annotations

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from effcc.frontends.torch.dynamo import target_of


def test_cuda_tensors_go_to_target_cuda():
    with FakeTensorMode():
        on_gpu, on_cpu = torch.empty(2, device="cuda"), torch.empty(2)
    assert target_of((on_cpu, 3, on_gpu)) == "cuda{arch=native}"
    assert target_of((on_cpu, 3)) == "cpu"


# -- passes by category --------------------------------------------------------------------------------------------
class Block(torch.nn.Module):
    """Pre-norm attention and MLP on f32[batch, tokens, 16]."""

    def __init__(self):
        super().__init__()
        self.norm1, self.norm2 = torch.nn.LayerNorm(16), torch.nn.LayerNorm(16)
        self.qkv, self.out = torch.nn.Linear(16, 48), torch.nn.Linear(16, 16)
        self.mlp = torch.nn.Sequential(torch.nn.Linear(16, 32), torch.nn.GELU(), torch.nn.Linear(32, 16))

    def forward(self, x):
        split = (t.unflatten(-1, (2, 8)).transpose(1, 2) for t in self.qkv(self.norm1(x)).chunk(3, -1))
        x = x + self.out(torch.nn.functional.scaled_dot_product_attention(*split).transpose(1, 2).flatten(2))
        return x + self.mlp(self.norm2(x))


@pytest.fixture
def tokens():
    torch.manual_seed(0)
    torch._dynamo.reset()
    return torch.nn.Sequential(Block(), Block()).eval(), torch.randn(2, 9, 16)


def test_tokens_are_reduced_in_inference(tokens):
    model, x = tokens
    with torch.no_grad():
        plain = model(x)
        whole = torch.compile(model, backend="effcc", options={"reduce_tokens": "tome:r=0"})(x)
        torch._dynamo.reset()
        fewer = torch.compile(model, backend="effcc", options={"reduce_tokens": "tome:r=2"})(x)
    torch.testing.assert_close(whole, plain, rtol=0, atol=1e-5)
    assert fewer.shape == plain.shape and not torch.allclose(fewer, plain, atol=1e-5)
    assert torch.nn.functional.cosine_similarity(fewer.flatten(1), plain.flatten(1)).min() > 0.8


def test_they_are_not_in_training(tokens):
    model, x = tokens
    compiled = torch.compile(model, backend="effcc", options={"reduce_tokens": "tome:r=2"})
    with pytest.raises(Exception, match="gradients would not follow it"):
        compiled(x)
