"""ONNX models become graphs: `load("model.onnx")`.

What cannot be settled at import because it depends on run-time data raises `NeedsValue`, which names the inputs to
specialise on; `imported` also tells how the model's sequences and optionals lie in the graph.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from effcc.frontends.onnx.importer import Imported
    from effcc.ir.graph import Graph


def accepts(model: Any) -> bool:
    """Whether a model is a path to an .onnx file or a ModelProto."""
    if isinstance(model, (str, os.PathLike)):
        return os.fspath(model).endswith(".onnx")
    return type(model).__name__ == "ModelProto"


def load(
    model: Any,
    inputs: Any = None,
    shapes: Mapping[str, Any] | None = None,
    fixed: Mapping[str, Any] | None = None,
) -> Graph:
    """Import an ONNX model: a path, serialized bytes, or a ModelProto.

    inputs: not used; models tell their inputs' types by themselves.
    shapes: for an input, its shape; an axis is a size, a symbol's name, a (lowest, highest) range, or None to keep it.
    fixed: for an input, the contents to specialise on. It stays an input; whoever calls the program guards it.
    Raises ParseError, UnsupportedError (NeedsValue where `shapes` or `fixed` would help), InputError.
    """
    return imported(model, shapes, fixed).graph


def imported(model: Any, shapes: Mapping[str, Any] | None = None, fixed: Mapping[str, Any] | None = None) -> Imported:
    """The same, with the model's ports: which graph inputs and results its inputs and outputs consist of."""
    from effcc.frontends.onnx.importer import import_model
    from effcc.frontends.onnx.proto import read

    return import_model(read(model), shapes, fixed)


def signature(model: Any) -> tuple[str, ...]:
    """The names of a model's inputs, in order."""
    from effcc.frontends.onnx.proto import inputs, read

    return tuple(i.name for i in inputs(read(model).model.graph))


def value_inputs(
    model: Any, shapes: Mapping[str, Any] | None = None, fixed: Mapping[str, Any] | None = None
) -> tuple[str, ...]:
    """The inputs whose values (for sequences and optionals: structure) an import asks for next; () if it needs none."""
    from effcc.errors import NeedsValue

    try:
        imported(model, shapes, fixed)
    except NeedsValue as needs:
        return needs.inputs
    return ()


__all__ = ["accepts", "imported", "load", "signature", "value_inputs"]
