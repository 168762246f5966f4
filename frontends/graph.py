"""Graphs that exist already: an `effcc.ir.Graph`, or its text in a `.effir` file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from effcc.errors import EffccError
from effcc.ir import Graph


def accepts(model: Any) -> bool:
    return isinstance(model, Graph) or (isinstance(model, (str, Path)) and str(model).endswith(".effir"))


def load(model: Any, inputs: Any = None, shapes: Any = None, fixed: Any = None) -> Graph:
    if isinstance(model, Graph):
        return model
    from effcc.text import parse

    try:
        return parse(Path(model).read_text())
    except (OSError, UnicodeDecodeError) as error:
        raise EffccError(f"cannot be read: {error}", where=str(model), hint="check the path") from None
