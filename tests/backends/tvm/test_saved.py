import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from effcc import artifact
from effcc.backends.tvm import memory
from effcc.backends.tvm.entry import (
    Constant,
    Copy,
    If,
    Input,
    Launch,
    LoadSize,
    Output,
    Program,
    Rebind,
    SetSize,
    Size,
    StoreSize,
    Temporary,
    While,
    ceildiv,
)
from effcc.backends.tvm.saved import from_json, load, parts, to_json
from effcc.errors import EffccError
from effcc.machine import host

EVERYTHING = Program(
    sizes=(Size("N", 1, 9), "M"),
    inputs=(Input("x", "f32", ("N", ("add", "M", 1)), 4, True),),
    outputs=(Output("y", "f32", ("K",), bound=("N",)), Output("x2", "f32", ("N",), alias="x")),
    constants=(Constant("c", "weights"),),
    temporaries=(Temporary("t", 64), Temporary("u", ("mul", "N", 4), ("t",))),
    scratch=(1024, "N"),
    steps=(
        Launch("k", ("x", "t", "&K"), ("N", ("mod", "N", 2)), ceildiv("N", 4), 100, "/conv", ("t",)),
        If("K", (Copy("a", "b", 4),), (StoreSize("t", 3),)),
        While(("less", "i", 3), (SetSize("i", ("add", "i", 1)), LoadSize("g", "t", "bool"), Rebind(("a",), ("b",)))),
    ),
)


def test_json_and_back():
    assert from_json(json.loads(json.dumps(to_json(EVERYTHING)))) == EVERYTHING


@pytest.fixture
def saved(toys, tmp_path):
    objects = pytest.importorskip("effcc.backends.tvm.objects")
    (kernel,) = objects.compile_kernels([toys.add("one")], host())
    program = Program(
        sizes=("N",),
        inputs=(Input("x", "f32", ("N",)),),
        outputs=(Output("y", "f32", ("N",)), Output("z", "f32", (48,))),
        constants=(Constant("c", "w"),),
        temporaries=(Temporary("t", ("mul", "N", 4)),),
        steps=(
            Launch(kernel.symbol, ("x", "t"), ("N",), tiles=ceildiv("N", 16)),
            Launch(kernel.symbol, ("t", "y"), ("N",), tiles=ceildiv("N", 16)),
            Launch(kernel.symbol, ("c", "z"), (48,), tiles=3),
        ),
    )
    path = tmp_path / "add.effcc"
    made = parts(
        memory.plan(program),
        {kernel.symbol: kernel.object},
        objects.compile_driver(host().architecture),
        {"w": np.arange(48, dtype="f4")},
    )
    artifact.write(path, backend="cpu", machine=host(), **made)
    return path


def test_a_loaded_program_runs_without_the_compiler_and_torch(saved):
    program = """
import sys
import numpy as np
from effcc.artifact import read
from effcc.backends.tvm.saved import load
x = np.arange(1000, dtype="f4")
y, z = load(read(sys.argv[1]))(x)
assert (y == x + 2).all() and (z == np.arange(48) + 1).all()
assert not {"torch", "tvm", "onnx"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", program, str(saved)], check=True)


@pytest.mark.parametrize(
    "program",
    [
        None,
        [],
        ["Launch", "k"],
        ["Program", [], [], [], [], [], [], [["Launch", "k", ["nowhere"], [], 1, 1, "", []]]],
        ["Program", [], 3],
        ["Program", [], [], [], [], [], [], [["Copy", 1, 2, ["what", 1]]]],
        ["Program", [], [], [], [], [], [], [["SetSize", "a", "b"]]],
        ["Program", [], [], [["Output", "y", "f99", []]], [], [], [], []],
    ],
)
def test_a_malformed_program_is_one_line(saved, program):
    read = artifact.read(saved)
    made = replace(read, manifest={**read.manifest, "program": program})
    with pytest.raises(EffccError) as error:
        load(made)(np.zeros(4, "f4"))
    assert "\n" not in str(error.value)


def test_an_object_file_that_is_none(saved):
    read = artifact.read(saved)
    made = replace(read, blobs=dict.fromkeys(read.blobs, b"nonsense"))
    with pytest.raises(EffccError, match="cannot be loaded") as error:
        load(made)
    assert "\n" not in str(error.value)
