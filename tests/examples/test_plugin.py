"""The example plug-in, installed as a user would: found by entry point, run by name, its options read from text."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    base = tmp_path_factory.mktemp("plugin")
    shutil.copytree(ROOT / "examples" / "plugin", base / "source")  # setuptools writes into the source folder
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--no-build-isolation"]
    subprocess.run([*pip, "--target", base / "site", base / "source"], check=True, timeout=120)
    return base / "site"


def run(site: Path, code: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(site), str(ROOT)])
    environment = os.environ | {"PYTHONPATH": path}
    command = [sys.executable, "-c", code]
    return subprocess.run(command, env=environment, cwd=site, capture_output=True, text=True, timeout=120)


PROGRAM = """
from effcc.pipeline import PassManager, Verify, parse_pipeline
from effcc.text import parse
graph = parse('''
graph @g<N in 1..64>(%x: f32[N,4]) -> (f32[N,4], f32[N,4]) {{
  %0: f32[N,4] = neg(%x)
  %1: f32[N,4] = abs(%0)
  %2: f32[N,4] = relu(%1)
  %3: f32[N,4] = cos(%0)
  return %2, %3
}}
''')
after = PassManager([Verify()]).run(graph, parse_pipeline({pipeline!r}))
print(*(node.op.name for node in after.nodes))
"""


@pytest.mark.parametrize("pipeline, expected", [
    ("drop-signs", "abs cos neg"),
    ("drop-signs:cosine=true,dce", "abs cos"),
])  # fmt: skip
def test_it_runs_by_name_with_its_options(installed, pipeline, expected):
    done = run(installed, PROGRAM.format(pipeline=pipeline))
    assert done.returncode == 0, done.stderr
    assert " ".join(sorted(done.stdout.split())) == expected


def test_it_passes_the_fuzzer(installed):
    done = run(installed, "from effcc.testing import check; from effcc_drop_signs import DropSigns; check(DropSigns())")
    assert done.returncode == 0, done.stderr


def test_without_it_the_name_is_unknown():
    from effcc.errors import UnsupportedError
    from effcc.pipeline import find_pass

    with pytest.raises(UnsupportedError, match="there is no pass 'drop-signs'"):
        find_pass("drop-signs")
