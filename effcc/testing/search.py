"""Searching for a failing example and making it small, by sequences of choices.

An example is drawn through one function `choose(options)`. What it chose is a list of positions; drawing again from an
edited list gives another valid example, and smaller positions give simpler ones (every list of options starts with the
simplest), so reduction needs to know nothing of what is drawn (MacIver & Donaldson 2020, "Test-Case Reduction via
Test-Case Generation"). Drawing is by a plain seeded generator: Hypothesis's own search stays near earlier examples, and
missed planted bugs that independent draws found.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any


class Choices:
    """Draws: from a recorded list as far as it goes, then from `rest` (or the first option)."""

    def __init__(self, recorded: Sequence[int] = (), rest: random.Random | None = None):
        self.recorded, self.rest = recorded, rest
        self.made: list[int] = []

    def __call__(self, options: Sequence[Any]) -> Any:
        k = len(self.made)
        if k < len(self.recorded):
            at = min(self.recorded[k], len(options) - 1)
        else:
            at = int(self.rest.random() * len(options)) if self.rest else 0  # (randrange takes twice as long)
        self.made.append(at)
        return options[at]


class Search:
    """Tries an example many times; the first failure is reduced and raised.

    attempt: draws through its argument and raises `failure` where the example fails.
    """

    def __init__(self, attempt: Callable[[Choices], None], failure: type[Exception], seconds: float):
        self.attempt, self.failure, self.seconds = attempt, failure, seconds

    def run(self, examples: int, seed: int) -> None:
        for k in range(examples):
            choices = Choices(rest=random.Random(f"{seed} {k}"))
            error = self._fails(choices)
            if error is not None:
                raise self._reduce(choices.made, error) from None

    def _fails(self, choices: Choices) -> Exception | None:
        try:
            self.attempt(choices)
        except self.failure as error:
            return error
        return None

    def _reduce(self, made: list[int], error: Exception) -> Exception:
        """The failure of the simplest list found in time: shorter first, then smaller positions."""
        deadline = time.monotonic() + self.seconds
        improved = True
        while improved:
            improved = False
            for candidate in _simpler(made):
                if time.monotonic() > deadline:
                    return error
                choices = Choices(candidate)
                found = self._fails(choices)
                if found is not None and (len(choices.made), choices.made) < (len(made), made):
                    made, error, improved = choices.made, found, True
                    break
        return error


def _simpler(made: list[int]) -> Iterator[list[int]]:
    """Edits of a list: cut pieces out, set pieces to 0, lower single positions."""
    size = len(made)
    while size >= 1:
        for start in range(0, len(made), size):
            yield made[:start] + made[start + size:]
        for start in range(0, len(made), size):
            if any(made[start:start + size]):
                yield made[:start] + [0] * len(made[start:start + size]) + made[start + size:]
        size //= 2
    for k, position in enumerate(made):
        for lower in (position // 2, position - 1):
            if 0 < lower < position:
                yield [*made[:k], lower, *made[k + 1:]]
