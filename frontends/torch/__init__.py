"""PyTorch: exported programs and modules become graphs; `torch.compile(module, backend="effcc")`.

    >>> import torch
    >>> from effcc.frontends.torch import load
    >>> graph = load(torch.nn.Linear(3, 2), inputs=(torch.zeros(4, 3),), shapes={"input": ("B", 3)})
    >>> str(graph.inputs[0].type), str(graph.results[0].type)
    ('f32[B,3]', 'f32[B,2]')

Importing this package is cheap; torch is imported by the functions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from effcc.ir import Graph


def accepts(model: Any) -> bool:
    """Whether a model is this frontend's: an nn.Module or an ExportedProgram. Asks without importing torch."""
    import sys

    torch = sys.modules.get("torch")
    if torch is None:
        return False
    return isinstance(model, torch.nn.Module) or isinstance(model, torch.export.ExportedProgram)


def load(model: Any, inputs: Any = None, shapes: Any = None, fixed: Any = None) -> Graph:
    """A module (with example `inputs`: a tensor, a tuple, a dict by argument name) or an exported program as a graph.

    shapes: {argument: (sizes...)}; a size may be a number, a symbol's name, or a (lowest, highest) range. The example
        inputs give the rest. fixed: for frontends that specialise on values; none are needed here.
    """
    from effcc.frontends.torch.module import from_exported_or_module

    return from_exported_or_module(model, inputs, shapes)


def backend(module: Any, example_inputs: Any, **options: Any) -> Callable[..., Any]:
    """The torch.compile backend "effcc" (an entry point of torch_dynamo_backends)."""
    from effcc.frontends.torch.dynamo import compile_fx

    return compile_fx(module, example_inputs, **options)
