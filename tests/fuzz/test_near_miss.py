"""Near misses are well-typed, differ from what rules fire on, and are drawn for every rule there is."""

import ast
import importlib
import pkgutil
import random
from pathlib import Path

import pytest

import effcc.passes
from effcc.fuzz.generate import GraphDrawer
from effcc.fuzz.near_miss import CHANGES, UNDRAWABLE, drawn, near_miss, rules
from effcc.fuzz.surround import surrounded
from effcc.ir import Builder, Tensor, f32, verify
from effcc.passes.simplify import Square
from effcc.rewrite import Rule, rewrite
from effcc.testing.draw import NothingDrawn
from effcc.testing.search import Choices


def drawer(key: str) -> GraphDrawer:
    return GraphDrawer(Choices(rest=random.Random(key)))


def subclasses(cls: type) -> list[type]:
    return [s for direct in cls.__subclasses__() for s in (direct, *subclasses(direct))]


def test_every_rule_of_every_pass_is_known():
    for module in pkgutil.iter_modules(effcc.passes.__path__):
        importlib.import_module(f"effcc.passes.{module.name}")
    ours = [cls for cls in subclasses(Rule) if cls.__module__.startswith("effcc.passes.")]
    concrete = {cls for cls in ours if cls.pattern is not Rule.pattern}
    assert concrete and concrete <= {type(rule) for rule in rules()}


def test_every_example_is_a_method():
    """One that slipped out of its class is drawn by nobody."""
    for path in Path(effcc.passes.__path__[0]).glob("*.py"):
        tree = ast.parse(path.read_text())
        methods = {f for cls in ast.walk(tree) if isinstance(cls, ast.ClassDef) for f in cls.body}
        examples = {f for f in ast.walk(tree) if isinstance(f, ast.FunctionDef) and f.name == "example"}
        assert examples <= methods, path


def test_rules_are_listed_once():
    names = [(type(rule), repr(rule)) for rule in rules() if "object at" not in repr(rule)]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("seed", range(3))
def test_graphs_for_rules_are_well_typed(seed):
    for number, rule in enumerate(rules()[seed::10]):
        d = drawer(f"{seed} {number}")
        try:
            graph = surrounded(d, drawn(d, rule))
        except NothingDrawn:
            continue
        verify(graph)


def test_near_misses_are_refused_and_fired_on():
    """One thing changed is enough that a rule does not fire, and little enough that it often does."""
    outcomes = set()
    for seed in range(40):
        graph = near_miss(drawer(f"near {seed}"), Square())
        outcomes.add(rewrite(graph, [Square()]) is graph)
    assert outcomes == {False, True}


@pytest.mark.parametrize("change", CHANGES, ids=lambda f: f.__name__)
def test_changes_change(change):
    b = Builder()
    x, y = b.input("x", Tensor(f32, (2, 3))), b.input("y", Tensor(f32, (2, 3)))
    summed = b.sum(b.mul(b.sub(x, y), b.const(2.0, f32)), axes=(1,), keepdims=True)
    graph = b.graph(b.add(b.relu(summed), b.neg(summed)))
    made = []
    for seed in range(60):
        try:
            made.append(change(drawer(f"change {seed}"), graph))
            verify(made[-1])
        except UNDRAWABLE:
            continue
    assert any(new != graph for new in made)
