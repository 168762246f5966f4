"""ToMe in plain NumPy, transcribed from the paper (Bolya et al. 2023, section 3): what effcc's pass is held against.

One image at a time, float64, a ViT with pre-norm blocks and a class token. It shares no code with the pass: tokens are
merged by loops over index lists, and kept in the paper's order, [unmerged | destinations].
"""

from __future__ import annotations

from dataclasses import dataclass
from math import erf

import numpy as np

Array = np.ndarray


@dataclass
class Block:
    """Weights as x @ w + b: q, k, v, o [d, d], up [d, h], down [h, d]; norms as (scale, bias)."""

    norm1: tuple[Array, Array]
    q: tuple[Array, Array]
    k: tuple[Array, Array]
    v: tuple[Array, Array]
    o: tuple[Array, Array]
    norm2: tuple[Array, Array]
    up: tuple[Array, Array]
    down: tuple[Array, Array]


@dataclass
class Tokens:
    """x [n, d], size [n]: how many of the first tokens each is the mean of, and which: `members`."""

    x: Array
    size: Array
    members: list[list[int]]

    def restored(self) -> Array:
        """For each of the first tokens the one that it became part of."""
        out = np.empty((sum(map(len, self.members)), self.x.shape[1]))
        for row, group in zip(self.x, self.members, strict=True):
            out[group] = row
        return out


def layer_norm(x: Array, parameters: tuple[Array, Array], eps: float) -> Array:
    scale, bias = parameters
    centered = x - x.mean(-1, keepdims=True)
    return centered / np.sqrt((centered**2).mean(-1, keepdims=True) + eps) * scale + bias


def linear(x: Array, parameters: tuple[Array, Array]) -> Array:
    return x @ parameters[0] + parameters[1]


def gelu(x: Array) -> Array:
    return x * (1 + np.vectorize(erf)(x / np.sqrt(2))) / 2


def attention(x: Array, block: Block, heads: int, size: Array | None) -> tuple[Array, Array]:
    """(the sublayer's output [n, d], keys [heads, n, d / heads]); scores have log(size) of their key added."""
    q, k, v = (
        linear(x, w).reshape(len(x), heads, -1).transpose(1, 0, 2) for w in (block.q, block.k, block.v)
    )
    scores = q @ k.transpose(0, 2, 1) / np.sqrt(q.shape[-1])
    if size is not None:
        scores = scores + np.log(size)
    e = np.exp(scores - scores.max(-1, keepdims=True))
    out = (e / e.sum(-1, keepdims=True)) @ v
    return linear(out.transpose(1, 0, 2).reshape(len(x), -1), block.o), k


def merged(tokens: Tokens, keys: Array, r: int, protected: int = 1) -> Tokens:
    """The r tokens of even position that are most like one of odd position become part of that one."""
    n = len(tokens.x)
    r = min(r, (n - protected) // 2)
    if r <= 0:
        return tokens
    metric = keys.mean(0)
    metric = metric / np.linalg.norm(metric, axis=-1, keepdims=True)
    even, odd = np.arange(0, n, 2), np.arange(1, n, 2)
    scores = metric[even] @ metric[odd].T
    scores[even < protected, :] = -np.inf
    scores[:, odd < protected] = -np.inf
    best, partner = scores.max(1), scores.argmax(1)
    order = np.argsort(-best, kind="stable")
    gone, stay = order[:r], np.sort(order[r:])
    sums = {int(j): tokens.x[j] * tokens.size[j] for j in odd}
    sizes = {int(j): tokens.size[j] for j in odd}
    groups = {int(j): list(tokens.members[j]) for j in odd}
    for a in gone:
        i, j = int(even[a]), int(odd[partner[a]])
        sums[j] = sums[j] + tokens.x[i] * tokens.size[i]
        sizes[j] = sizes[j] + tokens.size[i]
        groups[j] += tokens.members[i]
    kept = [int(even[a]) for a in stay]
    x = np.array([tokens.x[i] for i in kept] + [sums[int(j)] / sizes[int(j)] for j in odd])
    size = np.array([tokens.size[i] for i in kept] + [sizes[int(j)] for j in odd])
    return Tokens(x, size, [tokens.members[i] for i in kept] + [groups[int(j)] for j in odd])


def run(x: Array, blocks: list[Block], heads: int, schedule: list[int], prop_attn: bool = True, eps: float = 1e-12,
        ) -> list[Tokens]:
    """The tokens [n, d] behind each block, from those in front of the first one."""
    tokens = Tokens(x.astype(np.float64), np.ones(len(x)), [[i] for i in range(len(x))])
    out = []
    for block, r in zip(blocks, schedule, strict=True):
        y, keys = attention(layer_norm(tokens.x, block.norm1, eps), block, heads, tokens.size if prop_attn else None)
        tokens = merged(Tokens(tokens.x + y, tokens.size, tokens.members), keys, r)
        hidden = gelu(linear(layer_norm(tokens.x, block.norm2, eps), block.up))
        tokens = Tokens(tokens.x + linear(hidden, block.down), tokens.size, tokens.members)
        out.append(tokens)
    return out


def random_blocks(depth: int, width: int, hidden: int, seed: int = 0) -> list[Block]:
    draw = np.random.default_rng(seed)

    def weight(rows: int, columns: int) -> tuple[Array, Array]:
        return draw.standard_normal((rows, columns)) / np.sqrt(rows), 0.1 * draw.standard_normal(columns)

    def norm() -> tuple[Array, Array]:
        return 1 + 0.1 * draw.standard_normal(width), 0.1 * draw.standard_normal(width)

    return [
        Block(norm(), *(weight(width, width) for _ in range(4)), norm(), weight(width, hidden), weight(hidden, width))
        for _ in range(depth)
    ]
