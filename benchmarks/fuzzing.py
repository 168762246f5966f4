"""How good the fuzzer's tests are, and how many it makes: throughput, pairs of ops, corners, draws without a value.

    python benchmarks/fuzzing.py [--tests 2000] [--compiled 100] [--graphs 10000]

Asked, on one thread, graphs of at least 8 ops (median): 100 tests a second of passes held against the interpreter, 8 a
second of compiled code, no kernel found in a cache; 75 % of the pairs of NNSmith's 71 operators in 600 graphs of 10
nodes (its own: 45.9 %); 98 % of the feasible pairs of our own ops in 10,000 graphs; a zero-size dimension in 10 % of
tests, special values in 30 %, fewer than 1 % of draws without a value. Exits 1 where one is missed. The tests of one
rule alone, which are small and cheap, are left out of all of it.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import sys
import tempfile
import time
import warnings
from collections import Counter
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import peak

from effcc.fuzz import campaign
from effcc.fuzz.generate import GraphDrawer
from effcc.fuzz.pairs import Pair, Tried
from effcc.fuzz.vocabulary import NNSMITH, Vocabulary, own_vocabulary
from effcc.ir import Builder, Tensor, Value
from effcc.testing.search import Choices

RESULTS = Path(__file__).parent / "results" / "fuzzing.json"
DIRECTED = 12
"""How often a pair that no graph held is drawn on purpose before it counts as infeasible."""


def rate(
    laws: tuple[str, ...], tests: int, folder: Path, between: object = None, coverage: bool = True
) -> tuple[campaign.Tally, float]:
    """What a job of one thread did, and how many ops its graphs had (median)."""
    folder.mkdir()
    campaign.ALONE = 0
    job = campaign.Job(folder, 0, 0, laws, coverage=coverage)
    sizes: list[int] = []
    tested = campaign.Case.of

    def counted(graph, *rest, **more):  # type: ignore[no-untyped-def]
        sizes.append(sum(n.op.name != "const" for n in graph.walk()))
        return tested(graph, *rest, **more)

    campaign.Case.of = staticmethod(counted)  # type: ignore[method-assign]
    try:
        for k in range(20):
            job.test(f"warm {k}")
        job.tally, start = campaign.Tally(), time.perf_counter()
        for k in range(tests):
            job.test(f"rate {k}")
            if callable(between):
                between()
        job.tally.seconds = time.perf_counter() - start
    finally:
        campaign.Case.of = staticmethod(tested)  # type: ignore[method-assign]
    return job.tally, statistics.median(sizes)


def forgetting(folder: Path) -> object:
    """A function that removes every compiled kernel from the cache, but for the driver that all programs share."""
    kept: set[Path] = set()

    def forget() -> None:
        files = {p for p in folder.rglob("*") if p.is_file()}
        if not kept:
            kept.update(files)
        for path in files - kept:
            path.unlink(missing_ok=True)

    return forget


def covered(graphs: int, vocabulary: Vocabulary) -> tuple[set[Pair], set[Pair]]:
    """The pairs in graphs of 10 nodes (a node counts as the word that it was drawn for), and the pairs of an op and one
    that takes the dtype and rank of some result of it."""
    tried = Tried()
    found: set[Pair] = set()
    fitting: set[Pair] = set()
    for k in range(graphs):
        drawer = GraphDrawer(Choices(rest=random.Random(k)), tried, vocabulary)
        graph = drawer.chain(10)
        found.update(drawer.drawn)
        fitting.update((n.op.name, name) for n in graph.nodes for r in n.results for name in vocabulary.readers(r))
    return found, fitting


def feasible(pair: Pair, vocabulary: Vocabulary) -> bool:
    """Whether a graph of just these two was found."""
    for k in range(DIRECTED):
        drawer = GraphDrawer(Choices(rest=random.Random(f"{pair} {k}")), Tried(), vocabulary)
        b = Builder()
        pool: list[Value] = [b.input("x", Tensor(drawer.base_dtype, drawer.base_shape))]
        if drawer.joined(b, *pair, pool, {}, attempts=4) and pair in drawer.drawn:
            return True
    return False


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tests", type=int, default=2000)
    parser.add_argument("--compiled", type=int, default=100)
    parser.add_argument("--graphs", type=int, default=10000)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    import torch

    torch.set_num_threads(1)
    missed: list[str] = []

    def say(what: str, value: float, asked: float, least: bool = True, form: str = "{:.1%}") -> None:
        good = value >= asked if least else value < asked
        print(f"{what:64} {form.format(value):>9}  (asked: {'≥' if least else '<'} {form.format(asked)})")
        if not good:
            missed.append(what)

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        os.environ["EFFCC_CACHE_DIR"] = str(folder / "cache")
        cheap, ops = rate(("text", "each-pass", "pass-orders", "embellished"), options.tests, folder / "a")
        say("tests a second, passes against the interpreter", cheap.rate, 100, form="{:.1f}")
        alone, _ = rate(("each-pass",), options.tests, folder / "d", coverage=False)
        print(f"  the same, the default pipeline on fresh graphs alone: {alone.rate:.1f}")
        say("ops a graph, median", ops, 8, form="{:.0f}")
        say("tests with a zero-size dimension", cheap.empty / cheap.tests, 0.10)
        say("tests with special values", cheap.special / cheap.tests, 0.30)
        fresh, _ = rate(("text",), options.tests, folder / "c", coverage=False)
        say("draws without a value (mutations apart)", fresh.rejected / fresh.tests, 0.01, least=False)
        every, campaign.LAW_EVERY["compiled"] = campaign.LAW_EVERY["compiled"], 1
        code, ops = rate(("compiled",), options.compiled, folder / "b", forgetting(folder / "cache"))
        campaign.LAW_EVERY["compiled"] = every
        say("tests a second, compiled", code.rate, 8, form="{:.1f}")
        say("ops a graph, median", ops, 8, form="{:.0f}")
    share = len(covered(600, NNSMITH)[0]) / len(NNSMITH) ** 2
    say("pairs of NNSmith's operators, 600 graphs", share, 0.75)
    own = own_vocabulary()
    found, fitting = covered(options.graphs, own)
    rest = [(a, b) for a in own.names for b in own.names if (a, b) in fitting - found]
    possible = {pair for pair in rest if feasible(pair, own)}
    pairs = len(found) + len(possible)
    say(f"feasible pairs of our {len(own)} ops, {options.graphs} graphs", len(found) / pairs, 0.98)
    print(f"{len(found)} pairs found, {len(possible)} more feasible, for {len(own) ** 2 - pairs} no type fits both")
    print(f"most often missed: {Counter(b for _, b in possible).most_common(8)}")
    for job in (cheap, fresh, code):
        print(job)
    facts = {"interpreter": cheap.facts(), "compiled": code.facts(), "nnsmith": share, "own": len(found) / pairs}
    RESULTS.write_text(json.dumps({"machine": peak.machine(), **facts}, indent=1) + "\n")
    for what in missed:
        print(f"missed: {what}")
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()
