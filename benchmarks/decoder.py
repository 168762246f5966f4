"""GPT-2 small one token at a time: random weights as it is initialised with, a static key-value cache."""

from __future__ import annotations

import torch
import transformers
from torch import Tensor, nn

LENGTH = 256
"""Tokens that the cache has room for."""


class Decoder(nn.Module):
    """One step: (token i64[1, 1], position i64[1]) -> logits f32[1, vocabulary].

    The caches, f32[1, heads, LENGTH, head size], are buffers, of which a step writes one position.
    """

    def __init__(self, config: transformers.GPT2Config) -> None:
        super().__init__()
        self.heads, self.size = config.n_head, config.n_embd // config.n_head
        model = transformers.GPT2LMHeadModel(config)
        self.tokens, self.positions, self.blocks = model.transformer.wte, model.transformer.wpe, model.transformer.h
        self.norm, self.head = model.transformer.ln_f, model.lm_head
        for k in range(config.n_layer):
            for name in ("keys", "values"):
                self.register_buffer(f"{name}{k}", torch.zeros(1, self.heads, LENGTH, self.size))

    def forward(self, token: Tensor, position: Tensor) -> Tensor:
        x = self.tokens(token) + self.positions(position)[None]
        seen = (torch.arange(LENGTH) <= position)[None, None, None]
        for k, block in enumerate(self.blocks):
            parts = block.attn.c_attn(block.ln_1(x)).view(1, 1, 3, self.heads, self.size).permute(2, 0, 3, 1, 4)
            keys, values = self.get_buffer(f"keys{k}"), self.get_buffer(f"values{k}")
            keys.index_copy_(2, position, parts[1])
            values.index_copy_(2, position, parts[2])
            mixed = nn.functional.scaled_dot_product_attention(parts[0], keys, values, seen)
            x = x + block.attn.c_proj(mixed.transpose(1, 2).reshape(1, 1, -1))
            x = x + block.mlp(block.ln_2(x))
        return self.head(self.norm(x))[:, -1]


def gpt2(layers: int = 12, vocabulary: int = 50257) -> Decoder:
    """The same weights in each process. Two blocks and a small vocabulary make a quick trial."""
    torch.manual_seed(0)
    config = transformers.GPT2Config(n_layer=layers, vocab_size=vocabulary, bos_token_id=0, eos_token_id=0)
    return Decoder(config).eval().requires_grad_(False)
