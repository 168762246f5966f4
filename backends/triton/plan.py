"""What lowering gives: kernels' sources, and the steps that launch them over buffers."""

from __future__ import annotations

from dataclasses import dataclass, field

from effcc.backends.triton.kernel import KernelSource
from effcc.backends.tvm.place import Buffer, Place
from effcc.ir import Loc, Symbol, Tensor
from effcc.ir.assumptions import Assumption
from effcc.ir.dims import Dim


@dataclass(frozen=True, eq=False)
class Launch:
    """Run `programs` programs of a kernel over buffers and sizes, in the order of its parameters."""

    kernel: KernelSource
    template: str
    buffers: tuple[Buffer, ...]
    symbols: tuple[Symbol, ...]
    programs: Dim
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


Step = Launch | Copy


@dataclass(eq=False)
class Plan:
    """A lowered graph."""

    inputs: list[tuple[str, Tensor, Buffer]] = field(default_factory=list)
    outputs: list[tuple[str, Tensor, Place]] = field(default_factory=list)
    aliases: tuple[tuple[int, int], ...] = ()
    steps: list[Step] = field(default_factory=list)
    buffers: list[Buffer] = field(default_factory=list)
    checks: dict[Assumption, Loc] = field(default_factory=dict)
    """What must hold of the inputs' sizes, and who says so."""

    @property
    def launches(self) -> list[Launch]:
        return [step for step in self.steps if isinstance(step, Launch)]
