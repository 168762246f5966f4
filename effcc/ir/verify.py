"""The verifier: run the type rule of each op again and compare; check order, definition, nesting and aliases."""

from __future__ import annotations

from effcc.errors import TypeRuleError, VerifyError
from effcc.ir.graph import Graph, Value


def verify(graph: Graph) -> None:
    """Raise VerifyError, naming graph, op and location, at the first broken invariant."""
    defined: set[Value] = set(graph.inputs)
    where = f"graph @{graph.name}"
    if len(defined) != len(graph.inputs):
        raise VerifyError("an input is listed twice", where=where)
    for node in graph.nodes:
        here = f"{where}, {node.loc}" if str(node.loc) else where
        for v in node.operands:
            if v not in defined:
                raise VerifyError(
                    f"{node}: {v} is used before it is defined (nested graphs see only their inputs)", where=here
                )
        try:
            types = node.op.result_types(node.types)
        except TypeRuleError as error:
            raise VerifyError(str(error), where=here) from None
        actual = tuple(r.type for r in node.results)
        if types != actual:
            raise VerifyError(
                f"{node}: the type rule gives {', '.join(map(str, types))}, "
                f"the graph says {', '.join(map(str, actual))}",
                where=here,
            )
        for r in node.results:
            if r in defined:
                raise VerifyError(f"{r} is defined twice", where=here)
            defined.add(r)
        for nested in node.op.graphs().values():
            verify(nested)
    for v in graph.results:
        if v not in defined:
            raise VerifyError(f"result {v} is not defined", where=where)
    _verify_aliases(graph, where)


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
