"""Evaluates loop nests on NumPy arrays, point by point: slow, and obviously right.

It is the check of an op's `compute` against its `reference`, and of what passes do to loop nests. Parallel axes are
evaluated at once over index grids, reduction and scan axes one point at a time, in order. What generated code must not
do is an error here too: reading an operand out of range, two parallel points storing to one place, leaving a result
unwritten, storing what has no value (an integer divided by zero, a float cast to an integer that cannot hold it).

>>> import numpy as np
>>> from effcc.ir import Tensor, f32
>>> from effcc.ir.scalar import Compute, Read, index
>>> double = Compute((3,), (Read(f32, 0, (index(0),)) * 2.0,))
>>> evaluate_nest(double, (np.arange(3, dtype="f4"),), (Tensor(f32, (3,)),))[0]
array([0., 2., 4.], dtype=float32)
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from effcc.ir import scalar as s
from effcc.ir.dims import Symbol, evaluate
from effcc.ir.scalar import PARALLEL, REDUCTION, SCAN, Apply, Compute, Index, Old, Read, Scalar, State, walk
from effcc.ir.types import DType, Tensor

Array = Any


class NestError(AssertionError):
    """A loop nest that generated code could not run safely."""


@dataclass
class Lanes:
    """The values of one scalar at all parallel points; `invalid` marks those that must not be stored (None: none)."""

    value: Array
    invalid: Array | None = None


@dataclass
class Point:
    """Where the loops stand: index grids, the folds' states, the elements about to be overwritten."""

    grids: tuple[Array, ...]
    states: tuple[Lanes, ...] = ()
    old: tuple[Lanes, ...] = ()
    known: dict[int, Lanes] = field(default_factory=dict)


def carrier(dtype: DType) -> np.dtype[Any]:
    """The NumPy dtype in which elements are held here: short floats in f32, rounded after each function."""
    if dtype.is_float:
        return np.dtype("f8" if dtype.bits == 64 else "f4")
    return np.dtype("i8") if dtype.is_integer and dtype.bits < 8 else dtype.numpy


def settle(x: Array, dtype: DType) -> Array:
    """Elements rounded or wrapped into a dtype, in its carrier."""
    if dtype.is_float and dtype.bits < 32:
        return np.asarray(x).astype(dtype.numpy).astype("f4")
    if dtype.is_integer and dtype.bits < 8:
        low = np.asarray(x).astype("i8") & ((1 << dtype.bits) - 1)
        return low if dtype.kind == "u" else low - ((low >> (dtype.bits - 1)) << dtype.bits)
    return np.asarray(x).astype(carrier(dtype))


def evaluate_nest(
    nest: Compute, operands: Sequence[Array], results: Sequence[Tensor], bindings: Mapping[Symbol, int] | None = None,
) -> tuple[Array, ...]:
    """Run a loop nest.

    operands: arrays, in the carriers of the dtypes with which the nest reads them.
    results: the result types; their symbols, and the nest's, are looked up in `bindings`.
    Raises NestError where the nest is unsafe or disagrees with the types.
    """
    with np.errstate(all="ignore"):
        return _Evaluator(nest, operands, results, bindings or {}).run()


class _Evaluator:
    def __init__(
        self, nest: Compute, operands: Sequence[Array], results: Sequence[Tensor], bindings: Mapping[Symbol, int]
    ):
        self.nest, self.bindings = nest, bindings
        self.operands = [np.asarray(a) for a in operands]
        self.extents = tuple(evaluate(e, bindings) for e in nest.extents)
        self.types = tuple(results)
        if len(nest.results) != len(results):
            raise NestError(f"{len(nest.results)} results, the type rule says {len(results)}")
        for scalar, type_ in zip(nest.results, results):
            if scalar.dtype != type_.dtype:
                raise NestError(f"the nest stores {scalar.dtype}, the type rule says {type_}")
        shapes = [tuple(evaluate(d, bindings) for d in t.shape) for t in results]
        self.stored = [np.zeros(shape, carrier(t.dtype)) for shape, t in zip(shapes, results)]
        self.written = [np.zeros(shape, bool) for shape in shapes]
        if nest.initial is not None:
            self.stored[0][...] = self.operands[nest.initial]
            self.written[0][...] = True

        self.fixed: dict[int, Lanes] = {}
        self.varying = self.find_varying()
        self.order = {id(root): [n for n in walk(root) if id(n) in self.varying] for root in nest.scalars}

    def find_varying(self) -> set[int]:
        """The scalars that differ from one point of the reduction and scan axes to the next; the others are evaluated
        once."""
        varying: set[int] = set()
        for node in walk(*self.nest.scalars):
            moves = isinstance(node, (State, Old)) or isinstance(node, Index) and self.nest.kinds[node.axis] != PARALLEL
            if moves or any(id(c) in varying for c in node.children):
                varying.add(id(node))
        return varying

    def run(self) -> tuple[Array, ...]:
        parallel, scan, reduction = (self.nest.axes(k) for k in (PARALLEL, SCAN, REDUCTION))
        self.shape = tuple(self.extents[a] for a in parallel)
        fixed: list[Array] = [np.int64(0)] * len(self.extents)
        for place, axis in enumerate(parallel):
            lanes = [1] * len(parallel)
            lanes[place] = self.extents[axis]
            fixed[axis] = np.arange(self.extents[axis], dtype=np.int64).reshape(lanes)
        start = Point(tuple(fixed))
        if math.prod(self.shape):
            for node in walk(*self.nest.scalars):
                if id(node) not in self.varying:
                    self.fixed[id(node)] = self.one(node, start, self.fixed)
        states = tuple(self.lanes(i, start) for i in self.nest.init) if math.prod(self.shape) else ()
        for outer in itertools.product(*(range(self.extents[a]) for a in scan)):
            at = list(fixed)
            for axis, i in zip(scan, outer):
                at[axis] = np.int64(i)
            if not math.prod(self.shape):
                break
            for inner in itertools.product(*(range(self.extents[a]) for a in reduction)):
                for axis, i in zip(reduction, inner):
                    at[axis] = np.int64(i)
                point = Point(tuple(at), states)
                states = tuple(self.lanes(x, point) for x in self.nest.step)
            for axis in reduction:
                at[axis] = np.int64(0)
            self.store(Point(tuple(at), states))
        for written, type_ in zip(self.written, self.types):
            if not written.all():
                raise NestError(f"{int((~written).sum())} elements of a result {type_} are not written")
        return tuple(self.stored)

    def store(self, point: Point) -> None:
        default = tuple(Lanes(g) for g, k in zip(point.grids, self.nest.kinds) if k != REDUCTION)
        places = []
        for which, target in enumerate(self.stored):
            place = default if self.nest.write is None else tuple(self.lanes(i, point) for i in self.nest.write[which])
            if len(place) != target.ndim:
                raise NestError(f"result {which} of rank {target.ndim} is stored at {len(place)} indices")
            for i, n in zip(place, target.shape):
                at = np.asarray(i.value)
                if (i.invalid is not None and i.invalid.any()) or (at < 0).any() or (at >= n).any():
                    raise NestError(f"result {which} of shape {target.shape} is stored out of range")
            index = tuple(np.broadcast_to(i.value, self.shape) for i in place)
            every = math.prod(self.shape)
            flat = np.ravel_multi_index(index, target.shape).reshape(-1) if index else np.zeros(every, np.int64)
            if len(np.unique(flat)) != len(flat):
                raise NestError(f"parallel points store to the same element of result {which}")
            places.append(index)
        point.old = tuple(Lanes(t[i]) for t, i in zip(self.stored, places))
        values = [self.lanes(r, point) for r in self.nest.results]
        for which, (index, lanes) in enumerate(zip(places, values)):
            if lanes.invalid is not None and lanes.invalid.any():
                raise NestError(
                    f"result {which} stores undefined values (of a read of an empty operand, a division by 0, ...)"
                )
            self.stored[which][index] = lanes.value
            self.written[which][index] = True

    def lanes(self, root: Scalar, point: Point) -> Lanes:
        known = point.known
        if not known:
            known.update(self.fixed)
        for node in self.order[id(root)]:
            if id(node) not in known:
                known[id(node)] = self.one(node, point, known)
        return known[id(root)]

    def one(self, node: Scalar, point: Point, known: dict[int, Lanes]) -> Lanes:
        match node:
            case s.Literal(dtype, value):
                number = np.asarray(value)  # (not rounded to a short float: these are computed in f32)
                return Lanes(number.astype(carrier(dtype)) if dtype.is_float else settle(number, dtype))
            case s.Size(_, dim):
                return Lanes(np.int64(evaluate(dim, self.bindings)))
            case Index(_, axis):
                return Lanes(point.grids[axis])
            case State(_, which):
                return point.states[which]
            case Old(_, which):
                return point.old[which]
            case Read():
                return self.read(node, [known[id(i)] for i in node.index])
            case Apply(dtype, fn, args):
                return _apply(fn, dtype, args[0].dtype, [known[id(a)] for a in args])
        raise TypeError(node)

    def read(self, node: Read, index: list[Lanes]) -> Lanes:
        operand = self.operands[node.operand]
        if len(index) != operand.ndim:
            raise NestError(f"operand {node.operand} of rank {operand.ndim} is read at {len(index)} indices")
        if operand.size == 0:
            shape = np.broadcast_shapes(*(np.shape(i.value) for i in index))
            return Lanes(np.zeros(shape, operand.dtype), np.ones(shape, bool))
        for axis, (i, n) in enumerate(zip(index, operand.shape)):
            bad = (np.asarray(i.value) < 0) | (np.asarray(i.value) >= n)
            if i.invalid is not None:
                bad = bad & ~i.invalid
            if bad.any():
                raise NestError(f"operand {node.operand} of shape {operand.shape} is read out of range on axis {axis}")
        at = tuple(np.clip(i.value, 0, n - 1) for i, n in zip(index, operand.shape))
        return Lanes(operand[at], _either(*(i.invalid for i in index)))


def _either(*masks: Array | None) -> Array | None:
    known = [m for m in masks if m is not None]
    return functools.reduce(np.logical_or, known) if known else None


def _apply(fn: str, dtype: DType, source: DType, args: list[Lanes]) -> Lanes:
    values = [np.asarray(a.value) for a in args]
    if fn == "select":
        cond, a, b = values
        bad_a, bad_b = (np.zeros((), bool) if x.invalid is None else x.invalid for x in args[1:])
        chosen = None if args[1].invalid is None and args[2].invalid is None else np.where(cond, bad_a, bad_b)
        return Lanes(np.where(cond, a, b), _either(args[0].invalid, chosen))
    invalid = _either(*(a.invalid for a in args))
    if fn in ("div", "floordiv", "mod", "fmod") and not source.is_float:
        zero = values[1] == 0
        invalid, values[1] = _either(invalid, zero), np.where(zero, 1, values[1])
    if fn in ("shl", "shr"):
        over = (values[1] < 0) | (values[1] >= source.bits)
        invalid, values[1] = _either(invalid, over), np.where(over, 0, values[1])
    if fn == "pow" and not source.is_float:
        invalid, values[1] = _either(invalid, values[1] < 0), np.maximum(values[1], 0)
    if fn == "cast":
        if source.is_float and dtype.is_integer:
            whole = np.trunc(values[0].astype("f8"))
            fits = (whole >= float(dtype.min)) & (whole < 2.0 ** (dtype.bits - (dtype.kind == "i")))
            return Lanes(settle(np.where(fits, whole, 0), dtype), _either(invalid, ~fits))
        return Lanes(settle(values[0], dtype), invalid)
    if fn == "bitcast":
        return Lanes(_bits(values[0], source, dtype), invalid)
    return Lanes(settle(FUNCTIONS[fn](*values), dtype), invalid)


def _bits(x: Array, source: DType, dtype: DType) -> Array:
    raw = np.ascontiguousarray(x.astype(source.numpy)).view(dtype.numpy).reshape(np.shape(x))
    return raw.astype(carrier(dtype))


def _divide(a: Array, b: Array) -> Array:
    if a.dtype.kind == "f":
        return a / b
    quotient = a // b
    return quotient + (((a % b) != 0) & ((a < 0) != (b < 0))).astype(quotient.dtype)


_OTHER_NAMES = """
    sub:subtract mul:multiply floordiv:floor_divide neg:negative min:minimum max:maximum pow:power asin:arcsin
    acos:arccos atan:arctan asinh:arcsinh acosh:arccosh atanh:arctanh atan2:arctan2 round:rint eq:equal
    ne:not_equal lt:less le:less_equal gt:greater ge:greater_equal and:bitwise_and or:bitwise_or xor:bitwise_xor
    shl:left_shift shr:right_shift
"""
FUNCTIONS: dict[str, Any] = {
    "div": _divide, "rsqrt": lambda x: 1 / np.sqrt(x), "erf": np.vectorize(math.erf, otypes="d"),
    "erfc": np.vectorize(math.erfc, otypes="d"),
    "normal_cdf": np.vectorize(lambda x: 0.5 * (1 + math.erf(x * math.sqrt(0.5))), otypes="d"), "not": lambda x: ~x,
    **{name: getattr(np, name) for name in
       "add mod fmod abs exp expm1 log log1p sqrt sin cos tan sinh cosh tanh floor ceil trunc isnan".split()},
    **{ours: getattr(np, theirs) for ours, theirs in (pair.split(":") for pair in _OTHER_NAMES.split())},
}
"""The scalar functions of `effcc.ir.scalar` in NumPy; those that `_apply` treats apart are missing."""
