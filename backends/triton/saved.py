"""A program for GPUs as the parts of an artifact, and back: cubins, sources, launch program. Needs torch to run, not
Triton."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from effcc.artifact import Artifact
from effcc.backends.tvm import entry
from effcc.backends.tvm.saved import from_json, to_json
from effcc.backends.tvm.wellformed import check
from effcc.errors import ParseError

if TYPE_CHECKING:
    from effcc.backends.triton.backend import CudaCode


def parts(code: CudaCode) -> dict[str, Any]:
    """What artifact.write takes of compiled code."""
    blobs = {f"code/sm_{a}/{name}.cubin": made.cubin for (name, a), made in code.compiled.items()}
    blobs |= {f"source/{name}.py": source.text.encode() for name, source in code.built.sources.items()}
    program = {"launches": to_json(code.built.program), "kernels": code.manifest}
    return {"program": program, "blobs": blobs, "constants": dict(code.built.constants)}


class SavedCode:
    """The code of an artifact: loaded onto the GPU at its first call."""

    def __init__(
        self, program: entry.Program, constants: Mapping[str, np.ndarray[Any, Any]], manifest: Any, blobs: Any
    ):
        self.program, self.constants, self.manifest, self.blobs = program, constants, manifest, blobs

    @cached_property
    def executable(self) -> Any:
        from effcc.backends.triton.backend import on_device

        return on_device(self.program, self.constants, self.manifest, self._image)

    def _image(self, name: str, architecture: int) -> bytes:
        return self.blobs[f"code/sm_{architecture}/{name}.cubin"]

    def __call__(self, *inputs: Any, threads: int | None = None) -> tuple[Any, ...]:
        return self.executable(*inputs)

    def profile(self, *inputs: Any, threads: int | None = None, repeat: int = 10) -> list[tuple[str, float]]:
        return self.executable.profile(*inputs, repeat=repeat)


def load(artifact: Artifact, threads: int | None = None) -> SavedCode:
    """The program of an artifact. Raises ParseError where the artifact's parts do not make one."""
    try:
        program, manifest = from_json(artifact.program["launches"]), artifact.program["kernels"]
        check(program)
        for step in program.steps:
            if isinstance(step, entry.Launch) and len(manifest[step.kernel]["signature"]) != (
                len(step.pointers) + len(step.dims)
            ):
                raise ValueError(f"kernel {step.kernel} takes other parameters")
        for name, facts in manifest.items():
            for a in facts["on"]:
                artifact.blobs[f"code/sm_{int(a)}/{name}.cubin"]
        return SavedCode(program, artifact.constants, manifest, artifact.blobs)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, RecursionError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise ParseError(
            f"its launch program is malformed ({reason})", where=artifact.path, hint="compile the model again"
        ) from error
