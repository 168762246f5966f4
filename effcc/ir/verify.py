"""The verifier: run the type rule of each op again and compare; check order, definition, nesting and aliases."""

from __future__ import annotations

from collections.abc import Container

from effcc.errors import TypeRuleError, VerifyError
from effcc.ir.graph import Graph, Node, Value, symbols_in


def verify(graph: Graph, known: Container[Node] = ()) -> None:
    """Raise VerifyError, naming graph, op and location, at the first broken invariant. known: nodes that were verified
    as part of another graph."""
    defined: set[Value] = set(graph.inputs)
    where = f"graph @{graph.name}"
    if len(defined) != len(graph.inputs):
        raise VerifyError("an input is listed twice", where=where)
    for node in graph.nodes:
        for v in node.operands:
            if v not in defined:
                message = f"{node}: {v} is used before it is defined (nested graphs see only their inputs)"
                raise VerifyError(message, where=_place(graph, node))
        if node not in known:
            _verify_node(graph, node)
        for r in node.results:
            if r in defined:
                raise VerifyError(f"{r} is defined twice", where=_place(graph, node))
            defined.add(r)
    for v in graph.results:
        if v not in defined:
            raise VerifyError(f"result {v} is not defined", where=where)
    fresh = [node for node in graph.nodes if node not in known]
    if len(fresh) == len(graph.nodes) or any(node.sizes for node in fresh):  # (else as it was in that graph)
        _verify_symbols(graph, where)
    _verify_aliases(graph, where)


def _verify_symbols(graph: Graph, where: str) -> None:
    """No two sizes have one name: a graph's text could not tell them apart."""
    found = symbols_in(graph)
    if len({s.name for s in found}) != len(found):
        shown = sorted(f"{s.name} in {s.lo}..{'' if s.hi is None else s.hi}" for s in found)
        raise VerifyError(f"two sizes have one name, of {', '.join(shown)}", where=where)


def _verify_node(graph: Graph, node: Node) -> None:
    """Its type rule gives the types of its results, and the graphs in it are valid."""
    try:
        types = node.op.result_types(node.types)
    except TypeRuleError as error:
        raise VerifyError(str(error), where=_place(graph, node)) from None
    actual = tuple(r.type for r in node.results)
    if types != actual:
        given, said = (", ".join(map(str, some)) for some in (types, actual))
        raise VerifyError(f"{node}: the type rule gives {given}, the graph says {said}", where=_place(graph, node))
    for nested in node.op.graphs().values():
        verify(nested)


def _place(graph: Graph, node: Node) -> str:
    return f"graph @{graph.name}, {node.loc}" if str(node.loc) else f"graph @{graph.name}"


def _verify_aliases(graph: Graph, where: str) -> None:
    taken: set[int] = set()
    for result, source in graph.aliases:
        if not (0 <= result < len(graph.results) and 0 <= source < len(graph.inputs)):
            raise VerifyError(f"alias {result} -> {source} is out of range", where=where)
        if graph.results[result].type != graph.inputs[source].type:
            raise VerifyError(f"result {result} cannot alias input {source}: their types differ", where=where)
        if source in taken:
            raise VerifyError(f"input {source} is aliased by two results", where=where)
        taken.add(source)
