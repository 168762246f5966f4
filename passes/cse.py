"""Common subexpressions: equal ops on equal operands are computed once."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from effcc.ir.blob import Blob
from effcc.ir.graph import Graph
from effcc.ir.op import Op
from effcc.ir.types import Tensor, f32
from effcc.pipeline import Context, Pass
from effcc.rewrite import Workspace, map_nested

HASH_BYTES = 1 << 16
"""Constants up to this size are compared by content, larger ones by address: hashing all weights would take seconds."""
COMMUTATIVE = frozenset({"add", "mul", "and", "or", "xor", "eq", "ne"})
"""Ops whose operands' order does not show in any bit (max and min may return either zero)."""


class CommonSubexpressions(Pass):
    """y = f(x); z = f(x)  -->  y = f(x); z = y     for pure ops with the same attributes and operands"""

    name = "cse"

    def run(self, graph: Graph, ctx: Context) -> Graph:
        w = Workspace(graph)
        seen: dict[Any, Any] = {}
        for item in w.items():
            op = map_nested(item.op, lambda g: self.run(g, ctx))
            if op is not item.op:
                w.set_op(item, op)
            if not op.pure:
                continue
            operands = item.operands
            if op.name in COMMUTATIVE:
                operands = tuple(sorted(operands, key=lambda v: v.id))
            first = seen.setdefault((*_key(op), operands, tuple(r.type for r in item.results)), item)
            if first is not item and ctx.allow("merge-equal-ops", item.loc):
                w.replace(item, first.results)
        return w.freeze()


    def example(self, d: Any, b: Any) -> Any:
        """Equal constants, large ones among them, and what is computed of each: operands in either order."""
        data = np.arange(d.choose((3, HASH_BYTES // 4 + 1)), dtype="f4")
        first, second = (b.const(data if d.boolean() else data.copy()) for _ in range(2))
        x = b.input("x", Tensor(f32, ()))
        op = d.choose((b.add, b.sub))
        return [op(first, x), op(*((x, second) if d.boolean() else (second, x)))]


def _key(op: Op) -> tuple[Any, ...]:
    """What must be equal in two ops: also the signs of zeros, and of a large constant the address."""
    attributes = tuple(op.attrs.values())
    signs = tuple(math.copysign(1.0, v) for v in attributes if isinstance(v, float))
    blobs = [v for v in attributes if isinstance(v, Blob)]
    if blobs:  # a blob hashes by its type alone
        others = tuple(v for v in attributes if not isinstance(v, Blob))
        return type(op), tuple(map(_content, blobs)), others, signs
    return op, signs


def _content(b: Blob) -> tuple[Any, ...]:
    if b.type.nbytes > HASH_BYTES:  # type: ignore[operator]
        return b.type, b.memory
    return b.type, b.sha256
