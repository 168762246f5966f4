"""How long each launch of a program takes, and how near that comes to what the machine can do.

Williams, Waterman and Patterson, "Roofline" (2009): a kernel is bound by arithmetic or by memory. Work is counted from
the graph (flops), data from what a launch's operands and results hold (bytes, each counted once): what caches keep
from one launch to the next may be read faster than memory gives it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from effcc.program import Program


@dataclass(frozen=True)
class Timed:
    """A launch: seconds; its flops and bytes, None where an artifact does not know them for these sizes; these, each
    second, as shares of the machine's fp32 peak and of its bandwidth, None where that was not measured."""

    label: str
    template: str
    seconds: float
    flops: int | None
    bytes: int | None
    of_peak: float | None = None
    of_bandwidth: float | None = None

    def as_json(self) -> dict[str, Any]:
        shares = {"of_peak": self.of_peak, "of_bandwidth": self.of_bandwidth}
        return {"label": self.label, "template": self.template, "milliseconds": 1e3 * self.seconds,
                "flops": self.flops, "bytes": self.bytes, **shares}  # fmt: skip


@dataclass(frozen=True)
class Profile:
    """The launches of a program in order, and the machine's peaks: fp32 FLOP/s and bytes/s, of `threads` threads; None
    for a target other than this machine's CPU."""

    threads: int
    peak: float | None
    bandwidth: float | None
    launches: tuple[Timed, ...]

    def as_json(self) -> dict[str, Any]:
        return {"threads": self.threads, "peak": self.peak, "bandwidth": self.bandwidth,
                "launches": [launch.as_json() for launch in self.launches]}  # fmt: skip


def profile(program: Program, arrays: Mapping[str, Any], threads: int, rounds: int) -> Profile:
    """Times each launch: the mean of so many calls on these inputs, by name. Measures the machine, once a process."""
    from effcc.program import by_name

    times = program.code.profile(*by_name(arrays, program.input_names), threads=threads, repeat=rounds)
    work = _work(program, sizes_of(program, arrays))
    table = import_module("effcc.backends").PEAKS
    peaks = resolve_name(table[program.target])(threads) if program.target in table else None

    def timed(label: str, seconds: float, kernel: Mapping[str, Any]) -> Timed:
        flops, moved = kernel.get("flops"), kernel.get("bytes")
        rates = [n / seconds if n is not None and seconds else None for n in (flops, moved)]
        most = (peaks.flops, peaks.bandwidth) if peaks else (None, None)
        shares = (rate / top if rate is not None and top else None for rate, top in zip(rates, most))
        return Timed(label, kernel["template"], seconds, flops, moved, *shares)

    launches = (timed(label, s, kernel) for (label, s), kernel in zip(times, work, strict=True))
    return Profile(threads, peaks and peaks.flops, peaks and peaks.bandwidth, tuple(launches))


def sizes_of(program: Program, arrays: Mapping[str, Any]) -> dict[str, int]:
    """The sizes that these inputs, by name, give to the program's symbols. Raises InputError where they do not fit."""
    from effcc.interp import as_tensor, bind_inputs

    bound = bind_inputs(program.graph.inputs, [as_tensor(arrays[name]) for name in program.input_names])
    return {symbol.name: n for symbol, n in bound.items()}


def _work(program: Program, sizes: Mapping[str, int]) -> Sequence[Mapping[str, Any]]:
    """What is known of each launch at these sizes; of an artifact's, at sizes that it was not saved for, the template
    alone."""
    from effcc.report import smallest

    saved = program.saved_facts
    if saved is None:
        return program.code.kernels({**smallest(program.graph), **sizes})
    known = all(saved["sizes"].get(name) == n for name, n in sizes.items())
    return saved["kernels"] if known else [{"template": kernel["template"]} for kernel in saved["kernels"]]
