from effcc.cli.bench import turns


def test_times(effcc, artifact):
    found = effcc("bench", artifact, "--rounds", 3, "--threads", 1, "--kernels", "--json").json
    times = found["milliseconds"]["effcc"]
    assert 0 < times["least"] <= times["median"] and found["rounds"] == 3
    assert [launch["label"] for launch in found["launches"]] and all(x["milliseconds"] >= 0 for x in found["launches"])


def test_tables(effcc, net):
    done = effcc("bench", net, "--rounds", 2, "--kernels")
    assert done.status == 0 and "median" in done.out and "matmul" in done.out


def test_against_onnx_runtime(effcc, digits):
    found = effcc("bench", digits, "--rounds", 2, "--against", "onnxruntime", "--json").json
    assert set(found["milliseconds"]) == {"effcc", "onnxruntime"}


def test_an_artifact_against_onnx_runtime(effcc, digits, tmp_path):
    out = tmp_path / "d.effcc"
    assert effcc("compile", digits, "-o", out).status == 0
    shown = effcc("bench", out, "--source", digits, "--rounds", 2, "--against", "onnxruntime").out
    assert "of the time of onnxruntime" in shown


def test_wrong_options(effcc, net):
    assert "onnxruntime" in effcc("bench", net, "--against", "nothing").refused()
    assert ".onnx" in effcc("bench", net, "--against", "onnxruntime").refused()


def test_engines_take_turns():
    called = []
    times = turns([lambda: called.append("a"), lambda: called.append("b")], 2, warmup=1)
    assert "".join(called) == "ab" + "aabb" * 2 and [len(t) for t in times] == [2, 2]
