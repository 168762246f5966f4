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
    """A model at batch 1. `architecture` names a builder in modules.py, `packaged` an ONNX file inside a package."""

    name: str
    input: str
    shape: tuple[int, ...]
    vocabulary: int | None = None  # the input is tokens below this, else pixels
    architecture: str | None = None
    packaged: tuple[str, str] | None = None

    def inputs(self) -> dict[str, np.ndarray]:
        random = np.random.default_rng(0)
        if self.vocabulary is not None:
            return {self.input: random.integers(0, self.vocabulary, self.shape).astype(np.int64)}
        return {self.input: random.standard_normal(self.shape).astype(np.float32)}

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


def pixels(name: str) -> Model:
    return Model(name, "pixel_values", (1, 3, 224, 224), architecture=name)


MODELS: dict[str, Model] = {
    model.name: model
    for model in (
        pixels("resnet50"),
        pixels("mobilenetv2"),
        pixels("vit-s16"),
        Model("bert-base", "input_ids", (1, 128), vocabulary=30522, architecture="bert-base"),
        Model("gpt2", "input_ids", (1, 128), vocabulary=50257, architecture="gpt2"),
        ocr("ppocr-rec", "ch_PP-OCRv4_rec_infer.onnx", (1, 3, 48, 320)),
        ocr("ppocr-det", "ch_PP-OCRv4_det_infer.onnx", (1, 3, 640, 640)),
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
