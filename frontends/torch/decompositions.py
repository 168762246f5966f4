"""Which aten ops stay whole: those with a handler. torch takes apart every other op that it has a decomposition for."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from effcc.frontends.torch.emitter import handler_of, own_complex_handler


@cache
def decompositions() -> dict[Any, Callable[..., Any]]:
    """OpOverload -> function, for AOTAutograd and `ExportedProgram.run_decompositions`."""
    from torch._decomp import core_aten_decompositions, decomposition_table

    import effcc.frontends.torch.aten  # noqa: F401  fills the registry

    known = {**decomposition_table, **core_aten_decompositions()}
    return {op: f for op, f in known.items() if handler_of(op) is None and own_complex_handler(op) is None}
