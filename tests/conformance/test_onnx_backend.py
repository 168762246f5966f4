"""The runner of ONNX's backend tests itself: what it counts, and that nothing gets through it uncounted."""

from __future__ import annotations

import importlib
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import parser

from effcc.errors import UnsupportedError


@pytest.fixture(scope="module")
def runner():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parent))
        yield importlib.import_module("onnx_backend")


class Case:
    """A TestCase with its data in memory."""

    model_dir, rtol, atol = None, 1e-3, 1e-7

    def __init__(self, text: str, inputs: list, outputs: list):
        self.model = parser.parse_model(f'<ir_version: 8, opset_import: ["" : 17]>\n{text}')
        self.data_sets = [(inputs, outputs)]


RELU = "m (float[3] x) => (float[3] y) { y = Relu(x) }"
X = np.array([-1, 0, 2], np.float32)


@pytest.mark.parametrize("engine", ["interp", "cpu"])
@pytest.mark.parametrize(("text", "expected", "outcome"), [
    (RELU, np.maximum(X, 0), "pass"),
    (RELU, X, "fail"),
    (RELU, np.maximum(X, 0).astype(np.float64), "fail"),
    ("m (float[3] x) => (string[1] y) { y = Constant<value_strings = ["'"a"'"]>() }", np.array(["a"]), "unsupported"),
])  # fmt: skip
def test_outcomes(runner, engine, text, expected, outcome):
    assert runner.run_case(Case(text, [X], [expected]), engine)[0] == outcome


def test_a_case_without_data_does_not_pass(runner):
    case = Case(RELU, [X], [X])
    case.data_sets = []
    assert runner.run_case(case, "interp") == ("fail", "the case has no data")


def test_not_supported_never_counts_as_a_pass(runner, monkeypatch):
    def refuse(model, inputs):
        raise UnsupportedError("no")

    monkeypatch.setitem(runner.ENGINES, "interp", refuse)
    assert runner.run_case(Case(RELU, [X], [X]), "interp")[0] == "unsupported"
    assert runner.summary({"node/a": {"outcome": "unsupported"}})["node"] == Counter({"unsupported": 1})


def test_meanings_are_out_of_bounds_while_a_program_runs(runner):
    from effcc.ir import op_class

    with runner.no_meanings(), pytest.raises(AssertionError, match="relu was run by its meaning"):
        op_class("relu")().run(X)


def test_values_and_structure_are_specialised_on(runner):
    text = "m (float[6] x, int64[2] s) => (float[2,3] y) { y = Reshape(x, s) }"
    x = np.arange(6, dtype=np.float32)
    case = Case(text, [x, np.array([2, 3])], [x.reshape(2, 3)])
    assert runner.run_case(case, "interp")[0] == "pass" and runner.run_case(case, "cpu")[0] == "pass"
    text = "m (seq(float[2]) s) => (seq(float[2]) t) <int64 p = {0}> { v = SequenceAt(s, p)  t = SequenceInsert(s, v) }"
    a, b = np.float32([1, 2]), np.float32([3, 4])
    assert runner.run_case(Case(text, [[a, b]], [[a, b, a]]), "cpu")[0] == "pass"
    assert runner.run_case(Case(text, [[a, b]], [[a, b]]), "cpu")[0] == "fail"


def test_the_list_covers_four_groups(runner):
    names = list(runner.cases(("simple", "pytorch-operator")))
    assert len(names) == 23 + 35 and all(n.split("/")[0] in runner.GROUPS for n in names)
    assert onnx.__version__.split(".") >= ["1", "18"]


def test_failures_that_the_list_does_not_name_are_a_regression(runner, tmp_path, monkeypatch):
    monkeypatch.setattr(runner, "UNSUPPORTED_LIST", tmp_path / "list.txt")
    outcomes = {"node/a": {"outcome": "fail", "reason": "r"}, "node/b": {"outcome": "pass", "reason": ""}}
    runner.write_list(outcomes, runner.UNSUPPORTED_LIST)
    assert runner.verdict(runner.summary(outcomes), outcomes, partial=True) == 0
    outcomes["node/b"] = {"outcome": "unsupported", "reason": "s"}
    assert runner.verdict(runner.summary(outcomes), outcomes, partial=True) == 1
    assert runner.verdict(runner.summary({}), {}, partial=False) == 1


def test_an_interrupted_run_goes_on(runner, tmp_path):
    record = tmp_path / "r.jsonl"
    name = "simple/test_single_relu_model"
    record.write_text(f'{{"case": "{name}", "outcome": "pass", "reason": "", "seconds": 0}}\n{{"case": "si')  # cut off
    command = [runner.__file__, "--worker", "--engine", "interp", "--timeout", "30"]
    done = runner.run_all([name], command, 1, 30, record, progress=False)
    assert done[name]["outcome"] == "pass"
