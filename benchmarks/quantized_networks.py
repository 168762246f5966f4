"""Small ONNX models with integer arithmetic, for ONNX Runtime and effcc to run: integer products, whose i32 sums must
be equal, and networks that ONNX Runtime has quantized, whose outputs may differ by a quantum now and then."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

Sample = dict[str, np.ndarray]
SAMPLES = 40
ELEMENT = {
    "uint8": TensorProto.UINT8, "int8": TensorProto.INT8, "int32": TensorProto.INT32, "float32": TensorProto.FLOAT
}  # fmt: skip


def save(path: Path, nodes: list[Any], inputs: dict[str, Any], outputs: dict[str, Any], constants: Sample) -> Path:
    """inputs and outputs: {name: (dtype, shape)}."""

    def declare(values: dict[str, Any]) -> list[Any]:
        return [helper.make_tensor_value_info(n, ELEMENT[d], s) for n, (d, s) in values.items()]

    stored = [numpy_helper.from_array(a, n) for n, a in constants.items()]
    graph = helper.make_graph(nodes, path.stem, declare(inputs), declare(outputs), stored)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path


def integer_products(folder: Path) -> Iterator[tuple[str, Path, list[Sample]]]:
    """MatMulInteger and ConvInteger with constant weights, over the whole range of bytes."""
    random = np.random.default_rng(0)

    def whole(dtype: str, *shape: int) -> np.ndarray:
        info = np.iinfo(dtype)
        return random.integers(info.min, info.max + 1, shape).astype(dtype)

    for dtype, zero in (("uint8", 0), ("uint8", 131), ("int8", -5)):
        for m, k, n in ((1, 384, 1536), (33, 77, 50)):
            constants = {"w": whole("int8", k, n), "zero": np.array(zero, dtype)}
            path = folder / f"matmul-{dtype}-{zero}-{m}x{k}x{n}.onnx"
            nodes = [helper.make_node("MatMulInteger", ["x", "w", "zero"], ["y"])]
            save(path, nodes, {"x": (dtype, (m, k))}, {"y": ("int32", (m, n))}, constants)
            yield path.stem, path, [{"x": whole(dtype, m, k)} for _ in range(4)]
    for zero, groups, pads in ((0, 1, 1), (131, 1, 1), (131, 4, 0)):
        constants = {"w": whole("int8", 24, 16 // groups, 3, 3), "zero": np.array(zero, "uint8")}
        path = folder / f"conv-{zero}-groups{groups}-pads{pads}.onnx"
        node = helper.make_node("ConvInteger", ["x", "w", "zero"], ["y"], pads=[pads] * 4, group=groups)
        size = 9 - 2 + 2 * pads
        save(path, [node], {"x": ("uint8", (1, 16, 9, 9))}, {"y": ("int32", (1, 24, size, size))}, constants)
        yield path.stem, path, [{"x": whole("uint8", 1, 16, 9, 9)} for _ in range(4)]


def convolutional(path: Path) -> Path:
    """Convolutions with and without padding, a residual addition, a concatenation, a depthwise one, pools, a Gemm."""
    random = np.random.default_rng(1)

    def weights(*shape: int) -> np.ndarray:
        return (random.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32)

    def bias(n: int) -> np.ndarray:
        return (0.1 * random.standard_normal(n)).astype(np.float32)

    constants = {
        "w1": weights(16, 3, 3, 3), "b1": bias(16), "w2": weights(32, 16, 3, 3), "b2": bias(32),
        "w3": weights(32, 32, 1, 1), "b3": bias(32), "w4": weights(48, 1, 3, 3), "b4": bias(48),
        "w5": weights(48, 100), "b5": bias(100),
    }  # fmt: skip
    node = helper.make_node
    nodes = [
        node("Conv", ["x", "w1", "b1"], ["c1"], pads=[1] * 4), node("Relu", ["c1"], ["r1"]),
        node("MaxPool", ["r1"], ["p1"], kernel_shape=[2, 2], strides=[2, 2]),
        node("Conv", ["p1", "w2", "b2"], ["c2"], pads=[1] * 4), node("Relu", ["c2"], ["r2"]),
        node("Conv", ["r2", "w3", "b3"], ["c3"]), node("Add", ["c3", "r2"], ["s3"]), node("Relu", ["s3"], ["r3"]),
        node("Concat", ["r3", "p1"], ["c"], axis=1),
        node("Conv", ["c", "w4", "b4"], ["c4"], pads=[1] * 4, group=48), node("Relu", ["c4"], ["r4"]),
        node("GlobalAveragePool", ["r4"], ["g"]), node("Flatten", ["g"], ["f"]), node("Gemm", ["f", "w5", "b5"], ["y"]),
    ]  # fmt: skip
    return save(path, nodes, {"x": ("float32", (1, 3, 32, 32))}, {"y": ("float32", (1, 100))}, constants)


def perceptron(path: Path) -> Path:
    """Two products and a GELU between them, on a sequence."""
    random = np.random.default_rng(2)
    constants = {
        "w1": (random.standard_normal((96, 200)) / 10).astype(np.float32), "b1": np.zeros(200, np.float32),
        "w2": (random.standard_normal((200, 96)) / 14).astype(np.float32), "b2": np.ones(96, np.float32),
    }  # fmt: skip
    node = helper.make_node
    nodes = [
        node("MatMul", ["x", "w1"], ["m1"]), node("Add", ["m1", "b1"], ["s1"]), node("Sigmoid", ["s1"], ["g"]),
        node("Mul", ["s1", "g"], ["h"]), node("MatMul", ["h", "w2"], ["m2"]), node("Add", ["m2", "b2"], ["y"]),
    ]  # fmt: skip
    return save(path, nodes, {"x": ("float32", (1, 17, 96))}, {"y": ("float32", (1, 17, 96))}, constants)


def quantized_networks(folder: Path) -> Iterator[tuple[str, Path, list[Sample], float]]:
    """(name, ONNX file quantized by ONNX Runtime, samples, the scale of its output)."""
    import onnxruntime.quantization as q

    random = np.random.default_rng(3)
    for build, shape in ((convolutional, (1, 3, 32, 32)), (perceptron, (1, 17, 96))):
        plain = build(folder / f"{build.__name__}.onnx")
        samples = [{"x": random.standard_normal(shape).astype(np.float32)} for _ in range(SAMPLES)]
        for form in (q.QuantFormat.QDQ, q.QuantFormat.QOperator):
            for activation in (q.QuantType.QUInt8, q.QuantType.QInt8):
                path = folder / f"{build.__name__}-{form.name}-{activation.name}.onnx"

                class Reader(q.CalibrationDataReader):
                    def __init__(self, samples: list[Sample] = samples) -> None:
                        self.left = iter(samples[:8])

                    def get_next(self) -> Any:
                        return next(self.left, None)

                q.quantize_static(plain, path, Reader(), quant_format=form, per_channel=True,
                                  activation_type=activation, weight_type=q.QuantType.QInt8)  # fmt: skip
                yield path.stem, path, samples, output_scale(path)


def output_scale(path: Path) -> float:
    """The scale with which the output is dequantized."""
    graph = onnx.load(path).graph
    made = next(n for n in graph.node if graph.output[0].name in n.output)
    constants = {i.name: numpy_helper.to_array(i) for i in graph.initializer}
    return float(constants[made.input[1]])
