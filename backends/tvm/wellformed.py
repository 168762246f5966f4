"""Whether a launch program that was read from a file is one: types of fields, expressions, alignments, dtypes.

That names are defined is checked as it is encoded; that a kernel gets what it was compiled for is what the artifact's
hashes are for.
"""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from typing import Any

from effcc.ir.attributes import KINDS, Fits, read

from . import entry
from .runtime.arrays import ITEM_BYTES

DEEPEST = 100
"""Operators in a size expression, one inside of the other."""


def check(program: Any) -> None:
    """Raises ValueError, with the part that is wrong, where a value is not a launch program."""
    if not isinstance(program, entry.Program):
        raise ValueError("not a program")
    _check(program)
    buffers = {x.name: x for x in program.inputs}
    for output in program.outputs:
        if output.alias is not None and not (output.alias in buffers and buffers[output.alias].overwritten):
            raise ValueError(f"output {output.name!r} is in no input's memory")


def _check(part: Any) -> None:
    for field in fields(part):
        value = getattr(part, field.name)
        if not read(str(field.type), _KINDS)(value):
            raise ValueError(f"{type(part).__name__} has no valid {field.name}")
        for inner in value if isinstance(value, tuple) else (value,):
            if is_dataclass(inner):
                _check(inner)
    match part:
        case entry.Input(dtype=dtype) | entry.Output(dtype=dtype) if dtype not in ITEM_BYTES and dtype != "size":
            raise ValueError(f"there is no dtype {dtype!r}")
        case entry.Input(alignment=alignment) if alignment < 1 or alignment & (alignment - 1):
            raise ValueError(f"{alignment} is no alignment")
        case entry.Temporary(offset=int(offset)) if offset < 0:
            raise ValueError("a temporary begins before the arena")
        case entry.LoadSize(dtype=dtype) if dtype not in ("bool", "i32", "i64"):
            raise ValueError(f"sizes are not loaded from {dtype!r}")


def _expression(value: Any, depth: int = 0) -> bool:
    if isinstance(value, tuple):
        known = len(value) == 3 and value[0] in entry.OPERATORS and depth < DEEPEST
        return known and all(_expression(x, depth + 1) for x in value[1:])
    return isinstance(value, str) or (type(value) is int and -(2**63) <= value < 2**63)


def _instance(*kinds: type) -> Fits:
    return lambda value: isinstance(value, kinds)


_KINDS: dict[str, Fits] = {
    **KINDS,
    "Expression": _expression,
    "bytes": _instance(bytes),
    "Step": _instance(entry.Launch, entry.Copy, entry.SetSize, entry.LoadSize, entry.StoreSize, entry.Rebind, entry.If,
                      entry.While, entry.Check, entry.Tiles),
    **{kind.__name__: _instance(kind) for kind in (entry.Size, entry.Input, entry.Output, entry.Constant,
                                                   entry.Temporary, entry.Launch, entry.Copy, entry.Check)},
}  # fmt: skip
