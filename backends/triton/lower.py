"""Graph -> plan: every node becomes a place (views) or a kernel launch.

A node is taken by its family: views by their strides, regions by what their anchor's loop nest is (a contraction, a
reduction, another fold, a scan), attention and sorting by templates of their own. What is left is refused by name.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from effcc.backends.triton.kernel import KernelSource, KernelText, name_of
from effcc.backends.triton.plan import Copy, Launch, Plan, Step
from effcc.backends.triton.templates.attention import attention, has_template
from effcc.backends.triton.templates.contraction import contraction, contraction_of
from effcc.backends.triton.templates.fold import fold, scan
from effcc.backends.triton.templates.pointwise import pointwise
from effcc.backends.triton.templates.reduce import folded, reduction
from effcc.backends.triton.templates.shape import Shape
from effcc.backends.triton.templates.sort import sort
from effcc.backends.tvm.lower import as_region, region_symbols
from effcc.backends.tvm.place import Buffer, Place, plain, row_major, view
from effcc.backends.tvm.placing import Placing, concat_slices, same_place
from effcc.errors import UnsupportedError
from effcc.ir import Builder, Graph, Node, Symbol, Tensor, Value
from effcc.ir.assumptions import assumed
from effcc.ir.blob import Blob
from effcc.ir.builder import spelled_out
from effcc.ir.dims import Dim, bounds, product
from effcc.ir.location import UNKNOWN
from effcc.ops.attention import Attention
from effcc.ops.constant import Const
from effcc.ops.elementwise import Identity
from effcc.ops.fused import Fused
from effcc.ops.sort import Sort, TopK
from effcc.ops.view import Concat, Reshape, View

FEW_ROUNDS = 64
"""Up to so many elements a fold is a loop of each lane; beyond, a reduction across lanes."""


class Lowering(Placing):
    """Lowers one graph; a child lowers what an op is decomposed into, in the same plan."""

    def __init__(self, tf32: bool = False, parent: Lowering | None = None):
        self.tf32 = tf32
        self.plan: Plan = Plan() if parent is None else parent.plan
        self.steps: list[Step] = self.plan.steps
        self.places: dict[Value, Place] = {}
        self.kernels: dict[Any, tuple[KernelSource, tuple[Symbol, ...], Dim]] = {} if parent is None else parent.kernels
        self.constants: dict[int, Buffer] = {} if parent is None else parent.constants

    # -- buffers -------------------------------------------------------------------------------------------------------
    def buffer(self, kind: str, type_: Tensor, name: str = "", **more: Any) -> Buffer:
        made = Buffer(name or f"t{len(self.plan.buffers)}", kind, type_.dtype, type_.size, **more)
        self.plan.buffers.append(made)
        return made

    def constant(self, blob: Blob) -> Place:
        if id(blob) not in self.constants:
            self.constants[id(blob)] = self.buffer("constant", blob.type, f"c{len(self.constants)}", blob=blob)
        return plain(self.constants[id(blob)], blob.type)

    def result(self, v: Value) -> Place:
        """Where a node should write a result: where it is wanted, or a temporary."""
        if v not in self.places:
            self.places[v] = plain(self.buffer("temporary", v.tensor), v.tensor)
        return self.places[v]

    def copied(self, v: Value) -> Place:
        target = plain(self.buffer("temporary", v.tensor), v.tensor)
        self.copy(self.places[v], target, v.tensor)
        return target

    def copy(self, source: Place, target: Place, type_: Tensor, node: Node | None = None) -> None:
        """An elementwise copy between places of one shape."""
        b = Builder("copy")
        graph = b.graph(b.identity(b.input("x", type_)))
        self.launch("copy", graph, (source,), (target,), lambda p: pointwise(graph, p), node)

    # -- kernels -------------------------------------------------------------------------------------------------------
    def launch(
        self, template: str, graph: Graph, operands: tuple[Place, ...], results: tuple[Place, ...],
        make: Callable[[dict[Value, Place]], Shape], node: Node | None,
    ) -> None:
        """Launch the kernel of a region: its text is written once for each distinct (template, region, layout)."""
        places = (*operands, *results)
        buffers = list(dict.fromkeys(p.buffer for p in places))
        number = {b: k for k, b in enumerate(buffers)}
        layout = tuple((number[p.buffer], p.buffer.dtype, p.buffer.size, p.shape, p.strides, p.offset) for p in places)
        label = "+".join(n.op.name for n in graph.nodes if not isinstance(n.op, Const))
        loc = node.loc if node is not None else UNKNOWN
        key = (template, graph._key, layout)
        if key not in self.kernels:
            bound = dict(zip((*graph.inputs, *graph.results), places, strict=True))
            shape, sizes = make(bound), sorted(region_symbols(graph, places), key=lambda x: x.name)
            text = KernelText(buffers, sizes)
            text.wide |= bounds(shape.programs)[1] is None or any(s.hi is None for s in sizes)
            shape.body(text)
            about = (f"{label}    {loc}", *(_shown(v, bound[v], text) for v in bound))
            source = text.finish(stem(template, graph), shape.warps, shape.stages, about)
            self.kernels[key] = source, tuple(sizes), shape.programs
        source, sizes_of, programs = self.kernels[key]
        flops: Dim = 0
        for n in graph.nodes:
            flops = n.op.flops(*n.types) + flops
        nbytes: Dim = 0
        for v in (*graph.inputs, *graph.results):
            nbytes = v.tensor.nbytes + nbytes
        writes = tuple(dict.fromkeys(p.buffer for p in results))
        self.steps.append(
            Launch(source, template, tuple(buffers), sizes_of, programs, writes, label, loc, flops, nbytes)
        )

    def run(self, graph: Graph) -> None:
        self.choose_places(graph)
        for node in graph.nodes:
            self.node(node)

    # -- nodes ---------------------------------------------------------------------------------------------------------
    def node(self, node: Node) -> None:
        op = node.op
        for assumption in assumed(node):
            self.plan.checks.setdefault(assumption, node.loc)
        if isinstance(op, Const):
            self.places[node.result] = self.constant(op.blob)
        elif isinstance(op, Identity) and node.result not in self.places:
            self.places[node.result] = self.places[node.operands[0]]
        elif isinstance(op, Concat):
            self._concat(node)
        elif isinstance(op, View) and self._view(node):
            pass
        elif isinstance(op, (Sort, TopK)):
            self._sort(node)
        else:
            self.region(node, op.body if isinstance(op, Fused) else as_region(node))

    def _view(self, node: Node) -> bool:
        x = node.operands[0]
        made = view(node.op, self.places[x], node.result.tensor)
        if made is None and isinstance(node.op, Reshape):
            source = self.copied(x)
            made = Place(source.buffer, node.op.shape, row_major(node.op.shape), source.offset)
        if made is None:
            return False
        wanted = self.places.setdefault(node.result, made)
        if not same_place(made, wanted):
            self.copy(made, wanted, node.result.tensor, node)
        return True

    def _concat(self, node: Node) -> None:
        whole = self.result(node.result)
        for v, part in zip(node.operands, concat_slices(node, whole), strict=True):
            if not same_place(self.places[v], part):
                self.copy(self.places[v], part, v.tensor, node)

    def _sort(self, node: Node) -> None:
        op: Any = node.op
        graph = as_region(node)
        inner, axis = graph.nodes[0], op.axis
        kept = node.results[0].shape[axis]
        descending = op.largest if isinstance(op, TopK) else op.descending
        operands, results = self._places_of(node)
        self.launch("sort", graph, operands, results, lambda p: sort(inner, axis, descending, kept, p), node)

    def _places_of(self, node: Node) -> tuple[tuple[Place, ...], tuple[Place, ...]]:
        return tuple(self.places[v] for v in node.operands), tuple(self.result(v) for v in node.results)

    def region(self, node: Node, body: Graph) -> None:
        """Launch a region by its anchors' loop nests."""
        operands, results = self._places_of(node)
        anchors = [n for n in body.nodes if not isinstance(n.op, Const) and not _is_map(n)]
        if not anchors:
            self.launch("pointwise", body, operands, results, lambda p: pointwise(body, p), node)
            return
        anchor = anchors[0]
        if isinstance(anchor.op, Attention):
            self._attention(node, body, anchor, operands, results)
            return
        nests = [n.op.compute(*n.types) for n in anchors]
        for n, nest in zip(anchors, nests, strict=True):
            if nest is None:
                hint = "control flow and sizes found at run time run on target cpu; others decompose"
                raise UnsupportedError(f"target cuda has no code for op {n.op.name}", where=n.loc, hint=hint)
        nest: Any = nests[0]
        if len(anchors) == 1 and (nest.write is not None or "s" in nest.kinds or nest.initial is not None):
            self._scan(node, body, anchor, nest, operands, results)
            return
        product_of = contraction_of(anchor) if len(anchors) == 1 else None
        if product_of is not None:
            tf32 = self.tf32
            kind = "contraction-tf32" if tf32 else "contraction"
            self.launch(kind, body, operands, results, lambda p: contraction(body, anchor, product_of, p, tf32), node)
            return
        length = bounds(product(d for d, kind in zip(nest.extents, nest.kinds, strict=True) if kind == "r"))[1]
        long = length is None or length > FEW_ROUNDS
        if len(anchors) > 1 or (folded(nest) is not None and long):
            self.launch("reduction", body, operands, results, lambda p: reduction(body, anchors, p), node)
        else:
            self.launch("fold", body, operands, results, lambda p: fold(body, anchor, p), node)

    def _scan(
        self, node: Node, body: Graph, anchor: Node, nest: Any, operands: tuple[Place, ...], results: tuple[Place, ...]
    ) -> None:
        if len([n for n in body.nodes if not isinstance(n.op, Const)]) > 1:
            raise UnsupportedError(f"{anchor.op.name} cannot be fused", where=node.loc)
        if nest.initial is not None:
            self.copy(operands[nest.initial], results[0], node.results[0].tensor, node)
        self.launch("scan", body, operands, results, lambda p: scan(anchor, p), node)

    def _attention(
        self, node: Node, body: Graph, anchor: Node, operands: tuple[Place, ...], results: tuple[Place, ...]
    ) -> None:
        if has_template(anchor):
            kind = "attention-tf32" if self.tf32 else "attention"
            self.launch(kind, body, operands, results, lambda p: attention(anchor, p, self.tf32), node)
            return
        from effcc.passes.fuse import Fuse
        from effcc.pipeline import Context

        b = Builder("attention")
        inputs = {v: b.input(f"x{k}", v.type) for k, v in enumerate(dict.fromkeys(anchor.operands))}
        parts = spelled_out(b, anchor.op, tuple(inputs[v] for v in anchor.operands))
        assert parts is not None
        graph = Fuse().run(b.graph(*parts), Context())
        child = Lowering(self.tf32, self)
        outer = dict(zip(body.inputs, operands, strict=True))
        child.places.update((inner, outer[v]) for v, inner in inputs.items())
        child.run(graph)
        self.copy(child.places[graph.results[0]], results[0], node.result.tensor, node)


def stem(template: str, graph: Graph) -> str:
    """A kernel's name for people: its ops, or its template where they are many."""
    names = [n.op.name for n in graph.nodes if not isinstance(n.op, Const)]
    return "_".join(names) if 0 < len(names) <= 4 else f"{template.replace('-', '_')}_{len(names)}_ops"


def _is_map(node: Node) -> bool:
    if isinstance(node.op, Attention):
        return False
    nest = node.op.compute(*node.types)
    return nest is not None and nest.is_map


def _shown(v: Value, place: Place, text: KernelText) -> str:
    """A parameter for people: its name, type and, where they are not the plain ones, strides and offset."""
    strides = "" if place.is_dense and place.offset == 0 else f" strides {place.strides} from {place.offset}"
    return f"{text.buffers[place.buffer]}: {v.type}{strides}"


def check_types(graph: Graph) -> None:
    """Refuse, by name, what no kernel can hold."""
    for v in graph.inputs:
        _check(v, f"input %{v.name}", "an input")
    for node in graph.nodes:
        for v in node.results:
            _check(v, node.loc, node.op.name)


def _check(v: Value, where: object, what: str) -> None:
    if not isinstance(v.type, Tensor):
        raise UnsupportedError(f"target cuda has no code for {what} of type {v.type}", where=where,
                               hint="only tensors can be computed at run time")
    if v.tensor.encoding is not None:
        raise UnsupportedError(f"target cuda has no code for values laid out as {v.tensor.encoding}", where=where)
    try:
        name_of(v.dtype)
    except UnsupportedError as error:
        raise UnsupportedError(error.message, where=where, hint=error.hint) from None


def lower(graph: Graph, tf32: bool = False) -> Plan:
    """The plan of a graph whose composites have been decomposed; raises UnsupportedError naming op and location."""
    check_types(graph)
    lowering = Lowering(tf32)
    plan = lowering.plan
    for k, v in enumerate(graph.inputs):
        buffer = lowering.buffer("input", v.tensor, v.name or f"input{k}", position=k)
        lowering.places[v] = plain(buffer, v.tensor)
        plan.inputs.append((v.name or f"input{k}", v.tensor, buffer))
    donated = dict(graph.aliases)
    outputs: list[Place] = []
    for k, v in enumerate(graph.results):
        name = v.name or f"output{k}"
        if k in donated:
            plan.inputs[donated[k]][2].donated = True
            place = plain(plan.inputs[donated[k]][2], v.tensor)
        else:
            place = plain(lowering.buffer("output", v.tensor, name, position=k), v.tensor)
        outputs.append(place)
        producer = graph.producer(v)
        if producer is not None and not isinstance(producer.op, Const) and graph.results.index(v) == k:
            if k not in donated:  # a donated input may still be read by others: written at the end
                lowering.places[v] = place
        plan.outputs.append((name, v.tensor, place))
    plan.aliases = graph.aliases
    lowering.run(graph)
    for v, place in zip(graph.results, outputs, strict=True):
        here = lowering.places[v]
        if not same_place(here, place):
            if here.is_plain and place.is_plain:
                lowering.steps.append(Copy(place.buffer, here.buffer))
            else:
                lowering.copy(here, place, v.tensor)
    return plan
