"""Products and look-ups of constants of few bits: kernels, bytes, and values beside the interpreter's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import effcc
from effcc.interp import run
from effcc.ir import Builder, Graph, Symbol, Tensor
from effcc.ir.encodings import NIBBLES, encode
from effcc.ir.types import DType, f32, i64

CASES = [  # dtype, m, k, n, transposed, group, zero points, dtype of scales, leading axes
    ("i8", 1, 64, 96, False, 0, False, "f4", ()),
    ("u8", 20, 70, 90, True, 0, True, "f4", ()),
    ("i4", 1, 64, 96, False, 32, False, "f2", ()),
    ("u4", 5, 70, 90, True, 32, True, "f2", ()),
    ("u4", 50, 70, 33, True, 32, False, "f4", ()),
    ("i2", 2, 70, 90, True, 32, True, "f4", (3, 2)),
]


def quantized(
    dtype: str, m: Any, k: int, n: int, transposed: bool, group: int, zero: bool, scales: str, lead: tuple[int, ...]
) -> Graph:
    """gelu(x @ dequantize(q) + bias)"""
    generator, d, b = np.random.default_rng(0), DType.parse(dtype), Builder()
    shape, summed = ((n, k), 1) if transposed else ((k, n), 0)
    size = [-(-s // group) if axis == summed else s for axis, s in enumerate(shape)] if group else [n]

    def elements(size: Any) -> Any:
        q = generator.integers(d.min, d.max + 1, size).astype("i1" if d.kind == "i" else "u1")
        return encode(q, NIBBLES, d) if d.bits == 4 else effcc.ir.Blob(q, d)

    given = [b.const(elements(shape)), b.const((generator.random(size) * 0.01 + 0.01).astype(scales))]
    given += [b.const(elements(size))] if zero else []
    w = b.dequantize_linear(*given, axis=summed if group else 1 - summed, block_size=group, dtype=f32)
    y = b.matmul(b.input("x", Tensor(f32, (*lead, m, k))), w, transpose_b=transposed)
    return b.graph(b.gelu(b.add(y, b.const(generator.standard_normal(n).astype("f4")))))


@pytest.mark.parametrize("case", CASES, ids=lambda c: "-".join(map(str, c)))
def test_one_kernel_dequantizes_multiplies_and_finishes(case: tuple[Any, ...]) -> None:
    graph = quantized(*case)
    program = effcc.compile(graph)
    assert [k["template"] for k in program.code.kernels({})] == ["weight_only"]
    x = torch.randn(tuple(graph.inputs[0].shape), generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(program(x)[0], run(graph, x)[0], rtol=1e-4, atol=1e-4)


def test_one_program_for_a_prompt_and_for_a_token() -> None:
    graph = quantized("i4", Symbol("M", 1, 512), 70, 90, False, 64, True, "f4", ())
    program = effcc.compile(graph)
    for m in (1, 3, 20, 300):
        x = torch.randn((m, 70), generator=torch.Generator().manual_seed(m))
        torch.testing.assert_close(program(x)[0], run(graph, x)[0], rtol=1e-4, atol=1e-4)


def test_two_elements_take_a_byte() -> None:
    program = effcc.compile(quantized("i4", 1, 128, 96, False, 32, False, "f2", ()))
    held = sum(array.nbytes for array in program.code.built.constants.values())
    assert held == 128 * 96 // 2 + 2 * 4 * 96 + 4 * 96  # elements, scales, bias


@pytest.mark.parametrize("dtype,columns", [("i4", 37), ("u4", 64)])
def test_rows_are_looked_up_in_nibbles(dtype: str, columns: int) -> None:
    d, b = DType.parse(dtype), Builder()
    table = np.random.default_rng(0).integers(d.min, d.max + 1, (50, columns)).astype("i1" if d.kind == "i" else "u1")
    rows = b.gather(b.const(encode(table, NIBBLES, d)), b.input("i", Tensor(i64, (2, 3))), axis=0)
    program = effcc.compile(b.graph(rows))
    index = np.array([[3, 4, 49], [0, -1, 7]])
    np.testing.assert_array_equal(np.asarray(program(index)[0]).astype("i1"), table.astype("i1")[index])
    assert sum(array.nbytes for array in program.code.built.constants.values()) == -(-50 * columns // 2)


def test_other_readers_of_nibbles_get_bytes() -> None:
    """A view of them, and a result: neither decodes what it reads."""
    b = Builder()
    q = np.random.default_rng(0).integers(-8, 8, (6, 5)).astype("i1")
    table = b.const(encode(q, NIBBLES, DType.parse("i4")))
    graph = b.graph(b.cast(b.transpose(table, perm=(1, 0)), to=f32), table)
    turned, plain = effcc.compile(graph)()
    np.testing.assert_array_equal(turned, q.T.astype("f4"))
    np.testing.assert_array_equal(np.asarray(plain).astype("i1"), q)


def test_an_artifact_holds_the_nibbles(tmp_path: Any) -> None:
    graph = quantized("i4", 1, 256, 512, False, 32, False, "f2", ())
    program = effcc.compile(graph)
    program.save(tmp_path / "w.effcc")
    x = np.random.default_rng(0).standard_normal((1, 256)).astype("f4")
    again = effcc.load(tmp_path / "w.effcc")
    np.testing.assert_array_equal(again(x)[0], program(x)[0])
    assert sum(a.nbytes for a in program.code.built.constants.values()) < 256 * 512 * 0.6
