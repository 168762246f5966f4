"""Latency beside other engines, batch 1, the same number of threads for all; fp32, but for engines named -bf16.

    python benchmarks/latency.py                                   # everything: half an hour on two cores
    python benchmarks/latency.py --models bert-base,gpt2 --engines effcc,torch --rounds 5
    python benchmarks/latency.py --engines effcc-bf16,openvino-bf16,inductor-bf16 --output bf16.json

Prints a table with ratios (their time / that of the first: above 1 means that the first is quicker), the best peer's
with its 95 % interval, and with `effcc-again` how far one engine is from itself; the machine's measured peaks of the
same run, and how far each engine's answer is from torch eager's (ONNX Runtime's where there is no torch model). Writes
everything to benchmarks/results/latency.json.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path

import numpy as np
import peak
from engines import ENGINES, FROM_TORCH
from rich.console import Console
from rich.table import Table
from turns import Contestant, take_turns
from zoo import Model, chosen, largest_relative_difference

RESULTS = Path(__file__).parent / "results"


def start_engine(engine: str, model: Model, path: Path, threads: int):
    """Runs in the child. Thread counts that libraries read when they are loaded are set before they are."""
    os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = str(threads)
    return ENGINES[engine](model, path, threads)


def measure(model: Model, engines: list[str], folder: Path, threads: int, rounds: int, budget: float) -> dict:
    """One model on all engines that can run it: {"engines": {name: {...}}, "peak": {...}}; times in milliseconds."""
    path = model.onnx(folder)
    able = [name for name in engines if model.architecture is not None or name not in FROM_TORCH]
    contestants = [Contestant(name, start_engine, (name, model, path, threads)) for name in able]
    peaks = (peak.multiply_adds, peak.matrix_product, peak.copy)
    registers, product, copy = (Contestant(measured.__name__, measured, (threads,)) for measured in peaks)
    take_turns([*contestants, registers, product, copy], rounds, budget)

    answers = {c.name: c.answer for c in contestants if c.failure is None}
    judge = next((name for name in ("torch", "onnxruntime", *answers) if name in answers), None)
    entry: dict = {"shape": model.shape, "judge": judge, "engines": {}}
    for c in contestants:
        entry["engines"][c.name] = {"failure": c.failure} if c.failure is not None else {
            "ms": 1e3 * c.median,
            "fastest_ms": 1e3 * min(c.rounds),
            "rounds_ms": [round(1e3 * t, 4) for t in c.rounds],
            "setup_s": c.setup_time,
            "difference": largest_relative_difference(c.answer, answers[judge]),
        }  # fmt: skip
    entry["ratio"] = best_peer_over_ours({c.name: c.rounds for c in contestants if c.failure is None})
    entry["peak"] = {
        "gflops": 1e-9 * registers.answer / registers.median,
        "product_gflops": 1e-9 * peak.FLOPS / product.median,
        "gbytes": 1e-9 * peak.BYTES / copy.median,
    }
    if model.architecture is not None:
        import modules

        entry["flops"] = modules.flops(model)
    return entry


def best_peer_over_ours(rounds: dict[str, list[float]], draws: int = 2000) -> dict | None:
    """The median of the best peer of its precision over that of the first engine, with a 95 % interval: rounds are
    drawn anew, the same ones for both, as what disturbs a round disturbs all of its engines (Efron 1979)."""
    ours, *others = rounds
    short = ours.endswith("-bf16")
    peers = [name for name in others if name.removesuffix("-again") != ours and name.endswith("-bf16") == short]
    if not peers:
        return None
    peer = min(peers, key=lambda name: np.median(rounds[name]))
    drawn = np.random.default_rng(0).integers(0, len(rounds[ours]), (draws, len(rounds[ours])))
    theirs, mine = (np.median(np.array(rounds[name])[drawn], axis=1) for name in (peer, ours))
    low, high = np.quantile(theirs / mine, (0.025, 0.975))
    return {"peer": peer, "median": float(np.median(rounds[peer]) / np.median(rounds[ours])), "low": low, "high": high}


def show(console: Console, results: dict[str, dict], engines: list[str], threads: int) -> None:
    table = Table("model", title=f"median latency in ms, {threads} threads each (ratio to {engines[0]})")
    for name in engines:
        table.add_column(name, justify="right")
    table.add_column("best peer / first (95 %)", justify="right")
    table.add_column("of FMA peak", justify="right")
    for model, entry in results.items():
        ours = entry["engines"].get(engines[0], {}).get("ms")
        cells = []
        for name in engines:
            found = entry["engines"].get(name)
            if found is None:
                cells.append("")
            elif "ms" not in found:
                cells.append("[red]failed[/]")
            else:
                wrong = " [red]?[/]" if found["difference"] > 1e-3 and not name.endswith("-bf16") else ""
                ratio = f" ({found['ms'] / ours:.2f})" if ours and name != engines[0] else ""
                cells.append(f"{found['ms']:.2f}{ratio}{wrong}")
        share = ours and entry.get("flops") and entry["flops"] / (1e6 * ours * entry["peak"]["gflops"])
        ratio = entry["ratio"]
        shown = f"{ratio['median']:.2f} ({ratio['low']:.2f} to {ratio['high']:.2f})" if ratio else ""
        table.add_row(model, *cells, shown, f"{share:.0%}" if share else "")
    console.print(table)
    if ratios := [entry["ratio"]["median"] for entry in results.values() if entry["ratio"]]:
        print(f"best peer / first: geometric mean {np.exp(np.mean(np.log(ratios))):.3f}, least {min(ratios):.3f}")
    again = f"{engines[0]}-again"
    if same := [e["engines"][again]["ms"] / e["engines"][engines[0]]["ms"] for e in results.values()
                if "ms" in e["engines"].get(again, {})]:  # fmt: skip
        print(f"the same engine twice: ratios from {min(same):.3f} to {max(same):.3f}")
    for model, entry in results.items():
        peaks = entry["peak"]
        apart = ", ".join(f"{n} {e['difference']:.0e}" for n, e in entry["engines"].items() if "ms" in e)
        print(
            f"{model}: FMA peak {peaks['gflops']:.0f} GFLOP/s, product {peaks['product_gflops']:.0f}, "
            f"copy {peaks['gbytes']:.1f} GB/s; "
            f"largest relative difference to {entry['judge']}: {apart}"
        )
        for name, found in entry["engines"].items():
            if "failure" in found:
                print(f"  {name}: {found['failure']}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default="all")
    parser.add_argument("--engines", default="effcc,torch,inductor,onnxruntime,openvino", help=", ".join(ENGINES))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--budget", type=float, default=0.4, help="seconds that an engine may spend in one round")
    parser.add_argument("--folder", type=Path, help="keep the exported ONNX files here (1.5 GB)")
    parser.add_argument("--output", type=Path, default=RESULTS / "latency.json")
    options = parser.parse_args()
    engines = options.engines.split(",")
    if unknown := [name for name in engines if name not in ENGINES]:
        raise SystemExit(f"no engine {', '.join(unknown)}; there are {', '.join(ENGINES)}")

    console = Console(width=None if sys.stdout.isatty() else 160)
    results: dict[str, dict] = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        for model in chosen(options.models):
            console.print(f"{model.name} …")
            results[model.name] = measure(model, engines, folder, options.threads, options.rounds, options.budget)
    show(console, results, engines, options.threads)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    report = {"machine": peak.machine(), "threads": options.threads, "models": results}
    options.output.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
