"""Constants: data that travels beside the graph by content hash."""

from __future__ import annotations

from typing import Any

from effcc.ir.blob import Blob
from effcc.ir.op import Op
from effcc.ir.types import Tensor


class Const(Op):
    """The elements of a blob."""

    name = "const"
    family = "constant"
    operands = ()
    blob: Blob

    def infer(self) -> Tensor:
        return self.blob.type

    def reference(self) -> Any:
        return self.blob.torch()
