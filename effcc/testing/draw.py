"""Drawing well-typed things: types, attributes, applications of ops, instances of patterns, whole graphs.

Driven by the op registry: attributes are drawn by the meaning of their names, operands by the op's family, and the op's
own type rule decides.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from collections.abc import Sequence as Several
from typing import Any

from effcc.errors import EffccError, TypeRuleError
from effcc.ir.blob import Blob
from effcc.ir.builder import Builder
from effcc.ir.dims import Symbol, substitute
from effcc.ir.graph import Graph, Value
from effcc.ir.lazy import torch
from effcc.ir.op import Op, load_ops
from effcc.ir.types import DTYPES, DType, Sequence, Tensor, Type, bool_, f32, f64, i8, i32, i64, u8
from effcc.rewrite.pattern import (
    Attribute,
    Bound,
    Constant,
    Either,
    OpPattern,
    Pattern,
    Rest,
    ResultPattern,
    Variable,
)

DIMS = (2, 3, 1, 5, 4, 0, 7, 16, 17, 33)
"""Sizes; the first are the likeliest after shrinking. Broadcasts, empty tensors and tile tails come of themselves."""
MAX_ELEMENTS = 4096
DTYPES_DRAWN = (f32, f32, i32, bool_, f64, i64, DTYPES["f16"], DTYPES["bf16"], i8, u8)
ATTEMPTS = 60


class NothingDrawn(Exception):
    """No choice of types and attributes satisfied the type rule."""


class Drawer:
    """Draws through one function `choose(options)`, which lists the simplest option first."""

    def __init__(self, choose: Callable[[Several[Any]], Any], dtypes: Several[DType] = DTYPES_DRAWN):
        self.choose, self.dtypes = choose, dtypes
        self.base_shape: tuple[int, ...] = self.shape()
        self.base_dtype: DType = choose(dtypes)
        self.bounds: dict[Symbol, int] = {}
        """The sizes that ops define, each with its greatest value."""
        self.kinds = "fiub"
        """The kinds of dtype that the op being drawn takes."""

    def nothing(self, why: str) -> Any:
        """Give this drawing up."""
        raise NothingDrawn(why)

    # -- small things ------------------------------------------------------------------------------------------------
    def integer(self, low: int, high: int) -> int:
        return self.choose(range(low, high + 1))

    def boolean(self) -> bool:
        return self.choose((False, True))

    def chance(self, percent: int) -> bool:
        return self.choose(range(100)) < percent

    def dim(self) -> int:
        return self.choose(DIMS) if self.chance(60) else self.choose((2, 3, 4, 1))

    def shape(self, low: int = 0, high: int = 5) -> tuple[int, ...]:
        rank = self.choose([r for r in (2, 3, 1, 4, 0, 4, 2, 3, 5) if low <= r <= high])
        shape = (self.dim(),) * rank if self.chance(25) else tuple(self.dim() for _ in range(rank))
        while math.prod(shape) > MAX_ELEMENTS:
            shape = tuple(min(d, 5) for d in shape)
        return shape

    def variant(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """A shape that broadcasts with `shape`."""
        kind = self.choose(("same", "same", "ones", "short", "scalar"))
        if kind == "ones":
            return tuple(1 if self.boolean() else d for d in shape)
        if kind == "short":
            return shape[self.integer(0, len(shape)):]
        return () if kind == "scalar" else shape

    def permutation(self, rank: int) -> tuple[int, ...]:
        rest, out = list(range(rank)), []
        if self.chance(15):
            return tuple(rest)
        if rank >= 2 and self.chance(25):
            return (*rest[:-2], rank - 1, rank - 2)
        while rest:
            out.append(rest.pop(self.integer(0, len(rest) - 1)))
        return tuple(out)

    def refactor(self, size: int) -> tuple[int, ...]:
        """A shape of `size` elements."""
        if size == 0:
            return self.choose(((0,), (0, 3), (2, 0)))
        out = []
        while size > 1 and len(out) < 3:
            d = self.choose([d for d in range(1, size + 1) if size % d == 0])
            out.append(d)
            size //= d
        return tuple(out) if size == 1 else (*out, size)

    # -- applications ------------------------------------------------------------------------------------------------
    def application(
        self, cls: type[Op], known: Several[Type | None], given: dict[str, Any], attempts: int = ATTEMPTS,
    ) -> tuple[Op, tuple[Type, ...]]:
        """An op and operand types that its type rule accepts; None in `known` stands for a type to draw."""
        for attempt in range(attempts):
            if attempt and attempt % 10 == 0:
                self.base_shape = self.shape()
            try:
                types = self.operand_types(cls, list(known))
                attributes = {**self.attributes(cls, types, given), **given}
                op = cls(**attributes)
                results = op.result_types(tuple(types))
                defined = {s: bound for s, bound in op.defines(*types).items() if isinstance(bound, int)}
                if all(self.small(r, {**self.bounds, **defined}) for r in results):
                    if any(isinstance(t, Tensor) and 0 in t.shape for t in types) and not has_value(op, types):
                        continue
                    self.bounds.update(defined)
                    return op, tuple(types)
            except (TypeRuleError, NothingDrawn, IndexError, ValueError, TypeError, AttributeError, KeyError):
                continue  # the type rule refused: draw again
        raise NothingDrawn(f"{cls.name} of {', '.join(map(str, known))}")

    @staticmethod
    def small(result: Type, bounds: Mapping[Symbol, int]) -> bool:
        """Whether a result has few elements; sizes that ops define count as their bounds."""
        if not isinstance(result, Tensor):
            return True
        most = substitute(result.size, bounds)
        return isinstance(most, int) and most <= 4 * MAX_ELEMENTS

    def operand_types(self, cls: type[Op], known: list[Type | None]) -> list[Type]:
        """Types for the unknown operands, by family."""
        anchor = next((t for t in known if isinstance(t, Tensor)), None)
        names = [*(n.strip("?*") for n in cls.operands), *[cls.operands[-1].strip("?*")] * len(known)] if known else []
        family = OPERANDS.get(cls.name) or OPERANDS.get(cls.family)
        out = list(known)
        self.kinds = getattr(cls, "kinds", "fiub")
        for k, t in enumerate(known):
            if t is None:
                out[k] = family(self, out, k, names[k]) if family else self.like(anchor)
        return out  # type: ignore[return-value]

    def like(self, anchor: Tensor | None) -> Tensor:
        """The anchor's type, or one of the drawing's base shape and dtype."""
        return anchor or Tensor(self.dtype(), self.base_shape)

    def dtype(self) -> DType:
        """The drawing's base dtype, or another where the op does not take it."""
        if self.base_dtype.kind in self.kinds:
            return self.base_dtype
        return self.choose([d for d in self.dtypes if d.kind in self.kinds])

    def attributes(self, cls: type[Op], types: list[Type], given: dict[str, Any]) -> dict[str, Any]:
        first = next((t for t in types if isinstance(t, Tensor)), Tensor(f32, self.base_shape))
        out: dict[str, Any] = {}
        for f in cls.attributes():
            if f.name not in given:
                draw = ATTRIBUTES.get(f"{cls.name}.{f.name}") or ATTRIBUTES.get(f.name)
                if draw is not None:
                    out[f.name] = draw(self, first, out)
                elif "bool" in str(f.type):
                    out[f.name] = self.boolean()
        return out

    # -- pattern instances -------------------------------------------------------------------------------------------
    def instance(self, pattern: Pattern) -> Graph:
        """A graph that the pattern matches: its holes become inputs, its attribute holes are drawn."""
        for dtype in (f32, i32, bool_):
            try:
                return _Instance(self, Builder("instance")).graph(pattern)
            except NothingDrawn:  # the pattern takes other dtypes: floats, most of them
                self.base_dtype, self.base_shape = dtype, self.shape(1)
        return _Instance(self, Builder("instance")).graph(pattern)

    # -- graphs ------------------------------------------------------------------------------------------------------
    def random_graph(self, classes: Several[type[Op]], size: int) -> Graph:
        """Ops on earlier values, new inputs and constants, some results dead, some read several times."""
        b = Builder("random")
        pool: list[Value] = [b.input("x0", Tensor(self.base_dtype, self.base_shape))]
        for _ in range(3 * size):
            if len([n for n in b.nodes if n.op.name != "const"]) >= size:
                break
            if b.nodes and self.chance(8):  # once more the same
                again = self.choose(b.nodes)
                pool.extend(b.emit(again.op, again.operands))
                continue
            cls = self.choose(classes)
            low, high = cls.arity()
            arity = self.integer(low, min(high if high is not None else low + 2, low + 2))
            reused = [self.choose(pool[-6:]) if self.chance(75) else None for _ in range(arity)]
            try:
                op, types = self.application(cls, [v and v.type for v in reused], {})
                operands = [v or self.leaf(b, t) for v, t in zip(reused, types)]
            except NothingDrawn:
                continue
            out = b.add(op, *operands)
            pool.extend([out] if isinstance(out, Value) else out)
        used = {v for n in b.nodes for v in n.operands}
        tensors = [v for v in pool if isinstance(v.type, Tensor)]
        ends = [v for v in tensors if v not in used and v not in b.inputs] or tensors[-1:]
        kept = [v for v in ends if not self.chance(15)] or ends[:1]
        if self.chance(30):
            kept.append(self.choose(tensors))
        return b.graph(*kept)

    def leaf(self, b: Builder, type_: Type) -> Value:
        if not isinstance(type_, Tensor) or not type_.is_static:
            raise NothingDrawn(f"{type_} is no type of an input")
        if self.chance(35):
            return b.const(self.blob(type_))
        return b.input(f"x{len(b.inputs)}", type_)

    def blob(self, type_: Tensor, number: float | None = None) -> Blob:
        """Constant data: small numbers, often all the same, often a neutral one."""
        import numpy as np

        shape: tuple[int, ...] = type_.shape  # type: ignore[assignment]
        if number is None and self.chance(50):
            number = self.choose((1.0, 0.0, 2.0, -1.0, -0.0, 0.5, 4.0, 3.0))
        count = math.prod(shape)
        if number is not None:
            values: Any = np.full(shape, number if type_.dtype.is_float else int(number))
        else:
            seed = np.random.default_rng(self.integer(0, 999))
            values = seed.integers(0 if type_.dtype.kind in "ub" else -3, 4, count).reshape(shape)
        return Blob(values.astype(type_.dtype.numpy), type_.dtype)


def has_value(op: Op, types: Several[Type]) -> bool:
    """Whether an op has a meaning on zeros: the greatest of no elements has none, nor has a row of an empty table."""
    if not all(isinstance(t, Tensor) and t.is_static for t in types):
        return True
    try:
        op.run(*(torch.zeros(t.shape, dtype=t.dtype.torch) for t in types))  # type: ignore[attr-defined]
        return True
    except (RuntimeError, IndexError, ValueError):
        return False


class _Instance:
    def __init__(self, drawer: Drawer, b: Builder):
        self.drawer, self.b = drawer, b
        self.values: dict[int, Any] = {}
        self.by_name: dict[str, Value] = {}
        self.attributes: dict[str, Any] = {}

    def graph(self, pattern: Pattern) -> Graph:
        out = self.value(pattern)
        if self.drawer.chance(20):  # an inner value with another reader
            inner = [r for n in self.b.nodes[:-1] for r in n.results if n.op.name != "const"]
            if inner:
                return self.b.graph(out, self.drawer.choose(inner))
        return self.b.graph(*(out if isinstance(out, tuple) else (out,)))

    def value(self, pattern: Pattern) -> Any:
        """The value of a pattern whose type follows from its operands."""
        if id(pattern) not in self.values:
            self.values[id(pattern)] = self.make(pattern)
        return self.values[id(pattern)]

    def make(self, pattern: Pattern) -> Any:
        match pattern:
            case Bound(inner=inner):
                return self.value(inner)
            case Either(choices=choices):
                return self.value(self.drawer.choose(choices))
            case ResultPattern(of=of, which=which):
                return self.value(of)[which]
            case OpPattern():
                return self.apply(pattern)
        return self.leaf(pattern, self.drawer.like(None))

    def known(self, pattern: Pattern) -> Value | None:
        """A value whose type is already settled; None for holes that are still free."""
        match pattern:
            case Variable(name):
                return self.by_name.get(name)
            case Bound(inner=inner):
                return self.known(inner)
            case Constant():
                return self.values.get(id(pattern))
            case Either(choices=choices):
                if id(pattern) not in self.values:
                    choice = self.drawer.choose(choices)
                    known = self.known(choice)
                    if known is None:
                        return None
                    self.values[id(pattern)] = known
                return self.values[id(pattern)]
        return self.value(pattern)

    def apply(self, pattern: OpPattern) -> Any:
        d = self.drawer
        patterns = list(pattern.operands)
        rest = patterns.pop() if patterns and isinstance(patterns[-1], Rest) else None
        if rest is not None:
            patterns += [Variable(f"{rest.name}{k}") for k in range(d.integer(1, 3))]
        values = [self.known(p) for p in patterns]
        given = {k: self.attributes[v.name] if isinstance(v, Attribute) else v
                 for k, v in pattern.attributes.items() if not isinstance(v, Attribute) or v.name in self.attributes}
        wheres = {k: v for k, v in pattern.attributes.items() if isinstance(v, Attribute)}
        for attempt in range(ATTEMPTS):
            if attempt and attempt % 5 == 0:
                d.base_shape = d.shape(2)
            op, types = d.application(pattern.op, [v and v.type for v in values], given)
            if all(w.where is None or w.where(getattr(op, k)) for k, w in wheres.items()):
                break
        else:
            raise NothingDrawn(f"{pattern.op.name}: no attribute satisfies the pattern")
        self.attributes |= {w.name: getattr(op, k) for k, w in wheres.items()}
        operands = [v if v is not None else self.leaf(p, t) for p, v, t in zip(patterns, values, types)]
        return self.b.add(op, *operands)

    def leaf(self, pattern: Pattern, type_: Type) -> Value:
        match pattern:
            case Bound(inner=inner):
                return self.leaf(inner, type_)
            case Variable(name):
                if name not in self.by_name:
                    self.by_name[name] = self.b.input(name, type_)
                return self.by_name[name]
            case Constant(number=number, value=value):
                if id(pattern) not in self.values:
                    assert isinstance(type_, Tensor)
                    if number and value is None:
                        value = self.drawer.choose((1.0, 0.0, -0.0, 2.0, 0.5, -1.0, 3.0, -math.inf, math.inf))
                        if not type_.dtype.is_float:
                            value = 0.0 if not math.isfinite(value) else float(int(value))
                            value = abs(value) if type_.dtype.kind in "ub" else value
                    self.values[id(pattern)] = self.b.const(self.drawer.blob(type_, value))
                return self.values[id(pattern)]
            case Either(choices=choices):
                return self.leaf(self.drawer.choose(choices), type_)
        return self.value(pattern)


# -- operands, by family or op -------------------------------------------------------------------
def _elementwise(d: Drawer, types: list[Type | None], k: int, name: str) -> Tensor:
    other = next((t for t in types if isinstance(t, Tensor)), None)
    return Tensor(other.dtype, d.variant(other.shape)) if other else d.like(None)


def _where(d: Drawer, types: list[Type | None], k: int, name: str) -> Tensor:
    if k == 0:
        shapes = [t.shape for t in types[1:] if isinstance(t, Tensor)]
        return Tensor(bool_, d.variant(shapes[0] if shapes else d.base_shape))
    branch = next((t for t in types[1:] if isinstance(t, Tensor)), None)
    shape = next((t.shape for t in types if isinstance(t, Tensor)), d.base_shape)
    return Tensor(branch.dtype if branch else d.dtype(), d.variant(shape))


def _matmul(d: Drawer, types: list[Type | None], k: int, name: str) -> Tensor:
    other = types[1 - k]
    if not isinstance(other, Tensor):
        shape = d.base_shape if len(d.base_shape) >= 2 else (*d.base_shape, 3, 2)[-2:]
        return Tensor(d.base_dtype if d.base_dtype.kind != "b" else f32, shape)
    inner = other.shape[d.choose((-1, -2))]
    pair = (inner, d.dim())
    batch = d.variant(other.shape[:-2]) if other.rank > 2 else ()
    return Tensor(other.dtype, (*batch, *(pair if d.boolean() else pair[::-1])))


def _window(d: Drawer, types: list[Type | None], k: int, name: str) -> Tensor:
    x = types[0] if isinstance(types[0], Tensor) else None
    if name == "x" or x is None:
        spatial = d.integer(1, 2)
        channels = d.choose((2, 4, 1, 3))
        return Tensor(d.choose((f32, f64)), (d.integer(1, 2), channels, *(d.choose((5, 4, 7)),) * spatial))
    if name == "w":
        groups = d.choose([g for g in (1, 2, x.shape[1]) if g and x.shape[1] % g == 0])
        kernel = tuple(d.choose((1, 3, 2)) for _ in x.shape[2:])
        return Tensor(x.dtype, (groups * d.integer(1, 2), x.shape[1] // groups, *kernel))
    w = types[1] if isinstance(types[1], Tensor) else d.nothing("a bias goes with weights")
    return Tensor(x.dtype, (w.shape[0],))


def _normalization(d: Drawer, types: list[Type | None], k: int, name: str) -> Tensor:
    x = types[0] if isinstance(types[0], Tensor) else None
    if name == "x" or x is None:
        return Tensor(d.choose((f32, f64)), d.base_shape if d.base_shape else (3, 4))
    return Tensor(x.dtype, (x.shape[1],) if d.boolean() else x.shape[d.integer(0, x.rank):])


def _batch_norm(d: Drawer, types: list[Type | None], k: int, name: str) -> Tensor:
    x = types[0] if isinstance(types[0], Tensor) else None
    if x is None:
        channels = next((t.shape[0] for t in types if isinstance(t, Tensor) and t.rank == 1), d.choose((2, 4, 1, 3)))
        return Tensor(d.choose((f32, f64)), (d.integer(1, 2), channels, *d.shape(0, 2)))
    return x if k == 0 else Tensor(x.dtype, (x.shape[1],))


def _image(d: Drawer) -> Tensor:
    return Tensor(d.choose((f32, f64)), (d.integer(1, 2), d.choose((2, 4, 1, 3)), *((d.choose((5, 4, 7)),) * 2)))


def _grid_sample(d: Drawer, types: list[Type | None], k: int, name: str) -> Tensor:
    x = types[0] if isinstance(types[0], Tensor) else None
    if k == 0 or x is None:
        return _image(d)
    return Tensor(x.dtype, (x.shape[0], *(d.choose((2, 3, 1, 5)) for _ in x.shape[2:]), x.rank - 2))


def _roi_align(d: Drawer, types: list[Type | None], k: int, name: str) -> Tensor:
    x = types[0] if isinstance(types[0], Tensor) else None
    if k == 0 or x is None:
        return _image(d)
    rois = types[1].shape[0] if isinstance(types[1], Tensor) and types[1].rank else d.choose((2, 1, 0, 3))
    return Tensor(x.dtype, (rois, 4)) if k == 1 else Tensor(i64, (rois,))


def _nms(d: Drawer, types: list[Type | None], k: int, name: str) -> Tensor:
    other = types[1 - k]
    batch, boxes = (other.shape[0], other.shape[2 if k == 0 else 1]) if isinstance(other, Tensor) and other.rank == 3 \
        else (d.integer(1, 2), d.choose((3, 5, 1, 0)))
    return Tensor(f32, (batch, boxes, 4) if k == 0 else (batch, d.integer(1, 2), boxes))


def _quantize(d: Drawer, types: list[Type | None], k: int, name: str) -> Tensor:
    x, scale = (t if isinstance(t, Tensor) else None for t in (*types, None)[:2])
    if k == 0 or x is None:
        return Tensor(f32, d.base_shape)
    if k == 1:
        return Tensor(f32, () if d.boolean() or not x.rank else (x.shape[min(1, x.rank - 1)],))
    return Tensor(x.dtype if x.dtype.is_integer else i8, scale.shape if scale else ())


def _rotary(d: Drawer, types: list[Type | None], k: int, name: str) -> Tensor:
    x, cos = (t if isinstance(t, Tensor) else None for t in types[:2])
    if k == 0 or x is None:
        return Tensor(d.choose((f32, f64)), (*d.shape(0, 2), d.choose((2, 3, 5)), d.choose((4, 2, 6))))
    if k == 2 and cos is not None:
        return cos
    half = x.shape[-1] // 2 if isinstance(x.shape[-1], int) else 1
    return Tensor(x.dtype, (*(x.shape[-2:-1] if d.boolean() else ()), d.choose((half, 1))))


def _random(d: Drawer, types: list[Type | None], k: int, name: str) -> Tensor:
    return Tensor(f32, d.base_shape) if name == "p" else Tensor(i64, ())


def _compress(d: Drawer, types: list[Type | None], k: int, name: str) -> Tensor:
    x = d.like(types[0] if isinstance(types[0], Tensor) else None)
    return x if k == 0 else Tensor(bool_, (d.choose(x.shape) if x.rank else 1,))


def _sequence(d: Drawer, types: list[Type | None], k: int, name: str) -> Type:
    if name == "at":
        return Tensor(i64, ())
    if name == "xs" and k == 0 and len(types) > 1:
        return d.nothing("sequences are drawn by their own op")
    sequence = types[0]
    return sequence.element if isinstance(sequence, Sequence) else d.like(next(
        (t for t in types if isinstance(t, Tensor)), None))


def _concat(d: Drawer, types: list[Type | None], k: int, name: str) -> Tensor:
    other = d.like(next((t for t in types if isinstance(t, Tensor)), None))
    if d.boolean():
        return other
    axis = d.integer(0, max(other.rank - 1, 0))
    return other.with_shape(tuple(d.dim() if j == axis else s for j, s in enumerate(other.shape)))


def _index(d: Drawer, types: list[Type | None], k: int, name: str) -> Tensor:
    if name in ("idx", "starts", "k"):
        return Tensor(i64, d.shape(0, 2) if name == "idx" else ())
    return d.like(next((t for t in types if isinstance(t, Tensor)), None))


def _attention(d: Drawer, types: list[Type | None], k: int, name: str) -> Tensor:
    q = types[0] if isinstance(types[0], Tensor) else None
    if name == "q" or q is None:
        return Tensor(d.choose((f32, f64)), (d.integer(1, 2), d.choose((2, 4)), d.dim(), 4))
    return Tensor(q.dtype, (q.shape[0], q.shape[1], d.choose((q.shape[2], 3)), 4))


OPERANDS: dict[str, Callable[[Drawer, list[Type | None], int, str], Type]] = {
    "elementwise": _elementwise, "where": _where, "contraction": _matmul, "window": _window,
    "normalization": _normalization, "concat": _concat, "index": _index, "attention": _attention,
    "batch_norm": _batch_norm, "grid_sample": _grid_sample, "roi_align": _roi_align,
    "nms": _nms, "quantize": _quantize, "rotary_embedding": _rotary, "random": _random, "compress": _compress,
    "sequence": _sequence,
}


# -- attributes, by name or op.name --------------------------------------------------------------
def _slice_starts(d: Drawer, x: Tensor, out: dict[str, Any]) -> tuple[int, ...]:
    whole = d.chance(30)
    return tuple(0 if whole or d.boolean() else d.integer(0, s) for s in x.shape)


def _slice_stops(d: Drawer, x: Tensor, out: dict[str, Any]) -> tuple[int, ...]:
    starts = out.get("starts", (0,) * x.rank)
    return tuple(s if d.chance(60) else d.integer(min(a, s), s) for a, s in zip(starts, x.shape))


def _pads(d: Drawer, x: Tensor, out: dict[str, Any]) -> tuple[int, ...]:
    return (0,) * (2 * x.rank) if d.chance(40) else tuple(d.integer(-1, 2) for _ in range(2 * x.rank))


def _window_pads(d: Drawer, x: Tensor, out: dict[str, Any]) -> tuple[int, ...]:
    return tuple(d.choose((0, 1)) for _ in range(2 * (x.rank - 2)))


def _broadcast_shape(d: Drawer, x: Tensor, out: dict[str, Any]) -> tuple[int, ...]:
    lead = tuple(d.choose((2, 3, 1)) for _ in range(d.choose((0, 1, 0, 2))))
    return (*lead, *(d.choose((1, 3)) if s == 1 else s for s in x.shape))


def _sizes(d: Drawer, x: Tensor, out: dict[str, Any]) -> tuple[int, ...]:
    kept = d.choose((2, 0))  # images and their channels are seldom resampled
    return tuple(s if k < kept or d.boolean() else d.choose((1, 2, 3, 5)) for k, s in enumerate(x.shape))


def _reshaped(d: Drawer, x: Tensor, out: dict[str, Any]) -> tuple[int, ...]:
    """The same shape, without or with an axis of one element, or any of as many elements."""
    shape: tuple[int, ...] = x.shape  # type: ignore[assignment]
    ones = [k for k, size in enumerate(shape) if size == 1]
    kind = d.choose(("any", "any", "less" if ones else "flat", "more", "flat", "same"))
    if kind == "less":
        k = d.choose(ones)
        return (*shape[:k], *shape[k + 1:])
    if kind == "more":
        k = d.integer(0, len(shape))
        return (*shape[:k], 1, *shape[k:])
    if kind == "flat":
        return (math.prod(shape),)
    return shape if kind == "same" else d.refactor(math.prod(shape))


def _size(d: Drawer, x: Tensor, out: dict[str, Any]) -> Symbol:
    """A size that the op defines: a symbol of its own."""
    return Symbol(f"n{len(d.bounds)}", 0)


def _converted(d: Drawer, dtype: DType) -> DType:
    """A dtype to convert to: the same, one of the same kind (conversions that are easily taken for nothing), or any."""
    alike = [t for t in DTYPES_DRAWN if t != dtype and t.is_float == dtype.is_float and not t.is_bool]
    return dtype if d.chance(20) else d.choose((*DTYPES_DRAWN, *alike, *alike))


def _axes(d: Drawer, x: Tensor, out: dict[str, Any]) -> tuple[int, ...]:
    return tuple(k for k in range(x.rank) if d.boolean())


Draw = Callable[[Drawer, Tensor, dict[str, Any]], Any]
ATTRIBUTES: dict[str, Draw] = {
    "perm": lambda d, x, _: d.permutation(x.rank),
    "reshape.shape": _reshaped,
    "broadcast_to.shape": _broadcast_shape,
    "shape": lambda d, x, _: d.shape(),
    "starts": _slice_starts, "stops": _slice_stops,
    "steps": lambda d, x, _: tuple(1 if d.chance(75) else 2 for _ in x.shape),
    "axes": _axes,
    "axis": lambda d, x, _: d.integer(0, x.rank - 1),
    "conv.pad_value": lambda d, x, _: d.choose((0, 3)) if x.dtype.is_integer else 0,
    "pad.pads": _pads, "pads": _window_pads,
    "pad.mode": lambda d, x, _: d.choose(("constant", "reflect", "edge", "wrap")),
    "counts": lambda d, x, _: (1,) * x.rank if d.chance(40) else tuple(d.choose((1, 2, 0)) for _ in x.shape),
    "kernel": lambda d, x, _: tuple(d.choose((1, 2, 3)) for _ in x.shape[2:]),
    "strides": lambda d, x, _: tuple(d.choose((1, 2)) for _ in x.shape[2:]),
    "dilations": lambda d, x, _: tuple(d.choose((1, 2)) for _ in x.shape[2:]),
    "output_pads": lambda d, x, _: (0,) * (x.rank - 2),
    "groups": lambda d, x, _: d.choose([g for g in (1, 2, x.shape[1]) if g and x.shape[1] % g == 0]),
    "to": lambda d, x, _: _converted(d, x.dtype),
    "approximate": lambda d, x, _: d.choose(("none", "tanh")),
    "alpha": lambda d, x, _: d.choose((0.5, 0.25, 1.0)),
    "eps": lambda d, x, _: d.choose((1e-5, 1e-6)),
    "reduction": lambda d, x, _: d.choose(("none", "add", "mul", "min", "max")),
    "scale": lambda d, x, _: d.choose((None, 0.5)),
    "accumulate": lambda d, x, _: None if x.dtype.is_float else d.choose((None, i32)),
    "k": lambda d, x, _: d.integer(1, 3),
    "sizes": _sizes,
    "output_size": lambda d, x, _: (d.choose((2, 1, 3)), d.choose((2, 1, 3))),
    "grid_sample.padding": lambda d, x, _: d.choose(("zeros", "border", "reflection")),
    "roi_align.mode": lambda d, x, _: d.choose(("avg", "max")),
    "sampling_ratio": lambda d, x, _: d.choose((0, 1, 2)),
    "compress.size": _size, "nonzero.size": _size, "unique.size": _size, "nms.size": _size,
    "max_output": lambda d, x, _: d.choose((3, 1, 0)), "iou_threshold": lambda d, x, _: d.choose((0.5, 0.0, 1.0)),
    "topk.k": lambda d, x, _: d.integer(0, max(x.shape, default=0)),
    "unique.axis": lambda d, x, _: d.choose((None, *range(x.rank))),
    "quantize_linear.dtype": lambda d, x, _: d.choose((i8, u8)),
    "quantize_linear.axis": lambda d, x, _: min(1, max(x.rank - 1, 0)),
    "dequantize_linear.axis": lambda d, x, _: min(1, max(x.rank - 1, 0)),
    "low": lambda d, x, _: d.choose((0, -3)), "high": lambda d, x, _: d.choose((1, 5, 256)),
    "softcap": lambda d, x, _: d.choose((None, None, 5.0)),
    "mode": lambda d, x, _: d.choose(("nearest", "linear", "cubic")),
    "coordinate": lambda d, x, _: d.choose(("half_pixel", "asymmetric", "align_corners")),
    "nearest_mode": lambda d, x, _: d.choose(("round_prefer_floor", "floor", "ceil")),
    "shifts": lambda d, x, _: tuple(d.integer(-2, 2) for _ in x.shape),
    "correction": lambda d, x, _: d.choose((0, 1)),
    "value": lambda d, x, _: d.dim(),
}

DRAWN_FAMILIES = frozenset(
    "elementwise contraction window reduction normalization view index scan sort quantize attention random sequence"
    .split())
UNDRAWN = frozenset({"searchsorted", "max_unpool", "sequence_concat"})
"""Ops of operands that few values are: sorted ones, positions of maxima, elements that add up to a size."""


def drawable_ops() -> list[type[Op]]:
    """The ops that random graphs are made of."""
    found = [c for c in load_ops().values() if c.family in DRAWN_FAMILIES and c.pure and c.name not in UNDRAWN]
    return sorted(found, key=lambda c: c.name)


__all__ = ["DIMS", "Drawer", "EffccError", "NothingDrawn", "drawable_ops"]
