"""Between plain tensors and compressed layouts (effcc.ir.encodings): the elements stay, only how they lie changes."""

from __future__ import annotations

from typing import Any

from effcc.errors import InputError
from effcc.ir import scalar as s
from effcc.ir.blob import Blob
from effcc.ir.encodings import CODECS, encode, is_compressed
from effcc.ir.op import Op, require, tensor
from effcc.ir.scalar import Compute, Read
from effcc.ir.types import Encoding, Tensor, Type


class Layout(Op):
    """A change of how elements lie in memory: the same elements."""

    family = "encoding"

    def compute(self, x: Tensor) -> Compute:
        return Compute(x.shape, (Read(x.dtype, 0, tuple(s.index(k) for k in range(x.rank))),))


class Pack(Layout):
    """x in the compressed layout `encoding`, which says what of x is kept: a constant that has the layout's pattern."""

    name = "pack"
    undefined = "elements without the pattern of the layout"
    encoding: Encoding

    def infer(self, x: Type) -> Tensor:
        t = tensor(x)
        require(self.encoding.name in CODECS, f"{self.encoding} is no compressed layout", f"one of {', '.join(CODECS)}")
        require(t.encoding is None and t.is_static, f"{t} cannot be packed", "pack plain constants")
        return Tensor(t.dtype, t.shape, self.encoding)

    def reference(self, x: Any) -> Any:
        plain = Blob.from_torch(x)
        packed = encode(plain.array, self.encoding, plain.type.dtype)
        if packed.type.encoding != self.encoding:
            raise InputError(f"the elements fit {packed.type.encoding}, not {self.encoding}")
        return packed.torch()


class Unpack(Layout):
    """x, whose layout is compressed, as a plain tensor."""

    name = "unpack"

    def infer(self, x: Type) -> Tensor:
        t = tensor(x)
        require(is_compressed(t), f"{t} is plain already")
        return Tensor(t.dtype, t.shape)

    def reference(self, x: Any) -> Any:
        return x.clone()
