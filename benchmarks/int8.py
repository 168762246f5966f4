"""Static int8 on trained models: accuracy, integer arithmetic against ONNX Runtime's, and latency beside fp32.

    python benchmarks/int8.py                                # everything, about ten minutes on two cores
    python benchmarks/int8.py --models digits --rounds 3 --lines 20

Exit status 1 where a figure is missed: the digits ViT loses more than a point; less than 95% of the rendered lines read
the same; sentence similarities correlate by less than 0.99; int8 is slower than effcc's fp32; an i32 accumulator
differs from ONNX Runtime's, or more than 0.1% of the outputs of quantized models by a quantum, or any by more.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from quantized_models import TASKS, Task, with_onnxruntime
from turns import Contestant, take_turns


# -- accuracy ----------------------------------------------------------------------------------------------------------
def accuracy(task: Task) -> bool:
    import effcc

    exact = effcc.compile(task.path, shapes=task.shapes)
    quantized = effcc.compile(
        task.path, shapes=task.shapes, quantize=task.quantize, calibration=task.calibration
    )
    samples = task.samples(task.test)
    found, good = task.judge(*([p(sample)[0].copy() for sample in samples] for p in (exact, quantized)))
    made = f"{task.quantize}, {integer_kernels(quantized)} integer kernels"
    print(f"{task.name:10} {made}; {found}: {'ok' if good else 'MISSED'}", flush=True)
    return good


def integer_kernels(program: Any) -> int:
    """Matmuls and convolutions that sum integers."""
    products = (n for n in program.graph.walk() if n.op.name in ("matmul", "conv"))
    return sum(n.op.accumulate is not None for n in products)


# -- latency -----------------------------------------------------------------------------------------------------------
def effcc_call(task: Task, threads: int, quantize: str | None) -> Callable[[], Any]:
    import effcc

    calibration = task.calibration if quantize else None
    program = effcc.compile(
        task.path, shapes=task.shapes, quantize=quantize, calibration=calibration, threads=threads
    )
    inputs = [task.samples(task.test)[0][name] for name in program.input_names]
    return lambda: program(*inputs)[0]


def onnxruntime_call(path: Path, sample: dict[str, np.ndarray], threads: int) -> Callable[[], Any]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 3
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda: session.run(None, sample)[0]


def start(kind: str, name: str, folder: str, threads: int) -> Callable[[], Any]:
    """Runs in the child: tasks hold functions, which do not travel."""
    os.environ["OMP_NUM_THREADS"] = str(threads)
    task = TASKS[name](Path(folder), 1)
    if kind.startswith("effcc"):
        return effcc_call(task, threads, task.quantize if kind == "effcc int8" else None)
    path = task.path if kind == "onnxruntime" else with_onnxruntime(task, Path(folder))
    return onnxruntime_call(path, task.samples(task.test)[0], threads)


def latency(task: Task, folder: Path, threads: int, rounds: int, budget: float) -> bool:
    try:
        with_onnxruntime(task, folder)
    except Exception as error:  # its quantizer does not take every model
        print(f"{task.name:10} ONNX Runtime does not quantize it: {str(error).splitlines()[0]}")
    kinds = ("effcc", "effcc int8", "onnxruntime", "onnxruntime int8")
    contestants = [Contestant(k, start, (k, task.name, str(folder), threads)) for k in kinds]
    take_turns(contestants, rounds, budget)
    shown = ", ".join(f"{c.name} {'failed: ' + c.failure if c.failure else f'{1e3 * c.median:.3f} ms'}"
                      for c in contestants)  # fmt: skip
    ours, fast = contestants[:2]
    good = ours.failure is None and fast.failure is None and fast.median <= ours.median
    ratio = f"; int8 {ours.median / fast.median:.2f} times as fast as fp32" if fast.rounds and ours.rounds else ""
    print(f"{task.name:10} {shown}{ratio}: {'ok' if good else 'MISSED'}", flush=True)
    return good


# -- arithmetic --------------------------------------------------------------------------------------------------------
def arithmetic(folder: Path) -> bool:
    """Random integer products and quantized networks, effcc's results beside ONNX Runtime's."""
    from quantized_networks import integer_products, quantized_networks

    import effcc

    good = True
    for name, path, samples in integer_products(folder):
        session, program = onnxruntime_session(path), effcc.compile(path)
        same = all(np.array_equal(program(s)[0], session.run(None, s)[0]) for s in samples)
        good &= same
        print(f"{name:34} accumulators {'equal' if same else 'DIFFER'}", flush=True)
    for name, path, samples, quantum in quantized_networks(folder):
        session, program = onnxruntime_session(path), effcc.compile(path)
        off = np.concatenate([np.abs(program(s)[0] - session.run(None, s)[0]).ravel() for s in samples]) / quantum
        few, small = float((off > 0.5).mean()), float(off.max())
        fine = few <= 1e-3 and small < 1.5
        good &= fine
        print(f"{name:34} {off.size} outputs: {few:.2%} differ, at most by {small:.0f} quanta "
              f"(asked: 0.1%, one): {'ok' if fine else 'MISSED'}", flush=True)  # fmt: skip
    return good


def onnxruntime_session(path: Path) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default="all", help=f"of {', '.join(TASKS)}")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--budget", type=float, default=0.3, help="seconds that an engine may spend in one round")
    parser.add_argument("--lines", type=int, default=300, help="lines of text (and sentences / 3) to judge by")
    parser.add_argument("--folder", type=Path, help="keep exported and quantized ONNX files here")
    parser.add_argument("--skip", default="", help="of accuracy, latency, arithmetic")
    options = parser.parse_args()
    names = list(TASKS) if options.models == "all" else options.models.split(",")
    if unknown := [n for n in names if n not in TASKS]:
        raise SystemExit(f"no model {', '.join(unknown)}; there are {', '.join(TASKS)}")
    skipped, results = options.skip.split(","), []
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        if "arithmetic" not in skipped:
            results.append(arithmetic(folder))
        for name in names:
            task = TASKS[name](folder, options.lines if name == "ocr" else max(2, options.lines // 3))
            if "accuracy" not in skipped:
                results.append(accuracy(task))
            if "latency" not in skipped:
                results.append(latency(task, folder, options.threads, options.rounds, options.budget))
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
