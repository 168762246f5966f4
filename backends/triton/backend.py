"""Target cuda: the default pipeline, compilation to cubins, and what programs, reports and artifacts ask of them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any, ClassVar

from effcc.backends.triton.build import Built, build
from effcc.backends.triton.compile import Compiled, compile_kernels, require_triton
from effcc.backends.triton.executable import Executable
from effcc.backends.triton.launcher import Device, Interpreted
from effcc.backends.triton.lower import lower
from effcc.backends.triton.target import Gpu, missing_device, parse
from effcc.backends.tvm import entry, memory
from effcc.errors import EffccError
from effcc.ir import Graph
from effcc.pipeline import Context
from effcc.report import at

RESOURCES = ("registers", "stack", "spills", "shared", "tensor_core")
"""What a report shows of `compile.Compiled`."""


class CudaBackend:
    """Compiles for NVIDIA GPUs, described by a target such as "cuda" or "cuda{arch=sm_90}"."""

    name = "cuda"
    precisions: ClassVar[Mapping[str, str]] = {"fp16": "half:dtype=f16", "bf16": "half:dtype=bf16"}
    """Of `effcc.compile`, besides fp32, and the pass that brings each about."""

    def __init__(self, target: str = "cuda"):
        require_triton()
        self.target = target
        self.machine: Gpu = parse(target)

    def pipeline(self) -> str:
        """What runs before lowering, as text."""
        from effcc.passes import EXACT

        return f"{EXACT},integer-arithmetic,transposed-convs,channels-last,fold,decompose,cse,dce,fuse"

    def compile(self, graph: Graph, ctx: Context, threads: int | None = None) -> CudaCode:
        """Lower and compile; UnsupportedError names an op that has no code."""
        built = build(lower(graph, self.machine.tf32))
        compiled = compile_kernels(list(built.sources.values()), self.machine.architectures, ctx.progress)
        return CudaCode(built, compiled, self.machine)


class CudaCode:
    """Kernels and their launch program: callable where there is a GPU (or with target option run=interpreter), and all
    that an artifact and a report need anywhere."""

    def __init__(self, built: Built, compiled: Mapping[tuple[str, int], Compiled], machine: Gpu):
        self.built, self.compiled, self.machine = built, compiled, machine

    @cached_property
    def manifest(self) -> dict[str, Any]:
        """Each kernel by name, as JSON: how to launch it, and its resources on each architecture."""
        return {
            name: {
                "warps": source.warps,
                "signature": list(source.signature.values()),
                "on": {str(a): self.compiled[name, a].facts() for a in self.machine.architectures},
            }
            for name, source in self.built.sources.items()
        }

    @cached_property
    def executable(self) -> Executable:
        """What runs here. Raises EffccError, in one line, where there is no CUDA device."""
        if self.machine.run == "interpreter":
            return self.interpreted
        return on_device(self.built.program, self.built.constants, self.manifest,
                         lambda name, architecture: self.compiled[name, architecture].cubin)

    @cached_property
    def interpreted(self) -> Executable:
        """The same launch program with kernels run by Triton's interpreter, on CPU tensors: slow, for checking."""
        return _with_types(
            Executable(self.built.program, self.built.constants, Interpreted(self.built.sources)), self.manifest)

    def __call__(self, *inputs: Any, threads: int | None = None) -> tuple[Any, ...]:
        return self.executable(*inputs)

    def profile(self, *inputs: Any, threads: int | None = None, repeat: int = 10) -> list[tuple[str, float]]:
        """Label and mean seconds of each launch, in the program's order."""
        return self.executable.profile(*inputs, repeat=repeat)

    @property
    def launches(self) -> list[Any]:
        """Every kernel launch of the program, in order."""
        return self.built.launches

    def parts(self) -> dict[str, Any]:
        """What effcc.artifact.write takes."""
        from effcc.backends.triton.saved import parts

        if not self.machine.architectures:
            raise EffccError(f"{self.machine} has no code to save", hint="name architectures: cuda{arch=sm_90}")
        return {"backend": "cuda", "machine": self.machine, "versions": _versions(), **parts(self)}

    def kernels(self, sizes: Mapping[str, int]) -> list[dict[str, Any]]:
        """Each launch, in order: where it came from, its kernel with its resources, and its work for these sizes."""
        return [
            {
                "label": launch.label,
                "at": str(launch.loc),
                "template": launch.template,
                "symbol": launch.kernel.name,
                "tiles": at(launch.programs, sizes),
                "flops": at(launch.flops, sizes),
                "bytes": at(launch.nbytes, sizes),
                "warps": launch.kernel.warps,
                "on": {
                    f"sm_{a}": {name: facts[name] for name in RESOURCES}
                    for a, facts in self.manifest[launch.kernel.name]["on"].items()
                },
            }
            for launch in self.built.launches
        ]

    def memory(self, sizes: Mapping[str, int]) -> dict[str, Any]:
        """Bytes of temporaries at the peak, the least there could be, and where each lies; bytes of constants."""
        return memory.described(self.built.program, self.built.constants, sizes)


def on_device(program: entry.Program, constants: Any, manifest: Mapping[str, Any], image: Any) -> Executable:
    """A program on this machine's GPU. Raises EffccError, in one line, where there is none."""
    reason = missing_device()
    if reason is not None:
        raise EffccError(
            f"the program is for a GPU, and there is none here: {reason}",
            hint="save it and run it on a GPU host, or check it with target 'cuda{run=interpreter}'",
        )
    return _with_types(Executable(program, constants, Device(manifest, image)), manifest)


def _with_types(executable: Executable, manifest: Mapping[str, Any]) -> Executable:
    executable.types = {name: facts["signature"] for name, facts in manifest.items()}
    return executable


def _versions() -> dict[str, str]:
    from importlib.metadata import version

    from effcc import __version__

    return {"effcc": __version__, "triton": version("triton")}
