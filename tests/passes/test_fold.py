import numpy as np

from effcc.interp import evaluate_node
from effcc.ir import Builder, i64
from effcc.passes.fold import by_loop_nest


def test_constants_fold_through(rewrites):
    ctx = rewrites("""graph @f(%x: f32[2]) -> f32[2] {
      %a: f32[2] = const [1.0, 2.0]
      %b: f32[] = const 3.0
      %c: f32[2] = mul(%a, %b)
      %d: f32[2] = neg(%c)
      %y: f32[2] = add(%x, %d)
      return %y
    }""", "fold,dce", """graph @f(%x: f32[2]) -> f32[2] {
      %d: f32[2] = const [-3.0, -6.0]
      %y: f32[2] = add(%x, %d)
      return %y
    }""")
    assert ctx.count("fold") == {"fold": 2}


def test_narrow_integers_keep_their_dtype(rewrites):
    rewrites("""graph @f() -> (i4[2], u16[1], bf16[1]) {
      %a: i4[2] = const [7, 1]
      %b: i4[2] = add(%a, %a)
      %c: u16[1] = const [65535]
      %d: u16[1] = add(%c, %c)
      %e: bf16[1] = const [1.5]
      %g: bf16[1] = neg(%e)
      return %b, %d, %g
    }""", "fold", """graph @f() -> (i4[2], u16[1], bf16[1]) {
      %b: i4[2] = const [-2, 2]
      %d: u16[1] = const [65534]
      %g: bf16[1] = const [-1.5]
      return %b, %d, %g
    }""")


def test_large_growth_is_refused_with_a_reason(keeps):
    ctx = keeps("""graph @f() -> f32[1000,1000] {
      %a: f32[] = const 1.0
      %b: f32[1000,1000] = broadcast_to(%a) {shape=(1000, 1000)}
      return %b
    }""", "fold")
    assert "bytes larger" in next(iter(ctx.refusals)).reason


def test_symbolic_results_random_draws_and_quantization_stay(keeps):
    keeps("""graph @f<B in 1..4>(%x: f32[B]) -> (f32[B], f32[2], f32[2]) {
      %a: f32[] = const 1.0
      %b: f32[B] = broadcast_to(%a) {shape=(B,)}
      %seed: i64[] = const 1
      %r: f32[2] = random_uniform(%seed, %seed) {shape=(2,)}
      %q: i8[2] = const [1, 2]
      %s: f32[] = const 0.5
      %d: f32[2] = dequantize_linear(%q, %s)
      return %b, %r, %d
    }""", "fold")


def test_loop_nests_give_what_the_interpreter_gives_and_large_constants_are_not_theirs():
    b = Builder()
    table, rows = b.const(np.arange(40, dtype="f4").reshape(10, 4)), b.const(np.array([3, -1, 7]), i64)
    looked_up = b.gather(table, rows, axis=0)
    wide = b.const(np.arange(512 * 300, dtype="f4").reshape(512, 3, 100))
    turned, number = b.transpose(wide, perm=(2, 0, 1)), b.abs(b.const(np.uint8(7)))
    start = b.slice(wide, starts=(0, 0, 0), stops=(5, 3, 7), steps=(1, 1, 1))
    for value, handled in (
        (looked_up, True), (turned, True), (number, True), (start, True), (b.add(wide, wide), False),
    ):
        graph = b.graph(value)
        node = graph.producer(value)
        operands = [graph.producer(v).op.blob for v in node.operands]
        found = by_loop_nest(node, operands, [value.tensor])
        assert (found is not None) == handled
        if found is not None:
            (expected,) = evaluate_node(node, tuple(o.torch() for o in operands), {})
            assert found[0].type == value.type
            np.testing.assert_array_equal(found[0].array, expected.numpy())
