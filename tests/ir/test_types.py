"""Types and dtypes: their carriers, ranges and texts."""

import numpy as np
import pytest
import torch

from effcc.errors import ParseError
from effcc.ir import DTYPES, DType, Encoding, Optional, Sequence, Symbol, SymInt, Tensor, f32, i64, type_symbols

B = Symbol("B", 1, 8)


@pytest.mark.parametrize("name", [n for n, d in DTYPES.items() if d.kind in "fiub"])
def test_every_dtype_has_a_numpy_and_a_torch_carrier(name):
    dtype = DTYPES[name]
    carried = "u8" if name == "u1" else name  # NumPy has no single bits
    assert DType.of(np.zeros(1, dtype.numpy).dtype).name == carried
    assert isinstance(dtype.torch, torch.dtype)


@pytest.mark.parametrize("name", ["i64", "i32", "i16", "i8", "u8", "u16", "u32", "u64"])
def test_integer_ranges_are_numpys(name):
    info = np.iinfo(DTYPES[name].numpy)
    assert (DTYPES[name].min, DTYPES[name].max) == (info.min, info.max)


def test_narrow_integers():
    assert (DTYPES["i4"].min, DTYPES["i4"].max) == (-8, 7)
    assert (DTYPES["u2"].min, DTYPES["u2"].max) == (0, 3)
    assert DTYPES["i4"].bytes == 1


def test_unknown_dtypes_say_what_there_is():
    with pytest.raises(ParseError, match="unknown dtype 'f33'.*f32"):
        DType.parse("f33")
    with pytest.raises(ParseError, match="no effcc dtype"):
        DType.of(np.dtype("datetime64[s]"))


def test_texts():
    assert str(Tensor(f32, (B, B * 2 + 1, 3))) == "f32[B,2*B+1,3]"
    assert str(Tensor(f32, (4,), Encoding("panels", (("nr", 8),)))) == "f32[4]@panels(nr=8)"
    assert str(Sequence(Optional(Tensor(i64, ())))) == "sequence<optional<i64[]>>"
    assert str(SymInt()) == "symint"


def test_sizes():
    t = Tensor(f32, (B, 3))
    assert t.size == B * 3 and t.nbytes == B * 12 and not t.is_static and Tensor(f32, (2,)).is_static
    assert type_symbols(Sequence(t)) == {B}


def test_types_with_a_symbol_or_its_expression_are_the_same_key():
    assert {Tensor(f32, (B,)): 1}[Tensor(f32, ((B * 2) // 2,))] == 1
