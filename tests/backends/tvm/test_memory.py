import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from effcc.backends.tvm.entry import Copy, If, Launch, Program, Rebind, SetSize, Size, Temporary, While
from effcc.backends.tvm.memory import _pack_by_size, _pack_in_time, live_ranges, pack, place, plan, usage

SPANS = st.lists(st.tuples(st.integers(0, 30), st.integers(0, 10)).map(lambda p: (p[0], p[0] + p[1])), max_size=40)


def chain(count, size=("mul", "B", 256)):
    """t0 -> t1 -> ... : each launch reads one temporary and writes the next."""
    names = [f"t{i}" for i in range(count)]
    steps = [Launch("k", ("x", names[0]), writes=(names[0],))]
    steps += [Launch("k", (a, b), writes=(b,)) for a, b in zip(names, names[1:], strict=False)]
    return Program(sizes=("B",), temporaries=tuple(Temporary(n, size) for n in names), steps=tuple(steps))


def conflicts(program, sizes):
    """Pairs of temporaries that live at the same time and share bytes."""
    ranges = live_ranges(program)
    offsets, _ = place(program.temporaries, sizes)
    from effcc.backends.tvm.entry import evaluate

    boxes = [
        (t.name, *ranges[t.name], start, start + evaluate(t.size, sizes))
        for t, start in zip(program.temporaries, offsets, strict=True)
    ]
    return [
        (a[0], b[0])
        for i, a in enumerate(boxes)
        for b in boxes[:i]
        if a[1] <= b[2] and b[1] <= a[2] and a[3] < b[4] and b[3] < a[4]
    ]


@pytest.mark.parametrize("method", [_pack_by_size, _pack_in_time, pack])
@given(spans=SPANS, data=st.data())
def test_buffers_that_live_together_do_not_overlap(method, spans, data):
    sizes = data.draw(st.lists(st.integers(0, 9).map(lambda n: 64 * n), min_size=len(spans), max_size=len(spans)))
    offsets = method(spans, sizes)
    for i, (first, last) in enumerate(spans):
        for j in range(i):
            if first <= spans[j][1] and spans[j][0] <= last:
                low, high = max(offsets[i], offsets[j]), min(offsets[i] + sizes[i], offsets[j] + sizes[j])
                assert high <= low or not sizes[i] or not sizes[j]


@settings(deadline=None)
@given(
    touched=st.lists(st.lists(st.integers(0, 11), min_size=1, max_size=4), min_size=1, max_size=25),
    factors=st.lists(st.tuples(st.integers(0, 500), st.booleans()), min_size=12, max_size=12),
    b=st.integers(1, 40),
)
def test_a_plan_holds_for_sizes_it_was_not_made_for(touched, factors, b):
    temporaries = tuple(Temporary(f"t{i}", ("mul", "B", n) if by_b else n) for i, (n, by_b) in enumerate(factors))
    steps = tuple(Launch("k", tuple(f"t{i}" for i in group)) for group in touched)
    program = plan(Program(sizes=(Size("B", 1, 64),), temporaries=temporaries, steps=steps))
    assert not conflicts(program, {"B": b})
    report = usage(program, {"B": b})
    assert report.lower_bound <= report.peak <= report.unshared


def test_a_chain_needs_two_buffers():
    program = plan(chain(100))
    for b in (1, 8, 1000):
        report = usage(program, {"B": b})
        assert report.peak == report.lower_bound == 2 * 256 * b
        assert report.unshared == 100 * 256 * b


def test_unused_temporaries_take_no_memory():
    program = plan(Program(temporaries=(Temporary("never", 1 << 40), Temporary("t", 64)), steps=(Launch("k", ("t",)),)))
    assert [t.name for t in program.temporaries] == ["t"]


def test_a_loops_body_shares_only_what_each_round_writes_first():
    loop = While("go", (
        Launch("k", ("carried", "a"), writes=("a",)),
        Launch("k", ("a", "b"), writes=("b",)),
        Launch("k", ("b", "c"), writes=("c",)),
        Launch("k", ("c", "carried"), writes=("carried",)),
        Launch("k", ("kept",), writes=()),
    ))  # fmt: skip
    names = ("carried", "a", "b", "c", "kept", "before", "after")
    steps = (Launch("k", ("before", "carried"), writes=("before", "carried")), loop, Launch("k", ("carried", "after")))
    program = Program(temporaries=tuple(Temporary(n, 64) for n in names), steps=(SetSize("go", 1), *steps))
    ranges = live_ranges(program)
    assert ranges["before"] == (1, 1)
    assert ranges["carried"] == (1, 9)
    assert ranges["kept"] == (2, 8)  # read before it is written: it comes from the round before
    assert (ranges["a"], ranges["b"], ranges["c"]) == ((3, 4), (4, 5), (5, 6))
    assert ranges["after"] == (9, 9)


def test_nested_loops():
    inner = While("go", (Launch("k", ("t", "u"), writes=("u",)), Launch("k", ("u", "t"), writes=("t",))))
    outer = While("go", (Launch("k", ("t",), writes=("t",)), inner))
    program = Program(temporaries=(Temporary("t", 64), Temporary("u", 64)), steps=(SetSize("go", 1), outer))
    ranges = live_ranges(program)
    assert ranges["u"] == (4, 5)
    assert ranges["t"] == (2, 6)  # in the inner loop it carries a value; each round of the outer one writes it first


def test_names_that_are_exchanged_live_as_one():
    loop = While("go", (Launch("k", ("a", "b"), writes=("b",)), Rebind(("a", "b"), ("b", "a"))))
    steps = (Copy("a", "x", 64), SetSize("go", 1), loop, Launch("k", ("a",)))
    program = Program(temporaries=(Temporary("a", 64), Temporary("b", 64)), steps=steps)
    assert live_ranges(program) == {"a": (0, 6), "b": (0, 6)}


def test_branches_share_with_what_lies_beside_them():
    branch = If("go", (Launch("k", ("a",), writes=("a",)),), (Launch("k", ("b",), writes=("b",)),))
    program = plan(Program(temporaries=(Temporary("a", 640), Temporary("b", 640)), steps=(SetSize("go", 1), branch)))
    assert usage(program, {}).peak == 640


@pytest.mark.parametrize("count", [10_000])
def test_ten_thousand_buffers_take_seconds_at_most(count):
    """Not a test of speed: a quadratic algorithm in Python would take minutes."""
    begin = time.perf_counter()
    report = usage(plan(chain(count)), {"B": 3})
    assert report.peak == report.lower_bound
    assert time.perf_counter() - begin < 30
