"""Handlers against ONNX Runtime, where the outside suite (tests/conformance) does not look: old opsets, dynamic sizes,
long sequences, quantized products with zero points."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper, parser

from effcc import interp
from effcc.frontends.onnx import load
from effcc.ir import verify

ort = pytest.importorskip("onnxruntime")
RNG = np.random.default_rng(0)


def f(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


def runtime(proto: onnx.ModelProto, inputs: list[np.ndarray]) -> list[np.ndarray]:
    options = ort.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 3, 1
    session = ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, {i.name: x for i, x in zip(session.get_inputs(), inputs, strict=True)})


def check(proto: onnx.ModelProto, inputs: list[np.ndarray], fixed: dict | None = None, tolerance: float = 2e-5) -> None:
    graph = load(proto, fixed=fixed)
    verify(graph)
    ours = [t.numpy() for t in interp.run(graph, *inputs)]
    for a, b in zip(ours, runtime(proto, inputs), strict=True):
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


def model(text: str, opset: int = 17) -> onnx.ModelProto:
    return parser.parse_model(f'<ir_version: 8, opset_import: ["" : {opset}]>\n{text}')


def single(op: str, inputs: list[np.ndarray | None], outputs: int = 1, opset: int = 17, constants: tuple[int, ...] = (),
           **attributes) -> tuple[onnx.ModelProto, list[np.ndarray]]:
    """A model of one node; inputs at `constants` are initializers."""
    names = [f"x{i}" if x is not None else "" for i, x in enumerate(inputs)]
    infos, weights, given = [], [], []
    for i, x in enumerate(inputs):
        if x is None:
            continue
        if i in constants:
            weights.append(numpy_helper.from_array(x, names[i]))
        else:
            infos.append(helper.make_tensor_value_info(names[i], helper.np_dtype_to_tensor_dtype(x.dtype), x.shape))
            given.append(x)
    outs = [f"y{i}" for i in range(outputs)]
    node = helper.make_node(op, names, outs, **attributes)
    results = [helper.make_empty_tensor_value_info(o) for o in outs]
    graph = helper.make_graph([node], op.lower(), infos, results, weights)
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    return onnx.shape_inference.infer_shapes(proto, strict_mode=False), given


# --- what changed from opset to opset ---
@pytest.mark.parametrize("op", ["Softmax", "LogSoftmax", "Hardmax"])
@pytest.mark.parametrize("opset", [9, 13])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_softmax_before_opset_13_flattens(op, opset, axis):
    check(*single(op, [f(2, 3, 4)], opset=opset, axis=axis))


@pytest.mark.parametrize(("opset", "extra"), [(9, {"axes": [0, 2]}), (13, {})])
def test_squeeze_and_unsqueeze(opset, extra):
    axes = [] if extra else [np.array([0, 2])]
    check(*single("Squeeze", [f(1, 3, 1, 4), *axes], opset=opset, constants=(1,), **extra))
    check(*single("Unsqueeze", [f(3, 4), *axes], opset=opset, constants=(1,), **extra))


def test_slice_of_opset_9_and_with_steps():
    x = f(4, 5, 6)
    check(*single("Slice", [x], opset=9, starts=[1, -4], ends=[3, 100], axes=[0, 2]))
    bounds = [np.array(v) for v in ([-1, 4], [-100, 0], [0, 2], [-2, -1])]
    check(*single("Slice", [x, *bounds], constants=(1, 2, 3, 4)))


@pytest.mark.parametrize("opset", [7, 9])
def test_upsample(opset):
    scales = np.array([1, 1, 2, 3], np.float32)
    if opset == 7:
        check(*single("Upsample", [f(1, 2, 3, 4)], opset=7, mode="nearest", scales=scales.tolist()))
    else:
        check(*single("Upsample", [f(1, 2, 3, 4), scales], opset=9, constants=(1,), mode="linear"))


def test_clip_by_attributes_and_by_inputs():
    check(*single("Clip", [f(3, 4)], opset=7, min=-0.5, max=0.25))
    check(*single("Clip", [f(3, 4), None, np.array(0.1, np.float32)], opset=13))


def test_topk_and_split_by_attributes():
    check(*single("TopK", [f(3, 7)], outputs=2, opset=7, k=3))
    check(*single("Split", [f(3, 7)], outputs=2, opset=11, axis=1, split=[3, 4]))


def test_batch_normalization_of_opset_7():
    check(*single("BatchNormalization", [f(2, 3, 4, 5), f(3), f(3), f(3), np.abs(f(3))], opset=7, epsilon=1e-3))


def test_add_of_opset_6_aligns_at_an_axis():
    x, y = f(2, 3, 4), f(3)
    proto, given = single("Add", [x, y], opset=6, broadcast=1, axis=1)
    (ours,) = interp.run(load(proto), *given)
    np.testing.assert_array_equal(ours.numpy(), x + y[:, None])


# --- windows ---
@pytest.mark.parametrize("attributes", [
    {"auto_pad": "SAME_UPPER", "strides": [2, 2]}, {"auto_pad": "SAME_LOWER", "strides": [2, 1]}, {"auto_pad": "VALID"},
    {"pads": [1, 2, 0, 1], "dilations": [2, 1]}, {"group": 2},
])  # fmt: skip
def test_conv_geometry(attributes):
    groups = attributes.get("group", 1)
    check(*single("Conv", [f(2, 4, 9, 8), f(6, 4 // groups, 3, 2), f(6)], constants=(1, 2), **attributes))


@pytest.mark.parametrize("attributes", [
    {}, {"strides": [2, 3], "pads": [1, 0, 0, 1]}, {"strides": [2, 2], "output_shape": [12, 11]},
    {"strides": [2, 2], "auto_pad": "SAME_UPPER"}, {"strides": [3, 2], "output_padding": [1, 1], "group": 2},
])  # fmt: skip
def test_conv_transpose_geometry(attributes):
    check(*single("ConvTranspose", [f(2, 4, 5, 6), f(4, 3, 3, 2), f(3 * attributes.get("group", 1))], **attributes))


@pytest.mark.parametrize("op", ["MaxPool", "AveragePool"])
@pytest.mark.parametrize("attributes", [
    {"auto_pad": "SAME_LOWER", "strides": [2, 2]}, {"ceil_mode": 1, "strides": [2, 2]}, {"pads": [1, 0, 1, 1]},
])  # fmt: skip
def test_pooling_geometry(op, attributes):
    check(*single(op, [f(2, 3, 8, 7)], kernel_shape=[3, 2], **attributes))


def test_max_pool_indices_count_from_the_start_of_the_tensor():
    check(*single("MaxPool", [f(2, 3, 6, 5)], outputs=2, kernel_shape=[2, 2], strides=[2, 1]))


# --- recurrent networks, longer than what is unrolled ---
@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("lengths", [None, np.array([12, 5, 1], np.int32)])
@pytest.mark.parametrize(("op", "gates"), [("RNN", 1), ("GRU", 3), ("LSTM", 4)])
def test_recurrent_over_time(op, gates, lengths, direction):
    d, steps, batch, size, hidden = 2 if direction == "bidirectional" else 1, 12, 3, 5, 4
    states = [f(d, batch, hidden)] * (2 if op == "LSTM" else 1)
    weights = [f(d, gates * hidden, size), f(d, gates * hidden, hidden), f(d, 2 * gates * hidden)]
    proto, given = single(op, [f(steps, batch, size), *weights, lengths, *states], outputs=3 if op == "LSTM" else 2,
                          constants=(1, 2, 3), direction=direction, hidden_size=hidden)
    assert "loop" in {n.op.name for n in load(proto).nodes}
    check(proto, given)


def test_gru_with_linear_before_reset_and_lstm_with_peepholes():
    d, steps, batch, size, hidden = 1, 9, 2, 3, 4
    weights = [f(d, 3 * hidden, size), f(d, 3 * hidden, hidden), f(d, 6 * hidden)]
    check(*single("GRU", [f(steps, batch, size), *weights], outputs=2, hidden_size=hidden, linear_before_reset=1))
    weights = [f(d, 4 * hidden, size), f(d, 4 * hidden, hidden), f(d, 8 * hidden)]
    states = [None, f(d, batch, hidden), f(d, batch, hidden)]
    check(*single("LSTM", [f(steps, batch, size), *weights, *states, f(d, 3 * hidden)], outputs=3, hidden_size=hidden))


def test_recurrent_over_a_dynamic_length():
    text = """
    m (float[T,2,3] x) => (float[T,1,2,4] y, float[1,2,4] h)
    { y, h = GRU<hidden_size = 4>(x, w, r) }"""
    proto = model(text)
    weights = {"w": f(1, 12, 3), "r": f(1, 12, 4)}
    proto.graph.initializer.extend(numpy_helper.from_array(v, name) for name, v in weights.items())
    for steps in (1, 2, 20):
        check(proto, [f(steps, 2, 3)])


# --- quantization ---
def u8(*shape: int) -> np.ndarray:
    return RNG.integers(0, 255, shape).astype(np.uint8)


def test_integer_products_with_zero_points():
    check(*single("MatMulInteger", [u8(3, 5), u8(5, 4), np.array(7, np.uint8), np.array(128, np.uint8)]))
    check(*single("ConvInteger", [u8(1, 2, 6, 5), u8(3, 2, 3, 3), np.array(9, np.uint8)], pads=[1, 1, 1, 1]))


def test_quantized_convolution_by_channel():
    x, w = u8(1, 4, 7, 6), RNG.integers(-127, 127, (6, 2, 3, 3)).astype(np.int8)
    zero, zeros = np.array(120, np.uint8), np.zeros(6, np.int8)
    scale, scales = np.array(0.02, np.float32), (np.abs(f(6)) * 0.01 + 0.001).astype(np.float32)
    bias = RNG.integers(-2000, 2000, 6).astype(np.int32)
    inputs = [x, scale, zero, w, scales, zeros, np.array(0.05, np.float32), np.array(100, np.uint8), bias]
    proto, given = single("QLinearConv", inputs, constants=tuple(range(1, 9)), group=2, pads=[1, 1, 1, 1])
    ours = interp.run(load(proto), *given)[0].numpy().astype(int)
    theirs = runtime(proto, given)[0].astype(int)
    assert np.abs(ours - theirs).max() <= 1 and (ours == theirs).mean() > 0.99


def test_a_qdq_graph():
    proto = parser.parse_model("""
    <ir_version: 8, opset_import: ["" : 17]>
    m (float[N,4] x) => (float[N,3] y)
    <float s = {0.02}, uint8 z = {128}, float t = {0.01}, int8 u = {0},
     int8[4,3] w = {1, -2, 3, 4, 50, -6, 7, 8, -90, 10, 11, 12}> {
      q = QuantizeLinear(x, s, z)
      d = DequantizeLinear(q, s, z)
      v = DequantizeLinear(w, t, u)
      y = MatMul(d, v)
    }""")
    check(proto, [f(5, 4)])


# --- shapes ---
@pytest.mark.parametrize("equation", [
    "bij,bjk->bik", "ij,jk,kl->il", "...ij,...kj->...ik", "ii->i", "i,j->ij", "bhid,bhjd->bhij", "ijk->kj", "ij->",
    "bi,bi->b",
])  # fmt: skip
def test_einsum(equation):
    sizes = {c: 2 + k for k, c in enumerate("bhijkld")}
    terms = equation.split("->")[0].split(",")
    inputs = [f(*((2,) if "..." in t else ()), *(sizes[c] for c in t.replace("...", ""))) for t in terms]
    check(*single("Einsum", inputs, equation=equation), tolerance=1e-4)


def test_pad_of_some_axes_and_cropping():
    x = f(2, 3, 5)
    check(*single("Pad", [x, np.array([1, -1, 2, 0, 1, -2]), np.array(7, np.float32)], constants=(1,)))
    check(*single("Pad", [x, np.array([0, 1, 2, 0, 1, 2])], constants=(1,), mode="reflect"))


def test_slices_of_dynamic_axes():
    text = """
    m (float[N,6] x) => (float[K,3] y, float[L,6] z)
    <int64[2] a = {1, -3}, int64[2] b = {9223372036854775807, 100},
     int64[1] c = {-1}, int64[1] d = {-3}, int64[1] o = {0}> {
      y = Slice(x, a, b)
      z = Slice(x, d, c, o)
    }"""
    for size in (1, 2, 3, 8):
        check(model(text), [f(size, 6)])


def test_range_and_gather_over_a_dynamic_size():
    text = """
    m (float[N,3] x) => (float[N,3] y) <int64 zero = {0}, int64 one = {1}, int64[1] ax = {0}> {
      s = Shape<start = 0, end = 1>(x)
      n = Squeeze(s, ax)
      i = Range(zero, n, one)
      k = Sub(n, one)
      j = Sub(k, i)
      y = Gather(x, j)
    }"""
    check(model(text), [f(5, 3)])


def test_group_query_attention_with_a_cache():
    q, k, v = f(2, 4, 3, 8), f(2, 2, 3, 8), f(2, 2, 3, 8)
    past = [f(2, 2, 5, 8), f(2, 2, 5, 8)]
    proto, given = single("Attention", [q, k, v, None, *past], outputs=3, opset=23, is_causal=1)
    ours = [t.numpy() for t in interp.run(load(proto), *given)]
    keys, values = (np.concatenate([a, b], 2).repeat(2, 1) for a, b in zip(past, (k, v), strict=True))
    scores = q @ keys.swapaxes(2, 3) / np.sqrt(8)
    scores[..., np.arange(8) > np.arange(3)[:, None] + 5] = -np.inf
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    np.testing.assert_allclose(ours[0], weights / weights.sum(-1, keepdims=True) @ values, rtol=1e-4, atol=1e-5)
    assert ours[1].shape == (2, 2, 8, 8)


def test_random_numbers_follow_the_seed():
    proto = helper.make_model(helper.make_graph(
        [helper.make_node("RandomNormal", [], ["y"], shape=[2000], mean=3.0, scale=2.0, seed=5.0)], "m", [],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2000])]), opset_imports=[helper.make_opsetid("", 17)])
    a, b = (interp.run(load(proto))[0].numpy() for _ in range(2))
    assert (a == b).all() and abs(a.mean() - 3) < 0.2 and abs(a.std() - 2) < 0.15
