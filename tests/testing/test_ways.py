"""All ways are met, each once; a sample is even; what leads to nothing is passed over."""

import itertools
from collections import Counter

import pytest

from effcc.testing.draw import NothingDrawn
from effcc.testing.ways import Ways


def word(choose):
    return "".join(choose("abc") for _ in range(choose(range(4))))


def test_every_way_is_met_once():
    ways = Ways(word)
    met = list(ways)
    assert sorted(met) == sorted("".join(w) for n in range(4) for w in itertools.product("abc", repeat=n))
    assert ways.exhausted and ways.size == len(met) == ways.turns


def test_a_sample_has_as_many_of_each_option_as_of_any_other():
    ways = Ways(lambda choose: (choose("ab"), choose(range(100)), choose(range(100))))
    met = list(itertools.islice(ways, 400))
    assert len(set(met)) == 400 and not ways.exhausted
    assert Counter(first for first, _, _ in met) == {"a": 200, "b": 200}
    assert set(Counter((first, second) for first, second, _ in met).values()) == {2}
    assert len({third for _, _, third in met}) > 90, "what is chosen last varies as well"


def test_samples_are_the_same_in_every_run():
    first, second = (list(itertools.islice(Ways(word), 20)) for _ in range(2))
    assert first == second


def even(choose):
    n = choose(range(50))
    return n if n % 2 == 0 else choose(())


def refused(choose):
    n = choose(range(50))
    if n % 2:
        raise NothingDrawn("odd")
    return n


@pytest.mark.parametrize("draw", [even, refused])
def test_what_leads_to_nothing_is_passed_over(draw):
    ways = Ways(draw)
    assert sorted(ways) == list(range(0, 50, 2))
    assert ways.size == 25 and ways.turns == 50


def test_the_number_of_ways_is_estimated():
    ways = Ways(lambda choose: [choose(range(10)) for _ in range(5)])
    next(iter(ways))
    assert ways.size == 100_000
    some_are_none = Ways(lambda choose: (choose(range(100)), even(choose)))
    list(itertools.islice(some_are_none, 200))
    assert 1500 < some_are_none.size < 3500


def test_options_that_are_listed_twice_are_one():
    assert sorted(map(repr, Ways(lambda choose: choose((0.0, -0.0, 0, False, 0.0))))) == ["-0.0", "0", "0.0", "False"]
    assert len(list(Ways(lambda choose: choose([[1], [1]])))) == 2, "those without a hash are taken as they are"
