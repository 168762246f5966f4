"""Other engines that a model can be timed beside. Each is set up and run in a process of its own: see effcc/turns.py.

    setup(source, names, arrays, threads) -> call()

source: the model's file; names: the inputs in order; arrays: a .npz file of them. All compute in fp32, on as many
threads as they are given.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

Call = Callable[[], Any]


class Engine(NamedTuple):
    setup: Callable[[Path, Sequence[str], Path, int], Call]
    suffix: str
    """Of the files that it reads"""


def read(arrays: Path, names: Sequence[str]) -> list[Any]:
    """The inputs, in order."""
    import numpy as np

    with np.load(arrays) as loaded:
        return [loaded[name] for name in names]


def effcc(source: Path, names: Sequence[str], arrays: Path, threads: int) -> Call:
    """A compiled program, from its artifact."""
    from effcc.artifact import load

    program, inputs = load(source, threads), read(arrays, names)
    return lambda: program(*inputs)


def onnxruntime(source: Path, names: Sequence[str], arrays: Path, threads: int) -> Call:
    """ONNX Runtime's CPU provider, with its default optimizations."""
    from effcc.verification import onnxruntime

    session, inputs = onnxruntime(source, names, threads), read(arrays, names)
    return lambda: session(inputs)


def openvino(source: Path, names: Sequence[str], arrays: Path, threads: int) -> Call:
    """OpenVINO's CPU device, tuned for latency, for these shapes."""
    import openvino  # type: ignore[import-not-found]

    inputs = dict(zip(names, read(arrays, names)))
    core = openvino.Core()
    config = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
    network = core.read_model(source)
    network.reshape({name: list(array.shape) for name, array in inputs.items()})
    request = core.compile_model(network, "CPU", config).create_infer_request()
    return lambda: request.infer(inputs, share_inputs=True)


def torch(source: Path, names: Sequence[str], arrays: Path, threads: int) -> Call:
    """torch, eagerly, op by op: a module that torch.export.save wrote."""
    import torch

    torch.set_num_threads(threads)
    module = torch.export.load(source).module()
    inputs = [torch.from_numpy(array) for array in read(arrays, names)]

    def call() -> Any:
        with torch.inference_mode():
            return module(*inputs)

    return call


ENGINES = {
    "onnxruntime": Engine(onnxruntime, ".onnx"),
    "openvino": Engine(openvino, ".onnx"),
    "torch": Engine(torch, ".pt2"),
}
