"""Numbers that leave a dtype's range on the way: too large ones become infinite, too small ones vanish."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from effcc.ir.lazy import torch
from effcc.ir.types import DType

OVERFLOWS = (float("inf"), float("-inf"), float("nan"))
"""What a sum may be of which some terms, or partial sums, are too large."""


@dataclass(frozen=True)
class Range:
    """largest: the greatest finite number. normal: the least with all its digits. step: between those below it."""

    largest: float
    normal: float
    step: float

    @staticmethod
    def of(*dtypes: DType) -> Range:
        """What lies in the range of each of some float dtypes."""
        infos = [torch.finfo(dtype.torch) for dtype in dtypes]
        return Range(min(i.max for i in infos), max(i.tiny for i in infos), max(i.tiny * i.eps for i in infos))

    def leave(self, x: Any, reach: Any, overflow: float, generator: Any, strange: bool = False,
              made: Any = False) -> Any:
        """What may become of f64 numbers x. reach: the sum of absolute values that they were added up from. strange: of
        one that is not finite anything may become, of equal ones different things. made: (where) infinite ones are too
        large for f64, too.

        A number too large is infinite. One that is not, but whose terms may have been, is `overflow`. One below the
        normal numbers is off by a step, or 0 (where the overflow is NaN: three runs show everything).
        """
        size = x.abs()
        off = torch.rand(x.shape, generator=generator, dtype=torch.float64) * 2 - 1
        small = torch.zeros_like(x) if overflow != overflow else x + off * self.step
        left = torch.where((size > 0) & (size < self.normal), torch.copysign(small, x), x)
        left = torch.where((reach > self.largest) & size.isfinite(), overflow, left)
        if strange:
            anything = torch.where(off < 0, off, overflow)
            return torch.where(size.isfinite() & (size <= self.largest), left, anything)
        left = torch.where(size.isinf() & made, overflow, left)
        large = (size > self.largest) & ~(size.isinf() & made)
        return torch.where(large, torch.copysign(torch.full_like(x, float("inf")), x), left)
