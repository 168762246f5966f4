"""Kernels compiled ahead of time: Triton's compiler and ptxas for each architecture, no GPU needed, cached on disk.

With each cubin go the figures of NVIDIA's own tools: registers and local memory from `cuobjdump --dump-resource-usage`,
and of kernels that multiply matrices the tensor-core instructions in the disassembly.
"""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from effcc.backends.triton.kernel import KernelSource
from effcc.backends.triton.source import load
from effcc.backends.tvm.cache import default_cache
from effcc.errors import EffccError, UnsupportedError
from effcc.machine import available_cores

SUPPORTED = ("3.7", "3.8", "3.9")
"""The versions of Triton that are tested."""

TENSOR_CORE = re.compile(r"\b((?:UTC|H|I|B|D|Q|O)?[A-Z]*(?:HMMA|IMMA|DMMA|QMMA|OMMA|HGMMA|IGMMA|QGMMA|BMMA))\b")
"""Matrix instructions in SASS: HMMA (sm_80), HGMMA (sm_90's wgmma), UTCHMMA (sm_100's tcgen05.mma), and their like."""


@dataclass(frozen=True)
class Compiled:
    """A kernel for one architecture. registers: of each thread. stack: bytes of local memory of each thread (spilled
    registers and the slow paths of library functions). spills: instructions that store to it. shared: bytes of shared
    memory of each program. scratch: bytes of global memory that each program needs (none, so far). tensor_core: matrix
    instructions by name, None where the kernel multiplies nothing that tensor cores do."""

    architecture: int
    registers: int
    stack: int
    shared: int
    scratch: int
    parameters: int
    """How many the cubin takes: the kernel's own, and those that Triton adds."""
    tensor_core: dict[str, int] | None
    spills: int
    cubin: bytes = field(default=b"", repr=False)

    def facts(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k != "cubin"}


def require_triton() -> None:
    """Raises EffccError in one line where there is no Triton, or one that is not known to work."""
    try:
        found = version("triton")
    except PackageNotFoundError:
        raise EffccError("target cuda needs Triton, which is not installed", hint="pip install 'effcc[cuda]'") from None
    if not found.startswith(SUPPORTED):
        raise EffccError(f"target cuda does not know Triton {found}", hint="pip install 'effcc[cuda]'")


def compile_kernels(
    sources: Sequence[KernelSource], architectures: Sequence[int],
    progress: Callable[[str], None] = lambda message: None,
) -> dict[tuple[str, int], Compiled]:
    """(kernel's name, architecture) -> compiled, from the cache or by Triton on as many threads as there are cores
    (most of the time is spent in LLVM and in ptxas, a process of its own)."""
    require_triton()
    store = default_cache()
    done: dict[tuple[str, int], Compiled] = {}
    wanted: list[tuple[KernelSource, int]] = []
    for source in {s.name: s for s in sources}.values():
        for architecture in architectures:
            found = store.get(_key(source, architecture))
            if found is None:
                wanted.append((source, architecture))
            else:
                done[source.name, architecture] = _unpacked(found)
    if not wanted:
        return done
    from triton import knobs

    with tempfile.TemporaryDirectory() as folder, knobs.cache.scope(), knobs.compilation.scope():
        knobs.cache.dir = folder
        knobs.compilation.disable_line_info = True
        with ThreadPoolExecutor(max(1, available_cores())) as pool:
            results = pool.map(lambda job: compile_one(*job), wanted)
            for k, ((source, architecture), made) in enumerate(zip(wanted, results, strict=True)):
                progress(f"kernel {k + 1} of {len(wanted)}")
                done[source.name, architecture] = made
                store.put(_key(source, architecture), _packed(made))
    return done


def compile_one(source: KernelSource, architecture: int) -> Compiled:
    """Compile one kernel, without the cache."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    function = load(source)
    aligned: Any = [["tt.divisibility", 16]]
    names = list(source.signature)
    attrs = {(k,): aligned for k, name in enumerate(names) if source.signature[name].startswith("*")}
    options = {"num_warps": source.warps, "num_stages": source.stages, "enable_fp_fusion": True}
    try:
        program, target = ASTSource(function, source.signature, {}, attrs), GPUTarget("cuda", architecture, 32)
        made: Any = triton.compile(program, target=target, options=options)
    except Exception as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        message = f"Triton cannot compile kernel {source.name} for sm_{architecture}: {reason[-1][:200]}"
        raise UnsupportedError(message, hint="this is a bug of effcc: please report the model") from error
    cubin = made.asm["cubin"]
    registers, stack = resources(cubin)
    multiplies = "tl.dot(" in source.text and 'input_precision="ieee"' not in source.text
    sass = disassemble(cubin) if multiplies or stack else ""
    counted = Counter(TENSOR_CORE.findall(sass))
    return Compiled(
        architecture,
        registers,
        stack,
        int(made.metadata.shared),
        int(getattr(made.metadata, "global_scratch_size", 0) or 0),
        len(re.findall(r"^\s*\.param .*_param_\d+,?$", made.asm["ptx"], re.MULTILINE)),
        dict(counted) if multiplies else None,
        len(re.findall(r"\bSTL\b", sass)),
        cubin,
    )


# -- NVIDIA's tools, as Triton bundles them ----------------------------------------------------------------------------


def tool(name: str) -> Path:
    """The path of cuobjdump, nvdisasm or ptxas inside the triton package."""
    import triton

    return Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / name


def disassemble(cubin: bytes) -> str:
    """The SASS of a cubin."""
    return _run("cuobjdump", "-sass", cubin)


def resources(cubin: bytes) -> tuple[int, int]:
    """(registers, bytes of local memory) of each thread."""
    text = _run("cuobjdump", "--dump-resource-usage", cubin)
    found = re.search(r"REG:(\d+) STACK:(\d+)", text)
    if found is None:
        raise EffccError("cuobjdump tells no resource usage", hint="is Triton's installation whole?")
    return int(found[1]), int(found[2])


def _run(name: str, option: str, cubin: bytes) -> str:
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        try:
            return subprocess.run([tool(name), option, file.name], capture_output=True, text=True, check=True).stdout
        except (OSError, subprocess.CalledProcessError) as error:
            raise EffccError(f"{name} failed ({error})", hint="is Triton's installation whole?") from error


# -- the cache ---------------------------------------------------------------------------------------------------------


def _key(source: KernelSource, architecture: int) -> str:
    """The name is a hash of all that the text says."""
    return hashlib.sha256(f"{source.name} sm_{architecture} {_versions()}".encode()).hexdigest()


@cache
def _versions() -> str:
    own = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()
    return f"triton {version('triton')} {own}"


def _packed(made: Compiled) -> bytes:
    return json.dumps(made.facts()).encode() + b"\0" + made.cubin


def _unpacked(content: bytes) -> Compiled:
    head, _, cubin = content.partition(b"\0")
    return Compiled(**json.loads(head), cubin=cubin)
