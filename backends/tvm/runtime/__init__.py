"""Running compiled programs: what stays when the compiler is gone.

In: a launch program (..entry.Program), object files, constants.  Out: a callable `Executable`.
Nothing here imports TVM's compiler, nor torch unless the caller did (tests/backends/tvm/runtime asserts it).

    driver.ll      interprets launch programs; the pool of threads
    loader.py      object files -> addresses, by LLVM's ORC JIT
    arrays.py      the caller's arrays -> addresses
    executable.py  calls

    from effcc.backends.tvm.objects import compile_driver, compile_kernels     # compiling: imports TVM
    from effcc.backends.tvm.entry import Input, Launch, Output, Program, Temporary, ceildiv
    from effcc.backends.tvm import memory
    from effcc.backends.tvm.runtime import Executable

    first, second = compile_kernels([prim_func, another], machine)
    program = Program(
        sizes=("N",),
        inputs=(Input("x", "f32", ("N",)),),
        outputs=(Output("y", "f32", ("N",)),),
        temporaries=(Temporary("t", ("mul", "N", 4)),),
        steps=(
            Launch(first.symbol, ("x", "t"), ("N",), tiles=ceildiv("N", 256), work="N"),
            Launch(second.symbol, ("t", "y"), ("N",), tiles=ceildiv("N", 256), work="N"),
        ),
    )
    program = memory.plan(program)                     # which temporaries share bytes
    run = Executable(program, {k.symbol: k.object for k in (first, second)}.values(), compile_driver("x86_64"))
    (y,) = run(numpy.ones(1000, "float32"))
"""

from __future__ import annotations

from .executable import Executable

__all__ = ["Executable"]
