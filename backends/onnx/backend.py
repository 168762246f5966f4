"""Target onnx: exact passes without lowering, then an ONNX file. A call runs it in ONNX Runtime, where installed."""

from __future__ import annotations

import ctypes
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from effcc.errors import EffccError, InputError, UnsupportedError
from effcc.files import beside
from effcc.ir import Graph
from effcc.ir.types import DType, Tensor
from effcc.machine import Machine, host
from effcc.pipeline import Context
from effcc.report import at

if TYPE_CHECKING:
    import onnx

    from effcc.ir.graph import Node

LIMIT = 2**31 - 2**20
"""Bytes of a protobuf message: constants of larger models are written beside the file."""


class OnnxBackend:
    """Writes ONNX files. They are for any machine; passes that ask see this one."""

    name = "onnx"

    def __init__(self, target: str = "onnx"):
        if target.strip() != "onnx":
            raise UnsupportedError(f"target {target!r}: onnx has no options", hint="write onnx")
        self.target = target
        self.machine: Machine = host()

    def pipeline(self) -> str:
        """The exact passes: runtimes fuse by themselves what they have kernels for."""
        from effcc.passes import EXACT

        return EXACT

    def compile(self, graph: Graph, ctx: Context, threads: int | None = None) -> OnnxCode:
        """Export, and have onnx check the model as far as it can."""
        from effcc.backends.onnx.export import export

        model = export(graph)
        checked(model)
        return OnnxCode(graph, model, threads)


def checked(model: onnx.ModelProto) -> None:
    """EffccError where onnx's checker or its shape inference refuse a model: a bug in the export."""
    import onnx

    if model.ByteSize() > LIMIT:
        return  # only files can be checked then
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        told = " ".join(str(error).split())
        raise EffccError(f"the exported model is not valid: {told}", hint="please report it with the model") from error


class OnnxCode:
    """An ONNX model: called through ONNX Runtime, saved as a file."""

    suffix = ".onnx"

    def __init__(self, graph: Graph, model: onnx.ModelProto, threads: int | None = None):
        self.graph, self.model, self.threads = graph, model, threads
        self.sessions: dict[int | None, Any] = {}
        self.optimized = True
        """Whether ONNX Runtime may fuse and fold; what it has loaded already stays as it is."""

    # -- runs ------------------------------------------------------------------------------------
    def __call__(self, *inputs: Any, threads: int | None = None) -> tuple[Any, ...]:
        """Run in ONNX Runtime; NumPy or torch in, the same kind out."""
        session = self.session(threads or self.threads)
        if len(inputs) != len(self.graph.inputs):
            raise InputError(f"the program takes {len(self.graph.inputs)} inputs, got {len(inputs)}")
        as_torch = any(type(x).__module__.partition(".")[0] == "torch" for x in inputs)
        feeds = {}
        for v, info, x in zip(self.graph.inputs, self.model.graph.input, inputs, strict=True):
            feeds[info.name] = _fed(x, v.tensor, info.name)
        try:
            outs = session.run_with_ort_values([o.name for o in self.model.graph.output], feeds)
        except Exception as error:  # ONNX Runtime's own classes; among them what no input can help
            raise InputError(f"ONNX Runtime: {' '.join(str(error).split())}") from error
        arrays = [_fetched(o, v.tensor) for o, v in zip(outs, self.graph.results, strict=True)]
        if not as_torch:
            return tuple(arrays)
        from effcc.ir.blob import Blob

        return tuple(Blob(a, v.dtype).torch() for a, v in zip(arrays, self.graph.results, strict=True))

    def session(self, threads: int | None) -> Any:
        if threads in self.sessions:
            return self.sessions[threads]
        try:
            import onnxruntime
        except ImportError as error:
            hint = "pip install onnxruntime, or save the program and run the file elsewhere"
            raise UnsupportedError(
                "programs for target onnx run in ONNX Runtime, which is not installed", hint=hint
            ) from error
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        if not self.optimized:
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        if threads is not None:
            options.intra_op_num_threads = threads
        providers = ["CPUExecutionProvider"]
        try:
            if self.model.ByteSize() <= LIMIT:
                made = onnxruntime.InferenceSession(self.model.SerializeToString(), options, providers=providers)
            else:
                with tempfile.TemporaryDirectory() as folder:
                    path = Path(folder) / "model.onnx"
                    self.save(path)
                    made = onnxruntime.InferenceSession(str(path), options, providers=providers)
        except Exception as error:
            told = " ".join(str(error).split())
            raise UnsupportedError(f"ONNX Runtime does not run this model: {told}") from error
        self.sessions[threads] = made
        return made

    # -- files -----------------------------------------------------------------------------------
    def save(self, path: str | Path) -> None:
        """Write the .onnx file, whole or not at all; constants of models beyond 2 GiB go to PATH.data beside it."""
        import onnx

        path = Path(path)
        if self.model.ByteSize() <= LIMIT:
            with beside(path, "the model") as file:
                file.write(self.model.SerializeToString())
            return
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
            draft, data = Path(folder) / path.name, f"{path.name}.data"
            copy = onnx.ModelProto()
            copy.CopyFrom(self.model)
            onnx.save_model(copy, str(draft), save_as_external_data=True, location=data, size_threshold=1024)
            onnx.checker.check_model(str(draft), full_check=True)
            (Path(folder) / data).replace(path.parent / data)
            draft.replace(path)

    # -- reports ---------------------------------------------------------------------------------
    @property
    def launches(self) -> list[Any]:
        """The ONNX nodes, in order."""
        return list(self.model.graph.node)

    def profile(self, *inputs: Any, threads: int | None = None, repeat: int = 10) -> list[tuple[str, float]]:
        raise UnsupportedError("times of single nodes are ONNX Runtime's own", hint="use its profiler, or target cpu")

    def kernels(self, sizes: Mapping[str, int]) -> list[dict[str, Any]]:
        """Each op that is computed, with its work for these sizes."""
        nodes = [n for n in self.graph.nodes if n.op.name != "const"]
        return [_kernel(n, sizes) for n in nodes]

    def memory(self, sizes: Mapping[str, int]) -> dict[str, Any]:
        """Bytes of constants; what a runtime needs for temporaries is its own affair."""
        constants = sum(len(t.raw_data) for t in self.model.graph.initializer)
        return {"peak": 0, "lower_bound": 0, "unshared": 0, "buffers": [], "constants": constants}


def _kernel(node: Node, sizes: Mapping[str, int]) -> dict[str, Any]:
    tensors = [v.tensor for v in (*node.operands, *node.results) if isinstance(v.type, Tensor)]
    return {
        "label": node.op.name,
        "at": str(node.loc),
        "template": node.op.name,
        "symbol": f"{node.op.name}({', '.join(map(str, node.types))})",
        "tiles": 1,
        "flops": at(node.op.flops(*node.types), sizes),
        "bytes": sum(at(t.nbytes, sizes) for t in tensors),
    }


def _fed(x: Any, type_: Tensor, name: str) -> Any:
    """An input as ONNX Runtime's value; dtypes that NumPy lacks go by their bits."""
    import onnxruntime

    from effcc.backends.onnx.emit import onnx_dtype
    from effcc.ir.blob import Blob

    dtype = type_.dtype
    array = Blob.from_torch(x).array if type(x).__module__.partition(".")[0] == "torch" else np.asarray(x)
    if array.dtype != dtype.numpy:
        raise InputError(f"input {name!r} is {array.dtype}, expected {dtype}")
    fits = array.ndim == type_.rank and all(
        not isinstance(d, int) or d == n for d, n in zip(type_.shape, array.shape, strict=False)
    )
    if not fits:
        raise InputError(f"input {name!r} has shape {list(array.shape)}, expected {type_}")
    array = np.asarray(array, order="C")
    if _known_to_numpy(dtype):
        return onnxruntime.OrtValue.ortvalue_from_numpy(array)
    if dtype.bits < 8:
        raise UnsupportedError(f"ONNX Runtime's Python interface has no arrays of {dtype}", where=f"input {name!r}")
    bits = array.view(f"u{dtype.bits // 8}")
    return onnxruntime.OrtValue.ortvalue_from_numpy_with_onnx_type(bits, onnx_dtype(dtype))


def _fetched(value: Any, type_: Tensor) -> np.ndarray:
    dtype = type_.dtype
    if _known_to_numpy(dtype):
        return value.numpy()
    if dtype.bits < 8:
        raise UnsupportedError(f"ONNX Runtime's Python interface has no arrays of {dtype}", where="an output")
    shape = tuple(value.shape())
    count = int(np.prod(shape, dtype=np.int64)) * dtype.bytes
    raw = (ctypes.c_uint8 * count).from_address(value.data_ptr()) if count else b""
    return np.frombuffer(bytes(raw), np.uint8).view(dtype.numpy).reshape(shape)


def _known_to_numpy(dtype: DType) -> bool:
    return (
        dtype.is_bool
        or dtype.kind in "iu"
        and dtype.bits >= 8
        or dtype.kind == "f"
        and dtype.name in ("f16", "f32", "f64")
    )
