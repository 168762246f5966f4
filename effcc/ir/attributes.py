"""Values against the annotations of dataclass fields: what text and JSON give is of the type that a field declares."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from effcc.ir.blob import Blob
from effcc.ir.dims import Expr, Symbol
from effcc.ir.graph import Graph
from effcc.ir.types import DType, Encoding, Optional, RngState, Sequence, SymInt, Tensor

Fits = Callable[[Any], bool]


def _of(*kinds: type) -> Fits:
    return lambda value: isinstance(value, kinds) and not (isinstance(value, bool) and bool not in kinds)


KINDS: dict[str, Fits] = {
    "None": lambda value: value is None,
    "bool": _of(bool),
    "int": _of(int),
    "float": _of(int, float),
    "str": _of(str),
    "Dim": _of(int, Symbol, Expr),
    "Symbol": _of(Symbol),
    "DType": _of(DType),
    "Encoding": _of(Encoding),
    "Type": _of(Tensor, Sequence, Optional, SymInt, RngState),
    "Graph": _of(Graph),
    "Blob": _of(Blob),
}
"""What an attribute of an op may be."""


def fits(value: Any, annotation: str) -> bool:
    """Whether a value is of an annotated type: one of KINDS, tuples and unions of them.

    >>> fits((1, 2), "tuple[int, ...]"), fits(True, "int"), fits(None, "tuple[int, int] | None")
    (True, False, True)
    """
    return checker(annotation)(value)


@cache
def checker(annotation: str) -> Fits:
    return read(annotation, KINDS)


def read(annotation: str, kinds: Mapping[str, Fits]) -> Fits:
    """The predicate of an annotation, its plain names looked up in `kinds`."""
    choices = split(annotation, "|")
    if len(choices) > 1:
        several = [read(choice, kinds) for choice in choices]
        return lambda value: any(fit(value) for fit in several)
    if not annotation.startswith("tuple["):
        return kinds[annotation]
    items = split(annotation[len("tuple[") : -1], ",")
    if items[-1] == "...":
        each = read(items[0], kinds)
        return lambda value: isinstance(value, tuple) and all(map(each, value))
    fitting = [read(item, kinds) for item in items]
    return lambda value: (
        isinstance(value, tuple)
        and len(value) == len(fitting)
        and all(fit(x) for fit, x in zip(fitting, value, strict=True))
    )


def split(text: str, sign: str) -> list[str]:
    """The parts of a text between signs outside of brackets."""
    parts, depth = [""], 0
    for character in text:
        depth += (character == "[") - (character == "]")
        if character == sign and not depth:
            parts.append("")
        else:
            parts[-1] += character
    return [part.strip() for part in parts]
