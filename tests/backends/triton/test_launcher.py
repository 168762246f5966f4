"""How a cubin is launched, on a stand-in for CUDA's driver that writes down what it is asked."""

from __future__ import annotations

import ctypes
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch

from effcc.backends.triton.launcher import Device
from effcc.errors import EffccError

FACTS = {"parameters": 5, "shared": 65536, "scratch": 0}
KERNELS = {"k": {"warps": 4, "signature": ["*fp32", "*fp16", "i32"], "on": {"80": FACTS, "90": FACTS}}}


class Driver:
    """libcuda's functions, each of which succeeds unless `status` says otherwise."""

    def __init__(self, **status: int):
        self.status, self.calls = status, []

    def __getattr__(self, name):
        def function(*args):
            self.calls.append((name, *args))
            if name == "cuLaunchKernel":
                words = [ctypes.cast(p, ctypes.POINTER(ctypes.c_uint64))[0] for p in args[9]]
                self.launched = {"words": words, "grid": args[1:4], "block": args[4:7], "shared": args[7],
                                 "stream": args[8].value}
            return self.status.get(name, 0)

        return function


@pytest.fixture
def stream(monkeypatch):
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: SimpleNamespace(cuda_stream=77))
    monkeypatch.setattr(torch.cuda, "device", lambda device: nullcontext())


def device(driver: Driver, capability: tuple[int, int] = (9, 0), kernels=KERNELS) -> Device:
    return Device(kernels, lambda name, architecture: f"{name} for {architecture}".encode(), driver, capability)


def test_a_launch(stream):
    driver, x, y = Driver(), torch.zeros(3), torch.zeros(3, dtype=torch.float16)
    gpu = device(driver)
    gpu.launch("k", 9, [x, y], [-5])
    found = driver.launched
    assert found["words"][:2] == [x.data_ptr(), y.data_ptr()] and found["words"][2] & 0xFFFFFFFF == 2**32 - 5
    assert found["words"][3:] == [0, 0]  # scratch memory, profiler
    assert (found["grid"], found["block"]) == ((9, 1, 1), (128, 1, 1))
    assert (found["shared"], found["stream"]) == (65536, 77)
    loads = [c for c in driver.calls if c[0] == "cuModuleLoadData"]
    assert loads[0][2] == b"k for 90" and ("cuFuncSetAttribute", 8, 65536) in [(c[0], *c[2:]) for c in driver.calls]
    gpu.launch("k", 1, [x, y], [1])
    assert len([c for c in driver.calls if c[0] == "cuModuleLoadData"]) == 1


def test_the_architecture_is_the_devices():
    assert device(Driver(), (8, 6)).architecture == 80 and device(Driver(), (9, 0)).architecture == 90
    with pytest.raises(EffccError, match=r"compiled for sm_80, sm_90, and this GPU is sm_120; .*arch=sm_120"):
        device(Driver(), (12, 0))


def test_what_cuda_refuses_is_said(stream):
    with pytest.raises(EffccError, match="launching k: CUDA says error 700"):
        device(Driver(cuLaunchKernel=700)).launch("k", 1, [torch.zeros(1), torch.zeros(1)], [0])


def test_unknown_parameters_are_not_launched(stream):
    odd = {"k": {**KERNELS["k"], "on": {"90": {**FACTS, "parameters": 6}}}}
    with pytest.raises(EffccError, match="parameters that effcc does not know"):
        device(Driver(), kernels=odd).launch("k", 1, [torch.zeros(1), torch.zeros(1)], [0])
