"""What Triton's interpreter lacks: libdevice, right arithmetic on bf16, comparisons of scalars beside blocks.

The interpreter (3.7 to 3.9) holds bf16 as the integers of its bits. Its tl.dot multiplies those integers, conversions
of integers and f64 give integers, and that of f32 cuts bits off where devices round to the nearest, halves to even.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import RLock
from typing import Any

_LOCK = RLock()


@contextmanager
def mended() -> Iterator[None]:
    """Triton's interpreter with right bf16, for one launch."""
    import torch
    import triton.language as tl
    from triton.runtime import interpreter

    builder: Any = interpreter.interpreter_builder
    dot, cast, splat = builder.create_dot, builder.cast_impl, builder.create_splat

    def create_dot(a: Any, b: Any, *rest: Any) -> Any:
        return dot(*(cast(x, tl.float32) if x.dtype.scalar == tl.bfloat16 else x for x in (a, b)), *rest)

    def cast_impl(x: Any, target: Any) -> Any:
        if x.dtype.scalar != tl.bfloat16 and target.scalar == tl.bfloat16:
            bits = torch.from_numpy(x.data.copy()).bfloat16().view(torch.uint16).numpy()
            return interpreter.TensorHandle(bits.reshape(x.data.shape), target.scalar)
        return cast(x, target)

    def create_splat(type_: Any, x: Any) -> Any:
        if x.data.dtype == bool:  # a comparison, which says that it is of its operands' dtype
            return splat(type_, interpreter.TensorHandle(x.data, tl.int1))
        return splat(type_, x)

    with _LOCK:
        builder.create_dot, builder.cast_impl, builder.create_splat = create_dot, cast_impl, create_splat
        try:
            yield
        finally:
            del builder.create_dot, builder.cast_impl, builder.create_splat


class Library:
    """libdevice's functions on the interpreter's tensors."""

    def __getattr__(self, name: str) -> Any:
        import numpy as np
        import torch
        import triton.language as tl
        from triton.runtime.interpreter import TensorHandle

        def function(*args: Any) -> Any:
            first: Any = next(a for a in args if isinstance(a, tl.tensor))
            data = [a.handle.data if isinstance(a, tl.tensor) else np.asarray(a, first.handle.data.dtype) for a in args]
            tensors = [torch.from_numpy(np.ascontiguousarray(x)) for x in np.broadcast_arrays(*data)]
            out = getattr(torch, NAMES.get(name, name))(*tensors).numpy()
            blocks: list[Any] = [a for a in args if isinstance(a, tl.tensor) and a.shape]
            type_: Any = tl.block_type(first.dtype, list(out.shape)) if blocks else first.type
            return tl.tensor(TensorHandle(out, first.dtype.scalar), type_)

        return function


NAMES = {"rint": "round"}
"""torch's name of a function of libdevice, where it has another."""
