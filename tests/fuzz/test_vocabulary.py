"""NNSmith's operators in effcc's ops: each is recognized, in a graph of its own."""

import pytest

from effcc import text
from effcc.fuzz.vocabulary import NNSMITH, word_pairs, words
from effcc.ir import load_ops

EXAMPLES = {
    "AvgPool2d": "f32[1,2,4,4] -> f32[1,2,3,3] = avg_pool(%x) "
    "{kernel=(2, 2), strides=(1, 1), pads=(0, 0, 0, 0), dilations=(1, 1)}",
    "BicubicInterp": 'f32[1,2,4,4] -> f32[1,2,8,8] = resize(%x) {sizes=(1, 2, 8, 8), mode="cubic"}',
    "BilinearInterp": 'f32[1,2,4,4] -> f32[1,2,8,8] = resize(%x) {sizes=(1, 2, 8, 8), mode="linear"}',
    "TrilinearInterp": 'f32[1,2,4,4,4] -> f32[1,2,8,8,8] = resize(%x) {sizes=(1, 2, 8, 8, 8), mode="linear"}',
    "LinearInterp": 'f32[1,2,4] -> f32[1,2,8] = resize(%x) {sizes=(1, 2, 8), mode="linear"}',
    "NearestInterp": 'f32[1,2,4] -> f32[1,2,8] = resize(%x) {sizes=(1, 2, 8), mode="nearest"}',
    "CastBool": "f32[2] -> bool[2] = cast(%x) {to=bool}",
    "CastF32": "f64[2] -> f32[2] = cast(%x) {to=f32}",
    "CastI64": "f64[2] -> i64[2] = cast(%x) {to=i64}",
    "Concat3": "f32[2] -> f32[6] = concat(%x, %x, %x) {axis=0}",
    "ConstPad": "f32[2] -> f32[4] = pad(%x) {pads=(1, 1)}",
    "ReflectPad": 'f32[2] -> f32[4] = pad(%x) {pads=(1, 1), mode="reflect"}',
    "ReplicatePad": 'f32[2] -> f32[4] = pad(%x) {pads=(1, 1), mode="edge"}',
    "ExpandLast1": "f32[2,1] -> f32[2,5] = broadcast_to(%x) {shape=(2, 5)}",
    "ExpandLast3": "f32[2,1] -> f32[7,2,1] = broadcast_to(%x) {shape=(7, 2, 1)}",
    "Flatten": "f32[2,3] -> f32[6] = reshape(%x) {shape=(6,)}",
    "Squeeze": "f32[2,1,3] -> f32[2,3] = reshape(%x) {shape=(2, 3)}",
    "ReduceMax": "f32[2,3] -> f32[2] = amax(%x) {axes=(1,)}",
    "Tril": "f32[2,3] -> f32[2,3] = trilu(%x) {upper=false}",
    "Triu": "f32[2,3] -> f32[2,3] = trilu(%x) {upper=true}",
    "Linear": "f32[3,3] -> f32[3,3] = matmul(%x, %x)",
    "ReLU": "f32[3] -> f32[3] = relu(%x)",
}
"""One for each condition of the table."""


def node(example):
    source, rest = example.split(" -> ")
    result, call = rest.split(" = ", 1)
    graph = text.parse(f"graph @f(%x: {source}) -> {result} {{\n  %0: {result} = {call}\n  return %0\n}}")
    return graph.nodes[0]


def test_every_operator_of_nnsmith_has_an_op():
    assert len(NNSMITH) == 71
    assert {word.op for word in NNSMITH.values()} <= set(load_ops())


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_is_recognized(name):
    assert name in words(node(EXAMPLES[name]))


@pytest.mark.parametrize(
    ("example", "names"),
    [
        (EXAMPLES["TrilinearInterp"], ("TrilinearInterp",)),
        (EXAMPLES["ExpandLast3"], ("ExpandLast3",)),
        (EXAMPLES["Squeeze"], ("Reshape", "Squeeze")),
        ("f32[2,3] -> f32[] = amax(%x) {axes=(0, 1)}", ()),
        ("f32[3,3,3] -> f32[3,3,3] = matmul(%x, %x)", ("PTMatMul",)),
        ("f32[2] -> f32[2] = tanh(%x)", ()),
    ],
)
def test_nothing_else_is(example, names):
    assert words(node(example)) == names


def test_pairs_are_of_an_operator_and_its_reader():
    graph = text.parse(
        "graph @f(%x: f32[2]) -> f32[2] {\n  %0: f32[2] = relu(%x)\n  %1: f32[2] = tanh(%0)\n"
        "  %2: f32[2] = add(%0, %1)\n  return %2\n}"
    )
    assert word_pairs(graph) == {("ReLU", "Add")}
