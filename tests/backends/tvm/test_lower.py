"""What lowering refuses, and how it says so."""

from __future__ import annotations

import re

import pytest

import effcc
from effcc.errors import UnsupportedError
from effcc.ir import Builder, Sequence, Tensor, f32
from effcc.ir.types import DType, Type


@pytest.mark.parametrize(
    "type_,message",
    [
        (Tensor(DType.parse("complex64"), (3,)), "input %x: target cpu has no code for complex numbers (complex64[3])"),
        (Tensor(DType.parse("str"), (3,)), "input %x: target cpu has no code for strings (str[3])"),
        (Sequence(Tensor(f32, (3,))), "input %x: target cpu takes tensors, not sequence<f32[3]>"),
    ],
)
def test_inputs_that_no_buffer_holds(type_: Type, message: str):
    b = Builder()
    b.input("x", type_)
    graph = b.graph(b.neg(b.input("y", Tensor(f32, (3,)))))
    with pytest.raises(UnsupportedError, match=re.escape(message)):
        effcc.compile(graph)


def test_results_that_no_buffer_holds():
    b = Builder()
    x = b.input("x", Tensor(f32, (3,)))
    graph = b.graph(b.sequence_construct(x, x))
    with pytest.raises(UnsupportedError, match="sequence_construct"):
        effcc.compile(graph)


def test_tensors_that_no_address_reaches_are_refused():
    from effcc.text import parse

    shape = ",".join(["5"] * 40)
    with pytest.raises(UnsupportedError, match="more bytes than there are addresses"):
        effcc.compile(parse(f"graph @f(%x: f32[{shape}]) -> f32[{shape}] {{ %y: f32[{shape}] = ceil(%x) return %y }}"))
