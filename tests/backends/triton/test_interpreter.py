"""Triton's interpreter, where effcc mends it."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("triton")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_comparisons_of_scalars_beside_blocks(dtype, agreement):
    """A scan over a vector compares what it loads, one number, with a block of states."""
    agreement(lambda g, x: g.cummin(x, axis=0), torch.tensor([1.0, 2.0, 0.0, 3.0], dtype=dtype))
