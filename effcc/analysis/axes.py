"""Where one axis of a value lies in other values: followed op by op, by the ops' loop nests.

An op carries an axis of an operand where element i along it of the result depends on element i of the operand only: an
elementwise op, a matmul by a weight, a layer norm over other axes. `follow` does that through a whole graph, so that a
pass can change the number of elements on the axis (tokens, a batch) in all values at once.

    >>> from effcc.ir import Builder, Tensor, f32
    >>> b = Builder()
    >>> x = b.input("x", Tensor(f32, (2, 5, 4)))
    >>> y = b.transpose(b.reshape(x, shape=(10, 4)), perm=(1, 0))
    >>> carried(b.nodes[0], 0, Place(1), 5), carried(b.nodes[1], 0, Place(0, 2, 1), 5)
    (Place(axis=0, outer=2, inner=1), Place(axis=1, outer=2, inner=1))
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from effcc.ir.dims import Dim, floordiv, product
from effcc.ir.graph import Graph, Node, Value
from effcc.ir.op import Op
from effcc.ir.scalar import PARALLEL, Compute, Index, Read, Scalar, walk
from effcc.ir.types import Tensor, Type


@dataclass(frozen=True)
class Place:
    """Where n elements lie in a value: on `axis`, of size outer · n · inner, in row-major order."""

    axis: int
    outer: Dim = 1
    inner: Dim = 1

    def size(self, n: Dim) -> Dim:
        return self.outer * n * self.inner


@dataclass(frozen=True)
class Reader:
    """A node that reads elements of the axis other than one by one, and so ends it."""

    node: Node
    operand: int
    reason: str


@dataclass
class Course:
    """An axis of n elements through a graph: where it lies in which values, and who reads it otherwise."""

    n: Dim
    places: dict[Value, Place] = field(default_factory=dict)
    readers: list[Reader] = field(default_factory=list)


Mixer = Callable[[Node, Mapping[Value, Place]], "Place | str | None"]
"""For a node that mixes elements, but may: where the axis lies in its result; a reason why not; None: no opinion."""


def follow(graph: Graph, start: Value, place: Place, n: Dim, mixer: Mixer = lambda node, places: None,
           within: Collection[Node] | None = None) -> Course:
    """The course of an axis from a value through the nodes behind it (only those in `within`, if given)."""
    course = Course(n, {start: place})
    for node in graph.nodes:
        if within is not None and node not in within:
            continue
        if not any(v in course.places for v in node.operands):
            continue
        allowed = mixer(node, course.places)
        found = allowed if allowed is not None else _agreed(graph, node, course)
        if isinstance(found, Place):
            course.places.update(dict.fromkeys(node.results, found))
        else:
            first = next(k for k, v in enumerate(node.operands) if v in course.places)
            course.readers.append(Reader(node, first, found))
    return course


def _agreed(graph: Graph, node: Node, course: Course) -> Place | str:
    """Where the axis lies in a node's results if all operands agree, else why it ends here."""
    found: set[Place] = set()
    for k, v in enumerate(node.operands):
        if v in course.places:
            place = carried(node, k, course.places[v], course.n)
            if place is None:
                view = node.op.family == "view"
                how = "takes it apart (windows, a grid, a part of it)" if view else "reads several elements at once"
                return f"{node.op.name} {how}"
            found.add(place)
    if len(found) > 1:
        return f"{node.op.name} meets it on two different axes"
    (place,) = found
    if any(not isinstance(r.type, Tensor) or r.shape[place.axis] != place.size(course.n) for r in node.results):
        return f"{node.op.name} changes its size"
    for k, v in enumerate(node.operands):
        if v not in course.places and varies_along(graph, node, k, place.axis):
            return f"{node.op.name} combines its elements with values of their own from elsewhere (positions, say)"
    return place


def carried(node: Node, operand: int, place: Place, n: Dim) -> Place | None:
    """Where the axis at `place` of an operand lies in the result; None where elements are mixed, dropped or moved."""
    return _carried(node.op, node.types, operand, place, n)


@lru_cache(maxsize=4096)
def _carried(op: Op, types: tuple[Type, ...], operand: int, place: Place, n: Dim) -> Place | None:
    x = types[operand]
    if not isinstance(x, Tensor) or op.graphs():
        return None
    if op.name == "reshape":
        return _reshaped(x.shape, op.shape, place, n)  # type: ignore[attr-defined]
    if op.family == "normalization" and op.name in ("softmax", "log_softmax", "layer_norm", "rms_norm"):
        last: int = op.axis  # type: ignore[attr-defined]
        own = place.axis == last if "softmax" in op.name else place.axis >= last
        return place if operand == 0 and not own else None
    if op.name == "concat":
        return None if place.axis == op.axis else place  # type: ignore[attr-defined]
    if op.name == "slice":
        whole = (op.starts[place.axis], op.stops[place.axis], op.steps[place.axis]) == (0, x.shape[place.axis], 1)  # type: ignore[attr-defined]
        return place if whole else None
    nest = nest_of(op, types)
    axis = _own_index(nest, operand, place.axis) if nest is not None else None
    if nest is None or axis is None:
        return None
    stored = [k for k, kind in enumerate(nest.kinds) if kind == PARALLEL]
    return Place(stored.index(axis), place.outer, place.inner)


def nest_of(op: Op, types: tuple[Type, ...]) -> Compute | None:
    """The loop nest of an op whose results are stored in loop order; None where there is none such."""
    if op.graphs() or op.family in ("constant", "control", "sequence") or not all(isinstance(t, Tensor) for t in types):
        return None
    nest = op.compute(*types)
    return nest if nest is not None and nest.write is None and nest.initial is None else None


def _own_index(nest: Compute, operand: int, axis: int) -> int | None:
    """The parallel loop axis that alone tells where every read of an operand is along one of its axes."""
    found: set[int | None] = set()
    for read in nest.reads():
        if read.operand == operand:
            at = read.index[axis]
            found.add(at.axis if isinstance(at, Index) and nest.kinds[at.axis] == PARALLEL else None)
    return found.pop() if len(found) == 1 else None


def _reshaped(before: tuple[Dim, ...], after: tuple[Dim, ...], place: Place, n: Dim) -> Place | None:
    """The axis keeps its stride if the elements in front of it and behind it fill whole axes of the new shape."""
    front = product(before[: place.axis]) * place.outer
    passed: Dim = 1
    for axis, size in enumerate(after):
        outer = quotient(front, passed)
        inner = quotient(size, outer * n) if outer is not None else None
        if outer is not None and inner is not None and inner != 0:
            return Place(axis, outer, inner)
        passed = passed * size
    return None


def quotient(a: Dim, b: Dim) -> Dim | None:
    """a / b where it is whole."""
    if b == 0:
        return None
    whole = floordiv(a, b)
    return whole if whole * b == a else None


# -- what varies -------------------------------------------------------------------------------------------------------
def varies_along(graph: Graph, node: Node, operand: int, axis: int) -> bool:
    """Whether what a node reads of an operand differs along an axis of its result."""
    nest = nest_of(node.op, node.types)
    x = node.operands[operand]
    if nest is None:
        if node.op.family == "normalization" and operand > 0:  # scale and bias lie on the last axes
            return axis >= len(node.results[0].shape) - len(x.shape)
        return True
    stored = [k for k, kind in enumerate(nest.kinds) if kind == PARALLEL]
    reads = [r for r in nest.reads() if r.operand == operand]
    return any(_depends(at, stored[axis]) and varies(graph, x, k) for r in reads for k, at in enumerate(r.index))


def varies(graph: Graph, value: Value, axis: int) -> bool:
    """Whether a value may differ along an axis; False where it provably repeats one slice.

    >>> from effcc.ir import Builder, Tensor, f32
    >>> b = Builder()
    >>> x = b.input("x", Tensor(f32, (2, 1, 4)))
    >>> y = b.neg(b.broadcast_to(x, shape=(2, 3, 4)))
    >>> g = b.graph(y)
    >>> varies(g, y, 1), varies(g, y, 2)
    (False, True)
    """
    return _varies(graph, value, axis, {})


def _varies(graph: Graph, value: Value, axis: int, known: dict[tuple[Value, int], bool]) -> bool:
    key = (value, axis)
    if key not in known:
        known[key] = True
        known[key] = value.shape[axis] != 1 and _computed_varies(graph, value, axis, known)
    return known[key]


def _computed_varies(graph: Graph, value: Value, axis: int, known: dict[tuple[Value, int], bool]) -> bool:
    node = graph.producer(value)
    if node is None:
        return True
    if node.op.name == "const":
        array: Any = node.op.blob.array  # type: ignore[attr-defined]
        return bool((array != array.take([0], axis)).any())
    if node.op.name == "reshape":
        x = node.operands[0]
        n = value.shape[axis]
        source = _reshaped(value.shape, x.shape, Place(axis), n)
        return source is None or source.size(n) != n or _varies(graph, x, source.axis, known)
    nest = nest_of(node.op, node.types)
    if nest is None:
        return True
    stored = [k for k, kind in enumerate(nest.kinds) if kind == PARALLEL]
    loop = stored[axis]
    for s in _values(nest):
        if isinstance(s, Index) and s.axis == loop:
            return True
        if isinstance(s, Read):
            x = node.operands[s.operand]
            if any(_depends(at, loop) and _varies(graph, x, k, known) for k, at in enumerate(s.index)):
                return True
    return False


def _values(nest: Compute) -> Iterator[Scalar]:
    """The scalars of a nest that are values, or reads of values: index arithmetic inside of reads left out."""
    seen: set[int] = set()
    stack: list[Scalar] = [*nest.init, *nest.step, *nest.results]
    while stack:
        s = stack.pop()
        if id(s) in seen:
            continue
        seen.add(id(s))
        yield s
        if not isinstance(s, Read):
            stack.extend(s.children)


def _depends(at: Scalar, loop: int) -> bool:
    return any(isinstance(s, Index) and s.axis == loop for s in walk(at))
