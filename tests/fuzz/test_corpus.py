"""The corpus keeps what is new, prefers what is rare, stays bounded, and goes on from its files."""

import random
from collections import Counter

import numpy as np
import pytest

from effcc.errors import EffccError
from effcc.fuzz import corpus as module
from effcc.fuzz.corpus import Corpus, Entry
from effcc.fuzz.recipe import Recipe
from effcc.ir import Builder, Tensor, f32
from effcc.ir.blob import Blob
from effcc.ir.types import DTYPES


def entry(size=3):
    b = Builder()
    return Entry(b.graph(b.neg(b.input("x", Tensor(f32, (size,))))), Recipe())


def test_only_what_reaches_something_new_is_kept():
    corpus = Corpus()
    assert corpus.add(entry(), {"branch a 1 2", "branch a 2 3"})
    assert not corpus.add(entry(), {"branch a 2 3"})
    assert corpus.add(entry(), {"branch a 2 3", "fired simplify x"})
    assert not corpus.add(entry(), {"pair add neg"})  # (fresh draws look for rare pairs by themselves)
    assert len(corpus.entries) == 2 and corpus.branches == 2


def test_what_few_tests_reach_is_picked_more_often():
    corpus = Corpus()
    common, rare = entry(1), entry(2)
    corpus.add(common, {"branch a 1 2"})
    corpus.add(rare, {"branch a 5 6"})
    for _ in range(19):
        corpus.add(entry(), {"branch a 1 2"})
    chance = random.Random(0)
    picked = Counter(corpus.pick(chance) is rare for _ in range(400))
    assert picked[True] > 10 * picked[False] > 0


def test_it_is_bounded_and_the_least_rare_gives_way(monkeypatch):
    monkeypatch.setattr(module, "MOST", 3)
    corpus = Corpus()
    first = entry()
    corpus.add(first, {"branch a 0 1"})
    corpus.counts["branch a 0 1"] = 50
    for k in range(1, 4):
        corpus.add(entry(), {f"branch a {k} {k + 1}"})
    assert len(corpus.entries) == 3 and first not in corpus.entries


@pytest.mark.parametrize("dtype", ["f32", "bf16", "i4", "bool", "f8e4m3"])
def test_it_goes_on_from_its_files(tmp_path, dtype):
    b, kind = Builder(), DTYPES[dtype]
    data = np.random.default_rng(0).integers(0, 2, (40, 40)).astype(kind.numpy)
    graph = b.graph(b.const(Blob(data, kind)))
    corpus = Corpus(tmp_path / "corpus-0-0")
    corpus.add(Entry(graph, Recipe.parse("simplify,fuse | tiles | 2"), failures=3), {"branch a 1 2"})
    corpus.save()
    again = Corpus(tmp_path / "corpus-0-0")
    assert again.counts == corpus.counts
    (kept,) = again.entries
    assert kept.graph == graph and str(kept.recipe) == "simplify,fuse | tiles | 2"
    assert kept.rare == {"branch a 1 2"} and kept.failures == 3


def test_a_broken_file_is_named(tmp_path):
    path = tmp_path / "corpus-0-0"
    path.with_suffix(".json").write_text("{")
    with pytest.raises(EffccError, match="corpus"):
        Corpus(path)
