"""Common subexpressions."""

import numpy as np

from effcc.ir import Builder
from effcc.ir.encodings import NIBBLES, encode
from effcc.ir.types import DType
from effcc.passes.cse import CommonSubexpressions
from effcc.pipeline import Context


def test_equal_ops_merge_in_cascade(rewrites):
    rewrites("""graph @f(%x: f32[2]) -> f32[2] {
      %a: f32[2] = exp(%x)
      %b: f32[2] = exp(%x)
      %c: f32[2] = add(%a, %x)
      %d: f32[2] = add(%x, %b)
      %e: f32[2] = mul(%c, %d)
      return %e
    }""", "cse", """graph @f(%x: f32[2]) -> f32[2] {
      %a: f32[2] = exp(%x)
      %c: f32[2] = add(%a, %x)
      %e: f32[2] = mul(%c, %c)
      return %e
    }""")


def test_equal_constants_merge_unequal_zeros_do_not(rewrites):
    rewrites("""graph @f() -> (f32[2], f32[2], f32[2]) {
      %a: f32[2] = const [0.0, 1.0]
      %b: f32[2] = const [-0.0, 1.0]
      %c: f32[2] = const [0.0, 1.0]
      return %a, %b, %c
    }""", "cse", """graph @f() -> (f32[2], f32[2], f32[2]) {
      %a: f32[2] = const [0.0, 1.0]
      %b: f32[2] = const [-0.0, 1.0]
      return %a, %b, %a
    }""")


def test_what_must_not_merge(keeps):
    keeps("""graph @f(%x: f32[2], %y: f32[2]) -> (f32[2], f32[2], f32[2], f32[2], f32[2], f32[2]) {
      %a: f32[2] = sub(%x, %y)
      %b: f32[2] = sub(%y, %x)
      %c: f32[2] = leaky_relu(%x) {alpha=0.0}
      %d: f32[2] = leaky_relu(%x) {alpha=-0.0}
      %e: f32[2] = max(%x, %y)
      %g: f32[2] = max(%y, %x)
      return %a, %b, %c, %d, %e, %g
    }""", "cse")


def test_large_constants_in_nibbles_merge_where_they_share_memory():
    blobs = [encode(np.full((600, 256), k, np.int8), NIBBLES, DType.parse("i4")) for k in (1, 2)]
    b = Builder()
    graph = b.graph(*(b.const(blobs[k]) for k in (0, 1, 0)))
    after = CommonSubexpressions().run(graph, Context())
    assert [n.op.blob for n in after.nodes] == blobs and after.results[0] is after.results[2]
