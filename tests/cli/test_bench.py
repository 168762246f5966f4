import pytest


def test_times(effcc, artifact):
    found = effcc("bench", artifact, "--rounds", 3, "--threads", 1, "--kernels", "--json").json
    times = found["milliseconds"]["effcc"]
    assert 0 < times["least"] <= times["median"] and found["rounds"] == 3
    assert [launch["label"] for launch in found["launches"]] and all(x["milliseconds"] >= 0 for x in found["launches"])
    assert found["peak"] > 0 and found["bandwidth"] > 0 and all(x["of_peak"] >= 0 for x in found["launches"])


def test_tables(effcc, net):
    done = effcc("bench", net, "--rounds", 2, "--kernels")
    assert done.status == 0 and "median" in done.out and "matmul" in done.out
    assert "of peak" in done.out and "of bandwidth" in done.out


def test_against_onnx_runtime(effcc, digits):
    found = effcc("bench", digits, "--rounds", 2, "--against", "onnxruntime", "--json").json
    assert set(found["milliseconds"]) == {"effcc", "onnxruntime"}


def test_against_several(effcc, digits):
    pytest.importorskip("openvino")
    found = effcc("bench", digits, "--rounds", 2, "--against", "onnxruntime,openvino", "--json").json
    assert set(found["milliseconds"]) == {"effcc", "onnxruntime", "openvino"}


def test_an_artifact_against_onnx_runtime(effcc, digits, tmp_path):
    out = tmp_path / "d.effcc"
    assert effcc("compile", digits, "-o", out).status == 0
    shown = effcc("bench", out, "--source", digits, "--rounds", 2, "--against", "onnxruntime").out
    assert "of the time of onnxruntime" in shown


def test_wrong_options(effcc, net):
    assert "onnxruntime" in effcc("bench", net, "--against", "nothing").refused()
    assert ".onnx" in effcc("bench", net, "--against", "onnxruntime").refused()


def test_against_torch(effcc, tmp_path):
    """An artifact beside the module that it was compiled from."""
    torch = pytest.importorskip("torch")
    import effcc as library

    module = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.GELU()).eval()
    exported = torch.export.export(module, (torch.ones(2, 8),))
    torch.export.save(exported, tmp_path / "m.pt2")
    library.compile(exported).save(tmp_path / "m.effcc")
    options = ("--source", tmp_path / "m.pt2", "--rounds", 2, "--against", "torch", "--json")
    found = effcc("bench", tmp_path / "m.effcc", *options).json
    assert set(found["milliseconds"]) == {"effcc", "torch"}


def test_an_engine_that_fails_is_named(effcc, tmp_path):
    broken = tmp_path / "b.onnx"
    broken.write_bytes(b"no model")
    library = pytest.importorskip("effcc")
    from effcc.ir import Builder, Tensor, f32

    b = Builder("neg")
    library.compile(b.graph(b.neg(b.input("x", Tensor(f32, (3,)))))).save(tmp_path / "n.effcc")
    said = effcc("bench", tmp_path / "n.effcc", "--source", broken, "--rounds", 1, "--against", "onnxruntime").refused()
    assert "onnxruntime fails" in said
