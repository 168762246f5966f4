"""The reference interpreter: runs any graph, op by op, by the ops' own meanings in torch.

    >>> import torch
    >>> from effcc.ir import Builder, Symbol, Tensor, f32
    >>> b = Builder()
    >>> x = b.input("x", Tensor(f32, (Symbol("B", 1, 64), 3)))
    >>> run(b.graph(b.neg(x)), torch.ones(2, 3))[0].shape
    torch.Size([2, 3])

Symbols are bound from the inputs' shapes, and from results where an op defines one; every result is checked against the
graph's type under these bindings. Tensors travel in `dtype.torch`; dtypes that torch cannot compute in are carried by a
wider one while an op runs (`CARRIERS`) and wrapped or rounded back after it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from effcc.errors import EffccError, InputError, UnsupportedError, VerifyError
from effcc.ir.assumptions import RELATIONS, assumed, holds
from effcc.ir.blob import Blob
from effcc.ir.dims import Atom, Dim, Expr, Symbol, as_symbol, substitute, symbols
from effcc.ir.graph import Graph, Node, Value
from effcc.ir.lazy import torch
from effcc.ir.op import Op
from effcc.ir.types import DType, Optional, Sequence, Tensor, Type
from effcc.ops.elementwise import narrow

Bindings = dict[Symbol, int]
Known = dict[tuple[Any, ...], tuple[Op, int, tuple[Any, ...], Bindings]]
Observer = Callable[[Node, tuple[Any, ...], tuple[Any, ...]], "tuple[Any, ...] | None"]

CARRIERS = {
    "u16": "int64", "u32": "int64", "u64": "int64",
    "i4": "int64", "i2": "int64", "u4": "int64", "u2": "int64", "u1": "int64",
    "f8e4m3": "float32", "f8e5m2": "float32", "f8e4m3fnuz": "float32", "f8e5m2fnuz": "float32", "f8e8m0": "float32",
    "f4": "float32",
}
"""The torch dtype in which an op computes on a dtype that torch cannot compute in."""

MODULAR = frozenset(
    "add sub mul neg not and or xor shl eq ne sum prod matmul conv cumsum cumprod identity where".split()
)
MOVING = frozenset({"view", "index", "control", "constant", "fused"})
"""Ops, and families that only move elements, that are right on u64 held in int64 whatever the top bit is."""


_everywhere: ContextVar[Observer | None] = ContextVar("everywhere", default=None)


@contextmanager
def observed(observe: Observer) -> Iterator[None]:
    """Every run inside of the block is observed, those of branches, loops' bodies and fused regions too."""
    token = _everywhere.set(observe)
    try:
        yield
    finally:
        _everywhere.reset(token)


def run(
    graph: Graph, *tensors: Any, bindings: Bindings | None = None, observe: Observer | None = None,
    known: Known | None = None,
) -> tuple:
    """Evaluate a graph.

    tensors: one torch tensor (or NumPy array) for each input, of its dtype and shape; a list for a sequence, None for
        an absent optional.
    bindings: values of symbols that no input's shape tells.
    observe: called with each node of this graph (with `observed`: of nested ones too), its operands and its results,
    in order; what it returns, if anything, takes their place.
    known: what nodes gave in earlier runs on the same tensors; looked up here, and added to. A graph that a pass
    changed computes most of what it did.
    Raises InputError for inputs that do not fit, VerifyError where an op's meaning and its type disagree.
    """
    if len(tensors) != len(graph.inputs):
        raise InputError(f"graph @{graph.name} takes {len(graph.inputs)} inputs, got {len(tensors)}")
    values = tuple(map(as_tensor, tensors))
    bound = bind_inputs(graph.inputs, values, bindings)
    env: dict[Value, Any] = dict(zip(graph.inputs, values))
    observe = observe or _everywhere.get()
    dies = _last_uses(graph) if known is None else {}
    keys = {v: (-1, k) for k, v in enumerate(graph.inputs)} if known is not None else {}
    for i, node in enumerate(graph.nodes):
        operands = tuple(env[v] for v in node.operands)
        if known is None:
            results = evaluate_node(node, operands, bound)
        else:
            results = _looked_up(node, operands, bound, keys, known)
        if observe is not None:
            results = observe(node, operands, results) or results
        env.update(zip(node.results, results))
        for v in dies.get(i, ()):
            del env[v]
    return tuple(env[v] for v in graph.results)


def _looked_up(
    node: Node, operands: tuple[Any, ...], bound: Bindings, keys: dict[Value, tuple[int, int]], known: Known
) -> tuple[Any, ...]:
    """A node's results, computed where no node with the same op, types and sizes was, on values with the same
    keys; with the sizes that it tells."""
    key = (id(node.op), *(keys[v] for v in node.operands), *(v.type for v in node.results), *bound.items())
    found = known.get(key)
    if found is None:  # (the op is kept: no other gets its id)
        sizes = dict(bound)
        found = known[key] = (node.op, len(known), evaluate_node(node, operands, sizes), sizes)
    _, number, results, sizes = found
    bound.update(sizes)
    keys.update((v, (number, k)) for k, v in enumerate(node.results))
    return results


def evaluate_node(node: Node, operands: tuple[Any, ...], bound: Bindings) -> tuple[Any, ...]:
    """Run one node on torch tensors; the symbols that its results define are added to `bound`."""
    op = bind_op(node.op, bound)
    if bound:
        _check_sizes(node, bound)
    carried = tuple(_carry(op, x, v.type) for x, v in zip(operands, node.operands))
    try:
        types = tuple(v.type if not bound else bind_type(v.type, bound) for v in node.results)
        results = op.run(*carried, results=types)
    except EffccError:
        raise
    except Exception as error:
        shown = ", ".join(str(bind_type(t, bound)) for t in node.types)
        message = f"{op.name}({shown}): its meaning fails: {type(error).__name__}: {error}"
        raise VerifyError(message, where=node.loc) from error
    if len(results) != len(node.results):
        raise VerifyError(f"{op.name} gives {len(results)} results, the graph says {len(node.results)}", where=node.loc)
    settled = tuple(_settle(x, v.type) for x, v in zip(results, node.results))
    for x, v in zip(settled, node.results):
        _check_result(node, x, v.type, bound)
    return settled


def _check_result(node: Node, x: Any, type_: Type, bound: Bindings) -> None:
    if not isinstance(type_, Tensor):
        return
    fits = _is_torch(x) and x.dtype == type_.dtype.torch
    if not fits or tuple(x.shape) != type_.shape and not _match(type_.shape, tuple(x.shape), bound):
        actual = f"{str(x.dtype).removeprefix('torch.')}{list(x.shape)}" if _is_torch(x) else type(x).__name__
        raise VerifyError(f"{node.op.name} gives {actual}, the graph says {bind_type(type_, bound)}", where=node.loc)


def _check_sizes(node: Node, bound: Mapping[Symbol, Dim]) -> None:
    """Raise InputError where sizes break what the node's type rule takes for granted."""
    for assumption in assumed(node):
        left, right = substitute(assumption.left, bound), substitute(assumption.right, bound)
        if isinstance(left, int) and isinstance(right, int) and not holds(assumption.relation, left, right):
            told = f"{assumption.left} = {left} and {assumption.right} = {right}"
            raise InputError(f"{node.op.name}: sizes {told} {RELATIONS[assumption.relation]}", where=node.loc)


def _last_uses(graph: Graph) -> dict[int, list[Value]]:
    """For each node's position, the values that nothing reads after it."""
    last: dict[Value, int] = {}
    for i, node in enumerate(graph.nodes):
        for v in (*node.operands, *node.results):
            last[v] = i
    for v in graph.results:
        last.pop(v, None)
    dies: dict[int, list[Value]] = {}
    for v, i in last.items():
        dies.setdefault(i, []).append(v)
    return dies


# -- symbols ---------------------------------------------------------------------------------------
def bind_inputs(inputs: Iterable[Value], tensors: Iterable[Any], bindings: Bindings | None = None) -> Bindings:
    """The symbols' values from the inputs' shapes; InputError where dtype, rank, size or range does not fit."""
    bound: Bindings = dict(bindings or {})
    pending: list[tuple[Value, Any]] = []
    for v, t in zip(inputs, tensors, strict=True):
        _check_input(v, t)
        if isinstance(v.type, Tensor) and tuple(t.shape) != v.type.shape:
            pending.append((v, t))
    for lone in (True, False):  # plain symbols first: they make expressions solvable
        for v, t in pending:
            for axis, (dim, size) in enumerate(zip(v.shape, t.shape)):
                if (as_symbol(dim) is not None) == lone and not _unify(dim, int(size), bound):
                    wanted = substitute(dim, bound)
                    more = "" if wanted == dim else f" ({dim} = {wanted} by the other inputs)"
                    raise InputError(f"input {v.name or v.id!r}: axis {axis} is {size}, expected {dim}{more}")
    for symbol, value in bound.items():
        if value < symbol.lo or (symbol.hi is not None and value > symbol.hi):
            upper = "" if symbol.hi is None else symbol.hi
            raise InputError(f"{symbol.name} = {value} is outside its range {symbol.lo}..{upper}")
    return bound


def _check_input(v: Value, t: Any) -> None:
    type_, name = v.type, v.name or str(v.id)
    if isinstance(type_, Tensor):
        if not _is_torch(t):
            raise InputError(f"input {name!r} must be a tensor {type_}, not {type(t).__name__}")
        if t.dtype != type_.dtype.torch:
            raise InputError(f"input {name!r} is {str(t.dtype).removeprefix('torch.')}, expected {type_.dtype.name}")
        if t.dim() != type_.rank:
            raise InputError(f"input {name!r} has rank {t.dim()}, expected {type_.rank} ({type_})")
    if isinstance(type_, Sequence) and not isinstance(t, (list, tuple)):
        raise InputError(f"input {name!r} must be a list ({type_}), not {type(t).__name__}")


def _match(dims: tuple[Dim, ...], sizes: tuple[int, ...], bound: Bindings) -> bool:
    return len(dims) == len(sizes) and all(_unify(d, s, bound) for d, s in zip(dims, sizes))


def _unify(dim: Dim, size: int, bound: Bindings) -> bool:
    """Whether dim = size has a solution; it is added to `bound` where it tells one symbol."""
    left = substitute(dim, bound)
    if isinstance(left, int):
        return left == size
    unknown = symbols(left)
    if len(unknown) != 1:
        raise UnsupportedError(f"a size {size} does not tell {', '.join(sorted(s.name for s in unknown))} in {dim}",
                               hint="bind them by another input or by bindings={...}")
    (symbol,) = unknown
    at0, at1 = substitute(left, {symbol: 0}), substitute(left, {symbol: 1})
    slope = at1 - at0  # type: ignore[operator]
    if left != symbol * slope + at0:
        raise UnsupportedError(f"a size {size} does not tell {symbol} in {left}", hint="bind it by another input")
    if (size - at0) % slope:  # type: ignore[operator]
        return False
    bound[symbol] = (size - at0) // slope  # type: ignore[operator]
    return True


def bind_type(type_: Type, bound: Mapping[Symbol, Dim]) -> Type:
    """A type with its symbols replaced."""
    match type_:
        case Tensor(dtype, shape, encoding) if not type_.is_static:
            return Tensor(dtype, tuple(substitute(d, bound) for d in shape), encoding)
        case Sequence(element):
            return Sequence(bind_type(element, bound))
        case Optional(element):
            return Optional(bind_type(element, bound))
    return type_


def bind_op(op: Op, bound: Mapping[Symbol, Dim]) -> Op:
    """An op with the symbols in its attributes replaced: in dimensions, types, tuples and nested graphs."""
    if not bound:
        return op
    changes = {name: new for name, value in op.attrs.items() if (new := _bind(value, bound)) is not value}
    return op.replace(**changes) if changes else op


def _bind(value: Any, bound: Mapping[Symbol, Dim]) -> Any:
    match value:
        case Symbol():
            return bound.get(value, value)
        case Expr() | Atom():
            out = substitute(value, bound)  # type: ignore[arg-type]
            return value if out == value else out
        case tuple():
            items = tuple(_bind(v, bound) for v in value)
            return value if all(a is b for a, b in zip(items, value)) else items
        case Type():
            out = bind_type(value, bound)
            return value if out == value else out
        case Graph():
            told = bound.keys().isdisjoint(value.symbols) and all(bind_op(n.op, bound) is n.op for n in value.nodes)
            return value if told else bind_graph(value, bound)
    return value


def bind_graph(graph: Graph, bound: Mapping[Symbol, Dim]) -> Graph:
    """A graph with its symbols replaced by sizes, or by other symbols. InputError where sizes break what its type rules
    take for granted, which programs check before they begin."""
    for node in graph.nodes:
        _check_sizes(node, bound)
    fresh = {v: Value(bind_type(v.type, bound), v.name) for v in graph.values}

    def renew(values: tuple[Value, ...]) -> tuple[Value, ...]:
        return tuple(fresh[v] for v in values)

    nodes = tuple(Node(bind_op(n.op, bound), renew(n.operands), renew(n.results), n.loc) for n in graph.nodes)
    return Graph(graph.name, renew(graph.inputs), nodes, renew(graph.results), graph.aliases)


# -- carriers --------------------------------------------------------------------------------------
def _is_torch(x: Any) -> bool:
    return isinstance(x, torch.Tensor)


def as_tensor(x: Any) -> Any:
    """NumPy arrays (of bf16 and the like too) become tensors; tensors, lists (sequences) and None stay."""
    import numpy as np

    return Blob(x).torch() if isinstance(x, (np.ndarray, np.generic)) else x


def _carry(op: Op, x: Any, type_: Type) -> Any:
    """A value in the dtype in which ops compute on it."""
    if isinstance(type_, Sequence):
        return [_carry(op, e, type_.element) for e in x]
    if not isinstance(type_, Tensor) or type_.dtype.name not in CARRIERS or x is None:
        return x
    if op.family in MOVING and op.graphs() or op.name == "bitcast":
        return x  # nested graphs carry by themselves; bits are not to be converted
    if type_.dtype.name == "u64":
        x = x.view(torch.int64)
        if not _modular(op) and bool((x < 0).any()):
            raise UnsupportedError(f"{op.name}: the interpreter holds u64 in 63 bits here", hint="keep below 2**63")
        return x
    return x.to(getattr(torch, CARRIERS[type_.dtype.name]))


def _modular(op: Op) -> bool:
    if op.name == "cast":
        return op.attrs["to"].is_integer
    return op.name in MODULAR or op.family in MOVING


def _settle(x: Any, type_: Type) -> Any:
    """A computed value back in its dtype: integers wrap, floats round."""
    if isinstance(type_, Sequence):
        return [_settle(e, type_.element) for e in x]
    if not isinstance(type_, Tensor) or not _is_torch(x) or type_.dtype.name not in CARRIERS:
        return x
    dtype = type_.dtype
    if x.dtype == dtype.torch:
        return _wrap_storage(x, dtype)
    if dtype.is_float:
        return round_f4(x.float()) if dtype.name == "f4" else narrow(x, dtype)
    if x.dtype.is_floating_point:
        return x  # the check that follows reports it
    if dtype.name == "u64":
        return x.to(torch.int64).view(torch.uint64)
    return wrap(x.to(torch.int64), dtype).to(dtype.torch)


def _wrap_storage(x: Any, dtype: DType) -> Any:
    """Sub-byte integers and f4 that an op gave in their storage dtype still have to be wrapped or rounded."""
    if dtype.name == "f4":
        return round_f4(x)
    if dtype.is_integer and dtype.bits < 8:
        return wrap(x.to(torch.int64), dtype).to(dtype.torch)
    return x


def wrap(x: Any, dtype: DType) -> Any:
    """int64 elements reduced modulo 2**bits into an integer dtype's range (two's complement)."""
    low = x & ((1 << dtype.bits) - 1)
    return low if dtype.kind == "u" else low - ((low >> (dtype.bits - 1)) << dtype.bits)


def round_f4(x: Any) -> Any:
    """Round to the nearest e2m1 value, ties to even, saturating at 6 (OCP Microscaling v1.0, 5.3.3)."""
    a = x.abs().clamp(max=6.0)
    step = torch.where(a < 2.0, 0.5, torch.where(a < 4.0, 1.0, 2.0)).to(x.dtype)
    return torch.copysign(torch.round(a / step) * step, x)
