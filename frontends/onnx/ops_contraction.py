"""Contractions: MatMul, Gemm, Einsum."""

from __future__ import annotations

import numpy as np

from effcc.frontends.onnx.node import OnnxNode, onnx_op
from effcc.frontends.onnx.ops_elementwise import cast
from effcc.ir.dims import Dim, product
from effcc.ir.graph import Value
from effcc.ir.types import DType, i64


@onnx_op("MatMul")
def matmul(n: OnnxNode, a: Value, b: Value) -> Value:
    return numpy_matmul(n, a, b)


def numpy_matmul(n: OnnxNode, a: Value, b: Value, accumulate: DType | None = None) -> Value:
    """NumPy's matmul, vectors included."""
    if not a.shape or not b.shape:
        n.malformed("an operand is a scalar")
    x = n.b.reshape(a, shape=(1, *a.shape)) if len(a.shape) == 1 else a
    y = n.b.reshape(b, shape=(*b.shape, 1)) if len(b.shape) == 1 else b
    if x.dtype.is_integer and accumulate is None:
        accumulate = x.dtype
    out = n.b.matmul(x, y, accumulate=accumulate)
    shape = list(out.shape)
    if len(b.shape) == 1:
        del shape[-1]
    if len(a.shape) == 1:
        del shape[-1 if len(b.shape) == 1 else -2]
    return out if len(shape) == len(out.shape) else n.b.reshape(out, shape=tuple(shape))


@onnx_op("Gemm")
def gemm(n: OnnxNode, a: Value, b: Value, c: Value | None = None) -> Value:
    alpha, beta = n.attr("alpha", 1.0), n.attr("beta", 1.0)
    accumulate = a.dtype if a.dtype.is_integer else None
    y = n.b.matmul(
        a, b, transpose_a=bool(n.attr("transA", 0)), transpose_b=bool(n.attr("transB", 0)), accumulate=accumulate
    )
    y = y if alpha == 1.0 else _scaled(n, y, alpha)
    if c is None or beta == 0.0:
        return y
    return n.b.add(y, c if beta == 1.0 else _scaled(n, c, beta))


def _scaled(n: OnnxNode, x: Value, factor: float) -> Value:
    if x.dtype.is_float:
        return n.b.mul(x, n.b.full_like(x, factor))
    from effcc.ir.types import f64

    return cast(n, n.b.mul(cast(n, x, f64), n.b.const(np.float64(factor))), x.dtype)


# --- Einsum ---
@onnx_op("Einsum")
def einsum(n: OnnxNode, *operands: Value) -> Value:
    """Diagonals taken, operands contracted from left to right by matmul, remaining axes summed and permuted."""
    inputs, output = _equation(n, operands)
    values = [_diagonal(n, v, labels) for v, labels in zip(operands, inputs, strict=True)]
    value, labels = values[0]
    for k, (other, other_labels) in enumerate(values[1:], 1):
        later = set(output).union(*(ls for _, ls in values[k + 1 :]))
        value, labels = _contract(n, value, labels, other, other_labels, later)
    dropped = tuple(i for i, label in enumerate(labels) if label not in output)
    if dropped:
        value, labels = n.b.sum(value, axes=dropped), [label for label in labels if label in output]
    return n.b.transpose(value, perm=tuple(labels.index(label) for label in output)) if labels != output else value


def _equation(n: OnnxNode, operands: tuple[Value, ...]) -> tuple[list[list[str]], list[str]]:
    """Labels of each operand's axes and the result's; those of an ellipsis are '0', '1', ... counted from its end."""
    text = n.attr("equation").replace(" ", "")
    left, arrow, right = text.partition("->")
    terms = left.split(",")
    if len(terms) != len(operands):
        n.malformed(f"equation {text!r} has {len(terms)} terms for {len(operands)} operands")
    width = 0
    inputs = []
    for term, value in zip(terms, operands, strict=True):
        before, dots, after = term.partition("...")
        hidden = len(value.shape) - len(before) - len(after) if dots else 0
        if hidden < 0 or len(before) + len(after) + hidden != len(value.shape):
            n.malformed(f"term {term!r} of {text!r} does not fit rank {len(value.shape)}")
        width = max(width, hidden)
        inputs.append([*before, *(str(i) for i in reversed(range(hidden))), *after])
    ellipsis = [str(i) for i in reversed(range(width))]
    before, dots, after = right.partition("...")
    letters = {*left} - {*",."}
    if not all(c.isascii() and c.isalpha() for c in letters) or {*before, *after} - letters or (
        len({*before, *after}) < len(before) + len(after)
    ):
        n.malformed(f"equation {text!r} has labels that are no letters, or a result that does not follow")
    if arrow:
        return inputs, [*before, *(ellipsis if dots else []), *after]
    counts = [label for labels in inputs for label in labels if not label.isdigit()]
    return inputs, ellipsis + sorted({c for c in counts if counts.count(c) == 1})


def _diagonal(n: OnnxNode, x: Value, labels: list[str]) -> tuple[Value, list[str]]:
    """A repeated label keeps the diagonal of its axes."""
    labels = list(labels)
    for label in sorted(set(labels)):
        while labels.count(label) > 1:
            i = labels.index(label)
            j = labels.index(label, i + 1)
            rows, columns = (
                n.b.iota(shape=tuple(d if k == a else 1 for k, d in enumerate(x.shape)), axis=a, dtype=i64)
                for a in (i, j)
            )
            x = n.b.sum(n.b.where(n.b.eq(rows, columns), x, n.b.full_like(x, 0)), axes=(j,))
            del labels[j]
    return x, labels


def _contract(
    n: OnnxNode, a: Value, la: list[str], b: Value, lb: list[str], later: set[str]
) -> tuple[Value, list[str]]:
    """Sum a·b over the labels that both have and nobody needs later."""
    size: dict[str, Dim] = {}
    for label, d in (*zip(la, a.shape, strict=True), *zip(lb, b.shape, strict=True)):
        if size.get(label, 1) == 1:
            size[label] = d
    shared = [x for x in la if x in lb]
    if any(
        a.shape[la.index(x)] != b.shape[lb.index(x)] for x in shared
    ):  # sizes of 1 broadcast: an ellipsis may do that
        order = [*dict.fromkeys(la + lb)]
        y = n.b.mul(_aligned(n, a, la, order), _aligned(n, b, lb, order))
        gone = tuple(i for i, x in enumerate(order) if x not in later)
        return (n.b.sum(y, axes=gone) if gone else y), [x for x in order if x in later]
    batch = [x for x in shared if x in later]
    inner = [x for x in shared if x not in later]
    rows = [x for x in la if x not in shared]
    columns = [x for x in lb if x not in shared]
    left = _grouped(n, a, la, (batch, rows, inner), size)
    right = _grouped(n, b, lb, (batch, inner, columns), size)
    y = n.b.matmul(left, right, accumulate=a.dtype if a.dtype.is_integer else None)
    out = batch + rows + columns
    return n.b.reshape(y, shape=tuple(size[x] for x in out)), out


def _grouped(n: OnnxNode, x: Value, labels: list[str], groups: tuple[list[str], ...], size: dict[str, Dim]) -> Value:
    """x as a rank-3 tensor with one axis a group of labels."""
    order = [label for group in groups for label in group]
    x = n.b.transpose(x, perm=tuple(labels.index(label) for label in order)) if order != labels else x
    return n.b.reshape(x, shape=tuple(product(size[label] for label in group) for group in groups))


def _aligned(n: OnnxNode, x: Value, labels: list[str], order: list[str]) -> Value:
    """x with its axes in `order`, of size 1 where it has none."""
    here = [label for label in order if label in labels]
    x = n.b.transpose(x, perm=tuple(labels.index(label) for label in here)) if here != labels else x
    shape = dict(zip(here, x.shape, strict=True))
    return n.b.reshape(x, shape=tuple(shape.get(label, 1) for label in order))


@onnx_op("Det", ranks=(2,))
def det(n: OnnxNode, x: Value) -> Value:
    """By Gaussian elimination with partial pivoting, unrolled: the size of the matrices is static."""
    rows, columns = x.shape[-2:]
    if rows != columns:
        n.malformed(f"{x.type} is not square")
    n.plain([rows], "the size of the matrix")
    if rows > 16:
        n.refuse(f"a determinant of size {rows}", "up to 16")
    batch = x.shape[:-2]
    result = n.b.broadcast_to(n.b.full_like(x, 1), shape=batch)
    for size in range(rows, 0, -1):
        column = n.b.reshape(_block(n, x, (0, size), (0, 1)), shape=(*batch, size))
        pivot = n.b.argmax(n.b.abs(column), axis=len(batch), keepdims=True, select_last=False)
        here = n.b.eq(n.b.iota(shape=(size,), axis=0, dtype=i64), pivot)
        chosen = n.b.reshape(cast(n, here, x.dtype), shape=(*batch, 1, size))
        row = n.b.matmul(chosen, x)  # the pivot's row; the others follow, the first in its place
        head = _block(n, row, (0, 1), (0, 1))
        sign = n.b.where(n.b.eq(pivot, n.b.const(np.int64(0))), n.b.full_like(x, 1), n.b.full_like(x, -1))
        result = n.b.mul(result, n.b.mul(n.b.reshape(sign, shape=batch), n.b.reshape(head, shape=batch)))
        if size == 1:
            return result
        first = _block(n, x, (0, 1), (0, size))
        swapped = n.b.where(n.b.reshape(here, shape=(*batch, size, 1)), first, x)
        rest = _block(n, swapped, (1, size), (0, size))
        zero = n.b.eq(head, n.b.full_like(x, 0))
        safe = n.b.where(zero, n.b.full_like(x, 1), head)
        factor = n.b.div(_block(n, rest, (0, size - 1), (0, 1)), safe)
        x = _block(n, n.b.sub(rest, n.b.mul(factor, row)), (0, size - 1), (1, size))
    return result


def _block(n: OnnxNode, x: Value, rows: tuple[int, int], columns: tuple[int, int]) -> Value:
    """A block of the last two axes."""
    rank = len(x.shape)
    batch = x.shape[: rank - 2]
    return n.b.slice(
        x, starts=(*[0] * len(batch), rows[0], columns[0]), stops=(*batch, rows[1], columns[1]), steps=(1,) * rank
    )
