"""Noticing weights that change behind torch's back.

torch counts in-place changes in `_version`, but not those through `.data` (`p.data.mul_(2)`). A few words of each
tensor's memory tell of edits that touch most of it, at the price of one gather a call. An edit of single elements
through `.data` goes unseen: use `torch.no_grad()` instead.
"""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
import torch

WORDS = 8
"""How many 32-bit words of each tensor are looked at, spread evenly from its first to its last."""


class Fingerprint:
    """Words of the memory of some tensors, which it keeps alive."""

    def __init__(self, tensors: list[torch.Tensor]):
        self.tensors = [t.detach() for t in tensors]
        addresses = [_addresses(t) for t in self.tensors]
        flat = np.concatenate([np.zeros(0, np.int64), *addresses])
        self.base = int(flat.min()) if len(flat) else 0
        self.at = (flat - self.base) // 4
        span = int(self.at.max()) + 1 if len(self.at) else 0
        self.memory: Any = np.ctypeslib.as_array((ctypes.c_int32 * span).from_address(self.base)) if span else None
        self.words = self._read()

    def _read(self) -> np.ndarray:
        return self.memory.take(self.at) if self.memory is not None else np.zeros(0, np.int32)

    def changed(self) -> bool:
        """Whether any of the words differs from what it was."""
        return not np.array_equal(self._read(), self.words)


def _addresses(t: torch.Tensor) -> np.ndarray:
    """Word-aligned addresses from a tensor's first element on, within its storage."""
    storage = t.untyped_storage()
    first = -(-t.data_ptr() // 4) * 4
    end = min(t.data_ptr() + t.numel() * t.element_size(), storage.data_ptr() + storage.nbytes())
    last = (end - 4) // 4 * 4
    if last < first:
        return np.zeros(0, np.int64)
    return np.unique(np.linspace(first, last, WORDS).astype(np.int64) // 4 * 4)
