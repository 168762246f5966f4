"""Random graphs in tiles of a few elements: the same bits under both schedules, in any order, on any threads."""

import random

import numpy as np
import pytest

from effcc.backends.tvm.templates import loops, rows
from effcc.backends.tvm.tiles import graph as tile_graph
from effcc.backends.tvm.tiles import reference
from effcc.backends.tvm.tiles.program import refusal, tiled
from effcc.backends.tvm.tiles.verify import verify
from effcc.errors import EffccError
from effcc.fuzz.generate import GraphDrawer
from effcc.fuzz.vocabulary import Vocabulary, own_vocabulary
from effcc.ir.blob import Blob
from effcc.ir.op import op_class
from effcc.machine import parse
from effcc.pipeline import Context, PassManager
from effcc.testing.compare import random_inputs
from effcc.testing.draw import NothingDrawn

torch = pytest.importorskip("torch")
SEEDS = 20
TENSORS = Vocabulary({n: w for n, w in own_vocabulary().items() if op_class(w.op).family != "sequence"})


@pytest.fixture
def fine(monkeypatch, tmp_path_factory):
    """Tiles of 24 elements, each a task. Kernels are not told apart by that, so they get a cache of their own."""
    for module in (loops, rows):
        monkeypatch.setattr(module, "TILE_ELEMENTS", 24)
    for name in ("LEAST_NS", "GOOD_NS"):
        monkeypatch.setattr(tile_graph, name, 1)
    monkeypatch.setenv("EFFCC_CACHE_DIR", str(tmp_path_factory.getbasetemp() / "fine"))


@pytest.mark.parametrize("seed", range(SEEDS))
def test_random_graphs(fine, seed):
    from effcc.backends.tvm.backend import executable
    from effcc.backends.tvm.build import build
    from effcc.backends.tvm.lower import lower
    from effcc.driver import backend_of, pipeline_of

    machine = parse("cpu{threads=8}")
    try:
        graph = GraphDrawer(random.Random(seed).choice, vocabulary=TENSORS).graph(2, 8)
        optimized = PassManager().run(graph, pipeline_of(backend_of("cpu"), None, {}), Context(machine=machine))
        plan = lower(optimized, machine)
    except (NothingDrawn, EffccError):
        pytest.skip("no graph that target cpu takes")
    if (reason := refusal(plan)) is not None:
        pytest.skip(reason)
    built = build(plan, machine)
    tiles = tiled(plan, built.program, built.names, machine, 8)
    verify(tiles.graph, tiles.offsets)
    under = executable(built)
    without = under.sharing(tiles.program)
    drawn = random_inputs([v.type for v in graph.inputs], torch.Generator().manual_seed(seed), special=False)

    def bits(run):
        without.poison()
        return [np.asarray(a).tobytes() for a in run([Blob.from_torch(t.clone()).array.copy() for t in drawn])]

    try:
        expected = bits(lambda given: under(*given, threads=1))
    except EffccError:
        pytest.skip("it stops at an index that is out of range")
    for order in range(2):
        assert bits(lambda given: reference.run(without, given, order)) == expected  # noqa: B023
    for threads in (1, 2, 3, 4, 8):
        assert bits(lambda given: without(*given, threads=threads)) == expected  # noqa: B023
