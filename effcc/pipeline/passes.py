"""What a pass is, and where passes are found by name."""

from __future__ import annotations

import dataclasses
import difflib
import importlib
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.metadata import entry_points
from typing import Any, ClassVar, dataclass_transform

from effcc.errors import EffccError, UnsupportedError
from effcc.ir.graph import Graph
from effcc.pipeline.context import Context
from effcc.rewrite import Rule, rewrite

ROOM = "effcc.passes"
"""The package whose table `PASSES` names the passes that come with effcc: {"fold": "effcc.passes.fold:Fold", ...}"""
ENTRY_POINTS = "effcc.passes"
"""The entry-point group in which other distributions offer passes: fold = "their_package.fold:Fold"."""

CATEGORIES = ("exact", "quantize", "sparsify", "reduce-tokens", "prune", "lower")


@dataclasses.dataclass(frozen=True)
class Range:
    """Values of an option that a search may try: from the gentlest, where the pass changes nothing or least, towards
    the strongest (None: until a greater value changes nothing more), in steps.

    >>> [Range(1.0, 0.0, 0.25).value(k) for k in range(5)], Range(0, None).value(3)
    ([1.0, 0.75, 0.5, 0.25, 0.0], 3)
    """

    gentlest: float
    strongest: float | None
    step: float = 1

    @property
    def last(self) -> int | None:
        """The number of the strongest value; the gentlest is 0."""
        return None if self.strongest is None else round(abs(self.strongest - self.gentlest) / self.step)

    def value(self, number: int) -> float:
        down = self.strongest is not None and self.strongest < self.gentlest
        value = self.gentlest + number * (-self.step if down else self.step)
        return round(value, 10) if isinstance(value, float) else value

    def shown(self, value: float) -> str:
        return f"{value:g}"


@dataclass_transform(frozen_default=True)
@dataclasses.dataclass(frozen=True)
class Pass:
    """Graph -> Graph. A subclass becomes a frozen dataclass; its fields are its options.

    name: as written in pipelines.
    category: what kind of change it is (one of CATEGORIES).
    contract: "exact" (bit for bit where floats hold small integers), "bounded" (equal within rounding-error bounds:
        floats are reassociated), or, for an approximate pass, when it is exact: "approximate; exact when r=0". All that
        a contract may say, and what is checked of it: effcc.testing.contracts.
    source: the paper or code that the method comes from.
    searchable: the options that a budget may search, each with its values; quality falls from the gentlest on.
    choices: what to try for options of which neither the type nor `searchable` tells that; the fuzzer draws from it.
    rules: those that it applies, where it has any.
    """

    name: ClassVar[str] = ""
    category: ClassVar[str] = "exact"
    contract: ClassVar[str] = "exact"
    source: ClassVar[str] = ""
    special_inputs: ClassVar[bool] = True
    """Whether the contract covers inputs with NaN and infinities."""
    searchable: ClassVar[Mapping[str, Range]] = {}
    choices: ClassVar[Mapping[str, Sequence[Any]]] = {}
    rules: ClassVar[Sequence[Rule]] = ()

    def __init_subclass__(cls, **kwargs: Any):
        super().__init_subclass__(**kwargs)
        dataclasses.dataclass(frozen=True)(cls)

    def run(self, graph: Graph, ctx: Context) -> Graph:
        """The changed graph; the same object where nothing changed."""
        raise NotImplementedError(f"{type(self).__name__}.run")

    def example(self, d: Any, b: Any) -> Any:
        """A graph for `effcc.testing.check` to start from, where random graphs would seldom be changed; None: no need.

        d: an `effcc.testing.draw.Drawer`, to choose types and attributes with. b: a Builder. Returns the results.
        """
        return None

    def __str__(self) -> str:
        from effcc.pipeline.text import print_pass

        return print_pass(self)


class RulePass(Pass):
    """A pass that is a set of rules."""

    def run(self, graph: Graph, ctx: Context) -> Graph:
        return rewrite(graph, self.rules, ctx)


@cache
def pass_table() -> dict[str, str]:
    """The name and the place ("module:Class") of every pass that is installed; nothing is imported but the table."""
    table = dict(importlib.import_module(ROOM).PASSES)
    for point in entry_points(group=ENTRY_POINTS):
        if table.setdefault(point.name, point.value) != point.value:
            raise EffccError(f"two passes are called {point.name!r}: {table[point.name]} and {point.value}",
                             hint="uninstall one of them")
    return table


def find_pass(name: str) -> type[Pass]:
    """The class of a pass by name."""
    table = pass_table()
    if name not in table:
        near = difflib.get_close_matches(name, table, 1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise UnsupportedError(f"there is no pass {name!r}", hint=f"{hint}passes: {', '.join(sorted(table))}")
    module, _, attribute = table[name].partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise EffccError(f"pass {name!r} cannot be loaded from {table[name]}: {error}") from error
    if not (isinstance(found, type) and issubclass(found, Pass)):
        raise EffccError(f"{table[name]} is not a Pass", hint="subclass effcc.pipeline.Pass")
    return found


def passes_of(category: str) -> dict[str, type[Pass]]:
    """The passes of one category, by name."""
    found = {name: find_pass(name) for name in pass_table()}
    return {name: cls for name, cls in found.items() if cls.category == category}
