"""The law of loop nests: it holds on drawn graphs, and sees a nest that says something else than its op."""

import random

import pytest

from effcc.fuzz.case import Case, Finding
from effcc.fuzz.generate import GraphDrawer
from effcc.fuzz.laws import hold
from effcc.ir import scalar as s
from effcc.ops.index import Gather
from effcc.ops.reduction import Amax
from effcc.testing.search import Choices
from effcc.text import parse

ROWS = """graph @f(%x: f32[3,0], %y: f32[N,4]) -> (f32[3], f32[N]) {
  %0: f32[3] = amax(%x) {axes=(1,)}
  %1: f32[N] = amax(%y) {axes=(1,)}
  return %0, %1
}""".replace("@f(", "@f<N in 2..8>(")


def test_nests_mean_what_their_ops_do():
    for k in range(60):
        hold("definitions", Case.of(GraphDrawer(Choices(rest=random.Random(k))).graph(), k))


def test_a_nest_that_begins_elsewhere_is_found(monkeypatch):
    graph = parse(ROWS)
    hold("definitions", Case.of(graph, 0))
    monkeypatch.setattr(Amax, "identity", lambda self, dtype: 0)
    with pytest.raises(Finding, match="definitions: amax, as a nest, "):
        hold("definitions", Case.of(graph, 0))


def test_a_nest_that_reads_out_of_range_is_found(monkeypatch):
    graph = parse("""graph @f(%x: f32[4], %i: i64[]) -> f32[] {
      %0: f32[] = gather(%x, %i) {axis=0}
      return %0
    }""")
    compute = Gather.compute

    def shifted(self, *types):
        nest = compute(self, *types)
        (read,) = nest.results
        return type(nest)(nest.extents, (s.Read(read.dtype, 0, (read.index[0] + 4,)),))

    monkeypatch.setattr(Gather, "compute", shifted)
    with pytest.raises(Finding, match="gather: operand 0 of shape .* is read out of range"):
        hold("definitions", Case.of(graph, 0))


def test_what_has_no_value_and_what_is_large_is_left_alone():
    for text in (
        "graph @f(%x: i32[9], %y: i32[9]) -> i32[9] { %0: i32[9] = div(%x, %y)\n return %0 }",
        "graph @f(%x: f32[2,999]) -> f32[2] { %0: f32[2] = sum(%x) {axes=(1,)}\n return %0 }",
    ):
        hold("definitions", Case.of(parse(text), 0))
