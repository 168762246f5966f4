"""Compile the trained digits model, run it on the held-back images, and compare with ONNX Runtime.

Prints accuracy, agreement, latency of both (two threads each, taking turns) and what the passes did.
Usage: python examples/digits/demo.py   (or: make demo)
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
from rich.console import Console
from rich.table import Table

import effcc

HERE = Path(__file__).parent
MODEL = HERE / "digits_vit.onnx"
THREADS = 2


def reference() -> Callable[[np.ndarray], np.ndarray]:
    """The model in ONNX Runtime, as f32[B,1,8,8] -> f32[B,10]."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = THREADS
    session = onnxruntime.InferenceSession(MODEL, options, providers=["CPUExecutionProvider"])
    return lambda images: session.run(None, {"image": images})[0]


def latencies(*engines: Callable[[], object], rounds: int = 40) -> list[float]:
    """Median milliseconds of each engine. They take turns, so that both meet the machine in the same state."""
    times: list[list[float]] = [[] for _ in engines]
    for _ in range(rounds):
        for engine, taken in zip(engines, times, strict=True):
            engine()  # a turn begins with its own code, data and threads awake
            start = time.perf_counter()
            engine()
            taken.append(1e3 * (time.perf_counter() - start))
    return [statistics.median(taken) for taken in times]


def main() -> None:
    data = np.load(HERE / "digits_test.npz")
    images, labels = data["images"], data["labels"]

    start = time.perf_counter()
    program = effcc.compile(MODEL, threads=THREADS)
    print(f"compiled {MODEL.name} in {time.perf_counter() - start:.1f} s")

    onnx_runtime = reference()
    (logits,) = program(images)
    expected = onnx_runtime(images)
    correct, same = logits.argmax(1) == labels, logits.argmax(1) == expected.argmax(1)

    print(f"accuracy on {len(images)} held-back images: {correct.mean():.2%}")
    print(
        f"agreement with ONNX Runtime: {same.mean():.2%} of the answers, largest difference of a logit "
        f"{np.abs(logits - expected).max():.1e}"
    )

    table = Table("batch", "effcc, ms", "ONNX Runtime, ms", "ratio", title=f"median latency, {THREADS} threads each")
    for batch in (1, 16, len(images)):
        part = np.ascontiguousarray(images[:batch])
        ours, theirs = latencies(lambda x=part: program(x), lambda x=part: onnx_runtime(x))
        table.add_row(str(batch), f"{ours:.3f}", f"{theirs:.3f}", f"{ours / theirs:.2f}")
    Console().print(table)
    print(program.report())

    if correct.mean() < 0.97 or same.mean() < 0.99:
        raise SystemExit("the compiled model does not answer as the trained one does: this is a bug in effcc")


if __name__ == "__main__":
    main()
