"""Running passes, watched by instruments."""

from __future__ import annotations

import contextlib
import gc
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TextIO

from effcc.errors import EffccError, VerifyError
from effcc.ir.graph import Graph
from effcc.ir.verify import verify
from effcc.pipeline.context import Context
from effcc.pipeline.passes import Pass


class Instrument:
    """Watches a run of passes."""

    def before(self, p: Pass, graph: Graph, ctx: Context) -> None:
        """Called before a pass runs."""

    def after(self, p: Pass, old: Graph, new: Graph, seconds: float, ctx: Context) -> None:
        """Called after it ran; `new is old` where nothing changed."""


@dataclass
class Verify(Instrument):
    """The verifier, after each pass that changed something; a failure names the pass."""

    def after(self, p: Pass, old: Graph, new: Graph, seconds: float, ctx: Context) -> None:
        if new is old:
            return
        try:
            verify(new, known=frozenset(old.nodes))
        except VerifyError as error:
            raise VerifyError(f"pass {p.name} broke the graph: {error.message}", where=error.where) from error


@dataclass
class PrintAfter(Instrument):
    """The graph as text after passes (all that changed it, or the named ones), headed by what the pass did."""

    names: frozenset[str] | None = None
    file: TextIO | None = None

    def after(self, p: Pass, old: Graph, new: Graph, seconds: float, ctx: Context) -> None:
        if new is old or (self.names is not None and p.name not in self.names):
            return
        fired = ", ".join(f"{count} {rule}" for rule, count in ctx.count(p.name).items()) or "no rules logged"
        print(f"# after {p}: {len(old.nodes)} -> {len(new.nodes)} ops; {fired}\n{new}", file=self.file)


@dataclass(frozen=True)
class PassTime:
    text: str
    seconds: float
    ops_before: int
    ops_after: int
    rewrites: int
    """How many rewrites the log held when the pass was done."""


@dataclass
class Time(Instrument):
    """How long each pass took, in order."""

    entries: list[PassTime] = field(default_factory=list)

    def after(self, p: Pass, old: Graph, new: Graph, seconds: float, ctx: Context) -> None:
        self.entries.append(PassTime(str(p), seconds, len(old.nodes), len(new.nodes), len(ctx.log)))


@contextlib.contextmanager
def collector_paused() -> Iterator[None]:
    """Without the garbage collector's scans, whose cost grows with all that lives: graphs hold few cycles."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@dataclass(frozen=True)
class PassManager:
    """Runs passes in order.

    >>> from effcc.ir import Builder, Tensor, f32
    >>> from effcc.pipeline import parse_pipeline
    >>> b = Builder()
    >>> x = b.input("x", Tensor(f32, (3,)))
    >>> y, dead = b.neg(x), b.exp(x)
    >>> len(PassManager([Verify()]).run(b.graph(y), parse_pipeline("dce")).nodes)
    1
    """

    instruments: Sequence[Instrument] = ()

    def run(self, graph: Graph, passes: Iterable[Pass], ctx: Context | None = None) -> Graph:
        """The graph after all passes. Errors say which pass they happened in."""
        ctx = ctx or Context()
        for p in passes:
            for i in self.instruments:
                i.before(p, graph, ctx)
            ctx.current_pass = p.name
            start = time.perf_counter()
            try:
                with collector_paused():
                    new = p.run(graph, ctx)
            except EffccError as error:
                error.add_note(f"in pass {p}")
                raise
            seconds = time.perf_counter() - start
            ctx.current_pass = ""
            for i in self.instruments:
                i.after(p, graph, new, seconds, ctx)
            graph = new
        return graph


@dataclass(frozen=True)
class Culprit:
    """What bisection found: the first rewrite with which the result is bad, or a pass that logs none."""

    pass_name: str
    rule: str | None
    number: int | None
    loc: Any
    before: Graph
    after: Graph


def bisect(graph: Graph, passes: Sequence[Pass], is_bad: Callable[[Graph], bool]) -> Culprit | None:
    """The first pass, then its first rewrite, after which `is_bad` holds; None where the whole pipeline is good."""
    manager = PassManager()
    good, bad = 0, len(passes)
    if not is_bad(manager.run(graph, passes)):
        return None
    while bad - good > 1:
        middle = (good + bad) // 2
        if is_bad(manager.run(graph, passes[:middle])):
            bad = middle
        else:
            good = middle
    before, p = manager.run(graph, passes[:good]), passes[good]
    full = Context()
    after = manager.run(before, [p], full)
    low, high = 0, len(full.log)
    if not high or is_bad(manager.run(before, [p], Context(fuel=0))):
        return Culprit(p.name, None, None, None, before, after)
    while high - low > 1:
        middle = (low + high) // 2
        if is_bad(manager.run(before, [p], Context(fuel=middle))):
            high = middle
        else:
            low = middle
    entry = full.log[high - 1]
    return Culprit(p.name, entry.rule, high, entry.loc, manager.run(before, [p], Context(fuel=low)),
                   manager.run(before, [p], Context(fuel=high)))
