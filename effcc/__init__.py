"""effcc: an optimizing compiler for trained neural networks.

    >>> import effcc
    >>> effcc.__version__.count(".")
    2

The public names are loaded on first use, so `import effcc` costs milliseconds and pulls in neither torch nor the
compiler.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from effcc.artifact import load
    from effcc.driver import compile
    from effcc.errors import EffccError
    from effcc.program import Program

__version__ = "0.1.0"
__all__ = ["EffccError", "Program", "__version__", "compile", "load"]

_HOMES = {
    "EffccError": "effcc.errors",
    "Program": "effcc.program",
    "compile": "effcc.driver",
    "load": "effcc.artifact",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'effcc' has no attribute {name!r}; it offers {', '.join(__all__)}")
    value = globals()[name] = getattr(import_module(_HOMES[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))
