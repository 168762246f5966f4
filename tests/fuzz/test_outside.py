"""The harness that holds our type rules against outside APIs, and a small sample of calls."""

from __future__ import annotations

import itertools
import random

import onnx
import pytest
from onnx import TensorProto, helper

from effcc.errors import ParseError, UnsupportedError
from effcc.fuzz import outside, outside_onnx
from effcc.fuzz.outside import Call, Verdict, compare, judged

TYPES = (("tensor(float)", (2,)),)


def call(theirs: Verdict, ours: Verdict) -> Call:
    return Call("op", "as it is", lambda: theirs, lambda: ours)


@pytest.mark.parametrize(("theirs", "ours", "kind"), [
    (Verdict(True, TYPES), Verdict(True, TYPES), "agree: accepted"),
    (Verdict(True, TYPES), Verdict(True, (("tensor(float)", (None,)),)), "agree: accepted"),
    (Verdict(True, TYPES), Verdict(True, (("tensor(float)", (3,)),)), "other types"),
    (Verdict(True, TYPES), Verdict(True, (("tensor(double)", (2,)),)), "other types"),
    (Verdict(True, TYPES), Verdict(True, ()), "other types"),
    (Verdict(True, TYPES), Verdict(False), "too strict"),
    (Verdict(True, TYPES), Verdict(None), "unsupported"),
    (Verdict(False), Verdict(True, TYPES), "too lax"),
    (Verdict(False), Verdict(False), "agree: refused"),
    (Verdict(False), Verdict(None), "agree: refused"),
    (Verdict(None), Verdict(True, TYPES), "no opinion"),
])  # fmt: skip
def test_kinds(theirs: Verdict, ours: Verdict, kind: str) -> None:
    assert compare(call(theirs, ours))[0] == kind


def test_an_exception_that_is_no_error_for_users_is_a_crash() -> None:
    def ours() -> Verdict:
        return judged(lambda: {}["missing"])

    assert compare(Call("op", "", lambda: Verdict(False), ours)) == ("crash", "KeyError: 'missing'")


def test_what_we_do_not_support_is_no_opinion() -> None:
    def raises(error: Exception) -> Verdict:
        def types():
            raise error

        return judged(types)

    assert raises(UnsupportedError("no")).accepted is None
    assert raises(ParseError("no")).accepted is False


def model(op: str, *inputs: tuple[int, list[int]], **attributes) -> onnx.ModelProto:
    names = [f"x{k}" for k in range(len(inputs))]
    infos = [helper.make_tensor_value_info(n, *given) for n, given in zip(names, inputs, strict=True)]
    node = helper.make_node(op, names, ["y"], **attributes)
    graph = helper.make_graph([node], "m", infos, [onnx.ValueInfoProto(name="y")])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


@pytest.mark.parametrize(("given", "kind"), [
    (model("MatMul", (TensorProto.FLOAT, [2, 3]), (TensorProto.FLOAT, [3, 4])), "agree: accepted"),
    (model("MatMul", (TensorProto.FLOAT, [2, 3]), (TensorProto.FLOAT, [2, 4])), "agree: refused"),
    (model("Add", (TensorProto.FLOAT, [2, 3]), (TensorProto.DOUBLE, [3])), "agree: refused"),
    (model("Ceil", (TensorProto.UINT8, [2])), "agree: refused"),
    (model("ReduceMax", (TensorProto.FLOAT, [2, 3]), keepdims=2), "agree: accepted"),
])  # fmt: skip
def test_judges_of_onnx(given: onnx.ModelProto, kind: str) -> None:
    data = given.SerializeToString()
    outcome = compare(Call("m", "", lambda: outside_onnx.theirs(data), lambda: outside_onnx.ours(given)))
    assert outcome[0] == kind, outcome


def test_changes_leave_the_example_alone_and_change_something() -> None:
    chance = random.Random(0)
    example = model("Concat", (TensorProto.FLOAT, [2, 3]), (TensorProto.FLOAT, [2, 3]), axis=1)
    before = example.SerializeToString()
    seen = [outside_onnx.changed(example, chance) for _ in range(50)]
    assert example.SerializeToString() == before
    assert sum(m.SerializeToString() != before for m, _ in seen) > 40
    assert len({what for _, what in seen}) > 10


def test_a_sample_of_onnx_agrees() -> None:
    """Examples as they are: everything that ONNX Runtime runs has our types."""
    tally = outside.run(itertools.islice(outside.calls_of("onnx", seed=0), 150), 150)
    assert tally.counts["agree: accepted"] > 100
    assert not tally.found, "\n".join(map(str, tally.found))


def test_a_sample_of_torch_agrees() -> None:
    pytest.importorskip("expecttest", reason="torch's OpInfo needs it")
    tally = outside.run(outside.calls_of("torch", seed=1), 40)
    assert tally.counts["agree: accepted"] > 10 and tally.counts["agree: refused"] > 2
    wrong = [str(d) for d in tally.found if d.kind in ("too strict", "crash", "other types")]
    assert not wrong, "\n".join(wrong)
