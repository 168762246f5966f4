"""Did generated code compute it? What the outside suites ask of a program before a result counts."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

_GENERATED: set[str] = set()
"""Keys of kernels that are known to be generated code."""


@contextlib.contextmanager
def no_meanings() -> Iterator[None]:
    """Inside, asking for an op's meaning fails."""
    from effcc.ir.op import Op

    def refuse(self: Any, *_: Any, **__: Any) -> Any:
        raise AssertionError(f"{self.name} was run by its meaning in torch, not by generated code")

    before, Op.run = Op.run, refuse  # type: ignore[method-assign]
    try:
        yield
    finally:
        Op.run = before  # type: ignore[method-assign]


def assert_generated(program: Any) -> None:
    """The launch list holds generated kernels only, and one or more wherever the graph computes any element."""
    foreign = [launch.label for launch in program.launches if not _is_generated(launch.kernel)]
    assert not foreign, f"not generated code: {', '.join(foreign)}"
    nodes = [node for node in program.graph.walk() if node.op.family not in ("constant", "view", "control")]
    computing = [n.op.name for n in nodes if any(0 not in getattr(v.type, "shape", ()) for v in n.results)]
    assert program.launches or not computing, f"no launch for {', '.join(computing)}"


def _is_generated(kernel: Any) -> bool:
    """Whether a kernel's function is built for TVM: once for each key, which names all that its code depends on."""
    if kernel.request.key not in _GENERATED and type(kernel.function).__module__.split(".")[0] == "tvm":
        _GENERATED.add(kernel.request.key)
    return kernel.request.key in _GENERATED
