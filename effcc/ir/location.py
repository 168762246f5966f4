"""Where in the user's model an op came from; every error names one.

    Loc := name "mlp.onnx":"/fc/MatMul" | fused(locs) | from-pass(name, loc)
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Loc:
    """A source file (or module) and a line, or the name of a node or module in it."""

    source: str = ""
    name: str = ""

    def __str__(self) -> str:
        return ":".join(part for part in (self.source, self.name) if part)


@dataclass(frozen=True, slots=True)
class FusedLoc(Loc):
    """Several origins that a rewrite merged into one op."""

    locs: tuple[Loc, ...] = ()

    def __str__(self) -> str:
        shown = [str(loc) for loc in self.locs[:3]] + (["..."] if len(self.locs) > 3 else [])
        return " + ".join(shown)


@dataclass(frozen=True, slots=True)
class PassLoc(Loc):
    """An op that a pass made while it replaced the op at `origin`."""

    origin: Loc = Loc()

    def __str__(self) -> str:
        return f"{self.name}({self.origin})"


UNKNOWN = Loc()


def merge(locs: tuple[Loc, ...]) -> Loc:
    """One location for several: duplicates and unknowns drop out.

    >>> str(merge((Loc("m.onnx", "a"), UNKNOWN, Loc("m.onnx", "a"), Loc("m.onnx", "b"))))
    'm.onnx:a + m.onnx:b'
    """
    flat: dict[Loc, None] = {}
    for loc in locs:
        for part in loc.locs if isinstance(loc, FusedLoc) else (loc,):
            if part != UNKNOWN:
                flat[part] = None
    if len(flat) <= 1:
        return next(iter(flat), UNKNOWN)
    return FusedLoc(locs=tuple(flat))
