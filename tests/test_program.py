import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import effcc
from effcc.errors import EffccError
from effcc.ir import Builder, Symbol, Tensor, f32

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def program():
    b = Builder("affine")
    x, y = b.input("x", Tensor(f32, (Symbol("N", 1, 64), 16))), b.input("y", Tensor(f32, (16,)))
    w = b.const(np.arange(256, dtype="f4").reshape(16, 16) / 100)
    return effcc.compile(b.graph(b.add(b.matmul(x, w), y)))


X, Y = np.ones((3, 16), "f4"), np.arange(16, dtype="f4")


@pytest.fixture(scope="module")
def saved(program, tmp_path_factory):
    path = tmp_path_factory.mktemp("saved") / "affine.effcc"
    program.save(path)
    return path


def test_a_loaded_program_is_the_saved_one(program, saved):
    loaded = effcc.load(saved)
    assert np.array_equal(loaded(X, Y)[0], program(X, Y)[0])
    assert np.array_equal(loaded({"y": Y, "x": X})[0], program(X, Y)[0])
    assert loaded.input_names == ("x", "y") and loaded.output_names == program.output_names
    assert str(loaded.graph) == str(program.graph)
    assert len(loaded.launches) == len(program.launches)
    timeless = [line for line in program.report().splitlines() if " ms" not in line and " s)" not in line]
    assert all(line in loaded.report() for line in timeless)


def test_threads_of_a_loaded_program(program, saved):
    for threads in (1, 2):
        assert np.array_equal(effcc.load(saved, threads=threads)(X, Y)[0], program(X, Y)[0])


def test_torch_in_torch_out(saved):
    import torch

    (out,) = effcc.load(saved)(torch.from_numpy(X), torch.from_numpy(Y))
    assert isinstance(out, torch.Tensor)


def test_the_weights_of_its_graph_are_not_there(saved):
    from effcc.interp import run

    with pytest.raises(EffccError, match="does not hold the weights"):
        run(effcc.load(saved).graph, X, Y)
    with pytest.raises(EffccError, match="saved already"):
        effcc.load(saved).save(saved)


def test_saving_twice_gives_equal_files(program, saved, tmp_path):
    program.save(tmp_path / "again.effcc")
    assert (tmp_path / "again.effcc").read_bytes() == saved.read_bytes()


def test_a_malformed_report_is_refused(saved, tmp_path):
    from effcc import artifact
    from effcc.machine import host

    read = artifact.read(saved)
    for report in (b"", b"[]", b"{}", b"\xff"):
        path = tmp_path / "bad.effcc"
        blobs = {**read.blobs, "report.json": report}
        artifact.write(path, backend="cpu", machine=host(), program=read.program, blobs=blobs, constants=read.constants)
        with pytest.raises(EffccError, match="malformed"):
            effcc.load(path)


def test_an_unknown_backend_is_refused(saved, tmp_path):
    from effcc import artifact
    from effcc.machine import host

    path = tmp_path / "other.effcc"
    artifact.write(path, backend="abacus", machine=host(), program={}, blobs={})
    with pytest.raises(EffccError, match="abacus"):
        effcc.load(path)


def test_loading_imports_neither_compiler_nor_torch(saved):
    code = """
import json, sys
import numpy as np, effcc
effcc.load(sys.argv[1])(np.ones((3, 16), "f4"), np.ones(16, "f4"))
print(json.dumps(sorted(n.partition(".")[0] for n in sys.modules)))
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(saved)], capture_output=True, text=True, cwd=ROOT, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert not set(json.loads(done.stdout)) & {"torch", "tvm", "onnx", "triton", "networkx", "lark", "typer", "rich"}
