"""What target cuda compiles for: one or more GPU architectures, and whether kernels run on a device or interpreted."""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

from effcc.errors import EffccError

ARCHITECTURES = (80, 90, 100)
"""A100, H100 and B200: what is compiled for by default, and tested by compiling for it."""
KNOWN = (75, 80, 86, 87, 89, 90, 100, 103, 120, 121)
RUNS = ("device", "interpreter")


@dataclass(frozen=True)
class Gpu:
    """The GPUs that an artifact holds code for.

    architectures: compute capabilities as NVIDIA's tools write them, 90 for sm_90. tf32: whether products of f32 may
    round their operands to 10 bits of mantissa. run: "interpreter" runs kernels on the CPU, in Triton's interpreter.
    """

    architectures: tuple[int, ...] = ARCHITECTURES
    tf32: bool = False
    run: str = "device"
    architecture: str = "any"
    """The CPU's, of which the artifact holds no code."""
    features: frozenset[str] = frozenset()
    """CPU features that the artifact needs: none."""

    def __str__(self) -> str:
        options = ["arch=" + "+".join(f"sm_{a}" for a in self.architectures)] if self.architectures else []
        options += ["tf32=on"] if self.tf32 else []
        options += [f"run={self.run}"] if self.run != "device" else []
        return f"cuda{{{','.join(options)}}}"


def parse(text: str) -> Gpu:
    """A target such as `cuda`, `cuda{arch=sm_90}`, `cuda{arch=sm_80+sm_90,tf32=on}` or `cuda{run=interpreter}`;
    `arch=native` is the GPU of this machine.

    >>> parse("cuda{arch=sm_90}").architectures
    (90,)
    """
    match = re.fullmatch(r"\s*cuda\s*(?:\{(.*)\})?\s*", text)
    if match is None:
        raise EffccError(f"unknown target {text!r}", hint="write cuda or cuda{arch=sm_90}")
    options: dict[str, str] = {}
    for part in filter(None, (p.strip() for p in (match[1] or "").split(","))):
        key, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals or not value:
            raise EffccError(f"target option {part!r} has no value", where=text, hint="write name=value")
        if key not in ("arch", "tf32", "run"):
            raise EffccError(f"unknown target option {key!r}", where=text, hint="known are arch tf32 run")
        options[key] = value
    run = options.get("run", "device")
    if run not in RUNS:
        raise EffccError(f"run={run!r} is not offered", where=text, hint=f"one of {', '.join(RUNS)}")
    if options.get("tf32", "off") not in ("on", "off"):
        raise EffccError(f"tf32={options['tf32']!r} is not offered", where=text, hint="on or off")
    chosen = tuple(_architecture(name, text) for name in options["arch"].split("+")) if "arch" in options else (
        () if run == "interpreter" else ARCHITECTURES)
    return Gpu(tuple(sorted(set(chosen))), options.get("tf32") == "on", run)


def _architecture(name: str, text: str) -> int:
    if name == "native":
        return _native(text)
    match = re.fullmatch(r"sm_(\d+)a?", name)
    if match is None or int(match[1]) not in KNOWN:
        raise EffccError(f"unknown architecture {name!r}", where=text, hint="known: " + " ".join(
            f"sm_{a}" for a in KNOWN))
    return int(match[1])


def _native(text: str) -> int:
    reason = missing_device()
    if reason is not None:
        raise EffccError(f"arch=native, and there is no GPU here: {reason}", where=text, hint="write arch=sm_90")
    import torch

    major, minor = torch.cuda.get_device_capability()
    return 10 * major + minor


def offered() -> str:
    """What this machine offers the target, in a line, for `effcc doctor`."""
    try:
        found = f"Triton {version('triton')} compiles for {', '.join(f'sm_{a}' for a in ARCHITECTURES)}"
    except PackageNotFoundError:
        return "needs Triton, which is not installed: pip install 'effcc[cuda]'"
    reason = missing_device()
    if reason is not None:
        return f"{found}; nothing to run on: {reason}"
    import torch

    major, minor = torch.cuda.get_device_capability()
    return f"{found}; runs on {torch.cuda.get_device_name()} (sm_{major}{minor})"


def missing_device() -> str | None:
    """Why no kernel can run on this machine, in a few words; None where one can."""
    try:
        import torch
    except ImportError:
        return "torch is not installed"
    if torch.version.cuda is None:
        return "this build of torch has no CUDA"
    if not torch.cuda.is_available():
        return "torch finds no CUDA device"
    return None


def runs_on(architecture: int, capability: tuple[int, int]) -> bool:
    """Whether code for an architecture runs on a device: the same one, or below sm_90 a later one of its generation.

    (From sm_90 on, Triton compiles for the architecture-specific variants, sm_90a, which run nowhere else.)

    >>> runs_on(80, (8, 6)), runs_on(90, (10, 0))
    (True, False)
    """
    major, minor = divmod(architecture, 10)
    return major == capability[0] and (minor == capability[1] or (major < 9 and minor < capability[1]))
