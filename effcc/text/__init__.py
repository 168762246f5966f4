"""The text form of graphs: `parse(print_graph(g)) == g`. The grammar is effir.lark; lark is imported late."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

from effcc.text.printer import blobs, print_graph

if TYPE_CHECKING:
    from effcc.ir.graph import Graph
    from effcc.ir.types import Type


def parse(text: str, blobs: Mapping[str, Any] | None = None, verify: bool = True) -> Graph:
    """The graph that a text describes.

    blobs: the constants that the text names by hash: "sha256:..." or the bare hex digest -> Blob or NumPy array.
    verify: run each op's type rule and compare it with the printed types.
    Raises ParseError, with line and column.

    >>> g = parse('graph @f<B in 1..8>(%x: f32[B,4]) -> f32[B,4] { %0: f32[B,4] = neg(%x)  return %0 }')
    >>> print(g)
    graph @f<B in 1..8>(%x: f32[B,4]) -> f32[B,4] {
      %0: f32[B,4] = neg(%x)
      return %0
    }
    """
    from effcc.text.parser import parse_graph

    return parse_graph(text, blobs or {}, verify)


@cache
def parse_type(text: str) -> Type:
    """The type that a text describes, such as "f32[3,B]". Raises ParseError.

    >>> str(parse_type("f32[64,64]@block_csr(block=(16, 16), kept=5)"))
    'f32[64,64]@block_csr(block=(16, 16), kept=5)'
    """
    return parse(f"graph(%x: {text}) -> {text} {{ return %x }}", verify=False).inputs[0].type


__all__ = ["blobs", "parse", "parse_type", "print_graph"]
