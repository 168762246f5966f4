"""Symbolic dimensions against plain integer arithmetic."""

import itertools
import random

import pytest

from effcc.ir.dims import (
    Expr,
    Symbol,
    as_symbol,
    bounds,
    ceildiv,
    dim_max,
    dim_min,
    evaluate,
    floordiv,
    mod,
    product,
    substitute,
    symbols,
)

B, N = Symbol("B", 1, 9), Symbol("N", 0, 5)
VALUES = [dict(zip((B, N), v)) for v in itertools.product((1, 2, 5, 9), (0, 1, 4, 5))]


def random_expression(rng, depth):
    """(a dimension, its meaning as a function of a binding)"""
    if depth == 0 or rng.random() < 0.2:
        leaf = rng.choice((B, N, rng.randint(-3, 7)))
        return leaf, (lambda v: v[leaf]) if isinstance(leaf, Symbol) else (lambda v: leaf)
    a, f = random_expression(rng, depth - 1)
    c, g = random_expression(rng, depth - 1)
    k = rng.randint(1, 6)
    return rng.choice((
        (a + c, lambda v: f(v) + g(v)), (a - c, lambda v: f(v) - g(v)), (a * c, lambda v: f(v) * g(v)),
        (floordiv(a, k), lambda v: f(v) // k), (mod(a, k), lambda v: f(v) % k),
        (ceildiv(a, k), lambda v: -(-f(v) // k)),
        (dim_min(a, c), lambda v: min(f(v), g(v))), (dim_max(a, c), lambda v: max(f(v), g(v))),
        (floordiv(a, B), lambda v: f(v) // v[B]), (mod(a, B), lambda v: f(v) % v[B]),
    ))


@pytest.mark.parametrize("seed", range(60))
def test_expressions_mean_what_integers_mean(seed):
    dim, meaning = random_expression(random.Random(seed), 4)
    low, high = bounds(dim)
    for values in VALUES:
        got = evaluate(dim, values)
        assert got == meaning(values)
        assert (low is None or low <= got) and (high is None or got <= high)


@pytest.mark.parametrize("seed", range(30))
def test_normal_form_is_kept_by_substitution_of_a_symbol_by_itself(seed):
    dim, _ = random_expression(random.Random(seed), 4)
    assert substitute(dim, {B: B, N: N}) == dim


def test_equal_expressions_are_equal_and_hash_alike():
    assert (B + 1) * (B - 1) == B * B - 1
    assert hash((B + 1) * (B - 1)) == hash(B * B - 1)
    assert (B * 6 + 4) // 2 == B * 3 + 2
    assert isinstance((B * 2) // 2, Expr) and (B * 2) // 2 == B and hash((B * 2) // 2) == hash(B)
    assert {B: 1}[(B * 2) // 2] == 1


def test_floordiv_of_products_and_nested():
    assert floordiv(B * N, B) == N
    assert floordiv(floordiv(N, 2), 3) == floordiv(N, 6)
    assert floordiv(B + 7, 16) == floordiv(B + 7, 16) and bounds(floordiv(B + 7, 16)) == (0, 1)


def test_symbols_of_different_ranges_differ():
    assert Symbol("B", 1, 9) == B and Symbol("B", 1, 8) != B


def test_truth_of_a_symbolic_dimension_is_an_error():
    with pytest.raises(TypeError, match="not known at compile time"):
        bool(B + 1)


def test_evaluate_names_what_is_not_bound():
    with pytest.raises(KeyError, match="N"):
        evaluate(B + N, {B: 1})


def test_small_things():
    assert as_symbol(B) is B and as_symbol(B + 1) is None and as_symbol(3) is None
    assert symbols(floordiv(B * 3, N + 1)) == {B, N}
    assert product((2, B, 3)) == B * 6 and product(()) == 1
    assert dim_max(B, 1) == B and dim_min(B, 9) == B
