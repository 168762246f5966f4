"""Each rule of each pass is its own property test; each pass is held against random graphs."""

import pytest

from effcc.passes.fold_scales import FoldScales
from effcc.passes.raise_ import Raise
from effcc.passes.simplify import Simplify
from effcc.passes.sink_views import SinkViews
from effcc.pipeline import find_pass, pass_table
from effcc.testing import check

RULES = {f"{p.name}/{k} {r.name}": r for p in (Simplify, Raise, FoldScales) for k, r in enumerate(p.rules)}
# One rule a family of ops is enough here: check(SinkViews()) below goes through all of them.
SINKING = {f"{type(r).__name__}": r for r in SinkViews.rules}


@pytest.mark.parametrize("rule", [*RULES.values(), *SINKING.values()], ids=[*RULES, *SINKING])
def test_rule(rule):
    check(rule, examples=40)


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_rules_say_what_they_do(rule):
    assert rule.__doc__ and ("-->" in rule.__doc__ or "-> " in rule.__doc__)


@pytest.mark.parametrize("name", sorted(pass_table()))
def test_pass(name):
    check(find_pass(name)(), examples=60)


@pytest.mark.parametrize("name", ["fold", "cse", "dce", "simplify", "raise", "sink-views", "horizontal"])
def test_pass_fires(name):
    assert check(find_pass(name)(), examples=60, must_fire=True).fired
