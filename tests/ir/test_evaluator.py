"""The nest evaluator: it refuses what generated code must not do."""

from __future__ import annotations

import numpy as np
import pytest

from effcc.ir import Symbol, Tensor, f32, i8, i64, u8
from effcc.ir import scalar as s
from effcc.ir.evaluator import NestError, evaluate_nest
from effcc.ir.scalar import Compute, Old, Read, State

N = Symbol("n")
X = np.arange(6, dtype="f4")
VECTOR = Tensor(f32, (6,))
i = s.index(0)


def run(
    nest: Compute, *operands: np.ndarray, results: tuple[Tensor, ...] = (VECTOR,), **sizes: int
) -> list[list[float]]:
    return [r.tolist() for r in evaluate_nest(nest, operands, results, {Symbol(k): v for k, v in sizes.items()})]


def test_folds_and_scans_keep_their_states():
    value = Read(f32, 0, (i,))
    total = (s.const(f32, 0),), (State(f32, 0) + value,)
    assert run(Compute((6,), (State(f32, 0),), "r", *total), X, results=(Tensor(f32, ()),)) == [15]
    assert run(Compute((6,), (State(f32, 0),), "s", *total), X) == [[0, 1, 3, 6, 10, 15]]
    rows = Read(f32, 0, (i * 2 + s.index(1),))
    assert run(
        Compute((3, 2), (State(f32, 0),), "pr", (s.const(f32, 0),), (State(f32, 0) + rows,)),
        X,
        results=(Tensor(f32, (3,)),),
    ) == [[1, 5, 9]]


def test_states_step_at_once():
    swap = Compute((3,), (State(i64, 0),), "r", (s.const(i64, 1), s.const(i64, 2)), (State(i64, 1), State(i64, 0)))
    assert run(swap, results=(Tensor(i64, ()),)) == [2]


def test_symbols_and_scatters():
    nest = Compute((N,), (Old(f32, 0) + Read(f32, 1, (i,)),), "s", write=((Read(i64, 2, (i,)),),), initial=0)
    assert run(nest, X, np.ones(3, "f4"), np.array([1, 1, 5]), n=3) == [[0, 3, 2, 3, 4, 6]]


def test_reads_out_of_range():
    with pytest.raises(NestError, match="operand 0 .* out of range on axis 0"):
        run(Compute((6,), (Read(f32, 0, (i + 1,)),)), X)
    with pytest.raises(NestError, match="out of range"):  # even where the value is not taken: generated code reads it
        run(Compute((6,), (s.select(i < 5, Read(f32, 0, (i + 1,)), 0.0),)), X)


def test_empty_operands_may_be_read_where_the_value_is_not_taken():
    nothing = np.zeros(0, "f4")
    assert run(Compute((2,), (s.select(i < 0, Read(f32, 0, (i,)), 7.0),)), nothing, results=(Tensor(f32, (2,)),)) == [
        [7, 7]
    ]
    with pytest.raises(NestError, match="undefined"):
        run(Compute((2,), (s.select(i < 1, Read(f32, 0, (i,)), 7.0),)), nothing, results=(Tensor(f32, (2,)),))


def test_races_and_gaps():
    value = Read(f32, 0, (i,))
    with pytest.raises(NestError, match="parallel points store to the same element"):
        run(Compute((6,), (value,), write=((i // 2,),)), X)
    with pytest.raises(NestError, match="elements of a result .* are not written"):
        run(Compute((3,), (value,), write=((i * 2,),)), X)
    with pytest.raises(NestError, match="stored out of range"):
        run(Compute((6,), (value,), write=((i + 1,),)), X)


def test_values_that_are_undefined():
    two = Tensor(i64, (2,))
    with pytest.raises(NestError, match="undefined"):
        run(Compute((2,), (i // i,)), results=(two,))
    assert run(Compute((2,), (s.select(i > 0, i // i, 5),)), results=(two,)) == [[5, 1]]
    with pytest.raises(NestError, match="undefined"):
        run(Compute((2,), (s.cast(s.cast(i, f32) * 300.0, u8),)), results=(Tensor(u8, (2,)),))
    with pytest.raises(NestError, match="undefined"):
        run(Compute((2,), (s.fn("shl")(i, i + 63),)), results=(two,))


def test_types_have_to_agree():
    with pytest.raises(NestError, match="the nest stores f32, the type rule says i8"):
        run(Compute((6,), (Read(f32, 0, (i,)),)), X, results=(Tensor(i8, (6,)),))
    with pytest.raises(NestError, match="2 results"):
        run(Compute((6,), (Read(f32, 0, (i,)),) * 2), X)
    with pytest.raises(NestError, match="read at 0 indices"):
        run(Compute((6,), (Read(f32, 0, ()),)), X)
