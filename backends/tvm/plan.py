"""What lowering produces: kernels to compile and steps to run, over buffers; no compiler objects beyond the
PrimFuncs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from effcc.backends.tvm.kernels import Request
from effcc.backends.tvm.place import Buffer, Place
from effcc.backends.tvm.tiles.space import TileSpace
from effcc.ir import Graph, Loc, Symbol, Tensor
from effcc.ir.assumptions import Assumption
from effcc.ir.dims import Dim


@dataclass(frozen=True, eq=False)
class Touched:
    """What a kernel reads and writes: the region that it computes, and where the region's inputs and results lie.

    `space` tells which part of the results each tile writes; None where that is data-dependent or not known. `more` is
    read besides. Launches of the same kernel have other buffers than `buffers`, in the same order.
    """

    graph: Graph
    operands: tuple[Place, ...]
    results: tuple[Place, ...]
    more: tuple[Place, ...]
    buffers: tuple[Buffer, ...]
    space: TileSpace | None


@dataclass(eq=False)
class KernelPlan:
    """One kernel: what names it, how to build its PrimFunc, and what its tiles touch."""

    request: Request
    template: str
    """Which template makes it: pointwise, rows, fold, contraction, conv, ..."""
    touched: Touched

    @property
    def function(self) -> Any:
        """The PrimFunc, built anew."""
        return self.request.build()


@dataclass(frozen=True, eq=False)
class Launch:
    """Run all tiles of a kernel."""

    kernel: KernelPlan
    buffers: tuple[Buffer, ...]
    symbols: tuple[Symbol, ...]
    tiles: Dim
    scratch: Dim
    writes: tuple[Buffer, ...]
    label: str
    loc: Loc
    flops: Dim = 0
    nbytes: Dim = 0
    """Bytes of operands read and results written, each once."""


@dataclass(frozen=True, eq=False)
class Copy:
    """Copy the whole of a buffer to another of the same size."""

    target: Buffer
    source: Buffer


@dataclass(frozen=True, eq=False)
class Define:
    """Give a size symbol the value of an i64 in memory (an op-defined size)."""

    symbol: Symbol
    source: Buffer


@dataclass(frozen=True, eq=False)
class Branch:
    """Run one of two step lists by a bool in memory."""

    condition: Buffer
    then: tuple[Step, ...]
    orelse: tuple[Step, ...]


@dataclass(frozen=True, eq=False)
class While:
    """Run `body` as long as the bool in memory is true; `body` updates it."""

    condition: Buffer
    body: tuple[Step, ...]


@dataclass(frozen=True, eq=False)
class Check:
    """Refuse the call unless an assumption about sizes holds."""

    assumption: Assumption
    loc: Loc


Step = Launch | Copy | Define | Branch | While | Check


@dataclass(eq=False)
class Plan:
    """A lowered graph."""

    inputs: list[tuple[str, Tensor, Buffer]] = field(default_factory=list)
    outputs: list[tuple[str, Tensor, Place]] = field(default_factory=list)
    aliases: tuple[tuple[int, int], ...] = ()
    defined: dict[Symbol, Dim] = field(default_factory=dict)
    """Sizes that kernels find at run time, and an upper bound of each."""
    steps: list[Step] = field(default_factory=list)
    checks: list[Check] = field(default_factory=list)
    """What must hold of the inputs' sizes."""
    buffers: list[Buffer] = field(default_factory=list)

    def launches(self) -> list[Launch]:
        """Every launch, those of branches and loops included."""
        out: list[Launch] = []

        def visit(steps: tuple[Step, ...] | list[Step]) -> None:
            for step in steps:
                match step:
                    case Launch():
                        out.append(step)
                    case Branch(_, then, orelse):
                        visit(then)
                        visit(orelse)
                    case While(_, body):
                        visit(body)

        visit(self.steps)
        return out
