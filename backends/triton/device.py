"""Functions that kernels call, as Triton source: what Triton lacks, or rounds otherwise than the IR says.

They mean the same whether `//` truncates (compiled code) or rounds down (the interpreter).
"""

from __future__ import annotations

import re
from collections.abc import Iterable

FUNCTIONS: dict[str, str] = {
    "add": "def add(a, b):\n    return a + b",
    "multiply": "def multiply(a, b):\n    return a * b",
    "both": "def both(a, b):\n    return a & b",
    "either": "def either(a, b):\n    return a | b",
    "greater": "def greater(a, b):\n    return tl.maximum(a, b, propagate_nan=tl.PropagateNan.ALL)",
    "lesser": "def lesser(a, b):\n    return tl.minimum(a, b, propagate_nan=tl.PropagateNan.ALL)",
    "divisor": """
def divisor(b):
    return tl.where(b == 0, 1, b)
""",
    "floor_divide": """
def floor_divide(a, b):
    q = a // b
    r = a - q * b
    return tl.where((r != 0) & ((r < 0) != (b < 0)), q - 1, q)
""",
    "modulo": """
def modulo(a, b):
    return a - floor_divide(a, b) * b
""",
    "truncating_divide": """
def truncating_divide(a, b):
    q = a // b
    r = a - q * b
    return tl.where((r != 0) & ((r < 0) != (a < 0)), q + 1, q)
""",
    "remainder": """
def remainder(a, b):
    return a - truncating_divide(a, b) * b
""",
}
"""Name -> source. `needed` finds what calls what."""


def needed(names: Iterable[str]) -> list[str]:
    """The functions and those that they call, callees first."""
    out: list[str] = []

    def visit(name: str) -> None:
        for callee in FUNCTIONS:
            if callee != name and re.search(rf"\b{callee}\(", FUNCTIONS[name]):
                visit(callee)
        if name not in out:
            out.append(name)

    for name in sorted(names):
        visit(name)
    return out
