"""Open options: `pass:option=?`."""

import pytest

from effcc.errors import InputError
from effcc.pipeline import Range
from effcc.search.options import find_hole


def test_an_option_is_found_wherever_it_stands():
    for passes, extra, place in (
        (None, {"reduce-tokens": "tome:r=?:inflect=-1"}, "reduce-tokens"),
        (None, {"reduce-tokens": "tome:inflect=-1:r=?", "sparsify": "magnitude:density=0.5"}, "reduce-tokens"),
        ("simplify,tome:r=?,dce", {}, "passes"),
    ):
        hole = find_hole(passes, extra)
        assert hole is not None and (hole.place, hole.pass_name, hole.option) == (place, "tome", "r")
        assert hole.filled(7) == hole.text.replace("?", "7") and hole.shown(7) == "tome:r=7"
    assert find_hole("simplify,fuse:max-ops=8", {"sparsify": "magnitude:density=0.5"}) is None
    assert find_hole(None, {}) is None


def test_values_from_the_gentlest_to_the_strongest():
    density = find_hole(None, {"sparsify": "block-sparse:block=8x8:density=?"})
    assert density is not None and density.range.last == 20
    assert [density.range.value(k) for k in (0, 1, 20)] == [1.0, 0.95, 0.0]
    assert density.filled(0.35) == "block-sparse:block=8x8:density=0.35"
    assert Range(0, None).last is None and Range(2, 8, 3).value(2) == 8


@pytest.mark.parametrize(
    ("passes", "extra", "words"),
    [
        (None, {"reduce-tokens": "tome:r=?:inflect=?"}, "one option of one pass"),
        ("tome:r=?", {"sparsify": "magnitude:density=?"}, "one option of one pass"),
        (None, {"reduce-tokens": "tome:inflect=?"}, "tome does not offer 'inflect'.*it offers r"),
        ("fuse:max-ops=?", {}, "none of its options can be searched"),
    ],
)
def test_what_cannot_be_searched(passes, extra, words):
    with pytest.raises(InputError, match=words):
        find_hole(passes, extra)
