"""The harness: one process each, turns in order, failures told apart from times."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest

FOLDER = str(Path(__file__).parents[2] / "benchmarks")


@pytest.fixture
def turns(monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)
    import turns

    yield turns
    del sys.modules["turns"]


def sleeper(milliseconds: float):
    def call() -> int:
        time.sleep(milliseconds / 1e3)
        return os.getpid()

    return call


def broken_setup():
    raise ValueError("no such engine")


def breaks_later(path: str):
    def call() -> None:
        calls = Path(path)
        calls.write_text(calls.read_text() + "x" if calls.exists() else "x")
        if len(calls.read_text()) > 3:
            os._exit(1)

    return call


def test_each_lives_in_its_own_process_and_is_timed(turns):
    quick, slow = turns.Contestant("quick", sleeper, (1,)), turns.Contestant("slow", sleeper, (20,))
    turns.take_turns([quick, slow], rounds=2, budget=0.01)
    assert len({quick.answer, slow.answer, os.getpid()}) == 3
    assert len(quick.rounds) == len(slow.rounds) == 2
    assert 0.001 <= quick.median and 0.020 <= slow.median


def test_a_failure_is_reported_and_spares_the_others(turns, tmp_path):
    wrong = turns.Contestant("wrong", broken_setup, ())
    dying = turns.Contestant("dying", breaks_later, (str(tmp_path / "calls"),))
    right = turns.Contestant("right", sleeper, (1,))
    turns.take_turns([wrong, dying, right], rounds=2, budget=0.01)
    assert wrong.failure == "ValueError: no such engine"
    assert dying.failure == "the process died"
    assert right.failure is None and len(right.rounds) == 2
