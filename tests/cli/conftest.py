"""The command in this process, and models small enough to compile in a second."""

from __future__ import annotations

import json
import subprocess
import sys
import types
from dataclasses import dataclass
from pathlib import Path

import pytest

from effcc.cli import main

ROOT = Path(__file__).parents[2]
NET = """
graph @net<B in 1..8>(%x: f32[B,4]) -> f32[B,3] {
  %w: f32[4,3] = const [[1, 2, 3], [4, 5, 6], [7, 8, 9], [1, 0, 1]]
  %b: f32[3] = const [0.5, -0.5, 1]
  %0: f32[B,3] = matmul(%x, %w)  loc("net.onnx":"/layer.0/fc/MatMul")
  %1: f32[B,3] = add(%0, %b)  loc("net.onnx":"/layer.0/fc/Add")
  %2: f32[B,3] = neg(%1)  loc("net.onnx":"/layer.1/Neg")
  %3: f32[B,3] = neg(%2)  loc("net.onnx":"/layer.1/Neg_1")
  %y: f32[B,3] = tanh(%3)  loc("net.onnx":"/layer.1/Tanh")
  return %y
}
"""


@dataclass(frozen=True)
class Outcome:
    status: int
    out: str
    err: str

    @property
    def json(self):
        return json.loads(self.out)

    def refused(self) -> str:
        """The one line of a refusal: status 2, `error: ...` alone on stderr."""
        assert self.status == 2, self
        assert self.err.startswith("error: ") and self.err.count("\n") == 1 and self.err.endswith("\n"), self.err
        return self.err[7:-1]


@pytest.fixture
def effcc(monkeypatch, capfd):
    """effcc("run", path, "--random") -> Outcome."""

    def run(*arguments: object) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["effcc", *map(str, arguments)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as leaving:
            main()
        captured = capfd.readouterr()
        return Outcome(leaving.value.code or 0, captured.out, captured.err)

    return run


@pytest.fixture
def in_a_process():
    """The command as a user starts it: in_a_process("doctor") -> Outcome."""

    def run(*arguments: object) -> Outcome:
        command = [sys.executable, "-m", "effcc", *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=120)
        return Outcome(done.returncode, done.stdout, done.stderr)

    return run


@pytest.fixture(scope="session")
def net(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("models") / "net.effir"
    path.write_text(NET)
    return path


@pytest.fixture(scope="session")
def artifact(net) -> Path:
    """The compiled net."""
    import effcc

    path = net.with_suffix(".effcc")
    effcc.compile(str(net)).save(path)
    return path


@pytest.fixture(scope="session")
def digits() -> Path:
    return ROOT / "examples" / "digits" / "digits_vit.onnx"


@pytest.fixture
def planted(monkeypatch):
    """planted("wrong") makes a pass known for this test.

    wrong: takes additions for their left operand.  reluctant: matches negations and refuses them.
    greedy: looks for tanh(exp(x)).  unsound: makes a graph with an undefined value.
    """
    from effcc.ir import Graph, Value
    from effcc.pipeline import Pass, RulePass, pass_table
    from effcc.rewrite import Rule

    class ForgetAdd(Rule):
        """add(x, y) --> x"""

        def pattern(self, p, x, y):
            return p.add(x, y)

        def rewrite(self, b, m):
            return m.x

    class Shy(Rule):
        """neg(x) --> nothing"""

        def pattern(self, p, x):
            return p.neg(x)

        def rewrite(self, b, m):
            return "it is too small"

    class ExpOfNeg(Rule):
        """tanh(exp(x)) --> x"""

        def pattern(self, p, x):
            return p.tanh(p.exp(x))

        def rewrite(self, b, m):
            return m.x

    class Greedy(RulePass):
        """Never fires."""

        name = "greedy"
        rules = (ExpOfNeg(),)

    class Wrong(RulePass):
        """Additions lose their right operand."""

        name = "wrong"
        rules = (ForgetAdd(),)

    class Reluctant(RulePass):
        """Refuses."""

        name = "reluctant"
        rules = (Shy(),)

    class Unsound(Pass):
        """Returns a value that nothing defines."""

        name = "unsound"

        def run(self, graph, ctx):
            return Graph(graph.name, graph.inputs, graph.nodes, tuple(Value(v.type) for v in graph.results))

    made = {cls.name: cls for cls in (Wrong, Reluctant, Unsound, Greedy)}
    module = types.ModuleType("planted_passes")
    for name, cls in made.items():
        setattr(module, name, cls)
    monkeypatch.setitem(sys.modules, "planted_passes", module)
    return lambda name: monkeypatch.setitem(pass_table(), name, f"planted_passes:{name}")
