"""Whole graphs as files: names, sizes that vary, control flow, large constants, programs and the command."""

import numpy as np
import onnx
import pytest
import torch

import effcc
from effcc.backends.onnx import backend
from effcc.backends.onnx.backend import OnnxCode
from effcc.backends.onnx.export import export
from effcc.errors import InputError, UnsupportedError
from effcc.ir import Builder, Symbol, Tensor, bool_, f32, i64
from effcc.ir.types import bf16, i8
from effcc.text import parse

N, L = Symbol("N", 1), Symbol("L", 1)


def built(types, make, names="xyzw"):
    b = Builder("model")
    out = make(b, *(b.input(n, t) for n, t in zip(names, types, strict=False)))
    return b.graph(*(out if isinstance(out, tuple) else (out,)))


def test_names_of_inputs_and_outputs_stay():
    graph = parse("""
        graph @net(%image: f32[2,3]) -> (f32[2,3], f32[2,3], f32[2,3]) {
          %logits: f32[2,3] = neg(%image)
          return %logits, %image, %logits
        }""")
    model = export(graph)
    onnx.checker.check_model(model, full_check=True)
    assert [i.name for i in model.graph.input] == ["image"]
    names = [o.name for o in model.graph.output]
    assert names[0] == "logits" and len(set(names)) == 3
    x = np.arange(6, dtype="f4").reshape(2, 3)
    for got, wanted in zip(OnnxCode(graph, model)(x), (-x, x, -x), strict=True):
        assert np.array_equal(got, wanted)


def test_sizes_that_vary_are_dim_params_and_are_computed_in_the_graph(held):
    def make(b, x, y):
        half = b.reshape(x, shape=(N * L, 4))
        cut = b.slice(half, starts=(0, 0), stops=((N * L + 1) // 2, 4), steps=(1, 1))
        return b.concat(cut, b.broadcast_to(y, shape=(N, 4)), axis=0), b.dim(value=N * 2 + L % 3)

    graph = built([Tensor(f32, (N, L, 4)), Tensor(f32, (4,))], make)
    dims = [d.dim_param or d.dim_value for d in export(graph).graph.input[0].type.tensor_type.shape.dim]
    assert dims == ["N", "L", 4]
    for n, length in ((1, 1), (2, 3), (5, 4)):
        held(graph, [torch.rand(n, length, 4), torch.rand(4)], again="values")


def test_a_block_is_replaced_on_several_axes_and_clamped(held):
    types = [Tensor(f32, (4, N, 6)), Tensor(f32, (2, 1, 6)), Tensor(i64, ()), Tensor(i64, ())]
    graph = built(types, lambda b, x, u, i, j: b.update_slice(x, u, i, j, b.const(0)))
    for i, j in ((0, 0), (1, 2), (9, 9), (-3, 1)):
        held(graph, [torch.rand(4, 5, 6), torch.rand(2, 1, 6), torch.tensor(i), torch.tensor(j)], again="values")


def test_branches_and_loops_see_sizes_from_outside(held):
    graph = parse("""
        graph @flow<N in 1..8>(%c: bool[], %x: f32[N,3]) -> (f32[N,3], i64[]) {
          %t: i64[] = const 4
          %y: f32[N,3] = if(%c, %x) {
            then=graph @yes(%a: f32[N,3]) -> f32[N,3] { %n: i64[] = dim() {value=N} %f: f32[] = cast(%n) {to=f32}
              %r: f32[N,3] = mul(%a, %f) return %r },
            orelse=graph @no(%a: f32[N,3]) -> f32[N,3] { return %a }}
          %z: i64[] = dim() {value=N}
          return %y, %z
        }""")
    for c in (True, False):
        held(graph, [torch.tensor(c), torch.rand(5, 3)], again="values")


def test_a_loop_whose_carried_value_grows(held):
    grown = Symbol("G", 1)
    body = built([Tensor(i64, ()), Tensor(bool_, ()), Tensor(f32, (grown, 2))],
                 lambda b, i, c, x: (c, b.concat(x, b.mul(x, x), axis=0)))  # fmt: skip

    def make(b, x):
        (y,) = b.loop(b.const(2), b.const(True), x, body=body, num_carried=1)
        return b.sum(y, axes=(0,)), b.dim(value=grown)

    held(built([Tensor(f32, (3, 2))], make), [torch.tensor([[1.0, 2], [0, -1], [3, 1]])], again="values")


def test_constants_are_written_once():
    w = np.random.default_rng(0).standard_normal((8, 8)).astype("f4")
    graph = built([Tensor(f32, (2, 8))], lambda b, x: b.matmul(b.matmul(x, b.const(w)), b.const(w.copy())))
    assert len(export(graph).graph.initializer) == 1


def test_models_beyond_the_limit_keep_constants_beside_the_file(tmp_path, monkeypatch, run_file):
    w = np.random.default_rng(0).standard_normal((40, 40)).astype("f4")
    program = effcc.compile(built([Tensor(f32, (N, 40))], lambda b, x: b.matmul(x, b.const(w))), target="onnx")
    x = np.ones((3, 40), "f4")
    (wanted,) = program(x)
    monkeypatch.setattr(backend, "LIMIT", 1000)
    path = tmp_path / "large.onnx"
    program.save(path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["large.onnx", "large.onnx.data"]
    assert path.stat().st_size < 1000 < (tmp_path / "large.onnx.data").stat().st_size
    assert np.array_equal(run_file(path, x)[0], wanted)
    program.code.sessions.clear()
    assert np.array_equal(program(x)[0], wanted)


def test_programs_take_and_give_numpy_and_torch():
    program = effcc.compile(built([Tensor(bf16, (N, 4))], lambda b, x: b.add(x, x)), target="onnx")
    x = torch.arange(8, dtype=torch.bfloat16).reshape(2, 4)
    (y,) = program(x)
    assert torch.equal(y, x + x)
    array = np.arange(8).reshape(2, 4).astype(bf16.numpy)
    assert np.array_equal(program({"x": array})[0], array + array)
    assert "target" in effcc.report.facts(program) and "add" in program.report()


def test_what_does_not_fit_is_told_in_one_line():
    program = effcc.compile(built([Tensor(f32, (N, 4))], lambda b, x: b.neg(x)), target="onnx")
    for given, words in (
        ([], "takes 1 inputs, got 0"),
        ([np.zeros((2, 4), "f8")], "'x' is float64, expected f32"),
        ([np.zeros((2, 5), "f4")], "shape .2, 5., expected f32.N,4."),
    ):
        with pytest.raises(InputError, match=words):
            program(*given)
    with pytest.raises(UnsupportedError, match="onnx has no options"):
        effcc.compile(built([Tensor(f32, (4,))], lambda b, x: b.neg(x)), target="onnx{opset=7}")


def test_without_onnx_runtime(monkeypatch):
    import sys

    program = effcc.compile(built([Tensor(f32, (4,))], lambda b, x: b.neg(x)), target="onnx")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UnsupportedError, match="ONNX Runtime, which is not installed; pip install onnxruntime"):
        program(np.zeros(4, "f4"))


def test_integer_products_are_exact_in_onnx_runtime(held):
    generator = np.random.default_rng(1)
    x, w = (torch.from_numpy(generator.integers(-128, 128, s).astype("i1")) for s in ((1, 4, 6, 6), (8, 4, 3, 3)))
    graph = built(
        [Tensor(i8, (1, 4, 6, 6)), Tensor(i8, (8, 4, 3, 3))],
        lambda b, x, w: b.conv(
            x, w, strides=(1, 1), pads=(1, 1, 1, 1), dilations=(1, 1), accumulate=effcc.ir.types.i32, pad_value=-7
        ),
    )
    held(graph, [x, w])


@pytest.mark.parametrize("body, message", [
    ("%0: sequence<bf16[2]> = sequence_construct(%x) %1: i64[] = sequence_length(%0) return %1", "sequences of bf16"),
    ("%0: optional<bf16[2]> = optional(%x) %1: bool[] = optional_has_element(%0) return %1", "optionals of bf16"),
    ("%0: sequence<f32[2]> = sequence_construct(%y) %1: sequence<sequence<f32[2]>> = sequence_construct(%0) return %x",
     "no values of type sequence<sequence<f32.2.>>"),
    ("%0: optional<f32[2]> = optional(%y) %1: optional<optional<f32[2]>> = optional(%0) return %x",
     "no values of type optional<optional<f32.2.>>"),
    ("return", "the graph has no results"),
])  # fmt: skip
def test_values_that_onnx_has_not_are_refused(body, message):
    result = {"%x": "bf16[2]", "return": "()"}.get(body.split()[-1], "bool[]" if "has_element" in body else "i64[]")
    with pytest.raises(UnsupportedError, match=message):
        export(parse(f"graph @f(%x: bf16[2], %y: f32[2]) -> {result} {{ {body} }}"))


def test_branches_and_loops_without_results_are_left_out(held):
    graph = parse("""
        graph @f(%c: bool[], %n: i64[], %x: f32[2]) -> f32[2] {
          if(%c, %x) {then=graph @yes(%a: f32[2]) -> () { return }, orelse=graph @no(%a: f32[2]) -> () { return }}
          loop(%n, %c, %x) {body=graph @body(%i: i64[], %g: bool[], %a: f32[2]) -> bool[] { return %g }, num_carried=0}
          %0: f32[2] = neg(%x)
          return %0
        }""")
    assert [node.op_type for node in export(graph).graph.node] == ["Neg"]
    held(graph, [torch.tensor(True), torch.tensor(2), torch.rand(2)], again="values")


@pytest.mark.parametrize("op", [
    "max_pool(%x) {kernel=(5, 2), strides=(4, 4), pads=(1, 0, 1, 0), dilations=(1, 1)}",
    "avg_pool(%x) {kernel=(5, 2), strides=(4, 4), pads=(1, 0, 1, 0), dilations=(1, 1)}",
    "max_pool(%x) {kernel=(2, 2), strides=(4, 4), pads=(0, 0, 0, 0), dilations=(2, 1)}",
    "conv(%x, %w) {strides=(4, 4), pads=(1, 0, 1, 0), dilations=(1, 1)}",
])  # fmt: skip
def test_windows_larger_than_the_padded_image_give_nothing(held, op):
    """ONNX divides toward zero and infers a window more, or a negative number of them."""
    graph = parse(f"""graph @f(%x: f32[1,1,2,9], %w: f32[1,1,5,2]) -> f32[1,1,0,2] {{
      %0: f32[1,1,0,2] = {op}
      return %0
    }}""")
    held(graph, [torch.rand(1, 1, 2, 9), torch.rand(1, 1, 5, 2)], again="values")
