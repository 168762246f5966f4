"""Control flow: graphs as attributes, isolated from above: every capture is an explicit operand.

A type *admits* another where they are equal, or where it has a symbol of its own in place of a size: so the branches of
an `if` may differ in sizes, and what a loop carries may grow. Such symbols are defined by the op.
"""

from __future__ import annotations

from typing import Any

from effcc.ir.dims import Dim, Symbol, as_symbol, dim_max, substitute, symbols
from effcc.ir.graph import Graph, Value
from effcc.ir.lazy import torch
from effcc.ir.op import Op, require
from effcc.ir.types import Optional, Sequence, Tensor, Type, bool_, i64, type_symbols

PREDICATE, COUNT = Tensor(bool_, ()), Tensor(i64, ())


def admits(target: Type, source: Type, own: set[Symbol], bound: dict[Symbol, Dim]) -> bool:
    """Whether a value of type `source` may stand for `target`, whose symbols `own` take the source's sizes (kept in
    `bound`)."""
    match target, source:
        case Tensor(dtype, shape), Tensor(other, sizes) if dtype == other and len(shape) == len(sizes):
            for wanted, size in zip(shape, sizes):
                symbol = as_symbol(wanted)
                if symbol in own:
                    if bound.setdefault(symbol, size) != size:  # type: ignore[arg-type]
                        return False
                elif wanted != size:
                    return False
            return target.encoding == source.encoding
        case (Sequence(a), Sequence(b)) | (Optional(a), Optional(b)):
            return admits(a, b, own, bound)
    return target == source


def shown(types: Any) -> str:
    return f"({', '.join(map(str, types))})"


def types_of(values: tuple[Value, ...]) -> tuple[Type, ...]:
    return tuple(v.type for v in values)


def all_symbols(types: tuple[Type, ...]) -> set[Symbol]:
    return set().union(*(type_symbols(t) for t in types)) if types else set()


def sizes_inside(graph: Graph) -> dict[Symbol, Dim | None]:
    """The symbols that a graph's ops define, each with an upper bound in terms of what stands outside (None:
    unknown)."""
    table: dict[Symbol, Dim | None] = {}
    for node in graph.nodes:
        for symbol, most in node.op.defines(*node.types).items():
            table[symbol] = None if most is None else bound_outside(most, table)
    return table


def bound_outside(dim: Dim, inside: dict[Symbol, Dim | None]) -> Dim | None:
    """A size with the symbols defined inside of a graph replaced by their bounds."""
    if any(inside.get(s, 0) is None for s in symbols(dim)):
        return None
    return substitute(dim, {s: d for s, d in inside.items() if d is not None})


class Control(Op):
    family = "control"
    routine = True
    num_results = None


class If(Control):
    """The results of `then` where cond, else of `orelse`, for the captures. Where the branches' types differ in sizes,
    `types` declares the results' types, with a symbol for each size that differs. (ONNX If)"""
    name = "if"
    operands = ("cond", "*captures")
    then: Graph
    orelse: Graph
    types: tuple[Type, ...] | None = None

    def infer(self, cond: Type, *captures: Type) -> tuple[Type, ...]:
        require(cond == PREDICATE, f"the condition is {cond}, not bool[]")
        for graph, what in ((self.then, "then"), (self.orelse, "orelse")):
            require(types_of(graph.inputs) == captures, f"{what} takes {shown(types_of(graph.inputs))}")
        then, orelse = types_of(self.then.results), types_of(self.orelse.results)
        require(len(then) == len(orelse), f"then gives {len(then)} results, orelse {len(orelse)}")
        if self.types is None:
            require(then == orelse, f"then gives {shown(then)}, orelse {shown(orelse)}", "declare the joined types")
            return then
        for branch, what in ((then, "then"), (orelse, "orelse")):
            bound: dict[Symbol, Dim] = {}
            fits = len(branch) == len(self.types) and all(
                admits(t, r, self.own(captures), bound) for t, r in zip(self.types, branch)
            )
            require(fits, f"{what} gives {shown(branch)}, which the declared {shown(self.types)} does not admit")
        return self.types

    def own(self, captures: tuple[Type, ...]) -> set[Symbol]:
        """The symbols that stand for sizes in which the branches differ."""
        return all_symbols(self.types or ()) - all_symbols(captures)

    def defines(self, cond: Type, *captures: Type) -> dict[Symbol, Dim | None]:
        found: dict[Symbol, Dim | None] = {}
        for graph in (self.then, self.orelse):
            bound: dict[Symbol, Dim] = {}
            for wanted, value in zip(self.types or (), graph.results):
                admits(wanted, value.type, self.own(captures), bound)
            inside = sizes_inside(graph)
            for symbol, size in bound.items():
                most = bound_outside(size, inside)
                known = found.get(symbol, 0)
                found[symbol] = None if most is None or known is None else dim_max(known, most)
        return found

    def reference(self, cond: Any, *captures: Any) -> Any:
        from effcc.interp import run

        return run(self.then if bool(cond) else self.orelse, *captures)

    def flops(self, cond: Type, *captures: Type) -> Dim:
        return dim_max(*(graph_flops(g) for g in (self.then, self.orelse)))


class Loop(Control):
    """Runs `body` up to `trip` times while the condition holds. (ONNX Loop)

        body(i i64[], cond bool[], carried..., captures...) -> (cond, carried..., scanned...)

    `cond` says whether to begin, the body's first result whether to go on (a while loop has the greatest i64 as trip
    count). Results: the carried values in the end, then each scanned value of every iteration, stacked along a new axis
    0 of size `length`: an int where the loop is known to run so often, or a symbol that the op defines. The body's
    inputs declare the types of what is carried: symbols of their own stand for sizes that change.
    """
    name = "loop"
    operands = ("trip", "cond", "*operands")
    body: Graph
    num_carried: int
    length: Dim | None = None

    def infer(self, trip: Type, cond: Type, *operands: Type) -> tuple[Type, ...]:
        n, body = self.num_carried, self.body
        require(
            trip == COUNT and cond == PREDICATE,
            f"the trip count is {trip}, not i64[], or the condition {cond}, not bool[]",
        )
        require(0 <= n <= len(operands), f"{n} of {len(operands)} operands are carried")
        inputs, results = types_of(body.inputs), types_of(body.results)
        require(
            inputs[:2] == (COUNT, PREDICATE) and inputs[2 + n :] == operands[n:] and len(inputs) == 2 + len(operands),
            f"the body takes {shown(inputs)}, not (i64[], bool[], carried..., captures...)",
        )
        require(
            len(results) > n and results[0] == PREDICATE,
            f"the body gives {shown(results)}, not (bool[], carried..., scanned...)",
        )
        own = self.own(*operands)
        for sources, what in ((operands[:n], "starts as"), (results[1: 1 + n], "becomes")):
            bound: dict[Symbol, Dim] = {}
            for k, (target, source) in enumerate(zip(inputs[2: 2 + n], sources)):
                require(
                    admits(target, source, own, bound),
                    f"carried value {k} is {target} in the body and {what} {source}",
                    "give the body's input a symbol for a size that changes",
                )
        scanned = results[1 + n:]
        require(
            not scanned or self.length is not None, "there are scanned values, but no length", "give an int or a symbol"
        )
        return (*inputs[2: 2 + n], *(self.stacked(t, own) for t in scanned))

    def stacked(self, type_: Type, own: set[Symbol]) -> Tensor:
        require(isinstance(type_, Tensor), f"a scanned value is {type_}, not a tensor")
        changing = type_symbols(type_) & (own | set(sizes_inside(self.body)))
        require(not changing, f"a scanned value {type_} changes its size from one iteration to the next")
        return type_.with_shape((self.length, *type_.shape))  # type: ignore[union-attr]

    def own(self, *operands: Type) -> set[Symbol]:
        """The symbols of carried sizes that change."""
        return all_symbols(types_of(self.body.inputs[2: 2 + self.num_carried])) - all_symbols(operands)

    def defines(self, trip: Type, cond: Type, *operands: Type) -> dict[Symbol, Dim | None]:
        found: dict[Symbol, Dim | None] = {symbol: symbol.hi for symbol in self.own(*operands)}
        symbol = None if self.length is None else as_symbol(self.length)
        if symbol is not None and symbol not in all_symbols(operands):
            found[symbol] = symbol.hi
        return found

    def reference(self, trip: Any, cond: Any, *operands: Any) -> Any:
        from effcc.interp import bind_inputs, run

        n = self.num_carried
        carried, captures, rows = operands[:n], operands[n:], []
        i, going = 0, bool(cond)
        while going and i < int(trip):
            out = run(self.body, torch.tensor(i), torch.tensor(True), *carried, *captures)
            going, carried = bool(out[0]), out[1: 1 + n]
            rows.append(out[1 + n:])
            i += 1
        if rows:
            return (*carried, *map(torch.stack, zip(*rows)))
        sizes = bind_inputs(self.body.inputs, (torch.tensor(0), torch.tensor(False), *carried, *captures))
        shapes = [[substitute(d, sizes) for d in v.shape] for v in self.body.results[1 + n:]]
        empty = [torch.zeros([0, *(d if isinstance(d, int) else 0 for d in shape)], dtype=v.dtype.torch)
                 for shape, v in zip(shapes, self.body.results[1 + n:])]
        return (*carried, *empty)

    def flops(self, *types: Type) -> Dim:
        return graph_flops(self.body) * (1 if self.length is None else self.length)


def graph_flops(graph: Graph) -> Dim:
    total: Dim = 0
    for node in graph.nodes:
        total = node.op.flops(*node.types) + total
    return total
