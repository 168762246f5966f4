"""Store weights that hold many zeros in a compressed layout, where a kernel that skips the zeros is faster."""

from __future__ import annotations

from typing import Any

import numpy as np

from effcc.analysis.sparsity import best_blocks, zeros
from effcc.analysis.weights import Weight, weights
from effcc.errors import InputError
from effcc.ir import Builder, Graph, Tensor
from effcc.ir.blob import Blob
from effcc.ir.dims import symbols, upper_bound
from effcc.ir.encodings import EncodedBlob, block_csr, encode, two_four
from effcc.ir.types import f32
from effcc.ops.constant import Const
from effcc.pipeline import Context, Pass
from effcc.rewrite import Workspace

TYPICAL = 128
"""What a size that is not known is measured with."""
ROUNDS = 3
"""How often dense and compressed are measured in turns; the least time of each counts."""


class CompressWeights(Pass):
    """matmul(x, w) --> matmul(x, w in block_csr or two_four layout)

    Which layout follows from where w's zeros are. It is taken where a measurement on the target (`ctx.measure`) says
    that the product is faster than the dense one, or, where nothing may be measured, the cost model does; with
    goal="size" wherever it takes less memory. It must need less than `margin` of dense's time: clocks and models err.
    Weights of which less than `least` is zero are not looked at.
    """

    name = "compress-weights"
    category = "lower"
    contract = "exact; idempotent"
    source = "Gale et al. 2020, Sparse GPU Kernels for Deep Learning (arXiv:2006.10901)"
    goal: str = "speed"
    margin: float = 0.9
    least: float = 0.25
    min_size: int = 1024

    def __post_init__(self) -> None:
        if self.goal not in ("speed", "size"):
            raise ValueError(f"goal={self.goal!r} is neither speed nor size")

    def run(self, graph: Graph, ctx: Context) -> Graph:
        edited = Workspace(graph)
        measured: dict[Any, tuple[float, float]] = {}
        for w in weights(graph):
            if w.size < self.min_size or zeros(w.array) < self.least:
                continue
            made = self._compressed(w, ctx)
            if made is None or not self._better(w, made, measured, ctx) or not ctx.allow(self.name, w.loc):
                continue
            item = edited.producer(w.value)
            assert item is not None
            new = edited.insert(Const(made), (), item, item.loc)
            for user in w.users:
                reader = edited.producer(user.result)
                assert reader is not None
                edited.set_operands(reader, (reader.operands[0], new.result))
            edited.erase(item)
        return edited.freeze()

    def _compressed(self, w: Weight, ctx: Context) -> EncodedBlob | None:
        """The weight in the layout that its zeros allow."""
        if any(user.op.name != "matmul" for user in w.users):
            ctx.refused(self.name, w.loc, "only matmuls have kernels for compressed weights")
            return None
        if len(w.blob.type.shape) != 2 or w.blob.type.dtype.bits < 16:
            ctx.refused(self.name, w.loc, f"{w.blob.type} is no matrix of f64, f32, f16 or bf16")
            return None
        found = best_blocks(w.as_matrix(w.array), self._lanes(w, ctx))
        if found.cost < 1.0 or (self.goal == "size" and found.kept < 0.5):
            height, width = found.block
            block = (height, width) if w.contracted == 0 else (width, height)
            return encode(w.array, block_csr(block), w.blob.type.dtype)
        try:
            return encode(w.array, two_four(w.contracted), w.blob.type.dtype)
        except InputError:
            height, width = found.block
            reason = f"its zeros are no pattern: {found.kept:.0%} of its blocks of {height}x{width} hold something"
            ctx.refused(self.name, w.loc, reason)
            return None

    def _lanes(self, w: Weight, ctx: Context) -> int:
        bits = ctx.machine.vector_bits if ctx.machine is not None else 512
        return max(1, bits // max(32, w.blob.type.dtype.bits))

    def _better(self, w: Weight, made: EncodedBlob, measured: dict[Any, tuple[float, float]], ctx: Context) -> bool:
        plain, packed = w.blob.type.nbytes, made.type.nbytes
        if self.goal == "size":
            return packed < plain  # type: ignore[operator]
        assert made.type.encoding is not None
        name = made.type.encoding.name
        if ctx.measure is None:
            if name == "two_four":
                ctx.refused(self.name, w.loc, "there is no cost model for two_four, and nothing may be measured")
                return False
            cost = best_blocks(w.as_matrix(w.array), self._lanes(w, ctx)).cost
            if cost >= self.margin:
                reason = f"the cost model says that {made.type.encoding} takes {cost:.2f} of dense's time"
                ctx.refused(self.name, w.loc, reason)
            return cost < self.margin
        key = (w.blob.type, made.type, w.contracted, tuple(_rows(user.operands[0].tensor) for user in w.users))
        if key not in measured:
            ctx.progress(f"{self.name}: measure {w.blob.type} as {made.type.encoding}")
            rounds = [[self._measure(w, blob, ctx) for blob in (w.blob, made)] for _ in range(ROUNDS)]
            measured[key] = min(r[0] for r in rounds), min(r[1] for r in rounds)
        dense, sparse = measured[key]
        figures = {"layout": name, "dense us": round(1e6 * dense, 1), "compressed us": round(1e6 * sparse, 1)}
        ctx.note(w.loc, **figures)
        if sparse >= self.margin * dense:
            reason = f"dense is faster: {1e6 * dense:.0f} us, {1e6 * sparse:.0f} us as {made.type.encoding}"
            ctx.refused(self.name, w.loc, reason)
        return sparse < self.margin * dense

    def _measure(self, w: Weight, blob: Blob, ctx: Context) -> float:
        """Seconds of the products by a weight, one after the other."""
        assert ctx.measure is not None
        b = Builder("measured")
        constant, results = b.const(blob), []
        for k, user in enumerate(w.users):
            x = user.operands[0].tensor
            shape = tuple(d if isinstance(d, int) else _typical(d) for d in x.shape)
            results.append(b.emit(user.op, (b.input(f"x{k}", Tensor(x.dtype, shape)), constant))[0])
        return ctx.measure(b.graph(*results))

    def example(self, d: Any, b: Any) -> Any:
        random = np.random.default_rng(d.integer(0, 99))
        x = b.input("x", Tensor(f32, (d.integer(1, 3), 64)))
        w = random.integers(-3, 4, (64, 64)).astype(np.float32)
        kept = random.random((4, 4)) < 0.25
        w *= np.kron(kept, np.ones((16, 16), np.float32))
        return b.relu(b.matmul(x, b.const(Blob(w)), transpose_b=d.boolean()))


def _typical(d: Any) -> int:
    bound = upper_bound(d)
    least = max((s.lo for s in symbols(d)), default=1)
    return max(least, 1, min(TYPICAL, TYPICAL if bound is None else bound))


def _rows(x: Tensor) -> tuple[Any, ...]:
    return (x.dtype, *(d if isinstance(d, int) else _typical(d) for d in x.shape))
