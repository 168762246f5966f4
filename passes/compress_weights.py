"""Store weights that hold many zeros in a compressed layout, where a kernel that skips the zeros is faster."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from effcc.analysis.sparsity import best_blocks, zeros
from effcc.analysis.weights import Weight, weights
from effcc.errors import InputError
from effcc.ir import Builder, Graph, Node, Op, Tensor, Value
from effcc.ir.blob import Blob
from effcc.ir.builder import OpBuilder
from effcc.ir.dims import symbols, upper_bound
from effcc.ir.encodings import EncodedBlob, block_csr, encode, is_compressed, two_four
from effcc.ir.types import f32
from effcc.ops.constant import Const
from effcc.pipeline import Context, Pass
from effcc.rewrite import ItemBuilder, Workspace

TYPICAL = 128
"""What a size that is not known is measured with."""
ROUNDS = 3
"""How often dense and compressed are measured in turns; the least time of each counts."""


class CompressWeights(Pass):
    """matmul(x, w) --> matmul(x, w in block_csr or two_four layout)
    conv(x, w [+ bias]) of 1x1, channels last --> matmul(x, w in such a layout) [+ bias]

    Which layout follows from where w's zeros are. It is taken where a measurement on the target (`ctx.measure`) says
    that the product is faster than the dense one, or, where nothing may be measured, the cost model does; with
    goal="size" wherever it takes less memory. It must need less than `margin` of dense's time: clocks and models err.
    Weights of which less than `least` is zero are not looked at.
    """

    name = "compress-weights"
    category = "lower"
    contract = "exact; idempotent"
    special_inputs = False  # 0 · ∞ is left out with the zeros that are not stored
    source = "Gale et al. 2020, Sparse GPU Kernels for Deep Learning (arXiv:2006.10901)"
    choices = {"goal": ("speed", "size"), "margin": (0.9, 0.3, 5.0), "least": (0.25, 0.0), "min_size": (1024, 1)}
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
                b, (x, _, *bias) = ItemBuilder(reader.loc), reader.operands
                y = product(b, reader.op, x, new.result, bias)
                for one in b.made:
                    edited.place(one, reader)
                edited.replace(reader, (y,), b.made)
        return edited.freeze()

    def _compressed(self, w: Weight, ctx: Context) -> EncodedBlob | None:
        """The weight in the layout that its zeros allow."""
        if not all(is_product(user) for user in w.users):
            ctx.refused(self.name, w.loc, "only matmuls and convolutions of 1x1 have kernels for compressed weights")
            return None
        if (user := w.users[0]).op.name == "matmul" and w.blob.type.rank != 2 or w.blob.type.dtype.bits < 16:
            ctx.refused(self.name, user.loc, f"{w.blob.type} is no matrix of f64, f32, f16 or bf16")
            return None
        found = best_blocks(w.as_matrix(w.array), self._lanes(w, ctx))
        stored = w.array if w.blob.type.rank == 2 else w.array.reshape(w.array.shape[:2])
        if found.cost < 1.0 or (self.goal == "size" and found.kept < 0.5):
            height, width = found.block
            block = (height, width) if w.contracted == 0 else (width, height)
            return encode(stored, block_csr(block), w.blob.type.dtype)
        try:
            return encode(stored, two_four(w.contracted), w.blob.type.dtype)
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
        key = (w.blob.type, made.type, tuple((user.op, _sizes(user.operands[0].tensor)) for user in w.users))
        if key not in measured:
            ctx.progress(f"{self.name}: measure {w.blob.type} as {made.type.encoding}")
            rounds = [[self._measure(w, blob, ctx) for blob in (w.blob, made)] for _ in range(ROUNDS)]
            if sum(compressed < self.margin * dense for dense, compressed in rounds) <= ROUNDS // 2:
                rounds = [max(rounds, key=lambda r: r[1] / r[0])]  # most rounds say no: a lucky time does not count
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
            x, _, *others = (v.tensor for v in user.operands)
            sizes: list[Any] = [d if isinstance(d, int) else _typical(d) for d in x.shape]
            sizes[_summed(user.op, x)] = w.blob.type.shape[w.contracted]
            given = b.input(f"x{k}", Tensor(x.dtype, tuple(sizes)))
            bias = [b.input(f"bias{k}", t) for t in others]
            results.append(product(b, user.op, given, constant, bias))
        return ctx.measure(b.graph(*results))

    def example(self, d: Any, b: Any) -> Any:
        x, w = b.input("x", Tensor(f32, (d.integer(1, 3), 64))), self.example_weights(d)
        if d.boolean():
            stacked, turned = d.chance(10), d.boolean()
            y = b.relu(b.matmul(x, b.const(w[None] if stacked else w), transpose_b=turned))
            return b.matmul(y, b.const(np.roll(w, 32, 0)), transpose_b=turned) if d.chance(30) and not stacked else y
        image = b.reshape(x, shape=(x.shape[0], 1, 1, 64))
        wide = 3 if d.chance(20) else 1
        point = {"strides": (1, 1), "pads": (wide // 2,) * 4, "dilations": (1, 1), "layout": "nhwc"}
        bias = [b.input("bias", Tensor(f32, (64,)))] if d.boolean() else []
        return b.conv(image, b.const(np.tile(w.reshape(64, 64, 1, 1), (1, 1, wide, wide))), *bias, **point)

    @staticmethod
    def example_weights(d: Any) -> Any:
        """Zeros in blocks, two of four neighbours, or anywhere."""
        random = np.random.default_rng(d.integer(0, 99))
        w = random.integers(1, 4, (64, 64)).astype(np.float32)
        kind = d.choose(("blocks", "fours", "scattered"))
        if kind == "blocks":
            kept = np.kron(random.random((4, 4)) < d.choose((0.25, 0.9)), np.ones((16, 16), bool))
        elif kind == "fours":
            kept = np.tile([True, False, True, False], (64, 16))
        else:
            kept = random.random((64, 64)) < 0.6
        return np.where(kept.T if d.boolean() else kept, w, np.float32(0))


def is_product(user: Node) -> bool:
    """Whether a reader of a weight is a matmul, or a convolution that is one: 1x1, channels last, each pixel once."""
    if user.op.name == "matmul":
        return True
    attrs, kernel = user.op.attrs, user.operands[1].shape[2:]
    steps = (*kernel, *attrs["strides"])
    plain = attrs["layout"] == "nhwc" and attrs["groups"] == 1 and attrs["accumulate"] is None
    return plain and all(n == 1 for n in steps) and not any(attrs["pads"])


def product(b: OpBuilder, op: Op, x: Value, w: Value, bias: Sequence[Value]) -> Value:
    """The product of a matmul or of a convolution of 1x1 by a weight, which may be compressed."""
    if op.name == "conv" and is_compressed(w.type):
        y = b.matmul(x, w, transpose_b=True)
        return b.add(y, bias[0]) if bias else y
    return b.emit(op, (x, w, *bias))[0]


def _summed(op: Op, x: Tensor) -> int:
    """The axis of the left operand that a product sums over."""
    return x.rank - (2 if op.attrs.get("transpose_a") else 1)


def _typical(d: Any) -> int:
    bound = upper_bound(d)
    least = max((s.lo for s in symbols(d)), default=1)
    return max(least, 1, min(TYPICAL, TYPICAL if bound is None else bound))


def _sizes(x: Tensor) -> tuple[Any, ...]:
    return (x.dtype, *(d if isinstance(d, int) else _typical(d) for d in x.shape))
