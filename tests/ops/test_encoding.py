"""Packing and unpacking change how elements lie, not what they are."""

import numpy as np
import pytest

from effcc.errors import EffccError, TypeRuleError
from effcc.interp import run
from effcc.ir import Builder, Tensor, f32
from effcc.ir.encodings import block_csr, is_compressed, two_four
from effcc.ir.op import op_class
from effcc.text import parse


def graph(encoding):
    b = Builder("layouts")
    packed = b.pack(b.input("x", Tensor(f32, (8, 4))), encoding=encoding)
    assert is_compressed(packed.type)
    return b.graph(b.unpack(packed))


def test_there_and_back():
    w = np.zeros((8, 4), np.float32)
    w[2:4] = 1
    for encoding in (block_csr((2, 2), 2), two_four(0)):
        g = graph(encoding)
        assert np.array_equal(run(g, w)[0].numpy(), w)
        assert parse(str(g)) == g


def test_what_does_not_fit_is_refused():
    with pytest.raises(EffccError, match="more than two"):
        run(graph(two_four(0)), np.ones((8, 4), np.float32))
    with pytest.raises(TypeRuleError, match="plain already"):
        op_class("unpack")().result_types((Tensor(f32, (8, 4)),))
    with pytest.raises(TypeRuleError, match="cannot be packed"):
        op_class("pack")(two_four(0)).result_types((Tensor(f32, (8, 4), two_four(0)),))
