"""How ops are held against each other: an op's loop nest, and its decomposition, against its torch reference."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from effcc.interp import bind_type, run
from effcc.ir import Builder, Op, Symbol, Tensor
from effcc.ir.blob import Blob
from effcc.ir.evaluator import carrier, evaluate_nest
from effcc.ir.types import DType

TOLERANCE = {"f64": 1e-12, "f32": 2e-5, "f16": 4e-3, "bf16": 3e-2, "f8e4m3": 0.13, "f8e5m2": 0.26}


def to_array(t: Any, dtype: DType) -> np.ndarray:
    """A torch tensor (perhaps a carrier) as the evaluator holds it."""
    if t.dtype in (
        torch.bfloat16,
        torch.float8_e4m3fn,
        torch.float8_e5m2,
        torch.float8_e4m3fnuz,
        torch.float8_e5m2fnuz,
    ):
        t = t.float()
    return t.detach().numpy().astype(carrier(dtype))


def to_tensor(x: Any, dtype: DType | None) -> Any:
    if isinstance(x, torch.Tensor):
        return x
    return Blob(np.asarray(x, None if dtype is None else dtype.numpy), dtype).torch()


def assert_same(actual: np.ndarray, expected: np.ndarray, dtype: DType, rtol: float | None) -> None:
    if dtype.is_float and rtol != 0:
        rtol = TOLERANCE[dtype.name] if rtol is None else rtol
        np.testing.assert_allclose(actual.astype("f8"), expected.astype("f8"), rtol=rtol, atol=rtol)
    else:
        np.testing.assert_array_equal(actual, expected)


def types_of(tensors: tuple[Any, ...], dtypes: tuple[DType, ...] | None) -> tuple[Tensor, ...]:
    return tuple(Tensor(dtypes[k] if dtypes else DType.of(t.dtype), tuple(t.shape)) for k, t in enumerate(tensors))


def symbolic(types: tuple[Tensor, ...], known: tuple[int, ...]) -> tuple[tuple[Tensor, ...], dict[Symbol, int]]:
    """The same types with a symbol for each size that occurs, but 1 and `known`: equal sizes stay equal."""
    sizes = {d for t in types for d in t.shape}
    names = {d: Symbol(f"n{d}", 0, 99) for d in sizes if d != 1 and d not in known}
    return tuple(t.with_shape(tuple(names.get(d, d) for d in t.shape)) for t in types), {s: d for d, s in names.items()}


def reference(op: Op, types: tuple[Tensor, ...], tensors: tuple[Any, ...]) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """(the results' types, the results) by the interpreter."""
    b = Builder()
    results = b.emit(op, tuple(b.input(f"x{k}", t) for k, t in enumerate(types)))
    return tuple(v.type for v in results), run(b.graph(*results), *tensors)


@pytest.fixture(scope="session")
def agree() -> Any:
    """agree(op, *operands): the loop nest computes the reference, for these shapes and with symbols in their place;
    returns the reference's results. Operands are torch tensors or anything NumPy takes (`dtypes` where that does not
    tell). `known`: sizes that the type rule wants to know."""

    def check(
        op: Op,
        *operands: Any,
        dtypes: tuple[DType, ...] | None = None,
        rtol: float | None = None,
        with_symbols: bool = True,
        known: tuple[int, ...] = (),
    ) -> Any:
        tensors = tuple(to_tensor(x, dtypes[k] if dtypes else None) for k, x in enumerate(operands))
        types = types_of(tensors, dtypes)
        out, expected = reference(op, types, tensors)
        arrays = tuple(to_array(t, x.dtype) for t, x in zip(tensors, types))
        variants: list[Any] = [(types, {})]
        if with_symbols:
            variants.append(symbolic(types, known))
        for operand_types, bindings in variants:
            nest = op.compute(*operand_types)
            assert nest is not None, f"{op.name} has no loop nest"
            declared = tuple(bind_type(t, bindings) for t in op.result_types(operand_types))
            assert declared == out
            for got, want, t in zip(evaluate_nest(nest, arrays, declared, bindings), expected, out, strict=True):
                assert_same(got, to_array(want, t.dtype), t.dtype, rtol)
        return expected[0] if op.num_results == 1 else expected

    return check


@pytest.fixture(scope="session")
def decomposes() -> Any:
    """decomposes(op, *operands): the op's decomposition, interpreted, gives the reference; returns the reference's
    results."""

    def check(op: Op, *operands: Any, dtypes: tuple[DType, ...] | None = None, rtol: float | None = None,
              with_symbols: bool = True, known: tuple[int, ...] = ()) -> Any:
        tensors = tuple(to_tensor(x, dtypes[k] if dtypes else None) for k, x in enumerate(operands))
        types = types_of(tensors, dtypes)
        out, expected = reference(op, types, tensors)
        for operand_types in (types, symbolic(types, known)[0]) if with_symbols else (types,):
            b = Builder()
            values = op.decompose(b, *(b.input(f"x{k}", t) for k, t in enumerate(operand_types)))
            values = values if isinstance(values, tuple) else (values,)
            assert tuple(v.type for v in values) == op.result_types(operand_types)
            for got, want, t in zip(run(b.graph(*values), *tensors), expected, out, strict=True):
                assert_same(to_array(got, t.dtype), to_array(want, t.dtype), t.dtype, rtol)
        return expected[0] if op.num_results == 1 else expected

    return check


@pytest.fixture(scope="session")
def onnx_run() -> Any:
    """onnx_run(op, inputs, **attributes): one op of ONNX's opset 20, by ONNX's reference implementation."""

    def evaluate(op: str, inputs: list[np.ndarray | None], **attributes: object) -> np.ndarray:
        from onnx import TensorProto, helper
        from onnx.reference import ReferenceEvaluator

        names = ["" if x is None else f"x{k}" for k, x in enumerate(inputs)]
        given = {n: x for n, x in zip(names, inputs) if n}
        infos = [
            helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(x.dtype), x.shape)
            for n, x in given.items()
        ]
        result = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
        graph = helper.make_graph([helper.make_node(op, names, ["y"], **attributes)], "g", infos, [result])
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])
        return ReferenceEvaluator(model).run(None, given)[0]

    return evaluate
