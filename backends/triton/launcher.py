"""Who runs kernels: a CUDA device, through the driver's own library, or Triton's interpreter on the CPU.

A launcher has a torch `device` on which buffers lie, and `launch(kernel, programs, tensors, sizes)`. All else of a
call is the same for both (executable.py).
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from effcc.backends.triton.target import runs_on
from effcc.errors import EffccError

HIDDEN = 2
"""Pointers that Triton adds to a kernel's parameters: global scratch memory and a profiler's, both unused here."""


class Launcher(Protocol):
    device: Any

    def launch(self, kernel: str, programs: int, tensors: Sequence[Any], sizes: Sequence[int]) -> None: ...


class Interpreted:
    """Runs kernels through Triton's interpreter, on CPU tensors."""

    def __init__(self, sources: Mapping[str, Any]):
        import torch

        self.device = torch.device("cpu")
        self.sources = sources
        self.functions: dict[str, Any] = {}

    def launch(self, kernel: str, programs: int, tensors: Sequence[Any], sizes: Sequence[int]) -> None:
        from effcc.backends.triton.interpreter import mended
        from effcc.backends.triton.source import load

        if kernel not in self.functions:
            self.functions[kernel] = load(self.sources[kernel], interpret=True)
        with mended():
            self.functions[kernel][(programs,)](*tensors, *sizes)


class Device:
    """Launches cubins on torch's current CUDA device and stream.

    kernels: {name: {"warps": int, "signature": [type of each parameter], "on": {architecture: compile.Compiled.facts}}}
    image: (name, architecture) -> the cubin. library: libcuda, for tests a stand-in.
    """

    def __init__(
        self, kernels: Mapping[str, Any], image: Callable[[str, int], bytes], library: Any = None,
        capability: tuple[int, int] | None = None,
    ):
        import torch

        self.kernels, self.image = kernels, image
        index = torch.cuda.current_device() if capability is None else 0
        self.device = torch.device("cuda", index)
        self.capability = torch.cuda.get_device_capability(index) if capability is None else capability
        self.cuda = ctypes.CDLL("libcuda.so.1") if library is None else library
        offered = sorted({int(a) for k in kernels.values() for a in k["on"]})
        fitting = [a for a in offered if runs_on(a, self.capability)]
        if offered and not fitting:
            major, minor = self.capability
            has = ", ".join(f"sm_{a}" for a in offered)
            raise EffccError(
                f"compiled for {has}, and this GPU is sm_{major}{minor}",
                hint=f"compile the model with --target 'cuda{{arch=sm_{major}{minor}}}'",
            )
        self.architecture = fitting[-1] if fitting else 0
        self.functions: dict[str, ctypes.c_void_p] = {}

    def launch(self, kernel: str, programs: int, tensors: Sequence[Any], sizes: Sequence[int]) -> None:
        import torch

        with torch.cuda.device(self.device):  # its context must be the current one
            self._launch(kernel, programs, tensors, sizes, torch.cuda.current_stream(self.device).cuda_stream)

    def _launch(self, kernel: str, programs: int, tensors: Sequence[Any], sizes: Sequence[int], stream: int) -> None:
        facts = self.kernels[kernel]
        function = self._function(kernel, facts)
        words: list[Any] = [ctypes.c_void_p(t.data_ptr()) for t in tensors]
        types = facts["signature"][len(tensors) :]
        words += [ctypes.c_int64(n) if t == "i64" else ctypes.c_int32(n) for n, t in zip(sizes, types, strict=True)]
        words += [ctypes.c_void_p(None)] * (facts["on"][str(self.architecture)]["parameters"] - len(words))
        pointers = (ctypes.c_void_p * len(words))(*(ctypes.addressof(w) for w in words))
        shared = facts["on"][str(self.architecture)]["shared"]
        grid, block = (programs, 1, 1), (32 * facts["warps"], 1, 1)
        status = self.cuda.cuLaunchKernel(
            function, *grid, *block, shared, ctypes.c_void_p(stream), pointers, None)
        self._check(status, f"launching {kernel}")

    def _function(self, kernel: str, facts: Mapping[str, Any]) -> ctypes.c_void_p:
        """The loaded kernel, allowed the shared memory that it needs."""
        if kernel not in self.functions:
            own = facts["on"][str(self.architecture)]
            if own["scratch"] or own["parameters"] != len(facts["signature"]) + HIDDEN:
                raise EffccError(f"kernel {kernel} has parameters that effcc does not know", hint="compile it again")
            module, function = ctypes.c_void_p(), ctypes.c_void_p()
            cubin = self.image(kernel, self.architecture)
            self._check(self.cuda.cuModuleLoadData(ctypes.byref(module), cubin), f"loading {kernel}")
            found = self.cuda.cuModuleGetFunction(ctypes.byref(function), module, kernel.encode())
            self._check(found, f"finding {kernel}")
            if own["shared"] > 48 << 10:  # CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES = 8
                self._check(self.cuda.cuFuncSetAttribute(function, 8, own["shared"]), f"giving {kernel} shared memory")
            self.functions[kernel] = function
        return self.functions[kernel]

    def _check(self, status: int, what: str) -> None:
        if status != 0:
            name = ctypes.c_char_p()
            self.cuda.cuGetErrorName(status, ctypes.byref(name))
            reason = (name.value or b"").decode() or f"error {status}"
            raise EffccError(f"{what}: CUDA says {reason}", hint="does nvidia-smi show the GPU, and memory to spare?")

