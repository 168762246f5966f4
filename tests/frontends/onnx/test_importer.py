"""Importing: dynamic shapes, functions, nested graphs, specialisation, structure."""

from __future__ import annotations

import itertools

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, parser
from onnx.reference import ReferenceEvaluator

from effcc import interp
from effcc.errors import InputError, NeedsValue, ParseError, UnsupportedError
from effcc.frontends.onnx import imported, load, signature, value_inputs
from effcc.frontends.onnx.scope import type_proto
from effcc.ir import Symbol, Tensor, Value, f32, verify


def model(text: str, opset: int = 17, more: str = "") -> onnx.ModelProto:
    return parser.parse_model(f'<ir_version: 8, opset_import: ["" : {opset}{more}]>\n{text}')


def check(proto: onnx.ModelProto, *inputs: np.ndarray, shapes=None, fixed=None) -> list[np.ndarray]:
    """Import, verify, interpret; compare with ONNX's reference evaluator."""
    graph = load(proto, shapes=shapes, fixed=fixed)
    verify(graph)
    ours = [t.numpy() for t in interp.run(graph, *inputs)]
    names = [i.name for i in proto.graph.input]
    theirs = ReferenceEvaluator(proto).run(None, dict(zip(names, inputs, strict=True)))
    for a, b in zip(ours, theirs, strict=True):
        assert a.dtype == b.dtype and a.shape == b.shape
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    return ours


X = np.arange(24, dtype=np.float32).reshape(2, 3, 4) / 7 - 1


# --- dynamic dimensions ---
def test_a_dim_param_is_one_symbol_and_an_unknown_dimension_its_own():
    graph = load(model("m (float[N,3] x, float[N,?] y) => (float[N,M] z) { z = Concat<axis = 1>(x, y) }"))
    n, own = Symbol("N", 1), Symbol("y_1", 1)
    assert graph.inputs[0].type == Tensor(f32, (n, 3)) and graph.inputs[1].type == Tensor(f32, (n, own))
    assert graph.results[0].type == Tensor(f32, (n, own + 3)) and graph.results[0].name == "z"


@pytest.mark.parametrize(
    ("given", "expected"),
    [((2, 3), (2, 3)), (("B", 3), (Symbol("B", 1), 3)), (((4, 9), None), (Symbol("N", 4, 9), 3))],
)
def test_shapes_override_dynamic_dimensions(given, expected):
    graph = load(model("m (float[N,3] x) => (float[N,3] y) { y = Relu(x) }"), shapes={"x": given})
    assert graph.inputs[0].shape == expected


def test_an_override_binds_the_symbol_in_every_input():
    graph = load(model("m (float[N] x, float[N] y) => (float[N] z) { z = Add(x, y) }"), shapes={"x": (5,)})
    assert graph.inputs[1].shape == (5,) and graph.results[0].shape == (5,)


@pytest.mark.parametrize(
    ("shapes", "message"),
    [({"x": (2, 4)}, "the model says 3"), ({"x": (2,)}, "has rank 1"), ({"q": (2,)}, "no input 'q'; one of x")],
)
def test_wrong_overrides_are_refused(shapes, message):
    with pytest.raises(InputError, match=message):
        load(model("m (float[N,3] x) => (float[N,3] y) { y = Relu(x) }"), shapes=shapes)


@pytest.mark.parametrize(
    ("text", "shapes"),
    [
        ("m (float[N,3] x, float[M,3] y) => (float[N,6] z) { z = Concat<axis = 1>(x, y) }", [("N", 3), ("N", 3)]),
        ("m (float[N,3] x, float[4,3] y) => (float[N,6] z) { z = Concat<axis = 1>(x, y) }", [(4, 3), (4, 3)]),
        ("m (float[N,K] x, float[M,P] y) => (float[N,P] z) { z = MatMul(x, y) }", [("N", "K"), ("K", "P")]),
        ("m (float[N,C,H,W] x, float[4,3,1,1] w) => (float[N,4,H,W] y) { y = Conv(x, w) }", [("N", 3, "H", "W"), None]),
        ("m (float[N] x, float[M] y) => (float[K] z) { z = Add(x, y) }", [("N",), ("M",)]),
    ],
)
def test_sizes_that_must_be_equal_become_one(text, shapes):
    graph = load(model(text))
    verify(graph)
    for v, expected in zip(graph.inputs, shapes, strict=True):
        assert expected is None or tuple(d if isinstance(d, int) else str(d) for d in v.shape) == expected


def test_calls_that_break_such_an_equality_are_refused():
    graph = load(model("m (float[N,3] x, float[M,3] y) => (float[N,6] z) { z = Concat<axis = 1>(x, y) }"))
    with pytest.raises(InputError, match="input 'y': axis 0 is 2, expected N"):
        interp.run(graph, np.ones((4, 3), np.float32), np.ones((2, 3), np.float32))


def test_zero_sized_dimensions():
    text = "m (float[0,3] x) => (float[3] y) <int64[1] a = {0}> { z = Exp(x)  y = ReduceSum<keepdims = 0>(z, a) }"
    (y,) = check(model(text), np.zeros((0, 3), np.float32))
    assert not y.any()


# --- value analysis through real exporter chains ---
FLATTEN = """
m (float[N,3,4] x) => (float[N,12] y)
<int64[1] i = {0}, int64[1] rest = {-1}> {
  s = Shape(x)
  n = Gather(s, i)
  target = Concat<axis = 0>(n, rest)
  y = Reshape(x, target)
}"""


def test_shape_chain_becomes_an_attribute():
    graph = load(model(FLATTEN))
    assert [n.op.name for n in graph.nodes] == ["reshape"]
    assert graph.nodes[0].op.shape == (Symbol("N", 1), 12)
    check(model(FLATTEN), X)


def test_expand_to_a_shape_chosen_by_where():
    text = """
    m (float[N,1] x) => (float[N,5] y)
    <int64[2] wanted = {-1, 5}, int64[2] minus = {-1, -1}, int64 two = {2}> {
      s = Shape(x)
      keep = Equal(wanted, minus)
      shape = Where(keep, s, wanted)
      y = Expand(x, shape)
    }"""
    assert load(model(text)).results[0].shape == (Symbol("N", 1), 5)
    check(model(text), X[:, :1, 0])


def test_resize_sizes_through_float_arithmetic():
    text = """
    m (float[1,1,H,W] x) => (float[1,1,P,Q] y)
    <float[2] half = {0.5, 0.5}, int64[1] a = {2}, int64[1] b = {4}> {
      s = Shape(x)
      hw = Slice(s, a, b)
      f = Cast<to = 1>(hw)
      g = Mul(f, half)
      h = Floor(g)
      size = Cast<to = 7>(h)
      first = Shape<start = 0, end = 2>(x)
      sizes = Concat<axis = 0>(first, size)
      y = Resize<mode = "nearest", coordinate_transformation_mode = "asymmetric", nearest_mode = "floor">(x, , , sizes)
    }"""
    h, w = Symbol("H", 1), Symbol("W", 1)
    assert load(model(text)).results[0].shape == (1, 1, h // 2, w // 2)
    check(model(text), np.arange(35, dtype=np.float32).reshape(1, 1, 5, 7))


def test_dimensions_as_data_stay_in_the_graph():
    text = """
    m (float[N,3] x) => (float y) {
      s = Size(x)
      f = Cast<to = 1>(s)
      t = ReduceSum<keepdims = 0>(x)
      y = Div(t, f)
    }"""
    assert "dim" in {n.op.name for n in load(model(text)).nodes}
    check(model(text), X[0, :, :3].copy())


# --- run-time values ---
RESHAPE = "m (float[2,3,4] x, int64[2] shape) => (float[A,B] y) { y = Reshape(x, shape) }"


def test_a_shape_that_is_an_input_needs_its_value():
    with pytest.raises(NeedsValue, match="specialise on the value of 'shape'") as error:
        load(model(RESHAPE))
    assert error.value.inputs == ("shape",) and value_inputs(model(RESHAPE)) == ("shape",)
    check(model(RESHAPE), X, np.array([4, -1]), fixed={"shape": np.array([4, -1])})


def test_only_what_the_value_depends_on_is_asked_for():
    text = "m (float[6] x, int64[1] a, int64[1] b) => (float[M] y) { c = Add(a, b)  z = Reshape(x, c)  y = Relu(z) }"
    with pytest.raises(NeedsValue) as error:
        load(model(text))
    assert set(error.value.inputs) == {"a", "b"}
    graph = load(model(text), fixed={"a": np.array([2]), "b": np.array([4])})
    assert [v.name for v in graph.inputs] == ["x", "a", "b"] and graph.results[0].shape == (6,)


def test_data_dependent_sizes_are_symbols():
    (size,) = load(model("m (float[4] x) => (int64[1,K] y) { y = NonZero(x) }")).results[0].shape[1:]
    assert isinstance(size, Symbol) and (size.lo, size.hi) == (0, 4)
    check(model("m (float[4] x) => (int64[1,K] y) { y = NonZero(x) }"), np.array([0, 1, 0, 2], np.float32))


# --- functions ---
def test_local_functions_with_attributes_are_inlined():
    proto = parser.parse_model("""
    <ir_version: 8, opset_import: ["" : 17, "local" : 1]>
    m (float[2,3,4] x) => (float[2,3,4] y) { y = local.Twice<slope = 0.5>(x) }
    <opset_import: ["" : 17], domain: "local">
    Twice <slope> (x) => (y) { a = LeakyRelu<alpha: float = @slope>(x)  y = LeakyRelu<alpha: float = @slope>(a) }
    """)
    graph = load(proto)
    assert [n.op.name for n in graph.nodes] == ["leaky_relu"] * 2 and graph.nodes[0].op.alpha == 0.5


def test_functions_that_call_themselves_are_refused():
    proto = parser.parse_model("""
    <ir_version: 8, opset_import: ["" : 17, "local" : 1]>
    m (float[2] x) => (float[2] y) { y = local.F(x) }
    <opset_import: ["" : 17, "local" : 1], domain: "local"> F (x) => (y) { y = local.F(x) }
    """)
    with pytest.raises(ParseError, match="calls itself"):
        load(proto)


@pytest.mark.parametrize(("count", "calls", "message"), [(40, 2, "expand to more than"), (100, 1, "64 deep")])
def test_functions_that_multiply_or_are_too_deep_are_refused(count, calls, message):
    """Each calls the next one twice: 2 ** 40 nodes."""
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    functions = []
    for k in range(count):
        op, domain = (f"f{k + 1}", "own") if k + 1 < count else ("Neg", "")
        names = ["x", *(f"t{j}" for j in range(calls))]
        nodes = [helper.make_node(op, [a], [b], domain=domain) for a, b in itertools.pairwise(names)]
        functions.append(helper.make_function("own", f"f{k}", ["x"], [names[-1]], nodes, opsets))
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [3]) for name in "xy")
    graph = helper.make_graph([helper.make_node("f0", ["x"], ["y"], domain="own")], "m", [x], [y])
    proto = helper.make_model(graph, functions=functions, opset_imports=opsets)
    with pytest.raises(UnsupportedError, match=message):
        load(proto)


def test_ops_without_a_handler_expand_by_their_schema():
    text = "m (float[5,3] x, int64[5] t) => (float y) { y = SoftmaxCrossEntropyLoss(x, t) }"
    check(model(text), X.reshape(-1)[:15].reshape(5, 3), np.array([0, 2, 1, 1, 0]))


# --- control flow ---
IF = """
m (bool c, float[2,3,4] x, float[2,3,4] z) => (float[2,3,4] y) {
  y = If(c) <then_branch = a () => (float[2,3,4] u) { u = Add(x, z) },
             else_branch = b () => (float[2,3,4] v) { w = Exp(x)  v = Neg(w) }>
}"""


@pytest.mark.parametrize("cond", [True, False])
def test_if_captures_are_operands(cond):
    (node,) = load(model(IF)).nodes
    assert node.op.name == "if" and [v.name for v in node.operands] == ["c", "x", "z"]
    check(model(IF), np.array(cond), X, X * 2)


def test_a_known_condition_leaves_its_branch_only():
    text = """
    m (float[2,3,4] x) => (float[2,3,4] y) <int64 two = {2}> {
      s = Shape<start = 0, end = 1>(x)
      t = Squeeze(s)
      c = Equal(t, two)
      y = If(c) <then_branch = a () => (float[2,3,4] u) { u = Relu(x) },
                 else_branch = b () => (float[2,3,4] v) { v = Exp(x) }>
    }"""
    assert [n.op.name for n in load(model(text)).nodes] == ["relu"]


def test_branches_of_other_ranks_need_the_condition():
    text = """
    m (bool c, float[1,3] x) => (float[?] y) <int64[1] a = {0}> {
      y = If(c) <then_branch = t () => (float[3] u) { u = Squeeze(x, a) },
                 else_branch = e () => (float[1,3] v) { v = Identity(x) }>
    }"""
    with pytest.raises(NeedsValue) as error:
        load(model(text))
    assert error.value.inputs == ("c",)
    assert load(model(text), fixed={"c": np.array(False)}).results[0].shape == (1, 3)


def test_branches_of_other_sizes_join_in_a_symbol():
    text = """
    m (bool c, float[4] x) => (float[K] y) <int64[1] a = {0}, int64[1] b = {3}> {
      y = If(c) <then_branch = t () => (float[3] u) { u = Slice(x, a, b) },
                 else_branch = e () => (float[4] v) { v = Neg(x) }>
    }"""
    assert isinstance(load(model(text)).results[0].shape[0], Symbol)
    for cond in (True, False):
        check(model(text), np.array(cond), X.reshape(-1)[:4])


LOOP = """
m (int64 trips, float[3] x) => (float[3] y, float[T,3] ys) <bool go = {1}> {
  y, ys = Loop(trips, go, x) <body = b (int64 i, bool c, float[3] s) => (bool d, float[3] t, float[3] o) {
    d = Identity(c)
    k = Cast<to = 1>(i)
    u = Add(s, k)
    t = Mul(u, x)
    o = Neg(t)
  }>
}"""


@pytest.mark.parametrize("trips", [0, 1, 4])
def test_loop_carries_scans_and_captures(trips):
    with pytest.raises(NeedsValue, match="bounds the size of what is scanned"):
        load(model(LOOP))
    graph = load(model(LOOP), fixed={"trips": np.array(trips)})
    (node,) = [n for n in graph.nodes if n.op.name == "loop"]
    assert (node.op.num_carried, node.op.length) == (1, trips)
    ours = [t.numpy() for t in interp.run(graph, np.array(trips), X[0, 0, :3])]
    state, rows = X[0, 0, :3], []
    for i in range(trips):
        state = (state + np.float32(i)) * X[0, 0, :3]
        rows.append(-state)
    np.testing.assert_allclose(ours[0], state, rtol=1e-6)
    np.testing.assert_allclose(ours[1], np.array(rows, np.float32).reshape(-1, 3), rtol=1e-6)


def test_while_loop_stops_by_its_condition():
    text = """
    m (float x) => (float y) <bool go = {1}, float limit = {100.0}> {
      y = Loop(, go, x) <body = b (int64 i, bool c, float s) => (bool d, float t) {
        t = Add(s, s)
        d = Less(t, limit)
      }>
    }"""
    check(model(text), np.array(3, np.float32))


def test_positions_that_follow_the_counter_unroll_the_loop():
    text = """
    m (float[4,2] x) => (float[2] y) <bool go = {1}, int64 n = {3}, float[2] zero = {0.0, 0.0}, int64[1] ax = {0}> {
      y = Loop(n, go, zero) <body = b (int64 i, bool c, float[2] s) => (bool d, float[2] t) {
        d = Identity(c)
        a = Unsqueeze(i, ax)
        one = Constant<value_ints = [1]>()
        e = Add(a, one)
        p = Slice(x, a, e, ax)
        q = Squeeze(p, ax)
        t = Add(s, q)
      }>
    }"""
    assert "loop" not in {n.op.name for n in load(model(text)).nodes}
    check(model(text), X.reshape(-1)[:8].reshape(4, 2))


def test_scan_over_a_dynamic_axis_backwards():
    text = """
    m (float[T,3] x, float[3] s0) => (float[3] s, float[T,3] ys) {
      s, ys = Scan(s0, x) <num_scan_inputs: int = 1,
        scan_input_directions: ints = [1], scan_output_directions: ints = [1],
        body: graph = b (float[3] a, float[3] e) => (float[3] c, float[3] o) { c = Add(a, e)  o = Mul(c, c) }>
    }"""
    assert load(model(text)).results[1].shape[0] == Symbol("T", 1)
    ours = [t.numpy() for t in interp.run(load(model(text)), X[0].T[:, :3].copy(), X[1, 0, :3])]
    state, rows = X[1, 0, :3], []
    for row in X[0].T[::-1, :3]:
        state = state + row
        rows.append(state * state)
    np.testing.assert_allclose(ours[0], state, rtol=1e-5)
    np.testing.assert_allclose(ours[1], np.array(rows[::-1]), rtol=1e-5)


# --- sequences and optionals ---
def test_sequences_resolve_at_import():
    text = """
    m (float[2,3,4] x) => (float[3,4] y) <int64 one = {1}> {
      parts = SplitToSequence<axis = 0, keepdims = 0>(x)
      y = SequenceAt(parts, one)
    }"""
    assert {n.op.name for n in load(model(text)).nodes} == {"slice", "reshape"}
    check(model(text), X)


def test_sequence_outputs_are_ports_of_several_results():
    text = "m (float[2,3,4] x) => (seq(float[2,1,4]) y) { y = SplitToSequence<axis = 1>(x) }"
    source = imported(model(text))
    (port,) = source.outputs
    assert (port.kind, port.positions) == ("sequence", (0, 1, 2))
    assert [v.name for v in source.graph.results] == ["y[0]", "y[1]", "y[2]"]


def test_sequence_inputs_need_their_structure():
    text = """
    m (seq(float[2]) s, float[2] x) => (float[K,2] y) {
      t = SequenceInsert(s, x)
      y = ConcatFromSequence<axis = 0, new_axis = 1>(t)
    }"""
    with pytest.raises(NeedsValue) as error:
        imported(model(text))
    assert error.value.inputs == ("s",)
    source = imported(model(text), fixed={"s": [X[0, 0, :2], X[0, 1, :2]]})
    assert source.inputs[0].positions == (0, 1) and source.graph.results[0].shape == (3, 2)


# --- what is refused ---
@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("m (float[2] x) => (float[2] y) { y = Nonsense(x) }", UnsupportedError, "m:y: unknown op Nonsense"),
        ("m (float[2] x) => (float[2] y) { y = Add(x, z) }", ParseError, "input 'z' of 'y' is not defined"),
        ("m (float[2] x) => (float[2] y) { y = Add(x) }", ParseError, "Add takes 2 to 2 inputs, got 1"),
        ("m (float[2] x) => (float[2] y) { z = Neg(x) }", ParseError, "output 'y' is not defined"),
        ("m (float[2] x) => (float[3] y) { y = Cast(x) }", ParseError, "attribute 'to' is missing"),
        ("m (float[2] x) => (float[2] y) { y = Softmax<axis = 3>(x) }", ParseError, "axis 3 of a tensor of rank 1"),
        ("m (float[2] x, float[3] z) => (float[2] y) { y = Add(x, z) }", Exception, "sizes 2 and 3 do not broadcast"),
        ("m (string[2] x) => (string[2] y) { y = Identity(x) }", UnsupportedError, "tensors of strings"),
        ("m (float[2] x) => (float[2] y) { y = other.Op(x) }", ParseError, "does not import"),
        ("m (float[2] x, float[2] x) => (float[2] y) { y = Neg(x) }", ParseError, "input 'x' is listed twice"),
        ("m (float[2] x) => (float[2] y) { y = BitwiseNot(x) }", UnsupportedError, "BitwiseNot is not of opset 17"),
        ('m (float[2] x) => (float y) { y = Einsum<equation = "i->j">(x) }', ParseError, "does not follow"),
        ('m (float[2] x) => (float y) { y = Einsum<equation = "i->ii">(x) }', ParseError, "does not follow"),
        ("m (float[2] x, bool k) => (float[N] y) { y = Compress<axis = 0>(x, k) }", ParseError, "less than 1 axes"),
        ("m (float[2] x, float[2] s) => (float[2] y) { y = InstanceNormalization(x, s, s) }", ParseError, "3 axes"),
        ("m (float[2] x, float[2] w) => (float[2] y) { y = ConvTranspose(x, w) }", ParseError, "less than 3 axes"),
        ("m (seq(float[2]) s) => (float[2] y) { y = Neg(s) }", NeedsValue, "'s' is of a sequence type"),
        (
            "m (float[2] x) => (float[2] y) { y = SequenceInsert(x, x) }",
            ParseError,
            "SequenceInsert: .*cannot be f32",  # as ONNX's own rules say
        ),
        (
            "m (float[2,3] x, float[1,2,3] w) => (float[2] h) { y, h = LSTM<hidden_size = 4>(x, w, w) }",
            ParseError,
            "less than 3 axes",
        ),
        (
            "m (float[2] x) => (float[2] y) <int64[1] at = {7}> { s = Shape(x) n = Gather(s, at) y = Reshape(x, n) }",
            Exception,
            "m:",
        ),
        (
            "m (float[1] x) => (float y) <int64[2] shape = {-3, 2}> { y = Expand(x, shape) }",
            Exception,
            "with a size below 0",
        ),
    ],
)
def test_bad_models_are_refused_in_one_line(text, error, message):
    with pytest.raises(error, match=message) as caught:
        load(model(text))
    assert "\n" not in str(caught.value) and "m" in str(caught.value)


def test_opsets_that_onnx_does_not_know_are_refused():
    with pytest.raises(UnsupportedError, match="opset 999"):
        load(model("m (float[2] x) => (float[2] y) { y = Relu(x) }", opset=999))


def test_constants_that_no_memory_holds_are_refused():
    text = """m (int64[4] x) => (float[N] y) {
      y = TfIdfVectorizer<max_gram_length = 1, max_skip_count = 0, min_gram_length = 1, mode = "TF",
          ngram_counts = [0], ngram_indexes = [1099511627776], pool_int64s = [3]>(x)
    }"""
    with pytest.raises(UnsupportedError, match="places of up to 1099511627776"):
        load(model(text))


def test_signature_leaves_out_constants_listed_as_inputs():
    proto = model("m (float[2] x, float[2] w) => (float[2] y) <float[2] w = {1.0, 2.0}> { y = Add(x, w) }", opset=9)
    assert signature(proto) == ("x",) and [v.name for v in load(proto).inputs] == ["x"]


def test_results_may_be_inputs_and_constants():
    text = "m (float[2,3,4] x) => (float[2,3,4] y, float[1] z) { y = Identity(x) z = Constant<value_floats = [2.0]>() }"
    check(model(text), X)


def test_deep_graphs_import_without_recursion():
    body = "".join(f"  v{i + 1} = Add(v{i}, v{i})\n" for i in range(3000))
    graph = load(model(f"m (int64[1] v0) => (int64[1] v3000) {{\n{body}}}"))
    assert len(graph.nodes) == 3000
    assert torch.equal(interp.run(graph, torch.tensor([0]))[0], torch.tensor([0]))
    with pytest.raises(NeedsValue):
        load(model(f"m (int64[1] v0, float[4] x) => (float[?] y) {{\n{body} y = Reshape(x, v3000) }}"))


def test_sizes_beyond_64_bits_are_refused():
    """Of an operand of an operator with a function body, which is asked for by types."""
    with pytest.raises(UnsupportedError, match="beyond 64 bits"):
        type_proto(Value(Tensor(f32, (2, 1 << 64))))
