"""Are the operands' dtypes those that ONNX's schema of an op takes? Asked of `onnx.defs`, so that handlers need not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from effcc.errors import ParseError
from effcc.frontends.onnx.proto import element_code
from effcc.ir.graph import Value
from effcc.ir.types import DType, Tensor

if TYPE_CHECKING:
    from effcc.ir.location import Loc


def check_dtypes(schema: Any, op_type: str, inputs: Sequence[Any], loc: Loc) -> None:
    """Each tensor is of an allowed dtype, and those of one type variable are of one dtype; ParseError else."""
    import onnx.defs

    variadic = onnx.defs.OpSchema.FormalParameterOption.Variadic
    bound: dict[str, DType] = {}
    for i, item in enumerate(inputs):
        if not isinstance(item, Value) or not isinstance(item.type, Tensor):
            continue
        formal = schema.inputs[min(i, len(schema.inputs) - 1)]
        dtype = item.type.dtype
        if _name(dtype) not in formal.types:
            raise ParseError(
                f"{op_type}: input {formal.name!r} cannot be {dtype} (opset {schema.since_version})",
                where=loc,
                hint="insert a Cast, or export with a newer opset",
            )
        if formal.option == variadic and not formal.is_homogeneous:
            continue
        before = bound.setdefault(formal.type_str, dtype)
        if before != dtype:
            raise ParseError(
                f"{op_type}: inputs of type {formal.type_str} are {before} and {dtype}", where=loc, hint="insert a Cast"
            )


def _name(dtype: DType) -> str:
    """As schemas write it: "tensor(float)"."""
    import onnx

    return f"tensor({onnx.TensorProto.DataType.Name(element_code(dtype)).lower()})"
