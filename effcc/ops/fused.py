"""A region of ops that a backend compiles as one kernel."""

from __future__ import annotations

from typing import Any

from effcc.ir.dims import Dim
from effcc.ir.graph import Graph
from effcc.ir.op import Op, require
from effcc.ir.types import Type


class Fused(Op):
    """The body's results for these operands; the body is isolated: it sees its inputs only."""

    name = "fused"
    family = "control"
    operands = ("*operands",)
    num_results = None
    body: Graph

    def infer(self, *types: Type) -> tuple[Type, ...]:
        expected = tuple(v.type for v in self.body.inputs)
        require(types == expected, f"the body takes ({', '.join(map(str, expected))})")
        return tuple(v.type for v in self.body.results)

    def reference(self, *tensors: Any) -> tuple[Any, ...]:
        from effcc.interp import run

        return run(self.body, *tensors)

    def flops(self, *types: Type) -> Dim:
        total: Dim = 0
        for node in self.body.nodes:
            total = node.op.flops(*node.types) + total
        return total
