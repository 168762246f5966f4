"""Which values an operand must have; for any others its op's result may be anything.

>>> import torch
>>> NUMBER.holds(torch.tensor([1.0, float("inf")])), FINITE.holds(torch.tensor([1.0, float("inf")]))
(True, False)
>>> DIVISOR.fit(torch.tensor([0.0, -2.0, float("nan")]))
tensor([ 1., -2.,  1.])
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from effcc.ir.lazy import torch


@dataclass(frozen=True)
class Domain:
    """says: what the elements must be. within: where they are, on a torch tensor of floats. instead: what may stand in
    place of the others."""

    says: str
    within: Callable[[Any], Any]
    instead: float = 0.0

    def holds(self, x: Any) -> bool:
        """Whether all elements are what they must be."""
        return not x.is_floating_point() or bool(self.within(x).all())

    def fit(self, x: Any) -> Any:
        """The same tensor, other elements in place of those that may not be."""
        return torch.where(self.within(x), x, self.instead) if x.is_floating_point() else x


NUMBER = Domain("no NaN", lambda x: x == x)
FINITE = Domain("finite", lambda x: x.isfinite())
DIVISOR = Domain("finite and not 0", lambda x: x.isfinite() & (x != 0), 1.0)
VARIANCE = Domain("not below 0", lambda x: ~(x < 0), 1.0)

__all__ = ["DIVISOR", "FINITE", "NUMBER", "VARIANCE", "Domain"]
