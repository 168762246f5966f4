"""Calls: what inputs may be, where results are, what is refused in a line; one plan for every launcher."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import effcc
from effcc.backends.triton import executable
from effcc.errors import EffccError, InputError
from effcc.ir import Builder, Symbol, Tensor, f32

pytest.importorskip("triton")

INTERPRETED = "cuda{run=interpreter}"


@pytest.fixture(scope="module")
def program():
    b = Builder("g")
    x = b.input("x", Tensor(f32, (Symbol("N", 1, 8), 4)))
    b.results = (b.softmax(b.matmul(x, b.input("w", Tensor(f32, (4, 4)))), axis=1),)
    return effcc.compile(b.graph(*b.results), target=INTERPRETED)


def test_arrays_in_arrays_out_tensors_in_tensors_out(program):
    x, w = torch.randn(3, 4), torch.eye(4)
    (y,) = program(x, w)
    (z,) = program(x.numpy(), w.numpy())
    assert isinstance(y, torch.Tensor) and isinstance(z, np.ndarray)
    torch.testing.assert_close(y, torch.softmax(x, 1))
    assert np.array_equal(y.numpy(), z)


def test_inputs_may_lie_anyhow(program):
    x, w = torch.randn(4, 5).T[1:4], torch.randn(17)[1:].reshape(4, 4)
    torch.testing.assert_close(program(x, w)[0], torch.softmax(x @ w, 1))


@pytest.mark.parametrize("inputs,said", [
    ((torch.zeros(3, 4),), "takes 2 inputs, got 1"),
    ((torch.zeros(3, 4).double(), torch.eye(4)), "float64 given, f32 expected; cast it"),
    ((torch.zeros(3), torch.eye(4)), "rank 1 given, 2 expected"),
    ((torch.zeros(3, 5), torch.eye(4)), "axis 1 is 5, expected 4"),
    ((torch.zeros(9, 4), torch.eye(4)), r"N = 9 is outside of its range 1\.\.8"),
])  # fmt: skip
def test_what_does_not_fit_is_refused(program, inputs, said):
    with pytest.raises(InputError, match=said) as error:
        program(*inputs)
    assert "\n" not in str(error.value)


def test_sizes_that_do_not_fit_together_are_refused():
    b = Builder("g")
    x, y = b.input("x", Tensor(f32, (Symbol("N"),))), b.input("y", Tensor(f32, (Symbol("M"),)))
    program = effcc.compile(b.graph(b.add(x, y)), target=INTERPRETED)
    assert torch.equal(program(torch.ones(3), torch.ones(3))[0], torch.full((3,), 2.0))
    with pytest.raises(InputError, match="sizes 3 and 4 must be equal"):
        program(torch.ones(3), torch.ones(4))


def test_temporaries_share_an_arena(program, monkeypatch):
    made = []
    monkeypatch.setattr(torch, "empty", lambda *a, _empty=torch.empty, **k: made.append(a) or _empty(*a, **k))
    program(torch.zeros(3, 4), torch.eye(4))
    assert len(made) == 2  # the arena and the result


def test_a_donated_input_is_written_in_place():
    b = Builder("g")
    x = b.input("x", Tensor(f32, (4,)))
    graph = b.graph(b.neg(x), aliases=((0, 0),))
    state = torch.arange(4.0)
    (out,) = effcc.compile(graph, target=INTERPRETED)(state)
    assert torch.equal(state, -torch.arange(4.0)) and out.data_ptr() == state.data_ptr()


def test_each_launch_has_a_time(program):
    launches = program.code.profile(torch.zeros(3, 4), torch.eye(4), repeat=1)
    assert [label for label, _ in launches] == [launch.label for launch in program.launches]


def test_without_a_gpu_that_is_said_in_a_line(monkeypatch):
    monkeypatch.setattr("effcc.backends.triton.backend.missing_device", lambda: "torch finds no CUDA device")
    b = Builder("g")
    program = effcc.compile(b.graph(b.neg(b.input("x", Tensor(f32, (4,))))), target="cuda{arch=sm_80}")
    with pytest.raises(EffccError, match="for a GPU, and there is none here: torch finds no CUDA device") as error:
        program(torch.zeros(4))
    assert "\n" not in str(error.value)


def test_dtypes_of_parameters_are_torchs():
    from effcc.backends.triton.kernel import TYPES

    assert {f"*{name}" for name, _ in TYPES.values()} == set(executable.SIGNATURE)
