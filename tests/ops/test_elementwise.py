"""Elementwise ops: each formula against torch, over dtypes, broadcasting and special values."""

from __future__ import annotations

import math
from decimal import Context, Decimal

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from effcc.errors import TypeRuleError
from effcc.ir import DType, Symbol, Tensor, bool_, f32, i32, i64, load_ops
from effcc.ir.evaluator import evaluate_nest
from effcc.ops.elementwise import (
    BOOL,
    FLOAT,
    INTEGER,
    Add,
    Bitcast,
    Cast,
    Celu,
    Clip,
    Div,
    Elementwise,
    Gelu,
    Identity,
    Isinf,
    Mod,
    Pow,
    Shl,
    Shr,
    Where,
)

ALL = {n: c for n, c in load_ops().items() if issubclass(c, Elementwise)}
UNARY = sorted(n for n, c in ALL.items() if len(c.operands) == 1 and "to" not in c.__dataclass_fields__)
BINARY = sorted(n for n, c in ALL.items() if len(c.operands) == 2)
FLOATS = {"f32": torch.float32, "f64": torch.float64, "f16": torch.float16, "bf16": torch.bfloat16}
INTEGERS = {"i64": torch.int64, "i32": torch.int32, "i8": torch.int8, "u8": torch.uint8}
SPECIAL = [0.0, -0.0, 1.0, -1.0, 0.5, -0.5, 1.5, 2.5, -2.5, 3.0, 100.0, -100.0, 1e-6, math.inf, -math.inf, math.nan]
DOMAIN = {
    "acosh": (1, 30),
    "atanh": (-0.99, 0.99),
    "asin": (-1, 1),
    "acos": (-1, 1),
    "log": (1e-3, 30),
    "log1p": (-0.99, 30),
    "sqrt": (0, 30),
    "rsqrt": (1e-2, 30),
    "sinh": (-4, 4),
    "cosh": (-4, 4),
    "exp": (-6, 4),
    "expm1": (-6, 4),
    "tan": (-1.4, 1.4),
}


def sample(name: str, kind: str, dtype: torch.dtype, shape: tuple[int, ...], seed: int) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    if kind == BOOL:
        return torch.from_numpy(rng.integers(0, 2, shape).astype(bool))
    if kind == INTEGER:
        low, high = (0, 9) if name in ("shl", "shr", "pow") or dtype == torch.uint8 else (-9, 9)
        x = rng.integers(low, high, shape)
        return torch.from_numpy(np.where(x == 0, 1, x) if name in ("div", "mod", "fmod", "floordiv") else x).to(dtype)
    return torch.from_numpy(rng.uniform(*DOMAIN.get(name, (-6, 6)), shape)).to(dtype)


def kinds_of(name: str) -> list[tuple[str, torch.dtype]]:
    kinds, found = ALL[name].kinds, []
    found += [(FLOAT, d) for d in FLOATS.values()] if FLOAT in kinds else []
    found += [(INTEGER, d) for d in INTEGERS.values()] if "i" in kinds else []
    return found + ([(BOOL, torch.bool)] if BOOL in kinds else [])


@pytest.mark.parametrize("name", UNARY)
def test_unary(agree, name):
    for kind, dtype in kinds_of(name):
        for shape in ((2, 3), (), (0, 2)):
            agree(ALL[name](), sample(name, kind, dtype, shape, len(shape)))


@pytest.mark.parametrize("name", [n for n in UNARY if FLOAT in ALL[n].kinds])
def test_unary_special_values(agree, name):
    x = torch.tensor(SPECIAL)
    if name in ("erfc", "hard_swish", "softsign", "silu", "mish", "gelu", "sinh", "cosh", "asinh"):
        x = x[~x.isinf() & (x.abs() < 50)]  # the formulas have inf·0, or lose their relative precision far out
    agree(ALL[name](), x)


@pytest.mark.parametrize("dtype", FLOATS.values())
def test_roots_are_rounded_right(dtype):
    x = (torch.rand(1000, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 100).to(dtype)
    root = ALL["sqrt"]().run(x)[0]
    exact = torch.tensor([decimal_root(v) for v in x.tolist()], dtype=torch.float64)
    assert torch.equal(root, exact.to(dtype))


def decimal_root(x: float) -> float:
    return float(Decimal(x).sqrt(Context(prec=60)))


@pytest.mark.parametrize("name", BINARY)
def test_binary(agree, name):
    for kind, dtype in kinds_of(name):
        for a, b in (((2, 3), (2, 3)), ((2, 1, 3), (4, 1)), ((), (2,)), ((), ()), ((0, 3), (1, 3)), ((3,), (0, 1))):
            left = sample(name, kind, dtype, a, 1)
            agree(ALL[name](), left.abs() if name == "pow" and kind == FLOAT else left, sample(name, kind, dtype, b, 2))


@pytest.mark.parametrize(
    "name", ["max", "min", "eq", "ne", "lt", "le", "gt", "ge", "add", "sub", "mul", "div", "fmod", "mod", "atan2"]
)
def test_binary_special_values(agree, name):
    x = torch.tensor(SPECIAL)
    agree(ALL[name](), x[:, None], x)


@settings(max_examples=50, deadline=None)
@given(data=st.data())
def test_broadcasting(agree, data):
    whole = data.draw(st.lists(st.integers(0, 3), max_size=4))
    shapes = [
        tuple(1 if data.draw(st.booleans()) else d for d in whole[data.draw(st.integers(0, len(whole))) :])
        for _ in range(3)
    ]
    cond, a, b = (np.random.default_rng(k).integers(0, 2, shape) for k, shape in enumerate(shapes))
    out = agree(Where(), cond.astype(bool), a, b - 5)
    assert tuple(out.shape) == np.broadcast_shapes(*shapes)


def test_integers_divide_and_shift():
    def on(op, *values):
        return op.run(*(torch.tensor(v) for v in values))[0].tolist()

    assert on(Div(), [7, -7, 7, -7], [2, 2, -2, -2]) == [3, -3, -3, 3]
    assert on(Mod(), [7, -7, 7, -7], [2, 2, -2, -2]) == [1, 1, -1, -1]
    assert on(Shl(), [1, 1, -3], [3, 64, 1]) == [8, 0, -6]
    assert on(Shr(), [-8, -8, 9], [1, 64, 1]) == [-4, -1, 4]


def test_shifts_agree_beyond_the_width(agree):
    for dtype in ("u1", "i1", "i4", "i8"):
        a, b = np.array([1, 5, 100, 127]).astype(dtype), np.array([0, 3, 8, 100]).astype(dtype)
        for op in (Shl(), Shr()):
            agree(op, a[:, None], b)
            if dtype != "u1":
                agree(op, -a[:, None], b)


def test_integers_wrap(agree):
    x = np.array([-128, 127, 100], "i1")
    for name in ("add", "sub", "mul"):
        agree(ALL[name](), x[:, None], x)
    for name in ("neg", "abs"):
        agree(ALL[name](), x)
    agree(Pow(), np.array([3, 10, -7], "i8")[:, None], np.array([0, 1, 40]))


def test_every_carried_dtype_adds(agree):
    for name in ("u16", "u32", "u64", "i4", "u4", "i2", "u2"):
        dtype = DType.parse(name)
        x = torch.tensor([0, 1, min(dtype.max, 7)]).to(dtype.torch)
        agree(Add(), x, x, dtypes=(dtype, dtype))
    for name in ("f8e4m3", "f8e5m2"):
        dtype = DType.parse(name)
        x = torch.tensor([0.5, -1.5, 3]).to(dtype.torch)
        agree(Add(), x, x, dtypes=(dtype, dtype))


CASTABLE = [
    "f64",
    "f32",
    "f16",
    "bf16",
    "i64",
    "i32",
    "i16",
    "i8",
    "u8",
    "u16",
    "u32",
    "i4",
    "u4",
    "i2",
    "u2",
    "bool",
    "f8e4m3",
    "f8e5m2",
]


@pytest.mark.parametrize("source", CASTABLE)
@pytest.mark.parametrize("to", CASTABLE)
def test_casts(agree, source, to):
    source, to = DType.parse(source), DType.parse(to)
    low, high = (
        (max(source.min, to.min, -8), min(source.max, to.max, 7))
        if to.is_integer
        else (max(source.min, -8), min(source.max, 7))
    )
    x = torch.tensor([v for v in (-8, -2, -1, 0, 1, 2, 3, 7) if low <= v <= high])
    x = x.to(source.torch) if not source.is_float else (x * 0.75).to(source.torch)
    if to.kind == "u" and source.is_float:
        x = x.float().abs().to(source.torch)
    agree(Cast(to), x, dtypes=(source,))


def test_casts_between_integers_wrap(agree):
    x = np.array([-(2**40) - 3, -129, -1, 255, 2**31, 2**40 + 5])
    for name in ("i32", "i16", "i8", "u8", "u16", "u32", "i4", "u4", "i2", "u2"):
        agree(Cast(DType.parse(name)), x)


def test_saturating_casts(agree):
    x = torch.tensor([1e9, -1e9, math.inf, -math.inf, 447.0, 3.3, math.nan])
    out = agree(Cast(DType.parse("f8e4m3"), saturate=True), x)
    assert out.float().tolist()[:4] == [448, -448, 448, -448]
    assert agree(Cast(DType.parse("f8e5m2"), saturate=True), x).float()[2] == 57344
    agree(Cast(DType.parse("f8e5m2")), x)
    out = agree(Cast(DType.parse("f8e4m3")), x)
    assert out.float()[:4].isnan().all()


@pytest.mark.parametrize("width", [8, 16, 32, 64])
def test_bitcasts(agree, width):
    alike = [
        DType.parse(n) for n in CASTABLE + ["u64"] if n not in ("i4", "u4", "i2", "u2") and DType.parse(n).bits == width
    ]
    bits = torch.from_numpy(np.random.default_rng(0).integers(0, 120, (2, width // 8)).astype("u1"))
    for source in alike:
        x = bits[:, 0] > 60 if source.is_bool else bits.clone().view(source.torch)[:, 0]
        for to in alike:
            if not to.is_bool or source.name == "u8":
                out = agree(Bitcast(to), x, dtypes=(source,), rtol=0)
                assert to.is_bool or torch.equal(
                    out.view(torch.uint8).reshape(-1), x.contiguous().view(torch.uint8).reshape(-1)
                )
    with pytest.raises(TypeRuleError, match="differ in width"):
        Bitcast(f32).result_types((Tensor(DType.parse("f16"), ()),))


@pytest.mark.parametrize("attributes", [{"approximate": "none"}, {"approximate": "tanh"}])
def test_gelu(agree, attributes):
    agree(Gelu(**attributes), torch.linspace(-4, 4, 33))


def test_attributes_of_activations(agree):
    x = torch.linspace(-3, 3, 13)
    for name, attributes in [
        ("leaky_relu", {"alpha": 0.3}),
        ("elu", {"alpha": 0.7}),
        ("celu", {"alpha": 2.0}),
        ("selu", {"alpha": 1.5, "gamma": 2.0}),
        ("hard_sigmoid", {"alpha": 0.3, "beta": 0.4}),
        ("thresholded_relu", {"alpha": 0.5}),
    ]:
        agree(ALL[name](**attributes), x)
    for positive, negative in ((True, False), (False, True), (False, False)):
        agree(Isinf(positive, negative), torch.tensor(SPECIAL))


def test_clip(agree):
    x = torch.tensor(SPECIAL)
    agree(Clip(), x, torch.tensor(-1.0), torch.tensor(2.0))
    agree(Clip(), torch.arange(-5, 5), torch.tensor(3), torch.tensor(-3))
    agree(Clip(), x, torch.tensor(math.nan), torch.tensor(1.0))


def test_symbolic_sizes_that_may_be_one():
    n, m = Symbol("n"), Symbol("m")
    nest = Add().compute(Tensor(i64, (n,)), Tensor(i64, (m,)))
    (out,) = Add().result_types((Tensor(i64, (n,)), Tensor(i64, (m,))))
    for a, b in (((1,), (3,)), ((3,), (1,)), ((2,), (2,))):
        x, y = np.arange(*a), np.arange(*b) * 10
        got = evaluate_nest(nest, (x, y), (out,), {n: len(x), m: len(y)})[0]
        np.testing.assert_array_equal(got, x + y)


def test_refusals():
    for op, types, message in [
        (Add(), (Tensor(f32, (2,)), Tensor(i64, (2,))), "differ in dtype .f32 and i64.; insert a cast"),
        (Add(), (Tensor(f32, (2,)), Tensor(f32, (3,))), "sizes 2 and 3 do not broadcast"),
        (Gelu(), (Tensor(i32, (2,)),), "gelu does not take i32"),
        (Celu(alpha=0.0), (Tensor(f32, (2,)),), "alpha is 0"),
        (Add(), (Tensor(bool_, ()), Tensor(bool_, ())), "add does not take bool"),
        (Where(), (Tensor(f32, ()), Tensor(f32, ()), Tensor(f32, ())), "the condition is f32"),
        (Add(), (Tensor(f32, ()),), "add takes 2 operands"),
    ]:
        with pytest.raises(TypeRuleError, match=message):
            op.result_types(types)


def test_references_do_not_alias_their_operands():
    x = torch.ones(2)
    assert Identity().run(x)[0].data_ptr() != x.data_ptr()


def test_gelu_is_exact_or_by_tanh():
    with pytest.raises(TypeRuleError, match="approximate is none or tanh, not erf"):
        load_ops()["gelu"](approximate="erf").infer(Tensor(f32, (3,)))
