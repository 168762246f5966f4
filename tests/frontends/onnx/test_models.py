"""Whole models through the interpreter against ONNX Runtime: text detection, recognition and orientation (PP-OCRv4,
from rapidocr-onnxruntime) and voice activity (silero-vad, with its branches and state)."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from effcc import interp
from effcc.errors import NeedsValue
from effcc.frontends.onnx import load
from effcc.ir import Symbol, verify

ort = pytest.importorskip("onnxruntime")
RNG = np.random.default_rng(0)


def folder(package: str, inner: str) -> Path:
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        pytest.skip(f"{package} is not installed")
    return Path(spec.origin).parent / inner


def f(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


def check(path: Path, feeds: dict[str, np.ndarray], tolerance: float = 2e-5, **options) -> None:
    graph = load(path, **options)
    verify(graph)
    ours = interp.run(graph, *(feeds[v.name] for v in graph.inputs))
    settings = ort.SessionOptions()
    settings.log_severity_level, settings.intra_op_num_threads = 3, 1
    theirs = ort.InferenceSession(path, settings, providers=["CPUExecutionProvider"]).run(None, feeds)
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a.numpy(), b, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("shape", [(1, 3, 64, 96), (2, 3, 32, 64)])
def test_text_detection_with_dynamic_sizes(shape):
    check(folder("rapidocr_onnxruntime", "models/ch_PP-OCRv4_det_infer.onnx"), {"x": f(*shape)})


@pytest.mark.parametrize("width", [48, 160])
def test_text_recognition_with_a_dynamic_width(width):
    path = folder("rapidocr_onnxruntime", "models/ch_PP-OCRv4_rec_infer.onnx")
    check(path, {"x": f(2, 3, 48, width)}, shapes={"x": ("B", 3, 48, "W")})
    assert load(path).inputs[0].shape[1] == 3 and isinstance(load(path).inputs[0].shape[0], Symbol)


def test_text_orientation():
    check(folder("rapidocr_onnxruntime", "models/ch_ppocr_mobile_v2.0_cls_infer.onnx"), {"x": f(3, 3, 48, 192)})


SPEECH = {"input": f(1, 576), "state": f(2, 1, 128), "sr": np.array(16000)}
SHAPES = {"input": (1, 576), "state": (2, 1, 128)}


def test_voice_activity_specialises_on_its_rate():
    path = folder("silero_vad", "data/silero_vad.onnx")
    with pytest.raises(NeedsValue) as error:  # the branch for 8 kHz does not fit frames of 16 kHz
        load(path, shapes=SHAPES)
    assert error.value.inputs == ("sr",)
    check(path, SPEECH, shapes=SHAPES, fixed={"sr": SPEECH["sr"]}, tolerance=1e-4)


def test_voice_activity_needs_shapes_that_its_branches_look_at():
    with pytest.raises(NeedsValue) as error:
        load(folder("silero_vad", "data/silero_vad.onnx"))
    assert error.value.shapes == ("input",)


def test_voice_activity_with_a_branch_at_run_time():
    path = folder("silero_vad", "data/silero_vad_op18_ifless.onnx")
    assert "if" in {n.op.name for n in load(path, shapes=SHAPES).nodes}
    check(path, SPEECH, shapes=SHAPES, tolerance=1e-4)


def test_voice_activity_over_a_sequence():
    state = {"h": f(1, 1, 128), "c": f(1, 1, 128)}
    for steps in (1, 30):
        path = folder("silero_vad", "data/silero_vad_16k_sequence.onnx")
        check(path, {"input": f(steps, 576), **state}, tolerance=1e-4)
