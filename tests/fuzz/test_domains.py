"""What ops must read: constants and inputs are fitted to it, through views as well; what is computed is watched."""

import random

import torch

from effcc.fuzz.case import SPECIAL, Case, fitting_sizes
from effcc.fuzz.domains import meaningful, meaningful_inputs, watched
from effcc.interp import run
from effcc.ir import Builder, Symbol, Tensor, f32
from effcc.text import parse

QUANTIZED = """graph @f(%x: f32[3,2], %scale: f32[1,3]) -> (i8[3,2], i8[3,2]) {
  %0: f32[3] = reshape(%scale) {shape=(3,)}
  %1: i8[3,2] = quantize_linear(%x, %0) {axis=0}
  %2: f32[] = const 0
  %3: i8[3,2] = quantize_linear(%x, %2)
  return %1, %3
}"""


def test_constants_are_what_ops_must_read():
    graph = meaningful(parse(QUANTIZED))
    assert graph.nodes[2].op.blob.array == 1
    assert meaningful(graph) == graph


def test_inputs_are_what_ops_must_read_through_views():
    graph = parse(QUANTIZED)
    x, scale = torch.tensor([[0.0, torch.nan]] * 3), torch.tensor([[0.0, torch.inf, -2.0]])
    x, scale = meaningful_inputs(graph, [x, scale])
    assert x.tolist() == [[0, 0]] * 3 and scale.tolist() == [[1, 1, -2]]


def test_what_is_computed_is_watched_in_branches_too():
    graph = parse("""graph @f(%c: bool[], %x: f32[2]) -> i32[2] {
      %0: f32[2] = sqrt(%x)
      %1: i32[2] = if(%c, %0) {then=graph @a(%y: f32[2]) -> i32[2] {
          %0: i32[2] = bitcast(%y) {to=i32}
          return %0
        }, orelse=graph @b(%y: f32[2]) -> i32[2] {
          %0: i32[2] = cast(%y) {to=i32}
          return %0
        }}
      return %1
    }""")
    for number, condition, expected in ((-1.0, True, ["bitcast"]), (-1.0, False, []), (4.0, True, [])):
        with watched(graph) as strayed:
            run(graph, torch.tensor(condition), torch.full((2,), number))
        assert strayed == expected


def test_graphs_have_values_on_special_inputs_at_once():
    for seed in range(20):
        case = Case.of(meaningful(parse(QUANTIZED)), seed, (SPECIAL,))
        assert SPECIAL in case.inputs


def test_sizes_are_such_as_type_rules_assume():
    graph = parse("""graph @f<N>(%x: f32[N,6], %y: f32[N]) -> (f32[3,8], f32[N]) {
      %0: f32[3,8] = reshape(%x) {shape=(3,8)}
      %1: f32[N] = neg(%y)
      return %0, %1
    }""")
    found = list(fitting_sizes(graph, random.Random(0)))
    assert found and all(list(sizes.values()) == [4] for sizes in found)


def test_no_size_is_below_0():
    n = Symbol("N", 0, 64)
    b = Builder()
    x = b.input("x", Tensor(f32, (n, n - 2)))
    assert all(sizes[n] >= 2 for sizes in fitting_sizes(b.graph(b.neg(x)), random.Random(0)))
