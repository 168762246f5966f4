"""Graphs that are not drawn at random: examples of every rule and pass, and texts that people wrote.

What a rule's pattern says, drawn with its near misses, is where its guards are decided; mutations start there.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any

from effcc.errors import EffccError
from effcc.fuzz.near_miss import identity
from effcc.ir import Graph, Tensor
from effcc.pipeline import Pass, find_pass, pass_table
from effcc.rewrite import Rule
from effcc.testing import example, instance
from effcc.testing.contracts import Contract
from effcc.testing.draw import Drawer
from effcc.text import parse

Source = Callable[[Drawer], Graph]


@cache
def examples(names: tuple[str, ...] | None = None) -> tuple[Source, ...]:
    """What draws a graph for each rule of the passes, and for each kind of example that a pass has."""
    found: list[Source] = []
    for p in (find_pass(name)() for name in (sorted(pass_table()) if names is None else names)):
        found += [partial(instance, rule) for rule in p.rules]
        methods = [method for _, method, _ in Contract.of(p.contract).drawn]
        if type(p).example is not Pass.example:
            methods.append("example")
        found += [partial(_example, p, method) for method in methods]
    return tuple(found)


@cache
def patterns(names: tuple[str, ...]) -> tuple[tuple[tuple[Rule | Pass, tuple[str, ...]], ...], ...]:
    """The rules of some passes, each with the passes that have it, by their class: those that differ in an op alone are
    many. A pass that has an example stands for itself."""
    found: dict[Any, tuple[Rule | Pass, list[str]]] = {}
    for p in (find_pass(name)() for name in names):
        for rule in p.rules:
            found.setdefault(identity(rule), (rule, []))[1].append(p.name)
        if type(p).example is not Pass.example:
            found[p.name] = p, [p.name]
    classes: dict[type, list[tuple[Rule | Pass, tuple[str, ...]]]] = {}
    for pattern, owners in found.values():
        classes.setdefault(type(pattern), []).append((pattern, tuple(owners)))
    return tuple(map(tuple, classes.values()))


def _example(p: Pass, method: str, d: Drawer) -> Graph:
    return example(p, d, method)


@cache
def written() -> tuple[Graph, ...]:
    """The graphs that effcc's own tests are written with, where there is a checkout: none in a wheel."""
    tests = Path(__file__).resolve().parents[1] / "tests"
    return tuple(graph for folder in ("fuzz/findings", "passes") for graph in texts(tests / folder))


def texts(folder: Path) -> Iterator[Graph]:
    """The graphs in a folder's .effir files, and in the strings of its Python tests."""
    for path in sorted(folder.rglob("*")):
        if path.suffix in (".effir", ".py") and path.is_file():
            yield from graphs_in(path.read_text())


def graphs_in(text: str) -> Iterator[Graph]:
    """The graphs that a text holds, between other things; those that need data from elsewhere, or that passes made of
    others, are left out."""
    for start in re.finditer(r"\bgraph\s*@\w+\s*[(<]", text):
        end = _closing(text, start.start())
        if end is None or start.start() and text[start.start() - 1] == "=":  # (nested in another)
            continue
        try:
            graph = parse(text[start.start():end])
        except EffccError:
            continue
        if is_plain(graph):
            yield graph


def is_plain(graph: Graph) -> bool:
    """Whether a graph takes tensors, and none of its ops and layouts is for passes alone."""
    tensors = all(isinstance(v.type, Tensor) for v in graph.inputs)
    made = any(n.op.name == "fused" or any(isinstance(r.type, Tensor) and r.type.encoding for r in n.results)
               for n in graph.walk())
    return tensors and not made


def _closing(text: str, start: int) -> int | None:
    """Where the braces that open behind a position are closed."""
    depth = 0
    for brace in re.finditer(r"[{}]", text[start:]):
        depth += 1 if brace[0] == "{" else -1
        if depth == 0:
            return start + brace.end()
        if depth < 0:
            break
    return None
