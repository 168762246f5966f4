from effcc.machine import host


def test_what_the_machine_offers(effcc):
    found = effcc("doctor", "--json").json
    assert found["machine"]["features"] == sorted(host().features) and found["machine"]["cores"] == host().cores
    assert "cpu" in found["targets"] and found["packages"]["numpy"] and found["problems"] == []
    shown = effcc("doctor").out
    assert found["cache"]["folder"] in shown and found["packages"]["torch"] in shown


def test_missing_extras_are_named(effcc, monkeypatch):
    import importlib.metadata as metadata

    real = metadata.version

    def version(name):
        if name in ("onnx", "numpy"):
            raise metadata.PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr(metadata, "version", version)
    shown = effcc("doctor").out
    assert "pip install 'effcc[onnx]'" in shown and "problem: numpy is not installed" in shown
