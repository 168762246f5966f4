"""The shipped model is what it claims to be, and the demo compiles it and says so."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime

FOLDER = Path(__file__).parents[2] / "examples" / "digits"


def test_the_shipped_model_is_small_trained_and_dynamic():
    model = onnx.load(FOLDER / "digits_vit.onnx", load_external_data=False)
    assert (FOLDER / "digits_vit.onnx").stat().st_size < 1_000_000
    assert not any(tensor.external_data for tensor in model.graph.initializer)
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param
    data = np.load(FOLDER / "digits_test.npz")
    assert data["images"].shape == (360, 1, 8, 8) and data["images"].dtype == np.float32
    session = onnxruntime.InferenceSession(FOLDER / "digits_vit.onnx", providers=["CPUExecutionProvider"])
    answers = session.run(None, {"image": data["images"]})[0].argmax(1)
    assert (answers == data["labels"]).mean() >= 0.97


def test_the_demo_compiles_runs_and_agrees(tmp_path, monkeypatch):
    monkeypatch.setenv("EFFCC_CACHE_DIR", str(tmp_path))
    run = subprocess.run(
        [sys.executable, FOLDER / "demo.py"], cwd=FOLDER.parents[1], capture_output=True, text=True, timeout=240
    )
    assert run.returncode == 0, run.stdout + run.stderr
    accuracy = re.search(r"held-back images: ([\d.]+)%", run.stdout)
    agreement = re.search(r"agreement with ONNX Runtime: ([\d.]+)% .* ([\d.e+-]+)$", run.stdout, re.MULTILINE)
    assert accuracy and float(accuracy[1]) >= 97
    assert agreement and float(agreement[1]) == 100 and float(agreement[2]) < 1e-4
