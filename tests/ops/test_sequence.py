"""Sequences and optionals, by the interpreter."""

from __future__ import annotations

import pytest
import torch

from effcc.errors import TypeRuleError
from effcc.interp import run
from effcc.ir import Builder, Optional, Sequence, Symbol, Tensor, f32, i64

ROW, AT = Tensor(f32, (2,)), Tensor(i64, ())


def test_a_sequence_from_birth_to_concat():
    b = Builder()
    x, y, at = b.input("x", ROW), b.input("y", ROW), b.input("at", AT)
    xs = b.sequence_construct(x, y)
    assert xs.type == Sequence(ROW)
    more = b.sequence_insert(b.sequence_insert(xs, y), x, at)
    less = b.sequence_erase(b.sequence_erase(more, at))
    n = Symbol("n")
    graph = b.graph(b.sequence_length(more), b.sequence_at(more, at), b.sequence_concat(more, axis=0, size=n),
                    b.sequence_concat(less, axis=1, size=2, new_axis=True), less)
    one, two = torch.tensor([1.0, 2]), torch.tensor([3.0, 4])
    length, element, joined, stacked, left = run(graph, one, two, torch.tensor(-2))
    assert length.item() == 4 and joined.tolist() == [1, 2, 1, 2, 3, 4, 3, 4]
    assert element.tolist() == [3, 4]
    assert stacked.tolist() == [[1, 1], [2, 2]] and len(left) == 2


def test_empty_sequences():
    b = Builder()
    graph = b.graph(b.sequence_length(b.sequence_construct(element=ROW)))
    assert run(graph)[0].item() == 0


def test_optionals():
    b = Builder()
    x = b.input("x", ROW)
    there, gone = b.optional(x), b.optional(element=ROW)
    assert there.type == gone.type == Optional(ROW)
    graph = b.graph(b.optional_has_element(there), b.optional_has_element(gone), b.optional_get_element(there))
    yes, no, value = run(graph, torch.ones(2))
    assert (yes.item(), no.item(), value.tolist()) == (True, False, [1, 1])


def test_refusals():
    b = Builder()
    x, at = b.input("x", ROW), b.input("at", AT)
    for build, message in [
        (lambda: b.sequence_construct(), "needs its element type"),
        (lambda: b.sequence_construct(x, at), r"not all f32\[2\]"),
        (lambda: b.sequence_at(x, at), "not a sequence"),
        (lambda: b.sequence_at(b.sequence_construct(x), x), "not i64 or i32"),
        (lambda: b.sequence_insert(b.sequence_construct(x), at), r"the element is i64\[\]"),
        (lambda: b.sequence_concat(b.sequence_construct(x), axis=1, size=2), "axis 1 does not fit"),
        (lambda: b.optional_get_element(x), "not an optional"),
        (lambda: b.optional(), "needs its type"),
    ]:
        with pytest.raises(TypeRuleError, match=message):
            build()
