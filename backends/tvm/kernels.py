"""Kernels by key: from the cache if they were ever compiled, else built and compiled, several at a time.

A key names a kernel before its code exists (template, region, layout, machine, and the sources of the code
generator), so that a program whose kernels are all cached never imports the compiler.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any

from effcc.backends.tvm.cache import ObjectCache, default_cache
from effcc.ir import Graph
from effcc.machine import Machine, available_cores
from effcc.ops.constant import Const

MOST_TOGETHER = 3
"""Kernels that LLVM optimizes in one module: more would keep other threads waiting."""


@dataclass(frozen=True)
class Kernel:
    """A compiled kernel: `symbol` names it in launch programs and is a hash of its key; `object` is an ELF file."""

    symbol: str
    object: bytes = field(repr=False)


@dataclass(frozen=True, eq=False)
class Request:
    """A kernel to obtain: its key (all that its code depends on but the machine), and how to build its PrimFunc."""

    key: str
    build: Callable[[], Any]


def obtain(
    requests: Sequence[Request], machine: Machine, *, threads: int | None = None, cache: ObjectCache | None = None
) -> list[Kernel]:
    """The kernels, in order. TIR is built here, one after another; LLVM compiles on threads meanwhile."""
    cache = default_cache() if cache is None else cache
    symbols = [f"effcc_{digest(r.key, described(machine))[:32]}" for r in requests]
    objects: dict[str, bytes] = {}
    missing: dict[str, Request] = {}
    for symbol, request in zip(symbols, requests, strict=True):
        if symbol not in objects and symbol not in missing:
            stored = cache.get(digest(symbol))
            if stored is not None:
                objects[symbol] = stored
            else:
                missing[symbol] = request
    if missing:
        from effcc.backends.tvm import objects as compiler

        workers = max(1, threads or available_cores())
        together = min(MOST_TOGETHER, -(-len(missing) // workers))
        waiting = iter(missing.items())
        with ThreadPoolExecutor(workers) as pool:
            groups: list[Future[Iterator[tuple[str, bytes]]]] = []
            while group := {symbol: request.build() for symbol, request in islice(waiting, together)}:
                groups.append(pool.submit(compiler.compile_together, group, machine))
            for compiled in groups:
                for symbol, made in compiled.result():
                    objects[symbol] = made
                    cache.put(digest(symbol), made)
    return [Kernel(symbol, objects[symbol]) for symbol in symbols]


def driver(architecture: str, cache: ObjectCache | None = None) -> bytes:
    """The driver's object file, cached likewise."""
    cache = default_cache() if cache is None else cache
    key = digest("driver", architecture, versions())
    stored = cache.get(key)
    if stored is None:
        from effcc.backends.tvm import objects as compiler

        stored = compiler.build_driver(architecture)
        cache.put(key, stored)
    return stored


def digest(*parts: object) -> str:
    return hashlib.sha256("\n".join(map(str, parts)).encode()).hexdigest()


def described(machine: Machine) -> str:
    """What compilation depends on of a machine; what templates ask of it (caches, cores) is in their keys."""
    return f"{machine.architecture} {machine.llvm_cpu} {' '.join(sorted(machine.features))} {versions()}"


@cache
def versions() -> str:
    """The compiler's version and a hash of the code generator's own sources."""
    import effcc.ir
    import effcc.ops

    here = Path(__file__).parent
    folders = (here, Path(effcc.ir.__file__).parent, Path(effcc.ops.__file__).parent)
    sources = sorted(p for folder in folders for p in folder.rglob("*") if p.suffix in (".py", ".ll"))
    content = hashlib.sha256(b"".join(p.read_bytes() for p in sources)).hexdigest()
    return f"tvm {version('apache-tvm')} {content}"


def canonical(graph: Graph) -> str:
    """A region as text without names and locations, small constants spelled out."""
    number = {v: k for k, v in enumerate(graph.values)}
    lines = [" ".join(str(v.type) for v in graph.inputs)]
    for n in graph.nodes:
        op = f"const {n.op.blob.sha256}" if isinstance(n.op, Const) else repr(n.op)
        operands = " ".join(str(number.get(v, v.type)) for v in n.operands)
        lines.append(f"{op} ({operands}) -> {' '.join(str(r.type) for r in n.results)}")
    lines.append(" ".join(str(number[v]) for v in graph.results))
    return "\n".join(lines)
