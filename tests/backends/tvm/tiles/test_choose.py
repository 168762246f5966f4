"""Which schedule a program gets, what its report says of it, and what artifacts keep."""

import json

import numpy as np
import pytest

import effcc
from effcc.backends.tvm.tiles import choose
from effcc.errors import InputError, UnsupportedError
from effcc.ir import Builder, Symbol, Tensor, bool_, f32
from effcc.ir.blob import Blob
from effcc.ir.op import op_class
from effcc.report import facts


def mlp(rows=64):
    b = Builder("mlp")
    x = b.input("x", Tensor(f32, (rows, 96)))
    draw = np.random.default_rng(0).standard_normal
    for _ in range(2):
        x = b.gelu(b.matmul(x, b.const(Blob(draw((96, 96)).astype("f4")))))
    return b.graph(x)


def branching():
    b = Builder("branching")
    x, go = b.input("x", Tensor(f32, (8,))), b.input("go", Tensor(bool_, ()))
    sides = []
    for op in ("neg", "exp"):
        side = Builder(op)
        sides.append(side.graph(getattr(side, op)(side.input("x", x.type))))
    return b.graph(*b.emit(op_class("if")(*sides), (go, x)))


X = np.random.default_rng(1).standard_normal((64, 96)).astype("f4")


def test_tiles_are_told_in_the_report_and_kept_in_artifacts(tmp_path):
    program = effcc.compile(mlp(), schedule="tiles")
    expected = effcc.compile(mlp(), schedule="barriers")(X)
    assert facts(program)["schedule"]["used"] == "tiles"
    assert "schedule: tiles (asked for); tiles: " in program.report()
    np.testing.assert_array_equal(program(X)[0], expected[0])
    program.save(tmp_path / "m.effcc")
    loaded = effcc.load(tmp_path / "m.effcc")
    np.testing.assert_array_equal(loaded(X)[0], expected[0])
    assert facts(loaded)["schedule"]["tasks"] == facts(program)["schedule"]["tasks"] > 1
    assert len(program.launches) == len(facts(loaded)["kernels"])
    loaded.trace((X,), tmp_path / "t.json")
    loaded.trace({"x": X}, tmp_path / "u.json", threads=1)
    slices = [e for e in json.loads((tmp_path / "u.json").read_text())["traceEvents"] if e["ph"] == "X"]
    assert len(slices) == facts(program)["schedule"]["tasks"] and {e["tid"] for e in slices} == {0}


def test_what_runs_under_barriers_has_no_trace(tmp_path):
    with pytest.raises(InputError, match="runs under barriers"):
        effcc.compile(mlp(), schedule="barriers").trace((X,), tmp_path / "t.json")
    assert not (tmp_path / "t.json").exists()


@pytest.mark.parametrize("times,used", [((1.0, 2.0), "tiles"), ((1.0, 1.01), "barriers"), ((2.0, 1.0), "barriers")])
def test_auto_keeps_the_faster(monkeypatch, times, used):
    monkeypatch.setattr(choose, "WORTH_NS", 0)
    monkeypatch.setattr(choose, "measure", lambda engines, inputs: times[::-1])
    program = effcc.compile(mlp(), schedule="auto")
    found = facts(program)["schedule"]
    assert (found["used"], found["milliseconds"]) == (used, {"tiles": times[0], "barriers": times[1]})
    assert bool(program.code.executable.layout.sections) == (used == "tiles")
    np.testing.assert_array_equal(program(X)[0], effcc.compile(mlp(), schedule="barriers")(X)[0])


def test_auto_really_measures(monkeypatch):
    monkeypatch.setattr(choose, "WORTH_NS", 0)
    found = facts(effcc.compile(mlp(), schedule="auto"))["schedule"]
    assert all(ms > 0 for ms in found["milliseconds"].values())


def test_auto_does_not_measure_what_takes_long(monkeypatch):
    monkeypatch.setattr(choose, "WORTH_NS", 0)
    monkeypatch.setattr(choose, "SECONDS", -1)
    found = facts(effcc.compile(mlp(), schedule="auto"))["schedule"]
    assert found["used"] == "barriers" and "more than" in found["reason"] and found["milliseconds"] is None


def test_auto_does_not_measure_what_it_should_not(monkeypatch):
    assert "too small" in facts(effcc.compile(mlp(8), schedule="auto"))["schedule"]["reason"]
    monkeypatch.setattr(choose, "WORTH_NS", 0)
    found = facts(effcc.compile(mlp(), schedule="auto", tune="none"))["schedule"]
    assert "measures nothing" in found["reason"] and found["milliseconds"] is None


def test_sizes_that_vary():
    graph = mlp(Symbol("N", 1, 64))
    with pytest.raises(UnsupportedError, match="input 'x': schedule=\"tiles\" cannot be made: its sizes vary"):
        effcc.compile(graph, schedule="tiles")
    assert facts(effcc.compile(graph, schedule="auto"))["schedule"]["reason"] == "its sizes vary"


def test_control_flow_runs_under_barriers_and_says_so():
    program = effcc.compile(branching(), schedule="tiles")
    found = facts(program)["schedule"]
    assert found["used"] == "barriers" and "branch" in found["reason"]
    x = np.ones(8, "f4")
    np.testing.assert_array_equal(program(x, np.array(True))[0], -x)


def test_inputs_to_measure_with():
    program = effcc.compile(mlp(), schedule="barriers").code.built.program
    (drawn,) = choose.inputs_for(program)
    assert drawn.shape == (64, 96) and drawn.dtype == np.float32 and drawn.std() > 0
