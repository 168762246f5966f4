"""Train the small vision transformer that `make demo` compiles, and export it to ONNX.

scikit-learn's digits: 1,797 grey images of 8 x 8. A fifth is held back, never trained on, and ships beside the model.
Two minutes on two cores. Usage: python examples/digits/train.py
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn

HERE = Path(__file__).parent


class Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, width = x.shape
        qkv = self.qkv(x).reshape(batch, tokens, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        q, k, v = qkv[0], qkv[1], qkv[2]
        weights = (q @ k.transpose(-2, -1) * (width // self.heads) ** -0.5).softmax(dim=-1)
        return self.out((weights @ v).transpose(1, 2).reshape(batch, tokens, width))


class Block(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.attention = nn.LayerNorm(width), Attention(width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 3 * width), nn.GELU(), nn.Linear(3 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class DigitsViT(nn.Module):
    """f32[B,1,8,8] in 0..1 -> logits f32[B,10]: 16 patches of 2 x 2 and a class token, pre-norm blocks."""

    def __init__(self, width: int = 64, depth: int = 4, heads: int = 4) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, width, kernel_size=2, stride=2)
        self.token = nn.Parameter(torch.zeros(1, 1, width))
        self.positions = nn.Parameter(0.02 * torch.randn(1, 17, width))
        self.blocks = nn.Sequential(*(Block(width, heads) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, 10)

    def forward(self, image: Tensor) -> Tensor:
        x = self.patches(image).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], dim=1) + self.positions
        return self.head(self.norm(self.blocks(x))[:, 0])


def shifted(images: Tensor) -> Tensor:
    """Each image moved by up to one pixel in each direction, the rest filled with zeros."""
    padded = nn.functional.pad(images, (1, 1, 1, 1))
    offsets = torch.randint(0, 3, (len(images), 2))
    return torch.stack([p[:, r : r + 8, c : c + 8] for p, (r, c) in zip(padded, offsets.tolist(), strict=True)])


def train(model: nn.Module, images: Tensor, labels: Tensor, epochs: int = 80, batch: int = 64) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.05)
    steps = epochs * -(-len(images) // batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=2e-3, total_steps=steps)
    for epoch in range(epochs):
        for chosen in torch.randperm(len(images)).split(batch):
            logits = model(shifted(images[chosen]))
            loss = nn.functional.cross_entropy(logits, labels[chosen], label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        if epoch % 10 == 9:
            print(f"epoch {epoch + 1}: loss {loss.item():.3f}")


def main() -> None:
    torch.manual_seed(0)
    images, labels = load_digits(return_X_y=True)
    images = (images / 16).astype(np.float32).reshape(-1, 1, 8, 8)
    kept, held, kept_labels, held_labels = train_test_split(
        images, labels, test_size=0.2, random_state=0, stratify=labels
    )
    model = DigitsViT()
    train(model, torch.from_numpy(kept), torch.from_numpy(kept_labels))
    model.eval()
    with torch.no_grad():
        accuracy = (model(torch.from_numpy(held)).argmax(1).numpy() == held_labels).mean()
    print(f"accuracy on {len(held)} held-back images: {accuracy:.2%}")

    path = HERE / "digits_vit.onnx"
    torch.onnx.export(
        model,
        (torch.from_numpy(held[:2]),),
        path,
        input_names=["image"],
        output_names=["logits"],
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        dynamo=True,
        external_data=False,
        opset_version=18,  # spells GELU out with Erf, as most models in the wild do
    )
    exported = onnx.load(path)
    for entry in (exported, *exported.graph.node, *exported.graph.value_info):
        del entry.metadata_props[:]  # stack traces name the folders of whoever trained it
    onnx.save(exported, path)
    np.savez_compressed(HERE / "digits_test.npz", images=held, labels=held_labels.astype(np.int64))
    print(f"{path.name}: {path.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
