"""The intermediate representation: types, values, ops, graphs."""

from effcc.ir.blob import Blob
from effcc.ir.builder import Builder, OpBuilder, inline
from effcc.ir.dims import (
    Dim,
    Expr,
    Symbol,
    as_symbol,
    bounds,
    ceildiv,
    dim_max,
    dim_min,
    evaluate,
    floordiv,
    mod,
    product,
    substitute,
    symbols,
    upper_bound,
)
from effcc.ir.graph import Graph, Node, Value
from effcc.ir.location import UNKNOWN, FusedLoc, Loc, PassLoc, merge
from effcc.ir.op import Op, load_ops, op_class
from effcc.ir.types import (
    DTYPES,
    DType,
    Encoding,
    Optional,
    RngState,
    Sequence,
    SymInt,
    Tensor,
    Type,
    bf16,
    bool_,
    f8e4m3,
    f8e5m2,
    f16,
    f32,
    f64,
    i8,
    i16,
    i32,
    i64,
    type_symbols,
    u8,
    u16,
    u32,
    u64,
)
from effcc.ir.verify import verify

__all__ = [
    "DTYPES", "UNKNOWN", "Blob", "Builder", "DType", "Dim", "Encoding", "Expr", "FusedLoc", "Graph", "Loc", "Node", "Op",
    "OpBuilder", "Optional", "PassLoc", "RngState", "Sequence", "SymInt", "Symbol", "Tensor", "Type", "Value", "as_symbol",
    "bf16", "bool_", "bounds", "ceildiv", "dim_max", "dim_min", "evaluate", "f16", "f32", "f64", "f8e4m3", "f8e5m2",
    "floordiv", "i16", "i32", "i64", "i8", "inline", "load_ops", "merge", "mod", "op_class", "product", "substitute",
    "symbols", "type_symbols", "u16", "u32", "u64", "u8", "upper_bound", "verify",
]
