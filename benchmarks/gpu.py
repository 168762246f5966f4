"""Models compiled for GPUs, without one: seconds, kernels, bytes, registers, spills, tensor-core instructions.

    python benchmarks/gpu.py --models all --architectures 80,90,100 --precisions fp32,fp16,bf16

Asked: at most 120 s for each model on each architecture, from an empty cache; matrix instructions in every kernel that
multiplies f16 or bf16 (by disassembly); digits ViT, run through Triton's interpreter, within rounding of its fp64
meaning. Prints tables, writes results/cuda.json, and exits 1 where something is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import peak
from rich.console import Console
from rich.table import Table
from zoo import MODELS

import effcc
from effcc.report import facts, size

RESULTS = Path(__file__).parent / "results"
DIGITS = Path(__file__).parents[1] / "examples" / "digits"
ASKED = ("digits", "resnet50", "vit-s16", "bert-base", "gpt2")
SECONDS = 120
UNIT = {"fp32": 2.0**-24, "fp16": 2.0**-11, "bf16": 2.0**-8}
"""Unit roundoff of what products are multiplied in."""
LOSS = 18
"""How many roundoffs of the largest logit digits ViT may lose: one for each of its products, one after another."""


def compiled(name: str, target: str, precision: str, folder: Path) -> Any:
    if name == "digits":
        return effcc.compile(str(DIGITS / "digits_vit.onnx"), target=target, precision=precision)
    model = MODELS[name]
    path = model.onnx(folder)
    return effcc.compile(str(path), target=target, precision=precision, shapes={model.input: model.shape})


def measure(name: str, architecture: int, precision: str, folder: Path) -> dict[str, Any]:
    """Compile from an empty cache; the figures of all kernels together."""
    if name != "digits":
        MODELS[name].onnx(folder)
    with tempfile.TemporaryDirectory() as cache:
        os.environ["EFFCC_CACHE_DIR"] = cache
        start, own = time.perf_counter(), os.times()
        program = compiled(name, f"cuda{{arch=sm_{architecture}}}", precision, folder)
        seconds, end = time.perf_counter() - start, os.times()
    found = facts(program)
    kernels = {k["symbol"]: k for k in found["kernels"]}
    figures = {symbol: k["on"][f"sm_{architecture}"] for symbol, k in kernels.items()}
    products = [s for s, k in kernels.items() if k["template"].startswith(("contraction", "attention"))]
    idle = [s for s in products if not figures[s]["tensor_core"]] if precision != "fp32" else []
    return {
        "seconds": seconds,
        "cpu_seconds": sum(end[:4]) - sum(own[:4]),
        "kernels": len(kernels),
        "launches": len(found["kernels"]),
        "bytes": found["bytes"],
        "flops": found["flops"],
        "registers": max(f["registers"] for f in figures.values()),
        "spilling": sum(f["spills"] > 0 for f in figures.values()),
        "local_bytes": max(f["stack"] for f in figures.values()),
        "shared": max(f["shared"] for f in figures.values()),
        "products": len(products),
        "instructions": sorted({i for s in products for i in figures[s]["tensor_core"] or ()}),
        "without_tensor_cores": idle,
        "each": {s: {"template": kernels[s]["template"], "label": kernels[s]["label"], **figures[s]} for s in kernels},
    }


def agreement(precision: str) -> float:
    """The largest difference of digits ViT's logits, in Triton's interpreter, from fp64's, in units of roundoff."""
    import torch

    from effcc.analysis.precision import widen, widen_tensor
    from effcc.interp import run

    images = np.load(DIGITS / "digits_test.npz")["images"][:4]
    program = compiled("digits", "cuda{run=interpreter}", precision, DIGITS)
    (exact,) = run(widen(program.source), widen_tensor(torch.from_numpy(images)))
    (logits,) = program(images)
    return float(np.abs(logits - exact.numpy()).max() / np.abs(exact.numpy()).max() / UNIT[precision])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default="all")
    parser.add_argument("--architectures", default="80,90,100")
    parser.add_argument("--precisions", default="fp32,fp16,bf16")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "effcc-models")
    parser.add_argument("--output", type=Path, default=RESULTS / "cuda.json")
    options = parser.parse_args()
    names = ASKED if options.models == "all" else tuple(options.models.split(","))
    options.folder.mkdir(exist_ok=True)
    columns = ("s", "CPU s", "kernels", "launches", "bytes", "registers", "spilling", "shared", "products",
               "tensor-core instructions")
    table = Table("model", "for", "in", *columns, title="target cuda, from an empty cache")
    results: dict[str, Any] = {}
    missed: list[str] = []
    for name in names:
        for precision in options.precisions.split(","):
            for architecture in map(int, options.architectures.split(",")):
                r = results[f"{name} sm_{architecture} {precision}"] = measure(
                    name, architecture, precision, options.folder)
                which = f"{name} for sm_{architecture} in {precision}"
                print(f"{which}: {r['seconds']:.0f} s, {r['kernels']} kernels", file=sys.stderr)
                if r["seconds"] > SECONDS:
                    missed.append(f"{which} took {r['seconds']:.0f} s")
                missed += [f"{which}: {k} uses no tensor cores" for k in r["without_tensor_cores"]]
                table.add_row(
                    name, f"sm_{architecture}", precision, f"{r['seconds']:.1f}", f"{r['cpu_seconds']:.1f}",
                    str(r["kernels"]), str(r["launches"]), size(r["bytes"]), str(r["registers"]), str(r["spilling"]),
                    size(r["shared"]), str(r["products"]), " ".join(r["instructions"]) or "-",
                )  # fmt: skip
    Console(width=None if sys.stdout.isatty() else 170).print(table)
    for precision in options.precisions.split(","):
        lost = results[f"digits interpreted {precision}"] = agreement(precision)
        print(f"digits ViT in Triton's interpreter, {precision}: {lost:.2f} roundoffs from fp64 (allowed {LOSS})")
        if lost > LOSS:
            missed.append(f"digits ViT in {precision} is {lost:.1f} roundoffs off")
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps({"machine": peak.machine(), "results": results}, indent=1) + "\n")
    for line in missed:
        print(f"missed: {line}")
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()
