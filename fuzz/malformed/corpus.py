"""The whole files from which broken ones are made: small ONNX models, IR texts, artifacts.

`Corpus.small()` is made here in a second or two; `Corpus.in_folder(folder)` holds the models of ONNX's own backend
tests as well, texts that the generator draws, and keeps all of it in the folder.
"""

from __future__ import annotations

import random
import tempfile
import warnings
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import onnx

LARGEST = 8000
"""Bytes of a model: mutations of small files reach more."""
TEXTS = 300


@dataclass(frozen=True)
class Corpus:
    """Files by kind, the suffix of their names."""

    onnx: tuple[bytes, ...]
    effir: tuple[str, ...]
    effcc: tuple[bytes, ...]

    @classmethod
    def small(cls) -> Corpus:
        texts = (_MLP, _LOOP, *_drawn(6))
        return cls(tuple(m.SerializeToString() for m in _models()), texts, tuple(_artifact(t) for t in texts[:2]))

    @classmethod
    def in_folder(cls, folder: Path) -> Corpus:
        path = folder / "corpus.zip"
        if not path.exists():
            small = cls.small()
            more = _drawn(TEXTS)
            whole = cls((*small.onnx, *_node_tests()), (*small.effir, *more), (*small.effcc, *_compiled(more[:20])))
            whole._save(path)
        with zipfile.ZipFile(path) as archive:
            content = {name: archive.read(name) for name in archive.namelist()}
        kinds: dict[str, list[bytes]] = {"onnx": [], "effir": [], "effcc": []}
        for name, data in content.items():
            kinds[name.rpartition(".")[2]].append(data)
        return cls(tuple(kinds["onnx"]), tuple(t.decode() for t in kinds["effir"]), tuple(kinds["effcc"]))

    def _save(self, path: Path) -> None:
        part = path.with_suffix(".part")
        with zipfile.ZipFile(part, "w", zipfile.ZIP_DEFLATED) as archive:
            for kind in ("onnx", "effir", "effcc"):
                for k, data in enumerate(getattr(self, kind)):
                    archive.writestr(f"{k:05}.{kind}", data)
        part.replace(path)


_MLP = """graph @mlp<B in 1..8>(%x: f32[B,4]) -> f32[B,3] {
  %w: f32[4,3] = const [[1, 2, 3], [4, 5, 6], [7, 8, 9], [1, 0, 1]]
  %b: f32[3] = const [0.5, -0.5, nan]
  %0: f32[B,3] = matmul(%x, %w)  loc("net.onnx":"/layer.0/fc/MatMul")
  %1: f32[B,3] = add(%0, %b)
  %2: f32[B,3] = gelu(%1) {approximate="tanh"}
  %3: f32[B,3] = softmax(%2) {axis=1}
  return %3
}
"""

_LOOP = """graph @loop(%x: i64[4,3], %c: bool[]) -> (i64[2,4], i64[4,3]) {
  %0: i64[] = const 2
  %1: bool[] = const true
  %2: i64[2,4] = loop(%0, %1, %x) {body=graph @body(%i: i64[], %going: bool[], %y: i64[4,3]) -> (bool[], i64[4]) {
    %3: i64[4] = argmax(%y) {axis=1}
    return %going, %3
  }, num_carried=0, length=2}
  %4: i64[4,3] = if(%c, %x) {then=graph @t(%x: i64[4,3]) -> i64[4,3] {
    %5: i64[4,3] = neg(%x)
    return %5
  }, orelse=graph @e(%x: i64[4,3]) -> i64[4,3] { return %x }}
  return %2, %4
}
"""


def _drawn(count: int) -> tuple[str, ...]:
    """Texts of graphs from the generator of the campaigns."""
    from effcc.fuzz.generate import GraphDrawer
    from effcc.testing.search import Choices
    from effcc.text import blobs

    texts = []
    for k in range(2 * count):
        graph = GraphDrawer(Choices(rest=random.Random(f"text {k}"))).graph(2, 8)
        if not blobs(graph) and len(texts) < count:
            texts.append(f"{graph}\n")
    return tuple(texts)


def _artifact(text: str) -> bytes:
    """A compiled text."""
    import effcc
    from effcc.text import parse

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.effcc"
        effcc.compile(parse(text), tune="none").save(path)  # type: ignore[union-attr]  (it takes no value to compile)
        return path.read_bytes()


def _compiled(texts: tuple[str, ...]) -> list[bytes]:
    from effcc.errors import EffccError

    made = []
    for text in texts:
        try:
            made.append(_artifact(text))
        except EffccError:
            continue
    return made


def _node_tests() -> list[bytes]:
    """The models of ONNX's own tests of single operators."""
    from onnx.backend.test.loader import load_model_tests

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = [case.model.SerializeToString() for case in load_model_tests(kind="node") if case.model is not None]
    return [data for data in dict.fromkeys(found) if len(data) < LARGEST]


def _models() -> list[onnx.ModelProto]:
    """Models in which every kind of field occurs: nested graphs, functions, attributes of all kinds, external data."""
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper

    def model(nodes: list[Any], inputs: list[Any], outputs: list[Any], constants: Any = (), **more: Any) -> Any:
        constants = [numpy_helper.from_array(np.asarray(a), name) for name, a in dict(constants).items()]
        graph = helper.make_graph(nodes, "g", inputs, outputs, constants)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20), *more.pop("opsets", ())], **more)

    def port(name: str, *shape: Any, dtype: int = TensorProto.FLOAT) -> Any:
        return helper.make_tensor_value_info(name, dtype, shape)

    node = helper.make_node
    rng = np.random.default_rng(0)
    weights = rng.standard_normal((4, 3)).astype("f4")
    mlp = model(
        [node("MatMul", ["x", "w"], ["h"]), node("Add", ["h", "b"], ["s"]), node("Relu", ["s"], ["y"], name="relu")],
        [port("x", "N", 4)], [port("y", "N", 3)], {"w": weights, "b": np.ones(3, "f4")},
    )  # fmt: skip
    cnn = model(
        [
            node("Conv", ["x", "k"], ["c"], pads=[1, 1, 1, 1], kernel_shape=[3, 3], group=1, auto_pad="NOTSET"),
            node("MaxPool", ["c"], ["p"], kernel_shape=[2, 2], strides=[2, 2]),
            node("Shape", ["p"], ["size"]),
            node("Gather", ["size", "zero"], ["batch"], axis=0),
            node("Concat", ["batch", "rest"], ["shape"], axis=0),
            node("Reshape", ["p", "shape"], ["y"]),
        ],
        [port("x", "N", 2, 4, 4)], [port("y", "N", None)],
        {"k": rng.standard_normal((3, 2, 3, 3)).astype("f4"), "zero": np.array([0]), "rest": np.array([-1])},
    )  # fmt: skip
    shaped = model(
        [
            node("ConstantOfShape", ["shape"], ["c"], value=helper.make_tensor("v", TensorProto.INT64, [1], [7])),
            node("Range", ["start", "limit", "delta"], ["r"]),
            node("Expand", ["r", "shape"], ["e"]),
            node("Tile", ["e", "times"], ["t"]),
            node("Pad", ["x", "pads"], ["q"], mode="reflect"),
            node("Slice", ["q", "start1", "stop1"], ["s"]),
            node("OneHot", ["r", "depth", "values"], ["o"]),
        ],
        [port("x", 5, dtype=TensorProto.INT64)],
        [port("c", None, None, dtype=TensorProto.INT64), port("t", None, None, dtype=TensorProto.INT64),
         port("s", None, dtype=TensorProto.INT64), port("o", None, None, dtype=TensorProto.INT64)],
        {"shape": np.array([2, 3]), "start": np.array(0), "limit": np.array(3), "delta": np.array(1),
         "times": np.array([2, 1]), "pads": np.array([1, 2]), "start1": np.array([1]), "stop1": np.array([4]),
         "depth": np.array(5), "values": np.array([0, 1])},
    )  # fmt: skip
    body = helper.make_graph(
        [node("Identity", ["going"], ["still"]), node("Add", ["acc", "x"], ["sum"])], "body",
        [port("i", dtype=TensorProto.INT64), port("going", dtype=TensorProto.BOOL), port("acc", 3)],
        [port("still", dtype=TensorProto.BOOL), port("sum", 3)],
    )  # fmt: skip
    then, other = (helper.make_graph([node(op, ["l"], ["z"])], op, [], [port("z", 3)]) for op in ("Neg", "Exp"))
    control = model(
        [
            node("Loop", ["times", "", "x"], ["l"], body=body),
            node("If", ["c"], ["y"], then_branch=then, else_branch=other),
        ],
        [port("x", 3), port("c", dtype=TensorProto.BOOL)], [port("y", 3)], {"times": np.array(3)},
    )  # fmt: skip
    double = helper.make_function(
        "own", "Double", ["a"], ["b"], [node("Add", ["a", "a"], ["t"]), node("Elu", ["t"], ["b"])],
        [helper.make_opsetid("", 20)], ["alpha"],
    )  # fmt: skip
    double.node[1].attribute.add(name="alpha", ref_attr_name="alpha", type=1)
    functions = model(
        [node("Double", ["x"], ["d"], domain="own", alpha=0.5), node("Double", ["d"], ["y"], domain="own", alpha=2.0)],
        [port("x", 3)], [port("y", 3)], functions=[double], opsets=[helper.make_opsetid("own", 1)],
    )  # fmt: skip
    far = model(
        [node("Mul", ["x", "w"], ["y"]), node("QuantizeLinear", ["y", "scale", "zero"], ["q"])],
        [port("x", 4)], [port("q", 4, dtype=TensorProto.INT8)],
        {"w": np.ones(4, "f4"), "scale": np.array(0.1, "f4"), "zero": np.array(3, "i1")},
    )  # fmt: skip
    tensor = far.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", "data.bin"), ("offset", "16"), ("length", "16")):
        tensor.external_data.add(key=key, value=value)
    sequence = model(
        [
            node("SequenceConstruct", ["x", "x"], ["s"]),
            node("SequenceInsert", ["s", "x"], ["s2"]),
            node("ConcatFromSequence", ["s2"], ["y"], axis=0),
            node("Resize", ["x4", "", "", "sizes"], ["r"], mode="linear"),
            node("TopK", ["y", "k"], ["v", "at"], axis=0, largest=1),
        ],
        [port("x", 3), port("x4", 1, 1, 4, 4)], [port("v", 2), port("at", 2, dtype=TensorProto.INT64),
                                                 port("r", 1, 1, 8, 8)],
        {"sizes": np.array([1, 1, 8, 8]), "k": np.array([2])},
    )  # fmt: skip
    return [mlp, cnn, shaped, control, functions, far, sequence]
