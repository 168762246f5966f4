from effcc.pipeline import Context, PassManager, Verify, parse_pipeline
from effcc.testing import Check
from effcc.text import parse


def run(text):
    return PassManager([Verify(), Check()]).run(parse(text), parse_pipeline("horizontal,dce"), Context())


def test_three_projections_become_one():
    g = run("""graph @f<B in 1..4>(%x: f32[B,2]) -> (f32[B,1], f32[B,2], f32[B,1]) {
      %a: f32[2,1] = const [[1.0], [2.0]]
      %b: f32[2,2] = const [[1.0, 3.0], [2.0, 4.0]]
      %c: f32[2,1] = const [[5.0], [6.0]]
      %0: f32[B,1] = matmul(%x, %a)
      %1: f32[B,2] = matmul(%x, %b)
      %2: f32[B,1] = matmul(%x, %c)
      return %0, %1, %2
    }""")
    assert [n.op.name for n in g.nodes] == ["const", "matmul", "slice", "slice", "slice"]
    assert g.nodes[0].op.blob.array.tolist() == [[1, 1, 3, 5], [2, 2, 4, 6]]


def test_weights_that_are_inputs_stay():
    text = """graph @f(%x: f32[3,2], %a: f32[2,1], %b: f32[2,1]) -> (f32[3,1], f32[3,1]) {
      %0: f32[3,1] = matmul(%x, %a)
      %1: f32[3,1] = matmul(%x, %b)
      return %0, %1
    }"""
    assert run(text) == parse(text)
