"""The harness: one process each, turns in order, failures told apart from times."""

from __future__ import annotations

import os
import time
from pathlib import Path

from effcc.turns import Contestant, take_turns


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


def test_each_lives_in_its_own_process_and_is_timed():
    quick, slow = Contestant("quick", sleeper, (1,)), Contestant("slow", sleeper, (20,))
    take_turns([quick, slow], rounds=2, budget=0.01)
    assert len({quick.answer, slow.answer, os.getpid()}) == 3
    assert len(quick.rounds) == len(slow.rounds) == 2
    assert 0.001 <= quick.median and 0.020 <= slow.median


def test_a_failure_is_reported_and_spares_the_others(tmp_path):
    wrong = Contestant("wrong", broken_setup, ())
    dying = Contestant("dying", breaks_later, (str(tmp_path / "calls"),))
    right = Contestant("right", sleeper, (1,))
    take_turns([wrong, dying, right], rounds=2, budget=0.01)
    assert wrong.failure == "ValueError: no such engine"
    assert dying.failure == "the process died"
    assert right.failure is None and len(right.rounds) == 2
