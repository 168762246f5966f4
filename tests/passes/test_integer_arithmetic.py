"""Integer kernels for quantized graphs: each rule by itself, and whole ONNX models beside ONNX Runtime."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

import effcc
from effcc.interp import run
from effcc.passes.integer_arithmetic import EXPANSIONS, MOVES, PRODUCTS, IntegerArithmetic
from effcc.pipeline import Context
from effcc.testing import check
from effcc.text import parse

ARITHMETIC = {"add", "sub", "mul", "div", "round", "max", "min", "cast", "quantize_linear", "dequantize_linear"}
"""What (de)quantization consists of: a launch of nothing else is an isolated one."""


@pytest.mark.parametrize("rule", (*MOVES, *PRODUCTS, *EXPANSIONS), ids=lambda rule: rule.name)
def test_rules_keep_the_meaning(rule):
    assert check(rule, examples=25).fired


def test_the_pass_keeps_the_meaning():
    assert check(IntegerArithmetic(), examples=25, must_fire=True).fired


def test_graphs_without_bytes_are_left_alone():
    graph = parse("graph @f(%x: f32[2,3]) -> f32[2,3] {\n %0: f32[2,3] = relu(%x)\n return %0\n}")
    assert IntegerArithmetic().run(graph, Context()) is graph


def integer_products(graph):
    return [n for n in graph.walk() if n.op.name in ("matmul", "conv") and n.op.accumulate is not None]


def test_weights_with_a_zero_point_that_is_no_middle_stay_floats():
    """127 + 128 is no signed byte."""
    graph = parse("""graph @f(%x: u8[2,2]) -> f32[2,1] {
      %s: f32[] = const 0.5
      %w: i8[2,1] = const [[127], [3]]
      %z: i8[] = const -128
      %0: f32[2,2] = dequantize_linear(%x, %s) {axis=0}
      %1: f32[2,1] = dequantize_linear(%w, %s, %z) {axis=0}
      %2: f32[2,1] = matmul(%0, %1)
      return %2
    }""")
    ctx = Context()
    assert not integer_products(IntegerArithmetic().run(graph, ctx))
    assert any("no signed bytes" in r.reason for r in ctx.refusals)


def test_padding_is_the_zero_point():
    graph = parse("""graph @f(%x: u8[1,1,3,3]) -> f32[1,1,3,3] {
      %s: f32[] = const 0.5
      %z: u8[] = const 7
      %w: i8[1,1,3,3] = const [[[[1, 2, 3], [4, 5, 6], [7, 8, 9]]]]
      %0: f32[1,1,3,3] = dequantize_linear(%x, %s, %z) {axis=0}
      %1: f32[1,1,3,3] = dequantize_linear(%w, %s) {axis=0}
      %2: f32[1,1,3,3] = conv(%0, %1) {strides=(1, 1), pads=(1, 1, 1, 1), dilations=(1, 1)}
      return %2
    }""")
    (product,) = integer_products(IntegerArithmetic().run(graph, Context()))
    assert product.op.pad_value == 7


def test_the_greatest_of_padding_alone_stays_infinite():
    """The least float, -inf, is the meaning of no byte."""
    graph = parse("""graph @f(%x: u8[1,1,2]) -> f32[1,1,5] {
      %s: f32[] = const 1.0
      %0: f32[1,1,2] = dequantize_linear(%x, %s) {axis=0}
      %1: f32[1,1,5] = max_pool(%0) {kernel=(2,), strides=(1,), pads=(2, 2), dilations=(1,)}
      return %1
    }""")
    ctx, x = Context(), torch.tensor([[[3, 5]]], dtype=torch.uint8)
    (result,) = run(IntegerArithmetic().run(graph, ctx), x)
    assert result.tolist() == [[[-math.inf, 3, 5, 5, -math.inf]]]
    assert any("padding alone" in refusal.reason for refusal in ctx.refusals)


# -- beside ONNX Runtime -----------------------------------------------------------------------------------------------
CONVOLUTIONAL = """
  x1 = Conv <pads=[1,1,1,1]> (x, w1, b1)
  r1 = Relu (x1)
  p1 = MaxPool <kernel_shape=[2,2], strides=[2,2]> (r1)
  x2 = Conv <pads=[1,1,1,1]> (p1, w2)
  r2 = Relu (x2)
  x3 = Conv (r2, w3)
  s3 = Add (x3, r2)
  c = Concat <axis=1> (s3, p1)
  t = Transpose <perm=[0,2,3,1]> (c)
  y = MatMul (t, w4)
"""
WEIGHTS = {"w1": (8, 3, 3, 3), "b1": (8,), "w2": (16, 8, 3, 3), "w3": (16, 16, 1, 1), "w4": (24, 20)}
INPUT = (1, 3, 8, 8)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """A small network in f32, as an ONNX file."""
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    random = np.random.default_rng(0)
    text = f"""<ir_version: 8, opset_import: ["" : 17]>
    network (float[1,3,8,8] x) => (float[1,4,4,20] y) {{ {CONVOLUTIONAL} }}"""
    model = onnx.parser.parse_model(text)
    for name, shape in WEIGHTS.items():
        array = (random.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    path = tmp_path_factory.mktemp("quantized") / "plain.onnx"
    onnx.save(model, path)
    return path


def quantized(plain, form, activation):
    """The file that ONNX Runtime's static quantization makes of it."""
    import onnxruntime.quantization as q

    random = np.random.default_rng(1)

    class Reader(q.CalibrationDataReader):
        left = iter([{"x": random.standard_normal(INPUT).astype(np.float32)} for _ in range(4)])

        def get_next(self):
            return next(self.left, None)

    path = plain.with_name(f"{form}-{activation}.onnx")
    q.quantize_static(plain, path, Reader(), quant_format=q.QuantFormat[form], per_channel=True,
                      activation_type=q.QuantType[activation], weight_type=q.QuantType.QInt8)  # fmt: skip
    return path


@pytest.mark.parametrize("activation", ["QUInt8", "QInt8"])
@pytest.mark.parametrize("form", ["QDQ", "QOperator"])
def test_quantized_models_give_what_onnxruntime_gives(plain, form, activation):
    import onnxruntime

    path = quantized(plain, form, activation)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    program = effcc.compile(path)
    assert len(integer_products(program.graph)) == 4
    random, off = np.random.default_rng(2), []
    quantum = output_scale(path)
    for _ in range(10):
        x = random.standard_normal(INPUT).astype(np.float32)
        off.append(np.abs(program(x)[0] - session.run(None, {"x": x})[0]) / quantum)
    assert np.max(off) < 1.5 and np.mean(np.array(off) > 0.5) <= 1e-3


def output_scale(path):
    import onnx

    graph = onnx.load(path).graph
    made = next(n for n in graph.node if graph.output[0].name in n.output)
    return float(next(onnx.numpy_helper.to_array(i) for i in graph.initializer if i.name == made.input[1]))


@pytest.mark.parametrize("form", ["QDQ", "QOperator"])
def test_no_quantization_stands_alone_inside(plain, form):
    """Only the model's input is quantized by a launch of its own; activations travel as bytes."""
    program = effcc.compile(quantized(plain, form, "QUInt8"))
    alone = [k for k, launch in enumerate(program.launches) if set(launch.label.split("+")) <= ARITHMETIC]
    assert alone == [0]


@pytest.mark.parametrize(("dtype", "zero"), [("uint8", 0), ("uint8", 131), ("int8", -5)])
def test_accumulators_are_onnxruntimes(dtype, zero, tmp_path):
    onnx = pytest.importorskip("onnx")
    onnxruntime = pytest.importorskip("onnxruntime")
    convolution = "y = ConvInteger <pads=[1,1,1,1], group=2> (x, w, zero)"  # of unsigned bytes alone
    unsigned = dtype == "uint8"
    model = onnx.parser.parse_model(f"""<ir_version: 8, opset_import: ["" : 17]>
    sums ({"uint8[1,6,9,7] x, " if unsigned else ""}{dtype}[5,37] a) =>
         ({"int32[1,12,9,7] y, " if unsigned else ""}int32[5,21] z) {{
      {convolution if unsigned else ""}
      z = MatMulInteger (a, v, zero)
    }}""")
    random, info = np.random.default_rng(3), np.iinfo(dtype)
    stored = {"v": random.integers(-128, 128, (37, 21)).astype(np.int8), "zero": np.array(zero, dtype)}
    if unsigned:
        stored["w"] = random.integers(-128, 128, (12, 3, 3, 3)).astype(np.int8)
    model.graph.initializer.extend(onnx.numpy_helper.from_array(a, n) for n, a in stored.items())
    path = tmp_path / "sums.onnx"
    onnx.save(model, path)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    program = effcc.compile(path)
    assert len(integer_products(program.graph)) == len(session.get_outputs())
    feeds = {i.name: random.integers(info.min, info.max + 1, i.shape).astype(dtype) for i in session.get_inputs()}
    for ours, theirs in zip(program(feeds), session.run(None, feeds), strict=True):
        np.testing.assert_array_equal(ours, theirs)
