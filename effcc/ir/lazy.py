"""Modules that are imported when first used, so that `import effcc` stays quick and running an artifact needs no
torch."""

from __future__ import annotations

import importlib
from typing import Any


class LazyModule:
    """Stands for a module; the first attribute access imports it.

    >>> LazyModule("math").sqrt(4.0)
    2.0
    """

    def __init__(self, name: str):
        self.__dict__["_name"] = name

    def __getattr__(self, attribute: str) -> Any:
        value = getattr(importlib.import_module(self._name), attribute)
        self.__dict__[attribute] = value
        return value


torch: Any = LazyModule("torch")
F: Any = LazyModule("torch.nn.functional")
tvm: Any = LazyModule("tvm")
T: Any = LazyModule("tvm.tirx.script.builder")
"""TIR's builder"""
