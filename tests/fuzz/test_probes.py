"""Probes: each branch that is taken is noted, of all functions of a package and of no others."""

import importlib
import inspect
import sys
import textwrap

import pytest

from effcc.fuzz.probes import probed

SOURCE = """
from functools import cache

def sign(x):
    "Its docstring stays."
    if x > 0:
        return 1
    elif x < 0:
        return -1
    return 0

@cache
def largest(xs):
    most = None
    for x in xs:
        if most is None or x > most:
            most = x
    return most

class Kind:
    @property
    def name(self):
        match self:
            case Kind():
                return "kind"

    @staticmethod
    def made():
        def inner():
            "So does this."
            try:
                return 1 // 0
            except ZeroDivisionError:
                return Kind()
        return inner

INNER = Kind.made()
"""


@pytest.fixture
def package(tmp_path, monkeypatch):
    name = f"probed_{tmp_path.name}"  # (probes are put in once)
    folder = tmp_path / name
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "module.py").write_text(textwrap.dedent(SOURCE))
    monkeypatch.syspath_prepend(str(tmp_path))
    yield importlib.import_module(name)
    for module in (name, f"{name}.module"):
        sys.modules.pop(module, None)


def line(text: str) -> int:
    return SOURCE.splitlines().index(text) + 1


def test_branches_that_are_taken_are_noted(package):
    reached = probed(package.__name__)
    assert probed(package.__name__) is reached
    module = importlib.import_module(f"{package.__name__}.module")

    def told(call):
        reached.clear()
        call()
        return {branch.removeprefix(f"branch {package.__name__}/") for branch in reached}

    assert module.sign.__doc__ == "Its docstring stays." and module.INNER.__doc__ == "So does this."
    assert told(lambda: module.sign(3)) >= {f"module.py {line('        return 1')}"}
    below = told(lambda: module.sign(-3))
    assert f"module.py {line('        return -1')}" in below and f"module.py {line('        return 1')}" not in below
    assert f"module.py {line('    elif x < 0:')} not" in told(lambda: module.sign(0))


def test_decorated_and_nested_functions_have_probes_too(package):
    reached = probed(package.__name__)
    module = importlib.import_module(f"{package.__name__}.module")
    assert module.largest((1, 3, 2)) == 3 and module.Kind().name == "kind" and isinstance(module.INNER(), module.Kind)
    wanted = ("            most = x", '                return "kind"', "                return Kind()")
    assert {f"branch {package.__name__}/module.py {line(text)}" for text in wanted} <= reached
    assert f"branch {package.__name__}/module.py {line('        if most is None or x > most:')} not" in reached


def test_a_traceback_names_the_lines_of_the_source(package):
    probed(package.__name__)
    module = importlib.import_module(f"{package.__name__}.module")
    with pytest.raises(TypeError) as raised:
        module.sign("a")
    assert raised.traceback[-1].lineno + 1 == line("    if x > 0:")
    assert inspect.getsource(module.sign).startswith("def sign")
