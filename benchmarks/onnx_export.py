"""The digits ViT as ONNX files: exact, with merged tokens (ToMe), in int8, and both; checked and run in ONNX Runtime.

    python benchmarks/onnx_export.py

What ONNX Runtime computes is held against the interpreter on the held-back images. Without quantization each logit must
lie within the bounds of rounding errors. With it every quantized tensor of the model is compared, each computed by both
from the same quantized tensors before it: at most 0.1 % of the elements may differ, and these by one quantum. (What
differs at the first layers of a whole run moves all that follows: that share is printed, too.) Exit status 1 where a
figure is missed.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from budget import DIGITS, calibration

import effcc
from effcc.analysis.precision import bounded_run
from effcc.backends.onnx.export import export
from effcc.interp import run
from effcc.ir import Graph, Node, Value
from effcc.pipeline import Context, parse_pass

VARIANTS: dict[str, dict[str, str]] = {
    "exact passes": {},
    "ToMe": {"reduce_tokens": "tome:r=2"},
    "int8": {"quantize": "static-int8"},
    "ToMe and int8": {"reduce_tokens": "tome:r=2", "quantize": "static-int8"},
}
SHARE = 1e-3
onnxruntime.set_default_logger_severity(3)  # it warns of weights of which only the shape is used


def in_onnx_runtime(path: Path, *arrays: np.ndarray) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    named = dict(zip((i.name for i in session.get_inputs()), arrays, strict=True))
    return session.run(None, named)


def quantized_tensors(graph: Graph, x: np.ndarray, folder: Path, whole: bool) -> tuple[int, int, int]:
    """(elements, those that differ, the most quanta of any) over every quantized tensor of a graph.

    whole: of runs from the input on; else each tensor is computed from the interpreter's of those before it.
    """
    made = [n for n in graph.nodes if n.op.name == "quantize_linear"]
    values = tuple(n.result for n in made)
    ours = [np.asarray(y) for y in run(Graph("ours", graph.inputs, graph.nodes, values), x)]
    given = {} if whole else {n.result: Value(n.result.type, f"given{k}") for k, n in enumerate(made)}
    nodes = tuple(Node(n.op, tuple(given.get(v, v) for v in n.operands), n.results, n.loc) for n in graph.nodes)
    observed = dead_code(Graph("theirs", (*graph.inputs, *given.values()), nodes, values))
    path = folder / "observed.onnx"
    onnx.save(export(observed), str(path))
    theirs = in_onnx_runtime(path, x, *(ours if given else ()))
    apart = [np.abs(a.astype("i4") - b.astype("i4")) for a, b in zip(ours, theirs, strict=True)]
    return sum(a.size for a in apart), sum(int((a != 0).sum()) for a in apart), max(int(a.max()) for a in apart)


def dead_code(graph: Graph) -> Graph:
    return parse_pass("dce").run(graph, Context())


def outside_bounds(graph: Graph, x: np.ndarray, got: np.ndarray) -> int:
    """How many elements lie farther from an f64 run than rounding may bring them."""
    (exact,) = bounded_run(graph, _tensor(x))
    return int((np.abs(got.astype("f8") - exact.exact.numpy()) > exact.bound.numpy()).sum())


def _tensor(x: np.ndarray) -> Any:
    import torch

    return torch.from_numpy(x)


def main() -> int:
    held = np.load(DIGITS / "digits_test.npz")
    images, labels = held["images"], held["labels"]
    data = {name: array[:256] for name, array in calibration().items()}
    missed = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for title, options in VARIANTS.items():
            program = effcc.compile(str(DIGITS / "digits_vit.onnx"), target="onnx", calibration=data, **options)
            path = folder / "out.onnx"
            program.save(path)
            onnx.checker.check_model(str(path), full_check=True)
            (logits,) = in_onnx_runtime(path, images)
            nodes, size = len(program.launches), path.stat().st_size
            line = f"{title}: {nodes} nodes, {size / 1e3:.0f} kB, accuracy {(logits.argmax(1) == labels).mean():.2%}"
            if "quantize" in options:
                elements, differ, most = quantized_tensors(program.graph, images, folder, whole=False)
                drifted = quantized_tensors(program.graph, images, folder, whole=True)[1]
                good = most <= 1 and differ <= SHARE * elements
                line += f"; {differ} of {elements} quantized elements differ ({differ / elements:.3%}, asked 0.1 %), "
                line += f"by {most} quanta (asked 1); {drifted / elements:.3%} in whole runs"
            else:
                outside = outside_bounds(program.graph, images, logits)
                good = not outside
                line += f"; {outside} of {logits.size} logits outside of their bounds (asked 0)"
            missed += not good
            print(f"{line}: {'reached' if good else 'MISSED'}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
