"""How the arguments of a torch graph become the inputs of an IR graph, and its results become torch's outputs.

Tensors whose strides are a permutation of a dense layout (channels last, a transposed weight) travel in the order of
their memory: the graph has them contiguous and transposes back, which later passes fold away.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import Any

import torch

from effcc.ir import Dim, Symbol, Value, evaluate, symbols


def dense_order(fake: torch.Tensor) -> tuple[int, ...] | None:
    """The permutation that makes a dense tensor row-major; None where it is already, or where it is not dense.

    Sizes and strides are compared as expressions, so that torch records no guard.
    """
    rank = fake.dim()
    shape, strides = [_expression(n) for n in fake.shape], [_expression(n) for n in fake.stride()]
    if rank < 2 or _is_dense(tuple(range(rank)), shape, strides):
        return None
    if all(isinstance(n, int) for n in strides):
        orders = iter([tuple(sorted(range(rank), key=lambda k: (-strides[k], k)))])
    else:
        orders = itertools.permutations(range(rank)) if rank <= 5 else iter(())
    return next((order for order in orders if _is_dense(order, shape, strides)), None)


def _expression(n: Any) -> Any:
    return n if isinstance(n, int) else n.node.expr


def _is_dense(order: tuple[int, ...], shape: list[Any], strides: list[Any]) -> bool:
    """Whether the strides are those of a row-major array of the permuted shape (axes of length 1 may have any)."""
    step: Any = 1
    for k in reversed(order):
        if shape[k] != 1 and strides[k] != step:
            return False
        step = step * shape[k]
    return True


def inverse(order: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(order.index(k) for k in range(len(order)))


@dataclass(frozen=True)
class TensorInput:
    """Argument `argument` is passed, permuted to `order` if there is one; a complex one with its parts as last axis."""

    argument: int
    order: tuple[int, ...] | None = None

    def fetch(self, args: Any) -> torch.Tensor:
        x = args[self.argument]
        if x.is_complex():
            return torch.view_as_real(x.resolve_conj())
        return x if self.order is None else x.permute(self.order)


@dataclass(frozen=True)
class SizeInput:
    """A size that no tensor has is passed as the shape of an empty tensor, u8[n, 0]."""

    argument: int

    def fetch(self, args: Any) -> torch.Tensor:
        return torch.empty((int(args[self.argument]), 0), dtype=torch.uint8)


@dataclass(frozen=True)
class SeedInput:
    """A new seed for each call, from torch's generator, so that torch.manual_seed governs it."""

    def fetch(self, args: Any) -> torch.Tensor:
        return torch.empty((), dtype=torch.int64).random_()


@dataclass(frozen=True)
class TensorOutput:
    """A result; with `parts` its last axis holds the parts of complex numbers."""

    result: int
    order: tuple[int, ...] | None = None
    parts: bool = False


@dataclass(frozen=True)
class ArgumentOutput:
    """An argument that comes out unchanged."""

    argument: int


@dataclass(frozen=True)
class ScalarOutput:
    """A rank-0 result as a Python number."""

    result: int


@dataclass(frozen=True)
class SizeOutput:
    dim: Dim


@dataclass(frozen=True)
class NothingOutput:
    value: Any = None


@dataclass
class Signature:
    """inputs: in the graph's order. outputs: in torch's. sizes: symbol -> (argument, axis or None for a SymInt).
    copies: (result, argument) pairs written back after the call. bare: the only output is no tuple of one."""

    inputs: list[Any] = field(default_factory=list)
    outputs: list[Any] = field(default_factory=list)
    sizes: dict[Symbol, tuple[int, int | None]] = field(default_factory=dict)
    copies: list[tuple[int, int]] = field(default_factory=list)
    bare: bool = False

    def arguments(self, args: Any, which: tuple[int, ...] | None = None) -> list[torch.Tensor]:
        """The tensors for the graph's inputs (or for those at these positions)."""
        inputs = self.inputs if which is None else [self.inputs[i] for i in which]
        return [i.fetch(args) for i in inputs]

    def collect(self, args: Any, results: Any) -> list[Any]:
        """torch's outputs from the program's results."""
        for result, argument in self.copies:
            args[argument].copy_(results[result])
        bound: dict[Symbol, int] | None = None
        out: list[Any] = []
        for o in self.outputs:
            match o:
                case TensorOutput(result, _, True):
                    out.append(torch.view_as_complex(results[result].contiguous()))
                case TensorOutput(result, order):
                    out.append(results[result] if order is None else results[result].permute(inverse(order)))
                case ScalarOutput(result):
                    out.append(results[result].item())
                case ArgumentOutput(argument):
                    out.append(args[argument])
                case SizeOutput(dim):
                    bound = self.bind(args) if bound is None else bound
                    out.append(evaluate(dim, bound))
                case NothingOutput(value):
                    out.append(value)
        return out

    def bind(self, args: Any) -> dict[Symbol, int]:
        return {s: int(args[a] if axis is None else args[a].shape[axis]) for s, (a, axis) in self.sizes.items()}


def needed_symbols(outputs: Any, values: tuple[Value, ...]) -> set[Symbol]:
    found: set[Symbol] = set()
    for o in outputs:
        if isinstance(o, SizeOutput):
            found |= symbols(o.dim)
    for v in values:
        for d in v.shape:
            found |= symbols(d)
    return found
