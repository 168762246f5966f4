"""PrimFuncs -> object files, by TVM's LLVM, on threads, through the disk cache.

A kernel is a serial tile function with the C ABI `(pointers..., dims..., scratch, tile) -> int32`.  Its object holds
the kernel, a wrapper of the one signature that the driver calls, and a tvm-ffi function that tells the wrapper's
address:

    i32 (ptr args, ptr scratch, i64 begin, i64 end)     runs tiles begin..end-1 with the arguments in args' words

The kernel's symbol is the hash of its content (code, target, versions): equal kernels are compiled, stored and loaded
once, whatever their names were.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path

import tvm
import tvm_ffi
from tvm import tirx

from effcc.backends.tvm.templates.micro_kernel import REGISTERS_LEFT
from effcc.errors import EffccError, UnsupportedError
from effcc.machine import Machine

from .cache import ObjectCache
from .kernels import Kernel, Request, obtain

DRIVER_SOURCES = tuple(Path(__file__).parent / "runtime" / name for name in ("driver.ll", "tiles.ll"))


def compile_kernels(
    functions: Sequence[tirx.PrimFunc],
    machine: Machine,
    *,
    threads: int | None = None,
    cache: ObjectCache | None = None,
) -> list[Kernel]:
    """The kernels of `functions`, in their order, from the cache or compiled on `threads` threads (all cores).

    Raises EffccError, naming the function, where TVM refuses one.
    """
    requests = [Request(_key(function), lambda f=function: f) for function in functions]
    return obtain(requests, machine, threads=threads, cache=cache)


def compile_kernel(function: tirx.PrimFunc, symbol: str, machine: Machine) -> bytes:
    """The object file of one kernel under the name `symbol`, without the cache."""
    try:
        return _compile({symbol: function}, machine)[symbol]
    except (ValueError, TypeError, RuntimeError) as error:
        named = function.attrs and "global_symbol" in function.attrs
        name = str(function.attrs["global_symbol"]) if named else "kernel"
        reason = str(error).strip().splitlines()[-1]
        raise EffccError(f"TVM cannot compile this kernel: {reason}", where=f"kernel {name}") from error


def compile_together(functions: Mapping[str, tirx.PrimFunc], machine: Machine) -> Iterator[tuple[str, bytes]]:
    """Symbols and object files of kernels. Where not all can be compiled, each by itself, up to the first that cannot.
    """
    try:
        return iter(_compile(functions, machine).items())
    except (ValueError, TypeError, RuntimeError):
        return ((symbol, compile_kernel(function, symbol, machine)) for symbol, function in functions.items())


def _compile(functions: Mapping[str, tirx.PrimFunc], machine: Machine) -> dict[str, bytes]:
    """Object files by symbol. The kernels are optimized in one module, whose own float16 routines, which TVM adds, take
    LLVM 5 ms; none refers to another, so that the code of each is the same as if it were alone."""
    types = {symbol: _argument_types(function) for symbol, function in functions.items()}
    target = llvm_target(machine)
    named = {s: f.with_attr({"global_symbol": s, "calling_conv": 1}) for s, f in functions.items()}
    module = LOWERING(tirx.transform.BindTarget(target.with_host(target))(tvm.IRModule(named)))
    text = tvm.get_global_func("target.build.llvm")(module, target).inspect_source("ll")
    optimized = _Module(text, _vector_registers(machine))
    routines = () if machine.has("f16c") or machine.architecture == "aarch64" else FLOAT16_ROUTINES
    return {s: _assemble(optimized.with_only(s, *routines) + _wrapper(s, types[s])) for s in functions}


def build_driver(architecture: str) -> bytes:
    """The driver's object file (runtime/*.ll) for an architecture, without any of its optional instructions."""
    return _assemble(driver_text(architecture))


def compile_driver(architecture: str, cache: ObjectCache | None = None) -> bytes:
    """The same through the cache."""
    from effcc.backends.tvm.kernels import driver

    return driver(architecture, cache)


def driver_text(architecture: str) -> str:
    """The driver's LLVM IR, complete: with a target, and with the architecture's spin hint."""
    if architecture not in _PAUSE:
        hint = f"compile for {' or '.join(_PAUSE)}"
        raise UnsupportedError(f"there is no code for {architecture} processors", hint=hint)
    metadata = str(llvm_target(Machine(architecture))).replace('"', "\\22")
    return "\n".join(
        (
            f'target triple = "{architecture}-unknown-linux-gnu"',
            *(source.read_text().replace("@PAUSE@", _PAUSE[architecture]) for source in DRIVER_SOURCES),
            f'!0 = !{{i32 4, !"tvm_target", !"{metadata}"}}',
            "!llvm.module.flags = !{!0}",
        )
    )


@cache
def llvm_target(machine: Machine) -> tvm.target.Target:
    """TVM's target of a machine. `fast-math-contract` lets a*b+c become one FMA; no other fast-math is allowed."""
    features = sorted(machine.features)
    return tvm.target.Target(
        {
            "kind": "llvm",
            "mtriple": f"{machine.architecture}-unknown-linux-gnu",
            "mcpu": machine.llvm_cpu,
            "mattr": [f"+{feature}" for feature in features],
            "fast-math-contract": True,
        }
    )


_PAUSE = {
    "x86_64": "declare void @llvm.x86.sse2.pause()\n"
    "define internal void @pause() alwaysinline {\n  call void @llvm.x86.sse2.pause()\n  ret void\n}",
    "aarch64": "declare void @llvm.aarch64.hint(i32)\n"
    "define internal void @pause() alwaysinline {\n  call void @llvm.aarch64.hint(i32 1)\n  ret void\n}",
}

# TVM's own pipeline for CPUs less what serves GPUs, blocks and schedules, which kernels built by the IRBuilder lack,
# and less the simplifications: LLVM repeats them, they take long on let-bound vector code, and StmtSimplify takes
# floats for reals: (x + 1e8) - 1e8 becomes x, x != x false. Nor FlattenBuffer, which flat buffers do not need: it adds
# 0 to vector indices, and then only a simplifier sees that they are consecutive.
LOWERING = tvm.transform.Sequential(
    [
        tirx.transform.BF16ComputeLegalize(),
        tirx.transform.VectorizeLoop(True),
        tirx.transform.UnrollLoop(),
        tirx.transform.FP8ComputeLegalize(),
        tirx.transform.FP8StorageLegalize(),
        tirx.transform.BF16StorageLegalize(),
        tirx.transform.LowerTVMBuiltin(),
        tirx.transform.LowerIntrin(),
    ]
)


def _vector_registers(machine: Machine) -> list[str]:
    """Their names in assembly."""
    kind = "v" if machine.architecture == "aarch64" else {512: "zmm", 256: "ymm", 128: "xmm"}[machine.vector_bits]
    return [f"{kind}{k}" for k in range(machine.vector_registers)]


def _assemble(text: str) -> bytes:
    """LLVM IR -> an object file: instruction selection and on, no more optimization."""
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "kernel.ll"), Path(folder, "kernel.o")
        source.write_text(text)
        tvm.get_global_func("ffi.Module.load_from_file.ll")(str(source), "ll").write_to_file(str(target), "o")
        return target.read_bytes()


FLOAT16_ROUTINES = ("__truncsfhf2", "__extendhfsf2")
"""What LLVM calls to convert where the CPU cannot: TVM puts them into each module."""


class _Module:
    """The text of LLVM IR, taken apart into what it defines, by name (`@f`, `#0`, `!7`)."""

    def __init__(self, text: str, vectors: Sequence[str]):
        """vectors: names of the registers that a call of REGISTERS_LEFT changes."""
        text = re.sub(r",? !dbg !\d+", "", text)
        text = re.sub(r"(?m)^\s*#dbg_.*\n", "", text)
        # f64 -> f32 -> f16, contracted, would round once, by a routine that nobody links
        text = text.replace(" fptrunc contract ", " fptrunc ")
        changed = f'call i32 asm sideeffect "", "=r,{",".join(f"~{{{v}}}" for v in vectors)}"()'
        text = re.sub(rf"(?:tail )?call i32 @{REGISTERS_LEFT}\(\)", changed, text)
        self.target = "\n".join(re.findall(r"(?m)^target .*$", text))
        defined = r"(?ms)^(?:define .*?^\}|(?:declare|attributes) .*?$|[@!][^\n]*? = .*?$)"
        self.parts = {re.search(NAME, part).group(): part for part in re.findall(defined, text)}  # type: ignore[union-attr]

    def with_only(self, *symbols: str) -> str:
        """A module of some functions and all that they refer to; without debug information."""
        waiting = [*(f"@{s}" for s in symbols), "!llvm.module.flags"]
        kept = set()
        while waiting:
            name = waiting.pop()
            if name in self.parts and name not in kept:
                kept.add(name)
                waiting += re.findall(NAME, self.parts[name])
        return "\n".join((self.target, *(part for name, part in self.parts.items() if name in kept)))


NAME = r'@[\w.$-]+|@"[^"]+"|![\w.]+|#\d+'
"""Of a function or global, of metadata, of a group of attributes."""


def _argument_types(function: tirx.PrimFunc) -> list[str]:
    """LLVM's types of a kernel's parameters, checked against the kernel ABI: pointers, int64 words, scratch, tile."""
    types = ["ptr" if isinstance(p.ty, tvm.ir.PointerType) else str(p.ty).replace("int", "i") for p in function.params]
    if len(types) < 2 or types[-2:] != ["ptr", "i32"] or any(kind not in ("ptr", "i64") for kind in types[:-1]):
        raise ValueError(f"parameters ({', '.join(types)}) are not (pointers..., int64 dims..., scratch, int32 tile)")
    return types


def _wrapper(symbol: str, types: Sequence[str]) -> str:
    """LLVM IR of the wrapper and of the tvm-ffi function `<symbol>` that returns the wrapper's address."""
    loads, arguments = [], []
    for i, kind in enumerate(types[:-2]):
        loads += [f"  %at{i} = getelementptr i64, ptr %args, i64 {i}", f"  %a{i} = load {kind}, ptr %at{i}"]
        arguments.append(f"{kind} %a{i}")
    load = "\n".join(loads)
    return f"""
define internal i32 @tiles(ptr %args, ptr %scratch, i64 %begin, i64 %end) {{
entry:
{load}
  %some = icmp slt i64 %begin, %end
  br i1 %some, label %loop, label %done
loop:
  %i = phi i64 [ %begin, %entry ], [ %next, %more ]
  %tile = trunc i64 %i to i32
  %code = call i32 @{symbol}({", ".join([*arguments, "ptr %scratch", "i32 %tile"])})
  %bad = icmp ne i32 %code, 0
  br i1 %bad, label %failed, label %more
more:
  %next = add i64 %i, 1
  %again = icmp slt i64 %next, %end
  br i1 %again, label %loop, label %done
failed:
  ret i32 %code
done:
  ret i32 0
}}
define i32 @__tvm_ffi_{symbol}(ptr %self, ptr %arguments, i32 %count, ptr %result) {{
  store i64 1, ptr %result                        ; TVMFFIAny: type index 1 = int, then the value
  %value = getelementptr i64, ptr %result, i64 1
  store i64 ptrtoint (ptr @tiles to i64), ptr %value
  ret i32 0
}}
"""


def _key(function: tirx.PrimFunc) -> str:
    """The content of a PrimFunc, but for its name."""
    anonymous = function.with_attr("global_symbol", "kernel")
    return f"{anonymous.script(show_meta=True)}\n{tvm_ffi.structural_hash(anonymous, map_free_vars=True)}"
