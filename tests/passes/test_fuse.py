"""Fusion: regions of an earlier run are opened, so that what comes out is what one run gives."""

from effcc.pipeline import Context, parse_pipeline
from effcc.text import parse

TEXT = """graph @f(%x: f32[2,3], %y: f32[2,3]) -> (f32[2,3], f32[2,1]) {
  %0: f32[2,3] = add(%x, %y)
  %1: f32[2,3] = exp(%0)
  %2: f32[2,1] = sum(%1) {axes=(1,), keepdims=true}
  %3: f32[2,3] = div(%1, %2)
  return %3, %2
}"""


def run(passes, graph):
    for p in parse_pipeline(passes):
        graph = p.run(graph, Context())
    return graph


def test_a_second_run_changes_nothing():
    once = run("fuse", parse(TEXT))
    assert [n.op.name for n in once.nodes] == ["fused"]
    assert run("fuse", once) is once


def test_other_limits_open_regions():
    small = run("fuse:max-ops=2", parse(TEXT))
    assert len(small.nodes) > 1
    assert run("fuse", small) == run("fuse", parse(TEXT))


def test_one_body_in_two_places():
    """Both nodes hold the same graph object: its values must not be defined twice."""
    from effcc.ir import Builder, Tensor, f32, verify

    once = run("fuse", parse(TEXT))
    b = Builder()
    x = b.input("x", Tensor(f32, (2, 3)))
    first = b.emit(once.nodes[0].op, (x, x))
    again = next(v for v in first if v.type == x.type)
    second = b.emit(once.nodes[0].op, (x, again))
    opened = run("fuse:max-ops=2", b.graph(*first, *second))
    verify(opened)
    assert sum(n.op.name == "exp" for n in opened.walk()) == 2


def test_short_floats_are_widened_where_they_are_read():
    """The first region stores the rounded value alone, and the sum reads that."""
    fused = run("fuse", parse("""graph @f(%x: f32[4,4], %w: bf16[4,4]) -> (f32[4,4], f32[4,4]) {
  %0: f32[4,4] = exp(%x)
  %1: bf16[4,4] = cast(%0) {to=bf16}
  %2: f32[4,4] = matmul(%1, %w) {accumulate=f32}
  %3: f32[4,4] = cast(%1) {to=f32}
  %4: f32[4,4] = add(%2, %3)
  %5: f32[4,4] = mul(%3, %4)
  return %4, %5
}"""))
    made, read = (n for n in fused.nodes if n.op.name == "fused")
    assert [r.type.dtype.name for r in made.results] == ["bf16"]
    assert sum(n.op.name == "cast" for n in read.op.body.nodes) == 1
