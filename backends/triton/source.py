"""Kernel text -> a Triton function: to compile, or to run through Triton's interpreter on the CPU.

The two come from the same text. In the interpreter `libdevice`, which is device code, is torch's functions, and `add`
is Triton's own sum (which it knows how to do fast).
"""

from __future__ import annotations

import linecache
from typing import Any

from effcc.backends.triton.kernel import KernelSource


def load(source: KernelSource, interpret: bool = False) -> Any:
    """The function of a kernel, as triton.jit makes it."""
    import triton
    from triton import knobs

    file = f"<effcc {source.name}>"
    linecache.cache[file] = (len(source.text), None, source.text.splitlines(True), file)
    namespace: dict[str, Any] = {"__name__": source.name}
    with knobs.runtime.scope():
        knobs.runtime.interpret = interpret
        exec(compile(source.text, file, "exec"), namespace)
    if interpret:
        from effcc.backends.triton.interpreter import Library

        namespace["libdevice"] = Library()
        if "add" in namespace:
            namespace["add"] = triton.language.standard._sum_combine  # type: ignore[attr-defined]
    return namespace[source.name]
