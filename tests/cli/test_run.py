import os
import shutil

import numpy as np
import pytest


@pytest.fixture
def x(tmp_path):
    x = np.linspace(-1, 1, 8, dtype="f4").reshape(2, 4)
    np.savez(tmp_path / "in.npz", x=x)
    np.save(tmp_path / "x.npy", x)
    return x


def expected(x):
    w = np.array([[1, 2, 3], [4, 5, 6], [7, 8, 9], [1, 0, 1]], "f4")
    return np.tanh(x @ w + np.array([0.5, -0.5, 1], "f4"))


@pytest.mark.parametrize("given", ["in.npz", "x.npy", "x=x.npy", "x=in.npz"])
def test_inputs_from_files_outputs_to_a_file(effcc, artifact, tmp_path, monkeypatch, x, given):
    monkeypatch.chdir(tmp_path)
    done = effcc("run", artifact, "-i", given, "-o", "out.npz")
    assert done.status == 0
    saved = np.load("out.npz")
    assert saved.files == ["y"] and np.allclose(saved["y"], expected(x), atol=1e-5)


def test_a_model_is_compiled_first(effcc, net, tmp_path, x):
    assert effcc("run", net, "-i", tmp_path / "in.npz", "-o", tmp_path / "out.npz").status == 0
    assert np.allclose(np.load(tmp_path / "out.npz")["y"], expected(x), atol=1e-5)


def test_random_inputs_of_a_size(effcc, artifact):
    found = effcc("run", artifact, "--random", "--size", "B=5", "--json").json
    assert found["outputs"]["y"]["shape"] == [5, 3]
    again = effcc("run", artifact, "--random", "--size", "B=5", "--json").json
    other = effcc("run", artifact, "--random", "--size", "B=5", "--seed", 1, "--json").json
    assert again["outputs"] == found["outputs"] != other["outputs"]


def test_inputs_that_do_not_fit(effcc, artifact, tmp_path):
    def refused(**arrays):
        np.savez(tmp_path / "bad.npz", **arrays)
        return effcc("run", artifact, "-i", tmp_path / "bad.npz").refused()

    assert "'x'" in refused(x=np.zeros((2, 4)))  # f64
    assert "'x'" in refused(x=np.zeros(4, "f4"))  # rank
    assert "'x'" in refused(x=np.zeros((2, 5), "f4"))  # size
    assert "at most 8" in refused(x=np.zeros((9, 4), "f4"))  # range
    assert "missing x" in refused(z=np.zeros((2, 4), "f4"))
    assert "unknown z" in refused(x=np.zeros((2, 4), "f4"), z=np.zeros(1))


def test_files_that_hold_no_arrays(effcc, artifact, tmp_path):
    bad = tmp_path / "bad.npz"
    assert "No such file" in effcc("run", artifact, "-i", bad).refused()
    for content in (b"", b"PK\3\4nonsense", b"\x93NUMPY", os.urandom(100)):
        bad.write_bytes(content)
        assert "bad.npz" in effcc("run", artifact, "-i", bad).refused()
    np.save(tmp_path / "objects.npy", np.array([{}], object))
    assert "plain arrays" in effcc("run", artifact, "-i", tmp_path / "objects.npy").refused()


def test_neither_and_both_kinds_of_input(effcc, artifact, tmp_path, x):
    effcc("run", artifact).refused()
    effcc("run", artifact, "--random", "-i", tmp_path / "in.npz").refused()


def test_sizes_that_do_not_exist_or_make_no_sense(effcc, artifact):
    assert "it has B" in effcc("run", artifact, "--random", "--size", "N=3").refused()
    effcc("run", artifact, "--random", "--size", "B").refused()
    effcc("run", artifact, "--random", "--size", "B=99").refused()


def test_outputs_that_cannot_be_written(effcc, artifact, tmp_path):
    assert ".npz" in effcc("run", artifact, "--random", "-o", tmp_path / "y.txt").refused()
    assert "cannot write" in effcc("run", artifact, "--random", "-o", tmp_path / "no" / "y.npz").refused()
    assert os.listdir(tmp_path) == []


def test_an_artifact_cannot_be_changed_by_options(effcc, artifact):
    assert "passes" in effcc("run", artifact, "--random", "--passes", "dce").refused()
    assert "shapes" in effcc("run", artifact, "--random", "--shape", "x=2x4").refused()


def test_damaged_artifacts(effcc, artifact, tmp_path):
    """Cut anywhere, or with any byte of code or text changed, it is refused; nothing crashes."""
    whole, bad = artifact.read_bytes(), tmp_path / "bad.effcc"
    for end in (0, 1, 100, len(whole) // 2, len(whole) - 1):
        bad.write_bytes(whole[:end])
        effcc("run", bad, "--random").refused()
    rng = np.random.default_rng(0)
    refused = 0
    for at in rng.integers(0, len(whole), 60):
        bad.write_bytes(whole[:at] + bytes([whole[at] ^ 0x55]) + whole[at + 1 :])
        done = effcc("run", bad, "--random")
        assert done.status in (0, 2), (at, done)  # a changed weight or padding byte still runs; verify sees the weight
        if done.status == 2:
            done.refused()
            refused += 1
    assert refused > 30
    bad.write_bytes(b"hello")
    assert "not an artifact" in effcc("run", bad, "--random").refused()


def test_a_lesser_cpu_is_named(effcc, artifact, monkeypatch):
    from dataclasses import replace

    from effcc import machine

    lesser = replace(machine.host(), features=machine.host().features - {"sse2", "avx2", "neon"})
    monkeypatch.setattr("effcc.artifact.host", lambda: lesser)
    refused = effcc("run", artifact, "--random").refused()
    assert "lacks" in refused and ("sse2" in refused or "neon" in refused)


def test_the_artifact_can_be_moved(effcc, artifact, tmp_path):
    shutil.copy(artifact, tmp_path / "elsewhere.effcc")
    assert effcc("run", tmp_path / "elsewhere.effcc", "--random").status == 0


def test_a_trace_is_a_timeline_of_the_runs_tiles(effcc, tmp_path):
    import json

    model = tmp_path / "fixed.effir"
    model.write_text("graph @g(%x: f32[64,64]) -> f32[64,64] {\n  %0: f32[64,64] = matmul(%x, %x)\n"
                     "  %y: f32[64,64] = tanh(%0)\n  return %y\n}\n")  # fmt: skip
    done = effcc("run", model, "--random", "--trace", tmp_path / "t.json")
    assert done.status == 0, done.err
    events = json.loads((tmp_path / "t.json").read_text())["traceEvents"]
    assert {e["name"] for e in events if e["ph"] == "X"} == {"matmul+tanh"}
    assert effcc("run", model, "--random", "--schedule", "tiles").status == 0
    done = effcc("run", model, "--random", "--schedule", "barriers", "--trace", tmp_path / "u.json")
    assert done.status == 2 and "runs under barriers" in done.err and not (tmp_path / "u.json").exists()
    done = effcc("run", model, "--random", "--schedule", "fences")
    assert done.status == 2 and "one of 'auto', 'barriers', 'tiles'" in done.err


def test_a_schedule_without_barriers_needs_fixed_sizes(effcc, net, tmp_path):
    done = effcc("run", net, "--random", "--trace", tmp_path / "t.json")
    assert done.status == 2 and "its sizes vary" in done.err and "auto" in done.err
