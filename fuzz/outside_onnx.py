"""Calls of ONNX operators: the models of ONNX's node tests, and the same with something changed.

The original is ONNX's own strict shape inference, and ONNX Runtime, which creates a session and runs it.
"""

from __future__ import annotations

import multiprocessing
import random
import warnings
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper, shape_inference

from effcc.fuzz.outside import Call, Types, Verdict, judged

SIZES = (0, 1, 2, 3, 5, 7)
DTYPES = (TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.INT32, TensorProto.INT64,
          TensorProto.BOOL, TensorProto.UINT8, TensorProto.INT8)  # fmt: skip
LARGE = 1 << 16
"""Elements beyond which an example is left out: it would only take time."""


@cache
def examples() -> list[tuple[str, onnx.ModelProto]]:
    """(name, model) with sizes of inputs known, and small lists of integers (shapes, axes) as initializers."""
    from onnx.backend.test.loader import load_model_tests

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cases = load_model_tests(kind="node")
    return [(case.name, model) for case in cases for model in [_example(case)] if model is not None]


def _example(case: Any) -> onnx.ModelProto | None:
    model, tensors = _loaded(case)
    plain = all(i.type.HasField("tensor_type") for i in (*model.graph.input, *model.graph.output))
    if not plain or len(tensors) != len(model.graph.input):
        return None
    kept = []
    for info, tensor in zip(model.graph.input, tensors, strict=True):
        count = np.prod(tensor.dims, dtype=np.int64)
        if count > LARGE:
            return None
        if tensor.data_type == TensorProto.INT64 and len(tensor.dims) <= 1 and count <= 16:
            tensor.name = info.name
            model.graph.initializer.append(tensor)
        else:
            kept.append(helper.make_tensor_value_info(info.name, tensor.data_type, list(tensor.dims)))
    outputs = [o.name for o in model.graph.output]
    del model.graph.input[:], model.graph.output[:], model.graph.value_info[:]
    model.graph.input.extend(kept)
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in outputs)
    return model


def _loaded(case: Any) -> tuple[onnx.ModelProto, list[TensorProto]]:
    """A case's model and the tensors of its first data set."""
    model = onnx.ModelProto()
    if case.model_dir is None:
        model.CopyFrom(case.model)
        arrays, _ = case.data_sets[0]
        tensors = [x if isinstance(x, TensorProto) else numpy_helper.from_array(np.asarray(x))
                   for x in arrays if x is not None and not isinstance(x, (list, dict))]  # fmt: skip
        return model, tensors
    folder = Path(case.model_dir, "test_data_set_0")
    paths = sorted(folder.glob("input_*.pb"), key=lambda path: int(path.stem.split("_")[1]))
    model.CopyFrom(onnx.load(str(Path(case.model_dir, "model.onnx"))))
    if any(not i.type.HasField("tensor_type") for i in model.graph.input):
        return model, []
    return model, [TensorProto.FromString(path.read_bytes()) for path in paths]


# -- changes ---------------------------------------------------------------------------------------
def changed(model: onnx.ModelProto, chance: random.Random) -> tuple[onnx.ModelProto, str]:
    """A copy with one thing changed, and which."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    ways = [_size, _size, _rank, _dtype, _attribute, _attribute, _value, _operand]
    chance.shuffle(ways)
    for way in ways:
        if (what := way(copy, chance)) is not None:
            return copy, what
    return copy, "nothing"


def _size(model: onnx.ModelProto, chance: random.Random) -> str | None:
    inputs = [i for i in model.graph.input if i.type.tensor_type.shape.dim]
    if not inputs:
        return None
    info = chance.choice(inputs)
    axis = chance.randrange(len(info.type.tensor_type.shape.dim))
    dim = info.type.tensor_type.shape.dim[axis]
    dim.dim_value = chance.choice((*SIZES, dim.dim_value + 1, max(dim.dim_value - 1, 0)))
    return f"{info.name}: axis {axis} is {dim.dim_value}"


def _rank(model: onnx.ModelProto, chance: random.Random) -> str | None:
    if not model.graph.input:
        return None
    info = chance.choice(model.graph.input)
    sizes = [d.dim_value for d in info.type.tensor_type.shape.dim]
    if sizes and chance.random() < 0.5:
        sizes.pop(chance.randrange(len(sizes)))
    else:
        sizes.insert(chance.randint(0, len(sizes)), chance.choice((1, 1, 2)))
    info.CopyFrom(helper.make_tensor_value_info(info.name, info.type.tensor_type.elem_type, sizes))
    return f"{info.name}: sizes {sizes}"


def _dtype(model: onnx.ModelProto, chance: random.Random) -> str | None:
    if not model.graph.input:
        return None
    info = chance.choice(model.graph.input)
    info.type.tensor_type.elem_type = chance.choice(DTYPES)
    return f"{info.name}: {TensorProto.DataType.Name(info.type.tensor_type.elem_type).lower()}"


def _attribute(model: onnx.ModelProto, chance: random.Random) -> str | None:
    kinds = (onnx.AttributeProto.INT, onnx.AttributeProto.INTS)
    found = [(n, a) for n in model.graph.node for a in n.attribute if a.type in kinds]
    if not found:
        return None
    node, a = chance.choice(found)
    if a.type == onnx.AttributeProto.INT:
        a.i = chance.choice((-2, -1, 0, 1, 2, 3, a.i + 1))
        return f"{node.op_type}: {a.name} is {a.i}"
    values = list(a.ints)
    if not values or chance.random() < 0.25:
        values.append(chance.choice((0, 1, 2)))
    elif chance.random() < 0.25:
        values.pop()
    else:
        k = chance.randrange(len(values))
        values[k] = chance.choice((-1, 0, 1, 2, 3, values[k] + 1))
    del a.ints[:]
    a.ints.extend(values)
    return f"{node.op_type}: {a.name} is {values}"


def _value(model: onnx.ModelProto, chance: random.Random) -> str | None:
    """An element of an initializer: a size, an axis, a bound."""
    found = [t for t in model.graph.initializer if np.prod(t.dims, dtype=int) > 0]
    if not found:
        return None
    tensor = chance.choice(found)
    array = numpy_helper.to_array(tensor).copy()
    k = chance.randrange(array.size)
    array.reshape(-1)[k] = chance.choice((-1, 0, 1, 2, 3, int(array.reshape(-1)[k]) + 1))
    tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    return f"{tensor.name} is {array.tolist()}"


def _operand(model: onnx.ModelProto, chance: random.Random) -> str | None:
    """An operand left out, or given twice."""
    node = chance.choice(model.graph.node)
    if not node.input:
        return None
    k = chance.randrange(len(node.input))
    if chance.random() < 0.5:
        node.input[k] = ""
        return f"{node.op_type}: operand {k} left out"
    node.input[k] = chance.choice(list(node.input))
    return f"{node.op_type}: operand {k} is {node.input[k] or 'absent'}"


# -- judges ----------------------------------------------------------------------------------------
class Original:
    """ONNX and ONNX Runtime in a process of their own, for some changed models end it."""

    def __init__(self) -> None:
        self.pool: ProcessPoolExecutor | None = None

    def __call__(self, model: onnx.ModelProto) -> Verdict:
        if self.pool is None:
            self.pool = ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"))
        try:
            return self.pool.submit(theirs, model.SerializeToString()).result(timeout=60)
        except BrokenProcessPool:
            self.pool = None
            return Verdict(None, reason="the original's process ended")

    def close(self) -> None:
        if self.pool is not None:
            self.pool.shutdown()
            self.pool = None


def theirs(data: bytes) -> Verdict:
    """Refused where strict inference refuses, or ONNX Runtime, when it creates a session or runs it on ones; else
    accepted, with the types of the results."""
    import onnxruntime as ort

    model = onnx.ModelProto.FromString(data)
    try:
        shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
    except Exception as error:
        return Verdict(False, reason=_line(error))
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        session = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        feeds = {i.name: np.ones([d.dim_value for d in i.type.tensor_type.shape.dim],
                                 helper.tensor_dtype_to_np_dtype(i.type.tensor_type.elem_type))
                 for i in model.graph.input}  # fmt: skip
        results = session.run(None, feeds)
    except Exception as error:
        return Verdict(None if _is_silent(error) else False, reason=_line(error))
    types = [output.type for output in session.get_outputs()]
    arrays = [r for r in results if isinstance(r, np.ndarray)]
    if len(arrays) < len(results):
        return Verdict(None)
    return Verdict(True, tuple((t, r.shape) for t, r in zip(types, arrays, strict=True)))


SILENT = ("not_implemented", "notimplemented", "not implemented", "unsupported model", "numpy", "modulo by zero",
          "not supported", "not a registered function", "out of bounds",
          "out of range", "out of data bounds", "unsupported")  # fmt: skip
"""What ONNX Runtime says where it lacks a kernel, cannot pass a dtype, or objects to the data rather than the types."""


def _is_silent(error: BaseException) -> bool:
    text = str(error).lower()
    return any(word in text for word in SILENT)


def ours(model: onnx.ModelProto) -> Verdict:
    from effcc.frontends.onnx import imported
    from effcc.frontends.onnx.proto import element_code

    def types() -> Types:
        source = imported(model)
        out = []
        for port in source.outputs:
            for at in port.positions:
                type_: Any = source.graph.results[at].type
                sizes = tuple(d if isinstance(d, int) else None for d in type_.shape)
                out.append((f"tensor({TensorProto.DataType.Name(element_code(type_.dtype)).lower()})", sizes))
        return tuple(out)

    return judged(types)


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]


def _lenient(verdict: Verdict) -> Verdict:
    """On an example of ONNX itself: where ONNX Runtime refuses it, that is no opinion."""
    return verdict if verdict.accepted else Verdict(None, reason=verdict.reason)


def calls(chance: random.Random) -> Iterator[Call]:
    """Each example as it is, in a random order, then changed ones without end."""
    original = Original()
    try:
        yield from _calls(chance, original)
    finally:
        original.close()


def _calls(chance: random.Random, original: Original) -> Iterator[Call]:
    order = list(examples())
    chance.shuffle(order)
    for name, model in order:
        yield Call(name, "as it is", lambda m=model: _lenient(original(m)), lambda m=model: ours(m))
    while True:
        name, model = chance.choice(order)
        other, what = changed(model, chance)
        if what != "nothing":
            yield Call(name, what, lambda m=other: original(m), lambda m=other: ours(m))
