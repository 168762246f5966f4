"""FX graphs of functional aten ops -> IR graphs: what AOTAutograd hands to a compiler, and exported programs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch.fx.experimental.symbolic_shapes import free_unbacked_symbols

from effcc.errors import UnsupportedError
from effcc.frontends.torch.aten.complex import view_as_complex, view_as_real
from effcc.frontends.torch.decompositions import decompositions
from effcc.frontends.torch.emitter import Complex
from effcc.frontends.torch.importer import Importer
from effcc.frontends.torch.signature import (
    ArgumentOutput,
    NothingOutput,
    ScalarOutput,
    SeedInput,
    Signature,
    SizeInput,
    SizeOutput,
    TensorInput,
    TensorOutput,
    dense_order,
    inverse,
)
from effcc.frontends.torch.sizes import Sizes
from effcc.ir import Builder, Graph, Tensor, Value, as_symbol, u8
from effcc.ir.types import type_symbols


@dataclass(frozen=True)
class Imported:
    """A graph and how to call it with torch's arguments."""

    graph: Graph
    signature: Signature


def import_fx(module: torch.fx.GraphModule, name: str = "main") -> Imported:
    """An FX graph with fake tensors in `meta["val"]`, as AOTAutograd traces it; every argument becomes an input."""
    return _FxImport(module, name).run()


class _FxImport:
    def __init__(self, module: torch.fx.GraphModule, name: str):
        self.b = Builder(name)
        self.module = module
        self.sizes = Sizes()
        self.importer = Importer(self.b, module, self.sizes)
        self.signature = Signature()
        self.placeholders = [n for n in module.graph.nodes if n.op == "placeholder"]

    def run(self) -> Imported:
        bindings = {node: self._argument(i, node) for i, node in enumerate(self.placeholders)}
        self._carry_sizes()
        outputs = self.importer.run(bindings)
        if self.importer.seed is not None:
            self.signature.inputs.append(SeedInput())
        results = self._outputs(outputs)
        aliases = self._mutations(results)
        graph = self.b.graph(*results, aliases=tuple(aliases))
        known = {s for v in graph.inputs for s in type_symbols(v.type)}
        known.update(s for node in graph.nodes for s in node.op.defines(*node.types))
        if unknown := [s.name for s in graph.symbols if s not in known]:
            raise UnsupportedError(
                f"the size {unknown[0]} that is read from data is not supported", hint="pass it as an argument"
            )
        return Imported(graph, self.signature)

    # -- arguments ---------------------------------------------------------------------------------
    def _argument(self, i: int, node: torch.fx.Node) -> Any:
        fake = node.meta.get("val")
        if isinstance(fake, torch.Tensor):
            return self._tensor_argument(i, node, fake)
        if isinstance(fake, torch.SymInt):
            dim = self.sizes.dim(fake)
            if (symbol := as_symbol(dim)) is not None:
                self.signature.sizes.setdefault(symbol, (i, None))
            return dim
        if isinstance(fake, (torch.SymFloat, torch.SymBool)):
            raise UnsupportedError(
                f"the argument {node.name} is a run-time {type(fake).__name__}", hint="pass it as a tensor"
            )
        return fake

    def _tensor_argument(self, i: int, node: torch.fx.Node, fake: torch.Tensor) -> Value | Complex:
        dtype = self.importer.dtype_of(fake.dtype)
        shape = self.sizes.dims(fake.shape)
        if fake.is_complex():
            self.signature.inputs.append(TensorInput(i))
            return view_as_complex(self.importer, self.b.input(node.name, Tensor(dtype, (*shape, 2))))
        order = dense_order(fake)
        stored = shape if order is None else tuple(shape[k] for k in order)
        value = self.b.input(node.name, Tensor(dtype, stored))
        self.signature.inputs.append(TensorInput(i, order))
        for axis, d in enumerate(shape):
            if (symbol := as_symbol(d)) is not None:
                self.signature.sizes.setdefault(symbol, (i, axis))
        return value if order is None else self.importer.transpose(value, inverse(order))

    def _carry_sizes(self) -> None:
        """An extra input for each symbol that is known as an argument only, never as a tensor's own size."""
        told = {as_symbol(d) for v in self.b.inputs for d in v.shape}
        for symbol, (i, axis) in list(self.signature.sizes.items()):
            if axis is None and symbol not in told and self._reads(self.placeholders[i]):
                self.b.input(f"size_{symbol.name}", Tensor(u8, (symbol, 0)))
                self.signature.inputs.append(SizeInput(i))

    def _reads(self, placeholder: torch.fx.Node) -> bool:
        """Whether the symbol occurs in any tensor of the graph (else it is only passed through)."""
        symbol = placeholder.meta["val"].node.expr
        for node in self.module.graph.nodes:
            if node.op in ("placeholder", "output") and node is not placeholder:
                if node.op == "output":
                    continue
            vals = node.meta.get("val")
            for val in vals if isinstance(vals, (tuple, list)) else [vals]:
                if isinstance(val, torch.Tensor) and any(
                    isinstance(d, torch.SymInt) and symbol in d.node.expr.free_symbols for d in val.shape
                ):
                    return True
                if (
                    isinstance(val, (torch.SymInt, torch.SymFloat))
                    and node is not placeholder
                    and symbol in val.node.expr.free_symbols
                ):
                    return True
            if any(a is placeholder for a in node.all_input_nodes) and node.op != "output":
                return True
        return False

    # -- results -----------------------------------------------------------------------------------
    def _outputs(self, outputs: Any) -> list[Value]:
        results: list[Value] = []
        nodes = next(n for n in self.module.graph.nodes if n.op == "output").args[0]
        if not isinstance(nodes, (tuple, list)):  # a part that the fallback cut out gives its only result bare
            nodes, outputs, self.signature.bare = (nodes,), (outputs,), True
        arguments = {n: i for i, n in enumerate(self.placeholders)}
        for node, value in zip(nodes, outputs, strict=True):
            if isinstance(node, torch.fx.Node) and node in arguments and isinstance(value, (Value, Complex)):
                self.signature.outputs.append(ArgumentOutput(arguments[node]))
            elif isinstance(value, Complex):
                self.signature.outputs.append(TensorOutput(len(results), parts=True))
                results.append(view_as_real(self.importer, value))
            elif isinstance(value, Value) and not isinstance(node.meta["val"], torch.Tensor):
                self.signature.outputs.append(ScalarOutput(len(results)))
                results.append(value)
            elif isinstance(value, Value):
                order = dense_order(node.meta["val"])
                if order is not None:
                    value = self.importer.transpose(value, order)
                self.signature.outputs.append(TensorOutput(len(results), order))
                results.append(value)
            elif value is None or isinstance(value, (bool, float, str)):
                self.signature.outputs.append(NothingOutput(value))
            else:
                if isinstance(node, torch.fx.Node) and free_unbacked_symbols(node.meta["val"]):
                    raise UnsupportedError(f"the data-dependent size {value} as an output is not supported")
                self.signature.outputs.append(SizeOutput(value))
        return results

    def _mutations(self, results: list[Value]) -> list[tuple[int, int]]:
        """Results that are the new contents of an argument: aliases where its memory is dense, else copied back."""
        aliases: list[tuple[int, int]] = []
        for node, value in self.importer.mutations:
            argument = self.placeholders.index(node)
            position = next(
                k for k, p in enumerate(self.signature.inputs) if isinstance(p, TensorInput) and p.argument == argument
            )
            plan, fake = self.signature.inputs[position], node.meta["val"]
            if plan.order is None and not fake.is_contiguous():
                self.signature.copies.append((len(results), argument))
            else:
                value = value if plan.order is None else self.importer.transpose(value, plan.order)
                aliases.append((len(results), position))
            results.append(value)
        return aliases


# -- exported programs -----------------------------------------------------------------------------
def from_exported(
    program: torch.export.ExportedProgram, names: dict[str, str] | None = None, name: str = "main"
) -> Graph:
    """An exported program as a graph: its user inputs in order, its weights as constants over their own memory.

    names: what the user calls torch's symbols ({"s77": "batch"}). Buffers that the program updates become further
    inputs, after the user's, aliased to further results.
    """
    from torch.export.graph_signature import InputKind, OutputKind

    program = program.run_decompositions(decompositions())
    b = Builder(name)
    ranges = {str(symbol): bounds for symbol, bounds in program.range_constraints.items()}
    sizes = Sizes(names=names, ranges=ranges)
    importer = Importer(b, program.graph_module, sizes)
    mutated = {
        s.target
        for s in program.graph_signature.output_specs
        if s.kind in (OutputKind.BUFFER_MUTATION, OutputKind.USER_INPUT_MUTATION)
    }
    bindings: dict[torch.fx.Node, Any] = {}
    position: dict[str, int] = {}  # of each graph input, by the name that a mutation's target has
    state: list[tuple[torch.fx.Node, str]] = []
    placeholders = (n for n in program.graph.nodes if n.op == "placeholder")
    for node, spec in zip(placeholders, program.graph_signature.input_specs, strict=True):
        if spec.kind == InputKind.USER_INPUT:
            position[node.name] = len(b.inputs)
            bindings[node] = _user_input(b, importer, node, spec)
        elif spec.kind == InputKind.BUFFER and spec.target in mutated:
            state.append((node, str(spec.target)))
        elif spec.kind in (InputKind.PARAMETER, InputKind.BUFFER, InputKind.CONSTANT_TENSOR):
            bindings[node] = importer.constant(_weight(program, spec))
        else:
            raise UnsupportedError(f"exported input {node.name} is a {spec.kind.name.lower()}")
    for node, target in state:
        fake = node.meta["val"]
        position[target] = len(b.inputs)
        bindings[node] = b.input(target, Tensor(importer.dtype_of(fake.dtype), sizes.dims(fake.shape)))
    outputs = importer.run(bindings)
    results: list[Value] = []
    updates: list[tuple[Value, int]] = []
    for value, spec in zip(outputs, program.graph_signature.output_specs, strict=True):
        if spec.kind in (OutputKind.BUFFER_MUTATION, OutputKind.USER_INPUT_MUTATION):
            updates.append((value, position[str(spec.target)]))
        elif isinstance(value, Value):
            results.append(value)
        elif value is not None:
            results.append(importer.index(value))
    aliases = tuple((len(results) + k, at) for k, (_, at) in enumerate(updates))
    return b.graph(*results, *(v for v, _ in updates), aliases=aliases)


def _user_input(b: Builder, importer: Importer, node: torch.fx.Node, spec: Any) -> Any:
    fake = node.meta.get("val")
    if isinstance(fake, torch.Tensor):
        return b.input(node.name, Tensor(importer.dtype_of(fake.dtype), importer.sizes.dims(fake.shape)))
    if isinstance(fake, torch.SymInt):
        symbol = as_symbol(importer.sizes.dim(fake))
        if symbol is not None:
            b.input(node.name, Tensor(u8, (symbol, 0)))
            return symbol
    return getattr(spec.arg, "value", fake)


def _weight(program: Any, spec: Any) -> torch.Tensor:
    if spec.target in program.state_dict:
        return program.state_dict[spec.target]
    return program.constants[spec.target]
