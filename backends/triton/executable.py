"""Running a launch program on torch tensors, whoever launches its kernels (launcher.py)."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from effcc.backends.triton.launcher import Launcher
from effcc.backends.tvm import entry, memory
from effcc.errors import InputError, UnsupportedError
from effcc.ir.types import DTYPES, DType

ALIGNMENT = 16
"""Bytes to which every pointer that a kernel takes is aligned."""


class Executable:
    """A program with its constants on one device.

    Temporaries lie in one arena a call, whose layout is worked out once for each combination of sizes; results are
    fresh tensors. Calls from several threads are safe: nothing is shared but constants and layouts.
    """

    def __init__(self, program: entry.Program, constants: Mapping[str, np.ndarray[Any, Any]], launcher: Launcher):
        self.program, self.launcher = program, launcher
        self.constants = {c.name: self._constant(constants[c.key]) for c in program.constants}
        self.layouts: dict[tuple[int, ...], tuple[dict[str, int], int]] = {}

    def _constant(self, array: np.ndarray[Any, Any]) -> Any:
        import torch

        raw = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        if not raw.flags.writeable or raw.ctypes.data % ALIGNMENT:
            raw = _aligned_copy(raw)
        return torch.from_numpy(raw).to(self.launcher.device)

    def __call__(self, *inputs: Any, threads: int | None = None) -> tuple[Any, ...]:
        """Run once. Results are tensors on the program's device where an input is one; else of the kind of the first
        input (NumPy where there is none), and on its device."""
        given, sizes, tensors = self._prepared(inputs)
        for _, step in self._run(tensors, sizes):
            step()
        results = []
        for output in self.program.outputs:
            result = tensors[output.alias or output.name].view(torch_dtype(output.dtype)).view(
                tuple(entry.evaluate(d, sizes) for d in output.shape))
            results.append(result)
        return tuple(_like(given, r) for r in results)

    def profile(self, *inputs: Any, threads: int | None = None, repeat: int = 10) -> list[tuple[str, float]]:
        """Label and mean seconds of each launch, in the program's order, each waited for."""
        import torch

        totals: dict[int, float] = {}
        labels: dict[int, str] = {}
        for _ in range(repeat):
            _, sizes, tensors = self._prepared(inputs)
            for k, (label, step) in enumerate(self._run(tensors, sizes)):
                start = time.perf_counter()
                step()
                if self.launcher.device.type == "cuda":
                    torch.cuda.synchronize(self.launcher.device)
                totals[k], labels[k] = totals.get(k, 0.0) + time.perf_counter() - start, label
        return [(labels[k], totals[k] / repeat) for k in sorted(totals) if labels[k]]

    def _prepared(self, inputs: Sequence[Any]) -> tuple[Any, dict[str, int], dict[str, Any]]:
        """(the first input as given, sizes, every buffer by name)"""
        import torch

        program = self.program
        if len(inputs) != len(program.inputs):
            raise InputError(f"the program takes {len(program.inputs)} inputs, got {len(inputs)}")
        tensors: dict[str, Any] = dict(self.constants)
        shapes: list[tuple[int, ...]] = []
        for declared, x in zip(program.inputs, inputs, strict=True):
            t = self._input(declared, x)
            tensors[declared.name] = t
            shapes.append(tuple(t.shape))
        sizes = bind(program, shapes)
        for check in program.checks:
            if not entry.evaluate(check.condition, sizes):
                left, right = (entry.evaluate(x, sizes) for x in (check.left, check.right))
                raise InputError(f"sizes {left} and {right} {check.says}", where=check.where or None)
        key = tuple(sizes.values())
        if key not in self.layouts:
            offsets, total = memory.place(program.temporaries, sizes)
            self.layouts[key] = {t.name: o for t, o in zip(program.temporaries, offsets, strict=True)}, total
        offsets, total = self.layouts[key]
        arena = torch.empty(total + ALIGNMENT, dtype=torch.uint8, device=self.launcher.device)
        start = -arena.data_ptr() % ALIGNMENT
        for t in program.temporaries:
            first = start + offsets[t.name]
            tensors[t.name] = arena[first : first + entry.evaluate(t.size, sizes)]
        for output in program.outputs:
            if output.alias is None:
                shape = tuple(entry.evaluate(d, sizes) for d in output.shape)
                tensors[output.name] = torch.empty(shape, dtype=torch_dtype(output.dtype), device=self.launcher.device)
        here = [x for x in inputs if isinstance(x, torch.Tensor) and x.device == self.launcher.device]
        return next(iter((*here, *inputs)), None), sizes, tensors

    def _input(self, declared: entry.Input, x: Any) -> Any:
        """The input as an aligned, contiguous tensor on the device. What kernels write into must be so already."""
        import torch

        own = x if isinstance(x, torch.Tensor) else torch.from_numpy(np.ascontiguousarray(x))
        wanted = torch_dtype(declared.dtype)
        if own.dtype != wanted:
            raise InputError(f"{own.dtype} given, {declared.dtype} expected", where=f"input {declared.name!r}",
                             hint="cast it")
        if own.dim() != len(declared.shape):
            message = f"rank {own.dim()} given, {len(declared.shape)} expected"
            raise InputError(message, where=f"input {declared.name!r}")
        t = own.detach().to(self.launcher.device).contiguous()
        if t.data_ptr() % ALIGNMENT:
            t = t.clone()
        if declared.overwritten and t.data_ptr() != own.data_ptr():
            hint = f"give a contiguous tensor on {self.launcher.device}"
            message = "it is overwritten, so it must be contiguous and on the program's device"
            raise InputError(message, where=f"input {declared.name!r}", hint=hint)
        return t

    def _run(self, tensors: Mapping[str, Any], sizes: Mapping[str, int]) -> Any:
        """(label, what to do) of each step, in order."""
        alias = {o.name: o.alias for o in self.program.outputs if o.alias is not None}

        def of(name: str) -> Any:
            return tensors[alias.get(name, name)]

        for step in self.program.steps:
            match step:
                case entry.Launch():
                    programs = entry.evaluate(step.tiles, sizes)
                    if programs > 0:
                        types = self.types[step.kernel]
                        given = [_typed(of(name), t) for name, t in zip(step.pointers, types, strict=False)]
                        numbers = [entry.evaluate(d, sizes) for d in step.dims]
                        yield step.label, _Call(self.launcher, step.kernel, programs, given, numbers)
                case entry.Copy(target, source):
                    yield "", _Copy(of(target), of(source))
                case _:
                    raise UnsupportedError(f"target cuda does not run {type(step).__name__} steps")

    types: Mapping[str, Sequence[str]] = {}
    """For each kernel the types of its parameters; set by who makes the executable."""


class _Call:
    def __init__(self, launcher: Launcher, kernel: str, programs: int, tensors: list[Any], sizes: list[int]):
        self.arguments = (kernel, programs, tensors, sizes)
        self.launcher = launcher

    def __call__(self) -> None:
        self.launcher.launch(*self.arguments)


class _Copy:
    def __init__(self, target: Any, source: Any):
        self.target, self.source = target, source

    def __call__(self) -> None:
        import torch

        self.target.view(-1).view(torch.uint8).copy_(self.source.reshape(-1).view(torch.uint8))


def bind(program: entry.Program, shapes: Sequence[tuple[int, ...]]) -> dict[str, int]:
    """The sizes that the inputs' shapes tell; InputError where a shape does not fit."""
    sizes: dict[str, int] = {}
    for declared, shape in zip(program.inputs, shapes, strict=True):
        for d, n in zip(declared.shape, shape, strict=True):
            if isinstance(d, str):
                sizes.setdefault(d, n)
    for s in program.sizes:
        if isinstance(s, entry.Size) and s.name in sizes:
            n = sizes[s.name]
            if n < s.low or (s.high is not None and n > s.high):
                upper = "" if s.high is None else s.high
                raise InputError(f"{s.name} = {n} is outside of its range {s.low}..{upper}")
    for declared, shape in zip(program.inputs, shapes, strict=True):
        for axis, (d, n) in enumerate(zip(declared.shape, shape, strict=True)):
            try:
                wanted = entry.evaluate(d, sizes)
            except KeyError as error:
                raise UnsupportedError(f"no input tells the size {error.args[0]}", hint="make it static") from None
            if wanted != n:
                raise InputError(f"axis {axis} is {n}, expected {wanted}", where=f"input {declared.name!r}")
    return sizes


def torch_dtype(name: str) -> Any:
    return DTYPES[name].torch if name in DTYPES else DType.of(name).torch


SIGNATURE = {
    "*fp64": "float64", "*fp32": "float32", "*fp16": "float16", "*bf16": "bfloat16", "*i1": "bool",
    "*i64": "int64", "*i32": "int32", "*i16": "int16", "*i8": "int8",
    "*u64": "uint64", "*u32": "uint32", "*u16": "uint16", "*u8": "uint8",
}  # fmt: skip


def _typed(t: Any, signature: str) -> Any:
    """A buffer as the kernel's parameter has it: flat, of its dtype."""
    import torch

    wanted = getattr(torch, SIGNATURE[signature])
    flat = t.reshape(-1)
    return flat if flat.dtype == wanted else flat.view(torch.uint8).view(wanted)


def _aligned_copy(raw: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    room = np.empty(raw.nbytes + ALIGNMENT, np.uint8)
    start = -room.ctypes.data % ALIGNMENT
    room[start : start + raw.nbytes] = raw
    return room[start : start + raw.nbytes]


def _like(given: Any, result: Any) -> Any:
    import torch

    if isinstance(given, torch.Tensor):
        return result.to(given.device)
    return result.cpu().numpy() if result.dtype != torch.bfloat16 else result.cpu().view(torch.uint16).numpy().view(
        DTYPES["bf16"].numpy)
