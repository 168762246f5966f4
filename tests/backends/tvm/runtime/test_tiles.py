"""The scheduler of runtime/tiles.ll on graphs made by hand: orders, threads, failures, traces."""

import json
import os
import threading

import numpy as np
import pytest

from effcc.backends.tvm.entry import Copy, Input, Launch, Output, Program, Temporary, Tiles, encode
from effcc.backends.tvm.runtime import Executable
from effcc.backends.tvm.runtime.trace import events
from effcc.backends.tvm.saved import from_json, to_json
from effcc.errors import EffccError
from effcc.machine import host

objects = pytest.importorskip("effcc.backends.tvm.objects")
N = 16 * 40


def words(values):
    return np.asarray(values).astype("<i4").tobytes()


def section(steps, tasks, edges):
    """Tasks as (launch, first, end); edges as (before, after)."""
    edges = sorted(edges)
    starts = np.concatenate(([0], np.cumsum(np.bincount([a for a, _ in edges], minlength=len(tasks)))))
    return Tiles(tuple(steps), words(tasks), words(starts), words([b for _, b in edges]))


@pytest.fixture(scope="module")
def chain(toys):
    """(layers, cuts) -> x + layers, each layer in `cuts` tasks, a task waiting for its own part and its neighbours'."""
    (kernel,) = objects.compile_kernels([toys.add("one")], host())

    def make(layers=30, cuts=10, **more):
        names = ["x", *(f"t{k}" for k in range(layers - 1)), "y"]
        steps = [Launch(kernel.symbol, pair, (N,), tiles=N // 16, label=f"add {k}")
                 for k, pair in enumerate(zip(names, names[1:], strict=False))]  # fmt: skip
        bounds = [N // 16 * k // cuts for k in range(cuts + 1)]
        tasks = [(k, bounds[c], bounds[c + 1]) for k in range(layers) for c in range(cuts)]
        edges = {
            (k * cuts + d, (k + 1) * cuts + c)
            for k in range(layers - 1) for c in range(cuts) for d in (c - 1, c, c + 1) if 0 <= d < cuts
        }  # fmt: skip
        program = Program(
            inputs=(Input("x", "f32", (N,)),), outputs=(Output("y", "f32", (N,)),),
            temporaries=tuple(Temporary(f"t{k}", 4 * N, offset=4 * N * k) for k in range(layers - 1)),
            steps=(section(steps, tasks, edges),),
        )  # fmt: skip
        return Executable(program, [kernel.object], objects.compile_driver(host().architecture), **more)

    return make


X = np.arange(N, dtype="f4")


@pytest.mark.parametrize("threads", [1, 2, 3, 4, 8, 64])
def test_every_task_runs_after_those_it_waits_for(chain, threads):
    run = chain()
    for _ in range(60):
        run.poison()
        np.testing.assert_array_equal(run(X, threads=threads)[0], X + 30)


def test_calls_at_the_same_time(chain):
    """One of them owns the pool, the others run on their own thread alone."""
    run, failures = chain(), []

    def call(seed):
        for k in range(30):
            if not np.array_equal(run(X + seed + k, threads=3)[0], X + seed + k + 30):
                failures.append((seed, k))

    threads = [threading.Thread(target=call, args=(seed,)) for seed in range(5)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not failures


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child(chain):
    run = chain()
    run(X, threads=3)
    child = os.fork()
    if child == 0:
        os._exit(0 if np.array_equal(run(X, threads=3)[0], X + 30) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_section_without_tasks(toys):
    x, y = Input("x", "f32", (4,), overwritten=True), Output("y", "f32", (4,), alias="x")
    program = Program(inputs=(x,), outputs=(y,), steps=(section([], [], []),))
    run = Executable(program, [], objects.compile_driver(host().architecture))
    for threads in (1, 3):
        np.testing.assert_array_equal(run(np.ones(4, "f4"), threads=threads)[0], np.ones(4, "f4"))


def test_copies_and_joins(toys):
    (kernel,) = objects.compile_kernels([toys.add("one")], host())
    steps = [Launch(kernel.symbol, ("x", "t"), (N,), tiles=40), Copy("y", "t", 4 * N)]
    tasks = [(0, 0, 20), (0, 20, 40), (-1, 0, 0), (1, 0, 1)]
    program = Program(
        inputs=(Input("x", "f32", (N,)),), outputs=(Output("y", "f32", (N,)),),
        temporaries=(Temporary("t", 4 * N, offset=0),), steps=(section(steps, tasks, [(0, 2), (1, 2), (2, 3)]),),
    )  # fmt: skip
    run = Executable(program, [kernel.object], objects.compile_driver(host().architecture))
    for threads in (1, 2, 5):
        np.testing.assert_array_equal(run(X, threads=threads)[0], X + 1)


def test_a_failing_kernel_stops_all_threads_and_is_named(toys):
    limit, one = objects.compile_kernels([toys.limit("check"), toys.add("one")], host())
    steps = [Launch(one.symbol, ("x", "t"), (N,), tiles=40, label="first"),
             Launch(limit.symbol, ("t",), tiles=N, label="/layers/gather"),
             Launch(one.symbol, ("t", "y"), (N,), tiles=40)]  # fmt: skip
    tasks = [(0, 0, 40), *((1, k, k + 1) for k in range(N)), (2, 0, 40)]
    edges = [(0, k + 1) for k in range(N)] + [(k + 1, N + 1) for k in range(N)]
    program = Program(
        inputs=(Input("x", "f32", (N,)),), outputs=(Output("y", "f32", (N,)),),
        temporaries=(Temporary("t", 4 * N, offset=0),), steps=(section(steps, tasks, edges),),
    )  # fmt: skip
    images = [limit.object, one.object]
    run = Executable(program, images, objects.compile_driver(host().architecture))
    good, bad = np.zeros(N, "f4"), np.zeros(N, "f4")
    bad[300] = 11
    for threads in (1, 2, 4):
        np.testing.assert_array_equal(run(good, threads=threads)[0], good + 2)
        with pytest.raises(EffccError, match="/layers/gather: a kernel stopped with code -1"):
            run(bad, threads=threads)
    np.testing.assert_array_equal(run(good)[0], good + 2)


@pytest.mark.parametrize("threads", [1, 3])
def test_a_trace_tells_each_task_once_in_an_order_that_the_edges_allow(chain, threads):
    run = chain(layers=8)
    (ran,) = run.traced(X, threads=threads)
    everything = [(k, 4 * c, 4 * c + 4) for k in range(8) for c in range(10)]
    assert sorted((t.launch, t.first, t.end) for t in ran) == everything
    ends = {(t.launch, t.first // 4): t.ended for t in ran}
    for t in ran:
        assert t.began <= t.ended and 0 <= t.thread < threads
        before = [ends[t.launch - 1, c] for c in range(10) if abs(c - t.first // 4) <= 1] if t.launch else []
        assert all(e <= t.began for e in before)
    timeline = json.loads(json.dumps(run.timeline(X)))
    assert sum(e["ph"] == "X" for e in timeline["traceEvents"]) == 80
    assert {e["name"] for e in timeline["traceEvents"] if e["ph"] == "X"} == {f"add {k}" for k in range(8)}
    assert run._contexts[-1].sections[0]._words[14] == 0, "tracing ends with the call"
    assert events([])["traceEvents"][0]["ph"] == "M"


def test_profile_adds_up_the_tasks(chain):
    profile = chain(layers=5).profile(X, repeat=2)
    assert [label for label, _ in profile] == [f"add {k}" for k in range(5)]
    assert all(seconds > 0 for _, seconds in profile)


def test_as_json_and_back(chain):
    program = chain(layers=3).program
    assert from_json(json.loads(json.dumps(to_json(program)))) == program


@pytest.mark.parametrize(
    "tasks,starts,children,message",
    [
        ([(0, 0, 1)], [0], [], "not a partition"),
        ([(0, 0, 1)], [0, 1], [1], "not there"),
        ([(1, 0, 1)], [0, 0], [], "not there"),
        ([(0, 2, 1)], [0, 0], [], "less than no tiles"),
    ],
)
def test_malformed_sections_are_refused(tasks, starts, children, message):
    step = Tiles((Copy("y", "x", 4),), words(tasks), words(starts), words(children))
    program = Program(inputs=(Input("x", "f32", (1,)),), outputs=(Output("y", "f32", (1,)),), steps=(step,))
    with pytest.raises(ValueError, match=message):
        encode(program)
