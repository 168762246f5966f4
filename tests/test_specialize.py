"""Programs for the values and shapes that calls bring."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from onnx import parser

import effcc
from effcc.errors import InputError, NeedsValue
from effcc.specialize import Specializing, Unit


def model(text: str):
    return parser.parse_model(f'<ir_version: 8, opset_import: ["" : 17]>\n{text}')


RESHAPE = "m (float[6] x, int64[2] shape) => (float[A,B] y) { z = Relu(x)  y = Reshape(z, shape) }"
X = np.arange(-2, 4, dtype=np.float32)


def test_a_value_makes_a_program_and_is_its_guard():
    program = effcc.compile(model(RESHAPE))
    assert isinstance(program, Specializing) and program.input_names == ("x", "shape") and not program.units
    for shape in ((2, 3), (3, 2), (2, 3)):
        (y,) = program(X, np.array(shape))
        np.testing.assert_array_equal(y, np.maximum(X, 0).reshape(shape))
    assert len(program.units) == 2 and len(program.launches) >= 2
    assert program.program(X, np.array([2, 3])) is program.program(X + 1, np.array([2, 3]))


def test_inputs_by_name_and_from_torch():
    program = effcc.compile(model(RESHAPE))
    (y,) = program({"shape": torch.tensor([1, -1]), "x": torch.from_numpy(X)})
    assert isinstance(y, torch.Tensor) and y.shape == (1, 6)
    with pytest.raises(InputError, match="missing shape"):
        program({"x": X})
    with pytest.raises(InputError, match="takes 2 inputs, got 1"):
        program(X)


def test_shapes_are_specialised_on_where_the_structure_depends_on_them():
    text = """
    m (float[N,3] x) => (float[?] y) <int64 one = {1}, int64[1] ax = {0}> {
      s = Shape<start = 0, end = 1>(x)
      n = Squeeze(s, ax)
      c = Equal(n, one)
      y = If(c) <then_branch = a () => (float[3] u) { u = Squeeze(x, ax) },
                 else_branch = b () => (float[N,3] v) { v = Neg(x) }>
    }"""
    program = effcc.compile(model(text))
    assert set(program.shapes) == {"x"} and not program.values
    assert program(np.ones((1, 3), np.float32))[0].shape == (3,)
    assert program(np.ones((2, 3), np.float32))[0].shape == (2, 3)


def test_sequences_come_and_go_as_lists():
    text = "m (seq(float[2]) s, float[2] x) => (seq(float[2]) t, float[2] y) { t = SequenceInsert(s, x)  y = Neg(x) }"
    program = effcc.compile(model(text))
    a, b = np.float32([1, 2]), np.float32([3, 4])
    for items in ([], [a], [a, b]):
        t, y = program(items, b)
        assert [list(v) for v in t] == [list(v) for v in (*items, b)] and list(y) == [-3, -4]


def test_a_sequence_of_tensors_needs_no_value():
    program = effcc.compile(model("m (float[2,3] x) => (seq(float[1,3]) t) { t = SplitToSequence(x) }"))
    (t,) = program(X.reshape(2, 3))
    assert [v.tolist() for v in t] == [[X[:3].tolist()], [X[3:].tolist()]]


def test_what_no_input_settles_is_raised():
    def make(fixed, shapes):
        raise NeedsValue("k is run-time data", inputs=("k",))

    with pytest.raises(NeedsValue, match="specialise on the value of 'k'"):
        Specializing(make, ("k",), ("k",))(np.array(3))


def test_the_oldest_program_makes_room(monkeypatch):
    monkeypatch.setattr(Specializing, "LIMIT", 2)
    made = []

    def make(fixed, shapes):
        made.append(int(fixed["k"]))
        return Unit(SimpleNamespace(__call__=None, launches=[]))

    program = Specializing(make, ("k",), ("k",))
    for k in (1, 2, 3, 3, 2, 1):
        program.unit({"k": np.array(k)})
    assert made == [1, 2, 3, 1] and len(program.units) == 2
