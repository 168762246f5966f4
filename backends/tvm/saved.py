"""A compiled program as the parts of an artifact, and back. Imports no compiler: this is how a saved program is loaded.

    artifact.write(path, backend="cpu", machine=machine, **parts(program, objects, driver, constants))
    executable = load(artifact.read(path))

A launch program is JSON: each dataclass of entry.py a list of its name and its fields, expressions lists as well, bytes
in base64.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Mapping
from dataclasses import fields
from functools import cache
from typing import Any

import numpy as np

from effcc.artifact import Artifact
from effcc.errors import ParseError

from . import entry
from .runtime import Executable
from .wellformed import check

_KINDS: dict[str, type] = {
    kind.__name__: kind
    for kind in (
        entry.Program, entry.Size, entry.Input, entry.Output, entry.Constant, entry.Temporary, entry.Launch, entry.Copy,
        entry.SetSize, entry.LoadSize, entry.StoreSize, entry.Rebind, entry.If, entry.While, entry.Check, entry.Tiles,
    )
}  # fmt: skip
DRIVER = "code/driver.o"


def parts(
    program: entry.Program, objects: Mapping[str, bytes], driver: bytes, constants: Mapping[str, np.ndarray]
) -> dict[str, Any]:
    """What artifact.write takes of a compiled program; `objects` are the object files by their kernels' symbols."""
    blobs = {f"code/{symbol}.o": image for symbol, image in objects.items()}
    return {"program": to_json(program), "blobs": {**blobs, DRIVER: driver}, "constants": dict(constants)}


def load(artifact: Artifact, threads: int | None = None) -> Executable:
    """The program of an artifact, loaded. Raises ParseError where the artifact's parts do not make one."""
    try:
        program = from_json(artifact.program)
        check(program)
        driver = artifact.blobs[DRIVER]
        images = [blob for name, blob in artifact.blobs.items() if name.startswith("code/") and name != DRIVER]
        return Executable(program, images, driver, artifact.constants, threads=threads)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, RecursionError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise ParseError(
            f"its launch program is malformed ({reason})", where=artifact.path, hint="compile the model again"
        ) from error


def to_json(value: Any) -> Any:
    """
    >>> to_json(entry.Copy("a", "b", ("mul", "N", 4)))
    ['Copy', 'a', 'b', ['mul', 'N', 4]]
    """
    if isinstance(value, tuple):
        return [to_json(item) for item in value]
    if isinstance(value, bytes):
        return {"bytes": b64encode(value).decode()}
    if type(value).__name__ in _KINDS:
        return [type(value).__name__, *(to_json(getattr(value, name)) for name in _fields(type(value)))]
    return value


def from_json(value: Any) -> Any:
    """
    >>> from_json(["Copy", "a", "b", ["mul", "N", 4]])
    Copy(target='a', source='b', bytes=('mul', 'N', 4))
    """
    if isinstance(value, dict):
        return b64decode(value["bytes"], validate=True)
    if not isinstance(value, list):
        return value
    items = tuple(map(from_json, value))
    if items and isinstance(items[0], str) and items[0] in _KINDS:
        return _KINDS[items[0]](*items[1:])
    return items


@cache
def _fields(kind: type) -> tuple[str, ...]:
    return tuple(field.name for field in fields(kind))
