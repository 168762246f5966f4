"""Empty tensors: nothing is launched for them, and no index arithmetic divides by their sizes."""

import torch

from effcc import driver
from effcc.interp import run
from effcc.text import parse

EMPTY = """
graph @empty(%x: f16[0,1,0,1], %y: i32[1,1,1,1]) -> (f16[0,2,0,2], i32[1,0,1,1], f16[0,2,0,2]) {
  %0: f16[0,2,0,2] = repeat(%x) {counts=(1, 2, 0, 2)}
  %1: i32[1,0,1,1] = slice(%y) {starts=(0, 1, 0, 0), stops=(1, 1, 1, 1), steps=(1, 1, 1, 1)}
  %2: i32[1,0,1,1] = max_pool(%1) {kernel=(1, 1), strides=(2, 1), pads=(0, 0, 0, 0), dilations=(1, 2)}
  %3: f16[0,2,0,2] = neg(%0)
  return %0, %2, %3
}
"""


def test_empty_results_need_no_launch():
    graph = parse(EMPTY)
    program = driver.compile_graph(graph)
    inputs = torch.zeros(0, 1, 0, 1, dtype=torch.half), torch.zeros(1, 1, 1, 1, dtype=torch.int32)
    assert not program.launches
    for ours, theirs in zip(program(*inputs), run(graph, *inputs), strict=True):
        assert ours.shape == theirs.shape and ours.dtype == theirs.dtype
