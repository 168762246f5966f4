"""Coverage: branches, rules and groups that a test reaches are told, and nothing of files that are not watched."""

import sys
from pathlib import Path

import pytest

from effcc.fuzz.coverage import Coverage, Monitoring, SetTrace, general
from effcc.pipeline import Context, parse_pipeline
from effcc.text import parse

WATCHES = [SetTrace, *([Monitoring] if hasattr(sys, "monitoring") else [])]
SOURCE = """
def f(x):
    if x:
        y = 1
    else:
        y = 2
    return y
"""


def reached(text, passes):
    coverage = Coverage()
    graph, ctx = parse(text), Context()
    for p in parse_pipeline(passes):
        graph = coverage.run(p, graph, ctx)
    return coverage.take()


@pytest.mark.parametrize("watch", WATCHES)
def test_edges_of_watched_files_alone(watch, tmp_path):
    path = tmp_path / "room" / "module.py"
    path.parent.mkdir()
    code = {name: {} for name in ("watched", "other")}
    exec(compile(SOURCE, str(path), "exec"), code["watched"])
    exec(compile(SOURCE, "elsewhere.py", "exec"), code["other"])
    seen = watch([path.parent])
    before = sys.gettrace()
    seen.start()
    for space in code.values():
        space["f"](True)
    seen.stop()
    assert sys.gettrace() is before
    assert ("room/module.py", 3, 4) in seen.edges and ("room/module.py", 3, 6) not in seen.edges
    seen.clear()
    seen.start()
    code["watched"]["f"](False)
    seen.stop()
    assert ("room/module.py", 3, 6) in seen.edges and ("room/module.py", 3, 4) not in seen.edges
    assert {name for name, _, _ in seen.edges} == {"room/module.py"}


def test_tracing_ends_where_a_pass_fails():
    class Fails:
        name = "fails"

        def run(self, graph, ctx):
            raise ValueError("on purpose")

    before = sys.gettrace()
    with pytest.raises(ValueError, match="on purpose"):
        Coverage().run(Fails(), parse("graph @f(%x: f32[2]) -> f32[2] { return %x }"), Context())  # type: ignore[arg-type]
    assert sys.gettrace() is before


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
