"""The wheel and the sdist: real files, one top level, everything a user needs and nothing else; pins that fit."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import tomllib
import venv
import zipfile
from importlib import metadata
from pathlib import Path

import pytest

import effcc

ROOT = Path(__file__).parents[1]
ROOMS = ("passes", "backends", "frontends", "fuzz")
DATA = (".lark", ".ll", ".html", ".css", ".js", ".json")  # what a package may carry besides Python
NOT_SHIPPED = shutil.ignore_patterns(".*", "__pycache__", "build", "dist", "*.egg-info", "tests", "benchmarks", "docs")


def expected_files() -> set[str]:
    """What the package must hold, read from the checkout: through the links, every .py and every data file."""
    found = set()
    for directory, folders, files in os.walk(ROOT / "effcc", followlinks=True):
        folders[:] = [name for name in folders if name != "__pycache__"]
        for name in files:
            if name.endswith((".py", *DATA)) or name == "py.typed":
                found.add(Path(directory, name).relative_to(ROOT).as_posix())
    return found


def build(kind: str, source: Path, out: Path) -> Path:
    """Build a 'wheel' or an 'sdist' of the tree `source` into `out` with the backend that pip would use."""
    code = f"import sys; from setuptools import build_meta; print(build_meta.build_{kind}(sys.argv[1]))"
    out.mkdir(exist_ok=True)
    run = subprocess.run([sys.executable, "-c", code, out], cwd=source, capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
    return out / run.stdout.splitlines()[-1]


@pytest.fixture(scope="module")
def sdist(tmp_path_factory) -> Path:
    # A copy, because setuptools leaves build/ and egg-info behind, and stale files there would end up in later wheels.
    base = tmp_path_factory.mktemp("package")
    shutil.copytree(ROOT, base / "tree", symlinks=True, ignore=NOT_SHIPPED)
    return build("sdist", base / "tree", base / "sdist")


@pytest.fixture(scope="module")
def wheel(sdist, tmp_path_factory) -> Path:
    """Built from the unpacked sdist, as pip does when there is no wheel: so the sdist is proved complete too."""
    base = tmp_path_factory.mktemp("wheel")
    with tarfile.open(sdist) as archive:
        archive.extractall(base, filter="data")
    return build("wheel", next(base.iterdir()), base / "wheel")


def test_wheel_holds_exactly_the_package(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if not name.endswith("/")}
        links = [info.filename for info in archive.infolist() if info.external_attr >> 28 == 0xA]
    information = f"effcc-{effcc.__version__}.dist-info/"
    assert {name for name in names if not name.startswith(information)} == expected_files()
    assert "effcc/py.typed" in names and f"{information}licenses/LICENSE" in names
    assert not links


def test_every_folder_with_python_is_a_package():
    """A folder without __init__.py would be left out of the wheel silently."""
    files = {Path(name) for name in expected_files()}
    assert {f.parent for f in files if f.suffix == ".py"} == {f.parent for f in files if f.name == "__init__.py"}


def test_wheel_is_the_same_from_a_checkout(wheel, tmp_path):
    shutil.copytree(ROOT, tmp_path / "tree", symlinks=True, ignore=NOT_SHIPPED)
    direct = build("wheel", tmp_path / "tree", tmp_path / "out")
    with zipfile.ZipFile(wheel) as a, zipfile.ZipFile(direct) as b:
        assert {i.filename: i.CRC for i in a.infolist() if i.filename.startswith("effcc/")} == {
            i.filename: i.CRC for i in b.infolist() if i.filename.startswith("effcc/")
        }


def test_sdist_carries_real_files(sdist):
    with tarfile.open(sdist) as archive:
        members = archive.getmembers()
    prefix = f"effcc-{effcc.__version__}/"
    assert not [m.name for m in members if m.issym() or m.islnk()]
    names = {m.name.removeprefix(prefix) for m in members}
    assert {f"{room}/__init__.py" for room in ROOMS} | {"effcc/py.typed", "LICENSE", "pyproject.toml"} <= names


def test_installed_wheel_runs_away_from_the_checkout(wheel, tmp_path):
    venv.create(tmp_path / "venv", with_pip=False, symlinks=True)
    python = tmp_path / "venv" / "bin" / "python"
    install = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*install, str(wheel)], check=True, timeout=120)
    # Dependencies come from this environment, whose own effcc (perhaps the checkout) must not be the one that runs.
    site = next((tmp_path / "venv" / "lib").glob("python3*/site-packages"))
    (site / "dependencies.pth").write_text("\n".join(p for p in sys.path if p.endswith("site-packages")))

    def run(*command: object) -> str:
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    assert run(tmp_path / "venv" / "bin" / "effcc", "--version") == f"effcc {effcc.__version__}"
    rooms = ", ".join(f"effcc.{room}" for room in ROOMS)
    origins = run(python, "-c", f"import effcc, {rooms}\nfor m in ({rooms}): print(m.__file__)").splitlines()
    assert [Path(o).relative_to(site) for o in origins] == [Path("effcc", room, "__init__.py") for room in ROOMS]
    # Each entry point names something that is there. The one for torch.compile must not cost an import of torch.
    code = "import importlib.metadata as m, sys; points = m.distribution('effcc').entry_points\n"
    code += "assert all(callable(p.load()) for p in points); print(*(p.group for p in points), 'torch' in sys.modules)"
    assert run(python, "-c", code) == "console_scripts torch_dynamo_backends False"


def test_constraints_pin_what_the_project_asks_for():
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = dict(line.split("==") for line in lines if line and not line.startswith("#"))
    assert all(name == canonicalize_name(name) for name in pins)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = [*project["dependencies"], *(r for extra in project["optional-dependencies"].values() for r in extra)]
    for requirement in map(Requirement, asked):
        if requirement.name != "effcc":
            assert pins[canonicalize_name(requirement.name)] in requirement.specifier, requirement


def dependencies() -> set[str]:
    """The distributions that `pip install effcc` installs beside it: its requirements, and theirs."""
    from packaging.requirements import Requirement

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    found: set[str] = set()
    todo = list(project["dependencies"])
    while todo:
        requirement = Requirement(todo.pop())
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            if requirement.name not in found:
                found.add(requirement.name)
                todo += metadata.distribution(requirement.name).requires or []
    return found


def test_an_artifact_runs_with_the_dependencies_alone(tmp_path):
    """In an environment that holds nothing but them: neither TVM's compiler, nor torch, nor onnx."""
    import numpy as np

    assert dependencies().isdisjoint({"apache-tvm", "torch", "onnx", "triton", "networkx", "onnxruntime"})
    images = np.load(ROOT / "examples/digits/digits_test.npz")["images"]
    program = effcc.compile(ROOT / "examples/digits/digits_vit.onnx")
    program.save(tmp_path / "digits.effcc")
    np.savez(tmp_path / "digits.npz", images=images[:8], logits=program(images[:8])[0])

    site = tmp_path / "site"
    site.mkdir()
    (site / "effcc").symlink_to(ROOT / "effcc")
    for name in dependencies():
        for file in metadata.distribution(name).files or ():
            top = file.parts[0]
            if top not in ("..", "__pycache__") and not (site / top).exists():
                (site / top).symlink_to(Path(str(file.locate())).parents[len(file.parts) - 1] / top)
    code = f"""if True:
        import sys
        sys.path[:] = [p for p in sys.path if "site-packages" not in p] + [{str(site)!r}]
        import effcc, numpy as np
        given = np.load("digits.npz")
        program = effcc.load("digits.effcc")
        assert np.array_equal(program(given["images"])[0], given["logits"])
        assert len(program.graph.nodes) > 10 and "kernel" in program.report()
        print(*(name for name in ("tvm", "torch", "onnx") if name in sys.modules))
        try:
            import tvm
        except ModuleNotFoundError as error:
            print(error)
    """
    run = subprocess.run([sys.executable, "-I", "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert (run.returncode, run.stdout.strip()) == (0, "No module named 'tvm'"), run.stderr
