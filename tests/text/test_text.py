"""print and parse are inverse; errors say where and how to mend."""

import math
import random

import numpy as np
import pytest

from effcc.errors import EffccError, ParseError, VerifyError
from effcc.ir import (
    DTYPES,
    Blob,
    Builder,
    Encoding,
    FusedLoc,
    Loc,
    Optional,
    PassLoc,
    RngState,
    Sequence,
    Symbol,
    SymInt,
    Tensor,
    Value,
    dim_max,
    f32,
    floordiv,
    mod,
)
from effcc.ir.graph import Graph
from effcc.testing.draw import Drawer, drawable_ops
from effcc.text import blobs, parse, print_graph

B, N = Symbol("B", 1, 64), Symbol("batch size")


def round_trip(graph):
    text = print_graph(graph)
    back = parse(text, blobs(graph))
    assert back == graph
    assert print_graph(back) == text
    return text


def test_a_small_graph_reads_as_designed():
    text = """graph @mlp<B in 1..64>(%x: f32[B,64], %w: f32[64,128]) -> f32[B,128] {
  %0: f32[B,128] = matmul(%x, %w)  loc("mlp.onnx":"/fc/MatMul")
  %1: f32[B,128] = gelu(%0) {approximate="tanh"}
  return %1
}"""
    assert print_graph(parse(text)) == text


def test_dimensions():
    b = Builder("d")
    shapes = [(B,), (B * 2 + N - 3, 4), (floordiv(B + 7, 16), mod(N, 8)), (dim_max(B, N, 5), B * N)]
    g = b.graph(*(b.neg(b.input(f"x{k}", Tensor(f32, s))) for k, s in enumerate(shapes)))
    assert "`batch size`" in round_trip(g)


def test_reserved_words_as_symbols():
    b = Builder()
    names = [Symbol(n, 0, 5) for n in ("inf", "f32", "true", "graph", "x y", "min", "in")]
    round_trip(b.graph(b.neg(b.input("x", Tensor(f32, tuple(names))))))


def test_value_names_are_kept_and_made_distinct():
    b = Builder()
    x = b.input("0", Tensor(f32, ()))
    y = b.input("/fc/out:0", Tensor(f32, ()))
    z, z2 = (Value(Tensor(f32, ()), "z") for _ in range(2))
    nodes = b.nodes
    from effcc.ir import Node, op_class

    nodes += [Node(op_class("neg")(), (x,), (z,)), Node(op_class("neg")(), (y,), (z2,))]
    text = round_trip(b.graph(z, z2, b.neg(z2)))
    assert '%"0"' in text and '%"/fc/out:0"' in text and "%z.1" in text
    assert [v.name for v in parse(text).inputs] == ["0", "/fc/out:0"]


def test_a_constant_that_no_memory_holds_is_refused():
    text = "graph @f() -> i64[4611686018427387904] {\n  %0: i64[4611686018427387904] = const splat(4)\n  return %0\n}"
    with pytest.raises(ParseError, match="line 2.*does not fit memory"):
        parse(text)


def test_constants_inline_splat_and_by_hash():
    b = Builder()
    small = np.array([1.5, -0.0, math.inf, 0.1, math.nan], "f4")
    values = [
        b.const(small), b.const(np.array(3, "i8")), b.const(np.zeros((2, 0), "f4")), b.const(np.full(100, 0.1, "f4")),
        b.const(np.random.default_rng(0).normal(size=(8, 9)).astype("f4")), b.const(np.array([[True], [False]])),
        b.const(np.array([2**64 - 1, 0], "u8")), b.const(np.array([1 / 3, 1e-300])), b.const(np.float16([0.1, 65504])),
    ]
    g = b.graph(*values)
    text = round_trip(g)
    assert "const [1.5, -0.0, inf, 0.1, nan]" in text and "splat(0.1)" in text and 'blob("sha256:' in text
    assert len(blobs(g)) == 1


@pytest.mark.parametrize("name", [n for n, d in DTYPES.items() if d.kind in "fiu" and n != "u1"])
def test_every_dtype_has_constants(name):
    dtype = DTYPES[name]
    array = np.array([1, 0, 1, 1, 0, 0]).astype(dtype.numpy)
    b = Builder()
    round_trip(b.graph(b.const(Blob(array, dtype))))


def test_a_nan_with_a_payload_travels_as_a_blob():
    array = np.array([0x7FC00001], "u4").view("f4")
    b = Builder()
    assert 'blob("sha256:' in round_trip(b.graph(b.const(array)))


def test_all_types():
    b = Builder()
    t = Tensor(f32, (2,), Encoding("panels", (("nr", 48), ("kind", "a b"), ("order", (1, 0)))))
    inputs = [b.input(n, ty) for n, ty in (
        ("a", t), ("s", Sequence(Tensor(f32, (B,)))), ("o", Optional(Sequence(Tensor(f32, ())))), ("i", SymInt()),
        ("r", RngState()))]
    round_trip(b.graph(*inputs))


def test_locations():
    b = Builder()
    y = b.input("x", Tensor(f32, ()))
    a, c = Loc("m.onnx", 'say "hi"'), Loc("file.py", "")
    for loc in (a, c, Loc("", "only"), FusedLoc(locs=(a, c)), PassLoc(name="fold", origin=FusedLoc(locs=(a, c)))):
        with b.at(loc):
            y = b.neg(y)
    g = b.graph(y)
    round_trip(g)
    assert [n.loc for n in parse(str(g)).nodes] == [n.loc for n in g.nodes]
    assert "loc(" not in print_graph(g, locations=False)


def test_aliases():
    b = Builder()
    cache, step = b.input("cache", Tensor(f32, (4,))), b.input("step", Tensor(f32, (4,)))
    g = b.graph(b.add(cache, step), step, aliases=((0, 0),))
    assert "f32[4] aliases %cache" in round_trip(g)
    assert parse(str(g)).aliases == ((0, 0),)


def test_nested_graphs_see_the_outer_symbols():
    branches = []
    for op in ("neg", "abs"):
        inner = Builder(op)
        branches.append(inner.graph(getattr(inner, op)(inner.input("x", Tensor(f32, (B, 2))))))
    b = Builder()
    cond, x = b.input("c", Tensor(DTYPES["bool"], ())), b.input("x", Tensor(f32, (B, 2)))
    out = b.if_(cond, x, then=branches[0], orelse=branches[1])
    round_trip(b.graph(*(out if isinstance(out, tuple) else (out,))))


def test_empty_graph():
    b = Builder("")
    round_trip(b.graph())
    round_trip(Graph("weird name!", (), (), ()))


@pytest.mark.parametrize("seed", range(40))
def test_random_graphs_round_trip(seed):
    rng = random.Random(seed)
    graph = Drawer(rng.choice).random_graph(drawable_ops(), 8)
    round_trip(graph)


HEAD = "graph @f(%x: f32[3]) -> f32[3] {"


@pytest.mark.parametrize("text, message", [
    (HEAD + " return %y }", "line 1, column 41: %y is not defined"),
    ("graph @f(%x: f32[B]) -> f32[3] { return %x }", "the size 'B' is not declared.*<B in 1..64>"),
    (HEAD + " %0: f32[3] = nge(%x) return %0 }", "there is no op 'nge'; did you mean 'ne'"),
    (HEAD + " %0: f32[3] = neg(%x) {a=3} return %0 }", "neg has no attribute 'a'"),
    (HEAD + " %0: f32[3] = transpose(%x) return %0 }", "transpose: missing 1 required.*perm"),
    (HEAD + " %x: f32[3] = neg(%x) return %x }", "%x is defined twice"),
    (HEAD + " %0: f32[3] = sub(%x) return %0 }", "sub takes 2 operands"),
    (HEAD + " return %x, %x }", "2 values are returned, the header declares 1"),
    ("graph @f(%x: f32[3]) -> f32[4] { return %x }", r"%x is f32\[3\], the header declares f32\[4\]"),
    ("graph @f(%x: f33[3]) -> f32[3] { return %x }", "unknown dtype 'f33'"),
    ("graph @f(%x: list<f32[3]>) -> f32[3] { return %x }", "list<...> is not a type"),
    ("graph @f(%x: f32) -> f32[3] { return %x }", "f32 is not a type"),
    ("graph @f(%x: f32[3) -> f32[3] { return %x }", "line 1, column 19: unexpected '\\)'; expected"),
    (HEAD, "the text ends too early"),
    ("", "the text ends too early"),
    (HEAD + " $ }", "unexpected '\\$'"),
    ("graph () -> i8[2] { %0: i8[2] = const [1, 300] return %0 }", "an element does not fit i8"),
    ("graph () -> i8[2] { %0: i8[2] = const [1, 2, 3] return %0 }", r"the elements have shape \[3\]"),
    ("graph () -> i8[2] { %0: i8[2] = const [[1], 2] return %0 }", "rows differ"),
    ("graph () -> i8[2] { %0: i8[2] = const [x, 2] return %0 }", "x is not a number"),
    ('graph () -> i8[2] { %0: i8[2] = const blob("sha256:00") return %0 }', "there is no blob 00"),
    ("graph <N>(%x: f32[foo(N)]) -> f32[3] { return %x }", "foo.*is not an expression of sizes"),
])
def test_errors_say_where_and_what(text, message):
    with pytest.raises(ParseError, match=message) as caught:
        parse(text)
    assert "\n" not in str(caught.value)


def test_wrong_types_are_verify_errors_unless_asked_not_to():
    text = HEAD + " %0: f32[4] = neg(%x) return %x }"
    with pytest.raises(VerifyError, match=r"neg gives f32\[3\], the text says f32\[4\]"):
        parse(text)
    assert len(parse(text, verify=False).nodes) == 1


def test_attributes_without_a_text_form_are_refused():
    from effcc.ir import Node, op_class

    x, y = Value(Tensor(f32, ())), Value(Tensor(f32, ()))
    op = op_class("leaky_relu")(alpha={"a": 1})
    with pytest.raises(EffccError, match="no text form"):
        print_graph(Graph("g", (x,), (Node(op, (x,), (y,)),), (y,)))


SUM = "graph @f(%x: f32[2]) -> f32[] {{ %0: f32[] = sum(%x) {{axes={0}}} return %0 }}"
INPUT = "graph @f(%x: f32[{0}]) -> f32[{0}] {{ return %x }}"


@pytest.mark.parametrize(
    ("frame", "part", "message"),
    [
        (SUM, "true", "axes=True is not of type tuple"),
        (SUM, '"a"', "axes='a' is not of type"),
        (SUM, "(0.5,)", "is not of type"),
        (SUM, "(1 + true,)", "True is not a size"),
        (SUM, "(floordiv(1, 0),)", "divided by 0"),
        (SUM, r'"\q"', "is not a text"),
        (SUM, r'"\ud800"', "is not a text"),
        (INPUT, "true", "True is not a size"),
        (INPUT, "0.5", "0.5 is not a size"),
        (INPUT, "-1", "size -1 is below 0"),
        (INPUT, "9" * 5000, "a number of 5000 digits"),
        (INPUT, "1" + " + 1" * 3000, "nested too deeply"),
        ('graph @f(%x: f32[2], %"x": f32[2]) -> f32[2] {{ return %x }}', "", "defined twice"),
        ("graph @{0}(%x: f32[2]) -> f32[2] {{ return %x }}", r'"\q"', "is not a text"),
        ("graph @f(%x: f32[2]) -> f32[2] {{ return {0} }}", "9" * 5000, "unexpected"),
    ],
)
def test_malformed_text_is_refused_in_one_line(frame, part, message):
    with pytest.raises(EffccError, match=message) as error:
        parse(frame.format(part))
    assert str(error.value).isprintable() and len(str(error.value)) < 1000


def test_a_quoted_name_is_the_same_value():
    assert parse('graph @f(%x: f32[2]) -> f32[2] { return %"x" }').inputs[0].name == "x"


@pytest.mark.parametrize("seed", range(20))
def test_damaged_text_gives_one_error_never_a_traceback(seed):
    rng = random.Random(seed)
    text = str(Drawer(random.Random(seed).choice).random_graph(drawable_ops(), 4))
    for _ in range(5):
        at = rng.randrange(len(text))
        junk = rng.choice(("", "%", "f32", "}", "{", "(", "9", '"', "return", "\x00"))
        text = text[:at] + junk + text[at + rng.randint(0, 3):]
    try:
        parse(text)
    except EffccError as error:
        assert "\n" not in str(error)
