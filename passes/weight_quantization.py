"""What int8-weights and int4-weights share: which constants they round, and what stands for them in the graph.

method=rtn rounds to nearest. method=gptq makes up for errors with what calibration data multiplies with each weight
(effcc.passes.error_compensation); tables of embeddings, and weights inside branches and loops, are rounded to nearest.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

import numpy as np

from effcc.errors import InputError
from effcc.ir.blob import Blob
from effcc.ir.encodings import NIBBLES, encode
from effcc.ir.graph import Graph, Value
from effcc.ir.types import DTYPES, Tensor, f32
from effcc.ops.constant import Const
from effcc.ops.index import Gather
from effcc.ops.quantize import DequantizeLinear
from effcc.passes.error_compensation import round_compensated, second_moments
from effcc.passes.weight_rounding import Grid, Rounded, round_weights
from effcc.pipeline import Context, Pass
from effcc.rewrite import Item, Workspace, map_nested

GROUPS = (32, 64, 128)


class WeightQuantization(Pass):
    """A pass that rounds constant matrices to `bits`; subclasses name it and set defaults."""

    category = "quantize"
    contract = (
        "approximate; quantized when search=none and method=rtn; "
        "exact on on_the_grid when search=none and method=rtn; idempotent"
    )
    special_inputs = False  # 0 * NaN appears where a weight is rounded to 0, and an infinite sum where none was
    choices = {
        "group": (0, *GROUPS), "search": ("none", "mse"), "method": ("rtn", "gptq"), "scales": ("f32", "f16"),
        "min_elements": (1024, 1, 4000),
    }  # fmt: skip
    bits: ClassVar[int]
    group: int = 0
    asymmetric: bool = False
    search: str = "none"
    method: str = "rtn"
    gathers: bool = False
    scales: str = "f32"
    min_elements: int = 1024

    def __post_init__(self) -> None:
        for option, value, known in (
            ("group", self.group, (0, *GROUPS)),
            ("search", self.search, ("none", "mse")),
            ("method", self.method, ("rtn", "gptq")),
            ("scales", self.scales, ("f32", "f16")),
        ):
            if value not in known:
                names = ", ".join(map(str, known))
                raise InputError(f"{self.name}: {option}={value} is not offered", hint=f"one of {names}")

    @property
    def grid(self) -> Grid:
        scales = DTYPES[self.scales].numpy.name
        return Grid(self.bits, self.group, self.asymmetric, self.search == "mse", scales)

    def run(self, graph: Graph, ctx: Context) -> Graph:
        w = Workspace(graph)
        rounded: dict[Any, Rounded] = {}
        moments = self._moments(graph, w, ctx) if self.method == "gptq" else {}
        for item in w.items():
            op = map_nested(item.op, lambda g: replace(self, method="rtn").run(g, ctx))  # no samples tell its inputs
            if op is not item.op:
                w.set_op(item, op)
            weight = self._weight(item)
            blob = None if weight is None else w.constant(weight)
            if weight is None or blob is None:
                continue
            transposed = item.op.name == "gather" or item.op.transpose_b  # type: ignore[attr-defined]
            reason = self._unfit(blob, transposed) or self._shared(weight, w)
            if reason is not None:
                ctx.refused(self.name, item.loc, reason)
            elif ctx.allow(self.name, item.loc):
                seen = moments.get(weight) if item.op.name == "matmul" else None
                key = (id(blob), transposed, id(seen))
                if key not in rounded:
                    ctx.progress(f"{self.name} {item.loc}")
                    matrix = blob.array.T if transposed else blob.array
                    rounded[key] = (
                        round_weights(matrix, self.grid) if seen is None else round_compensated(matrix, self.grid, seen)
                    )
                (_gather if item.op.name == "gather" else _multiply)(w, item, rounded[key], transposed)
                w.erase_dead(weight)
        return w.freeze()

    def example(self, d: Any, b: Any) -> Any:
        k, n = d.choose((64, 40, 100)), d.choose((32, 48))
        turned = d.boolean()
        number = d.choose((None,) * 9 + (np.inf,))
        weights = b.const(d.blob(Tensor(f32, (n, k) if turned else (k, n)), number))
        y = b.matmul(b.input("x", Tensor(f32, (d.integer(1, 3), k))), weights, transpose_b=turned)
        rows = b.gather(weights, b.const(np.arange(3)), axis=0)
        return [y, *d.choose(((), (), (rows,), (rows,), (weights,)))]

    def on_the_grid(self, d: Any, b: Any) -> Any:
        """A product whose weights are elements of the grid already, each scale's extremes among them."""
        k, n = d.choose((64, 128)), d.choose((32, 48))
        grid, generator = self.grid, np.random.default_rng(d.integer(0, 999))
        group = self.group or k
        q = generator.integers(-grid.highest * (not self.asymmetric), grid.highest + 1, (k, n))
        q[::group], q[1::group] = grid.highest, 0
        scale = 2.0 ** generator.integers(-6, 1, (-(-k // group), n))
        weights = b.const((q * np.repeat(scale, group, 0)[:k]).astype("f4"))
        return b.matmul(b.input("x", Tensor(f32, (d.integer(1, 3), k))), weights)

    def _weight(self, item: Item) -> Value | None:
        """The operand that may be a constant to round."""
        if item.op.name == "matmul" and item.op.accumulate is None:  # type: ignore[attr-defined]
            return item.operands[1]
        if self.gathers and isinstance(item.op, Gather) and item.op.axis == 0:
            return item.operands[0]
        return None

    def _moments(self, graph: Graph, w: Workspace, ctx: Context) -> dict[Value, np.ndarray]:
        """The second moments of what each weight is multiplied with; none where there is nothing to round."""
        products = [n for n in graph.nodes if n.op.name == "matmul"]
        wanted = {
            n.operands[1] for n in products
            if (blob := w.constant(n.operands[1])) is not None and self._unfit(blob, n.op.transpose_b) is None  # type: ignore
        }  # fmt: skip
        if not wanted:
            return {}
        if ctx.calibration is None:
            raise InputError(f"{self.name}:method=gptq needs calibration data", hint="give calibration=, --calibration")
        ctx.progress(f"{self.name} calibration")
        return second_moments(graph, wanted, ctx.calibration)

    def _unfit(self, blob: Blob, transposed: bool) -> str | None:
        """Why a constant is not rounded."""
        array = blob.array
        if blob.type.dtype != f32 or array.ndim != 2:
            return f"the weight is {blob.type}, not a matrix of f32"
        if array.size < self.min_elements:
            return f"the weight has only {array.size} elements (min_elements={self.min_elements})"
        depth = array.shape[1 if transposed else 0]
        least = max(self.group, 16)
        if depth < least:
            return f"only {depth} products are summed, and a scale for fewer than {least} saves nothing"
        if not np.isfinite(array).all():
            return "the weight is not finite"
        if self.scales == "f16" and np.abs(array).max(initial=0) > 65504 / 2:
            return "the weight is too large for scales in f16 (scales=f32)"
        return None

    def _shared(self, weight: Value, w: Workspace) -> str | None:
        """Why rounding would leave the float32 constant where it is, beside the rounded one."""
        if w.is_output(weight):
            return "the weight is also a result"
        others = [u for u in w.users(weight) if self._weight(u) is not weight and u.op.name != "gather"]
        return f"the weight is also read by {others[0].op.name}" if others else None


def _constants(w: Workspace, item: Item, rounded: Rounded, transposed: bool) -> list[Value]:
    """q, scale and zero point as constants in front of a node, the summed axis last where `transposed`."""
    kind = "u" if rounded.grid.asymmetric else "i"
    dtype = DTYPES[f"{kind}{rounded.grid.bits}"]
    given = [(rounded.q, dtype), (rounded.scale, None), (rounded.zero, dtype)]
    values = []
    for array, as_dtype in given:
        if array is not None:
            array = np.ascontiguousarray(array.T if transposed else array)
            four = as_dtype is not None and as_dtype.bits == 4
            blob = encode(array, NIBBLES, as_dtype) if four else Blob(array, as_dtype)
            values.append(w.insert(Const(blob), (), item, item.loc).result)
    return values


def _multiply(w: Workspace, item: Item, rounded: Rounded, transposed: bool) -> None:
    summed = 1 if transposed else 0
    if rounded.grid.group:
        op = DequantizeLinear(axis=summed, block_size=rounded.group, dtype=f32)
    else:  # one scale for each output channel
        op = DequantizeLinear(axis=1 - summed, dtype=f32)
        zero = None if rounded.zero is None else rounded.zero[0]
        rounded = replace(rounded, scale=rounded.scale[0], zero=zero)
    restored = w.insert(op, tuple(_constants(w, item, rounded, transposed)), item, item.loc).result
    w.set_operands(item, (item.operands[0], restored))


def _gather(w: Workspace, item: Item, rounded: Rounded, transposed: bool) -> None:
    """Rows of integers are taken, and rows of scales; then they are multiplied."""
    index = item.operands[1]
    rows = [w.insert(Gather(0), (c, index), item, item.loc).result for c in _constants(w, item, rounded, transposed)]
    op = DequantizeLinear(axis=index.tensor.rank, block_size=rounded.group, dtype=f32)
    restored = w.insert(op, tuple(rows), item, item.loc)
    w.replace(item, (restored.result,), [restored])

