"""Builds the zoo's architectures in torch, and exports them to ONNX.

Latency does not depend on what a model has learned, with one exception: activations that fade to zero or blow up become
subnormals or NaNs, which do change it. So convolutions get He-scaled weights (He et al., 2015), and batch norms the
statistics of a forward pass.
"""

from __future__ import annotations

import logging
import warnings
from pathlib import Path

import torch
import transformers
from torch import Tensor, nn
from zoo import Model


class FirstOutput(nn.Module):
    """A transformers model as one tensor -> one tensor."""

    def __init__(self, model: nn.Module, output: str) -> None:
        super().__init__()
        self.model, self.output = model, output

    def forward(self, x: Tensor) -> Tensor:
        return getattr(self.model(x), self.output)


def resnet50() -> nn.Module:
    return FirstOutput(transformers.ResNetForImageClassification(transformers.ResNetConfig(num_labels=1000)), "logits")


def mobilenetv2() -> nn.Module:
    config = transformers.MobileNetV2Config(num_labels=1000)
    return FirstOutput(transformers.MobileNetV2ForImageClassification(config), "logits")


def vit_s16() -> nn.Module:
    config = transformers.ViTConfig(hidden_size=384, num_attention_heads=6, intermediate_size=1536, num_labels=1000)
    return FirstOutput(transformers.ViTForImageClassification(config), "logits")


def bert_base() -> nn.Module:
    return FirstOutput(transformers.BertModel(transformers.BertConfig()), "last_hidden_state")


def gpt2() -> nn.Module:
    return FirstOutput(transformers.GPT2LMHeadModel(transformers.GPT2Config(use_cache=False)), "logits")


def vit_b16() -> nn.Module:
    return FirstOutput(transformers.ViTForImageClassification(transformers.ViTConfig(num_labels=1000)), "logits")


def poolformer_s12() -> nn.Module:
    config = transformers.PoolFormerConfig(num_labels=1000)
    return FirstOutput(transformers.PoolFormerForImageClassification(config), "logits")


class Step(nn.Module):
    """GPT-2 by one token: (tokens [1, 1], keys and values so far [layers, 2, 1, heads, length, size]) -> logits, and
    this token's keys and values, which the caller appends."""

    def __init__(self) -> None:
        super().__init__()
        self.heads, self.model = 12, transformers.GPT2LMHeadModel(transformers.GPT2Config())

    def forward(self, tokens: Tensor, past: Tensor) -> tuple[Tensor, Tensor]:
        body, made = self.model.transformer, []
        x = body.wte(tokens) + body.wpe.weight[past.shape[4]]
        for block, (keys, values) in zip(body.h, past, strict=True):
            q, k, v = block.attn.c_attn(block.ln_1(x)).view(1, 1, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
            made += [k, v]
            mixed = nn.functional.scaled_dot_product_attention(q, torch.cat((keys, k), 2), torch.cat((values, v), 2))
            x = x + block.attn.c_proj(mixed.transpose(1, 2).reshape(1, 1, -1))
            x = x + block.mlp(block.ln_2(x))
        return self.model.lm_head(body.ln_f(x)), torch.stack(made)


BUILDERS = {
    "resnet50": resnet50,
    "mobilenetv2": mobilenetv2,
    "poolformer-s12": poolformer_s12,
    "vit-s16": vit_s16,
    "vit-b16": vit_b16,
    "bert-base": bert_base,
    "gpt2": gpt2,
    "gpt2-decode": Step,
}


def build(model: Model) -> nn.Module:
    torch.manual_seed(0)
    module = BUILDERS[model.architecture or model.name]()
    norms = [m for m in module.modules() if isinstance(m, nn.BatchNorm2d)]
    if norms:
        for m in module.modules():
            if isinstance(m, nn.Conv2d):
                nn.init.kaiming_normal_(m.weight, mode="fan_out", nonlinearity="relu")
        for norm in norms:
            norm.momentum = None  # cumulative average: one forward pass sets the statistics
        module.train()
        with torch.no_grad():
            module(torch.randn(4, *model.shape[1:], generator=torch.Generator().manual_seed(1)))
    return module.eval().requires_grad_(False)


def example(model: Model) -> tuple[Tensor, ...]:
    return tuple(torch.from_numpy(array) for array in model.inputs().values())


def export(model: Model, path: Path) -> None:
    """Write the ONNX file beside its place, then rename it: a stopped export leaves no half a model."""
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # torchvision's ops are not missed here
    warnings.filterwarnings("ignore", category=FutureWarning)
    unfinished = path.with_name(path.name + ".unfinished")
    torch.onnx.export(
        build(model),
        example(model),
        unfinished,
        input_names=list(model.inputs()),
        opset_version=18,
        dynamo=True,
        external_data=False,
        verbose=False,
    )
    unfinished.rename(path)


def flops(model: Model) -> int:
    """Multiply-adds counted as two, of the contractions and convolutions of one call."""
    from torch.utils.flop_counter import FlopCounterMode

    module, inputs = build(model), example(model)
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        module(*inputs)
    return counter.get_total_flops()
