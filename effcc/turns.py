"""Measures in turns: each contestant lives in a process of its own and sleeps until the parent hands it the machine.

A B C A B C …: a machine that slows down for a while slows all of them. One process each, because thread pools of
several engines in one process disturb each other, and because no engine may profit from what another one has loaded.
"""

from __future__ import annotations

import statistics
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any


@dataclass
class Contestant:
    """`setup(*arguments)` runs in the child and returns the call to measure. Times are in seconds."""

    name: str
    setup: Callable[..., Callable[[], Any]]
    arguments: tuple[Any, ...]
    setup_time: float = 0.0
    answer: Any = None
    rounds: list[float] = field(default_factory=list)
    failure: str | None = None

    @property
    def median(self) -> float:
        return statistics.median(self.rounds)


def live(
    pipe: Connection, setup: Callable[..., Callable[[], Any]], arguments: tuple[Any, ...], answers: bool = True
) -> None:
    """The child: set up once, then wait for turns. A turn is (seconds to spend) -> median seconds a call."""
    try:
        start = time.perf_counter()
        call = setup(*arguments)
        answer = call()
        pipe.send((time.perf_counter() - start, answer if answers else None))
        while (budget := pipe.recv()) is not None:
            call()  # wake up: caches, clocks, the thread pool
            times = []
            end = time.perf_counter() + budget
            while len(times) < 3 or time.perf_counter() < end:
                start = time.perf_counter()
                call()
                times.append(time.perf_counter() - start)
            pipe.send(statistics.median(times))
    except Exception as error:
        if answers:
            traceback.print_exc()
        pipe.send(f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"[:200])


def take_turns(
    contestants: list[Contestant], rounds: int, budget: float, patience: float = 900, answers: bool = True
) -> None:
    """Set all up, one after the other, then give each `budget` seconds a round (but three calls at the least).

    Results go into the contestants; without `answers` not what the calls give, nor a traceback on stderr.
    """
    context = get_context("spawn")
    playing = []
    for contestant in contestants:
        ours, theirs = context.Pipe()
        given = (theirs, contestant.setup, contestant.arguments, answers)
        process = context.Process(target=live, args=given, daemon=True)
        process.start()
        theirs.close()
        playing.append((contestant, process, ours))
        reply = receive(ours, patience)
        if isinstance(reply, str):
            contestant.failure = reply
        else:
            contestant.setup_time, contestant.answer = reply
    for _ in range(rounds):
        for contestant, _, pipe in playing:
            if contestant.failure is None:
                time.sleep(0.02)  # the last one's threads stop spinning
                pipe.send(budget)
                reply = receive(pipe, patience)
                if isinstance(reply, str):
                    contestant.failure = reply
                else:
                    contestant.rounds.append(reply)
    for contestant, process, pipe in playing:
        if contestant.failure is None:
            pipe.send(None)
        process.join(timeout=10)
        if process.is_alive():
            process.kill()


def receive(pipe: Connection, patience: float) -> Any:
    """The child's next message; its failure as a string if it died or took too long."""
    try:
        return pipe.recv() if pipe.poll(patience) else f"no answer in {patience:.0f} s"
    except EOFError:
        return "the process died"
