"""The house has one direction: ops -> ir; passes, frontends, backends -> effcc; and importing it costs little."""

from __future__ import annotations

import ast
import functools
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ("passes", "backends", "frontends", "fuzz")
# What `import effcc` and `effcc --help` must not pull in: seconds of start-up, or packages that a user may not have.
COMPILERS = {"torch", "tvm", "onnx", "triton", "networkx"}
HEAVY = COMPILERS | {"numpy", "lark", "typer", "rich", "tvm_ffi"}


def sources(folder: str) -> list[Path]:
    """The Python files under a top folder. Links are not followed, so effcc/ does not contain the other rooms."""
    walk = os.walk(ROOT / folder, followlinks=False)
    return sorted(Path(directory, name) for directory, _, files in walk for name in files if name.endswith(".py"))


@functools.cache
def imported(path: Path) -> list[tuple[str, int]]:
    """Each absolute module name that a file imports anywhere, also inside functions, with its line.

    `from effcc import passes` counts as effcc.passes; relative imports are resolved against the file's place.
    """
    package = path.relative_to(ROOT).with_suffix("").parts[:-1]
    if package and package[0] in ROOMS:
        package = ("effcc", *package)
    found: list[tuple[str, int]] = []
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.Import):
            found += [(alias.name, node.lineno) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            anchor = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join((*anchor, *([node.module] if node.module else [])))
            found += [(module, node.lineno), *((f"{module}.{alias.name}", node.lineno) for alias in node.names)]
    return found


def offences(folder: str, *forbidden: str) -> list[str]:
    return [
        f"{path.relative_to(ROOT)}:{line}: imports {name}"
        for path in sources(folder)
        for name, line in imported(path)
        if any(name == prefix or name.startswith(f"{prefix}.") for prefix in forbidden)
    ]


def test_the_import_reader_sees_every_form(tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    path = tmp_path / "effcc" / "ir" / "probe.py"
    path.parent.mkdir(parents=True)
    path.write_text("import effcc.a\nfrom effcc import b\ndef f():\n  from ..ops import c\n  from . import d\n")
    names = {name for name, _ in imported(path)}
    assert names >= {"effcc.a", "effcc.b", "effcc.ops", "effcc.ops.c", "effcc.ir.d"}
    assert offences("effcc/ir", "effcc.ops")[0] == "effcc/ir/probe.py:4: imports effcc.ops"


@pytest.mark.parametrize("room", ROOMS)
def test_rooms_are_real_folders_and_effcc_links_to_them(room):
    assert (ROOT / room).is_dir() and not (ROOT / room).is_symlink()
    link = ROOT / "effcc" / room
    assert link.is_symlink() and str(link.readlink()) == f"../{room}"


def strangers(*friends: str) -> list[str]:
    """The modules of effcc/ besides `friends`."""
    names = {path.stem for path in (ROOT / "effcc").iterdir() if not path.stem.startswith("_")}
    return [f"effcc.{name}" for name in sorted(names - set(friends))]


def test_ir_stands_alone():
    assert not offences("effcc/ir", *strangers("ir", "errors", "text"))  # text: what a graph's str() shows


def test_ops_know_only_the_ir():
    assert not offences("effcc/ops", *strangers("ir", "ops", "errors", "interp"))  # interp: what a nested graph means


def test_effcc_never_names_a_pass_a_frontend_or_a_backend():
    assert not offences("effcc", *(f"effcc.{room}" for room in ROOMS))


@pytest.mark.parametrize("room, strangers", [
    ("passes", ("backends", "frontends", "fuzz")),
    ("backends", ("frontends", "fuzz")),
    ("frontends", ("backends", "fuzz")),
])  # fmt: skip
def test_rooms_do_not_reach_into_each_other(room, strangers):
    assert not offences(room, *(f"effcc.{stranger}" for stranger in strangers))


@pytest.mark.parametrize("folder", ["effcc", *ROOMS, "tests", "examples", "benchmarks"])
def test_nobody_imports_a_room_by_its_bare_name(folder):
    assert not offences(folder, *ROOMS)


def modules_after(code: str) -> set[str]:
    """The top-level modules that a fresh interpreter holds after running `code` in the checkout."""
    script = f"{code}\nimport sys, json; print(json.dumps(sorted({{n.partition('.')[0] for n in sys.modules}})))"
    run = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert run.returncode == 0, run.stderr
    return set(json.loads(run.stdout.splitlines()[-1]))


def test_import_is_light():
    assert not modules_after("import effcc") & HEAVY


def test_help_starts_without_a_compiler():
    code = "import sys; sys.argv = ['effcc', '--help']\nfrom effcc.cli import main\n"
    code += "try: main()\nexcept SystemExit: pass"
    assert not modules_after(code) & COMPILERS


def test_every_public_name_resolves():
    import effcc

    for name in effcc.__all__:
        assert getattr(effcc, name) is not None
    with pytest.raises(AttributeError, match="offers EffccError"):
        _ = effcc.nonsense
