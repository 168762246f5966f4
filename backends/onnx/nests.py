"""Loop nests as ONNX nodes: what an op means where ONNX has no operator for it.

Every axis of the iteration space becomes an axis of tensors that broadcast: a loop index is a Range along its own axis,
a read at other than the loop indices is a Gather of the flattened operand, and a fold is a Reduce node where it sums,
multiplies or takes extremes, else an ONNX Loop over the points of the reduction axes that carries its states. A scan
is a Loop over its axis.
"""

from __future__ import annotations

from effcc.backends.onnx import scalars
from effcc.backends.onnx.emit import Ref, Scope, value_info
from effcc.errors import UnsupportedError
from effcc.ir import scalar as s
from effcc.ir.dims import Dim, product
from effcc.ir.scalar import REDUCTION, SCAN, Apply, Compute, Index, Read, Scalar, State, walk
from effcc.ir.types import Tensor, bool_, i64

REDUCERS = {"add": "ReduceSum", "mul": "ReduceProd", "max": "ReduceMax", "min": "ReduceMin", "or": "ReduceMax",
            "and": "ReduceMin"}  # fmt: skip


def export_nest(e: Scope, nest: Compute, operands: list[Ref], types: list[Tensor], results: list[Tensor]) -> list[Ref]:
    """The results of a loop nest over operands of these types."""
    scans = nest.axes(SCAN)
    if nest.initial is not None or len(scans) > 1 or (nest.write is not None and not scans):
        raise UnsupportedError("its loop nest stores at places that depend on data")
    return _Nest(e, nest, operands, types).run(results)


class _Nest:
    def __init__(self, e: Scope, nest: Compute, operands: list[Ref], types: list[Tensor]):
        self.e, self.nest, self.operands, self.types = e, nest, operands, types
        self.rank = len(nest.extents)
        self.known: dict[int, Ref] = {}
        """Scalars that have been written already; each is of rank 0, or has every axis of the iteration space."""
        self.flat: dict[int, Ref] = {}
        self.chosen: dict[tuple[int, int], Scalar] = {}
        self.grids: dict[int, Ref] = {}
        self.fixed: set[int] = set()
        """The axes whose index is one number: that of a Loop around, or 0 once they are folded."""
        self.states: list[Ref] = []
        self.reduced = nest.axes(REDUCTION)

    # -- whole nests -----------------------------------------------------------------------------
    def run(self, results: list[Tensor]) -> list[Ref]:
        nest = self.nest
        if nest.axes(SCAN):
            return self.scan(results)
        if nest.step:
            if all(self.reducer(k) is not None for k in range(len(nest.step))):
                self.states = [self.reduce(k) for k in range(len(nest.step))]
            else:
                self.states = self.fold()
        for k in self.reduced:
            self.grids[k] = self.e.number(0, i64)
            self.fixed.add(k)
        return [self.shaped(self.value(x), t) for x, t in zip(nest.results, results, strict=True)]

    def shaped(self, x: Ref, type_: Tensor) -> Ref:
        """A value of the whole space as a result: without the reduced axes, of the full shape."""
        space = tuple(1 if k in self.reduced else d for k, d in enumerate(self.nest.extents))
        return self.e.reshape(self.e.expand(x, space), type_.shape)

    def reducer(self, which: int) -> tuple[str, Scalar] | None:
        """The Reduce node and the folded term of a step `state fn term` (perhaps only where a condition holds)."""
        step, held = self.nest.step[which], None
        if isinstance(step, Apply) and step.fn == "select" and self.is_state(step.args[2], which):
            held, step = step.args[0], step.args[1]
        if not isinstance(step, Apply) or step.fn not in REDUCERS:
            return None
        own = [self.is_state(a, which) for a in step.args]
        if sum(own) != 1:
            return None
        term = step.args[own.index(False)]
        if any(isinstance(x, State) for x in walk(term, *([] if held is None else [held]))):
            return None
        init, neutral = self.nest.init[which], {"add": 0, "or": 0, "mul": 1, "and": 1}.get(step.fn)
        if neutral is None:
            neutral = step.dtype.min if step.fn == "max" else step.dtype.max
        if not (isinstance(init, s.Literal) and init.value == neutral):
            return None
        return REDUCERS[step.fn], term if held is None else self.selected(held, term, neutral)

    @staticmethod
    def is_state(x: Scalar, which: int) -> bool:
        return isinstance(x, State) and x.which == which

    def selected(self, held: Scalar, term: Scalar, neutral: float | int | bool) -> Scalar:
        key = id(held), id(term)
        if key not in self.chosen:
            self.chosen[key] = s.select(held, term, neutral)
        return self.chosen[key]

    def reduce(self, which: int) -> Ref:
        found = self.reducer(which)
        assert found is not None
        whole = self.e.expand(self.value(found[1]), self.nest.extents)
        return self.e.call(found[0], whole, self.e.ints(*self.reduced), data=1, keepdims=1)

    # -- loops -----------------------------------------------------------------------------------
    def fold(self) -> list[Ref]:
        """States after a Loop over the points of the reduction axes."""
        space = tuple(1 if k in self.reduced else d for k, d in enumerate(self.nest.extents))
        start = [self.e.expand(self.value(x), space) for x in self.nest.init]
        self.settle(self.reduced, self.nest.step)
        trip = self.e.size(product(self.nest.extents[k] for k in self.reduced))

        def body(inner: _Nest, i: Ref) -> tuple[list[Ref], list[Ref]]:
            rest = i
            for k in reversed(self.reduced):
                size = inner.e.size(self.nest.extents[k])
                inner.grids[k] = inner.e.call("Mod", rest, size)
                inner.fixed.add(k)
                rest = inner.e.call("Div", rest, size)
            return [inner.e.expand(inner.value(x), space) for x in self.nest.step], []

        return self.loop(trip, start, body)[0]

    def scan(self, results: list[Tensor]) -> list[Ref]:
        """Results of a Loop over the scan axis, one slice an iteration."""
        (axis,) = self.nest.axes(SCAN)
        if self.reduced:
            raise UnsupportedError("its loop nest both scans and reduces")
        space = tuple(1 if k == axis else d for k, d in enumerate(self.nest.extents))
        start = [self.e.expand(self.value(x), space) for x in self.nest.init]
        self.settle((axis,), (*self.nest.step, *self.nest.results))

        def body(inner: _Nest, i: Ref) -> tuple[list[Ref], list[Ref]]:
            inner.grids[axis] = i
            inner.fixed.add(axis)
            states = [inner.e.expand(inner.value(x), space) for x in self.nest.step]
            inner.states, inner.known = states, dict(self.known)
            return states, [inner.e.expand(inner.value(x), space) for x in self.nest.results]

        rows = self.loop(self.e.size(self.nest.extents[axis]), start, body)[1]
        out = []
        for which, (row, type_) in enumerate(zip(rows, results, strict=True)):
            # [n, ..., 1, ...] -> [..., n, ...]
            perm = [k + 1 if k != axis else 0 for k in range(self.rank)] + [axis + 1]
            turned = self.e.reshape(self.e.call("Transpose", row, perm=perm), type_.shape)
            place = None if self.nest.write is None else self.nest.write[which][axis]
            if place is not None and not isinstance(place, Index):  # from the end
                ends = [self.e.ints(x) for x in (-1, -(2**63) + 1, axis, -1)]
                turned = self.e.call("Slice", turned, *ends, data=1)
            out.append(turned)
        return out

    def loop(self, trip: Ref, start: list[Ref], body) -> tuple[list[Ref], list[Ref]]:  # type: ignore[no-untyped-def]
        import onnx

        inner = _Nest(Scope(self.e.model, self.e), self.nest, self.operands, self.types)
        inner.known, inner.flat, inner.grids = dict(self.known), dict(self.flat), dict(self.grids)
        i, cond = (Ref(self.e.model.name(n), t) for n, t in (("i", i64), ("going", bool_)))
        inner.states = [Ref(self.e.model.name("state"), x.dtype) for x in start]
        carried = list(inner.states)
        states, rows = body(inner, i)
        go = inner.e.node("Identity", [cond], [bool_])[0]
        rank = self.rank

        def info(x: Ref, rank: int) -> onnx.ValueInfoProto:
            from effcc.ir.dims import Symbol

            return value_info(x.name, Tensor(x.dtype, tuple(Symbol(f"{x.name}_{k}") for k in range(rank))))

        inputs = [info(i, 0), info(cond, 0), *(info(x, rank) for x in carried)]
        outputs = [info(go, 0), *(info(x, rank) for x in (*states, *rows))]
        graph = onnx.helper.make_graph(inner.e.nodes, self.e.model.name("body"), inputs, outputs)
        dtypes = [x.dtype for x in (*start, *rows)]
        found = self.e.node("Loop", [trip, None, *start], dtypes, body=graph)  # type: ignore[arg-type]
        return found[: len(start)], found[len(start) :]

    def settle(self, axes: tuple[int, ...], roots: tuple[Scalar, ...]) -> None:
        """Write what does not vary along the axes of a loop in front of it."""
        varying: set[int] = set()
        for node in walk(*roots):
            moves = isinstance(node, State) or isinstance(node, Index) and node.axis in axes
            if moves or any(id(c) in varying for c in node.children):
                varying.add(id(node))
        for node in walk(*roots):
            if id(node) not in varying:
                self.value(node)
            elif isinstance(node, Read):
                self.flattened(node.operand)

    # -- scalars ---------------------------------------------------------------------------------
    def value(self, root: Scalar) -> Ref:
        for node in walk(root):
            if id(node) not in self.known:
                self.known[id(node)] = self.one(node)
        return self.known[id(root)]

    def one(self, node: Scalar) -> Ref:
        match node:
            case s.Literal(dtype, value):
                return self.e.number(value, dtype)
            case s.Size(_, dim):
                return self.e.size(dim)
            case Index(_, axis):
                return self.grid(axis)
            case State(_, which):
                return self.states[which]
            case Read(_, operand, index):
                return self.read(operand, index)
            case Apply(dtype, fn, args):
                return scalars.apply(self.e, fn, dtype, *(self.known[id(a)] for a in args))
        raise TypeError(node)

    def grid(self, axis: int) -> Ref:
        if axis not in self.grids:
            ends = [self.e.number(0, i64), self.e.size(self.nest.extents[axis]), self.e.number(1, i64)]
            line = self.e.node("Range", list(ends), [i64])[0]
            lanes = self.e.ints(*(-1 if k == axis else 1 for k in range(self.rank)))
            self.grids[axis] = self.e.node("Reshape", [line, lanes], [i64])[0]
        return self.grids[axis]

    def read(self, operand: int, index: tuple[Scalar, ...]) -> Ref:
        x, shape = self.operands[operand], self.types[operand].shape
        if not index:
            return x
        axes = [i.axis if isinstance(i, Index) and i.axis not in self.fixed else None for i in index]
        direct = None not in axes and len(set(axes)) == len(axes)
        if direct and all(d == self.nest.extents[a] for d, a in zip(shape, axes)):  # type: ignore[index]
            order = sorted(range(len(axes)), key=lambda k: axes[k])  # type: ignore[arg-type, return-value]
            if order != list(range(len(axes))):
                x = self.e.call("Transpose", x, perm=order)
            lanes: list[Dim] = [1] * self.rank
            for k in order:
                lanes[axes[k]] = shape[k]  # type: ignore[index]
            return self.e.reshape(x, tuple(lanes))
        place: Ref | None = None
        for i, d in zip(index, shape, strict=True):
            at = self.known[id(i)]
            place = at if place is None else self.e.call("Add", self.e.call("Mul", place, self.e.size(d)), at)
        assert place is not None
        return self.e.call("Gather", self.flattened(operand), place, data=1, axis=0)

    def flattened(self, operand: int) -> Ref:
        if operand not in self.flat:
            x = self.operands[operand]
            line = self.e.call("Reshape", x, self.e.ints(-1), data=1)
            size = self.types[operand].size
            if not isinstance(size, int) or not size:  # what is empty must not be read, not even where it is not chosen
                line = self.e.call("Concat", line, self.e.call("Reshape", self.e.number(0, x.dtype), self.e.ints(1),
                                                               data=1), axis=0)  # fmt: skip
            self.flat[operand] = line
        return self.flat[operand]
