"""What a test does with its graph: passes in an order, then a schedule and a number of threads for the compiled code.

    Recipe.parse("simplify,fuse:max-ops=2 | tiles | 2")

Recipes are mutated in tandem with graphs (Liu et al. 2022, "Coverage-Guided Tensor Compiler Fuzzing with Joint IR-Pass
Mutation"): most bugs of pass interaction need an order that no pipeline has.
"""

from __future__ import annotations

import contextlib
import dataclasses
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from effcc.driver import backend_of
from effcc.errors import EffccError, ParseError, UnsupportedError
from effcc.pipeline import Pass, find_pass, parse_pipeline, pass_table, print_pipeline, with_options
from effcc.testing.contracts import EQUALITIES, Contract, holds

LONGEST = 8
"""Passes of a recipe, at most."""
THREADS = (1, 2, 3)
SCHEDULES = ("barriers", "tiles")
TARGETS = ("cpu", "cuda")
ATTEMPTS = 8


@dataclass(frozen=True)
class Recipe:
    """Passes to run on a graph, and how to compile what they leave."""

    passes: tuple[Pass, ...] = ()
    schedule: str = "barriers"
    threads: int = 1

    def __str__(self) -> str:
        return f"{print_pipeline(self.passes)} | {self.schedule} | {self.threads}"

    @staticmethod
    def parse(text: str) -> Recipe:
        """The recipe that `str` wrote."""
        parts = [part.strip() for part in text.split("|")]
        if len(parts) != 3 or parts[1] not in SCHEDULES or not parts[2].isdigit():
            raise ParseError(f"{text!r} is no recipe", hint="write PASSES | barriers | THREADS")
        return Recipe(parse_pipeline(parts[0]), parts[1], int(parts[2]))


def written_in(text: str) -> Recipe | None:
    """The recipe of a finding's file."""
    found = [line.removeprefix("# recipe: ") for line in text.splitlines() if line.startswith("# recipe: ")]
    return Recipe.parse(found[0]) if found else None


@dataclass(frozen=True)
class Subject:
    """What is tested: a target, and the passes that pipelines and recipes are made of (None: all that there are)."""

    target: str = "cpu"
    passes: tuple[str, ...] | None = None

    @staticmethod
    def of(target: str = "cpu", passes: str | None = None) -> Subject:
        """What a command names: "cuda" stands for Triton's interpreter, which needs no GPU. Raises EffccError."""
        if target.partition("{")[0] not in TARGETS:
            raise UnsupportedError(f"target {target!r} is not fuzzed", hint=f"one of {', '.join(TARGETS)}")
        subject = Subject("cuda{run=interpreter}" if target == "cuda" else target, None)
        if passes is not None:
            subject = replace(subject, passes=tuple(map(str, parse_pipeline(passes))))
        subject.pipeline()  # (neither a target that cannot be had nor a pass that is none is found out later)
        return subject

    @property
    def backend(self) -> Any:
        return _backend(self.target)

    @property
    def schedules(self) -> tuple[str, ...]:
        """Those that the target offers."""
        return SCHEDULES if hasattr(self.backend, "schedules") else SCHEDULES[:1]

    def pipeline(self) -> tuple[Pass, ...]:
        """The passes as they are named, else the target's default pipeline."""
        return _parsed(self.backend.pipeline() if self.passes is None else ",".join(self.passes))

    def pool(self) -> tuple[str, ...]:
        """The names of the passes that recipes draw from."""
        return tuple(sorted(pass_table() if self.passes is None else {p.name for p in self.pipeline()}))

    def draw(self, chance: random.Random) -> Recipe:
        """A recipe of one to six passes."""
        passes = tuple(drawn_pass(chance.choice(self.pool()), chance) for _ in range(chance.randint(1, 6)))
        return Recipe(passes, chance.choice(self.schedules), chance.choice(THREADS))

    def change(self, recipe: Recipe, chance: random.Random) -> Recipe:
        """One change to a recipe."""
        changes = [self._inserted, self._scheduled, *([_removed, _varied, _repeated] if recipe.passes else []),
                   *([_swapped] if len(recipe.passes) > 1 else [])]
        while (changed := chance.choice(changes)(recipe, chance)) == recipe or len(changed.passes) > LONGEST:
            pass
        return changed

    def _inserted(self, recipe: Recipe, chance: random.Random) -> Recipe:
        at = chance.randint(0, len(recipe.passes))
        kept = at + (len(recipe.passes) >= LONGEST or at < len(recipe.passes) and chance.random() < 0.4)  # in its place
        return replace(recipe, passes=(
            *recipe.passes[:at], drawn_pass(chance.choice(self.pool()), chance), *recipe.passes[kept:]))

    def _scheduled(self, recipe: Recipe, chance: random.Random) -> Recipe:
        return replace(recipe, schedule=chance.choice(self.schedules), threads=chance.choice(THREADS))


def _removed(recipe: Recipe, chance: random.Random) -> Recipe:
    at = chance.randrange(len(recipe.passes))
    return replace(recipe, passes=recipe.passes[:at] + recipe.passes[at + 1:])


def _repeated(recipe: Recipe, chance: random.Random) -> Recipe:
    at = chance.randint(0, len(recipe.passes))
    return replace(recipe, passes=(*recipe.passes[:at], chance.choice(recipe.passes), *recipe.passes[at:]))


def _swapped(recipe: Recipe, chance: random.Random) -> Recipe:
    passes = list(recipe.passes)
    i, j = chance.sample(range(len(passes)), 2)
    passes[i], passes[j] = passes[j], passes[i]
    return replace(recipe, passes=tuple(passes))


def _varied(recipe: Recipe, chance: random.Random) -> Recipe:
    """A pass with other options."""
    at = chance.randrange(len(recipe.passes))
    varied = drawn_pass(recipe.passes[at].name, chance)
    return replace(recipe, passes=(*recipe.passes[:at], varied, *recipe.passes[at + 1:]))


def drawn_pass(name: str, chance: random.Random) -> Pass:
    """The pass with some of those options changed that it declares may vary: by its contract, `searchable`, `choices`,
    and flags."""
    cls = find_pass(name)
    for _ in range(ATTEMPTS):
        settings = chance.choice(_promised(cls))
        given = {setting.partition("=")[0].replace("-", "_") for setting in settings}
        changes = {option: chance.choice(values) for option, values in _values(cls).items()
                   if option not in given and chance.random() < 0.3}
        with contextlib.suppress(EffccError, ValueError):  # options that exclude one another
            return dataclasses.replace(with_options(cls(), settings), **changes)
    return cls()


@cache
def _promised(cls: type[Pass]) -> tuple[tuple[str, ...], ...]:
    """The settings of each promise in a pass's contract."""
    return (), *(settings for _, settings in Contract.of(cls.contract).special)


@cache
def _values(cls: type[Pass]) -> dict[str, Sequence[Any]]:
    """The values of each option that may vary."""
    table: dict[str, Sequence[Any]] = {f.name: (False, True) for f in dataclasses.fields(cls) if "bool" in str(f.type)}
    for option, span in cls.searchable.items():
        texts = (f"{option}={span.shown(span.value(k))}" for k in range((span.last or 3) + 1))
        table[option] = [getattr(with_options(cls(), [text]), option) for text in texts]
    return {**table, **cls.choices}


@cache
def promising() -> tuple[Pass, ...]:
    """Every installed pass that promises something with its default options."""
    passes = (find_pass(name)() for name in sorted(pass_table()))
    return tuple(p for p in passes if holds(p) in EQUALITIES)


@cache
def _backend(target: str) -> Any:
    return backend_of(target)


@cache
def _parsed(text: str) -> tuple[Pass, ...]:
    return parse_pipeline(text)
