"""Constant weights that contractions multiply by, and what flows into them: moments of activations, gradients.

    for w in weights(graph):
        w.array, w.contracted, w.free       # [768, 3072], axis 0 is summed over, axis 1 is the output's
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from effcc.interp import run
from effcc.ir import Graph, Node, Value
from effcc.ir.blob import Blob
from effcc.ir.encodings import is_compressed
from effcc.ir.lazy import torch
from effcc.ir.location import Loc


@dataclass(frozen=True, eq=False)
class Weight:
    """A constant of floats that matmuls (as their right operand) and convolutions read, and nothing else does.

    contracted: the axis that is summed over (the input channels of a convolution). free: the axis of the results.
    """

    value: Value
    blob: Blob
    users: tuple[Node, ...]
    contracted: int
    free: int

    @property
    def array(self) -> np.ndarray[Any, Any]:
        return self.blob.array

    @property
    def loc(self) -> Loc:
        return self.users[0].loc

    @property
    def size(self) -> int:
        size = self.blob.type.size
        assert isinstance(size, int)
        return size

    @property
    def is_matrix(self) -> bool:
        """Whether it is [K, N] or [N, K], but for axes of size 1 (a convolution of 1x1)."""
        others = (d for k, d in enumerate(self.blob.type.shape) if k not in (self.contracted, self.free))
        return all(d == 1 for d in others)

    def as_matrix(self, array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """An array of the weight's shape as [K, N]; `from_matrix` undoes it."""
        moved = np.moveaxis(array, (self.contracted, self.free), (0, 1))
        return moved.reshape(moved.shape[:2])

    def from_matrix(self, matrix: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        shape = self.blob.type.shape
        whole = matrix.reshape(*matrix.shape, *(1,) * (len(shape) - 2))
        return np.ascontiguousarray(np.moveaxis(whole, (0, 1), (self.contracted, self.free)))

    def along_contracted(self, vector: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """A vector of K numbers, shaped to broadcast against the weight."""
        return vector.reshape([-1 if k == self.contracted else 1 for k in range(len(self.blob.type.shape))])


def weights(graph: Graph) -> list[Weight]:
    """The weights of a graph, in order."""
    found = []
    for node in graph.nodes:
        if node.op.name != "const":
            continue
        blob: Blob = node.op.blob  # type: ignore[attr-defined]
        users = graph.users(node.result)
        axes = {_axes(user, node.result) for user in users}
        if users and len(axes) == 1 and node.result not in graph.results and blob.at_hand:
            both = next(iter(axes))
            if both is not None and blob.type.dtype.is_float and not is_compressed(blob.type):
                found.append(Weight(node.result, blob, users, *both))
    return found


def _axes(user: Node, value: Value) -> tuple[int, int] | None:
    """The (contracted, free) axes of `value` as the weight of `user`, None where it is none."""
    if len(user.operands) < 2 or user.operands[1] is not value or user.operands.count(value) != 1:
        return None
    rank = value.tensor.rank
    if user.op.name == "matmul":
        turned: bool = user.op.transpose_b  # type: ignore[attr-defined]
        return (rank - 1, rank - 2) if turned else (rank - 2, rank - 1)
    return (1, 0) if user.op.name == "conv" else None


@dataclass
class Moments:
    """The mean and the mean square of what is multiplied with each index of a weight's contracted axis, and where asked
    for the mean products of each two of them, [K, K]."""

    mean: np.ndarray[Any, Any]
    square: np.ndarray[Any, Any]
    products: np.ndarray[Any, Any] | None = None


def moments(graph: Graph, wanted: Iterable[Weight], samples: Any, products: bool = False) -> dict[Value, Moments]:
    """Moments of the activations that meet each weight, over all samples, by the weight's value.

    products: those of pairs too, of weights that are matrices (K² numbers each).
    """
    found: dict[Value, list[Any]] = {}
    users = {id(user): w for w in wanted for user in w.users}

    def observe(node: Node, operands: tuple[Any, ...], results: tuple[Any, ...]) -> None:
        weight = users.get(id(node))
        if weight is None:
            return
        x = operands[0].double()
        x = x.movedim(_channel_axis(node), -1).reshape(-1, weight.blob.type.shape[weight.contracted])
        pairs = products and weight.is_matrix and getattr(node.op, "groups", 1) == 1
        now = [len(x), x.sum(0), x.square().sum(0), x.T @ x if pairs else None]
        held = found.get(weight.value)
        if held is not None:
            now = [None if a is None or b is None else a + b for a, b in zip(held, now)]
        found[weight.value] = now

    with torch.no_grad():
        for inputs in samples.batches():
            run(graph, *inputs, observe=observe)
    return {
        v: Moments(*(None if total is None else (total / max(count, 1)).numpy() for total in sums))  # type: ignore
        for v, (count, *sums) in found.items()
    }


def _channel_axis(node: Node) -> int:
    """The axis of the left operand that is contracted."""
    if node.op.name == "matmul":
        return -2 if node.op.transpose_a else -1  # type: ignore[attr-defined]
    return -1 if node.op.layout == "nhwc" else 1  # type: ignore[attr-defined]


def gradients(graph: Graph, wanted: Iterable[Weight], samples: Any) -> Iterator[dict[Value, np.ndarray[Any, Any]]]:
    """For each batch of samples, the gradient of the mean square of the results by each weight.

    It is zero where no result of floats depends on a weight. No labels are needed: the mean of f(x)² weighs what moves
    the outputs (LPViT, Xu et al. 2024).
    """
    values = [w.value for w in wanted]
    for inputs in samples.batches():
        leaves: dict[Value, Any] = {}

        def observe(node: Node, operands: tuple[Any, ...], results: tuple[Any, ...], leaves=leaves) -> Any:
            if node.op.name != "const" or node.result not in values:
                return None
            leaves[node.result] = results[0].detach().clone().requires_grad_()
            return (leaves[node.result],)

        results = [r for r in run(graph, *inputs, observe=observe) if r.is_floating_point()]
        loss: Any = sum(r.float().square().mean() for r in results)
        if results and loss.requires_grad:  # else nothing of floats depends on the weights
            loss.backward()
        zero = {v: torch.zeros_like(leaf) for v, leaf in leaves.items() if leaf.grad is None}
        yield {v: (zero[v] if v in zero else leaf.grad).float().numpy() for v, leaf in leaves.items()}
