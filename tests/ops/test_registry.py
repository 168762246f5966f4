"""Completeness: what every op has to say about itself."""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import random

import pytest

from effcc.errors import TypeRuleError
from effcc.ir.op import FAMILY_MODULES, Op, load_ops
from effcc.testing.draw import Drawer, NothingDrawn

OPS = load_ops()


def overrides(cls: type[Op], method: str) -> bool:
    return getattr(cls, method) is not getattr(Op, method)


@pytest.mark.parametrize("name", sorted(OPS))
def test_every_op_is_complete(name):
    cls = OPS[name]
    assert cls.name == name and cls.family, "an op names itself and its family"
    doc = inspect.getdoc(cls)
    assert doc and not doc.startswith(f"{cls.__name__}("), "an op has a docstring: its formula"
    assert overrides(cls, "infer"), "an op has a type rule"
    assert overrides(cls, "reference"), "an op has a meaning"
    ways = [overrides(cls, "compute"), overrides(cls, "decompose"), cls.routine]
    assert any(ways) or cls.family == "constant" or name == "fused", (
        "an op has a loop nest, a decomposition or a routine"
    )
    assert not (cls.routine and overrides(cls, "decompose")), "a routine is not decomposed"


@pytest.mark.parametrize("name", sorted(OPS))
def test_attributes_are_plain_data(name):
    cls = OPS[name]
    assert dataclasses.is_dataclass(cls) and cls.__dataclass_params__.frozen
    for operand in cls.operands:
        assert operand.strip("*?").isidentifier()
    names = [f.name for f in cls.attributes()]
    assert len(names) == len(set(names)) and not set(names) & {"name", "family", "operands"}


WORDS = [(c.name, f.name) for c in OPS.values() for f in c.attributes() if f.type == "str"]


@pytest.mark.parametrize("name, attribute", WORDS)
def test_words_that_no_attribute_knows_are_refused(name, attribute):
    met = 0
    for seed in range(40):
        with contextlib.suppress(NothingDrawn):
            for node in Drawer(random.Random(seed).choice).random_graph([OPS[name]], 1).nodes:
                if node.op.name == name:
                    met += 1
                    with pytest.raises(TypeRuleError):
                        node.op.replace(**{attribute: "nonsense"}).result_types(node.types)
    assert met


def test_operand_lists_put_optional_ones_last():
    for cls in OPS.values():
        kinds = ["*" if o.startswith("*") else "?" if o.endswith("?") else "" for o in cls.operands]
        assert kinds == sorted(kinds, key=["", "?", "*"].index), cls.name


def test_every_op_lives_in_a_listed_family_module():
    assert {cls.__module__.removeprefix("effcc.ops.").partition(".")[0] for cls in OPS.values()} <= set(FAMILY_MODULES)
