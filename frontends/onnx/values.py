"""Value analysis: what is known at import about the *contents* of small tensors, as dimensions.

A content is a NumPy object array of the tensor's shape whose elements are

    int | float | bool      known
    Symbol | Expr           a dimension, or arithmetic on dimensions
    Ratio                   a dimension divided by a constant, on its way through floating point
    None                    run-time data

Contents are worked out on demand, backwards from the value that an attribute needs, by one rule an op where dimensions
may be involved, else by the op's own meaning on the concrete operands. Sound, not complete: an element is given only
where every run agrees with it.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from effcc.ir.dims import Dim, Expr, Symbol, bounds, dim_max, dim_min, symbols
from effcc.ir.graph import Node, Value
from effcc.ir.types import DType, Tensor

LIMIT = 4096
"""Contents of more elements are not tracked."""


@dataclass(frozen=True)
class Ratio:
    """dim · scale, exactly, where it need not be whole: what Cast -> Mul -> Floor makes of a dimension."""

    dim: Dim
    scale: Fraction

    def floor(self) -> Dim:
        return self.dim * self.scale.numerator // self.scale.denominator

    def ceil(self) -> Dim:
        return -(-(self.dim * self.scale.numerator) // self.scale.denominator)


class Contents:
    """The contents of the values of a graph under construction (and of those that its nested graphs capture)."""

    def __init__(self) -> None:
        self._producers: dict[Value, tuple[Node, int]] = {}
        self._known: dict[Value, np.ndarray | None] = {}
        self._same: dict[Value, Value] = {}
        self._fixed: dict[Value, np.ndarray] = {}

    def define(self, node: Node) -> None:
        """Record a node, so that the contents of its results can be asked for."""
        for i, result in enumerate(node.results):
            self._producers[result] = (node, i)

    def fix(self, value: Value, content: Any) -> None:
        """State the content of an input."""
        array = np.asarray(content)
        self._fixed[value] = array
        self._known[value] = boxed(array) if array.size <= LIMIT else None

    def alias(self, inner: Value, outer: Value) -> None:
        """A nested graph's input that is a capture has the content of what it captures."""
        self._same[inner] = outer

    def array(self, value: Value) -> np.ndarray | None:
        """The array of a constant, or of an input whose content was stated, whatever its size; else None."""
        root = self._root(value)
        if root in self._fixed:
            return self._fixed[root]
        node = self.producer(root)
        while node is not None and node.op.name == "identity":
            root = self._root(node.operands[0])
            node = self.producer(root)
        return node.op.attrs["blob"].array if node is not None and node.op.name == "const" else self._fixed.get(root)

    def producer(self, value: Value) -> Node | None:
        """The node that makes a value, through captures; None for inputs."""
        entry = self._producers.get(self._root(value))
        return None if entry is None else entry[0]

    def get(self, value: Value) -> np.ndarray | None:
        """The content of a value, or None where nothing is known of it."""
        stack = [self._root(value)]
        while stack:
            top = stack[-1]
            if top in self._known:
                stack.pop()
                continue
            entry = self._producers.get(top)
            if entry is None or not _trackable(top):
                self._known[top] = None
                continue
            node, _ = entry
            waiting = (
                [] if node.op.name in _FREE else [r for r in map(self._root, node.operands) if r not in self._known]
            )
            if waiting:
                stack.extend(waiting)
                continue
            contents = self._evaluate(node)
            for result, content in zip(node.results, contents, strict=True):
                self._known[result] = content
        return self._known[self._root(value)]

    def leaves(self, value: Value) -> list[Value]:
        """The inputs whose data an unknown value depends on, in order of discovery."""
        seen: set[Value] = set()
        found: list[Value] = []
        stack = [self._root(value)]
        while stack:
            top = stack.pop()
            if top in seen:
                continue
            seen.add(top)
            entry = self._producers.get(top)
            content = self._known.get(top)
            if content is not None and not any(e is None for e in content.flat):
                continue
            if entry is None:
                found.append(top)
            elif entry[0].op.name not in _FREE:
                stack.extend(self._root(v) for v in reversed(entry[0].operands))
        return found

    def sizes(self, value: Value) -> set[Symbol]:
        """The symbols of the dimensions that an unknown value is computed from."""
        seen: set[Value] = set()
        found: set[Symbol] = set()
        stack = [self._root(value)]
        while stack:
            top = stack.pop()
            if top in seen:
                continue
            seen.add(top)
            entry = self._producers.get(top)
            if entry is None:
                continue
            if entry[0].op.name == "dim":
                found |= symbols(entry[0].op.attrs["value"])
            stack.extend(self._root(v) for v in entry[0].operands)
        return found

    def _root(self, value: Value) -> Value:
        while value in self._same:
            value = self._same[value]
        return value

    def _evaluate(self, node: Node) -> list[np.ndarray | None]:
        nothing: list[np.ndarray | None] = [None] * len(node.results)
        operands = [None if node.op.name in _FREE else self._known[self._root(v)] for v in node.operands]
        concrete = node.op.name not in _FREE and all(c is not None and is_concrete(c) for c in operands)
        rule = RULES.get(node.op.name)
        if rule is not None:
            given = [c if c is not None else _blank(v) for c, v in zip(operands, node.operands, strict=True)]
            if any(c is None for c in given) and node.op.name not in _FREE:
                return nothing
            content = rule(node, *given)
            if content is not None and not all(e is None for e in content.flat):
                return [_rounded(content, node.results[0].dtype)]
            if content is not None and content.size == 0:
                return [content]
            return nothing
        if concrete and node.operands:
            return _by_reference(node, operands)
        return nothing


def boxed(a: np.ndarray) -> np.ndarray:
    """A numeric array as a content."""
    out = np.empty(a.shape, object)
    out[...] = (
        a.astype(np.float64).tolist()
        if a.dtype.kind not in "iubfO" or a.dtype.itemsize < 4 and a.dtype.kind == "f"
        else a.tolist()
    )
    return out


def is_concrete(content: np.ndarray) -> bool:
    return all(isinstance(e, (int, float, bool)) for e in content.flat)


def _trackable(value: Value) -> bool:
    if not isinstance(value.type, Tensor):
        return False
    size = value.type.size
    return isinstance(size, int) and value.type.is_static and size <= LIMIT


def _blank(value: Value) -> np.ndarray | None:
    return np.full(value.shape, None, object) if _trackable(value) else None


def _rounded(content: np.ndarray, dtype: DType) -> np.ndarray:
    """Wrap integers and round floats to the dtype that carries them."""
    if dtype.is_integer:
        span, low = 1 << dtype.bits, dtype.min

        def fit(e: Any) -> Any:
            return (int(e) - low) % span + low if isinstance(e, (int, float)) else e
    elif dtype.is_bool:

        def fit(e: Any) -> Any:
            return bool(e) if isinstance(e, (int, float)) else e
    elif dtype.name == "f64":

        def fit(e: Any) -> Any:
            return float(e) if isinstance(e, (int, float)) else e
    else:
        cast = dtype.numpy.type

        def fit(e: Any) -> Any:
            return float(cast(e)) if isinstance(e, (int, float)) else e

    return _map(fit, content)


def _by_reference(node: Node, operands: list[Any]) -> list[np.ndarray | None]:
    import torch

    if node.op.graphs() or not node.op.pure or not all(isinstance(r.type, Tensor) for r in node.results):
        return [None] * len(node.results)
    tensors = [
        torch.tensor(c.tolist(), dtype=v.dtype.torch).reshape(c.shape)
        for c, v in zip(operands, node.operands, strict=True)
    ]
    out = node.op.reference(*tensors)
    outs = out if isinstance(out, (tuple, list)) else (out,)
    return [_boxed_tensor(t) for t in outs]


def _boxed_tensor(t: Any) -> np.ndarray | None:
    if t.numel() > LIMIT:
        return None
    out = np.empty(tuple(t.shape), object)
    out[...] = t.double().tolist() if t.is_floating_point() else t.tolist()
    return out


# --- scalars ---


def _map(f: Callable[..., Any], *arrays: np.ndarray) -> np.ndarray:
    """f over broadcast elements; None in, None out, unless f takes care of it by itself."""
    out = np.frompyfunc(f, len(arrays), 1)(*arrays)
    return np.asarray(out, object) if isinstance(out, np.ndarray) else _scalar(out)


def _scalar(e: Any) -> np.ndarray:
    out = np.empty((), object)
    out[()] = e
    return out


def _symbolic(e: Any) -> bool:
    return isinstance(e, (Symbol, Expr))


def _dimlike(e: Any) -> bool:
    return _symbolic(e) or isinstance(e, int)


def _strict(f: Callable[..., Any]) -> Callable[..., np.ndarray]:
    def rule(node: Any, *arrays: np.ndarray) -> np.ndarray:
        return _map(lambda *e: None if any(x is None for x in e) else f(*e), *arrays)

    return rule


def _number(e: Any) -> Any:
    """Whole floats count as integers beside a dimension."""
    return int(e) if isinstance(e, float) and e.is_integer() else e


def _linear(f: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """+ and - : on numbers and dimensions."""

    def apply(a: Any, b: Any) -> Any:
        if _symbolic(a) or _symbolic(b):
            a, b = _number(a), _number(b)
            return f(a, b) if _dimlike(a) and _dimlike(b) else None
        return None if isinstance(a, Ratio) or isinstance(b, Ratio) else f(a, b)

    return apply


def _mul(a: Any, b: Any) -> Any:
    if 0 in (_zero(a), _zero(b)):
        return 0
    if a is None or b is None:
        return None
    if isinstance(a, (int, float)) and isinstance(b, (int, float)):
        return a * b
    if _dimlike(_number(a)) and _dimlike(_number(b)):
        return _number(a) * _number(b)
    return _scaled(a, b) or _scaled(b, a)


def _zero(e: Any) -> Any:
    return 0 if isinstance(e, int) and not isinstance(e, bool) and e == 0 else None


def _scaled(a: Any, b: Any) -> Any:
    """A dimension (or ratio) times a float, where the float is a small exact fraction."""
    if not isinstance(b, (int, float)) or isinstance(b, float) and not math.isfinite(b):
        return None
    scale = Fraction(b)
    if scale.denominator > 1 << 20 or scale.numerator > 1 << 20:
        return None
    if isinstance(a, Ratio):
        scale, a = scale * a.scale, a.dim
    elif not _symbolic(a):
        return None
    return a * scale.numerator if scale.denominator == 1 else Ratio(a, scale)


def _div(node: Any, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    whole = node.results[0].type.dtype.is_integer

    def divide(x: Any, y: Any) -> Any:
        if x is None or y is None or _zero(y) == 0:
            return None
        if isinstance(x, (int, float)) and isinstance(y, (int, float)):
            if not whole:
                return x / y if y else None
            return abs(x) // abs(y) * (1 if (x < 0) == (y < 0) else -1)
        if whole:
            return x // y if _nonnegative(x) and _nonnegative(y) else None
        if isinstance(y, (int, float)):
            return _scaled(x, 1 / y) if 1 / (1 / y) == y and Fraction(1 / y) * Fraction(y) == 1 else _over(x, y)
        return None

    return _map(divide, a, b)


def _over(x: Any, y: Any) -> Any:
    y = _number(y)
    if not isinstance(y, int):
        return None
    return Ratio(x.dim, x.scale / y) if isinstance(x, Ratio) else Ratio(x, Fraction(1, y))


def _nonnegative(e: Any) -> bool:
    if not _dimlike(e):
        return False
    lo = bounds(e)[0]
    return lo is not None and lo >= 0


def _floordiv(a: Any, b: Any) -> Any:
    if isinstance(a, (int, float)) and isinstance(b, (int, float)):
        return a // b if b else None
    return a // b if _dimlike(a) and _dimlike(b) and _zero(b) is None else None


def _mod(a: Any, b: Any) -> Any:
    if isinstance(a, (int, float)) and isinstance(b, (int, float)):
        return a % b if b else None
    return a % b if _dimlike(a) and _dimlike(b) and _zero(b) is None else None


def _fmod(a: Any, b: Any) -> Any:
    if isinstance(a, (int, float)) and isinstance(b, (int, float)):
        return math.fmod(a, b) if b else None
    return a % b if _nonnegative(a) and _nonnegative(b) and _zero(b) is None else None


def _extremum(number: Callable[[Any, Any], Any], dim: Callable[..., Dim]) -> Callable[[Any, Any], Any]:
    def apply(a: Any, b: Any) -> Any:
        if _symbolic(a) or _symbolic(b):
            a, b = _number(a), _number(b)
            return dim(a, b) if _dimlike(a) and _dimlike(b) else None
        if isinstance(a, Ratio) or isinstance(b, Ratio) or a != a or b != b:
            return None
        return number(a, b)

    return apply


def _compare(name: str, f: Callable[[Any, Any], bool]) -> Callable[[Any, Any], Any]:
    """Dimensions compare where the range of their difference decides it."""

    def apply(a: Any, b: Any) -> Any:
        if isinstance(a, (int, float)) and isinstance(b, (int, float)):
            return bool(f(a, b))
        a, b = _number(a), _number(b)
        if not (_dimlike(a) and _dimlike(b)):
            return None
        lo, hi = bounds(a - b)
        lo, hi = -math.inf if lo is None else lo, math.inf if hi is None else hi
        if name in ("eq", "ne"):
            outcome = True if lo == hi == 0 else False if lo > 0 or hi < 0 else None
            return outcome if outcome is None or name == "eq" else not outcome
        ends = {f(lo, 0), f(hi, 0)}
        return ends.pop() if len(ends) == 1 else None

    return apply


def _and(node: Any, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    def apply(x: Any, y: Any) -> Any:
        if x is False or y is False:
            return False
        return None if x is None or y is None else x & y

    return _map(apply, a, b)


def _or(node: Any, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    def apply(x: Any, y: Any) -> Any:
        if x is True or y is True:
            return True
        return None if x is None or y is None else x | y

    return _map(apply, a, b)


def _not(node: Any, a: np.ndarray) -> np.ndarray:
    return _map(lambda x: None if x is None else not x if isinstance(x, bool) else ~x, a)


def _where(node: Any, cond: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    def apply(c: Any, x: Any, y: Any) -> Any:
        if c is None:
            return x if x is not None and y is not None and type(x) is type(y) and x == y else None
        return x if c else y

    return _map(apply, cond, a, b)


def _cast(node: Any, a: np.ndarray) -> np.ndarray:
    to = node.results[0].type.dtype

    def apply(x: Any) -> Any:
        if isinstance(x, Ratio) and to.is_integer:
            return x.floor() if _nonnegative(x.dim) and x.scale > 0 else None
        if to.is_bool:
            if _symbolic(x):
                lo = bounds(x)[0]  # type: ignore[arg-type]
                return True if lo is not None and lo > 0 else None
            return None if x is None or isinstance(x, Ratio) else bool(x)
        if isinstance(x, float) and to.is_integer:
            return int(x) if math.isfinite(x) else None
        return int(x) if isinstance(x, bool) else x

    return _map(apply, a)


def _rounding(number: Callable[[float], float], ratio: Callable[[Ratio], Dim] | None) -> Callable[..., np.ndarray]:
    def apply(x: Any) -> Any:
        if isinstance(x, Ratio):
            return ratio(x) if ratio is not None else None
        if _symbolic(x) or isinstance(x, int):
            return x
        return number(x) if math.isfinite(x) else x

    return _strict(apply)


# --- structure ---


def _const(node: Any) -> np.ndarray | None:
    data = node.op.blob.array
    return None if data.size > LIMIT or data.dtype.kind in "OSUc" else boxed(data)


def _dim(node: Any, *_: Any) -> np.ndarray:
    return _scalar(node.op.value)


def _iota(node: Any, *_: Any) -> np.ndarray | None:
    shape, axis = node.results[0].type.shape, node.op.axis
    if not all(isinstance(d, int) for d in shape) or math.prod(shape) > LIMIT:
        return None
    view = [1] * len(shape)
    view[axis] = shape[axis]
    return boxed(np.broadcast_to(np.arange(shape[axis]).reshape(view), shape))


def _shape_of(node: Any) -> tuple[int, ...] | None:
    shape = node.results[0].type.shape
    return shape if all(isinstance(d, int) for d in shape) else None


def _reshape(node: Any, a: np.ndarray) -> np.ndarray | None:
    shape = _shape_of(node)
    return None if shape is None else a.reshape(shape)


def _broadcast_to(node: Any, a: np.ndarray) -> np.ndarray | None:
    shape = _shape_of(node)
    return None if shape is None or math.prod(shape) > LIMIT else np.broadcast_to(a, shape)


def _slice(node: Any, a: np.ndarray) -> np.ndarray | None:
    index = []
    for start, stop, step in zip(node.op.starts, node.op.stops, node.op.steps, strict=True):
        if not isinstance(start, int) or not isinstance(stop, int):
            return None
        index.append(slice(start, None if step < 0 and stop < 0 else stop, step))
    return a[tuple(index)]


def _gather(node: Any, a: np.ndarray, index: np.ndarray) -> np.ndarray | None:
    if not is_concrete(index):
        return None
    at = index.astype(np.int64)
    size = a.shape[node.op.axis]
    if ((at < -size) | (at >= size)).any():  # out of range: it has no value
        return None
    out = np.take(a, at, axis=node.op.axis)
    return out if isinstance(out, np.ndarray) else _scalar(out)


def _reduction(f: Callable[[Any, Any], Any], start: Any) -> Callable[..., np.ndarray | None]:
    def rule(node: Any, a: np.ndarray) -> np.ndarray | None:
        shape, op = _shape_of(node), node.op
        if shape is None or (start is None and a.size == 0):
            return None
        kept = [i for i in range(a.ndim) if i not in op.axes]
        flat = a.transpose(*kept, *op.axes).reshape(*(a.shape[i] for i in kept), -1)
        out = np.empty(flat.shape[:-1], object)
        for i in np.ndindex(out.shape):
            out[i] = _fold(f, flat[i], start)
        return out.reshape(shape)

    return rule


def _fold(f: Callable[[Any, Any], Any], elements: Iterable[Any], start: Any) -> Any:
    total, first = start, start is None
    for e in elements:
        total, first = (
            (e, False) if first else (None if f is not _mul and (total is None or e is None) else f(total, e), False)
        )
    return total


_add, _sub = _linear(operator.add), _linear(operator.sub)
_max, _min = _extremum(max, dim_max), _extremum(min, dim_min)

RULES: dict[str, Callable[..., np.ndarray | None]] = {
    "const": _const,
    "dim": _dim,
    "iota": _iota,
    "identity": lambda n, a: a,
    "cast": _cast,
    "reshape": _reshape,
    "broadcast_to": _broadcast_to,
    "slice": _slice,
    "gather": _gather,
    "where": _where,
    "transpose": lambda n, a: a.transpose(n.op.perm),
    "concat": lambda n, *xs: np.concatenate(xs, n.op.axis),
    "add": _strict(_add),
    "sub": _strict(_sub),
    "mul": lambda n, a, b: _map(_mul, a, b),
    "div": _div,
    "floordiv": _strict(_floordiv),
    "mod": _strict(_mod),
    "fmod": _strict(_fmod),
    "max": _strict(_max),
    "min": _strict(_min),
    "neg": _strict(lambda x: Ratio(-x.dim, x.scale) if isinstance(x, Ratio) else -x),
    "abs": _strict(lambda x: abs(x) if isinstance(x, (int, float)) else x if _nonnegative(x) else None),
    "sign": _strict(lambda x: (x > 0) - (x < 0) if isinstance(x, (int, float)) else 1 if _positive(x) else None),
    "floor": _rounding(math.floor, Ratio.floor),
    "ceil": _rounding(math.ceil, Ratio.ceil),
    "trunc": _rounding(math.trunc, None),
    "round": _rounding(round, None),
    "and": _and,
    "or": _or,
    "not": _not,
    "sum": _reduction(_add, 0),
    "prod": _reduction(_mul, 1),
    "amax": _reduction(_max, None),
    "amin": _reduction(_min, None),
    **{name: _strict(_compare(name, getattr(operator, name))) for name in ("eq", "ne", "lt", "le", "gt", "ge")},
}
_FREE = {"const", "dim", "iota"}
"""Ops whose results do not depend on the data of their operands."""


def _positive(e: Any) -> bool:
    lo = bounds(e)[0] if _dimlike(e) else None
    return lo is not None and lo > 0
