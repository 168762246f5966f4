"""Files: external data, damage, and paths that climb out."""

from __future__ import annotations

import random

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from effcc import interp
from effcc.errors import EffccError, ParseError
from effcc.frontends.onnx import accepts, load
from effcc.frontends.onnx.proto import array, element_code, element_dtype, read


def small(weights: np.ndarray) -> onnx.ModelProto:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", weights.shape[0]])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    graph = helper.make_graph([node], "m", [x], [y], [numpy_helper.from_array(weights, "w")])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


W = np.random.default_rng(0).standard_normal((4, 300)).astype(np.float32)


@pytest.fixture
def external(tmp_path):
    onnx.save(small(W), tmp_path / "m.onnx", save_as_external_data=True, location="m.data", size_threshold=0)
    return tmp_path / "m.onnx"


def retarget(path, location: str, offset: int = 0) -> None:
    proto = onnx.load(path, load_external_data=False)
    (tensor,) = proto.graph.initializer
    for entry in tensor.external_data:
        entry.value = {"location": location, "offset": str(offset)}.get(entry.key, entry.value)
    path.write_bytes(proto.SerializeToString())


def test_external_data_is_mapped_not_read(external):
    graph = load(external)
    (const,) = [n for n in graph.nodes if n.op.name == "const"]
    base = const.op.blob.array
    while base is not None and not isinstance(base, np.memmap):
        base = base.base
    assert isinstance(base, np.memmap)
    x = np.ones((2, 4), np.float32)
    np.testing.assert_allclose(interp.run(graph, x)[0].numpy(), x @ W, rtol=1e-5)


def test_a_missing_data_file_is_named(external):
    (external.parent / "m.data").unlink()
    with pytest.raises(ParseError, match=r"m\.onnx:w: the external data file 'm\.data' is missing; copy it to"):
        load(external)


@pytest.mark.parametrize("location", ["a" * 5000, "a\0b"])
def test_names_that_no_file_has_are_refused(external, location):
    retarget(external, location)
    with pytest.raises(ParseError, match="is no name of a data file") as error:
        load(external)
    assert str(error.value).isprintable() and len(str(error.value)) < 1000


@pytest.mark.parametrize("kind", [TensorProto.STRING, TensorProto.FLOAT, TensorProto.INT4])
def test_tensors_without_their_data_are_refused(kind):
    tensor = TensorProto(name="c", data_type=kind, dims=[3])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph([helper.make_node("Constant", [], ["y"], value=tensor)], "m", [], [y])
    with pytest.raises(ParseError, match=r"the data of 'c' do not fill its shape \[3\]"):
        load(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]))


@pytest.mark.parametrize("name", [b"relu", b"x", b"y", b"N"])
def test_names_that_are_no_text_are_refused(name):
    """Of a node, an input, an output, a dimension."""
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, ["N"]) for n in "xy")
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"], name="relu")], "m", [x], [y])
    data = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]).SerializeToString()
    with pytest.raises(ParseError, match=r"is no UTF-8|not an ONNX model"):
        load(data.replace(name, b"\xff" * len(name)))


@pytest.mark.parametrize("location", ["../secret", "/etc/passwd", "a/../../secret", ""])
def test_paths_out_of_the_folder_are_refused(external, location):
    (external.parent.parent / "secret").write_bytes(W.tobytes())
    retarget(external, location)
    with pytest.raises(ParseError, match="outside of the model's folder"):
        load(external)


def test_links_out_of_the_folder_are_refused(external, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "secret"
    elsewhere.write_bytes(W.tobytes())
    (external.parent / "link").symlink_to(elsewhere)
    retarget(external, "link")
    with pytest.raises(ParseError, match="outside of the model's folder"):
        load(external)


def test_a_short_data_file_is_told(external):
    retarget(external, "m.data", offset=64)
    with pytest.raises(ParseError, match="too short"):
        load(external)


def test_external_data_of_a_proto_without_a_folder(external):
    with pytest.raises(ParseError, match="came without a folder; give the path"):
        load(onnx.load(external, load_external_data=False))


def test_truncated_files_are_refused_in_one_line(tmp_path):
    data = small(W).SerializeToString()
    path = tmp_path / "m.onnx"
    for cut in [0, 1, 7, 100, 1000, len(data) // 2, len(data) - 20]:
        path.write_bytes(data[:cut])
        with pytest.raises(EffccError) as error:
            load(path)
        assert "\n" not in str(error.value) and "m.onnx" in str(error.value)


def test_random_files_are_refused_in_one_line(tmp_path):
    path = tmp_path / "m.onnx"
    rng = random.Random(0)
    for size in (1, 10, 100, 5000):
        path.write_bytes(rng.randbytes(size))
        with pytest.raises(EffccError):
            load(path)


def test_damaged_bytes_never_raise_anything_else(tmp_path):
    data = small(W[:, :2]).SerializeToString()
    rng = random.Random(1)
    path = tmp_path / "m.onnx"
    for _ in range(300):
        damaged = bytearray(data)
        for _ in range(rng.randint(1, 4)):
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        path.write_bytes(damaged)
        try:
            load(path)
        except EffccError as error:
            assert "\n" not in str(error)


def test_a_missing_file_and_an_empty_one(tmp_path):
    with pytest.raises(ParseError, match="no such file"):
        load(tmp_path / "none.onnx")
    (tmp_path / "empty.onnx").write_bytes(b"")
    with pytest.raises(ParseError, match="empty"):
        load(tmp_path / "empty.onnx")


def test_a_tensor_whose_data_do_not_fill_its_shape():
    proto = small(W)
    proto.graph.initializer[0].raw_data = proto.graph.initializer[0].raw_data[:-4]
    with pytest.raises(ParseError, match="do not fill its shape"):
        load(proto)


@pytest.mark.parametrize("code", range(1, 27))
def test_element_types_map_both_ways(code):
    assert element_code(element_dtype(code, "")) == code


@pytest.mark.parametrize("name", ["FLOAT", "BFLOAT16", "FLOAT8E4M3FN", "INT4", "UINT4", "BOOL", "INT64", "FLOAT16"])
@pytest.mark.parametrize("raw", [True, False])
def test_tensors_of_every_storage(name, raw):
    code = TensorProto.DataType.Value(name)
    values = np.array([0, 1, 1, 0, 1, 0, 1], element_dtype(code, "").numpy)
    tensor = numpy_helper.from_array(values, "t")
    if not raw:
        tensor = helper.make_tensor("t", code, [7], values.astype(np.float32).tolist())
    out = array(tensor, read(small(W)))
    assert out.dtype == values.dtype and (out == values).all()


def test_what_the_frontend_accepts(tmp_path):
    assert accepts("m.onnx") and accepts(tmp_path / "m.onnx") and accepts(small(W))
    assert not accepts("m.pt") and not accepts(3)
