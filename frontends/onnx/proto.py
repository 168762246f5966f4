"""Reading ONNX files: a path or a ModelProto becomes a checked ModelProto, tensors become NumPy arrays.

External data is memory-mapped. Whatever is wrong with a file is one `EffccError`: what, where, how to mend it.
Source: https://onnx.ai/onnx/repo-docs/ExternalData.html, onnx.proto3.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from effcc.errors import ParseError, UnsupportedError

if TYPE_CHECKING:
    import numpy as np
    import onnx


@dataclass(frozen=True)
class Source:
    """A model and where it came from: `folder` is where its external data may lie, `name` what errors call it."""

    model: onnx.ModelProto
    name: str
    folder: Path | None


def read(model: Any) -> Source:
    """A path (str, PathLike), serialized bytes or a ModelProto -> Source.

    Raises ParseError for a missing, truncated or foreign file.
    """
    import onnx

    if isinstance(model, onnx.ModelProto):
        return _checked(Source(model, model.graph.name or "model", None))
    if isinstance(model, bytes):
        return _checked(Source(_decode(model, "model"), "model", None))
    path = Path(os.fspath(model))
    if not path.is_file():
        raise ParseError("there is no such file", where=path, hint="give the path of an .onnx file")
    try:
        data = path.read_bytes()
    except OSError as e:
        raise ParseError(f"cannot be read ({e.strerror})", where=path) from None
    return _checked(Source(_decode(data, str(path)), path.name, path.resolve().parent))


def _decode(data: bytes, where: str) -> onnx.ModelProto:
    import onnx
    from google.protobuf.message import DecodeError

    if not data:
        raise ParseError("the file is empty", where=where, hint="export the model again")
    try:
        return onnx.ModelProto.FromString(data)
    except (DecodeError, RuntimeError, ValueError):
        raise ParseError("not an ONNX model, or cut off", where=where, hint="copy or export the file again") from None


def _checked(source: Source) -> Source:
    model = source.model
    if not model.HasField("graph") or not (model.graph.node or model.graph.output):
        raise ParseError("holds no ONNX graph", where=source.name, hint="copy or export the file again")
    if not model.graph.output:
        raise ParseError("the graph has no outputs", where=source.name, hint="copy or export the file again")
    for name in (model.graph.name, *(i.name for i in (*model.graph.input, *model.graph.output))):
        if isinstance(name, bytes):
            raise no_text(name, source)
    return source


def no_text(name: bytes, source: Source) -> ParseError:
    """The refusal of a name that protobuf gives as bytes."""
    return ParseError(f"the name {name!r} is no UTF-8", where=source.name, hint="copy or export the file again")


def names_of_bytes(message: Any) -> Iterator[bytes]:
    """The names in a message, and in those inside of it, that are no text. Looking at all of them takes a while."""
    stack = [message]
    while stack:
        inner = stack.pop()
        names, nested = _fields(inner.DESCRIPTOR)
        for field, repeated in names:
            found = getattr(inner, field)
            yield from (text for text in (found if repeated else (found,)) if isinstance(text, bytes))
        for field, repeated in nested:
            if repeated:
                stack.extend(getattr(inner, field))
            elif inner.HasField(field):
                stack.append(getattr(inner, field))


@cache
def _fields(descriptor: Any) -> tuple[list[tuple[str, bool]], list[tuple[str, bool]]]:
    """(fields of text that effcc reads, fields of messages), each with whether it is repeated."""
    read = [f for f in descriptor.fields if f.name not in ("doc_string", "metadata_props", "quantization_annotation")]
    names = [(f.name, f.is_repeated) for f in read if f.type == f.TYPE_STRING]
    return names, [(f.name, f.is_repeated) for f in read if f.message_type is not None]


def inputs(graph: onnx.GraphProto) -> list[onnx.ValueInfoProto]:
    """The inputs of a graph; before IR version 4 its constants are listed among them, and they are none."""
    constants = {t.name for t in graph.initializer} | {t.values.name for t in graph.sparse_initializer}
    return [i for i in graph.input if i.name not in constants]


def opsets(model: onnx.ModelProto | onnx.FunctionProto) -> dict[str, int]:
    """Domain -> version; the default domain is ''. Models before IR version 3 have none and mean opset 1."""
    versions = {o.domain if o.domain != "ai.onnx" else "": o.version for o in model.opset_import}
    versions.setdefault("", 1) if not versions else None
    return versions


def array(tensor: onnx.TensorProto, source: Source) -> np.ndarray:
    """The values of a TensorProto; memory-mapped where they lie outside of the model, else a view of its bytes."""
    import numpy as np
    import onnx
    from onnx import numpy_helper

    name = tensor.name or "a constant"
    dtype = element_dtype(tensor.data_type, f"{source.name}:{name}")
    shape = tuple(tensor.dims)
    if tensor.data_location == onnx.TensorProto.EXTERNAL and tensor.data_type != onnx.TensorProto.STRING:
        return _external(tensor, dtype.numpy, shape, source)
    try:
        if tensor.raw_data and dtype.bits >= 8:
            return np.frombuffer(tensor.raw_data, dtype.numpy.newbyteorder("<")).reshape(shape)
        return numpy_helper.to_array(tensor)
    except (ValueError, TypeError):
        raise ParseError(
            f"the data of {name!r} do not fill its shape {list(shape)}",
            where=source.name,
            hint="copy or export the file again",
        ) from None


def _external(tensor: onnx.TensorProto, dtype: np.dtype, shape: tuple[int, ...], source: Source) -> np.ndarray:
    import math

    import numpy as np

    facts = {entry.key: entry.value for entry in tensor.external_data}
    location = facts.get("location", "")
    where = f"{source.name}:{tensor.name}"
    if source.folder is None:
        raise ParseError(
            f"keeps its data in {location!r}, but the model came without a folder",
            where=where,
            hint="give the path of the .onnx file",
        )
    try:
        path = (source.folder / location).resolve()
        path.exists()
    except (OSError, ValueError):  # too long, or with a zero byte
        raise ParseError(f"{location!r} is no name of a data file", where=where, hint="save the model again") from None
    if not location or not path.is_relative_to(source.folder.resolve()):
        raise ParseError(
            f"external data at {location!r} lies outside of the model's folder",
            where=where,
            hint="move the data file beside the model and save it again",
        )
    if not path.is_file():
        raise ParseError(
            f"the external data file {location!r} is missing", where=where, hint=f"copy it to {source.folder}"
        )
    if dtype.itemsize * 8 != element_dtype(tensor.data_type, where).bits:
        raise UnsupportedError(
            "external data of less than 8 bits an element", where=where, hint="save the tensor inside the model"
        )
    try:
        offset, count = int(facts.get("offset") or 0), math.prod(shape)
    except ValueError:
        raise ParseError(f"the offset {facts['offset']!r} of its external data is no number", where=where) from None
    if offset < 0 or offset + count * dtype.itemsize > path.stat().st_size:
        raise ParseError(
            f"{location!r} is too short: bytes {offset} to {offset + count * dtype.itemsize} of "
            f"{path.stat().st_size} are asked for",
            where=where,
            hint="copy the data file again",
        )
    if count == 0:
        return np.empty(shape, dtype)
    return np.memmap(path, dtype, "r", offset, shape if shape else (1,)).reshape(shape)


_DTYPES = {
    "FLOAT": "f32",
    "UINT8": "u8",
    "INT8": "i8",
    "UINT16": "u16",
    "INT16": "i16",
    "INT32": "i32",
    "INT64": "i64",
    "STRING": "str",
    "BOOL": "bool",
    "FLOAT16": "f16",
    "DOUBLE": "f64",
    "UINT32": "u32",
    "UINT64": "u64",
    "COMPLEX64": "complex64",
    "COMPLEX128": "complex128",
    "BFLOAT16": "bf16",
    "FLOAT8E4M3FN": "f8e4m3",
    "FLOAT8E4M3FNUZ": "f8e4m3fnuz",
    "FLOAT8E5M2": "f8e5m2",
    "FLOAT8E5M2FNUZ": "f8e5m2fnuz",
    "UINT4": "u4",
    "INT4": "i4",
    "FLOAT4E2M1": "f4",
    "FLOAT8E8M0": "f8e8m0",
    "UINT2": "u2",
    "INT2": "i2",
}


def element_dtype(code: int, where: str) -> Any:
    """A TensorProto.DataType -> DType."""
    import onnx

    from effcc.ir.types import DType

    try:
        return DType.parse(_DTYPES[onnx.TensorProto.DataType.Name(code)])
    except (ValueError, KeyError):
        raise UnsupportedError(f"element type {code}", where=where, hint="one of " + ", ".join(_DTYPES)) from None


def element_code(dtype: Any) -> int:
    """A DType -> TensorProto.DataType."""
    import onnx

    return onnx.TensorProto.DataType.Value({ours: theirs for theirs, ours in _DTYPES.items()}[dtype.name])
