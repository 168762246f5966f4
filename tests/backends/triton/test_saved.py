"""Programs for GPUs in artifacts: cubins, sources and launch plan, there and back."""

from __future__ import annotations

import json
import zipfile

import numpy as np
import pytest
import torch

import effcc
from effcc.artifact import read
from effcc.backends.triton.executable import Executable
from effcc.backends.triton.kernel import KernelSource
from effcc.backends.triton.launcher import Interpreted
from effcc.backends.triton.saved import load
from effcc.errors import EffccError, ParseError
from effcc.ir import Blob, Builder, Symbol, Tensor, f32
from effcc.machine import Machine

pytest.importorskip("triton")


@pytest.fixture(scope="module")
def graph():
    b = Builder("g")
    w = np.random.default_rng(0).standard_normal((8, 16)).astype(np.float32)
    x = b.input("x", Tensor(f32, (Symbol("N", 1, 64), 8)))
    return b.graph(b.gelu(b.matmul(x, b.const(Blob(w)))))


@pytest.fixture(scope="module")
def path(graph, tmp_path_factory):
    made = tmp_path_factory.mktemp("saved") / "g.effcc"
    effcc.compile(graph, target="cuda{arch=sm_80+sm_90}", precision="fp16").save(made)
    return made


def test_what_is_in_the_file(path):
    artifact = read(path)
    for name in artifact.program["kernels"]:
        assert {f"code/sm_80/{name}.cubin", f"code/sm_90/{name}.cubin", f"source/{name}.py"} <= set(artifact.blobs)
        assert artifact.blobs[f"source/{name}.py"].startswith(b"import triton")
    assert artifact.manifest["target"] == "cuda{arch=sm_80+sm_90}" and artifact.manifest["architecture"] == "any"
    assert artifact.backend == "cuda"


def test_the_plan_comes_back(path, graph):
    """What was saved, run through the interpreter, gives what the compiled program gives."""
    artifact = read(path)
    code = load(artifact)
    sources = {
        name: KernelSource(name, artifact.blobs[f"source/{name}.py"].decode(), {}, facts["warps"], 1)
        for name, facts in code.manifest.items()
    }
    executable = Executable(code.program, code.constants, Interpreted(sources))
    executable.types = {name: facts["signature"] for name, facts in code.manifest.items()}
    x = torch.randn(5, 8)
    again = effcc.compile(graph, target="cuda{run=interpreter}", precision="fp16")
    assert torch.equal(executable(x)[0], again(x)[0])


def test_a_loaded_program_tells_its_resources_and_needs_a_gpu(path, monkeypatch):
    monkeypatch.setattr("effcc.backends.triton.backend.missing_device", lambda: "torch finds no CUDA device")
    program = effcc.load(path)
    assert all(set(k["on"]) == {"sm_80", "sm_90"} for k in program.launches)
    assert all(k["on"]["sm_90"]["registers"] > 0 for k in program.launches)
    assert "use tensor cores" in program.report()
    with pytest.raises(EffccError, match="there is none here"):
        program(np.zeros((1, 8), np.float32))


def test_a_damaged_plan_is_refused(path, tmp_path):
    artifact = read(path)
    for change in ({"launches": ["Nothing"]}, {"kernels": {}}, {"launches": 3}):
        broken = type(artifact)(path, {**artifact.manifest, "program": {**artifact.program, **change}}, artifact.blobs,
                                artifact.constants)
        with pytest.raises(ParseError, match="launch program is malformed"):
            load(broken)


def test_equal_compiles_give_equal_files(path, graph, tmp_path):
    again = tmp_path / "again.effcc"
    effcc.compile(graph, target="cuda{arch=sm_80+sm_90}", precision="fp16").save(again)
    with zipfile.ZipFile(path) as a, zipfile.ZipFile(again) as b:
        assert a.namelist() == b.namelist()
        assert json.loads(a.read("manifest.json"))["program"] == json.loads(b.read("manifest.json"))["program"]


def test_interpreted_programs_have_nothing_to_save(graph, tmp_path):
    program = effcc.compile(graph, target="cuda{run=interpreter}")
    with pytest.raises(EffccError, match="has no code to save"):
        program.save(tmp_path / "g.effcc")
    assert not list(tmp_path.iterdir())


def test_it_loads_beside_any_cpu(path):
    assert read(path, Machine(architecture="riscv64")).backend == "cuda"
