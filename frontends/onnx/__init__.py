"""ONNX models become graphs: `load("model.onnx")`.

What cannot be settled at import because it depends on run-time data raises `NeedsValue`, which names the inputs to
specialise on; `import_model` also tells how the model's sequences and optionals lie in the graph.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from effcc.frontends.onnx.importer import Imported
    from effcc.ir.graph import Graph


def load(model: Any, shapes: Mapping[str, Any] | None = None, fixed: Mapping[str, Any] | None = None) -> Graph:
    """Import an ONNX model: a path, serialized bytes, or a ModelProto.

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


def value_inputs(
    model: Any, shapes: Mapping[str, Any] | None = None, fixed: Mapping[str, Any] | None = None
) -> tuple[str, ...]:
    """The inputs whose values (or, for sequences and optionals, structure) the next import would ask for; () if none."""
    from effcc.frontends.onnx.node import NeedsValue

    try:
        imported(model, shapes, fixed)
    except NeedsValue as needs:
        return needs.inputs
    return ()


def __getattr__(name: str) -> Any:
    if name == "NeedsValue":
        from effcc.frontends.onnx.node import NeedsValue

        return NeedsValue
    raise AttributeError(name)


__all__ = ["NeedsValue", "imported", "load", "value_inputs"]
