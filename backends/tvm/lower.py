"""Graph -> plan: every node becomes a place (views), a kernel launch, or control flow over launches.

Backends lower families, not names: a node is taken by its nest (map, fold, scan), its anchor (contraction, window,
attention)
or its algorithm (sorting); what has none of these is a composite that the pipeline should have decomposed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from effcc.backends.tvm import contractions, windows
from effcc.backends.tvm.emit import KernelBuilder
from effcc.backends.tvm.kernels import Request, canonical
from effcc.backends.tvm.place import Buffer, Place, plain, row_major, view
from effcc.backends.tvm.placing import Placing, concat_slices, same_place
from effcc.backends.tvm.plan import Check, KernelPlan, Launch, Plan, Step, Touched
from effcc.backends.tvm.region import is_immediate, is_light
from effcc.backends.tvm.templates import loops
from effcc.backends.tvm.templates.rows import rows
from effcc.backends.tvm.tiles.space import TileSpace
from effcc.errors import UnsupportedError
from effcc.ir import Builder, Graph, Node, Op, Symbol, Tensor, Value
from effcc.ir.assumptions import assumed
from effcc.ir.blob import Blob
from effcc.ir.dims import Dim, as_symbol, substitute, symbols
from effcc.ir.encodings import NIBBLES
from effcc.ir.graph import symbols_in
from effcc.ir.location import UNKNOWN
from effcc.ir.types import Type
from effcc.machine import Machine
from effcc.ops.constant import Const
from effcc.ops.contraction import Matmul
from effcc.ops.elementwise import Identity
from effcc.ops.fused import Fused
from effcc.ops.reduction import Reduction
from effcc.ops.view import Concat, Reshape, View
from effcc.ops.window import AvgPool, Conv, MaxPool

Body = Callable[[KernelBuilder], None]
Lowerer = Callable[["Lowering", Node], None]
SPECIAL: dict[type, Lowerer] = {}
"""Ops that lower in their own way (control flow, algorithms), by class; filled by `lowers`."""


def lowers(*classes: type) -> Callable[[Lowerer], Lowerer]:
    def register(function: Lowerer) -> Lowerer:
        for cls in classes:
            SPECIAL[cls] = function
        return function

    return register


class Lowering(Placing):
    """Lowers one graph; nested graphs (branches, loop bodies) are lowered by children that share kernels and
    buffers."""

    def __init__(self, machine: Machine, parent: Lowering | None = None):
        self.machine = machine
        self.plan = Plan() if parent is None else parent.plan
        self.steps: list[Step] = self.plan.steps if parent is None else []
        self.places: dict[Value, Place] = {}
        self.kernels: dict[Any, tuple[KernelPlan, tuple[Symbol, ...], Dim, Dim]] = (
            {} if parent is None else parent.kernels
        )
        self.packed: dict[Any, Buffer] = {} if parent is None else parent.packed
        self.constants: dict[int, Buffer] = {} if parent is None else parent.constants
        self.told: set[Symbol] = set()
        """Sizes that are known before the first step, and that this graph is sure to be run with: none in a branch."""

    # -- buffers -------------------------------------------------------------------------------------------------------
    def buffer(self, kind: str, type_: Tensor, name: str = "", **more: Any) -> Buffer:
        made = Buffer(name or f"t{len(self.plan.buffers)}", kind, type_.dtype, type_.size, **more)
        self.plan.buffers.append(made)
        return made

    def temporary(self, type_: Tensor) -> Place:
        return plain(self.buffer("temporary", type_), type_)

    def constant(self, blob: Blob) -> Place:
        if id(blob) not in self.constants:
            self.constants[id(blob)] = self.buffer("constant", blob.type, f"c{len(self.constants)}", blob=blob)
        return plain(self.constants[id(blob)], blob.type)

    def result(self, v: Value) -> Place:
        """Where a node should write a result: where it is wanted (an output, a slice of a concatenation), or a
        temporary."""
        if v not in self.places:
            self.places[v] = self.temporary(v.tensor)
        return self.places[v]

    def place(self, v: Value) -> Place:
        return self.places[v]

    def plain_place(self, v: Value) -> Place:
        """The value in row-major order without gaps, copied if it lies otherwise."""
        here = self.places[v]
        return here if here.is_dense else self.copied(v)

    def copied(self, v: Value) -> Place:
        target = self.temporary(v.tensor)
        self.copy(here := self.places[v], target, v.tensor)
        assert here.shape == target.shape
        return target

    def copy(self, source: Place, target: Place, type_: Tensor) -> None:
        """An elementwise copy between places of one shape."""
        b = Builder("copy")
        x = b.input("x", type_)
        graph = b.graph(b.identity(x))
        self.region(graph, (source,), (target,), "copy", None)

    # -- kernels -------------------------------------------------------------------------------------------------------
    def launch(
        self,
        template: str,
        key: Any,
        graph: Graph,
        operands: tuple[Place, ...],
        results: tuple[Place, ...],
        make: Callable[[dict[Value, Place]], tuple[TileSpace | Dim, Dim, Body]],
        node: Node | None,
        more: tuple[Place, ...] = (),
    ) -> None:
        """Launch the kernel of a region: built once for each distinct (template, region, layout).

        make: places of the graph's inputs and results -> (tiles, scratch bytes, body); the tiles as a space that says
        what each of them writes, or as a mere number. `more`: further places the body reads.
        """
        places = (*operands, *results, *more)
        buffers = list(dict.fromkeys(p.buffer for p in places))
        number = {b: k for k, b in enumerate(buffers)}
        layout = tuple((number[p.buffer], p.buffer.element, p.shape, p.strides, p.offset) for p in places)
        full = (template, key, graph._key, layout)
        if full not in self.kernels:
            bound = dict(zip((*graph.inputs, *graph.results), places, strict=False))
            tiles, scratch, body = make(bound)
            sizes = sorted(region_symbols(graph, places), key=lambda x: x.name)
            space = tiles if isinstance(tiles, TileSpace) else None
            touched = Touched(graph, operands, results, more, tuple(buffers), space)
            self.kernels[full] = (
                self._kernel(template, key, touched, layout, sizes, body),
                tuple(sizes),
                tiles.tiles if isinstance(tiles, TileSpace) else tiles,
                scratch,
            )
        kernel, sizes, tiles, scratch = self.kernels[full]
        flops: Dim = 0
        for n in graph.nodes:
            flops = n.op.flops(*n.types) + flops
        nbytes: Dim = 0
        for v in (*graph.inputs, *graph.results):
            nbytes = v.tensor.nbytes + nbytes
        label = "+".join(n.op.name for n in graph.nodes if not isinstance(n.op, Const))
        self.steps.append(
            Launch(
                kernel,
                tuple(buffers),
                sizes,
                tiles,
                scratch,
                tuple(dict.fromkeys(p.buffer for p in results)),
                label,
                node.loc if node is not None else UNKNOWN,
                flops,
                nbytes,
            )
        )

    def _kernel(
        self, template: str, key: Any, touched: Touched, layout: Any, sizes: list[Symbol], body: Body
    ) -> KernelPlan:
        bits, buffers = self.machine.vector_bits, list(touched.buffers)
        short = self.machine.multiplies_bf16 and is_light(touched.graph)  # (its branch would part long computations)
        name = repr((template, key, contractions.cpu_of(self.machine), layout, canonical(touched.graph)))
        request = Request(name, lambda: KernelBuilder(template, bits, short).build(buffers, sizes, body))
        return KernelPlan(request, template, touched)

    def launch_raw(
        self,
        template: str,
        key: Any,
        graph: Graph,
        operands: tuple[Place, ...],
        results: tuple[Place, ...],
        scratch: Dim,
        emit: Body,
        node: Node | None,
    ) -> None:
        """Launch one tile of hand-written code over places (the region only names types and op)."""
        places = (*operands, *results)
        buffers = list(dict.fromkeys(p.buffer for p in places))
        sizes = sorted(region_symbols(graph, places), key=lambda x: x.name)
        number = {b: k for k, b in enumerate(buffers)}
        layout = tuple((number[p.buffer], p.buffer.element, p.shape, p.strides, p.offset) for p in places)
        touched = Touched(graph, operands, results, (), tuple(buffers), None)
        kernel = self._kernel(template, key, touched, layout, sizes, emit)
        label = graph.name if node is None else f"{node.op.name}.{graph.name}"
        self.steps.append(
            Launch(
                kernel,
                tuple(buffers),
                tuple(sizes),
                1,
                scratch,
                tuple(dict.fromkeys(p.buffer for p in results)),
                label,
                node.loc if node is not None else UNKNOWN,
            )
        )

    def bound(self, d: Dim) -> Dim:
        """An upper bound of a size in terms of the inputs' sizes alone."""
        return substitute(d, self.plan.defined)

    def region(
        self, graph: Graph, operands: tuple[Place, ...], results: tuple[Place, ...], key: Any, node: Node | None
    ) -> None:
        """Lower a region of maps, with or without reductions over trailing axes."""
        if any(isinstance(n.op, Reduction) for n in graph.nodes):
            self.launch("rows", key, graph, operands, results, lambda p: rows(graph, p), node)
        else:

            def make(p: dict[Value, Place]) -> tuple[TileSpace | Dim, Dim, Body]:
                tiles, body = loops.pointwise(graph, p)
                return tiles, 0, body

            self.launch("pointwise", key, graph, operands, results, make, node)

    # -- nodes ---------------------------------------------------------------------------------------------------------
    def run(self, graph: Graph) -> None:
        """Lower every node; the places of inputs (and of results that are wanted somewhere) are set before."""
        self.choose_places(graph)
        for node in graph.nodes:
            self.node(node)

    def choose_places(self, graph: Graph) -> None:
        """Constants in nibbles that not only maps read are spread to bytes; the rest as ever."""
        for node in graph.nodes:
            op = node.op
            if isinstance(op, Const) and op.blob.type.encoding == NIBBLES and not _read_by_maps(graph, node.result):
                self.places[node.result] = self.constant(Blob(op.blob.array, op.blob.type.dtype))
        super().choose_places(graph)

    def places_itself(self, op: Op) -> bool:
        return type(op) in SPECIAL

    def check(self, node: Node) -> None:
        """Have what the node's type rule assumes about sizes checked: in the graph itself with the inputs' sizes, where
        these tell; else in front of the node."""
        for assumption in assumed(node):
            step = Check(assumption, node.loc)
            told = symbols(assumption.left) | symbols(assumption.right) <= self.told
            earlier = self.plan.checks if told else self.steps
            if not any(isinstance(c, Check) and c.assumption == assumption for c in earlier):
                earlier.append(step)

    def node(self, node: Node) -> None:
        op = node.op
        self.check(node)
        special = SPECIAL.get(type(op))
        if is_empty(node):
            for v in node.results:
                self.result(v)
        elif special is not None:
            special(self, node)
        elif isinstance(op, Const):
            if node.result not in self.places:
                self.places[node.result] = self.constant(op.blob)
        elif isinstance(op, Identity) and node.result not in self.places:
            self.places[node.result] = self.places[node.operands[0]]
        elif isinstance(op, Concat):
            self._concat(node)
        elif isinstance(op, View) and self._view(node):
            pass
        elif isinstance(op, Fused):
            self.fused(node, op.body)
        else:
            self.fused(node, as_region(node))

    def _view(self, node: Node) -> bool:
        if node.result in self.places:  # wanted in a certain place: copy there
            source = self._viewed(node)
            if source is None:
                return False
            if not same_place(source, self.places[node.result]):
                self.copy(source, self.places[node.result], node.result.tensor)
            return True
        source = self._viewed(node)
        if source is None:
            return False
        self.places[node.result] = source
        return True

    def _viewed(self, node: Node) -> Place | None:
        x = node.operands[0]
        made = view(node.op, self.places[x], node.result.tensor)
        if made is None and isinstance(node.op, Reshape):
            made = Place((p := self.copied(x)).buffer, node.op.shape, row_major(node.op.shape), p.offset)
        return made

    def _immediates_in_memory(
        self, body: Graph, operands: tuple[Place, ...], anchor: Node
    ) -> tuple[Graph, tuple[Place, ...]]:
        """The region with constants of one element as operands where its anchor, or what dequantizes for it, reads
        them: templates load weights and scales from memory."""
        makers = [m for v in anchor.operands if (m := body.producer(v)) is not None and m.op.family == "quantize"]
        wanted = {v for n in (anchor, *makers) for v in n.operands}
        read = [n for n in body.nodes if isinstance(n.op, Const) and n.result in wanted]
        if not read:
            return body, operands
        inputs = (*body.inputs, *(n.result for n in read))
        nodes = tuple(n for n in body.nodes if n not in read)
        return Graph(body.name, inputs, nodes, body.results), (*operands, *(self.constant(n.op.blob) for n in read))

    def _concat(self, node: Node) -> None:
        whole = self.result(node.result)
        for v, part in zip(node.operands, concat_slices(node, whole), strict=True):
            here = self.places[v]
            if not same_place(here, part):
                self.copy(here, part, v.tensor)

    def fused(self, node: Node, body: Graph) -> None:
        """Lower a region by its anchor."""
        operands = tuple(self.places[v] for v in node.operands)
        results = tuple(self.result(v) for v in node.results)
        anchors = [n for n in body.nodes if not _is_map(n)]
        if not anchors or all(_is_row_reduction(n, anchors[0]) for n in anchors):
            self.region(body, operands, results, None, node)
            return
        if len(anchors) > 1:
            raise UnsupportedError(
                f"a region with {len(anchors)} anchors ({', '.join(a.op.name for a in anchors)})", where=node.loc
            )
        anchor = anchors[0]
        if isinstance(anchor.op, (Conv, Matmul)):
            body, operands = self._immediates_in_memory(body, operands, anchor)
        nest = anchor.op.compute(*anchor.types)
        if isinstance(anchor.op, Matmul):
            contractions.lower_matmul(self, node, body, anchor, operands, results)
        elif isinstance(anchor.op, (Conv, MaxPool, AvgPool)) and windows.has_template(anchor):
            windows.lower_window(self, node, body, anchor, operands, results)
        elif type(anchor.op) in ANCHORS:
            ANCHORS[type(anchor.op)](self, node, body, anchor, operands, results)
        elif nest is None:
            raise UnsupportedError(
                f"target cpu has no code for op {anchor.op.name}",
                where=node.loc,
                hint="decompose it into ops listed by `effcc ops`",
            )
        elif nest.write is not None or "s" in nest.kinds or nest.initial is not None:
            self._scan(node, body, anchor, nest, operands, results)
        else:

            def make(p: dict[Value, Place]) -> tuple[TileSpace | Dim, Dim, Body]:
                tiles, emit = loops.fold(body, anchor, p)
                return tiles, 0, emit

            self.launch("fold", None, body, operands, results, make, node)

    def _scan(
        self, node: Node, body: Graph, anchor: Node, nest: Any, operands: tuple[Place, ...], results: tuple[Place, ...]
    ) -> None:
        if len([n for n in body.nodes if not isinstance(n.op, Const)]) > 1:
            raise UnsupportedError(f"{anchor.op.name} cannot be fused", where=node.loc)
        if nest.initial is not None and not same_place(operands[nest.initial], results[0]):
            self.copy(operands[nest.initial], results[0], node.results[0].tensor)
        elif nest.initial is not None:  # written in place: what else it reads there is read before
            operands = tuple(
                self.copied(v) if k != nest.initial and place.buffer is results[0].buffer else place
                for k, (v, place) in enumerate(zip(node.operands, operands, strict=True))
            )

        def make(p: dict[Value, Place]) -> tuple[TileSpace | Dim, Dim, Body]:
            tiles, emit = loops.scan(anchor, p)
            return tiles, 0, emit

        self.launch("scan", None, body, operands, results, make, node)


ANCHORS: dict[type, Callable[..., None]] = {}
"""Templates of further anchor ops (attention, ...), by class."""


def as_region(node: Node) -> Graph:
    """A region of one node."""
    b = Builder(node.op.name)
    mapping: dict[Value, Value] = {}
    for k, v in enumerate(dict.fromkeys(node.operands)):
        mapping[v] = Value(v.type, f"x{k}")
    inputs = tuple(Value(v.type, f"x{k}") for k, v in enumerate(node.operands))
    results = tuple(Value(r.type) for r in node.results)
    return Graph(b.name, inputs, (Node(node.op, inputs, results, node.loc),), results)


def is_empty(node: Node) -> bool:
    """Whether a node computes no element whatever the sizes: there is nothing to launch."""
    op = node.op
    if isinstance(op, Const) or (op.graphs() and not isinstance(op, Fused)) or op.defines(*node.types):
        return False
    return all(isinstance(v.type, Tensor) and 0 in v.type.shape for v in node.results)


def _is_map(node: Node) -> bool:
    if is_immediate(node.op):
        return True
    if isinstance(node.op, (Matmul, Conv)) or type(node.op) in ANCHORS:
        return False
    nest = node.op.compute(*node.types)
    return nest is not None and nest.is_map


def _read_by_maps(graph: Graph, v: Value) -> bool:
    """Whether all that reads a value are maps, which decode each element that they load."""
    def reads(node: Node) -> list[Node]:
        if not isinstance(node.op, Fused):
            return [node]
        body = node.op.body
        return [r for x, o in zip(body.inputs, node.operands, strict=True) if o is v for r in body.users(x)]

    readers = [r for node in graph.users(v) for r in reads(node)]
    moved = (View, Identity, Concat, *SPECIAL)
    return v not in graph.results and all(_is_map(r) and not isinstance(r.op, moved) for r in readers)


def _is_row_reduction(node: Node, first: Node) -> bool:
    """A reduction over trailing axes, the same as the first's, that keeps its axes (or is alone)."""
    if not (isinstance(node.op, Reduction) and node.op.compute(*node.types) is not None):
        return False
    axes, rank = node.op.axes, node.operands[0].tensor.rank  # type: ignore[attr-defined]
    return (
        bool(axes)
        and axes == tuple(range(rank - len(axes), rank))
        and node.op.keepdims  # type: ignore[attr-defined]
        and node.operands[0].shape == first.operands[0].shape
        and axes == first.op.axes
    )  # type: ignore[attr-defined]


def region_symbols(graph: Graph, places: tuple[Place, ...]) -> set[Symbol]:
    """Every size symbol that code for the region may need."""
    found: set[Symbol] = set()
    for p in places:
        for d in (p.offset, *p.shape, *p.strides):
            found |= symbols(d)
    return found | symbols_in(graph)


def check_types(graph: Graph) -> None:
    """Refuse, by name, what no buffer can hold: lists and optional values, complex numbers, strings."""
    for v in graph.inputs:
        if not isinstance(v.type, Tensor):
            message = f"target cpu takes tensors, not {v.type}"
            raise UnsupportedError(message, where=f"input %{v.name}", hint="make its elements inputs")
        _check_dtype(v.type, f"input %{v.name}")
    for node in graph.walk():
        for v in node.results:
            if not isinstance(v.type, Tensor):
                message = f"target cpu has no code for {node.op.name}, which gives {v.type}"
                raise UnsupportedError(message, where=node.loc, hint="only tensors can be computed at run time")
            _check_dtype(v.type, node.loc)


def _check_dtype(type_: Type, where: object) -> None:
    if isinstance(type_, Tensor) and type_.dtype.kind in "cs":
        strings = type_.dtype.kind == "s"
        raise UnsupportedError(
            f"target cpu has no code for {'strings' if strings else 'complex numbers'} ({type_})",
            where=where,
            hint="do that part outside of the model" if strings else "compute with pairs of real numbers",
        )


def lower(graph: Graph, machine: Machine) -> Plan:
    """The plan of a graph whose composites have been decomposed; raises UnsupportedError naming op and location."""
    from effcc.backends.tvm import attentions, control, routines  # noqa: F401  (they register what they lower)

    check_types(graph)
    lowering = Lowering(machine)
    plan = lowering.plan
    for k, v in enumerate(graph.inputs):
        buffer = lowering.buffer("input", v.type, v.name or f"input{k}", position=k)
        lowering.places[v] = plain(buffer, v.type)
        lowering.told |= set(filter(None, map(as_symbol, v.type.shape)))
        plan.inputs.append((v.name or f"input{k}", v.type, buffer))
    donated = dict(graph.aliases)
    outputs: list[Place] = []
    for k, v in enumerate(graph.results):
        name = v.name or f"output{k}"
        if k in donated:
            source = plan.inputs[donated[k]][2]
            source.donated = True
            place = plain(source, v.tensor)
        else:
            place = plain(lowering.buffer("output", v.tensor, name, position=k), v.tensor)
        outputs.append(place)
        if _may_write_directly(graph, v, k, donated) or k in donated and _updates(graph, v, graph.inputs[donated[k]]):
            lowering.places[v] = place
        plan.outputs.append((name, v.tensor, place))
    plan.aliases = graph.aliases
    lowering.run(graph)
    control.deliver(lowering, graph.results, outputs)
    return plan


def _may_write_directly(graph: Graph, v: Value, k: int, donated: dict[int, int]) -> bool:
    """Whether the producer of a result can write it straight to the caller's memory."""
    producer = graph.producer(v)
    if producer is None or isinstance(producer.op, Const) or graph.results.index(v) != k:
        return False
    return k not in donated  # a donated input may still be read by others: written at the end


def _updates(graph: Graph, v: Value, x: Value) -> bool:
    """Whether v is x with a part of it written anew, and nothing reads the old x after that: x's memory may serve."""
    producer = graph.producer(v)
    if producer is None or x in graph.results or graph.results.count(v) > 1:
        return False
    nest = None if producer.op.graphs() else producer.op.compute(*producer.types)
    if nest is None or nest.initial is None or producer.operands[nest.initial] is not x:
        return False
    position = {id(n): k for k, n in enumerate(graph.nodes)}
    others = [u for u in graph.users(x) if u is not producer]
    return all(position[id(u)] < position[id(producer)] and not isinstance(u.op, (View, Identity)) for u in others)
