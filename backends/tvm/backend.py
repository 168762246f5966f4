"""Target cpu: the default pipeline, compilation to an executable, and artifacts."""

from __future__ import annotations

from typing import Any

from effcc.ir import Graph
from effcc.machine import Machine, parse
from effcc.pipeline import Context


class CpuBackend:
    """Compiles for one CPU, described by a target such as "cpu" or "cpu{mcpu=skylake-avx512,threads=2}"."""

    name = "cpu"

    def __init__(self, target: str = "cpu"):
        self.target = target
        self.machine: Machine = parse(target)

    def pipeline(self) -> str:
        """What runs before lowering, as text."""
        from effcc.passes import EXACT

        return f"{EXACT},decompose,cse,dce,fuse"

    def compile(self, graph: Graph, ctx: Context, threads: int | None = None) -> CpuCode:
        """Lower, compile and link; UnsupportedError names an op that has no code."""
        from effcc.backends.tvm.build import build
        from effcc.backends.tvm.lower import lower

        built = build(lower(graph, self.machine), self.machine)
        return CpuCode(built, threads)


class CpuCode:
    """Compiled code in memory: callable with arrays, and all that an artifact needs."""

    def __init__(self, built: Any, threads: int | None = None):
        from effcc.backends.tvm.runtime.executable import Executable

        self.built = built
        self.executable = Executable(built.program, built.objects, built.driver, built.constants, threads=threads)

    def __call__(self, *inputs: Any, threads: int | None = None) -> tuple[Any, ...]:
        return self.executable(*inputs, threads=threads)

    @property
    def launches(self) -> list[Any]:
        """Every kernel launch of the program, in order; those inside branches and loops once."""
        return self.built.launches

    @property
    def memory(self) -> Any:
        """Peak bytes of temporaries and the lower bound."""
        return self.built.memory

