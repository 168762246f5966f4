"""Metrics and the budgets that bound them."""

import math

import numpy as np
import pytest

from effcc.errors import InputError
from effcc.search.metrics import METRICS, Budget, agree, cosine, kl, max_error, top1

SCORES = np.array([[0.0, 1, 2], [3, 1, 2], [0, 5, 2], [1, 0, 0]])


def test_values_that_can_be_counted():
    assert top1([SCORES], [SCORES], np.array([2, 0, 1, 1])) == 0.75
    changed = SCORES.copy()
    changed[0] = [9, 0, 0]
    assert agree([changed], [SCORES]) == 0.75 and agree([SCORES], [SCORES]) == 1
    assert max_error([SCORES, changed], [SCORES, SCORES]) == 9
    assert cosine([SCORES], [SCORES]) == 1 and cosine([2 * SCORES], [SCORES]) == pytest.approx(1)
    assert cosine([SCORES, -SCORES], [SCORES, SCORES]) == pytest.approx(-1)
    assert cosine([np.zeros((1, 2))], [np.zeros((1, 2))]) == 1
    p, q = np.log([[0.5, 0.5]]), np.log([[0.25, 0.75]])
    assert kl([q], [p]) == pytest.approx(0.5 * math.log(2) + 0.5 * math.log(2 / 3))
    assert kl([q + 7], [q]) == pytest.approx(0, abs=1e-12)


def test_budgets_are_read_and_shown():
    for text in ("top1>=0.99", "agree>=1", "kl<=0.01", "max_error<=1e-06", "top1>=ref-0.01", "cosine>=ref"):
        assert str(Budget.parse(text)) == text
    assert Budget.parse(" top1 >= ref - 0.01 ") == Budget.parse("top1>=ref-0.01")
    assert Budget.parse("top1>=ref-0.01").holds(0.9, 0.905) and not Budget.parse("top1>=ref-0.01").holds(0.9, 0.92)
    assert Budget.parse("kl<=0.5").holds(0.5, 0) and not Budget.parse("kl<=0.5").holds(math.nan, 0)

    def mine(outputs, reference, labels):
        return 0.5

    budget = Budget.parse((mine, ">=", 0.4))
    assert budget.metric is mine and str(budget) == "mine>=0.4" and not budget.needs_labels
    assert set(METRICS) == {"top1", "agree", "cosine", "kl", "max_error"}


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("top1", "cannot read 'top1'; write it as"),
        ("top1>0.9", "cannot read"),
        ("top1>=", "cannot read"),
        ("top1>=1.2.3", "cannot read"),
        ("top5>=0.9", "no metric 'top5'; one of top1, agree"),
        (0.9, "cannot read 0.9"),
        ((len, "==", 1), "asks >= or <=, not '=='"),
    ],
)
def test_what_is_no_budget(given, words):
    with pytest.raises(InputError, match=words):
        Budget.parse(given)
