"""What this machine can do at best, measured in the same run as the engines: fp32 FLOP/s and bytes/s.

Not what a data sheet says: multiply-adds in registers alone; a matrix product of 2048^3 in torch, as good library code
does; a copy of 256 MB (counted as read + written).
"""

from __future__ import annotations

import time
from collections.abc import Callable

FLOPS = 2 * 2048**3
BYTES = 2 * 256 * 2**20


def multiply_adds(threads: int) -> Callable[[], float]:
    """A call that gives its number of flops."""
    from effcc.backends.tvm import peaks

    run, flops = peaks.multiply_adds(threads)

    def call() -> float:
        run()
        return flops

    return call


def matrix_product(threads: int) -> Callable[[], None]:
    import torch

    torch.set_num_threads(threads)
    a, b = torch.randn(2048, 2048), torch.randn(2048, 2048)
    out = torch.empty(2048, 2048)
    return lambda: void(torch.mm(a, b, out=out))


def copy(threads: int) -> Callable[[], None]:
    import torch

    torch.set_num_threads(threads)
    source, target = torch.ones(2**26), torch.empty(2**26)
    return lambda: void(target.copy_(source))


def void(_: object) -> None:
    """Nothing to send back to the parent."""


def machine() -> dict[str, str]:
    """The processor's name and instruction sets that matter, for the report."""
    import platform

    facts = {"python": platform.python_version(), "system": platform.platform(), "date": time.strftime("%Y-%m-%d")}
    try:
        with open("/proc/cpuinfo") as file:
            lines = dict(line.split(":", 1) for line in file.read().split("\n\n")[0].splitlines() if ":" in line)
    except OSError:
        return facts
    entries = {key.strip(): value.strip() for key, value in lines.items()}
    wanted = {"avx2", "fma", "avx512f", "avx512_bf16", "avx512_vnni", "amx_tile", "amx_int8", "amx_bf16"}
    facts["cpu"] = entries.get("model name", "unknown")
    facts["features"] = " ".join(sorted(wanted & set(entries.get("flags", "").split())))
    return facts
