"""The engines to compare. Each is a function (model, its ONNX file, threads) -> call, which returns the first output.

Each runs in a process of its own and imports only what it needs. All get the same number of threads and keep fp32, but
for those whose names end in -bf16.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from zoo import Model

Call = Callable[[], np.ndarray]


def effcc_onnx(model: Model, path: Path, threads: int, precision: str = "fp32") -> Call:
    """From the ONNX file, with the default pipeline."""
    import effcc

    arrays = model.inputs()
    shapes = {name: array.shape for name, array in arrays.items()}
    program = effcc.compile(str(path), threads=threads, shapes=shapes, precision=precision, values=model.values)
    inputs = list(arrays.values())
    return lambda: program(*inputs)[0]


def _torch(model: Model, threads: int, compiler: str | None, autocast: bool = False, **options: object) -> Call:
    import torch
    from modules import example

    torch.set_num_threads(threads)
    module, inputs = model.module(), example(model)
    if compiler == "torchscript":
        module = torch.jit.freeze(torch.jit.trace(module, inputs))
    elif compiler is not None:
        module = torch.compile(module, backend=compiler, options=options or None)

    def call() -> np.ndarray:
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            answer = module(*inputs)
            return (answer[0] if isinstance(answer, tuple) else answer).float().numpy()

    return call


def effcc_torch(model: Model, path: Path, threads: int) -> Call:
    """From the torch module, through torch.compile."""
    return _torch(model, threads, "effcc")


def torch_eager(model: Model, path: Path, threads: int) -> Call:
    return _torch(model, threads, None)


def torchscript(model: Model, path: Path, threads: int) -> Call:
    """Traced and frozen."""
    return _torch(model, threads, "torchscript")


def inductor(model: Model, path: Path, threads: int) -> Call:
    return _torch(model, threads, "inductor")


def inductor_freezing(model: Model, path: Path, threads: int) -> Call:
    return _torch(model, threads, "inductor", freezing=True)


def inductor_bf16(model: Model, path: Path, threads: int) -> Call:
    return _torch(model, threads, "inductor", autocast=True, freezing=True)


def onnxruntime_session(path: Path, threads: int) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def onnxruntime(model: Model, path: Path, threads: int) -> Call:
    session, inputs = onnxruntime_session(path, threads), model.inputs()
    return lambda: session.run(None, inputs)[0]


def openvino(model: Model, path: Path, threads: int, precision: str = "f32") -> Call:
    import openvino

    core = openvino.Core()
    config = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": precision, "PERFORMANCE_HINT": "LATENCY"}
    network = core.read_model(path)
    network.reshape({name: list(array.shape) for name, array in model.inputs().items()})
    request = core.compile_model(network, "CPU", config).create_infer_request()
    inputs = model.inputs()

    def call() -> np.ndarray:
        request.infer(inputs, share_inputs=True)
        return request.get_output_tensor(0).data

    return call


ENGINES: dict[str, Callable[[Model, Path, int], Call]] = {
    "effcc": effcc_onnx,
    "effcc-torch": effcc_torch,
    "effcc-again": effcc_onnx,  # how far two runs of one engine are apart
    "torch": torch_eager,
    "torchscript": torchscript,
    "inductor": inductor,
    "inductor-freezing": inductor_freezing,
    "onnxruntime": onnxruntime,
    "openvino": openvino,
    "effcc-bf16": partial(effcc_onnx, precision="bf16"),
    "openvino-bf16": partial(openvino, precision="bf16"),
    "inductor-bf16": inductor_bf16,
}
FROM_TORCH = {"effcc-torch", "torch", "torchscript", "inductor", "inductor-freezing", "inductor-bf16"}
