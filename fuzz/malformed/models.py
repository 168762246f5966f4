"""Changes to ONNX models. `mutate(data, draw, others)` gives the bytes of a model with one to four of them.

Most know nothing of ONNX: they draw a message and one of its fields by protobuf's own description of them. The others
make what blind draws seldom reach: cycles, recursion, deep nesting, sizes without end, data files elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cache
from random import Random
from typing import TYPE_CHECKING, Any

from effcc.fuzz.malformed import octets
from effcc.fuzz.malformed.octets import NUMBERS

if TYPE_CHECKING:
    import onnx

FLOATS = (0.0, -0.0, 1.0, -1.0, float("nan"), float("inf"), float("-inf"), 1e-45, 1e38, 3.5)
ODD_NAMES = ("", "x", " ", "\n", "a\nb", "\x00", "\x1b[31m", "%0", '"', "ai.onnx", "../..", "é" * 300, "If", "Loop")
PLACES = (
    "../outside/secret.bin", "{outside}/secret.bin", "link.bin", "linked/secret.bin", "/etc/hostname", "/dev/zero",
    "data.bin", "missing.bin", "..", ".", "", "data.bin/../../outside/secret.bin", "a" * 5000, "data.bin\x00.txt",
)  # fmt: skip
"""Where external data is said to lie; `{outside}` becomes a folder beside the model's."""

Change = Callable[[Random, "onnx.ModelProto", Sequence[bytes]], None]
CHANGES: dict[str, Change] = {}


class NothingToChange(Exception):
    """The model has nothing of what a change is for."""


def change(function: Change) -> Change:
    CHANGES[function.__name__.strip("_")] = function
    return function


def mutate(data: bytes, draw: Random, others: Sequence[bytes]) -> tuple[bytes, list[str]]:
    """A changed model, and which changes were made."""
    import onnx
    from google.protobuf.message import DecodeError, EncodeError

    done: list[str] = []
    if draw.random() < 0.85:
        model = onnx.ModelProto.FromString(data)
        for _ in range(draw.choice((1, 1, 1, 2, 3, 4))):
            name = draw.choice(tuple(CHANGES))
            try:
                CHANGES[name](draw, model, others)
                done.append(name)
            except (NothingToChange, EncodeError, DecodeError):  # or it is too deep for protobuf
                continue
        try:
            data = model.SerializeToString()
        except (EncodeError, DecodeError, ValueError):  # too deep for protobuf
            done.clear()
    if not done or draw.random() < 0.1:
        data = octets.mutate(data, draw)
        done.append("octets")
    return data, done


# -- what any protobuf message has --
def messages(root: Any) -> Iterator[Any]:
    """A message and those inside of it."""
    stack = [root]
    while stack:
        message = stack.pop()
        yield message
        for field, value in message.ListFields():
            if field.message_type is not None:
                stack.extend(value if field.is_repeated else (value,))


def _fields(root: Any, fits: Callable[[Any], bool]) -> list[tuple[Any, Any]]:
    """(message, field) for all fields that are set and fit."""
    return [(m, f) for m in messages(root) for f, _ in m.ListFields() if fits(f)]


def _drawn(draw: Random, places: Sequence[Any]) -> Any:
    if not places:
        raise NothingToChange
    return draw.choice(places)


@change
def drop(draw: Random, model: onnx.ModelProto, others: Sequence[bytes]) -> None:
    message, field = _drawn(draw, _fields(model, lambda f: True))
    message.ClearField(field.name)


@change
def elements(draw: Random, model: onnx.ModelProto, others: Sequence[bytes]) -> None:
    """An element of a list is left out, doubled or moved."""
    message, field = _drawn(draw, _fields(model, lambda f: f.is_repeated))
    values = getattr(message, field.name)
    items = [_copy(x) for x in values]
    at = draw.randrange(len(items))
    match draw.randrange(4):
        case 0:
            del items[at]
        case 1:
            items.insert(draw.randint(0, len(items)), items[at])
        case 2:
            items.extend([items[at]] * draw.choice((1, 10, 300)))
        case _:
            draw.shuffle(items)
    del values[:]
    values.extend(items)


def _copy(value: Any) -> Any:
    if not hasattr(value, "CopyFrom"):
        return value
    out = type(value)()
    out.CopyFrom(value)
    return out


@change
def number(draw: Random, model: onnx.ModelProto, others: Sequence[bytes]) -> None:
    """A number, set or not, becomes an extreme one."""
    message = draw.choice(list(messages(model)))
    fields = [f for f in message.DESCRIPTOR.fields if f.cpp_type <= f.CPPTYPE_BOOL or f.cpp_type == f.CPPTYPE_ENUM]
    field = _drawn(draw, fields)
    if field.cpp_type in (field.CPPTYPE_FLOAT, field.CPPTYPE_DOUBLE):
        value: Any = draw.choice(FLOATS)
    elif field.cpp_type == field.CPPTYPE_ENUM:
        value = draw.choice([v.number for v in field.enum_type.values])
    elif field.cpp_type == field.CPPTYPE_BOOL:
        value = draw.random() < 0.5
    else:
        low, high = _range(field)
        value = max(low, min(draw.choice(NUMBERS), high))
    if not field.is_repeated:
        setattr(message, field.name, value)
        return
    values = getattr(message, field.name)
    if values and draw.random() < 0.8:
        values[draw.randrange(len(values))] = value
    else:
        values.append(value)


def _range(field: Any) -> tuple[int, int]:
    bits = 64 if field.cpp_type in (field.CPPTYPE_INT64, field.CPPTYPE_UINT64) else 32
    unsigned = field.cpp_type in (field.CPPTYPE_UINT32, field.CPPTYPE_UINT64)
    return (0, 2**bits - 1) if unsigned else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)


@change
def name(draw: Random, model: onnx.ModelProto, others: Sequence[bytes]) -> None:
    """A text becomes another one of the model, or an odd one."""
    places = _fields(model, lambda f: f.type == f.TYPE_STRING)
    message, field = _drawn(draw, places)
    known = [t for m, f in places for t in _texts(m, f)]
    value = draw.choice(known) if draw.random() < 0.6 else draw.choice(ODD_NAMES)
    _put(draw, message, field, value)


def _texts(message: Any, field: Any) -> list[Any]:
    value = getattr(message, field.name)
    return list(value) if field.is_repeated else [value]


def _put(draw: Random, message: Any, field: Any, value: Any) -> None:
    if field.is_repeated:
        values = getattr(message, field.name)
        values[draw.randrange(len(values))] = value
    else:
        setattr(message, field.name, value)


@change
def content(draw: Random, model: onnx.ModelProto, others: Sequence[bytes]) -> None:
    """Bytes (tensors' data, texts of attributes) change."""
    message, field = _drawn(draw, _fields(model, lambda f: f.type == f.TYPE_BYTES))
    _put(draw, message, field, octets.mutate(draw.choice(_texts(message, field)), draw))


@change
def graft(draw: Random, model: onnx.ModelProto, others: Sequence[bytes]) -> None:
    """A message becomes one of the same kind from this or another model."""
    import onnx

    other = model if draw.random() < 0.4 else onnx.ModelProto.FromString(draw.choice(others))
    target = draw.choice(list(messages(model)))
    fitting = [m for m in messages(other) if m.DESCRIPTOR is target.DESCRIPTOR and m is not target]
    target.CopyFrom(_copy(_drawn(draw, fitting)))


@change
def kind(draw: Random, model: onnx.ModelProto, others: Sequence[bytes]) -> None:
    """An attribute says it is of another kind, or a value of another element type."""
    import onnx

    kinds = (onnx.AttributeProto, onnx.TensorProto, onnx.TypeProto.Tensor)
    places = [m for m in messages(model) if isinstance(m, kinds)]
    place = _drawn(draw, places)
    if isinstance(place, onnx.AttributeProto):
        place.type = draw.choice(onnx.AttributeProto.AttributeType.values())  # type: ignore[assignment]
    elif isinstance(place, onnx.TensorProto):
        place.data_type = draw.choice((*range(30), -1, 2**31 - 1))
    else:
        place.elem_type = draw.choice((*range(30), -1, 2**31 - 1))


# -- what ONNX models have --
def graphs(model: onnx.ModelProto) -> list[Any]:
    import onnx

    return [m for m in messages(model) if isinstance(m, (onnx.GraphProto, onnx.FunctionProto)) and m.node]


@change
def wiring(draw: Random, model: onnx.ModelProto, others: Sequence[bytes]) -> None:
    """An input is another value of the graph: a later one (a cycle), its own result, or of another type."""
    graph = _drawn(draw, graphs(model))
    node = draw.choice(graph.node)
    values = [o for n in graph.node for o in n.output] + list(node.output)
    side = node.input if node.input and draw.random() < 0.8 else node.output
    if not side or not values:
        raise NothingToChange
    side[draw.randrange(len(side))] = draw.choice(values)


@change
def constant(draw: Random, model: onnx.ModelProto, others: Sequence[bytes]) -> None:
    """A whole number in a constant, such as of a shape or an axis, becomes an extreme one."""
    import numpy as np
    import onnx
    from onnx import numpy_helper

    whole = (onnx.TensorProto.INT64, onnx.TensorProto.INT32)
    tensors = [m for m in messages(model) if isinstance(m, onnx.TensorProto) and m.data_type in whole]
    tensor = _drawn(draw, [t for t in tensors if t.data_location != onnx.TensorProto.EXTERNAL])
    try:
        array = numpy_helper.to_array(tensor).copy()
    except (ValueError, TypeError):
        raise NothingToChange from None
    if not array.size:
        raise NothingToChange
    limits = np.iinfo(array.dtype)
    array.flat[draw.randrange(array.size)] = max(limits.min, min(draw.choice(NUMBERS), limits.max))
    tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))


@change
def shape(draw: Random, model: onnx.ModelProto, others: Sequence[bytes]) -> None:
    """A tensor or a declared type has other sizes: extreme, one more, one less."""
    import onnx

    places = [m for m in messages(model) if isinstance(m, (onnx.TensorProto, onnx.TensorShapeProto))]
    place = _drawn(draw, places)
    dims: Any = place.dims if isinstance(place, onnx.TensorProto) else place.dim
    if dims and draw.random() < 0.3:
        del dims[draw.randrange(len(dims))]
        return
    size = draw.choice(NUMBERS)
    if isinstance(place, onnx.TensorProto):
        dims.insert(draw.randint(0, len(dims)), size)
    else:
        dim = dims[draw.randrange(len(dims))] if dims and draw.random() < 0.7 else dims.add()
        dim.dim_value = size


@cache
def _schemas() -> list[tuple[str, str]]:
    import onnx.defs

    return [(schema.name, schema.domain) for schema in onnx.defs.get_all_schemas()]


@change
def operator(draw: Random, model: onnx.ModelProto, others: Sequence[bytes]) -> None:
    """A node is of another operator, its inputs and attributes as they are."""
    graph = _drawn(draw, graphs(model))
    node = draw.choice(graph.node)
    node.op_type, node.domain = draw.choice(_schemas())


@change
def versions(draw: Random, model: onnx.ModelProto, others: Sequence[bytes]) -> None:
    """Another opset, another IR version, or none."""
    if draw.random() < 0.3:
        model.ir_version = draw.choice(NUMBERS)
    if draw.random() < 0.2 or not model.opset_import:
        opset = model.opset_import.add()
        opset.domain = draw.choice(("", "ai.onnx", "ai.onnx.ml", "com.example", "\n"))
    else:
        opset = draw.choice(model.opset_import)
    opset.version = draw.choice((*NUMBERS, *range(1, 28)))


@change
def unnamed(draw: Random, model: onnx.ModelProto, others: Sequence[bytes]) -> None:
    """An initializer is gone, or hides an input, or is there twice."""
    if not model.graph.initializer:
        raise NothingToChange
    tensor = draw.choice(model.graph.initializer)
    match draw.randrange(3):
        case 0:
            model.graph.initializer.remove(tensor)
        case 1:
            model.graph.initializer.add().CopyFrom(tensor)
        case _:
            tensor.name = draw.choice([i.name for i in model.graph.input] or [""])


@change
def elsewhere(draw: Random, model: onnx.ModelProto, others: Sequence[bytes]) -> None:
    """A tensor's data is said to lie in another file."""
    import onnx

    tensor = _drawn(draw, [m for m in messages(model) if isinstance(m, onnx.TensorProto)])
    if draw.random() < 0.8:
        tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    del tensor.external_data[:]
    facts = {"location": draw.choice(PLACES)}
    for key in ("offset", "length"):
        if draw.random() < 0.5:
            facts[key] = str(draw.choice((*NUMBERS, "x", "", "1e3", "²", "-0", "9" * 5000)))
    for key, value in facts.items():
        tensor.external_data.add(key=key, value=value)


@change
def nest(draw: Random, model: onnx.ModelProto, others: Sequence[bytes]) -> None:
    """The graph is inside of branches inside of branches; in both branches of the innermost ones."""
    from onnx import helper

    wanted = [o.name for o in model.graph.output]
    if not wanted:
        raise NothingToChange
    body = list(model.graph.node)
    for level in range(draw.choice((1, 3, 10, 20, 30))):
        inner = helper.make_graph(body, f"level{level}", [], list(model.graph.output))
        condition = helper.make_node("Constant", [], [f"condition{level}"], value_int=draw.choice((0, 1)))
        cast = helper.make_node("Cast", [f"condition{level}"], [f"chosen{level}"], to=9)
        other = inner if level < 4 else helper.make_graph([], "other", [], list(model.graph.output))
        branch = helper.make_node("If", [f"chosen{level}"], wanted, then_branch=inner, else_branch=other)
        body = [condition, cast, branch]
    del model.graph.node[:]
    model.graph.node.extend(body)


@change
def recurse(draw: Random, model: onnx.ModelProto, others: Sequence[bytes]) -> None:
    """Functions that call themselves or each other, or each the next one several times."""
    from onnx import helper

    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    count, times = draw.choice(((1, 1), (2, 1), (3, 2), (20, 1), (300, 1), (12, 3), (40, 2)))
    closed = draw.random() < 0.5
    for k in range(count):
        callee = f"f{(k + 1) % count}" if closed or k + 1 < count else "Neg"
        domain = "" if callee == "Neg" else "own"
        names = ["x", *(f"t{j}" for j in range(times))]
        nodes = [helper.make_node(callee, [a], [b], domain=domain) for a, b in zip(names, names[1:], strict=False)]
        model.functions.append(helper.make_function("own", f"f{k}", ["x"], [names[-1]], nodes, opsets))
    if not any(o.domain == "own" for o in model.opset_import):
        model.opset_import.add(domain="own", version=1)
    calls = [n for n in model.graph.node if n.input and n.output]
    node = _drawn(draw, calls)
    replaced = helper.make_node("f0", [node.input[0]], [node.output[0]], domain="own")
    node.CopyFrom(replaced)
