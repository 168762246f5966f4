"""Calibration data: what is a sample, what is a batch, and what fits a graph."""

import numpy as np
import pytest

import effcc
from effcc.driver import compile_graph
from effcc.errors import InputError
from effcc.ir import Builder, Symbol, Tensor, f32, i64
from effcc.pipeline import Instrument
from effcc.search.data import BATCH, Samples


def graph_of(*types):
    b = Builder("model")
    inputs = [b.input(name, t) for name, t in zip("xyzw", types, strict=False)]
    return b.graph(b.neg(inputs[0]))


N = Symbol("N", 1)
VECTORS = graph_of(Tensor(f32, (N, 4)))
ROWS = np.arange(40, dtype="f4").reshape(10, 4)
LABELS = np.arange(10) % 3


def joined(samples):
    """What the batches hold, one after the other, and their sizes."""
    batches = [b[0] for b in samples.batches()]
    return np.concatenate(batches), [len(b) for b in batches]


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "data.npz"
    np.savez(path, x=ROWS, labels=LABELS)
    return path


def test_a_file_holds_arrays_by_name_and_labels(file):
    for source in (file, str(file)):
        samples = Samples.load(source, VECTORS)
        assert len(samples) == 10 and np.array_equal(samples.labels, LABELS)
        assert np.array_equal(joined(samples)[0], ROWS)


def test_samples_and_batches_from_an_iterator_are_the_same_samples():
    def pairs(size):
        return ((ROWS[k : k + size], LABELS[k : k + size]) for k in range(0, 10, size))

    sources = (
        iter(ROWS),  # arrays of a sample each
        zip(ROWS, LABELS, strict=True),  # with their labels
        ({"x": r} for r in ROWS),
        (ROWS[k : k + 4] for k in range(0, 10, 4)),  # batches, of which the last is smaller
        pairs(3),
        [r[None] for r in ROWS],
        {"x": ROWS, "labels": LABELS[:, None]},
    )
    for source in sources:
        samples = Samples.load(source, VECTORS)
        assert np.array_equal(joined(samples)[0], ROWS)
        assert samples.labels is None or np.array_equal(samples.labels, LABELS)
    assert Samples.load(pairs(3), VECTORS).labels is not None


def test_batches_are_of_sizes_that_the_graph_takes():
    many = np.zeros((BATCH + 5, 4), "f4")

    def sizes(dim, rows):
        return joined(Samples.load({"x": rows}, graph_of(Tensor(f32, (dim, 4)))))[1]

    assert sizes(N, many) == [BATCH, 5]
    assert sizes(Symbol("B", 1, 4), ROWS) == [4, 4, 2]
    assert sizes(Symbol("B", 4, 4), ROWS) == [4, 4, 4]
    assert sizes(Symbol("B", 3, 4), ROWS[:9]) == [4, 4, 3]
    assert sizes(1, ROWS) == [1] * 10
    assert sizes(4, ROWS) == [4, 4, 4]
    filled = joined(Samples.load({"x": ROWS}, graph_of(Tensor(f32, (4, 4)))))[0]
    assert np.array_equal(filled[:10], ROWS) and np.array_equal(filled[10:], ROWS[[9, 9]])


def test_an_axis_in_front_of_the_inputs_own():
    graph = graph_of(Tensor(f32, (2, N, 3)), Tensor(i64, ()))
    given = {"x": np.zeros((5, 2, 7, 3)), "y": np.arange(5)}
    batches = list(Samples.load(given, graph).batches())
    assert [x.shape for x, _ in batches] == [(2, 7, 3)] * 5
    assert [int(y) for _, y in batches] == list(range(5))
    assert batches[0][0].dtype == np.float32
    samples = Samples.load(([given["x"][k], given["y"][k]] for k in range(5)), graph)
    assert [x.shape for x, _ in samples.batches()] == [(2, 7, 3)] * 5


def test_splits_are_disjoint_and_keep_labels_beside_their_samples():
    first, second = Samples.load({"x": ROWS, "labels": np.arange(10)}, VECTORS).split(0.3)
    assert len(first) == 3 and len(second) == 7
    for part in (first, second):
        assert np.array_equal(part.arrays[0], ROWS[part.labels])
    assert set(first.labels) | set(second.labels) == set(range(10))


def test_an_input_called_y_is_no_label():
    graph = graph_of(Tensor(f32, (N, 4)), Tensor(f32, (N,)))
    assert Samples.load({"x": ROWS, "y": np.zeros(10, "f4")}, graph).labels is None


def test_fixed_inputs_need_no_samples():
    graph = graph_of(Tensor(f32, (2, 3)), Tensor(i64, ()))
    samples = Samples.load({"x": np.zeros((4, 2, 3), "f4")}, graph, fixed={"y": np.asarray(7)})
    assert [int(y) for _, y in samples.batches()] == [7] * 4


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ({}, "no array for input 'x'.*empty"),
        ({"images": ROWS}, "no array for input 'x'; it holds images"),
        ({"x": ROWS[:, :3]}, "'x' is f32.N,4., the samples are 10x3"),
        ({"x": np.zeros(())}, "the samples are scalars"),
        ({"x": ROWS.astype("c8")}, "'x' is f32, the samples are complex64"),
        ({"x": ROWS, "labels": LABELS[:4]}, "different numbers of samples: 4, 10"),
        ({"x": ROWS, "labels": LABELS / 2}, "labels are class indices"),
        ({"x": ROWS[:0]}, "no samples"),
        ([], "no array for input 'x'"),
        ([(ROWS[0], 1, 2)], "a sample holds 3 arrays, the model takes 1 inputs"),
        ([{"x": ROWS[0]}, {"x": ROWS[0], "labels": 1}], "differ in which inputs"),
        ([ROWS[0], ROWS[0, :3]], "shapes 3 and 4"),
        (7, "a int holds no samples"),
        ("absent.npz", "absent.npz: there is no such file"),
    ],
)
def test_what_does_not_fit_is_told_in_one_line(source, words):
    with pytest.raises(InputError, match=words) as caught:
        Samples.load(source, VECTORS)
    assert "\n" not in str(caught.value)


def test_files_that_are_no_npz(tmp_path):
    (tmp_path / "text.npz").write_text("not a zip")
    np.save(tmp_path / "one.npy", ROWS)
    np.savez(tmp_path / "objects.npz", x=np.array([{}, 1], dtype=object))
    for name in ("text.npz", "one.npy", "objects.npz"):
        with pytest.raises(InputError, match="is no .npz file"):
            Samples.load(tmp_path / name, VECTORS)


def test_compile_hands_samples_to_the_passes(file):
    class Watch(Instrument):
        def before(self, p, graph, ctx):
            self.seen = ctx.calibration

    for source in (file, {"x": ROWS, "labels": LABELS}, zip(ROWS, LABELS, strict=True)):
        watch = Watch()
        effcc.compile(VECTORS, passes="dce", calibration=source, instruments=(watch,))
        assert isinstance(watch.seen, Samples) and np.array_equal(watch.seen.labels, LABELS)
        assert np.array_equal(joined(watch.seen)[0], ROWS)
    program = compile_graph(VECTORS, passes="dce", calibration=str(file))
    assert len(program.context.calibration) == 10
