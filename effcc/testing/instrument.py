"""`effcc compile --check`: every pass of a compile is held against the interpreter, on this very model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from effcc.errors import EffccError, VerifyError
from effcc.interp import bind_type, run
from effcc.ir.graph import Graph
from effcc.ir.lazy import torch
from effcc.ir.location import UNKNOWN
from effcc.ir.types import Tensor, type_symbols
from effcc.pipeline import Context, Instrument, Pass
from effcc.testing.compare import Mismatch, compare, random_tensor
from effcc.testing.contracts import holds

SIZE = 3
"""What a free size is bound to, within its range."""


@dataclass
class Check(Instrument):
    """Runs the graph before and after each pass on drawn inputs and compares by the pass's contract.

    Passes that are approximate with the options that they have are noted as not checked; so is a model that the
    interpreter cannot run on drawn inputs.
    """

    seed: int = 0

    def after(self, p: Pass, old: Graph, new: Graph, seconds: float, ctx: Context) -> None:
        if new is old:
            return
        promise = holds(p)
        if promise == "approximate":
            ctx.refused("check", UNKNOWN, f"{p} is not checked: its contract is {p.contract!r}")
            return
        inputs = self.inputs(old)
        if inputs is None:
            ctx.refused("check", UNKNOWN, f"{p} is not checked: the interpreter cannot run the graph on drawn inputs")
            return
        try:
            compare(old, new, inputs, promise)
        except Mismatch as error:
            raise VerifyError(f"pass {p} changed the meaning: {str(error).splitlines()[0]}") from error

    def inputs(self, graph: Graph) -> list[Any] | None:
        """Inputs on which the graph has a value: small whole numbers, else zeros."""
        bound = {}
        for v in graph.inputs:
            for s in type_symbols(v.type):
                bound[s] = max(s.lo, SIZE if s.hi is None else min(SIZE, s.hi))
        types = [bind_type(v.type, bound) for v in graph.inputs]
        if not all(isinstance(t, Tensor) for t in types):
            return None
        generator = torch.Generator().manual_seed(self.seed)
        drawn = [random_tensor(t, generator, special=False, whole=False) for t in types]
        for inputs in (drawn, [torch.zeros_like(t) for t in drawn]):
            try:
                run(graph, *inputs)
                return inputs
            except EffccError:
                continue
        return None
