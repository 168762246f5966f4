"""Sorting and top-k by rank: an element's place is the number of those that come before it.

It takes n² comparisons a row, all independent, and is stable; rows of models (classes, candidates) are short.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from effcc.backends.triton.expressions import widened
from effcc.backends.triton.kernel import Code, KernelText, block_size, delinearize, divided, remaining, scaled
from effcc.backends.triton.templates.shape import Shape
from effcc.backends.tvm.place import Place
from effcc.ir import Node, Value
from effcc.ir.dims import Dim, ceildiv, product

BLOCK = 64


def sort(node: Node, axis: int, descending: bool, kept: Dim, places: Mapping[Value, Place]) -> Shape:
    """The first `kept` of each row along `axis` in order, and where they were."""
    x, (values, where) = node.operands[0], node.results
    outer = [d for a, d in enumerate(x.shape) if a != axis]
    length = x.shape[axis]
    block = block_size(length, BLOCK, 16)
    blocks = ceildiv(length, block)

    def body(k: KernelText) -> None:
        pid = k.program_id()
        k.line(f"row = {divided(pid, k.dim(blocks))}")
        rest = delinearize(k, Code("row", k.index_dtype), outer, "b")

        def at(i: Code) -> Sequence[Code]:
            return (*rest[:axis], i, *rest[axis:])

        i = k.axis("i", scaled(remaining(pid, k.dim(blocks)), block), block, length, "[:, None]")
        own = k.bind("own", widened(k.load(places[x], at(i))))
        k.line(f"rank = tl.full([{block}, 1], 0, tl.int32)")
        with k.loop("start", k.dim(length), str(block)) as start:
            j = k.axis("j", start, block, length, "[None, :]")
            other = k.bind("other", widened(k.load(places[x], at(j))))
            a, b = own.text, other.text
            greater, less = f"({b} > {a})", f"({b} < {a})"
            equal = f"({b} == {a})"
            if x.dtype.is_float:  # NaN is greater than every number, and equal to itself
                greater = f"({greater} | (({b} != {b}) & ({a} == {a})))"
                less = f"({less} | (({b} == {b}) & ({a} != {a})))"
                equal = f"({equal} | (({b} != {b}) & ({a} != {a})))"
            before = f"{greater if descending else less} | ({equal} & (j < i))"
            inside = f" & {k.masks['j']}" if k.masks["j"] else ""
            k.line(f"before = tl.where(({before}){inside}, 1, 0)")
            k.line(f"rank = rank + tl.reduce(before, 1, {k.function('add')}, keep_dims=True)")
        rank = Code("rank", k.index_dtype, frozenset("i"))
        keep = "" if kept == length else f"(rank < {k.dim(kept)})"
        k.store(places[values], at(rank), own, condition=keep)
        k.store(places[where], at(rank), i, condition=keep)

    return Shape(product(outer) * blocks, body, 4)
