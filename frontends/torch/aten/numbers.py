"""Formulas on f64 tensors, written as formulas: what `special.py` is built with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from effcc.frontends.torch.emitter import Emitter, lowers
from effcc.ir import Builder, Graph, Value, bool_, f64

FUNCTIONS = frozenset("abs exp log log1p sqrt sin cos tan erf erfc floor round trunc isinf isnan".split())


@dataclass(frozen=True, eq=False)
class Number:
    """An f64 (or, of a comparison, bool) tensor with Python's operators; plain numbers become constants."""

    e: Emitter
    value: Value

    def _other(self, x: Any) -> Value:
        return x.value if isinstance(x, Number) else self.e.number(float(x), f64)

    def _with(self, op: str, x: Any, swapped: bool = False) -> Number:
        a, b = self.value, self._other(x)
        return Number(self.e, getattr(self.e.b, op)(*((b, a) if swapped else (a, b))))

    def __add__(self, x: Any) -> Number:
        return self._with("add", x)

    def __sub__(self, x: Any) -> Number:
        return self._with("sub", x)

    def __mul__(self, x: Any) -> Number:
        return self._with("mul", x)

    def __truediv__(self, x: Any) -> Number:
        return self._with("div", x)

    def __radd__(self, x: Any) -> Number:
        return self._with("add", x, True)

    def __rsub__(self, x: Any) -> Number:
        return self._with("sub", x, True)

    def __rmul__(self, x: Any) -> Number:
        return self._with("mul", x, True)

    def __rtruediv__(self, x: Any) -> Number:
        return self._with("div", x, True)

    def __lt__(self, x: Any) -> Number:
        return self._with("lt", x)

    def __le__(self, x: Any) -> Number:
        return self._with("le", x)

    def __gt__(self, x: Any) -> Number:
        return self._with("gt", x)

    def __and__(self, x: Number) -> Number:
        return self._with("and_", x)

    def __neg__(self) -> Number:
        return Number(self.e, self.e.b.neg(self.value))

    def eq(self, x: Any) -> Number:
        return self._with("eq", x)

    def pow(self, x: Any) -> Number:
        return self._with("pow", x)

    def __getattr__(self, name: str) -> Callable[[], Number]:
        if name not in FUNCTIONS:
            raise AttributeError(name)
        return lambda: Number(self.e, getattr(self.e.b, name)(self.value))


def choose(condition: Number, x: Any, y: Any) -> Number:
    """x where the condition holds, else y."""
    e = condition.e
    a, b = (v.value if isinstance(v, Number) else e.number(float(v), f64) for v in (x, y))
    return Number(e, e.b.where(condition.value, a, b))


def series(coefficients: list[float], x: Number) -> Number:
    """c₀ + c₁ x + c₂ x² + ..."""
    total: Any = coefficients[-1]
    for c in reversed(coefficients[:-1]):
        total = x * total + c
    return total


def special(*names: str) -> Callable[[Callable[[Number], Number]], Callable[[Number], Number]]:
    """Register a formula for aten ops of one tensor: it is computed in f64 and cast to the result's dtype."""

    def register(formula: Callable[[Number], Number]) -> Callable[[Number], Number]:
        @lowers(*names)
        def handler(e: Emitter, x: Value) -> Value:
            return e.cast(formula(Number(e, e.cast(x, f64))).value, e.dtype)

        handler.__name__ = formula.__name__
        return formula

    return register


def iterate(e: Emitter, trips: Value, carried: list[Number], captured: list[Number],
            step: Callable[..., list[Number]]) -> list[Number]:  # fmt: skip
    """`carried = step(i, *carried, *captured)` for i in range(trips), a rank-0 i64."""
    from effcc.ir import Tensor, i64

    inner = Emitter(Builder("body"), e.sizes)
    i, going = inner.b.input("i", Tensor(i64, ())), inner.b.input("going", Tensor(bool_, ()))
    state = [Number(inner, inner.b.input(f"x{k}", n.value.type)) for k, n in enumerate((*carried, *captured))]
    stepped = step(Number(inner, inner.cast(i, f64)), *state)
    body: Graph = inner.b.graph(going, *(n.value for n in stepped))
    start = [n.value for n in (*carried, *captured)]
    out: Any = e.b.loop(trips, e.number(True, bool_), *start, body=body, num_carried=len(carried))
    values = out if isinstance(out, (tuple, list)) else (out,)
    return [Number(e, v) for v in values[: len(carried)]]
