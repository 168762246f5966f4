"""RNN, GRU and LSTM: the inputs' products for all steps at once, then a loop over time (unrolled where it is short).

Source: the ONNX operator specification; gate orders there: GRU z r h, LSTM i o f c.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from effcc.frontends.onnx.node import OnnxNode, onnx_op
from effcc.frontends.onnx.ops_elementwise import cast
from effcc.frontends.onnx.ops_index import size_value
from effcc.frontends.onnx.ops_shape import flip, piece, reverse_prefix
from effcc.ir.dims import Dim
from effcc.ir.graph import Value
from effcc.ir.types import Tensor, bool_, i64

SHORT = 8
"""Sequences of up to so many steps are unrolled."""

Activation = Callable[[Any, Value], Value]
Cell = Callable[[Any, Callable[[Value], Value], Value, Sequence[Value]], list[Value]]
"""(builder, bring, the step's input products, states) -> new states, the first of them the output."""

DEFAULTS = {
    "LeakyRelu": (0.01, 0.0),
    "ThresholdedRelu": (1.0, 0.0),
    "HardSigmoid": (0.2, 0.5),
    "Elu": (1.0, 0.0),
    "Affine": (1.0, 0.0),
    "ScaledTanh": (1.0, 1.0),
}
PLAIN = {
    "relu": "relu",
    "tanh": "tanh",
    "sigmoid": "sigmoid",
    "softsign": "softsign",
    "softplus": "softplus",
}


@dataclass(frozen=True)
class Recurrence:
    """What the three ops share: weights by direction, states, lengths."""

    n: OnnxNode
    x: Value
    """[T, B, I]"""
    lengths: Value | None
    hidden: int
    directions: tuple[bool, ...]
    """Whether each goes backwards."""

    def part(self, v: Value, k: int) -> Value:
        """Direction k of a weight, bias or state."""
        return self.n.b.reshape(piece(self.n, v, 0, k, k + 1), shape=v.shape[1:])


def prepared(
    n: OnnxNode, x: Value, lengths: Value | None, gates: int, w: Value, r: Value, bias: Value | None
) -> Recurrence:
    """The input, time first; weights have ONNX's sizes: w [D, G·H, X], r [D, G·H, H], bias [D, 2·G·H]."""
    direction = n.attr("direction", "forward")
    table = {"forward": (False,), "reverse": (True,), "bidirectional": (False, True)}
    if direction not in table:
        n.malformed(f"direction {direction!r}")
    if n.attr("layout", 0):
        x = n.b.transpose(x, perm=(1, 0, 2))
    if lengths is not None:
        known = n.known(lengths)
        if known is not None and all(isinstance(e, int) and e == x.shape[0] for e in known.flat):
            lengths = None
    count, hidden = len(table[direction]), n.attr("hidden_size", r.shape[-1])
    wanted = {"W": (count, gates * hidden, x.shape[-1]), "R": (count, gates * hidden, hidden),
              "B": (count, 2 * gates * hidden)}  # fmt: skip
    for (name, shape), v in zip(wanted.items(), (w, r, bias), strict=True):
        if v is not None and not fits(v.shape, shape):
            n.malformed(f"{name} is {v.type}, not of shape [{', '.join(map(str, shape))}]")
    return Recurrence(n, x, lengths, hidden, table[direction])


def fits(shape: tuple[Dim, ...], wanted: tuple[Dim, ...]) -> bool:
    """Whether a shape is the wanted one, as far as both are numbers."""
    return len(shape) == len(wanted) and all(
        a == b or not (isinstance(a, int) and isinstance(b, int)) for a, b in zip(shape, wanted, strict=True)
    )


def activations(n: OnnxNode, default: Sequence[str], count: int) -> list[list[Activation]]:
    """For each direction its activation functions, clipped."""
    names = list(n.attr("activations", tuple(default) * count))
    alphas, betas = list(n.attr("activation_alpha", ())), list(n.attr("activation_beta", ()))
    made = []
    for name in names:
        lowered = {known.lower(): known for known in DEFAULTS}.get(name.lower())
        alpha, beta = DEFAULTS.get(lowered or "", (0.0, 0.0))
        if lowered is not None:
            alpha = alphas.pop(0) if alphas else alpha
            beta = betas.pop(0) if betas and lowered in ("HardSigmoid", "Affine", "ScaledTanh") else beta
        elif name.lower() not in PLAIN:
            n.malformed(f"unknown activation {name!r}")
        made.append(_activation(name.lower(), alpha, beta, n.attr("clip", 0.0)))
    per = len(default)
    return [made[k * per : (k + 1) * per] for k in range(count)]


def _activation(name: str, alpha: float, beta: float, clip: float) -> Activation:
    def apply(b: Any, x: Value) -> Value:
        if clip:
            x = b.clip(x, b.full_like(x, -clip), b.full_like(x, clip))
        match name:
            case "affine":
                return b.add(b.mul(x, b.full_like(x, alpha)), b.full_like(x, beta))
            case "scaledtanh":
                return b.mul(b.tanh(b.mul(x, b.full_like(x, beta))), b.full_like(x, alpha))
            case "leakyrelu":
                return b.leaky_relu(x, alpha=alpha)
            case "thresholdedrelu":
                return b.thresholded_relu(x, alpha=alpha)
            case "hardsigmoid":
                return b.hard_sigmoid(x, alpha=alpha, beta=beta)
            case "elu":
                return b.elu(x, alpha=alpha)
        return getattr(b, PLAIN[name])(x)

    return apply


def run(
    r: Recurrence, cells: Sequence[Cell], products: Sequence[Value], states: Sequence[list[Value]]
) -> tuple[Value, ...]:
    """All directions: (Y, final states...) in the layout that the node asks for.

    products[k] [T, B, G], states[k] a list of [B, H].
    """
    n, b = r.n, r.n.b
    ys, finals = [], []
    for k, backwards in enumerate(r.directions):
        seen = _backwards(r, products[k]) if backwards else products[k]
        y, final = _over_time(r, cells[k], seen, states[k])
        ys.append(_backwards(r, y) if backwards else y)
        finals.append(final)
    batch_first = bool(n.attr("layout", 0))

    def joined(parts: list[Value], axis: int) -> Value:
        parts = [b.reshape(p, shape=(*p.shape[:axis], 1, *p.shape[axis:])) for p in parts]
        return parts[0] if len(parts) == 1 else b.concat(*parts, axis=axis)

    y = joined(ys, 1)  # [T, D, B, H]
    y = b.transpose(y, perm=(2, 0, 1, 3)) if batch_first else y
    last = [joined([f[s] for f in finals], 1 if batch_first else 0) for s in range(len(states[0]))]
    return y, *last


def _backwards(r: Recurrence, x: Value) -> Value:
    return flip(r.n, x, 0) if r.lengths is None else reverse_prefix(r.n, x, r.lengths, 0, 1)


def _over_time(r: Recurrence, cell: Cell, products: Value, states: list[Value]) -> tuple[Value, list[Value]]:
    n, b = r.n, r.n.b
    steps = products.shape[0]
    lengths = None if r.lengths is None else b.reshape(cast(n, r.lengths, i64), shape=(*r.lengths.shape, 1))
    if isinstance(steps, int) and 0 < steps <= SHORT:
        rows = []
        for t in range(steps):
            x = b.reshape(piece(n, products, 0, t, t + 1), shape=products.shape[1:])
            y, states = _step(b, lambda v: v, cell, x, states, lengths, b.const(np.int64(t)))
            rows.append(b.reshape(y, shape=(1, *y.shape)))
        return (rows[0] if steps == 1 else b.concat(*rows, axis=0)), states
    scope = n.scope.nested("step")
    inner = scope.builder
    t = inner.input("t", Tensor(i64, ()))
    inner.input("cond", Tensor(bool_, ()))
    carried = [inner.input(f"state{k}", s.type) for k, s in enumerate(states)]
    x = inner.gather(scope.bring(products), t, axis=0)
    y, new = _step(inner, scope.bring, cell, x, carried, lengths, t)
    results = [inner.const(np.array(True)), *new, y]
    (body,), captured = n.scope.close([scope], [results])
    go = b.const(np.array(True))
    out = b.loop(size_value(n, steps), go, *states, *captured, body=body, num_carried=len(states), length=steps)
    return out[-1], list(out[:-1])


def _step(
    b: Any, bring: Callable, cell: Cell, x: Value, states: Sequence[Value], lengths: Value | None, t: Value
) -> tuple[Value, list[Value]]:
    """One step; beyond an entry's length its states stay and its output is 0."""
    new = cell(b, bring, x, states)
    if lengths is None:
        return new[0], new
    going = b.lt(t, bring(lengths))
    kept = [b.where(going, s, old) for s, old in zip(new, states, strict=True)]
    return b.where(going, new[0], b.full_like(new[0], 0)), kept


def _matmul(b: Any, x: Value, w: Value) -> Value:
    return b.matmul(x, w, transpose_b=True)


def _products(r: Recurrence, w: Value, bias: Value | None) -> Value:
    """x Wᵀ + bias for all steps: [T, B, G]"""
    b = r.n.b
    steps, batch, size = r.x.shape
    y = b.reshape(_matmul(b, b.reshape(r.x, shape=(steps * batch, size)), w), shape=(steps, batch, w.shape[0]))
    return y if bias is None else b.add(y, bias)


def _initial(r: Recurrence, state: Value | None, k: int) -> Value:
    n, batch = r.n, r.x.shape[1]
    if state is None:
        return n.b.broadcast_to(n.b.full_like(r.x, 0), shape=(batch, r.hidden))
    return r.part(n.b.transpose(state, perm=(1, 0, 2)) if n.attr("layout", 0) else state, k)


def _halves(r: Recurrence, bias: Value | None, k: int) -> tuple[Value | None, Value | None]:
    """The input's bias and the recurrence's."""
    if bias is None:
        return None, None
    own = r.part(bias, k)
    half = own.shape[0] // 2
    return piece(r.n, own, 0, 0, half), piece(r.n, own, 0, half, 2 * half)


def _sum(b: Any, *parts: Value | None) -> Value | None:
    total = None
    for p in parts:
        total = p if total is None else total if p is None else b.add(total, p)
    return total


def gates(b: Any, x: Value, count: int) -> list[Value]:
    """The last axis in equal parts."""
    size, axis = x.shape[-1] // count, len(x.shape) - 1
    starts = [[0] * axis + [k * size] for k in range(count)]
    stops = [[*x.shape[:-1], (k + 1) * size] for k in range(count)]
    return [
        b.slice(x, starts=tuple(a), stops=tuple(z), steps=(1,) * (axis + 1)) for a, z in zip(starts, stops, strict=True)
    ]


@onnx_op("RNN", ranks=(3, 3, 3, 2, 1, 3))
def rnn(
    n: OnnxNode,
    x: Value,
    w: Value,
    r: Value,
    bias: Value | None = None,
    lengths: Value | None = None,
    initial: Value | None = None,
) -> tuple[Value, ...]:
    """H = f(X Wᵀ + H Rᵀ + bias)"""
    rec = prepared(n, x, lengths, 1, w, r, bias)
    functions = activations(n, ("Tanh",), len(rec.directions))
    cells, products, states = [], [], []
    for k in range(len(rec.directions)):
        (f,), weights = functions[k], rec.part(r, k)

        def cell(b: Any, bring: Any, x_t: Value, state: Sequence[Value], f: Any = f, weights: Any = weights) -> list:
            return [f(b, b.add(x_t, _matmul(b, state[0], bring(weights))))]

        cells.append(cell)
        products.append(_products(rec, rec.part(w, k), _sum(n.b, *_halves(rec, bias, k))))
        states.append([_initial(rec, initial, k)])
    return run(rec, cells, products, states)


@onnx_op("GRU", ranks=(3, 3, 3, 2, 1, 3))
def gru(
    n: OnnxNode,
    x: Value,
    w: Value,
    r: Value,
    bias: Value | None = None,
    lengths: Value | None = None,
    initial: Value | None = None,
) -> tuple[Value, ...]:
    """z, r = f(...); h = g(X Whᵀ + (r ∘ H) Rhᵀ + ...), or with linear_before_reset g(X Whᵀ + r ∘ (H Rhᵀ + Rbh) + ...);
    H = (1 - z) ∘ h + z ∘ H"""
    rec = prepared(n, x, lengths, 3, w, r, bias)
    functions = activations(n, ("Sigmoid", "Tanh"), len(rec.directions))
    before = bool(n.attr("linear_before_reset", 0))
    size = rec.hidden
    cells, products, states = [], [], []
    for k in range(len(rec.directions)):
        (f, g), weights = functions[k], rec.part(r, k)
        wb, rb = _halves(rec, bias, k)
        rb_h = None
        if rb is not None and before:  # the candidate's own recurrent bias stays inside of the reset
            rb_h = piece(n, rb, 0, 2 * size, 3 * size)
            zero = n.b.broadcast_to(n.b.full_like(rb, 0), shape=(size,))
            rb = n.b.concat(piece(n, rb, 0, 0, 2 * size), zero, axis=0)
        r_zr, r_h = piece(n, weights, 0, 0, 2 * size), piece(n, weights, 0, 2 * size, 3 * size)

        def cell(
            b: Any,
            bring: Any,
            x_t: Value,
            state: Sequence[Value],
            f: Any = f,
            g: Any = g,
            weights: Any = (r_zr, r_h, rb_h),
        ) -> list[Value]:
            (h,), (w_zr, w_h, b_h) = state, weights
            x_z, x_r, x_h = gates(b, x_t, 3)
            h_z, h_r = gates(b, _matmul(b, h, bring(w_zr)), 2)
            z, reset = f(b, b.add(x_z, h_z)), f(b, b.add(x_r, h_r))
            if before:
                inner = _matmul(b, h, bring(w_h))
                inner = inner if b_h is None else b.add(inner, bring(b_h))
                candidate = g(b, b.add(x_h, b.mul(reset, inner)))
            else:
                candidate = g(b, b.add(x_h, _matmul(b, b.mul(reset, h), bring(w_h))))
            return [b.add(b.mul(b.sub(b.full_like(z, 1), z), candidate), b.mul(z, h))]

        cells.append(cell)
        products.append(_products(rec, rec.part(w, k), _sum(n.b, wb, rb)))
        states.append([_initial(rec, initial, k)])
    return run(rec, cells, products, states)


@onnx_op("LSTM", ranks=(3, 3, 3, 2, 1, 3, 3, 2))
def lstm(
    n: OnnxNode,
    x: Value,
    w: Value,
    r: Value,
    bias: Value | None = None,
    lengths: Value | None = None,
    initial_h: Value | None = None,
    initial_c: Value | None = None,
    peepholes: Value | None = None,
) -> tuple[Value, ...]:
    """i, f = σ(... + P ∘ C); C = f ∘ C + i ∘ g(...); o = σ(... + P ∘ C); H = o ∘ h(C)"""
    rec = prepared(n, x, lengths, 4, w, r, bias)
    functions = activations(n, ("Sigmoid", "Tanh", "Tanh"), len(rec.directions))
    coupled = bool(n.attr("input_forget", 0))
    size = rec.hidden
    cells, products, states = [], [], []
    for k in range(len(rec.directions)):
        (f, g, h), weights, p = functions[k], rec.part(r, k), None if peepholes is None else rec.part(peepholes, k)
        ps = (None, None, None) if p is None else tuple(piece(n, p, 0, j * size, (j + 1) * size) for j in range(3))

        def cell(
            b: Any,
            bring: Any,
            x_t: Value,
            state: Sequence[Value],
            functions: Any = (f, g, h),
            weights: Any = weights,
            ps: Any = ps,
        ) -> list[Value]:
            (f, g, h), (hidden, c), (p_i, p_o, p_f) = functions, state, ps
            i_, o_, f_, c_ = gates(b, b.add(x_t, _matmul(b, hidden, bring(weights))), 4)

            def peek(gate: Value, weight: Value | None, seen: Value) -> Value:
                return gate if weight is None else b.add(gate, b.mul(bring(weight), seen))

            i = f(b, peek(i_, p_i, c))
            forget = b.sub(b.full_like(i, 1), i) if coupled else f(b, peek(f_, p_f, c))
            new = b.add(b.mul(forget, c), b.mul(i, g(b, c_)))
            o = f(b, peek(o_, p_o, new))
            return [b.mul(o, h(b, new)), new]

        cells.append(cell)
        products.append(_products(rec, rec.part(w, k), _sum(n.b, *_halves(rec, bias, k))))
        states.append([_initial(rec, initial_h, k), _initial(rec, initial_c, k)])
    return run(rec, cells, products, states)
