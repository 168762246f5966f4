"""Compiles every architecture of `architectures.py` and writes the table docs/architectures.md.

    python benchmarks/architectures_table.py                  all of them
    python benchmarks/architectures_table.py bert gpt2        these; the table keeps the last results of the others
    python benchmarks/architectures_table.py --onnx           also through torch's ONNX exporter

Each is checked twice: Dynamo captures it whole (backend="eager", fullgraph=True), and what effcc computes lies within
twice torch's own fp32 error of an fp64 run, plus a few units in the last place.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import io
import json
import logging
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import torch
from architectures import ARCHITECTURES, Architecture
from torch.utils._pytree import tree_leaves

TABLE = Path(__file__).resolve().parent.parent / "docs" / "architectures.md"
RESULTS = Path(__file__).resolve().parent / "results" / "architectures.json"
ULPS = 4


@dataclasses.dataclass
class Row:
    """What one architecture gave. `error` and `torch_error`: greatest distance from the fp64 run over its greatest
    magnitude; `onnx`: "" where it was not tried."""

    name: str
    kind: str
    status: str = "ok"
    error: float = 0.0
    torch_error: float = 0.0
    launches: int = 0
    seconds: float = 0.0
    onnx: str = ""


def outputs(result: Any) -> list[torch.Tensor]:
    return [x.detach() for x in tree_leaves(result) if isinstance(x, torch.Tensor)]


def run(module: Any, inputs: dict[str, Any]) -> list[torch.Tensor]:
    with torch.no_grad():
        return outputs(module(**{k: v.clone() for k, v in inputs.items()}))


def exact(architecture: Architecture) -> list[torch.Tensor]:
    """The same model and inputs in double precision."""
    module, inputs = architecture.build()
    if architecture.kind == "mixture of experts":
        module.set_experts_implementation("eager")  # the grouped product takes no doubles
    return run(module.double(), {k: v.double() if v.is_floating_point() else v for k, v in inputs.items()})


Tensors = list[torch.Tensor]


def compare(ours: Tensors, theirs: Tensors, truth: Tensors) -> tuple[bool, float, float]:
    """(whether every output is within the bound, our greatest relative error, torch's)"""
    assert len(ours) == len(theirs) == len(truth), f"{len(ours)} outputs, torch gives {len(theirs)}"
    fine, worst, torch_worst = True, 0.0, 0.0
    for a, b, t in zip(ours, theirs, truth, strict=True):
        assert a.shape == b.shape, f"the shape {list(a.shape)}, torch gives {list(b.shape)}"
        assert a.dtype == b.dtype, f"the dtype {a.dtype}, torch gives {b.dtype}"
        if not b.is_floating_point():
            fine &= torch.equal(a, b)
            continue
        finite = torch.isfinite(t)
        fine &= torch.equal(torch.isfinite(a), torch.isfinite(b))
        if not finite.any():
            continue
        size = t[finite].abs().max().clamp(min=1e-30)
        mine = (a[finite].double() - t[finite]).abs().max()
        other = (b[finite].double() - t[finite]).abs().max()
        fine &= bool(mine <= 2 * other + ULPS * torch.finfo(b.dtype).eps * size)
        worst, torch_worst = max(worst, (mine / size).item()), max(torch_worst, (other / size).item())
    return fine, worst, torch_worst


def check(architecture: Architecture, options: dict[str, Any], onnx: bool = False) -> Row:
    """Compile one architecture and compare; the row's status says what failed, in one line."""
    row = Row(architecture.name, architecture.kind)
    try:
        truth = exact(architecture)
        module, inputs = architecture.build()
        theirs = run(module, inputs)
        torch._dynamo.reset()
        run(torch.compile(module, backend="eager", fullgraph=True), inputs)
        torch._dynamo.reset()
        start = time.perf_counter()
        compiled = torch.compile(module, backend="effcc", fullgraph=True, options=options)
        ours = run(compiled, inputs)
        row.seconds = time.perf_counter() - start
        fine, row.error, row.torch_error = compare(ours, theirs, truth)
        row.status = "ok" if fine else "differs"
        if onnx:
            row.onnx = through_onnx(architecture, theirs, truth)
    except Exception as error:
        row.status = f"{type(error).__name__}: {first_line(error)}"
    return row


def through_onnx(architecture: Architecture, theirs: list[torch.Tensor], truth: list[torch.Tensor]) -> str:
    """The same through torch's ONNX exporter: "ok", "not exported", or what failed."""
    import effcc

    module, inputs = architecture.build()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{architecture.name}.onnx"
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                torch.onnx.export(module, (), str(path), kwargs=inputs, dynamo=True, verbose=False)
        except Exception:
            return "not exported"
        try:
            program = effcc.compile(str(path))
            given = {k: v for k, v in inputs.items() if k in program.input_names}
            ours = [torch.as_tensor(x) for x in program(given)]
            return "ok" if compare(ours[: len(theirs)], theirs, truth)[0] else "differs"
        except Exception as error:
            return f"{type(error).__name__}: {first_line(error)}"


def first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if lines and lines[0].endswith("raised:") and len(lines) > 1:
        return lines[1]
    return lines[0] if lines else ""


def table(rows: list[Row]) -> str:
    """The page docs/architectures.md."""
    good = sum(r.status == "ok" for r in rows)
    lines = [
        "# Architectures",
        "",
        f"{good} of {len(rows)} small random models that transformers builds from configs compile whole through",
        '`torch.compile(model, backend="effcc", fullgraph=True)` and equal eager: their greatest error against an',
        f"fp64 run is within twice torch's own fp32 error plus {ULPS} units in the last place. Errors are relative to",
        "the greatest output.",
        "",
        "Made by `python benchmarks/architectures_table.py --onnx`.",
        "",
        "| architecture | kind | torch.compile | our error | torch's error | through ONNX |",
        "|---|---|---|---|---|---|",
    ]
    for r in rows:
        status, onnx = r.status.replace("|", "\\|"), r.onnx.replace("|", "\\|")
        lines.append(f"| {r.name} | {r.kind} | {status} | {r.error:.1e} | {r.torch_error:.1e} | {onnx} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="architectures (default: all, and write the table)")
    parser.add_argument("--onnx", action="store_true", help="also export each to ONNX and compile that")
    parser.add_argument("--target", default="cpu")
    parser.add_argument("--passes", help="a pipeline in place of the target's default")
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    options = {"target": arguments.target} | ({"passes": arguments.passes} if arguments.passes else {})
    names = arguments.names or list(ARCHITECTURES)
    rows = {r["name"]: Row(**r) for r in json.loads(RESULTS.read_text())} if RESULTS.exists() else {}
    for name in names:
        r = rows[name] = check(ARCHITECTURES[name], options, arguments.onnx)
        write([rows[n] for n in ARCHITECTURES if n in rows])
        errors = f"{r.error:.1e} (torch {r.torch_error:.1e})"
        print(f"{r.name:22} {r.seconds:6.1f} s  {errors}  {r.status}  {r.onnx}", flush=True)
    print(f"{sum(rows[n].status == 'ok' for n in names)} of {len(names)}")


def write(rows: list[Row]) -> None:
    """Keep the results and the page made from them."""
    for path, text in ((RESULTS, json.dumps([dataclasses.asdict(r) for r in rows], indent=1)), (TABLE, table(rows))):
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)


if __name__ == "__main__":
    main()
