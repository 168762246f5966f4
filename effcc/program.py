"""Programs: compiled models, ready to be called, saved and inspected."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from effcc.errors import InputError


class Program:
    """A compiled model: `program(*inputs)` in the graph's input order, or one dict by name; always gives a tuple.

    Inputs are NumPy arrays or torch tensors; outputs are of the same kind.
    """

    search: Any = None
    """The outcome of the search within a budget, where there was one (effcc.search.budget)."""

    def __init__(
        self,
        source: Any,
        graph: Any,
        code: Any,
        target: str,
        ctx: Any = None,
        times: Any = None,
        seconds: Mapping[str, float] | None = None,
    ):
        self.source, self.graph, self.code, self.target = source, graph, code, target
        self.context, self.times, self.seconds = ctx, times, dict(seconds or {})
        self.input_names = tuple(v.name or f"input{k}" for k, v in enumerate(graph.inputs))
        self.output_names = tuple(v.name or f"output{k}" for k, v in enumerate(source.results))
        self.saved_facts: dict[str, Any] | None = None
        self.fixed: Mapping[str, Any] = {}
        """Contents of inputs that the program was compiled for: it refuses others."""

    def __call__(self, *inputs: Any, threads: int | None = None) -> tuple[Any, ...]:
        """Run once. Raises InputError where an input does not fit."""
        if len(inputs) == 1 and isinstance(inputs[0], Mapping):
            inputs = by_name(inputs[0], self.input_names)
        if self.fixed:
            self._check_fixed(inputs)
        return self.code(*inputs, threads=threads)

    def _check_fixed(self, inputs: Sequence[Any]) -> None:
        import numpy as np

        for name, given in zip(self.input_names, inputs):
            if name in self.fixed and not np.array_equal(np.asarray(given), self.fixed[name]):
                message = f"the program was compiled for {np.asarray(self.fixed[name]).tolist()}"
                raise InputError(message, where=f"input {name!r}", hint="compile the model for this value")

    def trace(self, inputs: Sequence[Any] | Mapping[str, Any], path: str | Path, threads: int | None = None) -> None:
        """Run, and write when and where each task of the second run ran: JSON for https://ui.perfetto.dev.

        For programs without barriers: schedule="tiles", or "auto" where that is what it chose.
        """
        from effcc.files import beside

        arrays = by_name(inputs, self.input_names) if isinstance(inputs, Mapping) else inputs
        timeline = self.code.timeline(*arrays, threads=threads) if hasattr(self.code, "timeline") else None
        if timeline is None:
            message = "there are no tasks to trace: the program runs under barriers"
            raise InputError(message, hint='compile it with schedule="tiles"')
        with beside(Path(path), "the trace") as file:
            file.write(json.dumps(timeline).encode())

    @property
    def launches(self) -> Sequence[Any]:
        """The kernel launches of the program, in order."""
        return self.code.launches

    def report(self) -> str:
        """What the passes did and what the program consists of, as text."""
        from effcc.report import text

        return text(self)

    def save(self, path: str | Path) -> None:
        """Write a .effcc artifact, or what the target's files are; nothing is left behind if that fails."""
        if hasattr(self.code, "save"):
            self.code.save(path)
            return
        from effcc.artifact import save

        save(self, path)


class LoadedProgram(Program):
    """A program from an artifact. Its graph is read from the artifact's text when asked for, and lacks the weights."""

    def __init__(self, code: Any, facts: dict[str, Any], graph_text: str, path: str):
        self.code, self.graph_text, self.path = code, graph_text, path
        self.saved_facts = self.facts = facts
        self.target, self.context, self.times, self.seconds = facts["target"], None, None, {}
        self.fixed = facts["fixed"]
        self.input_names = tuple(x["name"] for x in facts["inputs"])
        self.output_names = tuple(x["name"] for x in facts["outputs"])

    @property
    def launches(self) -> Sequence[Any]:
        return self.facts["kernels"]

    @cached_property
    def graph(self) -> Any:  # type: ignore[override]
        from effcc.artifact import parse_saved

        return parse_saved(self.graph_text, self.path)

    def save(self, path: str | Path) -> None:
        raise InputError("a loaded program is saved already", where=self.path, hint="copy the file")


def by_name(given: Mapping[str, Any], names: Sequence[str]) -> tuple[Any, ...]:
    """The values of a dict in the order of names; each must be there, and no other."""
    missing = [n for n in names if n not in given]
    unknown = [n for n in given if n not in names]
    if missing or unknown:
        what = "; ".join(
            filter(
                None,
                [
                    f"missing {', '.join(missing)}" if missing else "",
                    f"unknown {', '.join(unknown)}" if unknown else "",
                ],
            )
        )
        raise InputError(f"inputs: {what}", hint=f"the program takes {', '.join(names)}")
    return tuple(given[n] for n in names)


__all__ = ["LoadedProgram", "Program", "by_name"]
