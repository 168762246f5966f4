"""The torch.compile backend: Dynamo's graph -> AOTAutograd -> IR graphs -> programs, forward and backward.

Dynamo hands parameters over as arguments and does not recompile after `load_state_dict`. In inference they become
constants (which the pipeline may fold and pack), guarded at each call by (data_ptr, _version) and a few words of
memory: a changed weight builds the program again. In training they stay inputs.

`torch.compile(model, backend="effcc", options={...})`:
    fallback: None (default: an op without a handler is an error) or "eager" (torch runs what is missing; a warning
        says what).
    target: a target of `effcc.compile`, or "interpreter" for the ops' reference meanings. Default: "cpu", and for CUDA
        tensors the GPU that is there.
    precision: "fp32" (default) or "bf16", as in `effcc.compile`; in inference only.
    reduce_tokens, quantize, sparsify, prune: a pass of that category, as in `effcc.compile`; in inference only.
    Everything else goes to the driver (passes, calibration, check, ...).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch._guards import TracingContext
from torch._subclasses.fake_tensor import unset_fake_temporarily

from effcc.driver import CATEGORY_OPTIONS, compile_graph, rounding
from effcc.errors import InputError, UnsupportedError
from effcc.frontends.torch.decompositions import decompositions
from effcc.frontends.torch.fingerprint import Fingerprint
from effcc.frontends.torch.fx import Imported, import_fx
from effcc.frontends.torch.signature import TensorInput
from effcc.ir import Blob, Graph, Node, op_class

FALLBACKS = (None, "eager")
REBUILDS = 8
"""How often weights may change before they become inputs, which need no new program but are packed at every call."""


class FallbackWarning(UserWarning):
    """Some ops of a compiled module run in torch."""


def compile_fx(
    module: torch.fx.GraphModule,
    example_inputs: Any,
    *,
    options: dict[str, Any] | None = None,
    mode: str | None = None,
    **more: Any,
) -> Callable[..., Any]:
    """What Dynamo calls with each captured graph."""
    from functorch.compile import min_cut_rematerialization_partition
    from torch._dynamo.backends.common import aot_autograd

    options = {**(options or {}), **more}
    fallback = options.pop("fallback", None)
    if fallback not in FALLBACKS:
        raise InputError(f"unknown fallback {fallback!r}", hint="None or 'eager'")

    options.setdefault("target", target_of(example_inputs))
    if (precision := options.pop("precision", "fp32")) == "auto":
        hint = "effcc.compile offers it, with calibration="
        raise UnsupportedError("precision='auto' is not offered by torch.compile", hint=hint)
    if precision != "fp32":
        options["quantize"] = rounding(precision, options["target"], options.get("quantize"))

    def compiler(kind: str) -> Callable[..., Any]:
        def compiled(graph: torch.fx.GraphModule, _: Any) -> Callable[..., Any]:
            approximate = [name for name in CATEGORY_OPTIONS if options.get(name) is not None]
            if precision != "fp32":
                approximate = ["precision"]
            if approximate and kind != "inference":
                raise InputError(f"{approximate[0]}= changes results, and gradients would not follow it",
                                 hint="call the model under torch.no_grad() or torch.inference_mode()")
            static = static_arguments() if kind == "inference" else ()
            with unset_fake_temporarily():
                if fallback == "eager":
                    return boxed(_partitioned(graph, kind, static, options))
                return boxed(Compiled(import_fx(graph, kind), static, options))

        return compiled

    return aot_autograd(
        fw_compiler=compiler("forward"),
        bw_compiler=compiler("backward"),
        inference_compiler=compiler("inference"),
        decompositions=decompositions(),
        partition_fn=min_cut_rematerialization_partition,
        keep_inference_input_mutations=True,
    )(module, example_inputs)


def target_of(example_inputs: Any) -> str:
    """The target for tensors where they are: CUDA's, if any of them is on a CUDA device.

    >>> target_of((torch.zeros(2), 3))
    'cpu'
    """
    on = {x.device.type for x in example_inputs if isinstance(x, torch.Tensor)}
    return "cuda{arch=native}" if "cuda" in on else "cpu"


def static_arguments() -> tuple[int, ...]:
    """The positions of parameters and buffers among the arguments of the graph that is being compiled."""
    context = TracingContext.try_get()
    metadata = context.fw_metadata if context is not None else None
    return tuple(metadata.static_input_indices) if metadata is not None else ()


def boxed(function: Callable[[Any], Any]) -> Callable[..., Any]:
    """AOTAutograd's convention for functions that take their arguments as one list."""

    def call(args: Any) -> Any:
        return function(args)

    call._boxed_call = True  # type: ignore[attr-defined]
    return call


def program_of(graph: Graph, options: dict[str, Any]) -> Callable[..., Any]:
    """An executable for a graph: torch tensors in, a tuple of torch tensors out."""
    options = dict(options)
    if options.get("target") == "interpreter":
        from effcc.interp import run

        def interpret(*tensors: Any) -> Any:
            results = run(graph, *tensors)
            for result, argument in graph.aliases:
                tensors[argument].copy_(results[result])
            return results

        return interpret
    extra = {category: options.pop(name) for name, category in CATEGORY_OPTIONS.items() if name in options}
    return compile_graph(graph, extra={k: p for k, p in extra.items() if p is not None}, **options)


class Compiled:
    """One graph as a function of torch's arguments, its weights constants until they change."""

    def __init__(self, imported: Imported, static: tuple[int, ...], options: dict[str, Any]):
        self.imported = imported
        self.options = options
        signature, graph = imported.signature, imported.graph
        updated = {position for _, position in graph.aliases} | {
            k
            for k, p in enumerate(signature.inputs)
            if isinstance(p, TensorInput) and p.argument in {argument for _, argument in signature.copies}
        }
        self.weights = {
            k: p
            for k, p in enumerate(signature.inputs)
            if isinstance(p, TensorInput) and p.argument in set(static) and k not in updated
        }
        self.guards: list[tuple[int, int, int]] = []
        self.fingerprint: Fingerprint | None = None
        self.builds = 0
        self.dynamic: tuple[int, ...] = tuple(range(len(signature.inputs)))
        self.program: Callable[..., Any] | None = None
        if not self.weights:
            self.program = program_of(graph, options)

    def __call__(self, args: Any) -> list[Any]:
        if self.program is None or not self._unchanged(args):
            self._build(args)
        signature = self.imported.signature
        tensors = signature.arguments(args, self.dynamic)
        results = self.program(*tensors)  # type: ignore[misc]
        if not tensors:  # a program gives back the kind of array that it was given
            results = [x if isinstance(x, torch.Tensor) else Blob(x).torch() for x in results]
        return signature.collect(args, results)

    def _unchanged(self, args: Any) -> bool:
        for argument, pointer, version in self.guards:
            t = args[argument]
            if t.data_ptr() != pointer or t._version != version:
                return False
        return self.fingerprint is None or not self.fingerprint.changed()

    def _build(self, args: Any) -> None:
        """Build the program for the weights as they are now; weights that keep changing stay inputs from then on."""
        self.builds += 1
        constants: dict[int, Blob] = {}
        guards: list[tuple[int, int, int]] = []
        for position, plan in self.weights.items():
            t = args[plan.argument]
            if self.builds > REBUILDS or t.is_inference():
                continue  # under inference_mode torch does not count changes
            constants[position] = Blob.from_torch(plan.fetch(args).cpu())
            guards.append((plan.argument, t.data_ptr(), t._version))
        graph = freeze(self.imported.graph, constants)
        self.program = program_of(graph, self.options)
        self.dynamic = tuple(k for k in range(len(self.imported.signature.inputs)) if k not in constants)
        self.guards = guards
        readable = [t for argument, _, _ in guards if (t := args[argument]).device.type == "cpu"]
        self.fingerprint = Fingerprint(readable) if readable else None


def freeze(graph: Graph, constants: dict[int, Blob]) -> Graph:
    """The graph with the inputs at these positions replaced by constants."""
    const = op_class("const")
    nodes = tuple(Node(const(blob), (), (graph.inputs[k],)) for k, blob in constants.items())  # type: ignore[call-arg]
    kept = [k for k in range(len(graph.inputs)) if k not in constants]
    aliases = tuple((result, kept.index(position)) for result, position in graph.aliases)
    return Graph(graph.name, tuple(graph.inputs[k] for k in kept), nodes + graph.nodes, graph.results, aliases)


# -- fallback --------------------------------------------------------------------------------------
def _partitioned(
    module: torch.fx.GraphModule, kind: str, static: tuple[int, ...], options: dict[str, Any]
) -> Callable[[Any], Any]:
    """Compile the whole graph if every op has a handler, else the largest parts that have, torch running the rest."""
    try:
        return Compiled(import_fx(module, kind), static, options)
    except UnsupportedError as error:
        first = str(error)
    from torch.fx.passes.infra.partitioner import CapabilityBasedPartitioner

    from effcc.frontends.torch.partition import Supported, missing

    lacking = missing(module)
    fused = CapabilityBasedPartitioner(module, Supported(), allows_single_node_partition=True).partition_and_fuse()
    parts = 0
    for node in fused.graph.nodes:
        if node.op != "call_module":
            continue
        part = getattr(fused, node.target)
        try:
            setattr(fused, node.target, _Part(Compiled(import_fx(part, f"{kind}_{node.target}"), (), options)))
            parts += 1
        except UnsupportedError as error:
            lacking.append(str(error))
    fused.recompile()
    shown = "; ".join(dict.fromkeys(lacking)) or first
    warnings.warn(
        f"effcc: the {kind} graph runs as {parts} compiled parts, torch runs the rest: {shown}",
        FallbackWarning,
        stacklevel=2,
    )
    return lambda args: list(fused(*args))


class _Part(torch.nn.Module):
    """A compiled part inside a torch graph."""

    def __init__(self, compiled: Compiled):
        super().__init__()
        self.compiled = compiled

    def forward(self, *args: Any) -> Any:
        out = self.compiled(args)
        return out[0] if self.compiled.imported.signature.bare else tuple(out)
