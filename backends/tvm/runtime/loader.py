"""Loads objects into this process with LLVM's ORC JIT, without TVM's compiler and without torch.

`driver()` loads the driver once for the process; `kernels(objects)` loads a program's kernels.  Everything stays loaded
until the process ends: worker threads run in it.
"""

from __future__ import annotations

import ctypes
import importlib
import os
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib.abc import MetaPathFinder
from types import ModuleType
from typing import Any

from effcc.errors import EffccError

_lock = threading.RLock()


@dataclass(frozen=True)
class Driver:
    """Addresses into the loaded driver (runtime/driver.ll), as callables that release the interpreter's lock."""

    run: Any
    """(address of a table) -> 0, or the code of the step that failed"""
    after_fork: Any
    set_spin: Any
    threads: Any


class Library:
    """Loaded kernels: symbol -> the address of its tile loop."""

    def __init__(self, objects: Sequence[bytes], symbols: Iterable[str]):
        with _lock, _loading():
            self._module = _load(objects)  # keeps the code mapped
            self.addresses: Mapping[str, int] = {symbol: self._module.get_function(symbol)() for symbol in symbols}


@cache
def driver(object_file: bytes) -> Driver:
    """The driver of this object file; loading it again gives the same one, with the same pool of threads."""
    with _lock, _loading():
        module = _load([object_file])
        _pin(module)
        table = ctypes.cast(module.get_function("effcc_driver")(), ctypes.POINTER(ctypes.c_void_p))
    loaded = Driver(
        run=ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p)(table[0]),
        after_fork=ctypes.CFUNCTYPE(None)(table[1]),
        set_spin=ctypes.CFUNCTYPE(None, ctypes.c_int64)(table[2]),
        threads=ctypes.CFUNCTYPE(ctypes.c_int64)(table[3]),
    )
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=loaded.after_fork)
    return loaded


@contextmanager
def _loading() -> Iterator[None]:
    """ORC's errors in one line. (It prints the names of missing symbols itself.)"""
    try:
        yield
    except (RuntimeError, ValueError, AttributeError, OSError) as error:
        reason = str(error).strip().splitlines()[-1]
        raise EffccError(f"the object files cannot be loaded: {reason}", hint="compile the model again") from error


def _load(objects: Sequence[bytes]) -> Any:
    # Straight to the extension's function: the Python method around it asks a C++ compiler where libstdc++ is.
    session, load = _session()
    return load(session, list(objects), "", None, None)


@cache
def _session() -> tuple[Any, Any]:
    """ORC's session for plain C objects, which never dies, and the function that loads into it."""
    import_without_torch("tvm_ffi")
    import tvm_ffi_orcjit
    from tvm_ffi_orcjit import _ffi_api

    session = tvm_ffi_orcjit.ExecutionSession(orc_rt=None)
    _pin(session)
    return session, _ffi_api.SessionLoadModule


def _pin(value: Any) -> None:
    """Keeps a value for ever: the interpreter drops all others when it ends, but workers still stand in the code."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(value))


class _Absent(MetaPathFinder):
    """An import hook for which, in the thread that made it, torch is not installed."""

    def __init__(self) -> None:
        self.thread = threading.get_ident()

    def find_spec(self, fullname: str, path: object = None, target: ModuleType | None = None) -> None:
        if threading.get_ident() == self.thread and (fullname == "torch" or fullname.startswith("torch.")):
            raise ImportError("torch is kept out while effcc's runtime is loaded", name=fullname)


def import_without_torch(name: str) -> ModuleType:
    """Imports a module that would import torch if it could, and does without; a loaded torch stays as it is.

    tvm_ffi does so for its DLPack bridge, which the runtime does not use: 1 s that loading a program need not wait for.
    """
    if name in sys.modules or "torch" in sys.modules:
        return importlib.import_module(name)
    hook = _Absent()
    sys.meta_path.insert(0, hook)
    try:
        return importlib.import_module(name)
    finally:
        sys.meta_path.remove(hook)
