"""effcc compile --target onnx."""

import numpy as np
import onnxruntime


def run_file(path, x):
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: x})


def test_the_command_writes_onnx(effcc, net, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    out = effcc("compile", net, "--target", "onnx", "-o", "out.onnx")
    assert out.status == 0, out.err
    x = np.ones((2, 4), "f4")
    assert run_file("out.onnx", x)[0].shape == (2, 3)
    again = effcc("compile", "out.onnx", "--target", "onnx")
    assert again.status == 0 and (tmp_path / "out.compiled.onnx").exists()
    assert "ends in .onnx" in effcc("compile", net, "--target", "onnx", "-o", "out.effcc").refused()
    assert "is the model itself" in effcc("compile", "out.onnx", "--target", "onnx", "-o", "out.onnx").refused()
