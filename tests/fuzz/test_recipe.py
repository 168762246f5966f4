"""Recipes: their text, their draws, and their changes; options only as passes declare them."""

import random

import pytest

from effcc.errors import EffccError
from effcc.fuzz.recipe import LONGEST, Recipe, Subject, drawn_pass
from effcc.pipeline import pass_table


def drawn(count):
    return [Subject().draw(random.Random(k)) for k in range(count)]


def test_text_is_read_back():
    for recipe in drawn(50):
        assert Recipe.parse(str(recipe)) == recipe


@pytest.mark.parametrize("text", ["dce", "dce | sideways | 2", "dce | tiles | two", "nonsense | tiles | 2"])
def test_a_wrong_text_is_refused(text):
    with pytest.raises(EffccError):
        Recipe.parse(text)


def test_draws_reach_every_pass_schedule_and_thread_count():
    recipes = drawn(300)
    assert {p.name for r in recipes for p in r.passes} == set(pass_table())
    assert {(r.schedule, r.threads) for r in recipes} == {(s, t) for s in ("barriers", "tiles") for t in (1, 2, 3)}


def test_a_change_is_one_and_every_kind_occurs():
    """Sequences grow, shrink, keep their passes in another order, and take other options; schedules change alone."""
    subject, kinds = Subject(), set()
    for k, recipe in enumerate(drawn(200)):
        changed = subject.change(recipe, random.Random(k))
        assert changed != recipe and len(changed.passes) <= LONGEST
        before, after = [p.name for p in recipe.passes], [p.name for p in changed.passes]
        if recipe.passes == changed.passes:
            kinds.add("schedule")
        elif len(after) != len(before):
            kinds.add("longer" if len(after) > len(before) else "shorter")
        elif before == after:
            kinds.add("options")
        else:
            kinds.add("order" if sorted(before) == sorted(after) else "another")
    assert kinds == {"schedule", "longer", "shorter", "options", "order", "another"}


def test_options_vary_as_declared():
    chance = random.Random(0)
    tomes = {drawn_pass("tome", chance) for _ in range(60)}
    assert {p.r for p in tomes} > {(0,), (8,)} and {p.prop_attn for p in tomes} == {False, True}  # type: ignore[attr-defined]
    assert len({drawn_pass("cse", chance) for _ in range(20)}) == 1


def test_a_subject_names_its_passes_and_target():
    subject = Subject.of("cpu", "simplify,fuse")
    assert [p.name for p in subject.pipeline()] == ["simplify", "fuse"] and subject.pool() == ("fuse", "simplify")
    assert {p.name for k in range(40) for p in subject.draw(random.Random(k)).passes} == {"fuse", "simplify"}
    with pytest.raises(EffccError, match="tpu"):
        Subject.of("tpu")
    with pytest.raises(EffccError, match="nonsense"):
        Subject.of("cpu", "nonsense").pipeline()


def test_cuda_has_one_schedule():
    pytest.importorskip("triton")
    subject = Subject.of("cuda")
    assert {subject.draw(random.Random(k)).schedule for k in range(20)} == {"barriers"}
