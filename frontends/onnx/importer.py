"""ModelProto -> Graph: scopes of names, functions inlined, nested graphs with their captures made explicit.

Dynamic dimensions become symbols: those with a `dim_param` share one symbol a name, those without get one each. They
range from 1, unless `shapes` says otherwise. Whatever shapes, axes, pads and the like are computed from is followed by
value analysis (values.py); where it ends in run-time data, `NeedsValue` names the inputs to specialise on.
"""

from __future__ import annotations

import contextlib
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from effcc.errors import EffccError, InputError, NeedsValue, ParseError, UnsupportedError
from effcc.frontends.onnx.node import Absent, Items
from effcc.frontends.onnx.proto import Source, element_dtype, inputs, names_of_bytes, no_text, opsets
from effcc.frontends.onnx.scope import GraphBuilder, Item, Scope, finish, refuse_strings
from effcc.frontends.onnx.values import Contents
from effcc.ir.dims import Dim, Symbol, as_symbol, substitute
from effcc.ir.graph import Graph, Node, Value
from effcc.ir.types import DType, Tensor, type_symbols

if TYPE_CHECKING:
    import onnx

EXPANDED = 30_000
"""How many nodes a model may expand to, however few it has; 16 for each of its own are granted besides."""
Shape = Sequence[Any]
"""An overriding shape: an axis is a size, a symbol's name, a (low, high) range, a Symbol, or None (as declared)."""


@dataclass(frozen=True)
class Port:
    """An input or output of the model, and the inputs or results of the graph that it consists of.

    kind: "tensor" (one position), "sequence" (one position an element), "optional" (one position, or none if absent).
    """

    name: str
    kind: str
    positions: tuple[int, ...]


@dataclass(frozen=True)
class Imported:
    """A graph, and how the model's inputs and outputs lie in it."""

    graph: Graph
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]


def import_model(
    source: Source, shapes: Mapping[str, Shape] | None = None, fixed: Mapping[str, Any] | None = None
) -> Imported:
    """Import a model whose inputs have the given shapes and, for those in `fixed`, the given contents.

    `fixed` inputs stay inputs of the graph; whoever calls it guards that they have these contents. For sequences and
    optionals it gives the structure only: how many elements of which shapes, and whether there is one.
    Raises NeedsValue, UnsupportedError, ParseError, InputError.
    """
    try:
        equal: dict[Symbol, Dim] = {}
        while True:
            found = Importer(source, shapes or {}, fixed or {}, equal).run()
            more = equal_sizes(found.graph)
            if not more:
                return found
            equal = {s: substitute(d, more) for s, d in equal.items()} | more
    except EffccError:
        raise
    except RecursionError:
        message = "graphs and functions are nested too deeply"
        raise UnsupportedError(message, where=source.name, hint="nest fewer of them") from None
    except Exception as e:
        if (name := next(names_of_bytes(source.model), None)) is not None:
            raise no_text(name, source) from e
        if reason := _why_malformed(source):
            raise ParseError(reason, where=source.name, hint="export the model again") from e
        raise ParseError(
            f"cannot be imported ({type(e).__name__}: {e})",
            where=source.name,
            hint="check the model with onnx.checker; if it is well formed, this is a bug in effcc",
        ) from e


def _why_malformed(source: Source) -> str | None:
    """What ONNX's own checker has against a model; None if nothing."""
    import onnx.checker

    with contextlib.suppress(ValueError):  # it is too large to be checked
        try:
            onnx.checker.check_model(source.model)
        except onnx.checker.ValidationError as error:
            return str(error)
    return None


class Importer:
    """The import of one model."""

    def __init__(
        self, source: Source, shapes: Mapping[str, Shape], fixed: Mapping[str, Any], equal: Mapping[Symbol, Dim]
    ):
        self.source, self.shapes, self.fixed, self.equal = source, shapes, fixed, equal
        self.contents = Contents()
        self.functions = {(f.domain, f.name, f.overload): f for f in source.model.functions}
        self.inputs: dict[Value, str] = {}
        self.defined_sizes: dict[Symbol, Value] = {}
        """Symbols that ops define (NonZero, Unique...) -> the data that decide them."""
        self.calls: list[str] = []
        """The functions that are being inlined."""
        model = source.model
        self.most = EXPANDED + 16 * (len(model.graph.node) + sum(len(f.node) for f in model.functions))
        self.expanded = 0

    def run(self) -> Imported:
        graph = self.source.model.graph
        builder = GraphBuilder(_identifier(graph.name) or "main", self.contents)
        scope = Scope(self, builder, opsets(self.source.model))
        _check_opsets(scope.opsets, self.source.name)
        ports = self._inputs(scope, graph)
        scope.run(graph)
        outputs: list[Port] = []
        results: list[Value] = []
        for o in graph.output:
            kind, values = _flatten(scope.lookup(o.name, f"output {o.name!r}"))
            outputs.append(Port(o.name, kind, tuple(range(len(results), len(results) + len(values)))))
            results += values
        names = {
            v: f"{p.name}" if p.kind != "sequence" else f"{p.name}[{i}]"
            for p in outputs
            for i, v in enumerate(results[j] for j in p.positions)
        }
        return Imported(finish(builder, results, names), tuple(ports), tuple(outputs))

    def spend(self) -> None:
        """Count a node. What functions within functions and unrolled loops expand to has an end."""
        self.expanded += 1
        if self.expanded > self.most:
            message = f"its functions and unrolled loops expand to more than {self.most} nodes"
            raise UnsupportedError(message, where=self.source.name, hint="call functions, or loop, fewer times")

    # -- inputs --
    def _inputs(self, scope: Scope, graph: onnx.GraphProto) -> list[Port]:
        declared = inputs(graph)
        for name in (*self.shapes, *self.fixed):
            if name not in {i.name for i in declared}:
                raise InputError(
                    f"the model has no input {name!r}",
                    where=self.source.name,
                    hint="one of " + ", ".join(i.name for i in declared),
                )
        if twice := [name for name, count in Counter(i.name for i in declared).items() if count > 1]:
            raise ParseError(f"input {twice[0]!r} is listed twice", where=self.source.name, hint="rename it")
        bindings = self._bindings(declared)
        ports = []
        for info in declared:
            first = len(scope.builder.inputs)
            kind = info.type.WhichOneof("value") or "tensor_type"
            if kind == "tensor_type":
                shape = tuple(_plain(substitute(substitute(d, bindings), self.equal)) for d in self._shape(info))
                dtype = element_dtype(info.type.tensor_type.elem_type, f"{self.source.name}:{info.name}")
                item: Item = self._input(scope, info.name, Tensor(dtype, shape))
                if info.name in self.fixed:
                    self.contents.fix(item, self.fixed[info.name])
            elif kind in ("sequence_type", "optional_type"):
                if info.name not in self.fixed:
                    raise NeedsValue(
                        f"input {info.name!r} is of a {kind.replace('_type', '')} type",
                        inputs=(info.name,),
                        where=self.source.name,
                    )
                item = self._structured(scope, info.name, self.fixed[info.name])
            else:
                raise UnsupportedError(
                    f"input of kind {kind}",
                    where=f"{self.source.name}:{info.name}",
                    hint="inputs are tensors, sequences or optionals",
                )
            scope.names[info.name] = item
            ports.append(Port(info.name, kind.removesuffix("_type"), tuple(range(first, len(scope.builder.inputs)))))
        return ports

    def _input(self, scope: Scope, name: str, type_: Tensor) -> Value:
        refuse_strings(type_.dtype, f"{self.source.name}:{name}")
        value = scope.builder.input(name, type_)
        self.inputs[value] = name
        return value

    def _structured(self, scope: Scope, name: str, example: Any) -> Item:
        if example is None:
            return Absent()
        if isinstance(example, (list, tuple)):
            return Items(tuple(self._structured(scope, f"{name}[{i}]", e) for i, e in enumerate(example)))
        example = np.asarray(example)
        return self._input(scope, name, Tensor(DType.of(example.dtype), example.shape))

    def _shape(self, info: onnx.ValueInfoProto) -> tuple[Dim, ...]:
        """The shape that the model declares for an input, its unknown dimensions as symbols."""
        tensor = info.type.tensor_type
        if not tensor.HasField("shape"):
            given = self.shapes.get(info.name)
            if given is None and info.name in self.fixed:
                return np.asarray(self.fixed[info.name]).shape
            if given is None:
                raise NeedsValue(
                    f"input {info.name!r} has no declared rank", where=self.source.name, shapes=(info.name,)
                )
            return tuple(Symbol(f"{_identifier(info.name)}_{i}", 1) for i in range(len(given)))
        dims: list[Dim] = []
        for i, d in enumerate(tensor.shape.dim):
            fresh = f"{_identifier(info.name)}_{i}"
            if d.HasField("dim_value") and d.dim_value >= 0:
                dims.append(d.dim_value)
            else:
                dims.append(Symbol(_identifier(d.dim_param) or fresh, 1))
        return tuple(dims)

    def _bindings(self, declared: Iterable[onnx.ValueInfoProto]) -> dict[Symbol, Dim]:
        """What `shapes` says about each symbol of the declared shapes; contradictions are refused."""
        bindings: dict[Symbol, Dim] = {}
        for info in declared:
            where = f"{self.source.name}:{info.name}"
            given = self.shapes.get(info.name)
            if given is None and info.name in self.fixed and info.type.HasField("tensor_type"):
                given = np.asarray(self.fixed[info.name]).shape
            if given is None:
                continue
            shape = self._shape(info)
            if len(given) != len(shape):
                raise InputError(f"shape {list(given)} has rank {len(given)}, the model says {len(shape)}", where=where)
            for declared_dim, wanted in zip(shape, given, strict=True):
                dim = _dim(wanted, declared_dim)
                symbol = as_symbol(declared_dim)
                before = declared_dim if symbol is None else bindings.get(symbol, dim)
                if dim != before:
                    raise InputError(
                        f"dimension {wanted} where the model says {before}",
                        where=where,
                        hint="give the inputs shapes that agree",
                    )
                if symbol is not None and dim is not declared_dim:
                    bindings[symbol] = dim
        return bindings

    # -- what value analysis ended in --
    def names_of(self, leaves: Iterable[Value]) -> tuple[tuple[str, ...], bool]:
        """Names of the graph inputs among some values, and whether others (of loops) are among them."""
        leaves = list(leaves)
        names = tuple(dict.fromkeys(self.inputs[v] for v in leaves if v in self.inputs))
        return names, any(v not in self.inputs for v in leaves)

    def origin(self, symbols: Iterable[Symbol]) -> tuple[tuple[str, ...], tuple[str, ...], bool]:
        """Where symbols come from: inputs whose values define them, those whose shapes do, and whether loops do."""
        values: dict[str, None] = {}
        shapes: dict[str, None] = {}
        inside = False
        for s in symbols:
            if s in self.defined_sizes:
                names, within = self.names_of(self.contents.leaves(self.defined_sizes[s]))
                values.update(dict.fromkeys(names))
                inside |= within
            else:
                shapes.update({n: None for v, n in self.inputs.items() if s in type_symbols(v.type)})
        return tuple(values), tuple(shapes), inside


def equal_sizes(graph: Graph) -> dict[Symbol, Dim]:
    """Sizes of inputs that the graph's ops hold to be equal to others, or to be a number: symbol -> what it has to be.

    The model is then imported with these, so that a call whose inputs break them is refused and not misread.
    """
    own = list(
        dict.fromkeys(s for v in graph.inputs if isinstance(v.type, Tensor) for s in map(as_symbol, v.shape) if s)
    )
    for node in graph.nodes:
        for a, b in _held_equal(node):
            first, second = as_symbol(a), as_symbol(b)
            if isinstance(a, int):
                first, second, b = second, None, a
            if first not in own or first is None:
                continue
            if isinstance(b, int) and first.lo <= b and (first.hi is None or b <= first.hi):
                return {first: b}
            if second in own and second != first and second is not None:
                earlier, later = sorted((first, second), key=own.index)
                return {later: earlier}
    return {}


def _held_equal(node: Node) -> list[tuple[Dim, Dim]]:
    """Pairs of sizes that an op's meaning takes to be equal."""
    shapes = [v.shape for v in node.operands if isinstance(v.type, Tensor)]
    facts = node.op.attrs
    match node.op.name:
        case "concat":
            rest = [k for k in range(len(shapes[0])) if k != facts["axis"]]
            return [(shapes[0][k], s[k]) for s in shapes[1:] for k in rest]
        case "matmul":
            a, b = shapes
            return [(a[-2 if facts["transpose_a"] else -1], b[-1 if facts["transpose_b"] else -2])]
        case "conv":
            return [(shapes[0][1], shapes[1][1] * facts["groups"])]
        case "conv_transpose":
            return [(shapes[0][1], shapes[1][0])]
        case "attention":
            q, k, v = shapes[:3]
            return [(q[-1], k[-1]), (k[-2], v[-2]), *zip(q[:-3], k[:-3]), *zip(q[:-3], v[:-3])]
    return []


def _flatten(item: Item) -> tuple[str, list[Value]]:
    if isinstance(item, Absent):
        return "optional", []
    if isinstance(item, Items):
        for v in item.values:
            if not isinstance(v, Value):
                raise UnsupportedError("a sequence of sequences as an output")
        return "sequence", list(item.values)
    return "tensor", [item]


def _identifier(name: str) -> str:
    """A symbol's name from a dim_param: letters, digits and underscores; '' where it says nothing ('?')."""
    text = re.sub(r"\W+", "_", name, flags=re.ASCII).strip("_")
    return f"n{text}" if text[:1].isdigit() else text


def _plain(dim: Dim) -> Dim:
    """A dimension that is a lone symbol as that symbol."""
    return as_symbol(dim) or dim


def _dim(wanted: Any, declared: Dim) -> Dim:
    match wanted:
        case None:
            return declared
        case str():
            symbol = as_symbol(declared)
            return Symbol(wanted, symbol.lo if symbol else 1, symbol.hi if symbol else None)
        case (lo, hi):
            symbol = as_symbol(declared)
            return declared if symbol is None else Symbol(symbol.name, lo, hi)
        case Symbol():
            return wanted
    return int(wanted)


def _check_opsets(versions: Mapping[str, int], name: str) -> None:
    import onnx.defs

    newest = onnx.defs.onnx_opset_version()
    if versions.get("", 1) > newest:
        raise UnsupportedError(
            f"opset {versions['']}",
            where=name,
            hint=f"this onnx package knows opsets to {newest}: upgrade it, or export with an older opset",
        )
