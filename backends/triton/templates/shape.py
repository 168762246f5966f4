"""What a template gives: how many programs to launch, the kernel's body, and how to compile it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from effcc.backends.triton.kernel import KernelText
from effcc.ir.dims import Dim


@dataclass(frozen=True)
class Shape:
    """programs: how many there are in a launch. warps: of 32 threads each, in a program. stages: of software
    pipelining."""

    programs: Dim
    body: Callable[[KernelText], None]
    warps: int = 4
    stages: int = 1
