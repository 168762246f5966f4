"""How long until the first answer: cold, from the cache, and from an artifact, each in a fresh process.

    python benchmarks/compile_time.py --models resnet50,bert-base

Asked: a cold compile takes no longer than Inductor's first call with its defaults, both caches empty; from the cache at
most 3 s; `effcc.load` to the first answer at most 1 s. Times begin when torch, the model and its inputs are there (for
`load`: before `import effcc`), and so include what the compilers import. Writes results/compile_time.json.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import peak
from rich.console import Console
from rich.table import Table
from zoo import MODELS, Model, chosen

RESULTS = Path(__file__).parent / "results"


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
    check(answer.numpy())
    return taken


def effcc_onnx(model: Model, folder: Path) -> float:
    """Leaves the artifact in the folder, for `load`. Saving it is not part of the time."""
    import effcc

    inputs = list(model.inputs().values())
    start = time.perf_counter()
    program = effcc.compile(str(model.onnx(folder)), shapes={model.input: model.shape})
    answer = program(*inputs)[0]
    taken = time.perf_counter() - start
    check(answer)
    program.save(str(folder / f"{model.name}.effcc"))
    return taken


def load(model: Model, folder: Path) -> float:
    inputs = list(model.inputs().values())
    start = time.perf_counter()
    import effcc

    answer = effcc.load(str(folder / f"{model.name}.effcc"))(*inputs)[0]
    taken = time.perf_counter() - start
    check(answer)
    if intruders := sys.modules.keys() & {"torch", "tvm"}:
        raise SystemExit(f"running an artifact imported {intruders}")
    return taken


def check(answer: np.ndarray) -> None:
    if not np.isfinite(answer).all():
        raise SystemExit("the answer is not finite")


CASES: dict[str, Callable[[Model, Path], float]] = {
    "inductor": inductor,
    "effcc-torch": effcc_torch,
    "effcc-onnx": effcc_onnx,
    "load": load,
}


def in_fresh_process(case: str, model: Model, folder: Path, caches: Path) -> float | None:
    """Seconds, or None (with its last line on stderr) when it fails. All caches lie in `caches`."""
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
    return float(done.stdout.splitlines()[-1])


def measure(model: Model, base: Path) -> dict[str, float | None]:
    folder = base / "models"
    folder.mkdir(exist_ok=True)
    model.onnx(folder)
    results = {}
    for case in ("inductor", "effcc-torch", "effcc-onnx"):
        if case != "effcc-onnx" and model.architecture is None:
            continue
        caches = Path(tempfile.mkdtemp(dir=base))
        results[f"{case} cold"] = in_fresh_process(case, model, folder, caches)
        results[f"{case} cached"] = in_fresh_process(case, model, folder, caches)
    results["load"] = in_fresh_process("load", model, folder, Path(tempfile.mkdtemp(dir=base)))
    return results


def main() -> None:
    if sys.argv[1:2] == ["--child"]:
        case, name, folder = sys.argv[2:]
        print(CASES[case](MODELS[name], Path(folder)))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default="resnet50,mobilenetv2,vit-s16,bert-base,gpt2")
    parser.add_argument("--output", type=Path, default=RESULTS / "compile_time.json")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as base:
        results = {model.name: measure(model, Path(base)) for model in chosen(options.models)}
    columns = list(dict.fromkeys(name for entry in results.values() for name in entry))
    table = Table("model", *columns, title="seconds to the first answer")
    for name, entry in results.items():
        cells = [entry.get(column, "") for column in columns]
        table.add_row(name, *("failed" if c is None else c if c == "" else f"{c:.2f}" for c in cells))
    Console(width=None if sys.stdout.isatty() else 140).print(table)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps({"machine": peak.machine(), "seconds": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
