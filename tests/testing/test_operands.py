"""Operands: whichever of an op's are known, the others are drawn so that it takes them."""

import random

import pytest

from effcc.ir import load_ops
from effcc.testing.draw import Drawer, NothingDrawn, drawable_ops
from effcc.testing.operands import arity
from effcc.testing.search import Choices

SEEDS = 12
READING = [cls for cls in drawable_ops() if cls.operands and cls.family != "sequence"]


@pytest.mark.parametrize("cls", READING, ids=lambda cls: cls.name)
def test_others_follow_from_any_operand(cls):
    followed, places = set(), set()
    for seed in range(SEEDS):
        d = Drawer(Choices(rest=random.Random(f"{cls.name} {seed}")))
        try:
            _, types = d.application(cls, [None] * arity(d, cls), {})
        except NothingDrawn:
            continue
        for k in range(len(types)):
            places.add(k)
            try:
                d.application(cls, [t if j == k else None for j, t in enumerate(types)], {})
            except NothingDrawn:
                continue
            followed.add(k)
    assert places and followed == places


def test_domains_are_of_operands():
    for cls in load_ops().values():
        assert set(cls.domains) <= {name.strip("?*") for name in cls.operands}
        assert cls.undefined or not cls.domains
