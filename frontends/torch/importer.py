"""Walks an FX graph of aten ops and builds an IR graph from it, node by node."""

from __future__ import annotations

import operator
import re
from typing import Any

import torch
from torch.utils._pytree import tree_leaves

import effcc.frontends.torch.aten  # noqa: F401  fills the registry of handlers
from effcc.errors import EffccError, UnsupportedError
from effcc.frontends.torch.emitter import Complex, Emitter, complex_handler_of, handler_of
from effcc.frontends.torch.sizes import Sizes
from effcc.ir import Blob, Builder, Dim, Loc, Symbol, Tensor, Value, f64, i64, product

SILENT = (
    "aten._assert_async",
    "aten._assert_scalar",
    "aten.sym_constrain_range",
    "aten._assert_tensor_metadata",
    "aten.sym_constrain_range_for_size",
)
"""Checks without a result: torch has them for its own guards."""


def location(node: torch.fx.Node) -> Loc:
    """The user's line and the module's path: "model.py:42", "encoder.layer.0.attention"."""
    source = name = ""
    for line in (node.meta.get("stack_trace") or "").splitlines():
        if match := re.search(r'File "([^"]+)", line (\d+)', line):
            source = f"{match[1].rsplit('/', 1)[-1]}:{match[2]}"
    stack = node.meta.get("nn_module_stack") or (node.meta.get("fwd_nn_module_stack") or {})
    for path, _ in stack.values():
        name = path
    name = re.sub(r"\[['\"]?(\w+)['\"]?\]", r".\1", name.replace("L['self']", "").replace("_modules", ""))
    return Loc(source, re.sub(r"\.+", ".", name).strip("."))


class Importer(Emitter):
    """Builds one IR graph (or one nested graph) from one FX graph."""

    def __init__(self, b: Builder, module: torch.fx.GraphModule, sizes: Sizes):
        super().__init__(b, sizes)
        self.module = module
        self.env: dict[torch.fx.Node, Any] = {}
        self.node: torch.fx.Node | None = None
        self.blobs: dict[Any, Value] = {}
        self.seed: Value | None = None
        self.drawn: Dim = 0
        self.mutations: list[tuple[torch.fx.Node, Value]] = []
        """(placeholder, its new value) for each in-place update that torch left at the end of the graph."""

    def run(self, placeholders: dict[torch.fx.Node, Any]) -> Any:
        """Build every node; returns the output's structure with values for nodes."""
        self.env.update(placeholders)
        output: Any = ()
        for node in self.module.graph.nodes:
            if node.op == "output":
                output = self.resolve(node.args[0])
            elif node.op == "get_attr":
                self.env[node] = self.attribute(node)
            elif node.op == "call_function":
                loc = location(node)
                with self.b.at(loc):
                    self.env[node] = self.call(node, loc)
            elif node.op != "placeholder":
                raise UnsupportedError(f"FX node {node.format_node()} is not an aten op", where=location(node))
        return output

    # -- nodes -------------------------------------------------------------------------------------
    def call(self, node: torch.fx.Node, loc: Loc) -> Any:
        meta, name = node.meta.get("val"), str(node.target)
        if name == "aten._local_scalar_dense.default":
            return self.scalar(self.resolve(node.args[0]))
        if node.target is not operator.getitem:
            if isinstance(meta, (torch.SymInt, int)) and not isinstance(meta, bool):
                return self.size(meta)
            if isinstance(meta, (torch.SymBool, bool)) or name.startswith(SILENT):
                return None  # only assertions read it
            if isinstance(meta, (torch.SymFloat, float)):
                return self.symbolic_float(meta.node.expr) if isinstance(meta, torch.SymFloat) else meta
        args, kwargs = self.resolve(node.args), self.resolve(node.kwargs)
        if node.target is operator.getitem:
            return args[0][args[1]]
        self.node, self.meta, self.target = node, meta, name
        if name == "aten.copy_.default":
            return self.mutate(node, args)
        is_complex = _any_complex(meta) or any(isinstance(x, Complex) for x in tree_leaves((args, kwargs)))
        handler = complex_handler_of(node.target) if is_complex else handler_of(node.target)
        if handler is None and is_complex:
            raise UnsupportedError(
                f"torch op {name} on complex tensors is not supported",
                where=loc,
                hint="keep real and imaginary parts in two tensors",
            )
        if handler is None:
            raise UnsupportedError(
                f"torch op {name} is not supported",
                where=loc,
                hint='torch.compile(..., options={"fallback": "eager"}) runs it in torch and reports it',
            )
        if isinstance(meta, (tuple, list)):
            self.used = read_results(node, len(meta))
        try:
            result = handler(self, *args, **kwargs)
        except EffccError as error:
            if error.where is None:
                raise type(error)(f"{name}: {error.message}", where=loc, hint=error.hint) from None
            raise
        self.check(name, result, meta)
        return result

    def size(self, meta: Any) -> Any:
        """A size; one that there is no expression for is refused where it is read, since assertions need none."""
        try:
            return self.sizes.dim(meta)
        except UnsupportedError as error:
            return error

    def scalar(self, x: Any) -> Any:
        """An element that becomes a Python number (`item`): data, as long as no size depends on it."""
        if isinstance(x, Complex):
            raise UnsupportedError("a complex number out of a tensor is not supported")
        wide = f64 if x.dtype.is_float else x.dtype if x.dtype.is_bool else i64
        return self.reshape(self.cast(x, wide), ())

    def check(self, name: str, result: Any, meta: Any) -> None:
        """Dtype and rank of what a handler built are those that torch inferred."""
        pairs = zip(result, meta, strict=True) if isinstance(meta, (tuple, list)) else [(result, meta)]
        for ours, theirs in pairs:
            if isinstance(ours, Value) and isinstance(theirs, torch.Tensor):
                if (
                    theirs.is_complex()
                    or ours.dtype != self.dtype_of(theirs.dtype)
                    or len(ours.shape) != theirs.dim()
                    or any(
                        isinstance(d, int) and isinstance(s, int) and d != s
                        for d, s in zip(ours.shape, theirs.shape, strict=True)
                    )
                ):
                    raise AssertionError(f"{name}: built {ours.type}, torch says {theirs.dtype} {list(theirs.shape)}")

    def mutate(self, node: torch.fx.Node, args: Any) -> Value:
        """`copy_` into a graph input, which AOTAutograd puts after everything else."""
        target = node.args[0]
        if not isinstance(target, torch.fx.Node) or target.op != "placeholder":
            raise UnsupportedError("copy_ into something else than an input", where=location(node))
        value = self.broadcast(self.cast(args[1], args[0].dtype), args[0].shape)
        self.mutations.append((target, value))
        return value

    def resolve(self, x: Any) -> Any:
        """FX arguments with nodes replaced by what they stand for."""
        if isinstance(x, torch.fx.Node):
            if x not in self.env:
                raise UnsupportedError(f"{x.format_node()} has no value here", where=location(x))
            if isinstance(self.env[x], UnsupportedError):
                raise self.env[x]
            return self.env[x]
        if isinstance(x, (list, tuple)):
            return (
                type(x)(self.resolve(v) for v in x) if not hasattr(x, "_fields") else tuple(self.resolve(v) for v in x)
            )
        if isinstance(x, dict):
            return {k: self.resolve(v) for k, v in x.items()}
        if isinstance(x, slice):
            return slice(self.resolve(x.start), self.resolve(x.stop), self.resolve(x.step))
        return x

    def attribute(self, node: torch.fx.Node) -> Any:
        value: Any = self.module
        for part in str(node.target).split("."):
            value = getattr(value, part)
        return self.constant(value) if isinstance(value, torch.Tensor) else value

    def constant(self, tensor: torch.Tensor) -> Value | Complex:
        """A const over the tensor's own memory; the same memory gives the same value. A complex one becomes two."""
        if tensor.is_complex():
            re, im = (self.b.const(Blob.from_torch(part.resolve_neg())) for part in (tensor.real, tensor.imag))
            return Complex(re, im)
        self.dtype_of(tensor.dtype)
        key = (tensor.data_ptr(), tensor.dtype, tuple(tensor.shape), tensor.stride())
        if tensor.numel() == 0 or key not in self.blobs:
            self.blobs[key] = self.b.const(Blob.from_torch(tensor))
        return self.blobs[key]

    # -- what handlers ask -------------------------------------------------------------------------
    def operand_meta(self, position: int) -> Any:
        assert self.node is not None
        return self.node.args[position].meta["val"]  # type: ignore[union-attr]

    def draw(self, shape: Any) -> tuple[Value, Value]:
        if self.seed is None:
            self.seed = self.b.input("seed", Tensor(i64, ()))
        offset = self.index(self.drawn)
        self.drawn = self.drawn + product(shape)
        return self.seed, offset

    def new_size(self, x: Value) -> Symbol:
        assert self.node is not None
        bindings = self.node.meta.get("unbacked_bindings") or {}
        for name in bindings:
            symbol = self.sizes.symbol(name)
            if bindings[name] is not None:
                return symbol
        for size in self.out.shape:
            expr = getattr(getattr(size, "node", None), "expr", None)
            if expr is not None and expr.is_Symbol:
                return self.sizes.symbol(expr)
        raise UnsupportedError("a data-dependent size without a name", hint="avoid nonzero and boolean masks there")

    def symbolic_float(self, e: Any) -> Value:
        """A sympy float expression as a rank-0 f64."""
        if e.is_number:
            return self.number(float(e), f64)
        if e.is_integer:
            return self.tensor(self.sizes.expression(e), f64)
        kind = type(e).__name__
        args = [self.symbolic_float(a) for a in e.args]
        match kind:
            case "ToFloat" | "Identity":
                return args[0]
            case "Add" | "Mul":
                out = args[0]
                for a in args[1:]:
                    out = self.b.add(out, a) if kind == "Add" else self.b.mul(out, a)
                return out
            case "FloatTrueDiv" | "IntTrueDiv":
                return self.b.div(*args)
            case "Pow" | "FloatPow" | "PowByNatural":
                return self.b.pow(*args)
            case _ if kind.startswith("OpaqueUnaryFn_"):
                return getattr(self.b, kind.removeprefix("OpaqueUnaryFn_"))(args[0])
        raise UnsupportedError(f"the symbolic number {e} ({kind}) is not supported")


def _any_complex(meta: Any) -> bool:
    return any(isinstance(m, torch.Tensor) and m.is_complex() for m in tree_leaves(meta))


def read_results(node: torch.fx.Node, count: int) -> set[int]:
    """Which of a node's results are read: those that a getitem takes, all where it is itself an output."""
    used: set[int] = set()
    for user in node.users:
        at = user.args[1] if user.target is operator.getitem else None
        used |= {at} if isinstance(at, int) else set(range(count))
    return used


def nested(parent: Importer, module: torch.fx.GraphModule, operands: Any, name: str) -> Any:
    """An FX sub-graph as an IR graph isolated from its surroundings. Operands that are dimensions stay dimensions.

    Returns (graph builder's results, the importer): the caller decides on the results' form.
    """
    inner = Importer(Builder(name), module, parent.sizes)
    inputs: dict[torch.fx.Node, Any] = {}
    for node, operand in zip([n for n in module.graph.nodes if n.op == "placeholder"], operands, strict=True):
        inputs[node] = inner.b.input(node.name, operand.type) if isinstance(operand, Value) else operand
    return inner, inner.run(inputs)
