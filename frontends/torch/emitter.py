"""What a handler of an aten op builds with: the graph builder plus torch's rules for numbers, dtypes and sizes.

A handler is a function `(e: Emitter, *args, **kwargs)` with the arguments of the aten schema, in which each tensor is
an IR `Value`, each SymInt a `Dim`, and the rest is as torch passes it. It returns a Value, or a tuple for several
results.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from effcc.errors import TypeRuleError, UnsupportedError
from effcc.frontends.torch.sizes import Sizes
from effcc.ir import Builder, Dim, DType, Expr, Symbol, Tensor, Value, bool_, f32, f64, i64

Handler = Callable[..., Any]
HANDLERS: dict[str, Handler] = {}
"""aten overload ("aten.add.Tensor"; "aten.add" stands for every overload without an entry of its own) -> handler."""


def lowers(*names: str) -> Callable[[Handler], Handler]:
    """Register a handler for aten overloads: `@lowers("add.Tensor")`; a namespace other than aten is written out."""

    def register(handler: Handler) -> Handler:
        for name in names:
            full = name if "::" in name else f"aten.{name}"
            if full in HANDLERS:
                raise ValueError(f"two handlers for {full}")
            HANDLERS[full] = handler
        return handler

    return register


COMPLEX_HANDLERS: dict[str, Handler] = {}
"""The same for nodes with a complex operand or result."""


@dataclass(frozen=True)
class Complex:
    """A complex tensor: two real ones of the same shape (or broadcasting to it)."""

    re: Value
    im: Value


def lowers_complex(*names: str) -> Callable[[Handler], Handler]:
    """Register a handler for nodes with a complex operand or result."""

    def register(handler: Handler) -> Handler:
        COMPLEX_HANDLERS.update({name if "::" in name else f"aten.{name}": handler for name in names})
        return handler

    return register


def handler_of(target: Any) -> Handler | None:
    """The handler of an OpOverload or a higher-order op; None where there is none."""
    name = str(target)
    if "." not in name:
        return HANDLERS.get(f"higher_order::{name}")
    return _look_up(HANDLERS, name)


def complex_handler_of(target: Any) -> Handler | None:
    """The handler for a node with complex tensors: its own, or the ordinary one on each part if it moves elements."""
    from effcc.frontends.torch.aten.complex import MOVING, on_parts

    name = str(target)
    if name.count(".") == 2 and name.split(".")[1] in MOVING and name.startswith("aten."):
        return lambda e, *args, **kwargs: on_parts(name, e, args, kwargs)
    return own_complex_handler(target)


def own_complex_handler(target: Any) -> Handler | None:
    return _look_up(COMPLEX_HANDLERS, str(target)) if "." in str(target) else None


def _look_up(table: dict[str, Handler], name: str) -> Handler | None:
    packet = name.rsplit(".", 1)[0]
    for candidate in (name, name.replace(".", "::", 1), packet, packet.replace(".", "::", 1)):
        if candidate in table:
            return table[candidate]
    return None


class Emitter:
    """Builds one graph from an FX graph.

    target: the current node's op ("aten.add.Tensor"). meta: what FX says about its result. used: which of several
    results are read.
    """

    def __init__(self, b: Builder, sizes: Sizes):
        self.b = b
        self.sizes = sizes
        self.target: str = ""
        self.meta: Any = None
        self.used: set[int] = set()

    # -- what the current node's result is ---------------------------------------------------------
    @property
    def out(self) -> Any:
        """The fake tensor of the (first) result."""
        return self.meta[0] if isinstance(self.meta, (tuple, list)) else self.meta

    @property
    def dtype(self) -> DType:
        """The dtype of the (first) result."""
        return self.dtype_of(self.out.dtype)

    @property
    def shape(self) -> tuple[Dim, ...]:
        """The shape of the (first) result, as torch computed it."""
        return self.sizes.dims(self.out.shape)

    def uses(self, *results: int) -> bool:
        """Whether any of these results of a node with several is read."""
        return any(i in self.used for i in results)

    # -- what the importer knows ---------------------------------------------------------------------
    def operand_meta(self, position: int) -> Any:
        """The fake tensor of an argument, with the strides that torch traced."""
        raise NotImplementedError

    def draw(self, shape: Any) -> tuple[Value, Value]:
        """(seed, offset) for a random op with this many numbers: the offsets of one graph do not overlap."""
        raise NotImplementedError

    def new_size(self, x: Value) -> Symbol:
        """The symbol that torch gave to the data-dependent size of this node's result."""
        raise NotImplementedError

    # -- values ------------------------------------------------------------------------------------
    def dtype_of(self, dtype: torch.dtype) -> DType:
        """Of a complex dtype, that of its parts."""
        return DType.of(dtype.to_real())

    def cast(self, x: Value, dtype: DType) -> Value:
        return x if x.dtype == dtype else self.b.cast(x, to=dtype)

    def number(self, value: Any, dtype: DType) -> Value:
        """A Python number as a rank-0 constant."""
        if dtype.is_integer and isinstance(value, float):
            value = int(value) if math.isfinite(value) else (dtype.max if value > 0 else dtype.min)
        if dtype.is_bool:
            value = bool(value)
        if dtype.kind == "u" and -(1 << dtype.bits) < value < 0:  # torch lets a number below 0 wrap
            value %= 1 << dtype.bits
        return self.b.const(value, dtype)

    def tensor(self, x: Any, dtype: DType | None = None) -> Value:
        """A tensor, number or dimension as a Value of the given dtype (default: the result's)."""
        dtype = dtype or self.dtype
        if isinstance(x, Value):
            return self.cast(x, dtype)
        if isinstance(x, (Expr, Symbol)):
            return self.cast(self.b.dim(value=x), dtype)
        return self.number(x, dtype)

    def full(self, shape: tuple[Dim, ...], value: Any, dtype: DType | None = None) -> Value:
        """A tensor of one number (or of one rank-0 value)."""
        scalar = self.tensor(value, dtype)
        return self.broadcast(scalar, shape)

    def index(self, d: Dim) -> Value:
        """A dimension as a rank-0 i64."""
        return self.tensor(d, i64)

    # -- torch's dtype rules -----------------------------------------------------------------------
    def promoted(self, *xs: Any) -> DType:
        """The dtype in which torch computes with these operands (`torch.result_type`)."""
        stand_ins = [_stand_in(x) for x in xs]
        out = stand_ins[0]
        for x in stand_ins[1:]:
            dtype = torch.result_type(out, x)
            dimensions = max(getattr(out, "ndim", -1), getattr(x, "ndim", -1))
            out = (
                torch.empty((1,) * max(dimensions, 0), dtype=dtype, device="meta")
                if dimensions >= 0
                else dtype.to_real()
            )
        return self.dtype_of(out.dtype if isinstance(out, torch.Tensor) else torch.result_type(out, out))

    # -- shapes ------------------------------------------------------------------------------------
    def reshape(self, x: Value, shape: Any) -> Value:
        shape = tuple(shape)
        return x if x.shape == shape else self.b.reshape(x, shape=shape)

    def broadcast(self, x: Value, shape: Any) -> Value:
        shape = tuple(shape)
        return x if x.shape == shape else self.b.broadcast_to(x, shape=shape)

    def transpose(self, x: Value, perm: Any) -> Value:
        perm = tuple(p % len(x.shape) for p in perm)
        return x if perm == tuple(range(len(perm))) else self.b.transpose(x, perm=perm)

    def swap(self, x: Value, a: int, b: int) -> Value:
        perm = list(range(len(x.shape)))
        perm[a], perm[b] = perm[b], perm[a]
        return self.transpose(x, perm)

    def unsqueeze(self, x: Value, *axes: int) -> Value:
        """Insert axes of length 1 at these positions of the result."""
        rank = len(x.shape) + len(axes)
        at = {a % rank for a in axes}
        rest = iter(x.shape)
        return self.reshape(x, tuple(1 if i in at else next(rest) for i in range(rank)))

    def slice(self, x: Value, axis: int, start: Dim, stop: Dim, step: int = 1) -> Value:
        """x[..., start:stop:step, ...] along one axis, bounds within it."""
        if start == 0 and step == 1 and stop == x.shape[axis]:
            return x
        rank = len(x.shape)
        starts: list[Dim] = [0] * rank
        stops, steps = list(x.shape), [1] * rank
        starts[axis], stops[axis], steps[axis] = start, stop, step
        return self.b.slice(x, starts=tuple(starts), stops=tuple(stops), steps=tuple(steps))

    def axis(self, axis: Any, rank: int) -> int:
        """An axis counted from the front; a rank-0 tensor counts as one of rank 1."""
        rank = max(rank, 1)
        if not -rank <= int(axis) < rank:
            raise TypeRuleError(f"axis {axis} of a tensor of rank {rank}")
        return int(axis) % rank

    def axes(self, axes: Any, rank: int) -> tuple[int, ...]:
        """Normalised, sorted axes; None or [] means all."""
        if axes is None or (isinstance(axes, (list, tuple)) and not axes):
            return tuple(range(rank))
        axes = axes if isinstance(axes, (list, tuple)) else [axes]
        return tuple(sorted(self.axis(a, rank) for a in axes)) if rank else ()

    def iota(self, shape: tuple[Dim, ...], axis: int, dtype: DType = i64) -> Value:
        return self.b.iota(shape=tuple(shape), axis=axis, dtype=dtype)

    def compute_dtype(self, dtype: DType) -> DType:
        """Where torch accumulates a reduction: half precisions in f32."""
        return f32 if dtype.is_float and dtype.bits < 32 else dtype


def _stand_in(x: Any) -> Any:
    """A meta tensor (or number) that promotes like x."""
    if isinstance(x, Value):
        return torch.empty((1,) * (len(x.shape) > 0), dtype=x.dtype.torch, device="meta")
    if isinstance(x, (Expr, Symbol)):
        return 1
    return x


def is_value(x: Any) -> bool:
    return isinstance(x, Value)


def static(shape: Any, what: str) -> tuple[int, ...]:
    """The sizes, all of them numbers; UnsupportedError names what needs that."""
    if not all(isinstance(d, int) for d in shape):
        raise UnsupportedError(f"{what} of dynamic sizes is not supported", hint="mark the image size static")
    return tuple(int(d) for d in shape)


__all__ = [
    "HANDLERS",
    "Emitter",
    "Handler",
    "Tensor",
    "Value",
    "bool_",
    "f32",
    "f64",
    "handler_of",
    "i64",
    "static",
    "is_value",
    "lowers",
]
