"""Limits on the processor's time that something may take, which other processes do not lengthen, and on memory."""

from __future__ import annotations

import contextlib
import resource
import signal
from collections.abc import Callable, Iterator

GRAPH_SECONDS = 30.0
"""The processor's time that one graph may take."""
MEMORY = 8 << 30
"""Bytes that a process of a campaign may have: what asks for more gets an error, and is a finding."""


class OutOfTime(BaseException):
    """Not an Exception: nobody between the limit and what is inside takes it for a failure of his own."""


@contextlib.contextmanager
def limited(seconds: float, error: Callable[[], BaseException] = OutOfTime) -> Iterator[None]:
    """Raises an error where what is inside takes more of the processor's time, all threads together. In the main thread
    only, and one at a time: it is a timer of the process.

    >>> with limited(0.01):
    ...     while True: pass
    Traceback (most recent call last):
    effcc.fuzz.limit.OutOfTime
    """

    def over(*_: object) -> None:
        raise error()

    before = signal.signal(signal.SIGPROF, over)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def too_long() -> TimeoutError:
    """An Exception: a pass that does not end is a finding."""
    return TimeoutError(f"it takes more than {GRAPH_SECONDS:g} s")


def limit_memory() -> None:
    """From now on, for the whole process."""
    _, most = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY if most == resource.RLIM_INFINITY else min(MEMORY, most), most))
