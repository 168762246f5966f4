"""Models whose structure depends on the values or shapes of some inputs: one program for each that is met.

Shapes, axes and the like are attributes in the IR. Where a model takes them as run-time inputs, its import raises
`NeedsValue`; the model is then imported and compiled again for the values of a call, and kept under them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from effcc.errors import InputError, NeedsValue
from effcc.program import Program, by_name


class Unit(NamedTuple):
    """A program, and which of its inputs and results each input and output of the model consists of (None: one
    each)."""

    program: Program
    inputs: Sequence[Any] | None = None
    outputs: Sequence[Any] | None = None


class Specializing:
    """Called like a Program; compiles when it meets new values.

    make(fixed, shapes) -> Unit, or NeedsValue. fixed: {input name: contents} (of sequences and optionals the structure
    counts); shapes: {input name: shape}.
    """

    LIMIT = 64
    """The most programs that are kept."""

    def __init__(
        self,
        make: Callable[[Mapping[str, Any], Mapping[str, Any]], Unit],
        input_names: Sequence[str],
        values: Sequence[str] = (),
        shapes: Sequence[str] = (),
    ):
        self.make, self.input_names = make, tuple(input_names)
        self.values, self.shapes = dict.fromkeys(values), dict.fromkeys(shapes)
        self.units: dict[Any, Unit] = {}

    def unit(self, given: Mapping[str, Any]) -> Unit:
        """What was compiled for these inputs; compiles it where there is nothing yet."""
        while True:
            fixed = {n: _contents(given[n]) for n in self.values}
            shapes = {n: np.shape(given[n]) for n in self.shapes}
            key = (tuple((n, _key(v)) for n, v in fixed.items()), tuple(shapes.items()))
            if key in self.units:
                return self.units[key]
            try:
                made = self.make(fixed, shapes)
            except NeedsValue as needs:
                if not set(needs.inputs) - self.values.keys() and not set(needs.shapes) - self.shapes.keys():
                    raise
                self.values |= dict.fromkeys(needs.inputs)
                self.shapes |= dict.fromkeys(needs.shapes)
                continue
            if len(self.units) >= self.LIMIT:
                self.units.pop(next(iter(self.units)))
            self.units[key] = made
            return made

    def program(self, *inputs: Any) -> Program:
        """The program that these inputs run."""
        return self.unit(self._named(inputs)).program

    def __call__(self, *inputs: Any, threads: int | None = None) -> tuple[Any, ...]:
        """Run once: lists for sequences, None for absent optionals, tensors else. Raises InputError, NeedsValue."""
        given = self._named(inputs)
        program, ports, results = self.unit(given)
        values = tuple(given.values())
        if ports is not None:
            values = tuple(v for port, value in zip(ports, values) for v in _elements(port, value))
        outs = program(*values, threads=threads)
        return outs if results is None else tuple(_gathered(port, outs) for port in results)

    def _named(self, inputs: tuple[Any, ...]) -> dict[str, Any]:
        if len(inputs) == 1 and isinstance(inputs[0], Mapping):
            inputs = by_name(inputs[0], self.input_names)
        if len(inputs) != len(self.input_names):
            raise InputError(
                f"the program takes {len(self.input_names)} inputs, got {len(inputs)}", hint=", ".join(self.input_names)
            )
        return dict(zip(self.input_names, inputs))

    @property
    def launches(self) -> list[Any]:
        """The kernel launches of all programs so far."""
        return [launch for unit in self.units.values() for launch in unit.program.launches]


def _contents(value: Any) -> Any:
    if value is None or isinstance(value, (list, tuple)):
        return value if value is None else [_contents(v) for v in value]
    return np.asarray(value)


def _key(value: Any) -> Any:
    if value is None:
        return None
    if isinstance(value, list):
        return tuple((np.shape(v), str(v.dtype)) for v in value)
    return value.shape, str(value.dtype), value.tobytes()


def _elements(port: Any, value: Any) -> Sequence[Any]:
    if value is None:
        return ()
    return value if isinstance(value, (list, tuple)) else (value,)


def _gathered(port: Any, outs: Sequence[Any]) -> Any:
    if port.kind == "sequence":
        return [outs[i] for i in port.positions]
    return outs[port.positions[0]] if port.positions else None
