"""Tile graphs beside barriers: the same kernels, the same bits, the same machine, in turns.

    python benchmarks/tiles.py                                # everything, some minutes
    python benchmarks/tiles.py --models resnet50 --rounds 10

For each model: whether tiles give the same bits as barriers at 1, 2 and 4 threads, whether the tile graph passes its
verifier, milliseconds of both, bytes of temporaries, and a trace file that parses. Then the scheduler's own cost: tasks
that do nothing, with three parents each. Exits with status 1 where bits differ, a graph has a fault, a trace is invalid
or tiles are slower than 0.9 of the barriers' speed. Writes benchmarks/results/tiles.json.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import peak
from zoo import MODELS, chosen

import effcc
from effcc.backends.tvm.entry import Input, Launch, Output, Program, Tiles
from effcc.backends.tvm.runtime import Executable
from effcc.backends.tvm.tiles.verify import faults

RESULTS = Path(__file__).parent / "results"
SPEED = 0.9
"""Of the barriers' speed: what the issue asks of tiles at least."""
SECONDS = 4.0
"""Rounds go on for so long at least."""
PROTOTYPE = (33, 40)
"""Nanoseconds a tile of the prototype, on one thread."""
DEFAULT = "resnet50,vit-s16,mobilenetv2,bert-base"


def compare(name: str, folder: Path, rounds: int, threads: int) -> dict:
    model = MODELS[name]
    path, shapes = str(model.onnx(folder)), {model.input: model.shape}
    program = effcc.compile(path, shapes=shapes, schedule="tiles", threads=threads)
    code, inputs = program.code, list(model.inputs().values())
    without, under = code.executable, code.executable.sharing(code.tiled.under_barriers)
    expected = under(*inputs, threads=1)
    equal = {}
    for count in (1, 2, 4):
        both = (without(*inputs, threads=count), under(*inputs, threads=count))
        equal[count] = all(np.array_equal(a, b) for out in both for a, b in zip(out, expected, strict=True))
    times: dict[str, list[float]] = {"tiles": [], "barriers": []}
    end = time.perf_counter() + SECONDS
    while len(times["tiles"]) < rounds or time.perf_counter() < end:
        for schedule, run in (("tiles", without), ("barriers", under)):
            run(*inputs, threads=threads)
            start = time.perf_counter()
            run(*inputs, threads=threads)
            times[schedule].append(1e3 * (time.perf_counter() - start))
    trace = folder / f"{name}.trace.json"
    program.trace(inputs, trace)
    facts = code.schedule
    return {
        **{key: facts[key] for key in ("tasks", "joins", "edges", "arena", "arena_under_barriers")},
        "launches": len(code.launches),
        "equal": equal,
        "fault": next(iter(faults(code.tiled.graph, code.tiled.offsets)), None),
        "ms": {schedule: statistics.median(taken) for schedule, taken in times.items()},
        "speed": statistics.median(times["barriers"]) / statistics.median(times["tiles"]),
        "traced": valid_trace(trace, facts["tasks"]),
    }


def valid_trace(path: Path, tasks: int) -> bool:
    """Whether a file is Chrome's trace format with a slice for each task, none overlapping another of its row."""
    events = json.loads(path.read_text())["traceEvents"]
    slices = sorted((e for e in events if e["ph"] == "X"), key=lambda e: (e["tid"], e["ts"]))
    apart = all(
        a["tid"] != b["tid"] or a["ts"] + a["dur"] <= b["ts"] + 1e-3 for a, b in zip(slices, slices[1:], strict=False)
    )
    return len(slices) == tasks and apart and all(e["name"] and e["dur"] >= 0 for e in slices)


def scheduler_cost(width: int = 512, depth: int = 400) -> dict[str, float]:
    """Nanoseconds of wall time for each of width x depth tasks that do nothing and wait for three of the row before."""
    from tvm import ir
    from tvm.script.ir_builder import IRBuilder
    from tvm.tirx.script import builder as T

    from effcc.backends.tvm.objects import compile_driver, compile_kernels
    from effcc.machine import host

    with IRBuilder() as built, T.prim_func(s_tir=True):
        T.func_name("nothing")
        T.func_attr({"global_symbol": "nothing", "calling_conv": 1})
        T.arg("x", T.handle("float32"))
        T.arg("scratch", T.handle("uint8"))
        T.arg("tile", T.int32())
        T.func_ret(ir.PrimType("int32"))
        T.Return(T.int32(0))
    (kernel,) = compile_kernels([built.get()], host())
    count = width * depth
    tasks = np.stack([np.zeros(count), np.arange(count), np.arange(count) + 1], 1).astype("<i4")
    row, column = np.divmod(np.arange(count), width)
    near = [(row + 1) * width + column + d for d in (-1, 0, 1)]
    ok = [(row + 1 < depth) & (column + d >= 0) & (column + d < width) for d in (-1, 0, 1)]
    sources = np.concatenate([np.arange(count)[k] for k in ok])
    children = np.concatenate([c[k] for c, k in zip(near, ok, strict=True)])[np.argsort(sources, kind="stable")]
    starts = np.concatenate(([0], np.cumsum(np.bincount(sources, minlength=count))))
    section = Tiles(
        (Launch(kernel.symbol, ("x",), tiles=count),),
        tasks.tobytes(),
        starts.astype("<i4").tobytes(),
        children.astype("<i4").tobytes(),
    )
    program = Program(inputs=(Input("x", "f32", (1,), overwritten=True),),
                      outputs=(Output("y", "f32", (1,), alias="x"),), steps=(section,))  # fmt: skip
    run = Executable(program, [kernel.object], compile_driver(host().architecture))
    x, best = np.zeros(1, "f4"), {}
    for threads in (1, 2):
        taken = []
        for _ in range(8):
            start = time.perf_counter()
            run(x, threads=threads)
            taken.append(time.perf_counter() - start)
        best[f"{threads} threads"] = 1e9 * min(taken) / count
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default=DEFAULT)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--folder", type=Path, help="keep the exported ONNX files and the traces here")
    parser.add_argument("--output", type=Path, default=RESULTS / "tiles.json")
    options = parser.parse_args()
    names = [model.name for model in chosen(options.models)]
    results: dict[str, dict] = {}
    missed = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        for name in names:
            found = results[name] = compare(name, folder, options.rounds, options.threads)
            print(
                f"{name}: {found['launches']} launches as {found['tasks']} tasks, {found['joins']} joins, "
                f"{found['edges']} edges; tiles {found['ms']['tiles']:.2f} ms, barriers {found['ms']['barriers']:.2f} "
                f"ms, speed {found['speed']:.2f} (asked: {SPEED}); temporaries {found['arena'] / 2**20:.1f} MB, under "
                f"barriers {found['arena_under_barriers'] / 2**20:.1f} MB"
            )
            checks = {
                **{f"bits equal at {n} threads": same for n, same in found["equal"].items()},
                f"verifier ({found['fault'] or 'clean'})": found["fault"] is None,
                "trace file": found["traced"],
                f"speed at least {SPEED}": found["speed"] >= SPEED,
            }
            print("  " + ", ".join(f"{what}: {'yes' if good else 'NO'}" for what, good in checks.items()), flush=True)
            missed += [f"{name}: {what}" for what, good in checks.items() if not good]
    cost = {}
    for width, depth in ((512, 400), (64, 40)):
        cost[f"{width} x {depth}"] = found = scheduler_cost(width, depth)
        shown = ", ".join(f"{ns:.0f} ns on {threads}" for threads, ns in found.items())
        print(f"scheduler, {width} x {depth} tasks that wait for 3 others: {shown}")
    print(f"(the prototype, 512 x 400: {PROTOTYPE[0]} to {PROTOTYPE[1]} ns on one thread)")
    options.output.parent.mkdir(parents=True, exist_ok=True)
    report = {"machine": peak.machine(), "threads": options.threads, "models": results, "scheduler_ns": cost}
    options.output.write_text(json.dumps(report, indent=1) + "\n")
    if missed:
        sys.exit("missed: " + "; ".join(missed))


if __name__ == "__main__":
    main()
