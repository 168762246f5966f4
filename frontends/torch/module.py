"""nn.Module -> torch.export -> Graph, with the user's names for dynamic sizes."""

from __future__ import annotations

import inspect
from typing import Any

import torch

from effcc.errors import InputError, UnsupportedError
from effcc.frontends.torch.fx import from_exported
from effcc.ir import Graph, Symbol, as_symbol


def from_exported_or_module(model: Any, inputs: Any = None, shapes: Any = None, name: str | None = None) -> Graph:
    if isinstance(model, torch.export.ExportedProgram):
        if shapes:
            raise InputError(
                "an exported program has its dynamic sizes already", hint="pass shapes to torch.export instead"
            )
        return from_exported(model, name=name or "main")
    return from_module(model, inputs, shapes, name)


def from_module(module: torch.nn.Module, inputs: Any, shapes: Any = None, name: str | None = None) -> Graph:
    """Export a module with example inputs and import it. Weights are shared, not copied.

    inputs: a tensor, a tuple of tensors, or a dict by argument name.
    shapes: {argument: (sizes...)}: a number, a symbol's name, a (lowest, highest) range, a Symbol, or None for the
        example's size.
    """
    if inputs is None:
        raise InputError("a module needs example inputs", hint="effcc.compile(module, inputs=(x,))")
    args, kwargs = _arguments(inputs)
    shapes = dict(shapes or {})
    names = _named(module, args, kwargs)
    if unknown := set(shapes) - set(names):
        raise InputError(f"shapes names no argument {sorted(unknown)[0]!r}", hint=f"one of {', '.join(names)}")
    dims: dict[str, Any] = {}
    dynamic = {n: _dynamic(n, v, shapes.get(n), dims) for n, v in names.items()} if shapes else None
    try:
        with torch.no_grad():
            program = torch.export.export(
                module, args, kwargs, dynamic_shapes=_by_position(module, dynamic, args, kwargs)
            )
    except Exception as error:
        raise UnsupportedError(
            f"torch.export cannot trace {type(module).__name__}: {type(error).__name__}: {_reason(error)}",
            hint="see torch.export's documentation, or use torch.compile(module, backend='effcc')",
        ) from error
    return from_exported(program, _symbol_names(program, names, shapes), name or type(module).__name__)


def _reason(error: Exception) -> str:
    """One line of torch's message: the constraint that fails where it lists one, else the first."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return next((line[2:] for line in lines if line.startswith("- ")), lines[0] if lines else "")


def _arguments(inputs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if isinstance(inputs, dict):
        return (), dict(inputs)
    if isinstance(inputs, (tuple, list)):
        return tuple(inputs), {}
    return (inputs,), {}


def _named(module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """The arguments by parameter name, in order."""
    bound = inspect.signature(module.forward).bind_partial(*args, **kwargs)
    out: dict[str, Any] = {}
    for key, value in bound.arguments.items():
        parameter = inspect.signature(module.forward).parameters[key]
        if parameter.kind is parameter.VAR_KEYWORD:
            out.update(value)
        elif parameter.kind is parameter.VAR_POSITIONAL:
            out.update({f"{key}_{i}": v for i, v in enumerate(value)})
        else:
            out[key] = value
    return out


def _dynamic(name: str, value: Any, shape: Any, dims: dict[str, Any]) -> Any:
    if shape is None or not isinstance(value, torch.Tensor):
        return None
    if len(shape) != value.dim():
        raise InputError(f"shapes gives {name} {len(shape)} axes, the example has {value.dim()}")
    out: dict[int, Any] = {}
    for axis, size in enumerate(shape):
        symbol = _symbol(size, f"{name}_{axis}")
        if symbol is not None:
            if symbol.name not in dims:
                dims[symbol.name] = torch.export.Dim(symbol.name, min=symbol.lo or None, max=symbol.hi)
            out[axis] = dims[symbol.name]
        elif size is not None and size != value.shape[axis]:
            raise InputError(f"shapes says {size} for axis {axis} of {name}, the example has {value.shape[axis]}")
    return out or None


def _symbol(size: Any, name: str) -> Symbol | None:
    """What a user writes for a size as a symbol: its name, a (lowest, highest) range, a Symbol; None for a number."""
    if isinstance(size, str):
        return Symbol(size)
    if isinstance(size, (tuple, list)):
        return Symbol(name, int(size[0]), int(size[1]))
    return None if size is None or isinstance(size, int) else as_symbol(size)


def _by_position(
    module: torch.nn.Module, dynamic: dict[str, Any] | None, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    """torch.export wants the same structure as the signature: variadic parameters as tuples and dicts."""
    if dynamic is None:
        return None
    out: dict[str, Any] = {}
    for key, parameter in inspect.signature(module.forward).parameters.items():
        if parameter.kind is parameter.VAR_POSITIONAL:
            rest = tuple(v for k, v in dynamic.items() if k.startswith(f"{key}_"))
            if rest:
                out[key] = rest
        elif parameter.kind is parameter.VAR_KEYWORD:
            known = set(inspect.signature(module.forward).parameters)
            out.update({k: v for k, v in dynamic.items() if k not in known})
        elif key in dynamic:
            out[key] = dynamic[key]
    return out


def _symbol_names(program: Any, arguments: dict[str, Any], shapes: dict[str, Any]) -> dict[str, str]:
    """torch's symbol -> the user's name, read off the exported placeholders."""
    fakes = {n.name: n.meta["val"] for n in program.graph.nodes if n.op == "placeholder"}
    out: dict[str, str] = {}
    for name, shape in shapes.items():
        fake = fakes.get(name)
        if fake is None:
            continue
        for axis, (size, d) in enumerate(zip(shape, fake.shape, strict=True)):
            expr = getattr(getattr(d, "node", None), "expr", None)
            symbol = _symbol(size, f"{name}_{axis}")
            if expr is not None and expr.is_Symbol and symbol is not None:
                out[str(expr)] = symbol.name
    return out
