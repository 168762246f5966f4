"""How long until the first answer: cold, from the cache, and from an artifact, each in a fresh process; and how much
memory that takes.

    python benchmarks/compile_time.py --models resnet50,bert-base

Asked: a cold compile takes no longer than Inductor's first call with its defaults, both caches empty, and half as long
in the geometric mean; from the cache at most 3 s; `effcc.load` to the first answer at most 1 s, and no longer than ONNX
Runtime's from file to first answer (imports apart); a process's peak resident memory while it runs an artifact (a few
calls) at most 1.1 times as large as one's that runs the file in ONNX Runtime. Compilers' times begin when torch, the
model and its inputs are there, and so include what the compilers import; `load` and `onnxruntime` take turns, 5 times,
the median counts. Writes results/compile_time.json.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import peak
from engines import onnxruntime_session
from rich.console import Console
from rich.table import Table
from zoo import MODELS, Model, chosen

RESULTS = Path(__file__).parent / "results"
DEFAULT = "resnet50,mobilenetv2,poolformer-s12,vit-s16,bert-base,gpt2,gpt2-decode,ppocr-rec,ppocr-det,silero-vad"
THREADS, CALLS, TURNS = 2, 5, 5
"""Threads that run a program; calls after the first, for memory's peak; processes of `load` and `onnxruntime` each."""


def inductor(model: Model, folder: Path) -> float:
    return torch_compile(model, "inductor")


def effcc_torch(model: Model, folder: Path) -> float:
    return torch_compile(model, "effcc")


def torch_compile(model: Model, backend: str) -> float:
    import torch
    from modules import example

    module, inputs = model.module(), example(model)
    start = time.perf_counter()
    with torch.inference_mode():
        answer = torch.compile(module, backend=backend)(*inputs)
    taken = time.perf_counter() - start
    check((answer[0] if isinstance(answer, tuple) else answer).numpy())
    return taken


def effcc_onnx(model: Model, folder: Path) -> float:
    """Leaves the artifact in the folder, for `load`. Saving it is not part of the time."""
    import effcc

    inputs = model.inputs()
    shapes = {name: array.shape for name, array in inputs.items()}
    start = time.perf_counter()
    program = effcc.compile(str(model.onnx(folder)), shapes=shapes, values=model.values)
    answer = program(*inputs.values())[0]
    taken = time.perf_counter() - start
    check(answer)
    program.save(str(folder / f"{model.name}.effcc"))
    return taken


def load(model: Model, folder: Path) -> float:
    inputs = list(model.inputs().values())
    import effcc
    import effcc.backends.tvm.saved
    import effcc.report
    from effcc.backends.tvm.runtime.loader import import_without_torch

    import_without_torch("tvm_ffi_orcjit")  # (the last of what loading imports)
    start = time.perf_counter()
    program = effcc.load(str(folder / f"{model.name}.effcc"), threads=THREADS)
    answer = program(*inputs)[0]
    taken = time.perf_counter() - start
    check(answer)
    for _ in range(CALLS):
        program(*inputs)
    if intruders := sys.modules.keys() & {"torch", "tvm"}:
        raise SystemExit(f"running an artifact imported {intruders}")
    return taken


def onnxruntime(model: Model, folder: Path) -> float:
    inputs = model.inputs()
    import onnxruntime  # noqa: F401 (before the clock starts)

    start = time.perf_counter()
    session = onnxruntime_session(model.onnx(folder), THREADS)
    answer = session.run(None, inputs)[0]
    taken = time.perf_counter() - start
    check(answer)
    for _ in range(CALLS):
        session.run(None, inputs)
    return taken


def check(answer: np.ndarray) -> None:
    if not np.isfinite(answer).all():
        raise SystemExit("the answer is not finite")


CASES: dict[str, Callable[[Model, Path], float]] = {
    "inductor": inductor,
    "effcc-torch": effcc_torch,
    "effcc-onnx": effcc_onnx,
    "load": load,
    "onnxruntime": onnxruntime,
}
RUNS = ("load", "onnxruntime")
ASKED = (
    ("cold compile / Inductor's first call", "effcc-torch cold", "inductor cold", 1.0, 0.5),
    ("from artifact / from file in ONNX Runtime", "load", "onnxruntime", 1.0, 1.0),
    ("peak memory / ONNX Runtime's", "load MiB", "onnxruntime MiB", 1.1, 1.0),
)
"""Ratios: what, ours, theirs, at most for each model, and in the geometric mean."""


def peak_memory() -> float:
    """The largest resident memory that this process had, MiB."""
    (line,) = (s for s in Path("/proc/self/status").read_text().splitlines() if s.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def in_fresh_process(case: str, model: Model, folder: Path, caches: Path) -> tuple[float, float] | None:
    """Seconds and MiB, or None (with its last line on stderr) when it fails. All caches lie in `caches`."""
    environment = os.environ | {
        "TORCHINDUCTOR_CACHE_DIR": str(caches / "inductor"),
        "TRITON_CACHE_DIR": str(caches / "triton"),
        "EFFCC_CACHE_DIR": str(caches / "effcc"),
    }
    command = [sys.executable, __file__, "--child", case, model.name, str(folder)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode != 0:
        print(f"{case} {model.name}: {(done.stderr.strip().splitlines() or ['died'])[-1]}", file=sys.stderr)
        return None
    seconds, memory = map(float, done.stdout.splitlines()[-1].split())
    return seconds, memory


def measure(model: Model, base: Path, folder: Path) -> dict[str, float | None]:
    folder.mkdir(exist_ok=True)
    model.onnx(folder)
    results: dict[str, float | None] = {}
    for case in ("inductor", "effcc-torch", "effcc-onnx"):
        if case != "effcc-onnx" and model.architecture is None:
            continue
        caches = Path(tempfile.mkdtemp(dir=base))
        for state in ("cold", "cached"):
            done = in_fresh_process(case, model, folder, caches)
            results[f"{case} {state}"] = done and done[0]
    turns = [(case, in_fresh_process(case, model, folder, base)) for _ in range(TURNS) for case in RUNS]
    for case in RUNS:
        taken = [done for name, done in turns if name == case and done is not None]
        for k, unit in enumerate(("", " MiB")):
            results[case + unit] = statistics.median(done[k] for done in taken) if len(taken) == TURNS else None
    return results


def ratios(results: dict[str, dict[str, float | None]], ours: str, theirs: str) -> list[float]:
    """ours / theirs, for each model of which both are known."""
    pairs = ((entry.get(ours), entry.get(theirs)) for entry in results.values())
    return [a / b for a, b in pairs if a is not None and b is not None]


def shown(cell: float | str | None, column: str) -> str:
    if cell is None:
        return "failed"
    return cell if isinstance(cell, str) else f"{cell:.0f}" if column.endswith("MiB") else f"{cell:.2f}"


def main() -> None:
    if sys.argv[1:2] == ["--child"]:
        case, name, folder = sys.argv[2:]
        print(CASES[case](MODELS[name], Path(folder)), peak_memory())
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default=DEFAULT)
    parser.add_argument("--folder", type=Path, help="keep the exported ONNX files here")
    parser.add_argument("--output", type=Path, default=RESULTS / "compile_time.json")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as base:
        results = {
            model.name: measure(model, Path(base), options.folder or Path(base, "models"))
            for model in chosen(options.models)
        }
    columns = list(dict.fromkeys(name for entry in results.values() for name in entry))
    table = Table("model", *columns, title="seconds to the first answer")
    for name, entry in results.items():
        cells = ((entry[column], column) if column in entry else ("", "") for column in columns)
        table.add_row(name, *(shown(*cell) for cell in cells))
    Console(width=None if sys.stdout.isatty() else 140).print(table)
    for what, ours, theirs, each, mean in ASKED:
        if found := ratios(results, ours, theirs):
            middle = statistics.geometric_mean(found)
            print(f"{what}: at most {max(found):.2f} (asked: {each}), in the mean {middle:.2f} (asked: {mean})")
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps({"machine": peak.machine(), "seconds": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
