"""Coverage: branches, rules and groups that a test reaches are told, and nothing of files that are not watched."""

from pathlib import Path

from effcc.fuzz.coverage import Coverage, general
from effcc.pipeline import Context, parse_pipeline
from effcc.text import parse


def reached(text, passes):
    coverage = Coverage()
    graph, ctx = parse(text), Context()
    for p in parse_pipeline(passes):
        graph = coverage.run(p, graph, ctx)
    return coverage.take()


def test_what_only_a_certain_graph_reaches_is_noticed():
    plain = reached("graph @f(%x: f32[2]) -> f32[2] { %0: f32[2] = exp(%x)  return %0 }", "simplify,fuse")
    twice = reached("""graph @f(%x: f32[2]) -> f32[2] {
      %0: f32[2] = neg(%x)
      %1: f32[2] = neg(%0)
      return %1
    }""", "simplify,fuse")
    new = twice - plain
    assert any(f.startswith("fired simplify") for f in new)
    assert any(f.startswith("branch passes/simplify.py") for f in new)
    assert all(Path("passes", f.split()[1].removeprefix("passes/")).name.endswith(".py")
               for f in twice if f.startswith("branch"))


def test_refusals_and_groups_are_told():
    found = reached("""graph @f(%x: f32[2]) -> f32[2] {
      %0: f32[2] = exp(%x)
      %1: f32[2] = neg(%0)
      return %1
    }""", "fuse")
    assert "group elementwise 2 1" in found
    refused = reached("""graph @f(%x: i32[2,2], %y: i32[2,2]) -> i32[2,2] {
      %0: i32[2,2] = matmul(%x, %y)
      return %0
    }""", "half")
    assert "refused half half it multiplies # # not #" in refused


def test_reasons_are_told_without_what_varies():
    assert general("it has 96 elements, fewer than min-size=1024") == general(
        "it has 7 elements, fewer than min-size=64")
    assert general("the replacement does not fit: f32[2]") == "the replacement does not fit"


def test_taking_empties():
    coverage = Coverage()
    coverage.graph(parse("graph @f(%x: f32[2]) -> f32[2] { %0: f32[2] = exp(%x)  %1: f32[2] = neg(%0)  return %1 }"))
    assert coverage.take() == {"pair exp neg", "dtypes exp f32 f32", "dtypes neg f32 f32"}
    assert coverage.take() == set()
