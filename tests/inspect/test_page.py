import json
import re

import pytest

import effcc
from effcc.inspect import draw, page, path_of
from effcc.ir import Builder, Loc, PassLoc, Symbol, Tensor, f32, merge
from effcc.report import facts


@pytest.fixture(scope="module")
def program():
    b = Builder("net</script>")
    x = b.input("x", Tensor(f32, (Symbol("N", 1, 8), 4)))
    w = b.input("w", Tensor(f32, (4, 4)))
    for k in range(3):
        with b.at(Loc("m.onnx", f"/layer.{k}/fc/MatMul")):
            x = b.matmul(x, w)
        with b.at(Loc("m.onnx", f"/layer.{k}/Relu")):
            x = b.relu(x)
    return effcc.compile(b.graph(x))


def test_nodes_know_what_they_read(program):
    nodes = draw(program.source, {"N": 1})["nodes"]
    kinds = [n["kind"] for n in nodes]
    assert kinds == ["input", "input", *["contraction", "elementwise"] * 3, "output"]
    assert nodes[2]["reads"] == [0, 1] and nodes[3]["reads"] == [2] and nodes[-1]["reads"] == [7]
    assert nodes[2]["path"] == ["layer.0", "fc"] and nodes[2]["flops"] == 2 * 4 * 4
    assert all(r < k for k, n in enumerate(nodes) for r in n["reads"])


def test_fused_regions_show_their_ops(program):
    labels = [n["label"] for n in draw(program.graph, {"N": 1})["nodes"]]
    assert "matmul + relu" in labels
    fused = next(n for n in draw(program.graph, {"N": 1})["nodes"] if n["label"] == "matmul + relu")
    assert fused["kind"] == "contraction" and "relu(" in fused["text"]


def test_the_page_holds_the_facts_and_cannot_be_broken_out_of(program):
    text = page(program, facts(program))
    (line,) = re.findall(r"^const facts = (.*);$", text, re.MULTILINE)
    assert json.loads(line)["name"] == "net</script>" and "</script" not in line
    assert text.count("</script>") == 1


def test_paths_of_places():
    product, add = Loc("m.onnx", "/a/b/MatMul"), Loc("m.onnx", "/c/Add")
    assert path_of(product) == ["a", "b"] and path_of(merge((product, add))) == ["a", "b"]
    assert path_of(PassLoc(name="fold", origin=add)) == ["c"]
    assert path_of(Loc("model.py:3", "encoder.0")) == ["encoder", "0"]
    assert path_of(Loc()) == [] and path_of(Loc("m.onnx", "p2o.Add.3")) == []
