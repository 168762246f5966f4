"""torch's symbolic sizes (sympy expressions in a ShapeEnv) as dimensions of the IR."""

from __future__ import annotations

import re
from typing import Any

from effcc.errors import UnsupportedError
from effcc.ir import Dim, Symbol, Value, bounds, dim_max, dim_min, floordiv, mod

UNBOUNDED = 2**62
"""torch writes "no upper bound" as int_oo or as a number near 2^63."""


class Sizes:
    """Translates the SymInts of one graph; the same torch symbol gives the same `Symbol`.

    names: what the user calls a symbol (`{"s77": "batch"}`), for exported programs.
    """

    def __init__(
        self, shape_env: Any = None, names: dict[str, str] | None = None, ranges: dict[str, Any] | None = None
    ):
        self.shape_env = shape_env
        self.names = names or {}
        self.ranges = ranges or {}
        self.symbols: dict[Any, Symbol] = {}

    def dim(self, size: Any) -> Dim:
        """An int, a torch SymInt, a sympy expression or a dimension, as a dimension."""
        if isinstance(size, (bool, int)):
            return int(size)
        node = getattr(size, "node", None)
        if node is not None:
            if self.shape_env is None:
                self.shape_env = node.shape_env
            return self.expression(node.expr)
        if isinstance(size, Value):
            raise UnsupportedError("a size that is read from data is not supported", hint="pass it as an argument")
        if type(size).__module__.startswith("sympy") or hasattr(size, "free_symbols"):
            return self.expression(size)
        return size

    def dims(self, sizes: Any) -> tuple[Dim, ...]:
        return tuple(self.dim(s) for s in sizes)

    def symbol(self, name: Any) -> Symbol:
        if name not in self.symbols:
            lo, hi = self._range(name)
            text = re.sub(r"\W", "_", self.names.get(str(name), str(name)))
            self.symbols[name] = Symbol(text, lo, hi)
        return self.symbols[name]

    def _range(self, name: Any) -> tuple[int, int | None]:
        known = self.ranges.get(str(name))
        if known is None and self.shape_env is not None:
            known = self.shape_env.var_to_range.get(name)
        if known is None:
            return 0, None
        lo, hi = _bound(known.lower), _bound(known.upper)
        return max(lo or 0, 0), hi

    def expression(self, e: Any) -> Dim:
        """A sympy integer expression: + * ** and torch.utils._sympy.functions (FloorDiv, Mod, Min, Max, ...)."""
        if e.is_Integer or isinstance(e, int):
            return int(e)
        if e.is_Symbol:
            replaced = self.shape_env.replacements.get(e) if self.shape_env is not None else None
            return self.symbol(e) if replaced is None or replaced == e else self.expression(replaced)
        kind = type(e).__name__
        args = [self.expression(a) for a in e.args] if kind not in ("Pow", "PowByNatural") else []
        match kind:
            case "Add":
                return _fold(lambda a, b: a + b, args)
            case "Mul":
                return _fold(lambda a, b: a * b, args)
            case "Pow" | "PowByNatural" if e.args[1].is_Integer and int(e.args[1]) > 0:
                base = self.expression(e.args[0])
                return _fold(lambda a, b: a * b, [base] * int(e.args[1]))
            case "FloorDiv" | "CleanDiv" | "IntTrueDiv":
                return floordiv(*args)
            case "CeilToInt" | "FloorToInt" | "TruncToInt" | "Identity" | "RoundToInt" if len(args) == 1:
                return args[0]
            case "CeilDiv":
                return -floordiv(-args[0], args[1])
            case "Mod" | "PythonMod":
                return mod(*args)
            case "ModularIndexing":
                return mod(floordiv(args[0], args[1]), args[2])
            case "Max":
                return dim_max(*args)
            case "Min":
                return dim_min(*args)
        raise UnsupportedError(
            f"the size {e} ({kind}) has no dimension expression",
            hint="mark that dimension static (torch._dynamo.mark_static)",
        )

    def nonnegative(self, d: Dim) -> bool:
        """Whether a dimension is known to be ≥ 0."""
        lo = bounds(d)[0]
        return lo is not None and lo >= 0


def _bound(value: Any) -> int | None:
    try:
        number = int(value)
    except (TypeError, ValueError, OverflowError, AttributeError):
        return None
    return None if abs(number) >= UNBOUNDED else number


def _fold(f: Any, xs: list[Dim]) -> Dim:
    out = xs[0]
    for x in xs[1:]:
        out = f(out, x)
    return out
