"""Constant weights of few bits: which matmuls read them, and as which matrices.

A matmul has such weights where its second operand is dequantize_linear of a matrix, with one scale for each output
channel, or for each `group` neighbours along the summed axis:

    w[k, n] = (q[k, n] - zero[k // group, n]) * scale[k // group, n]
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from effcc.ir.graph import Node, Value
from effcc.ir.types import f16, f32
from effcc.ops.contraction import Matmul
from effcc.ops.quantize import DequantizeLinear

WORD_BITS = 32
"""Groups are multiples of the elements of a word, so that code may decode whole words under one scale."""


@dataclass(frozen=True)
class Weights:
    """The quantized weights of a matmul: the dequantization, its operands, bits of an element, k under one scale."""

    node: Node
    q: Value
    scale: Value
    zero: Value | None
    bits: int
    group: int
    transposed: bool
    """Whether q lies as [N, K]."""

    @property
    def shape(self) -> tuple[int, int]:
        """(K, N)"""
        rows, columns = self.q.shape
        return (columns, rows) if self.transposed else (rows, columns)

    @property
    def groups(self) -> int:
        return max(1, -(-self.shape[0] // max(1, self.group)))

    @property
    def offset(self) -> int:
        """What is taken off unsigned elements to have them around zero."""
        return 1 << self.bits - 1 if self.q.dtype.kind == "u" else 0

    def matrix(self, array: Any) -> Any:
        """q's array as int8 [K, N], around zero."""
        import numpy as np

        centred = (np.asarray(array).astype(np.int16) - self.offset).astype(np.int8)
        return centred.T if self.transposed else centred

    def parameters(self, array: Any) -> Any:
        """An array of scales or of zero points as [groups, N]."""
        import numpy as np

        array = np.asarray(array)
        if array.ndim < 2:
            return np.broadcast_to(array.reshape(1, -1), (1, self.shape[1]))
        return array.T if self.transposed else array

    def zeros(self, array: Any | None) -> Any | None:
        """Zero points as int8 [groups, N], less the offset of unsigned elements; None where all are 0."""
        import numpy as np

        if array is None and not self.offset:
            return None
        given = np.zeros((1, 1), np.int16) if array is None else self.parameters(array).astype(np.int16)
        shifted = np.broadcast_to(given - self.offset, (self.groups, self.shape[1])).astype(np.int8)
        return shifted if shifted.any() else None


def quantized_weights(node: Node, producer: Callable[[Value], Node | None]) -> Weights | None:
    """What a matmul's second operand is made of, where it is dequantized from a matrix with parameters as above.
    Whether these are constants is left to the caller."""
    op = node.op
    if not isinstance(op, Matmul) or op.accumulate is not None or node.operands[0].dtype != f32:
        return None
    made = producer(node.operands[1])
    if made is None or not isinstance(made.op, DequantizeLinear):
        return None
    q, scale, *rest = made.operands
    if q.tensor.rank != 2 or not q.tensor.is_static or not q.dtype.is_integer or q.dtype.bits not in (2, 4, 8):
        return None
    if scale.dtype not in (f32, f16) or made.result.dtype != f32:
        return None
    k_axis = 1 if op.transpose_b else 0
    k, axis, block = int(q.shape[k_axis]), made.op.axis, made.op.block_size
    if scale.tensor.rank == 0 or (not block and axis != k_axis):
        group = k
    elif block and axis == k_axis and (block % (WORD_BITS // q.dtype.bits) == 0 or block >= k):
        group = min(block, k)
    else:
        return None
    return Weights(made, q, scale, rest[0] if rest else None, q.dtype.bits, group, op.transpose_b)
