"""One ONNX node as its handler sees it, and the table of handlers.

A handler is a function of the node and its inputs (omitted ones are None) that builds the outputs:

    @onnx_op("Squeeze")
    def squeeze(n: OnnxNode, x: Value, axes: Value | None = None) -> Value:
        ...

It returns one value, or a tuple where the node has several outputs; `n.version` is the opset version at which the op's
present definition began, so that one handler serves every opset.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from effcc.errors import NeedsValue, ParseError, UnsupportedError
from effcc.frontends.onnx.proto import Source, array, element_dtype
from effcc.ir.dims import Dim, Expr, Symbol, symbols
from effcc.ir.graph import Value
from effcc.ir.location import Loc
from effcc.ir.types import DType, Tensor

if TYPE_CHECKING:
    import onnx

    from effcc.frontends.onnx.importer import Scope

Handler = Callable[..., Any]
HANDLERS: dict[tuple[str, str], Handler] = {}
RANKS: dict[tuple[str, str], tuple[int, ...]] = {}
"""The fewest axes that the inputs of an op have, in order; ONNX's own rules do not tell them all."""
FAMILIES = (
    "elementwise", "shape", "index", "reduction", "contraction", "window", "normalization", "attention", "quantize",
    "recurrent", "control", "sequence", "resample", "signal", "random", "training", "gradient", "features",
)  # fmt: skip


def onnx_op(*names: str, domain: str = "", ranks: tuple[int, ...] = ()) -> Callable[[Handler], Handler]:
    """Register a handler for ops of a domain ('' is ai.onnx). `ranks`: the fewest axes of each input, in order."""

    def register(handler: Handler) -> Handler:
        for name in names:
            HANDLERS[domain, name] = handler
            RANKS[domain, name] = ranks
        return handler

    return register


def handler(domain: str, name: str) -> Handler | None:
    """The handler of an op, or None: then its function body is inlined, if it has one."""
    if not HANDLERS:
        for family in FAMILIES:
            importlib.import_module(f"effcc.frontends.onnx.ops_{family}")
    return HANDLERS.get((domain, name))


@dataclass(frozen=True)
class Items:
    """A sequence of known length."""

    values: tuple[Any, ...]


@dataclass(frozen=True)
class Absent:
    """An optional that holds nothing."""


class OnnxNode:
    """A NodeProto in its scope."""

    def __init__(self, proto: onnx.NodeProto, scope: Scope, version: int, loc: Loc):
        self.proto, self.scope, self.version, self.loc = proto, scope, version, loc
        self.attributes = {a.name: a for a in proto.attribute}

    @property
    def b(self) -> Any:
        """The builder; it appends to the graph that this node is in."""
        return self.scope.builder

    @property
    def op_type(self) -> str:
        return self.proto.op_type

    @property
    def source(self) -> Source:
        return self.scope.importer.source

    # -- attributes --
    def attr(self, name: str, default: Any = None) -> Any:
        """An attribute as a Python value: int, float, str, tuple, NumPy array (TENSOR), GraphProto; or the default."""
        import onnx

        if name not in self.attributes:
            return default
        a = self.attributes[name]
        kind = onnx.AttributeProto
        match a.type:
            case kind.INT:
                return a.i
            case kind.FLOAT:
                return a.f
            case kind.STRING:
                return a.s.decode("utf-8", "replace")
            case kind.TENSOR:
                return array(a.t, self.source)
            case kind.GRAPH:
                return a.g
            case kind.INTS:
                return tuple(a.ints)
            case kind.FLOATS:
                return tuple(a.floats)
            case kind.STRINGS:
                return tuple(s.decode("utf-8", "replace") for s in a.strings)
            case kind.TYPE_PROTO:
                return a.tp
        self.refuse(f"attribute {name!r} of kind {a.type}")

    def dtype_attr(self, name: str, default: DType | None = None) -> DType | None:
        """A TensorProto.DataType attribute as a DType; 0 counts as not given."""
        code = self.attr(name, 0)
        return element_dtype(code, str(self.loc)) if code else default

    def __contains__(self, attribute: str) -> bool:
        return attribute in self.attributes

    @property
    def num_outputs(self) -> int:
        return len(self.proto.output)

    def wants(self, i: int) -> bool:
        """Whether output i has a name, that is: may be used."""
        return i < len(self.proto.output) and self.proto.output[i] != ""

    # -- contents --
    def known(self, value: Value) -> np.ndarray | None:
        """What is known about the contents of a value (see values.py), or None."""
        return self.scope.importer.contents.get(value)

    def dims(self, value: Value, what: str) -> tuple[Dim, ...]:
        """The contents of an integer tensor, flat, as dimensions; raises NeedsValue where they are run-time data."""
        content = self.known(value)
        if content is None:
            constant = self.constant(value)
            if constant is not None:
                return tuple(constant.reshape(-1).tolist())
            if isinstance(value.type, Tensor) and value.type.is_static and value.type.size == 0:
                return ()
            self.need(value, what)
        flat = tuple(content.reshape(-1))
        if not all(isinstance(e, (int, Symbol, Expr)) for e in flat):
            self.need(value, what)
        return flat

    def ints(self, value: Value, what: str) -> tuple[int, ...]:
        """The same where only plain integers will do."""
        flat = self.dims(value, what)
        self.plain(flat, what)
        return flat  # type: ignore[return-value]

    def integer(self, value: Value, what: str) -> int:
        """The same for one integer."""
        flat = self.ints(value, what)
        if len(flat) != 1:
            self.refuse(f"{what} must be one integer, not {len(flat)}")
        return flat[0]

    def array(self, value: Value, what: str) -> np.ndarray:
        """The contents as a numeric array of the value's dtype; raises NeedsValue where they are run-time data."""
        constant = self.constant(value)
        if constant is not None:
            return constant
        content = self.known(value)
        if content is None or not all(isinstance(e, (int, float, bool)) for e in content.flat):
            if content is not None:
                self.plain(tuple(content.flat), what)
            self.need(value, what)
        return np.array(content.tolist(), value.dtype.numpy).reshape(content.shape)

    def constant(self, value: Value) -> np.ndarray | None:
        """The array of a constant (or of an input that is fixed), whatever its size; else None."""
        return self.scope.importer.contents.array(value)

    def plain(self, dims: Sequence[Any], what: str) -> None:
        """Raise NeedsValue unless every dimension is a plain integer: the shapes behind the symbols are needed."""
        free = set().union(*(symbols(d) for d in dims if isinstance(d, (Symbol, Expr))))
        if free:
            inputs, shapes, inside = self.scope.importer.origin(free)
            raise NeedsValue(
                f"{what} depends on the sizes {', '.join(sorted(s.name for s in free))}",
                where=self.loc,
                inputs=inputs,
                shapes=shapes,
                inside=inside,
            )

    def need(self, value: Value, what: str) -> NoReturn:
        """Raise NeedsValue for whatever the value's contents depend on."""
        importer = self.scope.importer
        names, inside = importer.names_of(importer.contents.leaves(value))
        values, shapes, within = importer.origin(importer.contents.sizes(value))
        raise NeedsValue(
            f"{what} is run-time data",
            where=self.loc,
            inputs=tuple(dict.fromkeys(names + values)),
            shapes=shapes,
            inside=inside or within,
        )

    # -- errors --
    def refuse(self, message: str, hint: str | None = None) -> NoReturn:
        """This model is well formed, but effcc cannot compile it."""
        raise UnsupportedError(f"{self.op_type}: {message}", where=self.loc, hint=hint)

    def malformed(self, message: str) -> NoReturn:
        """This model breaks ONNX's rules."""
        raise ParseError(f"{self.op_type}: {message}", where=self.loc, hint="check the model with onnx.checker")

    def flag(self, name: str, default: int = 0) -> bool:
        """An attribute that is 1 for true: like ONNX Runtime, no other number counts."""
        return self.attr(name, default) == 1

    # -- small things that many handlers need --
    def of_rank(self, x: Value, least: int) -> None:
        """Refuse a tensor of fewer axes."""
        if len(x.shape) < least:
            self.malformed(f"{x.type} has less than {least} axes")

    def axis(self, axis: int, rank: int) -> int:
        """An axis counted from the front."""
        if not -rank <= axis < max(rank, 1):
            self.malformed(f"axis {axis} of a tensor of rank {rank}")
        return axis % rank if rank else 0

    def axes(self, axes: Sequence[int], rank: int) -> tuple[int, ...]:
        """Axes counted from the front, sorted, each once."""
        out = tuple(sorted(self.axis(a, rank) for a in axes))
        if len(set(out)) != len(out):
            self.malformed(f"axes {tuple(axes)} name one twice")
        return out
