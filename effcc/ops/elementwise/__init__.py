# ruff: noqa: I001  (names side by side, not one a line)
"""Elementwise ops, by kind; what their family is, is in family.py."""

from __future__ import annotations

from effcc.ops.elementwise.activations import (
    Celu, Elu, Gelu, HardSigmoid, HardSwish, LeakyRelu, Mish, Prelu, Relu, Selu, Sigmoid, Silu, Softplus, Softsign,
    ThresholdedRelu,
)
from effcc.ops.elementwise.arithmetic import Add, Atan2, Clip, Div, Floordiv, Fmod, Max, Min, Mod, Mul, Pow, Sub
from effcc.ops.elementwise.conversions import Bitcast, Cast, Identity
from effcc.ops.elementwise.family import (
    BOOL, FLOAT, INTEGER, NARROW_FLOATS, Binary, Elementwise, Unary, UnaryFunction, broadcast_dim, broadcast_index,
    broadcast_shapes, narrow,
)
from effcc.ops.elementwise.functions import (
    Abs, Acos, Acosh, Asin, Asinh, Atan, Atanh, Ceil, Cos, Cosh, Erf, Erfc, Exp, Expm1, Floor, Log, Log1p, Neg,
    Reciprocal, Round, Rounding, Rsqrt, Sign, Sin, Sinh, Sqrt, Tan, Tanh, Trunc,
)
from effcc.ops.elementwise.logic import (
    And, Bitwise, Comparison, Eq, Ge, Gt, Isinf, Isnan, Le, Lt, Ne, Not, Or, Shl, Shr, Where, Xor,
)

__all__ = [
    "BOOL", "FLOAT", "INTEGER", "NARROW_FLOATS", "Abs", "Acos", "Acosh", "Add", "And", "Asin", "Asinh", "Atan",
    "Atan2", "Atanh", "Binary", "Bitcast", "Bitwise", "Cast", "Ceil", "Celu", "Clip", "Comparison", "Cos", "Cosh",
    "Div", "Elementwise", "Elu", "Eq", "Erf", "Erfc", "Exp", "Expm1", "Floor", "Floordiv", "Fmod", "Ge", "Gelu",
    "Gt", "HardSigmoid", "HardSwish", "Identity", "Isinf", "Isnan", "Le", "LeakyRelu", "Log", "Log1p", "Lt", "Max",
    "Min", "Mish", "Mod", "Mul", "Ne", "Neg", "Not", "Or", "Pow", "Prelu", "Reciprocal", "Relu", "Round",
    "Rounding", "Rsqrt", "Selu", "Shl", "Shr", "Sigmoid", "Sign", "Silu", "Sin", "Sinh", "Softplus", "Softsign",
    "Sqrt", "Sub", "Tan", "Tanh", "ThresholdedRelu", "Trunc", "Unary", "UnaryFunction", "Where", "Xor",
    "broadcast_dim", "broadcast_index", "broadcast_shapes", "narrow",
]  # fmt: skip
