"""Kernels small enough to check by eye, for the tests of everything that carries kernels about."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import pytest


@pytest.fixture(scope="session")
def toys() -> SimpleNamespace:
    """PrimFuncs with the kernel ABI, on tiles of 16 elements: functions of a name and, where said, of a number.

    add(name, c): y[i] = x[i] + c for i < n.     limit(name): fails if x[tile] >= 10.     count(name): *size = n // 2.
    lost(name): calls a function that does not exist.
    scratch(name): y[i] = 2 x[i] by way of the thread's scratch (64 bytes), n a multiple of 16.
    """
    import tvm
    from tvm.script.ir_builder import IRBuilder
    from tvm.tirx.script import builder as T

    def kernel(name: str, pointers: dict[str, str], dims: tuple[str, ...], body: Callable) -> tvm.tirx.PrimFunc:
        with IRBuilder() as b, T.prim_func(s_tir=True):
            T.func_name(name)
            T.func_attr({"global_symbol": name, "calling_conv": 1, "tirx.noalias": True})
            handles = [T.arg(pointer, T.handle(dtype)) for pointer, dtype in pointers.items()]
            sizes = [T.arg(dim, T.int64()) for dim in dims]
            scratch = T.arg("scratch", T.handle("uint8"))
            tile = T.arg("tile", T.int32())
            T.func_ret(tvm.ir.PrimType("int32"))
            buffers = [
                T.decl_buffer((1 << 40,), dtype, data=handle)
                for handle, dtype in zip(handles, pointers.values(), strict=True)
            ]
            body(*buffers, *sizes, T.decl_buffer((16,), "float32", data=scratch), T.Cast("int64", tile))
            T.Return(T.int32(0))
        return b.get()

    def add(name: str, c: float = 1.0) -> tvm.tirx.PrimFunc:
        def body(x, y, n, _, tile):
            with T.serial(16) as i, T.If(tile * 16 + i < n), T.Then():
                T.buffer_store(y, x[tile * 16 + i] + T.float32(c), [tile * 16 + i])

        return kernel(name, {"x": "float32", "y": "float32"}, ("n",), body)

    def limit(name: str) -> tvm.tirx.PrimFunc:
        def body(x, _, tile):
            with T.Assert(x[tile] < T.float32(10), "out of range"):
                T.evaluate(T.int32(0))

        return kernel(name, {"x": "float32"}, (), body)

    def count(name: str) -> tvm.tirx.PrimFunc:
        def body(size, n, _, tile):
            T.buffer_store(size, T.FloorDiv(n, T.int64(2)), [0])

        return kernel(name, {"size": "int64"}, ("n",), body)

    def lost(name: str) -> tvm.tirx.PrimFunc:
        def body(x, _, tile):
            T.evaluate(T.call_extern("int32", "no_such_function", x.data))

        return kernel(name, {"x": "float32"}, (), body)

    def scratch(name: str) -> tvm.tirx.PrimFunc:
        def body(x, y, memory, tile):
            with T.serial(16) as i:
                T.buffer_store(memory, x[tile * 16 + i], [i])
            with T.serial(16) as i:
                T.buffer_store(y, memory[i] + x[tile * 16 + i], [tile * 16 + i])

        return kernel(name, {"x": "float32", "y": "float32"}, (), body)

    return SimpleNamespace(add=add, limit=limit, count=count, scratch=scratch, lost=lost)
