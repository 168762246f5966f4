"""Graphs on which a rule fires, and graphs that it must refuse: an instance of its pattern with one thing changed.

    graph = near_miss(drawer, rule)      # `drawer`: an effcc.testing.draw.Drawer

Rules are those of all installed passes. What may be changed: a dtype, a shape, an attribute, a constant, an op, the
order of operands, whether something is a constant, a size that becomes symbolic, who else reads an inner value.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import cache
from typing import Any

from effcc.errors import EffccError
from effcc.fuzz.rebuild import require_known, resize, retype
from effcc.ir import Builder, Graph, Node, Op, Tensor, Type, Value, load_ops, verify
from effcc.ir.blob import Blob
from effcc.ir.types import bool_, f32
from effcc.ops.constant import Const
from effcc.pipeline import Pass, find_pass, pass_table
from effcc.rewrite import Rule, rewrite
from effcc.testing import example, instance
from effcc.testing.draw import DIMS, MAX_ELEMENTS, NothingDrawn
from effcc.testing.operands import DTYPES_DRAWN

FIRING = 4
"""How many instances are drawn until the rule fires on one: then the change alone decides."""
ATTEMPTS = 16
"""How many changes are tried on an instance."""
NUMBERS = (0.0, 1.0, -1.0, 2.0, 0.5, -0.0, 3.0, math.nan, math.inf, -math.inf, 1e-3, 1e30, -1e30, 1e-40, 300.0, 3e38)
LARGEST = 4 * MAX_ELEMENTS
"""Elements of a value, at most."""
UNDRAWABLE = (EffccError, NothingDrawn, ValueError, TypeError, IndexError, KeyError, OverflowError, AttributeError)
"""What attributes and operands that do not go together are refused with."""


@cache
def rules() -> tuple[Rule, ...]:
    """Every rule of every installed pass, each once."""
    found = [rule for name in sorted(pass_table()) for rule in find_pass(name).rules]
    return tuple({identity(rule): rule for rule in found}.values())


@cache
def kinds() -> tuple[tuple[Rule, ...], ...]:
    """The rules by their class: those that differ in an op alone are many, and would be drawn most of the time."""
    found: dict[type[Rule], list[Rule]] = {}
    for rule in rules():
        found.setdefault(type(rule), []).append(rule)
    return tuple(map(tuple, found.values()))


@cache
def passes() -> tuple[Pass, ...]:
    """The installed passes that have an example of their own."""
    found = (find_pass(name)() for name in sorted(pass_table()))
    return tuple(p for p in found if type(p).example is not Pass.example)


def identity(rule: Rule) -> tuple[Any, ...]:
    fields = dataclasses.fields(rule) if dataclasses.is_dataclass(rule) else ()
    return type(rule), *(getattr(rule, f.name) for f in fields)


def drawn(d: Any, rule: Rule | Pass) -> Graph:
    """An instance of a rule's pattern (of a pass: its example), or a near miss of it."""
    if isinstance(rule, Pass):
        graph = example(rule, d)
        return changed(d, graph) if d.boolean() else graph
    if d.chance(60):
        return d.instance(rule.compiled, loose=True) if d.chance(25) else near_miss(d, rule)
    return d.instance(rule.compiled) if d.chance(30) else instance(rule, d)


def near_miss(d: Any, rule: Rule) -> Graph:
    """An instance of a rule's pattern, one or two things changed. Raises NothingDrawn where no change is well-typed."""
    graph = firing(d, rule)
    wanted = 2 if d.chance(20) else 1
    for _ in range(ATTEMPTS):
        new = changed(d, graph)
        wanted -= new is not graph
        graph = new
        if not wanted:
            return graph
    return d.nothing(f"no change of an instance of {rule.name} is well-typed")


def firing(d: Any, rule: Rule) -> Graph:
    """An instance of a rule's pattern on which it fires, where one is soon found."""
    graph = instance(rule, d)
    for _ in range(FIRING - 1):
        try:
            if rewrite(graph, [rule]) is not graph:
                break
        except Exception:  # the rule is wrong: a law will say so
            break
        graph = instance(rule, d)
    return graph


def changed(d: Any, graph: Graph) -> Graph:
    """The graph with one thing changed; the same where the change that was drawn is not well-typed."""
    if any(node.op.family == "sequence" for node in graph.walk()):  # their attributes say what their operands hold
        return graph
    try:
        new = d.choose(CHANGES)(d, graph)
        require_known(new)
        verify(new)
    except UNDRAWABLE:
        return graph
    small = all(n <= LARGEST for v in _tensors(new.values) if isinstance(n := v.tensor.size, int))
    return new if small and len(_tensors(new.results)) == len(new.results) else graph


# -- changes ---------------------------------------------------------------------------------------------------------
def copied(
    graph: Graph, types: Mapping[Value, Type] | None = None,
    nodes: Mapping[Node, tuple[Op, tuple[Value, ...]]] | None = None,
    constants: Mapping[Value, Blob] | None = None, freed: Collection[Node] = (),
) -> tuple[Builder, dict[Value, Value]]:
    """(a builder with the graph's nodes, what stands for each value): inputs of other `types` or become `constants`,
    `nodes` with other ops and operands, `freed` ones that become inputs. Raises TypeRuleError."""
    b, types, nodes, constants = Builder(graph.name), types or {}, nodes or {}, constants or {}
    values: dict[Value, Value] = {}
    for v in graph.inputs:
        values[v] = b.const(constants[v]) if v in constants else b.input(v.name, types.get(v, v.type))
    for node in graph.nodes:
        if node in freed:
            values[node.result] = b.input(f"c{len(b.inputs)}", node.result.type)
            continue
        op, operands = nodes.get(node, (node.op, node.operands))
        values.update(zip(node.results, b.emit(op, tuple(values[v] for v in operands)), strict=True))
    return b, values


def edited(graph: Graph, **changes: Any) -> Graph:
    b, values = copied(graph, **changes)
    return b.graph(*(values[v] for v in graph.results))


def _constants(graph: Graph) -> list[Node]:
    """Those that do not say how often a loop runs."""
    constants = [n for n in graph.nodes if isinstance(n.op, Const)]
    return [n for n in constants if all(user.op.name != "loop" for user in graph.users(n.result))]


def _tensors(values: Iterable[Value]) -> list[Value]:
    return [v for v in values if isinstance(v.type, Tensor)]


def _inner(d: Any, graph: Graph) -> Value:
    """A value that is neither an input nor a result."""
    made = [r for n in graph.nodes if not isinstance(n.op, Const) for r in n.results if r not in graph.results]
    return d.choose(_tensors(made) or d.nothing("nothing is inside"))


def other_shape(d: Any, graph: Graph) -> Graph:
    """One input or constant has another shape."""
    shaped = [*_tensors(graph.inputs), *(n.result for n in _constants(graph))]
    v = d.choose(shaped or d.nothing("no inputs"))
    shape = list(v.shape)
    kind = d.choose(("size", "one", "in front", "dropped", "wide"))
    if kind in ("size", "one") and shape:
        shape[d.integer(0, len(shape) - 1)] = 1 if kind == "one" else d.choose(DIMS)
    elif kind == "dropped" and shape:
        del shape[d.integer(0, len(shape) - 1)]
    elif kind == "wide":
        shape = [d.choose((2, 3)) if s == 1 else s for s in shape]
    else:
        shape.insert(0, d.choose((1, 2)))
    if tuple(shape) == v.shape:
        d.nothing("the shape is the same")
    node = graph.producer(v)
    if node is None:
        return edited(graph, types={v: v.tensor.with_shape(tuple(shape))})
    blob = d.blob(v.tensor.with_shape(tuple(shape)), _number(node.op.blob))  # type: ignore[attr-defined]
    return edited(graph, nodes={node: (Const(blob), ())})


def _number(blob: Blob) -> float | None:
    """The one number of a constant."""
    array = blob.array.reshape(-1)
    return float(array[0]) if array.size and array.dtype.kind in "fiub" and (array == array[0]).all() else None


def other_attribute(d: Any, graph: Graph) -> Graph:
    """One attribute of one op is drawn again."""
    able = [n for n in graph.nodes if not isinstance(n.op, Const) and n.op.attributes() and not n.op.graphs()]
    node = d.choose(able or d.nothing("no op has attributes"))
    drawn = {**node.op.attrs, **d.attributes(type(node.op), list(node.types), {})}
    name = d.choose([f.name for f in node.op.attributes()])
    value = node.op.attrs[name]
    kinds = {f.name: str(f.type) for f in node.op.attributes()}
    same = drawn[name] == value or d.boolean()  # (the same where nothing is known of what it means)
    value = d.choose(DTYPES_DRAWN) if "DType" in kinds[name] else _another(d, value) if same else drawn[name]
    return edited(graph, nodes={node: (node.op.replace(**{name: value}), node.operands)})


def _another(d: Any, value: Any) -> Any:
    """A value near another."""
    match value:
        case bool():
            return not value
        case int():
            return value + d.choose((1, -1, 2))
        case float():
            return d.choose((value / 2, value + 1, -value, 0.0))
        case tuple() if len(value) > 1 and sorted(value) == list(range(len(value))):
            j, k = d.permutation(len(value))[:2]
            return tuple(value[k if i == j else j if i == k else i] for i in range(len(value)))
        case tuple() if value:
            k = d.integer(0, len(value) - 1)
            return (*value[:k], _another(d, value[k]), *value[k + 1:])
        case None:
            return d.choose((1, 2, 0.5))
        case str():
            return d.choose(("none", "nhwc", "nchw", "edge", "tanh", "add"))
    return d.nothing("there is nothing near it")


def other_constant(d: Any, graph: Graph) -> Graph:
    """One constant has another value, in all elements or in one."""
    import numpy as np

    node = d.choose(_constants(graph) or d.nothing("no constants"))
    old, dtype = node.op.blob.array, node.result.dtype  # type: ignore[attr-defined]
    if old.dtype.kind not in "fiub" and dtype.name != "bf16":
        d.nothing("its elements are no numbers")
    number = d.choose(NUMBERS)
    if not dtype.is_float:
        low, high = (0, 1) if dtype.is_bool else (dtype.min, dtype.max)
        number = int(np.clip(np.nan_to_num(number, posinf=1e9), low, high))
    kind = d.choose(("all", "one", "near", "mixed"))
    array = np.array(old)
    with np.errstate(all="ignore"):
        if kind == "all" or not array.size:
            array = np.full_like(array, number)
        elif kind == "one":
            array.reshape(-1)[d.integer(0, array.size - 1)] = number
        elif kind == "near" and dtype.is_float:
            array = (array.astype("f8") * d.choose((1 + 1e-6, 1 + 1e-2, -1.0, 2.0, 1e20))).astype(array.dtype)
        else:
            array = d.blob(node.result.tensor).array
    return edited(graph, nodes={node: (Const(Blob(array, dtype)), ())})


def all_constants(d: Any, graph: Graph) -> Graph:
    """All constants of floats are one number: products and sums of large ones overflow."""
    import numpy as np

    number = d.choose((1e30, -1e30, 3e38, 1e-30, 300.0, 4e4))
    able = [n for n in _constants(graph) if n.result.dtype.is_float] or d.nothing("no constants are floats")
    with np.errstate(all="ignore"):
        blobs = {n: Blob(np.full_like(n.op.blob.array, number), n.result.dtype) for n in able}  # type: ignore[attr-defined]
    return edited(graph, nodes={n: (Const(blob), ()) for n, blob in blobs.items()})


def constant_is_input(d: Any, graph: Graph) -> Graph:
    node = d.choose(_constants(graph) or d.nothing("no constants"))
    return edited(graph, freed={node})


def input_is_constant(d: Any, graph: Graph) -> Graph:
    """One input is a constant, or all of them are."""
    inputs = _tensors(graph.inputs)
    v = d.choose(inputs or d.nothing("no inputs"))
    return edited(graph, constants={v: d.blob(v.tensor) for v in (inputs if d.chance(30) else (v,))})


def other_op(d: Any, graph: Graph) -> Graph:
    """One op is another of its family that takes as many operands."""
    able = [n for n in graph.nodes if not isinstance(n.op, Const) and not n.op.graphs()]
    node = d.choose(able or d.nothing("no ops"))
    own, count = type(node.op), len(node.operands)

    def fits(cls: type[Op]) -> bool:
        low, high = cls.arity()
        return cls is not own and cls.family == own.family and low <= count and (high is None or count <= high)

    cls = d.choose([c for _, c in sorted(load_ops().items()) if fits(c)] or d.nothing("no such op"))
    names = {f.name for f in cls.attributes()}
    kept = {k: a for k, a in node.op.attrs.items() if k in names}
    op = cls(**{**d.attributes(cls, list(node.types), kept), **kept})
    return edited(graph, nodes={node: (op, node.operands)})


def other_operands(d: Any, graph: Graph) -> Graph:
    """An op reads its operands in another order, one of them twice, another value (most often of the same type), or one
    less."""
    able = [n for n in graph.nodes if n.operands and not n.op.graphs()]
    node = d.choose(able or d.nothing("no ops"))
    k = d.integer(0, len(node.operands) - 1)
    before = graph.values[: graph.values.index(node.results[0])]
    kind = d.choose(("another", "turned", "fewer"))
    operands = list(node.operands)
    if kind == "turned":
        operands.reverse()
    elif kind == "fewer":
        operands.pop()
    else:
        same = [v for v in before if v.type == node.operands[k].type]
        operands[k] = d.choose(before if d.chance(15) else same)
    if tuple(operands) == node.operands:
        d.nothing("the operands are the same")
    return edited(graph, nodes={node: (node.op, tuple(operands))})


def second_reader(d: Any, graph: Graph) -> Graph:
    """An inner value or a constant has another reader, whose result is one of the graph's."""
    constants = _constants(graph)
    v = d.choose(constants).result if constants and d.chance(30) else _inner(d, graph)
    b, values = copied(graph)
    given = values[v]
    other = b.cast(given, to=bool_ if v.dtype != bool_ else f32) if d.boolean() else b.abs(given)
    return b.graph(*(values[r] for r in graph.results), other)


def inner_result(d: Any, graph: Graph) -> Graph:
    """An inner value is a result as well."""
    v = _inner(d, graph)
    b, values = copied(graph)
    return b.graph(*(values[r] for r in graph.results), values[v])


CHANGES: tuple[Callable[[Any, Graph], Graph], ...] = (
    other_attribute, other_attribute, other_constant, other_constant, retype, other_shape, resize,
    all_constants, constant_is_input, input_is_constant, other_op, other_operands, second_reader, inner_result,
)  # fmt: skip
"""As often as they stand here: most guards ask for attributes and constants."""
