"""What this machine can do at best: measured once a process, by kernels that do nothing else.

peaks = measure()          # one core;  measure(threads=2): both
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import cache

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
    machine = machine or host()
    lanes, accumulators = machine.vector_bits // 32, 12
    multiply, read = compile_kernels([_multiply(lanes, accumulators), _read(lanes)], machine)
    driver = compile_driver(machine.architecture)
    tiles = 16 * threads
    size = max(64 << 20, 4 * machine.l3)
    blocks = size // (4 * BLOCK)

    def seconds(kernel: str, image: bytes, floats: int, tiles: int) -> float:
        program = Program(
            inputs=(Input("x", "f32", (floats,)),),
            outputs=(Output("y", "f32", (tiles * lanes,)),),
            steps=(Launch(kernel, ("x", "y"), tiles=tiles),),
        )
        run = Executable(program, [image], driver, threads=threads)
        x = aligned_memory(4 * floats).view(np.float32)
        x[:] = 1
        best = float("inf")
        for _ in range(10):
            start = time.perf_counter()
            run(x)
            best = min(best, time.perf_counter() - start)
        return best

    flops = 2 * lanes * accumulators * ROUNDS * tiles / seconds(multiply.symbol, multiply.object, lanes, tiles)
    return Peaks(flops, blocks * BLOCK * 4 / seconds(read.symbol, read.object, blocks * BLOCK, blocks))


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
