"""Operands of dtypes that ONNX's schemas do not take are refused, by name; recurrent weights of other sizes, too."""

from __future__ import annotations

import pytest
from onnx import parser

from effcc.errors import ParseError
from effcc.frontends.onnx import imported


def graph(text: str, opset: int = 18):
    return imported(parser.parse_model(f'<ir_version: 8, opset_import: ["" : {opset}]>\n{text}')).graph


@pytest.mark.parametrize(("text", "reason"), [
    ("m (uint8[2] x) => (uint8[2] y) { y = Ceil(x) }", "Ceil: input 'X' cannot be u8"),
    ("m (float[2] x, double[2] z) => (float[2] y) { y = Add(x, z) }", "Add: inputs of type T are f32 and f64"),
    ("m (float[2] x, float[2] a) => (float[2] y) { y = ReduceMax(x, a) }", "'axes' cannot be f32"),
    ("m (float[2] x, float16[2] z) => (float[4] y) { y = Concat<axis = 0>(x, z) }", "f32 and f16"),
    ("m (float[5] x) => (float[2] y, float[2] z) { y, z = Split<axis = 0, num_outputs = 3>(x) }", "3 parts for 2"),
    ("m (float[2] x) => (float[2] y) { y = Mod<fmod = 2>(x, x) }", "fmod is 2"),
    ("m (float[1,1,5,5] x, float[1,1,3,3] w) => (float[1,1,3,3] y) { y = Conv<kernel_shape = [3]>(x, w) }",
     "kernel_shape is"),
    ("m (float[4,1,3] x, float[1,5,3] w, float[1,5,4] r) => (float[4,1,1,5] y) { y = RNN<hidden_size = 5>(x, w, r) }",
     "R is f32"),
])  # fmt: skip
def test_refused(text: str, reason: str) -> None:
    with pytest.raises(ParseError) as error:
        graph(text)
    assert reason in str(error.value)


def test_what_is_allowed_still_is() -> None:
    graph("m (float[2] x) => (float y) { y = ReduceMax<keepdims = 0>(x) }")
    graph("m (float[2,3] x, int32[2] i) => (float[2,3] y) { y = Gather<axis = 0>(x, i) }")
    reduced = graph("m (float[2,3] x) => (float[2] y) { y = ReduceL1<keepdims = 2, axes = [1]>(x) }", 13)
    assert [str(v.type) for v in reduced.results] == ["f32[2]"]  # 1 is true, like ONNX Runtime no other number
