"""Contractions: sums of products over shared axes."""

from __future__ import annotations

from typing import Any

from effcc.ir import scalar as s
from effcc.ir.assumptions import may_equal
from effcc.ir.dims import Dim, floordiv
from effcc.ir.encodings import codec, is_compressed
from effcc.ir.lazy import torch
from effcc.ir.op import Op, require, tensor
from effcc.ir.scalar import PARALLEL, REDUCTION, Compute, Read, State
from effcc.ir.types import DType, Tensor, Type
from effcc.ops.elementwise import broadcast_index, broadcast_shapes


def require_sums(accumulate: DType | None, dtype: DType) -> None:
    """Refuse sums of `dtype` in a dtype that has none of it: where in the sum floats became integers is left open."""
    require(accumulate is None or not accumulate.is_bool, "sums are no bool")
    integer = accumulate is not None and accumulate.is_integer
    require(not (integer and dtype.is_float), f"sums of {dtype} are no {accumulate}", "cast the result")


def accumulate_dtype(dtype: DType, asked: DType | None) -> DType:
    """What sums are kept in: f32 for the short floats, else as asked, else the dtype itself."""
    if dtype.is_float and dtype.bits < 32:
        return DType.parse("f32")
    return asked or dtype


def exact_carrier(a: Any, b: Any) -> Any:
    """The torch dtype in which sums of products are exact: f64, which is quick, for up to 16 bits; else i64 (wraps)."""
    small = all(x.is_floating_point() or x.element_size() <= 2 for x in (a, b))
    return torch.float64 if small else torch.int64


def from_zero(sums: Any) -> Any:
    """Sums that begin with +0, as ours do: none is -0. (torch's may be, by the shapes that they are computed in.)"""
    return sums + 0.0


class Matmul(Op):
    """result[..., m, n] = Σ_k a[..., m, k] · b[..., k, n]; leading axes broadcast. `transpose_a`/`transpose_b` swap
    an operand's
    last two axes first. Integer operands sum (and give) `accumulate`; f16 and bf16 sum in f32 and round once (subnormal
    bf16 may count as zero, as it does in processors' instructions). Products
    with zeros that a compressed operand does not store may be left out, even those with NaN and infinities."""

    name = "matmul"
    family = "contraction"
    kinds = "fiu"
    operands = ("a", "b")
    transpose_a: bool = False
    transpose_b: bool = False
    accumulate: DType | None = None

    def dims(self, a: Tensor, b: Tensor) -> tuple[tuple[Dim, ...], Dim, Dim, Dim]:
        """(batch shape, M, N, K), K a number where either operand tells it."""
        m, k = (a.shape[-1], a.shape[-2]) if self.transpose_a else (a.shape[-2], a.shape[-1])
        n, other = (b.shape[-2], b.shape[-1]) if self.transpose_b else (b.shape[-1], b.shape[-2])
        require(may_equal(k, other), f"inner sizes {k} and {other} differ")
        return broadcast_shapes(a.shape[:-2], b.shape[:-2]), m, n, other if isinstance(other, int) else k

    def infer(self, a: Type, b: Type) -> Tensor:
        x, y = tensor(a), tensor(b)
        require(x.rank >= 2 and y.rank >= 2, "both operands need at least two axes", "reshape vectors to matrices")
        require(
            x.dtype == y.dtype or (self.accumulate is not None and x.dtype.is_integer and y.dtype.is_integer),
            f"operands differ in dtype ({x.dtype} and {y.dtype})",
            "insert a cast",
        )
        require(not x.dtype.is_bool and not y.dtype.is_bool, "matmul does not take bool", "insert a cast")
        require_sums(self.accumulate, x.dtype)
        batch, m, n, _ = self.dims(x, y)
        return Tensor(self.accumulate or x.dtype, (*batch, m, n))

    def reference(self, a: Any, b: Any) -> Any:
        a = a.mT if self.transpose_a else a
        b = b.mT if self.transpose_b else b
        if self.accumulate is not None:
            out = self.accumulate.torch
            if not self.accumulate.is_integer:
                return from_zero(torch.matmul(a.to(out), b.to(out)))
            wide = exact_carrier(a, b)
            return torch.matmul(a.to(wide), b.to(wide)).to(torch.int64).to(out)
        if not a.is_floating_point() and a.dtype != torch.int64:
            return torch.matmul(a.to(torch.int64), b.to(torch.int64)).to(a.dtype)
        return from_zero(torch.matmul(a, b)) if a.is_floating_point() else torch.matmul(a, b)

    def flops(self, *types: Type) -> Dim:
        """Two for each product; products with what a compressed operand leaves out are not computed."""
        dense = super().flops(*types)
        for t in map(tensor, types):
            if is_compressed(t) and t.size != 0:
                dense = floordiv(dense * codec(t).kept(t), t.size)
        return dense

    def compute(self, a: Tensor, b: Tensor) -> Compute:
        batch, m, n, k = self.dims(a, b)
        rank = len(batch)
        at = tuple(s.index(i) for i in range(rank))
        im, jn, kk = s.index(rank), s.index(rank + 1), s.index(rank + 2)
        x = Read(a.dtype, 0, (*broadcast_index(a.shape[:-2], batch, at), *((kk, im) if self.transpose_a else (im, kk))))
        y = Read(b.dtype, 1, (*broadcast_index(b.shape[:-2], batch, at), *((jn, kk) if self.transpose_b else (kk, jn))))
        out = self.infer(a, b).dtype
        acc = accumulate_dtype(out, self.accumulate)
        step = State(acc, 0) + s.cast(x, acc) * s.cast(y, acc)
        return Compute(
            (*batch, m, n, k),
            (s.cast(State(acc, 0), out),),
            PARALLEL * (rank + 2) + REDUCTION,
            (s.const(acc, 0),),
            (step,),
        )
