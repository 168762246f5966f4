"""Words of memory that tell of changed weights."""

from __future__ import annotations

import pytest
import torch

from effcc.frontends.torch.fingerprint import Fingerprint


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.int64, torch.int8])
def test_edits_through_data_are_seen(dtype: torch.dtype) -> None:
    tensors = [torch.ones(5, 7).to(dtype), torch.arange(1000).to(dtype)]
    print_ = Fingerprint(tensors)
    assert not print_.changed()
    tensors[0].data.mul_(2)
    assert print_.changed()


def test_small_and_strided_tensors_stay_within_their_storage() -> None:
    base = torch.zeros(3)
    tensors = [
        torch.zeros(0),
        torch.zeros(1, dtype=torch.int8),
        base.expand(1000, 3),
        torch.zeros(4, 6)[:, ::2],
        base[1:],
    ]
    print_ = Fingerprint(tensors)
    assert not print_.changed()
    base.data.add_(1)
    assert print_.changed()
    assert not Fingerprint([]).changed()
