"""Frontends: a model becomes a Graph, one package a model format, imported as `effcc.frontends`.

`FRONTENDS` lists them; `find` asks each, cheaply, whether a model is its own. A frontend module offers
`accepts(model) -> bool` and `load(model, inputs=None, shapes=None, fixed=None) -> Graph`.
"""

from __future__ import annotations

import importlib
from typing import Any

FRONTENDS = ("effcc.frontends.graph", "effcc.frontends.onnx", "effcc.frontends.torch")


def find(model: Any) -> Any | None:
    """The frontend module that takes a model, or None."""
    for name in FRONTENDS:
        module = importlib.import_module(name)
        if module.accepts(model):
            return module
    return None
