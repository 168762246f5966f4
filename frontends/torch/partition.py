"""Which FX nodes can be compiled: what the "eager" fallback splits a graph by."""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch.fx.passes.operator_support import OperatorSupportBase

from effcc.frontends.torch.emitter import handler_of
from effcc.frontends.torch.importer import SILENT, location


def supported(node: torch.fx.Node) -> bool:
    """A handler exists and every tensor has a dtype of ours."""
    if node.op != "call_function":
        return False
    if node.target is operator.getitem:
        source = node.args[0]
        return isinstance(source, torch.fx.Node) and supported(source)
    meta = node.meta.get("val")
    tensors = [m for m in _results(node) if isinstance(m, torch.Tensor)]
    tensors += [n.meta["val"] for n in node.all_input_nodes if isinstance(n.meta.get("val"), torch.Tensor)]
    if any(t.is_complex() for t in tensors):
        return False
    if isinstance(meta, (torch.SymInt, torch.SymFloat, torch.SymBool, int, float)):
        return False  # torch computes sizes between the parts
    return str(node.target).startswith(SILENT) or (
        handler_of(node.target) is not None and str(node.target) != "aten.copy_.default"
    )


def missing(module: torch.fx.GraphModule) -> list[str]:
    """The ops on tensors that torch has to run, with their places."""
    return [
        f"{node.target} ({location(node)})"
        for node in module.graph.nodes
        if node.op == "call_function"
        and node.target is not operator.getitem
        and str(node.target) != "aten.copy_.default"
        and not supported(node)
        and any(isinstance(m, torch.Tensor) for m in _results(node))
    ]


def _results(node: torch.fx.Node) -> tuple[Any, ...]:
    meta = node.meta.get("val")
    return tuple(meta) if isinstance(meta, (tuple, list)) else (meta,)


class Supported(OperatorSupportBase):
    def is_node_supported(self, submodules: Any, node: torch.fx.Node) -> bool:
        return supported(node)
