"""Products in 16 bits, as tensor cores multiply them; sums and all else stay in f32.

matmul(x, w) --> matmul(cast(x), cast(w)) {accumulate=f32}      likewise conv
attention(q, k, v) --> cast(attention(cast(q), cast(k), cast(v)))
"""

from __future__ import annotations

from typing import Any

from effcc.errors import InputError
from effcc.interp import run
from effcc.ir import Graph, Node, Tensor, Value
from effcc.ir.op import Op, op_class
from effcc.ir.types import DTYPES, DType, f32, f64
from effcc.ops.attention import Attention
from effcc.ops.contraction import Matmul
from effcc.ops.view import Reshape, Slice, Transpose
from effcc.ops.window import Conv, MaxPool
from effcc.pipeline import Context, Pass, Range
from effcc.rewrite import Item, Workspace

SAMPLES = 8
"""Of the calibration data, that sensitivities are measured on."""


class Half(Pass):
    """Round the operands of f32 matrix products, convolutions and attentions to `dtype`: "f16" (11 bits of significand,
    up to 65504: larger values become infinite) or "bf16" (8 bits, f32's range). Weights are rounded once, when they are
    folded; what a convolution multiplies is rounded for the elementwise ops that read it, too. skip: ops with one of
    these in their location stay. share: of the arithmetic is rounded at most; the rest are the ops whose results it
    moves most, in relation to their size, on the first of the calibration data."""

    name = "half"
    category = "quantize"
    contract = "bounded"
    source = "Micikevicius et al. 2018, Mixed Precision Training (arXiv 1710.03740)"
    special_inputs = False

    choices = {"dtype": ("f16", "bf16"), "skip": ((), ("op1",))}
    searchable = {"share": Range(0.0, 1.0, 0.05)}
    dtype: str = "f16"
    skip: tuple[str, ...] = ()
    share: float = 1.0

    def __post_init__(self) -> None:
        if self.dtype not in ("f16", "bf16"):
            raise InputError(f"half:dtype={self.dtype} is not offered", hint="f16 or bf16")
        if not 0 <= self.share <= 1:
            raise InputError(f"half:share={self.share} is no share", hint="from 0 to 1")

    def run(self, graph: Graph, ctx: Context) -> Graph:
        w, short, seen = Workspace(graph), DTYPES[self.dtype], {}
        stay = self.most_sensitive(graph, ctx) if self.share < 1 else set()
        for item in w.items():
            if not isinstance(item.op, (Matmul, Conv, Attention)):
                continue
            reason = "it is among the most sensitive" if item.results[0] in stay else self._refusal(item)
            if reason is not None:
                ctx.refused("half", item.loc, reason)
            elif ctx.allow("half", item.loc):
                w.replace(item, (_halved(w, item, short, seen),))
        for v, rounded in seen.items():
            _share(w, v, rounded)
        return w.freeze()

    def most_sensitive(self, graph: Graph, ctx: Context) -> set[Value]:
        """The results of what exceeds `share` of the arithmetic, when the least sensitive ops are rounded first."""
        if ctx.calibration is None:
            hint = "give calibration data: --calibration data.npz, or calibration= in Python"
            raise InputError("half with share= has to see activations", where=f"graph @{graph.name}", hint=hint)
        ctx.progress("measuring sensitivities")
        errors: dict[Value, float] = {}
        flops: dict[Value, float] = {}
        short = DTYPES[self.dtype].torch

        def observe(node: Node, operands: tuple[Any, ...], results: tuple[Any, ...]) -> None:
            if isinstance(node.op, (Matmul, Conv, Attention)) and self._refusal(node) is None:
                count = 3 if isinstance(node.op, Attention) else 2
                rounded = (x.to(short).float() for x in operands[:count])
                (exact,), (near,) = results, node.op.run(*rounded, *operands[count:], results=(node.result.type,))
                size = float(exact.double().square().sum())
                errors[node.result] = float((near.double() - exact.double()).square().sum()) / size if size else 0.0
                types = (Tensor(f32, tuple(x.shape)) for x in operands)
                amount = node.op.flops(*types)
                flops[node.result] = float(amount) if isinstance(amount, int) else 0.0

        run(graph, *next(ctx.calibration[:SAMPLES].batches()), observe=observe)
        left = self.share * sum(flops.values())
        stay = set()
        for v in sorted(errors, key=errors.__getitem__):
            left -= flops[v]
            if left < -1e-6 * flops[v]:
                stay.add(v)
        return stay

    def _refusal(self, item: Item | Node) -> str | None:
        operands = item.operands[: 3 if isinstance(item.op, Attention) else 2]
        if any(v.dtype != f32 for v in operands):
            return f"it multiplies {', '.join(str(v.dtype) for v in operands)}, not f32"
        if getattr(item.op, "accumulate", None) not in (None, f32):
            return "it sums in another dtype than f32"
        if any(part in str(item.loc) for part in self.skip):
            return "skip= names it"
        return None

    def example(self, d: Any, b: Any) -> Any:
        """An attention over what a product gives."""
        k = d.integer(1, 9)
        x = b.input("x", Tensor(f32, (d.integer(1, 9), k)))
        y = b.matmul(x, b.input("w", Tensor(f32, (k, k))), accumulate=f64 if d.chance(20) else None)
        y = b.cast(y, to=f32) if y.dtype == f64 else y
        heads = b.reshape(b.relu(y), shape=(1, *y.shape))
        return b.attention(heads, heads, heads, scale=0.5)


def _share(w: Workspace, v: Value, rounded: Value) -> None:
    """What a convolution multiplies is rounded for all that read it, so that it needs to be stored but once."""
    if not any(isinstance(user.op, Conv) for user in w.users(rounded)) or w.is_output(v):
        return
    rounding = w.producer(rounded)
    others = [user for user in w.users(v) if user is not rounding]
    if others and all(user.op.family == "elementwise" for user in others):
        wide = w.insert(op_class("cast")(to=f32), (rounded,), others[0]).result  # type: ignore[call-arg]
        for user in others:
            w.set_operands(user, tuple(wide if x is v else x for x in user.operands))


def _is_pool(w: Workspace, made: Item) -> bool:
    """Whether it gives the greatest numbers of windows, which rounding does not change, to convolutions alone."""
    one = isinstance(made.op, MaxPool) and len(made.results) == 1
    return one and not w.is_output(made.result) and all(isinstance(u.op, Conv) for u in w.users(made.result))


def _halved(w: Workspace, item: Item, short: DType, seen: dict[Value, Value]) -> Value:
    """The op on rounded operands, in front of the old one."""

    def add(op: Op, *operands: Value) -> Value:
        return w.insert(op, operands, item, item.loc).result

    def rounded(v: Value) -> Value:
        """The value rounded where it is made: in front of the views, so that its producer can store the short one."""
        if v not in seen:
            made = w.producer(v)
            if made is not None and (isinstance(made.op, (Reshape, Transpose, Slice)) or _is_pool(w, made)):
                seen[v] = add(made.op, rounded(made.operands[0]))
            elif made is not None and made.op.name == "cast" and made.operands[0].dtype == short:
                seen[v] = made.operands[0]  # as of an attention before
            else:
                seen[v] = add(op_class("cast")(to=short), v)  # type: ignore[call-arg]
        return seen[v]

    if isinstance(item.op, Attention):
        q, k, v, *mask = item.operands
        made = add(item.op, rounded(q), rounded(k), rounded(v), *mask)
        return add(op_class("cast")(to=f32), made)  # type: ignore[call-arg]
    a, b, *bias = item.operands
    return add(item.op.replace(accumulate=f32), rounded(a), rounded(b), *bias)
