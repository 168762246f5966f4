"""The reference interpreter: symbols, carriers, checks."""

import numpy as np
import pytest
import torch

from effcc.errors import InputError, UnsupportedError, VerifyError
from effcc.interp import bind_inputs, bind_op, round_f4, run, wrap
from effcc.ir import DTYPES, Builder, Graph, Node, Symbol, Tensor, Value, f32, i64, op_class
from effcc.text import parse

B = Symbol("B", 1, 8)


def unary(op, type_, **attributes):
    b = Builder()
    return b.graph(getattr(b, op)(b.input("x", type_), **attributes))


def test_symbols_are_bound_and_substituted_in_attributes():
    b = Builder()
    x = b.input("x", Tensor(f32, (B, 3)))
    y = b.reshape(x, shape=(B * 3,))
    g = b.graph(b.add(y, b.cast(b.dim(value=B), to=f32)))
    (out,) = run(g, torch.zeros(4, 3))
    assert out.shape == (12,) and out[0] == 4.0


def test_expressions_of_one_symbol_are_solved():
    g = unary("neg", Tensor(f32, (B * 2 + 1,)))
    assert bind_inputs(g.inputs, (torch.zeros(7),)) == {B: 3}
    with pytest.raises(InputError, match="axis 0 is 6"):
        run(g, torch.zeros(6))


def test_expressions_of_two_symbols_need_a_binding():
    n = Symbol("N", 0, 9)
    g = unary("neg", Tensor(f32, (B * n,)))
    with pytest.raises(UnsupportedError, match="does not tell B, N"):
        run(g, torch.zeros(6))
    assert run(g, torch.zeros(6), bindings={B: 2, n: 3})[0].shape == (6,)


@pytest.mark.parametrize("tensor, message", [
    (torch.zeros(2, 3, dtype=torch.float64), "is float64, expected f32"),
    (torch.zeros(2), "has rank 1, expected 2"),
    (torch.zeros(2, 4), "axis 1 is 4, expected 3"),
    (torch.zeros(9, 3), "B = 9 is outside its range 1..8"),
    ("text", "must be a tensor"),
])
def test_inputs_that_do_not_fit_are_refused_by_name(tensor, message):
    with pytest.raises(InputError, match=message):
        run(unary("neg", Tensor(f32, (B, 3))), tensor)


def test_the_number_of_inputs_counts():
    with pytest.raises(InputError, match="takes 1 inputs, got 2"):
        run(unary("neg", Tensor(f32, ())), torch.zeros(()), torch.zeros(()))


def test_numpy_inputs_are_taken():
    (out,) = run(unary("neg", Tensor(f32, (2,))), np.array([1, 2], "f4"))
    assert out.tolist() == [-1, -2]


def test_a_symbol_that_an_op_defines_is_bound_from_its_result():
    g = parse("""graph @f<n in 0..6>(%x: f32[6]) -> (f32[1,n], i64[]) {
      %i: i64[1,n] = nonzero(%x) {size=n}
      %y: f32[1,n] = cast(%i) {to=f32}
      %n: i64[] = dim() {value=n}
      return %y, %n
    }""")
    y, n = run(g, torch.tensor([0.0, 1, 0, 2, 3, 0]))
    assert y.tolist() == [[1, 3, 4]] and n == 3


def test_known_results_bring_the_sizes_that_they_tell():
    graph = parse("""graph @f<n in 0..4>(%x: f32[4]) -> f32[1,n] {
  %0: i64[1,n] = nonzero(%x) {size=n}
  %1: f32[1,n] = cast(%0) {to=f32}
  return %1
}""")
    x, known = torch.tensor([0.0, 1.0, 0.0, 2.0]), {}
    first, again = (run(graph, x, known=known)[0] for _ in range(2))
    assert torch.equal(first, torch.tensor([[1.0, 3.0]])) and again is first and len(known) == 2


def test_a_meaning_that_disagrees_with_the_type_is_reported():
    x, y = Value(Tensor(f32, (2, 3))), Value(Tensor(f32, (3, 3)))
    g = Graph("g", (x,), (Node(op_class("neg")(), (x,), (y,)),), (y,))
    with pytest.raises(VerifyError, match=r"neg gives float32\[2, 3\], the graph says f32\[3,3\]"):
        run(g, torch.zeros(2, 3))


@pytest.mark.parametrize("name", ["u16", "u32", "u64", "i4", "u4", "i2", "u2", "i8", "u8", "i32"])
@pytest.mark.parametrize("op", ["add", "sub", "mul", "and", "xor"])
def test_integers_wrap_exactly(name, op):
    """Against Python's integers, reduced modulo 2**bits."""
    import operator

    dtype = DTYPES[name]
    pairs = [(a, c) for a in (dtype.min, dtype.max, 1, 3) for c in (dtype.min, dtype.max, 2, 1)]
    b = Builder()
    x, y = (b.input(n, Tensor(dtype, (len(pairs),))) for n in "xy")
    g = b.graph(getattr(b, {"and": "and_"}.get(op, op))(x, y))
    exact = getattr(operator, {"and": "and_"}.get(op, op))
    carried = [torch.tensor(np.array(column, dtype="O").astype(
        {"u64": "u8", "u32": "u4", "u16": "u2"}.get(name, "i8"))).to(dtype.torch) for column in zip(*pairs)]
    (out,) = run(g, *carried)
    mask = (1 << dtype.bits) - 1
    wanted = [exact(a, c) & mask for a, c in pairs]
    wanted = [w - (1 << dtype.bits) if dtype.kind == "i" and w > dtype.max else w for w in wanted]
    assert out.dtype == dtype.torch and [int(v) for v in out.numpy()] == wanted


def test_u64_order_beyond_63_bits_is_refused_not_wrong():
    b = Builder()
    x, y = (b.input(n, Tensor(DTYPES["u64"], (1,))) for n in "xy")
    g = b.graph(b.max(x, y))
    one, huge = (torch.tensor(np.array([v], "u8")) for v in (1, 2**63 + 5))
    assert run(g, one, one)[0].numpy() == 1
    with pytest.raises(UnsupportedError, match="63 bits"):
        run(g, one, huge)


def test_f8_computes_in_f32_and_rounds():
    g = unary("exp", Tensor(DTYPES["f8e4m3"], (2,)))
    (out,) = run(g, torch.tensor([0.0, 1.0]).to(torch.float8_e4m3fn))
    assert out.dtype == torch.float8_e4m3fn and out.float().tolist() == [1.0, 2.75]


def test_rounding_and_wrapping():
    assert round_f4(torch.tensor([0.25, 0.75, 1.25, 2.5, 3.5, 5.0, 7.0, -0.2])).tolist() == [0, 1, 1, 2, 4, 4, 6, -0.0]
    assert wrap(torch.tensor([8, -9, 7]), DTYPES["i4"]).tolist() == [-8, 7, 7]
    assert wrap(torch.tensor([-1, 16]), DTYPES["u4"]).tolist() == [15, 0]


def test_observers_see_and_replace_results():
    seen = []

    def observe(node, operands, results):
        seen.append(node.op.name)
        return tuple(r + 1 for r in results) if node.op.name == "neg" else None

    b = Builder()
    x = b.input("x", Tensor(f32, ()))
    (out,) = run(b.graph(b.abs(b.neg(x))), torch.tensor(5.0), observe=observe)
    assert seen == ["neg", "abs"] and out == 4.0


def test_gradients_flow():
    x = torch.tensor([1.0, 2.0], requires_grad=True)
    run(unary("exp", Tensor(f32, (2,))), x)[0].sum().backward()
    assert torch.allclose(x.grad, x.detach().exp())


def test_binding_reaches_tuples_types_and_nested_graphs():
    op = op_class("reshape")((B, B + 1))
    assert bind_op(op, {B: 2}).shape == (2, 3) and bind_op(op, {}) is op
    body = unary("neg", Tensor(f32, (B, 3)))
    bound = bind_op(op_class("fused")(body), {B: 2})
    assert str(bound.body.results[0].type) == "f32[2,3]"
    other = Symbol("other", 0, 9)
    unbound = op_class("fused")(body)
    assert bind_op(unbound, {other: 2}) is unbound


def test_sizes_of_nested_graphs_come_from_outside():
    inner = Builder("body")
    v = inner.input("v", Tensor(f32, (3,)))
    body = inner.graph(inner.broadcast_to(v, shape=(B, 3)))
    b = Builder()
    x, v = b.input("x", Tensor(f32, (B,))), b.input("v", Tensor(f32, (3,)))
    (out,) = b.fused(v, body=body)
    assert run(b.graph(out, x), torch.zeros(5), torch.ones(3))[0].shape == (5, 3)


def test_i64_dims_as_data():
    b = Builder()
    b.input("x", Tensor(f32, (B,)))
    g = b.graph(b.dim(value=B * 2))
    assert g.results[0].type == Tensor(i64, ()) and run(g, torch.zeros(3))[0] == 6
