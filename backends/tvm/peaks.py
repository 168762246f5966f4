"""What this machine can do at best: measured once a process, by kernels that do nothing else.

peaks = measure()          # one core;  measure(threads=2): both
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import tvm
from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script import builder as T

from effcc.machine import Machine, host

from .entry import Input, Launch, Output, Program
from .objects import compile_driver, compile_kernels
from .runtime import Executable
from .runtime.arrays import aligned_memory

ROUNDS = 20_000
"""Of the FMA kernel's loop, a tile: about 100 microseconds."""

BLOCK = 1 << 16
"""Floats that one tile of the bandwidth kernel reads."""


@dataclass(frozen=True)
class Peaks:
    """fp32 FLOP/s of fused multiply-adds in registers, and bytes/s read from memory that no cache holds."""

    flops: float
    bandwidth: float


@cache
def measure(threads: int = 1, machine: Machine | None = None) -> Peaks:
    """The best of several runs each: a few hundred milliseconds, and the time to compile two kernels."""

    def rate(work: tuple[Callable[[], Any], float]) -> float:
        run, amount = work
        best = float("inf")
        for _ in range(10):
            start = time.perf_counter()
            run()
            best = min(best, time.perf_counter() - start)
        return amount / best

    return Peaks(rate(multiply_adds(threads, machine)), rate(reads(threads, machine)))


def multiply_adds(threads: int = 1, machine: Machine | None = None) -> tuple[Callable[[], Any], float]:
    """(a call that multiplies and adds in registers only, its flops)"""
    machine = machine or host()
    lanes, accumulators, tiles = machine.vector_bits // 32, 12, 16 * threads
    run = _program(_multiply(lanes, accumulators), machine, threads, lanes, tiles)
    return run, 2.0 * lanes * accumulators * ROUNDS * tiles


def reads(threads: int = 1, machine: Machine | None = None) -> tuple[Callable[[], Any], float]:
    """(a call that reads more than caches hold, its bytes)"""
    machine = machine or host()
    blocks = max(64 << 20, 4 * machine.l3) // (4 * BLOCK)
    run = _program(_read(machine.vector_bits // 32), machine, threads, blocks * BLOCK, blocks)
    return run, 4.0 * blocks * BLOCK


def _program(function: tvm.tirx.PrimFunc, machine: Machine, threads: int, floats: int, tiles: int) -> Callable[[], Any]:
    """A call of a kernel on so many floats, all 1."""
    (kernel,) = compile_kernels([function], machine)
    program = Program(
        inputs=(Input("x", "f32", (floats,)),),
        outputs=(Output("y", "f32", (tiles * machine.vector_bits // 32,)),),
        steps=(Launch(kernel.symbol, ("x", "y"), tiles=tiles),),
    )
    run = Executable(program, [kernel.object], compile_driver(machine.architecture), threads=threads)
    x = aligned_memory(4 * floats).view(np.float32)
    x[:] = 1
    return lambda: run(x)


def _multiply(lanes: int, accumulators: int) -> tvm.tirx.PrimFunc:
    """y[tile] = the sum of accumulators that each went through a = a * x + x, ROUNDS times."""
    ramp = T.ramp(0, 1, lanes)
    with IRBuilder() as b, T.prim_func(s_tir=True):
        x, y, tile = _signature("multiply", lanes)
        sums = [T.alloc_buffer((lanes,), "float32") for _ in range(accumulators)]
        for i, a in enumerate(sums):
            T.buffer_store(a, T.broadcast(T.float32(i), lanes), [ramp])
        with T.serial(ROUNDS):
            for a in sums:
                T.buffer_store(a, a[ramp] * x[ramp] + x[ramp], [ramp])
        total = sums[0][ramp]
        for a in sums[1:]:
            total = total + a[ramp]
        T.buffer_store(y, total, [T.ramp(tile * lanes, 1, lanes)])
        T.Return(T.int32(0))
    return b.get()


def _read(lanes: int) -> tvm.tirx.PrimFunc:
    """y[tile] = the sums of a block of x, in eight accumulators."""
    ramp = T.ramp(0, 1, lanes)
    with IRBuilder() as b, T.prim_func(s_tir=True):
        x, y, tile = _signature("read", lanes)
        sums = [T.alloc_buffer((lanes,), "float32") for _ in range(8)]
        for a in sums:
            T.buffer_store(a, T.broadcast(T.float32(0), lanes), [ramp])
        with T.serial(BLOCK // (8 * lanes)) as i:
            for k, a in enumerate(sums):
                at = T.Cast("int64", tile) * BLOCK + T.Cast("int64", i) * (8 * lanes) + k * lanes
                T.buffer_store(a, a[ramp] + x[T.ramp(at, 1, lanes)], [ramp])
        total = sums[0][ramp]
        for a in sums[1:]:
            total = total + a[ramp]
        T.buffer_store(y, total, [T.ramp(tile * lanes, 1, lanes)])
        T.Return(T.int32(0))
    return b.get()


def _signature(name: str, lanes: int) -> tuple:
    T.func_name(name)
    T.func_attr({"global_symbol": name, "calling_conv": 1, "tirx.noalias": True})
    pointers = [T.arg(pointer, T.handle("float32")) for pointer in ("x", "y")]
    T.arg("scratch", T.handle("uint8"))
    tile = T.arg("tile", T.int32())
    T.func_ret(tvm.ir.PrimType("int32"))
    return *(T.decl_buffer((T.int64(1 << 40),), "float32", data=pointer) for pointer in pointers), tile
