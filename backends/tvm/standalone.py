"""Runs one template by itself, for tests and benchmarks: a serial tile function of raw pointers, called tile by tile.

kernel = Kernel(body, ["float32"] * 3, tiles=lambda: 4, scratch_bytes=4096)
kernel([a, b, c])                      # NumPy arrays, in place
"""

from __future__ import annotations

import os
from collections.abc import Callable

import numpy as np
import tvm
from tvm import tirx
from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script import builder as T

from effcc.backends.tvm.objects import LOWERING
from effcc.backends.tvm.templates.emission import BYTES, Cpu, flat
from effcc.backends.tvm.templates.micro_kernel import REGISTERS_LEFT

FLAGS = open("/proc/cpuinfo").read() if os.path.exists("/proc/cpuinfo") else ""
BYTE_DOTS, PAIR_DOTS = "avx512_vnni" in FLAGS, "avx512_bf16" in FLAGS
CPU = Cpu(256, 16, threads=2)
if "avx512f" in FLAGS:
    CPU = Cpu(512, 32, threads=2, byte_dots=BYTE_DOTS, pair_dots=PAIR_DOTS)
MCPU = "x86-64-v4" if "avx512f" in FLAGS else "x86-64-v3"
FEATURES = ["+avx512vnni"] * BYTE_DOTS + ["+avx512bf16"] * PAIR_DOTS
TARGET = tvm.target.Target({"kind": "llvm", "mcpu": MCPU, "mattr": FEATURES, "fast-math-contract": True})
GUARD = 64


class Kernel:
    """`body(buffers, dims, scratch, tile)` emits into the kernel; `tiles(dims)` counts; both may use symbolic dims."""

    def __init__(
        self,
        body: Callable[..., None],
        dtypes: list[str],
        tiles: Callable[..., object],
        dims: int = 0,
        scratch_bytes: int = 64,
        parallel: bool = False,
    ):
        self.dtypes, self.dims, self.scratch_bytes = dtypes, dims, scratch_bytes
        functions = {"kernel": self._kernel(body), "run": self._entry(tiles, parallel)}
        module = tirx.transform.BindTarget(TARGET.with_host(TARGET))(tvm.IRModule(functions))
        module = LOWERING(tirx.transform.MakePackedAPI()(module))
        self.module = tvm.get_global_func("target.build.llvm")(module, TARGET)
        self.run = self.module["run"]

    def _kernel(self, body: Callable[..., None]) -> object:
        with IRBuilder() as builder:
            with T.prim_func(s_tir=True):
                T.func_name("kernel")
                T.func_attr({"global_symbol": "kernel", "calling_conv": 1, "tirx.noalias": True})
                pointers = [T.arg(f"p{i}", T.handle(dtype)) for i, dtype in enumerate(self.dtypes)]
                dims = [T.arg(f"d{i}", T.int64()) for i in range(self.dims)]
                scratch = T.arg("scratch", T.handle("uint8"))
                tile = T.arg("tile", T.int32())
                T.func_ret(tvm.ir.PrimType("int32"))
                buffers = [flat(pointer, dtype) for pointer, dtype in zip(pointers, self.dtypes, strict=True)]
                with T.attr(T.int32(0), "pragma_import_llvm", f"define i32 @{REGISTERS_LEFT}() {{\n  ret i32 0\n}}"):
                    body(buffers, dims, scratch, tile)
                T.Return(T.int32(0))
        return builder.get()

    def _entry(self, tiles: Callable[..., object], parallel: bool) -> object:
        with IRBuilder() as builder:
            with T.prim_func(s_tir=True):
                T.func_name("run")
                T.func_attr({"global_symbol": "run"})
                pointers = [T.arg(f"p{i}", T.int64()) for i in range(len(self.dtypes))]
                dims = [T.arg(f"d{i}", T.int64()) for i in range(self.dims)]
                scratch = T.arg("scratch", T.int64())
                count = T.Cast("int64", tiles(*dims)) if not isinstance(tiles(*dims), int) else T.int64(tiles(*dims))
                handles = [T.reinterpret("handle", pointer) for pointer in pointers]
                workers = 2 if parallel else 1
                loop = T.parallel if parallel else T.serial
                with loop(T.int64(0), T.int64(workers)) as worker:
                    mine = T.reinterpret("handle", scratch + worker * (self.scratch_bytes + GUARD))
                    with T.serial(count * worker // workers, count * (worker + 1) // workers) as tile:
                        T.evaluate(T.call_extern("int32", "kernel", *handles, *dims, mine, T.Cast("int32", tile)))
        return builder.get()

    def prepare(self, arrays: list[np.ndarray], dims: tuple[int, ...] = ()) -> Callable[[], None]:
        """A closure that runs on `arrays` in place (each flat memory, of the declared dtype)."""
        assert [BYTES[dtype] for dtype in self.dtypes] == [array.itemsize for array in arrays]
        size = 2 * (self.scratch_bytes + 2 * GUARD)
        memory = np.full(size + 64, 0xFF, np.uint8)  # NaNs: nothing may be read before it is written
        base = memory.ctypes.data + -memory.ctypes.data % 64
        pointers = [array.ctypes.data for array in arrays]

        def call() -> None:
            self.run(*pointers, *dims, base)
            assert (memory[-64:] == 0xFF).all(), "wrote beyond its scratch"

        call.keep = (arrays, memory)  # type: ignore[attr-defined]
        return call

    def __call__(self, arrays: list[np.ndarray], dims: tuple[int, ...] = ()) -> None:
        self.prepare(arrays, dims)()
