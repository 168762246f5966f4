"""Broken files: every mutator breaks something, the law catches what readers do wrong, and effcc's keep to it."""

import json
import os
import random
import tempfile
import time
from collections import Counter

import pytest

from effcc.errors import EffccError, ParseError
from effcc.fuzz.malformed import artifacts, campaign, law, models, octets, texts
from effcc.fuzz.malformed.corpus import Corpus
from effcc.fuzz.malformed.law import Broken, Sandbox, Watch, hold


@pytest.fixture(scope="module")
def corpus():
    return Corpus.small()


@pytest.fixture(scope="module")
def watched(tmp_path_factory):
    """A sandbox, and the watch over it: one for the process, as audit hooks stay."""
    before = dict(os.environ)
    folder = os.getcwd()
    box = Sandbox.make(tmp_path_factory.mktemp("sandbox"))
    os.chdir(box.model)
    watch = Watch(box)
    yield box, watch
    watch.on = False
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(before)
    tempfile.tempdir = None


def draws(count=60):
    return [random.Random(k) for k in range(count)]


# -- mutators --
@pytest.mark.parametrize("name", models.CHANGES)
def test_every_change_of_models_changes_one(corpus, name):
    import onnx

    changed = 0
    for draw in draws():
        model = onnx.ModelProto.FromString(draw.choice(corpus.onnx))
        before = model.SerializeToString(deterministic=True)
        try:
            models.CHANGES[name](draw, model, corpus.onnx)
            changed += model.SerializeToString(deterministic=True) != before
        except models.NothingToChange:
            continue
        except ValueError:  # too deep for protobuf
            changed += 1
    assert changed > 10


@pytest.mark.parametrize("name", texts.CHANGES)
def test_every_change_of_texts_changes_one(corpus, name):
    made = [(t, texts.CHANGES[name](draw, t, corpus.effir)) for draw in draws() for t in [draw.choice(corpus.effir)]]
    assert sum(before != after for before, after in made) > 20


@pytest.mark.parametrize("name", artifacts.CHANGES)
def test_every_change_of_artifacts_changes_one(corpus, name):
    changed = 0
    for draw in draws(20):
        entries = artifacts.unpack(corpus.effcc[0])
        artifacts.CHANGES[name](draw, entries)
        changed += entries != artifacts.unpack(corpus.effcc[0])
    assert changed > 5


@pytest.mark.parametrize("name", artifacts.STRUCTURES)
def test_every_other_structure_is_another_file(corpus, name):
    data = artifacts.STRUCTURES[name](random.Random(1), artifacts.unpack(corpus.effcc[0]))
    assert data != corpus.effcc[0]


def test_bytes_change():
    assert sum(octets.mutate(bytes(range(200)), draw) != bytes(range(200)) for draw in draws()) > 50


def test_an_artifact_packed_again_is_the_same_to_a_reader(corpus, watched):
    """Else the changes inside of it would never be reached."""
    box, watch = watched
    path = box.model / "m.effcc"
    entries = artifacts.unpack(corpus.effcc[0])
    artifacts.sign(entries)
    path.write_bytes(artifacts.pack(entries))
    assert hold(box, watch, path, "load") == "works"
    assert hold(box, watch, path, "$ verify FILE") == "works"
    path.unlink()


def test_a_file_of_a_key_is_always_the_same(corpus):
    for k in range(30):
        assert campaign.make(corpus, f"7 {k}") == campaign.make(corpus, f"7 {k}")


# -- the law --
def reads_a_key(path):
    return {}["graph"]


def hangs(path):
    while True:
        pass


def writes_elsewhere(path):
    (path.parent.parent.parent / "escaped").write_text("x")


def leaves_a_file(path):
    (path.parent / "left").write_text("x")


def follows_a_link(path):
    (path.parent / "link.bin").read_bytes()


def takes_all_memory(path):
    raise MemoryError


def says_too_much(path):
    error = ParseError("x")
    error.args = ("two\nlines",)
    raise error


def does_not_know(path):
    raise ParseError("cannot be read", hint="this is a bug in effcc")


PLANTED = {
    reads_a_key: "traceback",
    hangs: "hang",
    writes_elsewhere: "written",
    leaves_a_file: "left",
    follows_a_link: "read",
    takes_all_memory: "memory",
    says_too_much: "lines",
    does_not_know: "unforeseen",
}


@pytest.mark.parametrize("reader", PLANTED, ids=lambda f: f.__name__)
def test_the_law_catches(watched, monkeypatch, reader):
    box, watch = watched
    monkeypatch.setitem(law.API, "read", reader)
    monkeypatch.setattr(law, "SECONDS", 0.2)
    with pytest.raises(Broken) as broken:
        hold(box, watch, box.model / "data.bin", "read")
    assert broken.value.kind == PLANTED[reader]
    (box.model / "left").unlink(missing_ok=True)


def test_refusals_and_what_works_are_within_the_law(watched, monkeypatch):
    box, watch = watched

    def refuses(path):
        raise EffccError("no")

    monkeypatch.setitem(law.API, "read", refuses)
    assert hold(box, watch, box.model / "data.bin", "read") == "refused"
    monkeypatch.setitem(law.API, "read", lambda path: None)
    assert hold(box, watch, box.model / "data.bin", "read") == "works"


@pytest.mark.parametrize(
    ("status", "stderr", "kind"),
    [
        (0, "", None),
        (2, "error: no such op\n", None),
        (1, "Traceback (most recent call last):\n  File\nKeyError: 'x'\n", "traceback"),
        (2, "error: one\nand another\n", "lines"),
        (2, "warning\n", "lines"),
        (2, "error: \x1b[31m\n", "lines"),
        (2, f"error: {'x' * 5000}\n", "lines"),
        (-11, "", "status"),
        (1, "", "status"),
    ],
)
def test_the_law_of_the_command(status, stderr, kind):
    if kind is None:
        assert law.judge("opt", status, stderr) == (status == 0)
        return
    with pytest.raises(Broken) as broken:
        law.judge("opt", status, stderr)
    assert broken.value.kind == kind


def test_a_site_is_the_last_place_inside_effcc():
    trace = (
        'Traceback (most recent call last):\n  File "/x/effcc/text/parser.py", line 3, in parse\n    json.loads(x)\n'
        '  File "/usr/lib/python3/json/decoder.py", line 9, in decode\n    raise\njson.decoder.JSONDecodeError: no\n'
    )
    assert law.site(trace) == "effcc/text/parser.py parse json.decoder.JSONDecodeError"


# -- effcc's readers --
@pytest.mark.parametrize("part", range(3))
def test_broken_files_are_refused_in_one_line(corpus, watched, part):
    box, watch = watched
    outcomes = Counter()
    for k in range(50 * part, 50 * part + 50):
        answer = campaign.test(box, watch, corpus, 11, k)
        assert "finding" not in answer, answer["finding"]
        outcomes.update(answer["outcomes"].values())
    assert outcomes["refused"] > 20 and outcomes["works"] > 3


# -- the campaign --
def test_a_stuck_or_dead_worker_is_a_finding(tmp_path, monkeypatch):
    """The watchdog alone: a worker whose process ended, and one that gives no answer."""
    from multiprocessing import Pipe, Process

    (tmp_path / "sandbox-0" / "model").mkdir(parents=True)
    (tmp_path / "sandbox-0" / "model" / "m.onnx").write_bytes(b"x")
    (tmp_path / "worker-0.log").write_text("")
    monkeypatch.setattr(campaign.Worker, "start", lambda self: None)
    worker = campaign.Worker(tmp_path, 0, seed=0)
    worker.connection, theirs = Pipe()
    worker.process = Process(target=time.sleep, args=(0,))
    worker.process.start()
    worker.file, worker.at, worker.since = 3, "import", time.monotonic() - 1000
    stuck = worker.answer()
    assert stuck["finding"]["kind"] == "hang" and stuck["number"] == 3 and stuck["kind"] == ".onnx"
    worker.process.join()
    theirs.close()
    dead = worker.answer()
    assert dead["finding"]["kind"] == "crash" and dead["last"]
    campaign._keep(tmp_path, dead["finding"], dead, worker)
    (kept,) = campaign.findings(tmp_path)
    assert kept.read_bytes() == b"x" and json.loads(campaign.about(kept).read_text())["action"] == "import"


@pytest.mark.slow
def test_a_campaign_goes_on_where_it_stopped(tmp_path):
    """In the middle of writing a line."""
    Corpus.small()._save(tmp_path / "corpus.zip")
    (tmp_path / "done-5.jsonl").write_text(
        '{"number": 1, "kind": ".onnx", "changes": [], "outcomes": {"import": "refused"}, "seconds": 0.5}\n{"numb'
    )
    tally, found = campaign.run(tmp_path, seed=5, jobs=1, files=3)
    assert not found and tally.files.total() == 3
    assert sorted(answer["number"] for answer in campaign._recorded(tmp_path / "done-5.jsonl")) == [0, 1, 2]
