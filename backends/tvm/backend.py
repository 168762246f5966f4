"""Target cpu: the default pipeline, compilation to an executable, and artifacts."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from math import prod
from typing import TYPE_CHECKING, Any, ClassVar

from effcc.backends.tvm import entry, memory
from effcc.errors import EffccError, UnsupportedError
from effcc.ir import Graph, Tensor
from effcc.ir.blob import Blob
from effcc.ir.lazy import torch
from effcc.ir.types import type_symbols
from effcc.machine import Machine, host, parse
from effcc.pipeline import Context
from effcc.report import at

if TYPE_CHECKING:
    from effcc.backends.tvm.build import Built
    from effcc.backends.tvm.runtime.executable import Executable
    from effcc.backends.tvm.runtime.sections import Ran
    from effcc.backends.tvm.tiles.choose import Chosen

LOWERING = "integer-arithmetic,transposed-convs,channels-last,fold,decompose,cse,dce"
"""What makes kernels' ops of a model's, but for fusion."""
MEASURE_SECONDS, MEASURE_CALLS = 0.02, 5
"""How long `measure` takes at least, and how many calls."""


class CpuBackend:
    """Compiles for one CPU, described by a target such as "cpu" or "cpu{mcpu=skylake-avx512,threads=2}"."""

    name = "cpu"
    precisions: ClassVar[Mapping[str, str]] = {"bf16": "half:dtype=bf16", "auto": "half:dtype=bf16:share=?"}
    """Of `effcc.compile`, besides fp32, and the pass that brings each about."""

    def __init__(self, target: str = "cpu"):
        self.target = target
        self.machine: Machine = parse(target)

    def pipeline(self) -> str:
        """What runs before lowering, as text."""
        from effcc.passes import EXACT

        return f"{EXACT},{LOWERING},compress-weights,fuse"

    schedules = ("auto", "barriers", "tiles")

    def compile(
        self,
        graph: Graph,
        ctx: Context,
        threads: int | None = None,
        schedule: str = "barriers",
        tune: str = "default",
    ) -> CpuCode:
        """Lower, compile and link; UnsupportedError names an op that has no code.

        schedule: "barriers" between launches, "tiles" without them, "auto": the faster, measured unless tune="none".
        """
        from effcc.backends.tvm.build import build
        from effcc.backends.tvm.lower import lower
        from effcc.backends.tvm.tiles.choose import choose

        refuse_beyond_addresses(graph)
        refuse_sizes_told_twice(graph)
        plan = lower(graph, self.machine)
        built = build(plan, self.machine)

        def load(program: entry.Program) -> Executable:
            return executable(replace(built, program=program), threads)

        able = None if _lacking(self.machine) else load
        return CpuCode(choose(plan, built, self.machine, schedule, tune, threads, able, ctx.calibration), threads)

    @property
    def measure(self) -> Callable[..., float] | None:
        """(graph, threads) -> seconds of a call: what passes that choose by the clock ask. None for other machines."""
        return None if _lacking(self.machine) else self._measure

    def _measure(self, graph: Graph, threads: int | None = None) -> float:
        """The least of some calls on drawn inputs, once the caches are warm."""
        from effcc.pipeline import PassManager, parse_pipeline
        from effcc.testing.compare import random_inputs

        ready = PassManager().run(graph, parse_pipeline(f"{LOWERING},fuse"))
        code = self.compile(ready, Context(machine=self.machine), threads)
        generator = torch.Generator().manual_seed(0)
        drawn = random_inputs([v.type for v in graph.inputs], generator, special=False, whole=False)
        inputs = [Blob.from_torch(t).array for t in drawn]
        code(*inputs)
        seconds = []
        end = time.perf_counter() + MEASURE_SECONDS
        while len(seconds) < MEASURE_CALLS or time.perf_counter() < end:
            start = time.perf_counter()
            code(*inputs)
            seconds.append(time.perf_counter() - start)
        return min(seconds)


class CpuCode:
    """Compiled code in memory: callable with arrays, and all that an artifact and a report need.

    Code for a machine that this one cannot stand in for is not loaded: it can be saved, and refuses to be called.
    """

    def __init__(self, chosen: Chosen, threads: int | None = None):
        self.built, self.machine, self.tiled = chosen.built, chosen.machine, chosen.tiled
        self.schedule: dict[str, Any] = chosen.schedule.facts()
        """What the schedule is, and why, as JSON"""
        self.loaded = chosen.loaded
        if self.loaded is None and _lacking(self.machine) is None:
            self.loaded = executable(self.built, threads)

    @property
    def executable(self) -> Executable:
        """What runs here. Raises EffccError where this machine lacks what the code was compiled for."""
        if self.loaded is None:
            hint = "save it, and run it on such a machine"
            raise EffccError(f"compiled for {self.machine}, and this machine {_lacking(self.machine)}", hint=hint)
        return self.loaded

    def __call__(self, *inputs: Any, threads: int | None = None) -> tuple[Any, ...]:
        return self.executable(*inputs, threads=threads)

    def profile(self, *inputs: Any, threads: int | None = None, repeat: int = 10) -> list[tuple[str, float]]:
        """Label and mean seconds of each launch, in the program's order."""
        return self.executable.profile(*inputs, threads=threads, repeat=repeat)

    def traced(self, *inputs: Any, threads: int | None = None) -> list[list[Ran]]:
        """When and where each task of a run ran, for each section without barriers."""
        return self.executable.traced(*inputs, threads=threads)

    def timeline(self, *inputs: Any, threads: int | None = None) -> dict[str, Any] | None:
        """The same in Chrome's trace format, as JSON; None where the program runs under barriers."""
        return self.executable.timeline(*inputs, threads=threads)

    def poison(self) -> None:
        """Fills the memory that calls work in with NaN, for tests."""
        self.executable.poison()

    @property
    def launches(self) -> list[Any]:
        """Every kernel launch of the program, in order; those inside branches and loops once."""
        return self.built.launches

    def parts(self) -> dict[str, Any]:
        """What effcc.artifact.write takes."""
        from effcc.backends.tvm.saved import parts

        built = self.built
        objects = dict(zip(built.symbols, built.objects, strict=True))
        return {
            "backend": "cpu",
            "machine": self.machine,
            "versions": _versions(),
            "choices": {"schedule": self.schedule},
            **parts(built.program, objects, built.driver, built.constants),
        }

    def kernels(self, sizes: Mapping[str, int]) -> list[dict[str, Any]]:
        """Each launch, in order: where it came from, its kernel, and its work for these sizes."""
        encoded = [step for step in entry_steps(self.built.program.steps) if isinstance(step, entry.Launch)]
        return [
            {
                "label": launch.label,
                "at": str(launch.loc),
                "template": launch.kernel.template,
                "symbol": step.kernel,
                "tiles": at(launch.tiles, sizes),
                "flops": at(launch.flops, sizes),
                "bytes": at(launch.nbytes, sizes),
            }
            for launch, step in zip(self.built.launches, encoded, strict=True)
        ]

    def memory(self, sizes: Mapping[str, int]) -> dict[str, Any]:
        """Bytes of temporaries at the peak, the least there could be, and where each lies; bytes of constants."""
        return memory.described(self.built.program, self.built.constants, sizes)


def refuse_sizes_told_twice(graph: Graph) -> None:
    """UnsupportedError where an op tells a size that an input's shape tells."""
    told = set().union(*(type_symbols(v.type) for v in graph.inputs)) if graph.inputs else set()
    for node in graph.nodes:
        for size in told.intersection(node.op.defines(*node.types)):
            message = f"size {size.name} is told by {node.op.name} and by an input's shape"
            raise UnsupportedError(message, where=node.loc, hint="give it a name of its own")


def refuse_beyond_addresses(graph: Graph) -> None:
    """Raises UnsupportedError for a tensor whose bytes 64 bits do not count."""
    for value in graph.values:
        t = value.type
        if isinstance(t, Tensor) and t.is_static and prod(t.shape) * t.dtype.bytes >= 1 << 63:  # type: ignore[type-var]
            message = "a tensor of more bytes than there are addresses"
            raise UnsupportedError(message, where=f"value {value.name!r}", hint="is its shape right?")


def executable(built: Built, threads: int | None = None) -> Executable:
    """What was built, loaded into this process."""
    from effcc.backends.tvm.runtime.executable import Executable

    return Executable(built.program, built.objects, built.driver, built.constants, threads=threads)


def _lacking(machine: Machine) -> str | None:
    """Why code for a machine cannot run on this one; None where it can."""
    here = host()
    if here.architecture != machine.architecture:
        return f"is of architecture {here.architecture}"
    missing = here.missing(machine.features)
    return f"lacks {', '.join(missing)}" if missing else None


def entry_steps(steps: Iterable[entry.Step]) -> Iterator[entry.Step]:
    """Every step, those of branches and loops after the one that holds them."""
    for step in steps:
        yield step
        match step:
            case entry.If(_, then, orelse):
                yield from entry_steps((*then, *orelse))
            case entry.While(_, body):
                yield from entry_steps(body)
            case entry.Tiles(inside):
                yield from inside


def _versions() -> dict[str, str]:
    from importlib.metadata import version

    from effcc import __version__

    return {"effcc": __version__, **{name: version(name) for name in ("apache-tvm", "apache-tvm-ffi")}}
