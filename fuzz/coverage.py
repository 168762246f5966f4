"""What a test reaches: branches of the passes' code, rules that fire or refuse, pairs of ops and dtypes, groups.

    coverage = Coverage()
    new = coverage.run(a_pass, graph, ctx)        # watched
    coverage.take()                               # {"branch passes/fuse.py 85 87", "fired simplify double-neg", ...}

A branch is a pair of lines that follow each other in one frame, as coverage tools have it: `sys.monitoring` tells them
from Python 3.12 on, `sys.settrace` before. Only passes are watched, while they run, so the interpreter keeps its speed.
"""

from __future__ import annotations

import contextlib
import itertools
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from effcc.fuzz.pairs import nested, pairs
from effcc.ir import Graph, Tensor
from effcc.pipeline import Context, Pass

Edge = tuple[str, int, int]
"""(file, the line from which, the line to which control went)"""
COMPREHENSIONS = frozenset({"<genexpr>", "<listcomp>", "<setcomp>", "<dictcomp>"})


class SetTrace:
    """Edges by `sys.settrace`: each call asks whether its file is wanted, and lines are traced where it is, for some
    calls of each function. Comprehensions are left out: they are called often, and are one line mostly."""

    CALLS = 24

    def __init__(self, folders: Iterable[Path]):
        self.names = Names(folders)
        self.edges: set[Edge] = set()
        self._calls: dict[int, int] = {}
        self._before: Any = None

    def clear(self) -> None:
        self.edges.clear()
        self._calls.clear()

    def start(self) -> None:
        self._before = sys.gettrace()
        sys.settrace(self._called)

    def stop(self) -> None:
        sys.settrace(self._before)

    def _called(self, frame: Any, event: str, arg: Any) -> Any:
        code = frame.f_code
        name = self.names[code.co_filename]
        if name is None or code.co_name in COMPREHENSIONS:
            return None
        calls = self._calls[id(code)] = self._calls.get(id(code), 0) + 1
        if calls > self.CALLS:
            return None
        last, add = frame.f_lineno, self.edges.add

        def line(frame: Any, event: str, arg: Any) -> Any:
            nonlocal last
            if event == "line":
                add((name, last, frame.f_lineno))
                last = frame.f_lineno
            return line

        return line


class Monitoring:
    """The same by `sys.monitoring`, which asks about each code object once: lines of wanted ones, nothing of others."""

    TOOL = 4

    def __init__(self, folders: Iterable[Path]):
        self.names = Names(folders)
        self.edges: set[Edge] = set()
        self._last: dict[Any, int] = {}

    def start(self) -> None:
        monitoring: Any = sys.monitoring  # type: ignore[attr-defined]
        events = monitoring.events
        monitoring.use_tool_id(self.TOOL, "effcc fuzz")
        monitoring.register_callback(self.TOOL, events.PY_START, self._called)
        monitoring.register_callback(self.TOOL, events.PY_RESUME, self._called)
        monitoring.register_callback(self.TOOL, events.LINE, self._line)
        monitoring.set_events(self.TOOL, events.PY_START | events.PY_RESUME | events.LINE)
        monitoring.restart_events()

    def stop(self) -> None:
        monitoring: Any = sys.monitoring  # type: ignore[attr-defined]
        monitoring.set_events(self.TOOL, 0)
        monitoring.free_tool_id(self.TOOL)
        self._last.clear()

    def clear(self) -> None:
        self.edges.clear()

    def _called(self, code: Any, offset: int) -> Any:
        if self.names[code.co_filename] is None:
            return sys.monitoring.DISABLE  # type: ignore[attr-defined]
        self._last.pop(code, None)
        return None

    def _line(self, code: Any, line: int) -> Any:
        name = self.names[code.co_filename]
        if name is None:
            return sys.monitoring.DISABLE  # type: ignore[attr-defined]
        self.edges.add((name, self._last.get(code, code.co_firstlineno), line))
        self._last[code] = line
        return None


class Names(dict[str, "str | None"]):
    """Short names of the source files in some folders; None for all others."""

    def __init__(self, folders: Iterable[Path]):
        super().__init__()
        self.folders = [str(folder) for folder in folders]

    def __missing__(self, path: str) -> str | None:
        at = next((f for f in self.folders if path.startswith(f + "/")), None)
        self[path] = None if at is None else f"{Path(at).name}{path[len(at):]}"
        return self[path]


Watch: Callable[[Iterable[Path]], SetTrace | Monitoring] = Monitoring if hasattr(sys, "monitoring") else SetTrace


class Coverage:
    """Collects what the passes and graphs of one test reach; `total` is what all tests reached."""

    def __init__(self, folders: Iterable[Path] | None = None):
        self.watch = Watch(_passes() if folders is None else folders)
        self.reached: set[str] = set()

    def run(self, p: Pass, graph: Graph, ctx: Context) -> Graph:
        """A pass, watched."""
        logged, refused = len(ctx.log), len(ctx.refusals)
        with self.watching():
            new = p.run(graph, ctx)
        self.reached.update(f"fired {p.name} {entry.rule}" for entry in ctx.log[logged:])
        for refusal in itertools.islice(ctx.refusals, refused, None):
            self.reached.add(f"refused {p.name} {refusal.rule} {general(refusal.reason)}")
        if new is not graph:
            self.reached.update(groups(new))
        return new

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        self.watch.start()
        try:
            yield
        finally:
            self.watch.stop()

    def compiled(self, code: Any) -> None:
        """What a backend made: the templates of its kernels."""
        self.reached.update(f"template {launch.kernel.template}" for launch in code.launches
                            if hasattr(launch.kernel, "template"))

    def graph(self, graph: Graph) -> None:
        """What a graph is made of."""
        self.reached.update(f"pair {maker} {reader}" for maker, reader in pairs(graph))
        for g in nested(graph):
            for node in g.nodes:
                types = [v.type for v in (*node.operands[:2], *node.results[:1])]
                dtypes = " ".join(t.dtype.name for t in types if isinstance(t, Tensor))
                self.reached.add(f"dtypes {node.op.name} {dtypes}")

    def take(self) -> set[str]:
        """What was reached since the last call."""
        reached = self.reached | {f"branch {name} {start} {end}" for name, start, end in self.watch.edges}
        self.reached = set()
        self.watch.clear()
        return reached


def groups(graph: Graph) -> set[str]:
    """The kinds of fused regions in a graph: the families of their ops, and roughly how many ops and results."""
    found = set()
    for node in graph.walk():
        if node.op.name == "fused":
            body = node.op.graphs()["body"]
            families = sorted({n.op.family for n in body.nodes})
            found.add(f"group {'+'.join(families)} {len(body.nodes).bit_length()} {min(len(node.results), 3)}")
    return found


def general(reason: str) -> str:
    """A reason without the numbers, types and names in it."""
    return re.sub(r"%?\S*\d\S*", "#", reason.partition(":")[0])[:80]


def _passes() -> list[Path]:
    import effcc.passes

    return [Path(effcc.passes.__file__).parent]
