"""Where torch.compile sends a graph."""

from __future__ import annotations

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from effcc.frontends.torch.dynamo import target_of


def test_cuda_tensors_go_to_target_cuda():
    with FakeTensorMode():
        on_gpu, on_cpu = torch.empty(2, device="cuda"), torch.empty(2)
    assert target_of((on_cpu, 3, on_gpu)) == "cuda{arch=native}"
    assert target_of((on_cpu, 3)) == "cpu"
