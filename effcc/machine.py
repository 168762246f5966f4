"""What a CPU can do: instruction sets, cores and caches, detected or declared.

    host()                                     the machine that runs this process
    parse("cpu{mcpu=skylake-avx512,threads=2}")  a declared one

Instruction sets are named as LLVM names them.  An artifact records those its code needs; `Machine.missing` names what
a lesser machine lacks.
"""

from __future__ import annotations

import os
import platform
import re
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from .errors import EffccError

# /proc/cpuinfo's name -> LLVM's, where they differ.  Linux for ARM lists its own names under "Features".
_LINUX_NAMES = {
    "sse4_1": "sse4.1", "sse4_2": "sse4.2", "pni": "sse3", "abm": "lzcnt", "bmi1": "bmi", "lahf_lm": "sahf",
    "avx512_bf16": "avx512bf16", "avx512_fp16": "avx512fp16", "avx512_vnni": "avx512vnni", "avx_vnni": "avxvnni",
    "avx512_vbmi2": "avx512vbmi2", "avx512_bitalg": "avx512bitalg", "avx512_vpopcntdq": "avx512vpopcntdq",
    "amx_tile": "amx-tile", "amx_int8": "amx-int8", "amx_bf16": "amx-bf16", "amx_fp16": "amx-fp16",
    "asimd": "neon", "fphp": "fullfp16", "asimdhp": "fullfp16", "asimddp": "dotprod", "bf16": "bf16", "i8mm": "i8mm",
    "sve": "sve", "sve2": "sve2", "atomics": "lse",
}  # fmt: skip

# The x86-64 psABI's levels, and the sets beyond them that effcc has code for.
_LEVELS = {
    "x86-64": ("sse", "sse2"),
    "x86-64-v2": ("cx16", "popcnt", "sahf", "sse3", "sse4.1", "sse4.2", "ssse3"),
    "x86-64-v3": ("avx", "avx2", "bmi", "bmi2", "f16c", "fma", "lzcnt", "movbe"),
    "x86-64-v4": ("avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"),
}
_BEYOND = (
    "avx512vnni", "avx512bf16", "avx512fp16", "avx512vbmi", "avx512vbmi2", "avx512ifma", "avx512bitalg",
    "avx512vpopcntdq", "avxvnni", "amx-tile", "amx-int8", "amx-bf16", "amx-fp16",
)  # fmt: skip
_ARM = ("neon", "fullfp16", "dotprod", "bf16", "i8mm", "sve", "sve2", "lse")
_KNOWN = frozenset((*(feature for level in _LEVELS.values() for feature in level), *_BEYOND, *_ARM))

_V2 = _LEVELS["x86-64"] + _LEVELS["x86-64-v2"]
_V3 = _V2 + _LEVELS["x86-64-v3"]
_V4 = _V3 + _LEVELS["x86-64-v4"]
_ICELAKE = (*_V4, "avx512vnni", "avx512vbmi", "avx512vbmi2", "avx512ifma", "avx512bitalg", "avx512vpopcntdq")
_AMX = ("amx-tile", "amx-int8", "amx-bf16")

# What the names of LLVM's CPUs stand for, for declared machines: (features, L1, L2, L3 of one core's share).
_DECLARED: dict[str, tuple[str, tuple[str, ...], int, int, int]] = {
    "x86-64": ("x86_64", _LEVELS["x86-64"], 32 << 10, 256 << 10, 1 << 20),
    "x86-64-v2": ("x86_64", _V2, 32 << 10, 256 << 10, 1 << 20),
    "x86-64-v3": ("x86_64", _V3, 32 << 10, 256 << 10, 2 << 20),
    "x86-64-v4": ("x86_64", _V4, 32 << 10, 1 << 20, 1 << 20),
    "haswell": ("x86_64", _V3, 32 << 10, 256 << 10, 2 << 20),
    "skylake": ("x86_64", _V3, 32 << 10, 256 << 10, 2 << 20),
    "skylake-avx512": ("x86_64", _V4, 32 << 10, 1 << 20, 1 << 20),
    "cascadelake": ("x86_64", (*_V4, "avx512vnni"), 32 << 10, 1 << 20, 1 << 20),
    "cooperlake": ("x86_64", (*_V4, "avx512vnni", "avx512bf16"), 32 << 10, 1 << 20, 1 << 20),
    "icelake-server": ("x86_64", _ICELAKE, 48 << 10, 1280 << 10, 1536 << 10),
    "sapphirerapids": (
        "x86_64", (*_ICELAKE, "avx512bf16", "avx512fp16", "avxvnni", *_AMX), 48 << 10, 2 << 20, 1920 << 10),
    "graniterapids": (
        "x86_64", (*_ICELAKE, "avx512bf16", "avx512fp16", "avxvnni", *_AMX, "amx-fp16"), 48 << 10, 2 << 20, 4 << 20),
    "alderlake": ("x86_64", (*_V3, "avxvnni"), 32 << 10, 1280 << 10, 2 << 20),
    "znver2": ("x86_64", _V3, 32 << 10, 512 << 10, 4 << 20),
    "znver3": ("x86_64", _V3, 32 << 10, 512 << 10, 4 << 20),
    "znver4": ("x86_64", (*_ICELAKE, "avx512bf16"), 32 << 10, 1 << 20, 4 << 20),
    "znver5": ("x86_64", (*_ICELAKE, "avx512bf16", "avxvnni"), 48 << 10, 1 << 20, 4 << 20),
    "neoverse-n1": ("aarch64", ("neon", "fullfp16", "dotprod", "lse"), 64 << 10, 1 << 20, 1 << 20),
    "neoverse-v1": ("aarch64", ("neon", "fullfp16", "dotprod", "bf16", "i8mm", "lse"), 64 << 10, 1 << 20, 1 << 20),
    "apple-m1": ("aarch64", ("neon", "fullfp16", "dotprod", "lse"), 128 << 10, 3 << 20, 2 << 20),
}  # fmt: skip


@dataclass(frozen=True)
class Machine:
    """A CPU as code generation sees it. Cache sizes are bytes; L1 and L2 are one core's, L3 is that of all cores."""

    architecture: str = "x86_64"
    mcpu: str = "generic"
    """The name it was declared by, for people."""
    features: frozenset[str] = frozenset()
    cores: int = 1
    l1: int = 32 << 10
    l2: int = 256 << 10
    l3: int = 2 << 20
    split_vectors: bool = False
    """Whether an instruction on 512 bits takes as long as two on 256 (Zen 4)."""

    @property
    def vector_bits(self) -> int:
        if self.architecture == "x86_64":
            return 512 if "avx512f" in self.features else 256 if "avx" in self.features else 128
        return 128

    @property
    def vector_registers(self) -> int:
        return 32 if self.vector_bits == 512 or self.architecture == "aarch64" else 16

    @property
    def llvm_cpu(self) -> str:
        """LLVM's name for the highest psABI level that the features cover; the sets beyond it are given one by one.

        Not `mcpu`: LLVM would use whatever else it believes such a CPU to have, and an artifact could not say so.
        """
        if self.architecture != "x86_64":
            return "generic"
        level = "x86-64"
        for name, needed in _LEVELS.items():
            if not self.features.issuperset(needed):
                break
            level = name
        return level

    @property
    def multiplies_bytes(self) -> bool:
        """Whether one vector instruction adds four products of bytes to each 32-bit lane (VNNI's vpdpbusd)."""
        return self.has("avx512vnni") or (self.has("avxvnni") and self.vector_bits == 256)

    @property
    def multiplies_bf16(self) -> bool:
        """Whether one vector instruction adds two products of bf16 to each f32 lane (AVX512-BF16's vdpbf16ps)."""
        return self.has("avx512bf16", "avx512vl")

    def has(self, *features: str) -> bool:
        return self.features.issuperset(features)

    def missing(self, features: frozenset[str] | tuple[str, ...] | list[str]) -> tuple[str, ...]:
        """Those of `features` that this machine lacks, sorted."""
        return tuple(sorted(set(features) - self.features))

    def __str__(self) -> str:
        return f"cpu{{mcpu={self.mcpu},threads={self.cores}}}"


@cache
def host() -> Machine:
    """The machine that runs this process: what it may use of it, as `taskset` and containers limit it."""
    architecture = {"amd64": "x86_64", "arm64": "aarch64"}.get(platform.machine().lower(), platform.machine().lower())
    features = _features() or {"x86_64": frozenset(_LEVELS["x86-64"]), "aarch64": frozenset(("neon",))}.get(
        architecture, frozenset()
    )
    caches = _caches()
    return Machine(
        architecture=architecture,
        mcpu="native",
        features=features,
        cores=available_cores(),
        l1=caches.get(1, 32 << 10),
        l2=caches.get(2, 512 << 10),
        l3=caches.get(3, 2 << 20),
        split_vectors="avx512f" in features and _is_zen4(),
    )


def available_cores() -> int:
    """The cores that the process may use: its affinity, cut by a container's CPU quota."""
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:  # macOS, Windows
        cores = os.cpu_count() or 1
    try:  # cgroup v2: "max 100000" or "<quota> <period>", in microseconds
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        if quota != "max":
            cores = min(cores, max(1, -(-int(quota) // int(period))))
    except (OSError, ValueError):
        pass
    return cores


def parse(text: str) -> Machine:
    """A target such as `cpu`, `cpu{threads=2}` or `cpu{mcpu=skylake-avx512,threads=2,l2=2m,with=avx512vnni+avxvnni}`.

    Without `mcpu` it is the host; with one, what that CPU is known to have, whatever this machine is.

    >>> parse("cpu{mcpu=skylake-avx512,threads=2}").vector_bits
    512
    """
    match = re.fullmatch(r"\s*cpu\s*(?:\{(.*)\})?\s*", text)
    if match is None:
        raise EffccError(f"unknown target {text!r}", hint="write cpu or cpu{mcpu=skylake-avx512,threads=2}")
    machine = host()
    options = [part.strip() for part in (match[1] or "").split(",") if part.strip()]
    for part in sorted(options, key=lambda part: not part.startswith("mcpu")):
        key, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals or not value:
            raise EffccError(f"target option {part!r} has no value", where=text, hint="write name=value")
        if key == "mcpu" and value in _DECLARED:
            architecture, features, l1, l2, l3 = _DECLARED[value]
            caches = (l1, l2, l3 * machine.cores)
            machine = Machine(architecture, value, frozenset(features), machine.cores, *caches, value == "znver4")
        elif key == "mcpu" and value != "native":
            raise EffccError(f"unknown CPU {value!r}", where=text, hint="known are native, " + ", ".join(_DECLARED))
        elif key == "threads":
            machine = replace(machine, cores=_size(value, text))
        elif key in ("l1", "l2", "l3"):
            machine = replace(machine, **{key: _size(value, text)})
        elif key in ("with", "without"):
            named = _named(value, text)
            features = machine.features | named if key == "with" else _without(machine.features, named)
            machine = replace(machine, mcpu="generic", features=features)
        elif key != "mcpu":
            known = "mcpu threads l1 l2 l3 with without"
            raise EffccError(f"unknown target option {key!r}", where=text, hint=f"known are {known}")
    return machine


def _named(names: str, text: str) -> frozenset[str]:
    features = frozenset(names.split("+"))
    if unknown := features - _KNOWN:
        raise EffccError(f"unknown CPU feature {min(unknown)!r}", where=text, hint="known: " + " ".join(sorted(_KNOWN)))
    return features


def _without(features: frozenset[str], removed: frozenset[str]) -> frozenset[str]:
    """`features` less the removed ones, and less those that LLVM would bring them back for."""
    families = {
        "avx": ("avx", "fma", "f16c"),
        "avx2": ("avx2", "avx512", "avxvnni"),
        "avx512f": ("avx512",),
        "amx-tile": ("amx",),
    }
    prefixes = tuple(prefix for name in removed for prefix in families.get(name, ()))
    return frozenset(name for name in features - removed if not (prefixes and name.startswith(prefixes)))


def _size(value: str, text: str) -> int:
    match = re.fullmatch(r"(\d+)([km]?)", value.lower())
    if match is None or int(match[1]) < 1:
        raise EffccError(f"{value!r} is not a positive number", where=text, hint="write 4, 512k or 2m")
    return int(match[1]) << {"": 0, "k": 10, "m": 20}[match[2]]


def _is_zen4() -> bool:
    """AMD's family 25 with 512-bit vectors, which Zen 3 lacks."""
    text = _cpuinfo()
    return "AuthenticAMD" in text and re.search(r"^cpu family\s*:\s*25$", text, re.MULTILINE) is not None


@cache
def _cpuinfo() -> str:
    """Linux's description of the CPUs; empty elsewhere."""
    try:
        return Path("/proc/cpuinfo").read_text()
    except OSError:
        return ""


def _features() -> frozenset[str]:
    text = _cpuinfo()
    if not text:
        return _features_of_macos()
    line = re.search(r"^(?:flags|Features)\s*:\s*(.*)$", text, re.MULTILINE)
    names = line[1].split() if line else []
    return frozenset(_LINUX_NAMES.get(name, name) for name in names) & _KNOWN


def _features_of_macos() -> frozenset[str]:
    if platform.system() == "Darwin" and platform.machine() == "arm64":
        return frozenset(("neon", "fullfp16", "dotprod", "lse"))  # every Apple silicon CPU
    return frozenset()


def _caches() -> dict[int, int]:
    """Cache level -> bytes, from Linux's sysfs."""
    sizes: dict[int, int] = {}
    for folder in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*"):
        try:
            if (folder / "type").read_text().strip() == "Instruction":
                continue
            level, size = int((folder / "level").read_text()), (folder / "size").read_text().strip()
            sizes[level] = _size(size, size)
        except (OSError, ValueError, EffccError):
            continue
    return sizes
