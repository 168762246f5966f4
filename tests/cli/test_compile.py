import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import effcc as package

ROOT = Path(__file__).parents[2]
DIGITS = ROOT / "examples" / "digits" / "digits_vit.onnx"


def test_compile_writes_an_artifact_that_answers_as_the_program(effcc, net, tmp_path):
    out = tmp_path / "net.effcc"
    done = effcc("compile", net, "-o", out)
    assert done.status == 0 and "passes" in done.out and str(out) in done.out
    x = np.linspace(-1, 1, 12, dtype="f4").reshape(3, 4)
    (compiled,), (loaded,) = package.compile(str(net))(x), package.load(out)(x)
    assert np.array_equal(compiled, loaded) and loaded.shape == (3, 3)


def test_the_artifact_lies_in_the_working_folder_by_default(effcc, net, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert effcc("compile", net).status == 0
    assert (tmp_path / "net.effcc").is_file()


def test_json(effcc, net, tmp_path):
    found = effcc("compile", net, "-o", tmp_path / "n.effcc", "--json").json
    assert found["inputs"] == [{"name": "x", "type": "f32[B,4]"}] and found["ops"]["before"] == 5
    assert found["artifact"]["bytes"] == (tmp_path / "n.effcc").stat().st_size
    assert found["memory"]["peak"] >= found["memory"]["lower_bound"]


def test_passes_and_check(effcc, net, tmp_path):
    done = effcc("compile", net, "-o", tmp_path / "n.effcc", "--passes", "simplify,dce,fuse", "--check", "--json")
    assert [p["pass"] for p in done.json["passes"]] == ["simplify", "dce", "fuse"]


def test_equal_compilations_give_equal_files(effcc, net, tmp_path):
    for name in ("a", "b"):
        assert effcc("compile", net, "-o", tmp_path / f"{name}.effcc").status == 0
    assert (tmp_path / "a.effcc").read_bytes() == (tmp_path / "b.effcc").read_bytes()


def test_a_loaded_program_needs_neither_compiler_nor_torch(artifact):
    code = """
import sys, numpy as np, effcc
(y,) = effcc.load(sys.argv[1])(np.ones((2, 4), "f4"))
assert y.shape == (2, 3) and np.allclose(y, 1)
heavy = {"torch", "tvm", "onnx", "lark", "networkx", "typer", "rich"}
print(sorted({n.partition(".")[0] for n in sys.modules} & heavy))
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(artifact)], capture_output=True, text=True, cwd=ROOT, timeout=60
    )
    assert done.stdout == "[]\n", done.stderr


# -- what is refused, in one line ------------------------------------------------------------------------------------
def test_no_such_file(effcc, tmp_path):
    assert "there is no such file" in effcc("compile", tmp_path / "nope.onnx").refused()
    assert "is a folder" in effcc("compile", tmp_path).refused()


def test_a_name_that_says_nothing(effcc, tmp_path):
    path = tmp_path / "model.pt"
    path.write_bytes(b"x")
    assert ".onnx, .effir, .effcc" in effcc("compile", path).refused()


def test_truncated_and_random_models(effcc, tmp_path):
    whole = DIGITS.read_bytes()
    rng = np.random.default_rng(0)
    cut = {"cut": whole[: len(whole) // 2], "tiny": whole[:10]}
    for name, content in {"empty": b"", "random": rng.bytes(5000), "text": b"hello\n" * 99, **cut}.items():
        path = tmp_path / f"{name}.onnx"
        path.write_bytes(content)
        assert str(path.name) in effcc("compile", path, "-o", tmp_path / "out.effcc").refused()
        assert not (tmp_path / "out.effcc").exists()


def test_malformed_text(effcc, tmp_path):
    for k, text in enumerate(
        ["", "graph", "graph @f(%x: f32[2]) -> f32[2] { return %y }", "\x00\x01", "graph @f(%x: q7[2])"]
    ):
        path = tmp_path / f"{k}.effir"
        path.write_text(text)
        effcc("compile", path).refused()
    path.write_bytes(b"\xff\xfe\xff")
    effcc("compile", path).refused()


def test_an_unknown_op_is_named(effcc, tmp_path):
    path = tmp_path / "f.effir"
    path.write_text("graph @f(%x: f32[2]) -> f32[2] { %0: f32[2] = frobnicate(%x)  return %0 }")
    assert "frobnicate" in effcc("compile", path).refused()


def onnx_model(tmp_path, op="Relu", opset=18, domain="", **attributes):
    import onnx
    from onnx import TensorProto, helper

    info = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [2, 3]) for n in ("x", "y")]
    node = helper.make_node(op, ["x"], ["y"], name="the_node", domain=domain, **attributes)
    graph = helper.make_graph([node], "g", info[:1], info[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    path = tmp_path / "m.onnx"
    onnx.save(model, path)
    return path


def test_an_unknown_onnx_op_and_opset_are_named(effcc, tmp_path):
    assert "Frobnicate" in effcc("compile", onnx_model(tmp_path, "Frobnicate")).refused()
    assert "999" in effcc("compile", onnx_model(tmp_path, opset=999)).refused()


def test_a_shape_that_does_not_fit(effcc, tmp_path):
    path = onnx_model(tmp_path)
    effcc("compile", path, "--shape", "x=2x4").refused()
    effcc("compile", path, "--shape", "x=2x3x1").refused()
    assert "'z'" in effcc("compile", path, "--shape", "z=2x3").refused()


def external(tmp_path, location, size=24):
    from onnx import TensorProto, helper

    w = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[2, 3], data_location=TensorProto.EXTERNAL)
    for key, value in (("location", location), ("offset", "0"), ("length", str(size))):
        w.external_data.add(key=key, value=value)
    info = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [2, 3]) for n in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Add", ["x", "w"], ["y"])], "g", info[:1], info[1:], [w])
    path = tmp_path / "m.onnx"
    path.write_bytes(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)]).SerializeToString())
    return path


def test_external_data_that_is_missing_short_or_outside(effcc, tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "secret.bin").write_bytes(bytes(24))
    assert "w.bin" in effcc("compile", external(folder, "w.bin")).refused()
    (folder / "w.bin").write_bytes(bytes(10))
    assert "w.bin" in effcc("compile", external(folder, "w.bin")).refused()
    for outside in ("../secret.bin", str(tmp_path / "secret.bin")):
        assert "outside" in effcc("compile", external(folder, outside)).refused()
    (folder / "link.bin").symlink_to(tmp_path / "secret.bin")
    assert "outside" in effcc("compile", external(folder, "link.bin")).refused()
    (folder / "w.bin").write_bytes(bytes(24))
    assert effcc("compile", external(folder, "w.bin"), "-o", tmp_path / "m.effcc").status == 0


def test_wrong_options(effcc, net, tmp_path):
    assert "nope" in effcc("compile", net, "--target", "nope").refused()
    assert "pentium9" in effcc("compile", net, "--target", "cpu{mcpu=pentium9}").refused()
    assert "did you mean" in effcc("compile", net, "--passes", "simplfy").refused()
    assert "max-ops" in effcc("compile", net, "--passes", "fuse:max-opps=3").refused()
    effcc("compile", net, "--quantize", "fold").refused()
    assert ".effcc" in effcc("compile", net, "-o", tmp_path / "x.bin").refused()
    assert "no such folder" in effcc("compile", net, "-o", tmp_path / "a" / "x.effcc").refused()


@pytest.mark.parametrize("mcpu", ["neoverse-n1", "graniterapids"])
def test_code_for_another_machine_is_saved_and_not_run(effcc, net, tmp_path, mcpu):
    from effcc.machine import host, parse

    target, out = f"cpu{{mcpu={mcpu}}}", tmp_path / "x.effcc"
    wanted = parse(target)
    if wanted.architecture == host().architecture and not host().missing(wanted.features):
        pytest.skip("this machine is one of those")
    assert effcc("compile", net, "--target", target, "-o", out).status == 0
    assert "this machine" in effcc("run", net, "--random", "--target", target).refused()
    refused = effcc("run", out, "--random").refused()
    assert "aarch64" in refused if mcpu == "neoverse-n1" else "lacks" in refused


def test_a_lesser_target_runs_here(effcc, net):
    from effcc.machine import host

    least = "x86-64" if host().architecture == "x86_64" else "neoverse-n1"
    assert effcc("run", net, "--random", "--target", f"cpu{{mcpu={least}}}").status == 0


def test_a_compiled_model_is_not_compiled_again(effcc, artifact):
    assert "compiled already" in effcc("compile", artifact).refused()


def test_a_folder_that_is_not_writable(effcc, net, tmp_path):
    tmp_path.chmod(0o500)
    folder = Path("/proc") if os.geteuid() == 0 else tmp_path  # root may write anywhere else
    assert "cannot write the artifact" in effcc("compile", net, "-o", folder / "x.effcc").refused()


def test_a_full_disk_leaves_nothing_behind(net, tmp_path):
    out = tmp_path / "x.effcc"
    out.write_bytes(b"as it was")
    code = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "import effcc.files; real = effcc.files.beside\n"
        "def limited(*a):\n"
        "    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000)); return real(*a)\n"
        "import effcc.artifact; effcc.artifact.beside = limited\n"
        "from effcc.cli import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "compile", str(net), "-o", str(out)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=120,
    )
    assert done.returncode == 2 and done.stderr.startswith("error: ") and "File too large" in done.stderr, done.stderr
    assert os.listdir(tmp_path) == ["x.effcc"] and out.read_bytes() == b"as it was"


def test_a_process_ends_with_status_2_and_no_traceback(in_a_process, tmp_path):
    done = in_a_process("compile", tmp_path / "nope.onnx")
    assert "no such file" in done.refused() and done.out == ""


# -- models whose structure depends on contents ------------------------------------------------------------------------
@pytest.fixture
def reshaper(tmp_path):
    """reshape(x: f32[6], sizes: i64[2])"""
    import onnx
    from onnx import TensorProto, helper

    inputs = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, [6]),
        helper.make_tensor_value_info("sizes", TensorProto.INT64, [2]),
    ]
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["a", "b"])
    graph = helper.make_graph([helper.make_node("Reshape", ["x", "sizes"], ["y"])], "g", inputs, [output])
    path = tmp_path / "reshape.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)]), path)
    return path


def test_contents_to_compile_for(effcc, reshaper, tmp_path):
    assert "--value sizes=..." in effcc("compile", reshaper).refused()
    out = tmp_path / "r.effcc"
    assert effcc("compile", reshaper, "--value", "sizes=2,3", "-o", out).status == 0
    assert effcc("run", out, "--random", "--json").json["outputs"]["y"]["shape"] == [2, 3]
    assert effcc("verify", out, "--source", reshaper).status == 0
    x = np.zeros(6, "f4")
    assert package.load(out)(x, np.array([2, 3]))[0].shape == (2, 3)
    np.savez(tmp_path / "other.npz", x=x, sizes=np.array([3, 2]))
    assert "compiled for [2, 3]" in effcc("run", out, "-i", tmp_path / "other.npz").refused()


def test_wrong_contents(effcc, reshaper, net):
    effcc("compile", reshaper, "--value", "sizes=4,4").refused()
    assert "'nope'" in effcc("compile", reshaper, "--value", "nope=4,4").refused()
    assert "NAME=16000" in effcc("compile", reshaper, "--value", "sizes=two").refused()
    effcc("compile", net, "--value", "x=1").refused()


def test_an_asked_pass_that_changed_nothing_is_told(effcc, net, tmp_path):
    out = effcc("compile", net, "--reduce-tokens", "tome:r=2", "-o", tmp_path / "net.effcc").out
    assert "tome changed nothing: no attention sublayer found" in out
