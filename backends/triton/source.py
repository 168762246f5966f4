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
        namespace["libdevice"] = Library()
        if "add" in namespace:
            namespace["add"] = triton.language.standard._sum_combine  # type: ignore[attr-defined]
    return namespace[source.name]


class Library:
    """libdevice's functions on the interpreter's tensors."""

    def __getattr__(self, name: str) -> Any:
        import numpy as np
        import torch
        import triton.language as tl
        from triton.runtime.interpreter import TensorHandle

        def function(*args: Any) -> Any:
            first = next(a for a in args if isinstance(a, tl.tensor))
            data = [a.handle.data if isinstance(a, tl.tensor) else np.asarray(a, first.handle.data.dtype) for a in args]
            tensors = [torch.from_numpy(np.ascontiguousarray(x)) for x in np.broadcast_arrays(*data)]
            out = getattr(torch, NAMES.get(name, name))(*tensors).numpy()
            type_ = tl.block_type(first.dtype, list(out.shape)) if out.ndim and any(
                isinstance(a, tl.tensor) and a.type.is_block() for a in args) else first.type
            return tl.tensor(TensorHandle(out, first.dtype.scalar), type_)

        return function


NAMES = {"rint": "round"}
"""torch's name of a function of libdevice, where it has another."""
