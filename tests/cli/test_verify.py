import numpy as np
import pytest


def test_a_right_program_agrees(effcc, net):
    done = effcc("verify", net, "--json")
    found = done.json
    assert done.status == 0 and found["agrees"] and found["reference"] and found["divergence"] is None
    assert found["program"][0]["name"] == "y" and found["program"][0]["ulp"] < 4


def test_inputs_from_a_file(effcc, net, tmp_path):
    np.savez(tmp_path / "x.npz", x=np.full((8, 4), 0.1, "f4"))
    done = effcc("verify", net, "-i", tmp_path / "x.npz")
    assert done.status == 0 and "agrees" in done.out


def test_an_artifact_is_intact_or_says_which_weight_is_not(effcc, artifact, tmp_path):
    assert "intact" in effcc("verify", artifact).out
    whole, bad = artifact.read_bytes(), tmp_path / "bad.effcc"
    from effcc.artifact import read

    weight = next(bytes(a) for a in read(artifact).constants.values() if a.nbytes > 8)
    bad.write_bytes(whole.replace(weight, weight[:-1] + b"\x99"))
    assert "constants.bin" in effcc("verify", bad).refused()


def test_an_artifact_against_its_source(effcc, artifact, net):
    assert effcc("verify", artifact, "--source", net, "--size", "B=2").status == 0


def test_an_artifact_of_another_model_differs(effcc, artifact, net, tmp_path):
    other = tmp_path / "other.effir"
    other.write_text(net.read_text().replace("0.5, -0.5", "0.75, -0.5"))
    done = effcc("verify", artifact, "--source", other)
    assert done.status == 1 and "DIFFERS" in done.out
    assert "not compiled from this model" in done.out


def test_a_miscompiled_op_is_named(effcc, tmp_path, monkeypatch):
    """Generated code in which every asinh is wrong."""
    from effcc.ops.elementwise import Asinh

    model = tmp_path / "m.effir"
    model.write_text("""graph @m(%x: f32[7,13]) -> f32[7,13] {
      %0: f32[7,13] = sigmoid(%x)  loc("m.onnx":"/first")
      %1: f32[7,13] = asinh(%0)  loc("m.onnx":"/second")
      %2: f32[7,13] = neg(%1)  loc("m.onnx":"/third")
      return %2
    }""")
    formula = Asinh.scalar
    monkeypatch.setattr(Asinh, "scalar", lambda self, x: formula(self, x) * 1.001)
    done = effcc("verify", model)
    assert done.status == 1 and "DIFFERS" in done.out
    assert "first diverging op:" in done.out and "asinh" in done.out and "m.onnx:/second" in done.out
    assert "the passes are right, the generated code is not" in done.out


@pytest.mark.parametrize("against", ["auto", "torch", "onnxruntime"])
def test_onnx_models_have_onnx_runtime_for_scale(effcc, digits, against):
    found = effcc("verify", digits, "--against", against, "--json").json
    assert found["agrees"] and found["program"][0]["ulp"] < 20
    assert found["reference_engine"] == ("torch" if against == "torch" else "onnxruntime")


def test_wrong_options(effcc, net, artifact):
    assert "auto, onnxruntime, torch" in effcc("verify", net, "--against", "nothing").refused()
    effcc("verify", net, "--source", net).refused()
