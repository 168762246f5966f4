"""Writing ONNX nodes: names, constants, sizes, and dtypes that a runtime lacks.

A `Scope` is one ONNX graph: the model's, or a branch or body, which also sees what its parents define. `Scope.call`
writes one node. Where ONNX, or ONNX Runtime's CPU kernels, do not take the operands' dtype, it is computed in a wider
carrier and converted back: integers wrap then and short floats round, as effcc's ops say.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import onnx

from effcc.errors import UnsupportedError
from effcc.ir.blob import Blob
from effcc.ir.dims import Dim, Extremum, FloorDiv, Mod, Symbol, bounds, symbols
from effcc.ir.graph import Value
from effcc.ir.types import DTYPES, DType, Optional, Sequence, Tensor, Type, bf16, f32, i8, i32, i64, u8

OPSET, IR_VERSION = 23, 11
"""The oldest operator set that has what most graphs need (attention, RMS normalization, 4-bit numbers)."""
NEWER = {"BitCast": 26, "i2": 25, "u2": 25, "f8e8m0": 24}
"""Operators and dtypes that need a newer one."""

ONNX_DTYPES: dict[str, int] = {
    "f64": 11, "f32": 1, "f16": 10, "bf16": 16, "f8e4m3": 17, "f8e4m3fnuz": 18, "f8e5m2": 19, "f8e5m2fnuz": 20,
    "f4": 23, "f8e8m0": 24, "i64": 7, "i32": 6, "i16": 5, "i8": 3, "i4": 22, "i2": 26, "u64": 13, "u32": 12,
    "u16": 4, "u8": 2, "u4": 21, "u2": 25, "bool": 9,
}  # fmt: skip
"""effcc's dtypes as TensorProto.DataType; what is missing has none."""

_FLOATS, _WIDE = "f64 f32 f16", "f64 f32 f16 i32 i64"
_BITS = "i8 i16 i32 i64 u8 u16 u32 u64"
_NUMBERS = f"{_FLOATS} {_BITS}"
_ALL = f"{_NUMBERS} bf16 bool"
TAKES: dict[str, frozenset[str]] = {
    op: frozenset(dtypes.split())
    for ops, dtypes in (
        ("Exp Log Sqrt Sin Cos Tan Asin Acos Atan Sinh Cosh Asinh Acosh Atanh Tanh Erf Floor Ceil Round", _FLOATS),
        ("Reciprocal Sigmoid Gelu Softplus HardSigmoid HardSwish LeakyRelu Elu Selu ThresholdedRelu", _FLOATS),
        ("Softsign Mish PRelu Softmax LogSoftmax RMSNormalization GroupNormalization BatchNormalization", _FLOATS),
        ("Conv ConvTranspose AveragePool GridSample RoiAlign Attention LayerNormalization IsInf", _FLOATS),
        ("Add Sub Mul Div Mod Less LessOrEqual Greater GreaterOrEqual Abs Sign", _NUMBERS),
        ("Celu", "f32"),
        ("Neg", f"{_FLOATS} i8 i16 i32 i64"),
        ("Equal", f"{_NUMBERS} bool"),
        ("Pow CumSum", _WIDE),
        ("Relu", _FLOATS),
        ("Max Min", f"{_WIDE} i8 u8 u32 u64"),
        ("And Or Xor Not", "bool"),
        ("BitwiseAnd BitwiseOr BitwiseXor BitwiseNot", _BITS),
        ("BitShift", "u8 u16 u32 u64"),
        ("MatMul", f"{_WIDE} u32 u64"),
        ("ReduceSum ReduceProd ReduceMean ReduceLogSumExp", _WIDE),
        ("ReduceMax ReduceMin", f"{_WIDE} i8 u8 bool"),
        ("ArgMax ArgMin", f"{_FLOATS} i8 i32 i64 u8"),
        ("Where", f"{_WIDE} i8 u8 u32"),
        ("Transpose Reshape Identity Slice Concat Squeeze Unsqueeze", _ALL),
        ("Gather GatherND GatherElements ScatterElements ScatterND", _ALL),
        ("Expand Tile Compress", f"{_NUMBERS} bool"),
        ("Pad", f"{_WIDE} i8 u8 u32 u64 bool"),
        ("TopK", f"{_WIDE} i8 i16 u8"),
        ("Trilu", f"{_FLOATS} i32 i64 bool"),
        ("NonZero", "f32 i32 i64 u8 bool"),
        ("Unique", "f64 f32 i64 i8"),
        ("MaxPool", f"{_FLOATS} i8 u8"),
        ("Resize", "f32 f16 i8 i32 u8"),
    )
    for op in ops.split()
}
"""The dtypes with which nodes are written, where not all: those that ONNX and ONNX Runtime's CPU kernels take, and f64
also where only ONNX does (no wider carrier would keep its bits)."""

_CARRIERS = {**dict.fromkeys(("bf16", "f16"), f32), **dict.fromkeys(("i8", "i16", "u8", "u16", "bool"), i32),
             "u32": i64, "u64": i64, "i32": i64, "i64": DTYPES["f64"]}  # fmt: skip
_NARROW = {d.name: f32 if d.is_float else i8 if d.kind == "i" else u8 for d in DTYPES.values() if d.bits < 8}
"""Carriers of the dtypes that only casts, constants and quantization take."""
_NARROW |= {name: f32 for name in DTYPES if name.startswith("f8")}


def takes(op: str, dtype: DType) -> bool:
    return dtype.name in TAKES[op] if op in TAKES else True


def carrier(op: str, dtype: DType) -> DType:
    """The dtype in which a node computes for operands of `dtype`."""
    while not takes(op, dtype):
        wider = _NARROW.get(dtype.name) or _CARRIERS.get(dtype.name)
        if wider is None:
            raise UnsupportedError(f"ONNX {op} does not take {dtype}", hint="insert a cast before it")
        dtype = wider
    return dtype


def onnx_dtype(dtype: DType) -> int:
    if dtype.name not in ONNX_DTYPES:
        raise UnsupportedError(f"ONNX has no dtype {dtype}", hint="cast it to another one before the export")
    return ONNX_DTYPES[dtype.name]


class Ref(NamedTuple):
    """A value of an ONNX graph by its name."""

    name: str
    dtype: DType


def tensor_proto(name: str, blob: Blob) -> onnx.TensorProto:
    """A constant's data; sub-byte elements are packed, the first in the low bits."""
    dtype, array = blob.type.dtype, np.ascontiguousarray(blob.array)
    proto = onnx.TensorProto(name=name, data_type=onnx_dtype(dtype), dims=list(blob.array.shape))
    if dtype.bits < 8:
        array = _packed(array.reshape(-1), dtype)
    proto.raw_data = array.tobytes()
    return proto


def _packed(flat: np.ndarray, dtype: DType) -> np.ndarray:
    raw = flat.view(np.uint8) if dtype.is_float else flat.astype(np.int8).view(np.uint8)
    each, mask = 8 // dtype.bits, np.uint8((1 << dtype.bits) - 1)
    raw = np.concatenate([raw & mask, np.zeros(-len(raw) % each, np.uint8)]).reshape(-1, each)
    shifted = raw << (np.arange(each, dtype=np.uint8) * np.uint8(dtype.bits))
    return np.bitwise_or.reduce(shifted, axis=1).astype(np.uint8)


@dataclass
class Model:
    """What all scopes of a model share."""

    opset: int = OPSET
    initializers: list[onnx.TensorProto] = field(default_factory=list)
    constants: dict[Any, Ref] = field(default_factory=dict)
    names: dict[str, int] = field(default_factory=dict)
    numbers: dict[str, Any] = field(default_factory=dict)
    """The values of constants of rank 0, by name."""

    def name(self, wanted: str) -> str:
        """`wanted`, with a number where it is taken."""
        while True:
            count = self.names.get(wanted, 0)
            self.names[wanted] = count + 1
            if not count:
                return wanted
            wanted = f"{wanted}_{count}"

    def need(self, what: str) -> None:
        """An operator or dtype that may ask for a newer operator set."""
        self.opset = max(self.opset, NEWER.get(what, 0))

    def constant(self, blob: Blob, wanted: str) -> Ref:
        key = (blob.type, blob.sha256)
        if key not in self.constants:
            self.need(blob.type.dtype.name)
            name = self.name(wanted)
            self.initializers.append(tensor_proto(name, blob))
            self.constants[key] = Ref(name, blob.type.dtype)
            if not blob.type.shape:
                self.numbers[name] = blob.array.item()
        return self.constants[key]


class Scope:
    """One ONNX graph while it is written."""

    def __init__(self, model: Model, parent: Scope | None = None):
        self.model, self.parent = model, parent
        self.nodes: list[onnx.NodeProto] = []
        self.env: dict[Value, Ref] = {}
        self.sources: dict[Symbol, tuple[Ref, int]] = {}
        """Where each size symbol can be read: a value, and the axis whose size it is."""
        self.sizes: dict[Dim, Ref] = {}
        self.at = ""
        """Names of nodes: where the op being written came from."""

    # -- nodes -----------------------------------------------------------------------------------
    def node(self, op: str, inputs: list[Ref | None], dtypes: list[DType | None], **attributes: Any) -> list[Ref]:
        """A node as it stands: inputs (None: absent), and a dtype for each output (None: not wanted)."""
        self.model.need(op)
        for dtype in dtypes:
            if dtype is not None:
                self.model.need(dtype.name)
        outputs = [Ref("" if d is None else self.model.name(f"{op}_out"), d or f32) for d in dtypes]
        names = ["" if x is None else x.name for x in inputs]
        while names and not names[-1]:
            names.pop()
        given = {k: v for k, v in attributes.items() if v is not None}
        node = onnx.helper.make_node(op, names, [r.name for r in outputs], **given)
        node.name = self.model.name(f"{self.at}/{op}" if self.at else op)
        self.nodes.append(node)
        return outputs

    def call(self, op: str, *inputs: Ref, out: DType | None = None, data: int | None = None, **attributes: Any) -> Ref:
        """A node with one output, in a dtype that it takes.

        data: how many of the inputs, from the first on, are of the computed dtype (all of the last's dtype if None).
        out: the output's dtype where it is not the operands' (comparisons, positions).
        """
        count = len(inputs) if data is None else data
        dtype = inputs[count - 1].dtype if op != "Where" else inputs[-1].dtype
        wide = carrier(op, dtype)
        first = 1 if op == "Where" else 0
        given = [self.cast(x, wide) if first <= k < count else x for k, x in enumerate(inputs)]
        result = self.node(op, list(given), [out or wide], **attributes)[0]
        return result if out else self.cast(result, dtype)

    def cast(self, x: Ref, to: DType, saturate: bool = False) -> Ref:
        """Conversion: integers wrap, also those of less than 8 bits."""
        if x.dtype == to:
            return x
        if to.bits < 8 and to.is_integer:
            wide = self.cast(x, i32)
            low = self.node("BitwiseAnd", [wide, self.number((1 << to.bits) - 1, i32)], [i32])[0]
            if to.kind == "i":  # sign: (low ^ half) - half
                half = self.number(1 << (to.bits - 1), i32)
                flipped = self.node("BitwiseXor", [low, half], [i32])[0]
                low = self.node("Sub", [flipped, half], [i32])[0]
            x = low
        narrow = to.name.startswith("f8")
        onto = {"saturate": int(saturate)} if narrow and to.name != "f8e8m0" else {}
        return self.node("Cast", [x], [to], to=onnx_dtype(to), **onto)[0]

    # -- constants -------------------------------------------------------------------------------
    def const(self, array: Any, dtype: DType | None = None, name: str = "constant") -> Ref:
        array = np.asarray(array) if dtype is None else np.asarray(array).astype(dtype.numpy)
        return self.model.constant(Blob(array, dtype), name)

    def number(self, value: float | int | bool, dtype: DType) -> Ref:
        """A constant of rank 0."""
        return self.const(np.asarray(value), dtype, "number")

    def ints(self, *values: int) -> Ref:
        """A constant vector of i64."""
        return self.const(np.asarray(values, np.int64), i64, "sizes")

    # -- sizes -----------------------------------------------------------------------------------
    def learn(self, value: Ref, type_: Type) -> None:
        """Remember which symbols a value's shape tells."""
        if isinstance(type_, Tensor):
            for axis, dim in enumerate(type_.shape):
                if isinstance(dim, Symbol) and not self.knows(dim):
                    self.sources[dim] = value, axis

    def knows(self, symbol: Symbol) -> bool:
        return symbol in self.sources or self.parent is not None and self.parent.knows(symbol)

    def size(self, dim: Dim) -> Ref:
        """A dimension as i64[]."""
        if isinstance(dim, int):
            return self.number(dim, i64)
        scope: Scope | None = self
        while scope is not None:
            if dim in scope.sizes:
                return scope.sizes[dim]
            scope = scope.parent if not any(s in scope.sources for s in symbols(dim)) else None
        self.sizes[dim] = self._size(dim)
        return self.sizes[dim]

    def _size(self, dim: Any) -> Ref:
        match dim:
            case Symbol():
                value, axis = self._source(dim)
                return self.node("Gather", [self.shape_of(value), self.number(axis, i64)], [i64], axis=0)[0]
            case FloorDiv(a, b):
                x, y = self.size(a), self.size(b)
                low, least = bounds(a)[0], bounds(b)[0]
                if low is not None and low >= 0 and least is not None and least > 0:
                    return self.call("Div", x, y)  # truncation is the floor then
                return self.call("Div", self.call("Sub", x, self.call("Mod", x, y)), y)
            case Mod(a, b):
                return self.call("Mod", self.size(a), self.size(b))
            case Extremum(which, args):
                return self.call("Min" if which == "min" else "Max", *map(self.size, args))
        total: Ref | None = None
        for monomial, coefficient in dim.terms:
            term = None if coefficient == 1 and monomial else self.number(coefficient, i64)
            for atom in monomial:
                term = self.size(atom) if term is None else self.call("Mul", term, self.size(atom))
            assert term is not None
            total = term if total is None else self.call("Add", total, term)
        return total or self.number(0, i64)

    def _source(self, symbol: Symbol) -> tuple[Ref, int]:
        if symbol in self.sources:
            return self.sources[symbol]
        if self.parent is None:
            hint = "give an input such a size, or fix it by shapes="
            raise UnsupportedError(f"no input or op tells the size {symbol} by itself", hint=hint)
        return self.parent._source(symbol)

    def shape_of(self, value: Ref) -> Ref:
        return self.node("Shape", [value], [i64])[0]

    def shape(self, dims: tuple[Dim, ...]) -> Ref:
        """Dimensions as a vector of i64."""
        if all(isinstance(d, int) for d in dims):
            return self.ints(*dims)  # type: ignore[arg-type]
        parts = [self.ints(d) if isinstance(d, int) else self.vector(self.size(d)) for d in dims]
        return parts[0] if len(parts) == 1 else self.node("Concat", list(parts), [i64], axis=0)[0]

    def vector(self, scalar: Ref) -> Ref:
        """A rank-0 value as a vector of one element."""
        return self.node("Reshape", [scalar, self.ints(1)], [scalar.dtype])[0]

    # -- shapes ----------------------------------------------------------------------------------
    def reshape(self, x: Ref, dims: tuple[Dim, ...]) -> Ref:
        unknown = [k for k, d in enumerate(dims) if not isinstance(d, int)]
        if len(unknown) == 1 and 0 not in dims:
            target = self.ints(*(-1 if k in unknown else d for k, d in enumerate(dims)))  # type: ignore[misc]
        else:
            target = self.shape(dims)
        return self.call("Reshape", x, target, data=1, allowzero=1 if 0 in dims or len(unknown) > 1 else None)

    def expand(self, x: Ref, dims: tuple[Dim, ...]) -> Ref:
        return self.call("Expand", x, self.shape(dims), data=1)


def value_info(name: str, type_: Type) -> onnx.ValueInfoProto:
    """An input or output: sizes that vary are dim_params."""
    return onnx.helper.make_value_info(name, type_proto(type_))


def type_proto(type_: Type) -> onnx.TypeProto:
    match type_:
        case Tensor(dtype, shape):
            dims = [d if isinstance(d, int) else str(d) for d in shape]
            return onnx.helper.make_tensor_type_proto(onnx_dtype(dtype), dims)
        case Sequence(Tensor() as element):
            return onnx.helper.make_sequence_type_proto(type_proto(_held(element, "sequences")))
        case Optional(Sequence(Tensor()) as element):
            return onnx.helper.make_optional_type_proto(type_proto(element))
        case Optional(Tensor() as element):
            return onnx.helper.make_optional_type_proto(type_proto(_held(element, "optionals")))
    raise UnsupportedError(f"ONNX has no values of type {type_}", hint="sequences and optionals of tensors it has")


def _held(element: Tensor, what: str) -> Tensor:
    """A type that sequences and optionals hold."""
    if element.dtype.bits < 8 or element.dtype.name in _NARROW or element.dtype == bf16:
        raise UnsupportedError(f"ONNX has no {what} of {element.dtype}", hint="cast the elements to f32")
    return element


__all__ = ["Model", "Ref", "Scope", "carrier", "onnx_dtype", "takes", "type_proto", "value_info"]
