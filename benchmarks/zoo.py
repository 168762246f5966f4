"""What the benchmarks measure: architectures from transformers with random weights, and PP-OCR's trained models.

This file imports neither torch nor transformers, so that a process which measures another engine does not either.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Model:
    """`architecture` names a builder in modules.py, `packaged` an ONNX file inside a package.

    further: inputs besides the first, by name: their shapes (of noise), or the number that one is.
    """

    name: str
    input: str
    shape: tuple[int, ...]
    vocabulary: int | None = None  # the input is tokens below this, else pixels
    architecture: str | None = None
    packaged: tuple[str, str] | None = None
    further: tuple[tuple[str, tuple[int, ...] | int], ...] = ()

    def inputs(self) -> dict[str, np.ndarray]:
        random = np.random.default_rng(0)
        if self.vocabulary is not None:
            first = random.integers(0, self.vocabulary, self.shape).astype(np.int64)
        else:
            first = random.standard_normal(self.shape).astype(np.float32)
        more = {
            name: np.array(given) if isinstance(given, int) else random.standard_normal(given).astype(np.float32)
            for name, given in self.further
        }
        return {self.input: first, **more}

    @property
    def values(self) -> dict[str, np.ndarray]:
        """The inputs that a model's structure may depend on."""
        return {name: np.array(given) for name, given in self.further if isinstance(given, int)}

    def module(self) -> nn.Module:
        """The torch module, with the same weights in each process."""
        import modules

        assert self.architecture is not None
        return modules.build(self)

    def onnx(self, folder: Path) -> Path:
        """The ONNX file, exported into `folder` on first use."""
        if self.packaged is not None:
            package, file = self.packaged
            spec = importlib.util.find_spec(package)
            if spec is None or not spec.submodule_search_locations:
                raise SystemExit(f"{self.name} comes with the package {package}, which is not installed")
            return Path(spec.submodule_search_locations[0], file)
        path = folder / f"{self.name}.onnx"
        if not path.exists():
            import modules

            modules.export(self, path)
        return path


def ocr(name: str, file: str, shape: tuple[int, ...]) -> Model:
    return Model(name, "x", shape, packaged=("rapidocr_onnxruntime", f"models/{file}"))


def pixels(name: str, batch: int = 1) -> Model:
    return Model(f"{name}-b{batch}" if batch > 1 else name, "pixel_values", (batch, 3, 224, 224), architecture=name)


def bert(name: str, batch: int, length: int) -> Model:
    return Model(name, "input_ids", (batch, length), vocabulary=30522, architecture="bert-base")


MODELS: dict[str, Model] = {
    model.name: model
    for model in (
        pixels("resnet50"),
        pixels("mobilenetv2"),
        pixels("poolformer-s12"),
        pixels("vit-s16"),
        pixels("vit-b16"),
        bert("bert-base", 1, 128),
        bert("bert-base-384", 1, 384),
        Model("gpt2", "input_ids", (1, 128), vocabulary=50257, architecture="gpt2"),
        Model("gpt2-decode", "input_ids", (1, 1), vocabulary=50257, architecture="gpt2-decode",
              further=(("past", (12, 2, 1, 12, 127, 64)),)),  # fmt: skip
        ocr("ppocr-rec", "ch_PP-OCRv4_rec_infer.onnx", (1, 3, 48, 320)),
        ocr("ppocr-det", "ch_PP-OCRv4_det_infer.onnx", (1, 3, 640, 640)),
        Model("silero-vad", "input", (1, 576), packaged=("silero_vad", "data/silero_vad.onnx"),
              further=(("state", (2, 1, 128)), ("sr", 16000))),  # fmt: skip
        *(pixels(name, 8) for name in ("resnet50", "mobilenetv2", "poolformer-s12", "vit-s16", "vit-b16")),
        bert("bert-base-b8", 8, 128),
    )
}


def chosen(names: str) -> list[Model]:
    """The models of a comma-separated list; "all" means all."""
    wanted = list(MODELS) if names == "all" else names.split(",")
    if unknown := [name for name in wanted if name not in MODELS]:
        raise SystemExit(f"no model {', '.join(unknown)}; there are {', '.join(MODELS)}")
    return [MODELS[name] for name in wanted]


def largest_relative_difference(a: Any, b: Any) -> float:
    """max |a - b| / max |b|: how far two engines' answers are apart."""
    scale = float(np.abs(b).max())
    return float(np.abs(a - b).max()) / (scale if scale > 0 else 1.0)
