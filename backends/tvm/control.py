"""Branches and loops: nested graphs are lowered in place, their results copied to where the op's results are wanted."""

from __future__ import annotations

from typing import Any

from effcc.backends.tvm.emit import KernelBuilder
from effcc.backends.tvm.lower import Lowering, lowers
from effcc.backends.tvm.place import Place
from effcc.backends.tvm.placing import same_place
from effcc.backends.tvm.plan import Branch, Copy, Define, Step, While
from effcc.backends.tvm.templates.emission import unravel
from effcc.backends.tvm.values import bind
from effcc.backends.tvm.values import loop as repeat
from effcc.errors import UnsupportedError
from effcc.ir import Builder, Graph, Node, Tensor, Value, as_symbol, bool_, i64
from effcc.ir.blob import Blob
from effcc.ir.dims import product
from effcc.ops.control import If, Loop


def nested(lowering: Lowering, graph: Graph, places: list[Place]) -> Lowering:
    """Lower a nested graph with its inputs at these places; the steps and the places of its results are in the
    child."""
    child = Lowering(lowering.machine, lowering)
    for v, place in zip(graph.inputs, places, strict=True):
        child.places[v] = place
    child.run(graph)
    return child


def deliver(child: Lowering, values: tuple[Value, ...], targets: list[Place]) -> None:
    """Copy results to their targets. What lies in memory that this writes (an input passed through) is saved first."""
    overwritten = {t.buffer for v, t in zip(values, targets, strict=True) if not same_place(child.places[v], t)}
    sources = []
    for v, target in zip(values, targets, strict=True):
        here = child.places[v]
        if here.buffer in overwritten and not same_place(here, target):
            saved = child.temporary(v.tensor)
            child.copy(here, saved, v.tensor)
            here = saved
        sources.append(here)
    for v, here, target in zip(values, sources, targets, strict=True):
        if same_place(here, target):
            continue
        if here.is_plain and target.is_plain:
            child.steps.append(Copy(target.buffer, here.buffer))
        else:
            child.copy(here, target, v.tensor)


@lowers(If)
def branch(lowering: Lowering, node: Node) -> None:
    op: Any = node.op
    own = define_bounds(lowering, node)
    condition = lowering.plain_place(node.operands[0])
    captures = [lowering.place(v) for v in node.operands[1:]]
    targets = [lowering.result(v) for v in node.results]
    sides: list[tuple[Step, ...]] = []
    for graph in (op.then, op.orelse):
        child = nested(lowering, graph, captures)
        for declared, v in zip(op.types or (), graph.results):
            set_sizes(child, declared, v.type, own)
        deliver(child, graph.results, targets)
        sides.append(tuple(child.steps))
    lowering.steps.append(Branch(condition.buffer, *sides))


def define_bounds(lowering: Lowering, node: Node) -> set[Any]:
    """Register the sizes that an op defines; an unbounded one cannot be given memory."""
    found = node.op.defines(*node.types)
    for symbol, most in found.items():
        if most is None:
            raise UnsupportedError(
                f"{node.op.name}: nothing bounds the size {symbol}, so it cannot be given memory",
                where=node.loc,
                hint="give the loop a static trip count, or the symbol an upper bound",
            )
        lowering.plan.defined[symbol] = lowering.bound(most)
    return set(found)


def set_sizes(child: Lowering, declared: Any, actual: Any, own: set[Any]) -> None:
    """Give the declared type's own symbols the sizes of the actual one."""
    if not isinstance(declared, Tensor):
        return
    for wanted, size in zip(declared.shape, actual.shape, strict=True):
        symbol = as_symbol(wanted)
        if symbol in own:
            child.steps.append(Define(symbol, scalar(child, size).buffer))  # type: ignore[arg-type]


def scalar(child: Lowering, size: Any) -> Place:
    """A dimension as an i64 in memory."""
    b = Builder("size")
    graph = b.graph(b.dim(value=size))
    place = child.temporary(Tensor(i64, ()))
    child.region(graph, (), (place,), "size", None)
    return place


@lowers(Loop)
def loop(lowering: Lowering, node: Node) -> None:
    """Carried values live in buffers that the body's results are copied to; scanned values go to row `i` of their
    stack."""
    op: Any = node.op
    own = define_bounds(lowering, node)
    n = op.num_carried
    trip, cond, *operands = (
        lowering.plain_place(v) if k < 2 else lowering.place(v) for k, v in enumerate(node.operands)
    )
    body: Graph = op.body
    i, going, more = (lowering.temporary(Tensor(d, ())) for d in (i64, bool_, bool_))
    carried = [lowering.result(v) for v in node.results[:n]]
    for v, declared in zip(node.operands[2:], body.inputs[2 : 2 + n]):
        set_sizes(lowering, declared.type, v.type, own)
    for v, source, target in zip(node.results[:n], operands[:n], carried, strict=True):
        at = Place(source.buffer, target.shape, source.strides, source.offset)
        lowering.copy(at, target, v.tensor)
    fill(lowering, i, 0)
    lowering.copy(cond, more, Tensor(bool_, ()))
    go_on(lowering, i, trip, more, going)

    child = Lowering(lowering.machine, lowering)
    for v, place in zip(body.inputs, (i, more, *carried, *operands[n:]), strict=True):
        child.places[v] = place
    child.run(body)
    for k, v in enumerate(body.results[1 + n :]):
        stack = lowering.result(node.results[n + k])
        store_row(child, child.places[v], stack, i, v)
    changing = any(as_symbol(d) in own for v in body.inputs[2 : 2 + n] if isinstance(v.type, Tensor) for d in v.shape)
    if changing:
        raise UnsupportedError("what this loop carries changes its size", where=node.loc)
    deliver(child, body.results[: 1 + n], [more, *carried])
    advance(child, i)
    go_on(child, i, trip, more, going)
    lowering.steps.append(While(going.buffer, tuple(child.steps)))
    length = as_symbol(op.length) if op.length is not None else None
    if length in own:
        lowering.steps.append(Define(length, i.buffer))  # type: ignore[arg-type]


def fill(lowering: Lowering, place: Place, value: int) -> None:
    import numpy as np

    b = Builder("fill")
    graph = b.graph(b.identity(b.const(Blob(np.array(value, place.buffer.dtype.numpy)))))
    lowering.region(graph, (), (place,), "fill", None)


def advance(lowering: Lowering, i: Place) -> None:
    b = Builder("advance")
    x = b.input("i", Tensor(i64, ()))
    one = b.const(1, i64)
    after = lowering.temporary(Tensor(i64, ()))
    lowering.region(b.graph(b.add(x, one)), (i,), (after,), "advance", None)
    lowering.steps.append(Copy(i.buffer, after.buffer))


def go_on(lowering: Lowering, i: Place, trip: Place, more: Place, going: Place) -> None:
    b = Builder("more")
    x, t, m = (b.input(name, Tensor(d, ())) for name, d in (("i", i64), ("trip", i64), ("more", bool_)))
    lowering.region(b.graph(b.and_(m, b.lt(x, t))), (i, trip, more), (going,), "more", None)


def store_row(lowering: Lowering, source: Place, stack: Place, i: Place, v: Value) -> None:
    """stack[i] = source, at a row that is known at run time."""
    shape = v.shape

    def emit(kernel: KernelBuilder) -> None:
        to = bind(kernel.load(i, ()))
        with repeat(0, kernel.dim(product(shape))) as flat:
            at = unravel(flat, [kernel.dim(d) for d in shape])
            kernel.store(stack, (to, *at), bind(kernel.load(source, at)))

    region = Graph("row", (Value(v.type), Value(Tensor(i64, ()))), (), ())
    lowering.launch_raw("row", None, region, (source, i), (stack,), 0, emit, None)
