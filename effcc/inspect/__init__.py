"""One self-contained HTML page about a program: its graphs, passes, kernels and memory.

The page is `page.html` with the facts put in as JSON. It loads nothing, so it works offline and can be mailed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from effcc.ir.location import UNKNOWN, FusedLoc, Loc, PassLoc

if TYPE_CHECKING:
    from effcc.ir.graph import Graph, Node, Value
    from effcc.program import Program

TEMPLATE = Path(__file__).parent / "page.html"
HEAVIEST_FIRST = (
    "attention",
    "contraction",
    "window",
    "sort",
    "scan",
    "reduction",
    "normalization",
    "index",
    "elementwise",
)
PLACE = "/*facts*/null"


def page(program: Program, found: Mapping[str, Any]) -> str:
    """The page, as text. `found` is what effcc.report.facts knows of the program."""
    from effcc import __version__

    graphs = {"compiled": draw(program.graph, found["sizes"])}
    if program.saved_facts is None:
        graphs["imported"] = draw(program.source, found["sizes"])
    facts = json.dumps({**found, "effcc": __version__, "graphs": graphs}, separators=(",", ":"))
    template = TEMPLATE.read_text(encoding="utf-8")
    assert template.count(PLACE) == 1
    return template.replace(PLACE, facts.replace("</", "<\\/").replace("<!--", "<\\!--"))


def draw(graph: Graph, sizes: Mapping[str, int]) -> dict[str, Any]:
    """A graph for the page: nodes with the numbers of those that they read. Constants are told by their readers.

    A node's `path` is the module path of its location, by which the page folds.
    """
    from effcc.report import at

    nodes: list[dict[str, Any]] = []
    maker: dict[Value, int] = {}
    constants: dict[Value, str] = {}

    def add(kind: str, label: str, loc: Loc, reads: list[int], **more: Any) -> int:
        nodes.append({"kind": kind, "label": label, "path": path_of(loc), "at": str(loc), "reads": reads, **more})
        return len(nodes) - 1

    for value in graph.inputs:
        maker[value] = add("input", value.name or "input", UNKNOWN, [], results=[str(value.type)])
    for node in graph.nodes:
        results = [str(v.type) for v in node.results]
        if node.op.name == "const":
            constants[node.result] = results[0]
            continue
        body = node.op.attrs.get("body") if node.op.name == "fused" else None
        inner = [n.op.name for n in body.nodes if n.op.name != "const"] if body is not None else []
        reads = list(dict.fromkeys(maker[v] for v in node.operands if v in maker))
        number = add(
            _kind(node),
            " + ".join(inner) if inner else node.op.name,
            node.loc,
            reads,
            results=results,
            constants=[constants[v] for v in node.operands if v in constants],
            text=_body(body) if body is not None else _attributes(node.op),
            flops=at(node.op.flops(*node.types), sizes),
        )
        maker.update(dict.fromkeys(node.results, number))
    for k, value in enumerate(graph.results):
        if value in maker:
            add("output", value.name or f"output{k}", UNKNOWN, [maker[value]], results=[str(value.type)])
    return {"name": graph.name, "nodes": nodes}


def _kind(node: Node) -> str:
    """The family that a node is coloured by: of a fused region, that of its heaviest op."""
    if node.op.name != "fused":
        return node.op.family
    families = [n.op.family for n in node.op.attrs["body"].nodes]
    return next((f for f in HEAVIEST_FIRST if f in families), node.op.family)


def path_of(loc: Loc) -> list[str]:
    """The modules that a location lies in: of "/blocks.0/attn/MatMul" in ONNX, or of "blocks.0.attn" in torch.

    >>> path_of(Loc("vit.onnx", "/blocks.0/attn/MatMul")), path_of(Loc("vit.py:42", "blocks.0.attn"))
    (['blocks.0', 'attn'], ['blocks', '0', 'attn'])
    """
    while isinstance(loc, FusedLoc | PassLoc):
        loc = loc.locs[0] if isinstance(loc, FusedLoc) else loc.origin
    if "/" in loc.name:
        return [part for part in loc.name.split("/")[:-1] if part]
    torch = not loc.source or ".py:" in loc.source
    return [part for part in loc.name.split(".") if part] if torch else []


def _attributes(op: Any) -> str:
    return "\n".join(f"{name} = {value}" for name, value in op.attrs.items())


def _body(body: Graph) -> str:
    from effcc.text import print_graph

    return print_graph(body, locations=False)
